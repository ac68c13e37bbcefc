package apns

import (
	"context"
	"crypto/elliptic"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/certificate"
	"github.com/sideshow/apns2/token"
	"golang.org/x/crypto/pkcs12"

	"github.com/groundworkhq/groundwork/notifications"
)

// maxInFlight is the most requests at a time: more would wait in Apple's queue
// instead of ours.
const maxInFlight = 1000

// The values of the config key "environment", and of a device's.
const (
	production = "production" // the default
	sandbox    = "sandbox"
)

// nobody is a device token that no device has: [Provider.Check] asks for it.
var nobody = strings.Repeat("0", 64)

// Provider sends by one key or certificate. It is safe for concurrent use.
type Provider struct {
	bundleID    string
	environment string
	peer        string  // what it is called in sentences
	gateway     bool    // not Apple's own host
	path        string  // before the device token
	signer      *signer // nil with a certificate

	production, sandbox *link // the same one behind an endpoint

	tellMu sync.Mutex
	tell   func(inFlight int)
	told   int
}

// New returns a provider for a row of the channel apns. Its config keys are
// described at [notifications.ProviderConfig]; it does not connect yet.
func New(cfg notifications.ProviderConfig) (notifications.Adapter, error) {
	p := &Provider{bundleID: text(cfg.Config, "bundleId"), environment: strings.ToLower(text(cfg.Config, "environment")), peer: "Apple's push server", path: "/3/device/"}
	if p.bundleID == "" {
		return nil, errors.New("the app's bundle id (bundleId) is missing: it looks like com.example.shop")
	}
	if !isBundleID(p.bundleID) {
		return nil, fmt.Errorf("%q is not a bundle id: it looks like com.example.shop", p.bundleID)
	}
	switch p.environment {
	case "":
		p.environment = production
	case production, sandbox:
	default:
		return nil, fmt.Errorf("environment is %q: use production or sandbox", p.environment)
	}
	config := &tls.Config{}
	if err := p.credentials(cfg, config); err != nil {
		return nil, err
	}
	endpoint := text(cfg.Config, "endpoint")
	if endpoint == "" {
		var err error
		if p.production, err = p.newLink(apns2.HostProduction, config); err == nil {
			p.sandbox, err = p.newLink(apns2.HostDevelopment, config)
		}
		return p, err
	}
	var err error
	if p.production, err = p.newLink(endpoint, config); err != nil {
		return nil, err
	}
	p.sandbox, p.gateway = p.production, true
	p.peer = "the push server " + p.production.authority
	return p, nil
}

func text(config map[string]any, key string) string {
	s, _ := config[key].(string)
	return strings.TrimSpace(s)
}

// credentials reads the secret: a .p8 key, or a .p12 certificate in JSON.
func (p *Provider) credentials(cfg notifications.ProviderConfig, config *tls.Config) error {
	secret := strings.TrimSpace(cfg.Secret)
	switch {
	case secret == "":
		return errors.New("the key is missing: paste the whole text of the .p8 file")
	case strings.HasPrefix(secret, "{"):
		cert, err := readCertificate(secret, time.Now())
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{cert}
		return nil
	}
	if !strings.Contains(secret, "\n") {
		secret = strings.ReplaceAll(secret, `\n`, "\n") // as it comes out of many an environment file
	}
	key, err := token.AuthKeyFromBytes([]byte(secret))
	switch {
	case errors.Is(err, token.ErrAuthKeyNotPem):
		return errors.New("the key is not a .p8 file: paste all of it, with the lines BEGIN PRIVATE KEY and END PRIVATE KEY")
	case errors.Is(err, token.ErrAuthKeyNotECDSA), err == nil && key.Curve != elliptic.P256():
		return errors.New("the key is of another kind than Apple's (P-256): use the .p8 file of an APNs key from the developer account")
	case err != nil:
		return errors.New("the key is damaged: paste the whole text of the .p8 file again")
	}
	keyID, teamID := text(cfg.Config, "keyId"), text(cfg.Config, "teamId")
	if !isAppleID(keyID) {
		return fmt.Errorf("keyId is %q: it has 10 capital letters and digits, and stands in the name of the .p8 file (AuthKey_….p8)", keyID)
	}
	if !isAppleID(teamID) {
		return fmt.Errorf("teamId is %q: it has 10 capital letters and digits, and stands in the developer account under Membership", teamID)
	}
	p.signer = sharedSigner(secret, key, keyID, teamID)
	if _, err := p.signer.authorization(); err != nil {
		return errors.New("the key cannot sign: paste the whole text of the .p8 file again")
	}
	return nil
}

func isAppleID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return len(s) == 10
}

func readCertificate(secret string, now time.Time) (tls.Certificate, error) {
	var given struct{ P12, Password string }
	if err := json.Unmarshal([]byte(secret), &given); err != nil || given.P12 == "" {
		return tls.Certificate{}, errors.New(`the certificate is not written as {"p12": "the .p12 file in base64", "password": "its password"}`)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(given.P12), ""))
	if err != nil {
		return tls.Certificate{}, errors.New("the .p12 file is not written in base64")
	}
	cert, err := certificate.FromP12Bytes(raw, given.Password)
	var unknown pkcs12.NotImplementedError
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return cert, errors.New("the password of the .p12 file is wrong")
	case errors.As(err, &unknown):
		return cert, errors.New("the .p12 file is encrypted in a way that cannot be read here: export it again with openssl pkcs12 -export -legacy")
	case err != nil:
		return cert, errors.New("the .p12 file cannot be read: export the certificate together with its private key, and nothing else")
	case now.After(cert.Leaf.NotAfter):
		return cert, fmt.Errorf("the certificate expired on %s: make a new one, or use a .p8 key, which does not expire", cert.Leaf.NotAfter.Format(time.DateOnly))
	case now.Before(cert.Leaf.NotBefore):
		return cert, fmt.Errorf("the certificate is valid from %s on: check this machine's clock", cert.Leaf.NotBefore.Format(time.DateOnly))
	}
	return cert, nil
}

// newLink reads a base URL.
func (p *Provider) newLink(base string, config *tls.Config) (*link, error) {
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, errors.New("endpoint is not an address such as https://push.example.com")
	case u.Scheme != "https":
		return nil, errors.New("endpoint must begin with https://, because Apple's protocol is encrypted")
	}
	port := u.Port()
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) {
		return nil, fmt.Errorf("the port of the endpoint, %q, is not between 1 and 65535", port)
	}
	if port == "" {
		port = "443"
	}
	p.path = strings.TrimRight(u.EscapedPath(), "/") + "/3/device/"
	config = config.Clone()
	config.ServerName = u.Hostname()
	return newLink(net.JoinHostPort(u.Hostname(), port), u.Host, config, p.capacityChanged), nil
}

// Limits implements [notifications.Limiter]. Apple lets a connection begin with
// one request until the first was accepted.
func (p *Provider) Limits() notifications.Limits {
	return notifications.Limits{StartInFlight: 1, MaxInFlight: maxInFlight}
}

// OnCapacity implements [notifications.CapacityTeller].
func (p *Provider) OnCapacity(tell func(inFlight int)) {
	p.tellMu.Lock()
	p.tell = tell
	p.tellMu.Unlock()
	p.capacityChanged()
}

// capacityChanged tells nine tenths of what the peer takes, so that a request
// rarely waits here. Of two environments the larger one counts: there is one
// gate, and the smaller one's requests wait their turn.
func (p *Provider) capacityChanged() {
	p.tellMu.Lock()
	defer p.tellMu.Unlock()
	if p.tell == nil {
		return
	}
	streams := max(p.production.capacity(), p.sandbox.capacity())
	if n := min(max(streams*9/10, 1), maxInFlight); n != p.told {
		p.told = n
		p.tell(n)
	}
}

// Close implements [notifications.Closer]. Requests that are out stay without an
// answer.
func (p *Provider) Close() error {
	p.production.close()
	p.sandbox.close()
	return nil
}

// Check implements [notifications.Checker]. It asks for a device that cannot
// exist, with a message that shows nothing: Apple looks at the key and the topic
// first.
func (p *Provider) Check(ctx context.Context) notifications.Outcome {
	r := &request{token: nobody, ownTopic: true, body: []byte(`{"aps":{"content-available":1}}`),
		profile: profile{topic: p.bundleID, pushType: string(apns2.PushTypeBackground), priority: strconv.Itoa(apns2.PriorityLow), expiration: "0"}}
	o := p.push(ctx, p.link(nil), r)
	switch o.Kind {
	case notifications.TargetGone, notifications.PayloadBad:
		if o.Code == apns2.ReasonDeviceTokenNotForTopic {
			return configBad("Apple does not let this key or certificate send to the bundle id of this provider: check bundleId.")
		}
		return notifications.Outcome{Kind: notifications.Accepted}
	case notifications.Ambiguous:
		return notifications.Outcome{Kind: notifications.Retry, Code: o.Code, Explanation: upper(p.peer) + " did not answer in a way that can be understood: check the endpoint and proxies, or try again later."}
	}
	o.ProviderMessageID = ""
	return o
}

// Send implements [notifications.Provider].
func (p *Provider) Send(ctx context.Context, m *notifications.Message) notifications.Outcome {
	r, err := newRequest(m, p.bundleID)
	if err != nil {
		return unsent(err)
	}
	l := p.link(m.Target.Device)
	o := p.push(ctx, l, r)
	if o.Code != apns2.ReasonBadDeviceToken || p.gateway || p.signer == nil {
		return o
	}
	// The token may be of the other environment: an app that was installed from
	// Xcode registers with a server that asks for production.
	other := p.production
	if l == other {
		other = p.sandbox
	}
	switch second := p.push(ctx, other, r); {
	case second.Kind == notifications.Accepted, second.Kind == notifications.Ambiguous, second.Kind == notifications.TargetGone && !second.Suspect:
		return second
	}
	return o
}

// link returns where a device's requests go: its own environment, or the
// provider's.
func (p *Provider) link(d *notifications.Device) *link {
	environment := p.environment
	if d != nil && (d.Environment == production || d.Environment == sandbox) {
		environment = d.Environment
	}
	if environment == sandbox {
		return p.sandbox
	}
	return p.production
}

func (p *Provider) push(ctx context.Context, l *link, r *request) notifications.Outcome {
	for renewed := false; ; renewed = true {
		if p.signer != nil && !renewed {
			var err error
			if r.authorization, err = p.signer.authorization(); err != nil {
				return configBad("The key cannot sign: paste the whole text of the .p8 file again.")
			}
		}
		c := &call{profile: r.profile, path: p.path + r.token, id: r.id, body: r.body}
		if err := l.do(ctx, c); err != nil {
			return p.unanswered(c.err)
		}
		if c.status == 200 {
			id := c.apnsID
			if id == "" {
				id = r.id
			}
			return notifications.Outcome{Kind: notifications.Accepted, ProviderMessageID: id}
		}
		answer := newResult(c, r, time.Now())
		switch answer.reason {
		case apns2.ReasonExpiredProviderToken:
			if p.signer == nil || renewed {
				break
			}
			header, ok := p.signer.renewed(r.authorization)
			if !ok {
				break
			}
			r.authorization = header
			continue
		case apns2.ReasonIdleTimeout, apns2.ReasonShutdown:
			l.retire(c.conn)
		}
		o := classify(answer)
		o.ProviderMessageID = c.apnsID
		return o
	}
}
