package hooks_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// A slip in what is scheduled mails nobody either: another audience is confirmed anew,
// and other edits are not asked about.
func TestAnotherAudienceOfWhatIsScheduledIsConfirmed(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	ana := app.User("ana@example.com")
	app.User("bo@example.com")
	n := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hi", "audience": "users", "users": []string{ana.Id},
		"channels": []string{"inbox"}, "sendAt": "2099-01-01 10:00:00Z", "action": "send"})
	require.Equal(t, "scheduled", n.GetString("status"))
	edit := func(fields map[string]any) pbtest.Response {
		return app.Send(http.MethodPatch, "/api/collections/notifications/records/"+n.Id, fields, root)
	}

	res := edit(map[string]any{"audience": "everyone"})
	require.Equal(t, http.StatusBadRequest, res.Status, "one person was confirmed by choosing them, two were not: %s", res.Body)
	require.Contains(t, string(res.Body), "This goes to 2 people.")
	require.Equal(t, "users", app.Reload(n).GetString("audience"))

	require.Equal(t, http.StatusOK, edit(map[string]any{"audience": "everyone", "confirmRecipients": 2}).Status)
	app.User("cy@example.com")
	require.Equal(t, http.StatusOK, edit(map[string]any{"title": "Hello"}).Status, "who signs up meanwhile stands in the way of no edit")
	require.Equal(t, http.StatusOK, edit(map[string]any{"audience": "filter", "filter": "email ~ 'ana'"}).Status, "few need no confirmation")
}
