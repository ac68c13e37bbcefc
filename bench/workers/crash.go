package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
)

// awayFor is how long Postgres is away.
const awayFor = time.Second

// unstored is how many answers, for each message in flight, may not be stored when a
// worker is killed: they go in groups.
const unstored = 4

// windows are how many messages the server has on their way for two workers.
var windows = map[string]int{"email": 2 * 200, "sms": 2 * 800, "push": 2 * 2000}

// crash is the first part.
func crash(o options) (r *report, err error) {
	s, err := open(o, o.people)
	defer func() { err = errors.Join(err, s.close()) }()
	if err != nil {
		return nil, err
	}
	for _, w := range s.workers {
		if err := w.Start(); err != nil {
			return nil, err
		}
	}
	r = &report{people: o.people, serverKilled: o.killServer}
	begin := time.Now()
	if r.id, err = s.send(o.people, "email", "sms", "push"); err != nil {
		return nil, err
	}
	all := 2*o.people + min(o.people, maxPhones)
	came := func() int { return s.mails.Total() + s.twilio.Total() + s.google.Total() }
	if err := s.until("a third of the messages", func() bool { return came() >= all/3 }); err != nil {
		return nil, err
	}
	s.workers[0].Kill()
	r.atKill = came()
	if err := s.until("two thirds of the messages", func() bool { return came() >= 2*all/3 }); err != nil {
		return nil, err
	}
	s.postgres.Crash()
	r.atCrash = came()
	time.Sleep(awayFor) // while it is away
	if err := s.postgres.Run(); err != nil {
		return nil, err
	}
	if err := s.workers[0].Start(); err != nil {
		return nil, err
	}
	if o.killServer {
		if err := s.until("five sixths of the messages", func() bool { return came() >= 5*all/6 }); err != nil {
			return nil, err
		}
		s.server.Kill()
		if err := s.server.Start(); err != nil {
			return nil, err
		}
	}
	if r.status, r.reason, err = s.await(r.id); err != nil {
		return nil, err
	}
	r.took = time.Since(begin)
	stopping := time.Now()
	for _, w := range s.workers {
		if err := errors.Join(w.Stop(), w.Files()); err != nil {
			return nil, fmt.Errorf("worker %s: %w", w.Host, err)
		}
	}
	r.stopped = time.Since(stopping)
	s.server.Kill()
	mails, texts := s.mails.Counts(), s.twilio.Counts()
	r.recollapsed = s.google.Recollapsed()
	r.strangers = came()
	return r, s.server.WithDB(func(db *dbx.DB) error {
		for _, ch := range []struct {
			channel string
			limit   int // in flight of one worker
			got     func(i int) int
			has     func(i int) bool
		}{
			{"email", 8, func(i int) int { return mails[address(i)] }, func(int) bool { return true }},
			{"sms", 32, func(i int) int { return texts[phone(i)] }, func(i int) bool { return phone(i) != "" }},
			{"push", 500, func(i int) int { return s.google.Received(deviceToken(i)) }, func(int) bool { return true }},
		} {
			t := &tally{channel: ch.channel, limit: ch.limit}
			if err := t.count(db, r, ch.got, ch.has); err != nil {
				return err
			}
			r.tallies = append(r.tallies, t)
		}
		return nil
	})
}

// report is what the first part found.
type report struct {
	id, status, reason string
	people             int
	serverKilled       bool
	atKill, atCrash    int // messages that had come
	took, stopped      time.Duration
	tallies            []*tally
	recollapsed        int // pushes that came again with another collapse id
	strangers          int // messages for nobody here
}

// tally is what became of the messages of one channel.
type tally struct {
	channel string
	limit   int

	accepted, unknown, other, messages int
	twice, lost, acceptedWithout       int
	others                             map[string]int
}

func (t *tally) count(db *dbx.DB, r *report, got func(i int) int, has func(i int) bool) error {
	var rows []struct {
		User   string `db:"user"`
		Status string `db:"status"`
		Reason string `db:"reason"`
		Why    string `db:"explanation"`
	}
	err := db.NewQuery("SELECT user, status, reason, explanation FROM notification_deliveries WHERE notification = {:id} AND channel = {:channel}").
		Bind(dbx.Params{"id": r.id, "channel": t.channel}).All(&rows)
	if err != nil {
		return fmt.Errorf("read deliveries: %w", err)
	}
	status := make([]string, r.people)
	t.others = map[string]int{}
	for _, row := range rows {
		var i int
		if _, err := fmt.Sscanf(row.User, "p%d", &i); err != nil || i >= r.people || status[i] != "" {
			return fmt.Errorf("%s has a delivery too many on the channel %s", row.User, t.channel)
		}
		status[i] = row.Status
		if row.Status != "accepted" && has(i) {
			t.others[row.Status+" "+row.Reason+": "+row.Why]++
		}
	}
	for i, st := range status {
		if !has(i) {
			continue
		}
		n := got(i)
		t.messages += n
		t.twice += max(n-1, 0)
		switch st {
		case "accepted":
			t.accepted++
			if n == 0 {
				t.acceptedWithout++
			}
		case "unknown":
			t.unknown++
		default:
			t.other++
		}
		if n == 0 && st != "unknown" {
			t.lost++
		}
	}
	r.strangers -= t.messages
	return nil
}

// err says what must not have happened.
func (r *report) err() error {
	var errs []error
	check := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(r.status != "sent" && r.status != "sent_with_failures", "the notification is %s: %s", r.status, r.reason)
	check(r.strangers != 0, "%d messages came for nobody here", r.strangers)
	check(r.recollapsed > 0, "%d pushes came again with another collapse id", r.recollapsed)
	check(r.stopped > 2*15*time.Second, "the two workers took %s to stop", r.stopped)
	for _, t := range r.tallies {
		if r.serverKilled { // what was on its way to two workers, and its answers
			t.limit += windows[t.channel]
		}
		check(t.lost > 0, "%s: %d people got nothing and are not unknown", t.channel, t.lost)
		check(t.acceptedWithout > 0, "%s: %d are told as accepted and never came", t.channel, t.acceptedWithout)
		check(t.other > 0, "%s: %d are neither accepted nor unknown: %v", t.channel, t.other, t.others)
		if t.channel == "push" {
			check(t.unknown > 0, "push: %d are unknown", t.unknown)
			check(t.twice > unstored*t.limit, "push: %d came again, and %d may have been in flight, or their answers not stored", t.twice, unstored*t.limit)
			continue
		}
		check(t.twice > 0, "%s: %d came twice", t.channel, t.twice)
		check(t.unknown > unstored*t.limit, "%s: %d are unknown, and %d may have been in flight, or their answers not stored", t.channel, t.unknown, unstored*t.limit)
	}
	return errors.Join(errs...)
}

func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "people %d, a worker killed after %d messages and Postgres after %d; status %s, %s until everybody was served; the workers stopped in %s",
		r.people, r.atKill, r.atCrash, r.status, r.took.Round(100*time.Millisecond), r.stopped.Round(10*time.Millisecond))
	for _, t := range r.tallies {
		fmt.Fprintf(&b, "\n%-6s accepted %d, unknown %d, other %d; messages %d, came again %d, lost %d", t.channel+":", t.accepted, t.unknown, t.other, t.messages, t.twice, t.lost)
		for why, n := range t.others {
			fmt.Fprintf(&b, "\n         %d %s", n, why)
		}
	}
	fmt.Fprintf(&b, "\npushes with another collapse id %d, messages for nobody %d", r.recollapsed, r.strangers)
	return b.String()
}
