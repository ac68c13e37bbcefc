package hooks_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// What happens to people while their messages wait for those before them. A pass
// that began a moment ago is still trusted, so these tests let that moment go by.
const passAge = 1100 * time.Millisecond

// ends are the deliveries of a notification by the person's id, as status and
// reason, with what explains them.
func ends(t *testing.T, app *pbtest.App, n *core.Record) (got, explained map[string]string) {
	t.Helper()
	rows, err := app.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id})
	require.NoError(t, err)
	got, explained = map[string]string{}, map[string]string{}
	for _, r := range rows {
		require.Empty(t, got[r.GetString("user")], "one row for each")
		got[r.GetString("user")] = r.GetString("status") + " " + r.GetString("reason")
		explained[r.GetString("user")] = r.GetString("explanation")
	}
	return got, explained
}

// switchOff is a person's wish to get nothing of a category on a channel.
func switchOff(app *pbtest.App, user *core.Record, category, channel string) {
	app.Record(notifications.CollectionPreferences, map[string]any{"user": user.Id, "category": category, "channel": channel, "enabled": false})
}

func TestAStopDuringAPassCounts(t *testing.T) {
	t.Parallel()
	x := newCrossing(t)
	require.NoError(t, x.Delete(x.ana))
	people := map[string]*core.Record{}
	for i := range 8 {
		people[phoneNumber(i)] = x.User(mailAddress(i), map[string]any{"phone": phoneNumber(i)})
		agree(x.App, people[phoneNumber(i)], "sms")
	}
	x.twilio.SetAll(providertest.TwilioFault{Hold: true})
	n := send(t, x.App, map[string]any{"channels": []string{"sms"}, "category": x.category("promotional"), "title": "Sale", "body": offer})
	require.True(t, waitFor(func() bool { return x.twilio.Total() == 2 }), "as many as may be in flight at first")
	want := map[string]string{}
	var waiting []string
	for number, user := range people {
		want[user.Id] = "accepted "
		if len(x.twilio.To(number)) == 0 {
			waiting = append(waiting, number)
		}
	}
	require.Len(t, waiting, 6)

	stopped, manual, off, moved, gone := waiting[0], waiting[1], waiting[2], waiting[3], waiting[4]
	status, _ := x.inbound(providertest.TwilioInbound{From: stopped, To: offersSender, Body: "STOP"})
	require.Equal(t, http.StatusOK, status)
	want[people[stopped].Id] = "skipped suppressed"
	x.Record(notifications.CollectionSuppressions, map[string]any{"channel": "sms", "address": manual, "kind": "promotional", "reason": "manual"})
	want[people[manual].Id] = "skipped suppressed"
	switchOff(x.App, people[off], x.category("promotional"), "sms")
	want[people[off].Id] = "skipped opted_out"
	const newNumber = "+15005552000"
	changed := x.Reload(people[moved])
	changed.Set("phone", newNumber)
	require.NoError(t, x.Save(changed))
	agree(x.App, changed, "sms") // a consent is about one number
	require.NoError(t, x.Delete(x.Reload(people[gone])))
	delete(want, people[gone].Id)
	want[""] = "skipped recipient_gone" // nothing tells any more whose it was
	time.Sleep(passAge)                 // what waits becomes too old to be trusted

	x.twilio.SetAll(providertest.TwilioFault{})
	x.twilio.Release()
	n = until(t, x.App, n, "status", "sent")
	got, explained := ends(t, x.App, n)
	require.Equal(t, want, got)
	require.Equal(t, "This address is on the suppression list (stop).", explained[people[stopped].Id])
	require.Equal(t, "This address is on the suppression list (manual).", explained[people[manual].Id])
	require.NotEmpty(t, explained[people[off].Id])
	for _, number := range []string{stopped, manual, off, moved, gone} {
		require.Empty(t, x.twilio.To(number), "no request for %s", number)
	}
	require.Len(t, x.twilio.To(newNumber), 1)
	require.Equal(t, 4, x.twilio.Total())
	require.Equal(t, []int{8, 4, 4, 0}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("skipped"), n.GetInt("pending")})
	x.left(4)
}

func TestAnOptOutOfMailDuringAPassCounts(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{Behaviour: providertest.Behaviour{All: providertest.Script{DotDelay: time.Hour}}})
	app := pbtest.NewApp(t, pbtest.WithConfig(production), pbtest.WithConfig(assumeConsent))
	app.Handler()
	mailProvider(t, app, smtp.Config("hello@example.com"), "")
	reachable(t, app, shopURL)
	news := app.Record(notifications.CollectionCategories, map[string]any{"key": "news", "name": "News", "kind": "promotional", "canOptOut": true})
	people := map[string]*core.Record{}
	for i := range 7 {
		people[mailAddress(i)] = app.User(mailAddress(i))
	}
	n := send(t, app, map[string]any{"category": news.Id})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, smtp.Await(ctx, 2))
	want := map[string]string{}
	var waiting []string
	for address, user := range people {
		want[user.Id] = "accepted "
		if len(smtp.To(address)) == 0 {
			waiting = append(waiting, address)
		}
	}
	require.Len(t, waiting, 5)

	suppressed, off, back, moved := waiting[0], waiting[1], waiting[2], waiting[3]
	app.Record(notifications.CollectionSuppressions, map[string]any{"channel": "email", "address": suppressed, "reason": "complaint"})
	want[people[suppressed].Id] = "skipped suppressed"
	switchOff(app, people[off], news.Id, "email")
	want[people[off].Id] = "skipped opted_out"
	// For another channel, or another address: neither is this one's.
	switchOff(app, people[back], news.Id, "sms")
	app.Record(notifications.CollectionSuppressions, map[string]any{"channel": "email", "address": "x" + back, "reason": "manual"})
	changed := app.Reload(people[moved])
	changed.Set("email", "new@example.com")
	require.NoError(t, app.Save(changed))
	time.Sleep(passAge) // what waits becomes too old to be trusted

	smtp.Set(providertest.Behaviour{})
	require.True(t, waitFor(func() bool { smtp.Release(); return app.Reload(n).GetString("status") == "sent" }))
	got, _ := ends(t, app, n)
	require.Equal(t, want, got)
	for _, address := range []string{suppressed, off, moved} {
		require.Empty(t, smtp.To(address), address)
	}
	require.Len(t, smtp.To("new@example.com"), 1)
	require.Equal(t, 5, smtp.Total())
}

// A device that somebody else signs in on, or that its owner signs out on, gets
// nothing more of the former owner's, however long a push had been waiting.
func TestADeviceThatChangesHandsDuringAPass(t *testing.T) {
	t.Parallel()
	x := newPushing(t)
	x.people(6, "ios")
	apple := providertest.NewAPNs(t, providertest.APNsOptions{KeyID: "KEY1234567", TeamID: "TEAM123456", Topics: []string{pushBundle}})
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	until(t, x.App, x.provider("apns", apple.Config(pushBundle), key.PEM, ""), "state", "ok")
	apple.Set(providertest.APNsBehaviour{All: providertest.APNsScript{Hold: true}})
	category, err := x.FindFirstRecordByData(notifications.CollectionCategories, "key", "promotional")
	require.NoError(t, err)
	n := send(t, x.App, map[string]any{"title": "Hello", "channels": []string{"push"}, "category": category.Id})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, apple.Await(ctx, 1))

	want, users, devices := map[string]string{}, map[string]*core.Record{}, map[string]*core.Record{}
	var waiting []string
	for i := range 6 {
		token := iosToken(i)
		users[token], err = x.FindAuthRecordByEmail("users", mailAddress(i))
		require.NoError(t, err)
		devices[token], err = x.FindFirstRecordByData(notifications.CollectionDevices, "token", token)
		require.NoError(t, err)
		want[users[token].Id] = "accepted "
		if apple.Count(token) == 0 {
			waiting = append(waiting, token)
		}
	}
	require.Len(t, waiting, 5)

	taken, left, renewed, off := waiting[0], waiting[1], waiting[2], waiting[3]
	next := x.User("next@example.com")
	moved := registered(t, x.App, next, map[string]any{"platform": "ios", "token": taken})
	require.Equal(t, devices[taken].Id, moved["id"])
	want[users[taken].Id] = "skipped no_address"
	require.Equal(t, http.StatusNoContent, x.Send(http.MethodDelete, devicesPath+"/"+devices[left].Id, nil, x.Token(users[left])).Status)
	want[users[left].Id] = "skipped no_address"
	fresh := iosToken(100)
	device := x.Reload(devices[renewed])
	device.Set("token", fresh)
	require.NoError(t, x.SaveWithContext(notifications.AsServer(t.Context()), device))
	switchOff(x.App, users[off], category.Id, "push")
	want[users[off].Id] = "skipped opted_out"
	time.Sleep(passAge) // what waits becomes too old to be trusted

	apple.Set(providertest.APNsBehaviour{})
	apple.Release()
	n = until(t, x.App, n, "status", "sent")
	got, explained := ends(t, x.App, n)
	require.Equal(t, want, got)
	require.Contains(t, explained[users[taken].Id], "signed")
	for _, token := range []string{taken, left, renewed, off} {
		require.Zero(t, apple.Count(token), "nothing reaches %s", token)
	}
	require.Equal(t, 1, apple.Count(fresh), "the same person's device has another token")
	require.Equal(t, 3, apple.Total())
	require.Equal(t, []int{6, 3, 3, 0}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("skipped"), n.GetInt("pending")})

	// The new owner gets what is theirs.
	until(t, x.App, x.Record(notifications.CollectionNotifications, map[string]any{"title": "Welcome", "channels": []string{"push"},
		"audience": "users", "users": []string{next.Id}, "action": "send"}), "status", "sent")
	require.Equal(t, 1, apple.Count(taken))
}

// Nothing leaves while it cannot be found out whether it still may.
func TestNothingLeavesWithoutASecondLook(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{Behaviour: providertest.Behaviour{All: providertest.Script{DotDelay: time.Hour}}})
	app := pbtest.NewApp(t, pbtest.WithConfig(production))
	app.Handler()
	provider := until(t, app, mailProvider(t, app, smtp.Config("hello@example.com"), ""), "state", "ok")
	for i := range 5 {
		app.User(mailAddress(i))
	}
	n := send(t, app, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, smtp.Await(ctx, 2))
	rename := func(from, to string) {
		_, err := app.NonconcurrentDB().NewQuery("ALTER TABLE " + from + " RENAME TO " + to).Execute()
		require.NoError(t, err)
	}
	rename("notification_suppressions", "elsewhere")
	time.Sleep(passAge) // what waits becomes too old to be trusted
	smtp.Set(providertest.Behaviour{})
	require.True(t, waitFor(func() bool { smtp.Release(); return app.Reload(provider).GetString("state") == "failing" }))
	require.Contains(t, app.Reload(provider).GetString("stateReason"), "database")
	require.Equal(t, 2, smtp.Total())
	rename("elsewhere", "notification_suppressions")
	until(t, app, n, "status", "sent")
	require.Equal(t, 5, smtp.Total(), "everybody once")
}
