package hooks

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/livecache"
	"github.com/groundworkhq/groundwork/internal/versions"
)

// bindVersions serves GET /api/version-check and checks app_versions on save.
func (g *groundwork) bindVersions() {
	table := livecache.New(g.app, versions.Collection, versions.Load)

	g.app.OnRecordValidate(versions.Collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.versions.validate",
		Func: func(e *core.RecordEvent) error {
			problems := validation.Errors{}
			for _, p := range versions.CheckRecord(e.Record) {
				problems[p.Field] = validation.NewError(p.Code, p.Text)
			}
			// PocketBase's own field checks come too, so that a form shows all that is
			// wrong at once; where both complain about a field, theirs is shown.
			if err := e.Next(); err != nil {
				var theirs validation.Errors
				if !errors.As(err, &theirs) {
					return err
				}
				for field, problem := range theirs {
					problems[field] = problem
				}
			}
			if len(problems) > 0 {
				return problems
			}
			return nil
		},
	})

	g.app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		const path = "/api/version-check"
		e.Router.GET(path, versionCheck(table)) // HEAD too
		// Not one route for all methods: it would collide with GET /{path...}.
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			e.Router.Route(method, path, versionCheckMethod)
		}
		return e.Next()
	})
}

func versionCheck(table *livecache.Cache[versions.Table]) func(*core.RequestEvent) error {
	return func(e *core.RequestEvent) error {
		// An answer that a cache keeps would hide a hard update.
		e.Response.Header().Set("Cache-Control", "no-store")

		q, problem := parseVersionCheckQuery(e.Request.URL.RawQuery)
		if problem != nil {
			return badParameter(e, problem.Field, problem.Code, problem.Text)
		}

		t, err := table.Get()
		if err != nil {
			return e.InternalServerError("The version rules cannot be read right now; try again.", err)
		}
		answer, err := t.Check(q.platform, q.version)
		if err != nil {
			var unknown *versions.UnknownPlatformError
			if errors.As(err, &unknown) {
				return badParameter(e, "platform", "validation_unknown_platform", err.Error())
			}
			return badParameter(e, "version", "validation_invalid_version", err.Error())
		}
		if q.fields {
			return e.JSON(http.StatusOK, answer)
		}
		return e.Blob(http.StatusOK, "application/json", answer.JSON())
	}
}

func badParameter(e *core.RequestEvent, name, code, text string) error {
	return e.BadRequestError(text, validation.Errors{name: validation.NewError(code, text)})
}

type versionCheckQuery struct {
	platform, version string
	fields            bool // PocketBase's parameter that picks parts of the answer
}

// parseVersionCheckQuery reads the parameters by hand: url.ParseQuery makes a
// map, and PocketBase's JSON answer makes it again. Others are left alone:
// clients add some of their own against caches.
func parseVersionCheckQuery(raw string) (versionCheckQuery, *versions.FieldError) {
	var q versionCheckQuery
	var platforms, versionsGiven int
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		key, value, _ := strings.Cut(pair, "=")
		key, errKey := url.QueryUnescape(key)
		value, errValue := url.QueryUnescape(value)
		if errKey != nil || errValue != nil || strings.Contains(pair, ";") {
			return q, &versions.FieldError{Field: "version", Code: "validation_invalid_query",
				Text: "The address cannot be read: percent-encode what follows the question mark."}
		}
		switch key {
		case "platform":
			q.platform = value
			platforms++
		case "version":
			q.version = value
			versionsGiven++
		case "fields":
			q.fields = true
		}
	}
	if problem := onlyOne("platform", "ios", q.platform, platforms); problem != nil {
		return q, problem
	}
	if problem := onlyOne("version", "1.2.3", q.version, versionsGiven); problem != nil {
		return q, problem
	}

	// In a query a plain "+" means a space, and clients seldom encode the one of
	// "1.2.3+45". No version contains a space but before a bracket.
	if i := strings.IndexByte(q.version, ' '); i > 0 && !strings.HasPrefix(q.version[i:], " (") {
		q.version = q.version[:i] + "+" + q.version[i+1:]
	}
	return q, nil
}

func onlyOne(name, example, value string, given int) *versions.FieldError {
	switch {
	case given > 1:
		return &versions.FieldError{Field: name, Code: "validation_repeated_parameter",
			Text: "The parameter " + name + " is given more than once; give it once."}
	case value == "":
		return &versions.FieldError{Field: name, Code: "validation_required",
			Text: "The parameter " + name + " is missing; add " + name + "=" + example + "."}
	default:
		return nil
	}
}

func versionCheckMethod(e *core.RequestEvent) error {
	e.Response.Header().Set("Allow", "GET, HEAD")
	return e.Error(http.StatusMethodNotAllowed, "The version check only answers GET requests.", nil)
}
