package notifications

import (
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// lane is what an adapter of its own is made for: a row, and for Apple one of
// its two environments, which are different servers that know different tokens.
// What goes to workers (far) has an adapter and a gate beside those of this process;
// the rate is one for both.
type lane struct {
	row, environment string
	far              bool
}

// liveProvider is an adapter that was made for one configuration of a row.
type liveProvider struct {
	ActiveProvider
	lane    lane
	print   [sha256.Size]byte
	updated string
	secret  string
	share   string // where far
}

// activate returns the live adapter of a row, making it when there is none for
// its present configuration.
func (p *Providers) activate(app core.App, row *providerRow, route Route, far bool) (*ActiveProvider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("the providers are closed: the server is shutting down")
	}
	print, err := p.print(app, row)
	if err != nil {
		return nil, &PausedError{ProviderID: row.id, Reason: row.sentence(err.Error())}
	}
	key := lane{row: row.id, far: far}
	if row.channel == ProviderAPNs {
		key.environment = orElse(route.Environment, row.settings().environment())
	}
	live := p.live[key]
	// Another goroutine may have read a later version of the row meanwhile.
	if live == nil || live.print != print && live.updated <= row.updated {
		next, err := p.build(app, row, key, print)
		if err != nil {
			return nil, &PausedError{ProviderID: row.id, Reason: row.sentence(err.Error())}
		}
		if live != nil {
			p.retireLocked(live, ErrProviderChanged)
		}
		p.live[key] = next
		live = next
	}
	active := live.ActiveProvider
	active.Name = row.name
	return &active, nil
}

// build makes the adapter of a row. The error is one sentence.
func (p *Providers) build(app core.App, row *providerRow, key lane, print [sha256.Size]byte) (*liveProvider, error) {
	cfg, err := p.config(app, row)
	if err != nil {
		return nil, err
	}
	if key.environment != "" {
		cfg.Config = maps.Clone(cfg.Config)
		cfg.Config["environment"] = key.environment
	}
	adapter, err := p.make(cfg)
	if err != nil {
		return nil, err
	}
	share := ""
	if key.far {
		share = ShareKey(cfg)
		if adapter = p.remote.far(adapter, cfg, key.environment); !fits(adapter, cfg.Channel) {
			return nil, plainError("This version has the wrong kind of sender on the channel " + string(cfg.Channel) + ": nothing goes out through it.")
		}
	}
	gate := gateFor(adapter, p.paceLocked(key, print, cfg.RatePerSecond))
	return &liveProvider{
		ActiveProvider: ActiveProvider{ID: row.id, Name: row.name, Channel: row.channel, Adapter: adapter,
			RatePerSecond: cfg.RatePerSecond, Gate: gate, far: key.far},
		lane: key, print: print, updated: row.updated, secret: cfg.Secret, share: share,
	}, nil
}

// gateFor makes the gate of an adapter.
func gateFor(adapter Adapter, pace *pace) *Gate {
	var limits Limits
	if l, ok := adapter.(Limiter); ok {
		limits = l.Limits()
	}
	gate := newGate(limits, 0)
	gate.pace = pace
	if teller, ok := adapter.(CapacityTeller); ok {
		teller.OnCapacity(gate.setCapacity)
	}
	return gate
}

// paceLocked is the pace of a lane: that of its twin, whose messages go another way to
// the same provider, if there is one. The caller holds mu.
func (p *Providers) paceLocked(key lane, print [sha256.Size]byte, ratePerSecond float64) *pace {
	twin := key
	twin.far = !key.far
	if live := p.live[twin]; live != nil && live.print == print {
		return live.Gate.pace
	}
	return newPace(ratePerSecond)
}

// make calls the factory. The error is one sentence without the secret.
func (p *Providers) make(cfg ProviderConfig) (Adapter, error) {
	factory := p.opts.Factories[cfg.Channel]
	if factory == nil {
		return nil, plainError("This version cannot send on the channel " + string(cfg.Channel) + " yet.")
	}
	adapter, err := factory(cfg)
	if err != nil {
		return nil, plainError(scrub(err.Error(), cfg.Secret))
	}
	if !fits(adapter, cfg.Channel) {
		return nil, plainError("This version has the wrong kind of sender on the channel " + string(cfg.Channel) + ": nothing goes out through it.")
	}
	return adapter, nil
}

// retireGone drops the adapters whose rows were deleted or switched off.
func (p *Providers) retireGone(rows []*providerRow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, live := range p.live {
		if !slices.ContainsFunc(rows, func(r *providerRow) bool { return r.id == key.row && r.enabled }) {
			p.retireLocked(live, ErrProviderChanged)
		}
	}
}

// Refresh lets go of adapters whose rows have changed, so that those who wait
// at their gates ask again. Call it after a row was saved or deleted.
func (p *Providers) Refresh(app core.App) error {
	rows, err := p.rows(app)
	if err != nil {
		return err
	}
	p.retireGone(rows)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, row := range rows {
		for _, live := range p.liveOf(row.id) {
			if print, err := p.print(app, row); err != nil || print != live.print {
				p.retireLocked(live, ErrProviderChanged)
			}
		}
	}
	return nil
}

func (p *Providers) retire(id string, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, live := range p.liveOf(id) {
		p.retireLocked(live, why)
	}
}

// crowded says whether enough batches wait at the gate of a channel's provider to
// keep it busy.
func (p *Providers) crowded(ch ProviderChannel) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, live := range p.live {
		if live.Channel == ch && live.Gate.crowded() {
			return true
		}
	}
	return false
}

// liveOf returns the live adapters of a row. The caller holds mu.
func (p *Providers) liveOf(id string) []*liveProvider {
	var all []*liveProvider
	for key, live := range p.live {
		if key.row == id {
			all = append(all, live)
		}
	}
	return all
}

// retireLocked turns new messages away from an adapter and closes it once those
// in flight have their answer: cutting them off would leave them "not known
// whether sent". The caller holds mu.
func (p *Providers) retireLocked(live *liveProvider, why error) {
	if p.live[live.lane] == live {
		delete(p.live, live.lane)
	}
	since := time.Now().Add(-staleComplaint)
	p.replaced[live.ID] = append(slices.DeleteFunc(p.replaced[live.ID], func(g *Gate) bool { return g.idle() && !g.saidConfigBad(since) }), live.Gate)
	live.Gate.close(why, func() {
		c, ok := live.Adapter.(Closer)
		if !ok {
			return
		}
		// By itself: a goodbye over the network may take its time, and everybody who
		// sends needs mu, or the transaction that this is called in.
		p.goodbyes.Go(func() {
			if err := c.Close(); err != nil {
				p.log.Debug("provider closed with an error", "provider", live.ID, "error", scrub(err.Error(), live.secret))
			}
		})
	})
}

// Close lets go of all adapters, and returns when they are closed. Call it after the
// last job has ended.
func (p *Providers) Close() {
	p.mu.Lock()
	p.closed = true
	for _, live := range p.live {
		p.retireLocked(live, errors.New("the server is shutting down"))
	}
	p.mu.Unlock()
	p.goodbyes.Wait()
}
