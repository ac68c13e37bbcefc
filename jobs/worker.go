package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// Cancel gives a job up for good: it is not retried. The sentence of err is
// what the job monitor shows.
func Cancel(err error) error { return river.JobCancel(err) }

// Snooze runs a job again after d, without counting an attempt.
func Snooze(d time.Duration) error { return river.JobSnooze(max(d, 0)) }

// Workers holds the worker of each kind of job. It is filled before [New] and
// not changed afterwards.
type Workers struct {
	river *river.Workers
	kinds map[string]bool
}

// NewWorkers returns an empty set.
func NewWorkers() *Workers {
	return &Workers{river: river.NewWorkers(), kinds: map[string]bool{}}
}

// AddWorker registers the worker of T's kind. It panics when the kind has one:
// that is a mistake in the program.
func AddWorker[T Args](w *Workers, worker Worker[T]) {
	var zero T
	if w.kinds[zero.Kind()] {
		panic(fmt.Sprintf("jobs: kind %q has two workers", zero.Kind()))
	}
	w.kinds[zero.Kind()] = true
	river.AddWorker(w.river, &riverWorker[T]{worker: worker})
}

// riverWorker is a worker of ours as River calls it.
type riverWorker[T Args] struct {
	river.WorkerDefaults[T]
	worker Worker[T]
}

// meta is what an outbox row adds to a job; it travels in River's metadata.
type meta struct {
	ID         string    `json:"gwId"`
	RequestID  string    `json:"gwRequest,omitempty"`
	UniqueKey  string    `json:"gwUnique,omitempty"`
	EnqueuedAt time.Time `json:"gwAt"`
}

func (w *riverWorker[T]) Work(ctx context.Context, job *river.Job[T]) error {
	var m meta
	if err := json.Unmarshal(job.Metadata, &m); err != nil {
		return fmt.Errorf("read metadata of job %d: %w", job.ID, err)
	}
	err := w.worker.Work(ctx, &Job[T]{ID: m.ID, Args: job.Args, Queue: job.Queue, Attempt: job.Attempt,
		MaxAttempts: job.MaxAttempts, RequestID: m.RequestID, EnqueuedAt: m.EnqueuedAt})
	if err != nil && stopping(ctx) && errors.Is(err, context.Canceled) {
		// The process is going down: the job is handed back, not failed.
		return river.JobSnooze(0)
	}
	return err
}

// stopping says whether the job's context ended because its client stops, and
// not because its time was up.
func stopping(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded)
}

func (w *riverWorker[T]) Timeout(*river.Job[T]) time.Duration {
	if t, ok := w.worker.(Timeouter); ok {
		return t.Timeout()
	}
	return 0
}

func (w *riverWorker[T]) NextRetry(job *river.Job[T]) time.Time {
	if r, ok := w.worker.(RetryScheduler); ok {
		if wait := r.RetryAfter(job.Attempt); wait > 0 {
			return time.Now().Add(wait)
		}
	}
	return time.Time{}
}

// relayed is a job on its way from the outbox to River: args that are JSON
// already, of any kind.
type relayed struct {
	kind string
	args json.RawMessage
}

func (r relayed) Kind() string                 { return r.kind }
func (r relayed) MarshalJSON() ([]byte, error) { return r.args, nil }

var _ rivertype.JobArgs = relayed{}
