package hooks_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
)

const (
	jsonType = "application/json"
	otpPath  = "/api/collections/users/auth-with-otp"
	passPath = "/api/collections/users/auth-with-password"
)

// codesApp has one-time codes switched on for users, and counts the sign-ins that
// reach the handlers, and with them a comparison.
type codesApp struct {
	*pbtest.App
	reached atomic.Int64
}

func newCodesApp(t *testing.T, opts ...pbtest.Option) *codesApp {
	t.Helper()
	app := &codesApp{App: pbtest.NewApp(t, opts...)}
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	users.OTP.Enabled = true
	users.OTP.Duration = 600
	users.AuthAlert.Enabled = false
	require.NoError(t, app.SaveNoValidate(users))
	require.NoError(t, app.ReloadCachedCollections())
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{Priority: 100, Func: func(e *core.RequestEvent) error {
			if strings.Contains(e.Request.URL.Path, "/auth-with-") {
				app.reached.Add(1)
			}
			return e.Next()
		}})
		return e.Next()
	})
	return app
}

// code stores a code of a known value, and returns its id.
func (a *codesApp) code(t *testing.T, user *core.Record, value string) string {
	t.Helper()
	otp := core.NewOTP(a)
	otp.SetCollectionRef(user.Collection().Id)
	otp.SetRecordRef(user.Id)
	otp.SetPassword(value)
	require.NoError(t, a.Save(otp))
	return otp.Id
}

// from sends a request that comes from an address.
func (a *codesApp) from(ip, method, path, contentType, body string, headers ...string) pbtest.Response {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	req.RemoteAddr = ip + ":1234"
	if strings.Contains(ip, ":") {
		req.RemoteAddr = "[" + ip + "]:1234"
	}
	rec := httptest.NewRecorder()
	a.Handler().ServeHTTP(rec, req)
	return pbtest.Response{Status: rec.Code, Header: rec.Result().Header, Body: rec.Body.Bytes()}
}

func (a *codesApp) post(ip, path string, body map[string]any) pbtest.Response {
	raw, _ := json.Marshal(body)
	return a.from(ip, http.MethodPost, path, jsonType, string(raw))
}

func address(n int) string { return fmt.Sprintf("198.51.%d.%d", n/250, n%250+1) }

func TestWrongCodesAreLimitedForTheAccount(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	user := app.User("u@example.com")
	const home = "203.0.113.7"
	try := func(ip, id, code string) int {
		return app.post(ip, otpPath, map[string]any{"otpId": id, "password": code}).Status
	}

	// The owner signs in once from home: that address is known from then on.
	require.Equal(t, http.StatusOK, try(home, app.code(t, user, "111111"), "111111"))

	first, second := app.code(t, user, "123456"), app.code(t, user, "654321")
	n := 0
	for i := range 40 {
		id := first
		if i%2 == 1 {
			id = second // over all the codes of the account
		}
		if try(address(i), id, "000000") == http.StatusBadRequest {
			n++
		}
	}
	require.Equal(t, 5, n)
	require.EqualValues(t, 1+5, app.reached.Load())
	require.Equal(t, http.StatusTooManyRequests, try(address(100), first, "123456"), "the right code")
	require.Equal(t, http.StatusTooManyRequests, try(address(101), app.code(t, user, "222222"), "222222"), "a new code buys nothing")
	require.EqualValues(t, 1+5, app.reached.Load())

	require.Equal(t, http.StatusOK, try(home, second, "654321"), "the owner, at home")
	require.Equal(t, http.StatusOK, try(address(102), app.code(t, app.User("v@example.com"), "1"), "1"), "another account")
}

func TestACodeDiesAtTheFifthWrongTry(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	user := app.User("u@example.com")
	const home = "203.0.113.7"
	require.Equal(t, http.StatusOK, app.post(home, otpPath, map[string]any{"otpId": app.code(t, user, "1"), "password": "1"}).Status)

	id, other := app.code(t, user, "123456"), app.code(t, user, "654321")
	for i := range 5 {
		ip := home
		if i%2 == 0 {
			ip = address(i)
		}
		require.Equal(t, http.StatusBadRequest, app.post(ip, otpPath, map[string]any{"otpId": id, "password": "0"}).Status)
	}
	res := app.post(home, otpPath, map[string]any{"otpId": id, "password": "123456"})
	require.Equal(t, http.StatusBadRequest, res.Status, "neither allowance is used up, the code is")
	require.Equal(t, "Invalid or expired OTP.", res.JSON(t)["message"])
	require.Eventually(t, func() bool { _, err := app.FindOTPById(id); return err != nil }, waitLimit, waitStep, "its row goes too")
	require.Equal(t, http.StatusOK, app.post(home, otpPath, map[string]any{"otpId": other, "password": "654321"}).Status, "the account's other code lives")
}

func TestThousandsAtOnce(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	user := app.User("u@example.com")
	id := app.code(t, user, "123456")
	app.Handler()
	var compared, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 2000 {
		wg.Go(func() {
			switch res := app.post(address(i/10), otpPath, map[string]any{"otpId": id, "password": fmt.Sprintf("%06d", i)}); res.Status {
			case http.StatusBadRequest:
				compared.Add(1)
			case http.StatusTooManyRequests:
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 5, compared.Load())
	require.EqualValues(t, 1995, refused.Load())
	require.EqualValues(t, 5, app.reached.Load())
}

func TestWrongPasswordsAreLimitedForTheAccount(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	app.User("u@example.com")
	root := app.Superuser("root@example.com")
	const home = "203.0.113.7"
	for _, tc := range []struct{ path, email string }{
		{passPath, "u@example.com"},
		{"/api/collections/_pb_users_auth_/auth-with-password", "u@example.com"}, // the same counter by the collection's id
		{"/api/collections/_superusers/auth-with-password", "root@example.com"},
	} {
		sign := func(ip, password string) int {
			return app.post(ip, tc.path, map[string]any{"identity": tc.email, "password": password}).Status
		}
		n := 0
		if tc.path != "/api/collections/_pb_users_auth_/auth-with-password" {
			require.Equal(t, http.StatusOK, sign(home, pbtest.Password))
			for i := range 15 {
				if sign(address(i), "wrong") == http.StatusBadRequest {
					n++
				}
			}
			require.Equal(t, 10, n, tc.path)
		}
		require.Equal(t, http.StatusTooManyRequests, sign(address(50), pbtest.Password), "the right one, from somewhere")
		require.Equal(t, http.StatusTooManyRequests, app.from(address(51), http.MethodPost, tc.path, jsonType,
			`{"identity":"`+tc.email+`","password":"x"}`, "Authorization", app.Token(root)).Status, "superusers are not exempt at the sign-in")
		require.Equal(t, http.StatusOK, sign(home, pbtest.Password), "the owner, at home")
	}
	// An allowance of its own is no more than an allowance.
	for range 10 {
		require.Equal(t, http.StatusBadRequest, app.post(home, passPath, map[string]any{"identity": "u@example.com", "password": "wrong"}).Status)
	}
	require.Equal(t, http.StatusTooManyRequests, app.post(home, passPath, map[string]any{"identity": "u@example.com", "password": pbtest.Password}).Status)
	require.Equal(t, http.StatusOK, app.post("127.0.0.1", "/api/collections/_superusers/auth-with-password",
		map[string]any{"identity": "root@example.com", "password": pbtest.Password}).Status, "a superuser on the machine itself")
	require.Equal(t, http.StatusTooManyRequests, app.post("127.0.0.1", passPath,
		map[string]any{"identity": "u@example.com", "password": pbtest.Password}).Status, "not for others")
}

// Who signs in well is never slowed down, however often.
func TestSuccessCostsNothing(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	app.User("u@example.com")
	for i := range 25 {
		require.Equal(t, http.StatusOK, app.post(address(i), passPath, map[string]any{"identity": "u@example.com", "password": pbtest.Password}).Status)
	}
}

// The first of two factors is no failure, and no sign-in that makes an address
// known.
func TestTwoFactors(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	user := app.User("u@example.com")
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	users.MFA.Enabled = true
	require.NoError(t, app.SaveNoValidate(users))
	require.NoError(t, app.ReloadCachedCollections())
	const home = "203.0.113.7"
	first := func(ip string) pbtest.Response {
		return app.post(ip, passPath, map[string]any{"identity": "u@example.com", "password": pbtest.Password})
	}
	for range 12 {
		require.Equal(t, http.StatusUnauthorized, first(home).Status)
	}
	wrong := func() {
		for i := range 10 {
			app.post(address(i), passPath, map[string]any{"identity": "u@example.com", "password": "wrong"})
		}
	}
	mfa := first(home).JSON(t)["mfaId"]
	wrong()
	require.Equal(t, http.StatusTooManyRequests, first(home).Status, "half a sign-in makes no address known")
	res := app.post(home, otpPath, map[string]any{"otpId": app.code(t, user, "1"), "password": "1", "mfaId": mfa})
	require.Equal(t, http.StatusOK, res.Status, res.String())
	require.Equal(t, http.StatusUnauthorized, first(home).Status, "a whole one does")
}

// Whatever way a body is written in, it is about the same account.
func TestNoSpellingGetsRoundTheKey(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	users.Fields.Add(&core.TextField{Name: "nick"})
	users.AddIndex("idx_nick", true, "`nick` COLLATE NOCASE", "")
	users.PasswordAuth.IdentityFields = []string{"email", "nick"}
	require.NoError(t, app.Save(users))
	require.NoError(t, app.ReloadCachedCollections())
	user := app.User("u@example.com", map[string]any{"nick": "Neo"})
	id := app.code(t, user, "123456")

	multi := func(fields ...string) (contentType, body string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for i := 0; i+1 < len(fields); i += 2 {
			require.NoError(t, w.WriteField(fields[i], fields[i+1]))
		}
		require.NoError(t, w.Close())
		return w.FormDataContentType(), b.String()
	}
	form := func(fields ...string) string {
		v := url.Values{}
		for i := 0; i+1 < len(fields); i += 2 {
			v.Add(fields[i], fields[i+1])
		}
		return v.Encode()
	}
	// Ten tries use the password's allowance up, five the code's.
	for i := range 10 {
		app.post(address(i), passPath, map[string]any{"identity": "u@example.com", "password": "wrong"})
	}
	for i := range 5 {
		app.post(address(i), otpPath, map[string]any{"otpId": id, "password": "wrong"})
	}
	reached := app.reached.Load()
	require.EqualValues(t, 15, reached)

	const formType = "application/x-www-form-urlencoded"
	multiType, multiBody := multi("identity", "u@example.com", "password", pbtest.Password)
	payloadType, payloadBody := multi("identity", "somebody@example.com", "@jsonPayload", `{"identity":"u@example.com","password":"`+pbtest.Password+`"}`)
	otpType, otpBody := multi("otpId", id, "password", "123456")
	for i, tc := range []struct{ path, contentType, body string }{
		{passPath, jsonType, `{"identity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{passPath, jsonType, `  {"Identity":"u@example.com","PASSWORD":"` + pbtest.Password + `"}  `},
		{passPath, jsonType, `{"identity":"u@example.com","password":"` + pbtest.Password + `"} and more`},
		{passPath, jsonType + "; charset=utf-8", `{"\u0069dentity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{passPath, jsonType, `{"identity":"u@example.com","identityField":"email","password":"` + pbtest.Password + `"}`},
		{passPath, jsonType, `{"identity":"neo","password":"` + pbtest.Password + `"}`},
		{passPath, jsonType, `{"identity":"NEO","identityField":"nick","password":"` + pbtest.Password + `"}`},
		{passPath, jsonType, `{"identity":"u@example.com","password":"` + pbtest.Password + `","email":5,"otpId":[],"phone":{}}`},
		{passPath + "?identity=somebody@example.com", jsonType, `{"identity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{passPath, formType, form("identity", "u@example.com", "password", pbtest.Password)},
		{passPath + "?identity=u@example.com&password=" + pbtest.Password, formType, "x=1"},
		{passPath, multiType, multiBody},
		{passPath, payloadType, payloadBody},
		{passPath, "text/xml", `<form><Identity>u@example.com</Identity><Password>` + pbtest.Password + `</Password></form>`},
		{"/api/collections/USERS/auth-with-password", jsonType, `{"identity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{"/api/collections/%75sers/auth-with-password", jsonType, `{"identity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{"/api/collections/users/auth%2Dwith-password", jsonType, `{"identity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{otpPath, jsonType, `{"OTPID":"` + id + `","password":"123456"}`},
		{otpPath, otpType, otpBody},
		{otpPath, formType, form("otpId", id, "password", "123456")},
		{otpPath, "application/xml", `<x><OTPId>` + id + `</OTPId><Password>123456</Password></x>`},
	} {
		res := app.from(address(100+i), http.MethodPost, tc.path, tc.contentType, tc.body)
		require.Equal(t, http.StatusTooManyRequests, res.Status, "%+v: %s", tc, res)
	}
	require.Equal(t, reached, app.reached.Load())

	// What cannot be read is refused by the handler and signs nobody in.
	twiceType, twiceBody := multi("identity", "somebody@example.com", "identity", "u@example.com", "password", pbtest.Password)
	for i, tc := range []struct{ contentType, body string }{
		{jsonType, `{"identity":"somebody@example.com","identity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{jsonType, `{"identity":"somebody@example.com","Identity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{jsonType, `{"identity":5,"password":"x"}{"identity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{jsonType, `{"identity":["u@example.com"],"password":"` + pbtest.Password + `"}`},
		{jsonType, ``},
		{"text/plain", `{"identity":"u@example.com","password":"` + pbtest.Password + `"}`},
		{twiceType, twiceBody},
		{formType, form("identity", "somebody@example.com", "identity", "u@example.com", "password", pbtest.Password)},
	} {
		res := app.from(address(200+i), http.MethodPost, passPath, tc.contentType, tc.body)
		require.NotEqual(t, http.StatusOK, res.Status, "%+v: %s", tc, res)
	}

	big := `{"identity":"u@example.com","password":"` + strings.Repeat("x", 2<<20) + `"}`
	require.Equal(t, http.StatusRequestEntityTooLarge, app.from(address(300), http.MethodPost, passPath, jsonType, big).Status)
}

// In answers, headers and limits an address that belongs to nobody is like one
// that belongs to somebody.
func TestNobodyIsLikeSomebody(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	app.User("somebody@example.com")
	transcript := func(email string, offset int) []string {
		var lines []string
		say := func(res pbtest.Response) map[string]any {
			body := map[string]any{}
			_ = json.Unmarshal(res.Body, &body)
			id := body["otpId"]
			if id != nil {
				body["otpId"] = fmt.Sprintf("%d characters", len(id.(string)))
			}
			lines = append(lines, fmt.Sprint(res.Status, body, res.Header.Get("RateLimit-Policy"), strings.Count(res.Header.Get("RateLimit"), "r=0"), res.Header.Get("Retry-After") != ""))
			return map[string]any{"otpId": id}
		}
		var ids []any
		for i := range 7 {
			ids = append(ids, say(app.post(address(offset+i), "/api/collections/users/request-otp", map[string]any{"email": email}))["otpId"])
		}
		for i := range 8 { // the ids of one account share one counter
			say(app.post(address(offset+20+i), otpPath, map[string]any{"otpId": ids[i%5], "password": "000000"}))
		}
		for i := range 12 {
			say(app.post(address(offset+40+i), passPath, map[string]any{"identity": email, "password": "000000"}))
		}
		return lines
	}
	somebody, nobody := transcript("somebody@example.com", 0), transcript("nobody@example.com", 100)
	require.Equal(t, somebody, nobody)
	require.Contains(t, somebody[6], "429")
	require.Contains(t, somebody[7+4], "400")
	require.Contains(t, somebody[7+5], "429")
	require.Contains(t, somebody[7+8+9], "400")
	require.Contains(t, somebody[7+8+10], "429")
}

// Codes for nobody share one counter even where nothing limits asking for them.
func TestNobodyIsLikeSomebodyWithoutALimitOnCodes(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	app.User("somebody@example.com")
	root := app.Token(app.Superuser("root@example.com"))
	require.Equal(t, http.StatusOK, app.Send(http.MethodPatch, limitsPath+"/gwlimitmailcode", map[string]any{"enabled": false}, root).Status)
	for offset, email := range map[int]string{0: "somebody@example.com", 100: "nobody@example.com"} {
		var answers []int
		for i := range 7 {
			id := app.post(address(offset+i), "/api/collections/users/request-otp", map[string]any{"email": email}).JSON(t)["otpId"]
			answers = append(answers, app.post(address(offset+50+i), otpPath, map[string]any{"otpId": id, "password": "000000"}).Status)
		}
		require.Equal(t, []int{400, 400, 400, 400, 400, 429, 429}, answers, email)
	}
}

func TestARuleFollowsARenamedCollection(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	id := rule(t, app.App, root, map[string]any{"route": "GET /api/collections/users/records", "limit": 1, "audience": "guest"})
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	users.Name = "people"
	require.NoError(t, app.Save(users))
	r, err := app.FindRecordById(ratelimit.Collection, id)
	require.NoError(t, err)
	require.Equal(t, "GET /api/collections/people/records", r.GetString("route"))
}

func TestRulesByAFieldOfTheBody(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	rule(t, app.App, root, map[string]any{"route": "POST /api/collections/users/records", "keyBy": "body:name", "limit": 1, "audience": "all"})
	n := 0
	sign := func(contentType, body string) int {
		n++
		return app.from(address(n), http.MethodPost, "/api/collections/users/records", contentType, body).Status
	}
	create := func(name string) string {
		return fmt.Sprintf(`{"name":%s,"email":"x%d@example.com","password":"12345678","passwordConfirm":"12345678"}`, name, n)
	}
	require.Equal(t, http.StatusOK, sign(jsonType, create(`"Ana"`)))
	for _, again := range []string{`"Ana"`, `"ana"`, `" ANA "`} {
		require.Equal(t, http.StatusTooManyRequests, sign(jsonType, create(again)), again)
	}
	require.Equal(t, http.StatusTooManyRequests, sign("application/x-www-form-urlencoded", "name=Ana&email=z@example.com&password=12345678&passwordConfirm=12345678"))
	require.Equal(t, http.StatusOK, sign(jsonType, create(`"Bea"`)))
	require.Equal(t, http.StatusOK, sign(jsonType, create("5")))
	require.Equal(t, http.StatusTooManyRequests, sign(jsonType, create(`"5"`)))
	require.Equal(t, http.StatusOK, sign(jsonType, `{"email":"none1@example.com","password":"12345678","passwordConfirm":"12345678"}`))
	require.Equal(t, http.StatusOK, sign(jsonType, `{"email":"none2@example.com","password":"12345678","passwordConfirm":"12345678"}`), "nothing there: by its address")
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	app := newCodesApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	rule(t, app.App, root, map[string]any{"limit": 1, "audience": "guest"})
	get := func(ip string, headers ...string) int {
		return app.from(ip, http.MethodGet, "/api/health", jsonType, "", headers...).Status
	}
	ok, refused := http.StatusOK, http.StatusTooManyRequests
	require.Equal(t, ok, get("2001:db8:1:2::1"))
	require.Equal(t, refused, get("2001:db8:1:2:ffff::1"), "the same /64")
	require.Equal(t, ok, get("2001:db8:1:3::1"))
	require.Equal(t, ok, get("192.0.2.77"))
	require.Equal(t, refused, get("::ffff:192.0.2.77"), "the same in IPv6's clothes")

	require.Equal(t, ok, get("10.0.0.1"))
	require.Equal(t, refused, get("10.0.0.1", "X-Forwarded-For", "198.51.100.1"), "no setting, no header")

	app.Settings().TrustedProxy.Headers = []string{"X-Forwarded-For"}
	require.Equal(t, ok, get("10.0.0.1", "X-Forwarded-For", "198.51.100.1"))
	require.Equal(t, ok, get("10.0.0.1", "X-Forwarded-For", "198.51.100.2"))
	require.Equal(t, refused, get("10.0.0.2", "X-Forwarded-For", "198.51.100.2"), "another proxy, the same client")
	require.Equal(t, refused, get("10.0.0.2", "X-Forwarded-For", "9.9.9.9, 198.51.100.2"), "what the client wrote itself comes first")
	require.Equal(t, ok, get("198.51.100.99"))
	require.Equal(t, refused, get("198.51.100.99", "X-Forwarded-For", "198.51.100.3"), "not from a proxy: somebody made it up")

	strict := newCodesApp(t, pbtest.WithConfig(func(c *configOf) { c.TrustedProxies = prefixes("198.51.100.0/24") }))
	rule(t, strict.App, strict.Token(strict.Superuser("root@example.com")), map[string]any{"limit": 1, "audience": "guest"})
	strict.Settings().TrustedProxy.Headers = []string{"X-Forwarded-For"}
	require.Equal(t, ok, strict.from("198.51.100.9", http.MethodGet, "/api/health", jsonType, "", "X-Forwarded-For", "203.0.113.1").Status)
	require.Equal(t, ok, strict.from("198.51.100.9", http.MethodGet, "/api/health", jsonType, "", "X-Forwarded-For", "203.0.113.2").Status)
	require.Equal(t, ok, strict.from("10.0.0.1", http.MethodGet, "/api/health", jsonType, "", "X-Forwarded-For", "203.0.113.1").Status)
	require.Equal(t, refused, strict.from("10.0.0.1", http.MethodGet, "/api/health", jsonType, "", "X-Forwarded-For", "203.0.113.4").Status)

	// The list of sessions is where an owner looks for a stranger.
	user := strict.User("u@example.com")
	for peer, shown := range map[string]string{"198.51.100.9": "203.0.113.50", "10.0.0.3": "10.0.0.3", "2001:db8::7": "2001:0db8:0000:0000:0000:0000:0000:0007"} {
		code := strict.code(t, user, "123456")
		require.Equal(t, ok, strict.from(peer, http.MethodPost, otpPath, jsonType, `{"otpId":"`+code+`","password":"123456"}`, "X-Forwarded-For", "203.0.113.50").Status)
		session, err := strict.FindFirstRecordByData("sessions", "ip", shown)
		require.NoError(t, err, shown)
		require.NoError(t, strict.Delete(session))
	}
}
