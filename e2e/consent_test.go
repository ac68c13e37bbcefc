package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
)

const publicAddress = "https://shop.example.com"

// TestConsentAndUnsubscribe lets people agree by the stock SDK, sends to a real mail
// server, reads what arrived with two parsers that are not ours, and unsubscribes
// with a real browser and with the one click of a mail program.
func TestConsentAndUnsubscribe(t *testing.T) {
	t.Parallel()
	needPeers(t)
	pit := startMailpit(t)
	s := serveFor(t, pit, "APP_ENV=production")
	require.NoError(t, s.Call(http.MethodPatch, "/api/settings", map[string]any{"meta": map[string]any{"appURL": publicAddress, "appName": "Shop"}}, &struct{}{}))
	for _, email := range []string{"ana@example.com", "bo@example.com"} {
		require.NoError(t, s.Call(http.MethodPost, "/api/collections/users/records",
			map[string]any{"email": email, "password": "a-long-password", "passwordConfirm": "a-long-password", "verified": true}, &struct{}{}))
	}
	out, err := exec.Command("node", "consent.mjs", s.URL()).CombinedOutput()
	require.NoError(t, err, string(out))
	t.Logf("%s", out)

	// Ana agreed, Bo did not.
	n := sendKind(t, s, "gwpromotional00")
	statuses := map[string]string{}
	for _, row := range reasons(t, s, n) {
		statuses[row.Address] = row.Status + " " + row.Reason
	}
	require.Equal(t, map[string]string{"a…@example.com": "accepted ", "b…@example.com": "skipped no_consent"}, statuses)
	sendKind(t, s, "")
	var link string
	for _, m := range pit.await(t, 3) {
		raw := pit.raw(t, m.ID)
		read, err := mail.ReadMessage(bytes.NewReader(raw))
		require.NoError(t, err)
		python := pythonHeaders(t, raw)
		if m.Subject == "Sale" {
			require.Equal(t, "ana@example.com", m.To[0].Address)
			header := regexp.MustCompile(`^<(https://shop\.example\.com/api/unsubscribe/[\w-]+)>$`).FindStringSubmatch(read.Header.Get("List-Unsubscribe"))
			require.NotNil(t, header, "%q", read.Header.Get("List-Unsubscribe"))
			require.Equal(t, "List-Unsubscribe=One-Click", read.Header.Get("List-Unsubscribe-Post"))
			link = header[1]
			require.Equal(t, [2]string{"<" + link + ">", "List-Unsubscribe=One-Click"}, python)
			require.Contains(t, m.Text, link)
			require.Contains(t, m.HTML, `href="`+link+`"`)
			continue
		}
		require.Empty(t, read.Header.Get("List-Unsubscribe")+read.Header.Get("List-Unsubscribe-Post")+strings.Join(python[:], ""))
		require.NotContains(t, m.Text+m.HTML, "nsubscribe")
	}
	require.NotEmpty(t, link)
	link = strings.Replace(link, publicAddress, s.URL(), 1)

	state := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, heldBack(t, s)) }))
	t.Cleanup(state.Close)
	out, err = exec.Command("node", "unsubscribe.mjs", link, state.URL).CombinedOutput()
	require.NoError(t, err, string(out))
	t.Logf("%s", out)

	// The button of a mail program, pressed twice, after a crash.
	s.Kill()
	require.NoError(t, s.Start())
	require.NoError(t, s.SignIn())
	link = s.URL() + link[strings.Index(link, "/api/"):]
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return fmt.Errorf("a redirect") }}
	for range 2 {
		res, err := client.PostForm(link, url.Values{"List-Unsubscribe": {"One-Click"}})
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.Equal(t, "email ana@example.com promotional unsubscribe", heldBack(t, s))
	}
	for _, row := range reasons(t, s, sendKind(t, s, "gwpromotional00")) {
		require.Equal(t, "skipped", row.Status, row.Address)
	}
	log, err := os.ReadFile(filepath.Join(s.Dir, "log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "POST")
	require.NotContains(t, string(log), link[strings.LastIndex(link, "/")+20:], "no log has the link")
}

// sendKind sends to everybody and waits for the end.
func sendKind(t *testing.T, s *process.Server, category string) (id string) {
	t.Helper()
	title := "Receipt"
	if category != "" {
		title = "Sale"
	}
	var n struct{ ID, FinishedAt string }
	require.NoError(t, s.Call(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": title, "body": "Hello", "category": category,
		"channels": []string{"email"}, "audience": "everyone", "confirmRecipients": 2, "action": "send"}, &n))
	require.Eventually(t, func() bool {
		require.NoError(t, s.Call(http.MethodGet, "/api/collections/notifications/records/"+n.ID, nil, &n))
		return n.FinishedAt != ""
	}, patience, 20*time.Millisecond)
	return n.ID
}

type reasoned struct{ Address, Status, Reason string }

func reasons(t *testing.T, s *process.Server, notification string) []reasoned {
	t.Helper()
	var page struct{ Items []reasoned }
	require.NoError(t, s.Call(http.MethodGet, "/api/collections/notification_deliveries/records?filter=(notification='"+notification+"')", nil, &page))
	return page.Items
}

// heldBack is what holds mail to people back.
func heldBack(t *testing.T, s *process.Server) string {
	t.Helper()
	var suppressed struct {
		Items []struct{ Channel, Address, Kind, Reason string }
	}
	require.NoError(t, s.Call(http.MethodGet, "/api/collections/notification_suppressions/records", nil, &suppressed))
	var off struct {
		Items []struct{ Channel string }
	}
	require.NoError(t, s.Call(http.MethodGet, "/api/collections/notification_preferences/records?filter=(enabled=false)", nil, &off))
	var lines []string
	for _, r := range suppressed.Items {
		lines = append(lines, strings.Join([]string{r.Channel, r.Address, r.Kind, r.Reason}, " "))
	}
	for _, r := range off.Items {
		lines = append(lines, r.Channel+" off")
	}
	return strings.Join(lines, "\n")
}

func (p *mailpit) raw(t *testing.T, id string) []byte {
	t.Helper()
	res, err := http.Get(fmt.Sprintf("http://%s/api/v1/message/%s/raw", p.api, id))
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	require.Equal(t, http.StatusOK, res.StatusCode)
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return raw
}

// pythonHeaders are the two headers as Python's e-mail package reads them, where
// there is a Python; else as Go's does.
func pythonHeaders(t *testing.T, raw []byte) (found [2]string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		read, err := mail.ReadMessage(bytes.NewReader(raw))
		require.NoError(t, err)
		return [2]string{read.Header.Get("List-Unsubscribe"), read.Header.Get("List-Unsubscribe-Post")}
	}
	cmd := exec.Command(python, "-c", `import email, email.policy, json, sys
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
print(json.dumps([(m[h] or "").strip() for h in ("List-Unsubscribe", "List-Unsubscribe-Post")]))`)
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &found))
	return found
}
