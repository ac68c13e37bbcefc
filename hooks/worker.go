package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/groundworkhq/groundwork/internal/config"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

// WorkerConfig is what [RunWorker] needs to know.
type WorkerConfig struct {
	// DatabaseURL is JOBS_DATABASE_URL: the Postgres of the servers whose messages the
	// worker hands over.
	DatabaseURL string

	// Providers are those of the environment. A server's messages come here when it has
	// the same ones.
	Providers []notifications.ProviderConfig

	// Queues are those whose messages it takes; empty means [jobs.QueueBulk] and
	// [jobs.QueueDefault].
	Queues []string

	// Host is what people know the machine by; empty means its host name.
	Host string

	// LogOutput receives one JSON line per event; nil means os.Stdout.
	LogOutput io.Writer

	// err is what WorkerConfigFromEnv found wrong; RunWorker reports it.
	err error
}

// WorkerConfigFromEnv reads the environment variables of docs/reference.md that a
// worker needs: JOBS_DATABASE_URL and those of the providers. What is wrong with them
// is told by [RunWorker].
func WorkerConfigFromEnv() WorkerConfig {
	v, err := config.WorkerFromEnviron()
	if err != nil {
		return WorkerConfig{err: err}
	}
	return WorkerConfig{DatabaseURL: v.JobsDatabase, Providers: providersOf(v)}
}

const (
	// chunksAtATime is how many chunks of each provider and queue a worker has in hand.
	// How many messages leave at a time is the matter of the provider's gate.
	chunksAtATime = 8

	// A worker ends within these two and a moment.
	workerSoftStop = 10 * time.Second
	workerStop     = 14 * time.Second
)

// workerQueues are the queues with messages that a worker may hand over.
var workerQueues = []string{jobs.QueueBulk, jobs.QueueDefault}

func (c WorkerConfig) withDefaults() (WorkerConfig, map[string]int, error) {
	if c.err != nil {
		return c, nil, c.err
	}
	if c.LogOutput == nil {
		c.LogOutput = os.Stdout
	}
	if c.Host == "" {
		c.Host, _ = os.Hostname()
	}
	if c.DatabaseURL == "" {
		return c, nil, errors.New("JOBS_DATABASE_URL is missing: a worker takes its messages from the Postgres of the server. Set it to the server's value")
	}
	if len(c.Queues) == 0 {
		c.Queues = workerQueues
	}
	queues := map[string]int{}
	for _, name := range c.Queues {
		name = strings.TrimSpace(name)
		switch name {
		case jobs.QueueBulk, jobs.QueueDefault:
			queues[name] = chunksAtATime
		case jobs.QueueCritical:
			return c, nil, errors.New("a worker does not take the queue critical: codes and sign-in mails always leave from the server itself")
		default:
			return c, nil, fmt.Errorf("the queue %q has no messages for a worker: use %s", name, strings.Join(workerQueues, ","))
		}
	}
	return c, queues, nil
}

// RunWorker hands over messages of servers on other machines until ctx ends, and then
// returns within 15 seconds. It needs no data folder. The error is a sentence for
// whoever started it.
func RunWorker(ctx context.Context, cfg WorkerConfig) error {
	cfg, queues, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(cfg.LogOutput, nil)).With("host", cfg.Host)
	worker, err := notifications.NewRemoteWorker(notifications.RemoteWorkerOptions{
		Providers: cfg.Providers, Factories: factories(Config{}), Host: cfg.Host, Log: log})
	if err != nil {
		return err
	}
	defer worker.Close()
	workers := jobs.NewWorkers()
	worker.AddWorkers(workers)
	remote, err := jobs.NewRemote(workers, jobs.RemoteConfig{DatabaseURL: cfg.DatabaseURL, Queues: queues, Shares: worker.Shares(),
		Host: cfg.Host, StopTimeout: workerSoftStop, Log: log})
	if err != nil {
		return fmt.Errorf("open jobs: %w", err)
	}
	disk := newDiskWatch(log, cfg.Host, remote.SetTrouble)
	disk.look() // before the first sign of life: a worker that is started again is not well for a moment
	if err := remote.Start(ctx); err != nil {
		return errors.Join(fmt.Errorf("start jobs: %w", err), remote.Stop(context.Background()))
	}
	log.Info("worker started", "queues", cfg.Queues, "providers", worker.Shares())

	watching, stopWatching := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { every(watching, diskEvery, disk.look) })

	<-ctx.Done()
	log.Info("worker stops: what has left is finished, the rest goes back")
	stopWatching()
	watch.Wait()
	worker.Drain()
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), workerStop)
	defer cancel()
	if err := remote.Stop(limit); err != nil {
		log.Warn("not everything ended in time; other workers go on with it", "error", err)
	}
	log.Info("worker stopped")
	return nil
}
