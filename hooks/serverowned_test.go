package hooks_test

import (
	"context"
	"maps"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// forgery has, for a collection with server-owned fields, a record that may be
// made, values that nobody may write, and the first values of these fields.
type forgery struct {
	valid  func(user, other *core.Record) map[string]any
	forged func(user, other *core.Record) map[string]any
	first  map[string]string
	// kept are fields of valid that never change.
	kept []string
}

var forgeries = map[string]forgery{
	notifications.CollectionNotifications: {
		valid: func(_, _ *core.Record) map[string]any { return map[string]any{"title": "Hello"} },
		forged: func(_, _ *core.Record) map[string]any {
			return map[string]any{
				"status": "sent", "statusReason": "forged", "total": 7, "sent": 7, "delivered": 7, "opened": 7, "failed": 7,
				"skipped": 7, "pending": 7, "unknown": 7, "cancelled": 7, "startedAt": "2026-01-01 00:00:00.000Z",
				"finishedAt": "2026-01-01 00:00:00.000Z", "content": map[string]any{"forged": 1}, "plan": map[string]any{"forged": 1},
				"requestId": "forged", "trigger": "forged", "sourceCollection": "forged", "sourceRecord": "forged",
			}
		},
		first: map[string]string{"status": "draft", "total": "0"},
	},
	notifications.CollectionProviders: {
		valid: func(_, _ *core.Record) map[string]any {
			return map[string]any{"name": "Mail", "channel": "email_transactional",
				"config": map[string]any{"host": "127.0.0.1", "port": 2525, "tls": "none", "from": "a@example.com"}, "senderId": "a@example.com"}
		},
		forged: func(_, _ *core.Record) map[string]any {
			return map[string]any{"state": "failing", "stateReason": "forged", "source": "environment"}
		},
		first: map[string]string{"source": "dashboard"},
	},
	notifications.CollectionDevices: {
		valid: func(user, _ *core.Record) map[string]any {
			return map[string]any{"user": user.Id, "platform": "android", "token": "abc"}
		},
		forged: func(_, _ *core.Record) map[string]any {
			return map[string]any{"session": "forged", "status": "gone", "statusReason": "forged", "registeredAt": "2001-01-01 00:00:00.000Z"}
		},
		first: map[string]string{"status": "active"},
		kept:  []string{"user", "token"},
	},
	notifications.CollectionPreferences: {
		valid:  func(user, _ *core.Record) map[string]any { return map[string]any{"user": user.Id} },
		forged: func(_, _ *core.Record) map[string]any { return nil },
		kept:   []string{"user"},
	},
	notifications.CollectionSubscriptions: {
		valid: func(user, _ *core.Record) map[string]any {
			return map[string]any{"user": user.Id, "topic": "topic0000000000"}
		},
		forged: func(_, _ *core.Record) map[string]any { return nil },
		kept:   []string{"user"},
	},
	notifications.CollectionInbox: {
		valid: func(user, _ *core.Record) map[string]any {
			return map[string]any{"user": user.Id, "notification": "n1", "title": "Hello"}
		},
		forged: func(_, _ *core.Record) map[string]any { return nil },
		kept:   []string{"user", "notification"},
	},
}

func TestServerOwnedFields(t *testing.T) {
	t.Parallel()
	for collection, f := range forgeries {
		t.Run(collection, func(t *testing.T) {
			t.Parallel()
			app := pbtest.NewApp(t)
			user, other := app.User("a@example.com"), app.User("b@example.com")
			admin := app.Token(app.Superuser("root@example.com"))
			app.Record(notifications.CollectionTopics, map[string]any{"id": "topic0000000000", "key": "news", "name": "News"})
			col, err := app.FindCollectionByNameOrId(collection)
			require.NoError(t, err)

			forged := f.forged(user, other)
			all := f.valid(user, other)
			maps.Copy(all, forged)

			unforged := func(t *testing.T, r *core.Record) {
				t.Helper()
				for name := range forged {
					require.NotContains(t, r.GetString(name), "forged", name)
					require.NotEqual(t, "7", r.GetString(name), name)
					require.NotContains(t, r.GetString(name), "2026-01-01", name)
					require.NotContains(t, r.GetString(name), "2001-01-01", name)
				}
				for name, want := range f.first {
					require.Equal(t, want, r.GetString(name), name)
				}
				for _, name := range f.kept {
					require.Equal(t, f.valid(user, other)[name], r.GetString(name), name)
				}
			}

			// A superuser, who may do everything else.
			res := app.Send("POST", "/api/collections/"+collection+"/records", all, admin)
			require.Equal(t, 200, res.Status, res.String())
			r, err := app.FindRecordById(collection, res.JSON(t)["id"].(string))
			require.NoError(t, err)
			unforged(t, r)

			change := maps.Clone(forged)
			if change == nil {
				change = map[string]any{}
			}
			for _, name := range f.kept {
				change[name] = other.Id
			}
			res = app.Send("PATCH", "/api/collections/"+collection+"/records/"+r.Id, change, admin)
			require.Equal(t, 200, res.Status, res.String())
			unforged(t, app.Reload(r))

			// Nonsense is ignored as well.
			nonsense := map[string]any{}
			for name := range forged {
				nonsense[name] = "\x00 nonsense {"
			}
			res = app.Send("PATCH", "/api/collections/"+collection+"/records/"+r.Id, nonsense, admin)
			require.Equal(t, 200, res.Status, res.String())
			unforged(t, app.Reload(r))

			// A batch.
			settings := app.Settings()
			settings.Batch.Enabled, settings.Batch.MaxRequests, settings.Batch.Timeout = true, 10, 120
			require.NoError(t, app.Save(settings))
			res = app.Send("POST", "/api/batch", map[string]any{"requests": []any{
				map[string]any{"method": "PATCH", "url": "/api/collections/" + collection + "/records/" + r.Id, "body": change},
			}}, admin)
			require.Equal(t, 200, res.Status, res.String())
			unforged(t, app.Reload(r))

			// Go code, with and without validation, with a record that was read and one
			// that was put together.
			stale := app.Reload(r)
			stale.Load(change)
			require.NoError(t, app.Save(stale))
			unforged(t, stale)
			unforged(t, app.Reload(r))
			stale.Load(change)
			require.NoError(t, app.SaveNoValidate(stale))
			unforged(t, app.Reload(r))
			made := core.NewRecord(col)
			made.Id = r.Id
			made.MarkAsNotNew()
			made.Load(all)
			made.Load(change)
			require.NoError(t, app.Save(made))
			unforged(t, app.Reload(r))

			// The application's own hooks.
			app.OnRecordUpdate(collection).BindFunc(func(e *core.RecordEvent) error {
				if !notifications.IsServer(e.Context) {
					e.Record.Load(change)
				}
				return e.Next()
			})
			require.NoError(t, app.SaveNoValidate(app.Reload(r)))
			unforged(t, app.Reload(r))

			// The server itself.
			server := app.Reload(r)
			server.Load(forged)
			require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), server))
			for name := range forged {
				require.Equal(t, server.GetString(name), app.Reload(r).GetString(name), name)
				require.NotEqual(t, r.GetString(name), server.GetString(name), name)
			}
		})
	}
}

func TestOwnersEditAndServersCountPassEachOther(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	r := app.Record(notifications.CollectionNotifications, map[string]any{"title": "old", "body": "old"})

	// Both read the same record; the server saves first.
	owner, server, stale := app.Reload(r), app.Reload(r), app.Reload(r)
	server.Set("sent", 5)
	require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), server))
	owner.Set("title", "new")
	require.NoError(t, app.Save(owner))
	require.Equal(t, 5, owner.GetInt("sent"), "and the answer tells the truth")

	now := app.Reload(r)
	require.Equal(t, "new", now.GetString("title"))
	require.Equal(t, 5, now.GetInt("sent"))

	// And the other way round.
	stale.Set("sent", 6)
	require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), stale))
	now = app.Reload(r)
	require.Equal(t, "new", now.GetString("title"), "a stale server record leaves the owner's edit")
	require.Equal(t, 6, now.GetInt("sent"))
}

func TestServerOwnedInsideATransaction(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	r := app.Record(notifications.CollectionNotifications, map[string]any{"title": "old"})
	err := app.RunInTransaction(func(txApp core.App) error {
		n, err := txApp.FindRecordById(notifications.CollectionNotifications, r.Id)
		if err != nil {
			return err
		}
		n.Set("title", "new")
		n.Set("sent", 9)
		return txApp.Save(n)
	})
	require.NoError(t, err)
	require.Equal(t, "new", app.Reload(r).GetString("title"))
	require.Zero(t, app.Reload(r).GetInt("sent"))
}

// Go code that saves one record object twice, the second time with a value as it
// was when the object was made or read.
func TestSavingAnObjectAgainWritesWhatWasPutBack(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	r := app.Record(notifications.CollectionProviders, map[string]any{"name": "Push", "channel": "webpush", "enabled": true})
	for _, r := range []*core.Record{r, app.Reload(r)} {
		for _, enabled := range []bool{false, true, false, true} {
			r.Set("enabled", enabled)
			require.NoError(t, app.Save(r))
			require.Equal(t, enabled, app.Reload(r).GetBool("enabled"))
			require.NotContains(t, r.PublicExport(), "groundwork:saved")
		}
	}
}
