package pbtest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

func TestNewApp(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Cron().SetInterval(time.Millisecond) // in place of a minute

	_, err := app.FindCollectionByNameOrId(notifications.CollectionNotifications)
	require.NoError(t, err)
	require.NotNil(t, core.App(app))

	user := app.User("a@example.com", map[string]any{"name": "Ada"})
	require.Equal(t, "Ada", app.Reload(user).GetString("name"))

	res := app.Send("POST", "/api/collections/users/auth-with-password",
		map[string]any{"identity": "a@example.com", "password": pbtest.Password}, "")
	require.Equal(t, 200, res.Status, res.String())

	admin := app.Token(app.Superuser("root@example.com"))
	require.Equal(t, 403, app.Send("GET", "/api/collections/notifications/records", nil, app.Token(user)).Status)
	require.Equal(t, 200, app.Send("GET", "/api/collections/notifications/records", nil, admin).Status)

	httpRes, err := http.Get(app.URL() + "/api/health")
	require.NoError(t, err)
	require.NoError(t, httpRes.Body.Close())
	require.Equal(t, 200, httpRes.StatusCode)
	require.False(t, app.Cron().HasStarted(), "no test runs into the beginning of a minute")
}

func TestAppsAreApart(t *testing.T) {
	t.Parallel()
	one, two := pbtest.NewApp(t), pbtest.NewApp(t)
	one.User("a@example.com")
	n, err := two.CountRecords("users")
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestEndsOnce(t *testing.T) {
	t.Parallel()
	ends := 0
	t.Run("scenario", func(t *testing.T) {
		(&tests.ApiScenario{
			Method: "GET", URL: "/api/health", ExpectedStatus: 200, ExpectedContent: []string{`"code":200`},
			TestAppFactory: func(t testing.TB) *tests.TestApp {
				app := pbtest.Factory()(t)
				app.OnTerminate().BindFunc(func(e *core.TerminateEvent) error {
					ends++
					return e.Next()
				})
				return app
			},
		}).Test(t)
	})
	require.Equal(t, 1, ends)
}
