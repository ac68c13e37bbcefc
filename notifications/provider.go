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

// Adapter is what a [ProviderFactory] makes: a [Provider], or for the two SMS
// channels a [TransactionalSMSSender] or a [PromotionalSMSSender]. Those two have
// no send method in common with anything, so that a promotional text cannot be
// handed to a transactional sender: [Providers] refuses an adapter that does not
// fit its channel. Checker, Closer, Limiter and CapacityTeller are optional for
// all of them.
type Adapter any

// fits says whether an adapter may serve a channel.
func fits(a Adapter, ch ProviderChannel) bool {
	_, plain := a.(Provider)
	_, transactional := a.(TransactionalSMSSender)
	_, promotional := a.(PromotionalSMSSender)
	switch ch {
	case ProviderSMSTransactional:
		return transactional && !promotional && !plain
	case ProviderSMSPromotional:
		return promotional && !transactional && !plain
	default:
		return plain && !transactional && !promotional
	}
}

// handTo gives a message to the adapter, through the one method that its kind of
// message has.
func handTo(ctx context.Context, a Adapter, m *Message) Outcome {
	switch a := a.(type) {
	case TransactionalSMSSender:
		text, err := NewTransactionalSMS(m)
		if err != nil {
			return crossed(err)
		}
		return a.SendTransactional(ctx, text)
	case PromotionalSMSSender:
		text, err := NewPromotionalSMS(m)
		if err != nil {
			return crossed(err)
		}
		return a.SendPromotional(ctx, text)
	case Provider:
		return a.Send(ctx, m)
	default:
		return Outcome{Kind: PayloadBad, Explanation: "This provider cannot send anything."}
	}
}

func crossed(err error) Outcome {
	return Outcome{Kind: PayloadBad, Code: "crossed", Explanation: "This message was stopped: " + err.Error() + "."}
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

// CapacityTeller is an optional second interface of a [Provider] whose peer says
// how many messages it takes at a time. OnCapacity is called once, before the
// first Send; tell may be called from any goroutine, and at once.
type CapacityTeller interface {
	OnCapacity(tell func(inFlight int))
}

// ProviderConfig is one row of notification_providers with its secret opened.
type ProviderConfig struct {
	ID      string
	Name    string
	Channel ProviderChannel

	// Source is "dashboard", "environment" or "settings" (PocketBase's own mail
	// settings).
	Source string

	// Config holds the public part; its keys depend on the channel. All values are
	// texts unless said otherwise; a missing key is its zero value.
	//
	// E-mail: host, port (number), username, tls ("starttls", "tls", "none"; from
	// PocketBase's mail settings also "opportunistic": STARTTLS if it is offered),
	// from, fromName, authMethod ("", "PLAIN", "LOGIN"), localName.
	//
	// APNs: keyId and teamId (10 characters each; for a .p8 key), bundleId (the
	// topic of devices that name no app), environment ("production", the default,
	// or "sandbox"), endpoint (base URL in place of Apple's).
	//
	// FCM: projectId (empty: the one in the service account), packageName (the only
	// app it serves; empty: all), endpoint (base URL in place of Google's).
	//
	// Web Push: subject (how push services reach the sender: mailto:… or https://…),
	// publicKey (may be left out: it follows from the private one).
	//
	// SMS: accountSid, endpoint (base URL in place of Twilio's), pricePerSegment
	// (number) and currency (EUR), which previews reckon with.
	Config map[string]any

	// Secret is the password or key; never logged, never put in an error. E-mail:
	// the password. APNs: the .p8 file's text, or for a certificate the JSON
	// {"p12": base64 of the .p12 file, "password": its password}. FCM: the service
	// account's JSON. Web Push: the private VAPID key, 32 bytes as base64url. SMS: the
	// auth token.
	Secret string

	// PublicURL is the address under which the world reaches this server, such as
	// https://api.example.com, without a slash at its end; empty when nobody can.
	// Providers that call back are given addresses below it.
	PublicURL string

	// SenderID is who the message comes from: an e-mail address; for SMS a phone
	// number in E.164, a sender name, a short code, or a messaging service (MG…).
	SenderID string

	// RatePerSecond caps the messages per second; zero means no cap.
	RatePerSecond float64
}

// ProviderFactory builds the adapter for a row. It does no network call: an
// error is about the configuration itself and is one sentence for the owner.
type ProviderFactory func(ProviderConfig) (Adapter, error)
