package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
)

// TestSchedulesInTheDashboard makes, edits and deletes schedules in a real browser.
func TestSchedulesInTheDashboard(t *testing.T) {
	t.Parallel()
	needPeers(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(secret, []byte("the-owner-password"), 0o600))
	server := startDevices(t, dir, freeAddress(t), "SUPERUSER_EMAIL=owner@example.com", "SUPERUSER_PASSWORD_FILE="+secret)
	out, err := exec.Command("node", "schedules.mjs", server.base, "owner@example.com", "the-owner-password", os.Getenv("PICTURES")).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    a refusal of run now is said")
	t.Logf("%s", out)
}

// callee counts the calls of webhooks, and can hold them.
type callee struct {
	*httptest.Server
	mu    sync.Mutex
	calls []string      // their runs
	hold  chan struct{} // nil: answered at once
}

func newCallee(t *testing.T) *callee {
	t.Helper()
	c := &callee{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		c.mu.Lock()
		c.calls = append(c.calls, r.Header.Get("X-Groundwork-Run"))
		hold := c.hold
		c.mu.Unlock()
		if hold != nil {
			<-hold
		}
	}))
	t.Cleanup(c.Close)
	t.Cleanup(c.release) // before: Close waits for the calls
	return c
}

func (c *callee) ledger() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.calls...)
}

// holdAll holds the calls that come from now on, and release lets go of all.
func (c *callee) holdAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = make(chan struct{})
}

func (c *callee) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hold != nil {
		close(c.hold)
		c.hold = nil
	}
}

func (c *callee) host() string { return strings.TrimPrefix(c.URL, "http://") }

type scheduleRun struct {
	ID, Schedule, Status, Cause, DueAt, Error, Host string
	Attempt                                         int
}

func scheduleRuns(t *testing.T, s *process.Server, id string) []scheduleRun {
	t.Helper()
	var page struct{ Items []scheduleRun }
	require.NoError(t, s.Call(http.MethodGet, "/api/collections/schedule_runs/records?perPage=200&sort=dueAt&filter="+url.QueryEscape(fmt.Sprintf("schedule = %q", id)), nil, &page))
	return page.Items
}

func makeHook(t *testing.T, s *process.Server, cron, to string) string {
	t.Helper()
	var made struct{ ID string }
	require.NoError(t, s.Call(http.MethodPost, "/api/collections/schedules/records", map[string]any{"name": "Hook", "cron": cron, "timezone": "UTC", "action": "webhook", "enabled": true,
		"secret": "0123456789abcdef", "payload": map[string]any{"url": to}}, &made))
	return made.ID
}

// TestSchedulesOverAKill kills the server over a run that is due, and in the middle of
// one: the first is made up for once, the second made again, and neither stays open.
func TestSchedulesOverAKill(t *testing.T) {
	t.Parallel()
	c := newCallee(t)
	s := &process.Server{Binary: buildBinary(t), Dir: t.TempDir(), Env: append(process.Root(), "WEBHOOK_PRIVATE_HOSTS="+c.host())}
	require.NoError(t, s.Start())
	t.Cleanup(s.Kill)
	require.NoError(t, s.SignIn())
	hour := (time.Now().UTC().Hour() + 12) % 24 // not while this runs
	id := makeHook(t, s, fmt.Sprintf("0 %d * * *", hour), c.URL)
	s.Kill()
	// Down for three days.
	require.NoError(t, s.WithDB(func(db *dbx.DB) error {
		_, err := db.Update("schedules", dbx.Params{"nextRunAt": time.Now().UTC().AddDate(0, 0, -3).Truncate(24 * time.Hour).Add(time.Duration(hour) * time.Hour).Format("2006-01-02 15:04:05.000Z")}, dbx.HashExp{"id": id}).Execute()
		return err
	}))
	require.NoError(t, s.Start())
	require.NoError(t, s.SignIn())
	require.Eventually(t, func() bool {
		runs := scheduleRuns(t, s, id)
		return len(runs) == 2 && runs[1].Status == "ok"
	}, patience, 50*time.Millisecond)
	runs := scheduleRuns(t, s, id)
	require.Equal(t, []string{"missed", "catch_up"}, []string{runs[0].Status, runs[1].Cause})
	require.Len(t, c.ledger(), 1)

	c.holdAll()
	require.NoError(t, s.Call(http.MethodPatch, "/api/collections/schedules/records/"+id, map[string]any{"run": "now"}, &struct{}{}))
	require.Eventually(t, func() bool { return len(c.ledger()) == 2 }, patience, 10*time.Millisecond)
	require.Equal(t, "running", scheduleRuns(t, s, id)[2].Status)
	s.Kill()
	c.release()
	require.NoError(t, s.Start())
	require.NoError(t, s.SignIn())
	require.Eventually(t, func() bool { return scheduleRuns(t, s, id)[2].Status == "ok" }, patience, 50*time.Millisecond)
	run := scheduleRuns(t, s, id)[2]
	require.Equal(t, 2, run.Attempt)
	require.Equal(t, []string{run.ID, run.ID}, c.ledger()[1:], "the other side can tell that it is one")
	require.Len(t, scheduleRuns(t, s, id), 3)
}

// TestSchedulesRunOnceInTwoProcesses lets two servers on one data folder see the same
// minute.
func TestSchedulesRunOnceInTwoProcesses(t *testing.T) {
	t.Parallel()
	c := newCallee(t)
	dir := t.TempDir()
	env := append(process.Root(), "WEBHOOK_PRIVATE_HOSTS="+c.host())
	one, two := &process.Server{Binary: buildBinary(t), Dir: dir, Env: env}, &process.Server{Binary: buildBinary(t), Dir: dir, Env: env}
	require.NoError(t, one.Start())
	t.Cleanup(one.Kill)
	require.NoError(t, two.Start())
	t.Cleanup(two.Kill)
	require.NoError(t, one.SignIn())
	var ids []string
	for range 8 {
		ids = append(ids, makeHook(t, one, "* * * * *", c.URL))
	}
	require.Eventually(t, func() bool {
		for _, id := range ids {
			runs := scheduleRuns(t, one, id)
			if len(runs) == 0 || runs[len(runs)-1].Status != "ok" {
				return false
			}
		}
		return true
	}, patience, 100*time.Millisecond)
	// Those that are asked for by hand, too.
	for _, s := range []*process.Server{one, two} {
		require.NoError(t, s.SignIn())
		require.NoError(t, s.Call(http.MethodPatch, "/api/collections/schedules/records/"+ids[0], map[string]any{"name": "N"}, &struct{}{}))
	}
	seen := map[string]int{}
	for _, run := range c.ledger() {
		seen[run]++
	}
	total := 0
	for _, id := range ids {
		due := map[string]int{}
		for _, run := range scheduleRuns(t, two, id) {
			due[run.DueAt]++
			require.LessOrEqual(t, seen[run.ID], 1, "%+v", run)
			require.Equal(t, "due", run.Cause)
			total++
		}
		for at, n := range due {
			require.Equal(t, 1, n, at)
		}
	}
	raw, err := json.Marshal(seen)
	require.NoError(t, err)
	require.GreaterOrEqual(t, total, len(ids), string(raw))
}

// TestSchedulesOverTheKillOfAnother starts a second server while the first one works on
// a run: it leaves it alone. Killed, the first one's run is made again by the second.
func TestSchedulesOverTheKillOfAnother(t *testing.T) {
	t.Parallel()
	c := newCallee(t)
	dir := t.TempDir()
	env := append(process.Root(), "WEBHOOK_PRIVATE_HOSTS="+c.host())
	one, two := &process.Server{Binary: buildBinary(t), Dir: dir, Env: env}, &process.Server{Binary: buildBinary(t), Dir: dir, Env: env}
	require.NoError(t, one.Start())
	t.Cleanup(one.Kill)
	require.NoError(t, one.SignIn())
	t.Cleanup(two.Kill)
	id := makeHook(t, one, "0 3 1 1 *", c.URL)
	newest := func(s *process.Server) scheduleRun {
		runs := scheduleRuns(t, s, id)
		return runs[len(runs)-1]
	}
	for {
		calls := len(c.ledger())
		c.holdAll()
		require.NoError(t, one.Call(http.MethodPatch, "/api/collections/schedules/records/"+id, map[string]any{"run": "now"}, &struct{}{}))
		require.Eventually(t, func() bool { return len(c.ledger()) > calls }, patience, 10*time.Millisecond)
		called := time.Now()
		require.NoError(t, two.Start())
		require.NoError(t, two.SignIn())
		run, now := newest(two), len(c.ledger())
		if time.Since(called) < 25*time.Second {
			require.Equal(t, "running", run.Status)
			require.Equal(t, calls+1, now)
			break
		}
		// A call has half a minute, and this one's may be over: once more.
		two.Kill()
		c.release()
		require.Eventually(t, func() bool { return newest(one).Status != "queued" && newest(one).Status != "running" }, patience, 50*time.Millisecond)
	}
	calls := len(c.ledger())
	one.Kill()
	c.release() // two takes it over within seconds, and is answered
	require.Eventually(t, func() bool { return newest(two).Status == "ok" }, patience, 50*time.Millisecond)
	require.Equal(t, 2, newest(two).Attempt)
	require.Len(t, c.ledger(), calls+1)
}
