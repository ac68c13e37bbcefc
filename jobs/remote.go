package jobs

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// RemoteConfig of a [Remote].
type RemoteConfig struct {
	// DatabaseURL is the Postgres of the installations whose work this process does.
	DatabaseURL string

	// Queues is how many jobs of each queue run at a time, for each of Shares.
	Queues map[string]int

	// Shares are the keys of the work that this process can do ([Options].Share).
	Shares []string

	// Host names this machine in the job monitor; empty means its host name.
	Host string

	// StopTimeout is how long [Remote.Stop] lets running jobs finish before their
	// contexts are cancelled; zero means 10 seconds.
	StopTimeout time.Duration

	// Log receives what goes wrong; nil discards it.
	Log *slog.Logger
}

// Remote does shared work of any number of installations, without an app and on any
// machine that reaches their Postgres. It takes only kinds that it has a worker for.
type Remote struct{ process }

// NewRemote makes one. It connects to nothing until [Remote.Start].
func NewRemote(workers *Workers, cfg RemoteConfig) (*Remote, error) {
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Queues) == 0 || len(cfg.Shares) == 0 {
		return nil, errors.New("a worker needs a queue and a share key at least")
	}
	queues := map[string]int{}
	for queue, n := range cfg.Queues {
		for _, share := range cfg.Shares {
			if err := (outboxRow{Kind: "any.kind", Args: "{}", Queue: queue, Share: share, Priority: 1, MaxAttempts: 1}).check(); err != nil {
				return nil, err
			}
			queues[sharedQueue(queue, share)] = n
		}
	}
	db, err := openPostgres(cfg.DatabaseURL)
	if err != nil {
		return nil, err
	}
	r := &Remote{process{shared: true, log: cfg.Log, attempts: newAttempts(cfg.Log), ready: func(context.Context) error { return nil }, node: newNode(cfg.Host, nodeWorker, "", cfg.Queues, cfg.Shares)}}
	river := riverConfig(r.node.id, queues, workers, cfg.StopTimeout, cfg.Log, r.attempts)
	river.FetchOnlyKnownKinds = true
	if r.engine, err = newPostgres(db, river); err != nil {
		return nil, errors.Join(err, db.close())
	}
	r.attempts.engine = r.engine
	return r, nil
}

// ID names this process among those of the jobs database.
func (r *Remote) ID() string { return r.node.id }

// Start begins to work. A Postgres that cannot be reached is no error: it is tried
// again.
func (r *Remote) Start(ctx context.Context) error { return r.start(ctx) }

// Stop lets running jobs finish, hands back those that do not in time, and closes
// the database.
func (r *Remote) Stop(ctx context.Context) error {
	return errors.Join(r.stop(ctx), r.engine.close())
}
