package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// TestWebPushInTheBrowser lets somebody press "Notify me in this browser" on the
// page, writes a message in the dashboard, and shows it.
//
// The browser's own push service is out of reach, so a double takes its place on
// both sides: it makes the subscription that the page asks for, and it decrypts
// what arrives, which the browser is then handed as if its service had brought it.
func TestWebPushInTheBrowser(t *testing.T) {
	t.Parallel()
	needPeers(t)
	service := providertest.NewWebPush(t, providertest.WebPushOptions{})
	env, err := service.Env()
	require.NoError(t, err)
	dir, address := t.TempDir(), freeAddress(t)
	server := startDevices(t, dir, address, append(env, "SEND_ONLY_TO=ana@example.com", "WEBPUSH_SUBJECT=mailto:hello@example.com")...)
	setupLink := regexp.MustCompile(`http://\S+pbinstall\S+`)
	require.Eventually(t, func() bool { return setupLink.MatchString(server.console.String()) }, patience, 20*time.Millisecond)

	// What the browser's side needs of the double.
	var mu sync.Mutex
	var browsers []*providertest.WebPushSubscription
	handler := http.NewServeMux()
	handler.HandleFunc("POST /subscribe", func(w http.ResponseWriter, r *http.Request) {
		key, _ := io.ReadAll(r.Body)
		b, err := service.Subscribe(string(key))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		mu.Lock()
		browsers = append(browsers, b)
		mu.Unlock()
		_, _ = io.WriteString(w, b.JSON())
	})
	// The n-th message, counted from one, of the browser that subscribed last.
	handler.HandleFunc("GET /messages/{n}", func(w http.ResponseWriter, r *http.Request) {
		var n int
		_ = json.Unmarshal([]byte(r.PathValue("n")), &n)
		mu.Lock()
		b := browsers[len(browsers)-1]
		mu.Unlock()
		if err := service.Await(r.Context(), b, n); err != nil {
			return
		}
		for r.Context().Err() == nil {
			if all := service.Messages(b); len(all) >= n {
				_, _ = w.Write(all[n-1].Payload)
				return
			}
			time.Sleep(5 * time.Millisecond) // it arrived, and is being read
		}
	})
	double := httptest.NewServer(handler)
	t.Cleanup(double.Close)

	shots := os.Getenv("E2E_SHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	out, err := exec.Command("node", "webpush.mjs", server.base, setupLink.FindString(server.console.String()), shots, double.URL).CombinedOutput()
	require.NoError(t, err, "%s\n%s\n%v", out, server.console.String(), service.Violations())
	t.Logf("%s", out)
	require.Empty(t, service.Violations())
	require.Equal(t, 2, service.Total(), "Ana's two messages; Bo's was kept, as APP_ENV is local")
	require.NotContains(t, server.console.String(), browsers[0].Endpoint[len(browsers[0].Endpoint)-10:])
	require.FileExists(t, filepath.Join(dir, "groundwork.key"))
}

// The key pair is made once: it outlives a kill, and is neither replaced nor lost
// when the server is started with a wrong GROUNDWORK_KEY in between.
func TestWebPushKeyOutlivesAKill(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freeAddress(t)
	rootEnv := process.Root()
	key := func(s *devicesServer) (int, string) {
		var answer struct{ PublicKey, Message string }
		res, err := http.Get(s.base + "/api/notifications/webpush-key")
		require.NoError(t, err)
		defer res.Body.Close()
		require.NoError(t, json.NewDecoder(res.Body).Decode(&answer))
		return res.StatusCode, answer.PublicKey + answer.Message
	}
	state := func(s *devicesServer) (state, reason string) {
		var row struct{ State, StateReason string }
		root := s.signIn(t, "_superusers", process.RootEmail, process.RootPassword)
		require.Eventually(t, func() bool {
			s.call(t, root, http.MethodGet, "/api/collections/notification_providers/records/envwebpush00000", nil, &row)
			return row.State != ""
		}, patience, 20*time.Millisecond)
		return row.State, row.StateReason
	}
	server := startDevices(t, dir, address, rootEnv...)
	status, first := key(server)
	require.Equal(t, http.StatusOK, status)
	require.Len(t, first, 87)
	server.kill()

	server = startDevices(t, dir, address, rootEnv...)
	_, again := key(server)
	require.Equal(t, first, again)
	server.kill()

	wrong := startDevices(t, dir, address, append(rootEnv, "GROUNDWORK_KEY="+strings.Repeat("w", 32))...)
	require.Eventually(t, func() bool { s, _ := state(wrong); return s == "paused" }, patience, 20*time.Millisecond)
	_, reason := state(wrong)
	require.Contains(t, reason, "encrypted with another GROUNDWORK_KEY. Start with the former GROUNDWORK_KEY")
	status, said := key(wrong)
	require.Equal(t, []any{http.StatusServiceUnavailable, "Web Push cannot be used at the moment; try again later."}, []any{status, said})
	wrong.kill()

	server = startDevices(t, dir, address, rootEnv...)
	_, again = key(server)
	require.Equal(t, first, again)
	require.Eventually(t, func() bool { s, _ := state(server); return s == "ok" }, patience, 20*time.Millisecond)
}
