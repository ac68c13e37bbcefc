package email

import (
	"bytes"
	"fmt"
	"net/mail"
	"net/textproto"
	"net/url"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/groundworkhq/groundwork/notifications"
)

// ownHeaders are set here and cannot be set through Email.Headers.
var ownHeaders = map[string]bool{
	"From": true, "To": true, "Cc": true, "Bcc": true, "Subject": true, "Date": true, "Message-Id": true, "Reply-To": true,
	"Mime-Version": true, "Content-Type": true, "Content-Transfer-Encoding": true,
}

// build makes the message as it goes over the wire.
func build(m *notifications.Message, env *envelope) ([]byte, *fault) {
	raw, err := payload(m, env, time.Now())
	if err != nil {
		return nil, newFault(stageContent, err)
	}
	return raw, nil
}

func payload(m *notifications.Message, env *envelope, date time.Time) ([]byte, error) {
	content := m.Email
	if content == nil {
		content = &notifications.Email{Subject: m.Title, Text: m.Body}
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(clean(env.header))
	msg.ToMailAddress(clean(mail.Address{Name: m.Target.Name, Address: m.Target.Address}))
	for _, cc := range content.Cc {
		a, err := mail.ParseAddress(cc)
		if err != nil {
			return nil, errBadCopy
		}
		msg.AddCcMailAddress(clean(*a))
	}
	if content.ReplyTo != "" {
		a, err := mail.ParseAddress(content.ReplyTo)
		if err != nil {
			return nil, errBadReplyTo
		}
		msg.ReplyToMailAddress(clean(*a))
	}
	msg.Subject(oneLine(content.Subject))
	msg.SetDateWithValue(date)
	msg.SetMessageIDWithValue(strings.Trim(env.messageID, "<>"))
	for key, value := range content.Headers {
		name := textproto.CanonicalMIMEHeaderKey(key)
		if !validHeaderName(key) || strings.ContainsAny(value, "\r\n\x00") {
			return nil, fmt.Errorf("the header %q has a character that headers cannot have", strings.ToValidUTF8(key, "?"))
		}
		if ownHeaders[name] {
			return nil, fmt.Errorf("the header %s is made by the server and cannot be set", name)
		}
		msg.SetGenHeader(gomail.Header(name), value)
	}
	if m.Kind == notifications.KindPromotional {
		// Both headers or none, whatever else asked for them: a program that finds only
		// the first opens the link instead of posting to it.
		unsubscribe, err := listUnsubscribe(content)
		if err != nil {
			return nil, err
		}
		msg.SetGenHeader("List-Unsubscribe", unsubscribe)
		msg.SetGenHeader("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
	}

	text, html := withoutNul(content.Text), withoutNul(content.HTML)
	switch {
	case html == "":
		msg.SetBodyString(gomail.TypeTextPlain, text)
	case text == "":
		msg.SetBodyString(gomail.TypeTextHTML, html)
	default:
		msg.SetBodyString(gomail.TypeTextPlain, text)
		msg.AddAlternativeString(gomail.TypeTextHTML, html)
	}
	for _, a := range content.Attachments {
		name := oneLine(a.Name)
		if a.Inline {
			msg.EmbedReadSeeker(name, bytes.NewReader(a.Bytes), gomail.WithFileContentID(name))
			continue
		}
		msg.AttachReadSeeker(name, bytes.NewReader(a.Bytes))
	}
	var out bytes.Buffer
	if _, err := msg.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("it could not be put together (%w)", err)
	}
	return out.Bytes(), nil
}

// listUnsubscribe is the value of the header List-Unsubscribe.
func listUnsubscribe(content *notifications.Email) (string, error) {
	if content.Unsubscribe == "" || strings.ContainsFunc(content.Unsubscribe, func(r rune) bool { return r <= ' ' || r >= 127 || r == '<' || r == '>' }) {
		return "", errNoWayOut
	}
	value := "<" + content.Unsubscribe + ">"
	if content.UnsubscribeMailto != "" {
		to := url.URL{Scheme: "mailto", Opaque: url.PathEscape(content.UnsubscribeMailto), RawQuery: "subject=unsubscribe"}
		value += ", <" + to.String() + ">"
	}
	return value, nil
}

// clean makes an address fit for a header: a domain in its ASCII form needs no
// server that takes SMTPUTF8.
func clean(a mail.Address) *mail.Address {
	if ascii, _, err := asciiAddress(a.Address); err == nil {
		a.Address = ascii
	}
	return &mail.Address{Name: oneLine(a.Name), Address: a.Address}
}

// oneLine removes what would end a header line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\uFFFD"), func(r rune) bool {
		return r == '\r' || r == '\n' || r == 0
	}), " ")
}

func withoutNul(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

func validHeaderName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 127 || r == ':' })
}
