package providertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// APNsNobody is a device token that belongs to no device. What is sent to it is
// refused with BadDeviceToken and stands in no ledger but [APNs.Checks].
const APNsNobody = "0000000000000000000000000000000000000000000000000000000000000000"

// APNsOptions sets up an [APNs] double. The zero value takes every well-formed
// push with a bearer token of the right form.
type APNsOptions struct {
	// Addr to listen on; empty means a free port of 127.0.0.1.
	Addr string
	Cert Cert

	// Key verifies the bearer tokens; nil verifies no signature. KeyID and TeamID
	// must be in them when not empty.
	Key           *ecdsa.PublicKey
	KeyID, TeamID string
	// TokenLife is how soon one bearer token may replace another; zero means
	// Apple's 20 minutes, negative means that any may.
	TokenLife time.Duration
	// ClientCert asks for a client certificate, in place of bearer tokens.
	ClientCert bool

	// Topics are those that may be sent to, without the suffixes of push types;
	// empty means all.
	Topics []string

	// Streams is SETTINGS_MAX_CONCURRENT_STREAMS; zero means 1000.
	Streams uint32
	// StreamsAfterAccept is announced on a connection after its first accepted
	// push; zero means that nothing changes.
	StreamsAfterAccept uint32
	// Window is how many bytes of body a client may send ahead, on a stream and
	// on the connection's streams together (there not below HTTP/2's 65,535); zero
	// means plenty.
	Window uint32
	// HeaderTable is SETTINGS_HEADER_TABLE_SIZE; zero means HTTP/2's 4096, negative
	// means none.
	HeaderTable int

	// Latency is how long each answer takes.
	Latency time.Duration

	// CountOnly keeps no content in the ledger: for long runs.
	CountOnly bool

	// Behaviour at the start; [APNs.Set] changes it.
	Behaviour APNsBehaviour
}

// APNsBehaviour is how the double treats everybody.
type APNsBehaviour struct {
	// All treats every push for whose token there is no [APNs.Script].
	All APNsScript
	// Fault treats that share of the pushes instead, by chance.
	Fault     APNsScript
	FaultRate float64
}

// APNsScript is how the double treats a push that it found in order. The zero
// value accepts it.
type APNsScript struct {
	Status     int    // zero means 200
	Reason     string // in the body
	Timestamp  time.Time
	RetryAfter string // the header, as it is
	Body       string // in place of the JSON

	Delay    time.Duration
	Hold     bool // the answer waits for [APNs.Release]
	NoAnswer bool

	// Reset ends the stream with ResetCode instead of an answer. With
	// REFUSED_STREAM the push does not stand in the ledger: it is unread.
	Reset     bool
	ResetCode http2.ErrCode
	// Drop ends the connection instead of an answer.
	Drop bool
	// GoAway ends the connection with a GOAWAY below this push, which does not
	// stand in the ledger; those before it are answered. Reason is in its debug
	// data; empty means Shutdown.
	GoAway bool
}

func (s APNsScript) unread() bool {
	return s.GoAway || s.Reset && s.ResetCode == http2.ErrCodeRefusedStream
}

// APNsRequest is a push that the double got in full, whatever it answered.
type APNsRequest struct {
	Token string
	// Header has lower-case names, the pseudo-header fields among them.
	Header  map[string]string
	Payload []byte
	// Connection numbers the connections from 1 on.
	Connection int64
	At         time.Time
}

// APNs is Apple's push service on a loopback address: HTTP/2 over TLS, written on
// the frames so that it costs little beside what is measured with it. It checks
// what Apple checks, can be told what to answer, and keeps what it took. It is
// safe for concurrent use.
type APNs struct {
	opts   APNsOptions
	addr   string
	config *tls.Config
	topics map[string]bool

	blocked atomic.Bool

	mu          sync.Mutex
	now         APNsBehaviour
	scripts     map[string][]APNsScript
	counts      map[string]int
	last        map[string]*APNsRequest
	arrived     map[string]chan struct{}
	waiters     []apnsWaiter
	held        []func()
	releases    int // how often Release was called
	total       int
	accepted    int
	checks      int
	refused     int
	pings       int
	recollapsed int
	unanswered  int
	streams     uint32 // to announce to new connections
	peakStreams int
	connections int64
	peakConns   int
	conns       map[*apnsConn]struct{}
	bearers     map[string]apnsBearer
	bearer      string // the one in force
	bearerAt    time.Time
	bearers429  int
	expired     bool // the one in force was called expired
	listener    net.Listener
	serving     sync.WaitGroup
	caFile      string
}

type apnsWaiter struct {
	n    int
	done chan struct{}
}

// StartAPNs starts a double. Close it when done; in a test use [NewAPNs].
func StartAPNs(opts APNsOptions) (*APNs, error) {
	cert, err := newCertificate(opts.Cert)
	if err != nil {
		return nil, fmt.Errorf("start APNs double: %w", err)
	}
	a := &APNs{opts: opts, addr: opts.Addr, now: opts.Behaviour, topics: map[string]bool{}, scripts: map[string][]APNsScript{}, counts: map[string]int{},
		last: map[string]*APNsRequest{}, arrived: map[string]chan struct{}{}, conns: map[*apnsConn]struct{}{}, bearers: map[string]apnsBearer{}, streams: opts.Streams,
		config: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, DynamicRecordSizingDisabled: true}}
	if opts.ClientCert {
		a.config.ClientAuth = tls.RequireAnyClientCert
	}
	for _, topic := range opts.Topics {
		a.topics[topic] = true
	}
	if a.addr == "" {
		var err error
		if a.addr, err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	if a.streams == 0 {
		a.streams = 1000
	}
	if err := a.Up(); err != nil {
		return nil, err
	}
	return a, nil
}

// NewAPNs starts a double that ends with the test.
func NewAPNs(t testing.TB, opts APNsOptions) *APNs {
	t.Helper()
	a, err := StartAPNs(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("close APNs double: %v", err)
		}
	})
	return a
}

// Up listens again after [APNs.Down], at the same address.
func (a *APNs) Up() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listener != nil {
		return errors.New("start APNs double: it is up already")
	}
	listener, err := net.Listen("tcp", a.addr)
	if err != nil {
		return fmt.Errorf("start APNs double: %w", err)
	}
	a.listener, a.addr = listener, listener.Addr().String()
	a.serving.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			if c := a.adopt(listener, raw); c != nil {
				a.serving.Go(c.serve)
			}
		}
	})
	return nil
}

// Down stops listening and hangs up on everybody. The ledger stays.
func (a *APNs) Down() error {
	a.mu.Lock()
	listener := a.listener
	a.listener = nil
	a.mu.Unlock()
	if listener == nil {
		return nil
	}
	err := listener.Close()
	for _, c := range a.open() {
		c.cut()
	}
	a.serving.Wait()
	if err != nil {
		return fmt.Errorf("stop APNs double: %w", err)
	}
	return nil
}

// Close stops the double.
func (a *APNs) Close() error {
	err := a.Down()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.caFile != "" {
		_ = os.Remove(a.caFile)
		a.caFile = ""
	}
	return err
}

func (a *APNs) adopt(listener net.Listener, raw net.Conn) *apnsConn {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listener != listener {
		_ = raw.Close()
		return nil
	}
	a.connections++
	c := newAPNsConn(a, raw, a.connections, a.streams)
	a.conns[c] = struct{}{}
	a.peakConns = max(a.peakConns, len(a.conns))
	return c
}

func (a *APNs) open() []*apnsConn {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.conns))
}

// Addr is host:port.
func (a *APNs) Addr() string { return a.addr }

// URL is what a provider's endpoint is set to.
func (a *APNs) URL() string { return "https://" + a.addr }

// Config is the public part of a provider's configuration that sends to this
// double.
func (a *APNs) Config(bundleID string) map[string]any {
	return map[string]any{"keyId": a.opts.KeyID, "teamId": a.opts.TeamID, "bundleId": bundleID, "endpoint": a.URL()}
}

// CAFile is a file with the authority of [CAPEM], for SSL_CERT_FILE of another
// process; it is removed by Close.
func (a *APNs) CAFile() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.caFile != "" {
		return a.caFile, nil
	}
	content, err := CAPEM()
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp("", "groundwork-test-ca-*.pem")
	if err != nil {
		return "", fmt.Errorf("write authority: %w", err)
	}
	if _, err := file.Write(content); err != nil {
		_ = file.Close()
		return "", fmt.Errorf("write authority: %w", err)
	}
	a.caFile = file.Name()
	return a.caFile, file.Close()
}

// Env are the variables by which the binary sends to this double with a key,
// SSL_CERT_FILE included.
func (a *APNs) Env(key *APNsKey, bundleID string) ([]string, error) {
	ca, err := a.CAFile()
	if err != nil {
		return nil, err
	}
	return []string{
		"APNS_KEY=" + key.PEM, "APNS_KEY_ID=" + a.opts.KeyID, "APNS_TEAM_ID=" + a.opts.TeamID, "APNS_TOPIC=" + bundleID,
		"APNS_ENVIRONMENT=production", "APNS_ENDPOINT=" + a.URL(), "SSL_CERT_FILE=" + ca,
	}, nil
}

// Set changes how everybody is treated from now on.
func (a *APNs) Set(b APNsBehaviour) {
	a.mu.Lock()
	a.now = b
	a.mu.Unlock()
}

// Script treats the next pushes to a token so, one script for each push; the
// last one stays. No script takes the token's back.
func (a *APNs) Script(token string, scripts ...APNsScript) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(scripts) == 0 {
		delete(a.scripts, token)
		return
	}
	a.scripts[token] = scripts
}

// script returns the treatment of the next push to a token. The caller holds
// mu.
func (a *APNs) script(token string) APNsScript {
	if len(a.scripts) > 0 {
		switch list := a.scripts[token]; len(list) {
		case 0:
		case 1:
			return list[0]
		default:
			a.scripts[token] = list[1:]
			return list[0]
		}
	}
	if a.now.FaultRate > 0 && rand.Float64() < a.now.FaultRate {
		return a.now.Fault
	}
	return a.now.All
}

// Release lets the held answers go.
func (a *APNs) Release() {
	a.mu.Lock()
	held := a.held
	a.held = nil
	a.releases++
	a.mu.Unlock()
	for _, answer := range held {
		answer()
	}
}

// GoAway announces the end of all connections: what they have taken is
// answered, later streams are ignored. reason is the debug data's, as Apple
// gives it; empty means none.
func (a *APNs) GoAway(reason string) {
	for _, c := range a.open() {
		c.goAway(0, reason)
	}
}

// BlockWindows stops telling the clients that they may send more body; it means
// something with [APNsOptions.Window] only.
func (a *APNs) BlockWindows() { a.blocked.Store(true) }

// OldTLS is the configuration of a server with the same certificate that does not
// speak HTTP/2.
func (a *APNs) OldTLS() *tls.Config {
	config := a.config.Clone()
	config.NextProtos = nil
	return config
}

// Drop ends all connections without a farewell.
func (a *APNs) Drop() {
	for _, c := range a.open() {
		c.cut()
	}
}

// BlackHole makes the open connections swallow all they get and say nothing any
// more.
func (a *APNs) BlackHole() {
	for _, c := range a.open() {
		c.hole.Store(true)
	}
}

// SetStreams announces another SETTINGS_MAX_CONCURRENT_STREAMS, on open
// connections as well.
func (a *APNs) SetStreams(n uint32) {
	a.mu.Lock()
	a.streams = n
	a.mu.Unlock()
	for _, c := range a.open() {
		c.announce(n)
	}
}

// Total is how many pushes were got in full.
func (a *APNs) Total() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}

// Accepted is how many pushes were answered with 200.
func (a *APNs) Accepted() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.accepted
}

// Checks is how many pushes were for [APNsNobody].
func (a *APNs) Checks() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.checks
}

// Count is how many pushes were got for a token.
func (a *APNs) Count(token string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts[token]
}

// Counts is how many pushes were got for each token.
func (a *APNs) Counts() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.counts)
}

// Last returns the last push that was got for a token; nil with CountOnly or
// when there was none.
func (a *APNs) Last(token string) *APNsRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last[token]
}

// Recollapsed is how many pushes had another collapse id than the one before to
// the same token: a device shows both. It is only known without CountOnly.
func (a *APNs) Recollapsed() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.recollapsed
}

// Unanswered is how many pushes were got in full on connections that ended before
// the answer.
func (a *APNs) Unanswered() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unanswered
}

// Connections is how many were made so far; open how many there are now; peak
// how many there were at once.
func (a *APNs) Connections() (made int64, open, peak int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connections, len(a.conns), a.peakConns
}

// PeakStreams is how many streams there were at once on one connection.
func (a *APNs) PeakStreams() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.peakStreams
}

// RefusedStreams is how many streams were opened above the announced limit.
func (a *APNs) RefusedStreams() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// Pings is how many PINGs were asked.
func (a *APNs) Pings() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pings
}

// TokenUpdates is how many bearer tokens were seen, and how many pushes were
// refused because one came too soon after another.
func (a *APNs) TokenUpdates() (seen, refused int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.bearers), a.bearers429
}

// Arrived is closed once a push for the token is in full at the double.
func (a *APNs) Arrived(token string) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	ch := a.arrived[token]
	if ch == nil {
		ch = make(chan struct{})
		a.arrived[token] = ch
		if a.counts[token] > 0 {
			close(ch)
		}
	}
	return ch
}

// Await returns nil as soon as n pushes were got.
func (a *APNs) Await(ctx context.Context, n int) error {
	a.mu.Lock()
	if a.total >= n {
		a.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	a.waiters = append(a.waiters, apnsWaiter{n, done})
	a.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("await %d pushes, have %d: %w", n, a.Total(), ctx.Err())
	}
}

// take writes a push into the ledger and returns its treatment.
func (a *APNs) take(c *apnsConn, r *apnsStream) APNsScript {
	a.mu.Lock()
	defer a.mu.Unlock()
	token := r.token
	r.releases = a.releases
	var script APNsScript
	switch {
	case r.fault.Status != 0:
		script = r.fault
	case token == APNsNobody && a.now.All == (APNsScript{}):
		script = APNsScript{Status: 400, Reason: "BadDeviceToken"}
	case token == APNsNobody:
		script = a.now.All
	default:
		script = a.script(token)
	}
	if script.unread() {
		return script
	}
	if token == APNsNobody {
		a.checks++
		return script
	}
	if script.Reason == "ExpiredProviderToken" {
		a.expired = true
	}
	a.total++
	a.counts[token]++
	if script.Status == 0 && !script.NoAnswer && !script.Drop && !script.Reset {
		a.accepted++
	}
	if !a.opts.CountOnly {
		if before := a.last[token]; before != nil && before.Header["apns-collapse-id"] != r.collapseID {
			a.recollapsed++
		}
		a.last[token] = r.request(c)
	}
	if len(a.arrived) > 0 {
		if ch := a.arrived[token]; ch != nil && a.counts[token] == 1 {
			close(ch)
		}
	}
	if len(a.waiters) > 0 {
		keep := a.waiters[:0]
		for _, w := range a.waiters {
			if a.total >= w.n {
				close(w.done)
			} else {
				keep = append(keep, w)
			}
		}
		a.waiters = keep
	}
	return script
}

// hold keeps an answer back until the next Release after the push was counted, which
// may have been meanwhile.
func (a *APNs) hold(r *apnsStream, answer func()) {
	a.mu.Lock()
	if late := r.releases != a.releases; late {
		a.mu.Unlock()
		answer()
		return
	}
	a.held = append(a.held, answer)
	a.mu.Unlock()
}

func (a *APNs) forget(c *apnsConn, unanswered int) {
	a.mu.Lock()
	delete(a.conns, c)
	a.unanswered += unanswered
	a.mu.Unlock()
}
