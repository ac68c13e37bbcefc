package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// jobHooks are handlers and a door to enqueue through, as an owner's developer writes
// them.
const jobHooks = `
$jobs.on("shop.price", (job) => ({price: job.args.n * 3}));
$jobs.on("shop.throws", (job) => { throw new Error("out of ink: token=abcdef123") });
$jobs.on("shop.hangs", (job) => { for (;;) {} });
$jobs.on("shop.again", (job) => { if (job.attempt === 1) job.cancel("there is no paper"); return "printed" });
routerAdd("POST", "/enqueue", (e) => {
	const asked = e.requestInfo().body;
	const options = asked.options || {};
	if (e.auth) options.owner = e.auth;
	return e.json(200, {id: $jobs.enqueue(asked.kind, asked.args, options)});
});
`

// TestJobMonitor looks at jobs that go wrong in every way, in a real browser, and at
// results through the stock SDK.
func TestJobMonitor(t *testing.T) {
	t.Parallel()
	needPeers(t)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "pb_hooks"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pb_hooks", "jobs.pb.js"), []byte(jobHooks), 0o600))
	server := startOwned(t, dir)
	out, err := exec.Command("node", "jobs.mjs", server.base, ownerEmail, ownerPassword, os.Getenv("PICTURES")).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    a queue is paused and goes on")
	t.Logf("%s", out)
}
