package hooks_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
)

// The page answers for its own paths, not for a mistyped route of the API.
func TestAMistypedRouteIsNoPage(t *testing.T) {
	t.Parallel()
	for _, ours := range []bool{true, false} {
		app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) {
			c.Public = fstest.MapFS{"index.html": {Data: []byte("<h1>Page</h1>")}, "api/openapi.json": {Data: []byte("{}")}}
			c.PublicFallback, c.PublicIsOurs = true, ours
		}))
		for path, want := range map[string]int{"/anywhere": 200, "/apis/x": 200, "/api/health": 200, "/api/openapi.json": 200, "/api/version-chek": 404} {
			require.Equal(t, want, app.Send("GET", path, nil, "").Status, path)
		}
	}
}
