package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
)

// report is what a run found.
type report struct {
	id             string
	people, kills  int
	inbox          bool
	status, reason string
	took           time.Duration
	tallies        []*tally

	// SMS, by person: what the last kills left unknown and Twilio has not told.
	unsettled map[int]bool

	inboxMessages, inboxTwice, inboxMissing int
}

// tally is what became of the messages of one way.
type tally struct {
	*way
	recipients int

	inFlight []int // by person, the kills at which the message was in flight
	hits     int   // messages in flight at kills, of all kills
	most     int   // without an answer at one kill
	unstored int   // with an answer that was not stored yet, at one kill; for push only
	before   []int // what everybody had got at the last kill
	cut      int   // without an answer until the last kill

	accepted, delivered, unknown, notSent, failed, pending, other int
	messages, twice, repeats, lost, acceptedWithout               int
	unknownUntouched, repeatsUntouched, strangers, wrong          int
	byReceipt, byPoll                                             int // of the unknown
}

func newReport(o options, ways []*way) *report {
	r := &report{people: o.people, kills: o.kills, inbox: slices.Contains(o.channels, "inbox"), unsettled: map[int]bool{}}
	for _, w := range ways {
		r.tallies = append(r.tallies, &tally{way: w, recipients: w.recipients(o.people), inFlight: make([]int, o.people), before: make([]int, o.people)})
	}
	return r
}

// stored is the status and the reason of each person's delivery on a channel.
func (r *report) stored(db *dbx.DB, channel string) ([]delivery, error) {
	var rows []struct {
		User string `db:"user"`
		delivery
	}
	err := db.NewQuery("SELECT user, status, reason FROM notification_deliveries WHERE notification = {:id} AND channel = {:channel}").
		Bind(dbx.Params{"id": r.id, "channel": channel}).All(&rows)
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	all := make([]delivery, r.people)
	for _, row := range rows {
		var i int
		if _, err := fmt.Sscanf(row.User, "p%d", &i); err != nil || i >= r.people {
			return nil, fmt.Errorf("a delivery is for %q, who is nobody here", row.User)
		}
		if all[i].Status != "" {
			return nil, fmt.Errorf("%s has two deliveries on the channel %s", row.User, channel)
		}
		all[i] = row.delivery
	}
	return all, nil
}

type delivery struct {
	Status string `db:"status"`
	Reason string `db:"reason"`
}

// countInFlight looks at what a kill has interrupted. A push was in flight when
// its service got it from the killed process and the row does not say so; for what
// must not be repeated the row says that it may have left.
func (r *report) countInFlight(db *dbx.DB) error {
	rows := map[string][]delivery{}
	for _, t := range r.tallies {
		if rows[t.channel] == nil {
			found, err := r.stored(db, t.channel)
			if err != nil {
				return err
			}
			rows[t.channel] = found
		}
		got := t.received(r.people)
		now := 0
		for i, d := range rows[t.channel] {
			if !t.has(i) {
				continue
			}
			hit := d.Status == "sending"
			if t.mayRepeat {
				hit = got[i] > t.before[i] && d.Status != "accepted"
			}
			if hit {
				t.inFlight[i]++
				now++
			}
		}
		t.hits += now
		t.before = got
		if t.unanswered != nil {
			cut := t.unanswered()
			t.unstored = max(t.unstored, now-(cut-t.cut))
			now, t.cut = cut-t.cut, cut
		}
		t.most = max(t.most, now)
	}
	return nil
}

// countReceipts finds what the receipts have settled, and what they have not.
func (r *report) countReceipts(db *dbx.DB) error {
	for _, t := range r.tallies {
		if t.channel != "sms" {
			continue
		}
		rows, err := r.stored(db, t.channel)
		if err != nil {
			return err
		}
		for i, d := range rows {
			switch {
			case d.Status == "unknown":
				r.unsettled[i] = true
			case t.inFlight[i] > 0 && (d.Status == "accepted" || d.Status == "delivered"):
				t.byReceipt++
			}
		}
	}
	return nil
}

// count compares what is stored with what came.
func (r *report) count(db *dbx.DB) error {
	for _, t := range r.tallies {
		rows, err := r.stored(db, t.channel)
		if err != nil {
			return err
		}
		got := t.received(r.people)
		for i, d := range rows {
			if t.has(i) {
				t.take(r, i, d, got[i])
			}
		}
		t.strangers = t.total() - t.messages
		if t.recollapsed != nil {
			t.wrong += t.recollapsed()
		}
	}
	if !r.inbox {
		return nil
	}
	// It is one message for all; nobody has looked yet.
	var shared []int
	if err := db.NewQuery("SELECT people FROM groundwork_inbox_everyone WHERE seq > 0").Column(&shared); err != nil {
		return fmt.Errorf("read inbox: %w", err)
	}
	for _, people := range shared {
		r.inboxMessages += people
	}
	r.inboxTwice, r.inboxMissing = max(r.inboxMessages-r.people, 0), max(r.people-r.inboxMessages, 0)
	return nil
}

// take counts one delivery.
func (t *tally) take(r *report, i int, d delivery, got int) {
	t.messages += got
	served := got > 0
	switch d.Status {
	case "accepted", "delivered":
		if d.Status == "accepted" {
			t.accepted++
		} else {
			t.delivered++
		}
		if got == 0 {
			t.acceptedWithout++
		}
		if r.unsettled[i] && t.channel == "sms" {
			t.byPoll++
		}
	case "unknown":
		t.unknown++
		served = true // as far as anybody can know
		if t.inFlight[i] == 0 {
			t.unknownUntouched++
		}
	case "failed":
		if d.Reason == "not_sent" && r.unsettled[i] && got == 0 {
			t.notSent++
			served = true // it is known now that the kill came first
			break
		}
		t.failed++
	case "pending", "sending":
		t.pending++
	default:
		t.other++
	}
	if !served {
		t.lost++
	}
	switch {
	case got > 1 && t.mayRepeat:
		t.repeats += got - 1
		t.repeatsUntouched += max(got-1-t.inFlight[i], 0)
	case got > 1:
		t.twice++
	}
	if t.right != nil && !t.right(r.id, i) {
		t.wrong++
	}
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
	hits := 0
	for _, t := range r.tallies {
		hits += t.hits
		check(t.lost > 0, "%s: %d people got nothing and are not unknown", t.name, t.lost)
		check(t.acceptedWithout > 0, "%s: %d are told as accepted and never came", t.name, t.acceptedWithout)
		check(t.failed+t.pending+t.other > 0, "%s: %d failed, %d are pending, %d in another state", t.name, t.failed, t.pending, t.other)
		check(t.strangers > 0, "%s: %d messages came for nobody here", t.name, t.strangers)
		check(t.twice > 0, "%s: %d people got it twice", t.name, t.twice)
		check(t.unknownUntouched > 0, "%s: %d are unknown and were not in flight at a kill", t.name, t.unknownUntouched)
		check(t.repeatsUntouched > 0, "%s: %d repeats of what was not in flight at a kill", t.name, t.repeatsUntouched)
		check(t.wrong > 0, "%s: %d messages with another collapse id, or another person's", t.name, t.wrong)
		check(t.most > t.limit, "%s: %d had no answer at a kill, and %d may have none", t.name, t.most, t.limit)
		check(t.unstored > storeLimit, "%s: %d answers were not stored at a kill, and %d may be", t.name, t.unstored, storeLimit)
		check(t.channel == "sms" && t.unknown+t.accepted > 0, "%s: %d are still unknown and %d without a receipt after Twilio was asked", t.name, t.unknown, t.accepted)
	}
	check(r.inboxTwice+r.inboxMissing > 0, "inbox: %d people have it twice, %d not at all", r.inboxTwice, r.inboxMissing)
	check(r.kills > 0 && len(r.tallies) > 0 && hits == 0, "no kill met a message in flight, so that nothing was tested: make the delays longer")
	return errors.Join(errs...)
}

func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kills %d, people %d, status %s, %s until everybody was served", r.kills, r.people, r.status, r.took.Round(time.Second))
	for _, t := range r.tallies {
		fmt.Fprintf(&b, "\n%-15s recipients %d, accepted %d, delivered %d, unknown %d, failed %d, pending %d; messages %d, twice %d, lost %d; in flight at kills %d, at most %d without an answer (limit %d)",
			t.name+":", t.recipients, t.accepted, t.delivered, t.unknown, t.failed, t.pending, t.messages, t.twice, t.lost, t.hits, t.most, t.limit)
		if t.mayRepeat {
			fmt.Fprintf(&b, " and %d with one that was not stored; repeats %d, of what was not in flight %d, with another collapse id or text %d", t.unstored, t.repeats, t.repeatsUntouched, t.wrong)
		}
		if t.channel == "sms" {
			fmt.Fprintf(&b, "; of the unknown settled by receipt %d, by asking %d, not sent %d", t.byReceipt, t.byPoll, t.notSent)
		}
	}
	if r.inbox {
		fmt.Fprintf(&b, "\n%-15s messages %d, twice %d, missing %d", "inbox:", r.inboxMessages, r.inboxTwice, r.inboxMissing)
	}
	return b.String()
}
