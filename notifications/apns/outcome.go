package apns

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sideshow/apns2"

	"github.com/groundworkhq/groundwork/notifications"
)

// Reasons that apns2 does not know.
const (
	reasonUnrelatedKey      = "UnrelatedKeyIdInToken"
	reasonBadEnvironmentKey = "BadEnvironmentKeyIdInToken"
	// The same; it is seen on the line more often than the documented one.
	reasonBadEnvironmentKeyShort = "BadEnvironmentKeyInToken"
)

const (
	// maxRetryAfter bounds what a peer can ask for.
	maxRetryAfter = 24 * time.Hour
	// tokenRest is for a peer that finds our tokens too many.
	tokenRest = time.Minute
)

// result is Apple's answer as far as it was understood.
type result struct {
	status     int
	reason     string // empty: none, or not JSON
	timestamp  time.Time
	retryAfter time.Duration
	ownTopic   bool
	special    bool
}

// newResult reads an answer. What cannot be decoded keeps its status.
func newResult(c *call, sent *request, now time.Time) result {
	r := result{status: c.status, retryAfter: retryAfter(c.retryAfter, now), ownTopic: sent.ownTopic, special: sent.special}
	var body struct {
		Reason    string          `json:"reason"`
		Timestamp json.RawMessage `json:"timestamp"` // a number; some proxies make it a text
	}
	if len(c.answer) == 0 || json.Unmarshal(c.answer, &body) != nil {
		return r
	}
	if isBundleID(body.Reason) { // a word: anything else is not for our logs
		r.reason = body.Reason
	}
	if ms, err := strconv.ParseInt(strings.Trim(string(body.Timestamp), `"`), 10, 64); err == nil && ms > 0 {
		r.timestamp = time.UnixMilli(ms).UTC()
	}
	return r
}

// retryAfter reads the header: seconds or a date (RFC 9110, 10.2.3).
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	var d time.Duration
	if n, err := strconv.ParseUint(header, 10, 31); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// classify is the table of Apple's answers.
func classify(r result) notifications.Outcome {
	o := classifyReason(r)
	if o.Kind != notifications.Accepted {
		if o.Code = r.reason; o.Code == "" {
			o.Code = strconv.Itoa(r.status)
		}
	}
	if o.Kind == notifications.Retry && r.retryAfter > 0 {
		o.RetryAfter = r.retryAfter
	}
	return o
}

func classifyReason(r result) notifications.Outcome {
	if r.status == http.StatusOK {
		return notifications.Outcome{Kind: notifications.Accepted}
	}
	switch r.reason {
	case apns2.ReasonUnregistered:
		return gone(r, "The app was removed from this device, or its push token was replaced.")
	case apns2.ReasonExpiredToken:
		return gone(r, "The push token of this device has expired.")
	case apns2.ReasonBadDeviceToken:
		return suspect("Apple does not know this device token here: it is wrong, or of the other environment (production, sandbox).")
	case apns2.ReasonDeviceTokenNotForTopic:
		if r.special {
			return payloadBad("These device tokens are not for this push type, which may need tokens of its own: check pushType in the apns option.")
		}
		// A token is whatever a client sends: it alone can not make the provider's
		// topic wrong. If it is wrong, many devices say so, which is noticed.
		return suspect("This device token belongs to another app: check the bundle id of the provider and the app of the device.")
	case apns2.ReasonBadTopic, apns2.ReasonMissingTopic, apns2.ReasonTopicDisallowed:
		if r.special {
			return payloadBad("Apple does not let this key or certificate send this push type: check pushType in the apns option, and the app's rights.")
		}
		if !r.ownTopic {
			return suspect("Apple does not let this key or certificate send to the app that the device names.")
		}
		return configBad("Apple does not let this key or certificate send to the bundle id of this provider: check bundleId, and that the key is of the same team.")

	case apns2.ReasonBadCertificate:
		return configBad("Apple refused the certificate: it is expired, revoked or not for push. Make a new one, or use a .p8 key.")
	case apns2.ReasonBadCertificateEnvironment:
		return configBad("The certificate is for the other environment: check environment (production or sandbox).")
	case apns2.ReasonInvalidProviderToken:
		return configBad("Apple refused the key: check that keyId and teamId belong to it, and that it was not revoked.")
	case apns2.ReasonMissingProviderToken:
		return configBad("Apple found neither a certificate nor a token: give the .p8 key, or a certificate that is for push.")
	case apns2.ReasonForbidden:
		return configBad("Apple forbids this key or certificate to send: check its rights in the developer account.")
	case reasonUnrelatedKey:
		return configBad("The key belongs to another team or app than the first messages on this connection: check keyId, teamId and bundleId.")
	case reasonBadEnvironmentKey, reasonBadEnvironmentKeyShort:
		return configBad("The key is not allowed in this environment: check environment (production or sandbox), or make a key for both.")
	case apns2.ReasonExpiredProviderToken:
		return configBad("Apple calls a token expired that was made a moment ago: check this machine's clock.")

	case apns2.ReasonIdleTimeout:
		return retry("Apple closed the connection before it took the message.")
	case apns2.ReasonTooManyRequests:
		return retry("Apple got too many messages for this device in a row.")
	case apns2.ReasonTooManyProviderTokenUpdates:
		o := down("Apple got too many different tokens of this key: is it used by another server that makes its own?")
		o.RetryAfter = tokenRest
		return o
	case apns2.ReasonInternalServerError:
		return retry("Apple had an internal error.")
	case apns2.ReasonShutdown:
		return retry("This server of Apple's is shutting down.")
	case apns2.ReasonServiceUnavailable:
		return down("Apple's push service is not available at the moment.")

	case apns2.ReasonPayloadTooLarge:
		return payloadBad("Apple found the message too large: shorten the text or the data.")
	case apns2.ReasonPayloadEmpty:
		return payloadBad("Apple found the message empty: give it a text.")
	case apns2.ReasonBadCollapseID:
		return payloadBad("Apple refused the collapse id: it may have 64 bytes.")
	case apns2.ReasonBadExpirationDate:
		return payloadBad("Apple refused the time after which the message expires.")
	case apns2.ReasonBadMessageID:
		return payloadBad("Apple refused the id of the message.")
	case apns2.ReasonBadPriority:
		return payloadBad("Apple refused the priority.")
	case apns2.ReasonInvalidPushType:
		return payloadBad("Apple refused the push type: check pushType in the apns option.")
	case apns2.ReasonDuplicateHeaders, apns2.ReasonMissingDeviceToken, apns2.ReasonBadPath, apns2.ReasonMethodNotAllowed:
		return payloadBad("Apple could not read the request: if an endpoint is set, check that it passes requests on unchanged.")
	}
	return classifyStatus(r)
}

// classifyStatus is for reasons that are new, and for answers that are not
// Apple's at all, such as a proxy's page.
func classifyStatus(r result) notifications.Outcome {
	said := fmt.Sprintf(" (it said %d)", r.status)
	if r.reason != "" {
		said = fmt.Sprintf(" (it said %d %s)", r.status, r.reason)
	}
	switch {
	case r.status == http.StatusInternalServerError && r.reason != "":
		return retry("Apple had an internal error" + said + ".")
	case r.status >= 500:
		return down("The push service is not available at the moment" + said + ".")
	case r.status == http.StatusTooManyRequests:
		return retry("The push service asks to try again later" + said + ".")
	case r.reason == "":
		return notifications.Outcome{Kind: notifications.Ambiguous,
			Explanation: "Something that is not Apple answered" + said + ", so it is not known whether the message was sent: check the endpoint and proxies."}
	case r.status == http.StatusGone:
		return gone(r, "Apple says that this device token is not used any more"+said+".")
	case r.status == http.StatusForbidden || r.status == http.StatusUnauthorized:
		return configBad("Apple refused this key or certificate" + said + ".")
	case r.status >= 400:
		return payloadBad("Apple refused the message" + said + ".")
	default:
		return notifications.Outcome{Kind: notifications.Ambiguous,
			Explanation: "Apple's answer could not be understood" + said + ", so it is not known whether the message was sent."}
	}
}

func gone(r result, sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.TargetGone, GoneAt: r.timestamp, Explanation: sentence}
}

func suspect(sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.TargetGone, Suspect: true, Explanation: sentence}
}

func configBad(sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.ConfigBad, Explanation: sentence}
}

func payloadBad(sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.PayloadBad, Explanation: sentence}
}

func retry(sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.Retry, Explanation: sentence}
}

func down(sentence string) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.Retry, ProviderDown: true, Explanation: sentence}
}

// unsent is for a message that was not handed over because of its own fault.
func unsent(err error) notifications.Outcome {
	switch {
	case errors.Is(err, errBadToken):
		o := suspect("The device's token is not one that Apple gives out: the app has to register again.")
		o.Code = apns2.ReasonBadDeviceToken
		return o
	case errors.Is(err, errBadApp):
		o := suspect("The device names an app that is not a bundle id such as com.example.shop: the app has to register again.")
		o.Code = apns2.ReasonBadTopic
		return o
	default:
		return payloadBad("The message cannot be sent: " + err.Error() + ".")
	}
}

// unanswered is for a request without an answer.
func (p *Provider) unanswered(e *callError) notifications.Outcome {
	if isConfigReason(e.reason) {
		return classify(result{status: http.StatusForbidden, reason: e.reason})
	}
	var o notifications.Outcome
	switch {
	case e.left:
		o = notifications.Outcome{Kind: notifications.Ambiguous,
			Explanation: "The message was handed to " + p.peer + " and no answer came, so it is not known whether it was sent."}
	case errors.Is(e.err, errClosed):
		o = retry("The provider was changed, or the server is shutting down, before the message left.")
	case errors.Is(e.err, context.Canceled):
		o = retry("The sending was interrupted before the message left.")
	case e.refused:
		o = retry("The connection to " + p.peer + " was given up before the message was taken.")
	case e.down:
		o = p.unreached(e.err)
	default:
		o = retry("The message did not get its turn at " + p.peer + " in time.")
	}
	o.Code = e.reason
	return o
}

// isConfigReason: a connection that is ended for these is ended for everybody.
func isConfigReason(reason string) bool {
	switch reason {
	case apns2.ReasonBadCertificate, apns2.ReasonBadCertificateEnvironment:
		return true
	}
	return false
}

// unreached is for a connection that could not be opened.
func (p *Provider) unreached(err error) notifications.Outcome {
	var (
		dns       *net.DNSError
		invalid   x509.CertificateInvalidError
		unknown   x509.UnknownAuthorityError
		wrongName x509.HostnameError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		op        *net.OpError
	)
	switch {
	case errors.As(err, &unknown):
		return configBad(fmt.Sprintf("The certificate of %s is signed by an authority that this machine does not know: add it to the trusted ones (SSL_CERT_FILE), or find out who sits in between.", p.peer))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return configBad(fmt.Sprintf("The certificate of %s has expired or is not valid yet: renew it, and check this machine's clock. Trusted authorities are in SSL_CERT_FILE.", p.peer))
	case errors.As(err, &wrongName):
		return configBad(fmt.Sprintf("The certificate that was shown is not made out to %s: check the endpoint, and that nobody sits in between. Trusted authorities are in SSL_CERT_FILE.", p.peer))
	case errors.As(err, &invalid), errors.As(err, &verify):
		return configBad(fmt.Sprintf("The certificate of %s is not valid: check who issued it. Trusted authorities are in SSL_CERT_FILE.", p.peer))
	case errors.As(err, &record):
		return configBad(fmt.Sprintf("%s does not speak TLS on this port: check the endpoint.", upper(p.peer)))
	case errors.Is(err, errNoHTTP2), errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "no application protocol"):
		return configBad(fmt.Sprintf("%s does not speak HTTP/2: check the endpoint, and that no proxy sits in between.", upper(p.peer)))
	case errors.As(err, &op) && op.Op == "remote error" && p.signer == nil && strings.Contains(op.Err.Error(), "certificate"):
		return configBad(fmt.Sprintf("%s refused the certificate: it is expired, revoked or not for push. Make a new one, or use a .p8 key.", upper(p.peer)))
	case errors.As(err, &dns) && dns.IsNotFound && p.gateway:
		return configBad(fmt.Sprintf("%s does not exist: check the endpoint's spelling.", upper(p.peer)))
	default:
		return down(fmt.Sprintf("%s cannot be reached at the moment.", upper(p.peer)))
	}
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
