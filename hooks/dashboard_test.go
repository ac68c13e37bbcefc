package hooks_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/dashboard"
	"github.com/groundworkhq/groundwork/internal/pbtest"
)

// Browsers ask for the extension's files at each load, and get them only when they
// have changed: the addresses stay the same over an update.
func TestExtensionFilesAreFresh(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	get := func(path, has string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(http.MethodGet, path, nil)
		req.Header.Set("If-None-Match", has)
		rec := httptest.NewRecorder()
		app.Handler().ServeHTTP(rec, req)
		return rec
	}

	combined := get("/_/extensions.js", "")
	require.Equal(t, http.StatusOK, combined.Code)
	require.Equal(t, "no-cache", combined.Header().Get("Cache-Control"))
	require.Contains(t, combined.Body.String(), "/_/extensions/groundwork/")

	for _, path := range []string{"main.js", "pocketbase.js", "dialog.js", "people/index.js", "people/export.js", "people/erase.js", "schedules/index.js"} {
		path = "/_/extensions/" + dashboard.Name + "/" + path
		res := get(path, "")
		require.Equal(t, http.StatusOK, res.Code, path)
		require.Contains(t, res.Header().Get("Content-Type"), "javascript", path)
		require.Equal(t, "no-cache", res.Header().Get("Cache-Control"), path)
		tag := res.Header().Get("ETag")
		require.Regexp(t, `^W/"[0-9a-f]{16}"$`, tag, path)
		require.Equal(t, http.StatusNotModified, get(path, tag).Code, path)
		require.Equal(t, http.StatusOK, get(path, `W/"another"`).Code, path)
	}
	require.Equal(t, http.StatusNotFound, get("/_/extensions/groundwork/doc.go", "").Code, "the files of ui only")
}
