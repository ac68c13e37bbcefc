package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/groundworkhq/groundwork/internal/redact"
)

// Config of a [Client]. The zero value works.
type Config struct {
	// DatabaseURL is a Postgres, postgres://user:password@host:5432/database, that
	// several processes and installations may share; empty means SQLite, a file in the
	// data folder.
	DatabaseURL string

	// KeepResults is how long a finished job with a result or an owner can be read;
	// zero means 7 days. Others are kept for a day, those that failed for 7.
	KeepResults time.Duration

	// Host names this machine in the job monitor; empty means its host name.
	Host string

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
	if c.KeepResults == 0 {
		c.KeepResults = 7 * 24 * time.Hour
	}
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
	process
	app    core.App
	cfg    Config
	origin string // this installation; empty on SQLite

	wake    chan struct{} // something is in the outbox
	arrived func()        // something is in River's table

	takers struct {
		sync.Mutex
		read     time.Time
		hosts    map[Work][]string
		troubled map[string]string // by host
	}
}

// relayPoll is how often the outbox is read without having been asked to: for
// rows that another process wrote.
const relayPoll = 2 * time.Second

// StoreKeyDatabaseURL is where [core.App.Store] has the address of the jobs database
// for what works without a [Client], such as a command; empty or absent means SQLite.
const StoreKeyDatabaseURL = "groundwork.jobs.database"

// New opens (and, the first time, makes) the jobs database. It works nothing
// until [Client.Start], which is also the first to connect to Postgres.
func New(app core.App, workers *Workers, cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	c := &Client{app: app, cfg: cfg, wake: make(chan struct{}, 1), arrived: func() {}}
	c.log, c.attempts, c.ready = cfg.Log, newAttempts(cfg.Log), c.prepare
	c.loop = []func(context.Context){c.relayLoop, c.cleanLoop}
	if cfg.DatabaseURL != "" {
		return c, c.openPostgres(workers)
	}
	db, err := openSQLite(app.DataDir())
	if err != nil {
		return nil, err
	}
	c.node = newNode(cfg.Host, nodeAPI, "", cfg.Workers, nil)
	c.engine, c.arrived, err = newSQLite(db, riverConfig(c.node.id, cfg.Workers, workers, cfg.StopTimeout, cfg.Log, c.attempts))
	if err == nil {
		c.attempts.engine = c.engine
		err = c.engine.migrate(context.Background())
	}
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	return c, nil
}

func (c *Client) openPostgres(workers *Workers) (err error) {
	if c.origin, err = installation(c.app); err != nil {
		return err
	}
	db, err := openPostgres(c.cfg.DatabaseURL)
	if err != nil {
		return err
	}
	queues := map[string]int{}
	for queue, n := range c.cfg.Workers {
		queues[ownQueue(queue, c.origin)] = n
	}
	c.shared, c.node = true, newNode(c.cfg.Host, nodeAPI, c.origin, c.cfg.Workers, nil)
	c.engine, err = newPostgres(db, riverConfig(c.node.id, queues, workers, c.cfg.StopTimeout, c.cfg.Log, c.attempts))
	if err != nil {
		return errors.Join(err, db.close())
	}
	c.attempts.engine = c.engine
	return nil
}

// Start frees the jobs that a killed process left running and begins to work. A
// Postgres that cannot be reached is no error: it is tried again, and jobs wait in
// the outbox.
func (c *Client) Start(ctx context.Context) error {
	c.app.Store().Set(storeKeyClient, c)
	if err := c.start(ctx); err != nil {
		c.app.Store().Remove(storeKeyClient)
		return err
	}
	return nil
}

// prepare runs before the first job is taken.
func (c *Client) prepare(ctx context.Context) error {
	if !c.shared {
		// One process has the folder: whatever runs was its predecessor's.
		if err := depose(ctx, c.engine, "TRUE"); err != nil {
			return err
		}
		n, err := free(ctx, c.engine, c.engine, processEnded, "TRUE")
		if err != nil {
			return err
		}
		if n > 0 {
			c.log.Warn("jobs that the last process left running go on", "jobs", n)
		}
		return nil
	}
	return c.move(ctx)
}

func (c *Client) relayLoop(ctx context.Context) {
	ticker := time.NewTicker(relayPoll)
	defer ticker.Stop()
	says := trouble{log: c.log, begins: "Jobs cannot be taken from the outbox. They wait, and it is tried again.", ends: "Jobs are taken from the outbox again."}
	for {
		says.tell(ctx, c.relay(ctx))
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
	c.app.Store().Remove(storeKeyClient)
	return errors.Join(c.stop(ctx), c.engine.close())
}

// errorLog tells the log of failed jobs.
type errorLog struct{ log *slog.Logger }

func (l errorLog) HandleError(_ context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	l.log.Error("job failed", "kind", job.Kind, "queue", plainQueue(job.Queue), "attempt", job.Attempt, "error", redact.String(err.Error()))
	return nil
}

func (l errorLog) HandlePanic(_ context.Context, job *rivertype.JobRow, panicVal any, trace string) *river.ErrorHandlerResult {
	l.log.Error("job panicked", "kind", job.Kind, "queue", plainQueue(job.Queue), "attempt", job.Attempt, "panic", redact.String(fmt.Sprint(panicVal)), "stack", trace)
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
