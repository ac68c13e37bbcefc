package hooks

import (
	"net/http"
	"strings"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
)

// publicCSP allows the page its own files and server, and nothing inline. Files
// that an owner puts into pb_public get none: their pages are theirs.
const publicCSP = "default-src 'self'; img-src 'self' data: https:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// bindPublic serves Config.Public at the root address, unless the app has a
// route of its own there.
func (g *groundwork) bindPublic() {
	if g.cfg.Public == nil {
		return
	}
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		// As late as possible: any route of the app's own comes first.
		Id: "groundwork.public.serve", Priority: 999, Func: func(e *core.ServeEvent) error {
			if !e.Router.HasRoute(http.MethodGet, "/{path...}") {
				page, filesOnly := apis.Static(g.cfg.Public, g.cfg.PublicFallback), apis.Static(g.cfg.Public, false)
				route := e.Router.GET("/{path...}", func(e *core.RequestEvent) error {
					// A mistyped route is no page: the SDK would take it for an empty answer.
					if strings.HasPrefix(e.Request.PathValue(apis.StaticWildcardParam), "api/") {
						return filesOnly(e)
					}
					return page(e)
				})
				if g.cfg.PublicIsOurs {
					route.BindFunc(func(e *core.RequestEvent) error {
						e.Response.Header().Set("Content-Security-Policy", publicCSP)
						return e.Next()
					})
				}
			}
			return e.Next()
		}})
}
