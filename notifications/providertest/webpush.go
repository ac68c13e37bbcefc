package providertest

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// WebPushOptions configure a [WebPush]. The zero value is a push service as it is:
// HTTP/2 over TLS, everything fine.
type WebPushOptions struct {
	// Addr is host:port; empty means a free port of 127.0.0.1.
	Addr string

	// Cert is what it shows.
	Cert Cert

	// Now is its clock; nil means time.Now.
	Now func() time.Time
}

// WebPushScript is how the double treats one message. The zero value accepts it.
type WebPushScript struct {
	Fault WebPushFault

	// RetryAfter is that header: seconds or an HTTP date. Empty: none.
	RetryAfter string

	// Hold keeps the answer back until [WebPush.Release].
	Hold bool
}

// WebPushFault is an answer of a push service's, or what happens in place of one.
type WebPushFault int

// Answers to a push.
const (
	WebPushAccept        WebPushFault = iota
	WebPushAccepted202                // 202, as Microsoft's service answers
	WebPushOK                         // 200
	WebPushNotFound                   // 404
	WebPushGone                       // 410
	WebPushTooLarge                   // 413
	WebPushTooMany                    // 429
	WebPushBadRequest                 // 400 in words of nobody's
	WebPushBadToken                   // 403 as Google's says that the token is wrong
	WebPushBadTokenOf400              // 400 as Apple's says it
	WebPushUnauthorized               // 401 as Mozilla's says it
	WebPushOtherKey                   // 403 as Google's says that the subscription is of another key
	WebPushForbidden                  // 403 in words of nobody's
	WebPushInternal                   // 500
	WebPushBadGateway                 // 502 and HTML
	WebPushUnavailable                // 503
	WebPushRedirect                   // 307 to elsewhere
	WebPushNotAllowed                 // 405
	WebPushReset                      // takes the message and hangs up
	WebPushNoAnswer                   // takes the message and never answers
	WebPushGarbage                    // 200 and HTML
)

var webPushAnswers = map[WebPushFault]struct {
	status int
	body   string
}{
	WebPushAccepted202: {202, ""}, WebPushOK: {200, ""}, WebPushGarbage: {200, "<html>hello</html>"},
	WebPushNotFound: {404, ""}, WebPushGone: {410, "push subscription has unsubscribed or expired.\n"},
	WebPushTooLarge: {413, ""}, WebPushTooMany: {429, ""}, WebPushBadRequest: {400, "no"},
	WebPushBadToken:      {403, "permission denied: invalid JWT provided\n"},
	WebPushBadTokenOf400: {400, `{"reason":"BadJwtToken"}`},
	WebPushUnauthorized:  {401, `{"code":401,"errno":109,"error":"Unauthorized","message":"Invalid VAPID token"}`},
	WebPushOtherKey:      {403, "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.\n"},
	WebPushForbidden:     {403, "no"},
	WebPushInternal:      {500, ""}, WebPushBadGateway: {502, "<html>502</html>"}, WebPushUnavailable: {503, ""},
	WebPushRedirect: {307, ""}, WebPushNotAllowed: {405, ""},
}

// WebPush is a push service (RFC 8030) on a loopback address, and the browsers
// that subscribed at it: it checks what a push service checks, and decrypts what
// only the browser could. It is safe for concurrent use.
type WebPush struct {
	opts WebPushOptions
	addr string

	mu            sync.Mutex
	subscriptions map[string]*WebPushSubscription // by path
	scripts       map[string][]WebPushScript
	all           WebPushScript
	messages      map[string][]WebPushMessage // by path
	received      map[string]int
	total         int
	violations    []string
	changed       chan struct{}
	released      chan struct{}
	done          chan struct{}
	up            bool
	server        *http.Server
	served        chan struct{}
	conns         int
	origin        string // that tokens must be made out to
	caFile        string
}

// WebPushMessage is a message that was taken.
type WebPushMessage struct {
	TTL     int
	Urgency string
	Topic   string
	Subject string // of the token

	// Length is that of the body, encrypted and padded.
	Length int

	// Payload is what the page's service worker gets.
	Payload []byte
}

// WebPushSubscription is a browser that subscribed.
type WebPushSubscription struct {
	Endpoint string

	serverKey string // that it was made for; empty takes all
	private   *ecdh.PrivateKey
	auth      []byte
}

// JSON is what JSON.stringify gives of a PushSubscription: a device's token.
func (b *WebPushSubscription) JSON() string {
	raw, _ := json.Marshal(map[string]any{"endpoint": b.Endpoint, "expirationTime": nil, "keys": map[string]string{
		"p256dh": base64.RawURLEncoding.EncodeToString(b.private.PublicKey().Bytes()), "auth": base64.RawURLEncoding.EncodeToString(b.auth)}})
	return string(raw)
}

// StartWebPush starts a double. Close it when done; in a test use [NewWebPush].
func StartWebPush(opts WebPushOptions) (*WebPush, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &WebPush{opts: opts, addr: opts.Addr, subscriptions: map[string]*WebPushSubscription{}, scripts: map[string][]WebPushScript{},
		messages: map[string][]WebPushMessage{}, received: map[string]int{}, changed: make(chan struct{}), released: make(chan struct{})}
	if s.addr == "" {
		var err error
		if s.addr, err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	if err := s.Up(); err != nil {
		return nil, err
	}
	return s, nil
}

// NewWebPush starts a double that ends with the test.
func NewWebPush(t testing.TB, opts WebPushOptions) *WebPush {
	t.Helper()
	s, err := StartWebPush(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close Web Push double: %v", err)
		}
	})
	return s
}

// Up listens again after [WebPush.Down], at the same address.
func (s *WebPush) Up() error {
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("start Web Push double: %w", err)
	}
	cert, err := newCertificate(s.opts.Cert)
	if err != nil {
		_ = listener.Close()
		return fmt.Errorf("start Web Push double: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		_ = listener.Close()
		return errors.New("start Web Push double: it is up already")
	}
	s.addr = listener.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(s.serve), ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.mu.Lock()
				s.conns++
				s.mu.Unlock()
			}
		}}
	served := make(chan struct{})
	s.server, s.served, s.done, s.up = server, served, make(chan struct{}), true
	go func() {
		defer close(served)
		_ = server.ServeTLS(listener, "", "")
	}()
	return nil
}

// Down stops listening and hangs up on everybody. The ledger stays.
func (s *WebPush) Down() error {
	s.mu.Lock()
	if !s.up {
		s.mu.Unlock()
		return nil
	}
	s.up = false
	server, served := s.server, s.served
	close(s.done)
	s.mu.Unlock()
	if err := server.Close(); err != nil {
		return fmt.Errorf("stop Web Push double: %w", err)
	}
	<-served
	return nil
}

// Close stops the double.
func (s *WebPush) Close() error {
	err := s.Down()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caFile != "" {
		_ = os.Remove(s.caFile)
		s.caFile = ""
	}
	return err
}

// Addr is host:port, for WEBPUSH_PRIVATE_HOSTS.
func (s *WebPush) Addr() string { return s.addr }

// Origin is the base address of the subscriptions.
func (s *WebPush) Origin() string { return "https://" + s.addr }

// SetOrigin is for a sender that takes the double for another server: its tokens
// must be made out to that one.
func (s *WebPush) SetOrigin(origin string) {
	s.mu.Lock()
	s.origin = origin
	s.mu.Unlock()
}

func (s *WebPush) audience() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.origin != "" {
		return s.origin
	}
	return s.Origin()
}

// Env are the variables by which the binary sends to this double, SSL_CERT_FILE
// included.
func (s *WebPush) Env() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caFile == "" {
		content, err := CAPEM()
		if err != nil {
			return nil, err
		}
		file, err := os.CreateTemp("", "groundwork-test-ca-*.pem")
		if err != nil {
			return nil, fmt.Errorf("write authority: %w", err)
		}
		if _, err := file.Write(content); err != nil {
			return nil, errors.Join(fmt.Errorf("write authority: %w", err), file.Close())
		}
		if err := file.Close(); err != nil {
			return nil, fmt.Errorf("write authority: %w", err)
		}
		s.caFile = file.Name()
	}
	return []string{"WEBPUSH_PRIVATE_HOSTS=" + s.addr, "SSL_CERT_FILE=" + s.caFile}, nil
}

// Subscribe is what a browser does for a page that passes serverKey as
// applicationServerKey: from then on only that key may send to it. An empty one
// lets everybody send.
func (s *WebPush) Subscribe(serverKey string) (*WebPushSubscription, error) {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a browser's key: %w", err)
	}
	auth, name := make([]byte, 16), make([]byte, 18)
	_, _ = rand.Read(auth) // never fails: it ends the process instead
	_, _ = rand.Read(name)
	b := &WebPushSubscription{serverKey: serverKey, private: private, auth: auth, Endpoint: s.Origin() + "/push/" + base64.RawURLEncoding.EncodeToString(name)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscriptions[s.path(b.Endpoint)] = b
	return b, nil
}

// path is what of an endpoint stands in a request.
func (s *WebPush) path(endpoint string) string { return strings.TrimPrefix(endpoint, s.Origin()) }

// All treats everybody so who has no [WebPush.Script].
func (s *WebPush) All(script WebPushScript) {
	s.mu.Lock()
	s.all = script
	s.mu.Unlock()
}

// Script treats the next messages to a browser so, one script for each; the last
// one stays. No script takes the browser's back.
func (s *WebPush) Script(b *WebPushSubscription, scripts ...WebPushScript) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[s.path(b.Endpoint)] = scripts
}

// Release lets go what is held at the moment.
func (s *WebPush) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.released)
	s.released = make(chan struct{})
}

// Received is how many messages for a browser arrived in full, whatever became of
// them.
func (s *WebPush) Received(b *WebPushSubscription) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received[s.path(b.Endpoint)]
}

// Messages are those that were taken for a browser, decrypted.
func (s *WebPush) Messages(b *WebPushSubscription) []WebPushMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]WebPushMessage(nil), s.messages[s.path(b.Endpoint)]...)
}

// Total is how many messages arrived in full.
func (s *WebPush) Total() int { s.mu.Lock(); defer s.mu.Unlock(); return s.total }

// Handshakes is how many connections were made so far.
func (s *WebPush) Handshakes() int { s.mu.Lock(); defer s.mu.Unlock(); return s.conns }

// Violations are the faults in the requests so far. A good adapter makes none.
func (s *WebPush) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.violations...)
}

// Await returns nil as soon as n messages for a browser have arrived.
func (s *WebPush) Await(ctx context.Context, b *WebPushSubscription, n int) error {
	for {
		s.mu.Lock()
		have, changed := s.received[s.path(b.Endpoint)], s.changed
		s.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("await %d messages, have %d: %w", n, have, ctx.Err())
		}
	}
}

func (s *WebPush) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the sender gave up in the middle: nothing arrived
	}
	s.mu.Lock()
	b := s.subscriptions[r.URL.Path]
	s.received[r.URL.Path]++
	s.total++
	script := s.all
	if list := s.scripts[r.URL.Path]; len(list) > 0 {
		script = list[0]
		if len(list) > 1 {
			s.scripts[r.URL.Path] = list[1:]
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	released, done := s.released, s.done
	s.mu.Unlock()

	if script.Hold {
		select {
		case <-released:
		case <-done:
			return
		case <-r.Context().Done():
			return
		}
	}
	message, refusal := s.judge(r, b, body)
	switch {
	case script.Fault == WebPushNoAnswer:
		select {
		case <-done:
		case <-r.Context().Done():
		}
		return
	case script.Fault == WebPushReset:
		panic(http.ErrAbortHandler)
	case refusal != nil:
		s.mu.Lock()
		s.violations = append(s.violations, fmt.Sprintf("%d %s", refusal.status, refusal.why))
		s.mu.Unlock()
		http.Error(w, refusal.why, refusal.status)
		return
	}
	if script.RetryAfter != "" {
		w.Header().Set("Retry-After", script.RetryAfter)
	}
	if answer, ok := webPushAnswers[script.Fault]; ok {
		if script.Fault == WebPushRedirect {
			w.Header().Set("Location", s.Origin()+"/elsewhere")
		}
		if answer.status/100 == 2 {
			s.keep(r.URL.Path, message)
		}
		w.WriteHeader(answer.status)
		_, _ = io.WriteString(w, answer.body)
		return
	}
	s.keep(r.URL.Path, message)
	id := make([]byte, 9)
	_, _ = rand.Read(id)
	w.Header().Set("Location", s.Origin()+"/message/"+base64.RawURLEncoding.EncodeToString(id))
	w.Header().Set("TTL", strconv.Itoa(message.TTL))
	w.WriteHeader(http.StatusCreated)
}

func (s *WebPush) keep(path string, m *WebPushMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.Payload = bytes.Clone(m.Payload)
	s.messages[path] = append(s.messages[path], *m)
}
