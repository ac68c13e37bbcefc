package accounts

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/groundworkhq/groundwork/notifications"
)

// PhoneText is the SMS with a code. It fits into one part of the telephone
// alphabet, which is what carriers charge for. Behind an https address it ends
// with the line by which a browser on that phone offers to fill the code in, for
// this site and no other.
//
// https://wicg.github.io/sms-one-time-codes/
func PhoneText(purpose Purpose, appName, appURL, digits string) string {
	name := shortName(appName)
	text := digits + " is your sign-in code"
	if purpose == PurposeVerifyPhone {
		// Somebody who is tricked into reading it out should see what it does.
		text = digits + " is your code to confirm this number"
	}
	if name != "" {
		text += " for " + name
	}
	text += ". Do not share it."
	if u, err := url.Parse(appURL); err == nil && u.Scheme == "https" && u.Hostname() != "" {
		if withSite := text + "\n\n@" + u.Hostname() + " #" + digits; fits(withSite) {
			return withSite
		}
	}
	if !fits(text) {
		return digits // a code of PocketBase's longest kind
	}
	return text
}

func fits(text string) bool {
	n, encoding := notifications.Segments(text)
	return n == 1 && encoding == notifications.EncodingGSM7
}

// maxName leaves room for the rest of the text.
const maxName = 30

// shortName leaves out what a telephone cannot show without doubling the price.
func shortName(name string) string {
	var b strings.Builder
	for _, r := range name {
		switch {
		case r == '\n' || r == '\r' || r == '\f':
			b.WriteByte(' ')
		case fits(string(r)):
			b.WriteRune(r)
		}
	}
	name = strings.Join(strings.Fields(b.String()), " ")
	if utf8.RuneCountInString(name) > maxName {
		name = strings.TrimSpace(string([]rune(name)[:maxName]))
	}
	return name
}
