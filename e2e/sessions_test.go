package e2e

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSessionsWithTheStockSDK signs clients out, in Node and in a real browser.
func TestSessionsWithTheStockSDK(t *testing.T) {
	t.Parallel()
	needPeers(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(secret, []byte("the-owner-password"), 0o600))
	server := startDevices(t, dir, freeAddress(t), "SUPERUSER_EMAIL=owner@example.com", "SUPERUSER_PASSWORD_FILE="+secret)
	out, err := exec.Command("node", "sessions.mjs", server.base, "owner@example.com", "the-owner-password").CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    so does the dashboard with an expired token")
	t.Logf("%s", out)
}

// What was ended stays ended after a crash, and what lasts goes on; the command
// reaches the running server.
func TestSessionsSurviveAKill(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freeAddress(t)
	server := startDevices(t, dir, address)
	kept, ended := server.signUp(t, "kept@example.com"), server.signUp(t, "ended@example.com")
	status := func(token string) int {
		req, err := http.NewRequest(http.MethodGet, server.base+"/api/collections/sessions/records", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", token)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_ = res.Body.Close()
		return res.StatusCode
	}
	require.Equal(t, http.StatusOK, status(ended))
	code, answer := server.post(t, ended, "/api/logout", nil)
	require.Equal(t, http.StatusNoContent, code, string(answer))

	for range 2 {
		server.kill() // right after the answer
		server = startDevices(t, dir, address)
		require.Equal(t, http.StatusUnauthorized, status(ended))
		require.Equal(t, http.StatusOK, status(kept))
	}

	run := func(args ...string) string {
		cmd := exec.Command(buildBinary(t), append(args, "--dir", filepath.Join(dir, "pb_data"))...)
		cmd.Dir = dir
		cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		out, err := cmd.Output()
		require.NoError(t, err, string(out))
		return string(out)
	}
	// The setup link is a session too, made beside the server.
	link := strings.TrimSpace(run("setup-link"))
	token := link[strings.LastIndex(link, "/")+1:]
	var claims struct {
		Sid string `json:"sid"`
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &claims))
	require.NotEmpty(t, claims.Sid)
	require.Equal(t, http.StatusOK, status(token))

	require.Contains(t, run("sessions", "require"), "every token needs a session")
	require.Equal(t, http.StatusOK, status(kept))
	require.Equal(t, http.StatusOK, status(token))
	require.Contains(t, run("sessions", "require", "--undo"), "count again")
}
