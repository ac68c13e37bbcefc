package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// Release asks again for everything that waits for a provider, after it was
// repaired.
func (s *Sender) Release(app core.App, ch ProviderChannel) error {
	channel := ch.Channel()
	deliveries, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return err
	}
	// 'pending' stands in the text: only so does SQLite use the index of those. A batch
	// that is under way may have found the provider paused, and have no rows yet.
	var ids []string
	err = app.DB().NewQuery("SELECT [[notification]] FROM {{" + deliveries + "}} WHERE [[status]] = 'pending' AND NOT [[test]] AND [[channel]] = {:channel} AND ({:kind} = '' OR [[kind]] = {:kind})" +
		" UNION SELECT [[notification]] FROM {{groundwork_batches}} WHERE [[channel]] = {:channel}").
		Bind(dbx.Params{"channel": string(channel), "kind": string(ch.Kind())}).Column(&ids)
	if err != nil {
		return fmt.Errorf("find what waits for %s: %w", ch, err)
	}
	// One that cannot be read does not keep the others from being sent on.
	var failed error
	for _, id := range ids {
		if id == "" {
			failed = errors.Join(failed, s.enqueueWaitingMails(app))
			continue
		}
		if err := s.release(app, id, channel); err != nil {
			failed = errors.Join(failed, fmt.Errorf("release notification %s: %w", id, err))
		}
	}
	return failed
}

func (s *Sender) release(app core.App, id string, channel Channel) error {
	return app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		plan := n.Plan()
		if n.Status() == StatusPaused && plan.Held || n.Status() == StatusSending {
			plan.Held = false
			n.SetPlan(plan)
			n.SetStatus(StatusSending)
			n.SetStatusReason("")
			if err := txApp.SaveNoValidateWithContext(AsServer(context.Background()), n); err != nil {
				return err
			}
			return EnqueueBatches(txApp, n, channel)
		}
		return nil
	})
}

// pauseFor stores why a notification's messages cannot go out. A provider that
// is paused holds only what goes by it: the status stays "sending" until the
// counter finds that nothing else is under way (see [Sender.held]).
func (s *Sender) pauseFor(id, sentence string, byProvider bool) error {
	return s.app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, id)
		if err != nil {
			return err
		}
		if st := n.Status(); st != StatusSending && st != StatusQueued {
			return nil
		}
		n.SetStatusReason(sentence)
		if !byProvider {
			n.SetStatus(StatusPaused)
		}
		return txApp.SaveNoValidateWithContext(AsServer(context.Background()), n)
	})
}

// held says whether all that is pending of a notification waits for paused
// providers, and why.
func (s *Sender) held(app core.App, id string) (sentence string, held bool) {
	if planned, err := s.findPlanned(id, -1); err != nil || planned != nil {
		return "", false // its job will find out
	}
	routes, gone, err := s.waitingRoutes(app, id)
	if err == nil && len(routes) == 0 && len(gone) > 0 {
		err = s.askForGone(app, id, gone)
	}
	if err != nil {
		s.log.Error("it cannot be found out what a notification waits for", "notification", id, "error", err)
		return "", false
	}
	if len(routes) == 0 {
		return "", false
	}
	for _, route := range routes {
		_, err := s.providers.Active(app, route)
		var paused *PausedError
		if !errors.As(err, &paused) {
			return "", false
		}
		sentence = paused.Reason
	}
	return sentence, true
}

// waitingRoutes returns the ways by which what is pending of a notification
// would go; none when something is being handed over or needs no provider. A push
// whose device is gone goes nowhere: gone are the batches of those.
func (s *Sender) waitingRoutes(app core.App, id string) (routes []Route, gone []int, err error) {
	table, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return nil, nil, err
	}
	devices, err := tableName(app, CollectionDevices)
	if err != nil {
		return nil, nil, err
	}
	var waiting []struct {
		Channel string `db:"channel"`
		Kind    string `db:"kind"`
		Status  string `db:"status"`
		Batch   int    `db:"batch"` // of those without a device; else 0
		deviceRow
	}
	err = app.DB().NewQuery("SELECT DISTINCT d.[[channel]], d.[[kind]], d.[[status]], CASE WHEN v.[[id]] IS NULL THEN d.[[batch]] ELSE 0 END AS [[batch]], COALESCE(v.[[pushService]], '') AS [[pushService]]," +
		" COALESCE(v.[[app]], '') AS [[app]], COALESCE(v.[[environment]], '') AS [[environment]] FROM {{" + table + "}} d LEFT JOIN {{" + devices +
		"}} v ON d.[[device]] <> '' AND v.[[id]] = d.[[device]] WHERE d.[[notification]] = {:id} AND d.[[status]] IN ('pending', 'sending') AND NOT d.[[test]]").
		Bind(dbx.Params{"id": id}).All(&waiting)
	if err != nil {
		return nil, nil, fmt.Errorf("find what is pending of notification %s: %w", id, err)
	}
	for _, w := range waiting {
		route := w.route()
		if Channel(w.Channel) != ChannelPush {
			route = Route{Channel: providerChannel(Channel(w.Channel), Kind(w.Kind))}
		}
		switch {
		case w.Status == string(DeliverySending):
			return nil, nil, nil
		case route.Channel != "":
			routes = append(routes, route)
		case Channel(w.Channel) == ChannelPush:
			gone = append(gone, w.Batch)
		default:
			return nil, nil, nil
		}
	}
	return routes, gone, nil
}

// askForGone asks for the batches whose last pushes have lost their devices while
// they waited: nothing that is repaired would ask for them.
func (s *Sender) askForGone(app core.App, id string, batches []int) error {
	n, err := FindNotificationByID(app, id)
	if err != nil {
		return err
	}
	for _, batch := range batches {
		_, err := jobs.Enqueue(app, BatchArgs{id, batch, ChannelPush},
			jobs.Options{Queue: n.Plan().Queue, RequestID: n.RequestID(), UniqueKey: fmt.Sprintf("gone/%s/%d", id, batch)})
		if err != nil {
			return fmt.Errorf("ask for batch %d of notification %s: %w", batch, id, err)
		}
	}
	return nil
}
