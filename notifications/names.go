package notifications

// Ids of our collections. They are looked up by id, so that an administrator
// may rename a collection. Raw SQL must use the collection's current name.
const (
	CollectionNotifications = "gw_notifications"
	CollectionDeliveries    = "gw_deliveries"
	CollectionDevices       = "gw_devices"
	CollectionCategories    = "gw_categories"
	CollectionTemplates     = "gw_templates"
	CollectionTriggers      = "gw_triggers"
	CollectionProviders     = "gw_providers"
	CollectionTopics        = "gw_topics"
	CollectionSubscriptions = "gw_subscriptions"
	CollectionPreferences   = "gw_preferences"
	CollectionSuppressions  = "gw_suppressions"
	CollectionInbox         = "gw_inbox"
	CollectionConsents      = "gw_consents"
)

// Channel is a way to reach a person.
type Channel string

const (
	ChannelPush  Channel = "push"
	ChannelEmail Channel = "email"
	ChannelSMS   Channel = "sms"
	ChannelInbox Channel = "inbox"
)

// Kind says on whose behalf a message is sent. A transactional message answers
// something its recipient did; a promotional one needs consent.
type Kind string

const (
	KindTransactional Kind = "transactional"
	KindPromotional   Kind = "promotional"
)

// Keys of the categories that every installation has.
const (
	CategoryTransactional = "transactional"
	CategoryPromotional   = "promotional"
	CategoryAccount       = "account" // codes, verification and password mails: content is never kept
)

// Status of a notification.
type Status string

const (
	StatusDraft            Status = "draft"
	StatusScheduled        Status = "scheduled"
	StatusQueued           Status = "queued"
	StatusSending          Status = "sending"
	StatusPaused           Status = "paused"
	StatusSent             Status = "sent"
	StatusSentWithFailures Status = "sent_with_failures"
	StatusFailed           Status = "failed"
	StatusCancelled        Status = "cancelled"
	StatusExpired          Status = "expired"
)

// Action is what the owner asks of a notification; empty again once taken.
type Action string

const (
	ActionSend   Action = "send"
	ActionPause  Action = "pause"
	ActionResume Action = "resume"
	ActionCancel Action = "cancel"
)

// DeliveryStatus is what became of one message to one target.
type DeliveryStatus string

const (
	DeliveryPending   DeliveryStatus = "pending"
	DeliverySending   DeliveryStatus = "sending" // handed to the provider, answer not stored yet
	DeliveryAccepted  DeliveryStatus = "accepted"
	DeliveryDelivered DeliveryStatus = "delivered"
	DeliveryOpened    DeliveryStatus = "opened"
	DeliveryCaptured  DeliveryStatus = "captured"
	DeliveryFailed    DeliveryStatus = "failed"
	DeliverySkipped   DeliveryStatus = "skipped"
	DeliveryUnknown   DeliveryStatus = "unknown"
	DeliveryCancelled DeliveryStatus = "cancelled"
)

// AudienceKind says how the recipients of a notification are chosen.
type AudienceKind string

const (
	AudienceUsers    AudienceKind = "users"
	AudienceTopic    AudienceKind = "topic"
	AudienceFilter   AudienceKind = "filter"
	AudienceEveryone AudienceKind = "everyone"
)

// ProviderChannel is the kind of a provider row. The two e-mail and the two SMS
// ones are fixed at creation and never stand in for each other.
type ProviderChannel string

const (
	ProviderAPNs               ProviderChannel = "apns"
	ProviderFCM                ProviderChannel = "fcm"
	ProviderWebPush            ProviderChannel = "webpush"
	ProviderEmailTransactional ProviderChannel = "email_transactional"
	ProviderEmailPromotional   ProviderChannel = "email_promotional"
	ProviderSMSTransactional   ProviderChannel = "sms_transactional"
	ProviderSMSPromotional     ProviderChannel = "sms_promotional"
)

// Codes in the reason field of a delivery. They are stable: reports and clients
// rely on them. The sentence for people is in the explanation field.
const (
	ReasonNoProvider       = "no_provider"       // nothing is set up for this channel
	ReasonProviderPaused   = "provider_paused"   // a test found its provider paused
	ReasonNoAddress        = "no_address"        // the person has no e-mail address, device or phone
	ReasonRecipientGone    = "recipient_gone"    // the person was deleted before the message left
	ReasonRecipientBlocked = "recipient_blocked" // the address refuses mail, or does not exist
	ReasonSuppressed       = "suppressed"        // on the suppression list
	ReasonOptedOut         = "opted_out"         // the person switched this category off
	ReasonPayloadRefused   = "payload_refused"   // the provider refused the content
	ReasonTemplateFailed   = "template_failed"   // the template could not be rendered for this person
	ReasonNothingToSay     = "nothing_to_say"    // dataFrom has no row for this person
	ReasonTargetGone       = "target_gone"       // the device is gone
	ReasonRetriesExhausted = "retries_exhausted" // kept failing until there was no time left
	ReasonExpired          = "expired"           // expiresAt passed first
	ReasonCancelled        = "cancelled"         // the owner cancelled the notification
	ReasonInterrupted      = "interrupted"       // the process ended while the message was in flight
	ReasonNoAnswer         = "no_answer"         // the provider took the message and never answered
	ReasonNoConsent        = "no_consent"        // nobody recorded that the person agrees, or they took it back
	ReasonNoPublicAddress  = "no_public_address" // promotional e-mail, and no address for its unsubscribe link
	ReasonNoAccount        = "no_account"        // no account has the number that a code was asked for
	ReasonPhoneAmbiguous   = "phone_ambiguous"   // several accounts have it, none of them verified
	ReasonPhoneUnverified  = "phone_unverified"  // it was never verified, and people can type it themselves
	ReasonPhoneTaken       = "phone_taken"       // somebody else has verified it
	ReasonTestNumber       = "test_number"       // its code is fixed and never sent
	ReasonCodeCap          = "code_cap_reached"  // maxPerHour or maxPerPrefixPerHour of phone_sign_in was reached
	ReasonQuietHours       = "quiet_hours"       // waits for the end of the person's quiet hours; skipped: there is no other time
	ReasonFrequencyCap     = "frequency_cap"     // the person got as many messages of the category as its cap allows
	ReasonOpened           = "opened"            // the push was opened before the SMS in its place went out
	ReasonCaptured         = "captured"          // kept here instead of sent, outside production
)

// Channel is the channel whose messages a provider of this kind sends.
func (c ProviderChannel) Channel() Channel {
	switch c {
	case ProviderEmailTransactional, ProviderEmailPromotional:
		return ChannelEmail
	case ProviderSMSTransactional, ProviderSMSPromotional:
		return ChannelSMS
	default:
		return ChannelPush
	}
}

// Kind is the kind of message that a provider of this kind is bound to; empty
// when it sends both.
func (c ProviderChannel) Kind() Kind {
	switch c {
	case ProviderEmailTransactional, ProviderSMSTransactional:
		return KindTransactional
	case ProviderEmailPromotional, ProviderSMSPromotional:
		return KindPromotional
	default:
		return ""
	}
}

// providerChannel is the one kind of provider that may send a message.
func providerChannel(channel Channel, kind Kind) ProviderChannel {
	switch {
	case channel == ChannelEmail && kind == KindPromotional:
		return ProviderEmailPromotional
	case channel == ChannelEmail:
		return ProviderEmailTransactional
	case channel == ChannelSMS && kind == KindPromotional:
		return ProviderSMSPromotional
	case channel == ChannelSMS:
		return ProviderSMSTransactional
	default:
		return ""
	}
}
