package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
)

// What a job is does not depend on the database that it is in. Every test here runs
// on both.

func one(queue string) func(*jobs.Config, *recorder, *jobs.Workers) {
	return func(cfg *jobs.Config, _ *recorder, _ *jobs.Workers) { cfg.Workers = map[string]int{queue: 1} }
}

func TestJobRunsWithWhatItWasGiven(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(nil)
		id := x.enqueue("hello", jobs.Options{Queue: jobs.QueueCritical, RequestID: "req-12345678"})
		job := r.next(x.T)
		require.Equal(x, id, job.ID)
		require.Len(x, id, 15)
		require.Equal(x, "hello", job.Args.Text)
		require.Equal(x, jobs.QueueCritical, job.Queue)
		require.Equal(x, "req-12345678", job.RequestID)
		require.Equal(x, 1, job.Attempt)
		require.Equal(x, 25, job.MaxAttempts)
		require.WithinDuration(x, time.Now(), job.EnqueuedAt, patience)
		require.Equal(x, x.url == "", job.Origin == "")
	})
}

func TestJobCommitsAndRollsBackWithItsTransaction(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(nil)
		var never string
		err := x.RunInTransaction(func(txApp core.App) (err error) {
			never, err = jobs.Enqueue(txApp, echoArgs{"never"}, jobs.Options{})
			require.NoError(x, err)
			return errors.New("changed my mind")
		})
		require.Error(x, err)
		require.NoError(x, x.RunInTransaction(func(txApp core.App) error {
			_, err := jobs.Enqueue(txApp, echoArgs{"always"}, jobs.Options{})
			return err
		}))
		require.Equal(x, "always", r.next(x.T).Args.Text)
		// A second one proves that the first was not just late.
		x.enqueue("last", jobs.Options{})
		require.Equal(x, "last", r.next(x.T).Args.Text)
		require.Empty(x, r.seen)
		_, err = jobs.Find(x.Context(), x.App, never)
		require.ErrorIs(x, err, jobs.ErrNotFound)
	})
}

func TestManyJobsAtOnce(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(nil, one(jobs.QueueMaintenance))
		all := make([]jobs.Args, 1100)
		for i := range all {
			all[i] = echoArgs{fmt.Sprint(i)}
		}
		ids, err := jobs.EnqueueMany(x.App, all, jobs.Options{Queue: jobs.QueueMaintenance, RequestID: "req"})
		require.NoError(x, err)
		for i := range all {
			job := r.next(x.T)
			require.Equal(x, fmt.Sprint(i), job.Args.Text)
			require.Equal(x, ids[i], job.ID)
			require.Equal(x, "req", job.RequestID)
		}
		all[1099] = echoArgs{strings.Repeat("x", 1<<20)}
		_, err = jobs.EnqueueMany(x.App, all, jobs.Options{})
		require.ErrorIs(x, err, jobs.ErrArgsTooLarge)
		x.enqueue("after", jobs.Options{})
		require.Equal(x, "after", r.next(x.T).Args.Text, "all of them or none")
		ids, err = jobs.EnqueueMany(x.App, nil, jobs.Options{})
		require.NoError(x, err)
		require.Empty(x, ids)
	})
}

func TestJobsOfAQueueRunInOrder(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(nil, one(jobs.QueueMaintenance))
		for i := range 50 {
			x.enqueue(fmt.Sprint(i), jobs.Options{Queue: jobs.QueueMaintenance})
		}
		for i := range 50 {
			require.Equal(x, fmt.Sprint(i), r.next(x.T).Args.Text)
		}
	})
}

func TestTheMoreUrgentJobRunsFirst(t *testing.T) {
	both(t, func(x *rig) {
		for i, priority := range []int{4, 2, 1, 3, 0, 1} {
			x.enqueue(fmt.Sprint(priority, "/", i), jobs.Options{Queue: jobs.QueueMaintenance, Priority: priority})
		}
		release := make(chan struct{})
		var began atomic.Bool
		r, _ := x.start(func(context.Context, *echo) error {
			if began.CompareAndSwap(false, true) {
				<-release // until all are there
			}
			return nil
		}, one(jobs.QueueMaintenance))
		x.eventually(func() bool { return len(x.texts()) == 6 && began.Load() })
		x.eventually(func() bool { s := x.stats(jobs.QueueMaintenance); return s.States[jobs.StateAvailable] == 5 })
		close(release)
		var order []string
		for range 6 {
			order = append(order, r.next(x.T).Args.Text)
		}
		require.Equal(x, []string{"1/2", "1/5", "2/1", "0/4", "3/3", "4/0"}, order)
	})
}

func (x *rig) stats(queue string) jobs.QueueStats {
	x.Helper()
	all, err := jobs.Stats(x.Context(), x.App)
	require.NoError(x, err)
	for _, s := range all {
		if s.Queue == queue {
			return s
		}
	}
	return jobs.QueueStats{}
}

func TestFailingJobIsRetriedAndCancelledOneIsNot(t *testing.T) {
	both(t, func(x *rig) {
		x.start(func(_ context.Context, job *echo) error {
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
		cancelled, retried, panicked := x.enqueue("cancel", jobs.Options{}), x.enqueue("retry", jobs.Options{}), x.enqueue("panic", jobs.Options{})
		info := x.becomes(cancelled, jobs.StateCancelled)
		require.Equal(x, 1, info.Attempt)
		require.Contains(x, info.Errors[0].Error, "no use")
		info = x.becomes(retried, jobs.StateCompleted)
		require.Equal(x, 2, info.Attempt)
		require.Len(x, info.Errors, 1)
		require.Equal(x, "not yet", info.Errors[0].Error)
		require.Equal(x, 1, info.Errors[0].Attempt)
		require.WithinDuration(x, time.Now(), info.Errors[0].At, patience)
		info = x.becomes(panicked, jobs.StateCompleted)
		require.Equal(x, "boom", info.Errors[0].Error)
		require.Contains(x, info.Errors[0].Trace, "conformance_test.go")
	})
}

func TestAttemptsRunOut(t *testing.T) {
	both(t, func(x *rig) {
		var fixed atomic.Bool
		x.start(func(_ context.Context, job *echo) error {
			if fixed.Load() || job.Args.Text == "other" {
				return nil
			}
			return fmt.Errorf("failure %d", job.Attempt)
		}, one(jobs.QueueMaintenance))
		id := x.enqueue("x", jobs.Options{Queue: jobs.QueueMaintenance, MaxAttempts: 2})
		info := x.becomes(id, jobs.StateDiscarded)
		require.Equal(x, 2, info.Attempt)
		require.Len(x, info.Errors, 2)
		require.Equal(x, "failure 2", info.Errors[1].Error)
		require.WithinDuration(x, time.Now(), info.FinishedAt, patience)
		x.becomes(x.enqueue("other", jobs.Options{Queue: jobs.QueueMaintenance}), jobs.StateCompleted)

		fixed.Store(true)
		require.NoError(x, jobs.Retry(x.Context(), x.App, id))
		info = x.becomes(id, jobs.StateCompleted)
		require.Equal(x, 3, info.Attempt)
		require.Len(x, info.Errors, 2)
	})
}

func TestSnoozeCountsNoAttempt(t *testing.T) {
	both(t, func(x *rig) {
		var once sync.Once
		r, _ := x.start(func(_ context.Context, _ *echo) (err error) {
			once.Do(func() { err = jobs.Snooze(time.Millisecond) })
			return err
		})
		x.enqueue("x", jobs.Options{MaxAttempts: 1})
		require.Equal(x, 1, r.next(x.T).Attempt)
		require.Equal(x, 1, r.next(x.T).Attempt)
	})
}

func TestScheduledJobWaitsForItsTime(t *testing.T) {
	both(t, func(x *rig) {
		ran := make(chan time.Time, 1)
		x.start(func(context.Context, *echo) error { ran <- time.Now(); return nil })
		// One that is near may be due, or about to be, before somebody looks.
		far := time.Now().Add(time.Hour)
		later := x.enqueue("later", jobs.Options{RunAt: far})
		at := time.Now().Add(2 * time.Second).Truncate(time.Millisecond) // as exact as SQLite has it
		x.enqueue("x", jobs.Options{RunAt: at})
		x.relayed()
		info := x.find(later)
		require.Equal(x, jobs.StateScheduled, info.State)
		require.WithinDuration(x, far, info.RunAt, time.Millisecond)
		select {
		case began := <-ran:
			require.False(x, began.Before(at))
		case <-time.After(patience):
			x.Fatal("the job did not run")
		}
		require.Equal(x, jobs.StateScheduled, x.find(later).State)
	})
}

func TestUniqueKeyAllowsOneUnfinishedJob(t *testing.T) {
	both(t, func(x *rig) {
		release := make(chan struct{})
		r, _ := x.start(func(context.Context, *echo) error { <-release; return nil })
		id := x.enqueue("once", jobs.Options{UniqueKey: "k"})
		for range 2 {
			x.enqueue("once", jobs.Options{UniqueKey: "k"})
		}
		x.enqueue("other", jobs.Options{UniqueKey: "k2"})
		x.eventually(func() bool { return x.texts()["once"] && x.texts()["other"] })
		x.enqueue("once", jobs.Options{UniqueKey: "k"}) // while it runs
		x.enqueue("marker", jobs.Options{})
		x.eventually(func() bool { return x.texts()["marker"] })
		close(release)
		got := []string{r.next(x.T).Args.Text, r.next(x.T).Args.Text, r.next(x.T).Args.Text}
		require.ElementsMatch(x, []string{"once", "other", "marker"}, got)
		x.becomes(id, jobs.StateCompleted)
		x.enqueue("again", jobs.Options{UniqueKey: "k"})
		require.Equal(x, "again", r.next(x.T).Args.Text)
		require.Empty(x, r.seen)
	})
}

func TestUniqueKeyHoldsAgainstMany(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(func(ctx context.Context, _ *echo) error {
			return jobs.Reply(ctx, echoArgs{"once"}, jobs.Options{UniqueKey: "k", RunAt: time.Now().Add(time.Hour)})
		}, func(cfg *jobs.Config, _ *recorder, _ *jobs.Workers) {
			cfg.Workers = map[string]int{jobs.QueueDefault: 16}
		})
		for range 100 {
			x.enqueue("asks", jobs.Options{})
		}
		for range 100 {
			r.next(x.T)
		}
		require.Equal(x, 1, x.stats(jobs.QueueDefault).States[jobs.StateScheduled])
	})
}

// A crash between the two databases leaves a row whose job is there.
func TestRowOfTheOutboxIsTakenOnce(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(nil)
		id := x.enqueue("once", jobs.Options{})
		require.Equal(x, id, r.next(x.T).ID)
		x.relayed()
		_, err := x.NonconcurrentDB().NewQuery("INSERT INTO groundwork_outbox (id, kind, args, queue, priority, maxAttempts) VALUES ('" + id + "', 'test.echo', '{}', 'default', 1, 3)").Execute()
		require.NoError(x, err)
		x.enqueue("after", jobs.Options{Priority: 4})
		require.Equal(x, "after", r.next(x.T).Args.Text)
		require.Empty(x, r.seen)
	})
}

func TestUnknownKindIsSeenAndDoesNotBlockItsQueue(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(nil, one(jobs.QueueMaintenance))
		id, err := jobs.Enqueue(x.App, jobs.Named("nobody.knows", json.RawMessage(`{"a":1}`)), jobs.Options{Queue: jobs.QueueMaintenance})
		require.NoError(x, err)
		x.enqueue("after", jobs.Options{Queue: jobs.QueueMaintenance})
		require.Equal(x, "after", r.next(x.T).Args.Text)
		info := x.becomes(id, jobs.StateRetryable)
		require.Contains(x, info.Errors[0].Error, `Nothing here does jobs of the kind "nobody.knows".`)
		require.JSONEq(x, `{"a":1}`, string(info.Args))
	})
}

func TestKindsThatAreKnownAtRunTime(t *testing.T) {
	both(t, func(x *rig) {
		x.start(nil, func(_ *jobs.Config, _ *recorder, w *jobs.Workers) {
			jobs.AddFunc(w, "run.time", func(_ context.Context, job *jobs.Job[jobs.Raw]) (any, error) {
				return map[string]any{"got": json.RawMessage(job.Args), "attempt": job.Attempt}, nil
			})
			require.True(x, w.Has("run.time"))
			require.True(x, w.Has("test.registered"), "what was registered is in every set")
			require.PanicsWithValue(x, `jobs: kind "run.time" has two workers`, func() { jobs.AddFunc(w, "run.time", nil) })
		})
		id, err := jobs.Enqueue(x.App, jobs.Named("run.time", json.RawMessage(`{"n": 12345678901234567890}`)), jobs.Options{})
		require.NoError(x, err)
		require.JSONEq(x, `{"attempt": 1, "got": {"n": 12345678901234567890}}`, string(x.becomes(id, jobs.StateCompleted).Result))
	})
}

func TestJobThatHangsHoldsNothingUp(t *testing.T) {
	both(t, func(x *rig) {
		release := make(chan struct{})
		r, _ := x.start(func(ctx context.Context, job *echo) error {
			switch job.Args.Text {
			case "sees its context":
				<-ctx.Done()
				return ctx.Err()
			case "sees nothing":
				<-release
			}
			return nil
		}, one(jobs.QueueMaintenance), func(_ *jobs.Config, r *recorder, _ *jobs.Workers) { r.timeout = 50 * time.Millisecond })
		x.Cleanup(func() { close(release) })

		id := x.enqueue("sees its context", jobs.Options{Queue: jobs.QueueMaintenance, MaxAttempts: 1})
		errs := x.becomes(id, jobs.StateDiscarded).Errors // one more before, where the worker was slow to see it
		require.Contains(x, errs[len(errs)-1].Error, "The job was not done when the time for one attempt was up")
		r.next(x.T)

		id = x.enqueue("sees nothing", jobs.Options{Queue: jobs.QueueMaintenance})
		x.enqueue("after", jobs.Options{Queue: jobs.QueueMaintenance})
		require.Equal(x, "after", r.next(x.T).Args.Text)
		var info jobs.Info
		x.eventually(func() bool { info = x.find(id); return len(info.Errors) > 0 })
		require.Equal(x, jobs.StateRunning, info.State)
		require.Contains(x, info.Errors[0].Error, "This attempt goes on although its time is up")
	})
}

func TestArgsOfOneMegabyte(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(nil)
		most := strings.Repeat("x", 1<<20-len(`{"text":""}`))
		x.enqueue(most, jobs.Options{})
		require.Equal(x, most, r.next(x.T).Args.Text)
		_, err := jobs.Enqueue(x.App, echoArgs{most + "x"}, jobs.Options{})
		require.ErrorIs(x, err, jobs.ErrArgsTooLarge)
		require.ErrorContains(x, err, "store what is larger elsewhere")
	})
}

func TestWhatCannotBeEnqueued(t *testing.T) {
	both(t, func(x *rig) {
		x.start(nil)
		for want, o := range map[string]jobs.Options{
			"the queue":               {Queue: "No_Queue"},
			"nothing works the queue": {Queue: "elsewhere"},
			"the priority 5":          {Priority: 5},
			"-1 attempts":             {MaxAttempts: -1},
			`the owner "somebody"`:    {Owner: "somebody"},
			"in the year 10000":       {RunAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		} {
			_, err := jobs.Enqueue(x.App, echoArgs{}, o)
			require.ErrorContains(x, err, want)
		}
		_, err := jobs.Enqueue(x.App, jobs.Named("no kind", nil), jobs.Options{})
		require.ErrorContains(x, err, `the kind "no kind" cannot be one`)
		for _, scalar := range []string{`"text"`, "true", "5", ` ""`} {
			_, err = jobs.Enqueue(x.App, jobs.Named("test.echo", []byte(scalar)), jobs.Options{})
			require.ErrorContains(x, err, "neither an object nor a list", scalar)
		}
		_, err = jobs.Enqueue(x.App, echoArgs{}, jobs.Options{Share: "a-b"})
		if x.url == "" {
			require.ErrorIs(x, err, jobs.ErrNeedsPostgres)
		} else {
			require.ErrorContains(x, err, `the share key "a-b" cannot be one`)
		}
	})
}

// What only one of the engines can store, or none, is not the end of the others.
func TestOddTextTravels(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(func(_ context.Context, job *echo) error {
			switch job.Args.Text {
			case "fails":
				return errors.New("a\x00b\xff")
			case "panics":
				panic("a\x00b")
			case "gives up":
				return jobs.Cancel(errors.New("a\x00b"))
			case "tells all":
				return errors.New(strings.Repeat("a\x00b", 1<<20))
			case "panics at length":
				panic(strings.Repeat("a\x00b", 1<<20))
			}
			return nil
		})
		for text, state := range map[string]string{"fails": jobs.StateDiscarded, "panics": jobs.StateDiscarded, "gives up": jobs.StateCancelled,
			"tells all": jobs.StateDiscarded, "panics at length": jobs.StateDiscarded} {
			info := x.becomes(x.enqueue(text, jobs.Options{MaxAttempts: 1}), state)
			require.Contains(x, info.Errors[0].Error, "a\ufffdb")
			require.Less(x, len(info.Errors[0].Error), 11<<10, text)
		}
		for range 3 {
			r.next(x.T)
		}
		x.enqueue("a\x00b \\u0000 \U0001F600", jobs.Options{RequestID: "r\x00", UniqueKey: "k\x00\xff"})
		require.Equal(x, "a\ufffdb \\u0000 \U0001F600", r.next(x.T).Args.Text)

		// A row that was written by somebody else.
		for id, row := range map[string][2]any{"oddkind00000001": {"a b", 1}, "oddpriority0001": {"test.echo", 9}} {
			_, err := x.NonconcurrentDB().NewQuery(fmt.Sprintf(`INSERT INTO groundwork_outbox (id, kind, args, queue, priority, maxAttempts) VALUES ('%s', '%s', '{}', 'default', %d, 3)`, id, row[0], row[1])).Execute()
			require.NoError(x, err)
		}
		_, err := x.NonconcurrentDB().NewQuery(`INSERT INTO groundwork_outbox (id, kind, args, queue, priority, maxAttempts) VALUES ('oddargs00000001', 'test.echo', '{"text":', 'default', 1, 3)`).Execute()
		require.NoError(x, err)
		x.enqueue("after", jobs.Options{})
		require.Equal(x, "after", r.next(x.T).Args.Text)
		for _, id := range []string{"oddkind00000001", "oddpriority0001", "oddargs00000001"} {
			require.Contains(x, x.becomes(id, jobs.StateDiscarded).Errors[0].Error, "The job cannot be stored as it is")
		}
		require.Empty(x, r.seen)
	})
}

func TestStopHandsBackWhatDoesNotFinish(t *testing.T) {
	both(t, func(x *rig) {
		running := make(chan struct{})
		_, client := x.start(func(ctx context.Context, _ *echo) error {
			close(running)
			<-ctx.Done()
			return ctx.Err()
		})
		id := x.enqueue("long", jobs.Options{MaxAttempts: 1})
		<-running
		require.NoError(x, client.Stop(context.Background()))
		require.Equal(x, jobs.StateAvailable, x.find(id).State, "no process has to notice first")

		r, _ := x.start(nil)
		job := r.next(x.T)
		require.Equal(x, "long", job.Args.Text)
		require.Equal(x, 1, job.Attempt, "a shutdown is not a failed attempt")
	})
}

func TestCancelFromOutside(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(func(ctx context.Context, job *echo) error {
			if job.Args.Text == "running" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, one(jobs.QueueMaintenance))
		running := x.enqueue("running", jobs.Options{Queue: jobs.QueueMaintenance})
		waiting := x.enqueue("waiting", jobs.Options{Queue: jobs.QueueMaintenance})
		later := x.enqueue("later", jobs.Options{Queue: jobs.QueueMaintenance, RunAt: time.Now().Add(time.Hour)})
		x.becomes(running, jobs.StateRunning)
		for _, id := range []string{later, waiting, running} {
			require.NoError(x, jobs.CancelJob(x.Context(), x.App, id))
			info := x.becomes(id, jobs.StateCancelled)
			require.NotZero(x, info.FinishedAt)
		}
		require.Equal(x, "running", r.next(x.T).Args.Text)
		x.enqueue("after", jobs.Options{Queue: jobs.QueueMaintenance})
		require.Equal(x, "after", r.next(x.T).Args.Text)
		require.ErrorIs(x, jobs.CancelJob(x.Context(), x.App, "nosuchjob000000"), jobs.ErrNotFound)
		require.ErrorIs(x, jobs.Retry(x.Context(), x.App, "nosuchjob000000"), jobs.ErrNotFound)

		require.NoError(x, jobs.Retry(x.Context(), x.App, later))
		require.Equal(x, "later", r.next(x.T).Args.Text)
	})
}

func TestCancelInTheOutbox(t *testing.T) {
	both(t, func(x *rig) {
		_, client := x.start(nil)
		require.NoError(x, client.Stop(context.Background()))
		id := x.enqueue("never", jobs.Options{})
		require.Equal(x, jobs.StateAvailable, x.find(id).State)
		require.NoError(x, jobs.CancelJob(x.Context(), x.App, id))

		r, _ := x.start(nil)
		x.enqueue("after", jobs.Options{})
		require.Equal(x, "after", r.next(x.T).Args.Text)
		info := x.find(id)
		require.Equal(x, jobs.StateCancelled, info.State)
		require.Contains(x, info.Errors[0].Error, "It was cancelled before it began.")
		require.Empty(x, r.seen)
	})
}

func TestQueueIsPaused(t *testing.T) {
	both(t, func(x *rig) {
		require.ErrorIs(x, jobs.PauseQueue(x.Context(), x.App, jobs.QueueDefault), jobs.ErrNotFound, "nothing was started yet")
		r, client := x.start(nil)
		x.listens()
		require.NoError(x, jobs.PauseQueue(x.Context(), x.App, jobs.QueueDefault))
		x.eventually(func() bool { return x.stats(jobs.QueueDefault).Paused })
		others := 0
		other := func() string {
			id := x.enqueue("other queue", jobs.Options{Queue: jobs.QueueBulk})
			others++
			for r.next(x.T).Args.Text != "other queue" {
			}
			return id
		}
		x.eventually(func() bool { // what takes the jobs hears of the pause a moment later
			id := x.enqueue("waits", jobs.Options{})
			other()
			other()
			return x.find(id).State == jobs.StateAvailable
		})
		require.NoError(x, client.Stop(context.Background()))

		// One that has seen nothing but the pause, and those from before that were not
		// begun yet.
		id := x.enqueue("waits", jobs.Options{})
		r, _ = x.start(nil)
		other()
		require.Equal(x, jobs.StateAvailable, x.find(id).State, "it is remembered")
		s := x.stats(jobs.QueueDefault)
		require.True(x, s.Paused)
		waiting := s.States[jobs.StateAvailable]
		require.Positive(x, waiting)
		require.WithinDuration(x, time.Now(), s.OldestDue, patience)
		other()
		require.Equal(x, waiting, x.stats(jobs.QueueDefault).States[jobs.StateAvailable])
		require.NoError(x, jobs.ResumeQueue(x.Context(), x.App, jobs.QueueDefault))
		for range waiting {
			require.Equal(x, "waits", r.next(x.T).Args.Text)
		}
		require.Empty(x, r.seen)
		require.False(x, x.stats(jobs.QueueDefault).Paused)
		ago := map[bool]string{true: "datetime('now', '-2 minutes')", false: "now() - interval '2 minutes'"}[x.url == ""]
		x.eventually(func() bool { // within a minute, however long all this took
			x.sql("UPDATE river_job SET finalized_at = " + ago + " WHERE finalized_at IS NOT NULL")
			x.becomes(other(), jobs.StateCompleted)
			s := x.stats(jobs.QueueBulk)
			return s.States[jobs.StateCompleted] == others && s.LastMinute == 1 && s.LastHour == others
		})
	})
}

func TestResultIsKept(t *testing.T) {
	both(t, func(x *rig) {
		_, client := x.start(func(ctx context.Context, job *echo) error {
			if job.Args.Text == "plain" {
				return nil
			}
			if job.Args.Text == "too large" {
				return jobs.Cancel(jobs.SetResult(ctx, strings.Repeat("x", 1<<20)))
			}
			return jobs.SetResult(ctx, map[string]any{"sum": 3, "odd": "\x00"})
		})
		plain, kept, owned := x.enqueue("plain", jobs.Options{}), x.enqueue("kept", jobs.Options{}), x.enqueue("plain", jobs.Options{Owner: "users/abc"})
		large, failed := x.enqueue("too large", jobs.Options{}), x.enqueue("too large", jobs.Options{})
		require.Nil(x, x.becomes(plain, jobs.StateCompleted).Result)
		info := x.becomes(kept, jobs.StateCompleted)
		require.JSONEq(x, `{"sum": 3, "odd": "\ufffd"}`, string(info.Result))
		require.NotEmpty(x, info.Host)
		require.Equal(x, "users/abc", x.becomes(owned, jobs.StateCompleted).Owner)
		require.Contains(x, x.becomes(large, jobs.StateCancelled).Errors[0].Error, "a job keeps at most 1 MB")
		x.becomes(failed, jobs.StateCancelled)
		require.Error(x, jobs.SetResult(x.Context(), 1), "only a worker has one")

		there := func() (n int) {
			for _, id := range []string{plain, kept, owned} {
				if _, err := jobs.Find(x.Context(), x.App, id); err == nil {
					n++
				}
			}
			return n
		}
		age := func(by string) {
			if x.url == "" {
				x.sql("UPDATE river_job SET finalized_at = strftime('%Y-%m-%d %H:%M:%f', finalized_at, '-" + by + "')")
			} else {
				x.sql("UPDATE river_job SET finalized_at = finalized_at - interval '" + by + "'")
			}
		}
		x.relayed() // a row that is still in the outbox is found, too
		require.NoError(x, client.Clean())
		require.Equal(x, 3, there())
		age("2 days")
		require.NoError(x, client.Clean())
		require.Equal(x, 2, there())
		age("6 days")
		require.NoError(x, client.Clean())
		require.Zero(x, there())
	})
}

func TestPartsAreBegunOnce(t *testing.T) {
	both(t, func(x *rig) {
		x.start(func(ctx context.Context, job *echo) error {
			begun, err := jobs.Begun(ctx)
			require.NoError(x, err)
			require.Equal(x, map[string]bool{"a": true}, map[bool]map[string]bool{true: {"a": true}, false: begun}[job.Attempt == 1])
			first, err := jobs.Begin(ctx, "a")
			require.NoError(x, err)
			require.Equal(x, job.Attempt == 1, first)
			if job.Attempt == 1 {
				require.Empty(x, begun)
				return errors.New("again")
			}
			second, err := jobs.Begin(ctx, "b")
			require.NoError(x, err)
			require.True(x, second)
			return jobs.SetResult(ctx, "done")
		})
		for range 2 { // the parts of one job are not those of another
			id := x.enqueue("x", jobs.Options{MaxAttempts: 2})
			x.becomes(id, jobs.StateCompleted)
		}
		_, err := jobs.Begin(x.Context(), "a")
		require.Error(x, err, "only a worker has one")
	})
}

func TestReplyComesBack(t *testing.T) {
	both(t, func(x *rig) {
		asked := make(chan struct{})
		r, _ := x.start(func(ctx context.Context, job *echo) error {
			if job.Args.Text != "question" {
				<-asked // an answer that is done would be no hindrance to the second one
				return nil
			}
			for range 2 {
				require.NoError(x, jobs.Reply(ctx, echoArgs{"answer"}, jobs.Options{Queue: jobs.QueueCritical, UniqueKey: job.ID, RequestID: job.RequestID}))
			}
			close(asked)
			return nil
		})
		x.enqueue("question", jobs.Options{RequestID: "req-1"})
		got := map[string]echo{}
		for range 2 {
			job := r.next(x.T)
			got[job.Args.Text] = job
		}
		require.Equal(x, jobs.QueueCritical, got["answer"].Queue)
		require.Equal(x, "req-1", got["answer"].RequestID)
		require.Equal(x, got["question"].Origin, got["answer"].Origin)
		x.becomes(got["answer"].ID, jobs.StateCompleted)
		require.Empty(x, r.seen)
	})
}

// Whoever gets two of their own ids does not learn what happened between.
func TestIDsTellNothing(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(nil)
		mine := func() map[string]any {
			info := x.becomes(x.enqueue("mine", jobs.Options{Owner: "users/me"}), jobs.StateCompleted)
			require.Regexp(x, "^[a-z0-9]{15}$", info.ID)
			all := map[string]any{}
			for _, field := range reflect.VisibleFields(reflect.TypeFor[jobs.Info]()) {
				if v := reflect.ValueOf(info).FieldByIndex(field.Index); field.Type != reflect.TypeFor[time.Time]() && field.Name != "ID" {
					all[field.Name] = v.Interface()
				}
			}
			return all
		}
		before := mine()
		for range 1000 {
			x.enqueue("theirs", jobs.Options{})
		}
		for range 1001 {
			r.next(x.T)
		}
		require.Equal(x, before, mine())
	})
}

func TestJobsAreListed(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(func(_ context.Context, job *echo) error {
			if job.Args.Text == "2" {
				return jobs.Cancel(errors.New("no"))
			}
			return nil
		})
		var ids []string
		for i := range 7 {
			ids = append(ids, x.enqueue(fmt.Sprint(i), jobs.Options{Queue: []string{jobs.QueueDefault, jobs.QueueBulk}[i%2]}))
			r.next(x.T)
		}
		for i, id := range ids {
			x.becomes(id, map[bool]string{true: jobs.StateCancelled, false: jobs.StateCompleted}[i == 2])
		}
		list := func(f jobs.Filter) (texts string) {
			all, err := jobs.List(x.Context(), x.App, f)
			require.NoError(x, err)
			for _, info := range all {
				var args echoArgs
				require.NoError(x, json.Unmarshal(info.Args, &args))
				texts += args.Text
			}
			return texts
		}
		require.Equal(x, "6543210", list(jobs.Filter{}))
		require.Equal(x, "654", list(jobs.Filter{Limit: 3}))
		require.Equal(x, "321", list(jobs.Filter{Limit: 3, Before: ids[4]}))
		require.Equal(x, "531", list(jobs.Filter{Queue: jobs.QueueBulk}))
		require.Equal(x, "2", list(jobs.Filter{State: jobs.StateCancelled}))
		require.Equal(x, "640", list(jobs.Filter{State: jobs.StateCompleted, Queue: jobs.QueueDefault}))
		require.Empty(x, list(jobs.Filter{Kind: "other.kind"}))
		require.Equal(x, "6543210", list(jobs.Filter{Kind: "test.echo"}))
	})
}

// The end of an attempt that was not stored, or a job that was taken by an answer
// which never came, is noticed by the process that is said to run it.
func TestLostJobIsFoundAgain(t *testing.T) {
	both(t, func(x *rig) {
		r, _ := x.start(nil)
		id := x.enqueue("x", jobs.Options{})
		r.next(x.T)
		x.becomes(id, jobs.StateCompleted)
		ago := map[bool]string{true: "datetime('now', '-40 seconds')", false: "now() - interval '40 seconds'"}[x.url == ""]
		x.sql("UPDATE river_job SET state = 'running', finalized_at = NULL, attempted_at = " + ago)
		require.Equal(x, 2, r.next(x.T).Attempt)
		require.Contains(x, x.becomes(id, jobs.StateCompleted).Errors[0].Error, "The end of this attempt could not be stored.")
	})
}

func TestCleanJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`"plain \\ \" text"`:           `"plain \\ \" text"`,
		`"\u0000"`:                     `"\ufffd"`,
		`"\\u0000"`:                    `"\\u0000"`,
		`"\\\u0000"`:                   `"\\\ufffd"`,
		`"\ud83d\ude00 \ud83d \ude00"`: `"\ud83d\ude00 \ufffd \ufffd"`,
		`"\ud83d\ud83d\ude00"`:         `"\ufffd\ud83d\ude00"`,
		`"\u00e9\u`:                    `"\u00e9\u`,
	} {
		require.Equal(t, want, string(jobs.CleanJSON([]byte(in))))
	}
}

// Whoever asks for a job that cannot be learns that there is none, and not that the
// database does not answer.
func TestIDsThatCannotBe(t *testing.T) {
	both(t, func(x *rig) {
		x.start(nil)
		for _, id := range []string{"", "\x00", "jobs\x00", "\xff\xfe", "abc", "ABCDEFGHIJKLMNO", "abcdefghijklmno\n", "abcdefghijklmnop", "abcdefghijklmno"} {
			_, err := jobs.Find(x.Context(), x.App, id)
			require.ErrorIs(x, err, jobs.ErrNotFound, "%q", id)
			require.ErrorIs(x, jobs.CancelJob(x.Context(), x.App, id), jobs.ErrNotFound, "%q", id)
			require.ErrorIs(x, jobs.Retry(x.Context(), x.App, id), jobs.ErrNotFound, "%q", id)
			_, err = jobs.BegunBy(x.Context(), x.App, id)
			require.ErrorIs(x, err, jobs.ErrNotFound, "%q", id)
		}
	})
}
