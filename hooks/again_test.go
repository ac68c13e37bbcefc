package hooks_test

import (
	"net/http"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func deliveryOf(t *testing.T, app *pbtest.App, n, user *core.Record) *core.Record {
	t.Helper()
	r, err := app.FindFirstRecordByFilter(notifications.CollectionDeliveries, "notification = {:n} && user = {:u} && resendOf = ''", dbx.Params{"n": n.Id, "u": user.Id})
	require.NoError(t, err)
	return r
}

func TestRetryAndResend(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	app := pbtest.NewApp(t, pbtest.WithConfig(production))
	app.Handler()
	mailProvider(t, app, smtp.Config("hello@example.com"), "")
	ana, bo := app.User("ana@example.com"), app.User("bo@example.com")
	root := app.Token(app.Superuser("second-root@example.com"))
	smtp.Script("bo@example.com", providertest.Script{Rcpt: providertest.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such user"}})
	n := until(t, app, send(t, app, nil), "status", "sent_with_failures")
	retry, resend := "/api/notifications/"+n.Id+"/retry", "/api/notifications/deliveries/"+deliveryOf(t, app, n, ana).Id+"/resend"

	for name, who := range map[string]struct {
		token  string
		status int
	}{"guest": {"", http.StatusUnauthorized}, "a person": {app.Token(ana), http.StatusForbidden}} {
		for _, path := range []string{retry, resend} {
			require.Equal(t, who.status, app.Send(http.MethodPost, path, nil, who.token).Status, name)
		}
	}
	require.Equal(t, http.StatusNotFound, app.Send(http.MethodPost, "/api/notifications/nosuch/retry", nil, root).Status)
	require.Equal(t, http.StatusNotFound, app.Send(http.MethodPost, "/api/notifications/deliveries/nosuch/resend", nil, root).Status)

	// The failed one only.
	smtp.Script("bo@example.com", providertest.Script{})
	res := app.Send(http.MethodPost, retry, nil, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	require.EqualValues(t, 1, res.JSON(t)["retried"])
	until(t, app, n, "status", "sent")
	require.Len(t, smtp.To("ana@example.com"), 1)
	require.Len(t, smtp.To("bo@example.com"), 1)
	require.Empty(t, deliveryOf(t, app, n, bo).GetString("explanation"))
	res = app.Send(http.MethodPost, retry, nil, root)
	require.Equal(t, http.StatusBadRequest, res.Status)
	require.Contains(t, res.String(), "No delivery of this notification has failed")

	// One again, as a row of its own that says so.
	res = app.Send(http.MethodPost, resend, nil, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	n = until(t, app, until(t, app, n, "total", "3"), "status", "sent")
	require.Len(t, smtp.To("ana@example.com"), 2)
	require.Len(t, smtp.To("bo@example.com"), 1)
	again, err := app.FindRecordById(notifications.CollectionDeliveries, res.JSON(t)["delivery"].(string))
	require.NoError(t, err)
	require.Equal(t, deliveryOf(t, app, n, ana).Id, again.GetString("resendOf"))
	require.Equal(t, "accepted", again.GetString("status"))

	// What must not be sent again.
	draft := app.Record(notifications.CollectionNotifications, map[string]any{"title": "x"})
	require.Contains(t, app.Send(http.MethodPost, "/api/notifications/"+draft.Id+"/retry", nil, root).String(), "never sent")
	require.Equal(t, http.StatusNoContent, app.Send(http.MethodPost, "/api/collections/users/request-password-reset", map[string]any{"email": "ana@example.com"}, "").Status)
	mail, err := app.FindFirstRecordByFilter(notifications.CollectionDeliveries, "notification = ''")
	require.NoError(t, err)
	until(t, app, mail, "status", "accepted")
	res = app.Send(http.MethodPost, "/api/notifications/deliveries/"+mail.Id+"/resend", nil, root)
	require.Equal(t, http.StatusBadRequest, res.Status)
	require.Contains(t, res.String(), "never kept")
}
