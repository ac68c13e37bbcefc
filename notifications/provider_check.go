package notifications

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// checkTimeout is how long a provider may take to prove its configuration.
const checkTimeout = 30 * time.Second

// CheckArgs asks for one check of a provider.
type CheckArgs struct {
	Provider string `json:"provider"`

	// Asked is true when the owner asked for it: then a provider is checked
	// although it is switched off.
	Asked bool `json:"asked,omitempty"`
}

// Kind implements [jobs.Args].
func (CheckArgs) Kind() string { return "provider.check" }

// RecheckArgs asks for checks of a provider that does not work, until it does
// or somebody changes it.
type RecheckArgs struct {
	Provider string `json:"provider"`

	// Updated is the row's "updated" when this began. Whatever changes the row
	// sees to its own checks, so this one ends.
	Updated string `json:"updated"`
}

// Kind implements [jobs.Args].
func (RecheckArgs) Kind() string { return "provider.recheck" }

// ResumedArgs says that what waits for a channel can go out. It is a job so
// that a crash right after a repair leaves nothing waiting for ever.
type ResumedArgs struct {
	Channel ProviderChannel `json:"channel"`
}

// Kind implements [jobs.Args].
func (ResumedArgs) Kind() string { return "provider.resumed" }

// AddWorkers registers the kinds of jobs that the registry works.
func (p *Providers) AddWorkers(w *jobs.Workers) {
	jobs.AddWorker(w, checkWorker{p})
	jobs.AddWorker(w, recheckWorker{p})
	jobs.AddWorker(w, resumedWorker{p})
}

// enqueueCheck asks for a check right after the transaction. Two saves in a row
// make two checks: one that began before the second save knows nothing of it.
func (p *Providers) enqueueCheck(txApp core.App, id string, asked bool) error {
	_, err := p.opts.Enqueue(txApp, CheckArgs{Provider: id, Asked: asked}, jobs.Options{Queue: jobs.QueueDefault})
	return err
}

func (p *Providers) enqueueRecheck(txApp core.App, row *providerRow) error {
	_, err := p.opts.Enqueue(txApp, RecheckArgs{Provider: row.id, Updated: row.updated}, jobs.Options{
		Queue: jobs.QueueMaintenance, RunAt: time.Now().Add(p.recheckWait(row.state, 0)), UniqueKey: row.id + " " + row.updated})
	return err
}

// enqueueResumed tells about every channel that waits for a row.
func (p *Providers) enqueueResumed(txApp core.App, row *providerRow, at time.Time) error {
	rows, err := p.rows(txApp)
	if err != nil {
		return err
	}
	for _, ch := range servedBy(rows, row.channel) {
		if _, err := p.opts.Enqueue(txApp, ResumedArgs{ch}, jobs.Options{Queue: jobs.QueueDefault, RunAt: at}); err != nil {
			return err
		}
	}
	return nil
}

// recheckWait is the wait before the next check of a provider that has not
// worked for age. Trouble that may pass by itself is looked at sooner.
func (p *Providers) recheckWait(state ProviderState, age time.Duration) time.Duration {
	first := p.opts.RecheckAfter
	if state == ProviderFailing {
		first /= 15
	}
	return min(max(age/2, first), p.opts.RecheckMax)
}

type checkWorker struct{ p *Providers }

// Timeout implements [jobs.Timeouter].
func (checkWorker) Timeout() time.Duration { return checkTimeout + 30*time.Second }

// Work implements [jobs.Worker].
func (w checkWorker) Work(ctx context.Context, job *jobs.Job[CheckArgs]) error {
	row, err := w.p.row(w.p.app, job.Args.Provider)
	if err != nil {
		return err
	}
	if row == nil || !row.enabled && !job.Args.Asked {
		return nil
	}
	return w.p.check(ctx, row)
}

type recheckWorker struct{ p *Providers }

// Timeout implements [jobs.Timeouter].
func (recheckWorker) Timeout() time.Duration { return checkTimeout + 30*time.Second }

// Work implements [jobs.Worker].
func (w recheckWorker) Work(ctx context.Context, job *jobs.Job[RecheckArgs]) error {
	current := func() (*providerRow, error) {
		row, err := w.p.row(w.p.app, job.Args.Provider)
		if err != nil || row == nil || !row.enabled || row.updated != job.Args.Updated {
			return nil, err
		}
		if row.state != ProviderPaused && row.state != ProviderFailing {
			return nil, nil
		}
		return row, nil
	}
	row, err := current()
	if row == nil || err != nil {
		return err
	}
	if err := w.p.check(ctx, row); err != nil {
		return err
	}
	// A state that has changed is followed by a job of its own.
	if row, err = current(); row == nil || err != nil {
		return err
	}
	return jobs.Snooze(w.p.recheckWait(row.state, time.Since(job.EnqueuedAt)))
}

type resumedWorker struct{ p *Providers }

// Timeout implements [jobs.Timeouter].
func (resumedWorker) Timeout() time.Duration { return -1 }

// Work implements [jobs.Worker].
func (w resumedWorker) Work(ctx context.Context, job *jobs.Job[ResumedArgs]) error {
	w.p.mu.Lock()
	listeners := slices.Clone(w.p.onResume)
	w.p.mu.Unlock()
	var failed error
	for _, fn := range listeners {
		failed = errors.Join(failed, fn(w.p.app, job.Args.Channel))
	}
	return failed
}

// check proves a row's configuration, over the network and outside any
// transaction, and stores what came of it.
func (p *Providers) check(ctx context.Context, row *providerRow) error {
	print, err := p.print(p.app, row)
	if err != nil {
		return p.settle(row, nil, verdict(err))
	}
	cfg, err := p.config(p.app, row)
	if err != nil {
		return p.settle(row, &print, verdict(err))
	}
	outcome := p.try(ctx, cfg)
	if outcome.Kind == Accepted {
		outcome = p.unlessNobody(ctx, cfg)
	}
	if err := ctx.Err(); err != nil {
		return err // the shutdown cut it off: that says nothing about the provider
	}
	outcome.Explanation = scrub(outcome.Explanation, cfg.Secret)
	return p.settle(row, &print, outcome)
}

// checkHere checks a provider that nobody has to be asked about: its adapter can be
// made, or it says why not. No job is made of it, so that nothing is written after
// a start that changes nothing.
func (p *Providers) checkHere(txApp core.App, row *providerRow) error {
	cfg, err := p.config(txApp, row)
	if err == nil {
		var adapter Adapter
		if adapter, err = p.make(cfg); err == nil {
			if c, ok := adapter.(Closer); ok {
				_ = c.Close() // nothing was sent
			}
		}
	}
	if err != nil {
		return p.setState(txApp, row, ProviderPaused, row.sentence(err.Error()))
	}
	before := row.state
	if err := p.setState(txApp, row, ProviderOK, ""); err != nil || before == ProviderOK || before == "" {
		return err
	}
	return p.enqueueResumed(txApp, row, time.Time{})
}

// verdict is the outcome of a configuration that could not even be read.
func verdict(err error) Outcome {
	if errors.Is(err, errSecretClosed) {
		// The key is wrong, not the provider: with the former key it works again.
		return Outcome{Kind: Retry, Explanation: err.Error()}
	}
	return Outcome{Kind: ConfigBad, Explanation: err.Error()}
}

// try makes an adapter of its own for the check, so that neither the gate nor
// the connections of the live one matter.
func (p *Providers) try(ctx context.Context, cfg ProviderConfig) (outcome Outcome) {
	defer func() {
		if r := recover(); r != nil {
			p.log.Error("provider panicked in its check", "provider", cfg.ID, "panic", scrub(fmt.Sprint(r), cfg.Secret), "stack", string(debug.Stack()))
			outcome = Outcome{Kind: Retry, Explanation: "The check failed because of a mistake in this program; the log has the details."}
		}
	}()
	adapter, err := p.make(cfg)
	if err != nil {
		return Outcome{Kind: ConfigBad, Explanation: err.Error()}
	}
	if c, ok := adapter.(Closer); ok {
		defer func() { _ = c.Close() }()
	}
	checker, ok := adapter.(Checker)
	if !ok {
		return Outcome{Kind: Accepted}
	}
	checkCtx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return checker.Check(checkCtx)
}

// settle stores the result of a check of checked, unless its configuration has
// changed meanwhile: then another check is on its way.
func (p *Providers) settle(checked *providerRow, print *[32]byte, outcome Outcome) error {
	err := p.app.RunInTransaction(func(txApp core.App) error {
		row, err := p.row(txApp, checked.id)
		if row == nil || err != nil {
			return err
		}
		now, err := p.print(txApp, row)
		if print != nil && (err != nil || now != *print) {
			return nil
		}
		switch outcome.Kind {
		case Accepted:
			before := row.state
			if err := p.setState(txApp, row, ProviderOK, ""); err != nil {
				return err
			}
			if before != ProviderOK && row.enabled {
				return p.enqueueResumed(txApp, row, time.Time{})
			}
			return nil
		case Retry, Ambiguous:
			if row.state == ProviderPaused {
				// Not reaching the server now does not make its setup right.
				return p.setState(txApp, row, ProviderPaused, row.reason)
			}
			return p.setState(txApp, row, ProviderFailing, row.sentence(cmp.Or(outcome.Explanation, "The provider cannot be reached at the moment.")))
		default:
			return p.setState(txApp, row, ProviderPaused, row.sentence(cmp.Or(outcome.Explanation, "The provider refuses its configuration.")))
		}
	})
	if err != nil {
		return fmt.Errorf("store check of provider %s: %w", checked.id, err)
	}
	return p.Refresh(p.app)
}
