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
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

// reaching is an app with pushes and both kinds of SMS, at a time that the test sets.
type reaching struct {
	*crossing
	clock *clock
	names map[string]string       // by id
	who   map[string]*core.Record // by name
	phone map[string]string       // by name
	token map[string][]string     // of the devices, by name
}

func newReaching(t *testing.T, at string, opts ...pbtest.Option) *reaching {
	t.Helper()
	c := clockAt(t, at)
	x := &reaching{crossing: newCrossing(t, append(opts, c.option())...), clock: c, names: map[string]string{}, who: map[string]*core.Record{}, phone: map[string]string{}, token: map[string][]string{}}
	require.NoError(t, x.Delete(x.ana))
	(&pushing{App: x.App, t: t, root: x.root}).apple()
	return x
}

func (x *reaching) person(name string, devices int, hasPhone bool) *core.Record {
	fields := map[string]any{"timezone": "Europe/Berlin"}
	if hasPhone {
		x.phone[name] = phoneNumber(len(x.who))
		fields["phone"] = x.phone[name]
	}
	u := x.User(strings.ReplaceAll(name, " ", "-")+"@example.com", fields)
	if hasPhone {
		agree(x.App, u, "sms")
	}
	x.names[u.Id], x.who[name] = name, u
	for i := range devices {
		token := iosToken(10*len(x.who) + i)
		x.token[name] = append(x.token[name], token)
		x.Record(notifications.CollectionDevices, map[string]any{"user": u.Id, "platform": "ios", "token": token})
	}
	return u
}

// offer sends one to everybody by push, and after half an hour by SMS.
func (x *reaching) offer(fields map[string]any) *core.Record {
	x.t.Helper()
	body := map[string]any{"title": "Sale", "body": offer, "channels": []string{"push"}, "smsAfterMinutes": 30, "category": x.category("promotional")}
	for k, v := range fields {
		body[k] = v
	}
	n := send(x.t, x.App, body)
	settled(x.t, x.App, n, x.clock.now())
	return n
}

// open is what a person's app reports, for the first of their devices.
func (x *reaching) open(n *core.Record, name string) {
	x.t.Helper()
	d, err := x.FindFirstRecordByFilter(notifications.CollectionDeliveries, "notification = {:n} && user = {:u} && channel = 'push'", dbx.Params{"n": n.Id, "u": x.who[name].Id})
	require.NoError(x.t, err)
	require.Equal(x.t, http.StatusNoContent, x.Send(http.MethodPost, openedPath, map[string]any{"delivery": d.Id}, x.Token(x.who[name])).Status)
}

// after lets time go by, and everything happen that is due then.
func (x *reaching) after(n *core.Record, d time.Duration) {
	x.t.Helper()
	x.clock.step(x.t, x.App, n, x.clock.now().Add(d))
	require.True(x.t, waitFor(func() bool {
		due, err := jobs.CountDue(x.t.Context(), x.App)
		return err == nil && due == 0
	}))
	settled(x.t, x.App, n, x.clock.now())
}

// texted are those who got an SMS, each as often as they did.
func (x *reaching) texted() (names []string) {
	x.t.Helper()
	for name, phone := range x.phone {
		for _, m := range x.twilio.To(phone) {
			require.Contains(x.t, m.Body, offer)
			require.Equal(x.t, offersSender, m.Sender(), "an offer left by the sender of codes")
			names = append(names, name)
		}
	}
	return names
}

func TestWhoDoesNotOpenAPushGetsAnSMS(t *testing.T) {
	t.Parallel()
	x := newReaching(t, "2025-06-24T10:00:00Z")
	x.person("opens", 1, true)
	x.person("does not", 1, true)
	x.person("has two devices", 2, true)
	x.person("opens one of two", 2, true)
	x.person("has no phone", 1, false)
	x.person("has no device", 0, true)
	x.person("has nothing", 0, false)
	x.person("stopped", 1, true)
	x.person("wants no sms", 1, true)
	x.person("wants nothing", 1, true)
	switchOff(x.App, x.who["wants nothing"], x.category("promotional"), "")
	n := x.offer(nil)
	x.open(n, "opens")
	x.open(n, "opens one of two")
	require.True(t, waitFor(func() bool { return x.Reload(n).GetInt("pending") == 0 && x.Reload(n).GetInt("opened") == 2 }))
	require.Equal(t, "sending", x.Reload(n).GetString("status"), "it is not over")
	before := x.Reload(n).GetInt("total")
	require.Equal(t, 12, before)

	x.after(n, 29*time.Minute)
	require.Empty(t, x.texted())
	// What they want is asked for when it is time.
	x.Record(notifications.CollectionSuppressions, map[string]any{"channel": "sms", "address": x.phone["stopped"], "kind": "promotional", "reason": "stop"})
	switchOff(x.App, x.who["wants no sms"], x.category("promotional"), "sms")
	x.after(n, time.Minute)
	n = until(t, x.App, n, "status", "sent")
	require.ElementsMatch(t, []string{"does not", "has two devices", "has no device"}, x.texted())
	require.True(t, waitFor(func() bool { n = x.Reload(n); return n.GetInt("total") == before+5 }), "five SMS more")
	require.Equal(t, n.GetInt("total"), n.GetInt("sent")+n.GetInt("skipped"))
	require.Equal(t, 2, n.GetInt("opened"))
	for range 2 { // asked for again by mistake
		_, err := jobs.Enqueue(x.App, notifications.FallbackArgs{Notification: n.Id, Batch: 1}, jobs.Options{})
		require.NoError(t, err)
	}
	require.True(t, waitFor(func() bool { due, err := jobs.CountDue(t.Context(), x.App); return err == nil && due == 0 }))
	require.Len(t, x.texted(), 3)
	require.Equal(t, "sent", x.Reload(n).GetString("status"))
	x.left(3)
}

// A crash may come after each step: what was begun is done once.
func TestAFallbackThatIsRepeated(t *testing.T) {
	t.Parallel()
	x := newReaching(t, "2025-06-24T10:00:00Z")
	x.person("ana", 1, true)
	x.person("bo", 1, true)
	n := x.offer(nil)
	x.clock.set(x.clock.now().Add(time.Hour))
	for range 5 { // five at once, and five more once it is done
		_, err := jobs.Enqueue(x.App, notifications.FallbackArgs{Notification: n.Id, Batch: 1}, jobs.Options{})
		require.NoError(t, err)
	}
	n = until(t, x.App, n, "status", "sent")
	// As if the process had ended between the SMS and the end of the fallback.
	x.sql("INSERT INTO groundwork_fallbacks (notification, batch) VALUES ({:n}, 1)", dbx.Params{"n": n.Id})
	x.sql("UPDATE notifications SET status = 'sending' WHERE id = {:n}", dbx.Params{"n": n.Id})
	x.after(n, time.Second)
	until(t, x.App, n, "status", "sent")
	require.ElementsMatch(t, []string{"ana", "bo"}, x.texted())
	require.Equal(t, 4, x.Reload(n).GetInt("total"))
}

// The SMS keeps the night, and is not sent to who opened the push by the morning.
func TestAFallbackAtNight(t *testing.T) {
	t.Parallel()
	x := newReaching(t, "2025-06-24T18:45:00Z", pbtest.WithConfig(byDay)) // 20:45 in Berlin
	x.person("opens late", 1, true)
	x.person("does not", 1, true)
	n := x.offer(nil)
	x.after(n, 31*time.Minute)
	require.Empty(t, x.texted())
	rows, err := x.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id, "channel": "sms"})
	require.NoError(t, err)
	require.Len(t, rows, 2)
	for _, r := range rows {
		require.Equal(t, "pending quiet_hours promotional", strings.Join([]string{r.GetString("status"), r.GetString("reason"), r.GetString("kind")}, " "))
	}
	x.open(n, "opens late")
	x.clock.step(t, x.App, n, moment(t, "2025-06-25T06:00:00Z"))
	n = until(t, x.App, n, "status", "sent")
	require.Equal(t, []string{"does not"}, x.texted())
	require.Equal(t, []int{4, 3, 1}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("skipped")})
	row, err := x.FindFirstRecordByFilter(notifications.CollectionDeliveries, "notification = {:n} && channel = 'sms' && status = 'skipped'", dbx.Params{"n": n.Id})
	require.NoError(t, err)
	require.Equal(t, "opened", row.GetString("reason"))
}

func TestAFallbackIsStopped(t *testing.T) {
	t.Parallel()
	act := func(x *reaching, n *core.Record, action string) {
		r := x.Reload(n)
		r.Set("action", action)
		require.NoError(x.t, x.Save(r))
	}
	for name, tc := range map[string]struct {
		fields map[string]any
		stop   func(x *reaching, n *core.Record)
		status string
		texted int
	}{
		"cancelled": {nil, func(x *reaching, n *core.Record) { act(x, n, "cancel") }, "cancelled", 0},
		"paused":    {nil, func(x *reaching, n *core.Record) { act(x, n, "pause") }, "paused", 0},
		"paused and resumed": {nil, func(x *reaching, n *core.Record) {
			act(x, n, "pause")
			x.after(n, time.Hour)
			require.Empty(x.t, x.texted())
			act(x, n, "resume")
		}, "sent", 1},
		"expired": {map[string]any{"expiresAt": "2025-06-24 10:20:00.000Z"}, func(*reaching, *core.Record) {}, "sent", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newReaching(t, "2025-06-24T10:00:00Z")
			x.person("ana", 1, true)
			n := x.offer(tc.fields)
			tc.stop(x, n)
			x.after(n, time.Hour)
			until(t, x.App, n, "status", tc.status)
			require.Len(t, x.texted(), tc.texted)
		})
	}
}

// A receipt goes on by the sender of receipts, and nobody else's sender steps in.
func TestAFallbackKeepsItsKind(t *testing.T) {
	t.Parallel()
	x := newReaching(t, "2025-06-24T10:00:00Z")
	x.person("ana", 0, true)
	n := x.offer(map[string]any{"category": x.category("transactional"), "body": "Hello, your order is ready."})
	x.after(n, 31*time.Minute)
	until(t, x.App, n, "status", "sent")
	require.Equal(t, map[string]int{codesSender: 1}, x.twilio.Senders())

	x.ask(http.MethodPatch, "/api/collections/notification_providers/records/"+x.offers.Id, map[string]any{"enabled": false}, http.StatusOK)
	n = x.offer(nil)
	x.after(n, 31*time.Minute)
	until(t, x.App, n, "status", "failed")
	require.Equal(t, "no_provider", x.ended(n).GetString("reason"))
	require.Equal(t, map[string]int{codesSender: 1}, x.twilio.Senders())
}

func TestAFallbackThatCannotBe(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t, pbtest.WithConfig(func(*hooks.Config) {}))
	root, ana := app.Token(app.Superuser("root@example.com")), app.User("ana@example.com")
	for name, tc := range map[string]struct {
		fields map[string]any
		says   string
	}{
		"without a push":     {map[string]any{"channels": []string{"email"}}, "choose the channel push too"},
		"beside an SMS":      {map[string]any{"channels": []string{"push", "sms"}}, "take the channel sms out"},
		"of a silent push":   {map[string]any{"options": map[string]any{"silent": true}}, "silent push cannot be opened"},
		"after two weeks":    {map[string]any{"smsAfterMinutes": 20160}, "10080"},
		"before it was sent": {map[string]any{"smsAfterMinutes": -1}, "smsAfterMinutes"},
	} {
		body := map[string]any{"title": "Hi", "channels": []string{"push"}, "audience": "users", "users": []string{ana.Id}, "smsAfterMinutes": 5, "action": "send"}
		for k, v := range tc.fields {
			body[k] = v
		}
		res := app.Send(http.MethodPost, "/api/collections/notifications/records", body, root)
		require.Equal(t, http.StatusBadRequest, res.Status, name)
		require.Contains(t, res.String(), tc.says, name)
	}
}
