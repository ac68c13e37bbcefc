package notifications

import (
	"context"
	"sync"
	"time"

	"github.com/groundworkhq/groundwork/jobs"
)

// mostAtWork is how many workers of a queue may be at the batches of one channel:
// a service that takes messages and does not answer keeps those it has for up to
// handOverTimeout, and the others are there for everybody else. Of the default
// queue's 8 it is half; in the bulk queue, where nobody waits for a single message,
// one of the 6 stays free.
var mostAtWork = map[string]int{jobs.QueueDefault: 4, jobs.QueueBulk: 5}

// turns bounds how many workers are at one channel. The zero value is ready.
type turns struct {
	mu    sync.Mutex
	lines map[line]*queued
}

// line is one channel in one queue.
type line struct {
	queue   string
	channel Channel
}

// queued is the state of a line.
type queued struct {
	taken   int
	moved   time.Time     // when somebody entered or left last
	changed chan struct{} // closed and replaced when somebody leaves
}

// enter waits for a turn, for up to crowdPatience; not at all when nobody has moved
// for as long. A nil error must be followed by one call of leave. The error is ctx's
// or [errCrowded].
func (t *turns) enter(ctx context.Context, queue string, channel Channel) (leave func(), err error) {
	most := mostAtWork[queue]
	if most == 0 || channel == "" || channel == ChannelInbox { // the inbox is here: it always answers
		return func() {}, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines == nil {
		t.lines = map[line]*queued{}
	}
	key := line{queue, channel}
	l := t.lines[key]
	if l == nil {
		l = &queued{changed: make(chan struct{})}
		t.lines[key] = l
	}
	for since := time.Now(); l.taken >= most; {
		now := time.Now()
		left := crowdPatience - now.Sub(since)
		if left <= 0 || now.Sub(l.moved) > crowdPatience {
			return nil, errCrowded
		}
		changed := l.changed
		t.mu.Unlock()
		sleep(ctx, changed, left)
		t.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	l.taken++
	l.moved = time.Now()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		l.taken--
		l.moved = time.Now()
		close(l.changed)
		l.changed = make(chan struct{})
	}, nil
}
