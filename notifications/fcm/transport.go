package fcm

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// The SDK sends again by itself, up to four times, after the status 503 and after
// any error of the transport, even one that came after Google had the message.
// Neither must reach it: the one goes by the first status, the other by the
// second. Both are free, and all decisions are made from the [exchange].
const (
	statusNotRetried = 599 // stands for 503
	statusNoAnswer   = 598 // stands for an error of the transport
)

// maxAnswer is far above any answer of FCM's.
const maxAnswer = 64 << 10

// exchange is what went over the wire for one message, kept beside the SDK, whose
// errors lose what tells "never left" from "left, and no answer".
type exchange struct {
	begun    bool        // the request came as far as the transport
	left     atomic.Bool // some of it was written to a connection
	tokenAge time.Duration
	err      error // no token, no connection, no answer, or none to its end

	status int // 0 without an answer
	header http.Header
	body   []byte
}

type exchangeKey struct{}

func withExchange(ctx context.Context, x *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// courier carries the SDK's requests: it adds the access token, notes what
// happens, and reads the answer to its end.
type courier struct {
	tokens *tokens
	pool   *pool
}

// RoundTrip implements [http.RoundTripper]. It never returns an error.
func (c *courier) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	x, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok {
		x = &exchange{}
	}
	x.begun = true
	if x.err = c.exchange(ctx, req, x); x.err != nil {
		return synthetic(req, statusNoAnswer, http.Header{}, nil), nil
	}
	status := x.status
	if status == http.StatusServiceUnavailable {
		status = statusNotRetried
	}
	return synthetic(req, status, x.header, x.body), nil
}

func (c *courier) exchange(ctx context.Context, req *http.Request, x *exchange) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	token, since, err := c.tokens.get(ctx)
	if err != nil {
		return err
	}
	x.tokenAge = c.tokens.now().Sub(since)
	// The body follows the header, so what had no header yet has not left.
	traced := req.Clone(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { x.left.Store(true) }}))
	token.SetAuthHeader(traced)
	resp, err := c.pool.roundTrip(traced, x)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	x.left.Store(true) // an answer may come before the request is through
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		c.tokens.drop(token)
	}
	x.status, x.header, x.body = resp.StatusCode, resp.Header, body
	return nil
}

func synthetic(req *http.Request, status int, header http.Header, body []byte) *http.Response {
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}
}
