package fcm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"firebase.google.com/go/v4/messaging"
	"golang.org/x/oauth2/jwt"
	"google.golang.org/api/option"

	"github.com/groundworkhq/groundwork/notifications"
)

const (
	googleEndpoint = "https://fcm.googleapis.com"

	startInFlight = 8
	maxInFlight   = 500
)

// Provider sends through one Firebase project. It is safe for concurrent use.
type Provider struct {
	project     string
	packageName string
	host        string // for sentences
	client      *messaging.Client
	tokens      *tokens
	transport   *http.Transport
	pool        *pool
	stop        context.CancelFunc
	now         func() time.Time
}

var projectPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.:-]{1,98}[a-z0-9]$`)

// New returns a provider for an fcm row. Its config keys are described at
// [notifications.ProviderConfig]; it does not connect yet.
func New(cfg notifications.ProviderConfig) (notifications.Adapter, error) {
	acc, err := parseAccount(cfg.Secret)
	if err != nil {
		return nil, err
	}
	project := text(cfg.Config, "projectId")
	if project == "" {
		project = acc.ProjectID
	}
	switch {
	case project == "":
		return nil, errors.New("the Firebase project (projectId) is missing: it is neither set nor in the service account")
	case !projectPattern.MatchString(project):
		return nil, fmt.Errorf("%q is not a Firebase project's id: it stands in the Firebase console under Project settings, in small letters", clip(project))
	}
	endpoint := strings.TrimRight(text(cfg.Config, "endpoint"), "/")
	if endpoint == "" {
		endpoint = googleEndpoint
	}
	base, err := baseURL(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint %w", err)
	}
	transport := newTransport()
	ctx, stop := context.WithCancel(context.Background())
	p := &Provider{
		project: project, packageName: text(cfg.Config, "packageName"), host: base.Host, transport: transport, stop: stop, now: time.Now,
		tokens: &tokens{ctx: ctx, base: transport, now: time.Now, config: &jwt.Config{
			Email: acc.ClientEmail, PrivateKey: []byte(acc.PrivateKey), PrivateKeyID: acc.PrivateKeyID, Scopes: []string{scope}, TokenURL: acc.TokenURI,
		}},
	}
	p.pool = &pool{ctx: ctx, transport: transport, scheme: base.Scheme, address: net.JoinHostPort(base.Hostname(), port(base))}
	p.client, err = newClient(ctx, project, endpoint+"/v1", &courier{tokens: p.tokens, pool: p.pool})
	if err != nil {
		stop()
		return nil, fmt.Errorf("the connection to Firebase cannot be set up: %w", err)
	}
	return p, nil
}

// newClient makes the SDK's client without the SDK's root package, the usual way
// to it: that one brings Firestore and Storage along, 23 MB of the binary. The
// configuration's type cannot be named from outside, but the compiler knows it.
func newClient(ctx context.Context, project, endpoint string, rt http.RoundTripper) (*messaging.Client, error) {
	config := argumentOf(messaging.NewClient)
	config.ProjectID, config.Version = project, sdkVersion()
	config.Opts = []option.ClientOption{
		option.WithEndpoint(endpoint),
		// In place of the SDK's transport, authentication included.
		option.WithHTTPClient(&http.Client{Transport: rt, CheckRedirect: noRedirect}),
	}
	return messaging.NewClient(ctx, config)
}

func argumentOf[Config any](func(context.Context, *Config) (*messaging.Client, error)) *Config {
	return new(Config)
}

// sdkVersion is what the SDK tells Google about itself.
var sdkVersion = sync.OnceValue(func() string {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range build.Deps {
			if dep.Path == "firebase.google.com/go/v4" {
				return strings.TrimPrefix(dep.Version, "v")
			}
		}
	}
	return "4"
})

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.HTTP2 = &http.HTTP2Config{
		// A connection that a firewall forgot takes messages and answers nothing.
		SendPingTimeout: 15 * time.Second,
		PingTimeout:     10 * time.Second,
	}
	return t
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "http" {
		return "80"
	}
	return "443"
}

func text(config map[string]any, key string) string {
	s, _ := config[key].(string)
	return strings.TrimSpace(s)
}

// Limits implements [notifications.Limiter].
func (p *Provider) Limits() notifications.Limits {
	return notifications.Limits{StartInFlight: startInFlight, MaxInFlight: maxInFlight}
}

// OnCapacity implements [notifications.CapacityTeller]: the peer's limit of
// streams, as often as there are connections.
func (p *Provider) OnCapacity(tell func(inFlight int)) {
	p.pool.mu.Lock()
	p.pool.tell = tell
	p.pool.mu.Unlock()
}

// Close implements [notifications.Closer]: it ends the idle connections; those in
// use end with their message.
func (p *Provider) Close() error {
	p.stop()
	p.pool.close()
	p.transport.CloseIdleConnections()
	return nil
}

// Send implements [notifications.Provider].
func (p *Provider) Send(ctx context.Context, m *notifications.Message) notifications.Outcome {
	message, err := payload(m, p.packageName, p.now())
	if err != nil {
		return refusal(err)
	}
	x := &exchange{}
	name, err := p.client.Send(withExchange(ctx, x), message)
	return p.outcome(x, name, err)
}

// checkToken is nobody's: Google says so once it has found the project and
// accepted the credentials.
const checkToken = "groundwork-check-of-the-configuration"

// Check implements [notifications.Checker]: it fetches a token and asks Google to
// judge, without sending, a message to a token that does not exist.
func (p *Provider) Check(ctx context.Context) notifications.Outcome {
	x := &exchange{}
	message := &messaging.Message{Token: checkToken, Data: map[string]string{"check": "1"}}
	name, err := p.client.SendDryRun(withExchange(ctx, x), message)
	o := p.outcome(x, name, err)
	switch o.Kind {
	case notifications.ConfigBad, notifications.Retry:
		return o
	case notifications.Ambiguous:
		o.Kind = notifications.Retry
		o.Explanation = "Google did not answer the question whether the configuration is right; it is asked again."
		return o
	default:
		return notifications.Outcome{Kind: notifications.Accepted}
	}
}
