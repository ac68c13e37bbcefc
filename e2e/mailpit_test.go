package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
)

// TestProductionByVariablesAlone sends to a real mail server, Mailpit, which
// parses what it gets by itself: what its API says is an independent opinion.
func TestProductionByVariablesAlone(t *testing.T) {
	t.Parallel()
	pit := startMailpit(t)
	people := map[string]string{"ana@example.com": "Ana", "bo@example.com": "Bo Åström", "cy@example.com": "陳 <Cy>"}
	s := serveFor(t, pit, "APP_ENV=production")
	n := sendToAll(t, s, people)

	got := pit.await(t, len(people))
	require.Len(t, got, len(people))
	for _, m := range got {
		require.Len(t, m.To, 1)
		name := people[m.To[0].Address]
		require.NotEmpty(t, name, "a mail to somebody else: %s", m.To[0].Address)
		require.Equal(t, name, m.To[0].Name)
		require.Equal(t, "hello@example.com", m.From.Address)
		require.Equal(t, "Shop ÄÖ", m.From.Name)
		require.Equal(t, "Grüße, "+name, m.Subject)
		require.Equal(t, "We are open 🎉.\nCome by, "+name+".", strings.TrimSpace(strings.ReplaceAll(m.Text, "\r\n", "\n")))
		require.Contains(t, m.HTML, "We are open 🎉.")
		require.NotContains(t, m.HTML, "<Cy>", "a name is no HTML")
		require.NotEmpty(t, m.MessageID)
		require.Empty(t, m.Attachments)
		require.Empty(t, m.Cc)
		require.Empty(t, m.Bcc)
	}
	rows := deliveries(t, s, n)
	require.Len(t, rows, len(people))
	for _, row := range rows {
		require.Equal(t, "accepted", row.Status, row.Explanation)
		require.NotEmpty(t, row.ProviderMessageID)
		require.NotContains(t, people, row.Address, "the address is masked")
	}
}

// TestStagingSendsToNobodyElse sends outside production, where only the
// addresses in SEND_ONLY_TO get anything.
func TestStagingSendsToNobodyElse(t *testing.T) {
	t.Parallel()
	pit := startMailpit(t)
	s := serveFor(t, pit, "APP_ENV=staging", "SEND_ONLY_TO=bo@example.com")
	n := sendToAll(t, s, map[string]string{"ana@example.com": "Ana", "bo@example.com": "Bo", "cy@example.com": "Cy"})
	statuses := map[string]int{}
	for _, row := range deliveries(t, s, n) {
		statuses[row.Status]++
	}
	require.Equal(t, map[string]int{"captured": 2, "accepted": 1}, statuses)
	got := pit.await(t, 1)
	require.Len(t, got, 1)
	require.Equal(t, "bo@example.com", got[0].To[0].Address)
}

func serveFor(t *testing.T, pit *mailpit, env ...string) *process.Server {
	t.Helper()
	host, port, err := net.SplitHostPort(pit.smtp)
	require.NoError(t, err)
	s := &process.Server{Binary: buildBinary(t), Dir: t.TempDir(), Env: append([]string{
		"GROUNDWORK_KEY=" + strings.Repeat("k", 32), "SUPERUSER_EMAIL=" + process.RootEmail, "SUPERUSER_PASSWORD=" + process.RootPassword,
		"SMTP_HOST=" + host, "SMTP_PORT=" + port, "SMTP_TLS=none", "SMTP_USERNAME=shop", "SMTP_PASSWORD=any-password", "SMTP_FROM=Shop ÄÖ <hello@example.com>"}, env...)}
	require.NoError(t, s.Start())
	t.Cleanup(s.Kill)
	require.NoError(t, s.SignIn())
	return s
}

func sendToAll(t *testing.T, s *process.Server, people map[string]string) (id string) {
	t.Helper()
	for email, name := range people {
		require.NoError(t, s.Call(http.MethodPost, "/api/collections/users/records",
			map[string]any{"email": email, "name": name, "password": "a-long-password", "passwordConfirm": "a-long-password"}, &struct{}{}))
	}
	var n struct{ ID, Status string }
	require.NoError(t, s.Call(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "Grüße, {{ user.name }}",
		"body": "We are open 🎉.\nCome by, {{ user.name }}.", "channels": []string{"email"}, "audience": "everyone", "confirmRecipients": len(people), "action": "send"}, &n))
	require.Eventually(t, func() bool {
		require.NoError(t, s.Call(http.MethodGet, "/api/collections/notifications/records/"+n.ID, nil, &n))
		return n.Status == "sent"
	}, patience, 20*time.Millisecond)
	return n.ID
}

type delivery struct {
	Status, Explanation, Address, ProviderMessageID string
}

func deliveries(t *testing.T, s *process.Server, notification string) []delivery {
	t.Helper()
	var page struct{ Items []delivery }
	require.NoError(t, s.Call(http.MethodGet, "/api/collections/notification_deliveries/records?filter=(notification='"+notification+"')", nil, &page))
	return page.Items
}

// mailpit is a running Mailpit.
type mailpit struct{ smtp, api string }

// pitMail is a mail as Mailpit's API tells it.
type pitMail struct {
	ID, MessageID, Subject, Text, HTML string
	From                               struct{ Name, Address string }
	To, Cc, Bcc                        []struct{ Name, Address string }
	Attachments                        []struct{ FileName string }
}

func startMailpit(t *testing.T) *mailpit {
	t.Helper()
	path, err := exec.LookPath("mailpit")
	if err != nil {
		path, err = filepath.Abs("../.cache/bin/mailpit")
		require.NoError(t, err)
		_, err = os.Stat(path)
	}
	if err != nil {
		require.Empty(t, os.Getenv("REQUIRE_PEERS"), "Mailpit is not installed: run make tools")
		t.Skip("Mailpit is not installed: run make tools")
	}
	pit := &mailpit{smtp: freeAddress(t), api: freeAddress(t)}
	cmd := exec.Command(path, "--smtp", pit.smtp, "--listen", pit.api, "--smtp-auth-accept-any", "--smtp-auth-allow-insecure", "--disable-version-check",
		"--database", filepath.Join(t.TempDir(), "mailpit.db"))
	var output buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	require.Eventually(t, func() bool {
		for _, address := range []string{pit.smtp, pit.api} {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return false
			}
			_ = conn.Close()
		}
		return true
	}, patience, 20*time.Millisecond, "Mailpit listens")
	return pit
}

// await returns all mails once there are n.
func (p *mailpit) await(t *testing.T, n int) []pitMail {
	t.Helper()
	var list struct {
		Total    int
		Messages []struct{ ID string }
	}
	require.Eventually(t, func() bool {
		p.get(t, "/api/v1/messages", &list)
		return list.Total >= n
	}, patience, 20*time.Millisecond)
	mails := make([]pitMail, len(list.Messages))
	for i, m := range list.Messages {
		p.get(t, "/api/v1/message/"+m.ID, &mails[i])
	}
	return mails
}

func (p *mailpit) get(t *testing.T, path string, into any) {
	t.Helper()
	res, err := http.Get(fmt.Sprintf("http://%s%s", p.api, path))
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.NoError(t, json.NewDecoder(res.Body).Decode(into))
}
