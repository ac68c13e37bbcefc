package fcm

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames plays an HTTP/2 server by hand: onHeaders answers a request on the n-th
// connection.
func frames(t *testing.T, onHeaders func(n int32, f *http2.Framer, stream uint32)) net.Addr {
	t.Helper()
	lender := httptest.NewUnstartedServer(nil) // for its certificate
	lender.StartTLS()
	cert := lender.TLS.Certificates
	lender.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: cert, NextProtos: []string{"h2"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	var count atomic.Int32
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n := count.Add(1)
			go func() {
				defer conn.Close()
				if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				f := http2.NewFramer(conn, conn)
				_ = f.WriteSettings()
				for {
					frame, err := f.ReadFrame()
					if err != nil {
						return
					}
					switch frame := frame.(type) {
					case *http2.SettingsFrame:
						if !frame.IsAck() {
							_ = f.WriteSettingsAck()
						}
					case *http2.PingFrame:
						if !frame.IsAck() {
							_ = f.WritePing(true, frame.Data)
						}
					case *http2.HeadersFrame:
						onHeaders(n, f, frame.StreamID)
					}
				}
			}()
		}
	}()
	return listener.Addr()
}

func ok(f *http2.Framer, stream uint32) {
	var block bytes.Buffer
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
}

// What the peer says it did nothing with is offered to the next connection: it
// cannot become two messages.
func TestUnprocessedMessagesMoveOn(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		refuse func(f *http2.Framer, stream uint32)
		again  bool
	}{
		"GOAWAY before this message": {func(f *http2.Framer, _ uint32) { _ = f.WriteGoAway(0, http2.ErrCodeNo, nil) }, true},
		"refused stream":             {func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream) }, true},
		"stream that broke":          {func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeInternal) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			addr := frames(t, func(_ int32, f *http2.Framer, stream uint32) {
				if requests.Add(1) == 1 {
					row.refuse(f, stream)
					return
				}
				ok(f, stream)
			})
			transport := newTransport()
			transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			p := &pool{ctx: ctx, transport: transport, scheme: "https", address: addr.String()}
			defer p.close()
			x := &exchange{}
			traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { x.left.Store(true) }})
			req, err := http.NewRequestWithContext(traced, http.MethodPost, "https://"+addr.String()+"/", strings.NewReader("{}"))
			require.NoError(t, err)
			resp, err := p.roundTrip(req, x)
			if !row.again {
				require.Error(t, err)
				require.True(t, x.left.Load(), "nobody knows what became of it")
				require.EqualValues(t, 1, requests.Load())
				return
			}
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.EqualValues(t, 2, requests.Load())
		})
	}
}
