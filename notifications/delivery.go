package notifications

import (
	"fmt"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
)

// deliveryRow is what sending needs to know of a delivery.
type deliveryRow struct {
	ID            string `db:"id"`
	Notification  string `db:"notification"`
	User          string `db:"user"`
	Device        string `db:"device"`
	Channel       string `db:"channel"`
	Kind          string `db:"kind"`
	Status        string `db:"status"`
	Attempts      int    `db:"attempts"`
	NextAttemptAt string `db:"nextAttemptAt"`
	HeldUntil     string `db:"heldUntil"`
	Created       string `db:"created"`
	RequestID     string `db:"requestId"`
	Batch         int    `db:"batch"`

	// What follows is only known of a row that is made here.
	Target, Category, Address, Reason, Explanation, ResendOf string
	Test                                                     bool

	// device and person are set when they were read with the row, at read.
	device *deviceRow
	person *recipient
	read   time.Time

	// unstored is true until the delivery is a row of the table. Only the ledger
	// changes it while the delivery is on its way.
	unstored bool
}

// dueSince is since when a message is tried: what it waited for quiet hours or for
// somebody (see [Sender.resultOf]) does not count.
func (r *deliveryRow) dueSince() time.Time {
	created, held := parseDBTime(r.Created), parseDBTime(r.HeldUntil)
	if held.After(created) {
		return held
	}
	return created
}

// hasFailed says that the last try failed in a way that another one follows by itself.
// What waits until a provider is put right, or was asked for again, has not.
func (r *deliveryRow) hasFailed() bool { return r.Attempts > 0 && r.NextAttemptAt != "" }

// mayRepeat says whether a message may go out twice after a crash: a push is
// recognised by its collapse id, an e-mail or SMS would arrive twice.
func (r *deliveryRow) mayRepeat() bool { return Channel(r.Channel) == ChannelPush }

// isElsewhere says that a worker may have the message and its answer may come.
func (r *deliveryRow) isElsewhere(now time.Time) bool {
	return r.Status == string(DeliverySending) && parseDBTime(r.NextAttemptAt).After(now)
}

// interrupted says that the message was being handed over by a process that has
// ended.
func (r *deliveryRow) interrupted(now time.Time) bool {
	return r.Status == string(DeliverySending) && !r.isElsewhere(now)
}

// interruptedResult is what becomes of a row that was being handed over when
// its process ended.
func interruptedResult(row *deliveryRow) *result {
	if row.mayRepeat() {
		return &result{Status: DeliveryPending}
	}
	return &result{Status: DeliveryUnknown, Reason: ReasonInterrupted,
		Explanation: "The server stopped while this message was being handed over, so it is not known whether it was sent. It is not sent again by itself."}
}

// elsewhereWait is how long the first answer from a worker may still take.
func elsewhereWait(rows []*deliveryRow, now time.Time) time.Duration {
	_, wait := splitDue(slices.DeleteFunc(slices.Clone(rows), func(row *deliveryRow) bool { return !row.isElsewhere(now) }), now)
	return wait
}

// splitDue returns the rows to try now; when there are none, how long to wait
// for the first.
func splitDue(rows []*deliveryRow, now time.Time) (due []*deliveryRow, wait time.Duration) {
	for _, row := range rows {
		next := parseDBTime(row.NextAttemptAt)
		if !next.After(now) {
			due = append(due, row)
			continue
		}
		if until := next.Sub(now); wait == 0 || until < wait {
			wait = until
		}
	}
	return due, wait
}

func (s *Sender) findDeliveries(where dbx.Expression, limit int) ([]*deliveryRow, error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return nil, err
	}
	var rows []*deliveryRow
	err = s.app.ConcurrentDB().
		Select("id", "notification", "user", "device", "channel", "kind", "status", "attempts", "nextAttemptAt", "heldUntil", "created", "requestId", "batch").
		From(table).Where(where).OrderBy("nextAttemptAt", "id").Limit(int64(limit)).All(&rows)
	if err != nil {
		return nil, fmt.Errorf("find deliveries: %w", err)
	}
	return rows, nil
}

func usersOf(rows []*deliveryRow) []string {
	users := make([]string, len(rows))
	for i, row := range rows {
		users[i] = row.User
	}
	return users
}

func parseDBTime(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05.000Z", s)
	if err != nil {
		return time.Time{} // empty: never
	}
	return t
}
