package jobs_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/jobs"
)

func TestJobsOfAKilledProcessGoOnAtOnce(t *testing.T) {
	both(t, func(x *rig) {
		goesOn, last := x.enqueue("hang a", jobs.Options{}), x.enqueue("hang b", jobs.Options{MaxAttempts: 1})
		p := x.child("api")
		require.ElementsMatch(x, []string{"hang a 1", "hang b 1"}, []string{p.next(x.T), p.next(x.T)})
		x.becomes(goesOn, jobs.StateRunning)
		x.eventually(func() bool { return x.count("SELECT COUNT(*) FROM river_leader") == 1 })
		p.kill()
		x.sql("UPDATE river_leader SET leader_id = 'other/killed'")

		r, _ := x.start(nil)
		require.Zero(x, x.count("SELECT COUNT(*) FROM river_leader WHERE leader_id = 'other/killed'"), "retries and timed jobs do not wait for its term to end")
		if x.url != "" {
			require.Equal(x, 1, x.count("SELECT COUNT(*) FROM groundwork_nodes"), "nobody waits for its silence")
		}
		require.Equal(x, 2, r.next(x.T).Attempt)
		require.Contains(x, x.becomes(goesOn, jobs.StateCompleted).Errors[0].Error, "The process that worked on it ended before the job did.")
		info := x.becomes(last, jobs.StateDiscarded)
		require.Contains(x, info.Errors[0].Error, "The process that worked on it ended before the job did.")
		require.Empty(x, r.seen)
	})
}

func TestCommandFreesWhatAKilledProcessLeft(t *testing.T) {
	both(t, func(x *rig) {
		id := x.enqueue("hang", jobs.Options{})
		p := x.child("api")
		p.next(x.T)
		x.becomes(id, jobs.StateRunning)
		n, err := jobs.RunningSince(x.Context(), x.App, time.Now())
		require.NoError(x, err)
		require.Equal(x, 1, n)
		_, err = jobs.CountDue(x.Context(), x.App)
		require.ErrorIs(x, err, jobs.ErrNotRunning)
		p.kill()
		require.NoError(x, jobs.FreeRunning(x.Context(), x.App))
		require.Equal(x, jobs.StateAvailable, x.find(id).State)
	})
}

// Killed at any moment, again and again: every job is done, and what is done is not
// done for ever.
func TestKillingLosesNothing(t *testing.T) {
	both(t, func(x *rig) {
		const rounds, each = 5, 80
		all := 0
		add := func(n int) {
			for range n {
				x.enqueue(fmt.Sprint("job", all), jobs.Options{Queue: []string{jobs.QueueDefault, jobs.QueueBulk}[all%2]})
				all++
			}
		}
		done := map[string]int{}
		for range rounds {
			add(each / 2)
			p := x.child("api")
			add(each / 2)
			for range 1 + rand.IntN(each/2) { // at any of them: others are always left
				done[strings.Fields(p.next(x.T))[0]]++
			}
			p.kill()
			for len(p.runs) > 0 {
				done[strings.Fields(<-p.runs)[0]]++
			}
		}
		r, _ := x.start(nil)
		x.eventually(func() bool {
			n, err := jobs.CountDue(x.Context(), x.App)
			require.NoError(x, err)
			return n == 0
		})
		for len(r.seen) > 0 {
			job := <-r.seen
			done[job.Args.Text]++
		}
		require.Len(x, done, all)
		require.Equal(x, all, x.stats(jobs.QueueDefault).States[jobs.StateCompleted]+x.stats(jobs.QueueBulk).States[jobs.StateCompleted])
	})
}

// A worker that is killed on another machine is noticed by its silence.
func TestJobsOfAKilledWorkerGoOnElsewhere(t *testing.T) {
	t.Parallel()
	x := newRig(t, pgtest.Database(t))
	x.start(nil)
	p := x.child("worker")
	id, err := jobs.Enqueue(x.App, echoArgs{"hang"}, jobs.Options{Queue: jobs.QueueBulk, Share: "key"})
	require.NoError(t, err)
	require.Equal(t, "hang 1", p.next(t))
	require.Equal(t, "other", x.find(id).Host)
	remote, r := x.remote("key")
	require.NoError(t, remote.Start(context.Background()))
	p.kill()
	runs := 1 + len(p.runs) // one that was silent for too long before, on a busy machine, had it again
	job := r.next(t)
	require.Equal(t, runs+1, job.Attempt)
	require.Equal(t, "one", x.becomes(id, jobs.StateCompleted).Host)
}

func TestPostgresEndsInTheMiddle(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	x := newRig(t, server.Database(t))
	work := make(chan struct{}, 1)
	r, client := x.start(func(context.Context, *echo) error {
		select {
		case work <- struct{}{}:
		default:
		}
		time.Sleep(time.Millisecond) // some are always under way
		return nil
	})
	remote, there := x.remote("key")
	require.NoError(t, remote.Start(context.Background()))
	const all = 1200
	for i := range all {
		o := jobs.Options{}
		if i%3 == 0 {
			o = jobs.Options{Queue: jobs.QueueBulk, Share: "key"}
		}
		x.enqueue(fmt.Sprint(i), o)
		if i == all/2 {
			<-work
			server.Crash()
		}
		if i == 3*all/4 {
			require.NoError(t, server.Run())
		}
	}
	done := map[string]bool{}
	x.eventually(func() bool {
		for len(r.seen)+len(there.seen) > 0 {
			select {
			case job := <-r.seen:
				done[job.Args.Text] = true
			case job := <-there.seen:
				done[job.Args.Text] = true
			}
		}
		return len(done) == all
	}, func() string { return fmt.Sprint(len(done), " of them ran") })
	x.eventually(func() bool { n, err := jobs.CountDue(t.Context(), x.App); return err == nil && n == 0 })
	require.Equal(t, all, x.count("SELECT COUNT(*) FROM river_job WHERE state = 'completed'"))
	require.NoError(t, client.Stop(context.Background()))
	require.NotContains(t, x.log.String(), pgtest.Password)
}

func TestPostgresIsNotThereAtTheStart(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	x := newRig(t, server.Database(t))
	server.Crash()
	r, _ := x.start(nil)
	require.Contains(t, x.log.String(), "The jobs database cannot be used. Jobs are kept in the outbox, and it is tried again.")
	id := x.enqueue("kept", jobs.Options{})
	_, err := jobs.List(t.Context(), x.App, jobs.Filter{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), pgtest.Password)
	require.NoError(t, server.Run())
	require.Equal(t, id, r.next(t).ID)
	x.eventually(func() bool { return strings.Contains(x.log.String(), "The jobs database can be used now.") })
	require.NotContains(t, x.log.String(), pgtest.Password)
}

func TestStopsWithoutPostgres(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	x := newRig(t, server.Database(t))
	r, client := x.start(nil)
	x.enqueue("x", jobs.Options{})
	r.next(t)
	server.Crash()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = client.Stop(ctx) // it may tell that it could not store something
	require.NoError(t, ctx.Err(), "it ends")
}
