package webpush

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/mail"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"

	"github.com/groundworkhq/groundwork/notifications"
)

const (
	startInFlight = 8
	maxInFlight   = 200

	// sendTimeout is how long one of the big push services may take, and
	// strangerTimeout any other: whoever is signed in can name one that never answers.
	sendTimeout     = 15 * time.Second
	strangerTimeout = 5 * time.Second

	// maxAnswer is far above any answer that is understood here.
	maxAnswer = 4 << 10
)

// Options are the same for all rows of an installation.
type Options struct {
	// PrivateHosts are the hosts, as "host" or "host:port", that may have a private
	// address: gateways of one's own, and doubles in tests. They are believed like
	// the big push services.
	PrivateHosts []string
}

// Provider sends with one key pair. It is safe for concurrent use.
type Provider struct {
	private, public string
	subject         string // of the token: a mailto: or https: address
	privateHosts    []string
	transport       *http.Transport
	client          *http.Client
	silent          silentServers
	now             func() time.Time
}

// Factory returns what makes a provider for a webpush row. Its config keys are
// described at [notifications.ProviderConfig]; it does not connect yet.
func Factory(opts Options) notifications.ProviderFactory {
	return func(cfg notifications.ProviderConfig) (notifications.Adapter, error) {
		p, err := newProvider(cfg, opts)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
}

func newProvider(cfg notifications.ProviderConfig, opts Options) (*Provider, error) {
	if cfg.Secret == "" && cfg.Source == notifications.SourceEnvironment {
		return nil, errors.New("the Web Push keys cannot be opened: they were encrypted with another GROUNDWORK_KEY. Start with the former GROUNDWORK_KEY; with other keys every browser would have to subscribe again")
	}
	public, err := PublicKey(cfg.Secret)
	if err != nil {
		return nil, err
	}
	if given := strings.TrimRight(text(cfg.Config, "publicKey"), "="); given != "" && given != public {
		return nil, errors.New("the public key (publicKey) does not belong to the private one (secret): take both from the same pair, or leave publicKey out")
	}
	subject, err := Subject(text(cfg.Config, "subject"))
	if err != nil {
		return nil, err
	}
	d := newDialer(opts.PrivateHosts)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = d.dial
	transport.Proxy = nil // it would look the name up behind the dialer's back
	transport.ResponseHeaderTimeout = sendTimeout
	transport.MaxIdleConnsPerHost = 8
	transport.MaxResponseHeaderBytes = 16 << 10
	transport.HTTP2 = &http.HTTP2Config{
		// A connection that a firewall forgot takes messages and answers nothing.
		SendPingTimeout: sendTimeout,
		PingTimeout:     10 * time.Second,
	}
	return &Provider{
		private: strings.TrimRight(strings.TrimSpace(cfg.Secret), "="), public: public, subject: subject,
		privateHosts: opts.PrivateHosts, transport: transport, now: time.Now,
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Subject returns the address by which a push service reaches whoever sends, as it
// stands in the token: "mailto:…" or "https://…". It takes an e-mail address
// without its scheme too. The error is a sentence without its capital and full
// stop.
func Subject(s string) (string, error) {
	s = strings.TrimSpace(s)
	address, isMail := strings.CutPrefix(s, "mailto:")
	if a, err := mail.ParseAddress(address); err == nil && a.Address == address && (isMail || !strings.Contains(s, "//")) {
		return "mailto:" + address, nil
	}
	if u, err := url.Parse(s); err == nil && u.Scheme == "https" && u.Hostname() != "" && u.User == nil {
		return s, nil
	}
	return "", errors.New("the subject (WEBPUSH_SUBJECT) is how push services reach you: an address such as mailto:hello@example.com or https://example.com")
}

func text(config map[string]any, key string) string {
	s, _ := config[key].(string)
	return strings.TrimSpace(s)
}

// Limits implements [notifications.Limiter].
func (p *Provider) Limits() notifications.Limits {
	return notifications.Limits{StartInFlight: startInFlight, MaxInFlight: maxInFlight}
}

// Close implements [notifications.Closer]: it ends the idle connections; those in
// use end with their message.
func (p *Provider) Close() error {
	p.transport.CloseIdleConnections()
	return nil
}

// Check implements [notifications.Checker]. There is nobody to ask: that the key
// pair and the subject are well formed is all that can be known without a
// browser's subscription, and [Factory] has seen to it.
func (p *Provider) Check(context.Context) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.Accepted}
}

// Send implements [notifications.Provider].
func (p *Provider) Send(ctx context.Context, m *notifications.Message) notifications.Outcome {
	r, err := newRequest(m, p.privateHosts, p.now())
	if err != nil {
		return unsent(err)
	}
	if ctx.Err() != nil {
		return calledOff
	}
	timeout := sendTimeout
	if !p.isBelieved(r.origin) {
		if rest := p.silent.rest(r.origin.Host, p.now()); rest > 0 {
			return retry("", rest, "The push service of this browser took a message a while ago and did not answer; it is tried again later.")
		}
		timeout = strangerTimeout
	}
	c := &courier{client: p.client}
	sendCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := webpush.SendNotificationWithContext(sendCtx, r.body, &r.subscription, &webpush.Options{
		HTTPClient: c, RecordSize: uint32(r.size), TTL: r.ttl, Urgency: r.urgency, Topic: r.topic,
		// The library puts mailto: before what does not begin with https:.
		Subscriber:     strings.TrimPrefix(p.subject, "mailto:"),
		VAPIDPublicKey: p.public, VAPIDPrivateKey: p.private,
	})
	if err != nil {
		if c.left.Load() && ctx.Err() == nil && !p.isBelieved(r.origin) {
			p.silent.add(r.origin.Host, p.now())
		}
		return p.unanswered(ctx, c, r, err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // only a hint: the status decides
	return p.answered(r, resp, body)
}

// courier sends the library's request and notes what tells "never left" from
// "left, and no answer".
type courier struct {
	client *http.Client
	begun  bool
	left   atomic.Bool
}

// Do implements the library's HTTPClient.
func (c *courier) Do(req *http.Request) (*http.Response, error) {
	c.begun = true
	// The body follows the header, so what had no header yet has not left.
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{WroteHeaders: func() { c.left.Store(true) }})
	return c.client.Do(req.WithContext(ctx))
}
