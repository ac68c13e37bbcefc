package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
)

// erasable is the real binary with people in it.
type erasable struct {
	*process.Server
	t *testing.T
}

func newErasable(t *testing.T) *erasable {
	t.Helper()
	s := &erasable{&process.Server{Binary: buildBinary(t), Dir: t.TempDir(), Env: []string{
		"GROUNDWORK_KEY=" + strings.Repeat("k", 32), "SUPERUSER_EMAIL=" + process.RootEmail, "SUPERUSER_PASSWORD=" + process.RootPassword}}, t}
	require.NoError(t, s.Start())
	t.Cleanup(s.Kill)
	require.NoError(t, s.SignIn())
	return s
}

// person makes one who has something in most places, and returns their id.
func (s *erasable) person(name string, messages int) string {
	s.t.Helper()
	var user struct{ ID string }
	require.NoError(s.t, s.Call(http.MethodPost, "/api/collections/users/records", map[string]any{"email": name + "@" + name + ".example.com", "name": name + " Person",
		"password": "groundwork-test", "passwordConfirm": "groundwork-test", "verified": true}, &user))
	for i := range messages {
		var n struct{ ID string }
		require.NoError(s.t, s.Call(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": fmt.Sprintf("%s %d", name, i), "body": "Hello {{ user.name }}",
			"audience": "users", "users": []string{user.ID}, "channels": []string{"email", "inbox"}, "action": "send"}, &n))
	}
	require.Eventually(s.t, func() bool {
		var page struct{ TotalItems int }
		err := s.Call(http.MethodGet, "/api/collections/notification_deliveries/records?perPage=1&filter="+`user%3D%22`+user.ID+`%22%26%26status!%3D%22pending%22`, nil, &page)
		return err == nil && page.TotalItems == 2*messages
	}, patience, 50*time.Millisecond)
	return user.ID
}

// traces are the files that hold one of these texts.
func (s *erasable) traces(texts ...string) []string {
	s.t.Helper()
	var found []string
	require.NoError(s.t, filepath.WalkDir(filepath.Join(s.Dir, "pb_data"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server has deleted it meanwhile
		}
		for _, text := range texts {
			if bytes.Contains(raw, []byte(text)) {
				found = append(found, text+" in "+entry.Name())
			}
		}
		return err
	}))
	return found
}

func (s *erasable) receipt(id string) string {
	var r struct{ Status string }
	if err := s.Call(http.MethodGet, "/api/collections/erasures/records/"+id, nil, &r); err != nil {
		return err.Error()
	}
	return r.Status
}

// TestEraseSurvivesKills ends the process while it erases, again and again: it comes
// to the same end.
func TestEraseSurvivesKills(t *testing.T) {
	t.Parallel()
	s := newErasable(t)
	bo := s.person("bonary", 3)
	ana := s.person("canary", 60)
	require.NotEmpty(t, s.traces("canary Person", ana))

	// The receipt is not known to a client whose server died: the newest one is it.
	_, _ = s.Status(http.MethodPost, "/api/accounts/users/"+ana+"/erase", nil)
	s.Kill()
	kills := 1
	for ; kills < 12; kills++ {
		require.NoError(t, s.Start())
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // wherever it is by then
		s.Kill()
	}
	require.NoError(t, s.Start())
	var receipts struct{ Items []struct{ ID, Status string } }
	require.NoError(t, s.Call(http.MethodGet, "/api/collections/erasures/records", nil, &receipts))
	require.Len(t, receipts.Items, 1)
	require.Eventually(t, func() bool { return s.receipt(receipts.Items[0].ID) == "done" }, patience, 50*time.Millisecond)
	t.Logf("done after %d kills", kills)

	require.Empty(t, s.traces("canary Person", "canary@", "@canary", ana))
	require.NotEmpty(t, s.traces("bonary Person"))
	var deliveries struct{ TotalItems int }
	require.NoError(t, s.Call(http.MethodGet, "/api/collections/notification_deliveries/records?perPage=1", nil, &deliveries))
	require.Equal(t, 2*(3+60), deliveries.TotalItems, "the receipts of what was sent stay")
	require.NoError(t, s.Call(http.MethodGet, "/api/collections/notification_deliveries/records?perPage=1&filter=user%3D%22"+bo+"%22", nil, &deliveries))
	require.Equal(t, 6, deliveries.TotalItems)
}

// TestEraseAndExportCommands runs them beside a server and without one.
func TestEraseAndExportCommands(t *testing.T) {
	t.Parallel()
	s := newErasable(t)
	s.person("canary", 2)
	s.person("second", 2)
	binary := buildBinary(t)
	command := func(args ...string) (string, error) {
		cmd := exec.Command(binary, append(args, "--dir", filepath.Join(s.Dir, "pb_data"))...)
		cmd.Dir, cmd.Env = s.Dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir}, s.Env...)
		var out, failed bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &failed
		err := cmd.Run()
		return out.String() + failed.String(), err
	}

	out, err := command("export", "CANARY@canary.example.com")
	require.NoError(t, err, out)
	var export struct{ Account map[string]any }
	require.NoError(t, json.Unmarshal([]byte(out), &export), out)
	require.Equal(t, "canary Person", export.Account["name"])
	out, err = command("export", "canary@canary.example.com", "--output", filepath.Join(s.Dir, "canary.zip"))
	require.NoError(t, err, out)
	require.FileExists(t, filepath.Join(s.Dir, "canary.zip"))
	out, err = command("export", "canary@canary.example.com", "--output", filepath.Join(s.Dir, "canary.zip"))
	require.Error(t, err, out)
	out, err = command("erase", "nobody@example.com", "--yes")
	require.Error(t, err)
	require.Contains(t, out, "nobody has the id, e-mail address or phone number")
	out, err = command("erase", "canary@canary.example.com")
	require.Error(t, err, "nobody can be asked")
	require.Contains(t, out, "--yes")

	// Beside the server, which does the work and tells when it is done.
	out, err = command("erase", "canary@canary.example.com", "--yes")
	require.NoError(t, err, out)
	require.Contains(t, out, "Erased.")
	require.Empty(t, s.traces("canary Person", "@canary.example"))

	// Without one.
	s.Kill()
	out, err = command("erase", "second@second.example.com", "--yes")
	require.NoError(t, err, out)
	require.Contains(t, out, "Erased.")
	require.Empty(t, s.traces("second Person", "@second.example"))
	require.NoError(t, s.WithDB(func(db *dbx.DB) error {
		var open int
		err := db.NewQuery("SELECT count(*) FROM erasures WHERE status != 'done'").Row(&open)
		require.Zero(t, open)
		return err
	}))
}
