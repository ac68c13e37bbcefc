package fcm

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout  = 20 * time.Second
	limitTimeout = 5 * time.Second

	// maxIdle is how long a connection is kept without a message.
	maxIdle = 90 * time.Second

	// maxLinks is how many connections a peer that speaks HTTP/2 is asked for. Half
	// of them do for Google; one that takes a message at a time is not to be
	// answered with hundreds. HTTP/1.1 needs one for each message.
	maxLinks = 10

	// maxTries is how many connections a message is offered to when those before
	// turn out to be closed before anything of it was sent.
	maxTries = 3
)

// pool spreads the messages over as many connections as the peer's limit of
// streams asks for: five for 500 messages at Google's limit of 100. An
// [http.Transport] would open one for each message above the limit, because
// nobody there waits for a connection that is just being made: 475 were counted.
// It is safe for concurrent use.
type pool struct {
	transport       *http.Transport
	scheme, address string
	ctx             context.Context // of the provider: ends dialling
	closed          atomic.Bool
	waiters         atomic.Int32 // len(waiting), for the hook

	mu       sync.Mutex
	links    []*link
	waiting  []*waiter // the longest first
	dialling int
	capacity int // of the last connection made; 0: none yet
	most     int // connections; 0: not known yet
	tell     func(inFlight int)
	sweeping bool
}

// link is a connection.
type link struct {
	*http.ClientConn
	usedAt time.Time // guarded by the pool's mu
	served bool      // it has carried a message; guarded by the pool's mu
}

// waiter is a message without a place.
type waiter struct {
	place chan place // holds one
}

type place struct {
	link *link
	used bool // it may have been closed by the peer meanwhile
	err  error
}

// roundTrip sends a request on a connection that has room for it, and sets
// x.left.
func (p *pool) roundTrip(req *http.Request, x *exchange) (*http.Response, error) {
	for try := 1; ; try++ {
		got := p.reserve(req.Context())
		if got.err != nil {
			return nil, got.err
		}
		x.left.Store(false)
		resp, err := got.link.RoundTrip(req)
		if err == nil {
			return resp, nil
		}
		refused := unprocessed(err)
		if refused {
			x.left.Store(false)
		}
		if x.left.Load() || !got.used && !refused || try == maxTries || req.Context().Err() != nil || req.GetBody == nil {
			return nil, err
		}
		body, bodyErr := req.GetBody()
		if bodyErr != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = body
	}
}

// unprocessed tells the errors by which HTTP/2 promises that the peer has done
// nothing with a request (RFC 9113, 8.7): it is as if it had never left. Their
// types are internal to net/http; should the words change, "not known whether
// sent" remains, which is true as well.
func unprocessed(err error) bool {
	words := err.Error()
	return strings.Contains(words, "graceful shutdown GOAWAY") || strings.Contains(words, "REFUSED_STREAM") || strings.Contains(words, "client conn not usable")
}

// reserve returns a connection on which one message more has room.
func (p *pool) reserve(ctx context.Context) place {
	p.mu.Lock()
	if len(p.waiting) == 0 {
		if got, ok := p.takeLocked(); ok {
			p.mu.Unlock()
			return got
		}
	}
	w := &waiter{place: make(chan place, 1)}
	p.waiting = append(p.waiting, w)
	p.waiters.Store(int32(len(p.waiting)))
	p.dialLocked()
	p.mu.Unlock()
	if p.waiters.Load() > 0 {
		p.serve() // room may have come up between the look and the queue
	}
	select {
	case got := <-w.place:
		return got
	case <-ctx.Done():
	}
	p.mu.Lock()
	if i := slices.Index(p.waiting, w); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.waiters.Store(int32(len(p.waiting)))
	}
	p.mu.Unlock()
	select {
	case got := <-w.place: // served at the last moment
		if got.link != nil {
			got.link.Release()
			p.serve()
		}
	default:
	}
	return place{err: ctx.Err()}
}

// takeLocked takes a place on the first connection that has one, so that those
// at the end fall idle when there is less to do. The caller holds mu.
func (p *pool) takeLocked() (place, bool) {
	for i := 0; i < len(p.links); {
		l := p.links[i]
		if l.Err() != nil {
			p.links = slices.Delete(p.links, i, i+1)
			continue
		}
		if l.Reserve() == nil {
			got := place{link: l, used: l.served}
			l.usedAt, l.served = time.Now(), true
			return got, true
		}
		i++
	}
	return place{}, false
}

// serve gives places to those who wait.
func (p *pool) serve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serveLocked()
}

func (p *pool) serveLocked() {
	for len(p.waiting) > 0 {
		got, ok := p.takeLocked()
		if !ok {
			break
		}
		p.waiting[0].place <- got
		p.waiting = slices.Delete(p.waiting, 0, 1)
	}
	p.waiters.Store(int32(len(p.waiting)))
	p.dialLocked()
}

// dialLocked begins as many connections as those who wait will need. How many
// that are is known once there is one. The caller holds mu.
func (p *pool) dialLocked() {
	for len(p.waiting) > p.dialling*p.capacity && len(p.links)+p.dialling < max(p.most, 1) {
		if p.dialling > 0 && p.capacity == 0 {
			return
		}
		p.dialling++
		go p.dial()
	}
}

func (p *pool) dial() {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	conn, err := p.transport.NewClientConn(ctx, p.scheme, p.address)
	most := maxInFlight
	if err == nil {
		if learnLimit(ctx, conn) {
			most = maxLinks
		}
		err = conn.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialling--
	if err != nil {
		if len(p.links) > 0 {
			return // those who wait get a place on one of these
		}
		for _, w := range p.waiting {
			w.place <- place{err: err}
		}
		p.waiting = nil
		p.waiters.Store(0)
		return
	}
	p.capacity, p.most = max(conn.Available(), 1), most
	if p.tell != nil {
		p.tell(min(p.capacity*most, maxInFlight))
	}
	p.links = append(p.links, &link{ClientConn: conn, usedAt: time.Now()})
	conn.SetStateHook(p.changed)
	p.serveLocked()
	if !p.sweeping {
		p.sweeping = true
		time.AfterFunc(maxIdle, p.sweep)
	}
}

// learnLimit waits for the peer's limit of streams, which is the first thing that
// it says: until then 100 are assumed, and a peer that takes fewer throws the rest
// out, or all. The answer to a ping comes after it. The request is how net/http
// lets x/net/http2 ping; whoever does not know it, as HTTP/1.1, returns an error,
// and the assumption stands. It returns whether the peer speaks HTTP/2.
func learnLimit(ctx context.Context, conn *http.ClientConn) bool {
	ctx, cancel := context.WithTimeout(ctx, limitTimeout)
	defer cancel()
	resp, err := conn.RoundTrip((&http.Request{Method: ":ping"}).WithContext(ctx))
	if err == nil && resp != nil {
		_ = resp.Body.Close()
	}
	return err == nil
}

// changed is called when a connection has room again, or ends. It is called in
// the middle of other calls of the connection, also with mu held, and so must
// not take it.
func (p *pool) changed(conn *http.ClientConn) {
	if p.waiters.Load() > 0 {
		go p.serve()
		return
	}
	if p.closed.Load() && conn.InFlight() == 0 {
		_ = conn.Close()
	}
}

// sweep ends connections that nobody used for a while.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links = slices.DeleteFunc(p.links, func(l *link) bool {
		if l.Err() == nil && (l.InFlight() > 0 || time.Since(l.usedAt) < maxIdle) {
			return false
		}
		_ = l.Close()
		return true
	})
	if p.sweeping = len(p.links) > 0; p.sweeping {
		time.AfterFunc(maxIdle, p.sweep)
	}
}

// close ends the connections without a message; the others end with theirs.
func (p *pool) close() {
	p.closed.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links = slices.DeleteFunc(p.links, func(l *link) bool {
		if l.InFlight() > 0 {
			return false
		}
		_ = l.Close()
		return true
	})
}
