package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

const (
	// pageSize is how many people are planned in one transaction, and the size
	// of a batch. It bounds the memory of a broadcast and how long it holds the
	// one writer connection (about 15 ms).
	pageSize = 2000

	// firstPage is the size of the first page: it is on its way sooner. Each one
	// after it is twice as large.
	firstPage = 250

	// bulkFrom is the audience size from which a notification goes through the
	// bulk queue, so that it never delays a receipt.
	bulkFrom = 500
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
	Notification string  `json:"notification"`
	Batch        int     `json:"batch"`
	Channel      Channel `json:"channel,omitempty"` // of all its deliveries
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
		RunAt:     n.PlanAt(app),
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
	var batches []plannedBatch
	err = app.DB().NewQuery("SELECT [[batch]], [[channel]], '' AS [[runAt]] FROM {{" + table + "}} WHERE [[notification]] = {:id} AND [[status]] IN ('pending', 'sending') AND NOT [[test]] AND ({:channel} = '' OR [[channel]] = {:channel})" +
		" UNION SELECT [[batch]], [[channel]], [[runAt]] FROM {{groundwork_batches}} WHERE [[notification]] = {:id} AND ({:channel} = '' OR [[channel]] = {:channel})").
		Bind(dbx.Params{"id": n.Id, "channel": string(channel)}).All(&batches)
	if err != nil {
		return fmt.Errorf("find pending batches of notification %s: %w", n.Id, err)
	}
	for _, b := range batches {
		b.Notification = n.Id
		if err := enqueueBatch(app, b, n.Plan().Queue, n.RequestID()); err != nil {
			return err
		}
	}
	return enqueueFallbacks(app, n)
}

func enqueueBatch(app core.App, b plannedBatch, queue, requestID string) error {
	_, err := jobs.Enqueue(app, BatchArgs{b.Notification, b.Batch, b.Channel}, jobs.Options{Queue: queue, RequestID: requestID, RunAt: parseDBTime(b.RunAt)})
	if err != nil {
		return fmt.Errorf("enqueue batch %d of notification %s: %w", b.Batch, b.Notification, err)
	}
	return nil
}

// planWorker plans page by page. Each page is one transaction that stores its
// batches, enqueues them and moves the cursor, so that a crash repeats no page
// and leaves none out; the first batches are on their way while later pages are
// still being planned.
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
		if wait := n.PlanAt(s.app).Sub(now); wait > 0 {
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
	var people int64
	if plan.Now.IsZero() {
		plan.Now = now.UTC()
		if n.LocalTime() {
			if plan.Clock = n.LocalClock(s.app); plan.Clock.IsZero() {
				plan.Clock, plan.AnyDay = clockOf(now, DefaultZone(s.app)), true
			}
		}
		s.counter.planning(id)
		snapshot, err := n.Snapshot()
		if err != nil {
			return false, err
		}
		if err := snapshot.checkData(s.app); err != nil {
			return false, s.failNotification(id, err)
		}
		audience := n.Audience()
		audience.Now = plan.Now
		if people, err = audience.Count(s.app); err != nil {
			return false, s.failNotification(id, err)
		}
		shares, err := s.sharesInbox(n, snapshot)
		if err != nil {
			return false, err
		}
		plan.Shared = shares && people > 0
		plan.Queue = jobs.QueueDefault
		if people > bulkFrom {
			plan.Queue = jobs.QueueBulk
		}
	}
	if expires := n.ExpiresAt(); !expires.IsZero() && !now.Before(expires) {
		plan.Done, plan.Expired = true, true
		return false, s.savePlan(n, plan, nil)
	}

	if plan.Shared && len(n.Channels()) == 1 {
		next := plan
		next.People, next.Batch, next.Done = people, 1, true
		return s.planned(n, next, planShared(n, plan, people, nil))
	}
	audience := n.Audience()
	audience.Now = plan.Now
	// Read outside the transaction: a filter may scan the whole collection.
	size := min(firstPage<<plan.Pages, pageSize)
	if n.LocalTime() {
		size = localPage
	}
	ids, err := audience.Page(s.app, plan.Cursor, size)
	if err != nil {
		return false, s.failNotification(id, err)
	}
	batches := planShared(n, plan, people, planBatches(n, ids, plan))
	if n.LocalTime() {
		if batches, err = s.planLocalBatches(n, ids, plan); err != nil {
			return false, err
		}
	}
	next := plan
	next.People += int64(len(ids))
	next.Batch += len(batches)
	if len(ids) > 0 {
		next.Cursor = ids[len(ids)-1]
	}
	next.Pages = min(plan.Pages+1, 16)
	next.Done = len(ids) < size
	return s.planned(n, next, batches)
}

// planned stores a page and says whether there are more.
func (s *Sender) planned(n *Notification, next Plan, batches []plannedBatch) (more bool, err error) {
	if err := s.savePlan(n, next, batches); err != nil {
		if errors.Is(err, errPlanMoved) {
			return true, nil
		}
		return false, err
	}
	if next.Done {
		s.counter.planned(n.Id, next.Batch)
	}
	return !next.Done, nil
}

var errPlanMoved = errors.New("the plan was moved by somebody else")

// savePlan stores one planned page, if nobody else planned it and the
// notification was not stopped meanwhile.
func (s *Sender) savePlan(seen *Notification, next Plan, batches []plannedBatch) error {
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
		if err := insertPlanned(txApp, batches); err != nil {
			return err
		}
		for _, b := range batches {
			if err := enqueueBatch(txApp, b, next.Queue, n.RequestID()); err != nil {
				return err
			}
		}
		if err := planFallbacks(txApp, n, next.Queue, batches, s.now()); err != nil {
			return err
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
	ID    string `db:"id"`
	Email string `db:"email"`
	Phone string `db:"phone"`
}

// deviceRow is what planning and sending need to know of a device.
type deviceRow struct {
	ID          string `db:"id"`
	User        string `db:"user"`
	Token       string `db:"token"`
	Platform    string `db:"platform"`
	PushService string `db:"pushService"`
	App         string `db:"app"`
	Environment string `db:"environment"`
	Locale      string `db:"locale"`
}

// route is the way to the device.
func (d *deviceRow) route() Route {
	route := Route{Channel: ProviderChannel(d.PushService), App: d.App}
	if route.Channel == ProviderAPNs {
		route.Environment = d.Environment
	}
	return route
}

// planBatches makes the batches of one page of people, one for each channel, so
// that a paused mail server does not hold the inbox back. What is one for all is not
// among them.
func planBatches(n *Notification, userIDs []string, plan Plan) []plannedBatch {
	if len(userIDs) == 0 {
		return nil
	}
	users := mustJSON(userIDs)
	var batches []plannedBatch
	for _, channel := range n.Channels() {
		if channel == ChannelInbox && plan.Shared {
			continue
		}
		batches = append(batches, plannedBatch{Notification: n.Id, Batch: plan.Batch + len(batches) + 1, Channel: channel, Users: users, Planned: int64(len(userIDs))})
	}
	return batches
}

func (s *Sender) findPeople(ids []string) ([]person, error) {
	users, err := UsersCollection(s.app)
	if err != nil {
		return nil, err
	}
	var people []person
	err = s.app.ConcurrentDB().Select("id", "email", "phone").From(users.Name).
		Where(dbx.HashExp{"id": anySlice(ids)}).OrderBy("id").All(&people)
	if err != nil {
		return nil, fmt.Errorf("find recipients: %w", err)
	}
	return people, nil
}

// findDevices returns the active devices whose field is one of values.
func findDevices(app core.App, field string, values []string) ([]deviceRow, error) {
	table, err := tableName(app, CollectionDevices)
	if err != nil {
		return nil, err
	}
	// The list is one parameter, so that the statement stays small.
	query, err := app.ConcurrentDB().NewQuery("SELECT d.[[id]], d.[[user]], d.[[token]], d.[[platform]], d.[[pushService]], d.[[app]], d.[[environment]], d.[[locale]]" +
		" FROM json_each({:values}) j CROSS JOIN {{" + table + "}} d ON d.[[" + field + "]] = j.value AND d.[[status]] = 'active'").
		Bind(dbx.Params{"values": mustJSON(values)}).Rows()
	if err != nil {
		return nil, fmt.Errorf("find devices: %w", err)
	}
	defer query.Close()
	rows := make([]deviceRow, 0, len(values))
	for query.Next() {
		var d deviceRow
		if err := query.Scan(&d.ID, &d.User, &d.Token, &d.Platform, &d.PushService, &d.App, &d.Environment, &d.Locale); err != nil {
			return nil, fmt.Errorf("find devices: %w", err)
		}
		rows = append(rows, d)
	}
	if err := query.Err(); err != nil {
		return nil, fmt.Errorf("find devices: %w", err)
	}
	return rows, nil
}

func anySlice[T any](values []T) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}
