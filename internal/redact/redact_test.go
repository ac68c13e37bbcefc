package redact

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const secret = "hunter2-Zq9"

func TestString(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`token=` + secret, `?a=1&token=` + secret + `&b=2`, `{"password":"` + secret + `"}`, `{"password": "` + secret + `", "x": 1}`,
		`Authorization: Bearer ` + secret, `authorization: ` + secret, `otpId=` + secret, `{\"code\":\"` + secret + `\"}`, `password: '` + secret + `'`,
		`codeVerifier=` + secret, `passwordConfirm: ` + secret, `client_secret=` + secret, `"oldPassword" : "` + secret + ` with spaces"`,
	} {
		require.NotContains(t, String(text), secret, text)
	}
	for _, plain := range []string{"record 8www344li9l81c7 was not found", "status code is 404 here", "550 5.1.1 no such user", "hello world"} {
		require.Equal(t, plain, String(plain))
	}
	require.NotContains(t, String("x eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IjEifQ.abc_def y"), "abc_def")
}

func TestURLAndValue(t *testing.T) {
	t.Parallel()
	got := URL("/api/files/x?token=" + secret + "&thumb=100x100")
	require.NotContains(t, got, secret)
	require.Contains(t, got, "thumb=100x100")
	require.NotContains(t, URL("/api/unsubscribe/eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IjEifQ.abc"), "eyJ")
	require.NotContains(t, URL("/x?token="+secret+"%zz"), secret)

	deep := map[string]any{"a": []any{map[string]any{"b": map[string]any{"passwordConfirm": secret, "ok": "yes"}}}}
	raw, err := json.Marshal(Value(deep))
	require.NoError(t, err)
	require.NotContains(t, string(raw), secret)
	require.Contains(t, string(raw), "yes")
}

func TestName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"password", "Old_Password", "PROXY-AUTHORIZATION", "tokenKey", "to\u212aen", "__code__"} {
		require.True(t, Name(name), name)
	}
	for _, name := range []string{"", "-", "passwords", "to ken", "c\u00f6de", strings.Repeat("token", 20)} {
		require.False(t, Name(name), name)
	}
}

func TestPathsStayReadable(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"/api/collections/notifications/records/8www344li9l81c7",
		"/api/collections/notification_deliveries/records/8www344li9l81c7?page=2",
		"/api/files/notification_templates/8www344li9l81c7/some_picture_of_something_k2j3h4g5f6.png",
	} {
		require.Equal(t, path, URL(path))
		require.Equal(t, "GET "+path, String("GET "+path))
	}
	for _, key := range []string{
		strings.Repeat("deadbeef01", 6), // hex
		strings.Repeat("abcdefghjk234567", 4),
		"Zm9vYmFy/Zm9vYmFyZm9vYmFyZm9v/YmFyZm9vYmFyZm9vYmFyZm9vYmFy",
		"zm9vymfy/zm9vymfyzm9vymfyzm9v+ymfyzm9vymfyzm9vymfyzm9vymfy",
	} {
		require.NotContains(t, URL("/api/unsubscribe/"+key), key[:20])
		require.NotContains(t, String("the key "+key+" is wrong"), key[:20])
	}
	require.Equal(t, "/api/unsubscribe/"+Mark, URL("/api/unsubscribe/"+strings.Repeat("abcdefghjk234567", 4)))
}

// The patterns alone, without a look at whether they can match.
func thoroughly(s string) string {
	s = jwt.ReplaceAllString(s, Mark)
	s = bearer.ReplaceAllString(s, "$1 "+Mark)
	s = pair.ReplaceAllString(s, "$1"+Mark)
	if long.MatchString(s) {
		return withoutKeys(s)
	}
	return s
}

func TestHintsMissNothing(t *testing.T) {
	t.Parallel()
	names := []string{
		"password", "passwordConfirm", "password_confirm", "passwd", "oldPassword", "new_password", "token", "tokenKey", "access_token", "refresh-token", "idToken",
		"otpId", "otp_id", "mfaId", "mfa_id", "code", "codeVerifier", "code_verifier", "createData", "secret", "client-secret", "clientsecret",
		"apikey", "api_key", "API-Key", "authorization", "cookie", "Set-Cookie", "signature",
		"\u017fecret", "\u017fignature", "to\u212aen", "coo\u212aie", // letters that patterns fold
	}
	for _, name := range names {
		for _, text := range []string{name + "=" + secret, "é " + strings.ToUpper(name) + ": " + secret, `{"` + name + `":"` + secret + `"}`} {
			require.Equal(t, thoroughly(text), String(text), text)
		}
	}
	for _, text := range []string{
		"BEARER " + secret, "basic " + secret, "ba\u017fic " + secret, "x eyJabcde.f", strings.Repeat("a", 31), strings.Repeat("a", 32), strings.Repeat("Z", 48) + "==", "",
	} {
		require.Equal(t, thoroughly(text), String(text), text)
	}
}

func FuzzHintsMissNothing(f *testing.F) {
	for _, text := range []string{"GET /api/version-check?platform=ios", "password=x", "Bearer abc", "eyJabcdef.ghi", strings.Repeat("0f", 20), "to\u212aen=1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { require.Equal(t, thoroughly(text), String(text)) })
}

func BenchmarkValue(b *testing.B) {
	row := map[string]any{"type": "request", "url": "/api/version-check?platform=ios&version=1.2.3", "method": "GET", "status": 200, "execTime": 0.2,
		"referer": "", "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36", "auth": "users",
		"userIP": "192.0.2.1", "remoteIP": "192.0.2.1"}
	b.ReportAllocs()
	for b.Loop() {
		Value(row)
	}
}

func FuzzNoSecretSurvives(f *testing.F) {
	f.Add("before ", "after")
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, secret) || strings.ContainsAny(before, `"\`) {
			t.Skip("the text around decides where the value begins") // not a secret of ours then
		}
		require.NotContains(t, String(before+` "password":"`+secret+`" `+after), secret)
	})
}
