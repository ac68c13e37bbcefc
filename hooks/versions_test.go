package hooks_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/versions"
)

// versionsApp is a running app over dir; a second one over the same folder is
// what a second process would be.
type versionsApp struct {
	core.App
	handler http.Handler
}

func newVersionsApp(t *testing.T, dir string) *versionsApp {
	t.Helper()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	require.NoError(t, hooks.Register(app, hooks.Config{}))
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { _ = app.ClearBootstrap() })
	require.NoError(t, app.RunAllMigrations())
	app.Settings().Logs.MaxDays = 0 // they are written after the answer, when the folder may be gone

	app.OnServe().Unbind("__pbCronStart__") // as in pbtest
	router, err := apis.NewRouter(app)
	require.NoError(t, err)
	a := &versionsApp{App: app}
	serve := &core.ServeEvent{App: app, Router: router}
	require.NoError(t, app.OnServe().Trigger(serve, func(e *core.ServeEvent) error {
		e.Router.Bind(apis.CORS(apis.CORSConfig{AllowOrigins: []string{"*"}})) // as apis.Serve does
		a.handler, err = e.Router.BuildMux()
		return err
	}))
	return a
}

func (a *versionsApp) do(t *testing.T, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, r)
	return w
}

func (a *versionsApp) check(t *testing.T, platform, version string) versions.Answer {
	t.Helper()
	w := a.do(t, http.MethodGet, "/api/version-check?"+url.Values{"platform": {platform}, "version": {version}}.Encode())
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	var answer versions.Answer
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
	return answer
}

func (a *versionsApp) rule(t *testing.T, values map[string]any) *core.Record {
	t.Helper()
	collection, err := a.FindCollectionByNameOrId(versions.Collection)
	require.NoError(t, err)
	record := core.NewRecord(collection)
	record.Load(values)
	require.NoError(t, a.Save(record))
	return record
}

var iosRule = map[string]any{
	"platform": "ios", "latest": "2.0.0", "minimum": "1.0.0", "recommended": "1.5",
	"storeUrl": "https://apps.apple.com/app/id1", "message": "Please update.", "enabled": true,
}

func TestVersionCheckAnswer(t *testing.T) {
	t.Parallel()
	app := newVersionsApp(t, t.TempDir())

	none := app.do(t, http.MethodGet, "/api/version-check?platform=ios&version=1.2.3")
	require.Equal(t, http.StatusOK, none.Code)
	require.JSONEq(t, `{"hard_update":false,"soft_update":false,"latest":"","minimum":"","store_url":"","message":""}`, none.Body.String())

	record := app.rule(t, iosRule)
	w := app.do(t, http.MethodGet, "/api/version-check?platform=ios&version=1.2.3", "Origin", "https://app.example.com")
	require.Equal(t, http.StatusOK, w.Code)
	require.JSONEq(t, `{"hard_update":false,"soft_update":true,"latest":"2.0.0","minimum":"1.0.0","store_url":"https://apps.apple.com/app/id1","message":"Please update."}`, w.Body.String())
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))

	for version, want := range map[string][2]bool{
		"0.9":            {true, true},
		"1.0.0-beta":     {true, true},
		"1":              {false, true},
		"1.0.0+1":        {false, true},
		"1.4.99999":      {false, true},
		"1.4.9.9 (77)":   {false, true},
		"1.5.0-rc.1":     {false, true},
		"v1.5":           {false, false},
		"1.5.0.1":        {false, false},
		"99999999999999": {false, false},
	} {
		answer := app.check(t, "ios", version)
		require.Equal(t, want, [2]bool{answer.HardUpdate, answer.SoftUpdate}, version)
	}

	// A switched-off row says nothing at all, and neither does another platform.
	require.Equal(t, versions.Answer{}, app.check(t, "android", "0.1"))
	record.Set("enabled", false)
	require.NoError(t, app.Save(record))
	require.Equal(t, versions.Answer{}, app.check(t, "ios", "0.1"))
}

func TestVersionCheckRefusals(t *testing.T) {
	t.Parallel()
	app := newVersionsApp(t, t.TempDir())
	app.rule(t, iosRule)

	for name, tc := range map[string]struct{ query, field, code, text string }{
		"nothing":              {"", "platform", "validation_required", "The parameter platform is missing; add platform=ios."},
		"no version":           {"platform=ios", "version", "validation_required", "The parameter version is missing; add version=1.2.3."},
		"empty version":        {"platform=ios&version=", "version", "validation_required", "The parameter version is missing; add version=1.2.3."},
		"unknown platform":     {"platform=amiga&version=1", "platform", "validation_unknown_platform", `The platform "amiga" is not known; use one of android, ios, linux, macos, web, windows.`},
		"platform in capitals": {"platform=iOS&version=1", "platform", "validation_unknown_platform", `The platform "iOS" is not known`},
		"nul in platform":      {"platform=ios%00&version=1", "platform", "validation_unknown_platform", `The platform "ios\x00" is not known`},
		"malformed version":    {"platform=ios&version=1.2.x", "version", "validation_invalid_version", `The version "1.2.x" cannot be read: "x" is not a number; write numbers with dots, such as 1.2.3.`},
		"nul in version":       {"platform=ios&version=1.2%00", "version", "validation_invalid_version", `"2\x00" is not a number`},
		"broken text":          {"platform=ios&version=1.%ff", "version", "validation_invalid_version", "is not a number"},
		"long version":         {"platform=ios&version=" + strings.Repeat("9", 10_000), "version", "validation_invalid_version", "it is longer than 256 characters"},
		"long platform":        {"platform=" + strings.Repeat("ä", 10_000) + "&version=1", "platform", "validation_unknown_platform", "is not known"},
		"version twice":        {"platform=ios&version=1&version=2", "version", "validation_repeated_parameter", "The parameter version is given more than once; give it once."},
		"platform twice":       {"platform=ios&platform=ios&version=1", "platform", "validation_repeated_parameter", "The parameter platform is given more than once"},
		"broken escape":        {"platform=ios&version=%zz", "version", "validation_invalid_query", "The address cannot be read"},
		"semicolon":            {"platform=ios;version=1", "version", "validation_invalid_query", "The address cannot be read"},
		"sql":                  {"platform=ios'--&version=1", "platform", "validation_unknown_platform", "is not known"},
		"known, then broken":   {"platform=web&version=one", "version", "validation_invalid_version", `"one" is not a number`},
	} {
		w := app.do(t, http.MethodGet, "/api/version-check?"+tc.query)
		require.Equal(t, http.StatusBadRequest, w.Code, name)
		require.Less(t, w.Body.Len(), 1500, name)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"), name)
		var answer struct {
			Status  int
			Message string
			Data    map[string]struct{ Code, Message string }
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer), name)
		require.Contains(t, answer.Message, tc.text, name)
		require.Equal(t, tc.code, answer.Data[tc.field].Code, name)
		require.Equal(t, answer.Message, answer.Data[tc.field].Message, name)
	}
}

func TestVersionCheckQueryIsForgiving(t *testing.T) {
	t.Parallel()
	app := newVersionsApp(t, t.TempDir())
	app.rule(t, iosRule)

	for _, query := range []string{
		"platform=ios&version=1.2.3+45", // the plus arrives as a space
		"platform=ios&version=1.2.3%2B45",
		"platform=ios&version=1.2.3%20(45)",
		"platform=ios&version=1.2.3-rc.1+exp.sha.5114f85",
		"version=1.2.3&platform=ios&_=1700000000&locale=de",
	} {
		w := app.do(t, http.MethodGet, "/api/version-check?"+query)
		require.Equal(t, http.StatusOK, w.Code, "%s: %s", query, w.Body)
		require.Contains(t, w.Body.String(), `"soft_update":true`)
	}

	fields := app.do(t, http.MethodGet, "/api/version-check?platform=ios&version=1.2.3&fields=latest")
	require.JSONEq(t, `{"latest":"2.0.0"}`, fields.Body.String())

	// A token that is no longer good counts as none: an old app must learn that it
	// has to be updated.
	stale := app.do(t, http.MethodGet, "/api/version-check?platform=ios&version=1.2.3", "Authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x")
	require.Equal(t, http.StatusOK, stale.Code)
}

func TestVersionCheckMethods(t *testing.T) {
	t.Parallel()
	app := newVersionsApp(t, t.TempDir())

	head := app.do(t, http.MethodHead, "/api/version-check?platform=ios&version=1.2.3")
	require.Equal(t, http.StatusOK, head.Code)
	require.Equal(t, "no-store", head.Header().Get("Cache-Control"))

	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		w := app.do(t, method, "/api/version-check?platform=ios&version=1.2.3")
		require.Equal(t, http.StatusMethodNotAllowed, w.Code, method)
		require.Equal(t, "GET, HEAD", w.Header().Get("Allow"), method)
	}

	preflight := app.do(t, http.MethodOptions, "/api/version-check", "Origin", "https://app.example.com", "Access-Control-Request-Method", "GET")
	require.Equal(t, http.StatusNoContent, preflight.Code)
	require.Equal(t, "*", preflight.Header().Get("Access-Control-Allow-Origin"))
}

func TestAppVersionsRecordChecks(t *testing.T) {
	t.Parallel()
	app := newVersionsApp(t, t.TempDir())
	collection, err := app.FindCollectionByNameOrId(versions.Collection)
	require.NoError(t, err)

	for name, tc := range map[string]struct {
		values map[string]any
		want   map[string]string // field to part of the sentence; nil: it is saved
	}{
		"only a platform":       {values: map[string]any{"platform": "ios"}},
		"only a minimum":        {values: map[string]any{"platform": "ios", "minimum": "1.0"}},
		"all equal":             {values: map[string]any{"platform": "ios", "minimum": "1.0", "recommended": "1", "latest": "v1.0.0+7"}},
		"no platform":           {values: map[string]any{"minimum": "1.0"}, want: map[string]string{"platform": "blank"}},
		"a platform of no list": {values: map[string]any{"platform": "amiga"}, want: map[string]string{"platform": "Invalid value"}},
		"unreadable versions": {
			values: map[string]any{"platform": "ios", "minimum": "one", "recommended": "1.2.3.4.5", "latest": "02"},
			want: map[string]string{
				"minimum":     `The version "one" cannot be read: "one" is not a number; write numbers with dots, such as 1.2.3.`,
				"recommended": "it has more than four numbers.", "latest": `"02" starts with a zero; write 2.`},
		},
		"minimum above latest": {
			values: map[string]any{"platform": "ios", "minimum": "2.1", "latest": "2.0"},
			want:   map[string]string{"minimum": "Minimum (2.1) is above latest (2.0): nobody could install it; raise latest, or lower minimum."},
		},
		"recommended above latest": {
			values: map[string]any{"platform": "ios", "recommended": "2.1", "latest": "2.1-rc.1"},
			want:   map[string]string{"recommended": "Recommended (2.1) is above latest (2.1-rc.1)"},
		},
		"recommended below minimum": {
			values: map[string]any{"platform": "ios", "minimum": "1.10", "recommended": "1.9", "latest": "2"},
			want:   map[string]string{"recommended": "Recommended (1.9) is below minimum (1.10): raise recommended, or lower minimum."},
		},
		"ours and PocketBase's at once": {
			values: map[string]any{"platform": "", "minimum": "x", "message": strings.Repeat("a", 2001)},
			want:   map[string]string{"platform": "blank", "minimum": "cannot be read", "message": "2000"},
		},
		"script as address": {
			values: map[string]any{"platform": "ios", "storeUrl": "javascript:alert(1)"},
			want:   map[string]string{"storeUrl": `The store address starts with "javascript:", which is not a web or store address`},
		},
		"no scheme": {values: map[string]any{"platform": "ios", "storeUrl": "apps.apple.com/app/id1"}, want: map[string]string{"storeUrl": "The store address cannot be read"}},
		"no host":   {values: map[string]any{"platform": "ios", "storeUrl": "https:///app"}, want: map[string]string{"storeUrl": "The store address names no host"}},
		"nul":       {values: map[string]any{"platform": "ios", "message": "a\x00b"}, want: map[string]string{"message": "cannot be shown"}},
		"App Store": {values: map[string]any{"platform": "ios", "storeUrl": "itms-apps://itunes.apple.com/app/id1"}},
		"Play":      {values: map[string]any{"platform": "android", "storeUrl": "market://details?id=com.example"}},
		"web":       {values: map[string]any{"platform": "web", "storeUrl": "HTTPS://example.com/app?x=1#y"}},
	} {
		t.Run(name, func(t *testing.T) {
			record := core.NewRecord(collection)
			record.Load(tc.values)
			err := app.Save(record)
			if tc.want == nil {
				require.NoError(t, err)
				stored, err := app.FindRecordById(collection, record.Id)
				require.NoError(t, err, "it is in the database")
				require.NoError(t, app.Delete(stored))
				return
			}
			var problems validation.Errors
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, len(tc.want))
			for field, text := range tc.want {
				require.ErrorContains(t, problems[field], text, field)
			}
		})
	}

	app.rule(t, map[string]any{"platform": "ios"})
	again := core.NewRecord(collection)
	again.Set("platform", "ios")
	require.Error(t, app.Save(again), "one row for each platform")

	tidied := app.rule(t, map[string]any{"platform": "web", "latest": " 2.0.0 ", "storeUrl": "https://example.com \n"})
	require.Equal(t, "2.0.0", tidied.GetString("latest"))
	require.Equal(t, "https://example.com", tidied.GetString("storeUrl"))
}
