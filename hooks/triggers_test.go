package hooks_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

// welcome switches the Welcome trigger on and serves.
func welcome(t *testing.T, app *pbtest.App) {
	t.Helper()
	trigger, err := app.FindRecordById(notifications.CollectionTriggers, "gwwelcome000000")
	require.NoError(t, err)
	trigger.Set("enabled", true)
	require.NoError(t, app.Save(trigger))
	app.Handler()
}

func signUp(email string) map[string]any {
	return map[string]any{"email": email, "password": pbtest.Password, "passwordConfirm": pbtest.Password, "name": "Ana"}
}

// triggered waits until all jobs are done and returns what triggers sent.
func triggered(t *testing.T, app *pbtest.App) []*core.Record {
	t.Helper()
	require.Eventually(t, func() bool {
		n, err := jobs.CountDue(t.Context(), app)
		require.NoError(t, err)
		open, err := app.CountRecords(notifications.CollectionNotifications, dbx.HashExp{"status": []any{"queued", "sending"}})
		require.NoError(t, err)
		return n == 0 && open == 0
	}, patience, 20*time.Millisecond)
	records, err := app.FindAllRecords(notifications.CollectionNotifications, dbx.NewExp("[[trigger]] != ''"))
	require.NoError(t, err)
	return records
}

func TestWelcomeReachesWhoSignsUp(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	welcome(t, app)
	res := app.Send(http.MethodPost, "/api/collections/users/records", signUp("ana@example.com"), "")
	require.Equal(t, http.StatusOK, res.Status, string(res.Body))
	require.Eventually(t, func() bool {
		n, err := app.CountRecords(notifications.CollectionNotifications, dbx.HashExp{"status": "sent"})
		require.NoError(t, err)
		return n == 1
	}, patience, 20*time.Millisecond)
	sent := triggered(t, app)
	require.Len(t, sent, 1)
	require.Equal(t, res.Header.Get("X-Request-Id"), sent[0].GetString("requestId"), "the request is known to the message")
	deliveries, err := app.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": sent[0].Id})
	require.NoError(t, err)
	require.Len(t, deliveries, 2)
	for _, d := range deliveries {
		require.Equal(t, res.Header.Get("X-Request-Id"), d.GetString("requestId"))
	}
}

func TestWelcomeIsNotSentWhenNobodySignedUp(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	welcome(t, app)
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)

	// Refused by validation.
	bad := signUp("not an address")
	require.Equal(t, http.StatusBadRequest, app.Send(http.MethodPost, "/api/collections/users/records", bad, "").Status)

	// Rolled back.
	err = app.RunInTransaction(func(txApp core.App) error {
		u := core.NewRecord(users)
		u.SetEmail("gone@example.com")
		u.SetRandomPassword()
		require.NoError(t, txApp.Save(u))
		return errors.New("changed my mind")
	})
	require.Error(t, err)

	// Made by a superuser: an import, or somebody who is told in person.
	root := app.Superuser("root@example.com")
	res := app.Send(http.MethodPost, "/api/collections/users/records", signUp("byhand@example.com"), app.Token(root))
	require.Equal(t, http.StatusOK, res.Status, string(res.Body))

	// Imported by code, in one transaction. The rows are made without the slow
	// password hash.
	require.NoError(t, app.RunInTransaction(func(txApp core.App) error {
		for range 10_000 {
			u := core.NewRecord(users)
			u.SetEmail(security.PseudorandomString(12) + "@example.com")
			u.SetTokenKey(security.PseudorandomString(40))
			if err := txApp.SaveNoValidate(u); err != nil {
				return err
			}
		}
		return nil
	}))
	require.Empty(t, triggered(t, app))
}

func TestUpdatedFiresOncePerTransition(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	orders := core.NewBaseCollection("orders")
	orders.Fields.Add(&core.TextField{Name: "status"}, &core.RelationField{Name: "buyer", CollectionId: users.Id, MaxSelect: 1})
	require.NoError(t, app.Save(orders))
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "shipped", "title": "Order {{ record.id }} is {{ record.status }}"})
	app.Record(notifications.CollectionTriggers, map[string]any{"name": "Shipped", "collection": "orders", "event": "updated", "enabled": true,
		"condition": `status = "shipped"`, "recipient": "buyer", "template": template.Id, "channels": []string{"inbox"}})
	app.Handler()

	ana := app.User("ana@example.com")
	order := core.NewRecord(orders)
	order.Set("buyer", ana.Id)
	order.Set("status", "paid")
	require.NoError(t, app.Save(order))
	// A message tells how things stand when it is made, so each is waited for.
	for told, statuses := range [][]string{{"packed"}, {"shipped", "shipped"}, {"returned", "shipped"}} {
		for _, status := range statuses {
			order = app.Reload(order)
			order.Set("status", status)
			require.NoError(t, app.Save(order))
		}
		require.Eventually(t, func() bool {
			n, err := app.CountRecords(notifications.CollectionInbox, dbx.HashExp{"user": ana.Id, "title": "Order " + order.Id + " is shipped"})
			require.NoError(t, err)
			return int(n) == told
		}, patience, 20*time.Millisecond)
	}
	require.Len(t, triggered(t, app), 2)
}

func TestTriggersThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	good := func() map[string]any {
		return map[string]any{"name": "x", "collection": "users", "event": "created", "template": "gwwelcome000000", "channels": []string{"inbox"}}
	}
	for field, value := range map[string]any{
		"collection": "nowhere", "condition": "status = = 1", "recipient": "buyer", "event": "someday", "template": "missing00000000", "channels": []string{},
	} {
		body := good()
		body[field] = value
		res := app.Send(http.MethodPost, "/api/collections/notification_triggers/records", body, root)
		require.Equal(t, http.StatusBadRequest, res.Status, "%s: %s", field, res.Body)
		require.Contains(t, string(res.Body), `"`+field+`"`)
	}
	require.Equal(t, http.StatusOK, app.Send(http.MethodPost, "/api/collections/notification_triggers/records", good(), root).Status)
}

func TestWelcomeAndBatchRequests(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	welcome(t, app)
	settings := app.Settings()
	settings.Batch.Enabled, settings.Batch.MaxRequests, settings.Batch.Timeout = true, 10, 120 // a busy machine hashes slowly
	require.NoError(t, app.Save(settings))
	batch := func(bodies ...map[string]any) int {
		requests := make([]map[string]any, len(bodies))
		for i, body := range bodies {
			requests[i] = map[string]any{"method": http.MethodPost, "url": "/api/collections/users/records", "body": body}
		}
		return app.Send(http.MethodPost, "/api/batch", map[string]any{"requests": requests}, "").Status
	}

	require.Equal(t, http.StatusBadRequest, batch(signUp("ana@example.com"), signUp("not an address")), "the second one rolls the first one back")
	require.Empty(t, triggered(t, app), "nobody signed up")

	require.Equal(t, http.StatusOK, batch(signUp("ana@example.com"), signUp("bo@example.com")))
	require.Len(t, triggered(t, app), 2, "both are welcomed")
}
