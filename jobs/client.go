package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

// FileName is the jobs database in PocketBase's data folder.
const FileName = "jobs.db"

// Config of a [Client]. The zero value works.
type Config struct {
	// Workers is how many jobs of each queue run at a time; a queue that is not
	// named here has the default of 4 (critical), 8 (default), 6 (bulk) and 1
	// (maintenance).
	Workers map[string]int

	// StopTimeout is how long [Client.Stop] lets running jobs finish before
	// their contexts are cancelled; zero means 10 seconds.
	StopTimeout time.Duration

	// Log receives what goes wrong; nil discards it.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	workers := map[string]int{QueueCritical: 4, QueueDefault: 8, QueueBulk: 6, QueueMaintenance: 1}
	for queue, n := range c.Workers {
		workers[queue] = n
	}
	c.Workers = workers
	if c.StopTimeout == 0 {
		c.StopTimeout = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Client works the jobs of one app in this process.
type Client struct {
	app   core.App
	cfg   Config
	db    *sql.DB
	river *river.Client[*sql.Tx]

	wake    chan struct{} // something is in the outbox
	arrived chan struct{} // something is in River's table
	cancel  context.CancelFunc
	relays  sync.WaitGroup
}

// relayPoll is how often the outbox is read without having been asked to: for
// rows that another process wrote.
const relayPoll = 2 * time.Second

// New opens (and, the first time, makes) the jobs database. It works nothing
// until [Client.Start].
func New(app core.App, workers *Workers, cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	db, err := openDB(filepath.Join(app.DataDir(), FileName))
	if err != nil {
		return nil, err
	}
	c := &Client{app: app, cfg: cfg, db: db, wake: make(chan struct{}, 1), arrived: make(chan struct{}, 1)}
	if err := c.open(workers); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return c, nil
}

func openDB(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=journal_size_limit(200000000)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open jobs database: %w", err)
	}
	db.SetMaxOpenConns(1) // River works in parallel, SQLite has one writer
	return db, nil
}

func (c *Client) open(workers *Workers) error {
	ctx := context.Background()
	driver := &wakingDriver{riversqlite.New(c.db), c.arrived}
	quiet := slog.New(levelFilter{c.cfg.Log.Handler(), slog.LevelWarn}) // River tells its own start and stop at info
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return fmt.Errorf("make jobs migrator: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate jobs database: %w", err)
	}
	if _, err := c.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS groundwork_relayed (id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID"); err != nil {
		return fmt.Errorf("make relay table: %w", err)
	}
	queues := map[string]river.QueueConfig{}
	for name, n := range c.cfg.Workers {
		queues[name] = river.QueueConfig{MaxWorkers: n}
	}
	c.river, err = river.NewClient(driver, &river.Config{
		Queues: queues, Workers: workers.river, Logger: quiet,
		SkipUnknownJobCheck: true, // a job of a newer or older version is stored and shown, not lost
		FetchCooldown:       5 * time.Millisecond,
		SoftStopTimeout:     c.cfg.StopTimeout,
		// Nothing but a crash leaves a job running, and the start frees those.
		RescueStuckJobsAfter: 24 * 365 * time.Hour,
		ErrorHandler:         errorLog{c.cfg.Log},
	})
	if err != nil {
		return fmt.Errorf("make jobs client: %w", err)
	}
	return nil
}

// Start frees the jobs that a killed process left running and begins to work.
func (c *Client) Start(ctx context.Context) error {
	if err := c.rescue(ctx); err != nil {
		return err
	}
	// Jobs end through Stop, not because the caller's context does.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	if err := c.river.Start(run); err != nil {
		cancel()
		return fmt.Errorf("start jobs: %w", err)
	}
	c.app.Store().Set(storeKeyClient, c)
	c.relays.Go(func() { c.relayLoop(run) })
	return nil
}

// rescue makes jobs available that were running when their process was killed.
// The attempt that the crash cut off counts, so that a job which kills the
// process each time is given up in the end.
func (c *Client) rescue(ctx context.Context) error {
	_, err := c.db.ExecContext(ctx, `UPDATE river_job SET state = 'discarded', finalized_at = CURRENT_TIMESTAMP,
		errors = jsonb('[{"at":"' || strftime('%Y-%m-%dT%H:%M:%fZ', 'now') || '","attempt":' || attempt || ',"error":"The process ended during every attempt at this job, so it was given up.","trace":""}]')
		WHERE state = 'running' AND attempt >= max_attempts`)
	if err != nil {
		return fmt.Errorf("give up crashing jobs: %w", err)
	}
	res, err := c.db.ExecContext(ctx, "UPDATE river_job SET state = 'available' WHERE state = 'running'")
	if err != nil {
		return fmt.Errorf("free running jobs: %w", err)
	}
	if n, _ := res.RowsAffected(); n > 0 {
		c.cfg.Log.Warn("jobs that the last process left running go on", "jobs", n)
	}
	if _, err := c.db.ExecContext(ctx, "DELETE FROM groundwork_relayed WHERE at < ?", time.Now().AddDate(0, 0, -30).Unix()); err != nil {
		return fmt.Errorf("prune relay table: %w", err)
	}
	return nil
}

func (c *Client) relayLoop(ctx context.Context) {
	ticker := time.NewTicker(relayPoll)
	defer ticker.Stop()
	for {
		if err := c.relay(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("jobs cannot be taken from the outbox, trying again", "error", err)
		}
		select {
		case <-c.wake:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Stop lets running jobs finish, hands back those that do not in time, and
// closes the database. No job runs after it has returned.
func (c *Client) Stop(ctx context.Context) error {
	var err error
	if c.cancel != nil {
		c.app.Store().Remove(storeKeyClient)
		err = c.river.Stop(ctx)
		c.cancel()
		c.relays.Wait()
	}
	return errors.Join(err, c.db.Close())
}

// errorLog tells the log of failed jobs.
type errorLog struct{ log *slog.Logger }

func (l errorLog) HandleError(_ context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	l.log.Error("job failed", "kind", job.Kind, "queue", job.Queue, "attempt", job.Attempt, "error", err)
	return nil
}

func (l errorLog) HandlePanic(_ context.Context, job *rivertype.JobRow, panicVal any, trace string) *river.ErrorHandlerResult {
	l.log.Error("job panicked", "kind", job.Kind, "queue", job.Queue, "attempt", job.Attempt, "panic", fmt.Sprint(panicVal), "stack", trace)
	return nil
}

// levelFilter drops what is below a level.
type levelFilter struct {
	slog.Handler
	min slog.Level
}

func (f levelFilter) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= f.min && f.Handler.Enabled(ctx, l)
}
