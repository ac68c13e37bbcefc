package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	_ "github.com/pocketbase/pocketbase/migrations"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
	_ "github.com/groundworkhq/groundwork/migrations"
)

// patience is how long a test waits for what comes in a moment on a machine that is
// not busy.
const patience = 2 * time.Minute

type echoArgs struct {
	Text string `json:"text"`
}

func (echoArgs) Kind() string { return "test.echo" }

// recorder is a worker whose behaviour a test sets and whose runs it sees.
type recorder struct {
	mu   sync.Mutex
	runs []jobs.Job[echoArgs]
	seen chan jobs.Job[echoArgs]
	work func(ctx context.Context, job *jobs.Job[echoArgs]) error
}

func (r *recorder) Work(ctx context.Context, job *jobs.Job[echoArgs]) error {
	r.mu.Lock()
	r.runs = append(r.runs, *job)
	r.mu.Unlock()
	var err error
	if r.work != nil {
		err = r.work(ctx, job)
	}
	r.seen <- *job
	return err
}

func (r *recorder) RetryAfter(int) time.Duration { return 10 * time.Millisecond }

func (r *recorder) next(t *testing.T) jobs.Job[echoArgs] {
	t.Helper()
	select {
	case job := <-r.seen:
		return job
	case <-time.After(patience):
		t.Fatal("no job ran")
		panic("unreachable")
	}
}

func newApp(t *testing.T) core.App {
	t.Helper()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { _ = app.ClearBootstrap() })
	require.NoError(t, app.RunAllMigrations())
	return app
}

func start(t *testing.T, app core.App, work func(context.Context, *jobs.Job[echoArgs]) error) (*recorder, *jobs.Client) {
	t.Helper()
	r := &recorder{seen: make(chan jobs.Job[echoArgs], 1000), work: work}
	w := jobs.NewWorkers()
	jobs.AddWorker(w, r)
	client, err := jobs.New(app, w, jobs.Config{Log: slog.New(slog.DiscardHandler), StopTimeout: 200 * time.Millisecond})
	require.NoError(t, err)
	require.NoError(t, client.Start(context.Background()))
	t.Cleanup(func() { _ = client.Stop(context.Background()) })
	return r, client
}

func TestJobRunsWithWhatItWasGiven(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	r, _ := start(t, app, nil)
	id, err := jobs.Enqueue(app, echoArgs{"hello"}, jobs.Options{Queue: jobs.QueueCritical, RequestID: "req-12345678"})
	require.NoError(t, err)
	job := r.next(t)
	require.Equal(t, id, job.ID)
	require.Len(t, id, 15)
	require.Equal(t, "hello", job.Args.Text)
	require.Equal(t, jobs.QueueCritical, job.Queue)
	require.Equal(t, "req-12345678", job.RequestID)
	require.Equal(t, 1, job.Attempt)
	require.WithinDuration(t, time.Now(), job.EnqueuedAt, time.Minute)
}

func TestJobCommitsAndRollsBackWithItsTransaction(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	r, _ := start(t, app, nil)
	err := app.RunInTransaction(func(txApp core.App) error {
		_, err := jobs.Enqueue(txApp, echoArgs{"never"}, jobs.Options{})
		require.NoError(t, err)
		return errors.New("changed my mind")
	})
	require.Error(t, err)
	require.NoError(t, app.RunInTransaction(func(txApp core.App) error {
		_, err := jobs.Enqueue(txApp, echoArgs{"always"}, jobs.Options{})
		return err
	}))
	require.Equal(t, "always", r.next(t).Args.Text)
	// A second one proves that the first was not just late.
	_, err = jobs.Enqueue(app, echoArgs{"last"}, jobs.Options{})
	require.NoError(t, err)
	require.Equal(t, "last", r.next(t).Args.Text)
	require.Empty(t, r.seen)
}

func TestFailingJobIsRetriedAndCancelledOneIsNot(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	r, _ := start(t, app, func(_ context.Context, job *jobs.Job[echoArgs]) error {
		switch {
		case job.Args.Text == "panic" && job.Attempt == 1:
			panic("boom")
		case job.Args.Text == "cancel":
			return jobs.Cancel(errors.New("no use"))
		case job.Attempt == 1:
			return errors.New("not yet")
		}
		return nil
	})
	for _, text := range []string{"cancel", "retry", "panic"} {
		_, err := jobs.Enqueue(app, echoArgs{text}, jobs.Options{})
		require.NoError(t, err)
	}
	// The panicking run is seen by nobody: its send is skipped.
	runs := map[string]int{}
	require.Eventually(t, func() bool {
		select {
		case job := <-r.seen:
			runs[fmt.Sprintf("%s/%d", job.Args.Text, job.Attempt)]++
		default:
		}
		return runs["retry/2"] == 1 && runs["panic/2"] == 1
	}, patience, 5*time.Millisecond)
	require.Equal(t, 1, runs["cancel/1"])
	require.Zero(t, runs["cancel/2"])
}

func TestSnoozeCountsNoAttempt(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	var once sync.Once
	r, _ := start(t, app, func(_ context.Context, _ *jobs.Job[echoArgs]) (err error) {
		once.Do(func() { err = jobs.Snooze(time.Millisecond) })
		return err
	})
	_, err := jobs.Enqueue(app, echoArgs{"x"}, jobs.Options{MaxAttempts: 1})
	require.NoError(t, err)
	require.Equal(t, 1, r.next(t).Attempt)
	require.Equal(t, 1, r.next(t).Attempt)
}

func TestUniqueKeyAllowsOneUnfinishedJob(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	release := make(chan struct{})
	r, _ := start(t, app, func(_ context.Context, _ *jobs.Job[echoArgs]) error { <-release; return nil })
	for range 3 {
		_, err := jobs.Enqueue(app, echoArgs{"once"}, jobs.Options{UniqueKey: "k"})
		require.NoError(t, err)
	}
	_, err := jobs.Enqueue(app, echoArgs{"other"}, jobs.Options{UniqueKey: "k2"})
	require.NoError(t, err)
	close(release)
	got := []string{r.next(t).Args.Text, r.next(t).Args.Text}
	require.ElementsMatch(t, []string{"once", "other"}, got)
	_, err = jobs.Enqueue(app, echoArgs{"end"}, jobs.Options{})
	require.NoError(t, err)
	require.Equal(t, "end", r.next(t).Args.Text)
	require.Empty(t, r.seen)
}

func TestUnknownKindDoesNotBlockItsQueue(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	_, err := app.DB().NewQuery(`INSERT INTO groundwork_outbox (id, kind, args, queue, priority, maxAttempts, runAt, uniqueKey, requestId, createdAt)
		VALUES ('unknown00000001', 'nobody.knows', '{}', 'default', 1, 3, '', '', '', '')`).Execute()
	require.NoError(t, err)
	r, _ := start(t, app, nil)
	_, err = jobs.Enqueue(app, echoArgs{"after"}, jobs.Options{})
	require.NoError(t, err)
	require.Equal(t, "after", r.next(t).Args.Text)
}

func TestStopHandsBackWhatDoesNotFinish(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	running := make(chan struct{})
	_, client := start(t, app, func(ctx context.Context, _ *jobs.Job[echoArgs]) error {
		close(running)
		<-ctx.Done()
		return ctx.Err()
	})
	_, err := jobs.Enqueue(app, echoArgs{"long"}, jobs.Options{MaxAttempts: 1})
	require.NoError(t, err)
	<-running
	require.NoError(t, client.Stop(context.Background()))

	r, _ := start(t, app, nil)
	job := r.next(t)
	require.Equal(t, "long", job.Args.Text)
	require.Equal(t, 1, job.Attempt, "a shutdown is not a failed attempt")
}
