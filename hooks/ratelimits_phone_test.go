package hooks_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// A number that an administrator wrote leads into its account before anybody has
// verified it: it counts as that account from the first code on.
func TestAnUnverifiedNumberCountsAsItsAccount(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	user := app.User("u@example.com", map[string]any{"phone": phoneA})
	const home, users = "203.0.113.7", "/api/collections/users/"
	require.Equal(t, http.StatusOK, app.post(home, otpPath, map[string]any{"otpId": app.code(t, user, "111111"), "password": "111111"}).Status)

	request := func(ip string) (string, int) {
		res := app.post(ip, users+"request-phone-otp", map[string]any{"phone": phoneA})
		id, _ := res.JSON(t)["otpId"].(string)
		return id, res.Status
	}
	id, _ := request(address(1))
	for i := range 4 { // with this one, all five
		_, status := request(address(i))
		require.Equal(t, http.StatusOK, status)
	}
	_, status := request(address(9))
	require.Equal(t, http.StatusTooManyRequests, status)
	_, status = request(home)
	require.Equal(t, http.StatusOK, status, "the owner, at home")

	// Wrong codes by e-mail and by phone are wrong codes for one account.
	compared := 0
	for i := range 5 {
		for _, code := range []string{id, app.code(t, user, "222222")} {
			if app.post(address(i), otpPath, map[string]any{"otpId": code, "password": "0"}).Status == http.StatusBadRequest {
				compared++
			}
		}
	}
	require.Equal(t, 5, compared)
}

// Nothing in place of the number means the own one, and counts as that.
func TestAskingForTheOwnNumberCountsAsThatNumber(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	token := app.Token(app.User("u@example.com", map[string]any{"phone": phoneA}))
	passed := 0
	for i := range 10 {
		body := `{"phone":""}`
		if i%2 == 1 {
			body = `{"phone":"` + phoneA + `"}`
		}
		res := app.from(address(i), http.MethodPost, "/api/collections/users/request-phone-verification", jsonType, body, "Authorization", token)
		if res.Status == http.StatusOK {
			passed++
		}
	}
	require.Equal(t, 5, passed)
}

// A guest gets no verification code, and takes none from whoever has the number.
func TestGuestsUseUpNobodysVerification(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	ask := func(n int, token string) int {
		return app.from(address(n), http.MethodPost, "/api/collections/users/request-phone-verification", jsonType, `{"phone":"`+phoneA+`"}`, "Authorization", token).Status
	}
	for n := range 6 {
		require.Equal(t, http.StatusUnauthorized, ask(n, ""))
	}
	token := app.Token(app.User("u@example.com"))
	for n := range 5 {
		require.Equal(t, http.StatusOK, ask(n, token))
	}
	require.Equal(t, http.StatusTooManyRequests, ask(9, token))
}
