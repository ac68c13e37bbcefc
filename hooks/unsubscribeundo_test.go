package hooks_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
)

// A mail gets forwarded, and whoever reads it has the link: it undoes what a link did,
// and not what the person decided in the app.
func TestALinkDoesNotUndoWhatAPersonDecidedInTheApp(t *testing.T) {
	t.Parallel()
	x := newOptingOut(t)
	off := "email off " + promotional
	res := x.Send(http.MethodPost, "/api/collections/notification_preferences/records",
		map[string]any{"category": promotional, "channel": "email", "enabled": false}, x.Token(x.ana))
	require.Equal(t, http.StatusOK, res.Status, string(res.Body))
	require.NotContains(t, x.post(url.Values{"action": {"undo"}}), ">Undo<")
	require.Equal(t, []string{off}, x.held())
	x.post(url.Values{"scope": {"category"}}) // it is off already: that does not make it the link's
	x.post(url.Values{"action": {"undo"}})
	require.Equal(t, []string{off}, x.held())

	// Switched on in the app, off by the link, and then off in the app for good.
	wish := must(x.FindFirstRecordByData(notifications.CollectionPreferences, "user", x.ana.Id))
	path := "/api/collections/notification_preferences/records/" + wish.Id
	require.Equal(t, http.StatusOK, x.Send(http.MethodPatch, path, map[string]any{"enabled": true}, x.Token(x.ana)).Status)
	require.Contains(t, x.post(url.Values{"scope": {"category"}}), ">Undo<")
	x.post(url.Values{"action": {"undo"}})
	require.Empty(t, x.held())
	x.post(url.Values{"scope": {"category"}})
	require.Equal(t, http.StatusOK, x.Send(http.MethodPatch, path, map[string]any{"enabled": false, "quietFrom": "22:00", "quietTo": "07:00"}, x.Token(x.ana)).Status)
	x.post(url.Values{"action": {"undo"}})
	require.Equal(t, []string{off}, x.held())
}
