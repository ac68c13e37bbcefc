package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"

	"github.com/groundworkhq/groundwork/jobs"
)

const (
	// pageSize is how many people are planned in one transaction, and the size
	// of a batch. It bounds the memory of a broadcast and how long it holds the
	// one writer connection (about 10 ms).
	pageSize = 500

	// bulkFrom is the audience size from which a notification goes through the
	// bulk queue, so that it never delays a receipt.
	bulkFrom = pageSize

	idAlphabet = core.DefaultIdAlphabet
)

// PlanArgs turns a notification into deliveries and batches.
type PlanArgs struct {
	Notification string `json:"notification"`
}

// Kind implements [jobs.Args].
func (PlanArgs) Kind() string { return "notification.plan" }

// BatchArgs sends one batch of a notification: the deliveries of one channel
// and one page of its audience.
type BatchArgs struct {
	Notification string `json:"notification"`
	Batch        int    `json:"batch"`
}

// Kind implements [jobs.Args].
func (BatchArgs) Kind() string { return "notification.batch" }

// CancelArgs marks what is still pending of a cancelled notification.
type CancelArgs struct {
	Notification string `json:"notification"`
}

// Kind implements [jobs.Args].
func (CancelArgs) Kind() string { return "notification.cancel" }

// EnqueuePlan asks for the planning of a notification at its time.
func EnqueuePlan(app core.App, n *Notification) error {
	_, err := jobs.Enqueue(app, PlanArgs{n.Id}, jobs.Options{
		RunAt:     n.SendAt(),
		RequestID: n.RequestID(),
	})
	if err != nil {
		return fmt.Errorf("enqueue plan of notification %s: %w", n.Id, err)
	}
	return nil
}

// EnqueueBatches asks again for all batches of a notification that have
// something pending, of one channel or ("") of all.
func EnqueueBatches(app core.App, n *Notification, channel Channel) error {
	table, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return err
	}
	var batches []int
	query := app.DB().Select("batch").Distinct(true).From(table).
		Where(dbx.HashExp{"notification": n.Id, "status": []any{string(DeliveryPending), string(DeliverySending)}})
	if channel != "" {
		query.AndWhere(dbx.HashExp{"channel": string(channel)})
	}
	if err := query.Column(&batches); err != nil {
		return fmt.Errorf("find pending batches of notification %s: %w", n.Id, err)
	}
	for _, batch := range batches {
		if err := enqueueBatch(app, n.Id, batch, n.Plan().Queue, n.RequestID()); err != nil {
			return err
		}
	}
	return nil
}

func enqueueBatch(app core.App, notificationID string, batch int, queue, requestID string) error {
	_, err := jobs.Enqueue(app, BatchArgs{notificationID, batch}, jobs.Options{Queue: queue, RequestID: requestID})
	if err != nil {
		return fmt.Errorf("enqueue batch %d of notification %s: %w", batch, notificationID, err)
	}
	return nil
}

// planWorker plans page by page. Each page is one transaction that writes its
// deliveries, enqueues its batches and moves the cursor, so that a crash
// repeats no page and leaves none out; the first batches are on their way while
// later pages are still being planned.
type planWorker struct{ s *Sender }

func (planWorker) Timeout() time.Duration { return -1 }

func (w planWorker) Work(ctx context.Context, job *jobs.Job[PlanArgs]) error {
	for {
		more, err := w.s.planPage(ctx, job.Args.Notification)
		if err != nil || !more {
			w.s.counter.touch(job.Args.Notification)
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (s *Sender) planPage(_ context.Context, id string) (more bool, err error) {
	n, err := FindNotificationByID(s.app, id)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now := s.now()
	switch n.Status() {
	case StatusScheduled:
		if wait := n.SendAt().Sub(now); wait > 0 {
			return false, jobs.Snooze(wait) // sendAt was moved to later
		}
	case StatusQueued, StatusSending:
	default:
		return false, nil // paused, cancelled or over
	}

	plan := n.Plan()
	if plan.Done {
		return false, nil
	}
	if plan.Now.IsZero() {
		plan.Now = now.UTC()
		audience := n.Audience()
		audience.Now = plan.Now
		people, err := audience.Count(s.app)
		if err != nil {
			return false, s.failNotification(id, err)
		}
		plan.Queue = jobs.QueueDefault
		if people > bulkFrom {
			plan.Queue = jobs.QueueBulk
		}
	}
	if expires := n.ExpiresAt(); !expires.IsZero() && !now.Before(expires) {
		plan.Done, plan.Expired = true, true
		return false, s.savePlan(n, plan, nil, nil)
	}

	audience := n.Audience()
	audience.Now = plan.Now
	// Read outside the transaction: a filter may scan the whole collection.
	ids, err := audience.Page(s.app, plan.Cursor, pageSize)
	if err != nil {
		return false, s.failNotification(id, err)
	}
	deliveries, batches, err := s.planDeliveries(n, ids, plan.Batch)
	if err != nil {
		return false, err
	}
	next := plan
	next.People += int64(len(ids))
	next.Batch += len(batches)
	if len(ids) > 0 {
		next.Cursor = ids[len(ids)-1]
	}
	next.Done = len(ids) < pageSize
	if err := s.savePlan(n, next, deliveries, batches); err != nil {
		if errors.Is(err, errPlanMoved) {
			return true, nil
		}
		return false, err
	}
	return !next.Done, nil
}

var errPlanMoved = errors.New("the plan was moved by somebody else")

// savePlan stores one planned page, if nobody else planned it and the
// notification was not stopped meanwhile.
func (s *Sender) savePlan(seen *Notification, next Plan, deliveries []dbx.Params, batches []int) error {
	return s.app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, seen.Id)
		if err != nil {
			return err
		}
		switch n.Status() {
		case StatusQueued, StatusSending, StatusScheduled:
		default:
			return errPlanMoved
		}
		if now, before := n.Plan(), seen.Plan(); now.Cursor != before.Cursor || now.Done {
			return errPlanMoved
		}
		if err := insertDeliveries(txApp, deliveries); err != nil {
			return err
		}
		for _, batch := range batches {
			if err := enqueueBatch(txApp, n.Id, batch, next.Queue, n.RequestID()); err != nil {
				return err
			}
		}
		n.SetPlan(next)
		n.SetStatus(StatusSending)
		if n.StartedAt().IsZero() {
			n.Set("startedAt", s.now())
		}
		return txApp.SaveNoValidateWithContext(AsServer(context.Background()), n)
	})
}

// failNotification ends a notification that can not be planned (its filter names
// a field that is gone) with the reason, instead of failing its job for ever.
func (s *Sender) failNotification(id string, cause error) error {
	var field *FieldError
	if !errors.As(cause, &field) {
		return cause
	}
	return s.app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, id)
		if err != nil {
			return err
		}
		n.SetStatus(StatusFailed)
		n.SetStatusReason(field.Sentence)
		n.Set("finishedAt", s.now())
		return txApp.SaveNoValidateWithContext(AsServer(context.Background()), n)
	})
}

// person is what planning needs to know of a user.
type person struct {
	ID            string `db:"id"`
	Email         string `db:"email"`
	Phone         string `db:"phone"`
	PhoneVerified bool   `db:"phoneVerified"`
}

type deviceRow struct {
	ID    string `db:"id"`
	User  string `db:"user"`
	Token string `db:"token"`
}

// planDeliveries builds the delivery rows of one page: one per person and
// channel, for push one per device. Each channel is a batch of its own, so that
// a paused mail server does not hold the inbox back.
func (s *Sender) planDeliveries(n *Notification, userIDs []string, lastBatch int) ([]dbx.Params, []int, error) {
	if len(userIDs) == 0 {
		return nil, nil, nil
	}
	snapshot, err := n.Snapshot()
	if err != nil {
		return nil, nil, err
	}
	people, err := s.findPeople(userIDs)
	if err != nil {
		return nil, nil, err
	}
	now := dbTime(s.now())
	var rows []dbx.Params
	var batches []int
	for _, channel := range n.Channels() {
		batch := lastBatch + len(batches) + 1
		pending := 0
		add := func(user, device, target, address, reason, explanation string) {
			status := DeliveryPending
			if reason != "" {
				status = DeliverySkipped
			} else {
				pending++
			}
			rows = append(rows, dbx.Params{
				"id": security.RandomStringWithAlphabet(core.DefaultIdLength, idAlphabet), "notification": n.Id,
				"user": user, "device": device, "target": target, "channel": string(channel), "kind": string(snapshot.Kind),
				"category": snapshot.Category, "address": MaskAddress(channel, address), "status": string(status),
				"reason": reason, "explanation": explanation, "batch": batch, "requestId": n.RequestID(),
				"created": now, "updated": now,
			})
		}
		switch channel {
		case ChannelInbox:
			for _, p := range people {
				add(p.ID, "", p.ID, "", "", "")
			}
		case ChannelEmail:
			for _, p := range people {
				if p.Email == "" {
					add(p.ID, "", p.ID, "", ReasonNoAddress, "This person has no e-mail address.")
					continue
				}
				add(p.ID, "", p.ID, p.Email, "", "")
			}
		case ChannelSMS:
			for _, p := range people {
				if p.Phone == "" || !p.PhoneVerified {
					add(p.ID, "", p.ID, "", ReasonNoAddress, "This person has no verified phone number.")
					continue
				}
				add(p.ID, "", p.ID, p.Phone, "", "")
			}
		case ChannelPush:
			devices, err := s.findDevices(userIDs)
			if err != nil {
				return nil, nil, err
			}
			for _, p := range people {
				if len(devices[p.ID]) == 0 {
					add(p.ID, "", p.ID, "", ReasonNoAddress, "This person has no device that takes push messages.")
				}
				for _, d := range devices[p.ID] {
					add(p.ID, d.ID, d.ID, d.Token, "", "")
				}
			}
		}
		if pending > 0 {
			batches = append(batches, batch)
		}
	}
	return rows, batches, nil
}

func (s *Sender) findPeople(ids []string) ([]person, error) {
	users, err := UsersCollection(s.app)
	if err != nil {
		return nil, err
	}
	var people []person
	err = s.app.ConcurrentDB().Select("id", "email", "phone", "phoneVerified").From(users.Name).
		Where(dbx.HashExp{"id": anySlice(ids)}).OrderBy("id").All(&people)
	if err != nil {
		return nil, fmt.Errorf("find recipients: %w", err)
	}
	return people, nil
}

func (s *Sender) findDevices(userIDs []string) (map[string][]deviceRow, error) {
	table, err := tableName(s.app, CollectionDevices)
	if err != nil {
		return nil, err
	}
	var rows []deviceRow
	err = s.app.ConcurrentDB().Select("id", "user", "token").From(table).
		Where(dbx.HashExp{"user": anySlice(userIDs), "status": "active"}).OrderBy("id").All(&rows)
	if err != nil {
		return nil, fmt.Errorf("find devices: %w", err)
	}
	byUser := make(map[string][]deviceRow, len(userIDs))
	for _, d := range rows {
		byUser[d.User] = append(byUser[d.User], d)
	}
	return byUser, nil
}

// insertDeliveries writes rows with one prepared statement; all rows have the
// same columns.
func insertDeliveries(txApp core.App, rows []dbx.Params) error {
	if len(rows) == 0 {
		return nil
	}
	table, err := tableName(txApp, CollectionDeliveries)
	if err != nil {
		return err
	}
	// OR IGNORE: one row per recipient and target is a unique index; a target
	// that is there already has been planned.
	query := txApp.DB().NewQuery("INSERT OR IGNORE INTO {{" + table + "}} ([[id]], [[notification]], [[user]], [[device]], [[target]], [[channel]], [[kind]], [[category]]," +
		" [[address]], [[status]], [[reason]], [[explanation]], [[batch]], [[requestId]], [[created]], [[updated]])" +
		" VALUES ({:id}, {:notification}, {:user}, {:device}, {:target}, {:channel}, {:kind}, {:category}," +
		" {:address}, {:status}, {:reason}, {:explanation}, {:batch}, {:requestId}, {:created}, {:updated})").Prepare()
	defer query.Close()
	for _, row := range rows {
		if _, err := query.Bind(row).Execute(); err != nil {
			return fmt.Errorf("insert delivery: %w", err)
		}
	}
	return nil
}

func anySlice[T any](values []T) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}
