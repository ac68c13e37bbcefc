package notifications

import "time"

// OutcomeKind is the one vocabulary in which every provider answers.
type OutcomeKind int

const (
	// Accepted: the provider took the message. It is not proof of display.
	Accepted OutcomeKind = iota + 1

	// Retry: nothing was sent; try this recipient again, not before RetryAfter.
	Retry

	// TargetGone: the address does not exist any more (since GoneAt, if known).
	TargetGone

	// RecipientBlocked: this recipient refuses such messages, or cannot get
	// them. Others are not affected.
	RecipientBlocked

	// PayloadBad: the content was refused; every recipient would refuse it.
	PayloadBad

	// ConfigBad: the provider is set up wrongly (login, host, certificate,
	// sender). The provider is paused and no recipient is blamed.
	ConfigBad

	// Ambiguous: the message left and no answer came. E-mail and SMS are never
	// resent by themselves after this.
	Ambiguous
)

// String returns the snake_case name used in logs and tests.
func (k OutcomeKind) String() string {
	switch k {
	case Accepted:
		return "accepted"
	case Retry:
		return "retry"
	case TargetGone:
		return "target_gone"
	case RecipientBlocked:
		return "recipient_blocked"
	case PayloadBad:
		return "payload_bad"
	case ConfigBad:
		return "config_bad"
	case Ambiguous:
		return "ambiguous"
	default:
		return "invalid"
	}
}

// Outcome is a provider's answer for one message to one target.
//
// The zero value is invalid: an adapter that forgets to decide must not count
// as success.
type Outcome struct {
	Kind OutcomeKind

	// Explanation is one plain sentence for the owner: what happened and, where
	// there is something to do, what. No secret, no full address, no code. Empty
	// for Accepted.
	Explanation string

	// Code is the provider's own code, such as "550 5.1.1" or "BadDeviceToken";
	// for logs and the curious. May be empty.
	Code string

	// RetryAfter is how long the provider asks to wait (Retry only). Zero means
	// that it did not say, and the sender's back-off decides.
	RetryAfter time.Duration

	// ProviderDown says that nobody could have been reached at this moment
	// (Retry only): no connection, a refusing greeting, a general "try later".
	// The sender then stops handing over instead of trying every recipient.
	ProviderDown bool

	// GoneAt is since when the target is gone (TargetGone only); zero when the
	// provider did not say.
	GoneAt time.Time

	// Suspect says of a dead target (TargetGone only) that the fault may be ours: a
	// token of another environment or of another project looks the same. When many
	// targets are suspect at once, the provider is paused and none is retired.
	Suspect bool

	// OptedOut says that the recipient told this sender to stop (RecipientBlocked
	// only): the address goes onto the suppression list for messages of this kind.
	OptedOut bool

	// ProviderMessageID is the provider's id for the message, when it gave one.
	ProviderMessageID string

	// notBegun says that nothing was even tried (Retry only), for a reason that is
	// nobody's fault: it may be tried again at once.
	notBegun bool

	// elsewhere says that nobody here waits for the answer any more: it is stored when
	// it comes. Nothing else is set then.
	elsewhere bool
}
