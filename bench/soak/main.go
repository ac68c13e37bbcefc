// Command soak kills the server at random moments of a broadcast and counts who
// got what.
//
//	go run ./bench/soak -binary ./groundwork -people 10000 -kills 20
//
// It starts the real binary in a folder of its own, in the production
// environment, against doubles of Apple's, Google's, Twilio's and a mail service
// in this process that keep ledgers. It sends one notification to everyone by
// push (half of the people have an iPhone, half an Android phone), e-mail, SMS and
// inbox, ends the process with SIGKILL at random moments and starts it again,
// waits for the end, and compares the deliveries with the ledgers. -channels
// leaves channels out.
//
// Twilio's callbacks come for some texts only, and those that come while the
// server is down are lost. For the rest the server asks after ten minutes; to
// have them pass, all times stored here and at Twilio are moved back while the
// server is down, and its job is started as an owner can start it.
//
// The exit status is 1 when a rule is broken:
//
//   - everybody is served on every channel;
//   - an e-mail or SMS comes once, or it is unknown and was in flight at a kill;
//   - a push comes again only when it was in flight at a kill, once for each such
//     kill, to the same device and with the same collapse id;
//   - there is one inbox message for everybody;
//   - no more is without an answer at a kill than is handed over at a time; the
//     answers that were not stored yet are counted beside them;
//   - every SMS that was unknown is settled by a receipt or by asking Twilio: it
//     was delivered, and Twilio has it, or it was not sent, and Twilio does not.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"

	"github.com/groundworkhq/groundwork/bench/process"
)

// maxPeople is how many phone numbers are reserved for such things.
const maxPeople = 10_000

var allChannels = []string{"push", "email", "sms", "inbox"}

type options struct {
	binary   string
	people   int
	kills    int
	channels []string

	// How long each service takes for a message.
	appleDelay, googleDelay, mailDelay, smsDelay time.Duration
	// Before each of Twilio's callbacks, and the share of the texts that get any.
	callbackDelay time.Duration
	callbackShare float64

	timeout time.Duration
}

// defaults have messages of all channels in flight during most of a run.
func defaults() options {
	return options{binary: "./groundwork", people: maxPeople, kills: 20, channels: allChannels,
		appleDelay: 100 * time.Millisecond, googleDelay: 100 * time.Millisecond, mailDelay: 10 * time.Millisecond, smsDelay: 50 * time.Millisecond,
		callbackDelay: 2 * time.Second, callbackShare: 0.7, timeout: 10 * time.Minute}
}

func main() {
	o := defaults()
	flag.StringVar(&o.binary, "binary", o.binary, "the server to test")
	flag.IntVar(&o.people, "people", o.people, "recipients, at most 10000")
	flag.IntVar(&o.kills, "kills", o.kills, "how often it is killed")
	channels := flag.String("channels", strings.Join(o.channels, ","), "the notification's channels")
	flag.DurationVar(&o.appleDelay, "apple-delay", o.appleDelay, "how long Apple takes for a push")
	flag.DurationVar(&o.googleDelay, "google-delay", o.googleDelay, "how long Google takes for a push")
	flag.DurationVar(&o.mailDelay, "mail-delay", o.mailDelay, "how long the mail server takes for a mail")
	flag.DurationVar(&o.smsDelay, "sms-delay", o.smsDelay, "how long Twilio takes for an SMS")
	flag.DurationVar(&o.callbackDelay, "callback-delay", o.callbackDelay, "how long Twilio waits before each callback")
	flag.Float64Var(&o.callbackShare, "callback-share", o.callbackShare, "the share of the SMS that are followed by callbacks; 0 means all")
	flag.DurationVar(&o.timeout, "timeout", o.timeout, "when to give up waiting for the end")
	flag.Parse()
	o.channels = strings.Split(*channels, ",")
	r, err := run(o)
	if err == nil {
		fmt.Println(r)
		err = r.err()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func (o options) check() error {
	if o.people < 1 || o.people > maxPeople {
		return fmt.Errorf("-people is %d: from 1 to %d are possible", o.people, maxPeople)
	}
	for i, channel := range o.channels {
		if !slices.Contains(allChannels, channel) || slices.Contains(o.channels[:i], channel) {
			return fmt.Errorf("-channels has %q: name each of %s once, separated by commas", channel, strings.Join(allChannels, ", "))
		}
	}
	return nil
}

func run(o options) (r *report, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "groundwork-soak-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	out, err := startOutside(o)
	defer func() { err = errors.Join(err, out.close()) }()
	if err != nil {
		return nil, err
	}

	s := &process.Server{Binary: o.binary, Dir: dir, Env: append(process.Root(), out.env...)}
	if err := s.Start(); err != nil {
		return nil, err
	}
	defer s.Kill()
	s.Kill() // the tables are there now
	if err := s.WithDB(func(db *dbx.DB) error { return seed(db, o.people) }); err != nil {
		return nil, err
	}
	if err := s.Start(); err != nil {
		return nil, err
	}
	if err := s.SignIn(); err != nil {
		return nil, err
	}
	// Twilio calls back there.
	if err := s.Call(http.MethodPatch, "/api/settings", map[string]any{"meta": map[string]any{"appURL": s.URL()}}, &struct{}{}); err != nil {
		return nil, err
	}

	r = newReport(o, out.ways)
	begin := time.Now()
	if r.id, err = send(s, o); err != nil {
		return nil, err
	}
	if err := killAtRandom(s, o, out, r); err != nil {
		return nil, err
	}
	if r.status, r.reason, err = await(s, r.id, o.timeout); err != nil {
		return nil, err
	}
	r.took = time.Since(begin)
	if slices.Contains(o.channels, "sms") {
		if err := settle(s, o, out, r); err != nil {
			return nil, err
		}
	}
	s.Kill()
	return r, s.WithDB(r.count)
}

// killAtRandom spreads the kills over the whole send: each comes after a random
// share of what is left.
func killAtRandom(s *process.Server, o options, out *outside, r *report) error {
	all := 0
	for _, w := range out.ways {
		all += w.recipients(o.people)
	}
	for k := range o.kills {
		before := out.total()
		share := max(1, (all-before)/(o.kills-k+1))
		goal := before + rand.IntN(share) + 1
		for deadline := time.Now().Add(2 * time.Minute); out.total() < goal && time.Now().Before(deadline); {
			time.Sleep(time.Duration(1+rand.IntN(5)) * time.Millisecond) // between two looks at the ledgers: the moment is meant to be random
		}
		s.Kill()
		if err := out.awaitQuiet(2 * time.Minute); err != nil {
			return err
		}
		if err := s.WithDB(r.countInFlight); err != nil {
			return err
		}
		if err := s.Start(); err != nil {
			return fmt.Errorf("restart after kill %d: %w", k+1, err)
		}
	}
	return nil
}

// age is more than the time after which the server asks for a receipt.
const age = 15 * time.Minute

// settle waits for Twilio's callbacks, has ten minutes pass and lets the server
// ask for the rest.
func settle(s *process.Server, o options, out *outside, r *report) error {
	out.twilio.AwaitFollow()
	s.Kill()
	err := s.WithDB(func(db *dbx.DB) error {
		if err := r.countReceipts(db); err != nil {
			return err
		}
		set := ""
		for _, column := range []string{"created", "updated", "acceptedAt"} {
			set += fmt.Sprintf(", %[1]s = CASE WHEN %[1]s = '' THEN '' ELSE strftime('%%Y-%%m-%%d %%H:%%M:%%fZ', %[1]s, '-%d seconds') END", column, int(age.Seconds()))
		}
		_, err := db.NewQuery("UPDATE notification_deliveries SET " + set[2:] + " WHERE notification = {:id} AND channel = 'sms'").Bind(dbx.Params{"id": r.id}).Execute()
		if err != nil {
			return fmt.Errorf("let time pass: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range r.unsettled { // it is looked for by number and time
		for _, m := range out.twilio.To(phone(i)) {
			out.twilio.Backdate(m.SID, age)
		}
	}
	if err := s.Start(); err != nil {
		return err
	}
	filter := url.QueryEscape(fmt.Sprintf("notification='%s' && channel='sms' && (status='accepted' || status='unknown')", r.id))
	for deadline := time.Now().Add(o.timeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) { // between two looks
		var open struct{ TotalItems int }
		if err := s.Call(http.MethodGet, "/api/collections/notification_deliveries/records?perPage=1&fields=id&filter="+filter, nil, &open); err != nil {
			return err
		}
		if open.TotalItems == 0 {
			break
		}
		// One run asks for a few hundred.
		if code, err := s.Status(http.MethodPost, "/api/crons/groundwork.sms.poll", nil); err != nil || code != http.StatusNoContent {
			return errors.Join(fmt.Errorf("the job that asks for receipts cannot be started: %d", code), err)
		}
	}
	r.status, r.reason, err = await(s, r.id, o.timeout)
	return err
}

func send(s *process.Server, o options) (string, error) {
	var n struct{ ID string }
	err := s.Call(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "Hello {{ user.name }}", "body": "We are open.",
		"channels": o.channels, "audience": "everyone", "confirmRecipients": o.people, "action": "send"}, &n)
	return n.ID, err
}

func await(s *process.Server, id string, timeout time.Duration) (status, reason string, err error) {
	var n struct{ Status, StatusReason string }
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) { // between two looks
		if err := s.Call(http.MethodGet, "/api/collections/notifications/records/"+id, nil, &n); err != nil {
			return "", "", err
		}
		switch n.Status {
		case "queued", "sending", "scheduled":
		default:
			return n.Status, n.StatusReason, nil
		}
	}
	return "", "", fmt.Errorf("the notification is still %s after %s (%s)", n.Status, timeout, n.StatusReason)
}

// userHash is bcrypt of something nobody signs in with, at its lowest cost.
const userHash = "$2a$04$0hePurI82RKlzDnX.1tq/uUz9Ck9n.Zog/jXQsMksc8XUEtk0.Uby"

func seed(db *dbx.DB, people int) error {
	return db.Transactional(func(tx *dbx.Tx) error {
		user := tx.NewQuery("INSERT INTO users (id, email, name, phone, phoneVerified, password, tokenKey, created, updated)" +
			" VALUES ({:id}, {:email}, {:name}, {:phone}, TRUE, {:hash}, {:key}, {:at}, {:at})").Prepare()
		defer user.Close()
		device := tx.NewQuery("INSERT INTO devices (id, user, platform, pushService, token, status, registeredAt, created, updated)" +
			" VALUES ({:id}, {:id}, {:platform}, {:service}, {:token}, 'active', {:at}, {:at}, {:at})").Prepare()
		defer device.Close()
		for i := range people {
			params := dbx.Params{"id": userID(i), "email": address(i), "name": name(i), "phone": phone(i), "hash": userHash, "key": fmt.Sprintf("%050d", i),
				"at": "2026-01-01 00:00:00.000Z", "platform": "ios", "service": "apns", "token": deviceToken(i)}
			if !hasIPhone(i) {
				params["platform"], params["service"] = "android", "fcm"
			}
			if _, err := user.Bind(params).Execute(); err != nil {
				return fmt.Errorf("seed people: %w", err)
			}
			if _, err := device.Bind(params).Execute(); err != nil {
				return fmt.Errorf("seed devices: %w", err)
			}
		}
		return nil
	})
}
