package apns

import (
	"crypto/tls"
	"time"

	"github.com/groundworkhq/groundwork/notifications"
)

// Timing of a test's connections; zero fields keep their default.
type Timing struct {
	Dial, Quiet, IdlePing, PingTimeout, Idle, Growth time.Duration
}

// Tune changes a provider before its first message.
func Tune(a notifications.Adapter, t Timing) {
	p := a.(*Provider)
	for _, l := range []*link{p.production, p.sandbox} {
		for _, set := range []struct {
			to    *time.Duration
			value time.Duration
		}{
			{&l.timing.dial, t.Dial}, {&l.timing.quiet, t.Quiet}, {&l.timing.idlePing, t.IdlePing}, {&l.timing.pingTimeout, t.PingTimeout},
			{&l.timing.idle, t.Idle}, {&l.timing.growth, t.Growth},
		} {
			if set.value > 0 {
				*set.to = set.value
			}
		}
	}
}

// LimitStreamIDs makes the stream ids of a connection end early.
func LimitStreamIDs(a notifications.Adapter, last uint32) {
	p := a.(*Provider)
	p.production.lastID, p.sandbox.lastID = last, last
}

// Sent is what a message becomes.
type Sent struct {
	Topic, PushType, Priority, Expiration, CollapseID, ID string
	OwnTopic                                              bool
	Payload                                               string
}

// Request translates a message.
func Request(m *notifications.Message, bundleID string) (Sent, error) {
	r, err := newRequest(m, bundleID)
	if err != nil {
		return Sent{}, err
	}
	return Sent{Topic: r.topic, PushType: r.pushType, Priority: r.priority, Expiration: r.expiration, CollapseID: r.collapseID, ID: r.id,
		OwnTopic: r.ownTopic, Payload: string(r.body)}, nil
}

// ReadCertificate reads a certificate's secret at a certain time.
func ReadCertificate(secret string, now time.Time) (tls.Certificate, error) {
	return readCertificate(secret, now)
}

// UseSandbox gives a provider two hosts, as Apple has: its own for production,
// and that of another one for sandbox.
func UseSandbox(a, sandbox notifications.Adapter) {
	p := a.(*Provider)
	p.sandbox, p.gateway = sandbox.(*Provider).production, false
}

// RetryAfter reads the header.
func RetryAfter(header string, now time.Time) time.Duration { return retryAfter(header, now) }

// Signer makes tokens with a clock of the test's.
type Signer struct{ s *signer }

// NewSigner takes a provider's key.
func NewSigner(a notifications.Adapter, now func() time.Time) Signer {
	t := &a.(*Provider).signer.token
	s := newSigner(t.AuthKey, t.KeyID, t.TeamID)
	s.now = now
	return Signer{s}
}

// Authorization is the header to send.
func (s Signer) Authorization() (string, error) { return s.s.authorization() }

// Renewed replaces a header that was called expired.
func (s Signer) Renewed(expired string) (string, bool) { return s.s.renewed(expired) }

// SharesTokens reports whether two providers send the same tokens.
func SharesTokens(a, b notifications.Adapter) bool {
	return a.(*Provider).signer == b.(*Provider).signer
}
