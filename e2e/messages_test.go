package e2e

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMessagesInTheDashboard previews, tests and sends again by mouse and keyboard.
func TestMessagesInTheDashboard(t *testing.T) {
	t.Parallel()
	needPeers(t)
	server := startOwned(t, t.TempDir())
	out, err := exec.Command("node", "messages.mjs", server.base, ownerEmail, ownerPassword, os.Getenv("PICTURES")).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    what failed is sent again")
	t.Logf("%s", out)
}
