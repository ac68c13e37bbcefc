package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDevicesWithTheStockSDK registers devices as an app would, with PocketBase's
// JavaScript SDK in Node.
func TestDevicesWithTheStockSDK(t *testing.T) {
	t.Parallel()
	needNode(t)
	server := startDevices(t, t.TempDir(), freeAddress(t))
	out, err := exec.Command("node", "devices.mjs", server.base).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    delete")
	t.Logf("%s", out)
}

// Who uses the moves of a day up does not get new ones by a crash of the server.
func TestMoveLimitSurvivesAKill(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freeAddress(t)
	server := startDevices(t, dir, address)
	owner, thief := server.signUp(t, "owner@example.com"), server.signUp(t, "thief@example.com")
	const devices = "/api/collections/devices/records"
	body := map[string]any{"platform": "android", "token": "victims-token"}

	code, answer := server.post(t, owner, devices, body)
	require.Equal(t, http.StatusOK, code, string(answer))
	for i := range 10 {
		if i == 5 {
			server.kill()
			server = startDevices(t, dir, address)
		}
		code, answer = server.post(t, thief, devices, body)
		require.Equal(t, http.StatusOK, code, string(answer))
		code, answer = server.post(t, owner, devices, body)
		require.Equal(t, http.StatusOK, code, string(answer))
	}
	server.kill()
	server = startDevices(t, dir, address)
	code, answer = server.post(t, thief, devices, body)
	require.Equal(t, http.StatusTooManyRequests, code, string(answer))
	code, answer = server.post(t, owner, devices, body)
	require.Equal(t, http.StatusOK, code, string(answer))
	require.NotContains(t, server.console.String(), "victims-token")
}

type devicesServer struct {
	base    string
	console *buffer
	kill    func()
}

func startDevices(t *testing.T, dir, address string, env ...string) *devicesServer {
	t.Helper()
	s := &devicesServer{base: "http://" + address, console: &buffer{}}
	cmd := exec.Command(buildBinary(t), "serve", "--http", address, "--dir", filepath.Join(dir, "pb_data"))
	cmd.Dir = dir
	cmd.Env = append([]string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}, env...)
	cmd.Stdout, cmd.Stderr = s.console, s.console
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	s.kill = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	t.Cleanup(s.kill)
	require.Eventually(t, func() bool {
		res, err := http.Get(s.base + "/api/health")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond, "it answers")
	return s
}

// What startOwned's superuser signs in with.
const ownerEmail, ownerPassword = "owner@example.com", "the-owner-password"

// startOwned is startDevices with a superuser.
func startOwned(t *testing.T, dir string) *devicesServer {
	t.Helper()
	secret := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(secret, []byte(ownerPassword), 0o600))
	return startDevices(t, dir, freeAddress(t), "SUPERUSER_EMAIL="+ownerEmail, "SUPERUSER_PASSWORD_FILE="+secret)
}

// signUp makes a person and returns a token.
func (s *devicesServer) signUp(t *testing.T, email string) string {
	t.Helper()
	const users, password = "/api/collections/users/", "a-long-password"
	code, answer := s.post(t, "", users+"records", map[string]any{"email": email, "password": password, "passwordConfirm": password})
	require.Equal(t, http.StatusOK, code, string(answer))
	code, answer = s.post(t, "", users+"auth-with-password", map[string]any{"identity": email, "password": password})
	require.Equal(t, http.StatusOK, code, string(answer))
	var auth struct{ Token string }
	require.NoError(t, json.Unmarshal(answer, &auth))
	return auth.Token
}

func (s *devicesServer) post(t *testing.T, token, path string, body map[string]any) (int, []byte) {
	t.Helper()
	raw, err := json.Marshal(body)
	require.NoError(t, err)
	req, err := http.NewRequest(http.MethodPost, s.base+path, bytes.NewReader(raw))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", token)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err, s.console.String())
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, answer
}
