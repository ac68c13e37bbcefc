package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/jobs"
)

// toPostgres is the same data folder with JOBS_DATABASE_URL.
func (x *rig) toPostgres() *rig {
	y := &rig{T: x.T, url: pgtest.Database(x.T), dir: x.dir}
	y.App = y.open()
	return y
}

func TestJobsMoveToPostgres(t *testing.T) {
	t.Parallel()
	x := newRig(t, "")
	r, client := x.start(func(ctx context.Context, job *echo) error {
		switch job.Args.Text {
		case "done":
			return jobs.SetResult(ctx, "it was")
		case "fails":
			return errors.New("not yet\x00")
		case "hangs":
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}, func(cfg *jobs.Config, _ *recorder, _ *jobs.Workers) {
		cfg.Workers = map[string]int{jobs.QueueMaintenance: 1}
	})
	done := x.enqueue("done", jobs.Options{Owner: "users/a"})
	fails := x.enqueue("fails", jobs.Options{MaxAttempts: 1})
	r.next(t)
	r.next(t)
	x.becomes(done, jobs.StateCompleted)
	x.becomes(fails, jobs.StateDiscarded)
	later := x.enqueue("later", jobs.Options{RunAt: time.Now().Add(time.Hour), Priority: 4, MaxAttempts: 3, RequestID: "req", UniqueKey: "k"})
	hangs := x.enqueue("hangs", jobs.Options{Queue: jobs.QueueMaintenance})
	x.becomes(hangs, jobs.StateRunning)
	waits := x.enqueue("waits", jobs.Options{Queue: jobs.QueueMaintenance})
	paused := x.enqueue("paused", jobs.Options{Queue: jobs.QueueBulk, RunAt: time.Now().Add(time.Hour)})
	x.becomes(paused, jobs.StateScheduled)
	require.NoError(t, jobs.PauseQueue(t.Context(), x.App, jobs.QueueBulk))
	x.eventually(func() bool { return len(x.texts()) == 6 })
	x.relayed() // or it is taken after the move, as of then
	require.NoError(t, client.Stop(context.Background()))
	before := map[string]jobs.Info{}
	for _, id := range []string{done, fails, later, waits, paused} {
		before[id] = x.find(id)
	}
	// A crash of long ago came before this row could be deleted; its job is done and
	// gone since.
	_, err := x.NonconcurrentDB().NewQuery(`INSERT INTO groundwork_outbox (id, kind, args, queue, priority, maxAttempts) VALUES ('takenlongago000', 'test.echo', '{}', 'default', 1, 3)`).Execute()
	require.NoError(t, err)
	x.sql("INSERT INTO groundwork_relayed (id, at) VALUES ('takenlongago000', 1)")

	y := x.toPostgres()
	ry, clientY := y.start(nil, func(cfg *jobs.Config, _ *recorder, _ *jobs.Workers) {
		cfg.Workers = map[string]int{jobs.QueueMaintenance: 1}
	})
	require.ElementsMatch(t, []string{"hangs", "waits"}, []string{ry.next(t).Args.Text, ry.next(t).Args.Text})
	require.Empty(t, ry.seen)
	for id, was := range before {
		is := y.find(id)
		for _, info := range []*jobs.Info{&was, &is} { // what the move, or the run since, may change
			info.Host = ""
			if id == waits {
				info.State, info.Attempt, info.StartedAt, info.FinishedAt = "", 0, time.Time{}, time.Time{}
			}
			for _, at := range []*time.Time{&info.RunAt, &info.StartedAt, &info.FinishedAt} {
				*at = at.Round(time.Millisecond)
			}
		}
		require.JSONEq(t, string(was.Args), string(is.Args))
		was.Args, is.Args = nil, nil
		require.Equal(t, was, is)
	}
	require.True(t, y.stats(jobs.QueueBulk).Paused)
	require.NoFileExists(t, filepath.Join(x.dir, jobs.FileName))
	y.enqueue("never", jobs.Options{UniqueKey: "k"})
	require.Equal(t, "marker", func() string { y.enqueue("marker", jobs.Options{}); return ry.next(t).Args.Text }())

	require.NoError(t, clientY.Stop(context.Background()))

	// And nothing happens at the next start.
	z := &rig{T: t, url: y.url, dir: y.dir, App: y.open()}
	rz, _ := z.start(nil)
	z.enqueue("end", jobs.Options{Queue: jobs.QueueCritical})
	require.Equal(t, "end", rz.next(t).Args.Text)
	require.Empty(t, rz.seen)
}

func TestMoveIsCutOff(t *testing.T) {
	t.Parallel()
	x := newRig(t, "")
	_, client := x.start(nil)
	const all = 1500
	require.NoError(t, x.RunInTransaction(func(txApp core.App) error {
		for i := range all {
			if _, err := jobs.Enqueue(txApp, echoArgs{fmt.Sprint(i)}, jobs.Options{RunAt: time.Now().Add(time.Hour)}); err != nil {
				return err
			}
		}
		return nil
	}))
	// None is left in the outbox.
	x.eventually(func() bool { n, err := jobs.CountDue(t.Context(), x.App); return err == nil && n == 0 })
	require.Len(t, x.texts(), all)
	require.NoError(t, client.Stop(context.Background()))

	file, err := os.ReadFile(filepath.Join(x.dir, jobs.FileName))
	require.NoError(t, err)

	y := x.toPostgres()
	moved := func() {
		y.eventually(func() bool {
			_, err := os.Stat(filepath.Join(x.dir, jobs.FileName))
			return errors.Is(err, os.ErrNotExist)
		})
	}
	there := func() (n int) {
		y.pg(func(conn *pgx.Conn) {
			_ = conn.QueryRow(t.Context(), "SELECT COUNT(*) FROM river_job").Scan(&n) // it may not be there yet
		})
		return n
	}
	for _, enough := range []int{1, all / 3, 2 * all / 3} {
		p := y.child("api")
		y.eventually(func() bool { return there() >= enough })
		p.kill()
	}
	if _, err := os.Stat(filepath.Join(x.dir, jobs.FileName)); err != nil {
		t.Log("the last one was killed after the end of the move")
	}
	_, client = y.start(nil)
	moved()
	require.Equal(t, all, there())
	require.NoError(t, client.Stop(context.Background()))

	// The moment that a kill hardly ever meets: all are there, none has left the file.
	require.NoError(t, os.WriteFile(filepath.Join(x.dir, jobs.FileName), file, 0o600))
	y.start(nil)
	moved()
	require.Equal(t, all, there())
	require.Equal(t, all, y.count("SELECT COUNT(DISTINCT metadata->>'gwId') FROM river_job"))
	require.Len(t, y.texts(), all)
	all2, err := jobs.List(t.Context(), y.App, jobs.Filter{Limit: 1})
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{"text":"%d"}`, all-1), string(all2[0].Args), "their order is kept")
}
