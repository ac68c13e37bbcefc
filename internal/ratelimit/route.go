package ratelimit

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/pocketbase/pocketbase/core"
)

// route is what a rule's route says. The zero value is every request.
type route struct {
	method   string // empty: any; GET is HEAD too
	segments []string
	rest     bool // whatever follows, or nothing
}

var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions}

// tidyRoute writes a route as the product does: one space, the method in
// capitals.
func tidyRoute(s string) string {
	fields := strings.Fields(s)
	if len(fields) == 2 {
		fields[0] = strings.ToUpper(fields[0])
	}
	return strings.Join(fields, " ")
}

func parseRoute(s string) (route, error) {
	const example = "write a path such as /api/collections/users/auth-with-otp, with a method such as POST before it or without one; * and {name} stand for one part, a * at the end for all that follows"
	var r route
	p := s
	if method, after, ok := strings.Cut(s, " "); ok {
		r.method, p = method, after
		if !slices.Contains(methods, method) {
			return r, fmt.Errorf("%q is no method: use GET, POST, PUT, PATCH or DELETE, or none for all of them", method)
		}
	}
	if p == "*" {
		p = "/*"
	}
	switch {
	case s == "":
		return r, errors.New(example)
	case !strings.HasPrefix(p, "/"):
		return r, fmt.Errorf("the path begins with a slash: %s", example)
	case strings.ContainsAny(p, "?# \t\\%"):
		return r, fmt.Errorf("only the path is compared, as it reads when decoded: %s", example)
	case path.Clean(p) != strings.TrimSuffix(p, "/") && p != "/":
		return r, fmt.Errorf("the path has an empty part or dots: %s", example)
	}
	segments := strings.Split(strings.Trim(p, "/"), "/")
	if segments[0] == "" {
		segments = nil
	}
	for i, s := range segments {
		if strings.ContainsAny(s, "{}") {
			name, closed := strings.CutSuffix(strings.TrimPrefix(s, "{"), "}")
			if !strings.HasPrefix(s, "{") || !closed || strings.ContainsAny(name, "{}") {
				return r, fmt.Errorf("the braces of %q are not closed, or do not hold a whole part of the path: %s", s, example)
			}
			if strings.HasSuffix(name, "...") {
				s = "**"
			} else {
				s = "*"
			}
			segments[i] = s
		}
		if last := i == len(segments)-1; last && (segments[i] == "**" || segments[i] == "*" && s == "*" && !strings.HasSuffix(p, "}")) {
			r.rest = true
		} else if segments[i] == "**" {
			return r, fmt.Errorf("{name...} stands at the end: %s", example)
		}
		if _, err := path.Match(segments[i], ""); err != nil {
			return r, fmt.Errorf("%q cannot be compared: use * for anything: %s", segments[i], example)
		}
	}
	if r.rest {
		segments = segments[:len(segments)-1]
	}
	r.segments = segments
	return r, nil
}

// Table holds the rules that are switched on. A nil table has none. It never
// changes, and may be read by any number of goroutines.
type Table struct {
	rules []*Rule
	plans sync.Map // pattern of the router to *plan
}

// NewTable returns a table of the rules.
func NewTable(rules []*Rule) *Table { return &Table{rules: rules} }

// Target is a request as rules see it: the route that the router found, not the
// text of its address, which can be written in more than one way.
type Target struct {
	Pattern string            // such as "POST /api/collections/{collection}/records"
	Method  string            // of the request; a pattern may have none
	Request *http.Request     // its parts in braces and its path are compared; or nil,
	Values  map[string]string // and these are the parts in braces
}

// OfRequest is the target of a request that the router has found a route for.
func OfRequest(r *http.Request) Target {
	return Target{Pattern: r.Pattern, Method: r.Method, Request: r}
}

func (t *Target) value(name string) string {
	if t.Request != nil {
		return t.Request.PathValue(name)
	}
	return t.Values[name]
}

// path is decoded; what a pattern's open end stands for is read from it.
func (t *Target) path() string {
	if t.Request != nil {
		return t.Request.URL.Path
	}
	return ""
}

// plan is what the rules make of one pattern of the router.
type plan struct {
	method string
	parts  []string // a literal, or the name of a part in braces with them
	open   bool     // the pattern's end is open: compare with the path
	rules  []planned
}

type planned struct {
	rule   *Rule
	always bool // for every request of this pattern
}

// Match returns the rules about a request, in the order in which they were made.
// A collection is known by its name and by its id, whichever the rule or the
// request has.
func (t *Table) Match(app core.App, target Target, into []*Rule) []*Rule {
	if t == nil || len(t.rules) == 0 {
		return into
	}
	var p *plan
	if v, ok := t.plans.Load(target.Pattern); ok {
		p = v.(*plan)
	} else {
		p = t.plan(target.Pattern)
		t.plans.Store(target.Pattern, p) // as many as the router has patterns
	}
	var actual []string
	var collection [2]string
	expanded := false
	for i := range p.rules {
		r := p.rules[i].rule
		if m := r.route.method; m != "" && p.method == "" && m != target.Method && (m != http.MethodGet || target.Method != http.MethodHead) {
			continue
		}
		if !p.rules[i].always {
			if !expanded {
				actual, collection = p.actual(app, &target)
				expanded = true
			}
			if !r.route.matches(actual, collection) {
				continue
			}
		}
		into = append(into, r)
	}
	return into
}

func (t *Table) plan(pattern string) *plan {
	p := &plan{}
	full := pattern
	if method, after, ok := strings.Cut(pattern, " "); ok {
		p.method, full = method, after
	}
	p.open = strings.HasSuffix(full, "/") || strings.HasSuffix(full, "...}")
	if trimmed := strings.Trim(full, "/"); trimmed != "" {
		p.parts = strings.Split(trimmed, "/")
	}
	for _, r := range t.rules {
		if m := r.route.method; m != "" && p.method != "" && m != p.method && (m != http.MethodHead || p.method != http.MethodGet) {
			continue
		}
		if possible, always := p.compare(r.route); possible {
			p.rules = append(p.rules, planned{r, always})
		}
	}
	return p
}

// compare says whether a request of the pattern can match, and whether each does.
func (p *plan) compare(r route) (possible, always bool) {
	if len(r.segments) == 0 && r.rest {
		return true, true
	}
	if p.open {
		return true, false
	}
	if len(p.parts) < len(r.segments) || (len(p.parts) > len(r.segments) && !r.rest) {
		return false, false
	}
	always = true
	for i, s := range r.segments {
		if s == "*" {
			continue
		}
		if strings.HasPrefix(p.parts[i], "{") {
			always = false
			continue
		}
		if ok, _ := path.Match(s, p.parts[i]); !ok {
			return false, false
		}
	}
	return true, always
}

// actual returns the parts of the request's path, and the name and id of the
// collection that the second one of /api/collections/… stands for.
func (p *plan) actual(app core.App, target *Target) (parts []string, collection [2]string) {
	if p.open {
		if trimmed := strings.Trim(target.path(), "/"); trimmed != "" {
			parts = strings.Split(trimmed, "/")
		}
		return parts, collection
	}
	parts = make([]string, len(p.parts))
	for i, part := range p.parts {
		if !strings.HasPrefix(part, "{") {
			parts[i] = part
			continue
		}
		name := strings.Trim(part, "{}")
		parts[i] = target.value(name)
		if i == 2 && parts[0] == "api" && parts[1] == "collections" {
			if c, err := app.FindCachedCollectionByNameOrId(parts[i]); err == nil {
				collection = [2]string{c.Name, c.Id}
			}
		}
	}
	return parts, collection
}

func (r route) matches(actual []string, collection [2]string) bool {
	if len(actual) < len(r.segments) || (len(actual) > len(r.segments) && !r.rest) {
		return false
	}
	for i, s := range r.segments {
		if s == "*" {
			continue
		}
		if ok, _ := path.Match(s, actual[i]); ok {
			continue
		}
		if i == 2 && collection[0] != "" {
			if ok, _ := path.Match(strings.ToLower(s), strings.ToLower(collection[0])); ok || s == collection[1] {
				continue
			}
		}
		return false
	}
	return true
}
