package notifications

import "time"

// Message is a rendered message to one target: all that an adapter needs.
type Message struct {
	// DeliveryID is the id of the delivery row. Adapters derive from it whatever
	// lets a repeat be recognised (Message-ID, apns-id, collapse id).
	DeliveryID string

	// NotificationID is empty for PocketBase's own mails.
	NotificationID string

	// RequestID is the HTTP request that led here; empty when there was none.
	RequestID string

	Channel Channel
	Kind    Kind
	Target  Target

	// Title and Body are plain text.
	Title string
	Body  string

	// Email is set for [ChannelEmail] only.
	Email *Email

	// Push is set for [ChannelPush] only. The messages of a batch share it: it must
	// not be changed.
	Push *Push

	// Expires is when the content is of no use any more; zero when nobody knows.
	Expires time.Time

	// OpenToken lets the app tell that the message was opened; empty when it cannot
	// be. See [OpenToken].
	OpenToken string

	Image string
	Link  string
	Data  map[string]any

	// try is set where another machine may send it.
	try try
}

// Target is one address on one channel.
type Target struct {
	// UserID is empty for a person who has no account.
	UserID string

	// Address is the e-mail address, phone number or device token.
	Address string

	// Name is the person's name for a To header; may be empty.
	Name string

	// Device is set for [ChannelPush] only.
	Device *Device
}

// Device is what an adapter needs to know of the device behind a push target.
// Its token is [Target.Address].
type Device struct {
	ID       string
	Platform string // ios, android or web

	// App is the bundle or package id; empty means the provider's own.
	App string

	// Environment is production or sandbox (Apple only); empty means the
	// provider's own.
	Environment string
}

// Push is what a push message has besides its text. The zero value is an alert
// with the provider's defaults.
type Push struct {
	// CollapseID, at most 64 bytes, lets a repeat replace what is shown already.
	// The sender always sets it.
	CollapseID string

	// Expires is when the provider may stop trying; zero means its default.
	Expires time.Time

	// Priority is "high" or "normal"; empty means high for an alert, normal for a
	// silent message.
	Priority string

	Badge  *int   // nil: left alone
	Sound  string // empty: the default sound; "none": no sound
	Silent bool   // wakes the app and shows nothing

	// APNs, FCM and WebPush are merged over the payload that the adapter builds,
	// from the option of that name.
	APNs, FCM, WebPush map[string]any
}

// Email is the content of one e-mail. At least one of Text and HTML is set.
type Email struct {
	// From overrides the provider's sender when not empty ("Name <a@b>" or
	// "a@b").
	From string

	ReplyTo string
	Subject string
	Text    string
	HTML    string

	// Cc and Bcc are only used by mails that PocketBase or application code
	// wrote.
	Cc, Bcc []string

	// Unsubscribe is the link by which the reader stops such mail (RFC 8058). A
	// promotional mail without it does not leave; any other has none.
	Unsubscribe string

	// UnsubscribeMailto is an address to which a mail program may write instead;
	// usually empty.
	UnsubscribeMailto string

	// Headers are extra headers; the adapter refuses line breaks in them.
	Headers map[string]string

	Attachments []Attachment
}

// Attachment is a file inside an e-mail. Inline ones are shown in the HTML by
// cid:Name.
type Attachment struct {
	Name   string
	Inline bool
	Bytes  []byte
}
