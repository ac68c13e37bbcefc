package notifications

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// Where the settings of a provider come from ([ProviderConfig.Source]).
const (
	SourceDashboard   = "dashboard"   // a row that somebody made
	SourceEnvironment = "environment" // environment variables; wins over the dashboard
	SourceSettings    = "settings"    // PocketBase's Settings > Mail settings
)

// ProviderState says whether a provider works. The empty one means that nobody
// has tried yet.
type ProviderState string

// States of a provider.
const (
	ProviderOK      ProviderState = "ok"
	ProviderPaused  ProviderState = "paused"  // its setup is wrong: what is pending waits until that is put right
	ProviderFailing ProviderState = "failing" // trouble that may pass by itself; messages are tried again
)

// ErrNoProvider means that nothing is set up to send on a channel.
var ErrNoProvider = errors.New("nothing is set up to send on this channel")

// PausedError means that the provider which serves a channel is paused. What is
// pending stays pending; [Providers.OnResume] tells when to ask again.
type PausedError struct {
	ProviderID string

	// Reason is one plain sentence for the owner.
	Reason string
}

// Error is the reason.
func (e *PausedError) Error() string { return e.Reason }

// plainError is a sentence that ends up before the owner as it is.
type plainError string

func (e plainError) Error() string { return string(e) }

// SecretBox seals and opens what is stored encrypted.
type SecretBox interface {
	Seal(purpose string, plaintext []byte) ([]byte, error)
	Open(purpose string, sealed []byte) ([]byte, error)
}

// ProvidersOptions configure [Providers].
type ProvidersOptions struct {
	App core.App

	// Factories make the adapters. A channel without one can be set up, but
	// says that this version cannot send on it.
	Factories map[ProviderChannel]ProviderFactory

	// Box seals and opens the secrets of rows that were made in the dashboard.
	Box SecretBox

	// Environment are the providers set by environment variables, at most one
	// per channel. Their secrets are never stored.
	Environment []ProviderConfig

	// PublicURL returns the address under which the world reaches this server;
	// see [ProviderConfig.PublicURL]. Nil means that nobody can.
	PublicURL func() string

	// Enqueue adds a job in the transaction of app; nil means [jobs.Enqueue].
	Enqueue func(app core.App, args jobs.Args, o jobs.Options) (string, error)

	// RecheckAfter is how long after a pause the provider is checked again. The
	// waits grow to RecheckMax. Zero means 15 minutes, and an hour.
	RecheckAfter time.Duration
	RecheckMax   time.Duration

	Log *slog.Logger
}

// Providers resolves which provider serves a channel and keeps the live
// adapters, one per row, rebuilt when the row changes. What it decides on is
// read from the database each time, so that several processes on one folder
// agree. It is safe for concurrent use.
type Providers struct {
	opts ProvidersOptions
	app  core.App
	log  *slog.Logger

	envMu       sync.RWMutex
	environment map[string]ProviderConfig // by row id

	mu       sync.Mutex
	remote   *Remote // nil: everything is sent from here
	live     map[lane]*liveProvider
	replaced map[string][]*Gate // gates of earlier configurations, by row id
	onResume []func(core.App, ProviderChannel) error
	settings [sha256.Size]byte // of the mail settings that were followed last
	closed   bool

	goodbyes sync.WaitGroup // adapters that are being closed
}

// ActiveProvider is the provider that serves a channel at the moment. Every
// message goes through its gate; one that was changed meanwhile lets nobody
// through any more ([ErrProviderChanged]).
type ActiveProvider struct {
	ID, Name string

	// Channel is the provider's own: promotional e-mail may go by an
	// email_transactional provider.
	Channel ProviderChannel

	Adapter       Adapter
	RatePerSecond float64
	Gate          *Gate

	far bool // workers on other machines hand over
}

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

// NewProviders returns a registry. It does nothing until it is asked.
func NewProviders(opts ProvidersOptions) *Providers {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Enqueue == nil {
		opts.Enqueue = jobs.Enqueue
	}
	if opts.RecheckAfter <= 0 {
		opts.RecheckAfter = 15 * time.Minute
	}
	if opts.RecheckMax <= 0 {
		opts.RecheckMax = time.Hour
	}
	p := &Providers{opts: opts, app: opts.App, log: opts.Log, environment: map[string]ProviderConfig{},
		live: map[lane]*liveProvider{}, replaced: map[string][]*Gate{}}
	for _, cfg := range opts.Environment {
		p.SetEnvironment(cfg)
	}
	return p
}

// Route is what decides which provider a message goes by.
type Route struct {
	Channel ProviderChannel

	// App is the bundle or package id of a push target; empty means the
	// provider's own.
	App string

	// Environment is production or sandbox, for APNs only; empty means the
	// provider's own.
	Environment string
}

// Active returns the provider that serves a route now: the enabled environment
// row; else the enabled dashboard row that was made last; else, for
// transactional e-mail, PocketBase's own mail settings. Promotional e-mail goes
// by the transactional provider as long as there is no row for it, enabled or
// not. Otherwise no channel stands in for another.
//
// For push a row that names the route's app comes before all others, and one
// that names another app does not serve it, unless it holds an APNs key: that
// is good for all apps of a team.
//
// Errors: [ErrNoProvider], and [*PausedError] when the one that serves is paused
// or cannot be used. The next in line does not step in for a paused one: it was
// not chosen to send these messages.
func (p *Providers) Active(app core.App, route Route) (*ActiveProvider, error) {
	return p.active(app, route, "")
}

// activeAnywhere is [Providers.Active] for the messages of a queue, which a worker on
// another machine may hand over. Besides Active's errors there are [*nobodyError] and
// errShuttingDown.
func (p *Providers) activeAnywhere(app core.App, route Route, queue string) (*ActiveProvider, error) {
	return p.active(app, route, queue)
}

func (p *Providers) active(app core.App, route Route, queue string) (*ActiveProvider, error) {
	rows, err := p.rows(app)
	if err != nil {
		return nil, err
	}
	p.retireGone(rows)
	row := choose(rows, route)
	if row == nil {
		return nil, ErrNoProvider
	}
	if row.state == ProviderPaused {
		paused := &PausedError{ProviderID: row.id, Reason: orSentence(row.reason)}
		p.retire(row.id, paused)
		return nil, paused
	}
	if other := sameSender(rows, row); other != nil {
		return nil, &PausedError{ProviderID: row.id, Reason: sameSenderSentence(row.senderID, other)}
	}
	far := false
	if queue != "" {
		if far, err = p.elsewhere(app, row, queue); err != nil {
			return nil, err
		}
	}
	return p.activate(app, row, route, far)
}

// smsSenders reports whether the SMS channel ch has an enabled provider, and
// whether the other one has.
func (p *Providers) smsSenders(app core.App, ch ProviderChannel) (ours, other bool, err error) {
	rows, err := p.rows(app)
	if err != nil {
		return false, false, err
	}
	for _, row := range rows {
		if row.enabled && row.channel.Channel() == ChannelSMS {
			ours, other = ours || row.channel == ch, other || row.channel != ch
		}
	}
	return ours, other, nil
}

func orSentence(reason string) string {
	if reason == "" {
		return "The provider is paused."
	}
	return reason
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

// OnResume calls fn when what waits for a channel can go out: a paused provider
// works again, or another one has taken its place. fn runs in a background job,
// which is tried again when it fails, and may be called without anything waiting.
func (p *Providers) OnResume(fn func(app core.App, ch ProviderChannel) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onResume = append(p.onResume, fn)
}

// staleComplaint is how long after a provider was changed an answer to its
// former configuration may still come in.
const staleComplaint = 2 * time.Minute

// Pause stores that a provider's setup is wrong and why, in one sentence.
// Nothing goes out through it until a check finds it right again: when the row
// is saved, when the owner asks for it, or by itself at growing intervals.
//
// A complaint about a configuration that was changed meanwhile pauses nothing;
// what waits is asked for again.
func (p *Providers) Pause(app core.App, providerID, sentence string) error {
	var paused *PausedError
	err := app.RunInTransaction(func(txApp core.App) error {
		row, err := p.row(txApp, providerID)
		if row == nil || err != nil {
			return err
		}
		if row.state != ProviderPaused && p.complainsOfReplaced(txApp, row) {
			return p.enqueueResumed(txApp, row, time.Now().Add(resumeDelay))
		}
		paused = &PausedError{ProviderID: providerID, Reason: p.complaint(txApp, row, sentence)}
		return p.setState(txApp, row, ProviderPaused, paused.Reason)
	})
	if err != nil {
		return fmt.Errorf("pause provider %s: %w", providerID, err)
	}
	if paused != nil {
		p.retire(providerID, paused)
	}
	return nil
}

// resumeDelay lets the job that complained end before its messages are asked
// for again.
const resumeDelay = 5 * time.Second

// complainsOfReplaced reports whether "configuration bad" was said of an earlier
// configuration of the row and not of the present one.
func (p *Providers) complainsOfReplaced(app core.App, row *providerRow) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := time.Now().Add(-staleComplaint)
	for _, live := range p.liveOf(row.id) {
		if print, err := p.print(app, row); err != nil || print != live.print {
			p.retireLocked(live, ErrProviderChanged)
		} else if live.Gate.saidConfigBad(since) {
			return false
		}
	}
	return slices.ContainsFunc(p.replaced[row.id], func(g *Gate) bool { return g.saidConfigBad(since) })
}

// MarkOK stores that a provider works. It writes only when that is news, and
// does not end a pause: the message may have left before.
func (p *Providers) MarkOK(app core.App, providerID string) error {
	return p.mark(app, providerID, ProviderOK, "")
}

// MarkFailing stores trouble that may pass by itself, in one sentence for the
// owner. It pauses nothing and writes only when that is news.
func (p *Providers) MarkFailing(app core.App, providerID, sentence string) error {
	return p.mark(app, providerID, ProviderFailing, sentence)
}

func (p *Providers) mark(app core.App, providerID string, state ProviderState, sentence string) error {
	news := func(app core.App, row *providerRow) bool {
		return row != nil && row.state != ProviderPaused && (row.state != state || row.reason != p.complaint(app, row, sentence))
	}
	row, err := p.row(app, providerID)
	if err == nil && !news(app, row) {
		return nil // the usual case: no write
	}
	if err == nil {
		err = app.RunInTransaction(func(txApp core.App) error {
			row, err := p.row(txApp, providerID)
			if err != nil || !news(txApp, row) {
				return err
			}
			return p.setState(txApp, row, state, p.complaint(txApp, row, sentence))
		})
	}
	if err != nil {
		return fmt.Errorf("mark provider %s as %s: %w", providerID, state, err)
	}
	return nil
}

// setState stores a state; for one that is not ok it sees to it that the
// provider is checked again. Nothing is written when it is no news.
func (p *Providers) setState(txApp core.App, row *providerRow, state ProviderState, reason string) error {
	if row.state != state || row.reason != reason {
		row.record.Set("state", string(state))
		row.record.Set("stateReason", reason)
		row.record.IgnoreUnchangedFields(true)
		if err := txApp.SaveNoValidateWithContext(AsServer(context.Background()), row.record); err != nil {
			return err
		}
		level := slog.LevelInfo
		if state != ProviderOK {
			level = slog.LevelWarn
		}
		p.log.Log(context.Background(), level, "provider state changed", "provider", row.id, "channel", string(row.channel),
			"from", string(row.state), "to", string(state), "reason", reason)
		row.state, row.reason, row.updated = state, reason, row.record.GetString("updated")
	}
	if state == ProviderOK || !row.enabled {
		return nil
	}
	return p.enqueueRecheck(txApp, row)
}

// sentence makes a sentence of what went wrong, completes it with where to put
// it right, and keeps it to a length that can be read.
func (row *providerRow) sentence(sentence string) string {
	r := []rune(strings.TrimSpace(sentence))
	if len(r) == 0 {
		return ""
	}
	r[0] = unicode.ToUpper(r[0])
	const most = 1500
	switch end := r[len(r)-1]; {
	case len(r) > most:
		r = append(r[:most], '…')
	case !strings.ContainsRune(".!?…", end):
		r = append(r, '.')
	}
	sentence = string(r)
	hint := ""
	switch row.source {
	case SourceSettings:
		hint = "Change it in Settings > Mail settings."
	case SourceEnvironment:
		hint = "It is set by the environment variables " + environmentVariables(row.channel) + ": change them and restart."
	}
	if row.source == SourceEnvironment && row.channel == ProviderWebPush {
		hint = "Its keys were made by this server; WEBPUSH_SUBJECT and WEBPUSH_PRIVATE_HOSTS are read at the start."
	}
	if strings.HasPrefix(sentence, noWorker) || strings.HasPrefix(sentence, jobsUnreachable) {
		hint = "" // nothing is wrong with its variables
	}
	if hint == "" || strings.Contains(sentence, hint) {
		return sentence
	}
	return sentence + " " + hint
}

func environmentVariables(ch ProviderChannel) string {
	switch ch {
	case ProviderEmailTransactional:
		return "SMTP_…"
	case ProviderEmailPromotional:
		return "PROMOTIONAL_SMTP_…"
	case ProviderSMSTransactional, ProviderSMSPromotional:
		return "TWILIO_…"
	case ProviderAPNs:
		return "APNS_…"
	case ProviderFCM:
		return "FCM_…"
	case ProviderWebPush:
		return "WEBPUSH_…"
	default:
		return "of its channel"
	}
}

// complaint makes the sentence to store of what an adapter said about a row.
func (p *Providers) complaint(app core.App, row *providerRow, said string) string {
	if said == "" {
		return ""
	}
	cfg, _ := p.config(app, row) // only for its secret; none is there when it cannot be read
	return row.sentence(scrub(said, cfg.Secret))
}

// scrub takes a secret out of a text that came from elsewhere.
func scrub(text, secret string) string {
	if len(secret) < 4 { // "a" would make holes everywhere and is no secret
		return text
	}
	return strings.ReplaceAll(text, secret, "…")
}

// providerRow is a row of notification_providers.
type providerRow struct {
	record   *core.Record
	id, name string
	channel  ProviderChannel
	source   string
	config   string // JSON
	sealed   string
	senderID string
	enabled  bool
	rate     float64
	state    ProviderState
	reason   string
	created  string
	updated  string
}

func newProviderRow(r *core.Record) *providerRow {
	return &providerRow{
		record: r, id: r.Id, name: r.GetString("name"), channel: ProviderChannel(r.GetString("channel")),
		source: r.GetString("source"), config: r.GetString("config"), sealed: r.GetString("secret"),
		senderID: r.GetString("senderId"), enabled: r.GetBool("enabled"), rate: r.GetFloat("ratePerSecond"),
		state: ProviderState(r.GetString("state")), reason: r.GetString("stateReason"),
		created: r.GetString("created"), updated: r.GetString("updated"),
	}
}

// rows returns all rows; none as long as our tables do not exist.
func (p *Providers) rows(app core.App) ([]*providerRow, error) {
	if _, err := app.FindCachedCollectionByNameOrId(CollectionProviders); errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	records, err := app.FindAllRecords(CollectionProviders)
	if err != nil {
		return nil, fmt.Errorf("find providers: %w", err)
	}
	rows := make([]*providerRow, len(records))
	for i, r := range records {
		rows[i] = newProviderRow(r)
	}
	return rows, nil
}

// row returns a row, or nil when it is gone.
func (p *Providers) row(app core.App, id string) (*providerRow, error) {
	r, err := app.FindRecordById(CollectionProviders, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find provider %s: %w", id, err)
	}
	return newProviderRow(r), nil
}

// choose returns the row that serves a route, or nil.
func choose(rows []*providerRow, route Route) *providerRow {
	var best *providerRow
	bestFit, exists := 0, false
	for _, r := range rows {
		if r.channel != route.Channel {
			continue
		}
		exists = true
		fit := r.fit(route)
		if !r.enabled || fit == 0 {
			continue
		}
		if best == nil || fit > bestFit || fit == bestFit && before(r, best) {
			best, bestFit = r, fit
		}
	}
	if route.Channel == ProviderEmailPromotional && !exists {
		return choose(rows, Route{Channel: ProviderEmailTransactional})
	}
	return best
}

// fit says how well a row suits a route of its channel: 0 not at all, more is
// better.
func (row *providerRow) fit(route Route) int {
	if row.channel != ProviderAPNs && row.channel != ProviderFCM {
		return 1
	}
	config, fit := row.settings(), 1
	if named := config.BundleID + config.PackageName; named != "" && route.App != "" {
		switch {
		case named == route.App:
			fit += 2
		case row.channel == ProviderAPNs && config.KeyID != "":
		default:
			return 0
		}
	}
	if route.Environment != "" && config.environment() == route.Environment {
		fit++
	}
	return fit
}

// pushSettings are the parts of a push row's config that choose the row.
type pushSettings struct{ KeyID, BundleID, PackageName, Environment string }

func (s pushSettings) environment() string { return orElse(s.Environment, "production") }

func (row *providerRow) settings() (s pushSettings) {
	_ = json.Unmarshal([]byte(row.config), &s) // what cannot be read is told when the row is used
	return s
}

func before(a, b *providerRow) bool {
	rank := func(r *providerRow) int {
		return slices.Index([]string{SourceEnvironment, SourceDashboard, SourceSettings}, r.source)
	}
	switch {
	case rank(a) != rank(b):
		return rank(a) < rank(b)
	case a.created != b.created:
		return a.created > b.created
	default:
		return a.id > b.id
	}
}

// servedBy returns the channels that wait for a row of this channel.
func servedBy(rows []*providerRow, ch ProviderChannel) []ProviderChannel {
	if ch == ProviderEmailTransactional && !slices.ContainsFunc(rows, func(r *providerRow) bool { return r.channel == ProviderEmailPromotional }) {
		return []ProviderChannel{ch, ProviderEmailPromotional}
	}
	return []ProviderChannel{ch}
}

// config returns a row's settings with the secret opened. The error is one
// sentence.
func (p *Providers) config(app core.App, row *providerRow) (ProviderConfig, error) {
	switch row.source {
	case SourceEnvironment:
		cfg, ok := p.fromEnvironment(row.id)
		if !ok {
			return cfg, plainError("This provider was set by environment variables that this process does not have.")
		}
		cfg.Name = row.name
		cfg.PublicURL = p.publicURL(cfg.Channel)
		return cfg, nil
	case SourceSettings:
		cfg, ok, err := settingsProvider(app)
		if err == nil && !ok {
			err = plainError("SMTP is switched off in PocketBase's mail settings.")
		}
		return cfg, err
	}
	cfg := ProviderConfig{ID: row.id, Name: row.name, Channel: row.channel, Source: row.source,
		SenderID: row.senderID, RatePerSecond: row.rate, PublicURL: p.publicURL(row.channel), Config: map[string]any{}}
	if row.config != "" && row.config != "null" {
		if err := json.Unmarshal([]byte(row.config), &cfg.Config); err != nil {
			return cfg, plainError(`The config is not a JSON object such as {"host": "smtp.example.com"}.`)
		}
	}
	secret, err := openSecret(p.opts.Box, row.id, row.channel, row.sealed)
	if err != nil {
		return cfg, err
	}
	cfg.Secret = secret
	return cfg, nil
}

// publicURL is empty for the channels whose providers do not call back.
func (p *Providers) publicURL(ch ProviderChannel) string {
	if p.opts.PublicURL == nil || ch.Channel() != ChannelSMS {
		return ""
	}
	return p.opts.PublicURL()
}

// print tells one configuration of a row from another. The caller need not hold
// mu.
func (p *Providers) print(app core.App, row *providerRow) ([sha256.Size]byte, error) {
	var content any
	switch row.source {
	case SourceEnvironment, SourceSettings:
		cfg, err := p.config(app, row)
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		cfg.Name = ""
		content = cfg
	default:
		content = []any{row.channel, row.config, row.sealed, row.senderID, row.rate, p.publicURL(row.channel)}
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("encode configuration of provider %s: %w", row.id, err)
	}
	return sha256.Sum256(raw), nil
}
