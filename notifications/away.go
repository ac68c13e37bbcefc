package notifications

import (
	"sync"

	"github.com/groundworkhq/groundwork/jobs"
)

// away are the batches that this process has sent away because enough others keep
// their provider busy. They come back by themselves after a while ([RetryPolicy].Away); the first of
// them is called back when a batch of their channel is over, so that a provider is not
// idle meanwhile. Losing the list costs no more than that time. The zero value is
// ready.
type away struct {
	mu      sync.Mutex
	batches map[Channel][]awayBatch // in the order in which they left
}

type awayBatch struct {
	args             BatchArgs
	queue, requestID string
}

// goes notes that a batch was sent away.
func (a *away) goes(b awayBatch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.batches == nil {
		a.batches = map[Channel][]awayBatch{}
	}
	a.batches[b.args.Channel] = append(a.batches[b.args.Channel], b)
}

// back notes that a batch is at work.
func (a *away) back(args BatchArgs) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.batches[args.Channel]
	for i := range all {
		if all[i].args == args {
			a.batches[args.Channel] = append(all[:i], all[i+1:]...)
			return
		}
	}
}

// next takes the batch of a channel that has been away for longest.
func (a *away) next(ch Channel) (b awayBatch, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.batches[ch]
	if len(all) == 0 {
		return b, false
	}
	a.batches[ch] = all[1:]
	return all[0], true
}

// callBack asks for one batch of a channel that is away. Its own job stays, and finds
// nothing to do.
func (s *Sender) callBack(ch Channel) {
	b, ok := s.away.next(ch)
	if !ok {
		return
	}
	if _, err := jobs.Enqueue(s.app, b.args, jobs.Options{Queue: b.queue, RequestID: b.requestID}); err != nil {
		s.log.Warn("a batch that waits cannot be called back; it comes by itself in a few seconds", "notification", b.args.Notification, "batch", b.args.Batch, "error", err)
	}
}
