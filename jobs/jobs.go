package jobs

import (
	"context"
	"time"
)

// Queues, from the most to the least urgent.
const (
	QueueCritical    = "critical"    // codes and sign-in mails; never waits behind a broadcast
	QueueDefault     = "default"     // triggers and notifications to a few people
	QueueBulk        = "bulk"        // the batches of a broadcast
	QueueMaintenance = "maintenance" // purges, checks, upkeep
)

// Args is the input of one job: a struct that encodes to JSON, and the stable
// name that finds its worker again after a restart or an upgrade.
//
// Args are stored in plain JSON: never put a secret, a code or an address in
// them. Store the secret sealed and carry its id.
type Args interface {
	// Kind is the stable name of this kind of job, such as "notification.plan".
	Kind() string
}

// Job is one attempt at one job.
type Job[T Args] struct {
	// ID is the job's public id: 15 random characters. It does not reveal how
	// many other jobs there are.
	ID string

	// Args is the input as it was enqueued.
	Args T

	// Queue is the queue the job was taken from.
	Queue string

	// Attempt is 1 on the first run. A snooze does not count as an attempt.
	Attempt int

	// MaxAttempts is the attempt after which a failing job is discarded.
	MaxAttempts int

	// RequestID is the id of the HTTP request that led to this job; empty when
	// there was none.
	RequestID string

	// EnqueuedAt is when the job was written to the outbox (UTC).
	EnqueuedAt time.Time

	// Origin is the installation that enqueued the job; empty on SQLite, where there
	// is only one.
	Origin string
}

// Worker does the work of one kind of job.
//
// Work may be called again for a job that already ran (see the package
// comment), and for different jobs at the same time. A nil error completes the
// job. [Cancel] gives up for good, [Snooze] asks to be called again later, any
// other error is retried with back-off until MaxAttempts is reached. ctx ends
// when the job's time is up or when the process shuts down: a worker that sees
// it done stores what it has and returns ctx.Err(), and the job is taken up
// again after the restart.
type Worker[T Args] interface {
	Work(ctx context.Context, job *Job[T]) error
}

// Timeouter is an optional second interface of a [Worker]: how long one attempt
// may take. Zero means the default (one minute); negative means no limit.
type Timeouter interface {
	Timeout() time.Duration
}

// RetryScheduler is an optional second interface of a [Worker]: how long to
// wait before the attempt that follows attempt (1 is the first). Zero means the
// default back-off (exponential, with jitter).
type RetryScheduler interface {
	RetryAfter(attempt int) time.Duration
}

// Options says where and when a job runs. The zero value is queue "default",
// at once, priority 2, 25 attempts, not unique.
type Options struct {
	// Queue is one of the Queue constants, or another one that [Config] gives workers;
	// empty means [QueueDefault].
	Queue string

	// Share, when not empty, lets every process do the job that holds this key
	// ([RemoteConfig]), and no other: work that needs nothing of the app. It has small
	// letters, digits and single underscores, at most 40. Only with Postgres.
	Share string

	// Owner, "<collectionId>/<recordId>", may read the job's result beside superusers;
	// empty means superusers only.
	Owner string

	// RunAt is the earliest time the job starts; zero means at once. A time in
	// the future is late by up to a few seconds.
	RunAt time.Time

	// Priority is 1 (first) to 4 (last) within the queue; zero means 2.
	Priority int

	// MaxAttempts is the number of failing attempts before the job is
	// discarded; zero means 25.
	MaxAttempts int

	// UniqueKey, when not empty, lets only one unfinished job of this kind and
	// key exist: enqueueing a second one is not an error and changes nothing.
	UniqueKey string

	// RequestID is the id of the HTTP request that leads to this job.
	RequestID string
}
