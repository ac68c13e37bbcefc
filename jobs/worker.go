package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// Cancel gives a job up for good: it is not retried. The sentence of err is
// what the job monitor shows.
func Cancel(err error) error { return river.JobCancel(err) }

// Snooze runs a job again after d, without counting an attempt.
func Snooze(d time.Duration) error { return river.JobSnooze(max(d, 0)) }

// Snoozed says for how long an error that [Snooze] made asks to wait.
func Snoozed(err error) (wait time.Duration, ok bool) {
	var snooze *rivertype.JobSnoozeError
	if !errors.As(err, &snooze) {
		return 0, false
	}
	return snooze.Duration, true
}

// Cancelled says why an error that [Cancel] made gives up.
func Cancelled(err error) (why error, ok bool) {
	var cancel *rivertype.JobCancelError
	if !errors.As(err, &cancel) {
		return nil, false
	}
	return errors.Unwrap(cancel), true
}

// CalledOff says whether the context of a worker ended because a person cancelled the
// job ([CancelJob]), and not because its time is up or the process stops.
func CalledOff(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), river.ErrJobCancelledRemotely)
}

// Workers holds the worker of each kind of job. It is filled before [New] and
// not changed afterwards.
type Workers struct {
	river *river.Workers
	kinds map[string]bool
}

var registered struct {
	sync.Mutex
	add []func(*Workers)
}

// Register adds a worker to every set that [NewWorkers] makes from then on: for a
// program that embeds Groundwork. Call it in an init function or before the app is
// made. Two workers of one kind are a mistake in the program, and NewWorkers panics.
func Register[T Args](worker Worker[T]) {
	registered.Lock()
	defer registered.Unlock()
	registered.add = append(registered.add, func(w *Workers) { AddWorker(w, worker) })
}

// NewWorkers returns a set with what [Register] was given.
func NewWorkers() *Workers {
	w := &Workers{river: river.NewWorkers(), kinds: map[string]bool{}}
	registered.Lock()
	defer registered.Unlock()
	for _, add := range registered.add {
		add(w)
	}
	return w
}

// WorkersOf returns the set of an app, which is made when it is asked for first. What
// is added before the app serves is worked.
func WorkersOf(app core.App) *Workers {
	return app.Store().GetOrSet(storeKeyWorkers, func() any { return NewWorkers() }).(*Workers)
}

const storeKeyWorkers = "groundwork.jobs.workers"

// AddWorker registers the worker of T's kind. It panics when the kind has one, or
// when the kind cannot be one: these are mistakes in the program.
func AddWorker[T Args](w *Workers, worker Worker[T]) {
	var zero T
	w.claim(zero.Kind())
	river.AddWorker(w.river, &riverWorker[T]{worker: worker})
}

// AddFunc registers what does the jobs of a kind that is known only at run time. A
// result that is not nil is kept as [SetResult] keeps it. It panics when the kind has
// a worker.
func AddFunc(w *Workers, kind string, run func(ctx context.Context, job *Job[Raw]) (result any, err error)) {
	w.claim(kind)
	river.AddWorkerArgs(w.river, named{kind: kind}, &riverWorker[named]{worker: funcWorker(run)})
}

// Has says whether the kind has a worker.
func (w *Workers) Has(kind string) bool { return w.kinds[kind] }

func (w *Workers) claim(kind string) {
	if err := checkKind(kind); err != nil {
		panic(fmt.Sprintf("jobs: %v", err))
	}
	if w.kinds[kind] {
		panic(fmt.Sprintf("jobs: kind %q has two workers", kind))
	}
	w.kinds[kind] = true
}

// Raw are args as they are stored, for [AddFunc].
type Raw json.RawMessage

// Kind implements [Args]. The kind of raw args is known to who enqueued them.
func (Raw) Kind() string { return "" }

// Named are args of a kind that is known only at run time, for [Enqueue]: args is
// their JSON.
func Named(kind string, args json.RawMessage) Args { return named{kind, args} }

// named are args of any kind that are JSON already.
type named struct {
	kind string
	args json.RawMessage
}

func (n named) Kind() string { return n.kind }

// MarshalJSON implements [json.Marshaler].
func (n named) MarshalJSON() ([]byte, error) {
	if len(n.args) == 0 {
		return []byte("{}"), nil
	}
	return n.args, nil
}

// UnmarshalJSON implements [json.Unmarshaler].
func (n *named) UnmarshalJSON(raw []byte) error {
	n.args = slices.Clone(raw)
	return nil
}

type funcWorker func(ctx context.Context, job *Job[Raw]) (any, error)

func (f funcWorker) Work(ctx context.Context, job *Job[named]) error {
	result, err := f(ctx, &Job[Raw]{ID: job.ID, Args: Raw(job.Args.args), Queue: job.Queue, Attempt: job.Attempt,
		MaxAttempts: job.MaxAttempts, RequestID: job.RequestID, EnqueuedAt: job.EnqueuedAt, Origin: job.Origin})
	if result != nil && err == nil {
		err = SetResult(ctx, result)
	}
	return err
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
	Origin     string    `json:"gwOrigin,omitempty"`
	Owner      string    `json:"gwOwner,omitempty"`
}

func (w *riverWorker[T]) Work(ctx context.Context, job *river.Job[T]) error {
	a, err := attemptOf(ctx)
	if err != nil {
		return err
	}
	err = w.worker.Work(ctx, &Job[T]{ID: a.meta.ID, Args: job.Args, Queue: plainQueue(job.Queue), Attempt: job.Attempt,
		MaxAttempts: job.MaxAttempts, RequestID: a.meta.RequestID, EnqueuedAt: a.meta.EnqueuedAt, Origin: a.meta.Origin})
	switch {
	case err == nil:
		return nil
	case stopping(ctx) && errors.Is(err, context.Canceled):
		// The process is going down: the job is handed back, not failed.
		return river.JobSnooze(0)
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return fmt.Errorf("The job was not done when the time for one attempt was up: %w", err) //nolint:staticcheck // a sentence: the monitor shows it
	}
	return err
}

// stopping says whether the job's context ended because its client stops, and
// not because its time was up.
func stopping(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return cause != nil && !errors.Is(cause, context.DeadlineExceeded) && !errors.Is(cause, river.ErrJobCancelledRemotely)
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
