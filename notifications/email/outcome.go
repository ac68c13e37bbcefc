package email

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/groundworkhq/groundwork/notifications"
)

// stage is how far a session came: the same reply means different things at
// different stages.
type stage int

const (
	stageContent  stage = iota // before any connection: the message itself
	stageDial                  // no connection
	stageTLS                   // STARTTLS or the handshake
	stageGreeting              // greeting and EHLO
	stageAuth                  // sign-in
	stageMail                  // MAIL FROM
	stageRcpt                  // RCPT TO
	stageData                  // DATA, up to but not including the final dot
	stageSent                  // after the final dot: the server may have the mail
)

var (
	errNoStartTLS   = errors.New("the server does not offer STARTTLS")
	errNoAuth       = errors.New("the server does not offer a sign-in that can be used")
	errOpenPassword = errors.New("the password would travel unencrypted")
	errNoUTF8       = errors.New("the server does not take addresses with such characters")
	errBadAddress   = errors.New("not an e-mail address")
	errBadSender    = errors.New("its sender (from) is not an e-mail address")
	errBadCopy      = errors.New("one of its copies (cc, bcc) does not go to an e-mail address")
	errBadReplyTo   = errors.New("the address to reply to is not an e-mail address")
	errNoWayOut     = errors.New("it is promotional and has no unsubscribe link")
)

// fault is why a mail was not handed over.
type fault struct {
	stage  stage
	err    error
	reply  *textproto.Error // nil when the server did not answer
	copies bool             // the refused recipient is a Cc or Bcc
}

func newFault(st stage, err error) *fault {
	f := &fault{stage: st, err: err}
	_ = errors.As(err, &f.reply)
	return f
}

func (f *fault) connectionLost() bool { return f.reply == nil && !f.timedOut() }

// closing says that the server ends the session, whatever was asked.
func (f *fault) closing() bool { return f.reply != nil && f.reply.Code == 421 }

func (f *fault) timedOut() bool {
	var timeout net.Error
	return errors.Is(f.err, context.DeadlineExceeded) || errors.Is(f.err, os.ErrDeadlineExceeded) || errors.As(f.err, &timeout) && timeout.Timeout()
}

// enhancedPattern finds the enhanced status code at the start of a reply.
var enhancedPattern = regexp.MustCompile(`^([245])\.(\d{1,3})\.(\d{1,3})\b`)

// enhanced returns the subject and detail of the enhanced code, such as "7.1";
// empty when the server gave none.
func (f *fault) enhanced() string {
	if f.reply == nil {
		return ""
	}
	m := enhancedPattern.FindStringSubmatch(strings.TrimSpace(f.reply.Msg))
	if m == nil {
		return ""
	}
	return m[2] + "." + m[3]
}

// code is what is stored for the curious: "550 5.1.1".
func (f *fault) code() string {
	if f.reply == nil {
		return ""
	}
	if m := enhancedPattern.FindString(strings.TrimSpace(f.reply.Msg)); m != "" {
		return fmt.Sprintf("%d %s", f.reply.Code, m)
	}
	return fmt.Sprint(f.reply.Code)
}

// greylistWait is how long servers that greylist want to be left alone.
const greylistWait = 5 * time.Minute

// outcome translates a fault. The sentences go to the owner: no address, no
// password, and of the server's words only the code.
func (p *Provider) outcome(f *fault) notifications.Outcome {
	o := p.classify(f)
	o.Code = f.code()
	return o
}

func (p *Provider) classify(f *fault) notifications.Outcome {
	config := func(format string, args ...any) notifications.Outcome {
		return notifications.Outcome{Kind: notifications.ConfigBad, Explanation: fmt.Sprintf(format, args...)}
	}
	down := func(format string, args ...any) notifications.Outcome {
		return notifications.Outcome{Kind: notifications.Retry, ProviderDown: true, Explanation: fmt.Sprintf(format, args...)}
	}
	temporary, permanent := f.reply != nil && f.reply.Code/100 == 4, f.reply != nil && f.reply.Code/100 == 5
	said := ""
	if code := f.code(); code != "" {
		said = " (it said " + code + ")"
	}

	switch {
	case errors.Is(f.err, context.Canceled) && f.stage != stageSent:
		// We stopped, not the server: nothing is said against it.
		return notifications.Outcome{Kind: notifications.Retry, Explanation: "Sending was stopped before this message was handed over."}
	case f.closing():
		return down("The mail server %s is closing down or busy%s.", p.host, said)
	}
	switch f.stage {
	case stageContent:
		return notifications.Outcome{Kind: notifications.PayloadBad, Explanation: "The message cannot be sent: " + f.err.Error() + "."}
	case stageDial:
		var dns *net.DNSError
		if errors.As(f.err, &dns) && dns.IsNotFound {
			return config("The mail server %s does not exist: check the host's spelling.", p.host)
		}
		return down("The mail server %s:%d cannot be reached at the moment.", p.host, p.port)
	case stageTLS:
		return p.classifyTLS(f, config, down)
	case stageGreeting:
		var garbage textproto.ProtocolError
		switch {
		case permanent:
			return config("The mail server %s refuses connections from here%s.", p.host, said)
		case errors.As(f.err, &garbage):
			return config("What answers at %s:%d is not a mail server: check the host and the port.", p.host, p.port)
		case f.timedOut() && p.port == 465 && p.mode != tlsImplicit:
			return down("The mail server %s says nothing: port 465 is for tls set to tls.", p.host)
		}
		return down("The mail server %s does not take mail at the moment%s.", p.host, said)
	case stageAuth:
		switch {
		case errors.Is(f.err, errNoAuth):
			return config("The mail server %s offers no sign-in that can be used: check the port and tls, or leave the user name empty.", p.host)
		case errors.Is(f.err, errOpenPassword):
			return config("The password would travel unencrypted to %s: set tls to starttls or tls.", p.host)
		case permanent:
			return config("The mail server %s refused the user name or password%s: correct them.", p.host, said)
		}
		return down("The mail server %s could not check the sign-in at the moment%s.", p.host, said)
	case stageMail:
		switch {
		case temporary:
			return down("The mail server %s does not take mail from this sender at the moment%s.", p.host, said)
		case permanent && f.reply.Code == 530:
			return config("The mail server %s asks for a sign-in%s: set the user name and password.", p.host, said)
		case permanent && (f.reply.Code == 552 || f.enhanced() == "3.4"):
			return notifications.Outcome{Kind: notifications.PayloadBad, Explanation: "The message is too large for the mail server" + said + "."}
		case permanent:
			return config("The mail server %s does not accept the sender's address%s: use one that belongs to this account.", p.host, said)
		}
		return down("The connection to the mail server %s broke off before the message was taken.", p.host)
	case stageRcpt:
		return p.classifyRecipient(f, config, down, said)
	case stageData:
		if permanent {
			return p.classifyContent(f, config, said)
		}
		if temporary {
			return notifications.Outcome{Kind: notifications.Retry, Explanation: "The mail server " + p.host + " asks to try again later" + said + "."}
		}
		return down("The connection to the mail server %s broke off before the message was complete.", p.host)
	default: // stageSent
		switch {
		case temporary:
			return notifications.Outcome{Kind: notifications.Retry, Explanation: "The mail server " + p.host + " asks to try again later" + said + "."}
		case permanent:
			return p.classifyContent(f, config, said)
		}
		return notifications.Outcome{Kind: notifications.Ambiguous,
			Explanation: "The message was handed to the mail server and the connection broke off before it answered, so it is not known whether it was sent."}
	}
}

func (p *Provider) classifyTLS(f *fault, config, down func(string, ...any) notifications.Outcome) notifications.Outcome {
	var (
		invalid   x509.CertificateInvalidError
		unknown   x509.UnknownAuthorityError
		wrongName x509.HostnameError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case errors.Is(f.err, errNoStartTLS):
		return config("The mail server %s:%d does not offer encryption (STARTTLS): check the port, or set tls to none if you trust the line.", p.host, p.port)
	case errors.As(f.err, &invalid) && invalid.Reason == x509.Expired:
		return config("The certificate of the mail server %s has expired or is not valid yet: renew it, and check this machine's clock.", p.host)
	case errors.As(f.err, &unknown):
		return config("The certificate of the mail server %s is signed by an authority that this machine does not know: add it to the trusted ones (SSL_CERT_FILE).", p.host)
	case errors.As(f.err, &wrongName):
		return config("The certificate of the mail server is not made out to %s: use the name that stands in it.", p.host)
	case errors.As(f.err, &invalid), errors.As(f.err, &verify):
		return config("The certificate of the mail server %s is not valid.", p.host)
	case errors.As(f.err, &record):
		return config("The mail server %s:%d does not speak TLS on this port: set tls to starttls, or use port 465.", p.host, p.port)
	case errors.As(f.err, &alert):
		return config("The mail server %s refused the encrypted connection.", p.host)
	case f.reply != nil && f.reply.Code/100 == 5:
		return config("The mail server %s refused encryption (STARTTLS).", p.host)
	}
	return down("The encrypted connection to the mail server %s broke off.", p.host)
}

func (p *Provider) classifyRecipient(f *fault, config, down func(string, ...any) notifications.Outcome, said string) notifications.Outcome {
	blocked := func(sentence string) notifications.Outcome {
		return notifications.Outcome{Kind: notifications.RecipientBlocked, Explanation: sentence}
	}
	switch {
	case errors.Is(f.err, errBadAddress):
		return blocked("This is not a complete e-mail address.")
	case errors.Is(f.err, errNoUTF8):
		return blocked("The mail server does not take addresses with such characters before the @.")
	case f.reply == nil:
		return down("The connection to the mail server %s broke off before the message was taken.", p.host)
	}
	words := strings.ToLower(f.reply.Msg)
	switch code, enhanced := f.reply.Code, f.enhanced(); {
	case code/100 == 4:
		o := notifications.Outcome{Kind: notifications.Retry, Explanation: "The mail server asks to try this recipient again later" + said + "."}
		if code == 450 || code == 451 || strings.Contains(words, "greylist") {
			o.RetryAfter = greylistWait
		}
		return o
	case code == 530:
		return config("The mail server %s asks for a sign-in%s: set the user name and password.", p.host, said)
	case strings.Contains(words, "relay"):
		// The server sends nothing for us to other domains: nobody would get it.
		return config("The mail server %s does not send to other domains for this account%s: check the user name and the sender.", p.host, said)
	case strings.HasPrefix(enhanced, "7.") && !isMailboxPolicy(enhanced):
		return config("The mail server %s refuses to send for this account%s.", p.host, said)
	case f.copies:
		return blocked("The mail server refused one of the copies (cc, bcc)" + said + ".")
	case strings.HasPrefix(enhanced, "2."):
		return blocked("The recipient's mailbox is full or closed" + said + ".")
	default:
		return blocked("The mail server refused this address: it does not exist or takes no mail" + said + ".")
	}
}

// isMailboxPolicy tells a recipient's own policy (5.7.1, the code of choice for
// "this mailbox does not want mail from you") from one against the sender
// (5.7.0, 5.7.8, 5.7.9, 5.7.26 and so on).
func isMailboxPolicy(enhanced string) bool { return enhanced == "7.1" || enhanced == "7.2" }

// classifyContent is for a mail that was refused for what it says.
func (p *Provider) classifyContent(f *fault, config func(string, ...any) notifications.Outcome, said string) notifications.Outcome {
	switch enhanced := f.enhanced(); {
	case f.reply.Code == 530 || enhanced == "7.0" && strings.Contains(strings.ToLower(f.reply.Msg), "auth"):
		return config("The mail server %s asks for a sign-in%s: set the user name and password.", p.host, said)
	case enhanced == "7.23" || enhanced == "7.24" || enhanced == "7.25" || enhanced == "7.26" || enhanced == "7.27" || enhanced == "7.20" || enhanced == "7.22":
		return config("The mail server %s refuses the sender's domain, because its SPF, DKIM or DMARC records do not allow this server%s.", p.host, said)
	case f.reply.Code == 552 || enhanced == "3.4" || enhanced == "2.3":
		return notifications.Outcome{Kind: notifications.PayloadBad, Explanation: "The message is too large for the mail server" + said + "."}
	case strings.HasPrefix(enhanced, "1.") || strings.HasPrefix(enhanced, "2."):
		return notifications.Outcome{Kind: notifications.RecipientBlocked, Explanation: "The mail server refused this address: it does not exist or takes no mail" + said + "."}
	default:
		return notifications.Outcome{Kind: notifications.PayloadBad, Explanation: "The mail server refused the content, perhaps as spam" + said + "."}
	}
}
