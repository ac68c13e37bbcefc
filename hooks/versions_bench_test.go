package hooks_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/versions"
)

// The handlers alone, without the network; bench/version-check measures the
// whole. Request logs are off here.
func BenchmarkVersionCheck(b *testing.B) {
	benchmarkRoute(b, "/api/version-check?platform=ios&version=1.2.3")
}
func BenchmarkHealth(b *testing.B) { benchmarkRoute(b, "/api/health") }

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

func benchmarkRoute(b *testing.B, target string) {
	app := pbtest.NewApp(b)
	app.Record(versions.Collection, map[string]any{"platform": "ios", "latest": "2.4.1", "minimum": "1.3.0", "recommended": "2.0.0",
		"storeUrl": "https://apps.apple.com/app/id1234567890", "message": "Please update to go on.", "enabled": true})
	handler := app.Handler()
	request := httptest.NewRequest(http.MethodGet, target, nil)
	b.ReportAllocs()
	for b.Loop() {
		r := *request // PocketBase wraps the body of the one it is given
		handler.ServeHTTP(&discard{header: http.Header{}}, &r)
	}
}
