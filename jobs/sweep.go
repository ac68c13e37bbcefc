package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
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

	// Result is what the worker kept with [SetResult], as JSON; empty for none.
	Result json.RawMessage

	// RequestID and Owner are those of [Options].
	RequestID, Owner string

	// Running says that a worker has it right now.
	Running bool
}

// Change is what is to become of a stored job. The zero value leaves it alone.
type Change struct {
	Delete bool

	// Args, Errors and Result take the place of what is stored; nil leaves it.
	Args, Errors, Result json.RawMessage
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
	err = withPlaces(ctx, app, func(p place) error {
		n, b, err := sweepRiver(ctx, p, judge)
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

func sweepOutbox(app core.App, judge func(Stored) Change) (changed int, err error) {
	var last int64
	for {
		var rows []struct {
			RowID     int64  `db:"rowid"`
			Kind      string `db:"kind"`
			Args      string `db:"args"`
			RequestID string `db:"requestId"`
			Owner     string `db:"owner"`
		}
		err := app.NonconcurrentDB().NewQuery("SELECT [[rowid]], [[kind]], [[args]], [[requestId]], [[owner]] FROM {{groundwork_outbox}} WHERE [[rowid]] > {:last} ORDER BY [[rowid]] LIMIT {:page}").
			Bind(dbx.Params{"last": last, "page": sweepPage}).All(&rows)
		if err != nil {
			return changed, fmt.Errorf("read outbox: %w", err)
		}
		for _, row := range rows {
			last = row.RowID
			what := judge(Stored{Kind: row.Kind, Args: json.RawMessage(row.Args), RequestID: row.RequestID, Owner: row.Owner})
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

func sweepRiver(ctx context.Context, p place, judge func(Stored) Change) (changed, busy int, err error) {
	var last int64
	for {
		page, err := readRiver(ctx, p, last)
		if err != nil {
			return changed, busy, err
		}
		for _, row := range page {
			last = row.id
			what := judge(row.Stored)
			if row.Running && (what.Delete || what.Args != nil) {
				busy++
				continue
			}
			// Its state again: a worker may have taken it since.
			var n int64
			var err error
			switch {
			case what.Delete:
				n, err = p.exec(ctx, "DELETE FROM river_job WHERE id = $1 AND state <> 'running'", row.id)
			case what.Args != nil || what.Errors != nil || what.Result != nil:
				set := []string{}
				args := []any{row.id, what.Args != nil}
				add := func(to string, raw json.RawMessage) {
					if raw != nil {
						args = append(args, string(raw))
						set = append(set, fmt.Sprintf(to, fmt.Sprintf("$%d", len(args))))
					}
				}
				add("args = "+p.value("%s"), what.Args)
				add("errors = "+p.newFailures("%[1]s"), what.Errors)
				add("metadata = "+p.withResult("%s"), what.Result)
				n, err = p.exec(ctx, "UPDATE river_job SET "+strings.Join(set, ", ")+" WHERE id = $1 AND (state <> 'running' OR NOT $2)", args...)
			default:
				continue
			}
			if err != nil {
				return changed, busy, fmt.Errorf("change job %d: %w", row.id, err)
			}
			if n == 0 {
				busy++
				continue
			}
			changed++
		}
		if len(page) < sweepPage {
			return changed, busy, nil
		}
	}
}

type riverRow struct {
	Stored
	id int64
}

// readRiver reads a page before anything of it is changed: SQLite has one connection.
func readRiver(ctx context.Context, p place, last int64) ([]riverRow, error) {
	found, err := p.query(ctx, "SELECT id, kind, "+p.text("args")+", "+p.failures()+", COALESCE("+p.text("metadata->'output'")+", ''), COALESCE(metadata->>'gwRequest', ''), COALESCE(metadata->>'gwOwner', ''), state = 'running'"+
		" FROM river_job WHERE id > $1 AND "+mine(p.origin)+fmt.Sprintf(" ORDER BY id LIMIT %d", sweepPage), last)
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	defer found.Close()
	var page []riverRow
	for found.Next() {
		var row riverRow
		var args, failures, result string
		if err := found.Scan(&row.id, &row.Kind, &args, &failures, &result, &row.RequestID, &row.Owner, &row.Running); err != nil {
			return nil, fmt.Errorf("read jobs: %w", err)
		}
		row.Args, row.Errors, row.Result = json.RawMessage(args), json.RawMessage(failures), json.RawMessage(result)
		page = append(page, row)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	return page, nil
}

// FreeRunning makes jobs available that a killed process left running, as the next
// [Client.Start] would. Only for a folder on which no process works. Work that others
// share is theirs.
func FreeRunning(ctx context.Context, app core.App) error {
	return withPlaces(ctx, app, func(p place) error {
		which := mine(p.origin)
		if p.origin != "" {
			which += " AND queue LIKE '%_" + p.origin + "'"
			if _, err := p.exec(ctx, "DELETE FROM groundwork_nodes WHERE installation = $1", p.origin); err != nil {
				return fmt.Errorf("forget processes: %w", err)
			}
		}
		_, err := free(ctx, p.engine, p.engine, which)
		return err
	})
}

// RunningSince returns how many jobs are being worked that began before a time,
// those of the given kinds left out: what they know may be older.
func RunningSince(ctx context.Context, app core.App, before time.Time, except ...string) (n int, err error) {
	err = withPlaces(ctx, app, func(p place) error {
		which, args := "", []any{p.at(before)}
		if len(except) > 0 {
			parameters, kinds := list(2, except)
			which, args = " AND kind NOT IN ("+parameters+")", append(args, kinds...)
		}
		var here int
		if err := queryRow(ctx, p, []any{&here}, "SELECT COUNT(*) FROM river_job WHERE state = 'running' AND attempted_at <= $1 AND "+mine(p.origin)+which, args...); err != nil {
			return fmt.Errorf("find running jobs: %w", err)
		}
		n += here
		return nil
	})
	return n, err
}

// Compact writes the jobs database anew, so that nothing of deleted rows is left
// in its file. In Postgres it frees their room, which others overwrite.
func Compact(ctx context.Context, app core.App) error {
	return withPlaces(ctx, app, func(p place) error { return p.compact(ctx) })
}
