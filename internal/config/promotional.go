package config

import "strings"

// Promotional is what the variables say about messages that advertise.
type Promotional struct {
	// NoFooter is PROMOTIONAL_EMAIL_FOOTER=off: the unsubscribe link is in the headers
	// of an e-mail, and in its text only where its author put it.
	NoFooter bool

	// UnsubscribeEmail is UNSUBSCRIBE_EMAIL: a mailbox whose reader unsubscribes people
	// who write there; empty: none.
	UnsubscribeEmail string
}

func (r *reader) promotional() Promotional {
	p := Promotional{NoFooter: r.oneOf("PROMOTIONAL_EMAIL_FOOTER", "on", "on", "off") == "off"}
	if p.UnsubscribeEmail = strings.TrimSpace(r.get("UNSUBSCRIBE_EMAIL")); p.UnsubscribeEmail != "" && !isAddress(p.UnsubscribeEmail) {
		r.problem("UNSUBSCRIBE_EMAIL is %q, which is not an e-mail address: write only the address, such as unsubscribe@example.com.", p.UnsubscribeEmail)
	}
	return p
}
