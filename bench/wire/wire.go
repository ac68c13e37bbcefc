// Package wire sends HTTP requests as raw bytes over one connection, for the
// benchmarks: Go's HTTP client would use more time than the server and hide a
// difference.
package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Client is one keep-alive connection. It is used by one goroutine at a time.
type Client struct {
	conn   net.Conn
	reader *bufio.Reader
	body   []byte
}

// Dial connects. from is the address to come from, such as 127.0.0.2 on
// loopback; empty means that it does not matter.
func Dial(address, from string) (*Client, error) {
	dialer := net.Dialer{}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, reader: bufio.NewReader(conn)}, nil
}

// Close ends the connection.
func (c *Client) Close() { _ = c.conn.Close() }

// Answer is what came back. Body is valid until the next request.
type Answer struct {
	Status     int
	RetryAfter string
	Body       []byte
}

// Request is the bytes of one request. token may be empty; body nil means none,
// otherwise it is JSON.
func Request(method, path, token string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: groundwork-bench\r\nAccept: */*\r\n", method, path)
	if token != "" {
		fmt.Fprintf(&b, "Authorization: %s\r\n", token)
	}
	if body != nil {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// Send sends one request and reads its whole answer.
func (c *Client) Send(request []byte) (Answer, error) {
	var a Answer
	if _, err := c.conn.Write(request); err != nil {
		return a, err
	}
	status, err := c.reader.ReadSlice('\n')
	if err != nil {
		return a, err
	}
	if len(status) < 12 || !bytes.HasPrefix(status, []byte("HTTP/1.1 ")) {
		return a, fmt.Errorf("answered %q", status)
	}
	if a.Status, err = strconv.Atoi(string(status[9:12])); err != nil {
		return a, fmt.Errorf("answered %q", status)
	}
	length := -1
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return a, err
			}
		}
		if bytes.Equal(line, []byte("Transfer-Encoding: chunked")) {
			length = -2
		}
		if value, ok := bytes.CutPrefix(line, []byte("Retry-After: ")); ok {
			a.RetryAfter = string(value)
		}
	}
	switch length {
	case -1:
		return a, errors.New("the answer has no length")
	case -2:
		return a, c.chunks(&a)
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	if _, err := io.ReadFull(c.reader, c.body); err != nil {
		return a, err
	}
	a.Body = c.body
	return a, nil
}

func (c *Client) chunks(a *Answer) error {
	c.body = c.body[:0]
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 32)
		if err != nil {
			return err
		}
		at := len(c.body)
		c.body = slices.Grow(c.body, int(n))[:at+int(n)]
		if _, err := io.ReadFull(c.reader, c.body[at:]); err != nil {
			return err
		}
		if _, err := c.reader.Discard(2); err != nil {
			return err
		}
		if n == 0 {
			a.Body = c.body
			return nil
		}
	}
}

// Good sends one request whose answer must have a 2xx status and contain the
// text.
func (c *Client) Good(request []byte, contains string) error {
	a, err := c.Send(request)
	if err != nil {
		return err
	}
	if a.Status < 200 || a.Status > 299 {
		return fmt.Errorf("answered %d %s", a.Status, a.Body)
	}
	if !bytes.Contains(a.Body, []byte(contains)) {
		return fmt.Errorf("answered %q", a.Body)
	}
	return nil
}

// Quantile of values; 0 is the least and 1 the largest.
func Quantile[T float64 | time.Duration](values []T, q float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1))]
}
