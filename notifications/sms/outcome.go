package sms

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	twilio "github.com/twilio/twilio-go/client"

	"github.com/groundworkhq/groundwork/notifications"
)

// codeNotFound is Twilio's "no such thing here".
const codeNotFound = 20404

// codeStopped is Twilio's "this person answered STOP to this sender".
const codeStopped = 21610

var errRedirect = errors.New("the endpoint redirects to another address")

const (
	queueWait = 5 * time.Minute // a full queue holds ten hours of messages: no hurry
	quietWait = time.Hour       // quiet hours end at a full hour
)

// verdict is what a code of Twilio means for a message that is handed over.
type verdict struct {
	kind     notifications.OutcomeKind
	sentence string
	wait     time.Duration // Retry only
	everyone bool          // Retry only: it is about all messages of this sender
}

// verdicts are the codes that Twilio refuses a request with. None of them leaves
// a message behind.
//
// A country that is not enabled, or a route that the sender cannot take, is the
// owner's to mend; yet it blocks the recipient and not the sender: one foreign
// number must not hold up everybody else.
//
// https://www.twilio.com/docs/api/errors
var verdicts = map[int]verdict{
	// The account.
	20003: {kind: notifications.ConfigBad, sentence: "Twilio refused the account SID or the auth token: copy both again from Twilio's console."},
	20005: {kind: notifications.ConfigBad, sentence: "Twilio says that this account is not active: see Twilio's console."},
	20008: {kind: notifications.ConfigBad, sentence: "These are Twilio's test credentials, which send nothing: use the live ones from Twilio's console."},
	20404: {kind: notifications.ConfigBad, sentence: "Twilio does not know this account SID: copy it again from Twilio's console."},
	21222: {kind: notifications.ConfigBad, sentence: "The account SID has characters that none has: copy it again from Twilio's console."},
	21224: {kind: notifications.ConfigBad, sentence: "The auth token has characters that none has: copy it again from Twilio's console."},
	30002: {kind: notifications.ConfigBad, sentence: "Twilio has suspended this account: see Twilio's console."},
	63038: {kind: notifications.ConfigBad, sentence: "The account's limit of messages for a day is reached: ask Twilio for a higher one, or wait until tomorrow."},

	// The sender.
	21212: {kind: notifications.ConfigBad, sentence: "Twilio does not accept the sender: it is not a phone number, sender name or short code that this account can use."},
	21603: {kind: notifications.ConfigBad, sentence: "Twilio misses the sender: set senderId."},
	21660: {kind: notifications.ConfigBad, sentence: "The sender's phone number belongs to another Twilio account."},
	21701: {kind: notifications.ConfigBad, sentence: "Twilio does not know the messaging service that is the sender: copy its SID (MG…) again."},
	21703: {kind: notifications.ConfigBad, sentence: "The messaging service that is the sender has no phone number: add one to its sender pool in Twilio's console."},
	21704: {kind: notifications.ConfigBad, sentence: "The messaging service that is the sender has no phone number: add one to its sender pool in Twilio's console."},
	21705: {kind: notifications.ConfigBad, sentence: "Twilio does not know the messaging service that is the sender: copy its SID (MG…) again."},
	21609: {kind: notifications.ConfigBad, sentence: "Twilio cannot call this server back: set its public address in Settings > Application to one that the internet can reach."},

	// For now.
	20429: {kind: notifications.Retry, sentence: "Twilio takes no more messages at a time from this account; it is tried again by itself."},
	14107: {kind: notifications.Retry, sentence: "Twilio takes no more messages at a time from this sender; it is tried again by itself."},
	21611: {kind: notifications.Retry, wait: queueWait, everyone: true, sentence: "The sender's queue at Twilio is full, with as much as it can send in ten hours; it is tried again by itself."},
	30001: {kind: notifications.Retry, wait: queueWait, everyone: true, sentence: "The sender's queue at Twilio is full; it is tried again by itself."},
	30003: {kind: notifications.Retry, sentence: "The phone cannot be reached at the moment: switched off, or without a network."},
	30008: {kind: notifications.Retry, sentence: "Twilio could not send this message and does not know why."},
	30047: {kind: notifications.Retry, wait: quietWait, sentence: "It is too early or too late where this person lives; it is tried again by itself."},
	30610: {kind: notifications.Retry, wait: quietWait, sentence: "It is too early or too late where this person lives; it is tried again by itself."},

	// The recipient, or the way there.
	21211: {kind: notifications.RecipientBlocked, sentence: "This is not a phone number that exists."},
	21217: {kind: notifications.RecipientBlocked, sentence: "This is not a phone number that exists."},
	21401: {kind: notifications.RecipientBlocked, sentence: "This is not a phone number that exists."},
	21604: {kind: notifications.RecipientBlocked, sentence: "This person has no phone number."},
	21614: {kind: notifications.RecipientBlocked, sentence: "This number is not a mobile phone's."},
	21635: {kind: notifications.RecipientBlocked, sentence: "This is a landline number, which gets no SMS."},
	21408: {kind: notifications.RecipientBlocked, sentence: "Sending to this person's country is not switched on: enable it in Twilio's console under Messaging > Settings > Geo permissions."},
	21606: {kind: notifications.RecipientBlocked, sentence: "The sender cannot send SMS to this number: use a sender in Twilio's console that can send to this person's country."},
	21612: {kind: notifications.RecipientBlocked, sentence: "Twilio has no way from this sender to this number: add a sender in Twilio's console that can send to this person's country."},
	21659: {kind: notifications.RecipientBlocked, sentence: "The sender cannot send SMS to this person's country: add a sender in Twilio's console that can."},
	21608: {kind: notifications.RecipientBlocked, sentence: "This is a Twilio trial account, which sends only to numbers that were verified in Twilio's console: verify this one there, or upgrade the account."},
	21610: {kind: notifications.RecipientBlocked, sentence: "This person answered STOP to this sender; only their own START changes that."},
	30004: {kind: notifications.RecipientBlocked, sentence: "The phone or its network blocks this message."},
	30005: {kind: notifications.RecipientBlocked, sentence: "This number is not in use any more."},
	30006: {kind: notifications.RecipientBlocked, sentence: "This is a landline number, or its network takes no SMS."},
	30007: {kind: notifications.RecipientBlocked, sentence: "The network filtered this message out as unwanted: look at its wording and links, and at whether the sender is registered."},
	30034: {kind: notifications.RecipientBlocked, sentence: "The sender is not registered for the United States (A2P 10DLC): register it in Twilio's console."},

	// The content.
	21602: {kind: notifications.PayloadBad, sentence: "The text is empty: write something for SMS."},
	21605: {kind: notifications.PayloadBad, sentence: "The text is too long for an SMS: shorten it."},
	21617: {kind: notifications.PayloadBad, sentence: "The text is too long for an SMS: shorten it."},
}

// sendFault is the outcome of a message that Twilio did not confirm.
func (t *trip) sendFault(err error) notifications.Outcome {
	refusal := (*twilio.TwilioRestError)(nil)
	if t.status != 0 && errors.As(err, &refusal) && refusal.Code != 0 {
		o := t.refused(refusal.Code)
		if o.Kind == notifications.Ambiguous {
			o.Explanation = "Twilio failed while it took this message, so it is not known whether it was sent."
		}
		return o
	}
	if t.status == 0 {
		return t.unanswered(err)
	}
	switch o := t.strange(err); {
	case t.status >= 200 && t.status < 300:
		return notifications.Outcome{Kind: notifications.Ambiguous, Code: strconv.Itoa(t.status),
			Explanation: "Twilio's answer could not be understood, so it is not known whether this message was sent."}
	case o.Kind == notifications.Retry && t.status >= 500:
		// A proxy in between may have passed the message on before it failed.
		return notifications.Outcome{Kind: notifications.Ambiguous, Code: o.Code,
			Explanation: fmt.Sprintf("The connection to Twilio failed on the way (it said %d), so it is not known whether this message was sent.", t.status)}
	default:
		return o
	}
}

// readFault is the outcome of a question that sends nothing.
func (t *trip) readFault(err error) notifications.Outcome {
	refusal := (*twilio.TwilioRestError)(nil)
	var o notifications.Outcome
	switch {
	case t.status != 0 && errors.As(err, &refusal) && refusal.Code != 0:
		o = t.refused(refusal.Code)
	case t.status == 0:
		o = t.unanswered(err)
	default:
		o = t.strange(err)
	}
	switch o.Kind {
	case notifications.Ambiguous:
		return notifications.Outcome{Kind: notifications.Retry, ProviderDown: true, Code: o.Code, Explanation: "Twilio does not answer at the moment."}
	case notifications.Retry, notifications.ConfigBad:
		return o
	default:
		return notifications.Outcome{Kind: notifications.ConfigBad, Code: o.Code, Explanation: "Twilio refused to say whether this setup is right" + said(o.Code) + "."}
	}
}

// pollError is for the log: no address, and of Twilio's words only the code.
func (t *trip) pollError(err error) error {
	o := t.readFault(err)
	return fmt.Errorf("ask Twilio for messages: %s%s", o.Explanation, said(o.Code))
}

func said(code string) string {
	if code == "" {
		return ""
	}
	return " (it said " + code + ")"
}

// refused is for an answer in Twilio's own words.
func (t *trip) refused(code int) notifications.Outcome {
	o := notifications.Outcome{Code: strconv.Itoa(code)}
	if v, known := verdicts[code]; known {
		o.Kind, o.Explanation, o.OptedOut = v.kind, v.sentence, code == codeStopped
		if v.kind == notifications.Retry {
			o.RetryAfter, o.ProviderDown = v.wait, v.everyone
			t.heed(&o)
		}
		return o
	}
	switch {
	case t.status == http.StatusTooManyRequests:
		o.Kind, o.Explanation = notifications.Retry, "Twilio takes no more messages at a time from this account"+said(o.Code)+"; it is tried again by itself."
		t.heed(&o)
	case t.status == http.StatusServiceUnavailable:
		// Twilio itself says that it did not take it.
		o.Kind, o.ProviderDown, o.Explanation = notifications.Retry, true, "Twilio takes no messages at the moment"+said(o.Code)+"; it is tried again by itself."
		o.RetryAfter = t.retryAfter
	case t.status >= 500:
		o.Kind, o.Explanation = notifications.Ambiguous, "Twilio failed"+said(o.Code)+"."
	case t.status == http.StatusUnauthorized || t.status == http.StatusForbidden:
		o.Kind, o.Explanation = notifications.ConfigBad, "Twilio does not allow this account to send"+said(o.Code)+": see Twilio's console."
	default:
		o.Kind, o.Explanation = notifications.PayloadBad, "Twilio refused this message"+said(o.Code)+"."
	}
	return o
}

// heed follows a Retry-After: Twilio says it of the account, not of a message.
func (t *trip) heed(o *notifications.Outcome) {
	if t.retryAfter > 0 {
		o.RetryAfter, o.ProviderDown = t.retryAfter, true
	}
}

// strange is for an answer that is not Twilio's.
func (t *trip) strange(err error) notifications.Outcome {
	o := notifications.Outcome{Kind: notifications.Retry, ProviderDown: true, RetryAfter: t.retryAfter, Code: strconv.Itoa(t.status),
		Explanation: fmt.Sprintf("Twilio cannot be reached: something on the way answers in its place (it said %d).", t.status)}
	config := func(sentence string) notifications.Outcome {
		return notifications.Outcome{Kind: notifications.ConfigBad, Code: o.Code, Explanation: sentence}
	}
	switch {
	case errors.Is(err, errRedirect):
		return config("The endpoint answers with a redirect: enter the address that it leads to.")
	case t.a.endpoint == nil:
		return o
	case t.status == http.StatusUnauthorized, t.status == http.StatusForbidden:
		return config(fmt.Sprintf("The endpoint refused the account SID or the auth token (it said %d): check both, and the endpoint.", t.status))
	case t.status == http.StatusNotFound, t.status == http.StatusMethodNotAllowed, t.status >= 200 && t.status < 300:
		return config(fmt.Sprintf("What answers at the endpoint is not Twilio's interface (it said %d): check the address, or leave it empty for Twilio's own.", t.status))
	}
	return o
}

// unanswered is for a request without any answer.
func (t *trip) unanswered(err error) notifications.Outcome {
	down := func(sentence string) notifications.Outcome {
		return notifications.Outcome{Kind: notifications.Retry, ProviderDown: true, Explanation: sentence}
	}
	config := func(sentence string) notifications.Outcome {
		return notifications.Outcome{Kind: notifications.ConfigBad, Explanation: sentence}
	}
	if t.mayHaveLeft() {
		return notifications.Outcome{Kind: notifications.Ambiguous,
			Explanation: "The message was handed to Twilio and no answer came, so it is not known whether it was sent."}
	}
	var (
		dns       *net.DNSError
		invalid   x509.CertificateInvalidError
		unknown   x509.UnknownAuthorityError
		wrongName x509.HostnameError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		refusal   *twilio.TwilioRestError
	)
	host := "api.twilio.com"
	if t.a.endpoint != nil {
		host = t.a.endpoint.Host
	}
	switch {
	case errors.As(err, &refusal): // the library's own check
		return t.refused(refusal.Code)
	case errors.Is(err, errRedirect):
		return t.strange(err)
	case t.ctx.Err() != nil && errors.Is(t.ctx.Err(), context.Canceled):
		return notifications.Outcome{Kind: notifications.Retry, Explanation: "It was stopped before anything was sent."}
	case errors.As(err, &dns) && dns.IsNotFound && t.a.endpoint != nil:
		return config("The endpoint " + host + " does not exist: check its spelling, or leave it empty for Twilio's own.")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return config("The certificate of " + host + " has expired or is not valid yet: check this machine's clock.")
	case errors.As(err, &unknown):
		return config("The certificate of " + host + " is signed by an authority that this machine does not know: add it to the trusted ones (SSL_CERT_FILE).")
	case errors.As(err, &wrongName):
		return config("The certificate at " + host + " is not made out to it: check the endpoint.")
	case errors.As(err, &invalid), errors.As(err, &verify):
		return config("The certificate of " + host + " is not valid.")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return config("The endpoint " + host + " does not speak TLS: write its address with http:// if you trust the line.")
	}
	return down("Twilio (" + host + ") cannot be reached at the moment.")
}
