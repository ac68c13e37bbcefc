package hooks_test

import (
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

// offer is a promotional text; no sender of codes may ever carry it.
const offer = "Half price on everything today"

// crossing is an app with both SMS senders, in which promotional SMS may leave:
// what keeps an offer from the sender of codes is then all that keeps it.
type crossing struct {
	*texting
	root          string
	codes, offers *core.Record // the providers
}

func newCrossing(t *testing.T, opts ...pbtest.Option) *crossing {
	t.Helper()
	x := &crossing{texting: newTexting(t, opts...)}
	root, err := x.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com")
	require.NoError(t, err)
	x.root = x.Token(root)
	x.codes = x.provider("sms_transactional")
	x.offers = x.provider("sms_promotional")
	// The checks have found the senders right: a later one does not come in between.
	until(t, x.App, x.codes, "state", "ok")
	until(t, x.App, x.offers, "state", "ok")
	return x
}

func (x *crossing) provider(channel string) *core.Record {
	x.t.Helper()
	r, err := x.FindFirstRecordByData(notifications.CollectionProviders, "channel", channel)
	require.NoError(x.t, err)
	return r
}

// body is an offer to Ana, as a request says it.
func (x *crossing) body(fields map[string]any) map[string]any {
	body := map[string]any{"title": "Sale", "body": offer, "channels": []string{"sms"}, "audience": "users", "users": []string{x.ana.Id},
		"category": x.category("promotional"), "action": "send"}
	for k, v := range fields {
		body[k] = v
	}
	return body
}

// ask makes a request as a superuser.
func (x *crossing) ask(method, path string, body any, status int) map[string]any {
	x.t.Helper()
	res := x.Send(method, path, body, x.root)
	require.Equal(x.t, status, res.Status, "%s %s: %s", method, path, res)
	if len(res.Body) == 0 || res.Body[0] != '{' {
		return nil
	}
	return res.JSON(x.t)
}

func (x *crossing) record(collection, id string) *core.Record {
	x.t.Helper()
	r, err := x.FindRecordById(collection, id)
	require.NoError(x.t, err)
	return r
}

func (x *crossing) sql(statement string, params dbx.Params) {
	x.t.Helper()
	res, err := x.NonconcurrentDB().NewQuery(statement).Bind(params).Execute()
	require.NoError(x.t, err)
	changed, err := res.RowsAffected()
	require.NoError(x.t, err)
	require.Positive(x.t, changed, statement)
}

// ended waits for the only delivery of a notification and returns it.
func (x *crossing) ended(n *core.Record) *core.Record {
	x.t.Helper()
	var delivery *core.Record
	require.True(x.t, waitFor(func() bool {
		rows, err := x.FindRecordsByFilter(notifications.CollectionDeliveries, "notification = {:n} && resendOf = '' && channel = 'sms'", "", 2, 0, dbx.Params{"n": n.Id})
		require.NoError(x.t, err)
		if len(rows) != 1 {
			return false
		}
		delivery = rows[0]
		status := delivery.GetString("status")
		return status != "pending" && status != "sending"
	}), "the delivery ends: %v", delivery)
	return delivery
}

// left expects that the offer left this often, by its own sender alone.
func (x *crossing) left(times int) {
	x.t.Helper()
	offers := 0
	for _, m := range x.twilio.Messages() {
		if strings.Contains(m.Body, offer) {
			require.Equal(x.t, offersSender, m.Sender(), "an offer left by the sender of codes")
			offers++
		}
	}
	require.Equal(x.t, times, offers)
	require.Zero(x.t, x.twilio.Senders()[codesSender]-x.codesSent(), "the sender of codes carried something else than codes")
}

func (x *crossing) codesSent() (n int) {
	for _, m := range x.twilio.Messages() {
		if m.Sender() == codesSender && strings.HasPrefix(m.Body, "Hello") {
			n++
		}
	}
	return n
}

// Whichever way the notification is made, its kind is that of its category, and
// what the request says about it besides is ignored.
func TestNoPathLeadsAnOfferToTheSenderOfCodes(t *testing.T) {
	t.Parallel()
	forged := map[string]any{"kind": "transactional", "provider": "sms_transactional",
		"content": map[string]any{"kind": "transactional", "categoryKey": "transactional", "content": map[string]any{"body": offer}},
		"plan":    map[string]any{"now": "2020-01-01T00:00:00Z", "queue": "default"}, "status": "sending"}
	promotional := func(r *core.Record) bool { return strings.Contains(r.GetString("content"), `"kind":"promotional"`) }
	for name, send := range map[string]func(t *testing.T, x *crossing) *core.Record{
		"create of the SDK": func(_ *testing.T, x *crossing) *core.Record {
			made := x.ask(http.MethodPost, "/api/collections/notifications/records", x.body(forged), http.StatusOK)
			return x.record(notifications.CollectionNotifications, made["id"].(string))
		},
		"batch": func(t *testing.T, x *crossing) *core.Record {
			settings := x.Settings()
			settings.Batch.Enabled, settings.Batch.MaxRequests, settings.Batch.Timeout = true, 10, 120
			res := x.Send(http.MethodPost, "/api/batch", map[string]any{"requests": []map[string]any{
				{"method": "POST", "url": "/api/collections/notifications/records", "body": x.body(forged)}}}, x.root)
			require.Equal(t, http.StatusOK, res.Status, res.String())
			n, err := x.FindFirstRecordByData(notifications.CollectionNotifications, "title", "Sale")
			require.NoError(t, err)
			return n
		},
		"whole record of the dashboard": func(_ *testing.T, x *crossing) *core.Record {
			draft := x.ask(http.MethodPost, "/api/collections/notifications/records", x.body(map[string]any{"action": ""}), http.StatusOK)
			path := "/api/collections/notifications/records/" + draft["id"].(string)
			whole := x.ask(http.MethodGet, path, nil, http.StatusOK)
			for k, v := range forged {
				whole[k] = v
			}
			whole["action"] = "send"
			x.ask(http.MethodPatch, path, whole, http.StatusOK)
			return x.record(notifications.CollectionNotifications, draft["id"].(string))
		},
		"edit of a scheduled one": func(t *testing.T, x *crossing) *core.Record {
			later := time.Now().Add(time.Hour).UTC().Format("2006-01-02 15:04:05.000Z")
			made := x.ask(http.MethodPost, "/api/collections/notifications/records", x.body(map[string]any{"sendAt": later}), http.StatusOK)
			path := "/api/collections/notifications/records/" + made["id"].(string)
			whole := x.ask(http.MethodGet, path, nil, http.StatusOK)
			for k, v := range forged {
				whole[k] = v
			}
			x.ask(http.MethodPatch, path, whole, http.StatusOK)
			require.True(t, promotional(x.record(notifications.CollectionNotifications, made["id"].(string))))
			x.ask(http.MethodPatch, path, map[string]any{"sendAt": "", "content": forged["content"]}, http.StatusOK)
			return x.record(notifications.CollectionNotifications, made["id"].(string))
		},
		"Save of Go code": func(_ *testing.T, x *crossing) *core.Record {
			return x.Record(notifications.CollectionNotifications, x.body(forged))
		},
		"SaveNoValidate of Go code": func(t *testing.T, x *crossing) *core.Record {
			r := x.Record(notifications.CollectionNotifications, x.body(map[string]any{"action": ""}))
			r.Load(forged)
			r.Set("action", "send")
			require.NoError(t, x.SaveNoValidate(r))
			return r
		},
		"Create of Go code": func(t *testing.T, x *crossing) *core.Record {
			n, err := notifications.NewNotification(x)
			require.NoError(t, err)
			n.Load(x.body(map[string]any{"content": forged["content"]}))
			require.NoError(t, n.Create(x))
			return n.Record
		},
		"trigger": func(t *testing.T, x *crossing) *core.Record {
			template := x.Record(notifications.CollectionTemplates, map[string]any{"key": "sale", "category": x.category("promotional"), "title": "Sale", "body": offer})
			x.Record(notifications.CollectionTriggers, map[string]any{"name": "Sale", "collection": "users", "event": "created", "template": template.Id,
				"channels": []string{"sms"}, "enabled": true})
			// As a form that asks for both does.
			require.NoError(t, x.RunInTransaction(func(txApp core.App) error {
				bo := core.NewRecord(must(txApp.FindCollectionByNameOrId("users")))
				bo.Load(map[string]any{"email": "bo@example.com", "password": pbtest.Password, "phone": "+15005550002"})
				if err := txApp.Save(bo); err != nil {
					return err
				}
				consent := core.NewRecord(must(txApp.FindCollectionByNameOrId(notifications.CollectionConsents)))
				consent.Load(map[string]any{"user": bo.Id, "channel": "sms", "granted": true, "source": "Sign-up form", "wording": "I want offers."})
				return txApp.Save(consent)
			}))
			var n *core.Record
			require.True(t, waitFor(func() bool {
				var err error
				n, err = x.FindFirstRecordByFilter(notifications.CollectionNotifications, "trigger != ''")
				return err == nil
			}))
			return n
		},
		"in place of a push that nobody opened": func(t *testing.T, x *crossing) *core.Record {
			n := x.Record(notifications.CollectionNotifications, x.body(map[string]any{"channels": []string{"push"}, "smsAfterMinutes": 1, "content": forged["content"]}))
			require.True(t, waitFor(func() bool { return x.Reload(n).GetInt("skipped") == 1 }), "Ana has no device")
			x.sql("UPDATE notification_deliveries SET updated = '2025-01-01 00:00:00.000Z' WHERE notification = {:n}", dbx.Params{"n": n.Id}) // the minute is over
			ask(t, x.App, n)
			return n
		},
		"transactional template in a promotional category": func(_ *testing.T, x *crossing) *core.Record {
			template := x.Record(notifications.CollectionTemplates, map[string]any{"key": "sale", "category": x.category("transactional"), "title": "Sale", "smsBody": offer})
			return x.Record(notifications.CollectionNotifications, x.body(map[string]any{"template": template.Id, "title": "", "body": ""}))
		},
		"category of one's own": func(_ *testing.T, x *crossing) *core.Record {
			news := x.Record(notifications.CollectionCategories, map[string]any{"key": "transactional_news", "name": "Transactional", "kind": "promotional"})
			return x.Record(notifications.CollectionNotifications, x.body(map[string]any{"category": news.Id}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newCrossing(t)
			n := send(t, x)
			delivery := x.ended(n)
			require.Equal(t, "accepted", delivery.GetString("status"), "%v", delivery)
			require.Equal(t, "promotional", delivery.GetString("kind"))
			require.Equal(t, x.offers.Id, delivery.GetString("provider"))
			x.left(1)
			// Codes go their own way all the while.
			_, code := x.text("transactional", "accepted")
			require.Equal(t, x.codes.Id, code.GetString("provider"))
			require.Equal(t, map[string]int{offersSender: 1, codesSender: 1}, x.twilio.Senders())
		})
	}
}

// What makes a text promotional cannot be taken from it afterwards.
func TestAnOfferStaysAnOffer(t *testing.T) {
	t.Parallel()
	x := newCrossing(t)
	news := x.Record(notifications.CollectionCategories, map[string]any{"key": "news", "name": "News", "kind": "promotional"})
	sale := x.Record(notifications.CollectionTemplates, map[string]any{"key": "sale", "category": news.Id, "title": "Sale", "body": offer})
	category := "/api/collections/notification_categories/records/" + news.Id

	// The kind of a category.
	x.ask(http.MethodPatch, category, map[string]any{"kind": "transactional"}, http.StatusBadRequest)
	for name, save := range map[string]func(core.Model) error{"Save": x.Save, "SaveNoValidate": x.SaveNoValidate} {
		changed := x.Reload(news)
		changed.Set("kind", "transactional")
		require.Error(t, save(changed), name)
		whole := core.NewRecord(news.Collection())
		whole.Load(map[string]any{"id": news.Id, "key": "news", "name": "News", "kind": "transactional"})
		whole.MarkAsNotNew()
		require.Error(t, save(whole), "%s of a record that was put together", name)
	}
	require.Equal(t, "promotional", x.Reload(news).GetString("kind"))

	// A promotional template in a transactional category.
	for name, body := range map[string]map[string]any{
		"its text":     {"title": "", "body": "", "template": sale.Id, "category": x.category("transactional")},
		"its text cut": {"title": "Sale", "body": offer, "template": sale.Id, "category": x.category("transactional")},
	} {
		res := x.Send(http.MethodPost, "/api/collections/notifications/records", x.body(body), x.root)
		require.Equal(t, http.StatusBadRequest, res.Status, "%s: %s", name, res)
		require.Contains(t, res.String(), "promotional", name)
	}

	// What names a category or template counts as transactional without it: so it
	// stays as long as there is anything that does.
	later := time.Now().Add(time.Hour).UTC().Format("2006-01-02 15:04:05.000Z")
	scheduled := x.Record(notifications.CollectionNotifications, x.body(map[string]any{"category": news.Id, "sendAt": later}))
	draft := x.Record(notifications.CollectionNotifications, x.body(map[string]any{"category": "", "template": sale.Id, "action": ""}))
	template := "/api/collections/notification_templates/records/" + sale.Id
	for _, path := range []string{category, template} {
		res := x.Send(http.MethodDelete, path, nil, x.root)
		require.Equal(t, http.StatusBadRequest, res.Status, res.String())
		require.Contains(t, res.String(), "first")
	}
	require.Error(t, x.Delete(x.Reload(news)))
	require.Error(t, x.Delete(x.Reload(sale)))
	require.Equal(t, news.Id, x.Reload(scheduled).GetString("category"))
	require.Equal(t, news.Id, x.Reload(sale).GetString("category"))
	require.Equal(t, sale.Id, x.Reload(draft).GetString("template"))

	for _, n := range []*core.Record{scheduled, draft} {
		n = x.Reload(n)
		n.Set("sendAt", "")
		n.Set("action", "send")
		require.NoError(t, x.Save(n))
		require.Equal(t, "accepted", x.ended(n).GetString("status"))
	}
	x.left(2)
	require.Equal(t, map[string]int{offersSender: 2}, x.twilio.Senders())

	// A template alone keeps its category too; without one it goes.
	spare := x.Record(notifications.CollectionCategories, map[string]any{"key": "spare", "name": "Spare", "kind": "promotional"})
	last := x.Record(notifications.CollectionTemplates, map[string]any{"key": "last", "category": spare.Id, "title": "Sale"})
	path := "/api/collections/notification_categories/records/" + spare.Id
	x.ask(http.MethodDelete, path, nil, http.StatusBadRequest)
	x.ask(http.MethodDelete, "/api/collections/notification_templates/records/"+last.Id, nil, http.StatusNoContent)
	x.ask(http.MethodDelete, path, nil, http.StatusNoContent)
}

// senderSpellings are ways to write one sender.
var senderSpellings = map[string][]string{
	codesSender: {codesSender, " +15005550006 ", "+1 500 555 0006", "+1 (500) 555-0006", "+1.500.555.0006", "0015005550006", "15005550006",
		"\u00a0+15005550006", "+1\u00a0500\u00a0555\u00a00006", "\u3000+15005550006\u2003", "+1\u200b5005550006"},
	"MG0123456789abcdef0123456789abcdef": {"MG0123456789ABCDEF0123456789ABCDEF", "mg0123456789abcdef0123456789abcdef", "MG0123456789abcdef0123456789abcdef\u2028"},
	"Shop":                               {"SHOP", "shop", "Sh op", "S-hop", "\u2009Shop"},
}

// One sender for both would make one STOP to an offer block codes.
func TestOneSenderCannotServeBothKinds(t *testing.T) {
	t.Parallel()
	for sender, spellings := range senderSpellings {
		t.Run(sender, func(t *testing.T) {
			t.Parallel()
			x := newCrossing(t)
			x.ask(http.MethodPatch, "/api/collections/notification_providers/records/"+x.codes.Id, map[string]any{"senderId": sender}, http.StatusOK)
			path := "/api/collections/notification_providers/records"
			for _, other := range spellings {
				res := x.Send(http.MethodPost, path, map[string]any{"name": "Second", "channel": "sms_promotional", "config": x.twilio.Config(),
					"secret": x.twilio.AuthToken(), "senderId": other, "enabled": true}, x.root)
				require.Equal(t, http.StatusBadRequest, res.Status, "%q: %s", other, res)
				require.Contains(t, res.String(), "two different senders", "%q", other)
				x.ask(http.MethodPatch, path+"/"+x.offers.Id, map[string]any{"senderId": other}, http.StatusBadRequest)
				whole := x.ask(http.MethodGet, path+"/"+x.offers.Id, nil, http.StatusOK)
				whole["senderId"], whole["source"], whole["state"] = other, "environment", "ok"
				x.ask(http.MethodPatch, path+"/"+x.offers.Id, whole, http.StatusBadRequest)
				for name, save := range map[string]func(core.Model) error{"Save": x.Save, "SaveNoValidate": x.SaveNoValidate} {
					changed := x.Reload(x.offers)
					changed.Set("senderId", other)
					require.Error(t, save(changed), "%s %q", name, other)
				}
				require.Equal(t, offersSender, x.Reload(x.offers).GetString("senderId"))

				// Behind the app's back: it is noticed before anything leaves.
				x.sql("UPDATE notification_providers SET senderId = {:sender} WHERE id = {:id}", dbx.Params{"id": x.offers.Id, "sender": other})
				n := x.Record(notifications.CollectionNotifications, x.body(nil))
				n = until(t, x.App, n, "status", "paused")
				require.Contains(t, n.GetString("statusReason"), "two different senders", "%q", other)
				require.Zero(t, x.twilio.Total(), "%q", other)
				x.sql("UPDATE notification_providers SET senderId = {:sender} WHERE id = {:id}", dbx.Params{"id": x.offers.Id, "sender": offersSender})
				n.Set("action", "cancel")
				require.NoError(t, x.Save(n))
				require.Equal(t, "cancelled", x.ended(n).GetString("status"))
			}
		})
	}
}

// A provider cannot change sides.
func TestASenderStaysOnItsChannel(t *testing.T) {
	t.Parallel()
	x := newCrossing(t)
	for provider, channel := range map[*core.Record]string{x.codes: "sms_promotional", x.offers: "sms_transactional"} {
		path := "/api/collections/notification_providers/records/" + provider.Id
		x.ask(http.MethodPatch, path, map[string]any{"channel": channel}, http.StatusBadRequest)
		whole := x.ask(http.MethodGet, path, nil, http.StatusOK)
		whole["channel"], whole["secret"] = channel, x.twilio.AuthToken()
		x.ask(http.MethodPatch, path, whole, http.StatusBadRequest)
		for name, save := range map[string]func(core.Model) error{"Save": x.Save, "SaveNoValidate": x.SaveNoValidate} {
			changed := x.Reload(provider)
			changed.Set("channel", channel)
			require.Error(t, save(changed), name)
		}
		require.Equal(t, provider.GetString("channel"), x.Reload(provider).GetString("channel"))
	}

	// Behind the app's back: the auth token was sealed for the other channel.
	x.sql("DELETE FROM notification_providers WHERE id = {:id}", dbx.Params{"id": x.offers.Id})
	x.sql("UPDATE notification_providers SET channel = 'sms_promotional' WHERE id = {:id}", dbx.Params{"id": x.codes.Id})
	n := until(t, x.App, x.Record(notifications.CollectionNotifications, x.body(nil)), "status", "paused")
	require.Contains(t, n.GetString("statusReason"), "cannot be opened")
	require.Equal(t, map[string]int{"pending": 1}, deliveryStatuses(t, x.App, n))
	require.Zero(t, x.twilio.Total())

	// Back where it belongs it works again.
	x.sql("UPDATE notification_providers SET channel = 'sms_transactional' WHERE id = {:id}", dbx.Params{"id": x.codes.Id})
	x.text("transactional", "accepted")
	x.left(0)
}

// The settings of the process name the channel of each sender; the row only shows
// it.
func TestASenderOfTheEnvironmentStaysOnItsChannel(t *testing.T) {
	t.Parallel()
	twilio := providertest.NewTwilio(t, providertest.TwilioOptions{})
	app := pbtest.NewApp(t, pbtest.WithConfig(production), pbtest.WithConfig(func(c *hooks.Config) {
		c.Providers = []notifications.ProviderConfig{{Channel: notifications.ProviderSMSTransactional, Config: twilio.Config(), Secret: twilio.AuthToken(), SenderID: codesSender}}
	}))
	app.Handler()
	x := &crossing{texting: &texting{App: app, t: t, twilio: twilio, ana: app.User("ana@example.com", map[string]any{"phone": anasPhone})}}
	agree(app, x.ana, "sms")
	until(t, app, x.provider("sms_transactional"), "state", "ok")
	x.sql("UPDATE notification_providers SET channel = 'sms_promotional' WHERE id = {:id}", dbx.Params{"id": notifications.EnvironmentProviderID(notifications.ProviderSMSTransactional)})
	delivery := x.ended(x.Record(notifications.CollectionNotifications, x.body(nil)))
	require.Equal(t, "failed", delivery.GetString("status"))
	require.Contains(t, delivery.GetString("explanation"), "stopped")
	require.Zero(t, twilio.Total())
}

// What is tried again goes the way it had to go the first time.
func TestRetryAndResendOfAnOffer(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(x *crossing, n, delivery *core.Record){
		"retry": func(x *crossing, n, _ *core.Record) {
			x.ask(http.MethodPost, "/api/notifications/"+n.Id+"/retry", map[string]any{"kind": "transactional"}, http.StatusOK)
		},
		"resend": func(x *crossing, _, delivery *core.Record) {
			x.ask(http.MethodPost, "/api/notifications/deliveries/"+delivery.Id+"/resend", map[string]any{"kind": "transactional"}, http.StatusOK)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newCrossing(t)
			x.twilio.Script(anasPhone, providertest.TwilioFault{Code: 21614})
			n := x.Record(notifications.CollectionNotifications, x.body(nil))
			delivery := x.ended(n)
			require.Equal(t, "recipient_blocked", delivery.GetString("reason"))
			x.twilio.Script(anasPhone)

			// Without its own sender it fails, and with it it leaves by that one.
			path := "/api/collections/notification_providers/records/" + x.offers.Id
			x.ask(http.MethodPatch, path, map[string]any{"enabled": false}, http.StatusOK)
			until(t, x.App, n, "status", "failed")
			again(x, n, delivery)
			last := func(reason, status string) {
				t.Helper()
				require.True(t, waitFor(func() bool {
					rows, err := x.FindRecordsByFilter(notifications.CollectionDeliveries, "notification = {:n}", "-created,-id", 1, 0, dbx.Params{"n": n.Id})
					require.NoError(t, err)
					return len(rows) == 1 && rows[0].GetString("reason") == reason && rows[0].GetString("status") == status
				}), "%s %s: %v", status, reason, deliveryStatuses(t, x.App, n))
			}
			last("no_provider", "failed")
			x.left(0)
			require.True(t, waitFor(func() bool { s := x.Reload(n).GetString("status"); return s == "failed" || s == "sent_with_failures" }))

			x.ask(http.MethodPatch, path, map[string]any{"enabled": true}, http.StatusOK)
			until(t, x.App, x.offers, "state", "ok")
			again(x, n, delivery)
			last("", "accepted")
			x.left(1)
			require.Equal(t, map[string]int{offersSender: 1}, x.twilio.Senders())
		})
	}
}

// Neither sender steps in for the other, in no environment: outside production
// the gap would only be found in production.
func TestAMissingSenderIsNotReplaced(t *testing.T) {
	t.Parallel()
	for _, env := range []hooks.Environment{hooks.EnvLocal, hooks.EnvStaging, hooks.EnvProduction} {
		for kind, other := range map[string]string{"promotional": "sms_transactional", "transactional": "sms_promotional"} {
			for name, missing := range map[string]bool{"missing": true, "switched off": false} {
				t.Run(string(env)+" "+kind+" "+name, func(t *testing.T) {
					t.Parallel()
					x := &texting{t: t, twilio: providertest.NewTwilio(t, providertest.TwilioOptions{})}
					x.App = pbtest.NewApp(t, pbtest.WithConfig(production), pbtest.WithConfig(func(c *hooks.Config) {
						c.Env, c.SendOnlyTo = env, []string{anasPhone}
					}))
					x.Handler()
					x.smsProvider(other, "+15005550008", x.twilio)
					if !missing {
						off := x.smsProvider("sms_"+kind, "+15005550009", x.twilio)
						off.Set("enabled", false)
						require.NoError(t, x.Save(off))
					}
					x.ana = x.User("ana@example.com", map[string]any{"phone": anasPhone})
					agree(x.App, x.ana, "sms")
					n, delivery := x.text(kind, "failed")
					require.Equal(t, "no_provider", delivery.GetString("reason"))
					require.Contains(t, delivery.GetString("explanation"), "No sender for "+kind+" SMS is set up")
					require.Contains(t, delivery.GetString("explanation"), "never steps in")
					until(t, x.App, n, "status", "failed")
					require.Zero(t, x.twilio.Total())
				})
			}
		}
	}
}

// An offer leaves for whoever agreed to it, and for nobody else, by its own sender.
func TestAnOfferLeavesForWhoeverAgreed(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	withdraw(x.App, x.ana, "sms")
	_, delivery := x.text("promotional", "skipped")
	require.Equal(t, "no_consent", delivery.GetString("reason"))
	require.Zero(t, x.twilio.Total())

	agree(x.App, x.ana, "sms")
	_, delivery = x.text("promotional", "accepted")
	require.Equal(t, "promotional", delivery.GetString("kind"))
	require.Equal(t, map[string]int{offersSender: 1}, x.twilio.Senders())
}
