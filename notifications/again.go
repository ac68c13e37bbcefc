package notifications

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// RefusedError is a sentence that says why something that was asked for is not
// done.
type RefusedError struct{ Sentence string }

// Error is the sentence.
func (e *RefusedError) Error() string { return e.Sentence }

// RetryFailed sends the failed deliveries of a notification again, and nothing else.
// It returns how many there are. Errors: sql.ErrNoRows when there is no such
// notification, [*RefusedError].
func RetryFailed(app core.App, id string, now time.Time) (int64, error) {
	var retried int64
	err := app.RunInTransaction(func(txApp core.App) error {
		n, err := findEnded(txApp, id)
		if err != nil {
			return err
		}
		table, err := tableName(txApp, CollectionDeliveries)
		if err != nil {
			return err
		}
		// What is still said about the messages that failed is about these no more.
		var failed []string
		err = txApp.DB().NewQuery("SELECT DISTINCT [[providerMessageId]] FROM {{" + table +
			"}} WHERE [[notification]] = {:id} AND [[status]] = 'failed' AND NOT [[test]] AND [[channel]] = 'sms' AND [[providerMessageId]] <> ''").
			Bind(dbx.Params{"id": id}).Column(&failed)
		if err != nil {
			return fmt.Errorf("find failed messages of notification %s: %w", id, err)
		}
		for i, messageID := range failed {
			failed[i] = messageDigest(messageID)
		}
		if len(failed) > 0 {
			_, err = txApp.DB().NewQuery("INSERT INTO {{groundwork_inbound}} ([[id]], [[at]]) SELECT value, {:now} FROM json_each({:failed}) WHERE TRUE ON CONFLICT DO NOTHING").
				Bind(dbx.Params{"now": dbTime(now), "failed": mustJSON(failed)}).Execute()
			if err != nil {
				return fmt.Errorf("remember failed messages of notification %s: %w", id, err)
			}
		}
		res, err := txApp.DB().NewQuery("UPDATE {{" + table + "}} SET [[status]] = 'pending', [[reason]] = '', [[explanation]] = '', [[attempts]] = 0," +
			" [[nextAttemptAt]] = '', [[providerMessageId]] = '', [[updated]] = {:now} WHERE [[notification]] = {:id} AND [[status]] = 'failed' AND [[user]] <> '' AND NOT [[test]]"). // an erased person gets nothing
			Bind(dbx.Params{"id": id, "now": dbTime(now)}).Execute()
		if err != nil {
			return fmt.Errorf("retry deliveries of notification %s: %w", id, err)
		}
		if retried, err = res.RowsAffected(); err != nil {
			return fmt.Errorf("retry deliveries of notification %s: %w", id, err)
		}
		if retried == 0 {
			return &RefusedError{"No delivery of this notification has failed, so there is nothing to try again."}
		}
		return goOn(txApp, n)
	})
	return retried, err
}

// ResendDelivery sends one delivery again, as a new row that names the old one, and
// returns the new row's id. Errors: sql.ErrNoRows when there is no such
// delivery, [*RefusedError].
func ResendDelivery(app core.App, deliveryID string, now time.Time) (string, error) {
	id := newDeliveryIDs(now, 1)()
	err := app.RunInTransaction(func(txApp core.App) error {
		old, err := txApp.FindRecordById(CollectionDeliveries, deliveryID)
		if err != nil {
			return fmt.Errorf("find delivery %s: %w", deliveryID, err)
		}
		switch DeliveryStatus(old.GetString("status")) {
		case DeliveryPending, DeliverySending:
			return &RefusedError{"This message is still on its way: wait until it has ended."}
		}
		if old.GetString("notification") == "" {
			return &RefusedError{"What account mails say is never kept, so it cannot be sent again: the person can ask for a new one."}
		}
		if old.GetBool("test") {
			return &RefusedError{"This was a test: ask for another test instead."}
		}
		if old.GetString("user") == "" {
			return &RefusedError{"The person whom this message went to was erased, so it cannot be sent again."}
		}
		if old.GetString("user") == Everyone {
			return &RefusedError{"This message is in the inbox of everybody who was here when it was sent: duplicate the notification and send the copy."}
		}
		n, err := findEnded(txApp, old.GetString("notification"))
		if err != nil {
			return err
		}
		plan := n.Plan()
		plan.Batch++
		n.SetPlan(plan)
		if err := insertRow(txApp, &deliveryRow{ID: id, Notification: n.Id, User: old.GetString("user"), Device: old.GetString("device"),
			Target:  old.GetString("target") + "/" + id, // one row per target is unique: this is another one on purpose
			Channel: old.GetString("channel"), Kind: old.GetString("kind"), Category: old.GetString("category"), Address: old.GetString("address"),
			Status: string(DeliveryPending), Batch: plan.Batch, RequestID: n.RequestID(), ResendOf: old.Id, Created: dbTime(now)}); err != nil {
			return err
		}
		return goOn(txApp, n)
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// findEnded returns a notification that has been sent to everybody.
func findEnded(txApp core.App, id string) (*Notification, error) {
	n, err := FindNotificationByID(txApp, id)
	if err != nil {
		return nil, err
	}
	switch n.Status() {
	case StatusSent, StatusSentWithFailures, StatusFailed:
		if snapshot, err := n.Snapshot(); err == nil && snapshot.Kind == "" && n.Plan().Queue != "" {
			return nil, &RefusedError{"What it said was about a person who was erased, and went with them: it cannot be sent again."}
		}
		return n, nil
	case StatusDraft:
		return nil, &RefusedError{"This notification was never sent: set its action to send."}
	case StatusCancelled, StatusExpired:
		return nil, &RefusedError{"This notification was cancelled or has expired: duplicate it and send the copy."}
	default:
		return nil, &RefusedError{"This notification is still on its way: wait until it has ended, or cancel it."}
	}
}

// goOn takes a notification up again whose deliveries were made pending.
func goOn(txApp core.App, n *Notification) error {
	if n.Plan().Queue == "" {
		return &RefusedError{"This notification failed before anybody was chosen to get it: duplicate it and send the copy."}
	}
	n.SetStatus(StatusSending)
	n.SetStatusReason("")
	n.Set("finishedAt", "")
	if err := txApp.SaveNoValidateWithContext(AsServer(context.Background()), n); err != nil {
		return err
	}
	return EnqueueBatches(txApp, n, "")
}

// IsRefused returns the sentence of a [*RefusedError].
func IsRefused(err error) (sentence string, ok bool) {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Sentence, true
	}
	return "", false
}
