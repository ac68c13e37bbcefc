package fcm

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/groundworkhq/groundwork/notifications"
)

const (
	// quotaWait is what Google asks for when a quota is used up and it names no
	// time of its own.
	quotaWait = time.Minute

	// maxWait bounds what an answer can ask for.
	maxWait = 24 * time.Hour

	// freshToken is how young a refused token must be for the refusal to be about
	// the credentials. An older one may have been withdrawn: with the next one,
	// which the next message fetches, it shows.
	freshToken = time.Minute
)

// answer is what an error body of Google's holds.
type answer struct {
	readable  bool   // it is Google's JSON
	status    string // such as NOT_FOUND
	message   string
	code      string // of FCM's own detail, such as UNREGISTERED; empty without it
	reason    string // of google.rpc.ErrorInfo, such as SERVICE_DISABLED
	fields    []string
	malformed bool // google.rpc.BadRequest is there
	device    bool // the quota is one device's
	wait      time.Duration
}

func parseAnswer(header http.Header, body []byte, now time.Time) answer {
	a := answer{wait: retryAfter(header.Get("Retry-After"), now)}
	var raw struct {
		Error *struct {
			Status  string            `json:"status"`
			Message string            `json:"message"`
			Details []json.RawMessage `json:"details"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &raw) != nil || raw.Error == nil {
		return a
	}
	a.readable, a.status, a.message = true, raw.Error.Status, raw.Error.Message
	for _, one := range raw.Error.Details {
		var d struct {
			Type            string `json:"@type"`
			ErrorCode       string `json:"errorCode"`
			Reason          string `json:"reason"`
			RetryDelay      string `json:"retryDelay"`
			FieldViolations []struct {
				Field string `json:"field"`
			} `json:"fieldViolations"`
			Violations []struct {
				Subject     string `json:"subject"`
				Description string `json:"description"`
			} `json:"violations"`
		}
		if json.Unmarshal(one, &d) != nil {
			continue // a detail that is not understood hides no other
		}
		switch strings.TrimPrefix(d.Type, "type.googleapis.com/") {
		case "google.firebase.fcm.v1.FcmError":
			a.code = d.ErrorCode
		case "google.rpc.BadRequest":
			a.malformed = true
			for _, v := range d.FieldViolations {
				a.fields = append(a.fields, v.Field)
			}
		case "google.rpc.ErrorInfo":
			a.reason = d.Reason
		case "google.rpc.QuotaFailure":
			for _, v := range d.Violations {
				a.device = a.device || strings.Contains(strings.ToLower(v.Subject+" "+v.Description), "device")
			}
		case "google.rpc.RetryInfo":
			if wait, err := time.ParseDuration(d.RetryDelay); err == nil && a.wait == 0 {
				a.wait = min(max(wait, 0), maxWait)
			}
		}
	}
	return a
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

func configBad(code, format string, args ...any) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.ConfigBad, Code: code, Explanation: fmt.Sprintf(format, args...)}
}

func down(code string, wait time.Duration, format string, args ...any) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.Retry, ProviderDown: true, Code: code, RetryAfter: wait, Explanation: fmt.Sprintf(format, args...)}
}

func payloadBad(code, format string, args ...any) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.PayloadBad, Code: code, Explanation: fmt.Sprintf(format, args...)}
}

func ambiguous(code, sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.Ambiguous, Code: code, Explanation: sentence}
}

// outcome translates what happened. name and err are the SDK's; err decides only
// where the SDK refused the message before anything was sent.
func (p *Provider) outcome(x *exchange, name string, err error) notifications.Outcome {
	switch {
	case !x.begun:
		return payloadBad("", "Firebase's library refuses this message before it is sent: %s.", clip(fmt.Sprint(err)))
	case x.err != nil:
		return p.unanswered(x)
	case x.status == http.StatusOK:
		if err != nil || name == "" {
			return ambiguous("200", "Google took the message, but its answer could not be read, so it is not known whether it was sent.")
		}
		return notifications.Outcome{Kind: notifications.Accepted, ProviderMessageID: name}
	default:
		return p.refused(x)
	}
}

// unanswered is for what got no answer, or none to its end.
func (p *Provider) unanswered(x *exchange) notifications.Outcome {
	var noToken *tokenError
	switch {
	case errors.As(x.err, &noToken):
		return p.noToken(noToken)
	case x.left.Load():
		return ambiguous("", "The message was handed to Google and no answer came, so it is not known whether it was sent.")
	case errors.Is(x.err, context.Canceled):
		return notifications.Outcome{Kind: notifications.Retry, Explanation: "The message was called off before it was sent; it is tried again."}
	}
	return p.unreached(p.host, x.err)
}

// unreached is for a server that no request came through to.
func (p *Provider) unreached(host string, err error) notifications.Outcome {
	var (
		unknown   x509.UnknownAuthorityError
		wrongName x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		dns       *net.DNSError
	)
	switch {
	case errors.As(err, &unknown):
		return configBad("", "The certificate of %s is signed by an authority that this machine does not know: add it to the trusted ones (SSL_CERT_FILE).", host)
	case errors.As(err, &wrongName):
		return configBad("", "The certificate that %s shows is made out to another name: check the endpoint, and whatever stands between here and Google.", host)
	case errors.As(err, &invalid), errors.As(err, &verify):
		return configBad("", "The certificate of %s is not valid: check the endpoint and this machine's clock.", host)
	case errors.As(err, &record):
		return configBad("", "There is no encrypted connection to be had at %s: check the endpoint.", host)
	case errors.As(err, &dns):
		return down("", 0, "The name %s cannot be looked up at the moment.", host)
	case errors.Is(err, context.DeadlineExceeded):
		return down("", 0, "No connection to %s came about in time.", host)
	}
	return down("", 0, "%s cannot be reached at the moment.", capital(host))
}

func capital(host string) string {
	if host == "fcm.googleapis.com" || host == "oauth2.googleapis.com" {
		return "Google's server " + host
	}
	return "The server " + host
}

// noToken is for what Google, or whoever stands in for it, says to the service
// account.
func (p *Provider) noToken(e *tokenError) notifications.Outcome {
	host := p.tokenHost()
	if e.response == nil {
		if e.answered {
			return down("", 0, "The answer to the sign-in at %s could not be read.", host)
		}
		return p.unreached(host, e.err)
	}
	var said struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(e.response.Body, &said)
	status := 0
	var header http.Header
	if e.response.Response != nil {
		status, header = e.response.Response.StatusCode, e.response.Response.Header
	}
	code := strings.TrimSpace(fmt.Sprintf("%d %s", status, word(said.Error)))
	switch words := strings.ToLower(said.Description); {
	case status == http.StatusTooManyRequests || status >= 500 || status == http.StatusRequestTimeout:
		return down(code, retryAfter(header.Get("Retry-After"), p.now()), "Google does not sign the service account in at the moment.")
	case said.Error == "invalid_grant" && (strings.Contains(words, "short-lived") || strings.Contains(words, "iat") || strings.Contains(words, "exp")):
		return configBad(code, "Google refuses the service account's sign-in because of its time: set this machine's clock right.")
	case said.Error == "invalid_grant" && strings.Contains(words, "account not found"):
		return configBad(code, "The service account does not exist any more: make a new one in the Firebase console and paste its JSON.")
	case said.Error == "invalid_grant":
		return configBad(code, "Google refuses the service account's key, which may have been deleted or switched off: make a new key in the Firebase console and paste its JSON.")
	case said.Error == "invalid_client", said.Error == "unauthorized_client", said.Error == "invalid_scope", said.Error == "access_denied":
		return configBad(code, "Google does not let this service account send messages: give it the role Firebase Cloud Messaging API Admin, or paste the JSON of another one.")
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return configBad(code, "Google refuses the service account's sign-in: check that the account and its key are switched on.")
	case status == http.StatusNotFound, status/100 == 3:
		return configBad(code, "There is no sign-in at %s: check the service account's token_uri, or paste its JSON file unchanged.", host)
	case said.Error != "":
		return configBad(code, "Google refuses the service account's sign-in: paste its JSON file unchanged, or make a new key in the Firebase console.")
	}
	return down(code, 0, "The answer to the sign-in at %s could not be read.", host)
}

func (p *Provider) tokenHost() string {
	rest := p.tokens.config.TokenURL
	if _, after, ok := strings.Cut(rest, "://"); ok {
		rest = after
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// invalidToken is how FCM words the refusal of a token that never was one.
// INVALID_ARGUMENT alone may be about the content.
const invalidToken = "registration token is not a valid"

// refused is for an answer other than 200. FCM's own code goes before the status:
// the same status means other things without it.
func (p *Provider) refused(x *exchange) notifications.Outcome {
	a := parseAnswer(x.header, x.body, p.now())
	code := word(cmp.Or(a.code, a.status))
	if a.code == "" {
		code = strings.TrimSpace(fmt.Sprintf("%d %s", x.status, code))
	}
	switch a.code {
	case "UNREGISTERED":
		return notifications.Outcome{Kind: notifications.TargetGone, Code: code,
			Explanation: "The app was removed from this device, or its token was replaced by a new one."}
	case "SENDER_ID_MISMATCH":
		return notifications.Outcome{Kind: notifications.TargetGone, Suspect: true, Code: code,
			Explanation: "This device belongs to another Firebase project than " + p.project + ": if many do, check the project id."}
	case "INVALID_ARGUMENT":
		if strings.Contains(strings.ToLower(a.message), invalidToken) {
			return notifications.Outcome{Kind: notifications.TargetGone, Code: code, Explanation: "What the app sent as this device's token is none that Google knows."}
		}
		return badArgument(a, code)
	case "QUOTA_EXCEEDED":
		return p.quota(a, code)
	case "UNAVAILABLE":
		return down(code, a.wait, "Google's push service is overloaded at the moment.")
	case "INTERNAL":
		return notifications.Outcome{Kind: notifications.Retry, Code: code, RetryAfter: a.wait, Explanation: "Google's push service failed on this message; it is tried again."}
	case "THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR":
		return configBad(code, "Apple or the browser's push service refuses the credentials kept in the Firebase project %s: upload the APNs key, or the Web Push key pair, under Project settings > Cloud Messaging.", p.project)
	}
	switch {
	case x.status == http.StatusUnauthorized && x.tokenAge >= freshToken:
		return notifications.Outcome{Kind: notifications.Retry, Code: code, Explanation: "Google has ended the sign-in early; the message is tried again with a new one."}
	case x.status == http.StatusUnauthorized:
		return configBad(code, "Google does not accept the service account for the Firebase project %s: check the account, and that the project id is its own.", p.project)
	case a.reason == "SERVICE_DISABLED":
		return configBad(code, "The Firebase Cloud Messaging API is switched off in the project %s: switch it on in the Google Cloud console under APIs & Services.", p.project)
	case x.status == http.StatusForbidden:
		return configBad(code, "The service account may not send messages in the Firebase project %s: check the project id, or give the account the role Firebase Cloud Messaging API Admin.", p.project)
	case x.status == http.StatusNotFound:
		return configBad(code, "There is no Firebase project %s at %s: check the project id%s.", p.project, p.host, p.orEndpoint())
	case x.status/100 == 3 || x.status == http.StatusMethodNotAllowed || x.status == http.StatusProxyAuthRequired:
		return configBad(code, "What answers at %s is not Google's push service: check the endpoint, and whatever stands between here and Google.", p.host)
	case x.status == http.StatusTooManyRequests:
		return p.quota(a, code)
	case x.status == http.StatusRequestEntityTooLarge:
		return payloadBad(code, "The message is too large for Google: shorten its text or its data.")
	case x.status == http.StatusBadRequest && a.readable:
		return badArgument(a, code)
	case x.status == http.StatusInternalServerError && a.readable:
		return notifications.Outcome{Kind: notifications.Retry, Code: code, RetryAfter: a.wait, Explanation: "Google's push service failed on this message; it is tried again."}
	case x.status/100 == 2:
		return ambiguous(code, "Google took the message, but its answer could not be read, so it is not known whether it was sent.")
	}
	return down(code, a.wait, "Google's push service, or something between here and it, is out of order at the moment.")
}

func (p *Provider) orEndpoint() string {
	if p.host == "fcm.googleapis.com" {
		return ""
	}
	return " and the endpoint"
}

// quota tells the quota of one device, which concerns nobody else, from those of
// the project.
func (p *Provider) quota(a answer, code string) notifications.Outcome {
	wait := cmp.Or(a.wait, quotaWait)
	if a.device {
		return notifications.Outcome{Kind: notifications.Retry, Code: code, RetryAfter: wait, Explanation: "This device gets more messages than Google delivers to one device; it is tried again later."}
	}
	return down(code, wait, "The Firebase project %s sends more than Google lets it send a minute; sending goes on when it may.", p.project)
}

func badArgument(a answer, code string) notifications.Outcome {
	words := strings.ToLower(a.message)
	switch {
	case len(a.fields) > 0 && fieldPattern.MatchString(a.fields[0]):
		return payloadBad(code, "Google does not accept the message's field %s: check the options and the data.", strings.TrimPrefix(a.fields[0], "message."))
	case strings.Contains(words, "too big") || strings.Contains(words, "too large"):
		return payloadBad(code, "The message is too large for Google: shorten its text or its data.")
	}
	return payloadBad(code, "Google does not accept this message: check its options, link and image.")
}

// fieldPattern keeps a field's name apart from a value that somebody put there.
var fieldPattern = regexp.MustCompile(`^[a-z_A-Z0-9.\[\]]{1,80}$`)

var wordPattern = regexp.MustCompile(`^[A-Za-z_]{1,60}$`)

// word lets a code through and nothing else: what stands in an answer may be
// anybody's.
func word(s string) string {
	if wordPattern.MatchString(s) {
		return s
	}
	return ""
}
