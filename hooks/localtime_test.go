package hooks_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// clock is a time that tests set. Jobs go by the real one: what is due later than
// now is asked for again after each step.
type clock struct{ unixMilli atomic.Int64 }

func clockAt(t *testing.T, at string) *clock {
	t.Helper()
	c := &clock{}
	c.set(moment(t, at))
	return c
}

func moment(t *testing.T, at string) time.Time {
	t.Helper()
	m, err := time.Parse(time.RFC3339, at)
	require.NoError(t, err)
	return m
}

func (c *clock) now() time.Time        { return time.UnixMilli(c.unixMilli.Load()).UTC() }
func (c *clock) set(at time.Time)      { c.unixMilli.Store(at.UnixMilli()) }
func (c *clock) option() pbtest.Option { return pbtest.WithConfig(hooks.Clock(c.now)) }

// step sets the clock and lets a notification do what is due then.
func (c *clock) step(t *testing.T, app *pbtest.App, n *core.Record, at time.Time) {
	t.Helper()
	c.set(at)
	ask(t, app, n)
}

// ask takes a notification up again as a restart would.
func ask(t *testing.T, app *pbtest.App, n *core.Record) {
	t.Helper()
	require.NoError(t, app.RunInTransaction(func(txApp core.App) error {
		n, err := notifications.FindNotificationByID(txApp, n.Id)
		require.NoError(t, err)
		if n.Status() == notifications.StatusScheduled {
			return notifications.EnqueuePlan(txApp, n)
		}
		return notifications.EnqueueBatches(txApp, n, "")
	}))
}

// zoned are people by the zone they live in, as their record or their device says.
var zoned = map[string]map[string]any{
	"kiritimati": {"timezone": "Pacific/Kiritimati"},
	"auckland":   {"timezone": "Pacific/Auckland"},
	"tokyo":      {"timezone": "Asia/Tokyo"},
	"berlin":     {"timezone": "Europe/Berlin"},
	"madrid":     {"timezone": "Europe/Madrid"},
	"newyork":    {"timezone": "America/New_York"},
	"midway":     {"timezone": "Pacific/Midway"},
	"nowhere":    {},
	"device":     {},
}

func zonedPeople(app *pbtest.App) map[string]string {
	names := map[string]string{}
	for name, fields := range zoned {
		u := app.User(name+"@example.com", fields)
		names[u.Id] = name
		if name == "device" {
			for i, zone := range []string{"Asia/Tokyo", "America/New_York", ""} { // the one before last registered last of those that say
				app.Record(notifications.CollectionDevices, map[string]any{"user": u.Id, "platform": "android", "token": "t-" + zone, "timezone": zone})
				_, _ = app.NonconcurrentDB().NewQuery("UPDATE devices SET registeredAt = {:at} WHERE token = {:t}").
					Bind(dbx.Params{"at": time.Date(2025, 1, 1+i, 0, 0, 0, 0, time.UTC).Format("2006-01-02 15:04:05.000Z"), "t": "t-" + zone}).Execute()
			}
		}
	}
	return names
}

// reached are the people whose deliveries of a notification have a status.
func reached(t *testing.T, app *pbtest.App, n *core.Record, names map[string]string, status string) []string {
	t.Helper()
	rows, err := app.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id, "status": status})
	require.NoError(t, err)
	who := []string{}
	for _, r := range rows {
		who = append(who, names[r.GetString("user")])
	}
	return who
}

// becomes waits until those people, and nobody else, have that status.
func becomes(t *testing.T, app *pbtest.App, n *core.Record, names map[string]string, status string, who ...string) {
	t.Helper()
	var got []string
	if who == nil {
		who = []string{}
	}
	require.True(t, waitFor(func() bool {
		got = reached(t, app, n, names, status)
		return len(got) == len(who)
	}), "%s: %v, not %v", status, who, got)
	require.ElementsMatch(t, who, got)
}

func TestEverybodyGetsItAtThatTimeOfTheirOwn(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-22T12:00:00Z")
	app := pbtest.NewApp(t, c.option(), pbtest.WithConfig(func(c *hooks.Config) { c.DefaultTimezone = "Europe/Berlin" }))
	app.Handler()
	names := zonedPeople(app)
	// Nine o'clock in Berlin, which is how the dashboard says it there.
	n := send(t, app, map[string]any{"localTime": true, "sendAt": "2025-06-24 07:00:00.000Z"})
	require.Equal(t, "scheduled", n.GetString("status"))
	require.Equal(t, "It goes out at 09:00 on 24 June 2025 on each person's own clock.", n.GetString("statusReason"))

	c.step(t, app, n, moment(t, "2025-06-23T18:59:00Z"))
	require.Never(t, func() bool { return app.Reload(n).GetString("status") != "scheduled" }, 300*time.Millisecond, 50*time.Millisecond)
	c.step(t, app, n, moment(t, "2025-06-23T19:00:00Z"))
	becomes(t, app, n, names, "captured", "kiritimati")
	require.True(t, waitFor(func() bool { return app.Reload(n).GetInt("total") == len(zoned) && app.Reload(n).GetInt("sent") == 1 }), "all are counted from the beginning")
	require.Equal(t, len(zoned)-1, app.Reload(n).GetInt("pending"))
	var batches int
	require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM groundwork_batches WHERE notification = {:n}").Bind(dbx.Params{"n": n.Id}).Row(&batches))
	require.Equal(t, 5, batches, "one for each instant: Auckland, Tokyo, all of Central Europe, New York, Midway")

	sent := []string{"kiritimati"}
	for _, s := range []struct {
		at   string
		here []string
	}{
		{"2025-06-23T20:59:59Z", nil},
		{"2025-06-23T21:00:00Z", []string{"auckland"}},
		{"2025-06-24T00:00:00Z", []string{"tokyo"}},
		{"2025-06-24T07:00:00Z", []string{"berlin", "madrid", "nowhere"}},
		{"2025-06-24T13:00:00Z", []string{"newyork", "device"}},
		{"2025-06-24T19:59:59Z", nil},
		{"2025-06-24T20:00:00Z", []string{"midway"}},
	} {
		// In between it is stopped, and goes on: nobody gets it before their time.
		c.step(t, app, n, moment(t, s.at))
		if s.here != nil {
			sent = append(sent, s.here...)
			becomes(t, app, n, names, "captured", sent...)
			continue
		}
		for _, action := range []string{"pause", "resume"} {
			r := app.Reload(n)
			r.Set("action", action)
			require.NoError(t, app.Save(r))
			ask(t, app, n)
		}
		require.Never(t, func() bool { return len(reached(t, app, n, names, "captured")) != len(sent) }, 300*time.Millisecond, 50*time.Millisecond, s.at)
	}
	n = until(t, app, n, "status", "sent")
	require.Equal(t, []int{len(zoned), len(zoned), 0}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("pending")})
}

// Who has passed that time already gets it at once, as long as it is still the day.
func TestALocalTimeThatHasPassed(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-24T11:30:00Z") // 20:30 in Tokyo, 01:30 of the next day on Kiritimati
	app := pbtest.NewApp(t, c.option())
	app.Handler()
	names := zonedPeople(app)
	n := send(t, app, map[string]any{"localTime": true, "sendAt": "2025-06-24 09:00:00.000Z", "expiresAt": "2025-06-24 18:00:00.000Z"})
	becomes(t, app, n, names, "captured", "auckland", "tokyo", "berlin", "madrid", "nowhere")
	becomes(t, app, n, names, "skipped", "kiritimati")
	_, why := ends(t, app, n)
	for id, name := range names {
		if name == "kiritimati" {
			require.Contains(t, why[id], "over on this person's clock")
		}
	}
	c.step(t, app, n, moment(t, "2025-06-24T13:00:00Z"))
	becomes(t, app, n, names, "captured", "auckland", "tokyo", "berlin", "madrid", "nowhere", "newyork", "device")
	// It expires before it is nine o'clock on Midway.
	c.step(t, app, n, moment(t, "2025-06-24T18:00:00Z"))
	becomes(t, app, n, names, "skipped", "kiritimati", "midway")
	until(t, app, n, "status", "expired")

	// What can reach nobody is refused.
	root := app.Token(app.Superuser("root@example.com"))
	res := app.Send(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "Hi", "channels": []string{"email"}, "audience": "users",
		"users": []string{app.User("new@example.com").Id}, "localTime": true, "sendAt": "2025-06-23 09:00:00.000Z", "action": "send"}, root)
	require.Equal(t, http.StatusBadRequest, res.Status)
	require.Contains(t, res.String(), "over on everybody's clock")
}

// Without a date it is the next time that people's clocks show the time of now.
func TestALocalTimeWithoutADate(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-24T08:00:20Z") // ten in Berlin
	app := pbtest.NewApp(t, c.option(), pbtest.WithConfig(func(c *hooks.Config) { c.DefaultTimezone = "Europe/Berlin" }))
	app.Handler()
	names := zonedPeople(app)
	n := send(t, app, map[string]any{"localTime": true})
	now := []string{"berlin", "madrid", "nowhere"}
	becomes(t, app, n, names, "captured", now...)
	c.step(t, app, n, moment(t, "2025-06-24T14:00:20Z"))
	becomes(t, app, n, names, "captured", append(now, "newyork", "device")...)
	c.step(t, app, n, moment(t, "2025-06-25T01:00:20Z")) // Midway at 21:00Z, then Kiritimati 20:00Z, Auckland 22:00Z, Tokyo
	becomes(t, app, n, names, "captured", append(now, "newyork", "device", "midway", "kiritimati", "auckland", "tokyo")...)
	until(t, app, n, "status", "sent")

	// Cancelled before its time, everybody has a row that says so.
	n = send(t, app, map[string]any{"localTime": true, "sendAt": "2025-06-26 09:00:00.000Z"})
	c.step(t, app, n, moment(t, "2025-06-25T21:00:00Z"))
	becomes(t, app, n, names, "captured", "kiritimati")
	r := app.Reload(n)
	r.Set("action", "cancel")
	require.NoError(t, app.Save(r))
	require.True(t, waitFor(func() bool { return app.Reload(n).GetInt("cancelled") == len(zoned)-1 }))
	require.Equal(t, len(zoned), app.Reload(n).GetInt("total"))
}

// A crowd is no job for each person, and nobody is left out.
func TestALocalTimeForMany(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-22T12:00:00Z")
	app := pbtest.NewApp(t, c.option())
	app.Handler()
	const people = 4500
	places := []string{"Asia/Tokyo", "Europe/Berlin", "America/New_York"}
	require.NoError(t, app.RunInTransaction(func(txApp core.App) error {
		for i := range people {
			_, err := txApp.DB().NewQuery("INSERT INTO users (id, email, tokenKey, password, timezone) VALUES ({:id}, {:id} || '@example.com', {:id}, '', {:zone})").
				Bind(dbx.Params{"id": fmt.Sprintf("p%014d", i), "zone": places[i%3]}).Execute()
			if err != nil {
				return err
			}
		}
		return nil
	}))
	n := send(t, app, map[string]any{"localTime": true, "sendAt": "2025-06-23 09:00:00.000Z", "channels": []string{"inbox"}})
	c.step(t, app, n, moment(t, "2025-06-22T19:00:00Z"))
	require.True(t, waitFor(func() bool { return app.Reload(n).GetInt("pending") == people }), "all are planned")
	var batches int
	require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM groundwork_batches").Row(&batches))
	require.Equal(t, 3, batches, "1,500 in each of three zones")
	c.step(t, app, n, moment(t, "2025-06-23T13:00:00Z"))
	n = until(t, app, n, "status", "sent")
	require.Equal(t, []int{people, people}, []int{n.GetInt("total"), n.GetInt("sent")})
}
