package hooks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/schedules"
)

const schedulesPath = "/api/collections/schedules/records"

// planned is an app with schedules, whose clock and disk are the test's.
type planned struct {
	*pbtest.App
	t     *testing.T
	root  string
	log   *lockedBuffer
	mu    sync.Mutex
	clock time.Time
	free  uint64
}

// saturday is a Friday evening in Paris, before a Saturday at 09:00 there.
var saturday = time.Date(2026, 12, 5, 8, 0, 0, 0, time.UTC)

func newPlanned(t *testing.T, opts ...pbtest.Option) *planned {
	t.Helper()
	x := &planned{t: t, log: &lockedBuffer{}, clock: saturday.Add(-12 * time.Hour), free: 50 << 30}
	all := append([]pbtest.Option{
		pbtest.WithConfig(hooks.Clock(x.now)),
		pbtest.WithConfig(hooks.Disk(func(string) (uint64, uint64, error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.free, 100 << 30, nil
		})),
		pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = x.log }),
	}, opts...)
	x.App = pbtest.NewApp(t, all...)
	x.root = x.Token(x.Superuser("root@example.com"))
	x.Handler()
	return x
}

func (x *planned) now() time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.clock
}

func (x *planned) at(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock = now
}

func (x *planned) room(free uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.free = free
}

// tick does what the server does every minute, at a time, and waits until all that
// came of it is done.
func (x *planned) tick(now time.Time) {
	x.t.Helper()
	x.at(now)
	x.look()
	x.idle()
}

func (x *planned) look() {
	for _, job := range x.Cron().Jobs() {
		if job.Id() == "groundwork.schedules.tick" {
			job.Run()
		}
	}
}

func (x *planned) idle() {
	x.t.Helper()
	require.Eventually(x.t, func() bool {
		n, err := jobs.CountDue(x.t.Context(), x.App)
		require.NoError(x.t, err)
		return n == 0
	}, patience, 20*time.Millisecond)
}

// make saves a schedule through the API.
func (x *planned) make(fields map[string]any) *core.Record {
	x.t.Helper()
	res := x.Send(http.MethodPost, schedulesPath, weekly(fields), x.root)
	require.Equal(x.t, http.StatusOK, res.Status, res.String())
	record, err := x.FindRecordById(schedules.Collection, res.JSON(x.t)["id"].(string))
	require.NoError(x.t, err)
	return record
}

func (x *planned) patch(s *core.Record, fields map[string]any) *core.Record {
	x.t.Helper()
	res := x.Send(http.MethodPatch, schedulesPath+"/"+s.Id, fields, x.root)
	require.Equal(x.t, http.StatusOK, res.Status, res.String())
	return x.Reload(s)
}

// runs are the runs of a schedule, as "cause status".
func (x *planned) runs(s *core.Record) []string {
	x.t.Helper()
	var all []string
	for _, r := range x.rows(s) {
		all = append(all, r.GetString("cause")+" "+r.GetString("status"))
	}
	return all
}

func (x *planned) rows(s *core.Record) []*core.Record {
	x.t.Helper()
	records, err := x.FindRecordsByFilter(schedules.CollectionRuns, "schedule = {:id}", "dueAt", 0, 0, dbx.Params{"id": s.Id})
	require.NoError(x.t, err)
	return records
}

// mails are the subjects of what superusers were told.
func (x *planned) told() int {
	x.t.Helper()
	n, err := x.CountRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": "", "channel": "email"})
	require.NoError(x.t, err)
	return int(n)
}

// logged counts how often the log has a text.
func (x *planned) logged(text string) int { return strings.Count(x.log.String(), text) }

// weekly is a schedule that sends to everyone every Saturday at 09:00 in Paris.
func weekly(change map[string]any) map[string]any {
	fields := map[string]any{"name": "Weekly recommendations", "cron": "0 9 * * sat", "timezone": "Europe/Paris", "action": "notification", "enabled": true,
		"payload": map[string]any{"title": "This week", "body": "Look what is new.", "channels": []string{"inbox"}, "audience": "everyone", "maxRecipients": 10}}
	for k, v := range change {
		fields[k] = v
	}
	return fields
}

// handler registers a function for one test and returns its name.
func (x *planned) handler(run schedules.Func) map[string]any {
	schedules.HandleIn(x.App, "work", run)
	return map[string]any{"action": "handler", "payload": map[string]any{"handler": "work", "args": map[string]any{"n": 1}}}
}

// heldHandler registers one that tells when a run begins, and ends it when the test says.
func (x *planned) heldHandler() (fields map[string]any, begun, end chan struct{}) {
	begun, end = make(chan struct{}, 10), make(chan struct{})
	fields = x.handler(func(ctx context.Context, _ core.App, _ json.RawMessage) (string, error) {
		begun <- struct{}{}
		select {
		case <-end:
			return "did it", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	return fields, begun, end
}

func TestScheduleSendsANotificationAtItsTime(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	for i := range 3 {
		x.User(fmt.Sprintf("p%d@example.com", i))
	}
	s := x.make(nil)
	require.Equal(t, "every Saturday at 09:00, Europe/Paris", s.GetString("description"))
	require.Equal(t, saturday, s.GetDateTime("nextRunAt").Time())

	x.tick(saturday.Add(-time.Minute))
	require.Empty(t, x.rows(s))
	x.tick(saturday)
	require.Equal(t, []string{"due ok"}, x.runs(s))
	run := x.rows(s)[0]
	require.Contains(t, run.GetString("output"), "goes to 3 people")
	require.Equal(t, saturday, run.GetDateTime("dueAt").Time())
	require.NotEmpty(t, run.GetString("host"))
	s = x.Reload(s)
	require.Equal(t, "ok", s.GetString("lastStatus"))
	require.Empty(t, s.GetString("lastError"))
	require.Equal(t, saturday, s.GetDateTime("lastRunAt").Time())
	require.Equal(t, saturday.AddDate(0, 0, 7), s.GetDateTime("nextRunAt").Time())

	n, err := x.FindFirstRecordByData(notifications.CollectionNotifications, "title", "This week")
	require.NoError(t, err)
	require.Equal(t, "sent", n.GetString("status"))
	require.EqualValues(t, 3, n.GetInt("sent"))
	require.True(t, strings.HasPrefix(n.GetString("idempotencyKey"), "schedule:"+s.Id+":2026-12-05T08:00:00Z"))

	x.tick(saturday) // another process, or the same one again
	x.tick(saturday.Add(time.Minute))
	require.Equal(t, []string{"due ok"}, x.runs(s))
}

func TestScheduleMakesUpOnce(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	var ran []time.Time
	s := x.make(x.handler(func(context.Context, core.App, json.RawMessage) (string, error) {
		ran = append(ran, x.now())
		return "", nil
	}))
	// Down over three Saturdays.
	back := saturday.AddDate(0, 0, 16)
	x.tick(back)
	require.Equal(t, []string{"due missed", "catch_up ok"}, x.runs(s))
	rows := x.rows(s)
	require.Equal(t, saturday, rows[0].GetDateTime("dueAt").Time())
	require.Contains(t, rows[0].GetString("error"), "nor for the 1 run after it. One run makes up for all of them.")
	require.Equal(t, saturday.AddDate(0, 0, 14), rows[1].GetDateTime("dueAt").Time())
	require.Len(t, ran, 1)
	require.Equal(t, "ok", x.Reload(s).GetString("lastStatus"))
	require.Equal(t, saturday.AddDate(0, 0, 21), x.Reload(s).GetDateTime("nextRunAt").Time())
	x.tick(back.Add(time.Minute))
	require.Len(t, ran, 1)
	// One that is late by hours is made up for too, and nothing is missed.
	x.tick(saturday.AddDate(0, 0, 21).Add(5 * time.Hour))
	require.Equal(t, []string{"due missed", "catch_up ok", "catch_up ok"}, x.runs(s))
}

// However many processes look at the same time, one run comes of it.
func TestScheduleRunsOnceForManyProcesses(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	var mu sync.Mutex
	runs := map[string]int{}
	x.handler(func(_ context.Context, _ core.App, payload json.RawMessage) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		runs[string(payload)]++
		return "", nil
	})
	for i := range 5 {
		x.make(map[string]any{"action": "handler", "payload": map[string]any{"handler": "work", "args": map[string]any{"n": i}}})
	}
	for week := range 3 {
		x.at(saturday.AddDate(0, 0, 7*week))
		var all sync.WaitGroup
		for range 8 {
			all.Go(x.look)
		}
		all.Wait()
		x.idle()
	}
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, runs, 5)
	for _, n := range runs {
		require.Equal(t, 3, n)
	}
}

func TestScheduleNeverOverlaps(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	fields, begun, end := x.heldHandler()
	fields["cron"] = "* * * * *"
	s := x.make(fields)
	first := x.now().Add(time.Minute)
	x.at(first)
	x.look()
	<-begun
	require.Equal(t, []string{"due running"}, x.runs(s))
	require.Equal(t, "running", x.Reload(s).GetString("lastStatus"))
	x.at(first.Add(time.Minute))
	x.look()
	require.Equal(t, []string{"due running", "due skipped"}, x.runs(s))
	require.Equal(t, "The run of "+schedules.When(first, paris(t))+" was not done yet, and two never run at a time.", x.rows(s)[1].GetString("error"))
	require.Equal(t, "skipped", x.Reload(s).GetString("lastStatus"))

	res := x.Send(http.MethodPatch, schedulesPath+"/"+s.Id, map[string]any{"run": "now"}, x.root)
	require.Equal(t, http.StatusBadRequest, res.Status, res.String())
	require.Contains(t, res.String(), "is not done yet, and two never run at a time: wait until it is.")
	close(end)
	x.idle()
	require.Equal(t, []string{"due ok", "due skipped"}, x.runs(s))
	require.Equal(t, "did it", x.rows(s)[0].GetString("output"))
	require.Equal(t, "ok", x.Reload(s).GetString("lastStatus"))
	x.tick(first.Add(2 * time.Minute))
	require.Equal(t, []string{"due ok", "due skipped", "due ok"}, x.runs(s))
	require.Zero(t, x.told(), "a skipped run is no failure")
}

func TestScheduleRunsNow(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	var got []string
	fields := x.handler(func(_ context.Context, _ core.App, payload json.RawMessage) (string, error) {
		got = append(got, string(payload))
		return "done", nil
	})
	fields["enabled"] = false
	s := x.make(fields)
	next := x.Reload(s).GetDateTime("nextRunAt")
	s = x.patch(s, map[string]any{"run": "now"})
	require.Empty(t, s.GetString("run"))
	x.idle()
	require.Equal(t, []string{"manual ok"}, x.runs(s), "one that is switched off, too")
	require.Equal(t, []string{`{"n":1}`}, got)
	x.patch(s, map[string]any{"run": "now"}) // at the same moment of the clock
	x.idle()
	require.Equal(t, []string{"manual ok", "manual ok"}, x.runs(s))
	require.Equal(t, next, x.Reload(s).GetDateTime("nextRunAt"))

	// A new one, and its first run, in one save.
	fields["run"] = "now"
	one := x.make(fields)
	x.idle()
	require.Equal(t, []string{"manual ok"}, x.runs(one))

	// What is rolled back asked for nothing.
	failure := errors.New("no")
	err := x.RunInTransaction(func(txApp core.App) error {
		one.Set("run", "now")
		if err := txApp.Save(one); err != nil {
			return err
		}
		return failure
	})
	require.ErrorIs(t, err, failure)
	x.idle()
	require.Equal(t, []string{"manual ok"}, x.runs(one))
}

func TestScheduleSwitchedOffOrDeletedBeforeItBegins(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	ran := 0
	work := x.handler(func(context.Context, core.App, json.RawMessage) (string, error) {
		ran++
		return "", nil
	})
	off, gone := x.make(work), x.make(work)
	x.at(saturday)
	// The run is there, and its job has not begun: both in one transaction.
	require.NoError(t, x.RunInTransaction(func(txApp core.App) error {
		for _, s := range []*core.Record{off, gone} {
			run := core.NewRecord(x.runsCollection())
			run.Load(map[string]any{"schedule": s.Id, "dueAt": saturday, "cause": "due", "status": "queued", "retryAt": saturday})
			require.NoError(t, txApp.SaveWithContext(notifications.AsServer(context.Background()), run))
			_, err := jobs.Enqueue(txApp, schedules.RunArgs{Run: run.Id}, jobs.Options{})
			require.NoError(t, err)
		}
		off.Set("enabled", false)
		require.NoError(t, txApp.Save(off))
		return txApp.Delete(gone)
	}))
	x.idle()
	require.Zero(t, ran)
	require.Equal(t, []string{"due skipped"}, x.runs(off))
	require.Equal(t, "The schedule was switched off before it began.", x.rows(off)[0].GetString("error"))
	require.Empty(t, x.rows(gone))
}

func (x *planned) runsCollection() *core.Collection {
	c, err := x.FindCachedCollectionByNameOrId(schedules.CollectionRuns)
	require.NoError(x.t, err)
	return c
}

// A run whose process was killed is made again; one that kills it each time is given
// up, and none is left running.
func TestScheduleAfterAKill(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	ran := 0
	s := x.make(x.handler(func(context.Context, core.App, json.RawMessage) (string, error) {
		ran++
		return "", nil
	}))
	killed := func(attempt int, due time.Time) {
		run := core.NewRecord(x.runsCollection())
		run.Load(map[string]any{"schedule": s.Id, "dueAt": due, "cause": "due", "status": "running", "attempt": attempt, "startedAt": due, "host": "other"})
		require.NoError(t, x.SaveWithContext(notifications.AsServer(context.Background()), run))
	}
	killed(1, saturday.Add(-24*time.Hour))
	x.tick(x.now().Add(time.Minute))
	require.Equal(t, []string{"due ok"}, x.runs(s))
	require.Equal(t, 2, x.rows(s)[0].GetInt("attempt"))
	require.Equal(t, 1, ran)

	killed(5, saturday.Add(-23*time.Hour))
	x.tick(x.now().Add(time.Minute))
	require.Equal(t, []string{"due ok", "due failed"}, x.runs(s))
	require.Equal(t, "The server's process ended during the last of 5 attempts.", x.rows(s)[1].GetString("error"))
	require.Equal(t, 1, ran)
	require.Equal(t, 1, x.told())
	require.Equal(t, 1, x.logged(`"schedule failed"`))
}

// A line that cannot be read any more rests until it is repaired, and people know.
func TestScheduleWhoseLineCannotBeRead(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	s := x.make(x.handler(func(context.Context, core.App, json.RawMessage) (string, error) { return "", nil }))
	_, err := x.NonconcurrentDB().Update("schedules", dbx.Params{"cron": "0 9 * * someday"}, dbx.HashExp{"id": s.Id}).Execute()
	require.NoError(t, err)
	for n := range 3 {
		x.tick(saturday.Add(time.Duration(n) * time.Minute))
	}
	require.Empty(t, x.rows(s))
	require.Equal(t, "failed", x.Reload(s).GetString("lastStatus"))
	require.Contains(t, x.Reload(s).GetString("lastError"), `"someday"`)
	require.Equal(t, 1, x.told())
	x.patch(s, map[string]any{"cron": "0 9 * * sat"})
	x.tick(saturday.AddDate(0, 0, 7))
	require.Equal(t, []string{"due ok"}, x.runs(s))
	require.Equal(t, 2, x.told(), "it works again")
}

// A process that cannot begin a run, because the database does not let it, takes nothing
// from the one that works on it.
func TestScheduleRunStaysWithItsProcess(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	fields, begun, end := x.heldHandler()
	s := x.make(fields)
	x.at(saturday)
	x.look()
	<-begun
	run := x.rows(s)[0]
	sign := filepath.Join(x.DataDir(), schedules.PulseDir, run.Id)
	require.FileExists(t, sign)

	_, err := x.NonconcurrentDB().NewQuery("ALTER TABLE {{groundwork_notices}} RENAME TO {{elsewhere}}").Execute()
	require.NoError(t, err)
	id, err := jobs.Enqueue(x.App, schedules.RunArgs{Run: run.Id}, jobs.Options{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		job, err := jobs.Find(t.Context(), x.App, id)
		return err == nil && job.State == jobs.StateRetryable && strings.Contains(job.Errors[0].Error, "begin run")
	}, patience, 20*time.Millisecond)
	require.FileExists(t, sign, "the other one still works on it")
	_, err = x.NonconcurrentDB().NewQuery("ALTER TABLE {{elsewhere}} RENAME TO {{groundwork_notices}}").Execute()
	require.NoError(t, err)
	close(end)
	x.idle()
	require.Equal(t, []string{"due ok"}, x.runs(s))
	require.Equal(t, 1, x.rows(s)[0].GetInt("attempt"))
	require.Empty(t, begun)
}

// People are told once when a schedule begins to fail, and once when it is well again.
func TestScheduleAlerts(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	x.Superuser("second@example.com")
	var failure error
	fields := x.handler(func(context.Context, core.App, json.RawMessage) (string, error) { return "so far", failure })
	fields["cron"] = "0 * * * *"
	s := x.make(fields)
	hour := x.now()
	next := func(err error) {
		failure = err
		hour = hour.Add(time.Hour)
		x.tick(hour)
	}
	next(nil)
	require.Zero(t, x.told())
	for range 3 {
		next(errors.New("The shop is closed."))
	}
	require.Equal(t, 2, x.told(), "each superuser once")
	require.Equal(t, 3, x.logged(`"schedule failed"`))
	s = x.Reload(s)
	require.Equal(t, "failed", s.GetString("lastStatus"))
	require.Equal(t, "The shop is closed.", s.GetString("lastError"))
	last := x.rows(s)[3]
	require.Equal(t, "so far", last.GetString("output"))
	require.Equal(t, "The shop is closed.", last.GetString("error"))
	next(nil)
	require.Equal(t, 4, x.told())
	require.Equal(t, 1, x.logged(`"schedule works again"`))
	require.Empty(t, x.Reload(s).GetString("lastError"))
	next(nil)
	require.Equal(t, 4, x.told())
	next(errors.New("Again."))
	require.Equal(t, 6, x.told())
}

func TestScheduleThatPanics(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	s := x.make(x.handler(func(context.Context, core.App, json.RawMessage) (string, error) { panic("no such shelf") }))
	x.tick(saturday)
	require.Equal(t, []string{"due failed"}, x.runs(s))
	require.Equal(t, "It panicked: no such shelf. The log has more.", x.Reload(s).GetString("lastError"))
}

// A disk that fills up is told about before the next run, with the name of the host;
// what it kept back is made up for once.
func TestScheduleOnAFullDisk(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	ran := 0
	fields := x.handler(func(context.Context, core.App, json.RawMessage) (string, error) {
		ran++
		return "", nil
	})
	fields["cron"] = "0 * * * *"
	s := x.make(fields)
	purge := x.make(map[string]any{"action": "purge", "cron": "0 * * * *", "payload": map[string]any{"what": []string{"devices"}, "olderThanDays": 30}})
	hour := x.now()
	x.room(10 << 20)
	x.tick(hour.Add(30 * time.Minute))
	require.Equal(t, 1, x.told(), "before the next run")
	require.Equal(t, 1, x.logged(`"disk nearly full"`))
	require.Empty(t, x.rows(s))
	for n := 1; n <= 3; n++ {
		x.tick(hour.Add(time.Duration(n) * time.Hour))
	}
	require.Equal(t, []string{"due failed", "due failed", "due failed"}, x.runs(s))
	require.Equal(t, []string{"due ok", "due ok", "due ok"}, x.runs(purge), "what makes room goes on")
	require.Contains(t, x.rows(s)[0].GetString("error"), "is nearly full (10.0 MB of 100.0 GB are free)")
	require.Contains(t, x.rows(s)[0].GetString("error"), x.rows(s)[0].GetString("host"))
	require.Equal(t, 1, x.told())
	require.Zero(t, ran)

	x.room(20 << 30)
	x.tick(hour.Add(3*time.Hour + time.Minute))
	require.Equal(t, []string{"due failed", "due failed", "due failed", "catch_up ok"}, x.runs(s))
	require.Equal(t, 1, ran)
	require.Equal(t, 2, x.told(), "a recovery note")
	require.Equal(t, 1, x.logged(`"disk has room again"`))
	x.tick(hour.Add(3*time.Hour + 2*time.Minute))
	require.Equal(t, 1, ran)
	x.tick(hour.Add(4 * time.Hour))
	require.Equal(t, 2, ran)

	// Asked for by hand: it fails, and nothing is made up for.
	x.room(1)
	x.patch(s, map[string]any{"run": "now"})
	x.idle()
	require.Equal(t, "failed", x.Reload(s).GetString("lastStatus"))
	x.room(20 << 30)
	x.tick(hour.Add(4*time.Hour + time.Minute))
	require.Equal(t, 2, ran)
}

// What a full disk kept back is made up for once, whatever was asked for by hand
// meanwhile.
func TestScheduleOwesOverARunByHand(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	fields, begun, end := x.heldHandler()
	fields["run"] = "now"
	s := x.make(fields)
	<-begun
	x.room(10 << 20)
	x.at(saturday)
	x.look()
	x.room(20 << 30)
	for n := 1; n < 4; n++ {
		x.at(saturday.Add(time.Duration(n) * time.Minute))
		x.look()
	}
	require.Equal(t, []string{"manual running", "due failed"}, x.runs(s), "it waits, and does not say so every minute")
	close(end)
	x.idle()
	x.tick(saturday.Add(4 * time.Minute))
	require.Equal(t, []string{"manual ok", "due failed", "catch_up ok"}, x.runs(s))

	x.room(10 << 20)
	x.tick(saturday.AddDate(0, 0, 7))
	x.at(saturday.AddDate(0, 0, 7).Add(time.Minute))
	x.patch(s, map[string]any{"run": "now"})
	x.idle()
	require.Equal(t, []string{"manual ok", "due failed", "catch_up ok", "due failed", "manual failed"}, x.runs(s))
	x.room(20 << 30)
	x.tick(saturday.AddDate(0, 0, 7).Add(2 * time.Minute))
	require.Equal(t, []string{"manual ok", "due failed", "catch_up ok", "due failed", "manual failed", "catch_up ok"}, x.runs(s))
	x.tick(saturday.AddDate(0, 0, 7).Add(3 * time.Minute))
	require.Len(t, x.rows(s), 6)
}

func TestScheduleKeepsAHundredRuns(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	fields := x.handler(func(context.Context, core.App, json.RawMessage) (string, error) { return "", nil })
	s := x.make(fields)
	require.NoError(t, x.RunInTransaction(func(txApp core.App) error {
		for i := range 120 {
			run := core.NewRecord(x.runsCollection())
			run.Load(map[string]any{"schedule": s.Id, "dueAt": saturday.Add(-time.Duration(i+1) * time.Hour), "cause": "due", "status": "ok"})
			if err := txApp.SaveWithContext(notifications.AsServer(context.Background()), run); err != nil {
				return err
			}
		}
		return nil
	}))
	x.tick(saturday)
	rows := x.rows(s)
	require.Len(t, rows, 100)
	require.Equal(t, saturday, rows[99].GetDateTime("dueAt").Time())
}

// Who is erased is no longer named, neither as a recipient nor in what a run told.
func TestScheduleForgetsPeople(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	ana, bo := x.User("ana.archer@example.com"), x.User("bo@example.com")
	s := x.make(map[string]any{"payload": map[string]any{"title": "T", "channels": []string{"inbox"}, "audience": "users", "users": []string{ana.Id, bo.Id}}})
	tells := x.make(x.handler(func(context.Context, core.App, json.RawMessage) (string, error) {
		return "Wrote to ana.archer@example.com.", errors.New("ana.archer@example.com does not answer.")
	}))
	x.tick(saturday)
	require.Contains(t, x.rows(tells)[0].GetString("output"), "ana.archer")
	require.NoError(t, x.Delete(x.Reload(ana)))
	require.Eventually(t, func() bool {
		n, err := x.CountRecords("erasures", dbx.HashExp{"status": "done"})
		require.NoError(t, err)
		return n == 1
	}, patience, 50*time.Millisecond)
	require.NotContains(t, x.Reload(s).GetString("payload"), ana.Id)
	require.Contains(t, x.Reload(s).GetString("payload"), bo.Id)
	run := x.rows(tells)[0]
	require.NotContains(t, run.GetString("output")+run.GetString("error")+x.Reload(tells).GetString("lastError"), "ana.archer")
	x.tick(saturday.AddDate(0, 0, 7))
	require.Contains(t, x.rows(s)[1].GetString("output"), "goes to 1 person")
}

func paris(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Paris")
	require.NoError(t, err)
	return zone
}

// A run that is being worked is called off when its schedule is deleted, and handed back
// when the process stops.
func TestScheduleRunIsCalledOff(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	begun, ended := make(chan struct{}, 2), make(chan error, 2)
	fields := x.handler(func(ctx context.Context, _ core.App, _ json.RawMessage) (string, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return "", ctx.Err()
	})
	fields["run"] = "now"
	gone := x.make(fields)
	<-begun
	require.NoError(t, x.Delete(gone))
	require.ErrorIs(t, <-ended, context.Canceled)
	x.idle()
	require.Empty(t, x.rows(gone))
	require.Zero(t, x.told())

	s := x.make(fields)
	<-begun
	stop := &core.TerminateEvent{}
	stop.App = x.App
	require.NoError(t, x.OnTerminate().Trigger(stop, func(e *core.TerminateEvent) error { return nil }))
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Equal(t, []string{"manual queued"}, x.runs(s))
	require.Zero(t, x.rows(s)[0].GetInt("attempt"), "it does not count")
}

// Who cancels a run in the job monitor has cancelled it for good, whether it had begun
// or not.
func TestScheduleRunIsCancelledInTheMonitor(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	begun := make(chan struct{}, 2)
	fields := x.handler(func(ctx context.Context, _ core.App, _ json.RawMessage) (string, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return "", ctx.Err()
	})
	cancel := func() {
		t.Helper()
		found, err := jobs.List(t.Context(), x.App, jobs.Filter{Kind: "schedule.run", Limit: 1})
		require.NoError(t, err)
		require.Len(t, found, 1)
		res := x.Send(http.MethodPost, "/api/jobs/"+found[0].ID+"/cancel", nil, x.root)
		require.Equal(t, http.StatusOK, res.Status, res.String())
	}
	s := x.make(fields)
	s = x.patch(s, map[string]any{"run": "now"})
	<-begun
	cancel()
	x.idle()
	require.Equal(t, []string{"manual failed"}, x.runs(s))
	require.Equal(t, "The run was cancelled in the job monitor.", x.Reload(s).GetString("lastError"))
	require.Zero(t, x.told(), "who did it knows")

	// All eight that work the queue are busy: the run cannot begin. What takes jobs hears of
	// a pause only a moment later.
	busy := make([]*core.Record, 8)
	others := maps.Clone(fields)
	others["run"] = "now"
	for i := range busy {
		busy[i] = x.make(others)
		<-begun
	}
	x.at(x.now().Add(time.Minute))
	s = x.patch(s, map[string]any{"run": "now"})
	require.Eventually(t, func() bool {
		found, err := jobs.List(t.Context(), x.App, jobs.Filter{Kind: "schedule.run", State: "available"})
		return err == nil && len(found) == 1
	}, patience, 20*time.Millisecond)
	cancel()
	for _, other := range busy {
		require.NoError(t, x.Delete(other))
	}
	x.idle()
	require.Equal(t, []string{"manual failed", "manual skipped"}, x.runs(s))
	x.tick(x.now().Add(time.Hour))
	require.Equal(t, []string{"manual failed", "manual skipped"}, x.runs(s))
	require.Empty(t, begun)
}

// What a handler tells is kept, logged and sent by mail: without the secrets in it.
func TestScheduleTellsNoSecrets(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	fields := x.handler(func(context.Context, core.App, json.RawMessage) (string, error) {
		return `{"password":"canary-1"}`, errors.New("The shop refused token=canary-2")
	})
	fields["run"] = "now"
	s := x.make(fields)
	x.idle()
	require.Equal(t, []string{"manual failed"}, x.runs(s))
	require.Equal(t, "The shop refused token=[redacted]", x.Reload(s).GetString("lastError"))
	require.Contains(t, x.rows(s)[0].GetString("output"), "[redacted]")
	require.Equal(t, 1, x.logged(`"schedule failed"`))
	require.Zero(t, x.logged("canary-"))
}

// A clock that was ahead for a while keeps nothing back for as long.
func TestScheduleAfterAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	s := x.make(x.handler(func(context.Context, core.App, json.RawMessage) (string, error) { return "", nil }))
	x.tick(saturday.AddDate(4, 0, 0))
	require.True(t, x.Reload(s).GetDateTime("nextRunAt").Time().After(saturday.AddDate(4, 0, 0)))
	ran := len(x.runs(s))

	x.tick(saturday.Add(-time.Hour))
	require.Equal(t, saturday, x.Reload(s).GetDateTime("nextRunAt").Time())
	x.tick(saturday)
	require.Len(t, x.runs(s), ran+1)
	// By a moment: what has run at this time does not run again.
	x.tick(saturday.Add(-30 * time.Second))
	x.tick(saturday)
	require.Len(t, x.runs(s), ran+1)
	require.Equal(t, saturday.AddDate(0, 0, 7), x.Reload(s).GetDateTime("nextRunAt").Time())
}
