package providertest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// wire is a connection of the double. It lies between the network and the SMTP
// server, which believes in a plain line, and does what a well-behaved server
// library does not let one do: answer the greeting or DATA with a refusal, hang
// up in the middle, speak no EHLO.
type wire struct {
	raw    net.Conn
	owner  *SMTP
	id     int64
	config *tls.Config // nil: no STARTTLS here

	mu         sync.Mutex
	inner      net.Conn // raw, or TLS over it
	secure     bool
	greeted    bool
	hangUp     bool   // close after the next write
	refuseData []byte // answer to DATA in place of "354"
	inject     []byte // read by the server before anything from the network
	swallow    bool   // the server's next answer goes nowhere

	closed atomic.Bool
}

func (w *wire) Read(p []byte) (int, error) {
	for {
		w.mu.Lock()
		if len(w.inject) > 0 {
			n := copy(p, w.inject)
			w.inject = w.inject[n:]
			w.mu.Unlock()
			return n, nil
		}
		inner, secure := w.inner, w.secure
		w.mu.Unlock()
		n, err := inner.Read(p)
		if err != nil || n == 0 {
			return n, err
		}
		verb := w.owner.behaviour().HangUp
		switch line := strings.ToUpper(string(p[:min(n, 16)])); {
		case verb != "" && strings.HasPrefix(line, verb):
			w.cut()
			return 0, io.EOF
		case !secure && w.config != nil && strings.HasPrefix(line, "STARTTLS\r\n"):
			if reply := w.owner.behaviour().StartTLS; reply.Code != 0 {
				if _, err := io.WriteString(inner, reply.wire()); err != nil {
					return 0, err
				}
				continue
			}
			if err := w.upgrade(inner); err != nil {
				return 0, err
			}
			continue
		case strings.HasPrefix(line, "EHLO") && w.owner.behaviour().NoEHLO:
			if _, err := io.WriteString(inner, "502 5.5.1 Command not implemented\r\n"); err != nil {
				return 0, err
			}
			continue
		}
		return n, nil
	}
}

func (w *wire) upgrade(inner net.Conn) error {
	if _, err := io.WriteString(inner, "220 2.0.0 Ready to start TLS\r\n"); err != nil {
		return err
	}
	secure := tls.Server(inner, w.config)
	if err := secure.Handshake(); err != nil {
		_ = w.raw.Close()
		return fmt.Errorf("upgrade: %w", err)
	}
	w.mu.Lock()
	w.inner, w.secure = secure, true
	w.mu.Unlock()
	return nil
}

// Write gets one line of an answer at a time.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	inner, out := w.inner, p
	first := !w.greeted
	w.greeted = true
	hangUp := w.hangUp
	switch {
	case first:
	case w.swallow:
		w.swallow = bytes.HasPrefix(p[3:], []byte("-"))
		w.mu.Unlock()
		return len(p), nil
	case w.refuseData != nil && bytes.HasPrefix(p, []byte("354 ")):
		// The server now waits for a mail that will not come: end it.
		out, w.refuseData = w.refuseData, nil
		w.inject, w.swallow = []byte(".\r\n"), true
	case w.config != nil && !w.secure && bytes.Equal(p, []byte("250-PIPELINING\r\n")):
		out = append([]byte("250-STARTTLS\r\n"), p...)
	}
	w.mu.Unlock()

	if first {
		b := w.owner.behaviour()
		w.owner.sleep(b.GreetingDelay)
		switch {
		case b.HangUp == "CONNECT":
			w.cut()
			return 0, io.ErrClosedPipe
		case b.Garbage:
			out, hangUp = []byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), true
		}
		if b.Greeting.Code != 0 {
			out, hangUp = []byte(b.Greeting.wire()), true
		}
	}
	if _, err := inner.Write(out); err != nil {
		return 0, err
	}
	if hangUp {
		return len(p), w.Close()
	}
	return len(p), nil
}

// after makes the connection end with the next answer.
func (w *wire) after() {
	w.mu.Lock()
	w.hangUp = true
	w.mu.Unlock()
}

func (w *wire) refuse(reply Reply) {
	w.mu.Lock()
	w.refuseData = []byte(reply.wire())
	w.mu.Unlock()
}

// cut ends the connection without a farewell.
func (w *wire) cut() {
	if tcp, ok := w.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = w.raw.Close()
}

func (w *wire) Close() error {
	if w.closed.Swap(true) {
		return nil
	}
	w.owner.forget(w)
	w.mu.Lock()
	inner := w.inner
	w.mu.Unlock()
	return inner.Close()
}

func (w *wire) isSecure() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.secure
}

func (w *wire) LocalAddr() net.Addr                { return w.raw.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr               { return w.raw.RemoteAddr() }
func (w *wire) SetDeadline(t time.Time) error      { return w.raw.SetDeadline(t) }
func (w *wire) SetReadDeadline(t time.Time) error  { return w.raw.SetReadDeadline(t) }
func (w *wire) SetWriteDeadline(t time.Time) error { return w.raw.SetWriteDeadline(t) }

// wires turns accepted connections into wires.
type wires struct {
	net.Listener
	owner *SMTP
}

func (l wires) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.owner.adopt(conn), nil
}
