package e2e

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPeopleInTheDashboard exports and erases in a real browser, by mouse and by
// keyboard, ends a session and adds a limit. It is also the proof that our
// extension fits this version of PocketBase's dashboard.
func TestPeopleInTheDashboard(t *testing.T) {
	t.Parallel()
	needPeers(t)
	server := startOwned(t, t.TempDir())
	out, err := exec.Command("node", "people.mjs", server.base, ownerEmail, ownerPassword, os.Getenv("PICTURES")).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    a limit is added and takes effect")
	t.Logf("%s", out)
}
