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
	number int // River's count of the attempt
	meta   meta

	mu     sync.Mutex
	unsure map[string]bool // parts whose mark may be stored although Begin has failed
}

// doubts remembers that a mark of this attempt may be stored or not, and says whether
// it was so before.
func (a *attempt) doubts(part string, now bool) (before bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before = a.unsure[part]
	if a.unsure == nil {
		a.unsure = map[string]bool{}
	}
	a.unsure[part] = now
	return before
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
// earlier call, has begun it: whether it happened then is not known. A call that fails
// has begun nothing, and may be made again. The error is
// [ErrTakenAway] when the job was given to another process, because this one was taken
// for dead, or cancelled: then the part is no longer this one's to do, or to answer.
func Begin(ctx context.Context, part string) (fresh bool, err error) {
	a, err := attemptOf(ctx)
	if err != nil {
		return false, fmt.Errorf("begin %q: %w", part, err)
	}
	fresh, err = a.begin(ctx, part)
	if errors.Is(err, ErrTakenAway) {
		return false, err
	}
	if err != nil {
		a.doubts(part, true)
		return false, fmt.Errorf("begin %q: %w", part, err)
	}
	a.doubts(part, false)
	return fresh, nil
}

func (a *attempt) begin(ctx context.Context, part string) (fresh bool, err error) {
	// The row is locked, so that nobody who has seen the job to be over, and its marks,
	// is overtaken by one more.
	n, err := a.engine.exec(ctx, "INSERT INTO groundwork_marks (job, part, attempt) SELECT id, $2, attempt FROM river_job WHERE id = $1 AND state = 'running' AND attempt = $3"+a.engine.share()+
		" ON CONFLICT DO NOTHING", a.job, part, a.number)
	if err != nil || n == 1 {
		return err == nil, err
	}
	var ours int
	if err := queryRow(ctx, a.engine, []any{&ours}, "SELECT COUNT(*) FROM river_job WHERE id = $1 AND state = 'running' AND attempt = $2", a.job, a.number); err != nil {
		return false, err
	}
	if ours == 0 {
		return false, ErrTakenAway
	}
	if !a.doubts(part, true) {
		return false, nil
	}
	// The mark may be that of a call which failed because the answer was lost: then
	// nothing happened since.
	err = queryRow(ctx, a.engine, []any{&ours}, "SELECT COUNT(*) FROM groundwork_marks WHERE job = $1 AND part = $2 AND attempt = $3", a.job, part, a.number)
	return ours == 1, err
}

// Begun returns the parts of the job that were begun.
func Begun(ctx context.Context) (map[string]bool, error) {
	a, err := attemptOf(ctx)
	if err != nil {
		return nil, fmt.Errorf("read begun parts: %w", err)
	}
	return readMarks(ctx, a.engine, a.job)
}

func readMarks(ctx context.Context, q querier, job int64) (map[string]bool, error) {
	found, err := q.query(ctx, "SELECT part FROM groundwork_marks WHERE job = $1", job)
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
	here := &attempt{engine: a.engine, job: job.ID, number: job.Attempt}
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

// mostError is how much of an attempt's error is kept, in bytes: a job has one for each
// attempt, and the monitor shows those of many jobs at once.
const mostError = 10 << 10

// cleanError takes the character 0 out of what is told: Postgres stores none, and
// with one such text the ends of all jobs of this process would wait for ever. What is
// told at too great a length is cut.
func cleanError(err error) error {
	if err == nil || tellable(err.Error()) {
		return err
	}
	clean := errors.New(told(err.Error()))
	var cancel *rivertype.JobCancelError
	if errors.As(err, &cancel) {
		return river.JobCancel(clean)
	}
	return clean
}

func cleanPanic() {
	if v := recover(); v != nil {
		if text := fmt.Sprint(v); !tellable(text) {
			panic(told(text))
		}
		panic(v)
	}
}

func tellable(text string) bool { return len(text) <= mostError && !strings.Contains(text, "\x00") }

func told(text string) string {
	text = withoutNull(text)
	if len(text) > mostError {
		text = strings.ToValidUTF8(text[:mostError], "") + "…"
	}
	return text
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
