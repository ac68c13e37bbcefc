package hooks_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// production is an app that sends for real, with waits that are some hundred times
// shorter.
func production(c *hooks.Config) {
	c.Env = hooks.EnvProduction
	c.Retry = notifications.RetryPolicy{Base: 20 * time.Millisecond, Max: 200 * time.Millisecond, MaxAge: time.Hour}
}

// mailProvider adds a row as the dashboard does.
func mailProvider(t *testing.T, app *pbtest.App, config map[string]any, secret string) *core.Record {
	t.Helper()
	root, err := app.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com")
	if err != nil {
		root = app.Superuser("root@example.com")
	}
	res := app.Send(http.MethodPost, "/api/collections/notification_providers/records",
		map[string]any{"name": "Mail", "channel": "email_transactional", "config": config, "secret": secret, "enabled": true}, app.Token(root))
	require.Equal(t, http.StatusOK, res.Status, string(res.Body))
	record, err := app.FindFirstRecordByData(notifications.CollectionProviders, "name", "Mail")
	require.NoError(t, err)
	return record
}

func send(t *testing.T, app *pbtest.App, fields map[string]any) *core.Record {
	t.Helper()
	body := map[string]any{"title": "Hi {{ user.name }}", "body": "Hello", "action": "send", "audience": "everyone", "channels": []string{"email"}}
	for k, v := range fields {
		body[k] = v
	}
	people, err := app.CountRecords("users")
	require.NoError(t, err)
	body["confirmRecipients"] = people
	return app.Record(notifications.CollectionNotifications, body)
}

func until(t *testing.T, app *pbtest.App, r *core.Record, field, want string) *core.Record {
	t.Helper()
	var now *core.Record
	require.Eventually(t, func() bool { now = app.Reload(r); return now.GetString(field) == want }, patience, 20*time.Millisecond,
		"%s of %s never became %s", field, r.Id, want)
	return now
}

func deliveryStatuses(t *testing.T, app *pbtest.App, n *core.Record) map[string]int {
	t.Helper()
	rows, err := app.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id})
	require.NoError(t, err)
	statuses := map[string]int{}
	for _, row := range rows {
		statuses[row.GetString("status")]++
	}
	return statuses
}

func TestMailServerDownForAWhile(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	app := pbtest.NewApp(t, pbtest.WithConfig(production))
	app.Handler()
	mailProvider(t, app, smtp.Config("hello@example.com"), "")
	for _, name := range []string{"ana", "bo", "cy"} {
		app.User(name + "@example.com")
	}
	require.NoError(t, smtp.Down())
	n := send(t, app, nil)
	require.Eventually(t, func() bool {
		tried, err := app.CountRecords(notifications.CollectionDeliveries, dbx.NewExp("[[attempts]] > 1"))
		require.NoError(t, err)
		return tried > 0
	}, patience, 20*time.Millisecond, "it is tried again and again")
	require.Zero(t, smtp.Total())
	require.NoError(t, smtp.Up())
	until(t, app, n, "status", "sent")
	for _, name := range []string{"ana", "bo", "cy"} {
		require.Len(t, smtp.To(name+"@example.com"), 1)
	}
}

func TestWrongSetupPausesAndRepairSendsOn(t *testing.T) {
	t.Parallel()
	open := providertest.NewSMTP(t, providertest.SMTPOptions{})
	locked := providertest.NewSMTP(t, providertest.SMTPOptions{Username: "shop", Password: "right-password"})
	expired := providertest.NewSMTP(t, providertest.SMTPOptions{TLS: providertest.ImplicitTLS, Cert: providertest.CertExpired})
	with := func(config map[string]any, changes map[string]any) map[string]any {
		for k, v := range changes {
			config[k] = v
		}
		return config
	}
	for name, tc := range map[string]struct {
		config   map[string]any
		secret   string
		sentence string
	}{
		"refused login":       {with(locked.Config("hello@example.com"), map[string]any{"username": "shop"}), "wrong-password", "refused the user name or password"},
		"wrong host":          {with(open.Config("hello@example.com"), map[string]any{"host": "mail.invalid"}), "", "does not exist"},
		"expired certificate": {expired.Config("hello@example.com"), "", "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := pbtest.NewApp(t, pbtest.WithConfig(production))
			app.Handler()
			app.User("ana" + strings.ReplaceAll(name, " ", "") + "@example.com")
			provider := mailProvider(t, app, tc.config, tc.secret)
			n := send(t, app, map[string]any{"channels": []string{"email", "inbox"}})

			provider = until(t, app, provider, "state", "paused")
			require.Contains(t, provider.GetString("stateReason"), tc.sentence)
			require.NotContains(t, provider.GetString("stateReason"), "wrong-password")
			paused := until(t, app, n, "status", "paused")
			require.Equal(t, provider.GetString("stateReason"), paused.GetString("statusReason"))
			require.Equal(t, map[string]int{"pending": 1, "delivered": 1}, deliveryStatuses(t, app, n), "the inbox does not wait for the mail server")

			// Mended in the dashboard.
			root, err := app.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com")
			require.NoError(t, err)
			res := app.Send(http.MethodPatch, "/api/collections/notification_providers/records/"+provider.Id,
				map[string]any{"config": open.Config("hello@example.com")}, app.Token(root))
			require.Equal(t, http.StatusOK, res.Status, string(res.Body))
			require.NotContains(t, string(res.Body), "wrong-password")
			until(t, app, n, "status", "sent")
			require.Len(t, open.To("ana"+strings.ReplaceAll(name, " ", "")+"@example.com"), 1)
		})
	}
}

func TestWhatLeavesInWhichEnvironment(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})

	staging := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) {
		c.Env = hooks.EnvStaging
		c.SendOnlyTo = []string{"Ana@example.com"}
	}))
	staging.Handler()
	mailProvider(t, staging, smtp.Config("hello@example.com"), "")
	staging.User("ana@example.com")
	staging.User("bo@example.com")
	n := until(t, staging, send(t, staging, nil), "status", "sent")
	require.Equal(t, map[string]int{"accepted": 1, "captured": 1}, deliveryStatuses(t, staging, n))
	require.Len(t, smtp.To("ana@example.com"), 1)
	require.Equal(t, 1, smtp.Total())

	bare := pbtest.NewApp(t, pbtest.WithConfig(production))
	bare.Handler()
	bare.User("cy@example.com")
	n = until(t, bare, send(t, bare, nil), "status", "failed")
	rows, err := bare.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id})
	require.NoError(t, err)
	require.Equal(t, "no_provider", rows[0].GetString("reason"))
	require.NotEmpty(t, rows[0].GetString("explanation"))
}

func TestPauseResumeAndCancel(t *testing.T) {
	t.Parallel()
	hold := providertest.Behaviour{All: providertest.Script{DotDelay: time.Hour}}
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{Behaviour: hold})
	app := pbtest.NewApp(t, pbtest.WithConfig(production))
	app.Handler()
	mailProvider(t, app, smtp.Config("hello@example.com"), "")
	for i := range 60 {
		app.User("p" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "@example.com")
	}
	act := func(n *core.Record, action string) {
		n = app.Reload(n)
		n.Set("action", action)
		require.NoError(t, app.Save(n))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	// What is under way at that moment is answered once it has happened.
	during := func(n *core.Record, action string) {
		act(n, action)
		smtp.Set(providertest.Behaviour{})
		require.True(t, waitFor(func() bool { smtp.Release(); return deliveryStatuses(t, app, n)["sending"] == 0 }))
	}

	n := send(t, app, nil)
	require.NoError(t, smtp.Await(ctx, 2))
	during(n, "pause")
	require.Equal(t, "paused", app.Reload(n).GetString("status"))
	require.Equal(t, 60-smtp.Total(), deliveryStatuses(t, app, n)["pending"])
	require.Less(t, smtp.Total(), 60)
	act(n, "resume")
	until(t, app, n, "status", "sent")
	require.Equal(t, 60, smtp.Total(), "everybody once")

	smtp.Set(hold)
	n = send(t, app, nil)
	require.NoError(t, smtp.Await(ctx, 62))
	during(n, "cancel")
	require.True(t, waitFor(func() bool { return deliveryStatuses(t, app, n)["pending"] == 0 }))
	s := deliveryStatuses(t, app, n)
	require.Equal(t, 60, s["accepted"]+s["cancelled"])
	require.Positive(t, s["cancelled"])
	require.Equal(t, s["accepted"], smtp.Total()-60, "what is cancelled never left")
	now := until(t, app, n, "cancelled", strconv.Itoa(s["cancelled"]))
	require.Equal(t, "cancelled", now.GetString("status"))

	act2 := app.Reload(n)
	act2.Set("action", "resume")
	require.Error(t, app.Save(act2), "what is cancelled stays so")
}

func TestBadInputIsRefusedWithTheFieldAndASentence(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	ana := app.User("ana@example.com")
	good := func() map[string]any {
		return map[string]any{"title": "Hi", "body": "x", "channels": []string{"inbox"}, "audience": "users", "users": []string{ana.Id}, "action": "send"}
	}
	for name, tc := range map[string]struct {
		change map[string]any
		field  string
	}{
		"no audience":            {map[string]any{"audience": ""}, "audience"},
		"no person":              {map[string]any{"users": []string{}}, "users"},
		"a stranger":             {map[string]any{"users": []string{"nobody000000000"}}, "users"},
		"no channel":             {map[string]any{"channels": []string{}}, "channels"},
		"nothing to say":         {map[string]any{"title": "", "body": ""}, "title"},
		"filter does not parse":  {map[string]any{"audience": "filter", "filter": "verified = = true"}, "filter"},
		"filter names no field":  {map[string]any{"audience": "filter", "filter": "nosuchfield = 1"}, "filter"},
		"filter reads passwords": {map[string]any{"audience": "filter", "filter": "password != ''"}, "filter"},
		"filter reads a request": {map[string]any{"audience": "filter", "filter": "@request.auth.id != ''"}, "filter"},
		"unknown variable":       {map[string]any{"title": "Hi {{ user.nmae }}"}, "title"},
		"unclosed braces":        {map[string]any{"title": "Hi {{ user.name "}, "title"},
		"unclosed tag":           {map[string]any{"body": "Hi {% if user.name"}, "body"},
		"broken template":        {map[string]any{"body": "{% if %}"}, "body"},
		"past expiry":            {map[string]any{"expiresAt": "2020-01-01 00:00:00.000Z"}, "expiresAt"},
		"expiry before sending":  {map[string]any{"sendAt": "2099-01-02 00:00:00.000Z", "expiresAt": "2099-01-01 00:00:00.000Z"}, "expiresAt"},
		"nonsense date":          {map[string]any{"sendAt": "next Tuesday-ish"}, "sendAt"},
		"a number as date":       {map[string]any{"sendAt": 17}, "sendAt"},
		"unconfirmed":            {map[string]any{"audience": "everyone"}, "confirmRecipients"},
		"wrongly confirmed":      {map[string]any{"audience": "everyone", "confirmRecipients": 7}, "confirmRecipients"},
		"a title of 10 MB":       {map[string]any{"title": strings.Repeat("x", 10<<20)}, "title"},
		"a nul byte":             {map[string]any{"title": "a\x00b"}, "title"},
		"an unknown option":      {map[string]any{"options": map[string]any{"colour": "red"}}, "options"},
		"options of a list":      {map[string]any{"options": []string{"x"}}, "options"},
		"an unknown action":      {map[string]any{"action": "explode"}, "action"},
		"nothing to pause":       {map[string]any{"action": "pause"}, "action"},
	} {
		t.Run(name, func(t *testing.T) {
			body := good()
			for k, v := range tc.change {
				body[k] = v
			}
			res := app.Send(http.MethodPost, "/api/collections/notifications/records", body, root)
			require.Equal(t, http.StatusBadRequest, res.Status, string(res.Body))
			var answer struct {
				Message string
				Data    map[string]struct{ Message string }
			}
			require.NoError(t, json.Unmarshal(res.Body, &answer))
			require.NotEmpty(t, answer.Data[tc.field].Message, string(res.Body))
			require.Contains(t, answer.Message, ": "+answer.Data[tc.field].Message, "it is said where the dashboard shows it for certain")
		})
	}
	n, err := app.CountRecords(notifications.CollectionNotifications)
	require.NoError(t, err)
	require.Zero(t, n, "nothing was stored")

	for name, date := range map[string]any{"with milliseconds": "2099-01-02 00:00:00.000Z", "RFC 3339": "2099-01-02T00:00:00Z", "none": "", "null": nil} {
		body := good()
		delete(body, "action")
		body["sendAt"] = date
		res := app.Send(http.MethodPost, "/api/collections/notifications/records", body, root)
		require.Equal(t, http.StatusOK, res.Status, "%s: %s", name, res.Body)
		var draft struct{ ID string }
		require.NoError(t, json.Unmarshal(res.Body, &draft))
		res = app.Send(http.MethodPatch, "/api/collections/notifications/records/"+draft.ID, map[string]any{"expiresAt": date, "sendAt": ""}, root)
		require.Equal(t, http.StatusOK, res.Status, "%s: %s", name, res.Body)
		res = app.Send(http.MethodPatch, "/api/collections/notifications/records/"+draft.ID, map[string]any{"sendAt": "tomorrow"}, root)
		require.Equal(t, http.StatusBadRequest, res.Status, "%s: %s", name, res.Body)
	}

	// Forged counts are ignored, not refused: the dashboard sends whole records.
	body := good()
	body["sent"], body["status"], body["total"] = 999, "sent", 999
	res := app.Send(http.MethodPost, "/api/collections/notifications/records", body, root)
	require.Equal(t, http.StatusOK, res.Status, string(res.Body))
	require.NotContains(t, string(res.Body), "999")
}

func TestWhatASentNotificationUsesIsKept(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	ana := app.User("ana@example.com")
	create := func(collection string, body map[string]any) string {
		res := app.Send(http.MethodPost, "/api/collections/"+collection+"/records", body, root)
		require.Equal(t, http.StatusOK, res.Status, string(res.Body))
		var made struct{ ID string }
		require.NoError(t, json.Unmarshal(res.Body, &made))
		return made.ID
	}
	news := create("notification_categories", map[string]any{"key": "news", "name": "News", "kind": "promotional"})
	other := create("notification_categories", map[string]any{"key": "other", "name": "Other", "kind": "promotional"})
	template := func(key string) string {
		return create("notification_templates", map[string]any{"key": key, "category": other, "title": "Hello"})
	}
	used, unused := template("used"), template("unused")
	for _, body := range []map[string]any{{"title": "Hello", "category": news}, {"template": used}} {
		body["channels"], body["audience"], body["users"], body["action"] = []string{"inbox"}, "users", []string{ana.Id}, "send"
		create("notifications", body)
	}
	for path, says := range map[string]string{"notification_categories/records/" + news: "use this category", "notification_templates/records/" + used: "use this template"} {
		res := app.Send(http.MethodDelete, "/api/collections/"+path, nil, root)
		require.Equal(t, http.StatusBadRequest, res.Status, string(res.Body))
		require.Contains(t, string(res.Body), "Notifications that were sent "+says)
	}
	require.Equal(t, http.StatusNoContent, app.Send(http.MethodDelete, "/api/collections/notification_templates/records/"+unused, nil, root).Status)
}

// What found a provider wrong is sent once that is put right, and what failed once its
// owner asks for it, however long that takes: the wait is none of the time for which a
// message is tried.
func TestAWaitForSomebodyIsNoneOfTheTimeThatAMessageIsTried(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	app := pbtest.NewApp(t, pbtest.WithConfig(production))
	app.Handler()
	// A check that came later would end the pause below.
	provider := until(t, app, mailProvider(t, app, smtp.Config("hello@example.com"), ""), "state", "ok")
	ana := app.User("ana@example.com")
	root := app.Token(app.Superuser("second-root@example.com"))
	busy := providertest.Script{Rcpt: providertest.Reply{Code: 452, Enhanced: "4.3.2", Text: "Too busy"}}
	// days makes it some days ago that a notification was sent.
	days := func(n *core.Record) {
		_, err := app.NonconcurrentDB().Update("notification_deliveries", dbx.Params{"created": time.Now().Add(-72 * time.Hour).UTC().Format("2006-01-02 15:04:05.000Z")},
			dbx.HashExp{"notification": n.Id}).Execute()
		require.NoError(t, err)
	}

	smtp.Script("ana@example.com", providertest.Script{Rcpt: providertest.Reply{Code: 550, Text: "Relay access denied"}})
	n := until(t, app, send(t, app, nil), "status", "paused")
	require.Equal(t, 1, deliveryOf(t, app, n, ana).GetInt("attempts"), "it was tried")
	days(n)
	smtp.Script("ana@example.com", busy, providertest.Script{})
	res := app.Send(http.MethodPatch, "/api/collections/notification_providers/records/"+provider.Id, map[string]any{"action": "resume"}, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	row := deliveryOf(t, app, n, ana)
	require.True(t, waitFor(func() bool {
		row = app.Reload(row)
		return row.GetString("status") != "pending" && row.GetString("status") != "sending"
	}))
	require.Equal(t, "accepted", row.GetString("status"), row.GetString("explanation"))

	smtp.Script("ana@example.com", providertest.Script{Rcpt: providertest.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such user"}})
	n = until(t, app, send(t, app, nil), "status", "failed")
	days(n)
	smtp.Script("ana@example.com", busy, providertest.Script{})
	res = app.Send(http.MethodPost, "/api/notifications/"+n.Id+"/retry", nil, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	row = deliveryOf(t, app, n, ana)
	require.True(t, waitFor(func() bool {
		row = app.Reload(row)
		return row.GetString("status") != "pending" && row.GetString("status") != "sending"
	}))
	require.Equal(t, "accepted", row.GetString("status"), row.GetString("explanation"))
	require.Len(t, smtp.To("ana@example.com"), 2)
}

// A kill between the end of a cancellation and the recount after it leaves counts that
// nothing else would put right.
func TestCountsThatAKillLeftAreMendedAtTheStart(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	n := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hi"})
	for _, id := range []string{"a", "b", "c"} {
		_, err := app.NonconcurrentDB().Insert("notification_deliveries", dbx.Params{"id": id, "notification": n.Id, "channel": "email", "target": id, "batch": 1, "status": "cancelled"}).Execute()
		require.NoError(t, err)
	}
	_, err := app.NonconcurrentDB().Update("notifications", dbx.Params{"status": "cancelled", "total": 3, "pending": 3}, dbx.HashExp{"id": n.Id}).Execute()
	require.NoError(t, err)
	app.Handler()
	require.Equal(t, 3, until(t, app, n, "pending", "0").GetInt("cancelled"))
}

// A batch has more deliveries than one look finds when its people have several devices.
func TestAllOfALargeBatchExpires(t *testing.T) {
	t.Parallel()
	const devices = 4100
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	n := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hi", "channels": []string{"push"}, "audience": "users", "users": []string{ana.Id}})
	_, err := app.NonconcurrentDB().Update("notifications", dbx.Params{"status": "sending", "expiresAt": "2026-01-01 00:00:00.000Z", "content": `{"kind": "transactional"}`,
		"plan": `{"now": "2025-12-31T00:00:00Z", "batch": 1, "queue": "default", "done": true}`}, dbx.HashExp{"id": n.Id}).Execute()
	require.NoError(t, err)
	for _, insert := range []string{
		"INSERT INTO devices (id, user, platform, pushService, token, status) SELECT 'd' || i, {:user}, 'ios', 'apns', 'd' || i, 'active' FROM c",
		"INSERT INTO notification_deliveries (id, notification, user, device, target, channel, kind, batch, status, created)" +
			" SELECT 'd' || i, {:n}, {:user}, 'd' || i, 'd' || i, 'push', 'transactional', 1, 'pending', '2025-12-31 00:00:00.000Z' FROM c",
	} {
		params := dbx.Params{"user": ana.Id, "devices": devices}
		if strings.Contains(insert, "{:n}") {
			params["n"] = n.Id
		}
		_, err := app.NonconcurrentDB().NewQuery("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {:devices}) " + insert).Bind(params).Execute()
		require.NoError(t, err)
	}
	app.Handler()
	_, err = jobs.Enqueue(app.TestApp, notifications.BatchArgs{Notification: n.Id, Batch: 1, Channel: notifications.ChannelPush}, jobs.Options{})
	require.NoError(t, err)
	require.Equal(t, devices, until(t, app, n, "status", "expired").GetInt("skipped"))
}
