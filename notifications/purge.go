package notifications

import (
	"context"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

const (
	// purgePage is how many deliveries are deleted in one transaction.
	purgePage = 1000
	// purgePause lets other writers in between.
	purgePause = 20 * time.Millisecond
)

// PurgeNotifications deletes the notifications that ended before a time, with all that
// is kept about whom they went to, in small steps. What people have in their inboxes is
// theirs and stays; a message to everyone's inbox is kept whole, for those who have not
// looked yet. Nothing is deleted that a category's cap still counts. It returns how many
// notifications are gone.
func PurgeNotifications(ctx context.Context, app core.App, before time.Time) (n int, err error) {
	table, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return 0, err
	}
	if before, err = beforeCaps(app, before); err != nil {
		return 0, err
	}
	for {
		var ended []*core.Record
		err := app.RecordQuery(CollectionNotifications).
			AndWhere(dbx.NewExp("[[finishedAt]] != '' AND [[finishedAt]] < {:before} AND [[status]] IN ('sent', 'sent_with_failures', 'failed', 'cancelled', 'expired')",
				dbx.Params{"before": dbTime(before)})).
			// What is in everyone's inbox is taken from there when somebody looks.
			AndWhere(dbx.NewExp("[[id]] NOT IN (SELECT [[notification]] FROM {{groundwork_inbox_everyone}})")).
			OrderBy("finishedAt").Limit(50).All(&ended)
		if err != nil {
			return n, fmt.Errorf("find ended notifications: %w", err)
		}
		if len(ended) == 0 {
			return n, nil
		}
		for _, record := range ended {
			if err := purgeDeliveries(ctx, app, table, dbx.HashExp{"notification": record.Id}); err != nil {
				return n, err
			}
			if err := purgeNotification(app, record); err != nil {
				return n, err
			}
			n++
		}
	}
}

// purgeNotification deletes what is left of a notification without deliveries.
func purgeNotification(app core.App, record *core.Record) error {
	return app.RunInTransaction(func(txApp core.App) error {
		for _, name := range []string{"groundwork_batches", "groundwork_fallbacks"} {
			if _, err := txApp.DB().Delete(name, dbx.HashExp{"notification": record.Id}).Execute(); err != nil {
				return fmt.Errorf("delete rows of notification %s in %s: %w", record.Id, name, err)
			}
		}
		if err := txApp.DeleteWithContext(AsServer(context.Background()), record); err != nil {
			return fmt.Errorf("delete notification %s: %w", record.Id, err)
		}
		return nil
	})
}

// PurgeAccountMessages deletes the deliveries of account messages (codes, password
// mails) that are done and were made before a time. It returns how many there were.
func PurgeAccountMessages(ctx context.Context, app core.App, before time.Time) (n int, err error) {
	table, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return 0, err
	}
	where := dbx.And(dbx.HashExp{"notification": ""}, dbx.NewExp("[[created]] < {:before} AND [[status]] NOT IN ('pending', 'sending')", dbx.Params{"before": dbTime(before)}))
	if err := app.ConcurrentDB().Select("COUNT(*)").From(table).Where(where).Row(&n); err != nil {
		return 0, fmt.Errorf("count account messages: %w", err)
	}
	return n, purgeDeliveries(ctx, app, table, where)
}

func purgeDeliveries(ctx context.Context, app core.App, table string, where dbx.Expression) error {
	for {
		var ids []any
		if err := app.ConcurrentDB().Select("id").From(table).Where(where).Limit(purgePage).Column(&ids); err != nil {
			return fmt.Errorf("find old deliveries: %w", err)
		}
		if len(ids) == 0 {
			return nil
		}
		err := app.RunInTransaction(func(txApp core.App) error {
			if _, err := txApp.DB().Delete("groundwork_polls", dbx.HashExp{"delivery": ids}).Execute(); err != nil {
				return fmt.Errorf("delete polls of old deliveries: %w", err)
			}
			if _, err := txApp.DB().Delete(table, dbx.HashExp{"id": ids}).Execute(); err != nil {
				return fmt.Errorf("delete old deliveries: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(purgePause):
		}
	}
}

// beforeCaps moves a time back behind the longest window in which a category's cap
// counts.
func beforeCaps(app core.App, before time.Time) (time.Time, error) {
	table, err := tableName(app, CollectionCategories)
	if err != nil {
		return before, err
	}
	var caps, hours int
	err = app.ConcurrentDB().Select("COUNT(*)", "COALESCE(MAX([[frequencyWindow]]), 0)").From(table).Where(dbx.NewExp("[[frequencyCap]] > 0")).Row(&caps, &hours)
	if err != nil {
		return before, fmt.Errorf("read caps of categories: %w", err)
	}
	if counted := time.Now().Add(-time.Duration(hours)*time.Hour - capReach); caps > 0 && counted.Before(before) {
		return counted, nil
	}
	return before, nil
}
