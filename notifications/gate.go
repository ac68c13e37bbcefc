package notifications

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrProviderChanged is what [Gate.Acquire] returns once its provider was
// edited, switched off or deleted: ask [Providers.Active] again.
var ErrProviderChanged = errors.New("this provider was changed meanwhile")

const (
	// maxGatePause bounds what a provider's Retry-After can do: after that long
	// one more message finds out.
	maxGatePause = 15 * time.Minute

	// rateBurst is how much of a second's messages may leave at once under a
	// high rate limit, because timers are late by a millisecond or so. Limits of
	// 20 a second and less, such as telephone carriers set, are kept exactly.
	rateBurst = 50 * time.Millisecond
)

// Gate lets as many messages through to one provider as it can take: a number
// at a time that starts low, grows while messages are taken and is halved when
// they are refused, and a number per second that the owner sets. All messages
// of a provider go through one gate, whichever job they belong to. It is safe
// for concurrent use.
type Gate struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced whenever a waiter may have a chance
	closed   error         // not nil: nobody gets through any more
	onIdle   func()        // called once, when closed and nothing is in flight
	inFlight int
	waiting  int // in acquire
	urgent   int // of them those that are urgent

	limit     float64 // how many may be in flight; between 1 and most
	most      float64
	ceiling   float64 // the highest most; the adapter's own
	accepted  bool    // a message was taken once
	threshold float64 // below it the limit grows by one a message, above it by one a round
	grace     int     // answers still to come from before the last cut
	answered  int     // answers in the current round
	refused   int     // how many of them were refusals of single messages

	pausedUntil time.Time
	pace        *pace

	configBadAt time.Time // last answer [ConfigBad]
}

func newGate(limits Limits, ratePerSecond float64) *Gate {
	start := max(limits.StartInFlight, 1)
	most := float64(max(limits.MaxInFlight, start))
	return &Gate{changed: make(chan struct{}), limit: float64(start), most: most, ceiling: most, threshold: most, pace: newPace(ratePerSecond)}
}

// pace keeps a number of messages per second. Two gates share one where messages go
// to the same provider in two ways.
type pace struct {
	mu         sync.Mutex
	perMessage time.Duration // time between two messages; 0: no rate limit
	nextAt     time.Time     // when the next message is due
}

func newPace(ratePerSecond float64) *pace {
	p := &pace{}
	if ratePerSecond > 0 {
		p.perMessage = time.Duration(float64(time.Second) / ratePerSecond)
	}
	return p
}

// take counts a message, or says how long to wait for its turn.
func (p *pace) take(now time.Time) (wait time.Duration) {
	if p.perMessage == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	earliest := now
	if p.perMessage < rateBurst {
		earliest = now.Add(-rateBurst)
	}
	if p.nextAt.Before(earliest) {
		p.nextAt = earliest
	}
	if wait := p.nextAt.Sub(now); wait > 0 {
		return wait
	}
	p.nextAt = p.nextAt.Add(p.perMessage)
	return 0
}

// Acquire waits until a message may be handed over. A nil error must be
// followed by one [Gate.Release]. The error is ctx's, [ErrProviderChanged], or
// a [*PausedError].
func (g *Gate) Acquire(ctx context.Context) error { return g.acquire(ctx, false, false) }

// errCrowded is what acquireUnlessCrowded returns to a batch that had better come
// back later.
var errCrowded = errors.New("enough batches wait for this provider already")

// acquireUnlessCrowded is [Gate.Acquire] that gives up after crowdPatience when
// enoughWaiters wait besides.
func (g *Gate) acquireUnlessCrowded(ctx context.Context) error { return g.acquire(ctx, false, true) }

// AcquireUrgent is [Gate.Acquire] for codes and sign-in mails: it goes before
// everybody who waits in Acquire.
func (g *Gate) AcquireUrgent(ctx context.Context) error { return g.acquire(ctx, true, false) }

func (g *Gate) acquire(ctx context.Context, urgent, unlessCrowded bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if urgent {
		g.urgent++
		defer func() {
			if g.urgent--; g.urgent == 0 {
				g.wake()
			}
		}()
	}
	var since time.Time // when it began to wait
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if g.closed != nil {
			return g.closed
		}
		wait, ok := g.try(urgent)
		if ok {
			return nil
		}
		if since.IsZero() {
			since = time.Now()
			g.waiting++
			defer func() { g.waiting-- }() // mu is held: it is unlocked after this
		}
		if unlessCrowded {
			switch left := crowdPatience - time.Since(since); {
			case left > 0 && (wait == 0 || left < wait):
				wait = left
			case left <= 0 && g.waitingBatches() > enoughWaiters:
				return errCrowded
			}
		}
		changed := g.changed
		g.mu.Unlock()
		sleep(ctx, changed, wait)
		g.mu.Lock()
	}
}

// try takes a place, or says how long to wait when only time is missing (0: for
// something else). The caller holds mu.
func (g *Gate) try(urgent bool) (time.Duration, bool) {
	if !urgent && g.urgent > 0 || g.inFlight >= int(g.limit) {
		return 0, false
	}
	now := time.Now()
	if wait := g.pausedUntil.Sub(now); wait > 0 {
		return wait, false
	}
	if wait := g.pace.take(now); wait > 0 {
		return wait, false
	}
	g.inFlight++
	return 0, true
}

// sleep waits for the first of ctx, changed and d; d is not waited for when 0.
func sleep(ctx context.Context, changed <-chan struct{}, d time.Duration) {
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer:
	}
}

// setCapacity follows what the peer says that it takes at a time, up and down.
// What is in flight above it is let finish.
func (g *Gate) setCapacity(inFlight int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	most := min(float64(max(inFlight, 1)), g.ceiling)
	if most == g.most {
		return
	}
	if g.threshold >= g.most || g.threshold > most {
		g.threshold = most // nothing was learned yet, or it is over
	}
	g.most = most
	g.limit = min(g.limit, most)
	g.wake()
}

const (
	// enoughWaiters is how many batches at a gate keep a provider busy: while one
	// ends the other goes on.
	enoughWaiters = 2

	// crowdPatience is how long one more waits for a place. A provider that works has
	// given it one by then.
	crowdPatience = time.Second
)

func (g *Gate) crowded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waitingBatches() >= enoughWaiters
}

// waitingBatches is how many wait but for codes. The caller holds mu.
func (g *Gate) waitingBatches() int { return g.waiting - g.urgent }

// everAccepted reports whether the provider has taken a message.
func (g *Gate) everAccepted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.accepted
}

// Release gives the place back and learns from the answer. The zero Outcome
// means that nothing was handed over after all.
func (g *Gate) Release(outcome Outcome) {
	g.mu.Lock()
	full := g.inFlight >= int(g.limit)
	g.inFlight--
	g.learn(outcome, full)
	var idle func()
	if g.closed != nil && g.inFlight == 0 {
		idle, g.onIdle = g.onIdle, nil
	}
	g.wake()
	g.mu.Unlock()
	if idle != nil {
		idle()
	}
}

// learn adapts the limit. full says that this message was one of as many as
// were allowed: only then has its success shown that more may be tried. The
// caller holds mu.
func (g *Gate) learn(o Outcome, full bool) {
	switch o.Kind {
	case ConfigBad:
		g.configBadAt = time.Now()
		return
	case Accepted:
		g.accepted = true
	case TargetGone, RecipientBlocked, PayloadBad, Retry, Ambiguous:
	default:
		return
	}
	if o.Kind == Retry && o.ProviderDown && o.RetryAfter > 0 {
		if until := time.Now().Add(min(o.RetryAfter, maxGatePause)); until.After(g.pausedUntil) {
			g.pausedUntil = until
		}
	}
	if g.grace > 0 {
		// It was in flight when the limit was cut: it says nothing new.
		g.grace--
		return
	}
	g.answered++
	switch {
	case o.Kind == Ambiguous || o.Kind == Retry && o.ProviderDown:
		g.cut()
	case o.Kind == Retry:
		// A single refusal may be about that recipient (greylisting). When half
		// of a round is refused it is about us.
		if g.refused++; g.answered >= int(g.limit) && 2*g.refused >= g.answered {
			g.cut()
		}
	case full && g.limit < g.threshold:
		g.limit = min(g.limit+1, g.most)
	case full:
		g.limit = min(g.limit+1/g.limit, g.most)
	}
	if g.answered >= int(g.limit) {
		g.answered, g.refused = 0, 0
	}
}

func (g *Gate) cut() {
	g.limit = max(g.limit/2, 1)
	g.threshold = g.limit
	g.grace = g.inFlight
	g.answered, g.refused = 0, 0
}

// close turns everybody away with err from now on. idle is called as soon as
// nothing is in flight, at once if nothing is.
func (g *Gate) close(err error, idle func()) {
	g.mu.Lock()
	if g.closed != nil {
		g.mu.Unlock()
		return
	}
	g.closed = err
	if g.inFlight > 0 {
		g.onIdle, idle = idle, nil
	}
	g.wake()
	g.mu.Unlock()
	if idle != nil {
		idle()
	}
}

// idle reports whether nothing is in flight.
func (g *Gate) idle() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inFlight == 0
}

// saidConfigBad reports whether the provider has called the configuration wrong
// since t.
func (g *Gate) saidConfigBad(t time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.configBadAt.After(t)
}

// wake lets all waiters look again. They are few: one per running batch. The
// caller holds mu.
func (g *Gate) wake() {
	if g.waiting == 0 {
		return
	}
	close(g.changed)
	g.changed = make(chan struct{})
}
