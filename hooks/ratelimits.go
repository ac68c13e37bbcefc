package hooks

import (
	"errors"
	"net/http"
	"strings"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/livecache"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
)

// limits is what the files ratelimits*.go share.
type limits struct {
	g       *groundwork
	table   *livecache.Cache[*ratelimit.Table]
	limiter *ratelimit.Limiter // nil before the bootstrap
}

// priorityLimits is after the token was read and PocketBase has bounded the body,
// and before the handler.
const priorityLimits = apis.DefaultBodyLimitMiddlewarePriority + 5

// bindLimits applies the rules of rate_limits to every request.
func (g *groundwork) bindLimits() {
	l := &limits{g: g, table: livecache.New(g.app, ratelimit.Collection, ratelimit.Load)}
	g.limits = l

	g.app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.limits.build", Func: func(e *core.BootstrapEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			if l.limiter == nil {
				l.limiter = ratelimit.New(ratelimit.Options{})
			}
			return nil
		}})

	g.app.OnRecordValidate(ratelimit.Collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.limits.validate", Func: func(e *core.RecordEvent) error {
			problems := validation.Errors{}
			for _, p := range ratelimit.CheckRecord(e.Record) {
				if problems[p.Field] == nil {
					problems[p.Field] = validation.NewError(p.Code, p.Text)
				}
			}
			return withProblems(problems, e.Next())
		}})

	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.limits.serve", Func: func(e *core.ServeEvent) error {
			e.Router.Bind(&hook.Handler[*core.RequestEvent]{
				Id: "groundwork.limits", Priority: priorityLimits, Func: l.limit})
			return e.Next()
		}})
}

// withProblems adds PocketBase's own field errors, so that a form shows all that
// is wrong at once; where both complain about a field, theirs is shown.
func withProblems(problems validation.Errors, err error) error {
	if err != nil {
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
}

// limit is the middleware.
func (l *limits) limit(e *core.RequestEvent) error {
	table, err := l.table.Get()
	if err != nil {
		return e.InternalServerError("The rate limits cannot be read right now; try again.", err)
	}
	var room [8]*ratelimit.Rule
	rules := table.Match(e.App, &ratelimit.Target{
		Pattern: e.Request.Pattern, Method: e.Request.Method, Value: e.Request.PathValue, Path: e.Request.URL.Path,
	}, room[:0])
	if len(rules) == 0 {
		return e.Next()
	}
	if e.HasSuperuserAuth() && !isSignIn(e.Request.Pattern) {
		return e.Next()
	}

	var taken [8]ratelimit.Slot
	slots := taken[:0]
	for _, rule := range rules {
		if (rule.Audience == ratelimit.Guests && e.Auth != nil) || (rule.Audience == ratelimit.SignedIn && e.Auth == nil) {
			continue
		}
		slot := l.limiter.Take(e.Request.Context(), l.key(e, rule), rule.Window)
		rule.Show(e.Response.Header(), slot.Taken)
		if !slot.OK {
			for i := range slots {
				slots[i].GiveBack()
			}
			return e.TooManyRequestsError(ratelimit.Refusal(slot.Grows), errors.New("rate limit "+rule.ID+" "+rule.Name))
		}
		slots = append(slots, slot)
	}
	return e.Next()
}

// key is what a rule counts this request under.
func (l *limits) key(e *core.RequestEvent, rule *ratelimit.Rule) ratelimit.Key {
	switch {
	case rule.KeyBy == ratelimit.KeyGlobal:
		return l.limiter.Key(rule.ID)
	case rule.KeyBy == ratelimit.KeyUser && e.Auth != nil:
		return l.limiter.Key(rule.ID, "user", e.Auth.Collection().Id, e.Auth.Id)
	default: // a guest is known by the address only
		return l.limiter.Key(rule.ID, "ip", ratelimit.Network(e.RealIP()).String())
	}
}

// isSignIn says whether a route takes the place of a password or asks for what
// does: superusers are limited there too.
func isSignIn(pattern string) bool {
	const prefix = http.MethodPost + " /api/collections/{collection}/"
	action, ok := strings.CutPrefix(pattern, prefix)
	if !ok {
		return false
	}
	switch action {
	case "auth-with-password", "auth-with-otp", "auth-with-oauth2", "request-otp", "request-phone-otp":
		return true
	}
	return false
}
