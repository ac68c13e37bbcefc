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
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	require.Eventually(t, func() bool { return setupLink.MatchString(server.console.String()) }, time.Minute, 20*time.Millisecond)

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
