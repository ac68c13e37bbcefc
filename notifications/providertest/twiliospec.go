package providertest

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// twilioSpec holds requests against Twilio's own OpenAPI description. The routers
// that come with the library know no ".json" behind a variable.
type twilioSpec struct {
	mu     sync.Mutex // one reading of the description serves many doubles
	routes []twilioRoute
}

type twilioRoute struct {
	pattern *regexp.Regexp
	names   []string
	route   routers.Route
}

var twilioSpecs sync.Map // path to func() (*twilioSpec, error)

func loadTwilioSpec(path string) (*twilioSpec, error) {
	load, _ := twilioSpecs.LoadOrStore(path, sync.OnceValues(func() (*twilioSpec, error) {
		doc, err := openapi3.NewLoader().LoadFromFile(path)
		if err != nil {
			return nil, fmt.Errorf("read Twilio's description: %w", err)
		}
		doc.Servers = nil // it is served here, not at the addresses that the description names
		spec := &twilioSpec{}
		for template, item := range doc.Paths.Map() {
			item.Servers = nil
			pattern := "^" + regexp.QuoteMeta(template) + "$"
			var names []string
			for _, variable := range twilioVariable.FindAllStringSubmatch(template, -1) {
				pattern = strings.Replace(pattern, regexp.QuoteMeta(variable[0]), "([^/]+)", 1)
				names = append(names, variable[1])
			}
			compiled, err := regexp.Compile(pattern)
			if err != nil {
				return nil, fmt.Errorf("read Twilio's description: path %s: %w", template, err)
			}
			for method, op := range item.Operations() {
				op.Servers = nil
				spec.routes = append(spec.routes, twilioRoute{compiled, names,
					routers.Route{Spec: doc, Path: template, PathItem: item, Method: method, Operation: op}})
			}
		}
		return spec, nil
	}))
	fn, _ := load.(func() (*twilioSpec, error))
	return fn()
}

var twilioVariable = regexp.MustCompile(`\{(\w+)\}`)

func (s *twilioSpec) find(r *http.Request) (*routers.Route, map[string]string, error) {
	for i := range s.routes {
		candidate := &s.routes[i]
		values := candidate.pattern.FindStringSubmatch(r.URL.Path)
		if values == nil || candidate.route.Method != r.Method {
			continue
		}
		params := map[string]string{}
		for j, name := range candidate.names {
			params[name] = values[j+1]
		}
		return &candidate.route, params, nil
	}
	return nil, nil, fmt.Errorf("%s %s is not described", r.Method, r.URL.Path)
}

// check returns why a request does not fit the description. It leaves the body
// to be read again.
func (s *twilioSpec) check(r *http.Request) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	route, params, err := s.find(r)
	if err != nil {
		return err
	}
	return openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
		Request: r, Route: route, PathParams: params,
		Options: &openapi3filter.Options{AuthenticationFunc: func(_ context.Context, in *openapi3filter.AuthenticationInput) error {
			if _, _, ok := in.RequestValidationInput.Request.BasicAuth(); !ok {
				return fmt.Errorf("no sign-in")
			}
			return nil
		}},
	})
}
