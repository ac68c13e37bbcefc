package hooks_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
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

// byDay is an app that keeps the hours of the law.
func byDay(c *hooks.Config) { c.PromotionalHours = "" }

// quietHours are a person's quiet hours on a channel ("" for all).
func quietHours(app *pbtest.App, user *core.Record, category, channel, from, to string) *core.Record {
	return app.Record(notifications.CollectionPreferences, map[string]any{"user": user.Id, "category": category, "channel": channel, "enabled": true, "quietFrom": from, "quietTo": to})
}

// settled waits until nothing of a notification is left that could go out now.
func settled(t *testing.T, app *pbtest.App, n *core.Record, now time.Time) {
	t.Helper()
	var due, planned int
	require.True(t, waitFor(func() bool {
		require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM groundwork_batches WHERE notification = {:n}").Bind(dbx.Params{"n": n.Id}).Row(&planned))
		require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM notification_deliveries WHERE notification = {:n} AND (status = 'sending' OR status = 'pending' AND nextAttemptAt <= {:now})").
			Bind(dbx.Params{"n": n.Id, "now": now.UTC().Format("2006-01-02 15:04:05.000Z")}).Row(&due))
		return planned == 0 && due == 0 && app.Reload(n).GetInt("total") > 0
	}), "%d deliveries are due, %d batches planned", due, planned)
}

func TestQuietHoursAreWaitedFor(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-24T21:30:00Z") // 23:30 in Berlin
	app := pbtest.NewApp(t, c.option())
	app.Handler()
	category := func(key string) string {
		r, err := app.FindFirstRecordByData(notifications.CollectionCategories, "key", key)
		require.NoError(t, err)
		return r.Id
	}
	other := app.Record(notifications.CollectionCategories, map[string]any{"key": "news", "name": "News", "kind": "promotional", "canOptOut": true})
	names := map[string]string{}
	person := func(name, zone string) *core.Record {
		u := app.User(name+"@example.com", map[string]any{"timezone": zone})
		names[u.Id] = name
		return u
	}
	person("day", "Europe/Berlin")
	quietHours(app, person("night", "Europe/Berlin"), "", "", "22:00", "07:00")
	quietHours(app, person("elsewhere", "America/New_York"), "", "", "22:00", "07:00") // 17:30
	quietHours(app, person("othercategory", "Europe/Berlin"), other.Id, "", "22:00", "07:00")
	quietHours(app, person("otherchannel", "Europe/Berlin"), "", "sms", "22:00", "07:00")
	quietHours(app, person("channel", "Europe/Berlin"), "", "email", "23:00", "06:00")
	exact := person("exact", "Europe/Berlin")
	quietHours(app, exact, "", "", "22:00", "07:00")
	quietHours(app, exact, category("transactional"), "", "22:00", "23:00") // says more: for these it is over
	unknown := person("nowhere", "")                                        // UTC: 21:30
	quietHours(app, unknown, "", "", "21:00", "05:00")

	n := send(t, app, nil)
	now := []string{"day", "elsewhere", "othercategory", "otherchannel", "exact"}
	settled(t, app, n, c.now())
	becomes(t, app, n, names, "captured", now...)
	becomes(t, app, n, names, "pending", "night", "channel", "nowhere")
	_, why := ends(t, app, n)
	for id, name := range names {
		if name == "night" {
			require.Equal(t, "Held back for quiet hours until 07:00 on 25 June 2025 on this person's clock.", why[id])
		}
	}
	require.True(t, waitFor(func() bool { return app.Reload(n).GetInt("pending") == 3 }))
	require.Equal(t, "sending", app.Reload(n).GetString("status"))

	// Inbox is silent, and the owner may say that a receipt cannot wait.
	until(t, app, send(t, app, map[string]any{"channels": []string{"inbox"}}), "status", "sent")
	until(t, app, send(t, app, map[string]any{"options": map[string]any{"ignoreQuietHours": true}}), "status", "sent")
	root := app.Token(app.Superuser("root@example.com"))
	res := app.Send(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "Sale", "channels": []string{"email"}, "audience": "users",
		"users": []string{exact.Id}, "category": category("promotional"), "options": map[string]any{"ignoreQuietHours": true}, "action": "send"}, root)
	require.Equal(t, http.StatusBadRequest, res.Status)
	require.Contains(t, res.String(), "transactional messages only")
	// What is over by then is told apart from what waits.
	short := send(t, app, map[string]any{"expiresAt": "2025-06-25 04:30:00.000Z"})
	settled(t, app, short, c.now())
	becomes(t, app, short, names, "skipped", "night", "nowhere")
	becomes(t, app, short, names, "pending", "channel")
	got, why := ends(t, app, short)
	for id, name := range names {
		if name == "night" {
			require.Equal(t, "skipped expired", got[id])
			require.Contains(t, why[id], "last until 07:00 on 25 June 2025 on their clock")
		}
	}

	for _, s := range []struct{ at, who string }{{"2025-06-25T04:00:00Z", "channel"}, {"2025-06-25T05:00:00Z", "nowhere"}} {
		c.step(t, app, n, moment(t, s.at).Add(-time.Second))
		settled(t, app, n, c.now())
		require.NotContains(t, reached(t, app, n, names, "captured"), s.who)
		c.step(t, app, n, moment(t, s.at))
		settled(t, app, n, c.now())
		require.Contains(t, reached(t, app, n, names, "captured"), s.who)
	}
	n = until(t, app, n, "status", "sent")
	require.Equal(t, []int{8, 8, 0, 0}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("skipped"), n.GetInt("pending")})
	rows, err := app.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id})
	require.NoError(t, err)
	for _, r := range rows {
		require.Equal(t, []string{"captured", "captured"}, []string{r.GetString("status"), r.GetString("reason")}, "the reason for waiting is gone")
	}
}

// What waited for the night keeps its full time to be tried in.
func TestTheNightIsNoAttempt(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-24T21:30:00Z")
	x := newTexting(t, c.option()) // gives up after an hour
	ana := x.Reload(x.ana)
	ana.Set("timezone", "Europe/Berlin")
	require.NoError(t, x.Save(ana))
	quietHours(x.App, ana, "", "", "22:00", "07:00")
	x.twilio.Script(anasPhone, providertest.TwilioFault{Code: 20429}, providertest.TwilioFault{})
	n, delivery := x.text("transactional", "pending")
	settled(t, x.App, n, c.now())
	require.Zero(t, x.twilio.Total())
	c.step(t, x.App, n, moment(t, "2025-06-25T05:00:00Z"))
	require.True(t, waitFor(func() bool { return x.Reload(delivery).GetInt("attempts") == 1 }))
	settled(t, x.App, n, c.now())
	require.Equal(t, "pending", x.Reload(delivery).GetString("status"), "it is tried again: %v", x.Reload(delivery))
	c.step(t, x.App, n, c.now().Add(time.Minute))
	until(t, x.App, n, "status", "sent")
	require.Equal(t, 1, x.twilio.Total())
}

// Who opts out, or moves the quiet hours, while a message waits is heard.
func TestWishesThatChangeInTheNight(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-24T21:30:00Z")
	app := pbtest.NewApp(t, c.option())
	app.Handler()
	news := app.Record(notifications.CollectionCategories, map[string]any{"key": "news", "name": "News", "kind": "promotional", "canOptOut": true})
	names, rows := map[string]string{}, map[string]*core.Record{}
	for _, name := range []string{"stays", "off", "later", "none"} {
		u := app.User(name+"@example.com", map[string]any{"timezone": "Europe/Berlin"})
		agree(app, u, "email")
		names[u.Id], rows[name] = name, quietHours(app, u, "", "", "22:00", "07:00")
	}
	n := send(t, app, map[string]any{"category": news.Id})
	settled(t, app, n, c.now())
	becomes(t, app, n, names, "pending", "stays", "off", "later", "none")
	change := func(name string, fields map[string]any) {
		r := app.Reload(rows[name])
		r.Load(fields)
		require.NoError(t, app.Save(r))
	}
	change("off", map[string]any{"enabled": false})
	change("later", map[string]any{"quietTo": "09:00"})
	change("none", map[string]any{"quietFrom": "", "quietTo": ""}) // known when it is due, as before
	c.step(t, app, n, moment(t, "2025-06-25T05:00:00Z"))
	settled(t, app, n, c.now())
	becomes(t, app, n, names, "captured", "stays", "none")
	becomes(t, app, n, names, "skipped", "off")
	c.step(t, app, n, moment(t, "2025-06-25T07:00:00Z"))
	until(t, app, n, "status", "sent")
	becomes(t, app, n, names, "captured", "stays", "none", "later")
}

// Who allows a message only at night gets no promotional one, and it is said why.
func TestNoHourSuits(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-24T12:00:00Z")
	x := newCrossing(t, c.option(), pbtest.WithConfig(byDay))
	ana := x.Reload(x.ana)
	ana.Set("timezone", "Europe/Berlin")
	require.NoError(t, x.Save(ana))
	quietHours(x.App, ana, "", "", "06:00", "22:00")
	n := x.Record(notifications.CollectionNotifications, x.body(nil))
	require.Equal(t, "quiet_hours", x.ended(n).GetString("reason"))
	require.Contains(t, x.ended(n).GetString("explanation"), "no time of the day")
	require.Zero(t, x.twilio.Total())
	until(t, x.App, n, "status", "sent")
}

// lawZones are where the people of [TestNoOfferLeavesAtNight] live, as their profile
// says.
var lawZones = []string{"Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles", "America/Phoenix", "America/St_Johns", "America/Sao_Paulo",
	"Pacific/Honolulu", "Pacific/Auckland", "Pacific/Chatham", "Pacific/Kiritimati", "Australia/Lord_Howe", "Australia/Sydney", "Asia/Tokyo", "Asia/Kolkata",
	"Asia/Kathmandu", "Africa/Cairo", "Africa/Casablanca", "America/Havana", "Asia/Beirut"}

// Whatever moment of the year it is, and however clocks jump in it, no promotional
// text is handed over before eight or after nine in the evening where its reader is;
// nobody is forgotten either.
func TestNoOfferLeavesAtNight(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-01-01T12:00:00Z")
	x := newCrossing(t, c.option(), pbtest.WithConfig(byDay))
	require.NoError(t, x.Delete(x.ana))
	zonesOf := map[string][]string{} // by phone
	add := func(phone string, zones []string, fields map[string]any) *core.Record {
		fields["phone"] = phone
		zonesOf[phone] = zones
		u := x.User(fmt.Sprintf("p%d@example.com", len(zonesOf)), fields)
		agree(x.App, u, "sms")
		return u
	}
	for i := range 180 {
		z := lawZones[i%len(lawZones)]
		phone := fmt.Sprintf("+1500555%04d", 1000+i)
		if i%3 > 0 {
			add(phone, []string{z}, map[string]any{"timezone": z})
			continue
		}
		u := add(phone, []string{z}, map[string]any{})
		x.Record(notifications.CollectionDevices, map[string]any{"user": u.Id, "platform": "android", "token": phone, "timezone": z})
	}
	for i := range 20 { // nothing is known of these but the country of their phone
		switch i % 3 {
		case 0:
			add(fmt.Sprintf("+447700900%03d", i), []string{"Europe/London"}, map[string]any{})
		case 1:
			add(fmt.Sprintf("+1202555%04d", 100+i), []string{"America/New_York", "America/Chicago", "America/Los_Angeles", "Pacific/Honolulu"}, map[string]any{})
		default:
			add(fmt.Sprintf("+6149157%04d", i), []string{"Australia/Sydney", "Australia/Perth", "Australia/Adelaide"}, map[string]any{})
		}
	}
	require.Len(t, zonesOf, 200)

	r := rand.New(rand.NewPCG(5, uint64(time.Now().UnixNano())))
	changes := []string{"2025-03-09T06:00:00Z", "2025-03-30T00:00:00Z", "2025-10-26T00:00:00Z", "2025-11-02T05:00:00Z", "2025-04-05T14:00:00Z"}
	seen, moments := 0, 0
	for range 4 {
		at := time.Date(2025, 1, 1, 0, r.IntN(365*24*60), r.IntN(60), 0, time.UTC)
		if r.IntN(2) == 0 {
			at = moment(t, changes[r.IntN(len(changes))]).Add(-time.Duration(r.IntN(16*60)) * time.Minute)
		}
		c.set(at)
		n := send(t, x.App, map[string]any{"channels": []string{"sms"}, "category": x.category("promotional"), "title": "Sale", "body": offer})
		for end := at.Add(60 * time.Hour); ; moments++ {
			settled(t, x.App, n, c.now())
			all := x.twilio.Messages()
			for _, m := range all[seen:] {
				for _, z := range zonesOf[m.To] {
					loc, err := time.LoadLocation(z)
					require.NoError(t, err)
					h := c.now().In(loc).Hour()
					require.True(t, 8 <= h && h < 21, "%s got a text at %s", m.To, c.now().In(loc))
				}
			}
			seen = len(all)
			if x.Reload(n).GetString("status") == "sent" {
				break
			}
			require.False(t, c.now().After(end), "somebody never gets it: %v", deliveryStatuses(t, x.App, n))
			c.step(t, x.App, n, c.now().Add(time.Duration(10+r.IntN(150))*time.Minute))
		}
		require.Equal(t, map[string]int{"accepted": 200}, deliveryStatuses(t, x.App, n))
	}
	require.Equal(t, 800, x.twilio.Total())
	t.Logf("%d moments", moments)
}

// Whoever switches that off is told.
func TestNightsAreWarnedAbout(t *testing.T) {
	t.Parallel()
	for hours, warned := range map[string]bool{"": false, "09:00-20:00": false, "off": true, "06:00-23:00": true} {
		out := &bytes.Buffer{}
		app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.PromotionalHours, c.LogOutput = hours, out }))
		app.Handler()
		require.Equal(t, warned, bytes.Contains(out.Bytes(), []byte("PROMOTIONAL_HOURS lets promotional SMS and push reach people at night")), hours)
	}
	require.ErrorContains(t, hooks.Register(pbtest.NewApp(t).TestApp, hooks.Config{PromotionalHours: "8-21"}), "08:00-21:00")
}
