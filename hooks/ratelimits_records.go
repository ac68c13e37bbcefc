package hooks

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/spf13/cast"

	"github.com/groundworkhq/groundwork/internal/ratelimit"
)

// bindRecords limits what no middleware sees: a password change, which is a
// record's update like any other, and the requests inside a batch.
func (l *limits) bindRecords() {
	l.g.app.OnRecordUpdateRequest().Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "groundwork.limits.password", Priority: priorityFirst, Func: l.limitPasswordChange})
	l.g.app.OnBatchRequest().Bind(&hook.Handler[*core.BatchRequestEvent]{
		Id: "groundwork.limits.batch", Priority: priorityFirst, Func: l.limitBatch})
}

// changesPassword says whether a body asks for another password. A guess of the
// old one is a guess like one at the sign-in.
func changesPassword(body map[string]any) bool {
	for _, name := range []string{"password", "passwordConfirm", "oldPassword"} {
		if cast.ToString(body[name]) != "" {
			return true
		}
	}
	return false
}

// limitPasswordChange applies the rules by account to an update outside a batch.
func (l *limits) limitPasswordChange(e *core.RecordRequestEvent) error {
	info, err := e.RequestInfo()
	if err != nil || l.limiter == nil || !e.Collection.IsAuth() || e.HasSuperuserAuth() ||
		info.Context == core.RequestInfoContextBatch || !changesPassword(info.Body) {
		return e.Next()
	}
	table, err := l.table.Get()
	if err != nil {
		return e.InternalServerError("The rate limits cannot be read right now; try again.", err)
	}
	t := &taking{limits: l, event: e.RequestEvent, network: l.network(e.RequestEvent)}
	values := map[string]string{"collection": e.Collection.Id, "id": e.Record.Id}
	if err := t.takeAccount(table, values); err != nil {
		return err
	}
	return t.settle(e.Next)
}

// takeAccount takes from the rules by account about an update of a record.
func (t *taking) takeAccount(table *ratelimit.Table, values map[string]string) error {
	app := t.event.App
	collection, err := app.FindCachedCollectionByNameOrId(values["collection"])
	if err != nil || !collection.IsAuth() {
		return nil
	}
	account := t.limits.limiter.Account(collection.Id, values["id"])
	s := &subject{limits: t.limits, event: t.event, network: t.network, collection: collection, account: &account}
	s.known = t.limits.limiter.Knows(t.event.Request.Context(), account, t.network)
	for _, rule := range table.Match(app, recordTarget(patternUpdate, values), nil) {
		if rule.KeyBy != ratelimit.KeyAccount || !applies(rule, t.event.Auth) {
			continue
		}
		count, err := s.count(rule)
		if err != nil {
			return err
		}
		if err := t.take(rule, count); err != nil {
			return err
		}
	}
	return nil
}

func recordTarget(pattern string, values map[string]string) ratelimit.Target {
	method, _, _ := strings.Cut(pattern, " ")
	return ratelimit.Target{Pattern: pattern, Method: method, Values: values}
}

// limitBatch counts each request of a batch as if it came by itself. It runs
// before the batch's transaction: one request too many, and nothing is done.
func (l *limits) limitBatch(e *core.BatchRequestEvent) error {
	// Whoever sends a batch writes the headers of the requests in it: what a proxy said
	// about the address is said of the batch.
	e.Set(eventKeyAddress, l.address(e.RequestEvent))
	if l.limiter == nil || e.HasSuperuserAuth() {
		return e.Next()
	}
	table, err := l.table.Get()
	if err != nil {
		return e.InternalServerError("The rate limits cannot be read right now; try again.", err)
	}
	t := &taking{limits: l, event: e.RequestEvent, network: l.network(e.RequestEvent), quiet: true}
	for _, inner := range e.Batch {
		for _, target := range batchTargets(inner) {
			if err := t.takeInner(table, inner, target.pattern, target.values); err != nil {
				return answered(err)
			}
		}
	}
	if len(t.slots) == 0 {
		return e.Next()
	}
	return t.settle(e.Next)
}

func (t *taking) takeInner(table *ratelimit.Table, inner *core.InternalRequest, pattern string, values map[string]string) error {
	for _, rule := range table.Match(t.event.App, recordTarget(pattern, values), nil) {
		if !applies(rule, t.event.Auth) || rule.KeyBy == ratelimit.KeyAccount {
			continue
		}
		count := t.limits.plainCount(t.event, rule, t.network)
		if rule.KeyBy == ratelimit.KeyBody {
			s := &subject{limits: t.limits, event: t.event, network: t.network,
				fields: map[string]string{rule.Field: fieldOf(inner.Body, rule.Field)}}
			var err error
			if count, err = s.count(rule); err != nil {
				return err
			}
		}
		if err := t.take(rule, count); err != nil {
			return err
		}
	}
	if pattern == patternUpdate && changesPassword(inner.Body) {
		return t.takeAccount(table, values)
	}
	return nil
}

type batchTarget struct {
	pattern string
	values  map[string]string
}

// batchTargets is the route that a request inside a batch means. PUT with an id is
// an update or a creation, which is only found out later: it counts as both.
func batchTargets(inner *core.InternalRequest) []batchTarget {
	address, err := url.Parse(inner.URL)
	if err != nil {
		return nil // PocketBase knows no such action
	}
	parts := strings.Split(strings.Trim(address.Path, "/"), "/")
	if len(parts) < 4 || parts[0] != "api" || parts[1] != "collections" || parts[3] != "records" {
		return nil
	}
	values := map[string]string{"collection": parts[2]}
	if len(parts) == 5 {
		values["id"] = parts[4]
	}
	id := cast.ToString(inner.Body["id"])
	switch method := strings.ToUpper(inner.Method); {
	case method == http.MethodPost && len(parts) == 4, method == http.MethodPut && len(parts) == 4 && id == "":
		return []batchTarget{{patternCreate, values}}
	case method == http.MethodPut && len(parts) == 4:
		values["id"] = id
		return []batchTarget{{patternCreate, values}, {patternUpdate, values}}
	case method == http.MethodPatch && len(parts) == 5:
		return []batchTarget{{patternUpdate, values}}
	case method == http.MethodDelete && len(parts) == 5:
		return []batchTarget{{patternDelete, values}}
	}
	return nil
}
