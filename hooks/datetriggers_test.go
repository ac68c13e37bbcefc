package hooks_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

// visits adds a collection of appointments, a trigger that reminds of them an hour
// before, and a person.
func visits(t *testing.T, app *pbtest.App, trigger map[string]any) (person *core.Record) {
	t.Helper()
	c := core.NewBaseCollection("visits")
	c.Fields.Add(&core.RelationField{Name: "who", CollectionId: "_pb_users_auth_", MaxSelect: 1}, &core.DateField{Name: "startsAt"}, &core.TextField{Name: "state"},
		&core.TextField{Name: "what"}, &core.AutodateField{Name: "created", OnCreate: true})
	require.NoError(t, app.Save(c))
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "visit", "title": "{{ record.what }}"})
	fields := map[string]any{"name": "Visit", "collection": "visits", "event": "date", "dateField": "startsAt", "offsetMinutes": -60, "enabled": true, "recipient": "who",
		"condition": `state != "cancelled"`, "template": template.Id, "channels": []string{"inbox"}}
	for k, v := range trigger {
		fields[k] = v
	}
	app.Record(notifications.CollectionTriggers, fields)
	return app.User("ana@example.com", map[string]any{"name": "Ana"})
}

func visit(app *pbtest.App, who *core.Record, what string, in time.Duration) *core.Record {
	return app.Record("visits", map[string]any{"who": who.Id, "what": what, "startsAt": time.Now().Add(in)})
}

// minute does what the server does every minute, and returns how often each
// message was told.
func minute(t *testing.T, app *pbtest.App) map[string]int {
	t.Helper()
	app.Handler()
	for _, job := range app.Cron().Jobs() {
		if job.Id() == "groundwork.triggers.dates" {
			job.Run()
		}
	}
	triggered(t, app)
	inbox, err := app.FindAllRecords(notifications.CollectionInbox)
	require.NoError(t, err)
	told := map[string]int{}
	for _, r := range inbox {
		told[r.GetString("title")]++
	}
	return told
}

func TestADateIsToldOnceForEachOfItsValues(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := visits(t, app, nil)
	visit(app, ana, "soon", 30*time.Minute)
	later := visit(app, ana, "later", 3*time.Hour)
	visit(app, ana, "long ago", -5*time.Hour)
	visit(app, ana, "in the grace", 10*time.Minute) // due 50 minutes ago
	visit(app, ana, "missed", -10*time.Minute)      // due 70 minutes ago
	app.Record("visits", map[string]any{"who": ana.Id, "what": "no date"})
	app.Record("visits", map[string]any{"what": "nobody", "startsAt": time.Now().Add(30 * time.Minute)})
	cancelled := visit(app, ana, "cancelled", 30*time.Minute)
	cancelled.Set("state", "cancelled")
	require.NoError(t, app.Save(cancelled))

	require.Equal(t, map[string]int{"soon": 1, "in the grace": 1}, minute(t, app))
	require.Equal(t, map[string]int{"soon": 1, "in the grace": 1}, minute(t, app), "once")

	// The condition counted when the time came.
	cancelled.Set("state", "")
	require.NoError(t, app.Save(cancelled))
	require.NotContains(t, minute(t, app), "cancelled")

	// A date that moves is told again, and one that moves back is not.
	first := later.GetDateTime("startsAt")
	for told, to := range []any{time.Now().Add(50 * time.Minute), time.Now().Add(40 * time.Minute)} {
		later.Set("startsAt", to)
		require.NoError(t, app.Save(later))
		require.Equal(t, told+1, minute(t, app)["later"])
	}
	moved := later.GetDateTime("startsAt")
	for _, to := range []any{first, moved} {
		later.Set("startsAt", to)
		require.NoError(t, app.Save(later))
		require.Equal(t, 2, minute(t, app)["later"])
	}
	told := triggered(t, app)
	require.Equal(t, "visits", told[0].GetString("sourceCollection"))

	require.NoError(t, app.Delete(app.Reload(cancelled)))
	trigger, err := app.FindFirstRecordByData(notifications.CollectionTriggers, "name", "Visit")
	require.NoError(t, err)
	require.NoError(t, app.Delete(trigger))
	minute(t, app)
	for _, table := range []string{"groundwork_reminders", "groundwork_reminder_scans"} {
		var left int
		require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM "+table).Row(&left))
		require.Zero(t, left, table)
	}
}

func TestDatesAreCaughtUpWithOnceAfterAStop(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := visits(t, app, map[string]any{"offsetMinutes": 30})
	require.Empty(t, minute(t, app))
	for i := range 105 { // more than a page
		visit(app, ana, fmt.Sprintf("v%d", i), -time.Duration(10+i/10)*time.Hour)
	}
	visit(app, ana, "before the stop", -72*time.Hour)
	require.Empty(t, minute(t, app), "all of them came before anybody looked")

	// As if the server had been down for two days.
	_, err := app.NonconcurrentDB().Update("groundwork_reminder_scans", dbx.Params{"until": time.Now().Add(-48 * time.Hour).UTC().Format("2006-01-02 15:04:05.000Z")}, nil).Execute()
	require.NoError(t, err)
	told := minute(t, app)
	require.Len(t, told, 105)
	require.Equal(t, 1, told["v0"])
	require.Equal(t, told, minute(t, app))

	// Switched off and on again: what came meanwhile is not made up for.
	trigger, err := app.FindFirstRecordByData(notifications.CollectionTriggers, "name", "Visit")
	require.NoError(t, err)
	for _, enabled := range []bool{false, true} {
		trigger.Set("enabled", enabled)
		require.NoError(t, app.Save(trigger))
		_, err = app.NonconcurrentDB().Update("groundwork_reminder_scans", dbx.Params{"until": "2020-01-01 00:00:00.000Z"}, nil).Execute()
		require.NoError(t, err)
		require.NotContains(t, minute(t, app), "before the stop")
	}
}

func TestCapPerHourHoldsForDates(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := visits(t, app, map[string]any{"capPerHour": 3})
	bo := app.User("bo@example.com")
	for i := range 20 {
		visit(app, ana, fmt.Sprintf("v%d", i), 20*time.Minute)
	}
	visit(app, bo, "bo's", 20*time.Minute)
	minute(t, app)
	for id, want := range map[string]int64{ana.Id: 3, bo.Id: 1} {
		n, err := app.CountRecords(notifications.CollectionInbox, dbx.HashExp{"user": id})
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
}

func TestDateTriggersThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := visits(t, app, nil)
	root := app.Superuser("root@example.com")
	body := func(change map[string]any) map[string]any {
		fields := map[string]any{"name": "x", "collection": "visits", "event": "date", "dateField": "startsAt", "offsetMinutes": -5, "recipient": "who", "template": "gwwelcome000000", "channels": []string{"inbox"}}
		for k, v := range change {
			fields[k] = v
		}
		return fields
	}
	create := func(change map[string]any, token string) pbtest.Response {
		return app.Send(http.MethodPost, "/api/collections/notification_triggers/records", body(change), token)
	}
	for name, tc := range map[string]struct {
		change      map[string]any
		field, says string
	}{
		"none":          {map[string]any{"dateField": ""}, "dateField", "Name the date field"},
		"unknown":       {map[string]any{"dateField": "endsAt"}, "dateField", `has no field \"endsAt\"`},
		"not a date":    {map[string]any{"dateField": "what"}, "dateField", `The field \"what\" is no date`},
		"too far":       {map[string]any{"offsetMinutes": -99999999}, "offsetMinutes", "at most 2635200 minutes"},
		"half a minute": {map[string]any{"offsetMinutes": 0.5}, "offsetMinutes", ""},
	} {
		res := create(tc.change, app.Token(root))
		require.Equal(t, http.StatusBadRequest, res.Status, "%s: %s", name, res)
		require.Contains(t, res.JSON(t)["data"], tc.field)
		require.Contains(t, res.String(), tc.says)
	}
	for name, tc := range map[string]struct {
		token  string
		status int
	}{"guest": {"", http.StatusUnauthorized}, "owner": {app.Token(ana), http.StatusForbidden}, "other": {app.Token(app.User("bo@example.com")), http.StatusForbidden}, "superuser": {app.Token(root), http.StatusOK}} {
		require.Equal(t, tc.status, create(map[string]any{"dateField": "created"}, tc.token).Status, name)
	}
	// Not only requests.
	col, err := app.FindCollectionByNameOrId(notifications.CollectionTriggers)
	require.NoError(t, err)
	r := core.NewRecord(col)
	r.Load(body(map[string]any{"dateField": "what"}))
	require.ErrorContains(t, app.Save(r), "is no date")
}

func TestDatesAreFoundByAnIndex(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	visits(t, app, nil)
	c, err := app.FindCollectionByNameOrId("visits")
	require.NoError(t, err)
	require.Len(t, c.Indexes, 1, "made with the trigger")
	var plan []struct {
		Detail string `db:"detail"`
	}
	require.NoError(t, app.DB().NewQuery("EXPLAIN QUERY PLAN SELECT id FROM visits r WHERE r.startsAt > '2026-01-01' AND r.startsAt <= '2026-01-02'"+
		" AND NOT EXISTS (SELECT 1 FROM groundwork_reminders m WHERE m.trigger = 't' AND m.record = r.id AND m.date = 'x' || r.startsAt) ORDER BY r.startsAt LIMIT 100").All(&plan))
	steps := ""
	for _, step := range plan {
		steps += step.Detail + "\n"
	}
	require.Contains(t, steps, "SEARCH r USING")
	require.Contains(t, steps, "startsAt>? AND startsAt<?")
	require.Contains(t, steps, "SEARCH m USING PRIMARY KEY")
	require.False(t, strings.Contains(steps, "SCAN") || strings.Contains(steps, "TEMP B-TREE"), steps)

	trigger, err := app.FindFirstRecordByData(notifications.CollectionTriggers, "name", "Visit")
	require.NoError(t, err)
	require.NoError(t, app.Save(trigger))
	c, err = app.FindCollectionByNameOrId("visits")
	require.NoError(t, err)
	require.Len(t, c.Indexes, 1)
}

// Nobody is asked to finish an order that is paid by now.
func TestADelayedMessageIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := visits(t, app, map[string]any{"event": "created", "delayMinutes": 60, "condition": `state = "open"`, "dateField": ""})
	trigger, err := app.FindFirstRecordByData(notifications.CollectionTriggers, "name", "Visit")
	require.NoError(t, err)
	app.Handler()
	c, err := app.FindCollectionByNameOrId("visits")
	require.NoError(t, err)
	for _, state := range []string{"open", "paid"} {
		v := app.Record("visits", map[string]any{"who": ana.Id, "what": state, "state": "open"})
		v.Set("state", state)
		require.NoError(t, app.Save(v))
		// The hour is over.
		_, err = jobs.Enqueue(app, notifications.TriggerArgs{Trigger: trigger.Id, Event: "created", Collection: c.Id, Record: v.Id, User: ana.Id}, jobs.Options{})
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		n, err := app.CountRecords(notifications.CollectionInbox)
		require.NoError(t, err)
		return n == 1
	}, patience, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		n, err := jobs.CountDue(t.Context(), app)
		require.NoError(t, err)
		return n == 0
	}, patience, 20*time.Millisecond)
	inbox, err := app.FindAllRecords(notifications.CollectionInbox)
	require.NoError(t, err)
	require.Len(t, inbox, 1)
	require.Equal(t, "open", inbox[0].GetString("title"))
}
