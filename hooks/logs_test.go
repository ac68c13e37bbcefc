package hooks_test

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// logged waits until all that is expected is in the log, each in a row of its own,
// and the application's own line on standard output too; it returns all rows. They
// come in any order: PocketBase hands each request to its log from a goroutine.
func logged(t *testing.T, app *pbtest.App, out *lockedBuffer, line string, requests ...string) (rows []string) {
	t.Helper()
	require.Eventually(t, func() bool {
		rows = nil
		require.NoError(t, app.AuxDB().Select("[[message]] || ' ' || [[data]]").From("_logs").Column(&rows))
		missing := append([]string{line}, requests...)
		for _, row := range rows {
			if i := slices.IndexFunc(missing, func(start string) bool { return strings.HasPrefix(row, start) }); i >= 0 {
				missing = slices.Delete(missing, i, i+1)
			}
		}
		return len(missing) == 0 && strings.Contains(out.String(), line)
	}, patience, 20*time.Millisecond)
	return rows
}

func TestNoSecretReachesALog(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-Zq9"
	out := &lockedBuffer{}
	app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = out }))
	app.Settings().Logs.MaxDays = 5
	app.Settings().Logs.MinLevel = -4

	app.Send(http.MethodGet, "/api/files/x/y/z?token="+secret, nil, "")
	app.Send(http.MethodGet, "/api/collections/users/records?filter=password='"+secret+"'", nil, "Bearer "+secret)
	app.Send(http.MethodPost, "/api/collections/users/auth-with-password", map[string]any{"identity": "a@example.com", "password": secret}, secret)
	app.Send(http.MethodPost, "/api/collections/users/records", map[string]any{"a": map[string]any{"b": []any{map[string]any{"password": secret}}}}, "")
	app.Logger().Error("the call failed with token="+secret, "details", map[string]any{"authorization": secret, "text": `{"password":"` + secret + `"}`})

	rows := logged(t, app, out, "the call failed", "GET /api/files/", "GET /api/collections/users/records", "POST /api/collections/users/auth-with-password",
		"POST /api/collections/users/records")
	for _, row := range rows {
		require.NotContains(t, row, secret)
	}
	require.NotContains(t, out.String(), secret)
	require.Contains(t, out.String(), `"msg":"request"`)
	require.Contains(t, out.String(), "the call failed", "the application's own lines reach standard output")
}

func TestNoFullAddressReachesALog(t *testing.T) {
	t.Parallel()
	out := &lockedBuffer{}
	app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = out }))
	app.Settings().Logs.MaxDays = 5
	app.Settings().Logs.MinLevel = -4

	res := app.Send(http.MethodPost, "/api/collections/users/request-password-reset", map[string]any{"email": "nobody@example.com"}, "")
	require.Equal(t, http.StatusNoContent, res.Status)
	app.Send(http.MethodGet, "/api/collections/users/records?filter="+url.QueryEscape(`email="nobody@example.com"||phone="+15005550006"`), nil, "")
	app.Send(http.MethodGet, "/api/collections/users/records/nobody%40example.com", nil, "")
	app.Logger().Error("no mail to nobody@example.com", "to", []any{"nobody@example.com", map[string]any{"phone": "+15005550006"}},
		"stack", "github.com/pocketbase/pocketbase@v0.40.4/core/app.go:12 +0x1f")

	rows := logged(t, app, out, "no mail to", "POST /api/collections/users/request-password-reset", "GET /api/collections/users/records?", "GET /api/collections/users/records/")
	all := out.String() + strings.Join(rows, "\n")
	for _, address := range []string{"nobody@", "nobody%40", "15005550006"} {
		require.NotContains(t, all, address)
	}
	require.Contains(t, all, "no mail to no…@example.com")
	require.Contains(t, all, "…0006")
	require.Contains(t, all, "pocketbase@v0.40.4/core/app.go:12 +0x1f", "that is no address")

	line := ""
	for l := range strings.Lines(out.String()) {
		if strings.Contains(l, "request-password-reset") {
			line = l
		}
	}
	require.Contains(t, line, `"status":204`, "as it was answered")
	require.Contains(t, line, "no…@example.com", "why nothing was sent")
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	out := &lockedBuffer{}
	app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = out }))
	for given, kept := range map[string]bool{"my-request.1": true, "short": false, "line\tbreak-here": false, "": false} {
		req, err := http.NewRequest(http.MethodGet, app.URL()+"/api/collections", nil)
		require.NoError(t, err)
		req.Header.Set("X-Request-Id", given)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		id := res.Header.Get("X-Request-Id")
		require.GreaterOrEqual(t, len(id), 8)
		require.Equal(t, kept, id == given, given)
		require.Eventually(t, func() bool { return bytes.Contains([]byte(out.String()), []byte(id)) }, patience, 5*time.Millisecond)
	}
}
