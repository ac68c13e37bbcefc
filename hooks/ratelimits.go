package hooks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

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
	limiter *ratelimit.Limiter // nil before the app serves

	lanes   ratelimit.Lanes
	waiting atomic.Int64 // refusals that are held back
	silent  atomic.Int64 // refusals that were not logged one by one
}

const (
	// priorityLimits is after the token was read and PocketBase has bounded the
	// body, and before the handler.
	priorityLimits = apis.DefaultBodyLimitMiddlewarePriority + 5

	// priorityLimitsStart is after the migrations and the key, before whatever
	// serves.
	priorityLimitsStart = priorityFirst + 1
)

// bindLimits applies the rules of rate_limits to every request.
func (g *groundwork) bindLimits() {
	l := &limits{g: g, table: livecache.New(g.app, ratelimit.Collection, ratelimit.Load)}
	g.limits = l
	app := g.app

	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.limits.start", Priority: priorityLimitsStart, Func: func(e *core.ServeEvent) error {
			if err := l.start(e.App); err != nil {
				return err
			}
			e.Router.Bind(&hook.Handler[*core.RequestEvent]{
				Id: "groundwork.limits", Priority: priorityLimits, Func: l.limit})
			return e.Next()
		}})
	// Requests that are still in flight are counted in memory then.
	app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "groundwork.limits.stop", Priority: prioritySenderStop, Func: func(e *core.TerminateEvent) error {
			l.stop()
			return e.Next()
		}})
	app.OnBootstrapClear().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.limits.stop", Priority: prioritySenderStop, Func: func(e *core.BootstrapEvent) error {
			l.stop()
			return e.Next()
		}})
	if err := app.Cron().Add("groundwork.limits.prune", "* * * * *", func() {
		if l.limiter == nil {
			return
		}
		if err := l.limiter.Prune(context.Background()); err != nil {
			g.log.Error("old rows of the rate limits cannot be deleted", "error", err)
		}
		if n := l.silent.Swap(0); n > 0 {
			g.log.Warn("addresses went on although they were refused", "requests", n)
		}
	}); err != nil {
		panic(err) // the expression above is a constant
	}

	app.OnRecordValidate(ratelimit.Collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.limits.validate", Func: func(e *core.RecordEvent) error {
			problems := validation.Errors{}
			for _, p := range ratelimit.CheckRecord(e.Record) {
				if problems[p.Field] == nil {
					problems[p.Field] = validation.NewError(p.Code, p.Text)
				}
			}
			return withProblems(problems, e.Next())
		}})

	l.bindKnownAddresses()
	l.bindRecords()
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

func (l *limits) start(app core.App) error {
	secret, err := l.g.box.Key("rate limits")
	if err != nil {
		return err
	}
	if l.limiter, err = ratelimit.New(ratelimit.Options{Secret: secret, Redis: l.g.cfg.RedisURL, Log: l.g.log}); err != nil {
		// Without the cause: it has the address, and with it the password.
		return errors.New("REDIS_URL cannot be used: write redis://:PASSWORD@HOST:6379/0, without options that this Redis client does not know")
	}
	if err := l.limiter.Open(app); err != nil {
		return fmt.Errorf("start the rate limits: %w", err)
	}
	return nil
}

func (l *limits) stop() {
	if l.limiter != nil {
		l.limiter.Close()
	}
}

// limit is the middleware.
//
// Rules that need no body come first: one that refuses saves the reading of it.
// A refusal costs nothing at the other rules, until an address was refused as
// often as its rule allows requests. From then on refused ones count there too,
// so that nobody makes the server read bodies for nothing all day.
func (l *limits) limit(e *core.RequestEvent) error {
	table, err := l.table.Get()
	if err != nil {
		return e.InternalServerError("The rate limits cannot be read right now; try again.", err)
	}
	var room [8]*ratelimit.Rule
	rules := table.Match(e.App, ratelimit.OfRequest(e.Request), room[:0])
	sendsCode := isCodeRequest(e.Request.Pattern)
	if len(rules) == 0 && !sendsCode || e.HasSuperuserAuth() && !isSignIn(e.Request.Pattern) {
		return e.Next()
	}
	kept := rules[:0]
	door := isSuperusersDoor(e)
	for _, rule := range rules {
		if door && l.staysOpen(e, rule) {
			continue
		}
		// Updates of a record by account: see bindRecords.
		if applies(rule, e.Auth) && (rule.KeyBy != ratelimit.KeyAccount || e.Request.Pattern != patternUpdate) {
			kept = append(kept, rule)
		}
	}
	switch {
	case sendsCode:
		return answered(l.limitBy(e, kept))
	case len(kept) == 0:
		return e.Next()
	case len(kept) == 1 && !kept[0].NeedsBody() && !kept[0].Failures:
		// Nearly every request. There is nothing to give back.
		if err := l.takeOne(e, kept[0]); err != nil {
			return answered(err)
		}
		return l.inLane(e, e.Next)
	default:
		return answered(l.limitBy(e, kept))
	}
}

// takeOne takes from the only rule about a request.
func (l *limits) takeOne(e *core.RequestEvent, rule *ratelimit.Rule) error {
	taken := l.limiter.Take(e.Request.Context(), l.plainCount(e, rule, ""))
	rule.Show(e.Response.Header(), taken.Taken)
	if !taken.OK {
		return l.refuse(e, rule, taken.Taken)
	}
	return nil
}

func (l *limits) limitBy(e *core.RequestEvent, rules []*ratelimit.Rule) error {
	t := &taking{limits: l, event: e, network: l.network(e)}
	// Whom a code is about is remembered even where no rule limits its requests.
	needBody, needSettling := isCodeRequest(e.Request.Pattern), false
	for _, rule := range rules {
		if rule.NeedsBody() {
			needBody = true
			continue
		}
		needSettling = needSettling || rule.Failures
		if err := t.take(rule, l.plainCount(e, rule, t.network)); err != nil {
			return err
		}
	}
	if !needBody && !needSettling {
		return l.inLane(e, e.Next)
	}
	if needBody {
		s := &subject{limits: l, event: e, network: t.network}
		if err := t.takeByBody(rules, s); err != nil {
			return err
		}
		return t.settle(func() error { return l.inLane(e, func() error { return l.handle(e, s) }) })
	}
	return t.settle(func() error { return l.inLane(e, e.Next) })
}

// inLane lets the writes of one client through a few at a time. Reads may last
// (files, realtime), and hold up nobody's writes.
func (l *limits) inLane(e *core.RequestEvent, handle func() error) error {
	if m := e.Request.Method; m == http.MethodGet || m == http.MethodHead || m == http.MethodOptions {
		return handle()
	}
	client := ""
	if e.Auth != nil {
		client = "user " + e.Auth.Collection().Id + e.Auth.Id
	} else {
		client = l.network(e)
	}
	l.lanes.Enter(e.Request.Context(), client)
	defer l.lanes.Leave(client)
	return handle()
}

func applies(rule *ratelimit.Rule, auth *core.Record) bool {
	switch rule.Audience {
	case ratelimit.Guests:
		return auth == nil
	case ratelimit.SignedIn:
		return auth != nil
	default:
		return true
	}
}

// taking is what one request has taken so far.
type taking struct {
	limits  *limits
	event   *core.RequestEvent
	network string
	quiet   bool // shows only what refused it
	slots   []slot
	room    [4]slot
}

type slot struct {
	ratelimit.Slot
	rule *ratelimit.Rule
}

// take takes from one rule, or refuses the request and gives everything back.
func (t *taking) take(rule *ratelimit.Rule, count ratelimit.Count) error {
	taken := t.limits.limiter.Take(t.event.Request.Context(), count)
	if !taken.OK || !t.quiet {
		rule.Show(t.event.Response.Header(), taken.Taken)
	}
	if taken.OK {
		if t.slots == nil {
			t.slots = t.room[:0]
		}
		t.slots = append(t.slots, slot{taken, rule})
		return nil
	}
	t.refused(rule)
	return t.limits.refuse(t.event, rule, taken.Taken)
}

// refused gives back what the request took elsewhere.
func (t *taking) refused(by *ratelimit.Rule) {
	for i := range t.slots {
		s := &t.slots[i]
		if by.NeedsBody() && s.rule.KeyBy == ratelimit.KeyIP {
			if _, goesOn := t.limits.refusals(t.event, s.rule, t.network); goesOn {
				continue
			}
		}
		s.GiveBack()
	}
	t.slots = nil
}

// settle runs the handler and keeps the slots of failures only if it failed.
func (t *taking) settle(handle func() error) error {
	failed := true // a panic is one too
	defer func() {
		for i := range t.slots {
			switch s := &t.slots[i]; {
			case !s.rule.Failures:
			case failed:
				s.Touch()
			default:
				s.GiveBack()
			}
		}
	}()
	err := handle()
	failed = isFailure(t.event, err)
	return err
}

// isFailure says whether a request was answered with an error. The first half of
// a sign-in with two is none, although it is answered with 401.
func isFailure(e *core.RequestEvent, err error) bool {
	switch {
	case errors.Is(err, apis.ErrMFA):
		return false
	case err == nil || e.Written():
		return e.Status() >= http.StatusBadRequest
	default:
		return true
	}
}

// plainCount is what a rule that needs no body counts this request under. An empty
// network is looked for when it is needed.
func (l *limits) plainCount(e *core.RequestEvent, rule *ratelimit.Rule, network string) ratelimit.Count {
	limiter, auth := l.limiter, e.Auth
	c := ratelimit.Count{Window: rule.Window, Durable: rule.Security()}
	switch {
	case rule.KeyBy == ratelimit.KeyGlobal:
		c.Key = limiter.Key(rule.ID)
	case rule.KeyBy == ratelimit.KeyUser && auth != nil:
		c.Key = limiter.Key(rule.ID, "user", auth.Collection().Id, auth.Id)
	default: // a guest is known by the address only
		if network == "" {
			network = l.network(e)
		}
		c.Key = limiter.Key(rule.ID, "ip", network)
	}
	return c
}

// Patterns of PocketBase's routes that are treated in a way of their own.
const (
	patternCreate = http.MethodPost + " /api/collections/{collection}/records"
	patternUpdate = http.MethodPatch + " /api/collections/{collection}/records/{id}"
	patternDelete = http.MethodDelete + " /api/collections/{collection}/records/{id}"
)

// authAction is the last part of a route of an auth collection, such as
// auth-with-otp, and the name under which the route has the collection; both are
// empty for others.
func authAction(pattern string) (action, collection string) {
	rest, ok := strings.CutPrefix(pattern, http.MethodPost+" /api/collections/{")
	if !ok {
		return "", ""
	}
	collection, action, ok = strings.Cut(rest, "}/")
	if !ok || strings.Contains(action, "/") || action == "records" {
		return "", ""
	}
	return action, collection
}

// isCodeRequest says whether a route sends a code and answers with its id.
func isCodeRequest(pattern string) bool {
	switch action, _ := authAction(pattern); action {
	case "request-otp", "request-phone-otp", "request-phone-verification":
		return true
	}
	return false
}

// isSuperusersDoor says whether a request is one of those by which a superuser comes
// in: the dashboard's page, and what it asks before somebody is signed in.
func isSuperusersDoor(e *core.RequestEvent) bool {
	if strings.HasPrefix(e.Request.URL.Path, "/_/") {
		return e.Request.Method == http.MethodGet || e.Request.Method == http.MethodHead
	}
	action, _ := authAction(e.Request.Pattern)
	if action == "" && !strings.HasSuffix(e.Request.Pattern, "/auth-methods") {
		return false
	}
	collection, err := e.App.FindCachedCollectionByNameOrId(e.Request.PathValue("collection"))
	return err == nil && collection.Name == core.CollectionNameSuperusers
}

// staysOpen says whether a rule leaves the superusers' door alone. A number for
// everybody together could be used up by strangers, and a rule that is too narrow could
// be mended by nobody: it does not hold for who comes from this machine. What protects
// accounts holds everywhere.
func (l *limits) staysOpen(e *core.RequestEvent, rule *ratelimit.Rule) bool {
	return !rule.Security() && (rule.KeyBy == ratelimit.KeyGlobal || l.address(e).IsLoopback())
}

// isSignIn says whether a route takes the place of a password or asks for what
// does: superusers are limited there too.
func isSignIn(pattern string) bool {
	switch action, _ := authAction(pattern); action {
	case "auth-with-password", "auth-with-otp", "auth-with-oauth2", "request-otp", "request-phone-otp":
		return true
	}
	return false
}
