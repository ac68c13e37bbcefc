package hooks_test

import (
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/demo"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// demoPeople are the people of the demo by name.
func demoPeople(t *testing.T, app *pbtest.App) map[string]*core.Record {
	t.Helper()
	found, err := app.FindAllRecords("users")
	require.NoError(t, err)
	people := map[string]*core.Record{}
	for _, r := range found {
		people[r.GetString("name")] = r
	}
	return people
}

// On Saturday at nine on everybody's own clock each person is told what people like
// them bought, and whoever has no history is left alone.
func TestWeekendRecommendations(t *testing.T) {
	t.Parallel()
	for name, day := range map[string]struct {
		friday, saturday   string // noon in UTC; nine o'clock
		tokyo, berlin, end string // when it is nine there, and in New York
	}{
		"summer": {"2025-06-27T12:00:00Z", "2025-06-28 09:00:00.000Z", "2025-06-28T00:00:00Z", "2025-06-28T07:00:00Z", "2025-06-28T13:00:00Z"},
		// New York has changed its clocks, Berlin has not.
		"between two clock changes": {"2025-03-14T12:00:00Z", "2025-03-15 09:00:00.000Z", "2025-03-15T00:00:00Z", "2025-03-15T08:00:00Z", "2025-03-15T13:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := clockAt(t, day.friday)
			app := pbtest.NewApp(t, c.option())
			require.NoError(t, demo.Fill(app, c.now()))
			app.Handler()
			people := demoPeople(t, app)
			template, err := app.FindFirstRecordByData(notifications.CollectionTemplates, "key", "weekend-recommendations")
			require.NoError(t, err)
			n := send(t, app, map[string]any{"title": "", "body": "", "template": template.Id, "channels": []string{"email", "inbox"}, "localTime": true, "sendAt": day.saturday})
			require.Equal(t, "It goes out at 09:00 on "+c.now().AddDate(0, 0, 1).Format("2 January 2006")+" on each person's own clock.", n.GetString("statusReason"))

			inbox := func(name string) []*core.Record {
				rows, err := app.FindAllRecords(notifications.CollectionInbox, dbx.HashExp{"user": people[name].Id})
				require.NoError(t, err)
				return rows
			}
			// waits sees that nothing reaches these people a second before their time.
			waits := func(at string, names ...string) {
				c.step(t, app, n, moment(t, at).Add(-time.Second))
				require.Never(t, func() bool {
					for _, name := range names {
						if len(inbox(name)) > 0 {
							return true
						}
					}
					return false
				}, 300*time.Millisecond, 50*time.Millisecond, at)
			}
			waits(day.tokyo, "Ana", "Bo", "Cleo", "Dan", "Emma")
			c.step(t, app, n, moment(t, day.tokyo))
			require.True(t, waitFor(func() bool { return len(inbox("Dan")) == 1 }))
			waits(day.berlin, "Ana", "Bo", "Cleo")
			c.step(t, app, n, moment(t, day.berlin))
			require.True(t, waitFor(func() bool { return len(inbox("Ana")) == 1 && len(inbox("Cleo")) == 1 }))
			c.step(t, app, n, moment(t, day.end))
			n = until(t, app, n, "status", "sent")

			// Ana is told of the two things that she lacks, and of nothing else.
			require.Len(t, inbox("Ana"), 1)
			require.Equal(t, "For your weekend, Ana", inbox("Ana")[0].GetString("title"))
			require.Equal(t, "People who bought what you bought also like:\nTea cups, 24 €\nHoney, 9 €", inbox("Ana")[0].GetString("body"))
			mail := renderedOf(t, app, n, people["Ana"], "email")
			require.Len(t, mail, 1)
			require.Contains(t, mail[0]["html"], "<ul>\n<li>Tea cups, 24 €</li>\n<li>Honey, 9 €</li></ul>")
			require.Contains(t, mail[0]["html"], "/api/unsubscribe/", "it advertises")
			require.Equal(t, "Pour votre week-end, Cleo", inbox("Cleo")[0].GetString("title"))

			rows, err := app.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id})
			require.NoError(t, err)
			got := map[string]string{}
			for _, r := range rows {
				for name, p := range people {
					if p.Id == r.GetString("user") {
						got[name+" "+r.GetString("channel")] = r.GetString("status") + " " + r.GetString("reason")
					}
				}
			}
			require.Equal(t, map[string]string{
				"Ana email": "captured captured", "Ana inbox": "delivered ",
				"Bo email": "skipped nothing_to_say", "Bo inbox": "skipped nothing_to_say",
				"Cleo email": "captured captured", "Cleo inbox": "delivered ",
				"Dan email": "skipped no_consent", "Dan inbox": "delivered ",
				"Emma email": "skipped no_consent", "Emma inbox": "skipped nothing_to_say",
			}, got)
		})
	}
}
