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
	for ours, want := range map[bool]int{true: 404, false: 200} { // an owner's folder is served as PocketBase does
		app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) {
			c.Public, c.PublicFallback, c.PublicIsOurs = fstest.MapFS{"index.html": {Data: []byte("<h1>Page</h1>")}}, true, ours
		}))
		require.Equal(t, 200, app.Send("GET", "/anywhere", nil, "").Status)
		require.Equal(t, 200, app.Send("GET", "/apis", nil, "").Status)
		require.Equal(t, want, app.Send("GET", "/api/version-chek", nil, "").Status)
		require.Equal(t, want, app.Send("GET", "/api", nil, "").Status)
		require.Equal(t, 200, app.Send("GET", "/api/health", nil, "").Status)
	}
}
