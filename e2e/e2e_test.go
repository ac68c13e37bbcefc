// Package e2e drives the real binary in a real browser, as a product owner and
// a visitor would. It holds tests only.
package e2e

import (
	"bytes"
	"io"
	"net/http"
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

// patience is how long a test waits for what comes in a moment on a machine that is
// not busy.
const patience = 3 * time.Minute

// TestFirstHour starts the binary in an empty folder with an empty home and
// lets a browser do what the README says. Pictures of the run are left in the
// folder that E2E_SHOTS names.
func TestFirstHour(t *testing.T) {
	t.Parallel()
	needPeers(t)
	dir := t.TempDir()
	binary := buildBinary(t)
	address := freeAddress(t)

	var stdout bytes.Buffer
	console := &buffer{}
	server := exec.Command(binary, "serve", "--http", address, "--dir", filepath.Join(dir, "pb_data"))
	server.Dir = dir
	server.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	server.Stdout, server.Stderr = &stdout, console
	require.NoError(t, server.Start())
	ended := make(chan struct{})
	go func() { _ = server.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-ended
	})

	setupLink := regexp.MustCompile(`http://\S+pbinstall\S+`)
	require.Eventually(t, func() bool { return setupLink.MatchString(console.String()) }, patience, 20*time.Millisecond, "it prints what to open")
	base := "http://" + address
	res, err := http.Get(base + "/api/health")
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, res.Body)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)

	shots := os.Getenv("E2E_SHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	browser := exec.Command("node", "first_hour.mjs", base, setupLink.FindString(console.String()), shots,
		binary, filepath.Join(dir, "pb_data"), freeAddress(t))
	out, err := browser.CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, console.String())
	t.Logf("%s", out)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := providertest.FreeAddress()
	require.NoError(t, err)
	return address
}

// built is the binary that all tests of this package start.
var built struct {
	once sync.Once
	dir  string
	out  []byte
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

func buildBinary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "groundwork-e2e-"); built.err == nil {
			built.out, built.err = exec.Command("go", "build", "-o", filepath.Join(built.dir, "groundwork"), "..").CombinedOutput()
		}
	})
	require.NoError(t, built.err, string(built.out))
	return filepath.Join(built.dir, "groundwork")
}

// needPeers skips where there is no browser or no npm, unless REQUIRE_PEERS is
// set.
func needPeers(t *testing.T) {
	t.Helper()
	missing := ""
	chromium := os.Getenv("CHROMIUM")
	if chromium == "" {
		chromium = "/usr/bin/chromium"
	}
	if _, err := os.Stat(chromium); err != nil {
		missing = "there is no Chromium at " + chromium + " (set CHROMIUM)"
	} else if _, err := exec.LookPath("node"); err != nil {
		missing = "node is not installed"
	} else if _, err := os.Stat("../web/node_modules/playwright-core"); err != nil {
		missing = "the browser driver is not installed: run make sdk"
	} else if _, err := os.Stat("../pb_public/vendor/pocketbase.es.mjs"); err != nil {
		missing = "the JavaScript SDK is not there: run make sdk"
	}
	if missing == "" {
		return
	}
	require.Empty(t, os.Getenv("REQUIRE_PEERS"), missing)
	t.Skip(missing)
}

// buffer is written by the process and read by the test.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
