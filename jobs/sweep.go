package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// sweepPage is how many jobs are read at a time.
const sweepPage = 500

// Stored is a job as it is kept, in the outbox or in the jobs database.
type Stored struct {
	Kind string

	// Args and Errors are JSON. Errors are those of the attempts so far; empty for
	// a job that has not failed.
	Args, Errors json.RawMessage

	RequestID string

	// Running says that a worker has it right now.
	Running bool
}

// Change is what is to become of a stored job. The zero value leaves it alone.
type Change struct {
	Delete bool

	// Args and Errors take the place of what is stored; nil leaves it.
	Args, Errors json.RawMessage
}

// Sweep shows every stored job of app to judge, finished ones too, and does what
// it says. A job that is running is never deleted or given other args: busy is how
// many of those there were. It works beside a running [Client], of this process or
// another one.
func Sweep(ctx context.Context, app core.App, judge func(Stored) Change) (changed, busy int, err error) {
	n, err := sweepOutbox(app, judge)
	changed += n
	if err != nil {
		return changed, busy, err
	}
	err = withDB(app, func(db *sql.DB) error {
		n, b, err := sweepRiver(ctx, db, judge)
		changed, busy = changed+n, busy+b
		return err
	})
	if err != nil {
		return changed, busy, err
	}
	// Once more: what the relay took since is in the other one, or it is new.
	n, err = sweepOutbox(app, judge)
	return changed + n, busy, err
}

// withDB runs do with the jobs database: that of the client in this process, or a
// connection of its own. Nothing is run when there is no such file yet.
func withDB(app core.App, do func(*sql.DB) error) (err error) {
	if c, ok := app.Store().Get(storeKeyClient).(*Client); ok {
		return do(c.db)
	}
	path := filepath.Join(app.DataDir(), FileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := openDB(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return do(db)
}

func sweepOutbox(app core.App, judge func(Stored) Change) (changed int, err error) {
	var last int64
	for {
		var rows []struct {
			RowID     int64  `db:"rowid"`
			Kind      string `db:"kind"`
			Args      string `db:"args"`
			RequestID string `db:"requestId"`
		}
		err := app.NonconcurrentDB().NewQuery("SELECT [[rowid]], [[kind]], [[args]], [[requestId]] FROM {{groundwork_outbox}} WHERE [[rowid]] > {:last} ORDER BY [[rowid]] LIMIT {:page}").
			Bind(dbx.Params{"last": last, "page": sweepPage}).All(&rows)
		if err != nil {
			return changed, fmt.Errorf("read outbox: %w", err)
		}
		for _, row := range rows {
			last = row.RowID
			what := judge(Stored{Kind: row.Kind, Args: json.RawMessage(row.Args), RequestID: row.RequestID})
			var err error
			switch {
			case what.Delete:
				_, err = app.NonconcurrentDB().Delete("groundwork_outbox", dbx.HashExp{"rowid": row.RowID}).Execute()
			case what.Args != nil:
				_, err = app.NonconcurrentDB().Update("groundwork_outbox", dbx.Params{"args": string(what.Args)}, dbx.HashExp{"rowid": row.RowID}).Execute()
			default:
				continue
			}
			if err != nil {
				return changed, fmt.Errorf("change job in outbox: %w", err)
			}
			changed++
		}
		if len(rows) < sweepPage {
			return changed, nil
		}
	}
}

func sweepRiver(ctx context.Context, db *sql.DB, judge func(Stored) Change) (changed, busy int, err error) {
	if there, err := hasJobs(ctx, db); err != nil || !there {
		return 0, 0, err
	}
	var last int64
	for {
		rows, err := readRiver(ctx, db, last)
		if err != nil {
			return changed, busy, err
		}
		for _, row := range rows {
			last = row.id
			what := judge(row.Stored)
			if row.Running && (what.Delete || what.Args != nil) {
				busy++
				continue
			}
			// Its state again: a worker may have taken it since.
			var res sql.Result
			var err error
			switch {
			case what.Delete:
				res, err = db.ExecContext(ctx, "DELETE FROM river_job WHERE id = ? AND state <> 'running'", row.id)
			case what.Args != nil || what.Errors != nil:
				res, err = db.ExecContext(ctx, "UPDATE river_job SET args = COALESCE(jsonb(?), args), errors = COALESCE(jsonb(?), errors) WHERE id = ? AND (state <> 'running' OR ? IS NULL)",
					orNull(what.Args), orNull(what.Errors), row.id, orNull(what.Args))
			default:
				continue
			}
			if err != nil {
				return changed, busy, fmt.Errorf("change job %d: %w", row.id, err)
			}
			if n, err := res.RowsAffected(); err != nil || n == 0 {
				busy++
				continue
			}
			changed++
		}
		if len(rows) < sweepPage {
			return changed, busy, nil
		}
	}
}

// hasJobs says whether the jobs database was ever used.
func hasJobs(ctx context.Context, db *sql.DB) (bool, error) {
	var n int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_master WHERE name = 'river_job'").Scan(&n); err != nil {
		return false, fmt.Errorf("look into jobs database: %w", err)
	}
	return n > 0, nil
}

func orNull(raw json.RawMessage) any {
	if raw == nil {
		return nil
	}
	return string(raw)
}

type riverRow struct {
	Stored
	id int64
}

// readRiver reads a page before anything of it is changed: there is one connection.
func readRiver(ctx context.Context, db *sql.DB, last int64) ([]riverRow, error) {
	rows, err := db.QueryContext(ctx, "SELECT id, kind, json(args), COALESCE(json(errors), ''), COALESCE(json_extract(metadata, '$.gwRequest'), ''), state = 'running'"+
		" FROM river_job WHERE id > ? ORDER BY id LIMIT ?", last, sweepPage)
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	defer rows.Close()
	var page []riverRow
	for rows.Next() {
		var row riverRow
		var args, failures string
		if err := rows.Scan(&row.id, &row.Kind, &args, &failures, &row.RequestID, &row.Running); err != nil {
			return nil, fmt.Errorf("read jobs: %w", err)
		}
		row.Args, row.Errors = json.RawMessage(args), json.RawMessage(failures)
		page = append(page, row)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	return page, nil
}

// FreeRunning makes jobs available that a killed process left running, as the next
// [Client.Start] would. Only for a folder on which no process works.
func FreeRunning(ctx context.Context, app core.App) error {
	return withDB(app, func(db *sql.DB) error {
		if there, err := hasJobs(ctx, db); err != nil || !there {
			return err
		}
		if _, err := db.ExecContext(ctx, "UPDATE river_job SET state = 'available' WHERE state = 'running'"); err != nil {
			return fmt.Errorf("free running jobs: %w", err)
		}
		return nil
	})
}

// RunningSince returns how many jobs are being worked that began before a time,
// those of the given kinds left out: what they know may be older.
func RunningSince(ctx context.Context, app core.App, before time.Time, except ...string) (n int, err error) {
	err = withDB(app, func(db *sql.DB) error {
		if there, err := hasJobs(ctx, db); err != nil || !there {
			return err
		}
		rows, err := db.QueryContext(ctx, "SELECT kind, CAST(attempted_at AS TEXT) FROM river_job WHERE state = 'running'")
		if err != nil {
			return fmt.Errorf("find running jobs: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			var kind string
			var at sql.NullString
			if err := rows.Scan(&kind, &at); err != nil {
				return fmt.Errorf("find running jobs: %w", err)
			}
			if slices.Contains(except, kind) {
				continue
			}
			if began, err := time.Parse(sqliteTime, at.String); err != nil || !began.After(before) {
				n++
			}
		}
		return rows.Err()
	})
	return n, err
}

// sqliteTime is how River writes times into SQLite, in UTC.
const sqliteTime = "2006-01-02 15:04:05.999"

// Compact writes the jobs database anew, so that nothing of deleted rows is left
// in its file.
func Compact(ctx context.Context, app core.App) error {
	return withDB(app, func(db *sql.DB) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return fmt.Errorf("compact jobs database: %w", err)
		}
		defer func() { _ = conn.Close() }() // back to the pool
		if _, err := conn.ExecContext(ctx, "VACUUM"); err != nil {
			return fmt.Errorf("compact jobs database: %w", err)
		}
		var busy, log, checkpointed int
		if err := conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &checkpointed); err != nil {
			return fmt.Errorf("empty the log of the jobs database: %w", err)
		}
		if busy != 0 {
			return errors.New("the log of the jobs database is in use and cannot be emptied right now")
		}
		return nil
	})
}
