package notifications

import (
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"time"

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
