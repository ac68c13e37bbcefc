package hooks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/jobs"
)

// monitored is an app whose jobs a test looks at through the API.
type monitored struct {
	*pbtest.App
	t    *testing.T
	root string
}

// onBothEngines runs a test with the jobs in SQLite and in Postgres. The kinds of jobs
// are the test's.
func onBothEngines(t *testing.T, kinds map[string]func(context.Context, *jobs.Job[jobs.Raw]) (any, error), test func(x *monitored)) {
	t.Parallel()
	for _, engine := range []string{"SQLite", "Postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) {
				if engine == "Postgres" {
					c.JobsDatabaseURL = pgtest.Database(t)
				}
			}))
			for kind, do := range kinds {
				jobs.AddFunc(jobs.WorkersOf(app), kind, do)
			}
			app.Handler()
			test(&monitored{App: app, t: t, root: app.Token(app.Superuser("root@example.com"))})
		})
	}
}

func (x *monitored) enqueue(kind string, args any, o jobs.Options) string {
	x.t.Helper()
	raw, err := json.Marshal(args)
	require.NoError(x.t, err)
	id, err := jobs.Enqueue(x.App, jobs.Named(kind, raw), o)
	require.NoError(x.t, err)
	return id
}

// get is an answer of the monitor.
func (x *monitored) get(path, token string) map[string]any {
	x.t.Helper()
	res := x.Send(http.MethodGet, path, nil, token)
	require.Equal(x.t, http.StatusOK, res.Status, res.String())
	return res.JSON(x.t)
}

// shows waits until the monitor shows a job in a state, and with a sentence if one is
// wanted.
func (x *monitored) shows(id, state, sentence string) (job map[string]any) {
	x.t.Helper()
	require.Eventually(x.t, func() bool {
		job = x.get("/api/jobs/"+id, x.root)
		return job["state"] == state && strings.Contains(lastError(job), sentence)
	}, patience, 20*time.Millisecond, "%s %q", state, sentence)
	return job
}

func lastError(job map[string]any) string {
	all := job["errors"].([]any)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1].(map[string]any)["error"].(string)
}

// Whatever goes wrong with a job is in the monitor, in a sentence, and the next job of
// its queue is done all the same.
func TestMonitorShowsWhatGoesWrong(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // after both engines
	type job = *jobs.Job[jobs.Raw]
	onBothEngines(t, map[string]func(context.Context, job) (any, error){
		"test.panics": func(context.Context, job) (any, error) { panic("no such shelf: token=abcdef123") },
		"test.hangs": func(context.Context, job) (any, error) {
			<-release
			return nil, nil
		},
		"test.fails": func(context.Context, job) (any, error) { return nil, errors.New("the shop is closed") },
		"test.works": func(_ context.Context, j job) (any, error) { return len(j.Args), nil },
	}, func(x *monitored) {
		// The queue that does one job at a time.
		queue := func(o jobs.Options) jobs.Options {
			o.Queue = jobs.QueueMaintenance
			return o
		}
		works := func() {
			x.shows(x.enqueue("test.works", map[string]any{"n": 1}, queue(jobs.Options{})), jobs.StateCompleted, "")
		}

		panicked := x.enqueue("test.panics", map[string]any{"password": "hunter2"}, queue(jobs.Options{MaxAttempts: 1}))
		works()
		j := x.shows(panicked, jobs.StateDiscarded, "no such shelf")
		require.NotContains(x.t, fmt.Sprint(j), "hunter2")
		require.NotContains(x.t, fmt.Sprint(j), "abcdef123")
		require.NotEmpty(x.t, j["errors"].([]any)[0].(map[string]any)["trace"])

		spent := x.enqueue("test.fails", nil, queue(jobs.Options{MaxAttempts: 2}))
		works()
		j = x.shows(spent, jobs.StateDiscarded, "the shop is closed")
		require.EqualValues(x.t, 2, j["attempt"])
		require.EqualValues(x.t, 2, j["maxAttempts"])
		require.Len(x.t, j["errors"], 2)

		unknown := x.enqueue("nobody.knows", map[string]any{"a": 1}, queue(jobs.Options{}))
		works()
		x.shows(unknown, jobs.StateRetryable, `Nothing here does jobs of the kind "nobody.knows".`)

		text := strings.Repeat("word ", 1<<20/5)
		text = text[:1<<20-len(`{"text":""}`)]
		large := x.enqueue("test.works", map[string]any{"text": text}, queue(jobs.Options{}))
		works()
		j = x.shows(large, jobs.StateCompleted, "")
		require.Len(x.t, j["args"].(map[string]any)["text"], len(text))
		require.InDelta(x.t, 1<<20, j["result"], 1) // Postgres writes a space
		_, err := jobs.Enqueue(x.App, jobs.Named("test.works", json.RawMessage(`{"text":"x`+text+`"}`)), jobs.Options{})
		require.ErrorContains(x.t, err, "store what is larger elsewhere")

		hung := x.enqueue("test.hangs", nil, jobs.Options{})
		x.shows(hung, jobs.StateRunning, "")
		x.shows(x.enqueue("test.works", map[string]any{"n": 1}, jobs.Options{}), jobs.StateCompleted, "")

		// The list has them all, and the long args of none.
		listed := map[string]map[string]any{}
		require.Eventually(x.t, func() bool {
			for _, item := range x.get("/api/jobs?limit=200", x.root)["items"].([]any) {
				one := item.(map[string]any)
				listed[one["id"].(string)] = one
			}
			return listed[unknown]["state"] != jobs.StateAvailable && listed[unknown]["state"] != jobs.StateRunning // it may be tried again just now
		}, patience, 20*time.Millisecond)
		for id, state := range map[string]string{panicked: jobs.StateDiscarded, spent: jobs.StateDiscarded, unknown: jobs.StateRetryable, large: jobs.StateCompleted, hung: jobs.StateRunning} {
			require.Equal(x.t, state, listed[id]["state"], id)
		}
		require.Nil(x.t, listed[large]["args"])
		require.Contains(x.t, lastError(listed[unknown]), "nobody.knows")
	})
}

// A person with two jobs of their own, and a thousand of others between them, learns
// nothing of those from what they may read.
func TestAnswersTellNothingOfOtherJobs(t *testing.T) {
	onBothEngines(t, map[string]func(context.Context, *jobs.Job[jobs.Raw]) (any, error){
		"test.works": func(context.Context, *jobs.Job[jobs.Raw]) (any, error) { return "done", nil },
	}, func(x *monitored) {
		ana := x.User("ana@example.com")
		token := x.Token(ana)
		mine := func() (id string, answer map[string]any) {
			id = x.enqueue("test.works", nil, jobs.Options{Owner: ana.Collection().Id + "/" + ana.Id})
			x.shows(id, jobs.StateCompleted, "")
			return id, x.get("/api/jobs/"+id, token)
		}
		first, before := mine()
		theirs := make([]string, 0, 1000)
		for range cap(theirs) {
			theirs = append(theirs, x.enqueue("test.works", nil, jobs.Options{Owner: "others/" + ana.Id}))
		}
		for _, id := range theirs {
			require.Regexp(x.t, "^[a-z0-9]{15}$", id)
		}
		require.Equal(x.t, http.StatusNotFound, x.Send(http.MethodGet, "/api/jobs/"+theirs[0], nil, token).Status)
		second, after := mine()
		require.Regexp(x.t, "^[a-z0-9]{15}$", second)

		// But for their ids and times the two answers are one, and the ids are in no order
		// with the others.
		require.ElementsMatch(x.t, []string{"id", "state", "result", "created", "finishedAt"}, slices.Collect(maps.Keys(after)))
		for _, field := range []string{"id", "created", "finishedAt"} {
			delete(before, field)
			delete(after, field)
		}
		require.Equal(x.t, before, after)
		between := 0
		for _, id := range theirs {
			if min(first, second) < id && id < max(first, second) {
				between++
			}
		}
		require.Less(x.t, between, len(theirs), "ids that grew would all be between the two")
		rising := 0
		for i := range len(theirs) - 1 {
			if theirs[i] < theirs[i+1] {
				rising++
			}
		}
		require.InDelta(x.t, len(theirs)/2, rising, 150, "random ids rise half of the time")
	})
}
