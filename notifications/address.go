package notifications

import (
	"errors"
	"net/mail"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

var (
	// ErrBadPhone means that a text is not an international phone number.
	ErrBadPhone = errors.New("this is not a phone number with its country code; write it like +4915112345678")

	// ErrBadEmail means that a text is not an e-mail address.
	ErrBadEmail = errors.New("this is not an e-mail address; write it like name@example.com")
)

// NormalizePhone returns a phone number in E.164, such as "+4915112345678". It
// accepts the spaces, dots, dashes and brackets that people write, and asks for
// the country code, because there is no country to guess from. The number has to
// be possible, which is a matter of its country and length; whether it is in use
// only a code can tell. The error is [ErrBadPhone].
func NormalizePhone(phone string) (string, error) {
	phone = strings.TrimSpace(phone)
	// Parse also reads "tel:" links, extensions and letters, which are no way to
	// write an address.
	if !strings.HasPrefix(phone, "+") || strings.Trim(phone[1:], "0123456789 .-()/\u00a0") != "" {
		return "", ErrBadPhone
	}
	n, err := phonenumbers.Parse(phone, "")
	if err != nil || phonenumbers.IsPossibleNumberWithReason(n) != phonenumbers.IS_POSSIBLE {
		return "", ErrBadPhone
	}
	out := phonenumbers.Format(n, phonenumbers.E164)
	// E.164 ends at 15 digits; some countries' plans are written with more.
	if len(out) > len("+")+15 {
		return "", ErrBadPhone
	}
	// A row of zeros loses one at each reading: there is no one form of it.
	if again, err := phonenumbers.Parse(out, ""); err != nil || phonenumbers.Format(again, phonenumbers.E164) != out {
		return "", ErrBadPhone
	}
	return out, nil
}

// NormalizeAddress returns address in the one form in which it is stored in and
// looked up from the suppression list: lower case for e-mail, E.164 for SMS,
// trimmed for the rest. The error is [ErrBadEmail] or [ErrBadPhone].
func NormalizeAddress(channel Channel, address string) (string, error) {
	address = strings.TrimSpace(address)
	switch channel {
	case ChannelEmail:
		parsed, err := mail.ParseAddress(address)
		if err != nil || parsed.Address != address {
			return "", ErrBadEmail
		}
		return strings.ToLower(address), nil
	case ChannelSMS:
		return NormalizePhone(address)
	default:
		return address, nil
	}
}
