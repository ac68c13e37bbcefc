package config

import (
	"strings"
	"unicode/utf8"
)

// maxOptOut is how many characters the words at the end of each SMS may have.
const maxOptOut = 60

// Promotional is what the variables say about messages that advertise.
type Promotional struct {
	// AssumeEmailConsent is PROMOTIONAL_EMAIL_CONSENT=assumed: promotional e-mail also
	// goes to people of whom no consent is recorded.
	AssumeEmailConsent bool

	// SMSOptOut is PROMOTIONAL_SMS_OPT_OUT: the words that a promotional SMS ends with;
	// empty: the usual ones.
	SMSOptOut string

	// NoFooter is PROMOTIONAL_EMAIL_FOOTER=off: the unsubscribe link is in the headers
	// of an e-mail, and in its text only where its author put it.
	NoFooter bool

	// UnsubscribeEmail is UNSUBSCRIBE_EMAIL: a mailbox whose reader unsubscribes people
	// who write there; empty: none.
	UnsubscribeEmail string
}

func (r *reader) promotional() Promotional {
	p := Promotional{NoFooter: r.oneOf("PROMOTIONAL_EMAIL_FOOTER", "on", "on", "off") == "off",
		AssumeEmailConsent: r.oneOf("PROMOTIONAL_EMAIL_CONSENT", "required", "required", "assumed") == "assumed",
		SMSOptOut:          strings.TrimSpace(r.get("PROMOTIONAL_SMS_OPT_OUT"))}
	switch {
	case p.SMSOptOut == "":
	case !strings.Contains(p.SMSOptOut, "STOP"):
		r.problem("PROMOTIONAL_SMS_OPT_OUT is %q and does not have the word STOP in capitals, which is what people have to answer: write something like \"Reply STOP to opt out\".", p.SMSOptOut)
	case utf8.RuneCountInString(p.SMSOptOut) > maxOptOut || strings.ContainsAny(p.SMSOptOut, "\r\n"):
		r.problem("PROMOTIONAL_SMS_OPT_OUT is longer than %d characters, or has more than one line: each text pays for it.", maxOptOut)
	}
	if p.UnsubscribeEmail = strings.TrimSpace(r.get("UNSUBSCRIBE_EMAIL")); p.UnsubscribeEmail != "" && !isAddress(p.UnsubscribeEmail) {
		r.problem("UNSUBSCRIBE_EMAIL is %q, which is not an e-mail address: write only the address, such as unsubscribe@example.com.", p.UnsubscribeEmail)
	}
	return p
}

// minWebhookSecret is the shortest EMAIL_WEBHOOK_SECRET in bytes.
const minWebhookSecret = 24

func (r *reader) emailWebhookSecret() string {
	secret := strings.TrimSpace(r.get("EMAIL_WEBHOOK_SECRET"))
	if secret != "" && len(secret) < minWebhookSecret {
		r.problem("EMAIL_WEBHOOK_SECRET has %d characters; it needs at least %d. Make one with: openssl rand -hex 32", len(secret), minWebhookSecret)
	}
	return secret
}
