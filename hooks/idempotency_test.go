package hooks_test

import (
	"errors"
	"net/http"
	"sync"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// With the same key a message is there once, whoever asks for it again and however
// many do at the same time.
func TestOneMessageForAKey(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	root := app.Token(app.Superuser("root@example.com"))
	body := func(key string) map[string]any {
		return map[string]any{"title": "Receipt", "channels": []string{"inbox"}, "audience": "users", "users": []string{ana.Id}, "idempotencyKey": key, "action": "send"}
	}
	create := func(key, token string) pbtest.Response {
		return app.Send(http.MethodPost, "/api/collections/notifications/records", body(key), token)
	}
	for name, tc := range map[string]struct {
		token  string
		status int
	}{
		"guest": {"", http.StatusUnauthorized}, "other": {app.Token(app.User("bo@example.com")), http.StatusForbidden},
		"the person it is for": {app.Token(ana), http.StatusForbidden}, "superuser": {root, http.StatusOK},
	} {
		require.Equal(t, tc.status, create("roles", tc.token).Status, name)
	}

	var mu sync.Mutex
	statuses := map[int]int{}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			res := create("order-17", root)
			mu.Lock()
			defer mu.Unlock()
			statuses[res.Status]++
			if res.Status != http.StatusOK {
				require.Contains(t, res.JSON(t)["data"], "idempotencyKey")
			}
		})
	}
	all.Wait()
	require.Equal(t, map[int]int{http.StatusOK: 1, http.StatusBadRequest: 9}, statuses)

	// Go code too; a rolled back one leaves its key free, and no key is no key.
	col, err := app.FindCollectionByNameOrId(notifications.CollectionNotifications)
	require.NoError(t, err)
	save := func(in core.App, key string) error {
		r := core.NewRecord(col)
		r.Load(body(key))
		return in.Save(r)
	}
	require.Error(t, save(app, "order-17"))
	rolledBack := errors.New("changed my mind")
	require.ErrorIs(t, app.RunInTransaction(func(txApp core.App) error {
		require.NoError(t, save(txApp, "order-18"))
		return rolledBack
	}), rolledBack)
	require.NoError(t, save(app, "order-18"))
	require.NoError(t, save(app, ""))
	require.NoError(t, save(app, ""))

	require.True(t, waitFor(func() bool {
		open, err := app.CountRecords(notifications.CollectionNotifications, dbx.Not(dbx.HashExp{"status": "sent"}))
		require.NoError(t, err)
		return open == 0
	}))
	told, err := app.CountRecords(notifications.CollectionInbox)
	require.NoError(t, err)
	require.EqualValues(t, 5, told)
}
