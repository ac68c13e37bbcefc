package hooks

import (
	"strings"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/dashboard"
)

// bindDashboard adds our part to PocketBase's dashboard.
func (g *groundwork) bindDashboard() {
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.dashboard.extension", Func: func(e *core.ServeEvent) error {
			e.UIExtensions = append(e.UIExtensions, core.UIExtension{Name: dashboard.Name, FS: dashboard.Files()})
			// PocketBase lets browsers keep these for two weeks, at addresses that stay
			// the same: after an update the old page would meet the new server.
			e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: "groundwork.dashboard.fresh", Func: freshExtensions})
			return e.Next()
		}})
}

// freshExtensions makes browsers ask whether the files of the extensions have
// changed. The tag is about our files only.
func freshExtensions(e *core.RequestEvent) error {
	path := e.Request.URL.Path
	ours := strings.HasPrefix(path, "/_/extensions/"+dashboard.Name+"/")
	if ours || path == "/_/extensions.js" {
		e.Response.Header().Set("Cache-Control", "no-cache")
	}
	if ours {
		e.Response.Header().Set("ETag", `W/"`+dashboard.Version()+`"`)
	}
	return e.Next()
}
