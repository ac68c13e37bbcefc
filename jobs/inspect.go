package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// States of a job.
const (
	StateAvailable = "available" // it starts as soon as a worker is free
	StateScheduled = "scheduled" // it starts later
	StateRunning   = "running"
	StateRetryable = "retryable" // it failed, and is tried again later
	StateCompleted = "completed"
	StateCancelled = "cancelled" // by its worker or by a person
	StateDiscarded = "discarded" // it failed at its last attempt
)

// ErrNotFound means that there is no such job or queue.
var ErrNotFound = errors.New("there is no such job or queue")

// idPattern is what public ids look like. Anybody can ask for another one, and Postgres
// answers some of those, such as the character 0, with an error and not with nothing.
var idPattern = regexp.MustCompile(`^[a-z0-9]{15}$`)

// AttemptError is what went wrong at one attempt.
type AttemptError struct {
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	Error   string    `json:"error"`
	Trace   string    `json:"trace,omitempty"` // of a panic
}

// Info is what is known of a job.
type Info struct {
	ID, Kind, Queue, State string

	// Args and Result are JSON; Result is nil when there is none.
	Args, Result json.RawMessage

	Attempt, MaxAttempts int
	Errors               []AttemptError // never nil

	// Times are UTC. StartedAt is of the latest attempt; zero when there was none.
	// FinishedAt is zero for a job that did not end.
	EnqueuedAt, RunAt, StartedAt, FinishedAt time.Time

	// Host is where the latest attempt was made.
	Host  string
	Owner string

	Priority int
}

// Filter says which jobs [List] returns. The zero value is the latest 50.
type Filter struct {
	// State, Queue and Kind, when not empty, are those of the jobs. Queue is as in
	// [Info].
	State, Queue, Kind string

	// Limit is the most jobs that are returned; zero means 50, and 500 is the most.
	Limit int

	// Before is the id of a job: only earlier ones are returned.
	Before string
}

// jobColumns are what scanJob reads.
func jobColumns(p place) string {
	return "id, metadata->>'gwId', kind, queue, CAST(state AS TEXT), " + p.text("args") + ", COALESCE(" + p.text("metadata->'output'") + ", ''), attempt, max_attempts, " + p.failures() +
		", COALESCE(metadata->>'gwAt', ''), scheduled_at, attempted_at, finalized_at, COALESCE(" + p.node() + ", ''), COALESCE(metadata->>'gwOwner', ''), priority"
}

func scanJob(p place, found rows) (river int64, info Info, err error) {
	var args, result, failures, enqueued, node string
	var runAt, started, finished moment
	err = found.Scan(&river, &info.ID, &info.Kind, &info.Queue, &info.State, &args, &result, &info.Attempt, &info.MaxAttempts, &failures,
		&enqueued, &runAt, &started, &finished, &node, &info.Owner, &info.Priority)
	if err != nil {
		return 0, Info{}, fmt.Errorf("read job: %w", err)
	}
	if p.origin != "" {
		info.Queue = strings.TrimSuffix(info.Queue, "_"+p.origin)
	}
	info.Args = json.RawMessage(args)
	if result != "" {
		info.Result = json.RawMessage(result)
	}
	info.Errors = []AttemptError{}
	if failures != "" {
		if err := json.Unmarshal([]byte(failures), &info.Errors); err != nil {
			return 0, Info{}, fmt.Errorf("read errors of job: %w", err)
		}
	}
	for i, e := range info.Errors {
		info.Errors[i].Error = sentence(e.Error, info.Kind)
	}
	info.EnqueuedAt, _ = time.Parse(timeLayout, enqueued)
	info.RunAt, info.StartedAt, info.FinishedAt = runAt.Time, started.Time, finished.Time
	info.Host, _, _ = strings.Cut(node, "/")
	return river, info, nil
}

// moment is a time as either database returns it, in UTC; zero for none.
type moment struct{ time.Time }

// Scan implements [sql.Scanner].
func (m *moment) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		m.Time = time.Time{}
	case time.Time:
		m.Time = v.UTC()
	case string:
		at, err := time.Parse(sqliteTime, v)
		m.Time = at
		return err
	default:
		return fmt.Errorf("%T is no time", v)
	}
	return nil
}

// sentence is an attempt's error for people, where River's own says little.
func sentence(text, kind string) string {
	if strings.HasPrefix(text, "job kind is not registered in the client's Workers bundle") {
		return fmt.Sprintf("Nothing here does jobs of the kind %q. Another version of the program may: the job is tried again until its attempts are used up.", kind)
	}
	return strings.TrimPrefix(text, "JobCancelError: ") // River's word for a job that its worker gave up
}

// Find returns a job by its public id; [ErrNotFound] when there is none. It sees jobs
// that wait in the outbox, too, but not those of a transaction that did not commit.
func Find(ctx context.Context, app core.App, id string) (*Info, error) {
	if !idPattern.MatchString(id) {
		return nil, ErrNotFound
	}
	// Between the two looks a job may move, in one direction.
	for _, look := range []func(context.Context, core.App, string) (*Info, error){findStored, findWaiting, findStored} {
		info, err := look(ctx, app, id)
		if err == nil || !errors.Is(err, ErrNotFound) {
			return info, err
		}
	}
	return nil, ErrNotFound
}

func findStored(ctx context.Context, app core.App, id string) (found *Info, err error) {
	err = withPlace(ctx, app, func(p place) error {
		all, err := listStored(ctx, p, "metadata->>'gwId' = $1", 1, id)
		if len(all) > 0 {
			found = &all[0]
		}
		return err
	})
	if err == nil && found == nil {
		err = ErrNotFound
	}
	return found, err
}

func listStored(ctx context.Context, p place, which string, limit int, args ...any) ([]Info, error) {
	found, err := p.query(ctx, "SELECT "+jobColumns(p)+" FROM river_job WHERE metadata->>'gwId' IS NOT NULL AND "+mine(p.origin)+" AND "+which+fmt.Sprintf(" ORDER BY id DESC LIMIT %d", limit), args...)
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	defer found.Close()
	all := []Info{}
	for found.Next() {
		_, info, err := scanJob(p, found)
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	return all, nil
}

func findWaiting(_ context.Context, app core.App, id string) (*Info, error) {
	var row outboxRow
	err := app.ConcurrentDB().Select("*").From("groundwork_outbox").Where(dbx.HashExp{"id": id}).One(&row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	info := row.info()
	return &info, nil
}

func (r outboxRow) info() Info {
	info := Info{ID: r.ID, Kind: r.Kind, Queue: r.Queue, State: StateAvailable, Args: json.RawMessage(r.Args), MaxAttempts: r.MaxAttempts, Errors: []AttemptError{}, Owner: r.Owner, Priority: r.Priority}
	if r.Share != "" {
		info.Queue = sharedQueue(r.Queue, r.Share)
	}
	info.EnqueuedAt, _ = time.Parse(timeLayout, r.CreatedAt)
	info.RunAt = info.EnqueuedAt
	if at, err := time.Parse(timeLayout, r.RunAt); err == nil {
		if info.RunAt = at; at.After(time.Now()) {
			info.State = StateScheduled
		}
	}
	return info
}

// List returns jobs of app that were taken from the outbox, the latest first.
func List(ctx context.Context, app core.App, f Filter) (all []Info, err error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	f.Limit = min(f.Limit, 500)
	err = withPlace(ctx, app, func(p place) error {
		which, args := "TRUE", []any{}
		for _, part := range []struct{ condition, value string }{
			{"CAST(state AS TEXT) = $%d", f.State}, {"queue = $%d", queueNamed(p, f.Queue)}, {"kind = $%d", f.Kind},
			{"id < (SELECT id FROM river_job WHERE metadata->>'gwId' = $%d)", f.Before},
		} {
			if part.value != "" {
				args = append(args, part.value)
				which += " AND " + fmt.Sprintf(part.condition, len(args))
			}
		}
		all, err = listStored(ctx, p, which, f.Limit, args...)
		return err
	})
	return all, err
}

// queueNamed is River's name of a queue that is called as in [Info].
func queueNamed(p place, queue string) string {
	if queue == "" || strings.Contains(queue, "_at_") {
		return queue
	}
	return ownQueue(queue, p.origin)
}

// Retry makes a job run again now that ended, or that waits for a later attempt; the
// attempt is one more than it had. A running job, and one that waits in the outbox,
// are left alone.
func Retry(ctx context.Context, app core.App, id string) error {
	return withJob(ctx, app, id, func(p place, job int64) error { return p.retryJob(ctx, job) })
}

// CancelJob gives a job up that did not end. A running one's context ends; it is
// cancelled when its worker returns.
func CancelJob(ctx context.Context, app core.App, id string) error {
	var row outboxRow
	switch err := app.ConcurrentDB().Select("*").From("groundwork_outbox").Where(dbx.HashExp{"id": id}).One(&row); {
	case err == nil:
		if taken, err := cancelWaiting(ctx, app, row); err != nil || taken {
			return err
		}
	case !errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("read outbox: %w", err)
	}
	return withJob(ctx, app, id, func(p place, job int64) error { return p.cancelJob(ctx, job) })
}

// cancelWaiting takes a job from the outbox as one that was cancelled; false when the
// relay was faster.
func cancelWaiting(ctx context.Context, app core.App, row outboxRow) (taken bool, err error) {
	err = withPlace(ctx, app, func(p place) error {
		return p.inTx(ctx, func(tx transaction) error {
			fresh, err := remember(ctx, tx, []outboxRow{row}, time.Now())
			if err != nil || !fresh[row.ID] {
				return err
			}
			taken = true
			return setAside(ctx, p.engine, tx, p.origin, row, StateCancelled, errors.New("It was cancelled before it began.")) //nolint:staticcheck // a sentence: the monitor shows it
		})
	})
	return taken, err
}

func withJob(ctx context.Context, app core.App, id string, do func(place, int64) error) error {
	if !idPattern.MatchString(id) {
		return ErrNotFound
	}
	found := false
	err := withPlace(ctx, app, func(p place) error {
		var job int64
		err := queryRow(ctx, p, []any{&job}, "SELECT id FROM river_job WHERE metadata->>'gwId' = $1 AND "+mine(p.origin), id)
		if errors.Is(err, errNoRow) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find job %s: %w", id, err)
		}
		found = true
		return do(p, job)
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	return err
}
