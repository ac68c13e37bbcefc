package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

// engine is River on one database.
type engine interface {
	database

	// migrate brings the tables up to date, River's and ours.
	migrate(ctx context.Context) error

	// inTx runs do in a transaction.
	inTx(ctx context.Context, do func(transaction) error) error

	start(ctx context.Context) error
	stop(ctx context.Context) error

	cancelJob(ctx context.Context, id int64) error
	retryJob(ctx context.Context, id int64) error
	pauseQueue(ctx context.Context, queue string) error
	resumeQueue(ctx context.Context, queue string) error
}

// transaction is one of an engine.
type transaction interface {
	querier

	// insert adds jobs and wakes who waits for them when it commits.
	insert(ctx context.Context, jobs []river.InsertManyParams) error
}

// querier is what database/sql and pgx have in common. Parameters are $1, $2 and so
// on in both.
type querier interface {
	exec(ctx context.Context, query string, args ...any) (changed int64, err error)
	query(ctx context.Context, query string, args ...any) (rows, error)
}

type rows interface {
	Next() bool
	Scan(into ...any) error
	Err() error
	Close()
}

// database is one of the two, and how its SQL differs.
type database interface {
	querier

	close() error

	// used says whether there are tables of jobs.
	used(ctx context.Context) (bool, error)

	// compact leaves nothing of deleted rows behind, as far as it can.
	compact(ctx context.Context) error

	// schema is the tables of ours, each statement harmless when it is there already.
	schema() []string

	// locked runs do while no other process does.
	locked(ctx context.Context, do func() error) error

	// serialize makes transactions that name the same key come one after the other.
	serialize(ctx context.Context, tx querier, key string) error

	// refuses says that the database will never take what caused the error.
	refuses(err error) bool

	// text is a JSON column or expression as text, value a parameter as JSON.
	text(expression string) string
	value(parameter string) string

	// failures is a job's errors as a JSON array ('' for none), newFailures a parameter
	// as them, andFailure them with one more whose sentence is a parameter.
	failures() string
	newFailures(parameter string) string
	andFailure(parameter string) string

	// withResult is a job's metadata with a parameter as its result.
	withResult(parameter string) string

	// node is who took the job last, state a text as a state, now the database's time,
	// ago a time before that.
	node() string
	state(expression string) string
	now() string
	ago(d time.Duration) string

	// at is a time as a parameter.
	at(t time.Time) any
}

// session is a database with transactions of River's type for it.
type session[TTx any] interface {
	database
	begin(ctx context.Context) (TTx, error)
	commit(ctx context.Context, tx TTx) error
	rollback(tx TTx)
	in(tx TTx) querier
}

// riverEngine is the one engine there is: River is generic over the transactions of
// its driver, and so is this.
type riverEngine[TTx any] struct {
	session[TTx]
	driver riverdriver.Driver[TTx]
	river  *river.Client[TTx]
	log    *slog.Logger
	run    context.CancelFunc
}

// newEngine makes an engine; it does not ask the database for anything yet.
func newEngine[TTx any](db session[TTx], driver riverdriver.Driver[TTx], cfg *river.Config) (engine, error) {
	client, err := river.NewClient(driver, cfg)
	if err != nil {
		return nil, fmt.Errorf("make jobs client: %w", err)
	}
	return &riverEngine[TTx]{session: db, driver: driver, river: client, log: cfg.Logger}, nil
}

func (e *riverEngine[TTx]) migrate(ctx context.Context) error {
	return e.locked(ctx, func() error {
		migrator, err := rivermigrate.New(e.driver, &rivermigrate.Config{Logger: e.log})
		if err != nil {
			return fmt.Errorf("make jobs migrator: %w", err)
		}
		if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
			return fmt.Errorf("migrate jobs database: %w", err)
		}
		for _, statement := range e.schema() {
			if _, err := e.exec(ctx, statement); err != nil {
				return fmt.Errorf("make tables in the jobs database: %w", err)
			}
		}
		return nil
	})
}

func (e *riverEngine[TTx]) inTx(ctx context.Context, do func(transaction) error) error {
	tx, err := e.begin(ctx)
	if err != nil {
		return fmt.Errorf("begin in the jobs database: %w", err)
	}
	defer e.rollback(tx) // no-op after the commit
	if err := do(riverTx[TTx]{e.in(tx), e, tx}); err != nil {
		return err
	}
	if err := e.commit(ctx, tx); err != nil {
		return fmt.Errorf("commit in the jobs database: %w", err)
	}
	return nil
}

type riverTx[TTx any] struct {
	querier
	engine *riverEngine[TTx]
	tx     TTx
}

// insertTopic and its payload are how River tells who works a queue that something
// came. River itself says it at most once in its FetchCooldown, before the commit:
// of two transactions that end within that time the second one is not seen until the
// next poll, a second later.
const insertTopic = "river_insert"

func (t riverTx[TTx]) insert(ctx context.Context, jobs []river.InsertManyParams) error {
	if len(jobs) == 0 {
		return nil
	}
	if _, err := t.engine.river.InsertManyFastTx(ctx, t.tx, jobs); err != nil {
		return fmt.Errorf("insert %d jobs: %w", len(jobs), err)
	}
	queues := map[string]bool{}
	for _, job := range jobs {
		queues[job.InsertOpts.Queue] = true
	}
	payloads := make([]string, 0, len(queues))
	for _, queue := range slices.Sorted(maps.Keys(queues)) {
		payloads = append(payloads, fmt.Sprintf(`{"queue": %q}`, queue))
	}
	err := t.engine.driver.UnwrapExecutor(t.tx).NotifyMany(ctx, &riverdriver.NotifyManyParams{Payload: payloads, Topic: insertTopic})
	if err != nil {
		return fmt.Errorf("tell of %d jobs: %w", len(jobs), err)
	}
	return nil
}

func (e *riverEngine[TTx]) start(ctx context.Context) error {
	// Jobs end through stop, not because the caller's context does.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if err := e.river.Start(run); err != nil {
		cancel()
		return fmt.Errorf("start jobs: %w", err)
	}
	e.run = cancel
	return nil
}

func (e *riverEngine[TTx]) stop(ctx context.Context) error {
	if e.run == nil {
		return nil
	}
	err := e.river.Stop(ctx)
	e.run()
	return err
}

func (e *riverEngine[TTx]) cancelJob(ctx context.Context, id int64) error {
	_, err := e.river.JobCancel(ctx, id)
	return gone(err)
}

func (e *riverEngine[TTx]) retryJob(ctx context.Context, id int64) error {
	_, err := e.river.JobRetry(ctx, id)
	return gone(err)
}

// pauseQueue pauses a queue that nobody works yet, too.
func (e *riverEngine[TTx]) pauseQueue(ctx context.Context, queue string) error {
	_, err := e.exec(ctx, "INSERT INTO river_queue (name, created_at, updated_at) VALUES ($1, "+e.now()+", "+e.now()+") ON CONFLICT DO NOTHING", queue)
	if err != nil {
		return fmt.Errorf("make queue: %w", err)
	}
	return e.river.QueuePause(ctx, queue, nil)
}

func (e *riverEngine[TTx]) resumeQueue(ctx context.Context, queue string) error {
	return gone(e.river.QueueResume(ctx, queue, nil))
}

// gone is River's word for a job or queue that is not there, as ours.
func gone(err error) error {
	if errors.Is(err, rivertype.ErrNotFound) {
		return ErrNotFound
	}
	return err
}

// riverConfig is what both engines and every process have in common.
func riverConfig(id string, queues map[string]int, workers *Workers, stopTimeout time.Duration, log *slog.Logger, attempts *attempts) *river.Config {
	cfg := &river.Config{
		ID: id, Queues: map[string]river.QueueConfig{}, Workers: workers.river,
		Logger:              slog.New(levelFilter{log.Handler(), slog.LevelWarn}), // River tells its own start and stop at info
		SkipUnknownJobCheck: true,                                                 // a job of a newer or older version is stored and shown, not lost
		FetchCooldown:       fetchCooldown,
		SoftStopTimeout:     stopTimeout,
		// Nothing but a crash leaves a job running, and those are freed by us.
		RescueStuckJobsAfter: 24 * 365 * time.Hour,
		// How long finished jobs are kept is a matter of each installation: see clean.
		CancelledJobRetentionPeriod: -1, CompletedJobRetentionPeriod: -1, DiscardedJobRetentionPeriod: -1,
		ErrorHandler:    errorLog{log},
		JobStuckHandler: attempts.stuck, JobStuckThreshold: stuckAfter,
		Middleware: []rivertype.Middleware{attempts},
	}
	for name, n := range queues {
		cfg.Queues[name] = river.QueueConfig{MaxWorkers: n}
	}
	return cfg
}

// stuckAfter is how long after its time an attempt may go on before another one
// takes its place beside it.
var stuckAfter = 10 * time.Second

// fetchCooldown is the shortest time between two looks for jobs.
const fetchCooldown = 5 * time.Millisecond

// errNoRow means that a query has found nothing.
var errNoRow = errors.New("no row")

// queryRow reads the one row of a query; [errNoRow] when there is none.
func queryRow(ctx context.Context, q querier, into []any, query string, args ...any) error {
	found, err := q.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer found.Close()
	if !found.Next() {
		if err := found.Err(); err != nil {
			return err
		}
		return errNoRow
	}
	if err := found.Scan(into...); err != nil {
		return err
	}
	found.Close()
	return found.Err()
}

// list is the parameters $first, $first+1 and so on for values, and the values.
func list[T any](first int, values []T) (string, []any) {
	parameters, args := "", make([]any, len(values))
	for i, v := range values {
		if i > 0 {
			parameters += ", "
		}
		parameters += fmt.Sprintf("$%d", first+i)
		args[i] = v
	}
	return parameters, args
}
