package main_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func TestBuildsAndServes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary := filepath.Join(dir, "embedded")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, string(out))

	addr, err := providertest.FreeAddress()
	require.NoError(t, err)
	cmd := exec.Command(binary, "serve", "--http", addr, "--dir", filepath.Join(dir, "pb_data"))
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")} // nobody's settings but its own
	var printed output
	cmd.Stdout, cmd.Stderr = &printed, &printed
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })

	require.Eventually(t, func() bool {
		select {
		case err := <-ended:
			ended <- err
			return true
		default:
		}
		res, err := http.Get("http://" + addr + "/api/health")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, 2*time.Minute, 20*time.Millisecond, "it answers")

	for path, want := range map[string]int{
		"/api/health":                                  http.StatusOK,
		"/api/collections/no_such_thing/records":       http.StatusNotFound,
		"/api/collections/notification_topics/records": http.StatusOK,
		"/hello/world":                                 http.StatusOK,
		"/_/":                                          http.StatusOK,
	} {
		res, err := http.Get("http://" + addr + path)
		require.NoError(t, err, printed.String())
		_, _ = io.Copy(io.Discard, res.Body)
		require.NoError(t, res.Body.Close())
		require.Equal(t, want, res.StatusCode, "%s\n%s", path, printed.String())
	}

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-ended:
		require.NoError(t, err, printed.String())
	case <-time.After(2 * time.Minute):
		t.Fatalf("it does not end:\n%s", printed.String())
	}
}

// output is a buffer for two writers at a time.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
