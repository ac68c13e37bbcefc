package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTextsWithTheStockSDK writes, previews, tests and sends messages as an owner's
// script would, and kills the server while it reminds people of dates.
func TestTextsWithTheStockSDK(t *testing.T) {
	t.Parallel()
	needNode(t)
	dir, address := t.TempDir(), freeAddress(t)
	secret := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(secret, []byte("the-owner-password"), 0o600))
	start := func() *devicesServer {
		return startDevices(t, dir, address, "SUPERUSER_EMAIL=owner@example.com", "SUPERUSER_PASSWORD_FILE="+secret)
	}
	server := start()
	run := func(phase, last string) {
		out, err := exec.Command("node", "texts.mjs", server.base, "owner@example.com", "the-owner-password", phase).CombinedOutput()
		require.NoError(t, err, "%s\n%s", out, server.console.String())
		require.Contains(t, string(out), last)
		t.Logf("%s", out)
	}
	run("", "ok    reminders are set")
	// It looks at the dates when it starts. Where a kill meets it is left to chance.
	for range 4 {
		server.kill()
		server = start()
		<-time.After(rand.N(300 * time.Millisecond))
	}
	run("reminded", "ok    each reminder exactly once")
}
