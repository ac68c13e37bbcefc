package notifications

import (
	"context"
)

// Provider hands one message to one target and says what became of it.
//
// Send is called from several goroutines, never more at a time than
// [Limits.MaxInFlight]. It must return soon after ctx ends: with [Retry] when
// nothing had left, with [Ambiguous] when the message had left and the answer
// had not arrived. It does not retry, sleep or queue: the sender owns retries,
// back-off, rate and concurrency. It never panics on strange content.
type Provider interface {
	Send(ctx context.Context, m *Message) Outcome
}

// Checker is an optional second interface of a [Provider]: it proves the
// configuration without sending a message (opens the SMTP session, signs a
// token). The outcome is [Accepted], or [ConfigBad] or [Retry] with a sentence.
type Checker interface {
	Check(ctx context.Context) Outcome
}

// Closer is an optional second interface of a [Provider] that holds
// connections. Close waits for nothing and is safe to call twice.
type Closer interface {
	Close() error
}

// Limiter is an optional second interface of a [Provider]: how many messages it
// takes at a time.
type Limiter interface {
	Limits() Limits
}

// Limits of one provider. The zero value means one message at a time.
type Limits struct {
	// StartInFlight is the concurrency a send begins with; zero means 1.
	StartInFlight int
	// MaxInFlight is the highest concurrency; zero means StartInFlight.
	MaxInFlight int
}

// ProviderConfig is one row of notification_providers with its secret opened.
type ProviderConfig struct {
	ID      string
	Name    string
	Channel ProviderChannel

	// Source is "dashboard", "environment" or "settings" (PocketBase's own mail
	// settings).
	Source string

	// Config holds the public part; its keys depend on the channel. For e-mail:
	// host, port (number), username, tls ("starttls", "tls", "none"; from
	// PocketBase's mail settings also "opportunistic": STARTTLS if it is offered),
	// from, fromName, authMethod ("", "PLAIN", "LOGIN"), localName.
	Config map[string]any

	// Secret is the password or key; never logged, never put in an error.
	Secret string

	// SenderID is who the message comes from: an address or a phone number.
	SenderID string

	// RatePerSecond caps the messages per second; zero means no cap.
	RatePerSecond float64
}

// ProviderFactory builds the adapter for a row. It does no network call: an
// error is about the configuration itself and is one sentence for the owner.
type ProviderFactory func(ProviderConfig) (Provider, error)
