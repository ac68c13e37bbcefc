package jobs_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/jobs"
)

// remote makes a worker without an app on the rig's Postgres.
func (x *rig) remote(share string) (*jobs.Remote, *recorder) {
	x.Helper()
	r := &recorder{seen: make(chan echo, 10_000)}
	w := jobs.NewWorkers()
	jobs.AddWorker(w, r)
	remote, err := jobs.NewRemote(w, jobs.RemoteConfig{DatabaseURL: x.url, Queues: map[string]int{jobs.QueueBulk: 4}, Shares: []string{share}, Host: "one",
		StopTimeout: 200 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&x.log, nil))})
	require.NoError(x, err)
	x.Cleanup(func() { _ = remote.Stop(context.Background()) })
	return remote, r
}

func TestSharedWork(t *testing.T) {
	t.Parallel()
	x := newRig(t, pgtest.Database(t))
	r, client := x.start(nil)
	takers := func() map[jobs.Work][]string {
		all, err := client.Takers(t.Context())
		require.NoError(t, err)
		return all
	}
	bulk := func(share string) jobs.Work { return jobs.Work{Queue: jobs.QueueBulk, Share: share} }
	require.Empty(t, takers())
	other, others := x.remote("other")
	require.NoError(t, other.Start(context.Background()))
	id, err := jobs.Enqueue(x.App, echoArgs{"shared"}, jobs.Options{Queue: jobs.QueueBulk, Share: "key_1"})
	require.NoError(t, err)
	x.eventually(func() bool { return takers()[bulk("other")] != nil })
	require.Nil(t, takers()[bulk("key_1")])
	require.Equal(t, "bulk_at_key_1", x.find(id).Queue)

	holder, r2 := x.remote("key_1")
	var answered error
	r2.work = func(ctx context.Context, job *echo) error {
		answered = jobs.Reply(ctx, echoArgs{"answer"}, jobs.Options{Queue: jobs.QueueCritical})
		return jobs.SetResult(ctx, 42)
	}
	require.NoError(t, holder.Start(context.Background()))
	job := r2.next(t)
	require.NoError(t, answered)
	require.Equal(t, jobs.QueueBulk, job.Queue)
	answer := r.next(t)
	require.Equal(t, "answer", answer.Args.Text)
	require.Equal(t, job.Origin, answer.Origin)
	info := x.becomes(id, jobs.StateCompleted)
	require.Equal(t, "42", string(info.Result))
	require.Equal(t, "one", info.Host)
	x.eventually(func() bool { return slices.Equal(takers()[bulk("key_1")], []string{"one"}) })
	require.Empty(t, others.seen)

	// A kind that a worker does not know waits for one that does.
	unknown, err := jobs.Enqueue(x.App, jobs.Named("other.kind", nil), jobs.Options{Queue: jobs.QueueBulk, Share: "key_1"})
	require.NoError(t, err)
	_, err = jobs.Enqueue(x.App, echoArgs{"after"}, jobs.Options{Queue: jobs.QueueBulk, Share: "key_1"})
	require.NoError(t, err)
	require.Equal(t, "after", r2.next(t).Args.Text)
	require.Equal(t, jobs.StateAvailable, x.find(unknown).State)

	require.NoError(t, holder.Stop(context.Background()))
	x.eventually(func() bool { return takers()[bulk("key_1")] == nil })
}

func TestInstallationsShareAPostgres(t *testing.T) {
	t.Parallel()
	x := newRig(t, pgtest.Database(t))
	y := newRig(t, x.url)
	hold := make(chan struct{})
	rx, _ := x.start(func(context.Context, *echo) error { <-hold; return nil })
	ry, _ := y.start(nil)
	idX, idY := x.enqueue("x", jobs.Options{UniqueKey: "same"}), y.enqueue("y", jobs.Options{UniqueKey: "same"})
	jobX, jobY := echo{}, ry.next(t)
	require.Equal(t, "y", jobY.Args.Text)
	x.becomes(idX, jobs.StateRunning)
	y.becomes(idY, jobs.StateCompleted)
	require.Equal(t, map[string]bool{"x": true}, x.texts())
	require.Equal(t, map[string]bool{"y": false}, y.texts())
	n, err := jobs.RunningSince(t.Context(), y.App, time.Now())
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, jobs.PauseQueue(t.Context(), y.App, jobs.QueueDefault))
	require.False(t, x.stats(jobs.QueueDefault).Paused)
	require.Len(t, must(jobs.Stats(t.Context(), y.App)), 4)
	for _, act := range []func() error{
		func() error { _, err := jobs.Find(t.Context(), y.App, idX); return err },
		func() error { return jobs.CancelJob(t.Context(), y.App, idX) },
		func() error { return jobs.Retry(t.Context(), y.App, idX) },
	} {
		require.ErrorIs(t, act(), jobs.ErrNotFound)
	}
	close(hold)
	jobX = rx.next(t)
	require.Equal(t, "x", jobX.Args.Text)
	require.NotEqual(t, jobX.Origin, jobY.Origin)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Several processes on one data folder: each job is done by one of them, and two do
// not both find that a unique one is not there.
func TestProcessesShareAFolder(t *testing.T) {
	t.Parallel()
	x := newRig(t, pgtest.Database(t))
	var mu sync.Mutex
	ran := map[string]int{}
	work := func(_ context.Context, job *echo) error {
		mu.Lock()
		defer mu.Unlock()
		ran[job.Args.Text]++
		return nil
	}
	apps := []*rig{x, {T: t, App: x.open(), url: x.url, dir: x.dir}, {T: t, App: x.open(), url: x.url, dir: x.dir}}
	for _, app := range apps {
		app.start(work)
	}
	var wg sync.WaitGroup
	for i, app := range apps {
		wg.Go(func() {
			for n := range 200 {
				_, err := jobs.Enqueue(app.App, echoArgs{fmt.Sprint(i, "/", n)}, jobs.Options{})
				require.NoError(t, err)
				if n%20 == 0 {
					_, err := jobs.Enqueue(app.App, echoArgs{"once"}, jobs.Options{UniqueKey: "once", RunAt: time.Now().Add(time.Hour)})
					require.NoError(t, err)
				}
			}
		})
	}
	wg.Wait()
	x.eventually(func() bool { n, err := jobs.CountDue(t.Context(), x.App); return err == nil && n == 0 })
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, ran, 600)
	for text, n := range ran {
		require.Equal(t, 1, n, text)
	}
	require.Equal(t, 601, x.count("SELECT COUNT(*) FROM river_job"))
}

func TestProcessesStartAtOnceOnAnEmptyPostgres(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	var wg sync.WaitGroup
	for range 4 {
		x := newRig(t, url)
		wg.Go(func() {
			r, _ := x.start(nil)
			id := x.enqueue("x", jobs.Options{})
			require.Equal(t, id, r.next(t).ID)
			require.NotContains(t, x.log.String(), "cannot be used")
		})
	}
	wg.Wait()
}

func TestAddressThatCannotBeOne(t *testing.T) {
	t.Parallel()
	x := newRig(t, "")
	for _, url := range []string{"mysql://u:secret@localhost/x", "postgres://u:se%cret@localhost/x", "postgres://u:secret@localhost:x/y", "host=localhost password=secret"} {
		_, err := jobs.New(x.App, jobs.NewWorkers(), jobs.Config{DatabaseURL: url})
		require.ErrorIs(t, err, jobs.ErrAddress)
		require.NotContains(t, err.Error(), "secret")
		_, err = jobs.NewRemote(jobs.NewWorkers(), jobs.RemoteConfig{DatabaseURL: url, Queues: map[string]int{"bulk": 1}, Shares: []string{"key"}})
		require.ErrorIs(t, err, jobs.ErrAddress)
	}
	_, err := jobs.NewRemote(jobs.NewWorkers(), jobs.RemoteConfig{DatabaseURL: "postgres://localhost/x", Queues: map[string]int{"bulk": 1}})
	require.ErrorContains(t, err, "a share key at least")
}
