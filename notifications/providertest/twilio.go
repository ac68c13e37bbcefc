package providertest

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" // what Twilio signs with
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// Account of a [Twilio] double that was given none.
const (
	TwilioAccountSID = "AC00000000000000000000000000000001"
	TwilioAuthToken  = "doublesAuthToken0123456789abcdef"
)

// TwilioOptions sets up a [Twilio] double. The zero value is an account from which
// every sender can reach every number.
type TwilioOptions struct {
	// Addr to listen on; empty means a free port of 127.0.0.1.
	Addr string

	// AccountSID and AuthToken are asked for; empty means [TwilioAccountSID] and
	// [TwilioAuthToken].
	AccountSID, AuthToken string

	// Numbers are the phone numbers of the account; from others it sends nothing
	// (21606). Empty means that all are its own.
	Numbers []string

	// Spec is the path of Twilio's OpenAPI description; every request is held
	// against it, and what does not fit is refused and kept (see
	// [Twilio.Violations]). Empty means no such check.
	Spec string

	// CountOnly keeps no texts in the ledger: for long runs.
	CountOnly bool

	// Seed of the random choices; zero means one of its own.
	Seed uint64

	// Fault at the start; [Twilio.SetAll] changes it.
	Fault TwilioFault

	// Follow are the callbacks that each message is followed by, by themselves;
	// [Twilio.SetFollow] changes it.
	Follow TwilioFollow
}

// TwilioFault is how the double treats a message. The zero value takes it.
type TwilioFault struct {
	// Code refuses the message with this error code of Twilio; nothing is created.
	// Status is the HTTP status that goes with it; zero means 400, for 20003 401
	// and for 20429 429.
	Code   int
	Status int

	// RetryAfter is sent with a refusal, in whole seconds.
	RetryAfter time.Duration

	// HTML answers with a page and this status, as a proxy in between does. Nothing
	// is created, but with Create.
	HTML   int
	Create bool

	// Drop creates the message and hangs up; NoAnswer creates it and never answers;
	// Hold creates it and answers after [Twilio.Release].
	Drop, NoAnswer, Hold bool

	// DropUnread hangs up before anything of the request is read.
	DropUnread bool

	// Delay of the answer.
	Delay time.Duration

	// Becomes is the status that the message has when it is asked for, with the
	// error code BecomesCode; empty means queued, or accepted for a service.
	Becomes     string
	BecomesCode int
}

// TwilioRate plays a fault for a share of the messages, chosen at random.
type TwilioRate struct {
	Share float64 // 0 to 1
	Fault TwilioFault
}

// TwilioFollow are status callbacks that are posted by themselves to the address
// that each message asks for. The zero value posts none.
type TwilioFollow struct {
	Statuses  []string      // such as sent, delivered
	Share     float64       // of the messages, chosen at random; zero means all
	Delay     time.Duration // before each
	Times     int           // how often each is posted; zero means once
	Shuffle   bool          // in any order
	ErrorCode int           // of undelivered and failed
}

// SMS is a message that the double created.
type SMS struct {
	SID, To, From string
	// Service is set instead of From when the sender is a messaging service.
	Service        string
	Body           string // empty with CountOnly
	StatusCallback string
	ValidityPeriod int // in seconds; zero: not given
	Status         string
	ErrorCode      int
	// Answered says that the sender was told. False: it hung up, or hangs.
	Answered bool
	At       time.Time
}

// Sender is the number, name or service that a message came from.
func (m SMS) Sender() string {
	if m.Service != "" {
		return m.Service
	}
	return m.From
}

// Twilio is an account at Twilio on a loopback address that can be told what to
// answer, posts callbacks, and keeps what it took. It is safe for concurrent use.
type Twilio struct {
	opts TwilioOptions
	addr string
	spec *twilioSpec

	mu         sync.Mutex
	token      string
	all        TwilioFault
	rates      []TwilioRate
	scripts    map[string][]TwilioFault // by number
	follow     TwilioFollow
	stopped    map[[2]string]bool // sender and number
	ledger     []*SMS
	byNumber   map[string][]*SMS
	bySender   map[string]int
	requests   map[string]int // by method and path, ids left out
	violations []string
	changed    chan struct{}
	release    chan struct{}
	random     *rand.Rand
	inFlight   int
	peak       int

	server  *http.Server
	served  chan struct{}
	done    chan struct{} // ends all delays
	up      bool
	followS sync.WaitGroup
	client  *http.Client
}

// StartTwilio starts a double. Close it when done; in a test use [NewTwilio].
func StartTwilio(opts TwilioOptions) (*Twilio, error) {
	d := &Twilio{opts: opts, addr: opts.Addr, all: opts.Fault, follow: opts.Follow, scripts: map[string][]TwilioFault{},
		stopped: map[[2]string]bool{}, byNumber: map[string][]*SMS{}, bySender: map[string]int{}, requests: map[string]int{},
		changed: make(chan struct{}), release: make(chan struct{}), client: &http.Client{Timeout: 2 * time.Minute}}
	if d.addr == "" {
		var err error
		if d.addr, err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	if d.opts.AccountSID == "" {
		d.opts.AccountSID = TwilioAccountSID
	}
	if d.opts.AuthToken == "" {
		d.opts.AuthToken = TwilioAuthToken
	}
	d.token = d.opts.AuthToken
	if d.opts.Seed == 0 {
		d.opts.Seed = rand.Uint64()
	}
	d.random = rand.New(rand.NewPCG(d.opts.Seed, d.opts.Seed))
	if opts.Spec != "" {
		spec, err := loadTwilioSpec(opts.Spec)
		if err != nil {
			return nil, fmt.Errorf("start Twilio double: %w", err)
		}
		d.spec = spec
	}
	if err := d.Up(); err != nil {
		return nil, err
	}
	return d, nil
}

// NewTwilio starts a double that ends with the test. What does not fit Twilio's
// description, when it was given one, fails the test.
func NewTwilio(t testing.TB, opts TwilioOptions) *Twilio {
	t.Helper()
	d, err := StartTwilio(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close Twilio double: %v", err)
		}
		for _, v := range d.Violations() {
			t.Errorf("not what Twilio's description allows: %s", v)
		}
	})
	return d
}

// Up listens again after [Twilio.Down], at the same address.
func (d *Twilio) Up() error {
	listener, err := net.Listen("tcp", d.addr)
	if err != nil {
		return fmt.Errorf("start Twilio double: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.up {
		_ = listener.Close()
		return errors.New("start Twilio double: it is up already")
	}
	d.addr = listener.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(d.serve), ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	d.server, d.served, d.done, d.up = server, served, make(chan struct{}), true
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	return nil
}

// Down stops listening and hangs up on everybody. The ledger stays.
func (d *Twilio) Down() error {
	d.mu.Lock()
	if !d.up {
		d.mu.Unlock()
		return nil
	}
	d.up = false
	server, served := d.server, d.served
	close(d.done)
	d.mu.Unlock()
	err := server.Close()
	<-served
	d.followS.Wait()
	// Only then is the ledger final: a request may just be taken.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err2 := server.Shutdown(ctx); err == nil && !errors.Is(err2, http.ErrServerClosed) {
		err = err2
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("stop Twilio double: %w", err)
	}
	return nil
}

// Close stops the double.
func (d *Twilio) Close() error {
	err := d.Down()
	d.client.CloseIdleConnections()
	return err
}

// URL is the base address, for the config key endpoint.
func (d *Twilio) URL() string { return "http://" + d.addr }

// Config is the public part of an SMS provider's configuration that sends by this
// double. The auth token is not in it.
func (d *Twilio) Config() map[string]any {
	return map[string]any{"accountSid": d.opts.AccountSID, "endpoint": d.URL()}
}

// AuthToken is the secret of that provider.
func (d *Twilio) AuthToken() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.token
}

// SetToken changes the account's auth token, as when it was rotated.
func (d *Twilio) SetToken(token string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.token = token
}

// Env are the variables by which the binary sends by this double.
func (d *Twilio) Env(transactional, promotional string) []string {
	env := []string{"TWILIO_ACCOUNT_SID=" + d.opts.AccountSID, "TWILIO_AUTH_TOKEN=" + d.AuthToken(), "TWILIO_ENDPOINT=" + d.URL()}
	if transactional != "" {
		env = append(env, "TWILIO_TRANSACTIONAL_SENDER="+transactional)
	}
	if promotional != "" {
		env = append(env, "TWILIO_PROMOTIONAL_SENDER="+promotional)
	}
	return env
}

// SetAll treats everybody so for whom there is no [Twilio.Script].
func (d *Twilio) SetAll(f TwilioFault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = f
}

// SetRandom plays faults at random, for numbers without a [Twilio.Script].
func (d *Twilio) SetRandom(rates ...TwilioRate) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rates = rates
}

// SetFollow changes the callbacks of the messages that come after it.
func (d *Twilio) SetFollow(f TwilioFollow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.follow = f
}

// AwaitFollow returns once the callbacks of all messages so far were posted. No
// message may come meanwhile.
func (d *Twilio) AwaitFollow() { d.followS.Wait() }

// Script treats the next messages to a number so, one fault for each message; the
// last one stays. No fault takes the number's back.
func (d *Twilio) Script(number string, faults ...TwilioFault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scripts[number] = faults
}

// Release lets the answers held by Hold go, and those to come.
func (d *Twilio) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.release:
	default:
		close(d.release)
	}
}

// Become gives a message the status that it has when it is asked for.
func (d *Twilio) Become(sid, status string, code int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.ledger {
		if m.SID == sid {
			m.Status, m.ErrorCode = status, code
		}
	}
}

// Backdate moves the time at which a message was created.
func (d *Twilio) Backdate(sid string, by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.ledger {
		if m.SID == sid {
			m.At = m.At.Add(-by)
		}
	}
}

// Forget loses a message: nobody can ask for it any more.
func (d *Twilio) Forget(sid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gone := func(m *SMS) bool { return m.SID == sid }
	d.ledger = slices.DeleteFunc(d.ledger, gone)
	for number := range d.byNumber {
		d.byNumber[number] = slices.DeleteFunc(d.byNumber[number], gone)
	}
}

// Messages returns what was created so far, in its order.
func (d *Twilio) Messages() []SMS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return copied(d.ledger)
}

func copied(list []*SMS) []SMS {
	out := make([]SMS, len(list))
	for i, m := range list {
		out[i] = *m
	}
	return out
}

// Total is how many messages were created.
func (d *Twilio) Total() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ledger)
}

// To returns the messages that were created for a number.
func (d *Twilio) To(number string) []SMS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return copied(d.byNumber[number])
}

// Counts says how many messages each number got.
func (d *Twilio) Counts() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]int{}
	for number, list := range d.byNumber {
		if len(list) > 0 {
			out[number] = len(list)
		}
	}
	return out
}

// Senders says how many messages came from each sender.
func (d *Twilio) Senders() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]int{}
	for sender, n := range d.bySender {
		out[sender] = n
	}
	return out
}

// Requests says how often each kind of request came, such as "POST Messages" or
// "GET Messages/SID", whatever the answer.
func (d *Twilio) Requests() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]int{}
	for kind, n := range d.requests {
		out[kind] = n
	}
	return out
}

// Peak is the highest number of requests to create a message at a time.
func (d *Twilio) Peak() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peak
}

// Violations are the requests that did not fit Twilio's description.
func (d *Twilio) Violations() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.violations)
}

// Await returns nil as soon as n messages were created.
func (d *Twilio) Await(ctx context.Context, n int) error {
	return d.until(ctx, func() bool { return len(d.ledger) >= n }, "%d messages", n)
}

// Arrived is closed once a message for the number was created.
func (d *Twilio) Arrived(number string) <-chan struct{} {
	arrived := make(chan struct{})
	go func() {
		if d.until(context.Background(), func() bool { return len(d.byNumber[number]) > 0 }, "a message") == nil {
			close(arrived)
		}
	}()
	return arrived
}

// until waits for a condition, but not longer than the double is up.
func (d *Twilio) until(ctx context.Context, met func() bool, what string, args ...any) error {
	for {
		d.mu.Lock()
		ok, changed, done := met(), d.changed, d.done
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-done:
			return errors.New("await " + fmt.Sprintf(what, args...) + ": the double is down")
		case <-ctx.Done():
			return fmt.Errorf("await %s: %w", fmt.Sprintf(what, args...), ctx.Err())
		}
	}
}

// wake tells those who wait. The caller holds mu.
func (d *Twilio) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// sleep waits, but not longer than the double is up or the client there.
func (d *Twilio) sleep(ctx context.Context, pause time.Duration) {
	if pause <= 0 {
		return
	}
	d.mu.Lock()
	done := d.done
	d.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	case <-ctx.Done():
	}
}

var (
	twilioPath    = regexp.MustCompile(`^/2010-04-01/Accounts/(AC[0-9a-fA-F]{32})(?:/(Messages|IncomingPhoneNumbers)(?:/((?:SM|MM)[0-9a-fA-F]{32}))?)?\.json$`)
	twilioNumber  = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	twilioService = regexp.MustCompile(`^MG[0-9a-fA-F]{32}$`)
	twilioSender  = regexp.MustCompile(`^(\+[1-9][0-9]{6,14}|[0-9]{3,8}|[0-9A-Za-z +\-_&]{1,11})$`)
)

func (d *Twilio) serve(w http.ResponseWriter, r *http.Request) {
	part := twilioPath.FindStringSubmatch(r.URL.Path)
	if part == nil {
		d.refuse(w, http.StatusNotFound, 20404, 0)
		return
	}
	account, resource, sid := part[1], part[2], part[3]
	kind := r.Method + " " + resource
	if resource == "" {
		kind = r.Method + " Account"
	}
	if sid != "" {
		kind += "/SID"
	}
	d.mu.Lock()
	d.requests[kind]++
	unread := kind == "POST Messages" && d.all.DropUnread
	d.mu.Unlock()
	if unread {
		hangUp(w)
		return
	}
	user, password, ok := r.BasicAuth()
	if !ok || user != d.opts.AccountSID || password != d.AuthToken() || account != d.opts.AccountSID {
		d.refuse(w, http.StatusUnauthorized, 20003, 0)
		return
	}
	if r.Body != nil {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	}
	if err := d.spec.check(r); err != nil {
		d.mu.Lock()
		d.violations = append(d.violations, kind+": "+err.Error())
		d.mu.Unlock()
		d.refuse(w, http.StatusBadRequest, 20001, 0)
		return
	}
	if err := r.ParseForm(); err != nil {
		d.refuse(w, http.StatusBadRequest, 20001, 0)
		return
	}
	switch kind {
	case "POST Messages":
		d.create(w, r)
	case "GET Messages":
		d.list(w, r)
	case "GET Messages/SID":
		d.fetch(w, sid)
	case "GET Account":
		answer(w, http.StatusOK, map[string]any{"sid": account, "status": "active", "type": "Full", "friendly_name": "Double", "owner_account_sid": account})
	case "GET IncomingPhoneNumbers":
		d.numbers(w, r)
	default:
		d.refuse(w, http.StatusMethodNotAllowed, 20004, 0)
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (d *Twilio) refuse(w http.ResponseWriter, status, code int, after time.Duration) {
	if after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(after/time.Second)))
	}
	answer(w, status, map[string]any{"code": code, "message": "Refused by the double", "more_info": fmt.Sprintf("https://www.twilio.com/docs/errors/%d", code), "status": status})
}

// fault chooses how the next message to a number is treated. The caller holds mu.
func (d *Twilio) fault(number string) TwilioFault {
	switch list := d.scripts[number]; len(list) {
	case 0:
	case 1:
		return list[0]
	default:
		d.scripts[number] = list[1:]
		return list[0]
	}
	for _, rate := range d.rates {
		if d.random.Float64() < rate.Share {
			return rate.Fault
		}
	}
	return d.all
}

func (d *Twilio) create(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.inFlight++
	d.peak = max(d.peak, d.inFlight)
	fault := d.fault(r.PostForm.Get("To"))
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.inFlight--
		d.mu.Unlock()
	}()

	if code := d.wrong(r.PostForm); code != 0 {
		d.refuse(w, http.StatusBadRequest, code, 0)
		return
	}
	switch {
	case fault.Code != 0:
		status := fault.Status
		if status == 0 {
			status = map[int]int{20003: http.StatusUnauthorized, 20429: http.StatusTooManyRequests}[fault.Code]
		}
		if status == 0 {
			status = http.StatusBadRequest
		}
		d.refuse(w, status, fault.Code, fault.RetryAfter)
		return
	case fault.HTML != 0 && !fault.Create:
		page(w, fault)
		return
	}

	m := d.take(r.PostForm, fault)
	d.mu.Lock()
	release, done := d.release, d.done
	d.mu.Unlock()
	switch {
	case fault.HTML != 0:
		page(w, fault)
		return
	case fault.Drop:
		hangUp(w)
		return
	case fault.NoAnswer:
		select {
		case <-done:
		case <-r.Context().Done():
		}
		hangUp(w)
		return
	case fault.Hold:
		select {
		case <-release:
		case <-done:
		case <-r.Context().Done():
		}
	}
	d.sleep(r.Context(), fault.Delay)
	d.mu.Lock()
	m.Answered = d.up && r.Context().Err() == nil
	resource := d.resource(m)
	d.mu.Unlock()
	answer(w, http.StatusCreated, resource)
}

func page(w http.ResponseWriter, f TwilioFault) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter/time.Second)))
	}
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(f.HTML)
	_, _ = w.Write([]byte("<html><body><h1>Something on the way</h1></body></html>"))
}

// wrong returns the code with which Twilio refuses a message; 0 for none.
func (d *Twilio) wrong(form url.Values) int {
	to, from, service := form.Get("To"), form.Get("From"), form.Get("MessagingServiceSid")
	sender := from
	if service != "" {
		sender = service
	}
	callback, err := url.Parse(form.Get("StatusCallback"))
	switch {
	case to == "":
		return 21604
	case !twilioNumber.MatchString(to):
		return 21211
	case from == "" && service == "":
		return 21603
	case service != "" && !twilioService.MatchString(service):
		return 21701
	case service == "" && !twilioSender.MatchString(from):
		return 21212
	case service == "" && strings.HasPrefix(from, "+") && len(d.opts.Numbers) > 0 && !slices.Contains(d.opts.Numbers, from):
		return 21606
	case form.Get("Body") == "":
		return 21602
	case utf8.RuneCountInString(form.Get("Body")) > 1600:
		return 21617
	case err != nil || form.Get("StatusCallback") != "" && (callback.Host == "" || strings.Contains(callback.Host, "_")):
		return 21609
	}
	if v := form.Get("ValidityPeriod"); v != "" {
		if seconds, err := strconv.Atoi(v); err != nil || seconds < 1 || seconds > 36000 {
			return 20001
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped[[2]string{sender, to}] {
		return 21610
	}
	return 0
}

func (d *Twilio) take(form url.Values, fault TwilioFault) *SMS {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := &SMS{SID: fmt.Sprintf("SM%016x%016x", d.random.Uint64(), d.random.Uint64()), To: form.Get("To"), From: form.Get("From"),
		Service: form.Get("MessagingServiceSid"), StatusCallback: form.Get("StatusCallback"), Status: "queued", At: time.Now()}
	if m.Service != "" {
		m.From, m.Status = "", "accepted"
	}
	if fault.Becomes != "" {
		m.Status, m.ErrorCode = fault.Becomes, fault.BecomesCode
	}
	if !d.opts.CountOnly {
		m.Body = form.Get("Body")
	}
	m.ValidityPeriod, _ = strconv.Atoi(form.Get("ValidityPeriod"))
	d.ledger = append(d.ledger, m)
	d.byNumber[m.To] = append(d.byNumber[m.To], m)
	d.bySender[m.Sender()]++
	d.wake()
	if len(d.follow.Statuses) > 0 && m.StatusCallback != "" && d.up && (d.follow.Share == 0 || d.random.Float64() < d.follow.Share) {
		follow, sid, order := d.follow, m.SID, slices.Clone(d.follow.Statuses)
		if follow.Shuffle {
			d.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		d.followS.Go(func() {
			for _, status := range order {
				for range max(follow.Times, 1) {
					d.sleep(context.Background(), follow.Delay)
					code := 0
					if status == "undelivered" || status == "failed" {
						code = follow.ErrorCode
					}
					_, _ = d.Callback(context.Background(), sid, TwilioCallback{Status: status, ErrorCode: code})
				}
			}
		})
	}
	return m
}

// resource is a message as Twilio shows it. The caller holds mu.
func (d *Twilio) resource(m *SMS) map[string]any {
	orNull := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	var code any
	if m.ErrorCode != 0 {
		code = m.ErrorCode
	}
	at := m.At.UTC().Format(time.RFC1123Z)
	return map[string]any{"sid": m.SID, "account_sid": d.opts.AccountSID, "api_version": "2010-04-01", "to": m.To, "from": orNull(m.From),
		"messaging_service_sid": orNull(m.Service), "body": m.Body, "status": m.Status, "error_code": code, "error_message": nil,
		"direction": "outbound-api", "num_segments": "1", "num_media": "0", "price": nil, "price_unit": nil,
		"date_created": at, "date_updated": at, "date_sent": at,
		"uri": "/2010-04-01/Accounts/" + d.opts.AccountSID + "/Messages/" + m.SID + ".json", "subresource_uris": map[string]any{}}
}

func (d *Twilio) fetch(w http.ResponseWriter, sid string) {
	d.mu.Lock()
	var found map[string]any
	for _, m := range d.ledger {
		if m.SID == sid {
			found = d.resource(m)
		}
	}
	d.mu.Unlock()
	if found == nil {
		d.refuse(w, http.StatusNotFound, 20404, 0)
		return
	}
	answer(w, http.StatusOK, found)
}

func (d *Twilio) list(w http.ResponseWriter, r *http.Request) {
	size := 50
	if n, err := strconv.Atoi(r.Form.Get("PageSize")); err == nil && n > 0 {
		size = min(n, 1000)
	}
	after, _ := time.Parse(time.RFC3339, r.Form.Get("DateSent>"))
	d.mu.Lock()
	list := []any{}
	for _, m := range slices.Backward(d.ledger) {
		if to := r.Form.Get("To"); to != "" && m.To != to {
			continue
		}
		if from := r.Form.Get("From"); from != "" && m.From != from || m.At.Before(after) {
			continue
		}
		if len(list) < size {
			list = append(list, d.resource(m))
		}
	}
	d.mu.Unlock()
	answer(w, http.StatusOK, map[string]any{"messages": list, "page": 0, "page_size": size, "start": 0, "end": max(len(list)-1, 0),
		"uri": r.URL.RequestURI(), "first_page_uri": r.URL.RequestURI(), "next_page_uri": nil, "previous_page_uri": nil})
}

func (d *Twilio) numbers(w http.ResponseWriter, r *http.Request) {
	wanted := r.Form.Get("PhoneNumber")
	list := []any{}
	if wanted != "" && (len(d.opts.Numbers) == 0 || slices.Contains(d.opts.Numbers, wanted)) {
		list = append(list, map[string]any{"sid": "PN00000000000000000000000000000001", "phone_number": wanted, "account_sid": d.opts.AccountSID})
	}
	answer(w, http.StatusOK, map[string]any{"incoming_phone_numbers": list, "page": 0, "page_size": 1, "uri": r.URL.RequestURI(), "next_page_uri": nil})
}

// TwilioCallback is a status callback to post.
type TwilioCallback struct {
	Status    string
	ErrorCode int // zero: none

	// URL in place of the address that the message asked for.
	URL string
	// Token in place of the account's, for a forgery; "none" leaves the signature
	// out.
	Token string
	// Change alters the form before it is signed.
	Change func(url.Values)
	// Tamper alters the form after it was signed.
	Tamper func(url.Values)
}

// Callback posts a status callback of a message and returns the answer's status.
// The message itself takes on the status, but for a forged one.
func (d *Twilio) Callback(ctx context.Context, sid string, c TwilioCallback) (int, error) {
	d.mu.Lock()
	form := url.Values{"MessageSid": {sid}, "SmsSid": {sid}, "AccountSid": {d.opts.AccountSID}, "MessageStatus": {c.Status}, "SmsStatus": {c.Status},
		"ApiVersion": {"2010-04-01"}}
	address := c.URL
	for _, m := range d.ledger {
		if m.SID != sid {
			continue
		}
		form.Set("To", m.To)
		if m.From != "" {
			form.Set("From", m.From)
		}
		if m.Service != "" {
			form.Set("MessagingServiceSid", m.Service)
		}
		if address == "" {
			address = m.StatusCallback
		}
		if c.Token == "" {
			m.Status, m.ErrorCode = c.Status, c.ErrorCode
		}
	}
	d.mu.Unlock()
	if c.ErrorCode != 0 {
		form.Set("ErrorCode", strconv.Itoa(c.ErrorCode))
	}
	if c.Change != nil {
		c.Change(form)
	}
	status, _, err := d.post(ctx, address, form, c.Token, c.Tamper)
	return status, err
}

// TwilioInbound is a text that a person sends to a sender of the account.
type TwilioInbound struct {
	From, To, Body string
	// Service is set when the number that was written to belongs to one.
	Service string
	// SID of the message, to post the same again; empty makes one.
	SID string
	// OptOutType is what Advanced Opt-Out adds: STOP, START or HELP.
	OptOutType string
	// Token and Tamper as in [TwilioCallback].
	Token  string
	Tamper func(url.Values)
}

// Inbound posts a text to a webhook address, and from then on blocks or unblocks
// the person as Twilio does. It returns the answer.
func (d *Twilio) Inbound(ctx context.Context, address string, in TwilioInbound) (status int, body string, err error) {
	d.mu.Lock()
	if in.SID == "" {
		in.SID = fmt.Sprintf("SM%016x%016x", d.random.Uint64(), d.random.Uint64())
	}
	sender := in.To
	if in.Service != "" {
		sender = in.Service
	}
	switch strings.ToUpper(strings.TrimSpace(in.Body)) {
	case "STOP", "UNSUBSCRIBE", "END", "QUIT", "STOPALL", "REVOKE", "OPTOUT", "CANCEL":
		d.stopped[[2]string{sender, in.From}] = true
	case "START", "YES", "UNSTOP":
		delete(d.stopped, [2]string{sender, in.From})
	}
	d.mu.Unlock()
	form := url.Values{"MessageSid": {in.SID}, "SmsSid": {in.SID}, "SmsMessageSid": {in.SID}, "AccountSid": {d.opts.AccountSID},
		"From": {in.From}, "To": {in.To}, "Body": {in.Body}, "NumMedia": {"0"}, "NumSegments": {"1"}, "SmsStatus": {"received"}, "ApiVersion": {"2010-04-01"}}
	if in.Service != "" {
		form.Set("MessagingServiceSid", in.Service)
	}
	if in.OptOutType != "" {
		form.Set("OptOutType", in.OptOutType)
	}
	return d.post(ctx, address, form, in.Token, in.Tamper)
}

func (d *Twilio) post(ctx context.Context, address string, form url.Values, token string, tamper func(url.Values)) (int, string, error) {
	address, _, _ = strings.Cut(address, "#") // a fragment is for Twilio itself
	if token == "" {
		token = d.AuthToken()
	}
	signature := TwilioSignature(token, address, form)
	if tamper != nil {
		tamper(form)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", fmt.Errorf("post callback: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	req.Header.Set("User-Agent", "TwilioProxy/1.1")
	if token != "none" {
		req.Header.Set("X-Twilio-Signature", signature)
	}
	res, err := d.client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("post callback: %w", err)
	}
	defer res.Body.Close()
	raw := make([]byte, 1<<16)
	n := 0
	for n < len(raw) {
		read, err := res.Body.Read(raw[n:])
		n += read
		if err != nil {
			break
		}
	}
	return res.StatusCode, string(raw[:n]), nil
}

// TwilioSignature is what Twilio puts into X-Twilio-Signature.
//
// https://www.twilio.com/docs/usage/security#validating-requests
func TwilioSignature(token, address string, form url.Values) string {
	keys := make([]string, 0, len(form))
	for key := range form {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	signed := address
	for _, key := range keys {
		values := slices.Clone(form[key])
		slices.Sort(values)
		for _, value := range slices.Compact(values) {
			signed += key + value
		}
	}
	mac := hmac.New(sha1.New, []byte(token))
	_, _ = mac.Write([]byte(signed))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
