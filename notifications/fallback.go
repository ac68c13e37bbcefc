package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// With smsAfterMinutes, who has not opened the push by then gets an SMS. Each planned
// batch of pushes leaves a row in groundwork_fallbacks and a job for later, in the
// transaction that plans it. The job makes the deliveries of the SMS, those of one
// batch of pushes in a batch of their own, and takes the row away: a crash before
// repeats it, and one SMS for each person and notification is a unique index. They are
// deliveries like all others: of the notification's own kind, and with everything
// looked at again that may hold an SMS back.

// fallbackBatch is added to the number of a batch of pushes for the batch of the SMS.
const fallbackBatch = 1_000_000_000

// FallbackArgs looks who of a batch of pushes gets an SMS instead.
type FallbackArgs struct {
	Notification string `json:"notification"`
	Batch        int    `json:"batch"` // of the pushes
}

// Kind implements [jobs.Args].
func (FallbackArgs) Kind() string { return "notification.fallback" }

// SMSAfter is how long after a push those get an SMS who have not opened it; zero
// means that nobody does.
func (n *Notification) SMSAfter() time.Duration {
	return time.Duration(n.GetInt("smsAfterMinutes")) * time.Minute
}

// checkFallback refuses a fallback that nobody could get.
func (n *Notification) checkFallback(options Options, errs FieldErrors) {
	switch channels := n.Channels(); {
	case n.SMSAfter() == 0:
	case !slices.Contains(channels, ChannelPush):
		errs.add("smsAfterMinutes", "no_push", "This is for who does not open a push: choose the channel push too, or leave it empty.")
	case slices.Contains(channels, ChannelSMS):
		errs.add("smsAfterMinutes", "sms_already", "Everybody gets an SMS anyway: take the channel sms out, or leave this empty.")
	case options.Silent:
		errs.add("smsAfterMinutes", "silent", "A silent push cannot be opened: leave this empty, or take silent out of the options.")
	}
}

// planFallbacks notes, in the transaction that plans batches, that those of pushes
// have something to come.
func planFallbacks(txApp core.App, n *Notification, queue string, batches []plannedBatch, now time.Time) error {
	if n.SMSAfter() == 0 {
		return nil
	}
	for _, b := range batches {
		if b.Channel != ChannelPush || b.Missed {
			continue
		}
		if _, err := txApp.DB().Insert("groundwork_fallbacks", dbx.Params{"notification": n.Id, "batch": b.Batch}).Execute(); err != nil {
			return fmt.Errorf("store fallback of batch %d of notification %s: %w", b.Batch, n.Id, err)
		}
		at := now
		if due := parseDBTime(b.RunAt); due.After(at) {
			at = due
		}
		if err := enqueueFallback(txApp, n, b.Batch, queue, n.notAfterExpiry(at.Add(n.SMSAfter()))); err != nil {
			return err
		}
	}
	return nil
}

func enqueueFallback(app core.App, n *Notification, batch int, queue string, at time.Time) error {
	if _, err := jobs.Enqueue(app, FallbackArgs{n.Id, batch}, jobs.Options{Queue: queue, RequestID: n.RequestID(), RunAt: at}); err != nil {
		return fmt.Errorf("enqueue fallback of batch %d of notification %s: %w", batch, n.Id, err)
	}
	return nil
}

// enqueueFallbacks asks again for all that are left, once a notification goes on.
func enqueueFallbacks(app core.App, n *Notification) error {
	if n.SMSAfter() == 0 {
		return nil
	}
	var batches []int
	if err := app.DB().Select("batch").From("groundwork_fallbacks").Where(dbx.HashExp{"notification": n.Id}).Column(&batches); err != nil {
		return fmt.Errorf("find fallbacks of notification %s: %w", n.Id, err)
	}
	for _, batch := range batches {
		if err := enqueueFallback(app, n, batch, n.Plan().Queue, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// dropFallbacks takes what is left away: of one batch, or of all of them (-1).
func dropFallbacks(app core.App, notificationID string, batch int) error {
	where := dbx.HashExp{"notification": notificationID}
	if batch >= 0 {
		where["batch"] = batch
	}
	if _, err := app.DB().Delete("groundwork_fallbacks", where).Execute(); err != nil {
		return fmt.Errorf("drop fallbacks of notification %s: %w", notificationID, err)
	}
	return nil
}

// notAfterExpiry is at, or expiresAt when that is before.
func (n *Notification) notAfterExpiry(at time.Time) time.Time {
	if expires := n.ExpiresAt(); !expires.IsZero() && expires.Before(at) {
		return expires
	}
	return at
}

type fallbackWorker struct{ s *Sender }

func (w fallbackWorker) Work(_ context.Context, job *jobs.Job[FallbackArgs]) error {
	defer w.s.counter.touch(job.Args.Notification)
	var again time.Time
	err := w.s.app.RunInTransaction(func(txApp core.App) (err error) {
		again, err = w.s.fallBack(txApp, job.Args)
		return err
	})
	if err == nil && !again.IsZero() {
		return jobs.Snooze(max(again.Sub(w.s.now()), time.Second))
	}
	return err
}

// fallBack makes the SMS that are due, and returns when to look again; zero when it
// is done.
func (s *Sender) fallBack(txApp core.App, args FallbackArgs) (again time.Time, err error) {
	n, err := FindNotificationByID(txApp, args.Notification)
	if errors.Is(err, sql.ErrNoRows) {
		return again, dropFallbacks(txApp, args.Notification, -1)
	}
	if err != nil {
		return again, err
	}
	now := s.now()
	switch expires := n.ExpiresAt(); {
	case n.Status() == StatusPaused:
		return again, nil // asked for again when it resumes
	case n.Status() != StatusSending && n.Status() != StatusQueued, !expires.IsZero() && !now.Before(expires):
		return again, dropFallbacks(txApp, n.Id, -1)
	}
	var left []int
	key := dbx.HashExp{"notification": n.Id, "batch": args.Batch}
	if err := txApp.DB().Select("batch").From("groundwork_fallbacks").Where(key).Column(&left); err != nil || len(left) == 0 {
		return again, err
	}
	var planned []string
	if err := txApp.DB().Select("runAt").From("groundwork_batches").Where(key).Column(&planned); err != nil {
		return again, fmt.Errorf("find batch %d of notification %s: %w", args.Batch, n.Id, err)
	}
	if len(planned) > 0 { // not all of it has been handed over
		at := now
		if due := parseDBTime(planned[0]); due.After(at) {
			at = due
		}
		return n.notAfterExpiry(at.Add(n.SMSAfter())), nil
	}
	due, again, err := s.unopened(txApp, n, args.Batch, now)
	if err != nil {
		return again, err
	}
	made, err := s.insertFallbacks(txApp, n, args.Batch, due, now)
	if err != nil {
		return again, err
	}
	if made > 0 {
		b := plannedBatch{Notification: n.Id, Batch: args.Batch + fallbackBatch, Channel: ChannelSMS}
		if err := enqueueBatch(txApp, b, n.Plan().Queue, n.RequestID()); err != nil {
			return again, err
		}
	}
	if again.IsZero() {
		return again, dropFallbacks(txApp, n.Id, args.Batch)
	}
	return n.notAfterExpiry(again), nil
}

// missedPush are the reasons for which somebody who got no push gets an SMS: what
// went wrong was about the device. Who was left out because of a wish, a cap or the
// time is left out of both.
var missedPush = []string{ReasonNoAddress, ReasonTargetGone, ReasonRecipientBlocked, ReasonNoProvider, ReasonPayloadRefused, ReasonRetriesExhausted}

// unopened returns who of a batch of pushes has not opened it in time, and when the
// next one has to be looked at; zero when none is left.
func (s *Sender) unopened(txApp core.App, n *Notification, batch int, now time.Time) (due []string, next time.Time, err error) {
	table, err := tableName(txApp, CollectionDeliveries)
	if err != nil {
		return nil, next, err
	}
	var rows []struct {
		User          string `db:"user"`
		Status        string `db:"status"`
		Reason        string `db:"reason"`
		AcceptedAt    string `db:"acceptedAt"`
		NextAttemptAt string `db:"nextAttemptAt"`
		Updated       string `db:"updated"`
	}
	err = txApp.DB().Select("user", "status", "reason", "acceptedAt", "nextAttemptAt", "updated").From(table).
		Where(dbx.HashExp{"notification": n.Id, "batch": batch, "channel": string(ChannelPush)}).AndWhere(dbx.NewExp("[[user]] <> ''")).OrderBy("user").All(&rows)
	if err != nil {
		return nil, next, fmt.Errorf("find pushes of notification %s: %w", n.Id, err)
	}
	after := n.SMSAfter()
	for start := 0; start < len(rows); {
		end := start
		var at time.Time // when it is this person's turn
		gets, opened := false, false
		sooner := func(t time.Time) {
			if gets = true; at.IsZero() || t.Before(at) {
				at = t
			}
		}
		for ; end < len(rows) && rows[end].User == rows[start].User; end++ {
			switch r := rows[end]; DeliveryStatus(r.Status) {
			case DeliveryOpened:
				opened = true
			case DeliveryAccepted, DeliveryDelivered, DeliveryCaptured, DeliveryUnknown:
				sooner(parseDBTime(orElse(r.AcceptedAt, r.Updated)).Add(after))
			case DeliveryPending, DeliverySending:
				tried := now
				if held := parseDBTime(r.NextAttemptAt); held.After(now) {
					tried = held
				}
				sooner(tried.Add(after))
			case DeliveryFailed, DeliverySkipped:
				if slices.Contains(missedPush, r.Reason) {
					sooner(parseDBTime(r.Updated).Add(after))
				}
			}
		}
		switch {
		case opened || !gets:
		case !at.After(now):
			due = append(due, rows[start].User)
		case next.IsZero() || at.Before(next):
			next = at
		}
		start = end
	}
	return due, next, nil
}

// insertFallbacks makes the deliveries of those people who have a phone, and none of
// this notification's SMS yet.
func (s *Sender) insertFallbacks(txApp core.App, n *Notification, batch int, userIDs []string, now time.Time) (made int64, err error) {
	if len(userIDs) == 0 {
		return 0, nil
	}
	table, err := tableName(txApp, CollectionDeliveries)
	if err != nil {
		return 0, err
	}
	users, err := UsersCollection(txApp)
	if err != nil {
		return 0, err
	}
	snapshot, err := n.Snapshot()
	if err != nil {
		return 0, err
	}
	var people []person
	err = txApp.DB().Select("id", "phone").From(users.Name).Where(dbx.NewExp("[[id]] IN (SELECT value FROM json_each({:ids})) AND [[phone]] <> ''",
		dbx.Params{"ids": mustJSON(userIDs)})).OrderBy("id").All(&people)
	if err != nil {
		return 0, fmt.Errorf("find phones for notification %s: %w", n.Id, err)
	}
	id := newDeliveryIDs(now, len(people))
	rows := make([][3]string, len(people))
	for i, p := range people {
		rows[i] = [3]string{id(), p.ID, MaskAddress(ChannelSMS, p.Phone)}
	}
	res, err := txApp.DB().NewQuery("INSERT OR IGNORE INTO {{" + table + "}} ([[id]], [[user]], [[target]], [[address]], [[notification]], [[channel]], [[kind]], [[category]], [[status]], [[batch]], [[requestId]], [[created]], [[updated]])" +
		" SELECT value ->> 0, value ->> 1, value ->> 1, value ->> 2, {:notification}, 'sms', {:kind}, {:category}, 'pending', {:batch}, {:request}, {:now}, {:now} FROM json_each({:rows})").
		Bind(dbx.Params{"notification": n.Id, "kind": string(snapshot.Kind), "category": snapshot.Category, "batch": batch + fallbackBatch,
			"request": n.RequestID(), "now": dbTime(now), "rows": mustJSON(rows)}).Execute()
	if err != nil {
		return 0, fmt.Errorf("insert SMS of notification %s: %w", n.Id, err)
	}
	return res.RowsAffected()
}

// openedResult is what becomes of an SMS whose push was opened while it waited.
func openedResult() *result {
	return &result{Status: DeliverySkipped, Reason: ReasonOpened, Explanation: "This person opened the push before the SMS went out."}
}

// findOpeners returns who has opened the push in whose place rows of one batch go out;
// none when these are no SMS in place of a push.
func (s *Sender) findOpeners(rows []*deliveryRow) (map[string]bool, error) {
	batch := rows[0].Batch - fallbackBatch
	if batch < 0 {
		return nil, nil
	}
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return nil, err
	}
	where := dbx.HashExp{"notification": rows[0].Notification, "batch": batch, "status": string(DeliveryOpened)}
	if len(rows) == 1 {
		where["user"] = rows[0].User
	}
	var users []string
	if err := s.app.ConcurrentDB().Select("user").From(table).Where(where).Column(&users); err != nil {
		return nil, fmt.Errorf("find who opened notification %s: %w", rows[0].Notification, err)
	}
	openers := make(map[string]bool, len(users))
	for _, id := range users {
		openers[id] = true
	}
	return openers, nil
}
