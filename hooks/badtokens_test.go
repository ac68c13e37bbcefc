package hooks_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
)

// badTokens are tokens that do not count, with the code that says why.
func badTokens(t testing.TB, app *pbtest.App) map[string]struct{ token, code string } {
	t.Helper()
	ana, root := app.User("bad@example.com"), app.Superuser("badroot@example.com")
	sign := func(r *core.Record, claims map[string]any, key string, life time.Duration) string {
		all := map[string]any{"type": "auth", "id": r.Id, "collectionId": r.Collection().Id, "refreshable": true}
		for name, value := range claims {
			all[name] = value
		}
		token, err := security.NewJWT(all, key, life)
		require.NoError(t, err)
		return token
	}
	key := func(r *core.Record) string { return r.TokenKey() + r.Collection().AuthToken.Secret }

	revoked, revokedRoot := signIn(t, app, ana), signIn(t, app, root)
	for _, token := range []string{revoked, revokedRoot} {
		res := app.Send(http.MethodPost, "/api/logout", nil, token)
		require.Equal(t, http.StatusNoContent, res.Status, res)
	}
	file, err := ana.NewFileToken()
	require.NoError(t, err)
	reset, err := ana.NewPasswordResetToken()
	require.NoError(t, err)
	signedIn := signIn(t, app, ana)
	return map[string]struct{ token, code string }{
		"revoked":                    {revoked, "session_ended"},
		"revoked, after Bearer":      {"Bearer " + revoked, "session_ended"},
		"revoked superuser":          {revokedRoot, "session_ended"},
		"expired":                    {sign(ana, nil, key(ana), -time.Minute), "token_expired"},
		"malformed":                  {"not-a-token", "token_malformed"},
		"malformed, after bearer":    {"bearer undefined", "token_malformed"},
		"half a token":               {signedIn[:len(signedIn)/2], "token_malformed"},
		"without signature":          {signedIn[:strings.LastIndex(signedIn, ".")+1], "token_invalid"},
		"forged":                     {sign(ana, nil, strings.Repeat("k", 60), time.Hour), "token_invalid"},
		"of another collection":      {sign(ana, map[string]any{"collectionId": root.Collection().Id}, key(ana), time.Hour), "token_invalid"},
		"of nobody":                  {sign(ana, map[string]any{"id": "nobody000000000"}, key(ana), time.Hour), "token_invalid"},
		"for files":                  {file, "token_invalid"},
		"for a new password":         {reset, "token_invalid"},
		"of a session that is not":   {sign(ana, map[string]any{"sid": "000000000000000"}, key(ana), time.Hour), "session_ended"},
		"of no possible session":     {sign(ana, map[string]any{"sid": "%' OR 1=1"}, key(ana), time.Hour), "session_ended"},
		"of somebody else's session": {sign(ana, map[string]any{"sid": sessionID(t, signIn(t, app, root))}, key(ana), time.Hour), "session_ended"},
	}
}

// A bad token is refused where somebody could take the answer of a guest for their
// own, and counts as none where a new one is got.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Router.GET("/hello", func(e *core.RequestEvent) error { return e.String(http.StatusOK, fmt.Sprint(e.Auth == nil)) })
		return e.Next()
	})
	bad := badTokens(t, app)
	// More requests from one address than a guest has.
	limits, err := app.FindAllRecords("rate_limits")
	require.NoError(t, err)
	for _, limit := range limits {
		require.NoError(t, app.Delete(limit))
	}
	app.Record("app_versions", map[string]any{"platform": "ios", "minimum": "1.0", "latest": "1.0", "enabled": true})
	n := 0

	for name, tc := range map[string]struct {
		method, path string
		body         func() any
		want         int // 401: refused, with the reason
	}{
		"list":                   {method: "GET", path: "/api/collections/users/records", want: 401},
		"list of ours":           {method: "GET", path: "/api/collections/devices/records", want: 401},
		"list for superusers":    {method: "GET", path: "/api/collections/notifications/records", want: 401},
		"view":                   {method: "GET", path: "/api/collections/users/records/x", want: 401},
		"create":                 {method: "POST", path: "/api/collections/devices/records", want: 401},
		"update":                 {method: "PATCH", path: "/api/collections/users/records/x", want: 401},
		"delete":                 {method: "DELETE", path: "/api/collections/users/records/x", want: 401},
		"batch":                  {method: "POST", path: "/api/batch", want: 401},
		"logout":                 {method: "POST", path: "/api/logout", want: 401},
		"settings":               {method: "GET", path: "/api/settings", want: 401},
		"collections":            {method: "GET", path: "/api/collections", want: 401},
		"an app's own route":     {method: "GET", path: "/hello", want: 401},
		"impersonate":            {method: "POST", path: "/api/collections/users/impersonate/x", want: 401},
		"a path that is not":     {method: "POST", path: "/api/nothing", want: 401},
		"auth-methods":           {method: "GET", path: "/api/collections/users/auth-methods", want: 200},
		"superusers' methods":    {method: "GET", path: "/api/collections/_superusers/auth-methods", want: 200},
		"auth-with-password":     {method: "POST", path: "/api/collections/users/auth-with-password", body: func() any { return map[string]any{"identity": "bad@example.com", "password": pbtest.Password} }, want: 200},
		"a superuser's sign-in":  {method: "POST", path: "/api/collections/_superusers/auth-with-password", body: func() any { return map[string]any{"identity": "badroot@example.com", "password": pbtest.Password} }, want: 200},
		"auth-with-otp":          {method: "POST", path: "/api/collections/users/auth-with-otp", want: 403}, // not switched on
		"request-otp":            {method: "POST", path: "/api/collections/users/request-otp", want: 403},
		"request-phone-otp":      {method: "POST", path: "/api/collections/users/request-phone-otp", want: 400}, // not switched on
		"request-password-reset": {method: "POST", path: "/api/collections/users/request-password-reset", body: func() any { return map[string]any{"email": "bad@example.com"} }, want: 204},
		"confirm-password-reset": {method: "POST", path: "/api/collections/users/confirm-password-reset", want: 400},
		"request-verification":   {method: "POST", path: "/api/collections/users/request-verification", body: func() any { return map[string]any{"email": "bad@example.com"} }, want: 204},
		"sign-up": {method: "POST", path: "/api/collections/users/records", body: func() any {
			n++
			return map[string]any{"email": fmt.Sprintf("new%d@example.com", n), "password": pbtest.Password, "passwordConfirm": pbtest.Password}
		}, want: 200},
		"realtime":      {method: "POST", path: "/api/realtime", body: func() any { return map[string]any{"clientId": "x"} }, want: 404}, // no such client
		"files":         {method: "GET", path: "/api/files/users/x/y.png", want: 404},
		"health":        {method: "GET", path: "/api/health", want: 200},
		"version-check": {method: "GET", path: "/api/version-check?platform=ios&version=1.0", want: 200},
		"webhooks":      {method: "POST", path: "/api/webhooks/twilio/status", want: 403}, // no Twilio here
		"unsubscribe":   {method: "GET", path: "/api/unsubscribe/x", want: 404},           // not there yet
		"dashboard":     {method: "GET", path: "/_/", want: 404},                          // the tests have none
	} {
		for why, b := range bad {
			if tc.want != http.StatusUnauthorized && !slices.Contains([]string{"revoked", "expired", "malformed"}, why) {
				continue // passwords take their time
			}
			var body any
			if tc.body != nil {
				body = tc.body()
			}
			res := app.Send(tc.method, tc.path, body, b.token)
			require.Equal(t, tc.want, res.Status, "%s with a token that is %s: %s", name, why, res)
			if tc.want == http.StatusUnauthorized {
				require.Contains(t, string(res.Body), `"code":"`+b.code+`"`, "%s with a token that is %s", name, why)
			}
		}
	}

	// A token for these two is needed: PocketBase says so itself.
	for _, path := range []string{"/api/collections/users/auth-refresh", "/api/files/token", "/api/collections/users/request-email-change"} {
		for why, b := range bad {
			require.Equal(t, http.StatusUnauthorized, app.Send(http.MethodPost, path, map[string]any{}, b.token).Status, "%s %s", path, why)
		}
	}

	// What is not for us is nobody's token.
	for _, header := range []string{"", "Basic YTpi", "Digest x", "Bearer ", "Bearer"} {
		res := app.Send(http.MethodGet, "/hello", nil, header)
		require.Equal(t, "200 true", res.String(), header)
	}
}

// Who asks, against what only superusers reach and what a rule hides.
func TestWhoIsToldWhat(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	owner, other := app.User("owner@example.com"), app.User("other@example.com")
	revoked := signIn(t, app, owner)
	require.Equal(t, http.StatusNoContent, app.Send(http.MethodPost, "/api/logout", nil, revoked).Status)
	device := app.Record("devices", map[string]any{"user": owner.Id, "platform": "android", "token": "a"})
	message := app.Record("notifications", map[string]any{"title": "A"})
	who := []string{"", revoked, signIn(t, app, other), signIn(t, app, owner), signIn(t, app, app.Superuser("root@example.com"))}

	for path, want := range map[string][5]int{
		"/api/collections/notifications/records":               {401, 401, 403, 403, 200},
		"/api/collections/notifications/records/" + message.Id: {401, 401, 403, 403, 200},
		"/api/collections/NOTIFICATIONS/records":               {401, 401, 403, 403, 200},
		"/api/collections/gw_notifications/records":            {401, 401, 403, 403, 200},
		"/api/collections/devices/records":                     {200, 401, 200, 200, 200},
		"/api/collections/devices/records/" + device.Id:        {404, 401, 404, 200, 200},
		"/api/collections/_superusers/records":                 {403, 401, 403, 403, 200}, // PocketBase's own
	} {
		for i, name := range []string{"guest", "revoked", "other", "owner", "superuser"} {
			res := app.Send(http.MethodGet, path, nil, who[i])
			require.Equal(t, want[i], res.Status, "%s asks for %s: %s", name, path, res)
		}
	}
}

// Refused requests reach no hook of a record.
func TestBadTokenReachesNothing(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		path := "/api/collections/sessions/records"
		if method != http.MethodGet && method != http.MethodPost {
			path += "/000000000000000"
		}
		scenario := tests.ApiScenario{
			Name: method, Method: method, URL: path, Headers: map[string]string{"Authorization": "Bearer x"},
			TestAppFactory: pbtest.Factory(), ExpectedStatus: http.StatusUnauthorized,
			ExpectedContent: []string{`"code":"token_malformed"`},
			// Not "*": the server writes in the background, too.
			ExpectedEvents: map[string]int{"OnRecordsListRequest": 0, "OnRecordViewRequest": 0, "OnRecordCreateRequest": 0, "OnRecordUpdateRequest": 0, "OnRecordDeleteRequest": 0},
		}
		scenario.Test(t)
	}
}
