package notifications

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// handOverTimeout is how long a provider may take for one message before its
// answer counts as missing.
const handOverTimeout = time.Minute

// handOverAll captures or hands over items, those of each route on their own,
// and waits until all results are stored.
func (s *Sender) handOverAll(ctx context.Context, items []item, stored *sync.WaitGroup) (passResult, error) {
	defer s.ledger.await(stored)
	refused, err := s.refuseSMS(items)
	if err != nil {
		return passResult{}, err
	}
	byRoute := map[Route][]item{}
	for _, it := range items {
		switch {
		case refused != nil:
			s.ledger.finish(it.row, refused, stored)
		case s.captures(it.msg, it.email):
			s.ledger.finish(it.row, s.captured(it.msg, true), stored)
		default:
			byRoute[it.route] = append(byRoute[it.route], it)
		}
	}
	var (
		pass passResult
		mu   sync.Mutex
		all  sync.WaitGroup
	)
	for route, items := range byRoute {
		all.Go(func() {
			found := s.handOverRoute(ctx, route, items)
			mu.Lock()
			defer mu.Unlock()
			pass.join(found)
		})
	}
	all.Wait()
	return pass, nil
}

// handOverRoute hands over the items of one route and waits until their results
// are stored.
func (s *Sender) handOverRoute(ctx context.Context, route Route, items []item) passResult {
	stored := &sync.WaitGroup{}
	defer s.ledger.await(stored)
	active, err := s.providers.activeAnywhere(s.app, route, queueOf(ctx))
	var paused *PausedError
	var nobody *nobodyError
	switch {
	case errors.As(err, &paused):
		return passResult{paused: paused.Reason, waiting: ids(items)}
	case errors.As(err, &nobody):
		s.markProvider(s.providers.MarkFailing, nobody.providerID, nobody.sentence)
		return passResult{down: s.opts.Retry.Delay(1)}
	case errors.Is(err, errShuttingDown):
		return passResult{down: s.opts.Retry.Delay(1)}
	case errors.Is(err, ErrNoProvider):
		for _, it := range items {
			s.ledger.finish(it.row, noProviderResult(it.msg, route), stored)
		}
		return passResult{}
	case err != nil:
		s.log.Error("provider cannot be found", "error", err)
		return passResult{down: s.opts.Retry.Delay(1)}
	}

	h := &handOver{s: s, active: active, notification: items[0].row.Notification, proven: active.Gate.everAccepted(), stored: stored}
	h.all(ctx, items)
	pass := h.pass
	if h.accepted > 0 {
		s.log.Info("deliveries accepted", "notification", h.notification, "batch", items[0].row.Batch, "channel", items[0].row.Channel,
			"provider", active.ID, "accepted", h.accepted, "requestId", items[0].row.RequestID)
	}
	if sentence := h.judgeSuspects(); sentence != "" && pass.paused == "" {
		pass.paused = sentence
	}
	switch {
	case pass.paused != "":
		pass.waiting = ids(items)
		s.ledger.await(stored) // the rows are pending again before anybody can resume the provider
		if err := s.providers.Pause(s.app, active.ID, pass.paused); err != nil {
			// Nobody will resume what is not paused: it is found out once more.
			s.log.Error("provider cannot be paused, trying again", "provider", active.ID, "error", err)
			pass = passResult{down: s.opts.Retry.Delay(1)}
		}
	case pass.down > 0:
		s.markProvider(s.providers.MarkFailing, active.ID, orElse(h.downSaid, "The server cannot be reached at the moment.")+" Messages wait and are tried again by themselves.")
	case h.accepted > 0:
		s.markProvider(func(app core.App, id, _ string) error { return s.providers.MarkOK(app, id) }, active.ID, "")
	}
	return pass
}

func ids(items []item) map[string]bool {
	out := make(map[string]bool, len(items))
	for _, it := range items {
		out[it.row.ID] = true
	}
	return out
}

func (s *Sender) markProvider(mark func(app core.App, id, sentence string) error, id, sentence string) {
	if err := mark(s.app, id, sentence); err != nil {
		s.log.Error("provider state cannot be stored", "provider", id, "error", err)
	}
}

// handOverOne gives one message to the provider and returns its answer and what
// is to be stored of it; nil when nothing is.
//
// sendCtx bounds the provider's time; ctx ends with the job. The zero Outcome
// means that nothing was handed over.
func (s *Sender) handOverOne(ctx, sendCtx context.Context, active *ActiveProvider, it item) (Outcome, *result) {
	held := it.hold
	if !it.row.mayRepeat() && it.isStale() {
		found, err := s.lookAgain(it)
		if err != nil {
			s.log.Error("it cannot be found out whether a person still wants a message", "delivery", it.row.ID, "error", err)
			return Outcome{Kind: Retry, ProviderDown: true, Explanation: databaseSilent}, nil
		}
		if found.stops() {
			return Outcome{}, found.skip
		}
		held = found.hold
	}
	if r := held.result(s.now(), it.expires); r != nil {
		return Outcome{}, r // the night began while it waited
	}
	if active.far {
		it.msg.try = try{number: it.row.Attempts + 1, deadline: it.deadline(s.now(), held), queue: queueOf(ctx)}
	}
	if !it.row.mayRepeat() {
		ok, err := s.ledger.begin(ctx, it.row, it.msg.try.answerBy())
		if err != nil {
			s.log.Error("delivery cannot be begun", "delivery", it.row.ID, "error", err)
			return Outcome{Kind: Retry, ProviderDown: true}, nil
		}
		if !ok {
			return Outcome{Kind: Retry}, nil // paused, cancelled or served meanwhile
		}
	}
	sentAt := s.now()
	outcome := safeSend(sendCtx, s.log, active.Adapter, it.msg)
	if outcome.elsewhere {
		return Outcome{}, nil
	}
	r := s.resultOf(it.row, outcome, active.ID)
	if outcome.Kind == RecipientBlocked && outcome.OptedOut && it.msg.Channel == ChannelSMS {
		if err := s.app.RunInTransaction(func(txApp core.App) error {
			return suppress(txApp, it.msg.Target.Address, it.msg.Kind, SuppressStop)
		}); err != nil {
			s.log.Error("an opt-out cannot be stored; the provider refuses the next message again", "delivery", it.row.ID, "error", err)
		}
	}
	if outcome.Kind == TargetGone && it.msg.Target.Device != nil {
		r.Retire = retirement(it.msg, outcome, sentAt)
	}
	if outcome.Kind != Accepted || it.row.Notification == "" {
		// What was taken is told once a pass: a broadcast has a row for each anyway.
		s.log.Info("delivery", "delivery", it.row.ID, "notification", it.row.Notification, "channel", it.row.Channel,
			"provider", active.ID, "outcome", outcome.Kind.String(), "code", outcome.Code, "status", string(r.Status), "requestId", it.row.RequestID)
	}
	return outcome, r
}

// safeSend turns a panic of an adapter into an outcome: nobody knows how far
// it came.
func safeSend(ctx context.Context, log *slog.Logger, a Adapter, m *Message) (outcome Outcome) {
	defer func() {
		if r := recover(); r != nil {
			log.Error("provider panicked", "delivery", m.DeliveryID, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			outcome = Outcome{Kind: Ambiguous, Explanation: "The sending code failed half-way, so it is not known whether this message was sent."}
		}
	}()
	outcome = handTo(ctx, a, m)
	if outcome.elsewhere {
		return outcome
	}
	if outcome.Kind < Accepted || outcome.Kind > Ambiguous {
		return Outcome{Kind: Ambiguous, Explanation: "The provider's answer could not be understood, so it is not known whether this message was sent."}
	}
	return outcome
}
