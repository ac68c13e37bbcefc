package notifications

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pocketbase/pocketbase/core"
)

// staleComplaint is how long after a provider was changed an answer to its
// former configuration may still come in.
const staleComplaint = 2 * time.Minute

// resumeDelay lets the job that complained end before its messages are asked
// for again.
const resumeDelay = 5 * time.Second

// OnResume calls fn when what waits for a channel can go out: a paused provider
// works again, or another one has taken its place. fn runs in a background job,
// which is tried again when it fails, and may be called without anything waiting.
func (p *Providers) OnResume(fn func(app core.App, ch ProviderChannel) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onResume = append(p.onResume, fn)
}

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
