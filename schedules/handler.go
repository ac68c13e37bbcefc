package schedules

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// Func is the work of a handler. payload is the "args" of the schedule's payload, an
// object, or null. output is shown with the run; an error that is a sentence is shown
// as it is.
//
// It may be called again for a run that a crash cut off, and its ctx ends when its
// time is up, when the process stops, and when the schedule is deleted.
type Func func(ctx context.Context, app core.App, payload json.RawMessage) (output string, err error)

// handlers are the functions that schedules may name, for all apps of this process.
var handlers = &registry{funcs: map[string]Func{}}

// Handle registers a function under a name, so that schedules with the action handler
// can run it. Call it before the app starts. It panics when the name is taken: that is
// a mistake in the program.
func Handle(name string, run Func) { handlers.add(name, run) }

// storeKeyHandlers is where the handlers of one app are.
const storeKeyHandlers = "groundwork.schedules.handlers"

// HandleIn is [Handle] for one app: for hooks that belong to it, such as those in
// JavaScript. It replaces an earlier one of the same name.
func HandleIn(app core.App, name string, run Func) {
	r, _ := app.Store().GetOrSet(storeKeyHandlers, func() any { return &registry{funcs: map[string]Func{}} }).(*registry)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.funcs[name] = run
}

type registry struct {
	mu    sync.RWMutex
	funcs map[string]Func
}

func (r *registry) add(name string, run Func) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "" || run == nil {
		panic("schedules: a handler needs a name and a function")
	}
	if r.funcs[name] != nil {
		panic(fmt.Sprintf("schedules: there are two handlers called %q", name))
	}
	r.funcs[name] = run
}

func (r *registry) find(name string) Func {
	if r == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.funcs[name]
}

func findHandler(app core.App, name string) Func {
	own, _ := app.Store().Get(storeKeyHandlers).(*registry)
	if run := own.find(name); run != nil {
		return run
	}
	return handlers.find(name)
}

// Handlers are the names that schedules of an app may use, in order.
func Handlers(app core.App) []string {
	own, _ := app.Store().Get(storeKeyHandlers).(*registry)
	var names []string
	for _, r := range []*registry{own, handlers} {
		if r == nil {
			continue
		}
		r.mu.RLock()
		for name := range r.funcs {
			names = append(names, name)
		}
		r.mu.RUnlock()
	}
	slices.Sort(names)
	return slices.Compact(names)
}

type handlerAction struct{}

func (handlerAction) keys() []Key {
	return []Key{
		{"handler", "the name of the function, as it was registered"},
		{"args", "what it is called with, as an object"},
	}
}

func (handlerAction) read(app core.App, raw string) (name string, args json.RawMessage, err error) {
	p := readPayload(raw, handlerAction{}.keys())
	name = p.text("handler")
	p.object("args")
	known := Handlers(app)
	switch {
	case p.err != nil:
	case name == "":
		p.fail(`Name the function, such as {"handler": "cleanUp"}. %s`, knownHandlers(known))
	case !slices.Contains(known, name):
		p.fail("There is no handler called %q. %s", name, knownHandlers(known))
	}
	args = p.values["args"]
	if args == nil {
		args = json.RawMessage("null")
	}
	return name, args, p.err
}

func knownHandlers(known []string) string {
	if len(known) == 0 {
		return "None is registered: register one with $jobs.on in a file of pb_hooks, or in Go with schedules.Handle, and start the server again."
	}
	return "There is " + list(known, "and") + "."
}

func (a handlerAction) check(app core.App, s *Schedule, _ checking) error {
	_, _, err := a.read(app, s.GetString("payload"))
	return err
}

func (a handlerAction) run(ctx context.Context, c *call) (string, error) {
	name, args, err := a.read(c.app, c.schedule.GetString("payload"))
	if err != nil {
		return "", err
	}
	output, err := findHandler(c.app, name)(ctx, c.app, args)
	// A function of $jobs.on says so to jobs and to schedules alike.
	if wait, ok := jobs.Snoozed(err); ok {
		return output, &retryError{Sentence: "The handler asked to be called again later.", after: wait}
	}
	if why, ok := jobs.Cancelled(err); ok {
		return output, why
	}
	return output, err
}
