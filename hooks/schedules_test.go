package hooks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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

var _ = []any{context.Background, json.Marshal, errors.New}
