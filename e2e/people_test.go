package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPeopleInTheDashboard exports and erases in a real browser, by mouse and by
// keyboard, ends a session and adds a limit. It is also the proof that our
// extension fits this version of PocketBase's dashboard.
func TestPeopleInTheDashboard(t *testing.T) {
	t.Parallel()
	needPeers(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(secret, []byte("the-owner-password"), 0o600))
	server := startDevices(t, dir, freeAddress(t), "SUPERUSER_EMAIL=owner@example.com", "SUPERUSER_PASSWORD_FILE="+secret)
	out, err := exec.Command("node", "people.mjs", server.base, "owner@example.com", "the-owner-password", os.Getenv("PICTURES")).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    a limit is added and takes effect")
	t.Logf("%s", out)
}
