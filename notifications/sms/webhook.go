package sms

import (
	"crypto/hmac"
	"crypto/sha1" // what Twilio signs with
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/groundworkhq/groundwork/notifications"
)

// InboundPath is where, below the public address, the texts that people send to a
// sender go. It is entered in Twilio's console.
const InboundPath = "/api/webhooks/twilio/inbound"

// ValidSignature says whether a form was signed with an auth token for an address
// (X-Twilio-Signature). The address is the one that Twilio was given, with its
// query.
//
// The library's own check takes only the first value of a key that is repeated.
//
// https://www.twilio.com/docs/usage/security#validating-requests
func ValidSignature(token, address string, form url.Values, signature string) bool {
	given, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || token == "" || len(given) != sha1.Size {
		return false
	}
	keys := make([]string, 0, len(form))
	for key := range form {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var signed strings.Builder
	for _, key := range keys {
		values := slices.Clone(form[key])
		slices.Sort(values)
		for _, value := range slices.Compact(values) {
			signed.WriteString(key)
			signed.WriteString(value)
		}
	}
	valid := false
	for _, variant := range variants(address) {
		mac := hmac.New(sha1.New, []byte(token))
		_, _ = mac.Write([]byte(variant + signed.String()))
		valid = hmac.Equal(mac.Sum(nil), given) || valid
	}
	return valid
}

// variants are the ways in which Twilio may have written an address down: with or
// without the scheme's own port, and with what we put behind it for Twilio itself.
func variants(address string) []string {
	all := []string{address}
	if scheme, rest, ok := strings.Cut(address, "://"); ok {
		host, path := rest, ""
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			host, path = rest[:i], rest[i:]
		}
		port := map[string]string{"https": ":443", "http": ":80"}[scheme]
		switch {
		case port == "":
		case strings.HasSuffix(host, port):
			all = append(all, scheme+"://"+strings.TrimSuffix(host, port)+path)
		case !strings.Contains(host[strings.LastIndexByte(host, ']')+1:], ":"):
			all = append(all, scheme+"://"+host+port+path)
		}
	}
	for _, a := range all[:len(all):len(all)] {
		all = append(all, a+callbackRetries)
	}
	return all
}

// ParseStatus reads the form of a status callback. ok is false when it says
// nothing about a message that was sent. The delivery id is in the query.
func ParseStatus(form url.Values) (r notifications.Receipt, ok bool) {
	code, _ := strconv.Atoi(form.Get("ErrorCode"))
	status := form.Get("MessageStatus")
	if status == "" {
		status = form.Get("SmsStatus")
	}
	r, ok = NewReceipt(status, code)
	r.ProviderMessageID, r.Address = messageSID(form), form.Get("To")
	return r, ok && r.ProviderMessageID != ""
}

func messageSID(form url.Values) string {
	if sid := form.Get("MessageSid"); sid != "" {
		return sid
	}
	return form.Get("SmsSid")
}

// Word is what a person asks of a sender.
type Word int

// Words that mean something to Twilio.
const (
	WordNone  Word = iota
	WordStop       // no more messages
	WordStart      // messages again
	WordHelp       // who is this? Twilio answers itself
)

var words = map[string]Word{
	"STOP": WordStop, "UNSUBSCRIBE": WordStop, "END": WordStop, "QUIT": WordStop, "STOPALL": WordStop, "REVOKE": WordStop,
	"OPTOUT": WordStop, "CANCEL": WordStop,
	"START": WordStart, "YES": WordStart, "UNSTOP": WordStart,
	"HELP": WordHelp, "INFO": WordHelp,
}

// Inbound is a text that a person sent to one of our senders.
type Inbound struct {
	SID, From, To string
	Service       string // of the number that was written to; may be empty
	Word          Word
}

// ParseInbound reads the form of an inbound text.
//
// What Twilio itself understood (OptOutType, with Advanced Opt-Out, whose words
// can be chosen) goes before our reading. A text counts only as a whole: "please
// don't stop" is none.
func ParseInbound(form url.Values) Inbound {
	in := Inbound{SID: messageSID(form), From: form.Get("From"), To: form.Get("To"), Service: form.Get("MessagingServiceSid")}
	said := form.Get("OptOutType")
	if said == "" {
		said = form.Get("Body")
	}
	if len(said) > 100 {
		return in
	}
	// "Stop.", "OPT-OUT" and "stop all" are written by people too.
	in.Word = words[strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToUpper(r)
		}
		return -1
	}, said)]
	return in
}
