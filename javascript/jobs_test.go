package javascript_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/plugins/jsvm"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/javascript"
	"github.com/groundworkhq/groundwork/jobs"
)

// withHooks lets app read a file of pb_hooks, before it serves.
func withHooks(t *testing.T, app *pbtest.App, source string) error {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.pb.js"), []byte(source), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "shelf.js"), []byte(`module.exports = {price: (n) => n * 3}`), 0o600))
	return jsvm.Register(app, jsvm.Config{HooksDir: dir, TypesDir: dir, MigrationsDir: filepath.Join(dir, "migrations"), HooksPoolSize: 1, OnInit: javascript.Init(app)})
}

// ended waits for the end of a job.
func ended(t *testing.T, app *pbtest.App, id string) *jobs.Info {
	t.Helper()
	var job *jobs.Info
	require.Eventually(t, func() bool {
		found, err := jobs.Find(t.Context(), app, id)
		job = found
		return err == nil && !found.FinishedAt.IsZero()
	}, 2*time.Minute, 10*time.Millisecond, "it does not end")
	return job
}

func TestJobsOfScripts(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	require.NoError(t, withHooks(t, app, `
		$jobs.on("shop.price", (job) => {
			const shelf = require(__hooks + "/shelf.js");
			return {price: shelf.price(job.args.n), attempt: job.attempt, app: $app.isDev() !== undefined};
		});
		$jobs.on("shop.short", (job) => ({twice: job.args.n * 2}));
		$jobs.on("shop.wait", async (job) => { await null; return job.args });
		$jobs.on("shop.never", (job) => new Promise(() => {}));
		$jobs.on("shop.cancelled", (job) => job.cancel("there is no paper"));
		$jobs.on("shop.throws", (job) => { throw new Error("out of ink, token=abcdef123") });
		$jobs.on("shop.sleepy", (job) => job.snooze(job.args.seconds));
		$jobs.on("shop.deep", function deep(job) { return deep(job) });
		onRecordAfterCreateSuccess((e) => { $jobs.enqueue("shop.price", {n: 14}, {uniqueKey: e.record.id, owner: e.record}, e.app); e.next() }, "users");
	`))
	app.Handler()
	vm := runtime(app)
	require.NoError(t, vm.Set("ana", ana))
	enqueue := func(script string) string {
		v, err := vm.RunString(script)
		require.NoError(t, err)
		return v.String()
	}

	job := ended(t, app, enqueue(`$jobs.enqueue("shop.price", {n: 2}, {queue: "bulk", priority: 1, owner: ana})`))
	require.Equal(t, "completed", job.State)
	require.Equal(t, "bulk", job.Queue)
	require.JSONEq(t, `{"price": 6, "attempt": 1, "app": true}`, string(job.Result))
	require.Equal(t, ana.Collection().Id+"/"+ana.Id, job.Owner)

	require.JSONEq(t, `{"twice": 4}`, string(ended(t, app, enqueue(`$jobs.enqueue("shop.short", {n: 2})`)).Result))
	require.JSONEq(t, `[1]`, string(ended(t, app, enqueue(`$jobs.enqueue("shop.wait", [1])`)).Result), "an async handler")
	for kind, sentence := range map[string]string{
		"shop.cancelled": "there is no paper",
		"shop.throws":    "Error: out of ink, token=abcdef123 (line 1 of the handler)",
		"shop.never":     "the handler waits for a promise",
		"shop.sleepy":    "needs the number of seconds",
		"shop.deep":      "stack",
	} {
		t.Log(kind)
		raw, err := json.Marshal(kind)
		require.NoError(t, err)
		job := ended(t, app, enqueue(`$jobs.enqueue(`+string(raw)+`, null, {maxAttempts: 1})`))
		require.Contains(t, []string{"cancelled", "discarded"}, job.State, kind)
		require.Len(t, job.Errors, 1, kind)
		require.Contains(t, job.Errors[0].Error, sentence, kind)
	}

	// A snooze that is longer than Go can count, or no time at all, is no loop.
	for seconds, least := range map[string]time.Duration{"Infinity": 50 * 365 * 24 * time.Hour, "1e12": 50 * 365 * 24 * time.Hour, "0": 900 * time.Millisecond} {
		id := enqueue(`$jobs.enqueue("shop.sleepy", {seconds: "` + seconds + `"})`)
		require.Eventually(t, func() bool {
			job, err := jobs.Find(t.Context(), app, id)
			return err == nil && !job.StartedAt.IsZero() && job.State != "running" && job.RunAt.Sub(job.StartedAt) > least
		}, 2*time.Minute, time.Millisecond, seconds)
		require.NoError(t, jobs.CancelJob(t.Context(), app, id))
	}

	before := time.Now()
	later := enqueue(`$jobs.enqueue("shop.price", {n: 1}, {runAt: new Date(Date.now() + 3600_000), uniqueKey: "one"})`)
	after := time.Now()
	require.Eventually(t, func() bool { _, err := jobs.Find(t.Context(), app, later); return err == nil }, 2*time.Minute, 10*time.Millisecond)
	enqueue(`$jobs.enqueue("shop.price", {n: 1}, {uniqueKey: "one"})`)
	require.Eventually(t, func() bool { n, err := jobs.CountDue(t.Context(), app); return err == nil && n == 0 }, 2*time.Minute, 10*time.Millisecond, "both left the outbox")
	found, err := jobs.List(t.Context(), app, jobs.Filter{Kind: "shop.price", State: "scheduled"})
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.WithinRange(t, found[0].RunAt, before.Add(time.Hour-time.Second), after.Add(time.Hour+time.Second))

	require.Error(t, app.RunInTransaction(func(txApp core.App) error {
		require.NoError(t, vm.Set("tx", txApp))
		enqueue(`$jobs.enqueue("shop.rolledBack", {}, {}, tx)`)
		return errors.New("no")
	}))
	rolledBack, err := jobs.List(t.Context(), app, jobs.Filter{Kind: "shop.rolledBack"})
	require.NoError(t, err)
	require.Empty(t, rolledBack)
}

func TestScheduleRunsAScript(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	require.NoError(t, withHooks(t, app, `
		$jobs.on("shop.count", (job) => "counted " + job.args.what);
		$jobs.on("shop.fails", () => { throw new Error("out of ink") });
		$jobs.on("shop.later", (job) => job.snooze(3600));
		$jobs.on("shop.never", (job) => job.cancel("there is no paper"));
		$jobs.on("shop.days", (job) => "of " + (job.args.days || 30) + " days");
	`))
	app.Handler()
	without := app.Record("schedules", map[string]any{"name": "without args", "cron": "0 9 * * 6", "action": "handler", "payload": map[string]any{"handler": "shop.days"}, "run": "now"})
	require.Eventually(t, func() bool {
		run, err := app.FindFirstRecordByData("schedule_runs", "schedule", without.Id)
		return err == nil && !run.GetDateTime("finishedAt").IsZero()
	}, 2*time.Minute, 20*time.Millisecond)
	run, err := app.FindFirstRecordByData("schedule_runs", "schedule", without.Id)
	require.NoError(t, err)
	require.Equal(t, "of 30 days", run.GetString("output"), run.GetString("error"))
	for name, want := range map[string]struct{ status, field, text string }{
		"shop.count": {"ok", "output", "counted shoes"},
		"shop.fails": {"failed", "error", "out of ink"},
		"shop.later": {"queued", "error", "The handler asked to be called again later."},
		"shop.never": {"failed", "error", "there is no paper"},
	} {
		schedule := app.Record("schedules", map[string]any{"name": name, "cron": "0 9 * * 6", "action": "handler",
			"payload": map[string]any{"handler": name, "args": map[string]any{"what": "shoes"}}, "run": "now"})
		require.Eventually(t, func() bool {
			run, err := app.FindFirstRecordByData("schedule_runs", "schedule", schedule.Id)
			return err == nil && run.GetString("status") == want.status && strings.HasPrefix(strings.TrimPrefix(run.GetString(want.field), "Error: "), want.text)
		}, 2*time.Minute, 20*time.Millisecond, name)
	}
}

func TestJobsOfScriptsRefused(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	vm := runtime(app)
	require.NoError(t, vm.Set("$app", app))
	for script, sentence := range map[string]string{
		`$jobs.enqueue("", {})`:                                   "needs a kind",
		`$jobs.enqueue("notification.plan", {})`:                  "Groundwork's own",
		`$jobs.enqueue("shop.a", {}, {queue: "fast"})`:            `no queue "fast"`,
		`$jobs.enqueue("shop.a", {}, {runAt: "soon"})`:            "runAt is no time",
		`$jobs.enqueue("shop.a", {}, {runAt: new Date(NaN)})`:     "runAt is no time",
		`$jobs.enqueue("shop.a", {}, {runAt: new Date(8.64e15)})`: "in the year 275760",
		`$jobs.enqueue("shop.a", {}, $app)`:                       "the app comes after the options",
		`$jobs.enqueue("shop.a", {}, "bulk")`:                     "the options are an object",
		`$jobs.enqueue("shop.a", "text")`:                         "neither an object nor a list",
		`$jobs.enqueue("shop.a", {}, {priority: 9})`:              "from 1 (first) to 4",
		`$jobs.enqueue("shop.a", {}, {priority: 1.5})`:            "from 1 (first) to 4",
		`$jobs.enqueue("shop.a", {}, {maxAttempts: 0})`:           "maxAttempts",
		`$jobs.enqueue("shop.a", {}, {owner: "ana"})`:             "owner is the record",
		`$jobs.enqueue("shop.a", {}, {uniquekey: "x"})`:           "there are maxAttempts, owner",
		`$jobs.enqueue("shop.a", {x: "y".repeat(1 << 20)})`:       "1 MB",
		`$jobs.enqueue("shop.a", {f: () => 1})`:                   "JSON",
		`$jobs.on("shop.a", () => 1)`:                             "top level of a file in pb_hooks",
	} {
		_, err := vm.RunString(script)
		require.ErrorContains(t, err, sentence, script)
	}
	for source, sentence := range map[string]string{
		`$jobs.on("shop.a", 1)`:                                    "needs a function",
		`$jobs.on("account.mail", () => 1)`:                        "Groundwork's own",
		`$jobs.on("shop.a", () => 1); $jobs.on("shop.a", () => 2)`: "two functions",
	} {
		func() {
			defer func() { require.ErrorContains(t, recover().(error), sentence) }()
			_ = withHooks(t, pbtest.NewApp(t), source)
		}()
	}
}
