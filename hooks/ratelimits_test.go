package hooks_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
)

const limitsPath = "/api/collections/" + ratelimit.Collection + "/records"

// rule makes a rule through the API, as the dashboard does.
func rule(t *testing.T, app *pbtest.App, root string, fields map[string]any) string {
	t.Helper()
	all := map[string]any{"name": "Test", "route": "/api/health", "audience": "all", "keyBy": "ip", "counts": "all", "limit": 2, "windowSeconds": 60, "enabled": true}
	for name, value := range fields {
		all[name] = value
	}
	res := app.Send(http.MethodPost, limitsPath, all, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	return res.JSON(t)["id"].(string)
}

func TestRateLimitsAreForSuperusers(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	user, root := app.Token(app.User("u@example.com")), app.Token(app.Superuser("root@example.com"))
	id := rule(t, app, root, nil)
	for _, tc := range []struct {
		who, token string
		list, view int
	}{
		{"guest", "", http.StatusUnauthorized, http.StatusUnauthorized},
		{"user", user, http.StatusForbidden, http.StatusForbidden},
		{"superuser", root, http.StatusOK, http.StatusOK},
	} {
		require.Equal(t, tc.list, app.Send(http.MethodGet, limitsPath, nil, tc.token).Status, tc.who)
		require.Equal(t, tc.view, app.Send(http.MethodGet, limitsPath+"/"+id, nil, tc.token).Status, tc.who)
		require.Equal(t, tc.view, app.Send(http.MethodPatch, limitsPath+"/"+id, map[string]any{"note": "x"}, tc.token).Status, tc.who)
	}
}

func TestRateLimitSavesAreChecked(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	for name, tc := range map[string]struct {
		fields map[string]any
		field  string
		says   string
	}{
		"no route":          {map[string]any{"route": ""}, "route", "blank"},
		"no slash":          {map[string]any{"route": "users"}, "route", "begins with a slash"},
		"method":            {map[string]any{"route": "FETCH /api/x"}, "route", "no method"},
		"query":             {map[string]any{"route": "/api/x?y=1"}, "route", "nly the path"},
		"open brace":        {map[string]any{"route": "/api/{x"}, "route", "braces"},
		"key":               {map[string]any{"keyBy": "person"}, "keyBy", "Write ip, user"},
		"body without name": {map[string]any{"keyBy": "body:"}, "keyBy", "name of a field"},
		"guests by user":    {map[string]any{"keyBy": "user", "audience": "guest"}, "keyBy", "count guests by ip"},
		"zero":              {map[string]any{"limit": 0}, "limit", "at least 1"},
		"negative":          {map[string]any{"limit": -1}, "limit", "greater or equal"},
		"huge":              {map[string]any{"limit": 2_000_000}, "limit", "at most 1000000"},
		"huge on disk":      {map[string]any{"limit": 2_000, "counts": "failures"}, "limit", "at most 1000"},
		"no window":         {map[string]any{"windowSeconds": 0}, "windowSeconds", "between 1 and"},
		"long window":       {map[string]any{"windowSeconds": 1e9}, "windowSeconds", "between 1 and"},
		"audience":          {map[string]any{"audience": "nobody"}, "audience", "nvalid value"},
	} {
		all := map[string]any{"name": "Test", "route": "/api/x", "keyBy": "ip", "limit": 2, "windowSeconds": 60, "enabled": true}
		for k, v := range tc.fields {
			all[k] = v
		}
		res := app.Send(http.MethodPost, limitsPath, all, root)
		require.Equal(t, http.StatusBadRequest, res.Status, name)
		problem, _ := res.JSON(t)["data"].(map[string]any)[tc.field].(map[string]any)
		require.Contains(t, problem["message"], tc.says, "%s: %s", name, res)
	}

	res := app.Send(http.MethodPost, limitsPath, map[string]any{"name": " Test ", "route": "post  /api/x", "keyBy": "ip", "limit": 2, "windowSeconds": 60}, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	saved := res.JSON(t)
	require.Equal(t, []any{"Test", "POST /api/x", "all", "all"}, []any{saved["name"], saved["route"], saved["audience"], saved["counts"]})
}

func TestARuleIsInForceAtOnce(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root, user := app.Token(app.Superuser("root@example.com")), app.Token(app.User("u@example.com"))
	get := func(token string) pbtest.Response { return app.Send(http.MethodGet, "/api/health", nil, token) }

	id := rule(t, app, root, map[string]any{"name": `My "rule"`})
	first := get("")
	require.Equal(t, http.StatusOK, first.Status)
	require.Equal(t, `"Guests";r=299;t=10, "My \"rule\"";r=1;t=60`, first.Header.Get("RateLimit"))
	require.Equal(t, `"Guests";q=300;w=10, "My \"rule\"";q=2;w=60`, first.Header.Get("RateLimit-Policy"))
	require.Empty(t, first.Header.Get("Retry-After"))
	require.Equal(t, http.StatusOK, get(user).Status, "the same address")

	refused := get("")
	require.Equal(t, http.StatusTooManyRequests, refused.Status)
	wait, err := strconv.Atoi(refused.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.True(t, wait >= 1 && wait <= 60, wait)
	body := refused.JSON(t)
	require.EqualValues(t, 429, body["status"])
	require.Regexp(t, `^Too many requests\. Try again in \d+ seconds\.$`, body["message"])
	require.Equal(t, map[string]any{}, body["data"])
	require.Equal(t, http.StatusTooManyRequests, get(user).Status)
	require.Equal(t, http.StatusOK, get(root).Status, "superusers are exempt")

	edit := func(fields map[string]any) {
		t.Helper()
		res := app.Send(http.MethodPatch, limitsPath+"/"+id, fields, root)
		require.Equal(t, http.StatusOK, res.Status, res.String())
	}
	edit(map[string]any{"limit": 3})
	require.Equal(t, http.StatusOK, get("").Status)
	require.Equal(t, http.StatusTooManyRequests, get("").Status)
	edit(map[string]any{"enabled": false})
	require.Equal(t, http.StatusOK, get("").Status)
	edit(map[string]any{"enabled": true, "audience": "signed_in", "keyBy": "user"})
	require.Equal(t, http.StatusOK, get("").Status)
	for range 3 {
		require.Equal(t, http.StatusOK, get(user).Status)
	}
	require.Equal(t, http.StatusTooManyRequests, get(user).Status)
	require.Equal(t, http.StatusOK, get(app.Token(app.User("v@example.com"))).Status, "another person")
	require.Equal(t, http.StatusNoContent, app.Send(http.MethodDelete, limitsPath+"/"+id, nil, root).Status)
	require.Equal(t, http.StatusOK, get(user).Status)
}

// A refusal by one rule costs nothing at the others.
func TestARefusalCountsNowhere(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	rule(t, app, root, map[string]any{"name": "wide", "limit": 4, "route": "/api/*", "audience": "guest", "keyBy": "global"})
	rule(t, app, root, map[string]any{"name": "narrow", "limit": 1})
	get := func(path string) int { return app.Send(http.MethodGet, path, nil, "").Status }
	require.Equal(t, http.StatusOK, get("/api/health"))
	for range 20 {
		require.Equal(t, http.StatusTooManyRequests, get("/api/health"))
	}
	for range 3 {
		require.Equal(t, http.StatusOK, get("/api/version-check?platform=ios&version=1"))
	}
	require.Equal(t, http.StatusTooManyRequests, get("/api/version-check?platform=ios&version=1"))
}

// Who goes on after the limit fills no log: the first refusals are lines, the
// others a number. The answers are the same.
func TestManyRefusalsAreLoggedAsANumber(t *testing.T) {
	t.Parallel()
	out := &lockedBuffer{}
	app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = out }))
	rule(t, app, app.Token(app.Superuser("root@example.com")), map[string]any{"windowSeconds": 3600})
	var refused []pbtest.Response
	for range 2 + 30 + 5 {
		if res := app.Send(http.MethodGet, "/api/health", nil, ""); res.Status != http.StatusOK {
			refused = append(refused, res)
		}
	}
	require.Len(t, refused, 35)
	first, last := refused[0], refused[34]
	require.Equal(t, http.StatusTooManyRequests, last.Status)
	require.Equal(t, first.JSON(t)["status"], last.JSON(t)["status"])
	require.Contains(t, last.JSON(t)["message"], "Too many requests. Try again in")
	require.Equal(t, first.Header.Get("Content-Type"), last.Header.Get("Content-Type"))
	require.NotEmpty(t, last.Header.Get("Retry-After"))
	require.NotEmpty(t, last.Header.Get("X-Request-Id"))
	require.Equal(t, 30, strings.Count(out.String(), `"status":429`))

	for _, job := range app.Cron().Jobs() {
		if job.Id() == "groundwork.limits.prune" {
			job.Run()
		}
	}
	require.Contains(t, out.String(), `addresses went on although they were refused","requests":5}`)
}
