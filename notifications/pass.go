package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// lookSize is how many deliveries of a batch one look finds. There may be more: people
// have several devices.
const lookSize = 2 * pageSize

type batchWorker struct{ s *Sender }

func (batchWorker) Timeout() time.Duration { return -1 }

func (w batchWorker) Work(ctx context.Context, job *jobs.Job[BatchArgs]) error {
	// A provider that is repaired has batches asked for that are under way.
	over := false
	err := unlessBusy(w.s.atWork.do(ctx, batchKey(job.Args.Notification, job.Args.Batch), func() (err error) {
		w.s.away.back(job.Args)
		defer func() {
			if errors.Is(err, errCrowded) {
				w.s.away.goes(awayBatch{job.Args, job.Queue, job.RequestID})
				err = jobs.Snooze(w.s.opts.Retry.away())
			}
		}()
		leave, err := w.s.turns.enter(ctx, job.Queue, job.Args.Channel)
		if err != nil {
			return err
		}
		defer leave()
		defer w.s.counter.touch(job.Args.Notification)
		ctx := withQueue(ctx, job.Queue)
		for first := true; ; first = false {
			again, err := w.s.sendBatch(ctx, job.Args, first)
			if err != nil {
				return err
			}
			if !again {
				w.s.counter.ended(job.Args.Notification, job.Args.Batch)
				over = true
				return nil
			}
		}
	}))
	if over { // its place is free now
		w.s.callBack(job.Args.Channel)
	}
	return err
}

// batchKey is what a batch is called in [Sender.atWork].
func batchKey(notification string, batch int) string {
	return fmt.Sprintf("%s/%d", notification, batch)
}

// sendBatch makes one pass over what is due in a batch. again means that there
// may be more to do at once: then the batch is at work already, and a crowd does not
// send it away before it has looked. The error may be [errCrowded].
func (s *Sender) sendBatch(ctx context.Context, args BatchArgs, first bool) (again bool, err error) {
	n, err := FindNotificationByID(s.app, args.Notification)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if first && s.crowded(n, args.Channel) {
		return false, errCrowded
	}
	planned, err := s.findPlanned(args.Notification, args.Batch)
	if err != nil {
		return false, err
	}
	if planned != nil {
		if wait := planned.wait(n, s.now()); wait > 0 {
			return false, jobs.Snooze(wait)
		}
		return s.sendPlanned(ctx, n, planned)
	}
	switch n.Status() {
	case StatusSending, StatusQueued:
	case StatusCancelled:
		// What came back from a provider since nobody cancels any more.
		return s.cancelSome(ctx, n.Id)
	default:
		return false, nil // what is pending is asked for again when it resumes
	}
	rows, err := s.findDeliveries(dbx.HashExp{"notification": args.Notification, "batch": args.Batch,
		"status": []any{string(DeliveryPending), string(DeliverySending)}}, lookSize)
	if err != nil {
		return false, err
	}
	if len(rows) == 0 {
		return false, nil
	}
	now := s.now()
	var stored sync.WaitGroup
	interrupted := false
	for _, row := range rows {
		if row.interrupted(now) {
			interrupted = true
			s.ledger.finish(row, interruptedResult(row), &stored)
		}
	}
	if interrupted {
		s.ledger.await(&stored)
		return true, nil
	}

	// What a worker has is not due: its time is when the answer is overdue.
	due, wait := splitDue(rows, now)
	if expires := n.ExpiresAt(); !expires.IsZero() && !now.Before(expires) {
		elsewhere := false
		for _, row := range rows {
			if row.isElsewhere(now) {
				elsewhere = true
				continue
			}
			s.ledger.finish(row, &result{Status: DeliverySkipped, Reason: ReasonExpired,
				Explanation: "The notification's expiry time passed before this message could go out."}, &stored)
		}
		s.ledger.await(&stored)
		if err := s.markExpired(n.Id); err != nil {
			return false, err
		}
		if elsewhere {
			return false, jobs.Snooze(elsewhereWait(rows, now))
		}
		return len(rows) == lookSize, nil
	}

	if len(due) == 0 {
		if expires := n.ExpiresAt(); !expires.IsZero() {
			wait = min(wait, expires.Sub(now))
		}
		return false, jobs.Snooze(wait)
	}
	pass, err := s.sendRows(ctx, n, due)
	if err != nil {
		return false, err
	}
	return s.afterPass(ctx, args, pass)
}

// crowded says whether enough batches wait for the provider of a batch already.
// One more would only hold a worker that another channel could use: a telephone
// carrier takes a text a second, and must not stop everybody's mail. Many that look
// in the same moment see nobody wait: the gate sends them away (see [handOver.enter]).
func (s *Sender) crowded(n *Notification, channel Channel) bool {
	if channel != ChannelEmail && channel != ChannelSMS {
		return false
	}
	snapshot, err := n.Snapshot()
	return err == nil && s.providers.crowded(providerChannel(channel, snapshot.Kind))
}

// sendPlanned works a batch whose deliveries are no rows yet. A push becomes a
// row with its first result; whatever else there is becomes one before anything
// leaves, or before it waits.
func (s *Sender) sendPlanned(ctx context.Context, n *Notification, planned *plannedBatch) (again bool, err error) {
	rows, err := s.buildRows(n, planned)
	if err != nil {
		return false, err
	}
	expires := n.ExpiresAt()
	st := n.Status()
	if planned.Channel != ChannelPush || st != StatusSending && st != StatusQueued || !expires.IsZero() && !s.now().Before(expires) {
		return true, s.storeRows(planned, rows)
	}
	due := slices.DeleteFunc(slices.Clone(rows), func(row *deliveryRow) bool { return row.Status != string(DeliveryPending) })
	var pass passResult
	if len(due) > 0 {
		if pass, err = s.sendRows(ctx, n, due); err != nil {
			return false, errors.Join(err, s.storeRows(planned, rows))
		}
	}
	if err := s.storeRows(planned, rows); err != nil {
		return false, err
	}
	return s.afterPass(ctx, BatchArgs{n.Id, planned.Batch, planned.Channel}, pass)
}

// afterPass decides what comes after a pass over a batch.
func (s *Sender) afterPass(ctx context.Context, args BatchArgs, pass passResult) (again bool, err error) {
	s.counter.touch(args.Notification)
	switch {
	case pass.stopped != "":
		return false, s.pauseFor(args.Notification, pass.stopped, false)
	case ctx.Err() != nil:
		return false, ctx.Err()
	case pass.paused != "":
		return false, s.waitForProvider(args, pass)
	case pass.down > 0:
		return false, jobs.Snooze(max(pass.down, pass.crowded))
	case pass.crowded > 0:
		return false, errCrowded
	default:
		return true, nil
	}
}

// waitForProvider ends a pass in which a provider was paused. The rest of the
// batch, which goes by other providers, is tried again at its time; when there
// is none, the batch is asked for again once the provider works.
func (s *Sender) waitForProvider(args BatchArgs, pass passResult) error {
	rows, err := s.findDeliveries(dbx.HashExp{"notification": args.Notification, "batch": args.Batch, "status": string(DeliveryPending)}, lookSize)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(rows, func(row *deliveryRow) bool { return pass.waiting[row.ID] })
	if len(others) == 0 {
		return s.pauseFor(args.Notification, pass.paused, true)
	}
	_, wait := splitDue(others, s.now())
	return jobs.Snooze(max(wait, pass.down, time.Second))
}

func (s *Sender) markExpired(id string) error {
	return s.app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, id)
		if err != nil {
			return err
		}
		plan := n.Plan()
		plan.Expired, plan.Done = true, true
		n.SetPlan(plan)
		return txApp.SaveNoValidateWithContext(AsServer(context.Background()), n)
	})
}

// passResult is what one pass over rows found about all of them.
type passResult struct {
	stopped string          // why the notification stops for its owner to look at
	paused  string          // why a provider was paused
	waiting map[string]bool // the deliveries that wait for a paused provider, by id
	down    time.Duration   // a provider cannot be reached: how long to wait
	crowded time.Duration   // enough batches wait for a provider: how long to stay away
}

// join adds what was found about the messages of another route.
func (p *passResult) join(other passResult) {
	p.stopped = orElse(p.stopped, other.stopped)
	p.paused = orElse(p.paused, other.paused)
	p.down = max(p.down, other.down)
	p.crowded = max(p.crowded, other.crowded)
	if p.waiting == nil {
		p.waiting = other.waiting
		return
	}
	maps.Copy(p.waiting, other.waiting)
}

// sendRows hands over rows of one channel of one notification.
func (s *Sender) sendRows(ctx context.Context, n *Notification, rows []*deliveryRow) (passResult, error) {
	snapshot, err := n.Snapshot()
	if err != nil {
		return passResult{}, err
	}
	compiled, err := Compile(snapshot.Content)
	if err != nil {
		// It compiled when it was sent: the fault is ours or the data's, and it
		// is the same for everybody.
		return passResult{stopped: err.Error()}, nil
	}
	if rows[0].forEveryone() {
		return passResult{}, s.deliverToEveryone(n, snapshot, rows[0])
	}
	var places claim
	defer places.release() // what was handed over is stored by then
	items, stored, err := s.prepare(n, snapshot, compiled, rows, &places)
	if err != nil {
		return passResult{}, err
	}
	if Channel(rows[0].Channel) == ChannelInbox {
		err := s.deliverInbox(ctx, items)
		s.ledger.await(stored)
		return passResult{}, err
	}
	return s.handOverAll(ctx, items, stored)
}
