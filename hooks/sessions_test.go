package hooks_test

import (
	"net/http"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
)

const sessionsPath = "/api/collections/sessions/records"

// signIn signs r in with its password, as an app does.
func signIn(t testing.TB, app *pbtest.App, r *core.Record) string {
	t.Helper()
	res := app.Send(http.MethodPost, "/api/collections/"+r.Collection().Name+"/auth-with-password",
		map[string]any{"identity": r.Email(), "password": pbtest.Password}, "")
	require.Equal(t, http.StatusOK, res.Status, res)
	return res.JSON(t)["token"].(string)
}

func sessionID(t testing.TB, token string) string {
	t.Helper()
	claims, ok := accounts.ReadClaims(token)
	require.True(t, ok)
	return claims.Session
}

// list returns the records of a list answer.
func list(t testing.TB, app *pbtest.App, path, token string) []map[string]any {
	t.Helper()
	res := app.Send(http.MethodGet, path, nil, token)
	require.Equal(t, http.StatusOK, res.Status, res)
	items := []map[string]any{}
	for _, item := range res.JSON(t)["items"].([]any) {
		items = append(items, item.(map[string]any))
	}
	return items
}

func TestSignInMakesASession(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	for _, who := range []*core.Record{app.User("ana@example.com"), app.Superuser("root@example.com")} {
		first, second := signIn(t, app, who), signIn(t, app, who)
		mine := sessionsPath + "?filter=(recordRef='" + who.Id + "')" // a superuser sees everybody's
		rows := list(t, app, mine, first)
		require.Len(t, rows, 2)
		require.Equal(t, "sign_in", rows[0]["kind"])

		res := app.Send(http.MethodDelete, sessionsPath+"/"+sessionID(t, second), nil, first)
		require.Equal(t, http.StatusNoContent, res.Status, res)
		res = app.Send(http.MethodGet, sessionsPath, nil, second)
		require.Equal(t, http.StatusUnauthorized, res.Status, res)
		require.Len(t, list(t, app, mine, first), 1)
	}
}
