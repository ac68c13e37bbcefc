package hooks_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/versions"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// serveBinary starts the binary on the data folder and waits until it answers.
func serveBinary(t *testing.T, binary, dir string) (base string, process *os.Process) {
	t.Helper()
	address, err := providertest.FreeAddress()
	require.NoError(t, err)

	var output bytes.Buffer
	cmd := exec.Command(binary, "serve", "--http", address, "--dir", dir, "--dev=false")
	cmd.Dir = filepath.Dir(dir)
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
	})
	require.Eventually(t, func() bool {
		select {
		case <-exited:
			t.Fatalf("the binary has ended:\n%s", output.String())
		default:
		}
		answer, err := http.Get("http://" + address + "/api/health")
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond)
	return "http://" + address, cmd.Process
}

// An owner's edit in one process counts for the next request to another one that
// serves the same data folder, and survives a kill.
func TestVersionCheckInTwoProcesses(t *testing.T) {
	t.Parallel()
	work := t.TempDir()
	binary, dir := filepath.Join(work, "groundwork"), filepath.Join(work, "pb_data")
	build := exec.Command("go", "build", "-o", binary, "github.com/groundworkhq/groundwork")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	upsert := exec.Command(binary, "superuser", "upsert", "root@example.com", "groundwork-test", "--dir", dir, "--dev=false")
	upsert.Dir = work
	out, err = upsert.CombinedOutput() // on an empty folder: our tables do not exist yet
	require.NoError(t, err, string(out))

	one, first := serveBinary(t, binary, dir)
	two, _ := serveBinary(t, binary, dir)

	token := ""
	send := func(method, address string, body any) map[string]any {
		t.Helper()
		raw, err := json.Marshal(body)
		require.NoError(t, err)
		request, err := http.NewRequest(method, address, bytes.NewReader(raw))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", token)
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.StatusCode, string(text))
		var v map[string]any
		require.NoError(t, json.Unmarshal(text, &v))
		return v
	}
	hard := func(base string) bool {
		t.Helper()
		return send(http.MethodGet, base+"/api/version-check?platform=ios&version=1.5", nil)["hard_update"].(bool)
	}

	token = send(http.MethodPost, one+"/api/collections/_superusers/auth-with-password",
		map[string]any{"identity": "root@example.com", "password": "groundwork-test"})["token"].(string)
	require.False(t, hard(one))
	require.False(t, hard(two))

	records := "/api/collections/" + versions.Collection + "/records"
	id := send(http.MethodPost, one+records, map[string]any{"platform": "ios", "minimum": "1.0", "enabled": true})["id"].(string)
	for i := range 200 {
		want := i%2 == 0
		minimum := fmt.Sprintf("1.%d", i%5)
		if want {
			minimum = fmt.Sprintf("2.%d", i)
		}
		writer, reader := one, two
		if i%3 == 0 {
			writer, reader = two, one
		}
		send(http.MethodPatch, writer+records+"/"+id, map[string]any{"minimum": minimum})
		require.Equal(t, want, hard(reader), "edit %d: minimum %s", i, minimum)
		require.Equal(t, want, hard(writer), "edit %d: minimum %s", i, minimum)
	}

	send(http.MethodPatch, one+records+"/"+id, map[string]any{"minimum": "3.0"})
	require.NoError(t, first.Kill())
	require.True(t, hard(two))
	again, _ := serveBinary(t, binary, dir)
	require.True(t, hard(again))
	send(http.MethodPatch, two+records+"/"+id, map[string]any{"minimum": "1.0"})
	require.False(t, hard(again))
}
