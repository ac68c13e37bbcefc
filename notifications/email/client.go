package email

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/mail"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/wneessen/go-mail/smtp"
	"golang.org/x/net/idna"

	"github.com/groundworkhq/groundwork/notifications"
)

const (
	maxConnections = 8
	// maxPerConnection is how many mails one connection carries: many servers
	// end a session that goes on for too long.
	maxPerConnection = 100
	// maxIdle is shorter than the idle limit of common servers (30 s and more).
	maxIdle     = 15 * time.Second
	dialTimeout = 15 * time.Second
)

// TLS modes of the config key "tls".
const (
	tlsStartTLS = "starttls" // plain connection, upgraded; the default
	tlsImplicit = "tls"      // TLS from the first byte
	tlsNone     = "none"
	// tlsOpportunistic is STARTTLS where the server offers it: what PocketBase's
	// mail settings mean without TLS. Somebody on the line can take the offer out.
	tlsOpportunistic = "opportunistic"
)

// Provider sends by one SMTP server. It is safe for concurrent use.
type Provider struct {
	host       string
	port       int
	mode       string
	username   string
	password   string
	authMethod string
	localName  string
	from       mail.Address

	mu     sync.Mutex
	idle   []*session
	closed bool
}

// New returns a provider for an e-mail row. Its config keys are described at
// [notifications.ProviderConfig]; it does not connect yet.
func New(cfg notifications.ProviderConfig) (notifications.Adapter, error) {
	p := &Provider{
		host:       text(cfg.Config, "host"),
		mode:       strings.ToLower(text(cfg.Config, "tls")),
		username:   text(cfg.Config, "username"),
		password:   cfg.Secret,
		authMethod: strings.ToUpper(text(cfg.Config, "authMethod")),
		localName:  text(cfg.Config, "localName"),
	}
	if p.host == "" {
		return nil, fmt.Errorf("the mail server's name (host) is missing")
	}
	if net.ParseIP(p.host) == nil {
		// The resolver and the certificate know a name such as müller.example only
		// in its ASCII form.
		ascii, err := idna.Lookup.ToASCII(p.host)
		if isASCII(p.host) {
			ascii, err = p.host, nil // also names with _, which container networks have
		}
		if err != nil || strings.ContainsFunc(ascii, func(r rune) bool { return r <= ' ' || strings.ContainsRune("/:@[]", r) }) {
			return nil, fmt.Errorf("%q is not a mail server's name: write it without port and without a scheme", p.host)
		}
		p.host = ascii
	}
	switch p.mode {
	case "":
		p.mode = tlsStartTLS
	case tlsStartTLS, tlsImplicit, tlsNone, tlsOpportunistic:
	default:
		return nil, fmt.Errorf("tls is %q: use starttls, tls or none", p.mode)
	}
	var err error
	if p.port, err = portOf(cfg.Config["port"], p.mode); err != nil {
		return nil, err
	}
	address := text(cfg.Config, "from")
	if address == "" {
		address = cfg.SenderID
	}
	from, err := mail.ParseAddress(address)
	if err != nil {
		return nil, fmt.Errorf("the sender's address (from) %q is not an e-mail address", address)
	}
	if _, _, err := asciiAddress(from.Address); err != nil {
		return nil, fmt.Errorf("the sender's address (from) %q is not an e-mail address", address)
	}
	p.from = *from
	if name := text(cfg.Config, "fromName"); name != "" {
		p.from.Name = name
	}
	if p.localName == "" {
		if name, err := os.Hostname(); err == nil && validHostname(name) {
			p.localName = name
		} else {
			p.localName = "localhost"
		}
	}
	return p, nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

func validHostname(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

func text(config map[string]any, key string) string {
	s, _ := config[key].(string)
	return strings.TrimSpace(s)
}

func portOf(value any, mode string) (int, error) {
	port := 0
	switch v := value.(type) {
	case nil:
	case int:
		port = v
	case int64:
		port = int(v)
	case float64:
		if port = int(v); float64(port) != v {
			return 0, fmt.Errorf("port %v is not a whole number", v)
		}
	case string:
		if v = strings.TrimSpace(v); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil {
				return 0, fmt.Errorf("port %q is not a number", v)
			}
			port = n
		}
	default:
		return 0, fmt.Errorf("port %v is not a number", v)
	}
	if port == 0 {
		switch mode {
		case tlsImplicit:
			port = 465
		case tlsNone:
			port = 25
		default:
			port = 587
		}
	}
	if port < 1 || port > 65535 {
		return 0, fmt.Errorf("port %d is not between 1 and 65535", port)
	}
	return port, nil
}

// Limits implements [notifications.Limiter].
func (p *Provider) Limits() notifications.Limits {
	return notifications.Limits{StartInFlight: 2, MaxInFlight: maxConnections}
}

// Close ends the idle connections; those in use end with their mail.
func (p *Provider) Close() error {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	var all sync.WaitGroup
	for _, s := range idle {
		all.Go(s.quit)
	}
	all.Wait()
	return nil
}

// Check implements [notifications.Checker]: it opens a session, signs in, and
// ends it.
func (p *Provider) Check(ctx context.Context) notifications.Outcome {
	s, fault := p.open(ctx)
	if fault != nil {
		return p.outcome(fault)
	}
	s.quit()
	return notifications.Outcome{Kind: notifications.Accepted}
}

// Send implements [notifications.Provider].
func (p *Provider) Send(ctx context.Context, m *notifications.Message) notifications.Outcome {
	env, fault := p.envelope(m)
	if fault != nil {
		return p.outcome(fault)
	}
	raw, fault := build(m, env)
	if fault != nil {
		return p.outcome(fault)
	}
	// A server may have closed an idle connection, with or without a farewell
	// (421): that shows at the first command, when nothing of the mail has left,
	// and a fresh one is tried once.
	for fresh := false; ; fresh = true {
		if err := ctx.Err(); err != nil {
			return p.outcome(newFault(stageDial, err))
		}
		s, isNew, fault := p.take(ctx, fresh)
		if fault != nil {
			return p.outcome(fault)
		}
		response, fault := s.send(ctx, env, raw)
		if fault == nil {
			p.give(s)
			id := env.messageID
			if response != "" {
				id += " " + clip(response)
			}
			return notifications.Outcome{Kind: notifications.Accepted, ProviderMessageID: id}
		}
		if fault.reply == nil || fault.stage == stageSent || fault.closing() || ctx.Err() != nil || !s.reset() {
			s.drop()
		} else {
			p.give(s)
		}
		if !isNew && fault.stage == stageMail && (fault.connectionLost() || fault.closing()) && ctx.Err() == nil {
			continue
		}
		return p.outcome(fault)
	}
}

// clip keeps a server's answer short enough to be stored.
func clip(s string) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "?")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "")
	}
	return s
}

// take returns an idle session or opens one. isNew is false for one that may
// have been closed by the server meanwhile.
func (p *Provider) take(ctx context.Context, fresh bool) (s *session, isNew bool, fault *fault) {
	p.mu.Lock()
	for len(p.idle) > 0 && !fresh {
		last := len(p.idle) - 1
		s, p.idle = p.idle[last], p.idle[:last]
		if time.Since(s.usedAt) < maxIdle {
			p.mu.Unlock()
			return s, false, nil
		}
		go s.quit()
	}
	p.mu.Unlock()
	s, fault = p.open(ctx)
	return s, true, fault
}

func (p *Provider) give(s *session) {
	s.usedAt = time.Now()
	p.mu.Lock()
	if p.closed || s.spoiled || s.sent >= maxPerConnection || len(p.idle) >= maxConnections {
		p.mu.Unlock()
		s.quit()
		return
	}
	p.idle = append(p.idle, s)
	if len(p.idle) == 1 {
		time.AfterFunc(maxIdle, p.sweep)
	}
	p.mu.Unlock()
}

// sweep ends connections that nobody used for a while.
func (p *Provider) sweep() {
	p.mu.Lock()
	var old []*session
	keep := p.idle[:0]
	for _, s := range p.idle {
		if time.Since(s.usedAt) >= maxIdle {
			old = append(old, s)
		} else {
			keep = append(keep, s)
		}
	}
	p.idle = keep
	if len(keep) > 0 {
		time.AfterFunc(maxIdle, p.sweep)
	}
	p.mu.Unlock()
	for _, s := range old {
		s.quit()
	}
}

// session is one SMTP connection. It is used by one goroutine at a time.
type session struct {
	conn   net.Conn
	client *smtp.Client
	usedAt time.Time
	sent   int
	// spoiled: a context ended just when its mail was done, and its end may still
	// hit whoever uses the connection next.
	spoiled bool
}

func (p *Provider) open(ctx context.Context) (s *session, _ *fault) {
	address := net.JoinHostPort(p.host, strconv.Itoa(p.port))
	dialer := &net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, newFault(stageDial, err)
	}
	stop := guard(ctx, conn)
	defer func() {
		if !stop() && s != nil {
			s.spoiled = true
		}
	}()
	config := &tls.Config{ServerName: p.host, MinVersion: tls.VersionTLS12}
	if p.mode == tlsImplicit {
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, newFault(stageTLS, err)
		}
		conn = secure
	}
	client, err := smtp.NewClient(conn, p.host)
	if err != nil {
		_ = conn.Close()
		return nil, newFault(stageGreeting, err)
	}
	s = &session{conn: conn, client: client, usedAt: time.Now()}
	fail := func(st stage, err error) (*session, *fault) {
		s.drop()
		return nil, newFault(st, err)
	}
	if err := client.Hello(p.localName); err != nil {
		return fail(stageGreeting, err)
	}
	offered, _ := client.Extension("STARTTLS")
	if p.mode == tlsStartTLS && !offered {
		return fail(stageTLS, errNoStartTLS)
	}
	if p.mode == tlsStartTLS || p.mode == tlsOpportunistic && offered {
		if err := client.StartTLS(config); err != nil {
			return fail(stageTLS, err)
		}
	}
	if p.username != "" {
		auth, err := p.auth(client)
		if err != nil {
			return fail(stageAuth, err)
		}
		if err := client.Auth(auth); err != nil {
			return fail(stageAuth, err)
		}
	}
	return s, nil
}

// auth chooses the method: the configured one, or the first that both sides
// know. A password is not sent over an open line, but to this machine.
func (p *Provider) auth(client *smtp.Client) (smtp.Auth, error) {
	_, offered := client.Extension("AUTH")
	methods := strings.Fields(strings.ToUpper(offered))
	if len(methods) == 0 {
		return nil, errNoAuth
	}
	has := func(m string) bool {
		for _, o := range methods {
			if o == m {
				return true
			}
		}
		return false
	}
	method := p.authMethod
	if method == "" || method == "AUTO" {
		for _, m := range []string{"PLAIN", "LOGIN", "CRAM-MD5"} {
			if has(m) {
				method = m
				break
			}
		}
	} else if !has(method) {
		return nil, errNoAuth
	}
	if _, secure := client.TLSConnectionState(); !secure && method != "CRAM-MD5" && !isLoopback(p.host) {
		return nil, errOpenPassword
	}
	switch method {
	case "PLAIN":
		return smtp.PlainAuth("", p.username, p.password, p.host, true), nil
	case "LOGIN":
		return smtp.LoginAuth(p.username, p.password, p.host, true), nil
	case "CRAM-MD5":
		return smtp.CRAMMD5Auth(p.username, p.password), nil
	default:
		return nil, errNoAuth
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// guard makes blocking reads and writes end with ctx. stop returns false when
// ctx has ended: the connection is of no use then.
func guard(ctx context.Context, conn net.Conn) (stop func() bool) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	cancel := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() bool {
		if !cancel() {
			return false
		}
		_ = conn.SetDeadline(time.Time{})
		return true
	}
}

// send hands over one mail and returns the server's last answer.
func (s *session) send(ctx context.Context, env *envelope, raw []byte) (string, *fault) {
	stop := guard(ctx, s.conn)
	defer func() { s.spoiled = !stop() || s.spoiled }()
	s.client.SkipSMTPUTF8(!env.utf8)
	if env.utf8 {
		if ok, _ := s.client.Extension("SMTPUTF8"); !ok {
			return "", newFault(stageRcpt, errNoUTF8)
		}
	}
	if err := s.client.Mail("<" + env.from + ">"); err != nil {
		return "", newFault(stageMail, err)
	}
	for i, to := range env.to {
		if err := s.client.Rcpt("<" + to + ">"); err != nil {
			f := newFault(stageRcpt, err)
			f.copies = i > 0
			return "", f
		}
	}
	w, err := s.client.Data()
	if err != nil {
		return "", newFault(stageData, err)
	}
	// As long as the final dot has not left, the server throws away what it has.
	// The buffer is emptied before the dot, so that a line that breaks in the
	// middle of a mail leaves no doubt about it.
	if _, err := w.Write(raw); err != nil {
		return "", newFault(stageData, err)
	}
	if err := s.client.Text.W.Flush(); err != nil {
		return "", newFault(stageData, err)
	}
	if err := ctx.Err(); err != nil {
		return "", newFault(stageData, err)
	}
	s.sent++
	if err := w.Close(); err != nil {
		return "", newFault(stageSent, err)
	}
	if answer, ok := w.(interface{ ServerResponse() string }); ok {
		return answer.ServerResponse(), nil
	}
	return "", nil
}

// reset makes the session ready for the next mail after a refusal.
func (s *session) reset() bool {
	_ = s.conn.SetDeadline(time.Now().Add(5 * time.Second))
	err := s.client.Reset()
	_ = s.conn.SetDeadline(time.Time{})
	return err == nil
}

func (s *session) quit() {
	_ = s.conn.SetDeadline(time.Now().Add(2 * time.Second))
	_ = s.client.Quit() // polite, and nobody's concern when it fails
	_ = s.conn.Close()
}

func (s *session) drop() { _ = s.conn.Close() }

// envelope is what the server is told outside the message.
type envelope struct {
	header    mail.Address // of the From header
	from      string
	to        []string
	utf8      bool
	messageID string
}

func (p *Provider) envelope(m *notifications.Message) (*envelope, *fault) {
	env := &envelope{header: p.from}
	if m.Email != nil && m.Email.From != "" {
		from, err := mail.ParseAddress(m.Email.From)
		if err != nil {
			return nil, newFault(stageContent, errBadSender)
		}
		env.header = *from
	}
	var err error
	if env.from, env.utf8, err = asciiAddress(env.header.Address); err != nil {
		return nil, newFault(stageContent, errBadSender)
	}
	recipients := []string{m.Target.Address}
	if m.Email != nil {
		for _, list := range [][]string{m.Email.Cc, m.Email.Bcc} {
			for _, copyTo := range list {
				a, err := mail.ParseAddress(copyTo)
				if err != nil {
					return nil, newFault(stageContent, errBadCopy)
				}
				recipients = append(recipients, a.Address)
			}
		}
	}
	for _, address := range recipients {
		if a, err := mail.ParseAddress("<" + address + ">"); err != nil || a.Address != address {
			return nil, newFault(stageRcpt, errBadAddress)
		}
		to, utf8, err := asciiAddress(address)
		if err != nil {
			return nil, newFault(stageRcpt, errBadAddress)
		}
		env.to, env.utf8 = append(env.to, to), env.utf8 || utf8
	}
	_, domain, _ := strings.Cut(env.from, "@")
	env.messageID = "<" + m.DeliveryID + "@" + domain + ">"
	return env, nil
}

// asciiAddress writes the domain in its ASCII form. utf8 says that the part
// before the @ needs SMTPUTF8.
func asciiAddress(address string) (ascii string, utf8 bool, err error) {
	at := strings.LastIndexByte(address, '@')
	if at < 1 || at == len(address)-1 || strings.ContainsAny(address, "\r\n\x00<>") {
		return "", false, errBadAddress
	}
	local, domain := address[:at], address[at+1:]
	if !isASCII(domain) { // what is ASCII is the server's to judge, such as a name with _
		if domain, err = idna.Lookup.ToASCII(domain); err != nil {
			return "", false, errBadAddress
		}
	}
	for _, r := range local {
		utf8 = utf8 || r > 127
	}
	return local + "@" + domain, utf8, nil
}
