package jobs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
)

func TestSweep(t *testing.T) {
	both(t, func(x *rig) {
		release := make(chan struct{})
		r, _ := x.start(func(ctx context.Context, job *echo) error {
			switch job.Args.Text {
			case "ana runs":
				<-release
			case "ana fails":
				return jobs.Cancel(errors.New("ana is not at home"))
			case "bo fails":
				return jobs.Cancel(errors.New("it was about ana"))
			case "bo is done":
				return jobs.SetResult(ctx, "bo and ana")
			}
			return nil
		})
		began := time.Now()
		var result string
		for _, text := range []string{"ana is done", "ana fails", "bo fails", "bo is done"} {
			result = x.enqueue(text, jobs.Options{})
			r.next(x.T)
		}
		x.enqueue("cy is done", jobs.Options{Owner: "users/ana"})
		r.next(x.T)
		x.enqueue("ana runs", jobs.Options{})
		x.enqueue("ana later", jobs.Options{RunAt: time.Now().Add(time.Hour)})
		running := func(except ...string) int {
			n, err := jobs.RunningSince(x.Context(), x.App, time.Now(), except...)
			require.NoError(x, err)
			return n
		}
		x.eventually(func() bool {
			left := x.texts()
			return running() == 1 && left["ana runs"] && len(left) == 7
		})
		x.relayed() // what is in the outbox as well is changed twice
		require.Zero(x, running(echoArgs{}.Kind()))
		n, err := jobs.RunningSince(x.Context(), x.App, began)
		require.NoError(x, err)
		require.Zero(x, n, "it began later")

		sweep := func() (changed, busy int) {
			changed, busy, err := jobs.Sweep(x.Context(), x.App, func(job jobs.Stored) jobs.Change {
				change := jobs.Change{Delete: strings.Contains(string(job.Args), "ana") || job.Owner == "users/ana"}
				if !change.Delete && strings.Contains(string(job.Errors), "ana") {
					change.Errors = []byte(strings.ReplaceAll(string(job.Errors), "ana", "x"))
				}
				if !change.Delete && strings.Contains(string(job.Result), "ana") {
					change.Result = []byte(strings.ReplaceAll(string(job.Result), "ana", "x"))
				}
				return change
			})
			require.NoError(x, err)
			return changed, busy
		}
		changed, busy := sweep()
		require.Equal(x, 6, changed, "three that ended, one for later, one error, one result")
		require.Equal(x, 1, busy)
		close(release)
		x.eventually(func() bool { return running() == 0 })
		sweep()
		require.Equal(x, map[string]bool{"bo fails": false, "bo is done": false}, x.texts())
		require.JSONEq(x, `"bo and x"`, string(x.find(result).Result))
		all, err := jobs.List(x.Context(), x.App, jobs.Filter{State: jobs.StateCancelled})
		require.NoError(x, err)
		require.Len(x, all, 1)
		require.Contains(x, all[0].Errors[0].Error, "it was about x")

		require.NoError(x, jobs.Compact(x.Context(), x.App))
	})
}
