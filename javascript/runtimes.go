package javascript

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/dop251/goja"
	"github.com/dop251/goja_nodejs/buffer"
	"github.com/dop251/goja_nodejs/console"
	"github.com/dop251/goja_nodejs/process"
	"github.com/dop251/goja_nodejs/require"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/plugins/jsvm"
	"github.com/pocketbase/pocketbase/tools/template"

	"github.com/groundworkhq/groundwork/jobs"
)

const (
	// keptRuntimes is how many runtimes are kept for the next job. Making one takes
	// a few milliseconds.
	keptRuntimes = 8

	// maxCallStack ends a function that calls itself for ever before it has taken
	// all memory.
	maxCallStack = 10_000
)

// runtimes are those in which the jobs of scripts run. PocketBase's own cannot be
// stopped: a job that hangs would keep one for ever.
type runtimes struct {
	app       core.App
	hooksDir  string
	modules   *require.Registry
	templates *template.Registry
	free      chan *goja.Runtime
}

const storeKeyRuntimes = "groundwork.javascript.runtimes"

func runtimesOf(app core.App, hooksDir string) *runtimes {
	return app.Store().GetOrSet(storeKeyRuntimes, func() any {
		return &runtimes{app: app, hooksDir: hooksDir, modules: new(require.Registry), templates: template.NewRegistry(), free: make(chan *goja.Runtime, keptRuntimes)}
	}).(*runtimes)
}

// take returns a runtime with everything that PocketBase's have.
func (r *runtimes) take() *goja.Runtime {
	select {
	case vm := <-r.free:
		return vm
	default:
	}
	vm := goja.New()
	vm.SetMaxCallStackSize(maxCallStack)
	r.modules.Enable(vm)
	console.Enable(vm)
	process.Enable(vm)
	buffer.Enable(vm)
	for _, bind := range []func(*goja.Runtime){jsvm.BindCore, jsvm.BindDbx, jsvm.BindSecurity, jsvm.BindOS, jsvm.BindFilepath, jsvm.BindHTTP,
		jsvm.BindFilesystem, jsvm.BindForms, jsvm.BindMails, jsvm.BindApis} {
		bind(vm)
	}
	for name, value := range map[string]any{"$app": r.app, "$template": r.templates, "__hooks": r.hooksDir} {
		if err := vm.Set(name, value); err != nil {
			panic(err) // constant names
		}
	}
	Init(r.app)(vm)
	return vm
}

func (r *runtimes) giveBack(vm *goja.Runtime) {
	select {
	case r.free <- vm:
	default:
	}
}

// run works one job. When ctx ends the script is stopped where it is.
func (r *runtimes) run(ctx context.Context, program *goja.Program, kind string, job *jobs.Job[jobs.Raw]) (any, error) {
	vm := r.take()
	stop := context.AfterFunc(ctx, func() { vm.Interrupt("the job's time is up") })
	result, err := r.call(vm, program, kind, job)
	if !stop() {
		return nil, ctx.Err() // and the runtime, which may yet be interrupted, is not used again
	}
	r.giveBack(vm)
	return result, err
}

func (r *runtimes) call(vm *goja.Runtime, program *goja.Program, kind string, job *jobs.Job[jobs.Raw]) (any, error) {
	args := any(map[string]any{})
	if len(job.Args) > 0 {
		if err := json.Unmarshal(job.Args, &args); err != nil {
			return nil, jobs.Cancel(fmt.Errorf("read what the job was given: %w", err))
		}
	}
	v, err := vm.RunProgram(program)
	if err != nil {
		return nil, plainError(err)
	}
	handler, ok := goja.AssertFunction(v)
	if !ok {
		return nil, jobs.Cancel(fmt.Errorf("the handler of the kind %q is no function", kind))
	}
	v, err = handler(goja.Undefined(), vm.ToValue(map[string]any{
		"id": job.ID, "kind": kind, "args": args, "queue": job.Queue, "attempt": job.Attempt, "maxAttempts": job.MaxAttempts, "requestId": job.RequestID,
		"cancel": func(reason string) error { return jobs.Cancel(errors.New(reason)) },
		"snooze": snooze,
	}))
	if err != nil {
		return nil, plainError(err)
	}
	return resultOf(vm, v)
}

// longestSnooze is far beyond what anybody waits for, and well within what a
// [time.Duration] can be: what overflows it would be no time at all.
const longestSnooze = 100 * 365 * 24 * time.Hour

// snooze asks for another call. A snooze counts no attempt: one of no time would go
// round for ever, and so it is a second at least.
func snooze(given goja.Value) error {
	seconds := math.NaN()
	if given != nil && !goja.IsNull(given) {
		seconds = given.ToFloat()
	}
	if math.IsNaN(seconds) || seconds < 0 {
		return errors.New("job.snooze(seconds) needs the number of seconds after which the job is called again")
	}
	wait := longestSnooze
	if seconds < longestSnooze.Seconds() {
		wait = time.Duration(seconds * float64(time.Second))
	}
	return jobs.Snooze(max(wait, time.Second))
}

// resultOf is what a handler returned, or what the promise of an async one came to.
func resultOf(vm *goja.Runtime, v goja.Value) (any, error) {
	result := v.Export()
	promise, ok := result.(*goja.Promise)
	if !ok {
		if err, ok := result.(error); ok {
			return nil, err
		}
		return result, nil
	}
	switch promise.State() {
	case goja.PromiseStateFulfilled:
		return resultOf(vm, promise.Result())
	case goja.PromiseStateRejected:
		if err, ok := promise.Result().Export().(error); ok {
			return nil, err
		}
		return nil, errors.New(promise.Result().String())
	default:
		return nil, errors.New("the handler waits for a promise that nothing here fulfils: call what it needs directly")
	}
}

// plainError is what a script threw, without the places in runtime code. An error of
// Go stays what it is: jobs.Cancel and jobs.Snooze are such.
func plainError(err error) error {
	var deep *goja.StackOverflowError
	if errors.As(err, &deep) {
		return errors.New("a function calls itself without end: the stack is full")
	}
	var exception *goja.Exception
	if !errors.As(err, &exception) {
		return err
	}
	if inner := exception.Unwrap(); inner != nil {
		return inner
	}
	if object, ok := exception.Value().Export().(map[string]any); ok {
		if inner, ok := object["value"].(error); ok {
			return inner
		}
	}
	text := exception.Value().String()
	if at := exception.Stack(); len(at) > 0 {
		return fmt.Errorf("%s (line %d of the handler)", text, at[0].Position().Line)
	}
	return errors.New(text)
}
