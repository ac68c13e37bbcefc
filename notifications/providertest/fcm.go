package providertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	fcmapi "google.golang.org/api/fcm/v1"
)

// FCMOptions configure an [FCM]. The zero value is Google as it is: HTTP/2 over
// TLS, 100 streams a connection, everything fine.
type FCMOptions struct {
	// Addr is host:port; empty means a free port of 127.0.0.1.
	Addr string

	// Project is the Firebase project; empty means demo-project.
	Project string

	// Plain speaks HTTP/1.1 without TLS, for clients that cannot be told of a
	// private authority.
	Plain bool

	// Cert is shown unless Plain.
	Cert Cert

	// MaxStreams is how many requests one connection carries at a time; zero
	// means 100, as Google announces.
	MaxStreams int

	// TokenLife is how long an access token is good; zero means an hour.
	TokenLife time.Duration

	// AnyToken takes every device token. Without it one must look like Google's:
	// a colon in it, or an installation id of 22 characters ([FCMDeviceToken]
	// makes them).
	AnyToken bool

	// CountOnly keeps no bodies, for millions of messages.
	CountOnly bool

	// CheckEvery checks the body of every n-th message only; zero means of all.
	CheckEvery int

	// Seed makes the random faults the same in each run.
	Seed uint64

	Behaviour FCMBehaviour
}

// FCMBehaviour is how the double treats everybody.
type FCMBehaviour struct {
	// Token is what the token route does.
	Token FCMTokenFault

	// HoldToken keeps its answers back until [FCM.Release].
	HoldToken bool

	// All is for every device token that has no [FCM.Script].
	All FCMScript

	// Rates play a fault on a share of the messages that have none otherwise, by
	// chance.
	Rates []FCMRate

	// Latency is before every answer.
	Latency time.Duration
}

// FCMRate is a fault that happens to a share (0 to 1) of the messages.
type FCMRate struct {
	Share  float64
	Script FCMScript
}

// FCMScript is how the double treats one message. The zero value accepts it.
type FCMScript struct {
	Fault FCMFault

	// RetryAfter is that header: seconds or an HTTP date. Empty: none.
	RetryAfter string

	// Delay is before the answer; with Hold it comes after [FCM.Release].
	Delay time.Duration
	Hold  bool
}

// FCMFault is an answer of Google's, or what happens in place of one.
type FCMFault int

// Answers to a send.
const (
	FCMAccept             FCMFault = iota
	FCMUnregistered                // 404 UNREGISTERED
	FCMNotFound                    // 404 without FCM's detail: the project or the address is wrong
	FCMInvalidToken                // 400 INVALID_ARGUMENT about the registration token
	FCMInvalidArgument             // 400 INVALID_ARGUMENT about something else
	FCMBadRequest                  // 400 with fieldViolations
	FCMSenderIDMismatch            // 403 SENDER_ID_MISMATCH
	FCMQuotaProject                // 429 QUOTA_EXCEEDED of the project
	FCMQuotaDevice                 // 429 QUOTA_EXCEEDED of one device
	FCMUnavailable                 // 503 UNAVAILABLE
	FCMInternal                    // 500 INTERNAL
	FCMThirdPartyAuth              // 401 THIRD_PARTY_AUTH_ERROR
	FCMUnauthenticated             // 401 without detail
	FCMPermissionDenied            // 403 without detail
	FCMServiceDisabled             // 403 with the reason SERVICE_DISABLED
	FCMBadGateway                  // 502 and HTML, from a proxy; the message is not taken
	FCMGarbage                     // 200 and HTML
	FCMCut                         // 200, and the connection ends inside the body
	FCMReset                       // takes the message and hangs up
	FCMNoAnswer                    // takes the message and never answers
	FCMUnavailableHTML             // 503 and HTML, from a load balancer
	FCMRedirect                    // 307 to elsewhere
	FCMTooManyWithoutBody          // 429 and nothing else
	FCMTooLarge                    // 413 without detail
)

// FCM is Firebase Cloud Messaging on a loopback address: the token route of
// Google's sign-in and the send route. It is safe for concurrent use.
type FCM struct {
	opts    FCMOptions
	addr    string
	account *FCMAccount
	secret  string

	mu            sync.Mutex
	now           FCMBehaviour
	scripts       map[string][]FCMScript
	dice          *rand.Rand
	bearers       map[string]time.Time // access tokens and their end
	entries       map[string]*fcmEntry
	total         int
	accepted      int
	recollapsed   int
	dryRuns       int
	inFlight      int
	peak          int
	tokenRequests int
	tokensIssued  int
	violations    []string
	changed       chan struct{}
	released      chan struct{} // closed by Release
	done          chan struct{} // closed by Down
	up            bool
	server        *http.Server
	served        chan struct{}
	conns         map[net.Conn]struct{}
	connsMade     int
	connsPeak     int
	caFile        string
}

// fcmEntry is what is known of one device token.
type fcmEntry struct {
	received, accepted int
	last               []byte
	collapse           string
}

// StartFCM starts a double. Close it when done; in a test use [NewFCM].
func StartFCM(opts FCMOptions) (*FCM, error) {
	if opts.Project == "" {
		opts.Project = "demo-project"
	}
	if opts.MaxStreams == 0 {
		opts.MaxStreams = 100
	}
	if opts.TokenLife == 0 {
		opts.TokenLife = time.Hour
	}
	s := &FCM{opts: opts, addr: opts.Addr, now: opts.Behaviour, scripts: map[string][]FCMScript{}, dice: rand.New(rand.NewPCG(opts.Seed, 1)),
		bearers: map[string]time.Time{}, entries: map[string]*fcmEntry{}, changed: make(chan struct{}), released: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	if s.addr == "" {
		var err error
		if s.addr, err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	if err := s.Up(); err != nil {
		return nil, err
	}
	var err error
	if s.account, err = NewFCMAccount(opts.Project, s.Endpoint()+"/token"); err == nil {
		s.secret, err = s.account.JSON()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start FCM double: %w", err), s.Close())
	}
	return s, nil
}

// NewFCM starts a double that ends with the test.
func NewFCM(t testing.TB, opts FCMOptions) *FCM {
	t.Helper()
	s, err := StartFCM(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close FCM double: %v", err)
		}
	})
	return s
}

// Up listens again after [FCM.Down], at the same address.
func (s *FCM) Up() error {
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("start FCM double: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		_ = listener.Close()
		return errors.New("start FCM double: it is up already")
	}
	s.addr = listener.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.serveToken)
	mux.HandleFunc("POST /v1/projects/{project}/messages:send", s.serveSend)
	server := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0), ConnState: s.follow,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: s.opts.MaxStreams}}
	if !s.opts.Plain {
		cert, err := newCertificate(s.opts.Cert)
		if err != nil {
			_ = listener.Close()
			return fmt.Errorf("start FCM double: %w", err)
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	served := make(chan struct{})
	s.server, s.served, s.done, s.up = server, served, make(chan struct{}), true
	go func() {
		defer close(served)
		if s.opts.Plain {
			_ = server.Serve(listener)
			return
		}
		_ = server.ServeTLS(listener, "", "")
	}()
	return nil
}

// Down stops listening and hangs up on everybody. The ledger stays.
func (s *FCM) Down() error {
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
		return fmt.Errorf("stop FCM double: %w", err)
	}
	<-served
	return nil
}

// Close stops the double.
func (s *FCM) Close() error {
	err := s.Down()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caFile != "" {
		_ = os.Remove(s.caFile)
		s.caFile = ""
	}
	return err
}

// HangUp ends all connections and goes on listening.
func (s *FCM) HangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

func (s *FCM) follow(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns[c] = struct{}{}
		s.connsMade++
		s.connsPeak = max(s.connsPeak, len(s.conns))
	case http.StateClosed, http.StateHijacked:
		delete(s.conns, c)
		s.wake()
	}
}

// Addr is host:port.
func (s *FCM) Addr() string { return s.addr }

// Endpoint is the base URL, in place of https://fcm.googleapis.com.
func (s *FCM) Endpoint() string {
	if s.opts.Plain {
		return "http://" + s.addr
	}
	return "https://" + s.addr
}

// Project is the Firebase project.
func (s *FCM) Project() string { return s.opts.Project }

// Account is the service account that may send.
func (s *FCM) Account() *FCMAccount { return s.account }

// ServiceAccount is its JSON: an FCM provider's secret.
func (s *FCM) ServiceAccount() string { return s.secret }

// Config is the public part of an FCM provider's configuration that sends to
// this double.
func (s *FCM) Config() map[string]any { return map[string]any{"endpoint": s.Endpoint()} }

// CAFile is a file with the authority of [CAPEM], for SSL_CERT_FILE of another
// process; it is removed by Close.
func (s *FCM) CAFile() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caFile != "" {
		return s.caFile, nil
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
	s.caFile = file.Name()
	return s.caFile, file.Close()
}

// Env are the variables by which the binary sends to this double, SSL_CERT_FILE
// included unless it speaks plain HTTP.
func (s *FCM) Env() ([]string, error) {
	env := []string{"FCM_CREDENTIALS=" + s.secret, "FCM_ENDPOINT=" + s.Endpoint()}
	if s.opts.Plain {
		return env, nil
	}
	ca, err := s.CAFile()
	if err != nil {
		return nil, err
	}
	return append(env, "SSL_CERT_FILE="+ca), nil
}

// FCMDeviceToken is the n-th device token, in the shape of Google's.
func FCMDeviceToken(n int) string {
	return fmt.Sprintf("dev%019d:APA91bDouble-%0120d", n, n)
}

// Set changes how everybody is treated from now on.
func (s *FCM) Set(b FCMBehaviour) {
	s.mu.Lock()
	s.now = b
	s.mu.Unlock()
}

// Script treats the next messages to a device token so, one script for each; the
// last one stays. No script takes the token's back.
func (s *FCM) Script(token string, scripts ...FCMScript) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[token] = scripts
}

// Release lets go what is held at the moment.
func (s *FCM) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.released)
	s.released = make(chan struct{})
}

// RevokeTokens ends all access tokens: sends with them are answered 401.
func (s *FCM) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.bearers)
}

// Received is how many messages for a device token arrived in full, whatever
// became of them. Dry runs are not counted, here nor below.
func (s *FCM) Received(token string) int { return s.entry(token).received }

// Accepted is how many of them were answered with 200.
func (s *FCM) Accepted(token string) int { return s.entry(token).accepted }

// Last is the body of the last message for a device token; nil with CountOnly.
func (s *FCM) Last(token string) []byte { return bytes.Clone(s.entry(token).last) }

// LastMessage is [FCM.Last], read strictly.
func (s *FCM) LastMessage(token string) (*fcmapi.Message, error) {
	body := s.Last(token)
	if body == nil {
		return nil, errors.New("no message for this token was kept")
	}
	request, err := ParseFCM(body)
	if err != nil {
		return nil, err
	}
	return request.Message, nil
}

func (s *FCM) entry(token string) fcmEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[token]; e != nil {
		return *e
	}
	return fcmEntry{}
}

// Counts says how many messages each device token got that were accepted.
func (s *FCM) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.entries))
	for token, e := range s.entries {
		if e.accepted > 0 {
			out[token] = e.accepted
		}
	}
	return out
}

// Total is how many messages arrived.
func (s *FCM) Total() int { s.mu.Lock(); defer s.mu.Unlock(); return s.total }

// AcceptedTotal is how many messages were answered with 200.
func (s *FCM) AcceptedTotal() int { s.mu.Lock(); defer s.mu.Unlock(); return s.accepted }

// Recollapsed is how many messages had another tag or collapse key than the one
// before to the same device token: a device shows both. It is only known without
// CountOnly and CheckEvery.
func (s *FCM) Recollapsed() int { s.mu.Lock(); defer s.mu.Unlock(); return s.recollapsed }

// DryRuns is how many requests asked for a judgement only.
func (s *FCM) DryRuns() int { s.mu.Lock(); defer s.mu.Unlock(); return s.dryRuns }

// Peak is how many sends were in flight at once.
func (s *FCM) Peak() int { s.mu.Lock(); defer s.mu.Unlock(); return s.peak }

// Tokens says how often an access token was asked for, and how many were issued.
func (s *FCM) Tokens() (asked, issued int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokenRequests, s.tokensIssued
}

// Violations are the faults in the bodies so far. A good adapter makes none.
func (s *FCM) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.violations...)
}

// Connections is how many were made so far; open how many there are now; peak
// how many there were at once.
func (s *FCM) Connections() (made, open, peak int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connsMade, len(s.conns), s.connsPeak
}

// Await returns nil as soon as n messages have arrived.
func (s *FCM) Await(ctx context.Context, n int) error {
	return s.await(ctx, fmt.Sprintf("%d messages", n), func() bool { return s.total >= n })
}

// AwaitToken returns nil as soon as n messages for a device token have arrived.
func (s *FCM) AwaitToken(ctx context.Context, token string, n int) error {
	return s.await(ctx, fmt.Sprintf("%d messages for one device", n), func() bool { e := s.entries[token]; return e != nil && e.received >= n })
}

// AwaitTokenRequests returns nil as soon as an access token was asked for n
// times.
func (s *FCM) AwaitTokenRequests(ctx context.Context, n int) error {
	return s.await(ctx, fmt.Sprintf("%d token requests", n), func() bool { return s.tokenRequests >= n })
}

// AwaitConnections returns nil as soon as there are only n connections.
func (s *FCM) AwaitConnections(ctx context.Context, n int) error {
	return s.await(ctx, fmt.Sprintf("%d connections", n), func() bool { return len(s.conns) <= n })
}

func (s *FCM) await(ctx context.Context, what string, there func() bool) error {
	for {
		s.mu.Lock()
		ok, have, changed := there(), s.total, s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("await %s, have %d messages: %w", what, have, ctx.Err())
		}
	}
}

// wake tells those who wait. The caller holds mu.
func (s *FCM) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// script chooses how a message is treated. The caller holds mu.
func (s *FCM) script(token string) FCMScript {
	switch list := s.scripts[token]; len(list) {
	case 0:
	case 1:
		return list[0]
	default:
		s.scripts[token] = list[1:]
		return list[0]
	}
	if s.now.All != (FCMScript{}) || len(s.now.Rates) == 0 {
		return s.now.All
	}
	chance := s.dice.Float64()
	for _, rate := range s.now.Rates {
		if chance < rate.Share {
			return rate.Script
		}
		chance -= rate.Share
	}
	return FCMScript{}
}

func (s *FCM) serveSend(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the sender gave up in the middle: nothing arrived
	}
	s.mu.Lock()
	end, known := s.bearers[bearer(r)]
	s.inFlight++
	s.peak = max(s.peak, s.inFlight)
	check := s.opts.CheckEvery <= 1 || s.total%s.opts.CheckEvery == 0
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.inFlight--
		s.mu.Unlock()
	}()
	switch {
	case !known || time.Now().After(end):
		refuseFCM(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.")
		return
	case r.PathValue("project") != s.opts.Project:
		refuseFCM(w, http.StatusForbidden, "PERMISSION_DENIED", "Permission 'cloudmessaging.messages.create' denied on resource '//cloudresourcemanager.googleapis.com/projects/"+r.PathValue("project")+"' (or it may not exist).")
		return
	}
	var request *fcmapi.SendMessageRequest
	if check {
		request, err = ParseFCM(body)
	} else {
		request, err = quickFCM(body)
	}
	var wrong *fcmViolation
	if errors.As(err, &wrong) {
		s.mu.Lock()
		s.violations = append(s.violations, wrong.Error())
		s.mu.Unlock()
		refuseFCM(w, http.StatusBadRequest, "INVALID_ARGUMENT", wrong.description, map[string]any{"@type": "type.googleapis.com/google.rpc.BadRequest",
			"fieldViolations": []map[string]string{{"field": wrong.field, "description": wrong.description}}})
		return
	}
	token := request.Message.Token
	s.mu.Lock()
	script, latency := s.script(token), s.now.Latency
	if request.ValidateOnly {
		s.dryRuns++
	} else {
		e := s.entries[token]
		if e == nil {
			e = &fcmEntry{}
			s.entries[token] = e
		}
		if !s.opts.CountOnly {
			e.last = body
			if key := collapseFCM(request.Message); check {
				if e.received > 0 && e.collapse != key {
					s.recollapsed++
				}
				e.collapse = key
			}
		}
		s.total++
		e.received++
		s.wake()
	}
	number, released, done := s.total, s.released, s.done
	s.mu.Unlock()
	if script.Hold {
		select {
		case <-released:
		case <-done:
			hangUp(w)
			return
		case <-r.Context().Done():
			return
		}
	}
	if wait := latency + script.Delay; wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-done:
			hangUp(w)
			return
		case <-r.Context().Done():
			return
		}
	}
	if script.Fault == FCMAccept {
		switch {
		case !s.opts.AnyToken && !fcmTarget.MatchString(token):
			script.Fault = FCMInvalidToken
		case contentBytes(request.Message) > 4096:
			refuseFCM(w, http.StatusBadRequest, "INVALID_ARGUMENT", "Android message is too big", fcmDetail("INVALID_ARGUMENT"))
			return
		}
	}
	if script.RetryAfter != "" {
		w.Header().Set("Retry-After", script.RetryAfter)
	}
	name := fmt.Sprintf("projects/%s/messages/0:%016d%%double", s.opts.Project, number)
	switch script.Fault {
	case FCMAccept:
		if !request.ValidateOnly {
			s.mu.Lock()
			s.accepted++
			s.entries[token].accepted++
			s.mu.Unlock()
		} else {
			name = "projects/" + s.opts.Project + "/messages/fake_message_id"
		}
		writeJSON(w, http.StatusOK, map[string]string{"name": name})
	case FCMNoAnswer:
		select {
		case <-r.Context().Done():
		case <-done:
		}
		hangUp(w)
	default:
		script.Fault.play(w)
	}
}

// play gives the answer, or does not.
func (f FCMFault) play(w http.ResponseWriter) {
	const (
		argument = "INVALID_ARGUMENT"
		rpc      = "type.googleapis.com/google.rpc."
	)
	quota := func(subject, description string) map[string]any {
		return map[string]any{"@type": rpc + "QuotaFailure", "violations": []map[string]string{{"subject": subject, "description": description}}}
	}
	switch f {
	case FCMUnregistered:
		refuseFCM(w, http.StatusNotFound, "NOT_FOUND", "Requested entity was not found.", fcmDetail("UNREGISTERED"))
	case FCMNotFound:
		refuseFCM(w, http.StatusNotFound, "NOT_FOUND", "Requested entity was not found.")
	case FCMInvalidToken:
		refuseFCM(w, http.StatusBadRequest, argument, "The registration token is not a valid FCM registration token", fcmDetail(argument))
	case FCMInvalidArgument:
		refuseFCM(w, http.StatusBadRequest, argument, "Request contains an invalid argument.", fcmDetail(argument))
	case FCMBadRequest:
		refuseFCM(w, http.StatusBadRequest, argument, "Invalid value at 'message.android.ttl' (type.googleapis.com/google.protobuf.Duration), \"x\"",
			map[string]any{"@type": rpc + "BadRequest", "fieldViolations": []map[string]string{{"field": "message.android.ttl", "description": "Invalid value"}}})
	case FCMSenderIDMismatch:
		refuseFCM(w, http.StatusForbidden, "PERMISSION_DENIED", "SenderId mismatch", fcmDetail("SENDER_ID_MISMATCH"))
	case FCMQuotaProject:
		refuseFCM(w, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Messages sent'.", fcmDetail("QUOTA_EXCEEDED"),
			quota("project:demo-project", "Message rate quota exceeded for the project."))
	case FCMQuotaDevice:
		refuseFCM(w, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", "Device message rate exceeded.", fcmDetail("QUOTA_EXCEEDED"),
			quota("device:token", "Device message rate quota exceeded."))
	case FCMUnavailable:
		refuseFCM(w, http.StatusServiceUnavailable, "UNAVAILABLE", "The service is currently unavailable.", fcmDetail("UNAVAILABLE"))
	case FCMInternal:
		refuseFCM(w, http.StatusInternalServerError, "INTERNAL", "Internal error encountered.", fcmDetail("INTERNAL"))
	case FCMThirdPartyAuth:
		refuseFCM(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service", fcmDetail("THIRD_PARTY_AUTH_ERROR"))
	case FCMUnauthenticated:
		refuseFCM(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
	case FCMPermissionDenied:
		refuseFCM(w, http.StatusForbidden, "PERMISSION_DENIED", "The caller does not have permission")
	case FCMServiceDisabled:
		refuseFCM(w, http.StatusForbidden, "PERMISSION_DENIED", "Firebase Cloud Messaging API has not been used in this project before or it is disabled.",
			map[string]any{"@type": rpc + "ErrorInfo", "reason": "SERVICE_DISABLED", "domain": "googleapis.com"})
	case FCMBadGateway:
		writeHTML(w, http.StatusBadGateway)
	case FCMUnavailableHTML:
		writeHTML(w, http.StatusServiceUnavailable)
	case FCMGarbage:
		writeHTML(w, http.StatusOK)
	case FCMRedirect:
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
	case FCMTooManyWithoutBody:
		w.WriteHeader(http.StatusTooManyRequests)
	case FCMTooLarge:
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	case FCMCut:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"name":"projects/`)
		_ = http.NewResponseController(w).Flush()
		hangUp(w)
	case FCMReset:
		hangUp(w)
	default:
		w.WriteHeader(http.StatusNotImplemented)
	}
}

// hangUp ends an HTTP/1.1 connection without an answer, and of an HTTP/2
// connection the one stream.
func hangUp(http.ResponseWriter) { panic(http.ErrAbortHandler) }

// quickFCM reads the target and no more.
func quickFCM(body []byte) (*fcmapi.SendMessageRequest, error) {
	var quick struct {
		ValidateOnly bool `json:"validate_only"`
		Message      struct {
			Token string `json:"token"`
		} `json:"message"`
	}
	if err := json.Unmarshal(body, &quick); err != nil || quick.Message.Token == "" {
		return nil, violation("", "Invalid JSON payload received.")
	}
	return &fcmapi.SendMessageRequest{ValidateOnly: quick.ValidateOnly, Message: &fcmapi.Message{Token: quick.Message.Token}}, nil
}

// collapseFCM is what makes a later message replace this one on its device: the
// tag of what is shown, the key of what is still to arrive.
func collapseFCM(m *fcmapi.Message) string {
	switch {
	case m.Android != nil && m.Android.Notification != nil && m.Android.Notification.Tag != "":
		return m.Android.Notification.Tag
	case m.Android != nil:
		return m.Android.CollapseKey
	case m.Apns != nil:
		return m.Apns.Headers["apns-collapse-id"]
	case m.Webpush != nil:
		return m.Webpush.Headers["Topic"]
	default:
		return ""
	}
}

func bearer(r *http.Request) string {
	const prefix = "Bearer "
	if value := r.Header.Get("Authorization"); len(value) > len(prefix) && value[:len(prefix)] == prefix {
		return value[len(prefix):]
	}
	return ""
}

func fcmDetail(code string) map[string]any {
	return map[string]any{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}
}

func refuseFCM(w http.ResponseWriter, status int, name, message string, details ...map[string]any) {
	problem := map[string]any{"code": status, "message": message, "status": name}
	if len(details) > 0 {
		problem["details"] = details
	}
	writeJSON(w, status, map[string]any{"error": problem})
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}

func writeHTML(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<!DOCTYPE html><html><head><title>Not what you asked for</title></head><body>nginx</body></html>")
}
