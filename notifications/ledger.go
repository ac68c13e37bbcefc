package notifications

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// result is what is stored in a delivery row after a try.
type result struct {
	Status            DeliveryStatus
	Reason            string
	Explanation       string
	Provider          string // row id, or "capture"
	ProviderMessageID string
	NextAttemptAt     time.Time // for a row that stays pending
	Rendered          *string   // JSON; nil leaves the column alone
	Tried             bool      // counts as an attempt although it was not begun (capture, push)
}

// ledger stores what happens to deliveries, in few transactions: everything
// that waits while one commit runs goes into the next one. With many messages
// in flight the cost of a commit is shared, with a single one it is immediate.
//
// Before a message that must not be sent twice leaves, its row is marked
// "sending" and that mark is committed. Whatever is marked when the process is
// killed may have left: it becomes unknown, and nothing else does. So a crash
// leaves at most as many unknowns as messages were in flight.
type ledger struct {
	app core.App
	log *slog.Logger
	ops chan *ledgerOp
	now func() time.Time

	stop     chan struct{}
	stopOnce sync.Once
	done     chan struct{}
}

type ledgerOp struct {
	id     string
	finish *result // nil marks the row as sending
	ok     bool    // out: the row was ours to change
	err    error   // out: nothing was stored
	done   chan struct{}
}

// maxLedgerOps bounds one transaction, and with it how long other writers wait.
const maxLedgerOps = 500

func newLedger(app core.App, log *slog.Logger, now func() time.Time) *ledger {
	return &ledger{app: app, log: log, now: now,
		ops: make(chan *ledgerOp, maxLedgerOps), stop: make(chan struct{}), done: make(chan struct{})}
}

// close stops the writer after everything that was handed to it is stored. The
// senders must have returned before.
func (l *ledger) close() {
	l.stopOnce.Do(func() { close(l.stop) })
	<-l.done
}

// begin marks a row as being handed over. false means that it must not be: it
// is not pending any more, or its notification was paused or cancelled.
func (l *ledger) begin(ctx context.Context, id string) (bool, error) {
	op := &ledgerOp{id: id, done: make(chan struct{})}
	select {
	case l.ops <- op:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	<-op.done
	return op.ok, op.err
}

// finish stores a result. It does not fail: as long as the disk is full or the
// database locked it keeps trying, because a forgotten result would later be
// told as "not known whether sent". wait is closed once the result is stored.
func (l *ledger) finish(id string, r result) (wait <-chan struct{}) {
	op := &ledgerOp{id: id, finish: &r, done: make(chan struct{})}
	l.ops <- op
	return op.done
}

func (l *ledger) run() {
	defer close(l.done)
	for {
		var first *ledgerOp
		select {
		case first = <-l.ops:
		case <-l.stop:
			select {
			case first = <-l.ops:
			default:
				return
			}
		}
		batch := []*ledgerOp{first}
	collect:
		for len(batch) < maxLedgerOps {
			select {
			case op := <-l.ops:
				batch = append(batch, op)
			default:
				break collect
			}
		}
		l.commit(batch)
	}
}

func (l *ledger) commit(batch []*ledgerOp) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := l.write(batch)
		if err == nil {
			for _, op := range batch {
				close(op.done)
			}
			return
		}
		// A mark that cannot be stored means "do not send": the caller hears of
		// it and the message stays pending. A result is kept and tried again.
		var results []*ledgerOp
		for _, op := range batch {
			if op.finish != nil {
				results = append(results, op)
				continue
			}
			op.ok, op.err = false, err
			close(op.done)
		}
		if len(results) == 0 {
			return
		}
		l.log.Error("delivery results cannot be stored, trying again", "results", len(results), "error", err)
		batch = results
		select {
		case <-time.After(wait):
		case <-l.stop:
			// Last try on the way out; what is lost here is found as "sending"
			// at the next start.
			if err := l.write(batch); err != nil {
				l.log.Error("delivery results were lost at shutdown", "results", len(batch), "error", err)
			}
			for _, op := range batch {
				close(op.done)
			}
			return
		}
	}
}

func (l *ledger) write(batch []*ledgerOp) error {
	return l.app.RunInTransaction(func(txApp core.App) error {
		deliveries, err := tableName(txApp, CollectionDeliveries)
		if err != nil {
			return err
		}
		notifications, err := tableName(txApp, CollectionNotifications)
		if err != nil {
			return err
		}
		begin := txApp.DB().NewQuery("UPDATE {{" + deliveries + "}} SET [[status]] = 'sending', [[attempts]] = [[attempts]] + 1, [[updated]] = {:now}" +
			" WHERE [[id]] = {:id} AND [[status]] = 'pending' AND ([[notification]] = '' OR EXISTS (SELECT 1 FROM {{" + notifications +
			"}} n WHERE n.[[id]] = {{" + deliveries + "}}.[[notification]] AND n.[[status]] IN ('queued', 'sending')))").Prepare()
		defer begin.Close()
		finish := txApp.DB().NewQuery("UPDATE {{" + deliveries + "}} SET [[status]] = {:status}, [[reason]] = {:reason}, [[explanation]] = {:explanation}," +
			" [[provider]] = {:provider}, [[providerMessageId]] = {:message}, [[attempts]] = [[attempts]] + {:tried}, [[nextAttemptAt]] = {:next}," +
			" [[acceptedAt]] = CASE WHEN {:accepted} <> '' THEN {:accepted} ELSE [[acceptedAt]] END," +
			" [[deliveredAt]] = CASE WHEN {:delivered} <> '' THEN {:delivered} ELSE [[deliveredAt]] END," +
			" [[rendered]] = CASE WHEN {:rendered} <> '' THEN {:rendered} ELSE [[rendered]] END, [[updated]] = {:now}" +
			" WHERE [[id]] = {:id} AND [[status]] IN ('pending', 'sending')").Prepare()
		defer finish.Close()

		now := dbTime(l.now())
		for _, op := range batch {
			query, params := begin, dbx.Params{"id": op.id, "now": now}
			if op.finish != nil {
				query, params = finish, op.finish.params(op.id, now)
			}
			res, err := query.Bind(params).Execute()
			if err != nil {
				return fmt.Errorf("store delivery %s: %w", op.id, err)
			}
			changed, err := res.RowsAffected()
			if err != nil {
				return fmt.Errorf("store delivery %s: %w", op.id, err)
			}
			op.ok = changed == 1
		}
		return nil
	})
}

func (r *result) params(id, now string) dbx.Params {
	p := dbx.Params{
		"id": id, "now": now, "status": string(r.Status), "reason": r.Reason, "explanation": r.Explanation,
		"provider": r.Provider, "message": r.ProviderMessageID, "tried": 0, "next": dbTime(r.NextAttemptAt),
		"accepted": "", "delivered": "", "rendered": "",
	}
	if r.Tried {
		p["tried"] = 1
	}
	switch r.Status {
	case DeliveryAccepted:
		p["accepted"] = now
	case DeliveryDelivered:
		p["accepted"], p["delivered"] = now, now
	}
	if r.Rendered != nil {
		p["rendered"] = *r.Rendered
	}
	return p
}
