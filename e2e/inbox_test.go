package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestInboxWithTheStockSDK sends a message to everyone, and two people read it as an
// app would. After a crash nothing is lost and nothing is there twice.
func TestInboxWithTheStockSDK(t *testing.T) {
	t.Parallel()
	needNode(t)
	dir, address := t.TempDir(), freeAddress(t)
	secret := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(secret, []byte("the-owner-password"), 0o600))
	env := []string{"SUPERUSER_EMAIL=owner@example.com", "SUPERUSER_PASSWORD_FILE=" + secret}
	server := startDevices(t, dir, address, env...)
	out, err := exec.Command("node", "inbox.mjs", server.base, "owner@example.com", "the-owner-password").CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    a guest has no inbox")
	t.Logf("%s", out)

	signIn := func(collection, email, password string) string {
		code, answer := server.post(t, "", "/api/collections/"+collection+"/auth-with-password", map[string]any{"identity": email, "password": password})
		require.Equal(t, http.StatusOK, code, string(answer))
		var signedIn struct{ Token string }
		require.NoError(t, json.Unmarshal(answer, &signedIn))
		return signedIn.Token
	}
	get := func(token, path string, into any) {
		req, err := http.NewRequest(http.MethodGet, server.base+path, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", token)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.NoError(t, json.NewDecoder(res.Body).Decode(into))
	}
	root, bo := signIn("_superusers", "owner@example.com", "the-owner-password"), signIn("users", "bo@example.com", "correct horse battery staple")
	for i := range 3 {
		code, answer := server.post(t, root, "/api/collections/notifications/records", map[string]any{"title": fmt.Sprint("Crash ", i), "audience": "everyone",
			"channels": []string{"inbox"}, "confirmRecipients": 3, "action": "send"})
		require.Equal(t, http.StatusOK, code, string(answer))
		server.kill() // before it is sent, or after
		server = startDevices(t, dir, address, env...)
		var counted struct{ Unread int }
		require.Eventually(t, func() bool { get(bo, "/api/notifications/unread", &counted); return counted.Unread == i+1 }, patience, 20e6)
		var page struct{ TotalItems int }
		get(bo, "/api/collections/notification_inbox/records", &page)
		require.Equal(t, 2+i+1, page.TotalItems)
		server.kill()
		server = startDevices(t, dir, address, env...)
		get(bo, "/api/collections/notification_inbox/records", &page)
		require.Equal(t, 2+i+1, page.TotalItems)
	}
}
