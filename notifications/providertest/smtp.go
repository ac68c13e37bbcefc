package providertest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// TLSMode says how a double encrypts; the values are those of the config key
// "tls" of an e-mail provider.
type TLSMode string

const (
	NoTLS       TLSMode = "none"
	StartTLS    TLSMode = "starttls"
	ImplicitTLS TLSMode = "tls"
)

// SMTPOptions sets up an [SMTP] double. The zero value is an open server without
// encryption or sign-in that takes everything.
type SMTPOptions struct {
	// Addr to listen on; empty means a free port of 127.0.0.1.
	Addr string

	// TLS is how it encrypts; empty means [NoTLS].
	TLS  TLSMode
	Cert Cert

	// Username and Password are asked for when Username is not empty. Mail
	// without sign-in is then refused with 530.
	Username, Password string
	// AuthMethods are offered; empty means PLAIN, LOGIN and CRAM-MD5.
	AuthMethods []string
	// AuthInPlain offers sign-in also on a line without encryption. It is
	// implied by NoTLS.
	AuthInPlain bool
	// NoAuth offers no sign-in although one is asked for.
	NoAuth bool

	// NoSMTPUTF8 takes only ASCII addresses.
	NoSMTPUTF8 bool
	// MaxMessageBytes is announced and enforced; zero means no limit.
	MaxMessageBytes int64
	// MaxPerConnection is how many mails one connection takes before it is
	// ended with 421; zero means no limit.
	MaxPerConnection int
	// IdleTimeout ends a connection without commands with 421; zero means never.
	IdleTimeout time.Duration

	// CountOnly keeps no content in the ledger: for long runs.
	CountOnly bool
	// Transcript keeps all that went over the lines, decrypted.
	Transcript bool

	// Behaviour at the start; [SMTP.Set] changes it.
	Behaviour Behaviour
}

// Behaviour is how the double treats everybody. It holds for what comes after
// the change, also on open connections.
type Behaviour struct {
	GreetingDelay time.Duration
	// Greeting in place of 220; the connection ends after it.
	Greeting Reply
	// NoEHLO knows only HELO, and with it no extension.
	NoEHLO bool
	// Hello in place of the greeting's answer.
	Hello Reply
	// StartTLS in place of the upgrade.
	StartTLS Reply
	// Auth in place of the check of the password.
	Auth Reply
	// Mail in place of the answer to MAIL FROM.
	Mail Reply
	// All treats every mail for whose recipient there is no [SMTP.Script].
	All Script
	// HangUp is the command, such as "EHLO", at which the double hangs up without
	// an answer; "CONNECT" hangs up in place of the greeting.
	HangUp string
	// Garbage greets as a web server would.
	Garbage bool
}

// Script is how the double treats mail to one recipient.
type Script struct {
	// Rcpt in place of the answer to RCPT TO, after RcptDelay.
	Rcpt      Reply
	RcptDelay time.Duration
	// Data in place of 354.
	Data Reply
	// Dot in place of the answer to the final dot, after DotDelay. A mail that
	// it accepts stands in the ledger already during the delay.
	Dot      Reply
	DotDelay time.Duration
	Drop     Drop
}

// Reply is an answer. The zero value is the double's own, which accepts. After
// a 421 the connection ends.
type Reply struct {
	Code     int
	Enhanced string // such as "5.1.1"; may be empty
	Text     string
}

func (r Reply) wire() string {
	line := strconv.Itoa(r.Code)
	if r.Enhanced != "" {
		line += " " + r.Enhanced
	}
	return line + " " + r.Text + "\r\n"
}

func (r Reply) err() error {
	e := &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.NoEnhancedCode, Message: r.Text}
	var a, b, c int
	if n, _ := fmt.Sscanf(r.Enhanced, "%d.%d.%d", &a, &b, &c); n == 3 {
		e.EnhancedCode = smtp.EnhancedCode{a, b, c}
	}
	return e
}

// Drop is where the double hangs up without an answer.
type Drop int

const (
	// DropNever is no drop.
	DropNever Drop = iota
	// DropAtRcpt hangs up at RCPT TO.
	DropAtRcpt
	// DropBeforeDot hangs up in the middle of the content: the mail is not taken.
	DropBeforeDot
	// DropAfterDot takes the whole mail and hangs up.
	DropAfterDot
)

// Received is a mail that the double took.
type Received struct {
	// QueueID is in the answer to the sender.
	QueueID string
	From    string
	To      []string
	// Raw is the message, unstuffed; empty with CountOnly.
	Raw []byte
	// Bytes is its length.
	Bytes int
	// Answered says that the sender was told. False: it hung up, or hangs.
	Answered bool
	// Connection numbers the connections from 1 on.
	Connection int64
	TLS        bool
	User       string
	At         time.Time
}

// Parse parses the message.
func (r Received) Parse() (*Mail, error) { return ParseMail(r.Raw) }

// SMTP is a mail server on a loopback address that can be told what to answer,
// and keeps what it took. It is safe for concurrent use.
type SMTP struct {
	opts   SMTPOptions
	addr   string
	config *tls.Config

	mu          sync.Mutex
	now         Behaviour
	scripts     map[string][]Script
	ledger      []*Received
	byRecipient map[string]int
	changed     chan struct{}
	wires       map[*wire]struct{}
	connections int64
	peak        int
	transcript  strings.Builder
	server      *smtp.Server
	listener    net.Listener
	served      chan struct{}
	done        chan struct{} // ends all delays
	up          bool
	caFile      string
}

// StartSMTP starts a double. Close it when done; in a test use [NewSMTP].
func StartSMTP(opts SMTPOptions) (*SMTP, error) {
	s := &SMTP{opts: opts, addr: opts.Addr, now: opts.Behaviour, scripts: map[string][]Script{}, byRecipient: map[string]int{},
		changed: make(chan struct{}), wires: map[*wire]struct{}{}}
	if s.addr == "" {
		var err error
		if s.addr, err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	switch opts.TLS {
	case "", NoTLS:
		s.opts.TLS = NoTLS
	case StartTLS, ImplicitTLS:
		cert, err := newCertificate(opts.Cert)
		if err != nil {
			return nil, fmt.Errorf("start SMTP double: %w", err)
		}
		s.config = &tls.Config{Certificates: []tls.Certificate{cert}}
	default:
		return nil, fmt.Errorf("start SMTP double: TLS mode %q is not known", opts.TLS)
	}
	if len(s.opts.AuthMethods) == 0 {
		s.opts.AuthMethods = []string{"PLAIN", "LOGIN", "CRAM-MD5"}
	}
	if err := s.Up(); err != nil {
		return nil, err
	}
	return s, nil
}

// NewSMTP starts a double that ends with the test.
func NewSMTP(t testing.TB, opts SMTPOptions) *SMTP {
	t.Helper()
	s, err := StartSMTP(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close SMTP double: %v", err)
		}
	})
	return s
}

// Up listens again after [SMTP.Down], at the same address.
func (s *SMTP) Up() error {
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("start SMTP double: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		_ = listener.Close()
		return errors.New("start SMTP double: it is up already")
	}
	s.addr = listener.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(s.newSession))
	server.Domain = "double.test"
	server.AllowInsecureAuth = true // the line's state is ours to judge
	server.EnableSMTPUTF8 = !s.opts.NoSMTPUTF8
	server.MaxMessageBytes = s.opts.MaxMessageBytes
	server.ReadTimeout = s.opts.IdleTimeout
	server.ErrorLog = log.New(io.Discard, "", 0)
	if s.opts.Transcript {
		server.Debug = transcript{s}
	}
	served := make(chan struct{})
	s.server, s.listener, s.served, s.done, s.up = server, listener, served, make(chan struct{}), true
	go func() {
		defer close(served)
		_ = server.Serve(wires{listener, s})
	}()
	return nil
}

// Down stops listening and hangs up on everybody, as a server that is
// restarted. The ledger stays.
func (s *SMTP) Down() error {
	s.mu.Lock()
	if !s.up {
		s.mu.Unlock()
		return nil
	}
	s.up = false
	server, listener, served := s.server, s.listener, s.served
	close(s.done)
	open := make([]*wire, 0, len(s.wires))
	for w := range s.wires {
		open = append(open, w)
	}
	s.mu.Unlock()
	for _, w := range open {
		w.cut()
	}
	if err := server.Close(); err != nil && !errors.Is(err, smtp.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("stop SMTP double: %w", err)
	}
	// The server knows the listener only once it serves, which may be later.
	if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("stop SMTP double: %w", err)
	}
	<-served
	// Only then is the ledger final: a handler may just be taking a mail.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		s.mu.Lock()
		n, changed := len(s.wires), s.changed
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("stop SMTP double: %d connections do not end", n)
		}
	}
}

// HangUp ends the connections there are, without a farewell, and goes on
// listening: as a firewall that forgets idle lines.
func (s *SMTP) HangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.wires {
		w.cut()
	}
}

// Farewell ends the connections there are with 421, as [SMTPOptions.IdleTimeout]
// does. What is read of a command by then is lost: call it when none is under way.
func (s *SMTP) Farewell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.wires {
		_ = w.raw.SetReadDeadline(time.Now()) // one that has ended needs none
	}
}

// Release ends the delays that are under way.
func (s *SMTP) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		close(s.done)
		s.done = make(chan struct{})
	}
}

// Close stops the double.
func (s *SMTP) Close() error {
	err := s.Down()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caFile != "" {
		_ = os.Remove(s.caFile)
		s.caFile = ""
	}
	return err
}

// Addr is host:port.
func (s *SMTP) Addr() string { return s.addr }

// Host is the address without the port.
func (s *SMTP) Host() string {
	host, _, _ := net.SplitHostPort(s.addr)
	return host
}

// Port is the port.
func (s *SMTP) Port() int {
	_, port, _ := net.SplitHostPort(s.addr)
	n, _ := strconv.Atoi(port)
	return n
}

// Config is the public part of an e-mail provider's configuration that sends to
// this double. The password is not in it.
func (s *SMTP) Config(from string) map[string]any {
	return map[string]any{"host": s.Host(), "port": s.Port(), "tls": string(s.opts.TLS), "username": s.opts.Username, "from": from}
}

// CAFile is a file with the authority of [CAPEM], for SSL_CERT_FILE of another
// process; it is removed by Close.
func (s *SMTP) CAFile() (string, error) {
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
// included.
func (s *SMTP) Env(from string) ([]string, error) {
	ca, err := s.CAFile()
	if err != nil {
		return nil, err
	}
	return []string{
		"SMTP_HOST=" + s.Host(), "SMTP_PORT=" + strconv.Itoa(s.Port()), "SMTP_TLS=" + string(s.opts.TLS), "SMTP_FROM=" + from,
		"SMTP_USERNAME=" + s.opts.Username, "SMTP_PASSWORD=" + s.opts.Password, "SSL_CERT_FILE=" + ca,
	}, nil
}

// Set changes how everybody is treated from now on.
func (s *SMTP) Set(b Behaviour) {
	s.mu.Lock()
	s.now = b
	s.mu.Unlock()
}

func (s *SMTP) behaviour() Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Script treats the next mails to a recipient so, one script for each mail; the
// last one stays. No script takes the recipient's back.
func (s *SMTP) Script(recipient string, scripts ...Script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[strings.ToLower(recipient)] = scripts
}

func (s *SMTP) script(recipient string) Script {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.ToLower(recipient)
	switch list := s.scripts[key]; len(list) {
	case 0:
		return s.now.All
	case 1:
		return list[0]
	default:
		s.scripts[key] = list[1:]
		return list[0]
	}
}

// Messages returns what was taken so far, in its order.
func (s *SMTP) Messages() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Received, len(s.ledger))
	for i, r := range s.ledger {
		out[i] = *r
	}
	return out
}

// Total is how many mails were taken.
func (s *SMTP) Total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ledger)
}

// To returns the mails that were taken for a recipient.
func (s *SMTP) To(recipient string) []Received {
	var out []Received
	for _, r := range s.Messages() {
		for _, to := range r.To {
			if strings.EqualFold(to, recipient) {
				out = append(out, r)
				break
			}
		}
	}
	return out
}

// Counts says how many mails each recipient (in lower case) got.
func (s *SMTP) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.byRecipient))
	for to, n := range s.byRecipient {
		out[to] = n
	}
	return out
}

// Await returns nil as soon as n mails were taken.
func (s *SMTP) Await(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		have, changed := len(s.ledger), s.changed
		s.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("await %d mails, have %d: %w", n, have, ctx.Err())
		}
	}
}

// Connections is how many were made so far; Open how many there are now; Peak
// how many there were at once.
func (s *SMTP) Connections() (made int64, open, peak int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections, len(s.wires), s.peak
}

// Transcript is all that went over the lines.
func (s *SMTP) Transcript() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transcript.String()
}

type transcript struct{ s *SMTP }

func (t transcript) Write(p []byte) (int, error) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.s.transcript.Write(p)
}

// sleep waits, but not longer than the double is up.
func (s *SMTP) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	s.mu.Lock()
	done := s.done
	s.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}

func (s *SMTP) adopt(conn net.Conn) *wire {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connections++
	w := &wire{raw: conn, inner: conn, owner: s, id: s.connections}
	switch s.opts.TLS {
	case ImplicitTLS:
		w.inner, w.secure = tls.Server(conn, s.config), true
	case StartTLS:
		w.config = s.config
	}
	s.wires[w] = struct{}{}
	s.peak = max(s.peak, len(s.wires))
	if !s.up {
		w.cut()
	}
	return w
}

func (s *SMTP) forget(w *wire) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wires, w)
	s.wake()
}

// wake tells those who wait. The caller holds mu.
func (s *SMTP) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *SMTP) newSession(c *smtp.Conn) (smtp.Session, error) {
	w, ok := c.Conn().(*wire)
	if !ok {
		return nil, errors.New("not a connection of the double")
	}
	if reply := s.behaviour().Hello; reply.Code != 0 {
		if reply.Code == 421 {
			w.after()
		}
		return nil, reply.err()
	}
	return &session{s: s, w: w}, nil
}

// session is one connection's state.
type session struct {
	s    *SMTP
	w    *wire
	user string
	sent int

	from   string
	to     []string
	script Script
}

func (x *session) reply(r Reply) error {
	if r.Code == 421 {
		x.w.after()
	}
	return r.err()
}

// AuthMechanisms implements [smtp.AuthSession].
func (x *session) AuthMechanisms() []string {
	o := x.s.opts
	if o.Username == "" || o.NoAuth || o.TLS == StartTLS && !x.w.isSecure() && !o.AuthInPlain {
		return nil
	}
	return o.AuthMethods
}

// Auth implements [smtp.AuthSession].
func (x *session) Auth(method string) (sasl.Server, error) {
	offered := false
	for _, m := range x.AuthMechanisms() {
		offered = offered || m == method
	}
	server := newSASL(method, x.s.opts.Password, func(username, password string) error {
		if reply := x.s.behaviour().Auth; reply.Code != 0 {
			return x.reply(reply)
		}
		if username != x.s.opts.Username || password != x.s.opts.Password {
			return smtp.ErrAuthFailed
		}
		x.user = username
		return nil
	})
	if !offered || server == nil {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return server, nil
}

// Mail implements [smtp.Session].
func (x *session) Mail(from string, _ *smtp.MailOptions) error {
	if limit := x.s.opts.MaxPerConnection; limit > 0 && x.sent >= limit {
		return x.reply(Reply{421, "4.7.0", "Too many messages on this connection"})
	}
	if x.s.opts.Username != "" && x.user == "" {
		return x.reply(Reply{530, "5.7.0", "Authentication required"})
	}
	if reply := x.s.behaviour().Mail; reply.Code != 0 {
		return x.reply(reply)
	}
	x.from = from
	return nil
}

// Rcpt implements [smtp.Session].
func (x *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	script := x.s.script(to)
	x.s.sleep(script.RcptDelay)
	if script.Drop == DropAtRcpt {
		x.w.cut()
		return errors.New("dropped")
	}
	if script.Rcpt.Code != 0 {
		return x.reply(script.Rcpt)
	}
	if len(x.to) == 0 || script != (Script{}) {
		x.script = script
		if script.Data.Code != 0 {
			x.w.refuse(script.Data)
		}
	}
	x.to = append(x.to, to)
	return nil
}

// Data implements [smtp.Session].
func (x *session) Data(r io.Reader) error {
	script := x.script
	if script.Data.Code != 0 {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	if script.Drop == DropBeforeDot {
		_, _ = io.CopyN(io.Discard, r, 64)
		x.w.cut()
		return errors.New("dropped")
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return err // the sender hung up before the final dot
	}
	if script.Dot.Code/100 > 2 {
		x.s.sleep(script.DotDelay)
		return x.reply(script.Dot)
	}
	x.sent++
	got := x.s.take(x, raw)
	if script.Drop == DropAfterDot {
		x.w.cut()
		return errors.New("dropped")
	}
	x.s.sleep(script.DotDelay)
	x.s.mu.Lock()
	got.Answered = x.s.up
	x.s.mu.Unlock()
	if script.Dot.Code != 0 {
		return x.reply(script.Dot)
	}
	return Reply{250, "2.0.0", "OK: queued as " + got.QueueID}.err()
}

func (s *SMTP) take(x *session, raw []byte) *Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Received{QueueID: fmt.Sprintf("DOUBLE%d", len(s.ledger)+1), From: x.from, To: append([]string(nil), x.to...), Bytes: len(raw),
		Connection: x.w.id, TLS: x.w.isSecure(), User: x.user, At: time.Now()}
	if !s.opts.CountOnly {
		r.Raw = raw
	}
	s.ledger = append(s.ledger, r)
	for _, to := range r.To {
		s.byRecipient[strings.ToLower(to)]++
	}
	s.wake()
	return r
}

// Reset implements [smtp.Session].
func (x *session) Reset() { x.from, x.to, x.script = "", nil, Script{} }

// Logout implements [smtp.Session].
func (x *session) Logout() error { return nil }
