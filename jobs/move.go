package jobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
)

// movePage is how many jobs move in one transaction.
const movePage = 200

// move brings the jobs of jobs.db to Postgres, finished ones too, and removes the
// file. Each arrives once: Postgres remembers its id as that of a row of the outbox,
// in the transaction that stores it, and only then it leaves the file.
func (c *Client) move(ctx context.Context) error {
	moved := 0
	err := withFile(ctx, c.app, func(from place) error {
		if err := from.migrate(ctx); err != nil {
			return err
		}
		// Their process has ended: this one is the first with another database.
		if _, err := free(ctx, from.engine, from.engine, "TRUE"); err != nil {
			return err
		}
		if err := c.forgetTaken(ctx, from); err != nil {
			return err
		}
		for {
			n, err := c.movePage(ctx, from)
			if moved += n; err != nil {
				return err
			}
			if n < movePage {
				return c.movePauses(ctx, from)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("move jobs from %s: %w", FileName, err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(c.app.DataDir(), FileName+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", FileName, err)
		}
	}
	if moved > 0 {
		c.log.Info("jobs moved from the data folder to Postgres", "jobs", moved)
	}
	return nil
}

// forgetTaken clears the outbox of rows that became jobs in the file: a crash came
// between the two.
func (c *Client) forgetTaken(ctx context.Context, from place) error {
	var ids []string
	if err := c.app.ConcurrentDB().Select("id").From("groundwork_outbox").Column(&ids); err != nil {
		return fmt.Errorf("read outbox: %w", err)
	}
	for _, id := range ids {
		var taken bool
		if err := queryRow(ctx, from, []any{&taken}, "SELECT COUNT(*) > 0 FROM groundwork_relayed WHERE id = $1", id); err != nil {
			return fmt.Errorf("find taken jobs: %w", err)
		}
		if !taken {
			continue
		}
		if _, err := c.app.NonconcurrentDB().Delete("groundwork_outbox", dbx.HashExp{"id": id}).Execute(); err != nil {
			return fmt.Errorf("clear outbox: %w", err)
		}
	}
	return nil
}

// movedJob is a row of River's table as it travels.
type movedJob struct {
	file int64 // its id there
	id   string

	kind, queue, state, args, metadata, failures string

	attempt, maxAttempts, priority       int
	created, scheduled, began, finalized moment
}

func (c *Client) movePage(ctx context.Context, from place) (int, error) {
	page, err := readMoved(ctx, from)
	if err != nil || len(page) == 0 {
		return 0, err
	}
	rows := make([]outboxRow, len(page))
	for i, job := range page {
		rows[i].ID = job.id
	}
	err = c.engine.inTx(ctx, func(tx transaction) error {
		if err := c.engine.serialize(ctx, tx, c.origin); err != nil {
			return err
		}
		fresh, err := remember(ctx, tx, rows, time.Now())
		if err != nil {
			return err
		}
		return c.store(ctx, tx, page, fresh)
	})
	if err != nil {
		return 0, err
	}
	ids := make([]int64, len(page))
	for i, job := range page {
		ids[i] = job.file
	}
	parameters, args := list(1, ids)
	if _, err := from.exec(ctx, "DELETE FROM river_job WHERE id IN ("+parameters+")", args...); err != nil {
		return 0, fmt.Errorf("delete moved jobs: %w", err)
	}
	return len(page), nil
}

func readMoved(ctx context.Context, from place) ([]movedJob, error) {
	found, err := from.query(ctx, "SELECT id, COALESCE(metadata->>'gwId', ''), kind, queue, state, json(args), json(metadata), COALESCE(json(errors), '[]'), attempt, max_attempts, priority,"+
		fmt.Sprintf(" created_at, scheduled_at, attempted_at, finalized_at FROM river_job ORDER BY id LIMIT %d", movePage))
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	defer found.Close()
	var page []movedJob
	for found.Next() {
		var job movedJob
		err := found.Scan(&job.file, &job.id, &job.kind, &job.queue, &job.state, &job.args, &job.metadata, &job.failures, &job.attempt, &job.maxAttempts, &job.priority,
			&job.created, &job.scheduled, &job.began, &job.finalized)
		if err != nil {
			return nil, fmt.Errorf("read jobs: %w", err)
		}
		if job.id == "" {
			job.id = security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet)
		}
		page = append(page, job)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	return page, nil
}

// store writes moved jobs into Postgres, in one statement.
func (c *Client) store(ctx context.Context, tx querier, page []movedJob, fresh map[string]bool) error {
	var values []string
	var args []any
	for _, job := range page {
		if !fresh[job.id] {
			continue // it came before a crash
		}
		var p []any
		for _, v := range []any{job.kind, ownQueue(job.queue, c.origin), job.state, string(cleanJSON([]byte(job.args))), string(cleanJSON([]byte(job.metadata))), c.origin, job.id,
			string(cleanJSON([]byte(job.failures))), job.attempt, job.maxAttempts, job.priority, job.created.Time, job.scheduled.Time, orNull(job.began), orNull(job.finalized)} {
			args = append(args, v)
			p = append(p, len(args))
		}
		values = append(values, fmt.Sprintf("($%d::text, $%d::text, $%d::river_job_state, $%d::jsonb, $%d::jsonb || jsonb_build_object('gwOrigin', $%d::text, 'gwId', $%d::text),"+
			" ARRAY(SELECT jsonb_array_elements($%d::jsonb)), $%d::smallint, $%d::smallint, $%d::smallint, $%d::timestamptz, $%d::timestamptz, $%d::timestamptz, $%d::timestamptz)", p...))
	}
	if len(values) == 0 {
		return nil
	}
	_, err := tx.exec(ctx, "INSERT INTO river_job (kind, queue, state, args, metadata, errors, attempt, max_attempts, priority, created_at, scheduled_at, attempted_at, finalized_at) VALUES "+
		strings.Join(values, ", "), args...)
	if err != nil {
		return fmt.Errorf("store moved jobs: %w", err)
	}
	return nil
}

func orNull(m moment) any {
	if m.IsZero() {
		return nil
	}
	return m.Time
}

func (c *Client) movePauses(ctx context.Context, from place) error {
	found, err := from.query(ctx, "SELECT name FROM river_queue WHERE paused_at IS NOT NULL")
	if err != nil {
		return fmt.Errorf("read paused queues: %w", err)
	}
	defer found.Close()
	var paused []string
	for found.Next() {
		var name string
		if err := found.Scan(&name); err != nil {
			return fmt.Errorf("read paused queues: %w", err)
		}
		paused = append(paused, name)
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("read paused queues: %w", err)
	}
	found.Close()
	for _, name := range paused {
		if err := c.engine.pauseQueue(ctx, ownQueue(name, c.origin)); err != nil {
			return fmt.Errorf("pause queue %s: %w", name, err)
		}
	}
	return nil
}
