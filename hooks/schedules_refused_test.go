package hooks_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/schedules"
)

func TestSchedulesRefused(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	x.User("ana@example.com")
	x.Record(notifications.CollectionTemplates, map[string]any{"key": "weekly", "title": "Hello {{ nobody.name }}"})
	x.handler(nil)
	notification := func(change map[string]any) map[string]any {
		payload := map[string]any{"title": "T", "body": "B", "channels": []string{"inbox"}, "audience": "filter", "filter": "verified = true"}
		for k, v := range change {
			if payload[k] = v; v == nil {
				delete(payload, k)
			}
		}
		return map[string]any{"payload": payload}
	}
	webhook := func(payload any) map[string]any {
		return map[string]any{"action": "webhook", "payload": payload, "secret": "0123456789abcdef"}
	}
	purge := func(payload any) map[string]any { return map[string]any{"action": "purge", "payload": payload} }
	backup := func(payload any) map[string]any { return map[string]any{"action": "backup", "payload": payload} }
	run := func(payload any) map[string]any { return map[string]any{"action": "handler", "payload": payload} }
	for name, tc := range map[string]struct {
		change map[string]any
		field  string
		says   string
	}{
		"no name":            {map[string]any{"name": ""}, "name", "Cannot be blank."},
		"no cron":            {map[string]any{"cron": ""}, "cron", "Cannot be blank."},
		"seconds":            {map[string]any{"cron": "0 0 9 * * sat"}, "cron", "Seconds are not supported"},
		"impossible":         {map[string]any{"cron": "0 0 30 2 *"}, "cron", "This day never comes: on the 30th of February."},
		"no such zone":       {map[string]any{"timezone": "Europe/Atlantis"}, "timezone", `There is no time zone "Europe/Atlantis"`},
		"the server's zone":  {map[string]any{"timezone": "Local"}, "timezone", `There is no time zone "Local"`},
		"a zone, small":      {map[string]any{"timezone": "america/new york"}, "timezone", `There is no time zone "america/new york". Write it as America/New_York.`},
		"a city":             {map[string]any{"timezone": "Paris"}, "timezone", `There is no time zone "Paris". Write it like Europe/Paris`},
		"not a place":        {map[string]any{"timezone": "right/UTC"}, "timezone", `There is no time zone "right/UTC"`},
		"no action":          {map[string]any{"action": ""}, "action", "Cannot be blank."},
		"unknown action":     {map[string]any{"action": "shell"}, "action", "Invalid value"},
		"unknown request":    {map[string]any{"run": "later"}, "run", "Invalid value"},
		"payload, a list":    {map[string]any{"payload": []int{1}}, "payload", "must be a JSON object"},
		"payload, a text":    {map[string]any{"payload": "weekly"}, "payload", "must be a JSON object"},
		"payload, a slip":    {map[string]any{"payload": `{"title": "T" "body": "B"}`}, "payload", `something is wrong just before "body": "B"}.`},
		"payload, cut off":   {map[string]any{"payload": `{"title": "T"`}, "payload", "something is wrong just before the end."},
		"no such person":     {notification(map[string]any{"audience": "users", "filter": nil, "users": []string{"ana@example.com"}}), "payload", `There is nobody with the id "ana@example.com"`},
		"no payload":         {map[string]any{"payload": nil}, "payload", "at least one of push, email, sms and inbox"},
		"unknown key":        {notification(map[string]any{"recipients": 3}), "payload", `The payload does not know "recipients". It knows template, title, body,`},
		"unknown channel":    {notification(map[string]any{"channels": []string{"fax"}}), "payload", `"channels" in the payload has "fax". It knows push, email, sms and inbox.`},
		"channels, a text":   {notification(map[string]any{"channels": "email"}), "payload", `"channels" in the payload must be a list of texts`},
		"no audience":        {notification(map[string]any{"audience": nil}), "payload", `"audience" must be users, topic, filter or everyone`},
		"everyone, no bound": {notification(map[string]any{"audience": "everyone", "filter": nil}), "payload", `such as "maxRecipients": 5000`},
		"too much said":      {notification(map[string]any{"users": []string{"a"}}), "payload", `"users" does not go together with the audience filter`},
		"no such template":   {notification(map[string]any{"template": "monthly"}), "payload", `There is no template "monthly".`},
		"no such topic":      {notification(map[string]any{"audience": "topic", "filter": nil, "topics": []string{"news"}}), "payload", `There is no topic "news".`},
		"no such category":   {notification(map[string]any{"category": "gossip"}), "payload", `There is no category "gossip".`},
		"a broken filter":    {notification(map[string]any{"filter": "color = 'red'"}), "payload", `The filter names "color"`},
		"a template's error": {notification(map[string]any{"template": "weekly", "title": nil}), "payload", "nobody"},
		"a bad link":         {notification(map[string]any{"link": "javascript:alert(1)"}), "payload", "link"},
		"an unknown option":  {notification(map[string]any{"options": map[string]any{"loud": true}}), "payload", "loud"},
		"zero recipients":    {notification(map[string]any{"maxRecipients": 0}), "payload", `"maxRecipients" in the payload must be a whole number from 1`},
		"local time":         {notification(map[string]any{"localTime": "9 o'clock"}), "payload", `must be true, or a time such as "09:00"`},

		"webhook, no address":     {webhook(map[string]any{}), "payload", "Say which address is called"},
		"webhook, unknown key":    {webhook(map[string]any{"url": "https://example.com", "method": "PUT"}), "payload", `does not know "method". It knows url and body.`},
		"webhook, no scheme":      {webhook(map[string]any{"url": "example.com/hook"}), "payload", "is not a web address"},
		"webhook, a file":         {webhook(map[string]any{"url": "file:///etc/passwd"}), "payload", "is not a web address"},
		"webhook, in the clear":   {webhook(map[string]any{"url": "http://example.com/hook"}), "payload", "must begin with https://"},
		"webhook, http to here":   {webhook(map[string]any{"url": "http://localhost:8090/"}), "payload", "The address localhost:8090 leads into a private network"},
		"webhook, loopback":       {webhook(map[string]any{"url": "https://127.0.0.1/hook"}), "payload", "127.0.0.1 leads into a private network"},
		"webhook, IPv6 loopback":  {webhook(map[string]any{"url": "https://[::1]/hook"}), "payload", "leads into a private network"},
		"webhook, mapped":         {webhook(map[string]any{"url": "https://[::ffff:10.0.0.1]/hook"}), "payload", "leads into a private network"},
		"webhook, metadata":       {webhook(map[string]any{"url": "https://169.254.169.254/latest"}), "payload", "leads into a private network"},
		"webhook, localhost":      {webhook(map[string]any{"url": "https://localhost:8090/"}), "payload", "leads into a private network"},
		"webhook, a local name":   {webhook(map[string]any{"url": "https://intranet/hook"}), "payload", "leads into a private network"},
		"webhook, a short number": {webhook(map[string]any{"url": "https://127.1/hook"}), "payload", "leads into a private network"},
		"webhook, a password":     {webhook(map[string]any{"url": "https://a:b@example.com/"}), "payload", "does not belong in the address"},
		"webhook, no secret":      {map[string]any{"action": "webhook", "payload": map[string]any{"url": "https://example.com"}}, "secret", "Enter a secret"},
		"webhook, a weak one":     {map[string]any{"action": "webhook", "payload": map[string]any{"url": "https://example.com"}, "secret": "short"}, "secret", "fewer than 16 characters"},

		"purge, nothing":     {purge(map[string]any{"olderThanDays": 90}), "payload", `"what" is missing`},
		"purge, everything":  {purge(map[string]any{"what": []string{"users"}, "olderThanDays": 90}), "payload", `has "users". It knows notifications, account_messages and devices.`},
		"purge, no age":      {purge(map[string]any{"what": []string{"devices"}}), "payload", "Say how old it has to be"},
		"purge, too young":   {purge(map[string]any{"what": []string{"devices"}, "olderThanDays": 1}), "payload", "a whole number from 7"},
		"backup, a path":     {backup(map[string]any{"name": "../nightly"}), "payload", "cannot be the name of a file here"},
		"backup, none kept":  {backup(map[string]any{"keep": 0}), "payload", "a whole number from 1 to 1,000"},
		"handler, unknown":   {run(map[string]any{"handler": "launch"}), "payload", `There is no handler called "launch". There is work.`},
		"handler, none":      {run(nil), "payload", "Name the function"},
		"handler, args":      {run(map[string]any{"handler": "work", "args": []int{1}}), "payload", `"args" in the payload must be an object`},
		"handler, no source": {run(map[string]any{"handler": "work", "code": "1"}), "payload", `does not know "code"`},
	} {
		res := x.Send(http.MethodPost, schedulesPath, weekly(tc.change), x.root)
		require.Equal(t, http.StatusBadRequest, res.Status, "%s: %s", name, res)
		data, _ := res.JSON(t)["data"].(map[string]any)
		field, _ := data[tc.field].(map[string]any)
		require.NotNil(t, field, "%s: %s", name, res)
		require.Contains(t, field["message"], tc.says, name)
		require.Len(t, data, 1, "%s: %s", name, res)
	}
	n, err := x.CountRecords(schedules.Collection)
	require.NoError(t, err)
	require.Zero(t, n)
}

// Switching off, and editing what is off, works whatever became of its template.
func TestSchedulesCanAlwaysBeSwitchedOff(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	x.User("ana@example.com")
	template := x.Record(notifications.CollectionTemplates, map[string]any{"key": "weekly", "title": "T", "body": "B"})
	s := x.make(map[string]any{"payload": map[string]any{"template": "weekly", "channels": []string{"inbox"}, "audience": "everyone", "maxRecipients": 5}})
	res := x.Send(http.MethodDelete, "/api/collections/notification_templates/records/"+template.Id, nil, x.root)
	require.Equal(t, http.StatusBadRequest, res.Status, res.String())
	require.Contains(t, res.String(), `The schedule \"Weekly recommendations\" uses this template.`)

	_, err := x.DB().NewQuery("DELETE FROM notification_templates WHERE id = {:id}").Bind(map[string]any{"id": template.Id}).Execute()
	require.NoError(t, err)
	s = x.patch(s, map[string]any{"enabled": false})
	require.True(t, s.GetDateTime("nextRunAt").IsZero())
	x.patch(s, map[string]any{"name": "Old"})
	res = x.Send(http.MethodPatch, schedulesPath+"/"+s.Id, map[string]any{"enabled": true}, x.root)
	require.Equal(t, http.StatusBadRequest, res.Status, res.String())
	require.Contains(t, res.String(), `There is no template`)
}

func TestSchedulesAreForSuperusers(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	user := x.Token(x.User("ana@example.com"))
	body := map[string]any{"cron": "0 9 * * sat", "timezone": "Europe/Paris", "action": "backup"}
	for who, tc := range map[string]struct {
		token string
		want  int
	}{"guest": {"", 401}, "user": {user, 403}, "superuser": {x.root, 200}} {
		require.Equal(t, tc.want, x.Send(http.MethodPost, "/api/schedules/explain", body, tc.token).Status, who)
	}
	s := x.make(nil)
	x.tick(saturday)
	runs := x.rows(s)
	require.Len(t, runs, 1)
	const runsPath = "/api/collections/schedule_runs/records"
	for who, tc := range map[string]struct {
		token                              string
		list, view, create, change, delete int
		readRuns, writeRuns                int
	}{
		"guest":     {"", 401, 401, 401, 401, 401, 401, 401},
		"user":      {user, 403, 403, 403, 403, 403, 403, 403},
		"superuser": {x.root, 200, 200, 200, 200, 204, 200, 403},
	} {
		one := x.make(map[string]any{"name": "One of " + who})
		require.Equal(t, tc.list, x.Send(http.MethodGet, schedulesPath, nil, tc.token).Status, who)
		require.Equal(t, tc.view, x.Send(http.MethodGet, schedulesPath+"/"+one.Id, nil, tc.token).Status, who)
		require.Equal(t, tc.create, x.Send(http.MethodPost, schedulesPath, weekly(nil), tc.token).Status, who)
		require.Equal(t, tc.change, x.Send(http.MethodPatch, schedulesPath+"/"+one.Id, map[string]any{"name": "N"}, tc.token).Status, who)
		require.Equal(t, tc.readRuns, x.Send(http.MethodGet, runsPath, nil, tc.token).Status, who)
		require.Equal(t, tc.writeRuns, x.Send(http.MethodPost, runsPath, map[string]any{"schedule": one.Id, "dueAt": saturday, "status": "ok"}, tc.token).Status, who)
		require.Equal(t, tc.writeRuns, x.Send(http.MethodPatch, runsPath+"/"+runs[0].Id, map[string]any{"status": "failed"}, tc.token).Status, who)
		require.Equal(t, tc.writeRuns, x.Send(http.MethodDelete, runsPath+"/"+runs[0].Id, nil, tc.token).Status, who)
		require.Equal(t, tc.delete, x.Send(http.MethodDelete, schedulesPath+"/"+one.Id, nil, tc.token).Status, who)
	}
	require.Equal(t, "ok", x.Reload(runs[0]).GetString("status"))
}

func TestScheduleExplained(t *testing.T) {
	t.Parallel()
	x := newPlanned(t, pbtest.WithConfig(func(c *hooks.Config) { c.DefaultTimezone = "America/New_York" }))
	explain := func(body map[string]any) pbtest.Response {
		return x.Send(http.MethodPost, "/api/schedules/explain", body, x.root)
	}
	res := explain(map[string]any{"cron": "0 9 * * sat", "timezone": "Europe/Paris", "action": "webhook"})
	require.Equal(t, http.StatusOK, res.Status, res.String())
	got := res.JSON(t)
	require.Equal(t, "every Saturday at 09:00, Europe/Paris", got["description"])
	next := got["nextRuns"].([]any)
	require.Len(t, next, 5)
	require.Equal(t, map[string]any{"at": "2026-12-05 08:00:00.000Z", "local": "Saturday 5 December 2026, 09:00"}, next[0])
	require.Len(t, got["keys"].([]any), 2)

	require.Equal(t, "every day at 12:00, America/New_York", explain(map[string]any{"cron": "0 12 * * *"}).JSON(t)["description"])
	res = explain(map[string]any{"cron": "61 * * * *", "timezone": "Mars"})
	require.Equal(t, http.StatusBadRequest, res.Status)
	data := res.JSON(t)["data"].(map[string]any)
	require.Contains(t, data["cron"].(map[string]any)["message"], "The minute (first field)")
	require.Contains(t, data["timezone"].(map[string]any)["message"], "There is no time zone")
	require.Equal(t, http.StatusBadRequest, explain(nil).Status)
}

// What the server owns is ignored, and the dashboard's whole record changes nothing.
func TestScheduleFieldsOfTheServer(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	owned := map[string]any{"description": "whenever", "nextRunAt": "2030-01-01 00:00:00.000Z", "lastRunAt": "2030-01-01 00:00:00.000Z", "lastStatus": "ok",
		"lastError": "none", "nextRuns": []string{"x"}, "owed": true}
	s := x.make(owned)
	check := func(s *core.Record) {
		t.Helper()
		require.Equal(t, "every Saturday at 09:00, Europe/Paris", s.GetString("description"))
		require.Equal(t, saturday, s.GetDateTime("nextRunAt").Time())
		require.True(t, s.GetDateTime("lastRunAt").IsZero())
		require.Empty(t, s.GetString("lastStatus"))
		require.Empty(t, s.GetString("lastError"))
		require.False(t, s.GetBool("owed"))
	}
	check(s)
	check(x.patch(s, owned))
	s = x.Reload(s)
	s.Load(owned)
	require.NoError(t, x.Save(s))
	check(x.Reload(s))

	// What is shown is from now on.
	x.at(saturday.AddDate(0, 0, 30))
	res := x.Send(http.MethodGet, schedulesPath+"/"+s.Id, nil, x.root)
	require.Equal(t, "Saturday 9 January 2027, 09:00", res.JSON(t)["nextRuns"].([]any)[0].(map[string]any)["local"])
	x.patch(s, map[string]any{"enabled": false})
	require.Empty(t, x.Send(http.MethodGet, schedulesPath+"/"+s.Id, nil, x.root).JSON(t)["nextRuns"])
}

// A new time counts from now on; what had been missed under the old one is no matter.
func TestScheduleEditedSwitchedOffDeleted(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	s := x.make(nil)
	s = x.patch(s, map[string]any{"cron": "30 10 * * sat"})
	require.Equal(t, saturday.Add(90*time.Minute), s.GetDateTime("nextRunAt").Time())
	x.tick(saturday.Add(time.Minute))
	require.Empty(t, x.rows(s))
	s = x.patch(s, map[string]any{"timezone": "Europe/London"})
	require.Equal(t, "every Saturday at 10:30, Europe/London", s.GetString("description"))
	require.Equal(t, saturday.Add(150*time.Minute), s.GetDateTime("nextRunAt").Time())
	s = x.patch(s, map[string]any{"enabled": false})
	x.tick(saturday.Add(150 * time.Minute))
	require.Empty(t, x.rows(s))
	x.at(saturday.AddDate(0, 0, 20))
	s = x.patch(s, map[string]any{"enabled": true})
	x.look()
	x.idle()
	require.Empty(t, x.rows(s), "nothing is made up for that came while it was off")
	require.Equal(t, time.Date(2026, 12, 26, 10, 30, 0, 0, time.UTC), s.GetDateTime("nextRunAt").Time())
	require.Equal(t, http.StatusNoContent, x.Send(http.MethodDelete, schedulesPath+"/"+s.Id, nil, x.root).Status)
	x.tick(time.Date(2026, 12, 26, 10, 30, 0, 0, time.UTC))
	require.Empty(t, x.rows(s))
	n, err := x.CountRecords(notifications.CollectionNotifications)
	require.NoError(t, err)
	require.Zero(t, n)
}

// Whoever writes a payload is told its keys before there is a cron line, and can begin
// with an example that is taken as it stands.
func TestScheduleExamplesAreTaken(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	schedules.HandleIn(x.App, "cleanUp", func(context.Context, core.App, json.RawMessage) (string, error) { return "", nil })
	for _, action := range []string{schedules.ActionNotification, schedules.ActionWebhook, schedules.ActionPurge, schedules.ActionBackup, schedules.ActionHandler} {
		res := x.Send(http.MethodPost, "/api/schedules/explain", map[string]any{"action": action}, x.root)
		require.Equal(t, http.StatusOK, res.Status, res.String())
		require.NotEmpty(t, res.JSON(t)["keys"], action)
		example, _ := res.JSON(t)["example"].(string)
		res = x.Send(http.MethodPost, schedulesPath, weekly(map[string]any{"action": action, "payload": json.RawMessage(example), "secret": "0123456789abcdef"}), x.root)
		require.Equal(t, http.StatusOK, res.Status, "%s: %s", action, res)
	}
	res := x.Send(http.MethodPost, "/api/schedules/explain", map[string]any{"action": schedules.ActionPurge, "cron": "0 0 9 * * sat"}, x.root)
	require.Equal(t, http.StatusBadRequest, res.Status, res.String())
}
