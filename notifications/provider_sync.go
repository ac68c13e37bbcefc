package notifications

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// SettingsProviderID is the id of the row that stands for PocketBase's own mail
// settings.
const SettingsProviderID = "settingsmail000"

// EnvironmentProviderID is the id of the row that stands for a channel's
// environment variables. It never changes: deliveries name it.
func EnvironmentProviderID(ch ProviderChannel) string {
	id := "env" + strings.ReplaceAll(string(ch), "_", "") + strings.Repeat("0", core.DefaultIdLength)
	return id[:core.DefaultIdLength]
}

func environmentIDs() []string {
	channels := []ProviderChannel{ProviderAPNs, ProviderFCM, ProviderWebPush, ProviderEmailTransactional, ProviderEmailPromotional,
		ProviderSMSTransactional, ProviderSMSPromotional}
	ids := make([]string, len(channels))
	for i, ch := range channels {
		ids[i] = EnvironmentProviderID(ch)
	}
	return ids
}

// settingsProvider reads PocketBase's mail settings; ok is false when SMTP is
// switched off there.
func settingsProvider(app core.App) (cfg ProviderConfig, ok bool, err error) {
	settings, err := app.Settings().Clone() // another goroutine may be reloading them
	if err != nil {
		return cfg, false, fmt.Errorf("read mail settings: %w", err)
	}
	smtp, meta := settings.SMTP, settings.Meta
	// PocketBase's "no" means STARTTLS where the server offers it.
	tls := tlsOpportunistic
	if smtp.TLS {
		tls = "tls"
	}
	return ProviderConfig{
		ID: SettingsProviderID, Name: "PocketBase mail settings", Channel: ProviderEmailTransactional, Source: SourceSettings,
		Config: map[string]any{"host": smtp.Host, "port": smtp.Port, "username": smtp.Username, "tls": tls, "authMethod": smtp.AuthMethod,
			"localName": smtp.LocalName, "from": meta.SenderAddress, "fromName": meta.SenderName},
		Secret: smtp.Password, SenderID: meta.SenderAddress,
	}, smtp.Enabled, nil
}

// tlsOpportunistic is the value of "tls" for PocketBase's mail settings only.
const tlsOpportunistic = "opportunistic"

// SetEnvironment adds a provider that is set up by this process and not by a row,
// or replaces the one of its channel. Its row is brought up to date by
// [Providers.Start] or [Providers.EnvironmentChanged].
func (p *Providers) SetEnvironment(cfg ProviderConfig) {
	cfg.ID, cfg.Source = EnvironmentProviderID(cfg.Channel), SourceEnvironment
	p.envMu.Lock()
	defer p.envMu.Unlock()
	p.environment[cfg.ID] = cfg
}

func (p *Providers) fromEnvironment(id string) (ProviderConfig, bool) {
	p.envMu.RLock()
	defer p.envMu.RUnlock()
	cfg, ok := p.environment[id]
	return cfg, ok
}

// EnvironmentChanged follows a [Providers.SetEnvironment] while the app serves: the
// row is stored and checked. Call it when something is different.
func (p *Providers) EnvironmentChanged(app core.App, ch ProviderChannel) error {
	cfg, ok := p.fromEnvironment(EnvironmentProviderID(ch))
	if !ok || !p.ready(app) {
		return nil
	}
	err := app.RunInTransaction(func(txApp core.App) error {
		if err := p.upsert(txApp, cfg); err != nil {
			return err
		}
		return p.enqueueCheck(txApp, cfg.ID, false)
	})
	if err != nil {
		return fmt.Errorf("follow the settings of provider %s: %w", cfg.ID, err)
	}
	return p.Refresh(app)
}

// Start brings the rows of the environment and of PocketBase's mail settings up
// to date and has every enabled provider checked: passwords and certificates
// change while nobody looks. Call it when the app begins to serve.
func (p *Providers) Start(app core.App) error {
	if !p.ready(app) {
		return nil
	}
	if _, _, err := p.followSettings(app); err != nil {
		return err
	}
	err := app.RunInTransaction(func(txApp core.App) error {
		// Another process may be starting on the same folder. Whoever reads before they
		// write is refused when somebody else has written in between; whoever writes first
		// waits for their turn.
		if _, err := txApp.DB().NewQuery("DELETE FROM {{groundwork_sealed}} WHERE FALSE").Execute(); err != nil {
			return err
		}
		p.envMu.RLock()
		environment := maps.Clone(p.environment)
		p.envMu.RUnlock()
		for _, cfg := range environment {
			if err := p.upsert(txApp, cfg); err != nil {
				return err
			}
		}
		rows, err := p.rows(txApp)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if _, known := environment[row.id]; row.source == SourceEnvironment && !known {
				if err := p.remove(txApp, row); err != nil {
					return err
				}
			}
		}
		if err := p.syncSettings(txApp); err != nil {
			return err
		}
		if rows, err = p.rows(txApp); err != nil {
			return err
		}
		for _, row := range rows {
			if !row.enabled {
				continue
			}
			check := func() error { return p.enqueueCheck(txApp, row.id, false) }
			if row.channel == ProviderWebPush {
				check = func() error { return p.checkHere(txApp, row) }
			}
			if err := check(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("bring providers up to date: %w", err)
	}
	return nil
}

func (p *Providers) ready(app core.App) bool {
	_, err := app.FindCachedCollectionByNameOrId(CollectionProviders)
	return err == nil
}

// SettingsChanged follows a save of PocketBase's settings. It does nothing when
// the mail settings are the same as the last time it was called.
func (p *Providers) SettingsChanged(app core.App) error {
	if !p.ready(app) {
		return nil
	}
	enabled, changed, err := p.followSettings(app)
	if err != nil || !changed {
		return err
	}
	err = app.RunInTransaction(func(txApp core.App) error {
		if err := p.syncSettings(txApp); err != nil || !enabled {
			return err
		}
		return p.enqueueCheck(txApp, SettingsProviderID, false)
	})
	if err != nil {
		return fmt.Errorf("follow the mail settings: %w", err)
	}
	return p.Refresh(app)
}

// followSettings reports whether SMTP is enabled, and whether anything about the
// mail settings has changed since the last call.
func (p *Providers) followSettings(app core.App) (enabled, changed bool, err error) {
	cfg, enabled, err := settingsProvider(app)
	if err != nil {
		return false, false, err
	}
	raw, err := json.Marshal([]any{cfg, enabled})
	if err != nil {
		return false, false, fmt.Errorf("encode mail settings: %w", err)
	}
	print := sha256.Sum256(raw)
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = p.settings != print
	p.settings = print
	return enabled, changed, nil
}

// syncSettings makes, updates or removes the row of PocketBase's mail settings.
func (p *Providers) syncSettings(txApp core.App) error {
	cfg, ok, err := settingsProvider(txApp)
	if err != nil {
		return err
	}
	if ok {
		return p.upsert(txApp, cfg)
	}
	row, err := p.row(txApp, SettingsProviderID)
	if row == nil || err != nil {
		return err
	}
	return p.remove(txApp, row)
}

// upsert stores the public part of a provider that is set up elsewhere. Whether
// it is enabled is the owner's.
func (p *Providers) upsert(txApp core.App, cfg ProviderConfig) error {
	config, err := json.Marshal(cfg.Config)
	if err != nil {
		return fmt.Errorf("encode config of provider %s: %w", cfg.ID, err)
	}
	row, err := p.row(txApp, cfg.ID)
	if err != nil {
		return err
	}
	name := cfg.Name
	if name == "" {
		name = "Environment variables " + environmentVariables(cfg.Channel)
	}
	var r *core.Record
	if row == nil {
		col, err := txApp.FindCachedCollectionByNameOrId(CollectionProviders)
		if err != nil {
			return fmt.Errorf("find collection %s: %w", CollectionProviders, err)
		}
		r = core.NewRecord(col)
		r.Id = cfg.ID
		r.Set("enabled", true)
	} else {
		if row.name == name && row.source == cfg.Source && row.channel == cfg.Channel && sameJSON(row.config, string(config)) &&
			row.senderID == cfg.SenderID && row.rate == cfg.RatePerSecond && row.sealed == "" {
			return nil
		}
		r = row.record
	}
	r.Set("name", name)
	r.Set("channel", string(cfg.Channel))
	r.Set("source", cfg.Source)
	r.Set("config", string(config))
	r.Set("senderId", cfg.SenderID)
	r.Set("ratePerSecond", cfg.RatePerSecond)
	r.Set("secret", "") // it stays where it was set
	if err := txApp.SaveNoValidateWithContext(AsServer(context.Background()), r); err != nil {
		return fmt.Errorf("save provider %s: %w", cfg.ID, err)
	}
	return nil
}

func (p *Providers) remove(txApp core.App, row *providerRow) error {
	if err := txApp.DeleteWithContext(AsServer(context.Background()), row.record); err != nil {
		return fmt.Errorf("delete provider %s: %w", row.id, err)
	}
	if row.enabled && row.state != ProviderOK {
		return p.enqueueResumed(txApp, row, time.Time{})
	}
	return nil
}
