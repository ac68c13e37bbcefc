package webpush

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/groundworkhq/groundwork/notifications"
)

// maxWait bounds what an answer can ask for.
const maxWait = 24 * time.Hour

var calledOff = notifications.Outcome{Kind: notifications.Retry, Explanation: "The message was called off before it was sent; it is tried again."}

// unsent is for a message that was not handed over because of its own fault.
func unsent(err error) notifications.Outcome {
	switch {
	case errors.Is(err, errBadSubscription), errors.Is(err, ErrNotHTTPS):
		return gone("", "What is stored for this device is not a browser's push subscription: the page has to subscribe again.")
	case errors.Is(err, ErrPrivate):
		return suspect("", "The push address of this device "+ErrPrivate.Error()+", where nothing is sent: a gateway of your own has to be named in WEBPUSH_PRIVATE_HOSTS.")
	default:
		return payloadBad("", "The message cannot be sent: "+err.Error()+".")
	}
}

// big are the push services of the usual browsers. What they answer cannot be
// somebody's who is signed in here.
var big = []string{"fcm.googleapis.com", ".push.services.mozilla.com", ".push.apple.com", ".notify.windows.com"}

// isBelieved says whether an answer of this origin may be about us, and not only
// about the device that named it.
func (p *Provider) isBelieved(origin *url.URL) bool {
	host := origin.Hostname()
	if isListed(p.privateHosts, host, portOf(origin)) {
		return true
	}
	if origin.Port() != "" {
		return false
	}
	for _, name := range big {
		if host == name || name[0] == '.' && strings.HasSuffix(host, name) {
			return true
		}
	}
	return false
}

// answered is the table of the push services' answers.
func (p *Provider) answered(r *request, resp *http.Response, body []byte) notifications.Outcome {
	code := strconv.Itoa(resp.StatusCode)
	if reason := reasonOf(body); reason != "" {
		code += " " + reason
	}
	host := r.origin.Hostname()
	wait := retryAfter(resp.Header.Get("Retry-After"), p.now())
	switch status := resp.StatusCode; {
	case status/100 == 2:
		return notifications.Outcome{Kind: notifications.Accepted, ProviderMessageID: messageID(resp)}
	case status == http.StatusNotFound, status == http.StatusGone:
		return gone(code, "The browser's subscription has ended: it was switched off, replaced, or not used for long.")
	case status == http.StatusRequestEntityTooLarge && p.isBelieved(r.origin):
		return payloadBad(code, "The push service "+host+" finds the message too large: shorten the text or the data.")
	case status == http.StatusRequestEntityTooLarge:
		return notifications.Outcome{Kind: notifications.RecipientBlocked, Code: code, Explanation: "The push service of this browser takes no message of this length."}
	case status == http.StatusTooManyRequests:
		return retry(code, wait, "The push service got too many messages for this browser in a row; it is tried again later.")
	case status == http.StatusBadRequest, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return p.refused(r, resp, code, strings.ToLower(string(body)))
	case status >= 500, status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return retry(code, wait, "The push service of this browser is out of order at the moment; it is tried again.")
	default:
		return suspect(code, fmt.Sprintf("What answers at this device's push address is not a push service (it said %d).", status))
	}
}

// refused is for 400, 401 and 403. Whether all messages would be refused, or this
// subscription was made for other keys, stands in the text if anywhere: each push
// service has words of its own. A refusal in other words concerns the device; when
// many devices are refused at once, package notifications pauses the provider and
// retires none.
func (p *Provider) refused(r *request, resp *http.Response, code, words string) notifications.Outcome {
	host := r.origin.Hostname()
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(words, part) {
				return true
			}
		}
		return false
	}
	if has("do not correspond", "vapidpkhashmismatch", "mismatch") {
		return suspect(code, "This browser subscribed with other Web Push keys than this server's: the page has to subscribe again.")
	}
	if !p.isBelieved(r.origin) || !has("invalid jwt", "badjwttoken", "invalid vapid", "unauthorizedregistration") {
		return suspect(code, "The push service refuses messages for this browser: the page has to subscribe again.")
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		if off := p.now().Sub(date).Abs(); off > time.Hour {
			return configBad(code, "The push service %s refuses this server's signature because of its time: this machine's clock is off by %s, set it right.", host, off.Round(time.Minute))
		}
	}
	return configBad(code, "The push service %s refuses this server's signature: set WEBPUSH_SUBJECT to an e-mail or https address with a domain of your own.", host)
}

// unanswered is for what got no answer.
func (p *Provider) unanswered(ctx context.Context, c *courier, r *request, err error) notifications.Outcome {
	var (
		private *privateAddress
		verify  *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		dns     *net.DNSError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case !c.begun: // the library found fault with the keys
		return unsent(errBadSubscription)
	case c.left.Load():
		return notifications.Outcome{Kind: notifications.Ambiguous, Explanation: "The message was handed to the push service and no answer came, so it is not known whether it was sent."}
	case errors.As(err, &private):
		return suspect("", "The push address of this device "+ErrPrivate.Error()+", where nothing is sent: a gateway of your own has to be named in WEBPUSH_PRIVATE_HOSTS.")
	case errors.Is(ctx.Err(), context.Canceled):
		return calledOff
	case errors.As(err, &unknown) && p.isBelieved(r.origin):
		return configBad("", "The certificate of %s is signed by an authority that this machine does not know: add it to the trusted ones (SSL_CERT_FILE).", r.origin.Hostname())
	case errors.As(err, &verify), errors.As(err, &record):
		return retry("", 0, "There is no trustworthy connection to the push service of this browser at the moment; it is tried again.")
	case errors.As(err, &dns):
		return retry("", 0, "The name of this browser's push service cannot be looked up at the moment; it is tried again.")
	}
	return retry("", 0, "The push service of this browser cannot be reached at the moment; it is tried again.")
}

func gone(code, sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.TargetGone, Code: code, Explanation: sentence}
}

func suspect(code, sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.TargetGone, Suspect: true, Code: code, Explanation: sentence}
}

func payloadBad(code, sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.PayloadBad, Code: code, Explanation: sentence}
}

func configBad(code, format string, args ...any) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.ConfigBad, Code: code, Explanation: fmt.Sprintf(format, args...)}
}

func retry(code string, wait time.Duration, sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.Retry, Code: code, RetryAfter: wait, Explanation: sentence}
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if value = strings.TrimSpace(value); value == "" {
		return 0
	}
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return min(max(time.Duration(seconds)*time.Second, 0), maxWait)
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(date.Sub(now), 0), maxWait)
	}
	return 0
}

// messageID is how the push service calls the message: Apple's header, or the end
// of the address that the standard gives each message.
func messageID(resp *http.Response) string {
	id := resp.Header.Get("apns-id")
	if id == "" {
		location := resp.Header.Get("Location")
		id = location[strings.LastIndexByte(location, '/')+1:]
	}
	if len(id) > 200 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return id
}

var reasonPattern = regexp.MustCompile(`^[A-Za-z0-9]{1,40}$`)

// reasonOf is the code in a JSON answer, Apple's word or Mozilla's number. Nothing
// else of an answer goes into a log: it may be anybody's.
func reasonOf(body []byte) string {
	var said struct {
		Reason string      `json:"reason"`
		Errno  json.Number `json:"errno"`
	}
	if json.Unmarshal(body, &said) != nil {
		return ""
	}
	for _, reason := range []string{said.Reason, said.Errno.String()} {
		if reasonPattern.MatchString(reason) {
			return reason
		}
	}
	return ""
}
