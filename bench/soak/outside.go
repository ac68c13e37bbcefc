package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// The people, by number.

func userID(i int) string  { return fmt.Sprintf("p%014d", i) }
func name(i int) string    { return fmt.Sprintf("Person %d.", i) }
func address(i int) string { return fmt.Sprintf("p%d@example.com", i) }
func phone(i int) string   { return fmt.Sprintf("+1500555%04d", i) }

func hasIPhone(i int) bool { return i%2 == 0 }

func deviceToken(i int) string {
	if hasIPhone(i) {
		return fmt.Sprintf("%064x", i+1)
	}
	return providertest.FCMDeviceToken(i)
}

const (
	bundle        = "com.example.shop"
	keyID, teamID = "ABC123DEFG", "DEF123GHIJ"

	// appleStreams is how many pushes one connection to Apple's double takes: few,
	// so that what may be in flight is far below what there is.
	appleStreams = 32
)

// The most messages that are handed over at a time; see the adapters' Limits.
const (
	mailLimit   = 8
	smsLimit    = 32
	appleLimit  = 4 * appleStreams * 9 / 10 // connections, and nine tenths of their streams
	googleLimit = 500
)

// storeLimit is how many results can wait to be stored: as many as one
// transaction takes, and those that are just being written.
const storeLimit = 2 * 1000

// way is one of the services by which messages leave the server.
type way struct {
	name    string // of the report's line
	channel string
	limit   int // of messages without an answer
	// mayRepeat says that a message in flight at a kill is sent again.
	mayRepeat bool

	has      func(i int) bool
	received func(people int) []int // by person
	total    func() int
	open     func() int // connections; nil: not known

	// For push: how many were on connections that ended before the answer, whether
	// what a target got last is the right message, and how often a repeat came with
	// another collapse id.
	unanswered  func() int
	right       func(notificationID string, i int) bool
	recollapsed func() int
}

func (w *way) recipients(people int) int {
	n := 0
	for i := range people {
		if w.has(i) {
			n++
		}
	}
	return n
}

// byKey makes received of a ledger that counts by address.
func byKey(ledger func() map[string]int, key func(i int) string) func(people int) []int {
	return func(people int) []int {
		counts, all := make([]int, people), ledger()
		for i := range people {
			counts[i] = all[key(i)]
		}
		return counts
	}
}

// outside is all that the server sends to.
type outside struct {
	ways   []*way
	env    []string
	twilio *providertest.Twilio
	closes []func() error
}

func everybody(int) bool { return true }

// startOutside starts the doubles of a run. What it returns is to be closed also
// when there is an error.
func startOutside(o options) (*outside, error) {
	out := &outside{}
	for _, start := range []struct {
		channel string
		with    func(options) error
	}{{"push", out.startApple}, {"push", out.startGoogle}, {"email", out.startMail}, {"sms", out.startTwilio}} {
		if !slices.Contains(o.channels, start.channel) {
			continue
		}
		if err := start.with(o); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (out *outside) close() error {
	var errs []error
	for _, c := range out.closes {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

func (out *outside) total() int {
	n := 0
	for _, w := range out.ways {
		n += w.total()
	}
	return n
}

// awaitQuiet waits until what a killed process had sent is in the ledgers.
func (out *outside) awaitQuiet(limit time.Duration) error {
	end := time.Now().Add(limit)
	for _, w := range out.ways {
		for w.open != nil && w.open() > 0 {
			if time.Now().After(end) {
				return fmt.Errorf("the connections of %s do not end", w.name)
			}
			time.Sleep(time.Millisecond) // between two looks
		}
	}
	return nil
}

func (out *outside) startApple(o options) error {
	key, err := providertest.NewAPNsKey()
	if err != nil {
		return err
	}
	apple, err := providertest.StartAPNs(providertest.APNsOptions{Key: key.Public, KeyID: keyID, TeamID: teamID, Topics: []string{bundle},
		Streams: appleStreams, Latency: o.appleDelay,
		TokenLife: -1}) // every start makes a token
	if err != nil {
		return err
	}
	out.closes = append(out.closes, apple.Close)
	env, err := apple.Env(key, bundle)
	if err != nil {
		return err
	}
	out.env = append(out.env, env...)
	out.ways = append(out.ways, &way{name: "push by Apple", channel: "push", mayRepeat: true, limit: appleLimit, has: hasIPhone,
		received: byKey(apple.Counts, deviceToken), total: apple.Total, open: func() int { _, open, _ := apple.Connections(); return open },
		right: func(id string, i int) bool {
			last := apple.Last(deviceToken(i))
			return last != nil && last.Header["apns-collapse-id"] == id && bytes.Contains(last.Payload, []byte(name(i)))
		},
		unanswered: apple.Unanswered, recollapsed: apple.Recollapsed})
	return nil
}

func (out *outside) startGoogle(o options) error {
	google, err := providertest.StartFCM(providertest.FCMOptions{Behaviour: providertest.FCMBehaviour{Latency: o.googleDelay}})
	if err != nil {
		return err
	}
	out.closes = append(out.closes, google.Close, func() error {
		if v := google.Violations(); len(v) > 0 {
			return fmt.Errorf("%d messages are not what Google takes, such as: %s", len(v), v[0])
		}
		return nil
	})
	env, err := google.Env()
	if err != nil {
		return err
	}
	out.env = append(out.env, env...)
	out.ways = append(out.ways, &way{name: "push by Google", channel: "push", mayRepeat: true, limit: googleLimit,
		has: func(i int) bool { return !hasIPhone(i) }, received: func(people int) []int {
			counts := make([]int, people)
			for i := range people {
				counts[i] = google.Received(deviceToken(i))
			}
			return counts
		},
		total: google.Total, open: func() int { _, open, _ := google.Connections(); return open },
		right: func(id string, i int) bool {
			m, err := google.LastMessage(deviceToken(i))
			return err == nil && m.Android != nil && m.Android.Notification != nil && m.Android.Notification.Tag == id && m.Notification != nil && strings.Contains(m.Notification.Title, name(i))
		},
		unanswered:  func() int { return google.Total() - google.AcceptedTotal() },
		recollapsed: google.Recollapsed})
	return nil
}

func (out *outside) startMail(o options) error {
	mails, err := providertest.StartSMTP(providertest.SMTPOptions{CountOnly: true,
		Behaviour: providertest.Behaviour{All: providertest.Script{DotDelay: o.mailDelay}}})
	if err != nil {
		return err
	}
	out.closes = append(out.closes, mails.Close)
	out.env = append(out.env, "SMTP_HOST="+mails.Host(), fmt.Sprintf("SMTP_PORT=%d", mails.Port()), "SMTP_TLS=none", "SMTP_FROM=Shop <hello@example.com>")
	out.ways = append(out.ways, &way{name: "e-mail", channel: "email", limit: mailLimit, has: everybody,
		received: byKey(mails.Counts, address), total: mails.Total, open: func() int { _, open, _ := mails.Connections(); return open }})
	return nil
}

func (out *outside) startTwilio(o options) error {
	twilio, err := providertest.StartTwilio(providertest.TwilioOptions{CountOnly: true,
		Fault:  providertest.TwilioFault{Delay: o.smsDelay, Becomes: "delivered"},
		Follow: providertest.TwilioFollow{Statuses: []string{"sent", "delivered"}, Delay: o.callbackDelay, Share: o.callbackShare}})
	if err != nil {
		return err
	}
	out.twilio = twilio
	out.closes = append(out.closes, twilio.Close)
	out.env = append(out.env, twilio.Env("Shop", "")...)
	out.ways = append(out.ways, &way{name: "SMS", channel: "sms", limit: smsLimit, has: everybody, received: byKey(twilio.Counts, phone), total: twilio.Total})
	return nil
}
