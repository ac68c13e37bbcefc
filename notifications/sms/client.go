package sms

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	twilio "github.com/twilio/twilio-go/client"
	api "github.com/twilio/twilio-go/rest/api/v2010"

	"github.com/groundworkhq/groundwork/notifications"
)

const (
	// maxInFlight is below the concurrency at which Twilio begins to answer 429
	// for an ordinary account.
	maxInFlight = 32

	// maxBody is how many characters Twilio takes.
	maxBody = 1600

	// validity is for how long Twilio may hold a text back that it cannot pass on
	// at once. Its own 10 hours would bring a code long after it ran out, and an
	// offer of the afternoon in the night.
	validity = 4 * time.Hour

	dialTimeout = 15 * time.Second

	// listPage is how many messages to one number are looked at when one is
	// searched; Twilio's highest is 1000.
	listPage = 200
)

// text is a message of one kind.
type text interface {
	notifications.TransactionalSMS | notifications.PromotionalSMS
	DeliveryID() string
	To() string
	Body() string
	Expires() time.Time
}

// Transactional sends by the sender of transactional texts. It is safe for
// concurrent use.
type Transactional struct {
	client[notifications.TransactionalSMS]
}

// Promotional sends by the sender of promotional texts. It is safe for concurrent
// use.
type Promotional struct {
	client[notifications.PromotionalSMS]
}

var (
	_ notifications.TransactionalSMSSender = (*Transactional)(nil)
	_ notifications.PromotionalSMSSender   = (*Promotional)(nil)
	_ notifications.ReceiptPoller          = (*Transactional)(nil)
	_ notifications.ReceiptPoller          = (*Promotional)(nil)
)

// NewTransactional returns a sender for an sms_transactional row. Its config keys
// are described at [notifications.ProviderConfig]; it does not connect yet.
func NewTransactional(cfg notifications.ProviderConfig) (notifications.Adapter, error) {
	a, err := newAccount(cfg)
	if err != nil {
		return nil, err
	}
	return &Transactional{client[notifications.TransactionalSMS]{a}}, nil
}

// NewPromotional returns a sender for an sms_promotional row, as
// [NewTransactional] does for the other.
func NewPromotional(cfg notifications.ProviderConfig) (notifications.Adapter, error) {
	a, err := newAccount(cfg)
	if err != nil {
		return nil, err
	}
	return &Promotional{client[notifications.PromotionalSMS]{a}}, nil
}

// SendTransactional implements [notifications.TransactionalSMSSender].
func (s *Transactional) SendTransactional(ctx context.Context, m notifications.TransactionalSMS) notifications.Outcome {
	return s.send(ctx, m)
}

// SendPromotional implements [notifications.PromotionalSMSSender].
func (s *Promotional) SendPromotional(ctx context.Context, m notifications.PromotionalSMS) notifications.Outcome {
	return s.send(ctx, m)
}

// client takes texts of one kind only.
type client[M text] struct{ *account }

func (c client[M]) send(ctx context.Context, m M) notifications.Outcome {
	body := strings.ToValidUTF8(m.Body(), "\uFFFD")
	switch {
	case m.To() == "":
		return notifications.Outcome{Kind: notifications.RecipientBlocked, Explanation: "This person has no phone number."}
	case strings.TrimSpace(body) == "":
		return notifications.Outcome{Kind: notifications.PayloadBad, Explanation: "The text is empty: write something for SMS."}
	case utf8.RuneCountInString(body) > maxBody:
		return notifications.Outcome{Kind: notifications.PayloadBad,
			Explanation: fmt.Sprintf("The text has %d characters and an SMS at most %d: shorten it.", utf8.RuneCountInString(body), maxBody)}
	}
	params := (&api.CreateMessageParams{}).SetTo(m.To()).SetBody(body).SetValidityPeriod(validFor(m.Expires(), time.Now()))
	if c.service {
		params.SetMessagingServiceSid(c.sender)
	} else {
		params.SetFrom(c.sender)
	}
	if c.callback != "" {
		params.SetStatusCallback(c.callback + "?delivery=" + url.QueryEscape(m.DeliveryID()) + callbackRetries)
	}
	t := c.newTrip(ctx)
	message, err := t.api().CreateMessage(params)
	if err == nil && (message.Sid == nil || *message.Sid == "") {
		err = errors.New("an answer without the message's id")
	}
	if err != nil {
		return t.sendFault(err)
	}
	return notifications.Outcome{Kind: notifications.Accepted, ProviderMessageID: *message.Sid}
}

// validFor is for how many seconds Twilio may try: a code that arrives after it
// ran out only confuses.
func validFor(expires, now time.Time) int {
	if expires.IsZero() {
		return int(validity / time.Second)
	}
	return int(min(max(expires.Sub(now), time.Second), validity) / time.Second)
}

// account is one Twilio account and one sender of it.
type account struct {
	sid, token string
	sender     string
	service    bool     // the sender is a messaging service
	endpoint   *url.URL // nil: Twilio's own
	callback   string   // where Twilio tells what became of a message; empty: nowhere
	transport  *http.Transport
}

// callbackRetries, behind the address, asks Twilio to try a callback five times
// on any failure, in place of once after a time-out: a restart takes longer than
// that. It is not part of what is requested or signed.
//
// https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
const callbackRetries = "#rc=5&rp=all"

// StatusPath is where, below the public address, the callbacks of messages go.
const StatusPath = "/api/webhooks/twilio/status"

var (
	accountPattern = regexp.MustCompile(`^AC[0-9a-fA-F]{32}$`)
	tokenPattern   = regexp.MustCompile(`^[0-9a-zA-Z]{16,}$`)
	servicePattern = regexp.MustCompile(`^MG[0-9a-fA-F]{32}$`)
	numberPattern  = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	shortPattern   = regexp.MustCompile(`^[0-9]{3,8}$`)
	namePattern    = regexp.MustCompile(`^[0-9A-Za-z +\-_&]{1,11}$`)
)

func newAccount(cfg notifications.ProviderConfig) (*account, error) {
	a := &account{sid: configText(cfg.Config, "accountSid"), token: strings.TrimSpace(cfg.Secret), sender: strings.TrimSpace(cfg.SenderID)}
	switch {
	case a.sid == "":
		return nil, errors.New("the account SID (accountSid) is missing: Twilio's console shows it, AC and 32 characters")
	case !accountPattern.MatchString(a.sid):
		return nil, errors.New("the account SID (accountSid) is AC and 32 characters from 0 to 9 and a to f: copy it from Twilio's console")
	case a.token == "":
		return nil, errors.New("the auth token is missing: Twilio's console shows it beside the account SID")
	case !tokenPattern.MatchString(a.token):
		return nil, errors.New("the auth token consists of letters and digits only: copy it from Twilio's console")
	}
	if err := a.setSender(); err != nil {
		return nil, err
	}
	if raw := configText(cfg.Config, "endpoint"); raw != "" {
		u, err := url.Parse(strings.TrimRight(raw, "/"))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, errors.New("the endpoint is a base address such as https://sms-gateway.example.com; leave it empty for Twilio's own")
		}
		a.endpoint = u
	}
	a.callback = callbackURL(cfg.PublicURL)
	a.transport = newTransport()
	return a, nil
}

func configText(config map[string]any, key string) string {
	s, _ := config[key].(string)
	return strings.TrimSpace(s)
}

// setSender tells the forms of a sender apart.
func (a *account) setSender() error {
	compact := strings.NewReplacer(" ", "", "-", "", "(", "", ")", "", ".", "", "\u00a0", "").Replace(a.sender)
	switch {
	case a.sender == "":
		return errors.New("the sender is missing: a phone number such as +15005550006, a sender name, a short code or a messaging service (MG…)")
	case servicePattern.MatchString(a.sender):
		a.service = true
	case strings.HasPrefix(a.sender, "+"):
		if !numberPattern.MatchString(compact) {
			return errors.New("the sender is not a complete phone number: write it with its country code, such as +15005550006")
		}
		a.sender = compact
	case shortPattern.MatchString(a.sender):
	case numberPattern.MatchString("+" + compact):
		return errors.New("the sender is a phone number without a plus: write it with its country code, such as +15005550006")
	case !namePattern.MatchString(a.sender) || !strings.ContainsFunc(a.sender, func(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' }):
		return errors.New("a sender name has at most 11 letters, digits and spaces, and at least one letter")
	}
	return nil
}

// callbackURL is where Twilio calls back; empty when it could not. Twilio refuses
// whole messages for an address that it does not like, such as one with an
// underscore in its host.
func callbackURL(publicURL string) string {
	u, err := url.Parse(publicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		strings.Contains(u.Host, "_") || strings.EqualFold(u.Hostname(), "localhost") {
		return ""
	}
	return strings.TrimRight(publicURL, "/") + StatusPath
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        maxInFlight,
		MaxIdleConnsPerHost: maxInFlight,
		IdleConnTimeout:     60 * time.Second,
		TLSHandshakeTimeout: dialTimeout,
	}
}

// Limits implements [notifications.Limiter].
func (a *account) Limits() notifications.Limits {
	return notifications.Limits{StartInFlight: 2, MaxInFlight: maxInFlight}
}

// Close ends the idle connections; those in use end with their message.
func (a *account) Close() error {
	a.transport.CloseIdleConnections()
	return nil
}

// Check implements [notifications.Checker]: it asks Twilio for the account, and
// whether a phone number that messages come from belongs to it.
func (a *account) Check(ctx context.Context) notifications.Outcome {
	t := a.newTrip(ctx)
	found, err := t.api().FetchAccount(a.sid)
	if err != nil {
		return t.readFault(err)
	}
	if found.Sid == nil || *found.Sid != a.sid {
		return t.readFault(errors.New("the account of somebody else"))
	}
	if found.Status != nil && *found.Status != "active" {
		return notifications.Outcome{Kind: notifications.ConfigBad, Explanation: "Twilio says that this account is " + *found.Status + ": see Twilio's console."}
	}
	if !numberPattern.MatchString(a.sender) {
		return notifications.Outcome{Kind: notifications.Accepted}
	}
	t = a.newTrip(ctx)
	numbers, err := t.api().PageIncomingPhoneNumber((&api.ListIncomingPhoneNumberParams{}).SetPhoneNumber(a.sender).SetPageSize(1), "", "")
	if err != nil {
		return t.readFault(err)
	}
	if len(numbers.IncomingPhoneNumbers) == 0 {
		return notifications.Outcome{Kind: notifications.ConfigBad,
			Explanation: "The sender's phone number does not belong to this Twilio account: choose one under Phone Numbers in Twilio's console."}
	}
	return notifications.Outcome{Kind: notifications.Accepted}
}

// PollMessage implements [notifications.ReceiptPoller].
func (a *account) PollMessage(ctx context.Context, id string) (r notifications.Receipt, found bool, err error) {
	t := a.newTrip(ctx)
	message, err := t.api().FetchMessage(id, nil)
	if err != nil {
		if refusal := (*twilio.TwilioRestError)(nil); errors.As(err, &refusal) && refusal.Code == codeNotFound {
			return r, false, nil
		}
		return r, false, t.pollError(err)
	}
	return receiptOf(message), true, nil
}

// PollAddress implements [notifications.ReceiptPoller].
//
// Twilio can search by the date on which a message was sent; whether it then
// leaves out those that still wait for their turn is not written anywhere, so all
// to the number are asked for, newest first.
func (a *account) PollAddress(ctx context.Context, address string, since time.Time) ([]notifications.Receipt, error) {
	t := a.newTrip(ctx)
	page, err := t.api().PageMessage((&api.ListMessageParams{}).SetTo(address).SetPageSize(listPage), "", "")
	if err != nil {
		return nil, t.pollError(err)
	}
	var receipts []notifications.Receipt
	oldest := time.Now()
	for i := range page.Messages {
		m := &page.Messages[i]
		r := receiptOf(m)
		if r.CreatedAt.IsZero() {
			return nil, errors.New("list messages: Twilio's answer has a message without its date")
		}
		if r.CreatedAt.Before(oldest) {
			oldest = r.CreatedAt
		}
		if m.Direction != nil && strings.HasPrefix(*m.Direction, "inbound") {
			continue
		}
		r.OtherSender = !a.sent(m)
		if !r.CreatedAt.Before(since) {
			receipts = append([]notifications.Receipt{r}, receipts...)
		}
	}
	if len(page.Messages) >= listPage && oldest.After(since) {
		return nil, fmt.Errorf("list messages: more than %d to one number in this time", listPage)
	}
	return receipts, nil
}

// sent says whether a message went out through this sender.
func (a *account) sent(m *api.ApiV2010Message) bool {
	if a.service {
		return m.MessagingServiceSid != nil && *m.MessagingServiceSid == a.sender
	}
	return m.From != nil && *m.From == a.sender
}

// trip is one request to Twilio. The library takes no context, reads its answers
// without their headers and does not tell a request that never left from one
// whose answer is missing: a client and a transport of their own for each request
// do.
type trip struct {
	a   *account
	ctx context.Context // the library takes none

	mu         sync.Mutex
	left       bool          // the request may be at Twilio
	status     int           // of the answer; 0: none
	retryAfter time.Duration // that Twilio asked for
}

func (a *account) newTrip(ctx context.Context) *trip { return &trip{a: a, ctx: ctx} }

func (t *trip) api() *api.ApiService {
	c := &twilio.Client{Credentials: twilio.NewCredentials(t.a.sid, t.a.token),
		HTTPClient: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	c.SetAccountSid(t.a.sid)
	// Not NewRequestHandler: it reads environment variables.
	return api.NewApiService(&twilio.RequestHandler{Client: c})
}

// RoundTrip implements [http.RoundTripper].
func (t *trip) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.ctx.Err(); err != nil {
		return nil, err
	}
	// From the moment there is a connection the request counts as left: what of it
	// went through before a failure cannot be known.
	set := func(left bool) {
		t.mu.Lock()
		t.left = left
		t.mu.Unlock()
	}
	req = req.Clone(httptrace.WithClientTrace(t.ctx, &httptrace.ClientTrace{
		GetConn: func(string) { set(false) }, // also when a dead connection is replaced, of which nothing was written
		GotConn: func(httptrace.GotConnInfo) { set(true) },
	}))
	if e := t.a.endpoint; e != nil {
		req.URL.Scheme, req.URL.Host, req.Host = e.Scheme, e.Host, e.Host
		req.URL.Path = e.Path + req.URL.Path
	}
	res, err := t.a.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	t.status, t.retryAfter = res.StatusCode, retryAfter(res.Header.Get("Retry-After"), time.Now())
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		// The library takes a redirect for success; nothing was created by it.
		_ = res.Body.Close()
		return nil, errRedirect
	}
	return res, nil
}

// mayHaveLeft says whether the request may have reached Twilio.
func (t *trip) mayHaveLeft() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.left
}

// maxRetryAfter keeps a slip at the other end from stopping a sender for days.
const maxRetryAfter = time.Hour

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.Atoi(value); err == nil {
		return min(max(time.Duration(seconds), 0), maxRetryAfter/time.Second) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
