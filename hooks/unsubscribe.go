package hooks

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"strings"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/notifications"
)

// unsubscribeBodyLimit is many times what the form has.
const unsubscribeBodyLimit = 16 << 10

// bindUnsubscribe serves the page to which the unsubscribe link of promotional
// e-mail leads, and the button that mail programs make of it (RFC 8058).
func (g *groundwork) bindUnsubscribe() {
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.unsubscribe.routes", Func: func(e *core.ServeEvent) error {
			const path = notifications.UnsubscribePath + "{token}"
			e.Router.GET(path, g.unsubscribePage) // HEAD too
			e.Router.POST(path, g.unsubscribe).Bind(apis.BodyLimit(unsubscribeBodyLimit))
			if g.cfg.NoUnsubscribeFooter {
				g.log.Warn("promotional e-mail has no unsubscribe link in its text unless its author puts {{ unsubscribeUrl }} there (PROMOTIONAL_EMAIL_FOOTER=off); the law of most countries asks for one")
			}
			return e.Next()
		}})
}

// unsubscribeBase is the address at which the links of promotional e-mail begin;
// empty as long as nobody outside could follow them. Mail programs post to https
// only. Outside production the address in the settings is good enough for a
// developer.
func (g *groundwork) unsubscribeBase() string {
	if g.cfg.Env != EnvProduction {
		return g.app.Settings().Meta.AppURL
	}
	url := publicURL(g.app)
	if !strings.HasPrefix(url, "https://") {
		return ""
	}
	return url
}

// unsubscribePage shows how things are and changes nothing: programs follow the
// links of a mail before its reader does.
func (g *groundwork) unsubscribePage(e *core.RequestEvent) error {
	u, state, err := g.unsubscribeState(e)
	if u == nil {
		return err
	}
	view := unsubscribeView{Title: "Unsubscribe", Ask: true}
	if state.All || state.OnlyCategory {
		view = doneView("You are unsubscribed", state)
	}
	return g.writeUnsubscribe(e, http.StatusOK, view, *u, state)
}

// unsubscribe takes the one click of a mail program, and the page's own form. It
// answers 200 in either case: the program follows no redirect.
func (g *groundwork) unsubscribe(e *core.RequestEvent) error {
	u, state, err := g.unsubscribeState(e)
	if u == nil {
		return err
	}
	// Mail programs send either kind of form.
	if err := e.Request.ParseMultipartForm(unsubscribeBodyLimit); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return writeUnsubscribeError(e, http.StatusRequestEntityTooLarge, "The form is larger than this page's.")
		}
		return writeUnsubscribeError(e, http.StatusBadRequest, "The form cannot be read. Go back, and try again.")
	}
	form := e.Request.PostForm
	switch {
	case form.Get("action") == "undo":
		if !state.MayUndo {
			break
		}
		if err := g.sender.UndoUnsubscribe(*u); err != nil {
			return g.unsubscribeFailed(e, err)
		}
		if state, err = g.sender.UnsubscribeState(*u); err != nil {
			return g.unsubscribeFailed(e, err)
		}
		if !state.All && !state.OnlyCategory {
			return g.writeUnsubscribe(e, http.StatusOK, unsubscribeView{Title: "You get these e-mails again", Ask: true}, *u, state)
		}
	case form.Get("List-Unsubscribe") == "One-Click", form.Get("scope") == "all", form.Get("scope") == "category":
		if err := g.sender.Unsubscribe(*u, form.Get("scope") == "category"); err != nil {
			return g.unsubscribeFailed(e, err)
		}
		if state, err = g.sender.UnsubscribeState(*u); err != nil {
			return g.unsubscribeFailed(e, err)
		}
	default:
		return writeUnsubscribeError(e, http.StatusBadRequest, "Nothing was changed: the request did not say what to stop. Open the link of the e-mail, and use the button there.")
	}
	return g.writeUnsubscribe(e, http.StatusOK, doneView("You are unsubscribed", state), *u, state)
}

// unsubscribeState reads the token of a request. u is nil when that is answered.
func (g *groundwork) unsubscribeState(e *core.RequestEvent) (u *notifications.Unsubscription, state notifications.UnsubscribeState, err error) {
	wish, err := g.sender.OpenUnsubscribeToken(e.Request.PathValue("token"))
	if err != nil {
		return nil, state, writeUnsubscribeError(e, http.StatusNotFound, "This unsubscribe link is not complete. Copy all of it from the e-mail, or use the link in a newer one.")
	}
	if state, err = g.sender.UnsubscribeState(wish); err != nil {
		return nil, state, g.unsubscribeFailed(e, err)
	}
	return &wish, state, nil
}

func (g *groundwork) unsubscribeFailed(e *core.RequestEvent, cause error) error {
	g.log.Error("an unsubscribe link cannot be served", "error", cause)
	return writeUnsubscribeError(e, http.StatusInternalServerError, "This cannot be stored right now. Try again in a few minutes.")
}

// unsubscribeView is what the page shows.
type unsubscribeView struct {
	Title, App, Address, Category string

	// Ask shows the form, All and OnlyCategory what is off already.
	Ask, All, OnlyCategory, MayUndo bool

	// Problem is shown alone.
	Problem string
}

func doneView(title string, state notifications.UnsubscribeState) unsubscribeView {
	return unsubscribeView{Title: title, All: state.All, OnlyCategory: state.OnlyCategory && !state.All, MayUndo: state.MayUndo,
		Ask: !state.All}
}

func (g *groundwork) writeUnsubscribe(e *core.RequestEvent, status int, view unsubscribeView, u notifications.Unsubscription, state notifications.UnsubscribeState) error {
	view.App, view.Category = e.App.Settings().Meta.AppName, state.Category
	// A mail gets forwarded: whoever reads it then need not learn whose address it is.
	view.Address = notifications.MaskAddress(notifications.ChannelEmail, u.Address)
	return writeUnsubscribePage(e, status, view)
}

func writeUnsubscribeError(e *core.RequestEvent, status int, problem string) error {
	title := "That did not work"
	if status == http.StatusNotFound {
		title = "Unknown link"
	}
	return writeUnsubscribePage(e, status, unsubscribeView{Title: title, App: e.App.Settings().Meta.AppName, Problem: problem})
}

func writeUnsubscribePage(e *core.RequestEvent, status int, view unsubscribeView) error {
	var page bytes.Buffer
	if err := unsubscribeTemplate.Execute(&page, view); err != nil {
		return e.InternalServerError("The page cannot be made.", err)
	}
	h := e.Response.Header()
	h.Set("Content-Security-Policy", unsubscribeCSP)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address is a key
	h.Set("X-Robots-Tag", "noindex")
	return e.HTML(status, page.String())
}

const unsubscribeStyle = `
body{margin:0;padding:2rem 1rem;font:1.0625rem/1.5 system-ui,sans-serif;color:#1a1a1a;background:#f6f6f4}
main{max-width:34rem;margin:0 auto;padding:1.5rem;background:#fff;border-radius:.5rem}
h1{margin:0 0 1rem;font-size:1.5rem;line-height:1.25}
fieldset{margin:0 0 1rem;padding:0;border:0}legend{padding:0;margin-bottom:.5rem;font-weight:600}
label{display:flex;gap:.625rem;align-items:baseline;padding:.375rem 0}
button{font:inherit;font-weight:600;padding:.625rem 1.25rem;border:2px solid #1a1a1a;border-radius:.375rem;background:#1a1a1a;color:#fff;cursor:pointer}
button.plain{background:#fff;color:#1a1a1a}
:focus-visible{outline:3px solid #0b57d0;outline-offset:2px}
.note{margin:1rem 0 0;color:#595959;font-size:.9375rem}
`

// unsubscribeCSP lets the page show its own style and send its own form.
var unsubscribeCSP = func() string {
	sum := sha256.Sum256([]byte(unsubscribeStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

// unsubscribeTemplate is the page. It needs no script, and works without a mouse.
var unsubscribeTemplate = template.Must(template.New("unsubscribe").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}} · {{.App}}</title>
<style>` + unsubscribeStyle + `</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
{{if .Problem}}<p>{{.Problem}}</p>
{{else}}
{{if .All}}<p>{{.App}} sends no more promotional e-mail to {{.Address}}.</p>
{{else if .OnlyCategory}}<p>{{.App}} sends no more e-mails of the kind “{{.Category}}” to {{.Address}}.</p>
{{end}}
{{if .MayUndo}}<form method="post">
<p>Was that a mistake?</p>
<button class="plain" name="action" value="undo">Undo</button>
</form>
{{end}}
{{if .Ask}}<form method="post">
<fieldset>
<legend>{{if .OnlyCategory}}Stop more?{{else}}Which e-mails from {{.App}} to {{.Address}} should stop?{{end}}</legend>
{{if and .Category (not .OnlyCategory)}}<label><input type="radio" name="scope" value="category"> <span>Only this kind: “{{.Category}}”</span></label>
{{end}}<label><input type="radio" name="scope" value="all" checked> <span>All promotional e-mail</span></label>
</fieldset>
<button>Unsubscribe</button>
</form>
{{end}}
<p class="note">Receipts, codes and other messages about your account still reach you.</p>
{{end}}
</main>
</body>
</html>
`))
