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

// counter keeps the counts and the final status of notifications. It is the
// only writer of both: it recounts from the delivery rows, so that a crash or a
// repeated job can not make them drift.
type counter struct {
	app core.App
	log *slog.Logger
	now func() time.Time
	// held says whether everything pending waits for paused providers.
	held func(app core.App, notificationID string) (sentence string, held bool)

	mu    sync.Mutex
	dirty map[string]bool
	wake  chan struct{}
	stop  chan struct{}
	done  chan struct{}
}

func newCounter(app core.App, log *slog.Logger, now func() time.Time, held func(core.App, string) (string, bool)) *counter {
	return &counter{app: app, log: log, now: now, held: held, dirty: map[string]bool{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// touch asks for a recount of a notification. It returns at once.
func (c *counter) touch(notificationID string) {
	if notificationID == "" {
		return
	}
	c.mu.Lock()
	c.dirty[notificationID] = true
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
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
	for id := range ids {
		if err := c.recount(id); err != nil {
			c.log.Error("notification cannot be recounted", "notification", id, "error", err)
		}
	}
}

func (c *counter) recount(id string) error {
	// Counted outside the transaction: other writers do not wait for it, and
	// whatever changes meanwhile touches the notification again.
	counts, err := FindCounts(c.app, id)
	if err != nil {
		return err
	}
	return c.app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		n.SetCounts(counts)
		if n.Status() == StatusQueued || n.Status() == StatusSending {
			if plan := n.Plan(); plan.Done && counts.Pending == 0 {
				// Counted before this transaction began: only trust "nothing
				// pending" if it still holds inside it.
				if counts, err = FindCounts(txApp, id); err != nil {
					return err
				}
				n.SetCounts(counts)
				if counts.Pending == 0 {
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
