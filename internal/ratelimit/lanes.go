package ratelimit

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// laneWidth is how many requests of one client are worked on at once.
	laneWidth = 4
	// lanePatience is how long one waits for its turn; then it goes on all the same.
	lanePatience = time.Second
)

// Lanes let the requests of one client pass a few at a time, so that the hundreds
// that a limit allows at once do not all stand before somebody else's. Nobody is
// refused here. The zero value is ready for use.
type Lanes struct {
	mu    sync.Mutex
	lanes map[string]*lane
}

type lane struct {
	inside  int
	waiting []chan struct{}
}

// Enter waits for a turn. The client calls Leave afterwards.
func (l *Lanes) Enter(ctx context.Context, client string) {
	l.mu.Lock()
	if l.lanes == nil {
		l.lanes = map[string]*lane{}
	}
	own := l.lanes[client]
	if own == nil {
		own = &lane{}
		l.lanes[client] = own
	}
	if own.inside < laneWidth {
		own.inside++
		l.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	own.waiting = append(own.waiting, turn)
	l.mu.Unlock()

	timer := time.NewTimer(lanePatience)
	defer timer.Stop()
	select {
	case <-turn:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(own.waiting, turn); i >= 0 { // otherwise it got its turn just now
		own.waiting = slices.Delete(own.waiting, i, i+1)
		own.inside++
	}
}

// Leave ends a turn.
func (l *Lanes) Leave(client string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.lanes[client]
	own.inside--
	for own.inside < laneWidth && len(own.waiting) > 0 {
		close(own.waiting[0])
		own.waiting = own.waiting[1:]
		own.inside++
	}
	if own.inside == 0 {
		delete(l.lanes, client)
	}
}
