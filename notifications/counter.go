package notifications

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// countInterval is the shortest time between two recounts of anything: counts
// are for people to watch, and each recount reads all rows of a notification.
const countInterval = 500 * time.Millisecond

// countAgain is how long after a recount that failed the next one comes. It must:
// the last batch of a notification asks only once.
const countAgain = time.Second

// counter keeps the counts and the final status of notifications. It is the
// only writer of both: it recounts from the delivery rows, so that a crash or a
// repeated job can not make them drift.
type counter struct {
	app core.App
	log *slog.Logger
	now func() time.Time
	// held says whether everything pending waits for paused providers.
	held func(app core.App, notificationID string) (sentence string, held bool)

	mu      sync.Mutex
	dirty   map[string]bool // true: its last batch has ended
	batches map[string]*batchProgress
	wake    chan struct{}
	hurry   chan struct{} // something may have come to its end: do not wait
	stop    chan struct{}
	done    chan struct{}
}

// batchProgress tells when the last batch of a notification was worked in this
// process. It only decides how soon a recount comes, never what it finds.
type batchProgress struct {
	total int // 0 as long as it is being planned
	ended map[int]bool
}

func newCounter(app core.App, log *slog.Logger, now func() time.Time, held func(core.App, string) (string, bool)) *counter {
	return &counter{app: app, log: log, now: now, held: held, dirty: map[string]bool{}, batches: map[string]*batchProgress{},
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// touch asks for a recount of a notification. It returns at once.
func (c *counter) touch(notificationID string) {
	if notificationID == "" {
		return
	}
	c.mu.Lock()
	if !c.dirty[notificationID] {
		c.dirty[notificationID] = false
	}
	c.mu.Unlock()
	signal(c.wake)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// planning says that the batches of a notification are being made.
func (c *counter) planning(notificationID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.batches[notificationID] == nil {
		c.batches[notificationID] = &batchProgress{ended: map[int]bool{}}
	}
}

// planned is touch once all batches of a notification are known.
func (c *counter) planned(notificationID string, total int) {
	c.progress(notificationID, func(p *batchProgress) { p.total = total })
}

// ended is touch once a batch has nothing left to do.
func (c *counter) ended(notificationID string, batch int) {
	c.progress(notificationID, func(p *batchProgress) { p.ended[batch] = true })
}

func (c *counter) progress(notificationID string, note func(*batchProgress)) {
	c.mu.Lock()
	p := c.batches[notificationID]
	if p == nil {
		p = &batchProgress{} // it was planned by another process, or is over: not followed
	} else {
		note(p)
	}
	over := p.total > 0 && len(p.ended) >= p.total
	if over {
		delete(c.batches, notificationID)
		c.dirty[notificationID] = true
	}
	c.mu.Unlock()
	c.touch(notificationID)
	if over {
		signal(c.hurry)
	}
}

// close recounts what is still asked for and stops.
func (c *counter) close() {
	close(c.stop)
	<-c.done
}

func (c *counter) run() {
	defer close(c.done)
	for {
		select {
		case <-c.wake:
			c.flush()
		case <-c.stop:
			c.flush()
			return
		}
		select {
		case <-time.After(countInterval):
		case <-c.hurry:
		case <-c.stop:
			c.flush()
			return
		}
	}
}

func (c *counter) flush() {
	c.mu.Lock()
	ids := c.dirty
	c.dirty = map[string]bool{}
	c.mu.Unlock()
	for id, over := range ids {
		if err := c.recount(id, over); err != nil {
			c.log.Error("notification cannot be recounted, trying again", "notification", id, "error", err)
			time.AfterFunc(countAgain, func() { c.touch(id) })
		}
	}
}

// recount counts a notification. over says that this is likely the last time.
func (c *counter) recount(id string, over bool) error {
	var counts Counts
	if !over {
		// Counted outside the transaction: other writers do not wait for it, and
		// whatever changes meanwhile touches the notification again.
		var err error
		if counts, err = FindCounts(c.app, id); err != nil {
			return err
		}
	}
	return c.app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if over {
			if counts, err = FindCounts(txApp, id); err != nil {
				return err
			}
		}
		n.SetCounts(counts)
		switch n.Status() {
		case StatusSent, StatusSentWithFailures, StatusFailed:
			// A receipt came after the end.
			if plan := n.Plan(); plan.Done && counts.Pending == 0 {
				n.SetStatus(finalStatus(counts, plan))
				n.SetStatusReason(finalReason(counts, plan))
			}
		case StatusQueued, StatusSending:
			if plan := n.Plan(); plan.Done && counts.Pending == 0 && counts.Fallbacks == 0 {
				if !over {
					// Counted before this transaction began: only trust "nothing
					// pending" if it still holds inside it.
					if counts, err = FindCounts(txApp, id); err != nil {
						return err
					}
					n.SetCounts(counts)
				}
				if counts.Pending == 0 && counts.Fallbacks == 0 {
					n.SetStatus(finalStatus(counts, plan))
					n.Set("finishedAt", c.now())
					n.SetStatusReason(finalReason(counts, plan))
				}
			} else if plan.Done {
				if sentence, held := c.held(txApp, id); held {
					plan.Held = true
					n.SetPlan(plan)
					n.SetStatus(StatusPaused)
					n.SetStatusReason(sentence)
				}
			}
		}
		return txApp.SaveNoValidateWithContext(AsServer(context.Background()), n)
	})
}

// finalStatus is what a notification ends in once nothing is pending.
func finalStatus(c Counts, plan Plan) Status {
	switch {
	case plan.Expired:
		return StatusExpired
	case c.Failed+c.Unknown > 0 && c.Sent == 0 && c.Unknown == 0:
		return StatusFailed
	case c.Failed+c.Unknown > 0:
		return StatusSentWithFailures
	default:
		return StatusSent
	}
}

func finalReason(c Counts, plan Plan) string {
	switch {
	case plan.Expired:
		return "Its expiry time passed before everybody was served."
	case c.Total == 0:
		return "Nobody is in the audience."
	case c.Sent == 0 && c.Failed == 0 && c.Unknown == 0 && c.Skipped > 0:
		return "Nobody could be reached: the deliveries say why."
	case c.Failed > 0 && c.Sent == 0 && c.Unknown == 0:
		return "Nothing could be sent: the deliveries say why."
	case c.Failed+c.Unknown > 0:
		return "Some messages did not arrive: filter the deliveries by failed or unknown to see why."
	default:
		return ""
	}
}
