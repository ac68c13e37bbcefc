package notifications

import (
	"math/rand/v2"
	"time"
)

// RetryPolicy says when a message that could not be handed over is tried again.
// The zero value means the defaults given at each field.
type RetryPolicy struct {
	// Base is the wait after the first failure; it doubles each time. Zero
	// means 5 seconds. A provider that takes e-mails or SMS and does not answer is
	// left alone for six times as long.
	Base time.Duration

	// Max is the longest wait between two tries. Zero means 15 minutes.
	Max time.Duration

	// MaxAge is how long after it was due a message is still tried, unless the
	// notification's expiresAt comes first. Zero means 24 hours.
	MaxAge time.Duration

	// Away is how long messages stay away at least from a provider that enough
	// others keep busy, unless they are called back; twice as long at most. Zero
	// means 4 seconds: with a provider that takes a message a second, hundreds of
	// batches do not ask all the time.
	Away time.Duration
}

// WithDefaults returns the policy with its zero fields replaced.
func (p RetryPolicy) WithDefaults() RetryPolicy {
	if p.Base <= 0 {
		p.Base = 5 * time.Second
	}
	if p.Max <= 0 {
		p.Max = 15 * time.Minute
	}
	if p.MaxAge <= 0 {
		p.MaxAge = 24 * time.Hour
	}
	if p.Away <= 0 {
		p.Away = 4 * time.Second
	}
	return p
}

// Delay is the wait before the try that follows the attempt-th failure (1 is
// the first): exponential, then "equal jitter" (half fixed, half random), so
// that many recipients who failed together do not come back together.
func (p RetryPolicy) Delay(attempt int) time.Duration {
	p = p.WithDefaults()
	d := p.Max
	if attempt < 1 {
		attempt = 1
	}
	if shift := attempt - 1; shift < 32 {
		if grown := p.Base << shift; grown > 0 && grown < p.Max {
			d = grown
		}
	}
	half := d / 2
	if half <= 0 {
		return d
	}
	return half + rand.N(half)
}

// silentWaits is how many times Base a provider is left alone that takes e-mails or
// SMS and does not answer: 30 seconds by default.
const silentWaits = 6

// silence is the wait after messages were handed over and no answer came. Each
// e-mail or SMS more would be one more that nobody knows of, and none of them goes
// out again. A push goes out again and replaces itself, and one connection that
// breaks takes the answers to all pushes on it along: that is no reason to keep
// everybody else waiting for longer than after a single failure.
func (p RetryPolicy) silence(attempt int, mayRepeat bool) time.Duration {
	if mayRepeat {
		return p.Delay(attempt)
	}
	return silentWaits * p.WithDefaults().Base
}

func (p RetryPolicy) away() time.Duration { return p.Away + rand.N(p.Away) }
