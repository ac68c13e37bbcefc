package jobs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
)

func TestSweep(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	release := make(chan struct{})
	r, _ := start(t, app, func(ctx context.Context, job *jobs.Job[echoArgs]) error {
		switch job.Args.Text {
		case "ana runs":
			<-release
		case "ana fails":
			return jobs.Cancel(errors.New("ana is not at home"))
		case "bo fails":
			return jobs.Cancel(errors.New("it was about ana"))
		}
		return nil
	})
	began := time.Now()
	for _, text := range []string{"ana is done", "ana fails", "bo fails", "bo is done"} {
		_, err := jobs.Enqueue(app, echoArgs{text}, jobs.Options{})
		require.NoError(t, err)
		r.next(t)
	}
	for _, o := range []jobs.Options{{}, {RunAt: time.Now().Add(time.Hour)}} {
		_, err := jobs.Enqueue(app, echoArgs{map[bool]string{true: "ana runs", false: "ana later"}[o.RunAt.IsZero()]}, o)
		require.NoError(t, err)
	}
	seen := func() map[string]string {
		all := map[string]string{}
		_, _, err := jobs.Sweep(t.Context(), app, func(job jobs.Stored) jobs.Change {
			all[string(job.Args)] = string(job.Errors)
			return jobs.Change{}
		})
		require.NoError(t, err)
		return all
	}
	running := func(except ...string) int {
		n, err := jobs.RunningSince(t.Context(), app, time.Now(), except...)
		require.NoError(t, err)
		return n
	}
	eventually(t, func() bool {
		left := jobStates(t, app)
		return running() == 1 && left[`{"text":"ana runs"}`] && len(left) == 6
	})
	require.Zero(t, running(echoArgs{}.Kind()))
	n, err := jobs.RunningSince(t.Context(), app, began)
	require.NoError(t, err)
	require.Zero(t, n, "it began later")

	sweep := func() (changed, busy int) {
		changed, busy, err := jobs.Sweep(t.Context(), app, func(job jobs.Stored) jobs.Change {
			change := jobs.Change{Delete: strings.Contains(string(job.Args), "ana")}
			if !change.Delete && strings.Contains(string(job.Errors), "ana") {
				change.Errors = []byte(strings.ReplaceAll(string(job.Errors), "ana", "x"))
			}
			return change
		})
		require.NoError(t, err)
		return changed, busy
	}
	changed, busy := sweep()
	require.Equal(t, 4, changed, "two that ended, one for later, one error")
	require.Equal(t, 1, busy)
	close(release)
	eventually(t, func() bool { return running() == 0 })
	sweep()
	left := seen()
	require.Len(t, left, 2)
	require.Contains(t, left[`{"text":"bo fails"}`], "it was about x")

	require.NoError(t, jobs.Compact(t.Context(), app))
}

// jobStates says of each stored job whether it is running.
func jobStates(t *testing.T, app core.App) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	_, _, err := jobs.Sweep(t.Context(), app, func(job jobs.Stored) jobs.Change {
		all[string(job.Args)] = job.Running
		return jobs.Change{}
	})
	require.NoError(t, err)
	return all
}

func eventually(t *testing.T, met func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) { // between two looks
		if met() {
			return
		}
	}
	require.True(t, met())
}
