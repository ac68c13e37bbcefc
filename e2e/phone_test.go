package e2e

import (
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// TestPhoneSignInWithTheStockSDK signs in as an app would, with PocketBase's
// JavaScript SDK in Node, on a machine where nothing is set up.
func TestPhoneSignInWithTheStockSDK(t *testing.T) {
	t.Parallel()
	needNode(t)
	server := startDevices(t, t.TempDir(), freeAddress(t), "SUPERUSER_EMAIL="+process.RootEmail, "SUPERUSER_PASSWORD="+process.RootPassword)
	out, err := exec.Command("node", "phone.mjs", server.base, process.RootEmail, process.RootPassword).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, server.console.String())
	require.Contains(t, string(out), "ok    sign up")
	t.Logf("%s", out)
}

// TestCodesBySMSLeaveNothing kills the server after it has answered and before the
// code could leave. The code goes out once, wrong tries are remembered, and then
// neither it nor the number that asked for it is in any file that the server wrote:
// databases, jobs, and all it printed.
func TestCodesBySMSLeaveNothing(t *testing.T) {
	t.Parallel()
	const known, unknown, users = "+447700900123", "+447700900456", "/api/collections/users/"
	twilio := providertest.NewTwilio(t, providertest.TwilioOptions{Spec: twilioDescription(t)})
	dir := t.TempDir()
	s := &process.Server{Binary: buildBinary(t), Dir: dir, Env: append(process.Root(), twilio.Env("+447700900999", "")...)}
	require.NoError(t, s.Start())
	t.Cleanup(s.Kill)
	require.NoError(t, s.SignIn())
	require.NoError(t, s.Call(http.MethodPatch, "/api/collections/users", map[string]any{"otp": map[string]any{"enabled": true, "duration": 600, "length": 8}}, &struct{}{}))
	require.NoError(t, s.Call(http.MethodPost, users+"records", map[string]any{"email": "ana@example.com", "password": "first-password", "passwordConfirm": "first-password", "phone": known}, &struct{}{}))
	s.SignOut()

	require.NoError(t, twilio.Down())
	var first, nobody struct{ OTPID string }
	require.NoError(t, s.Call(http.MethodPost, users+"request-phone-otp", map[string]any{"phone": known}, &first))
	s.Kill()
	require.NoError(t, s.WithDB(func(db *dbx.DB) error {
		// Limits on requests would answer before the code's own does.
		var tables int
		err := db.NewQuery("SELECT count(*) FROM sqlite_master WHERE name = 'rate_limits'").Row(&tables)
		if err == nil && tables > 0 {
			_, err = db.NewQuery("UPDATE rate_limits SET enabled = FALSE").Execute()
		}
		return err
	}))
	require.NoError(t, twilio.Up())
	require.NoError(t, s.Start())
	require.Eventually(t, func() bool { return len(twilio.To(known)) == 1 }, patience, 10*time.Millisecond, "the code goes out after all")
	code := regexp.MustCompile(`\b\d{8}\b`).FindString(twilio.To(known)[0].Body)
	require.NotEmpty(t, code)

	require.NoError(t, s.Call(http.MethodPost, users+"request-phone-otp", map[string]any{"phone": unknown}, &nobody))
	for range 4 {
		for _, id := range []string{first.OTPID, nobody.OTPID} {
			require.Equal(t, http.StatusBadRequest, status(t, s, users+"auth-with-otp", map[string]any{"otpId": id, "password": "00000000"}))
		}
	}
	s.Kill()
	require.NoError(t, s.Start())
	require.Equal(t, http.StatusBadRequest, status(t, s, users+"auth-with-otp", map[string]any{"otpId": first.OTPID, "password": "00000000"}))
	require.Equal(t, http.StatusBadRequest, status(t, s, users+"auth-with-otp", map[string]any{"otpId": first.OTPID, "password": code}), "it died at the fifth wrong try, over a kill")

	require.NoError(t, s.Call(http.MethodPost, users+"request-phone-otp", map[string]any{"phone": known}, &first))
	require.Eventually(t, func() bool { return len(twilio.To(known)) == 2 }, patience, 10*time.Millisecond)
	second := regexp.MustCompile(`\b\d{8}\b`).FindString(twilio.To(known)[1].Body)
	var auth struct{ Token string }
	require.NoError(t, s.Call(http.MethodPost, users+"auth-with-otp", map[string]any{"otpId": first.OTPID, "password": second}, &auth))
	require.NotEmpty(t, auth.Token)
	require.Equal(t, map[string]int{known: 2}, twilio.Counts(), "each code once, and nobody else got one")
	require.Empty(t, twilio.Violations())

	require.NoError(t, s.SignIn())
	var rows struct {
		Items []struct{ Status, Reason, Address, Rendered string }
	}
	require.Eventually(t, func() bool {
		require.NoError(t, s.Call(http.MethodGet, "/api/collections/notification_deliveries/records?filter=channel='sms'%26%26(status='accepted'||reason='no_account')", nil, &rows))
		return len(rows.Items) == 3
	}, patience, 20*time.Millisecond, "a row for each")
	s.Kill()

	secrets := []string{code, second, unknown, unknown[1:]}
	files, found := 0, false
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		found = found || bytes.Contains(raw, []byte("…0456"))
		if filepath.Base(path) != "data.db" && filepath.Base(path) != "data.db-wal" {
			// In the database the known number is in its record.
			require.False(t, bytes.Contains(raw, []byte(known[1:])), "the number is in %s", filepath.Base(path))
		}
		for i, secret := range secrets {
			require.False(t, bytes.Contains(raw, []byte(secret)), "secret %d is in %s", i, filepath.Base(path))
		}
		return nil
	}))
	require.Greater(t, files, 3, "the databases and the log were searched")
	require.True(t, found, "the search finds what is there")
}
