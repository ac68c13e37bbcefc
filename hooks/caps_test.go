package hooks_test

import (
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

func capped(app *pbtest.App, key string, most, hours int) *core.Record {
	return app.Record(notifications.CollectionCategories, map[string]any{"key": key, "name": key, "kind": "promotional", "canOptOut": true, "frequencyCap": most, "frequencyWindow": hours})
}

func TestFrequencyCaps(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-02T12:00:00Z")
	app := pbtest.NewApp(t, c.option())
	app.Handler()
	ana, bo := app.User("ana@example.com"), app.User("bo@example.com")
	agree(app, ana, "email")
	agree(app, bo, "email")
	app.Record(notifications.CollectionDevices, map[string]any{"user": ana.Id, "platform": "android", "token": "one"})
	app.Record(notifications.CollectionDevices, map[string]any{"user": ana.Id, "platform": "android", "token": "two"})
	news, other, free := capped(app, "news", 2, 24), capped(app, "other", 1, 0), capped(app, "free", 0, 24)
	// to sends and returns what became of it for each status and reason.
	to := func(category *core.Record, users []string, channels ...string) map[string]int {
		t.Helper()
		if channels == nil {
			channels = []string{"email"}
		}
		n := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hi", "channels": channels, "audience": "users", "users": users, "category": category.Id, "action": "send"})
		require.True(t, waitFor(func() bool { return app.Reload(n).GetString("finishedAt") != "" }))
		rows, err := app.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id})
		require.NoError(t, err)
		got := map[string]int{}
		for _, r := range rows {
			got[r.GetString("status")+" "+r.GetString("reason")]++
			if r.GetString("reason") == "frequency_cap" {
				require.Contains(t, r.GetString("explanation"), "frequency cap allows: ")
			}
		}
		return got
	}
	const out, over = "captured captured", "skipped frequency_cap"
	both := []string{ana.Id, bo.Id}

	// One notification is one message, on however many channels and devices.
	require.Equal(t, map[string]int{out: 3, "delivered ": 1}, to(news, []string{ana.Id}, "push", "email", "inbox"))
	require.Equal(t, map[string]int{out: 1}, to(news, []string{ana.Id}))
	require.Equal(t, map[string]int{out: 1, over: 1}, to(news, both), "Ana had two")
	require.Equal(t, map[string]int{over: 3, "delivered ": 1, "skipped no_address": 1}, to(news, both, "push", "inbox"), "hers on both channels; Bo has no device")
	// Other categories count by themselves; without a window it is a day; without a cap there is none.
	require.Equal(t, map[string]int{out: 1}, to(other, []string{ana.Id}))
	require.Equal(t, map[string]int{over: 1}, to(other, []string{ana.Id}))
	for range 3 {
		require.Equal(t, map[string]int{out: 1}, to(free, []string{ana.Id}))
	}
	// Only what went out counts, and only for as long as the window lasts.
	c.set(c.now().Add(24*time.Hour - time.Second))
	require.Equal(t, map[string]int{over: 1}, to(news, []string{ana.Id}))
	c.set(c.now().Add(2 * time.Second))
	require.Equal(t, map[string]int{out: 2}, to(news, both))
	require.Equal(t, map[string]int{out: 1}, to(other, []string{ana.Id}))

	// A change counts at once.
	root := app.Token(app.Superuser("root@example.com"))
	require.Equal(t, http.StatusOK, app.Send(http.MethodPatch, "/api/collections/notification_categories/records/"+news.Id, map[string]any{"frequencyCap": 1}, root).Status)
	require.Equal(t, map[string]int{over: 2}, to(news, both))
	require.Equal(t, http.StatusOK, app.Send(http.MethodPatch, "/api/collections/notification_categories/records/"+news.Id, map[string]any{"frequencyCap": 0}, root).Status)
	require.Equal(t, map[string]int{out: 2}, to(news, both))
	// Sending one again on purpose is that message still.
	resent := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hi", "channels": []string{"email"}, "audience": "users", "users": []string{bo.Id}, "category": capped(app, "once", 1, 24).Id, "action": "send"})
	until(t, app, resent, "status", "sent")
	delivery, err := app.FindFirstRecordByData(notifications.CollectionDeliveries, "notification", resent.Id)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, app.Send(http.MethodPost, "/api/notifications/deliveries/"+delivery.Id+"/resend", nil, root).Status)
	require.True(t, waitFor(func() bool { return app.Reload(resent).GetInt("sent") == 2 }))
}

// However many notifications are on their way at once, nobody gets one too many, and
// nobody one too few.
func TestFrequencyCapsAtTheSameTime(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	people := []string{x.ana.Id}
	for i := range 19 {
		u := x.User(mailAddress(i), map[string]any{"phone": phoneNumber(i)})
		agree(x.App, u, "sms")
		people = append(people, u.Id)
	}
	x.twilio.SetAll(providertest.TwilioFault{Delay: 20 * time.Millisecond}) // they overlap for certain
	const most = 1
	news := capped(x.App, "news", most, 24)
	var all []*core.Record
	for range 12 {
		all = append(all, x.Record(notifications.CollectionNotifications, map[string]any{"title": "Sale", "channels": []string{"sms"}, "audience": "users",
			"users": people, "category": news.Id, "action": "send"}))
	}
	for _, n := range all {
		n = until(t, x.App, n, "status", "sent")
		require.Equal(t, len(people), n.GetInt("sent")+n.GetInt("skipped"))
	}
	got := map[string]int{}
	for _, m := range x.twilio.Messages() {
		got[m.To]++
	}
	require.Len(t, got, len(people))
	for phone, n := range got {
		require.Equal(t, most, n, phone)
	}
}

// A message that failed leaves its place to another one.
func TestWhatFailedIsNotCounted(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	news := capped(x.App, "news", 1, 24)
	x.twilio.Script(anasPhone, providertest.TwilioFault{Code: 21614})
	text := func(status string) string {
		t.Helper()
		n := x.Record(notifications.CollectionNotifications, map[string]any{"title": "Sale", "channels": []string{"sms"}, "audience": "users", "users": []string{x.ana.Id}, "category": news.Id, "action": "send"})
		until(t, x.App, n, "status", status)
		got, _ := ends(t, x.App, n)
		return got[x.ana.Id]
	}
	require.Equal(t, "failed recipient_blocked", text("failed"))
	x.twilio.Script(anasPhone, providertest.TwilioFault{Drop: true})
	require.Equal(t, "unknown no_answer", text("sent_with_failures"), "that may have arrived")
	require.Equal(t, "skipped frequency_cap", text("sent"))
}
