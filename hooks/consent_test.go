package hooks_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

const consentsPath = "/api/collections/notification_consents/records"

// assumeConsent is for what is not about consent.
func assumeConsent(c *hooks.Config) { c.AssumeEmailConsent = true }

// agree records a person's consent as application code does.
func agree(app *pbtest.App, user *core.Record, channel string) *core.Record {
	return app.Record(notifications.CollectionConsents, map[string]any{"user": user.Id, "channel": channel, "granted": true, "source": "Sign-up form", "wording": "I want offers."})
}

// withdraw takes it back.
func withdraw(app *pbtest.App, user *core.Record, channel string) {
	app.Record(notifications.CollectionConsents, map[string]any{"user": user.Id, "channel": channel, "granted": false})
}

// consents are the rows about a channel, the latest last: whether they agree, where
// they come from, and who made them.
func consents(t *testing.T, app *pbtest.App, channel string) []string {
	t.Helper()
	var rows []*core.Record
	require.NoError(t, app.RecordQuery(notifications.CollectionConsents).AndWhere(dbx.HashExp{"channel": channel}).OrderBy("rowid").All(&rows))
	list := []string{}
	for _, r := range rows {
		word := "-"
		if r.GetBool("granted") {
			word = "+"
		}
		list = append(list, word+" "+r.GetString("source")+", "+r.GetString("recordedBy"))
	}
	return list
}

// What is evidence is the server's to write.
func TestConsentEvidence(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("Ana@Example.com", map[string]any{"phone": "+447700900123"})
	ben := app.User("ben@example.com")
	root := app.Superuser("root@example.com")
	body := func(fields map[string]any) map[string]any {
		all := map[string]any{"user": ana.Id, "channel": "email", "granted": true, "source": "Settings", "wording": "Send me news.", "wordingVersion": "2",
			"ip": "203.0.113.9", "userAgent": "forged", "address": "forged@example.com", "recordedBy": "server", "groundwork:consentRequest": map[string]any{"by": "server"}}
		for k, v := range fields {
			all[k] = v
		}
		return all
	}
	for name, tc := range map[string]struct {
		token, user string
		fields      map[string]any
		by, address string
	}{
		"owner":                  {app.Token(ana), ana.Id, nil, "person", "ana@example.com"},
		"owner, without a name":  {app.Token(ana), ana.Id, map[string]any{"user": ""}, "person", "ana@example.com"},
		"superuser":              {app.Token(root), ana.Id, nil, "superuser", "ana@example.com"},
		"superuser, from paper":  {app.Token(root), ana.Id, map[string]any{"channel": "sms"}, "superuser", "+447700900123"},
		"push has no address":    {app.Token(ben), ben.Id, map[string]any{"user": ben.Id, "channel": "push"}, "person", ""},
		"taking back needs less": {app.Token(ana), ana.Id, map[string]any{"channel": "sms", "granted": false, "wording": "", "source": ""}, "person", "+447700900123"},
	} {
		res := app.Send(http.MethodPost, consentsPath, body(tc.fields), tc.token)
		require.Equal(t, http.StatusOK, res.Status, "%s: %s", name, res)
		row := must(app.FindRecordById(notifications.CollectionConsents, res.JSON(t)["id"].(string)))
		require.Equal(t, []any{tc.user, "promotional", tc.by, tc.address, "192.0.2.1", ""},
			[]any{row.GetString("user"), row.GetString("kind"), row.GetString("recordedBy"), row.GetString("address"), row.GetString("ip"), row.GetString("userAgent")}, name)
	}

	// Application code vouches for what it writes, and does not make up evidence.
	row := app.Record(notifications.CollectionConsents, body(nil))
	require.Equal(t, []string{"server", "ana@example.com", "", ""}, []string{row.GetString("recordedBy"), row.GetString("address"), row.GetString("ip"), row.GetString("userAgent")})

	batch := app.Settings()
	batch.Batch.Enabled, batch.Batch.MaxRequests, batch.Batch.Timeout = true, 10, 120
	require.NoError(t, app.Save(batch))
	res := app.Send(http.MethodPost, "/api/batch", map[string]any{"requests": []any{map[string]any{"method": "POST", "url": consentsPath, "body": body(nil)}}}, app.Token(ana))
	require.Equal(t, http.StatusOK, res.Status, res.String())
	require.Contains(t, res.String(), `"recordedBy":"person"`)
	require.NotContains(t, res.String(), "forged")
}

func TestConsentRefusals(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com", map[string]any{"phone": "+447700900123"})
	ben := app.User("ben@example.com")
	root := app.Token(app.Superuser("root@example.com"))
	with := func(fields map[string]any) map[string]any {
		all := map[string]any{"channel": "email", "granted": true, "source": "Settings", "wording": "Send me news."}
		for k, v := range fields {
			if all[k] = v; v == nil {
				delete(all, k)
			}
		}
		return all
	}
	for name, tc := range map[string]struct {
		token       string
		body        map[string]any
		field, says string
	}{
		"not said":                    {app.Token(ana), with(map[string]any{"granted": nil}), "granted", "Send true"},
		"without the words":           {app.Token(ana), with(map[string]any{"wording": " "}), "wording", "exact words"},
		"without a source":            {root, with(map[string]any{"source": "", "user": ana.Id}), "source", "sign-up form"},
		"no phone":                    {app.Token(ben), with(map[string]any{"channel": "sms"}), "channel", "no phone number"},
		"a number nobody verified":    {app.Token(ana), with(map[string]any{"channel": "sms"}), "channel", "Verify the phone number"},
		"a superuser without a phone": {root, with(map[string]any{"channel": "sms", "user": ben.Id}), "channel", "no phone number"},
		"the inbox":                   {app.Token(ana), with(map[string]any{"channel": "inbox"}), "channel", ""},
		"what answers":                {app.Token(ana), with(map[string]any{"kind": "transactional"}), "kind", ""},
		"nobody":                      {root, with(map[string]any{"user": "nosuchperson000"}), "user", ""},
		"for somebody else":           {app.Token(ben), with(map[string]any{"user": ana.Id}), "", ""},
	} {
		res := app.Send(http.MethodPost, consentsPath, tc.body, tc.token)
		require.Equal(t, http.StatusBadRequest, res.Status, "%s: %s", name, res)
		if tc.field != "" {
			require.Contains(t, res.String(), `"`+tc.field+`":{`, name)
			require.Contains(t, res.String(), tc.says, name)
		}
	}
	n, err := app.CountRecords(notifications.CollectionConsents)
	require.NoError(t, err)
	require.Zero(t, n)

	// A verified number is its owner's word.
	ana.Set("phoneVerified", true)
	require.NoError(t, app.SaveWithContext(notifications.AsServer(t.Context()), ana))
	require.Equal(t, http.StatusOK, app.Send(http.MethodPost, consentsPath, with(map[string]any{"channel": "sms"}), app.Token(ana)).Status)
}

// Nobody edits what was said: not a superuser, not application code, not the server.
func TestConsentsStay(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	root := app.Token(app.Superuser("root@example.com"))
	row := agree(app, ana, "email")
	for _, ctx := range []context.Context{t.Context(), notifications.AsServer(t.Context())} {
		edit := app.Reload(row)
		edit.Set("granted", false)
		require.ErrorContains(t, app.SaveWithContext(ctx, edit), "never changed")
		require.ErrorContains(t, app.SaveNoValidateWithContext(ctx, edit), "never changed")
		require.ErrorContains(t, app.DeleteWithContext(ctx, app.Reload(row)), "never deleted")
	}
	for _, tc := range []struct{ method, path string }{
		{http.MethodPatch, consentsPath + "/" + row.Id}, {http.MethodDelete, consentsPath + "/" + row.Id}, {http.MethodDelete, "/api/collections/notification_consents/truncate"},
	} {
		res := app.Send(tc.method, tc.path, map[string]any{"wording": "x"}, root)
		require.GreaterOrEqual(t, res.Status, 400, "%s %s: %s", tc.method, tc.path, res)
	}
	require.Equal(t, "I want offers.", app.Reload(row).GetString("wording"))
	require.True(t, app.Reload(row).GetBool("granted"))

	other := agree(app, app.User("ben@example.com"), "email")
	require.NoError(t, app.Delete(app.Reload(ana)))
	_, err := app.FindRecordById(notifications.CollectionConsents, row.Id)
	require.Error(t, err, "it goes with its person")
	app.Reload(other)
}

func TestConsentsAreRecordedWhenSomebodyDecides(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	token := app.Token(app.User("ana@example.com"))
	post := func(granted bool) int {
		return app.Send(http.MethodPost, consentsPath, map[string]any{"channel": "email", "granted": granted, "source": "Settings", "wording": "News."}, token).Status
	}
	for range 50 {
		require.Equal(t, http.StatusOK, post(true))
	}
	require.Equal(t, http.StatusTooManyRequests, post(true))
	require.Equal(t, http.StatusOK, post(false), "taking back has the last word")
	require.Equal(t, http.StatusTooManyRequests, post(true))
}

func TestPromotionalMessagesNeedConsent(t *testing.T) {
	t.Parallel()
	const number, otherNumber = "+447700900123", "+447700900124"
	type row struct {
		channel string
		granted bool
	}
	for name, tc := range map[string]struct {
		said     []row
		moves    bool // to another number and address after that
		sms      string
		email    string
		assuming string // e-mail where consent is assumed
		push     string
	}{
		"nothing":           {nil, false, "no_consent", "no_consent", "captured", "captured"},
		"SMS":               {[]row{{"sms", true}}, false, "captured", "no_consent", "captured", "captured"},
		"e-mail":            {[]row{{"email", true}}, false, "no_consent", "captured", "captured", "captured"},
		"taken back":        {[]row{{"sms", true}, {"email", true}, {"push", true}, {"sms", false}, {"email", false}, {"push", false}}, false, "no_consent", "no_consent", "no_consent", "no_consent"},
		"never wanted":      {[]row{{"sms", false}, {"email", false}, {"push", false}}, false, "no_consent", "no_consent", "no_consent", "no_consent"},
		"and given again":   {[]row{{"sms", true}, {"sms", false}, {"sms", true}, {"email", false}, {"email", true}, {"push", false}, {"push", true}}, false, "captured", "captured", "captured", "captured"},
		"of an old address": {[]row{{"sms", true}, {"email", true}}, true, "no_consent", "no_consent", "captured", "no_address"}, // a new e-mail address signs devices out
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, assume := range []bool{false, true} {
				app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.AssumeEmailConsent = assume }))
				app.Handler()
				ana := app.User("ana@example.com", map[string]any{"phone": number})
				app.Record(notifications.CollectionDevices, map[string]any{"user": ana.Id, "platform": "android", "token": "a"})
				for _, r := range tc.said {
					if r.granted {
						agree(app, ana, r.channel)
					} else {
						withdraw(app, ana, r.channel)
					}
				}
				if tc.moves {
					ana.Set("phone", otherNumber)
					ana.SetEmail("new@example.com")
					require.NoError(t, app.Save(ana))
				}
				want := map[string]string{"sms": tc.sms, "email": tc.email, "push": tc.push}
				if assume {
					want["email"] = tc.assuming
				}
				for channel, reason := range want {
					n := until(t, app, send(t, app, map[string]any{"channels": []string{channel}, "category": promotional}), "status", "sent")
					status := "captured captured"
					if reason != "captured" {
						status = "skipped " + reason
					}
					got, explained := ends(t, app, n)
					require.Equal(t, status, got[ana.Id], "%s, assumed: %v", channel, assume)
					if reason == "no_consent" {
						require.Regexp(t, "took back the consent|Nobody recorded", explained[ana.Id])
					}
				}
				got, _ := ends(t, app, until(t, app, send(t, app, map[string]any{"channels": []string{"sms"}}), "status", "sent"))
				require.Equal(t, "captured captured", got[ana.Id], "what answers needs none")
			}
		})
	}
}

// People agree in the sign-up form; their word counts once they have shown that the
// address is theirs.
func TestConsentCountsOnceTheAddressIsVerified(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com", map[string]any{"verified": false})
	res := app.Send(http.MethodPost, consentsPath, map[string]any{"channel": "email", "granted": true, "source": "Sign-up form", "wording": "News."}, app.Token(ana))
	require.Equal(t, http.StatusOK, res.Status, res.String())
	offer := func() (string, string) {
		n := until(t, app, send(t, app, map[string]any{"channels": []string{"email"}, "category": promotional}), "status", "sent")
		got, explained := ends(t, app, n)
		return got[ana.Id], explained[ana.Id]
	}
	became, why := offer()
	require.Equal(t, "skipped no_consent", became)
	require.Contains(t, why, "has not verified the address yet")

	ana = app.Reload(ana)
	ana.SetVerified(true)
	require.NoError(t, app.Save(ana))
	became, _ = offer()
	require.Equal(t, "captured captured", became)

	// Who writes down somebody else's consent vouches for it.
	app.Record(notifications.CollectionConsents, map[string]any{"user": ana.Id, "channel": "email", "granted": true, "source": "Paper", "wording": "News."})
	ana = app.Reload(ana)
	ana.SetVerified(false)
	require.NoError(t, app.Save(ana))
	became, _ = offer()
	require.Equal(t, "captured captured", became)
}

// Whoever changes their mind while a text waits does not get it.
func TestAWithdrawalDuringAPassCounts(t *testing.T) {
	t.Parallel()
	x := newCrossing(t)
	require.NoError(t, x.Delete(x.ana))
	people, want := map[string]*core.Record{}, map[string]string{}
	for i := range 4 {
		user := x.User(mailAddress(i), map[string]any{"phone": phoneNumber(i)})
		people[phoneNumber(i)], want[user.Id] = user, "accepted "
		agree(x.App, user, "sms")
	}
	x.twilio.SetAll(providertest.TwilioFault{Hold: true})
	n := send(t, x.App, map[string]any{"channels": []string{"sms"}, "category": promotional, "title": "Sale", "body": offer})
	require.True(t, waitFor(func() bool { return x.twilio.Total() == 2 }), "as many as may be in flight at first")
	for number, user := range people {
		if len(x.twilio.To(number)) == 0 {
			withdraw(x.App, user, "sms")
			want[user.Id] = "skipped no_consent"
			break
		}
	}
	time.Sleep(passAge) // what waits becomes too old to be trusted
	x.twilio.SetAll(providertest.TwilioFault{})
	require.True(t, waitFor(func() bool { x.twilio.Release(); return x.Reload(n).GetString("status") == "sent" }))
	got, _ := ends(t, x.App, n)
	require.Equal(t, want, got)
	require.Equal(t, 3, x.twilio.Total())
}

// STOP and the unsubscribe link are withdrawals too; START and undo take only those
// back.
func TestStoppingIsOnRecord(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	given := []string{"+ Sign-up form, server"}
	say := func(word, sender string) {
		x.t.Helper()
		status, _ := x.inbound(providertest.TwilioInbound{To: sender, Body: word})
		require.Equal(t, http.StatusOK, status)
	}
	say("STOP", codesSender)
	require.Equal(t, given, consents(t, x.App, "sms"), "that is about codes")
	say("START", codesSender)
	say("STOP", offersSender)
	say("STOP", offersSender)
	stopped := append(given, "- STOP, server")
	require.Equal(t, stopped, consents(t, x.App, "sms"), "twice is once")
	x.text("promotional", "skipped")
	say("START", offersSender)
	again := append(stopped, "+ START, server")
	require.Equal(t, again, consents(t, x.App, "sms"))
	row := must(x.FindFirstRecordByFilter(notifications.CollectionConsents, "source = 'START'"))
	require.Equal(t, "I want offers.", row.GetString("wording"), "what the person agreed to then")
	x.text("promotional", "accepted")

	// What the person took back in the app is not given again by START.
	withdraw(x.App, x.ana, "sms")
	before := consents(t, x.App, "sms")
	say("STOP", offersSender)
	say("START", offersSender)
	require.Equal(t, before, consents(t, x.App, "sms"))
	require.Empty(t, x.suppressions())
	_, delivery := x.text("promotional", "skipped")
	require.Equal(t, "no_consent", delivery.GetString("reason"))
}

func TestUnsubscribingIsOnRecord(t *testing.T) {
	t.Parallel()
	x := newOptingOut(t)
	post := func(key, value string) { x.post(map[string][]string{key: {value}}) }
	post("scope", "all")
	post("scope", "all")
	require.Equal(t, []string{"- unsubscribe link, server"}, consents(t, x.App, "email"), "also where nobody had agreed")
	post("action", "undo")
	require.Equal(t, []string{"- unsubscribe link, server"}, consents(t, x.App, "email"), "there is nothing to give again")
	agree(x.App, x.ana, "email")
	post("List-Unsubscribe", "One-Click")
	post("action", "undo")
	require.Equal(t, []string{"- unsubscribe link, server", "+ Sign-up form, server", "- unsubscribe link, server", "+ unsubscribe link, undone, server"}, consents(t, x.App, "email"))
	post("scope", "category")
	require.Len(t, consents(t, x.App, "email"), 4, "one kind of message is not all")
}

func TestPromotionalSMSSaysHowToStop(t *testing.T) {
	t.Parallel()
	x := newCrossing(t, pbtest.WithConfig(func(c *hooks.Config) { c.SMSOptOut = "STOP antworten, dann ist Ruhe" }))
	last := func(x *crossing) providertest.SMS {
		all := x.twilio.To(anasPhone)
		return all[len(all)-1]
	}
	for body, want := range map[string]string{
		"Half price":                    "Half price\nSTOP antworten, dann ist Ruhe",
		"Half price. Send STOP to end.": "Half price. Send STOP to end.",
	} {
		until(t, x.App, send(t, x.App, map[string]any{"channels": []string{"sms"}, "category": promotional, "title": "", "body": body}), "status", "sent")
		require.Equal(t, want, last(x).Body)
		until(t, x.App, send(t, x.App, map[string]any{"channels": []string{"sms"}, "title": "", "body": body}), "status", "sent")
		require.Equal(t, body, last(x).Body, "a code is sent as it is")
	}
}

// A broadcast asks once for a page of people, by the index.
func TestConsentsAreFoundByTheirIndex(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	for query, index := range map[string]string{
		"SELECT c.granted FROM json_each('[\"a\"]') j CROSS JOIN notification_consents c ON c.user = j.value AND c.channel = 'sms' AND c.kind = 'promotional' ORDER BY c.created, c.rowid": "idx_gw_consents_user",
		"SELECT DISTINCT c.user FROM notification_consents c WHERE c.channel = 'sms' AND c.address = 'a'":                                                                                  "idx_gw_consents_address",
		"SELECT id FROM users WHERE phone != '' AND phone = 'a'":                                                                                                                           "_phone_lookup",
	} {
		var plan []struct {
			Detail string `db:"detail"`
		}
		require.NoError(t, app.DB().NewQuery("EXPLAIN QUERY PLAN "+query).All(&plan))
		require.Contains(t, fmt.Sprint(plan), index)
		require.NotContains(t, strings.ReplaceAll(fmt.Sprint(plan), "SCAN j", ""), "SCAN")
	}
}
