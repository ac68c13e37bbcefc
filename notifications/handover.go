package notifications

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// handOver hands the messages of one route to their provider: one pass.
type handOver struct {
	s            *Sender
	active       *ActiveProvider
	notification string
	proven       bool // the provider had taken messages before this pass

	mu       sync.Mutex
	sendCtx  context.Context // of the messages handed over in the same second
	sendFrom time.Time
	cancels  []context.CancelFunc

	stored   *sync.WaitGroup
	pass     passResult
	halted   bool
	accepted int
	silent   int // messages without an answer, before anything was accepted
	refused  int // payloads, before anything was accepted
	downSaid string
	answered int // messages that the provider decided on
	suspects []suspect
}

// suspect is a target that the provider calls dead, and that may only look so.
type suspect struct {
	it      item
	outcome Outcome
	result  result
}

const (
	// badPayloads is how many refusals of the content, before anybody got it,
	// stop a notification: everybody else would refuse it too.
	badPayloads = 3

	// maxSilent is how many messages without an answer, before any was accepted,
	// end a pass. It goes on after [RetryPolicy.silence].
	maxSilent = 5

	// statusInterval is how old the knowledge may be that another process did not
	// pause or cancel a notification, for messages that are not marked one by one.
	statusInterval = 50 * time.Millisecond
)

// all hands over items until the pass halts, and waits for the answers.
func (h *handOver) all(ctx context.Context, items []item) {
	var flight sync.WaitGroup
	// Goroutines that are done with a message take the next one: their stacks have
	// grown to what sending needs.
	next := make(chan item)
	stops := stopsOf(h.s.app)
	looked, seen := time.Now(), stops.Load()
	goesOn := func() bool {
		now, count := time.Now(), stops.Load()
		if count == seen && now.Sub(looked) < statusInterval {
			return true
		}
		looked, seen = now, count
		return h.s.goesOn(h.notification)
	}
	for i := range items {
		it := &items[i]
		if it.finding.stops() {
			h.passOver(it)
			continue
		}
		if h.isHalted() || !h.enter(ctx, it.row) {
			break
		}
		if h.isHalted() || it.row.mayRepeat() && !goesOn() {
			h.active.Gate.Release(Outcome{})
			break
		}
		// An e-mail or SMS that leaves from here is looked at again by itself, right
		// before.
		if (it.row.mayRepeat() || h.active.far) && it.isStale() {
			if err := h.lookAgain(items[i:]); err != nil {
				h.s.log.Error("it cannot be found out whether people still want a message, and where", "notification", h.notification, "error", err)
				h.active.Gate.Release(Outcome{})
				h.blind()
				break
			}
			if it.finding.stops() {
				h.active.Gate.Release(Outcome{})
				h.passOver(it)
				continue
			}
		}
		select {
		case next <- *it:
		default:
			it := *it
			flight.Go(func() {
				h.one(ctx, it)
				for it := range next {
					h.one(ctx, it)
				}
			})
		}
	}
	close(next)
	flight.Wait()
	for _, cancel := range h.cancels {
		cancel()
	}
}

// lookAgain judges what is left of a pass, or for an e-mail or SMS what comes next.
func (h *handOver) lookAgain(items []item) error {
	if items[0].row.mayRepeat() {
		return h.s.lookAgainAtDevices(items)
	}
	return h.s.lookAgainTogether(items[:min(len(items), chunkSize)])
}

// enter waits for a place at the gate. An e-mail or SMS does not wait for long when
// enough batches do: then the pass ends, so that its worker can do something else.
func (h *handOver) enter(ctx context.Context, row *deliveryRow) bool {
	acquire := h.active.Gate.acquireUnlessCrowded
	if row.mayRepeat() {
		acquire = h.active.Gate.Acquire
	}
	err := acquire(ctx)
	if errors.Is(err, errCrowded) {
		h.mu.Lock()
		h.pass.crowded = h.s.opts.Retry.away()
		h.mu.Unlock()
	}
	return err == nil
}

// passOver ends a message that must not leave, or leaves it to the next pass.
func (h *handOver) passOver(it *item) {
	if it.finding.skip != nil {
		h.s.ledger.finish(it.row, it.finding.skip, h.stored)
	}
}

// blind ends the pass because the database could not be read.
func (h *handOver) blind() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.halted, h.downSaid = true, databaseSilent
	h.pass.down = max(h.pass.down, h.s.opts.Retry.Delay(1))
}

// contextFor is the context of a message that is handed over now. Those of the
// same second share one: a timer for each costs as much as its place at the gate.
// A shutdown lets what is in flight finish: cutting it off would leave it "not
// known whether sent".
func (h *handOver) contextFor(ctx context.Context) context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); h.sendCtx == nil || now.Sub(h.sendFrom) > time.Second {
		var cancel context.CancelFunc
		h.sendFrom = now
		h.sendCtx, cancel = context.WithCancel(context.WithoutCancel(ctx))
		if !h.active.far { // there the worker counts the time, see [Remote]
			h.sendCtx, cancel = context.WithTimeout(h.sendCtx, handOverTimeout)
		}
		h.cancels = append(h.cancels, cancel)
	}
	return h.sendCtx
}

// one hands over one message, for which there is a place at the gate.
func (h *handOver) one(ctx context.Context, it item) {
	outcome, r := h.s.handOverOne(ctx, h.contextFor(ctx), h.active, it)
	// In this order no more are marked as being handed over, at any moment, than
	// the gate lets through.
	h.settle(it, outcome, r)
	if outcome.notBegun {
		outcome = Outcome{} // it says nothing about the provider
	}
	h.active.Gate.Release(outcome)
}

func (h *handOver) isHalted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.halted
}

// settle stores one answer and learns from it for the rest of the pass.
func (h *handOver) settle(it item, o Outcome, r *result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch o.Kind {
	case Accepted:
		h.accepted++
		h.answered++
	case TargetGone, RecipientBlocked:
		h.answered++
	case Ambiguous:
		if h.silent++; h.silent >= maxSilent && h.accepted == 0 {
			// Each one more would be one more that nobody knows of.
			h.halted = true
			h.downSaid = "The provider takes messages and does not answer."
			h.pass.down = max(h.pass.down, h.s.opts.Retry.silence(it.row.Attempts+1, it.row.mayRepeat()))
		}
	case ConfigBad:
		h.halted, h.pass.paused = true, o.Explanation
	case Retry:
		if o.ProviderDown {
			h.halted = true
			h.downSaid = o.Explanation
			h.pass.down = max(h.pass.down, o.RetryAfter, h.s.opts.Retry.Delay(it.row.Attempts+1))
		}
	case PayloadBad:
		if h.refused++; h.refused >= badPayloads && h.accepted == 0 {
			h.halted, h.pass.stopped = true, "Stopped after the first refusals: "+o.Explanation
		}
	}
	switch {
	case r == nil:
	case o.Kind == TargetGone && o.Suspect:
		h.suspects = append(h.suspects, suspect{it, o, *r})
	default:
		h.s.ledger.finish(it.row, r, h.stored)
	}
}

// judgeSuspects decides about the targets that look dead: a few are, and their
// devices are retired; many at once mean that the provider is set up for another
// app or environment, which the returned sentence says, and nobody is retired.
// It is called when no answer is outstanding.
func (h *handOver) judgeSuspects() string {
	people := map[string]bool{}
	for _, q := range h.suspects {
		people[q.it.row.User] = true
	}
	// Counted by people: one person can register any number of made-up tokens.
	least := suspectsFromUnproven
	if h.proven {
		least = suspectsFromProven
	}
	wrongSetup := len(people) >= least && suspectShare*len(h.suspects) > h.answered
	for _, q := range h.suspects {
		r := q.result
		if wrongSetup {
			r = result{Status: DeliveryPending, Provider: h.active.ID, Tried: r.Tried}
		}
		h.s.ledger.finish(q.it.row, &r, h.stored)
	}
	if !wrongSetup {
		return ""
	}
	return fmt.Sprintf("%d of %d devices were refused, as happens when a provider is set up for another app, project or environment. No device was removed. The last answer: %s",
		len(h.suspects), h.answered, h.suspects[len(h.suspects)-1].outcome.Explanation)
}

const (
	// More than one in suspectShare answers have to be suspect.
	suspectShare = 5
	// How many people's devices it takes: fewer in the first pass since the
	// provider was set up.
	suspectsFromUnproven = 3
	suspectsFromProven   = 10
)

// stopsOf counts how often a notification of app was paused or cancelled in this
// process.
func stopsOf(app core.App) *atomic.Uint64 {
	return app.Store().GetOrSet("groundwork.notifications.stops", func() any { return &atomic.Uint64{} }).(*atomic.Uint64)
}

// stopsWith tells the passes under way to look again, once txApp's transaction
// has committed.
func stopsWith(txApp core.App) {
	stops := stopsOf(txApp)
	if tx := txApp.TxInfo(); tx != nil {
		tx.OnComplete(func(error) error { stops.Add(1); return nil })
		return
	}
	stops.Add(1)
}

// goesOn says whether a notification is neither paused nor over.
func (s *Sender) goesOn(id string) bool {
	if id == "" {
		return true
	}
	n, err := FindNotificationByID(s.app, id)
	if err != nil {
		return true // the database cannot answer now: the message was due
	}
	return n.Status() == StatusSending || n.Status() == StatusQueued
}
