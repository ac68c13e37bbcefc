package e2e

import (
	"os/exec"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
)

// TestTimingWithTheStockSDK plans messages for later in every way there is, kills the
// server while they wait, and finds them where they were.
func TestTimingWithTheStockSDK(t *testing.T) {
	t.Parallel()
	needNode(t)
	s := &process.Server{Binary: buildBinary(t), Dir: t.TempDir(), Env: []string{"SUPERUSER_EMAIL=" + process.RootEmail, "SUPERUSER_PASSWORD=" + process.RootPassword}}
	require.NoError(t, s.Start())
	t.Cleanup(s.Kill)
	run := func(part, last string) {
		t.Helper()
		out, err := exec.Command("node", "timing.mjs", s.URL(), part, process.RootEmail, process.RootPassword).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "ok    "+last)
		t.Logf("%s", out)
	}
	run("before", "opened")
	s.Kill()
	// The hour after which a push becomes an SMS is over.
	require.NoError(t, s.WithDB(func(db *dbx.DB) error {
		_, err := db.NewQuery("UPDATE notification_deliveries SET updated = {:then} WHERE channel = 'push'").
			Bind(dbx.Params{"then": time.Now().UTC().Add(-2 * time.Hour).Format("2006-01-02 15:04:05.000Z")}).Execute()
		return err
	}))
	require.NoError(t, s.Start())
	run("after", "cancel")
}
