package fcm

import (
	"context"
	"time"
)

// What the tests need of the inside.
var (
	Payload   = payload
	NewClient = newClient
	Synthetic = synthetic
)

// SetClock makes p live at another time.
func SetClock(p *Provider, now func() time.Time) { p.now, p.tokens.now = now, now }

// AwaitNoConnections returns nil once p has noticed that all its connections are
// over.
func AwaitNoConnections(ctx context.Context, p *Provider) error {
	p.pool.mu.Lock()
	links := p.pool.links
	p.pool.mu.Unlock()
	for _, l := range links {
		for l.Err() == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
	}
	return nil
}
