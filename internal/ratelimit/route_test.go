package ratelimit

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	_ "github.com/pocketbase/pocketbase/migrations" // PocketBase's own tables
)

func TestRoutes(t *testing.T) {
	t.Parallel()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { _ = app.ClearBootstrap() })

	const otp, records, view = "POST /api/collections/{collection}/auth-with-otp", "POST /api/collections/{collection}/records", "GET /api/collections/{collection}/records/{id}"
	collection := func(name string) map[string]string { return map[string]string{"collection": name, "id": "abc"} }
	for _, tc := range []struct {
		route, pattern, method string
		values                 map[string]string
		path                   string
		want                   bool
	}{
		{"POST /api/collections/users/auth-with-otp", otp, "POST", collection("users"), "", true},
		{"POST /api/collections/users/auth-with-otp", otp, "POST", collection("Users"), "", true},
		{"POST /api/collections/users/auth-with-otp", otp, "POST", collection("_pb_users_auth_"), "", true},
		{"POST /api/collections/_pb_users_auth_/auth-with-otp", otp, "POST", collection("users"), "", true},
		{"POST /api/collections/others/auth-with-otp", otp, "POST", collection("users"), "", false},
		{"POST /api/collections/*/auth-with-otp", otp, "POST", collection("users"), "", true},
		{"POST /api/collections/{c}/auth-with-otp", otp, "POST", collection("users"), "", true},
		{"POST /api/collections/u*/auth-with-*", otp, "POST", collection("users"), "", true},
		{"POST /api/collections/*/auth-with-password", otp, "POST", collection("users"), "", false},
		{"post   /api/collections/users/records", records, "POST", collection("users"), "", true},
		{"/api/collections/users/records", records, "POST", collection("users"), "", true},
		{"GET /api/collections/users/records", records, "POST", collection("users"), "", false},
		{"/api/collections/users/records", view, "GET", collection("users"), "", false},
		{"/api/collections/users/records/*", view, "GET", collection("users"), "", true},
		{"/api/collections/users/records/{id}", view, "HEAD", collection("users"), "", true},
		{"/api/collections/users/records/abc", view, "GET", collection("users"), "", true},
		{"/api/collections/users/records/abd", view, "GET", collection("users"), "", false},
		{"/api/collections/users/{rest...}", view, "GET", collection("users"), "", true},
		{"/api/*", view, "GET", collection("users"), "", true},
		{"*", view, "GET", collection("users"), "", true},
		{"/*", "/", "GET", nil, "/anything/else", true},
		{"GET /_/*", "GET /_/{path...}", "GET", map[string]string{"path": "a/b"}, "/_/a/b", true},
		{"GET /_/a/*", "GET /_/{path...}", "GET", map[string]string{"path": "b/c"}, "/_/b/c", false},
		{"POST /api/collections/users/request-phone-otp", "POST /api/collections/{auth}/request-phone-otp", "POST", map[string]string{"auth": "_pb_users_auth_"}, "", true},
		{"DELETE /own", "/own", "GET", nil, "", false},
		{"GET /own", "/own", "HEAD", nil, "", true},
		{"GET /own", "/own", "GET", nil, "", true},
	} {
		parsed, err := parseRoute(tidyRoute(tc.route))
		require.NoError(t, err, tc.route)
		table := NewTable([]*Rule{{ID: "r", route: parsed}})
		for range 2 { // the second time from the plan
			r := &http.Request{Pattern: tc.pattern, Method: tc.method, URL: &url.URL{Path: tc.path}}
			for name, value := range tc.values {
				r.SetPathValue(name, value)
			}
			got := table.Match(app, OfRequest(r), nil)
			require.Equal(t, tc.want, len(got) == 1, "%+v", tc)
		}
	}

	for _, bad := range []string{"", "users", "FETCH /x", "POST users", "/api/{c", "/api/{c}x/y", "/api//x", "/a/../b", "/a?x=1", "/{rest...}/b", "POST /a b", "/a%20b", "/api/[x"} {
		_, err := parseRoute(tidyRoute(bad))
		require.Error(t, err, bad)
	}
}
