package hooks_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
)

// Whoever looks while Postgres is away reads that, and that nothing is lost.
func TestJobMonitorWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) {
		c.JobsDatabaseURL = "postgres://gw:pw-4711@127.0.0.1:1/gw?sslmode=disable"
	}))
	root := app.Token(app.Superuser("root@example.com"))
	for _, path := range []string{"/api/jobs", "/api/jobs/queues", "/api/jobs/aaaaaaaaaaaaaaa"} {
		res := app.Send(http.MethodGet, path, nil, root)
		require.Equal(t, http.StatusServiceUnavailable, res.Status, res.String())
		require.Contains(t, res.JSON(t)["message"], "The database of the jobs does not answer. Nothing is lost")
		require.NotContains(t, res.String(), "4711")
	}
}

// A variable that was forgotten at a restart is told, since nothing fails by it.
func TestForgottenJobsDatabaseIsTold(t *testing.T) {
	t.Parallel()
	const says = "JOBS_DATABASE_URL is not set"
	for want, statement := range map[bool]string{true: "INSERT INTO groundwork_installation (id) VALUES ('abc')", false: "SELECT 1"} {
		log := &logLines{}
		app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = log }))
		_, err := app.NonconcurrentDB().NewQuery(statement).Execute()
		require.NoError(t, err)
		app.Handler()
		if want {
			require.Contains(t, log.String(), says)
		} else {
			require.NotContains(t, log.String(), says)
		}
	}
}
