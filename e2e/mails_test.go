package e2e

import (
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// TestAccountMailsLeaveNothing asks for each of PocketBase's own mails, uses
// what they hold, and then looks for it in every file that the server wrote:
// databases, jobs, and all it printed.
func TestAccountMailsLeaveNothing(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	dir := t.TempDir()
	s := &process.Server{Binary: buildBinary(t), Dir: dir, Env: process.Production(smtp)}
	require.NoError(t, s.Start())
	t.Cleanup(s.Kill)
	require.NoError(t, s.SignIn())
	require.NoError(t, s.Call(http.MethodPatch, "/api/collections/users", map[string]any{"otp": map[string]any{"enabled": true, "duration": 300, "length": 8}}, &struct{}{}))
	require.NoError(t, s.Call(http.MethodPost, "/api/collections/users/records",
		map[string]any{"email": "ana@example.com", "password": "first-password", "passwordConfirm": "first-password"}, &struct{}{}))

	s.SignOut()
	mail := func(n int) string {
		t.Helper()
		require.Eventually(t, func() bool { return len(smtp.To("ana@example.com")) >= n }, patience, 10*time.Millisecond, "mail %d arrives", n)
		all := smtp.To("ana@example.com")
		require.Len(t, all, n)
		m, err := all[n-1].Parse()
		require.NoError(t, err)
		return m.Text + m.HTML
	}
	token := regexp.MustCompile(`[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}`)
	const users = "/api/collections/users/"
	for _, path := range []string{"request-verification", "request-password-reset"} {
		require.Equal(t, http.StatusNoContent, status(t, s, users+path, map[string]any{"email": "ana@example.com"}))
		require.Equal(t, http.StatusNoContent, status(t, s, users+path, map[string]any{"email": "nobody@example.com"}), "an unknown address gets the same answer")
	}
	first, second := token.FindString(mail(2)), ""
	for _, m := range smtp.To("ana@example.com") {
		parsed, err := m.Parse()
		require.NoError(t, err)
		if found := token.FindString(parsed.Text + parsed.HTML); found != first {
			second = found
		}
	}
	require.NotEmpty(t, first)
	require.NotEmpty(t, second)

	used := 0
	for _, secret := range []string{first, second} {
		if status(t, s, users+"confirm-verification", map[string]any{"token": secret}) == http.StatusNoContent {
			used++
		}
	}
	for _, secret := range []string{first, second} { // afterwards: a new password ends all tokens
		if status(t, s, users+"confirm-password-reset", map[string]any{"token": secret, "password": "second-password", "passwordConfirm": "second-password"}) == http.StatusNoContent {
			used++
		}
	}
	require.Equal(t, 2, used, "what the mails hold works")
	var otp, unknown struct{ OTPID string }
	require.NoError(t, s.Call(http.MethodPost, users+"request-otp", map[string]any{"email": "ana@example.com"}, &otp))
	require.NoError(t, s.Call(http.MethodPost, users+"request-otp", map[string]any{"email": "nobody@example.com"}, &unknown))
	require.Len(t, unknown.OTPID, len(otp.OTPID))
	code := regexp.MustCompile(`\b\d{8}\b`).FindString(mail(3))
	require.NotEmpty(t, code)
	var auth struct{ Token string }
	require.NoError(t, s.Call(http.MethodPost, users+"auth-with-otp", map[string]any{"otpId": otp.OTPID, "password": code}, &auth))

	require.Equal(t, 3, smtp.Total(), "nobody else got a mail")

	require.NoError(t, s.SignIn())
	var rows struct {
		Items []struct{ Status, Address, Category, Rendered string }
	}
	require.Eventually(t, func() bool {
		require.NoError(t, s.Call(http.MethodGet, "/api/collections/notification_deliveries/records?filter=(status='accepted')", nil, &rows))
		return len(rows.Items) == 3
	}, patience, 20*time.Millisecond, "a row for each")
	for _, row := range rows.Items {
		require.NotEqual(t, "ana@example.com", row.Address, "the address is masked")
		require.Contains(t, []string{"", "null"}, row.Rendered)
	}
	s.Kill()

	secrets := []string{code}
	for _, jwt := range []string{first, second} {
		secrets = append(secrets, jwt, jwt[strings.LastIndex(jwt, ".")+1:])
	}
	files, known := 0, false
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		known = known || bytes.Contains(raw, []byte("ana@example.com"))
		for i, secret := range secrets {
			require.False(t, bytes.Contains(raw, []byte(secret)), "secret %d is in %s", i, filepath.Base(path))
		}
		return nil
	}))
	require.Greater(t, files, 3, "the databases and the log were searched")
	require.True(t, known, "the search finds what is there")
}

// status makes a request and returns its status alone.
func status(t *testing.T, s *process.Server, path string, body map[string]any) int {
	t.Helper()
	code, err := s.Status(http.MethodPost, path, body)
	require.NoError(t, err)
	return code
}
