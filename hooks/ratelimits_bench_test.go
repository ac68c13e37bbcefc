package hooks_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
)

// What a rule in force costs a request, and what it allocates.
func BenchmarkLimits(b *testing.B) {
	for _, on := range []bool{false, true} {
		name := map[bool]string{false: "off", true: "on"}[on]
		app := pbtest.NewApp(b)
		rules, err := app.FindAllRecords(ratelimit.Collection)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range rules {
			r.Set("enabled", on)
			if by := r.GetString("keyBy"); by == "ip" || by == "user" {
				r.Set("limit", 1_000_000)
			}
			if err := app.Save(r); err != nil {
				b.Fatal(err)
			}
		}
		token := app.Token(app.User("u@example.com"))
		for who, token := range map[string]string{"guest": "", "signed in": token} {
			b.Run(name+"/"+who, func(b *testing.B) {
				handler := app.Handler()
				request := httptest.NewRequest(http.MethodGet, "/api/version-check?platform=ios&version=1.2.3", nil)
				if token != "" {
					request.Header.Set("Authorization", token)
				}
				b.ReportAllocs()
				for b.Loop() {
					r := *request // PocketBase wraps the body of the one it is given
					handler.ServeHTTP(&discard{header: http.Header{}}, &r)
				}
			})
		}
	}
}
