package hooks

import (
	"fmt"
	"net/http"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/accounts"
)

// bindExport answers with everything that is kept about a person: to themselves,
// and to superusers.
func (g *groundwork) bindExport() {
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.export.routes", Func: func(e *core.ServeEvent) error {
			e.Router.GET("/api/account/export", g.exportSelf)
			e.Router.GET("/api/accounts/{collection}/{id}/export", exportOther).Bind(apis.RequireSuperuserAuth())
			return e.Next()
		}})
}

// exportSelf is GET /api/account/export. The application's records that name the
// person are in it as far as its view rules show them to the person.
func (g *groundwork) exportSelf(e *core.RequestEvent) error {
	if err := g.erasing.signedInJustNow(e, "get all of your data"); err != nil {
		return err
	}
	info, err := e.RequestInfo()
	if err != nil {
		return e.BadRequestError("The request cannot be read.", err)
	}
	return answerExport(e, e.Auth, func(r *core.Record) (bool, error) {
		return e.App.CanAccessRecord(r, info, r.Collection().ViewRule)
	})
}

// exportOther is GET /api/accounts/{collection}/{id}/export, for superusers.
func exportOther(e *core.RequestEvent) error {
	account, err := accountOf(e)
	if err != nil {
		return err
	}
	return answerExport(e, account, nil)
}

// answerExport writes JSON, whose files are told and not included, or with
// ?format=zip an archive that includes them.
func answerExport(e *core.RequestEvent, account *core.Record, may func(*core.Record) (bool, error)) error {
	format := e.Request.URL.Query().Get("format")
	if format != "" && format != "json" && format != "zip" {
		return e.BadRequestError("The format is json or zip.", nil)
	}
	x, err := accounts.NewExport(e.App, account, may)
	if err != nil {
		return e.InternalServerError("The data cannot be collected right now; try again.", err)
	}
	name := fmt.Sprintf("export-%s.%s", time.Now().UTC().Format("2006-01-02"), map[bool]string{true: "zip", false: "json"}[format == "zip"])
	header := e.Response.Header()
	header.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	header.Set("Cache-Control", "no-store")
	if format == "zip" {
		header.Set("Content-Type", "application/zip")
		e.Response.WriteHeader(http.StatusOK)
		return x.WriteZip(e.App, e.Response)
	}
	header.Set("Content-Type", "application/json")
	e.Response.WriteHeader(http.StatusOK)
	return x.WriteJSON(e.App, e.Response, false)
}
