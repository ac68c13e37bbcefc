package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
)

// sendingHook greets whoever asks, once a person.
const sendingHook = `
routerAdd("POST", "/api/shop/hello", (e) => {
  const fields = { title: "Hello {{ user.name }}", channels: ["inbox"], users: e.auth, idempotencyKey: "hello " + e.auth.id }
  const people = $notifications.preview(fields, e.app).people
  $notifications.send(fields, e.app)
  const later = $notifications.send({ title: "Later", channels: ["inbox"], users: e.auth, sendAt: new Date("2099-01-01T00:00:00Z") }, e.app)
  $notifications.cancel(later.id, e.app)
  return e.json(200, { people: people, later: $app.findRecordById("notifications", later.id).get("status") })
}, $apis.requireAuth("users"))
`

// TestWishesWithTheStockSDK asks of each thing that decides who gets what what a
// guest, another person, the owner and a superuser can do about it.
func TestWishesWithTheStockSDK(t *testing.T) {
	t.Parallel()
	needNode(t)
	const secret = "a-secret-of-the-mail-provider"
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "pb_hooks"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pb_hooks", "main.pb.js"), []byte(sendingHook), 0o600))
	server := startDevices(t, dir, freeAddress(t), "SUPERUSER_EMAIL="+process.RootEmail, "SUPERUSER_PASSWORD="+process.RootPassword, "EMAIL_WEBHOOK_SECRET="+secret)
	out, err := exec.Command("node", "wishes.mjs", server.base, process.RootEmail, process.RootPassword, secret).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    a JavaScript hook")
	t.Logf("%s", out)
}
