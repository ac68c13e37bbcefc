package javascript

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dop251/goja"
	"github.com/pocketbase/pocketbase/core"
	dates "github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/schedules"
)

// ownKinds are what the kinds of Groundwork's own jobs begin with: scripts neither
// work nor enqueue those.
var ownKinds = []string{"account.", "groundwork.", "notification.", "provider.", "schedule.", "sms."}

// jobsBridge is $jobs in one runtime.
type jobsBridge struct {
	app core.App
	vm  *goja.Runtime
}

// on registers handler, the source of a function, for a kind of job. It is called
// while the files of pb_hooks are read.
func (b *jobsBridge) on(kind string, handler goja.Value) error {
	if err := checkKind(kind); err != nil {
		return err
	}
	if b.vm.Get("routerAdd") == nil {
		return fmt.Errorf("$jobs.on(%q) belongs at the top level of a file in pb_hooks, not inside a function or a migration", kind)
	}
	if _, ok := goja.AssertFunction(handler); !ok {
		return fmt.Errorf("$jobs.on(%q) needs a function that takes the job", kind)
	}
	// As with PocketBase's hooks, the function runs elsewhere than where it was
	// written: only its text goes there.
	program, err := compile(kind, handler.String())
	if err != nil {
		return fmt.Errorf("the function for jobs of the kind %q cannot be read: %w", kind, err)
	}
	hooksDir := ""
	if v := b.vm.Get("__hooks"); v != nil {
		hooksDir = v.String()
	}
	pool := runtimesOf(b.app, hooksDir)
	workers := jobs.WorkersOf(b.app)
	if workers.Has(kind) {
		return fmt.Errorf("two functions are registered for jobs of the kind %q: keep one", kind)
	}
	jobs.AddFunc(workers, kind, func(ctx context.Context, job *jobs.Job[jobs.Raw]) (any, error) {
		return pool.run(ctx, program, kind, job)
	})
	// A schedule with the action handler may name it, too.
	schedules.HandleIn(b.app, kind, func(ctx context.Context, _ core.App, args json.RawMessage) (string, error) {
		if string(args) == "null" {
			args = nil // as of a job that was given nothing
		}
		result, err := pool.run(ctx, program, kind, &jobs.Job[jobs.Raw]{Args: jobs.Raw(args), Queue: jobs.QueueMaintenance, Attempt: 1, MaxAttempts: 1})
		if err != nil || result == nil {
			return "", err
		}
		if text, ok := result.(string); ok {
			return text, nil
		}
		raw, err := json.Marshal(result)
		return string(raw), err
	})
	return nil
}

// compile reads the text of a function. That of an arrow function lacks the
// parentheses that its expression ends with, such as of (job) => ({a: 1}).
func compile(kind, text string) (program *goja.Program, err error) {
	for closing := range 4 {
		var failed error
		if program, failed = goja.Compile("$jobs.on("+kind+")", "("+text+strings.Repeat(")", closing)+")", true); failed == nil {
			return program, nil
		}
		if err == nil {
			err = failed
		}
	}
	return nil, err
}

// enqueue stores a job, in the transaction of the app that is given, if any, and
// returns its id.
func (b *jobsBridge) enqueue(kind string, args any, options goja.Value, apps ...core.App) (string, error) {
	if err := checkKind(kind); err != nil {
		return "", err
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return "", fmt.Errorf("what a job of the kind %q is given cannot be written as JSON: %w", kind, err)
	}
	given, err := b.optionsOf(options)
	if err != nil {
		return "", fmt.Errorf("$jobs.enqueue(%q): %w", kind, err)
	}
	o, err := jobOptions(given)
	if err != nil {
		return "", fmt.Errorf("$jobs.enqueue(%q): %w", kind, err)
	}
	app := b.app
	if len(apps) > 0 && apps[0] != nil {
		app = apps[0]
	}
	return jobs.Enqueue(app, jobs.Named(kind, raw), o)
}

// optionsOf are the options as Go has them. A Date that is none becomes nothing there,
// and nothing means at once.
func (b *jobsBridge) optionsOf(options goja.Value) (map[string]any, error) {
	if options == nil || goja.IsNull(options) || goja.IsUndefined(options) {
		return nil, nil
	}
	var given map[string]any
	if err := b.vm.ExportTo(options, &given); err != nil {
		return nil, errors.New("the options are an object, such as {queue: \"bulk\"}")
	}
	at := options.ToObject(b.vm).Get("runAt")
	if at != nil && !goja.IsNull(at) && !goja.IsUndefined(at) && given["runAt"] == nil {
		return nil, errNoTime
	}
	return given, nil
}

var errNoTime = errors.New("runAt is no time: give a Date, or a text such as \"2027-01-31 09:00:00Z\"")

func checkKind(kind string) error {
	if kind == "" {
		return errors.New("a job needs a kind: a short name such as \"photos.resize\"")
	}
	for _, own := range ownKinds {
		if strings.HasPrefix(kind, own) {
			return fmt.Errorf("kinds that begin with %q are Groundwork's own: call yours something else than %q", own, kind)
		}
	}
	return nil
}

var optionNames = []string{"maxAttempts", "owner", "priority", "queue", "runAt", "uniqueKey"}

func jobOptions(options map[string]any) (o jobs.Options, err error) {
	if _, isApp := options["runInTransaction"]; isApp {
		return o, errors.New("the app comes after the options: $jobs.enqueue(kind, args, {}, app)")
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		value := options[name]
		if value == nil {
			continue
		}
		var ok bool
		switch name {
		case "queue":
			o.Queue, ok = value.(string)
			ok = ok && slices.Contains([]string{jobs.QueueCritical, jobs.QueueDefault, jobs.QueueBulk, jobs.QueueMaintenance}, o.Queue)
			if !ok {
				return o, fmt.Errorf("there is no queue %q: use critical, default, bulk or maintenance", fmt.Sprint(value))
			}
		case "runAt":
			if o.RunAt, ok = timeOf(value); !ok {
				return o, errNoTime
			}
		case "uniqueKey":
			if o.UniqueKey, ok = value.(string); !ok {
				return o, errors.New("uniqueKey is not a text")
			}
		case "priority":
			if o.Priority, ok = whole(value, 1, 4); !ok {
				return o, errors.New("priority is a whole number from 1 (first) to 4 (last)")
			}
		case "maxAttempts":
			if o.MaxAttempts, ok = whole(value, 1, 1000); !ok {
				return o, errors.New("maxAttempts is a whole number from 1 to 1000")
			}
		case "owner":
			record, ok := value.(*core.Record)
			if !ok {
				return o, errors.New("owner is the record of the person who may read the result, such as e.auth")
			}
			o.Owner = record.Collection().Id + "/" + record.Id
		default:
			return o, fmt.Errorf("there is no option %q; there are %s", name, strings.Join(optionNames, ", "))
		}
	}
	return o, nil
}

func whole(value any, least, most int64) (int, bool) {
	n, ok := value.(int64)
	if f, decoded := value.(float64); decoded { // out of a request's JSON
		n, ok = int64(f), f == math.Trunc(f)
	}
	return int(n), ok && n >= least && n <= most
}

func timeOf(value any) (time.Time, bool) {
	if s, ok := value.(string); ok && s == "" {
		return time.Time{}, false
	}
	at, err := dates.ParseDateTime(value)
	return at.Time(), err == nil && !at.IsZero()
}
