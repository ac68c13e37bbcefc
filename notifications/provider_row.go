package notifications

import (
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/pocketbase/pocketbase/core"
)

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
