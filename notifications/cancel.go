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

type cancelWorker struct{ s *Sender }

func (w cancelWorker) Work(ctx context.Context, job *jobs.Job[CancelArgs]) error {
	defer w.s.counter.touch(job.Args.Notification)
	for ctx.Err() == nil {
		more, err := w.s.cancelSome(ctx, job.Args.Notification)
		if err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

// storePlanned makes rows of a batch that will not be worked. One that is being
// worked makes its own: it is looked for again.
func (s *Sender) storePlanned(ctx context.Context, n *Notification, planned *plannedBatch) error {
	err := s.atWork.do(ctx, batchKey(planned.Notification, planned.Batch), func() error {
		rows, err := s.buildRows(n, planned)
		if err != nil {
			return err
		}
		return s.storeRows(planned, rows)
	})
	if errors.Is(err, errBusy) {
		return jobs.Snooze(time.Second)
	}
	return err
}

func (s *Sender) cancelSome(ctx context.Context, id string) (more bool, err error) {
	n, err := FindNotificationByID(s.app, id)
	if errors.Is(err, sql.ErrNoRows) || err == nil && n.Status() != StatusCancelled {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	planned, err := s.findPlanned(id, -1)
	if err != nil {
		return false, err
	}
	if planned != nil {
		return true, s.storePlanned(ctx, n, planned)
	}
	err = s.app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, id)
		if err != nil || n.Status() != StatusCancelled {
			return err
		}
		if err := dropFallbacks(txApp, id, -1); err != nil {
			return err
		}
		table, err := tableName(txApp, CollectionDeliveries)
		if err != nil {
			return err
		}
		res, err := txApp.DB().NewQuery("UPDATE {{" + table + "}} SET [[status]] = 'cancelled', [[reason]] = {:reason}, [[explanation]] = {:why}, [[updated]] = {:now}" +
			" WHERE [[id]] IN (SELECT [[id]] FROM {{" + table + "}} WHERE [[notification]] = {:id} AND [[status]] = 'pending' LIMIT 1000)").
			Bind(dbx.Params{"id": id, "now": dbTime(s.now()), "reason": ReasonCancelled, "why": "The notification was cancelled before this message went out."}).Execute()
		if err != nil {
			return fmt.Errorf("cancel deliveries of notification %s: %w", id, err)
		}
		changed, err := res.RowsAffected()
		more = changed == 1000
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return more, err
}
