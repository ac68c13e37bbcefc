package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/riverqueue/river"
)

// storeKeyClient is where a running client is found. app.Store() is shared by an
// app and its transactions.
const storeKeyClient = "groundwork.jobs.client"

const (
	defaultPriority    = 2
	defaultMaxAttempts = 25
	outboxPage         = 500
	timeLayout         = time.RFC3339Nano
)

// Enqueue stores a job. With the app of a transaction it is stored when that
// commits and gone when it rolls back; otherwise at once. The returned id is
// public and random.
//
// It is one insert into the app's own database: the move to River's happens
// outside the caller's transaction.
func Enqueue(app core.App, args Args, o Options) (string, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return "", fmt.Errorf("encode args of job %s: %w", args.Kind(), err)
	}
	if o.Queue == "" {
		o.Queue = QueueDefault
	}
	if o.Priority == 0 {
		o.Priority = defaultPriority
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = defaultMaxAttempts
	}
	runAt := ""
	if !o.RunAt.IsZero() {
		runAt = o.RunAt.UTC().Format(timeLayout)
	}
	id := security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet)
	_, err = app.NonconcurrentDB().NewQuery("INSERT INTO {{groundwork_outbox}} ([[id]], [[kind]], [[args]], [[queue]], [[priority]], [[maxAttempts]], [[runAt]], [[uniqueKey]], [[requestId]], [[createdAt]])" +
		" VALUES ({:id}, {:kind}, {:args}, {:queue}, {:priority}, {:max}, {:runAt}, {:unique}, {:request}, {:created})").
		Bind(dbx.Params{"id": id, "kind": args.Kind(), "args": string(raw), "queue": o.Queue, "priority": o.Priority, "max": o.MaxAttempts,
			"runAt": runAt, "unique": o.UniqueKey, "request": o.RequestID, "created": time.Now().UTC().Format(timeLayout)}).Execute()
	if err != nil {
		return "", fmt.Errorf("enqueue job %s: %w", args.Kind(), err)
	}
	if tx := app.TxInfo(); tx != nil {
		tx.OnComplete(func(txErr error) error {
			if txErr == nil {
				wake(app)
			}
			return nil
		})
		return id, nil
	}
	wake(app)
	return id, nil
}

func wake(app core.App) {
	if c, ok := app.Store().Get(storeKeyClient).(*Client); ok {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// ErrNotRunning means that this process works no jobs of this app.
var ErrNotRunning = errors.New("no jobs run in this process")

// CountDue returns how many jobs of app are due and not finished: those in the
// outbox, waiting for a worker, or being worked. Jobs for later, and those that
// wait for another attempt, do not count. The error is [ErrNotRunning] unless a
// [Client] works them here.
func CountDue(ctx context.Context, app core.App) (int, error) {
	c, ok := app.Store().Get(storeKeyClient).(*Client)
	if !ok {
		return 0, ErrNotRunning
	}
	// A job may enqueue another one and end, and a row may move, between two of
	// the counts: only their order makes "none" mean none.
	total := 0
	for _, count := range []func(*int) error{c.countTaken(ctx), c.countOutbox, c.countTaken(ctx)} {
		n := 0
		if err := count(&n); err != nil {
			return 0, err
		}
		total = max(total, n)
	}
	return total, nil
}

func (c *Client) countOutbox(n *int) error {
	if err := c.app.ConcurrentDB().Select("COUNT(*)").From("groundwork_outbox").Row(n); err != nil {
		return fmt.Errorf("count outbox: %w", err)
	}
	return nil
}

func (c *Client) countTaken(ctx context.Context) func(*int) error {
	return func(n *int) error {
		if err := c.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM river_job WHERE state IN ('available', 'running')").Scan(n); err != nil {
			return fmt.Errorf("count jobs: %w", err)
		}
		return nil
	}
}

// outboxRow is a stored job that is not River's yet.
type outboxRow struct {
	ID          string `db:"id"`
	Kind        string `db:"kind"`
	Args        string `db:"args"`
	Queue       string `db:"queue"`
	Priority    int    `db:"priority"`
	MaxAttempts int    `db:"maxAttempts"`
	RunAt       string `db:"runAt"`
	UniqueKey   string `db:"uniqueKey"`
	RequestID   string `db:"requestId"`
	CreatedAt   string `db:"createdAt"`
}

// relay moves outbox rows to River until there are none. It is called by one
// goroutine.
//
// The two databases share no transaction. So River's database remembers the id
// of each row it took, in the same transaction as the job: after a crash
// between that and the deletion of the row, the row is seen to be taken.
func (c *Client) relay(ctx context.Context) error {
	for ctx.Err() == nil {
		var rows []outboxRow
		err := c.app.ConcurrentDB().Select("*").From("groundwork_outbox").OrderBy("rowid").Limit(outboxPage).All(&rows)
		if err != nil {
			return fmt.Errorf("read outbox: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		if err := c.take(ctx, rows); err != nil {
			return err
		}
		ids := make([]any, len(rows))
		for i, row := range rows {
			ids[i] = row.ID
		}
		if _, err := c.app.NonconcurrentDB().Delete("groundwork_outbox", dbx.HashExp{"id": ids}).Execute(); err != nil {
			return fmt.Errorf("clear outbox: %w", err)
		}
	}
	return ctx.Err()
}

func (c *Client) take(ctx context.Context, rows []outboxRow) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin relay: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // no-op after the commit
	now := time.Now()
	params := make([]river.InsertManyParams, 0, len(rows))
	unique := map[string]bool{}
	for _, row := range rows {
		res, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO groundwork_relayed (id, at) VALUES (?, ?)", row.ID, now.Unix())
		if err != nil {
			return fmt.Errorf("remember job %s: %w", row.ID, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			continue // taken before a crash
		}
		if row.UniqueKey != "" {
			key := row.Kind + "\x00" + row.UniqueKey
			var found int
			err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM river_job WHERE kind = ? AND state NOT IN ('completed', 'cancelled', 'discarded')"+
				" AND json_extract(metadata, '$.gwUnique') = ?", row.Kind, row.UniqueKey).Scan(&found)
			if err != nil {
				return fmt.Errorf("find unique job %s: %w", row.ID, err)
			}
			if found > 0 || unique[key] {
				continue
			}
			unique[key] = true
		}
		created, err := time.Parse(timeLayout, row.CreatedAt)
		if err != nil {
			created = now
		}
		metadata, err := json.Marshal(meta{ID: row.ID, RequestID: row.RequestID, UniqueKey: row.UniqueKey, EnqueuedAt: created})
		if err != nil {
			return fmt.Errorf("encode metadata of job %s: %w", row.ID, err)
		}
		opts := &river.InsertOpts{Queue: row.Queue, Priority: row.Priority, MaxAttempts: row.MaxAttempts, Metadata: metadata}
		if at, err := time.Parse(timeLayout, row.RunAt); err == nil && at.After(now) {
			opts.ScheduledAt = at
		}
		params = append(params, river.InsertManyParams{Args: relayed{row.Kind, json.RawMessage(row.Args)}, InsertOpts: opts})
	}
	if len(params) > 0 {
		if _, err := c.river.InsertManyFastTx(ctx, tx, params); err != nil {
			return fmt.Errorf("insert %d jobs: %w", len(params), err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit relay: %w", err)
	}
	select {
	case c.arrived <- struct{}{}:
	default:
	}
	return nil
}
