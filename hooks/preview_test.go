package hooks_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func TestWhoMayPreviewAndTest(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana, bo, root := app.User("ana@example.com"), app.User("bo@example.com"), app.Superuser("root@example.com")
	draft := app.Record(notifications.CollectionNotifications, map[string]any{"title": "x", "channels": []string{"inbox"}, "audience": "users", "users": []string{ana.Id}})
	for name, who := range map[string]struct {
		token  string
		status int
	}{
		"guest": {"", http.StatusUnauthorized}, "other": {app.Token(bo), http.StatusForbidden}, "owner": {app.Token(ana), http.StatusForbidden},
		"superuser": {app.Token(root), http.StatusOK},
	} {
		require.Equal(t, who.status, app.Send(http.MethodPost, "/api/notifications/preview", map[string]any{"id": draft.Id}, who.token).Status, name)
		require.Equal(t, who.status, app.Send(http.MethodPost, "/api/notifications/"+draft.Id+"/test", map[string]any{"user": ana.Id}, who.token).Status, name)
	}
}

func TestPreviewCountsAndRenders(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	people := map[string]*core.Record{}
	for name, fields := range map[string]map[string]any{
		"Ana": {"phone": "+15555550101", "locale": "fr-CA"}, "Bo": {"phone": "+15555550102"}, "Cy": {}, "Di": {},
	} {
		fields["name"] = name
		people[name] = app.User(name+"@example.com", fields)
	}
	for i, d := range []map[string]any{{"user": people["Ana"].Id, "platform": "android"}, {"user": people["Ana"].Id, "platform": "ios"}, {"user": people["Cy"].Id, "platform": "android"}} {
		d["token"] = strings.Repeat("0a1"+string(rune('a'+i)), 16)
		app.Record(notifications.CollectionDevices, d)
	}
	app.Record(notifications.CollectionProviders, map[string]any{"name": "Texts", "channel": "sms_transactional", "senderId": "+15555550199", "enabled": true, "ratePerSecond": 0.5,
		"config": map[string]any{"accountSid": "AC" + strings.Repeat("0", 32), "endpoint": "http://127.0.0.1:1", "pricePerSegment": 0.0075, "currency": "EUR"}})
	app.Record(notifications.CollectionProviders, map[string]any{"name": "Mail", "channel": "email_transactional", "enabled": true, "ratePerSecond": 2,
		"config": map[string]any{"host": "127.0.0.1", "port": 1, "tls": "none", "from": "a@example.com"}})
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "t", "title": "Hi {{ user.name }}", "body": "Body", "smsBody": strings.Repeat("x", 150) + "{{ user.name }}",
		"translations": map[string]any{"fr": map[string]any{"title": "Allô {{ user.name }}", "smsBody": strings.Repeat("ê", 71)}}})
	fields := map[string]any{"template": template.Id, "channels": []string{"email", "sms", "push", "inbox"}, "audience": "everyone", "sample": people["Ana"].Id}
	before := everything(t, app)

	res := app.Send(http.MethodPost, "/api/notifications/preview", fields, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	var p notifications.Preview
	decode(t, res, &p)
	require.EqualValues(t, 4, p.People)
	require.True(t, p.Captured)
	require.InDelta(t, 4, *p.Seconds, 0.01, "the slowest channel")
	got := map[notifications.Channel]notifications.ChannelPreview{}
	for _, c := range p.Channels {
		got[c.Channel] = c
	}
	for channel, want := range map[notifications.Channel][3]int64{"email": {4, 4, 0}, "sms": {2, 2, 2}, "push": {3, 2, 2}, "inbox": {4, 4, 0}} {
		require.Equal(t, want, [3]int64{got[channel].Targets, got[channel].People, got[channel].WithoutAddress}, channel)
	}
	require.InDelta(t, 2, *got["email"].Seconds, 0.01)
	require.Nil(t, got["push"].Seconds)
	require.Equal(t, "Mail", got["email"].Senders[0].Name)
	require.Len(t, got["push"].Senders, 2)
	require.Contains(t, got["push"].Senders[0].Problem, "Nothing is set up to push")
	sms := got["sms"].SMS
	require.EqualValues(t, 2+1, sms.Segments, "Ana's 71 characters that need UCS-2 are two, Bo's 152 of the telephone alphabet one")
	require.False(t, sms.Estimated)
	require.Equal(t, "EUR", sms.Currency)
	require.InDelta(t, 0.0225, *sms.Cost, 1e-9)
	require.Equal(t, people["Ana"].Id, p.Sample.User)
	require.Equal(t, "Allô Ana", p.Sample.Messages["email"]["subject"])
	require.Equal(t, "Allô Ana", p.Sample.Messages["push"]["title"])
	require.Equal(t, "Body", p.Sample.Messages["inbox"]["body"])
	require.EqualValues(t, 2, p.Sample.Messages["sms"]["segments"])
	require.Equal(t, "UCS-2", p.Sample.Messages["sms"]["encoding"])

	// A stored draft, with a field put over it, for a smaller audience.
	draft := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Old {{ user.name }}", "channels": []string{"sms"}, "audience": "filter", "filter": "name = 'Bo'"})
	res = app.Send(http.MethodPost, "/api/notifications/preview", map[string]any{"id": draft.Id, "title": "New {{ user.name }}", "pricePerSegment": 2, "currency": "USD", "status": "sent"}, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	decode(t, res, &p)
	require.EqualValues(t, 1, p.People)
	require.Equal(t, "New Bo", p.Sample.Messages["sms"]["body"])
	require.InDelta(t, 2, *p.Channels[0].SMS.Cost, 1e-9)
	require.Equal(t, "Old {{ user.name }}", app.Reload(draft).GetString("title"))

	require.NoError(t, app.Delete(draft))
	require.Equal(t, before, everything(t, app), "nothing is sent and nothing stored")
}

// everything counts the rows that a send would make.
func everything(t *testing.T, app *pbtest.App) [4]int64 {
	t.Helper()
	var counts [4]int64
	for i, table := range []string{"notifications", "notification_deliveries", "notification_inbox", "groundwork_outbox"} {
		require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM {{"+table+"}} WHERE TRUE"+map[bool]string{true: " AND kind LIKE 'notification%'"}[table == "groundwork_outbox"]).Row(&counts[i]))
	}
	return counts
}

func TestAPreviewRefusesWhatSavingRefuses(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	ana := app.User("ana@example.com", map[string]any{"name": "Ana"})
	good := func() map[string]any {
		return map[string]any{"title": "Hi", "channels": []string{"inbox"}, "audience": "users", "users": []string{ana.Id}}
	}
	for name, change := range map[string]map[string]any{
		"an unknown channel": {"channels": []string{"pigeon"}}, "a broken text": {"title": "{{ user.name"}, "an unknown field": {"body": "{{ user.nothing }}"},
		"a broken filter": {"audience": "filter", "filter": "name = = 1"}, "nobody": {"users": []string{}}, "a stranger": {"users": []string{"missing00000000"}},
		"no date": {"sendAt": "tomorrow"}, "over": {"expiresAt": "2020-01-01 00:00:00Z"}, "options": {"options": map[string]any{"colour": "red"}},
		"no template": {"template": "missing00000000"}, "data": {"data": "x"}, "nothing said": {"title": ""}, "no channel": {"channels": []string{}},
		"a script": {"link": "javascript:alert(1)"}, "a long title": {"title": strings.Repeat("x", 501)}, "a nul": {"title": "a\x00b"},
	} {
		body := good()
		for k, v := range change {
			body[k] = v
		}
		preview := app.Send(http.MethodPost, "/api/notifications/preview", body, root)
		body["action"] = "send"
		saved := app.Send(http.MethodPost, "/api/collections/notifications/records", body, root)
		require.Equal(t, http.StatusBadRequest, saved.Status, "%s: %s", name, saved)
		require.Equal(t, http.StatusBadRequest, preview.Status, "%s: %s", name, preview)
		require.Equal(t, saved.JSON(t)["data"], preview.JSON(t)["data"], name)
	}
	for name, change := range map[string]map[string]any{
		"sample": {"sample": "missing00000000"}, "pricePerSegment": {"pricePerSegment": -1, "currency": "EUR"},
	} {
		body := good()
		for k, v := range change {
			body[k] = v
		}
		res := app.Send(http.MethodPost, "/api/notifications/preview", body, root)
		require.Equal(t, http.StatusBadRequest, res.Status, res.String())
		require.Contains(t, res.JSON(t)["data"], name)
	}
	require.Equal(t, http.StatusNotFound, app.Send(http.MethodPost, "/api/notifications/preview", map[string]any{"id": "missing00000000"}, root).Status)
	require.Equal(t, http.StatusOK, app.Send(http.MethodPost, "/api/notifications/preview", good(), root).Status)

	// Prices are checked where they are entered.
	for config, ok := range map[string]bool{`"pricePerSegment": 0.01, "currency": "EUR"`: true, `"pricePerSegment": "1", "currency": "EUR"`: false,
		`"pricePerSegment": 1`: false, `"currency": "EUR"`: false, `"pricePerSegment": 1, "currency": "euro"`: false, `"pricePerSegment": -1, "currency": "EUR"`: false} {
		res := app.Send(http.MethodPost, "/api/collections/notification_providers/records", `{"name": "T", "channel": "sms_transactional", "senderId": "+15555550199", "config": {"accountSid": "AC`+
			strings.Repeat("0", 32)+`", `+config+`}}`, root)
		require.Equal(t, ok, res.Status == http.StatusOK, "%s: %s", config, res)
	}
}

func TestATestGoesToOnePersonAndCountsNowhere(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	root := app.Token(app.Superuser("root@example.com"))
	ana, bo := app.User("ana@example.com", map[string]any{"name": "Ana"}), app.User("bo@example.com", map[string]any{"name": "Bo"})
	app.Record(notifications.CollectionDevices, map[string]any{"user": ana.Id, "platform": "android", "token": "ana-token"})
	draft := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hi {{ user.name }}", "channels": []string{"email", "sms", "push", "inbox"}, "audience": "everyone"})
	test := func(n *core.Record, body map[string]any) []*core.Record {
		t.Helper()
		res := app.Send(http.MethodPost, "/api/notifications/"+n.Id+"/test", body, root)
		require.Equal(t, http.StatusOK, res.Status, res.String())
		var rows []*core.Record
		for _, d := range res.JSON(t)["deliveries"].([]any) {
			var row *core.Record
			require.Eventually(t, func() bool {
				var err error
				row, err = app.FindRecordById(notifications.CollectionDeliveries, d.(map[string]any)["id"].(string))
				require.NoError(t, err)
				return row.GetString("status") != "pending" && row.GetString("status") != "sending"
			}, patience, 20*time.Millisecond)
			require.True(t, row.GetBool("test"))
			require.Equal(t, n.Id, row.GetString("notification"))
			rows = append(rows, row)
		}
		return rows
	}
	statuses := map[string]string{}
	for _, row := range test(draft, map[string]any{"user": ana.Id}) {
		require.Equal(t, ana.Id, row.GetString("user"))
		statuses[row.GetString("channel")] = row.GetString("status") + row.GetString("reason")
	}
	require.Equal(t, map[string]string{"email": "capturedcaptured", "push": "capturedcaptured", "sms": "skippedno_address", "inbox": "delivered"}, statuses)
	require.Equal(t, "Hi Ana", renderedOf(t, app, draft, ana, "email")[0]["subject"])
	inbox, err := app.CountRecords(notifications.CollectionInbox)
	require.NoError(t, err)
	require.EqualValues(t, 1, inbox)

	// An address of nobody, with nobody's values and with somebody's.
	row := test(draft, map[string]any{"address": "Press@example.com"})
	require.Len(t, row, 1)
	require.Equal(t, "", row[0].GetString("user"))
	require.Equal(t, "pr…@example.com", row[0].GetString("address"))
	require.Contains(t, row[0].GetString("rendered"), `"Hi "`)
	row = test(draft, map[string]any{"address": "press@example.com", "sample": bo.Id})
	require.Contains(t, row[0].GetString("rendered"), `"Hi Bo"`)
	require.Equal(t, bo.Id, row[0].GetString("user"))

	// The draft is as it was: it can be edited, sent and counted.
	draft = app.Reload(draft)
	require.Equal(t, "draft", draft.GetString("status"))
	require.Zero(t, draft.GetInt("total"))
	draft.Set("channels", []string{"inbox"})
	draft.Set("confirmRecipients", 2)
	draft.Set("action", "send")
	require.NoError(t, app.Save(draft))
	sent := until(t, app, draft, "status", "sent")
	require.Equal(t, 2, sent.GetInt("total"))
	row = test(sent, map[string]any{"user": bo.Id, "channels": []string{"inbox"}})
	require.Len(t, row, 1)
	res := app.Send(http.MethodPost, "/api/notifications/deliveries/"+row[0].Id+"/resend", nil, root)
	require.Equal(t, http.StatusBadRequest, res.Status)
	require.Contains(t, res.String(), "This was a test")
	require.Equal(t, 2, app.Reload(sent).GetInt("total"))

	for says, body := range map[string]map[string]any{
		"Say who gets the test": {}, "either a user": {"user": ana.Id, "address": "x@example.com"}, "There is no person": {"user": "missing00000000"},
		"neither an e-mail address nor": {"address": "nonsense"}, "does not go out by email": {"address": "x@example.com"}, `by \"push\"`: {"user": ana.Id, "channels": []string{"push"}},
	} {
		res := app.Send(http.MethodPost, "/api/notifications/"+sent.Id+"/test", body, root)
		require.Equal(t, http.StatusBadRequest, res.Status, res.String())
		require.Contains(t, res.String(), says)
	}
	require.Equal(t, http.StatusNotFound, app.Send(http.MethodPost, "/api/notifications/nosuch/test", map[string]any{"user": ana.Id}, root).Status)
	broken := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hi {{ town }}", "channels": []string{"inbox"}})
	res = app.Send(http.MethodPost, "/api/notifications/"+broken.Id+"/test", map[string]any{"user": ana.Id}, root)
	require.Equal(t, http.StatusBadRequest, res.Status, res.String())
	require.Contains(t, res.String(), `There is no \"town\"`)
}

// In production a test leaves, whatever becomes of the notification, and a provider
// that is paused is told at once.
func TestATestIsARealMessage(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	app := pbtest.NewApp(t, pbtest.WithConfig(production))
	app.Handler()
	// A check that came later would end the pause below.
	provider := until(t, app, mailProvider(t, app, smtp.Config("hello@example.com"), ""), "state", "ok")
	ana := app.User("ana@example.com")
	root := app.Token(app.Superuser("second-root@example.com"))
	n := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hi", "channels": []string{"email"}, "audience": "users", "users": []string{ana.Id}})
	status := func(body map[string]any, want string) *core.Record {
		t.Helper()
		res := app.Send(http.MethodPost, "/api/notifications/"+n.Id+"/test", body, root)
		require.Equal(t, http.StatusOK, res.Status, res.String())
		row, err := app.FindRecordById(notifications.CollectionDeliveries, res.JSON(t)["deliveries"].([]any)[0].(map[string]any)["id"].(string))
		require.NoError(t, err)
		return until(t, app, row, "status", want)
	}
	status(map[string]any{"user": ana.Id}, "accepted")
	status(map[string]any{"address": "press@example.com"}, "accepted")
	require.Len(t, smtp.To("ana@example.com"), 1)
	require.Len(t, smtp.To("press@example.com"), 1)

	bo := app.User("bo@example.com")
	smtp.Script("bo@example.com", providertest.Script{Rcpt: providertest.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such user"}})
	status(map[string]any{"user": bo.Id}, "failed")
	n.Set("action", "send")
	require.NoError(t, app.Save(n))
	until(t, app, n, "status", "sent")
	require.Contains(t, app.Send(http.MethodPost, "/api/notifications/"+n.Id+"/retry", nil, root).String(), "No delivery of this notification has failed", "a failed test is none of it")

	_, err := app.NonconcurrentDB().Update("notification_providers", dbx.Params{"state": "paused", "stateReason": "The password is wrong."}, dbx.HashExp{"id": provider.Id}).Execute()
	require.NoError(t, err)
	row := status(map[string]any{"user": ana.Id}, "failed")
	require.Equal(t, "provider_paused", row.GetString("reason"))
	require.Equal(t, "The password is wrong.", row.GetString("explanation"))
}

func decode(t *testing.T, res pbtest.Response, into any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(res.Body, into))
}

// An offer leaves with words at its end by which it is stopped, and they cost too.
func TestAPreviewCountsTheWordsThatAnOfferEndsWith(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	app.User("ana@example.com", map[string]any{"phone": "+15555550101"})
	for category, want := range map[string]struct {
		ending   string
		segments int
	}{"gwtransactional": {"", 1}, promotional: {"\n" + notifications.DefaultSMSOptOut, 2}} {
		text := strings.Repeat("x", 150)
		res := app.Send(http.MethodPost, "/api/notifications/preview",
			map[string]any{"body": text, "category": category, "channels": []string{"sms"}, "audience": "everyone", "pricePerSegment": 2, "currency": "EUR"}, root)
		require.Equal(t, http.StatusOK, res.Status, res.String())
		var p notifications.Preview
		decode(t, res, &p)
		require.EqualValues(t, want.segments, p.Channels[0].SMS.Segments, category)
		require.InDelta(t, 2*want.segments, *p.Channels[0].SMS.Cost, 1e-9, category)
		require.Equal(t, text+want.ending, p.Sample.Messages["sms"]["body"])
		require.EqualValues(t, want.segments, p.Sample.Messages["sms"]["segments"], category)
	}
}
