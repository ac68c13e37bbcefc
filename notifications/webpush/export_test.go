package webpush

import (
	"context"
	"net"
	"net/http"
	"time"
)

// What the tests need of the inside.
var (
	IsPublic   = isPublic
	RetryAfter = retryAfter
	MessageID  = messageID
	TopicOf    = topic
)

// Limits that the tests name.
const (
	MaxPayload  = maxPayload
	SendTimeout = sendTimeout
)

// SetClock makes p live at another time.
func SetClock(p *Provider, now func() time.Time) { p.now = now }

// Dial connects as p does.
func Dial(ctx context.Context, p *Provider, address string) (net.Conn, error) {
	return p.transport.DialContext(ctx, "tcp", address)
}

// Stand puts rt in place of p's connections.
func Stand(p *Provider, rt http.RoundTripper) { p.client.Transport = rt }

// Resolve puts another address in place of each that p connects to.
func Resolve(p *Provider, to func(address string) string) {
	dial := p.transport.DialContext
	p.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dial(ctx, network, to(address))
	}
}

// HasProxy says whether p may use one.
func HasProxy(p *Provider) bool { return p.transport.Proxy != nil }
