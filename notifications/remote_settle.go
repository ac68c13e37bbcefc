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

// resultWorker takes the answers of workers on other machines.
type resultWorker struct{ s *Sender }

// Timeout implements [jobs.Timeouter]: it waits for the database as long as that takes.
func (resultWorker) Timeout() time.Duration { return -1 }

// RetryAfter implements [jobs.RetryScheduler].
func (resultWorker) RetryAfter(attempt int) time.Duration {
	return min(time.Duration(attempt)*time.Second, time.Minute)
}

// strayLife is how long an answer for a delivery without a row waits for the API
// process that asked.
const strayLife = 10 * time.Second

// Work implements [jobs.Worker]. It ends when every answer is stored, or is of no use
// any more: until then the job is what remembers them.
func (w resultWorker) Work(ctx context.Context, job *jobs.Job[ResultArgs]) error {
	var answers []answer
	if err := job.Args.Packed.unpack(&answers); err != nil {
		return jobs.Cancel(fmt.Errorf("answers of the worker on %s: %w", job.Args.Host, err))
	}
	desk := w.s.providers.desk()
	var stored []<-chan struct{}
	var rest []answer
	for _, a := range answers {
		if desk == nil {
			rest = append(rest, a)
			continue
		}
		done, ours := desk.take(a)
		if !ours {
			rest = append(rest, a)
		}
		// A suspect is stored at the end of its pass, which waits for other answers. If
		// this process is killed before, its push comes again.
		if done != nil && !a.Outcome.Suspect {
			stored = append(stored, done)
		}
	}
	for _, done := range stored {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err() // once more, after the start
		}
	}
	stray, err := w.s.settleElsewhere(job.Args.Channel, rest)
	if err != nil {
		return err
	}
	if stray && desk != nil && desk.process != job.Args.Process && time.Since(job.EnqueuedAt) < strayLife {
		return jobs.Snooze(time.Second) // for another API process on this folder
	}
	return nil
}

// tellDesk tells those who wait for answers that these are stored.
func (s *Sender) tellDesk(ids []string) {
	if desk := s.providers.desk(); desk != nil {
		desk.settled(ids)
	}
}

// answeredRow is what an answer that nobody waits for needs to know.
type answeredRow struct {
	deliveryRow
	Reason string `db:"reason"`
	Test   bool   `db:"test"`
}

// settleElsewhere writes answers that nobody waits for into their rows. Each changes
// only the row of its own try, and only as long as nothing is known of that: a receipt
// or a later try is never undone, and the same answer may come again. stray says that
// there was one without a row.
func (s *Sender) settleElsewhere(channel ProviderChannel, answers []answer) (stray bool, err error) {
	if len(answers) == 0 {
		return false, nil
	}
	provider, pause := EnvironmentProviderID(channel), ""
	touched := map[string]bool{}
	err = s.app.RunInTransaction(func(txApp core.App) error {
		stray, pause = false, ""
		clear(touched)
		waiting := map[BatchArgs]string{} // batches with something to try again, with their queues
		for _, a := range answers {
			row, err := findAnswered(txApp, a.Delivery)
			if err != nil {
				return err
			}
			if row == nil {
				stray = true
				continue
			}
			n, err := FindNotificationByID(txApp, row.Notification)
			if errors.Is(err, sql.ErrNoRows) {
				continue // nobody is to be told
			}
			if err != nil {
				return err
			}
			r := s.resultElsewhere(row, n, a, provider)
			if r == nil {
				continue
			}
			changed, err := s.storeElsewhere(txApp, row, a, r)
			if err != nil {
				return err
			}
			if !changed {
				continue
			}
			touched[row.Notification] = true
			if a.Outcome.Kind == ConfigBad {
				pause = a.Outcome.Explanation
			}
			if a.Outcome.OptedOut && a.Outcome.Kind == RecipientBlocked && row.Channel == string(ChannelSMS) {
				if err := s.suppressElsewhere(txApp, row); err != nil {
					return err
				}
			}
			if r.Status == DeliveryPending && !row.Test {
				waiting[BatchArgs{row.Notification, row.Batch, Channel(row.Channel)}] = n.Plan().Queue
			}
			s.log.Info("delivery", "delivery", row.ID, "notification", row.Notification, "channel", row.Channel, "provider", provider,
				"outcome", a.Outcome.Kind.String(), "code", a.Outcome.Code, "status", string(r.Status), "settled", "late", "requestId", row.RequestID)
		}
		for batch, queue := range waiting {
			_, err := jobs.Enqueue(txApp, batch, jobs.Options{Queue: queue, UniqueKey: fmt.Sprintf("answered/%s/%d", batch.Notification, batch.Batch)})
			if err != nil {
				return fmt.Errorf("ask for batch %d of notification %s: %w", batch.Batch, batch.Notification, err)
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("store answers of a worker: %w", err)
	}
	for id := range touched {
		s.counter.touch(id)
	}
	if pause != "" {
		return stray, s.providers.Pause(s.app, provider, pause)
	}
	return stray, nil
}

func findAnswered(txApp core.App, id string) (*answeredRow, error) {
	table, err := tableName(txApp, CollectionDeliveries)
	if err != nil {
		return nil, err
	}
	var row answeredRow
	err = txApp.DB().Select("id", "notification", "user", "device", "channel", "kind", "status", "attempts", "nextAttemptAt", "heldUntil", "created", "requestId",
		"batch", "reason", "test").From(table).Where(dbx.HashExp{"id": id}).One(&row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find delivery %s: %w", id, err)
	}
	return &row, nil
}

// resultElsewhere is what an answer makes of its row; nil leaves it alone.
func (s *Sender) resultElsewhere(row *answeredRow, n *Notification, a answer, provider string) *result {
	o := a.outcome()
	if row.mayRepeat() {
		// A push counts its tries when they are answered. Whatever else there is to say
		// of it, the next try says again.
		if DeliveryStatus(row.Status) != DeliveryPending || row.Attempts != a.Try-1 || o.Kind != Accepted {
			return nil
		}
		return s.resultOf(&row.deliveryRow, o, provider)
	}
	unknown := DeliveryStatus(row.Status) == DeliveryUnknown && (row.Reason == ReasonInterrupted || row.Reason == ReasonNoAnswer)
	if row.Attempts != a.Try || !unknown && DeliveryStatus(row.Status) != DeliverySending || unknown && o.Kind == Ambiguous {
		return nil
	}
	row.Attempts-- // as it was when the try began
	r := s.resultOf(&row.deliveryRow, o, provider)
	switch {
	case r.Status != DeliveryPending:
	case n.Status() == StatusCancelled && !row.Test:
		r = &result{Status: DeliveryCancelled, Reason: ReasonCancelled, Provider: provider, Explanation: "The notification was cancelled before this message went out."}
	case unknown || row.Test:
		// It was told as unknown, and the notification may be over. It is known now.
		r = &result{Status: DeliveryFailed, Reason: ReasonNotSent, Provider: provider,
			Explanation: "It turned out later that this message was not sent. It is not sent again by itself: try the notification's failed ones again."}
	}
	return r
}

// storeElsewhere stores a result if the row is still what it was judged by.
func (s *Sender) storeElsewhere(txApp core.App, row *answeredRow, a answer, r *result) (changed bool, err error) {
	table, err := tableName(txApp, CollectionDeliveries)
	if err != nil {
		return false, err
	}
	attempts := a.Try
	if row.mayRepeat() {
		attempts--
	}
	now := dbTime(s.now())
	res, err := txApp.DB().NewQuery("UPDATE {{" + table + "}} SET [[status]] = {:status}, [[reason]] = {:reason}, [[explanation]] = {:explanation}, [[provider]] = {:provider}," +
		" [[providerMessageId]] = {:message}, [[nextAttemptAt]] = {:next}, [[attempts]] = {:try}, [[updated]] = {:now}," +
		" [[acceptedAt]] = CASE WHEN {:accepted} <> '' THEN {:accepted} ELSE [[acceptedAt]] END" +
		" WHERE [[id]] = {:id} AND [[status]] = {:was} AND [[attempts]] = {:attempts}").
		Bind(dbx.Params{"status": string(r.Status), "reason": r.Reason, "explanation": r.Explanation, "provider": r.Provider, "message": r.ProviderMessageID,
			"next": dbTime(r.NextAttemptAt), "try": a.Try, "now": now, "accepted": r.acceptedAt(now), "id": row.ID, "was": row.Status, "attempts": attempts}).Execute()
	if err != nil {
		return false, fmt.Errorf("store answer of delivery %s: %w", row.ID, err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// suppressElsewhere keeps a person's refusal of further texts, by the number they have
// now: the answer has none.
func (s *Sender) suppressElsewhere(txApp core.App, row *answeredRow) error {
	users, err := UsersCollection(txApp)
	if err != nil {
		return err
	}
	var phone string
	err = txApp.DB().Select("phone").From(users.Name).Where(dbx.HashExp{"id": row.User}).Row(&phone)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find number of person %s: %w", row.User, err)
	}
	return suppress(txApp, phone, Kind(row.Kind), SuppressStop)
}

var _ jobs.Worker[ResultArgs] = resultWorker{}
