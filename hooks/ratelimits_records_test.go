package hooks_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
)

const (
	waitLimit = patience
	waitStep  = 5 * time.Millisecond
)

type configOf = hooks.Config

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func allowBatches(t *testing.T, app *codesApp) {
	t.Helper()
	s := app.Settings()
	s.Batch.Enabled, s.Batch.MaxRequests, s.Batch.Timeout = true, 100, 120
	require.NoError(t, app.Save(s))
}

func change(id, old string) map[string]any {
	return map[string]any{"method": "PATCH", "url": "/api/collections/users/records/" + id,
		"body": map[string]any{"oldPassword": old, "password": "new-password", "passwordConfirm": "new-password"}}
}

func batch(requests ...any) map[string]any { return map[string]any{"requests": requests} }

// A wrong old password counts, by itself and inside a batch, where the batch's
// transaction is undone.
func TestPasswordChangesAreLimited(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	allowBatches(t, app)
	user := app.User("u@example.com")
	token, path := app.Token(user), "/api/collections/users/records/"+user.Id

	for range 20 {
		require.Equal(t, http.StatusOK, app.Send(http.MethodPatch, path, map[string]any{"name": "Ana"}, token).Status, "other changes do not count")
	}
	root := app.Token(app.Superuser("root@example.com"))
	// Fewer than the ten of the start: each costs a hash.
	require.Equal(t, http.StatusOK, app.Send(http.MethodPatch, limitsPath+"/gwlimitoldpassw", map[string]any{"limit": 2}, root).Status)
	{
		require.Equal(t, http.StatusBadRequest, app.Send(http.MethodPatch, path, change("", "wrong")["body"], token).Status)
		require.Equal(t, http.StatusBadRequest, app.Send(http.MethodPost, "/api/batch", batch(change(user.Id, "wrong")), token).Status)
	}
	alone := app.Send(http.MethodPatch, path, change("", pbtest.Password)["body"], token)
	require.Equal(t, http.StatusTooManyRequests, alone.Status)
	require.NotEmpty(t, alone.Header.Get("Retry-After"))
	inside := app.Send(http.MethodPost, "/api/batch", batch(change(user.Id, pbtest.Password)), token)
	require.Equal(t, http.StatusTooManyRequests, inside.Status)
	require.NotEmpty(t, inside.Header.Get("Retry-After"))
	require.True(t, app.Reload(user).ValidatePassword(pbtest.Password))

	other := app.User("v@example.com")
	require.Equal(t, http.StatusTooManyRequests, app.Send(http.MethodPost, "/api/batch", batch(
		change(other.Id, "0"), change(other.Id, "1"), change(other.Id, pbtest.Password)), app.Token(other)).Status, "three in one batch")
	require.Equal(t, http.StatusOK, app.Send(http.MethodPost, "/api/batch", batch(change(other.Id, pbtest.Password)), app.Token(other)).Status, "none of them was tried")
	require.Equal(t, http.StatusOK, app.Send(http.MethodPatch, path, map[string]any{"password": "by-root-12", "passwordConfirm": "by-root-12"}, root).Status, "a superuser may")
}

// The link that changes an address asks for the password: whoever has a stolen token can
// have one sent to themselves, and guess.
func TestWrongPasswordsAtAnEmailChangeAreLimited(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	require.Equal(t, http.StatusOK, app.Send(http.MethodPatch, limitsPath+"/gwlimitmailpass", map[string]any{"limit": 2}, root).Status)
	user, other := app.User("u@example.com"), app.User("v@example.com")
	confirm := func(user *core.Record, n int, password, auth string) pbtest.Response {
		token, err := user.NewEmailChangeToken(fmt.Sprintf("new%d@example.com", n))
		require.NoError(t, err)
		return app.from(address(n), http.MethodPost, "/api/collections/users/confirm-email-change", jsonType,
			`{"token":"`+token+`","password":"`+password+`"}`, "Authorization", auth)
	}
	require.Equal(t, http.StatusBadRequest, confirm(user, 1, "wrong", "").Status)
	require.Equal(t, http.StatusBadRequest, confirm(user, 2, "wrong", app.Token(other)).Status, "as somebody else, from elsewhere, with another link")
	res := confirm(user, 3, pbtest.Password, "")
	require.Equal(t, http.StatusTooManyRequests, res.Status, res)
	require.NotEmpty(t, res.Header.Get("Retry-After"))
	require.Equal(t, "u@example.com", app.Reload(user).Email())
	require.Equal(t, http.StatusNoContent, confirm(other, 4, pbtest.Password, "").Status)
}

// Whoever sends a batch writes the headers of the requests in it; a proxy's word about
// the address is about the batch.
func TestTheAddressOfABatchCountsInIt(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	allowBatches(t, app)
	app.Settings().TrustedProxy.Headers = []string{"X-Forwarded-For"}
	user := app.User("u@example.com")
	raw, err := json.Marshal(batch(map[string]any{"method": "POST", "url": consentsPath, "headers": map[string]any{"X-Forwarded-For": "198.51.100.66"},
		"body": map[string]any{"user": user.Id, "channel": "email", "granted": true, "source": "Settings", "wording": "Send me news."}}))
	require.NoError(t, err)
	res := app.from("10.0.0.1", http.MethodPost, "/api/batch", jsonType, string(raw), "Authorization", app.Token(user), "X-Forwarded-For", "203.0.113.5")
	require.Equal(t, http.StatusOK, res.Status, res)
	consent, err := app.FindFirstRecordByData("notification_consents", "user", user.Id)
	require.NoError(t, err)
	require.Equal(t, "203.0.113.5", consent.GetString("ip"))
}

func TestNoSignInThroughABatch(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	allowBatches(t, app)
	user := app.User("u@example.com")
	for _, inner := range []map[string]any{
		{"method": "POST", "url": passPath, "body": map[string]any{"identity": "u@example.com", "password": pbtest.Password}},
		{"method": "POST", "url": otpPath, "body": map[string]any{"otpId": app.code(t, user, "1"), "password": "1"}},
		{"method": "POST", "url": "/api/collections/users/request-phone-otp", "body": map[string]any{"phone": "+15550100000"}},
		{"method": "POST", "url": passPath + "/../records", "body": map[string]any{}},
	} {
		res := app.Send(http.MethodPost, "/api/batch", batch(inner), "")
		require.NotEqual(t, http.StatusOK, res.Status, res.String())
		require.NotContains(t, res.String(), "token")
	}
}

func TestRequestsInABatchCount(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	allowBatches(t, app)
	root := app.Token(app.Superuser("root@example.com"))
	rule(t, app.App, root, map[string]any{"route": "POST /api/collections/users/records", "limit": 3, "audience": "guest"})
	n := 0
	create := func(method string, extra map[string]any) map[string]any {
		n++
		body := map[string]any{"email": fmt.Sprintf("x%d@example.com", n), "password": "12345678", "passwordConfirm": "12345678"}
		for k, v := range extra {
			body[k] = v
		}
		return map[string]any{"method": method, "url": "/api/collections/users/records?fields=id", "body": body}
	}
	send := func(requests ...any) pbtest.Response {
		return app.Send(http.MethodPost, "/api/batch", batch(requests...), "")
	}

	require.Equal(t, http.StatusTooManyRequests, send(create("POST", nil), create("POST", nil), create("POST", nil), create("POST", nil)).Status, "four are too many")
	require.Equal(t, http.StatusOK, send(create("POST", nil), create("PUT", nil)).Status, "and cost nothing")
	res := send(create("PUT", map[string]any{"id": "abcdefghijklmno"}))
	require.Equal(t, http.StatusOK, res.Status, res.String())
	require.Equal(t, http.StatusTooManyRequests, send(create("POST", nil)).Status)
	require.Equal(t, http.StatusTooManyRequests, app.Send(http.MethodPost, "/api/collections/users/records", create("", nil)["body"], "").Status)

	rule(t, app.App, root, map[string]any{"route": "POST /api/batch", "limit": 1, "audience": "guest"})
	nothing := map[string]any{"method": "DELETE", "url": "/api/collections/users/records/none"}
	require.NotEqual(t, http.StatusTooManyRequests, send(nothing).Status)
	require.Equal(t, http.StatusTooManyRequests, send(nothing).Status, "the batch itself")
}

func TestRealtimeCounts(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	rule(t, app.App, root, map[string]any{"route": "POST /api/realtime", "limit": 2, "audience": "guest"})
	rule(t, app.App, root, map[string]any{"route": "GET /api/realtime", "limit": 2, "audience": "guest"})
	subscribe := func() int {
		return app.Send(http.MethodPost, "/api/realtime", map[string]any{"clientId": "none", "subscriptions": []string{}}, "").Status
	}
	require.Equal(t, []int{http.StatusNotFound, http.StatusNotFound, http.StatusTooManyRequests}, []int{subscribe(), subscribe(), subscribe()})
	for i, status := range []int{http.StatusOK, http.StatusOK, http.StatusTooManyRequests} {
		res, err := http.Get(app.URL() + "/api/realtime")
		require.NoError(t, err)
		defer res.Body.Close() // it stays open meanwhile
		require.Equal(t, status, res.StatusCode, i)
		require.NotEmpty(t, res.Header.Get("RateLimit"))
		require.Equal(t, i == 2, res.Header.Get("Retry-After") != "")
	}
}

// PocketBase's own limits work beside ours.
func TestStockLimitsStillWork(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	s := app.Settings()
	s.RateLimits.Enabled = true
	s.RateLimits.Rules = append(s.RateLimits.Rules[:0], ruleOf("/api/health", 2))
	require.NoError(t, app.Save(s))
	get := func() pbtest.Response { return app.Send(http.MethodGet, "/api/health", nil, "") }
	require.Equal(t, []int{http.StatusOK, http.StatusOK, http.StatusTooManyRequests}, []int{get().Status, get().Status, get().Status})
}

func ruleOf(label string, most int) core.RateLimitRule {
	return core.RateLimitRule{Label: label, MaxRequests: most, Duration: 600}
}
