package notifications

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

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
	HeldUntil         time.Time // the end of the quiet hours that it waits for, or of another wait that is no failure
	Rendered          *string   // JSON; nil leaves the column alone
	Tried             bool      // counts as an attempt although it was not begun (capture, push)
	Retire            *retired  // the device whose token is dead; nil for none
}

func (r *result) acceptedAt(now string) string {
	if r.Status == DeliveryAccepted || r.Status == DeliveryDelivered {
		return now
	}
	return ""
}

func (r *result) deliveredAt(now string) string {
	if r.Status == DeliveryDelivered {
		return now
	}
	return ""
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

	// onStored is told whose results are stored, before those who wait for it; nil:
	// nobody.
	onStored func(ids []string)

	db         *sql.DB // that statements belong to
	statements map[string]*sql.Stmt

	stop     chan struct{}
	stopOnce sync.Once
	done     chan struct{}
}

type ledgerOp struct {
	row    *deliveryRow // nil only ends the wait for company
	finish *result      // nil marks the row as sending
	until  time.Time    // of a mark: when the answer from another machine is overdue
	ok     bool         // out: the row was ours to change
	err    error        // out: nothing was stored
	stored *sync.WaitGroup
}

// maxLedgerOps bounds one transaction, and with it how long other writers wait.
const maxLedgerOps = 1000

func newLedger(app core.App, log *slog.Logger, now func() time.Time) *ledger {
	return &ledger{app: app, log: log, now: now,
		ops:  make(chan *ledgerOp, 4*maxLedgerOps), // senders go on while a commit waits for its turn
		stop: make(chan struct{}), done: make(chan struct{})}
}

// close stops the writer after everything that was handed to it is stored. The
// senders must have returned before.
func (l *ledger) close() {
	l.stopOnce.Do(func() { close(l.stop) })
	<-l.done
}

// begin marks a row as being handed over. false means that it must not be: it
// is not pending any more, or its notification was paused or cancelled.
//
// until is when the answer from another machine is overdue; zero where the message
// leaves from here. It is stored as the time of the next attempt.
func (l *ledger) begin(ctx context.Context, row *deliveryRow, until time.Time) (bool, error) {
	var marked sync.WaitGroup
	marked.Add(1)
	op := &ledgerOp{row: row, until: until, stored: &marked}
	select {
	case l.ops <- op:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	marked.Wait()
	return op.ok, op.err
}

// finish stores a result. It does not fail: as long as the disk is full or the
// database locked it keeps trying, because a forgotten result would later be
// told as "not known whether sent". stored is done once the result is.
func (l *ledger) finish(row *deliveryRow, r *result, stored *sync.WaitGroup) {
	stored.Add(1)
	l.ops <- &ledgerOp{row: row, finish: r, stored: stored}
}

// finishNow is finish that returns once the result is stored.
func (l *ledger) finishNow(row *deliveryRow, r *result) {
	var stored sync.WaitGroup
	l.finish(row, r, &stored)
	l.await(&stored)
}

func (l *ledger) run() {
	defer close(l.done)
	defer func() {
		for _, stmt := range l.statements {
			_ = stmt.Close() // what it wrote is committed
		}
	}()
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
		if batch := l.collect(first); len(batch) > 0 {
			l.commit(batch)
		}
	}
}

// ledgerLinger is how long a result waits for others to share its commit. A mark
// does not wait: its message does.
const ledgerLinger = 20 * time.Millisecond

// await waits until what was handed in is stored, and lets nothing linger.
func (l *ledger) await(stored *sync.WaitGroup) {
	l.ops <- &ledgerOp{}
	stored.Wait()
}

// collect returns first and what else goes into its transaction.
func (l *ledger) collect(first *ledgerOp) []*ledgerOp {
	batch, hurry := make([]*ledgerOp, 0, maxLedgerOps), false
	add := func(op *ledgerOp) {
		hurry = hurry || op.finish == nil
		if op.row != nil {
			batch = append(batch, op)
		}
	}
	add(first)
	var linger <-chan time.Time
	for len(batch) < maxLedgerOps {
		select {
		case op := <-l.ops:
			add(op)
			continue
		default:
		}
		if hurry {
			return batch
		}
		if linger == nil {
			timer := time.NewTimer(ledgerLinger)
			defer timer.Stop()
			linger = timer.C
		}
		select {
		case op := <-l.ops:
			add(op)
		case <-linger:
			return batch
		case <-l.stop:
			return batch
		}
	}
	return batch
}

func (l *ledger) commit(batch []*ledgerOp) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := l.write(batch)
		if err == nil {
			l.tell(batch)
			for _, op := range batch {
				op.row.unstored = false
				op.stored.Done()
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
			op.stored.Done()
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
				op.stored.Done()
			}
			return
		}
	}
}

// tell says whose results are stored.
func (l *ledger) tell(batch []*ledgerOp) {
	if l.onStored == nil {
		return
	}
	ids := make([]string, 0, len(batch))
	for _, op := range batch {
		if op.finish != nil {
			ids = append(ids, op.row.ID)
		}
	}
	l.onStored(ids)
}

func (l *ledger) write(batch []*ledgerOp) error {
	deliveries, err := tableName(l.app, CollectionDeliveries)
	if err != nil {
		return err
	}
	notifications, err := tableName(l.app, CollectionNotifications)
	if err != nil {
		return err
	}
	devices, err := tableName(l.app, CollectionDevices)
	if err != nil {
		return err
	}
	db, err := writerDB(l.app)
	if err != nil {
		return err
	}
	rows := strconv.Quote(deliveries)
	begin := "UPDATE " + rows + " SET status = 'sending', attempts = attempts + 1, updated = ?1, nextAttemptAt = ?3" +
		" WHERE id = ?2 AND status = 'pending' AND (notification = '' OR test OR EXISTS (SELECT 1 FROM " + strconv.Quote(notifications) +
		" n WHERE n.id = " + rows + ".notification AND n.status IN ('queued', 'sending')))"
	// A push is not marked before it leaves: what was cancelled in that moment and
	// taken all the same went out.
	finish := "UPDATE " + rows + " SET status = ?1, reason = ?2, explanation = ?3, provider = ?4, providerMessageId = ?5," +
		" attempts = attempts + ?6, nextAttemptAt = ?7, acceptedAt = CASE WHEN ?8 <> '' THEN ?8 ELSE acceptedAt END," +
		" deliveredAt = CASE WHEN ?9 <> '' THEN ?9 ELSE deliveredAt END, rendered = COALESCE(?10, rendered), updated = ?11," +
		" heldUntil = CASE WHEN ?13 <> '' THEN ?13 ELSE heldUntil END" +
		" WHERE id = ?12 AND (status IN ('pending', 'sending') OR status = 'cancelled' AND ?1 = 'accepted')"
	retire := "UPDATE " + strconv.Quote(devices) + " SET status = 'gone', statusReason = ?, updated = ?" +
		" WHERE id = ? AND token = ? AND status = 'active' AND registeredAt < ?"

	if err := l.prepare(db, begin, finish, retire, sqlInsertDeliveries(deliveries, 1), sqlInsertDeliveries(deliveries, insertChunk)); err != nil {
		return err
	}
	return inWriter(db, func(tx *sql.Tx) error {
		inTx := map[string]*sql.Stmt{}
		run := func(text string, args []any) (int64, error) {
			stmt := inTx[text]
			if stmt == nil {
				stmt = tx.Stmt(l.statements[text]) //nolint:sqlclosecheck // ends with its transaction
				inTx[text] = stmt
			}
			res, err := stmt.Exec(args...)
			if err != nil {
				return 0, err
			}
			return res.RowsAffected()
		}
		now := dbTime(l.now())
		var fresh []*deliveryRow
		var results []*result
		for _, op := range batch {
			var changed int64
			var err error
			switch r := op.finish; {
			case r == nil:
				changed, err = run(begin, []any{now, op.row.ID, dbTime(op.until)})
			case op.row.unstored:
				fresh, results = append(fresh, op.row), append(results, r)
				changed = 1
			default:
				tried := 0
				if r.Tried {
					tried = 1
				}
				var rendered any
				if r.Rendered != nil {
					rendered = *r.Rendered
				}
				changed, err = run(finish, []any{string(r.Status), r.Reason, r.Explanation, r.Provider, r.ProviderMessageID, tried, dbTime(r.NextAttemptAt),
					r.acceptedAt(now), r.deliveredAt(now), rendered, now, op.row.ID, dbTime(r.HeldUntil)})
			}
			if err != nil {
				return fmt.Errorf("store delivery %s: %w", op.row.ID, err)
			}
			op.ok = changed == 1
			if op.finish == nil || op.finish.Retire == nil {
				continue
			}
			gone := op.finish.Retire
			if _, err := run(retire, []any{gone.Sentence, now, gone.Device, gone.Token, dbTime(gone.Before)}); err != nil {
				return fmt.Errorf("retire device %s: %w", gone.Device, err)
			}
		}
		return insertGroups(deliveries, fresh, results, now, func(text string, args []any) error {
			_, err := run(text, args)
			return err
		})
	})
}

// prepare makes statements that all transactions use: preparing one costs as much
// as several rows. It comes before the transaction, which holds the only
// connection.
func (l *ledger) prepare(db *sql.DB, texts ...string) error {
	if l.db != db {
		l.statements, l.db = map[string]*sql.Stmt{}, db
	}
	for _, text := range texts {
		if l.statements[text] != nil {
			continue
		}
		stmt, err := db.Prepare(text) //nolint:sqlclosecheck // run closes it at the end
		if err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		l.statements[text] = stmt
	}
	return nil
}
