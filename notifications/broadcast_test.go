package notifications_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
)

// crowd makes people with a device each, several batches of them.
func (a *pushApp) crowd(n int) {
	a.t.Helper()
	require.NoError(a.t, a.RunInTransaction(func(txApp core.App) error {
		for i := range n {
			params := dbx.Params{"id": fmt.Sprintf("p%014d", i), "email": fmt.Sprintf("p%d@example.com", i), "token": appleToken(fmt.Sprintf("t-%d", i))}
			for _, sql := range []string{
				"INSERT INTO users (id, email, tokenKey, password) VALUES ({:id}, {:email}, {:id}, '')",
				"INSERT INTO devices (id, user, platform, pushService, token, status, registeredAt) VALUES ({:id}, {:id}, 'ios', 'apns', {:token}, 'active', '2026-01-01 00:00:00.000Z')",
			} {
				if _, err := txApp.DB().NewQuery(sql).Bind(params).Execute(); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

func (a *pushApp) act(n *core.Record, action string) *core.Record {
	a.t.Helper()
	n = a.Reload(n)
	n.Set("action", action)
	require.NoError(a.t, a.Save(n))
	return n
}

// addsUp says whether the counts are those of a number of deliveries.
func addsUp(n *core.Record, total int) bool {
	sum := 0
	for _, field := range []string{"sent", "failed", "skipped", "pending", "unknown", "cancelled"} {
		sum += n.GetInt(field)
	}
	return n.GetInt("total") == total && sum == total
}

// A broadcast that is stopped in the middle has a row for everybody, and goes on
// where it stopped: its batches become rows in different ways then.
func TestABroadcastStoppedInTheMiddle(t *testing.T) {
	t.Parallel()
	const people = 1500 // three batches and more
	for name, stop := range map[string]func(app *pushApp, n *core.Record){
		"paused and resumed": func(app *pushApp, n *core.Record) {
			app.act(n, "pause")
			close(app.peer.hold)
			require.Eventually(t, func() bool {
				rows, err := app.CountRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id})
				require.NoError(t, err)
				return rows == people && addsUp(app.Reload(n), people)
			}, patience, 20*time.Millisecond, "everybody has a row")
			require.Equal(t, "paused", app.Reload(n).GetString("status"))
			require.Positive(t, app.Reload(n).GetInt("pending"))
			app.act(n, "resume")
			n = app.ends(n, "sent")
			require.True(t, addsUp(n, people))
			require.Equal(t, people, n.GetInt("sent"))
		},
		"cancelled": func(app *pushApp, n *core.Record) {
			app.act(n, "cancel")
			close(app.peer.hold)
			// What was on its way is counted as cancelled until its answer is stored.
			require.Eventually(t, func() bool {
				n = app.Reload(n)
				return addsUp(n, people) && n.GetInt("pending") == 0 && n.GetInt("sent") == app.peer.total()
			}, patience, 20*time.Millisecond, "what went out is told as sent")
			require.Equal(t, "cancelled", n.GetString("status"))
			require.Positive(t, n.GetInt("cancelled"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := newPushApp(t, apnsRow)
			app.crowd(people)
			app.peer.hold = make(chan struct{})
			n := app.push(nil)
			require.Eventually(t, func() bool { return app.peer.total() >= 4 && app.Reload(n).GetInt("total") == people }, patience, 5*time.Millisecond)
			stop(app, n)
			app.peer.mu.Lock()
			defer app.peer.mu.Unlock()
			for token, all := range app.peer.got {
				require.Len(t, all, 1, token)
			}
		})
	}
}
