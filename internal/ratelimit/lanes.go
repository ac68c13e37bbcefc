package ratelimit

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// laneCrowd is how many may wait before the lane gets narrower.
	laneCrowd = 8
	// lanePatience is how long one waits for its turn; then it goes on all the same.
	// Half of it to one and a half times as long, so that hundreds do not lose it at
	// one moment.
	lanePatience = time.Second
)

var (
	// laneWidth is how many requests of one client are worked on at once: no more than
	// there are processors for, as somebody else's write waits for all of them.
	laneWidth = min(max(runtime.GOMAXPROCS(0), 2), 4)
	// crowdWidth is how many of a crowd are worked on at once: they leave half of the
	// processors to others.
	crowdWidth = min(max(runtime.GOMAXPROCS(0)/2, 1), laneWidth)
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

func (l *lane) open() bool {
	if len(l.waiting) > laneCrowd {
		return l.inside < crowdWidth
	}
	return l.inside < laneWidth
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
	if len(own.waiting) == 0 && own.open() {
		own.inside++
		l.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	own.waiting = append(own.waiting, turn)
	l.mu.Unlock()

	timer := time.NewTimer(lanePatience/2 + rand.N(lanePatience))
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
	for len(own.waiting) > 0 && own.open() {
		close(own.waiting[0])
		own.waiting = own.waiting[1:]
		own.inside++
	}
	if own.inside == 0 {
		delete(l.lanes, client)
	}
}
