package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMessagesInTheDashboard previews, tests and sends again by mouse and keyboard.
func TestMessagesInTheDashboard(t *testing.T) {
	t.Parallel()
	needPeers(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(secret, []byte("the-owner-password"), 0o600))
	server := startDevices(t, dir, freeAddress(t), "SUPERUSER_EMAIL=owner@example.com", "SUPERUSER_PASSWORD_FILE="+secret)
	out, err := exec.Command("node", "messages.mjs", server.base, "owner@example.com", "the-owner-password", os.Getenv("PICTURES")).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    what failed is sent again")
	t.Logf("%s", out)
}
