package hooks_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
)

// An attacker who keeps the account's allowance used up from everywhere cannot
// keep an owner out who has never signed in from where they are, but has shown
// that the account is theirs.
func TestOwnersComeInWithoutAnEarlierSignIn(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	const users = "/api/collections/users/"
	try := func(ip, email, password string) int {
		return app.post(ip, passPath, map[string]any{"identity": email, "password": password}).Status
	}
	attack := func(email string) {
		for i := range 15 {
			try(address(i), email, "wrong")
		}
		require.Equal(t, http.StatusTooManyRequests, try(address(50), email, "wrong"))
	}

	// Who signs up is at home where they did.
	const home = "203.0.113.7"
	res := app.post(home, users+"records", map[string]any{"email": "new@example.com", "password": "1234567890", "passwordConfirm": "1234567890"})
	require.Equal(t, http.StatusOK, res.Status, res.String())
	attack("new@example.com")
	require.Equal(t, http.StatusTooManyRequests, try("203.0.113.8", "new@example.com", "1234567890"), "elsewhere")
	require.Equal(t, http.StatusOK, try(home, "new@example.com", "1234567890"))

	// A link from the mailbox of the account says as much.
	user := app.User("u@example.com")
	attack("u@example.com")
	const away = "203.0.113.9"
	require.Equal(t, http.StatusTooManyRequests, try(away, "u@example.com", "1234567890"))
	token, err := user.NewPasswordResetToken()
	require.NoError(t, err)
	body := map[string]any{"token": token, "password": "0987654321", "passwordConfirm": "0987654321"}
	require.Equal(t, http.StatusBadRequest, app.post(address(60), users+"confirm-password-reset", map[string]any{"token": "x", "password": "0987654321", "passwordConfirm": "0987654321"}).Status)
	require.Equal(t, http.StatusNoContent, app.post(away, users+"confirm-password-reset", body).Status)
	require.Equal(t, http.StatusOK, try(away, "u@example.com", "0987654321"))
	require.Equal(t, http.StatusTooManyRequests, try(address(60), "u@example.com", "0987654321"))

	other := app.User("v@example.com")
	attack("v@example.com")
	token, err = other.NewVerificationToken()
	require.NoError(t, err)
	require.Equal(t, http.StatusTooManyRequests, try(away, "v@example.com", "1234567890"))
	require.Equal(t, http.StatusNoContent, app.post(away, users+"confirm-verification", map[string]any{"token": token}).Status)
	require.NotEqual(t, http.StatusTooManyRequests, try(away, "v@example.com", "1234567890"))

	// An account that a superuser makes is not at home with the superuser.
	root := app.Token(app.Superuser("root@example.com"))
	made := app.from("203.0.113.20", http.MethodPost, users+"records", jsonType,
		`{"email":"w@example.com","password":"1234567890","passwordConfirm":"1234567890"}`, "Authorization", root)
	require.Equal(t, http.StatusOK, made.Status, made.String())
	attack("w@example.com")
	require.Equal(t, http.StatusTooManyRequests, try("203.0.113.20", "w@example.com", "1234567890"))
}

// Whatever rules there are, a superuser can come in and change them: strangers cannot
// use up a number for everybody, and from the machine itself no narrow rule holds.
func TestNoRuleShutsSuperusersOut(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	app.Superuser("root@example.com")
	const root = "/api/collections/_superusers/"
	signIn := func(ip, password string) int {
		return app.post(ip, root+"auth-with-password", map[string]any{"identity": "root@example.com", "password": password}).Status
	}
	get := func(ip, path string) int { return app.from(ip, http.MethodGet, path, jsonType, "").Status }
	rule := func(name, keyBy string) {
		app.Record("rate_limits", map[string]any{"name": name, "route": "*", "audience": "all", "keyBy": keyBy, "counts": "all", "limit": 1, "windowSeconds": 31 * 24 * 3600, "enabled": true})
	}
	const stranger, away = "203.0.113.30", "203.0.113.31"
	rule("Everybody", "global")
	require.Equal(t, http.StatusOK, get(stranger, "/api/health"))
	require.Equal(t, http.StatusTooManyRequests, get(away, "/api/health"))
	require.Equal(t, http.StatusOK, get(away, root+"auth-methods"))
	require.NotEqual(t, http.StatusTooManyRequests, get(away, "/_/"))
	require.Equal(t, http.StatusOK, signIn(away, pbtest.Password))
	require.Equal(t, http.StatusTooManyRequests, app.post(away, passPath, map[string]any{"identity": "u@example.com", "password": "x"}).Status, "users have no such door")

	rule("Each address", "ip")
	get(away, root+"auth-methods")
	require.Equal(t, http.StatusTooManyRequests, signIn(away, pbtest.Password))
	require.Equal(t, http.StatusOK, get("127.0.0.1", root+"auth-methods"))
	require.Equal(t, http.StatusOK, signIn("127.0.0.1", pbtest.Password))
	for range 10 {
		signIn("127.0.0.1", "wrong")
	}
	require.Equal(t, http.StatusTooManyRequests, signIn("127.0.0.1", "wrong"), "guessing is limited here too")
}
