package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// mostResult is how large a result may be, in bytes of JSON.
const mostResult = 1 << 20

// attempt is what a worker's context knows of the job.
type attempt struct {
	engine engine
	job    int64
	meta   meta
}

type attemptKey struct{}

var errNoAttempt = errors.New("this is not the context of a job's worker")

func attemptOf(ctx context.Context) (*attempt, error) {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		return nil, errNoAttempt
	}
	return a, nil
}

// SetResult keeps v, as JSON of at most 1 MB, as the result of the job whose worker
// has this context; the last call counts. It is stored when the attempt ends, however
// that is, and kept for [Config].KeepResults.
func SetResult(ctx context.Context, v any) error {
	if _, err := attemptOf(ctx); err != nil {
		return fmt.Errorf("set result: %w", err)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	if len(raw) > mostResult {
		return fmt.Errorf("the result has %d bytes: a job keeps at most 1 MB", len(raw))
	}
	return river.RecordOutput(ctx, json.RawMessage(cleanJSON(raw)))
}

// Begin marks, durably, that a part of the job begins which must not happen twice:
// call it before the message leaves. fresh is false when an earlier attempt, or an
// earlier call, has begun it: whether it happened then is not known.
func Begin(ctx context.Context, part string) (fresh bool, err error) {
	a, err := attemptOf(ctx)
	if err != nil {
		return false, fmt.Errorf("begin %q: %w", part, err)
	}
	n, err := a.engine.exec(ctx, "INSERT INTO groundwork_marks (job, part) VALUES ($1, $2) ON CONFLICT DO NOTHING", a.job, part)
	if err != nil {
		return false, fmt.Errorf("begin %q: %w", part, err)
	}
	return n == 1, nil
}

// Begun returns the parts of the job that were begun.
func Begun(ctx context.Context) (map[string]bool, error) {
	a, err := attemptOf(ctx)
	if err != nil {
		return nil, fmt.Errorf("read begun parts: %w", err)
	}
	found, err := a.engine.query(ctx, "SELECT part FROM groundwork_marks WHERE job = $1", a.job)
	if err != nil {
		return nil, fmt.Errorf("read begun parts: %w", err)
	}
	defer found.Close()
	begun := map[string]bool{}
	for found.Next() {
		var part string
		if err := found.Scan(&part); err != nil {
			return nil, fmt.Errorf("read begun parts: %w", err)
		}
		begun[part] = true
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("read begun parts: %w", err)
	}
	return begun, nil
}

// Reply enqueues a job on a queue of the installation that this one came from, at
// once: how work done elsewhere tells what came of it. A worker that is called again
// replies again. o.Share and o.Owner are not for it.
func Reply(ctx context.Context, args Args, o Options) error {
	a, err := attemptOf(ctx)
	if err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	o.Share, o.Owner = "", ""
	row, err := newRow(args, o)
	if err != nil {
		return err
	}
	if _, err := take(ctx, a.engine, a.meta.Origin, []outboxRow{row}); err != nil {
		return fmt.Errorf("reply with job %s: %w", row.Kind, err)
	}
	return nil
}

// attempts are those that run in this process.
type attempts struct {
	river.MiddlewareDefaults

	engine engine
	log    logger

	mu      sync.Mutex
	running map[int64]int       // of each job of River's; one that was given up here may have come back
	ended   map[int64]time.Time // their end is stored a moment later
}

func newAttempts(log logger) *attempts {
	return &attempts{log: log, running: map[int64]int{}, ended: map[int64]time.Time{}}
}

// Work implements [rivertype.WorkerMiddleware].
func (a *attempts) Work(ctx context.Context, job *rivertype.JobRow, do func(context.Context) error) error {
	here := &attempt{engine: a.engine, job: job.ID}
	if err := json.Unmarshal(job.Metadata, &here.meta); err != nil {
		return fmt.Errorf("read metadata of job %d: %w", job.ID, err)
	}
	a.mu.Lock()
	a.running[job.ID]++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.running[job.ID]--; a.running[job.ID] <= 0 {
			delete(a.running, job.ID)
		}
		a.ended[job.ID] = time.Now()
	}()
	defer cleanPanic()
	return cleanError(do(context.WithValue(ctx, attemptKey{}, here)))
}

// cleanError takes the character 0 out of what is told: Postgres stores none, and
// with one such text the ends of all jobs of this process would wait for ever.
func cleanError(err error) error {
	if err == nil || !strings.Contains(err.Error(), "\x00") {
		return err
	}
	clean := errors.New(withoutNull(err.Error()))
	var cancel *rivertype.JobCancelError
	if errors.As(err, &cancel) {
		return river.JobCancel(clean)
	}
	return clean
}

func cleanPanic() {
	if v := recover(); v != nil {
		if text := fmt.Sprint(v); strings.Contains(text, "\x00") {
			panic(withoutNull(text))
		}
		panic(v)
	}
}

func withoutNull(text string) string { return strings.ReplaceAll(text, "\x00", "\ufffd") }

// has says whether a job runs here, or ended a moment ago. One that is said to run
// here, and does not, is lost: the news of its end was, or this process never learned
// that it took the job.
func (a *attempts) has(job int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ended := a.ended[job]
	return a.running[job] > 0 || ended && time.Since(at) <= lostAfter
}

// forget drops what ended long ago.
func (a *attempts) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.ended, func(_ int64, at time.Time) bool { return time.Since(at) > lostAfter })
}

// stuck is told of an attempt that goes on although its time is up: one that does
// not look at its context. Another worker takes its place, so that the queue goes on.
func (a *attempts) stuck(ctx context.Context, p river.JobStuckHandlerParams) river.JobStuckHandlerResult {
	const why = "This attempt goes on although its time is up: it does not look at its context. It holds up no other job; it ends with the process, at the latest."
	a.log.Error("a job does not end although its time is up", "kind", p.Kind, "queue", plainQueue(p.Queue), "stuck", p.TotalStuckJobs)
	ctx, cancel := context.WithTimeout(ctx, statementLimit)
	defer cancel()
	if _, err := a.engine.exec(ctx, "UPDATE river_job SET errors = "+a.engine.andFailure("$1")+" WHERE id = $2 AND state = 'running'", why, p.ID); err != nil {
		a.log.Error("the job that does not end could not be marked", "kind", p.Kind, "error", err)
	}
	return river.JobStuckHandlerResult{AddWorkerSlot: true}
}
