package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// handOverTimeout is how long a provider may take for one message before its
// answer counts as missing.
const handOverTimeout = time.Minute

// captureProvider is what the provider field of a captured delivery says.
const captureProvider = "capture"

// SenderOptions configure a [Sender].
type SenderOptions struct {
	// Providers hands out the adapters.
	Providers *Providers

	// Sealed keeps the content of account mails until they are sent.
	Sealed SealedStore

	// CaptureAll is true outside production: messages are kept instead of sent,
	// but for the addresses in SendOnlyTo. For push these are the e-mail addresses of
	// the people.
	CaptureAll bool
	SendOnlyTo []string

	// ShowAccountMails keeps the content of captured account mails in memory
	// for ten minutes, for a developer to read; only in the local environment.
	ShowAccountMails bool

	// PromotionalHours are those in which promotional SMS and push may reach people;
	// the zero value is all day.
	PromotionalHours HoursOfDay

	// AssumeEmailConsent lets promotional e-mail go to people of whom no consent is
	// recorded. A withdrawal counts all the same.
	AssumeEmailConsent bool

	// SMSOptOut are the words that a promotional SMS ends with when its author wrote
	// none; empty means [DefaultSMSOptOut].
	SMSOptOut string

	// PublicURL returns the address at which people reach this server, empty when it
	// has none: without it promotional e-mail fails. Nil means none.
	PublicURL func() string

	// UnsubscribeMailto is an address to which a mail program may write in order to
	// unsubscribe somebody; empty means none.
	UnsubscribeMailto string

	// NoUnsubscribeFooter leaves the link out of the texts of promotional e-mail whose
	// author did not put it there. The headers have it in any case.
	NoUnsubscribeFooter bool

	// OpenToken makes the token of a delivery; nil sends none. See [OpenToken].
	OpenToken func(deliveryID string) string

	// SentToEveryone is called after a message to everyone's inbox was stored; nil
	// does nothing.
	SentToEveryone func()

	Retry RetryPolicy
	Log   *slog.Logger
	Now   func() time.Time // nil means time.Now
}

// Sender turns planned deliveries into messages, hands them to providers and
// stores what became of them. One per app; safe for concurrent use.
type Sender struct {
	app       core.App
	providers *Providers
	sealed    SealedStore
	opts      SenderOptions
	sendOnly  map[string]bool
	log       *slog.Logger
	now       func() time.Time

	ledger  *ledger
	counter *counter
	shown   *shownMails
	atWork  runs   // batches and account mails
	claims  claims // of frequency caps
	turns   turns
	away    away
	reading sync.Mutex // see readPushTargets
}

// storeKeySender is where an app's sender is found. app.Store() is shared by an app
// and its transactions.
const storeKeySender = "groundwork.notifications.sender"

// SenderOf returns the sender of an app; nil when it has none.
func SenderOf(app core.App) *Sender {
	s, _ := app.Store().Get(storeKeySender).(*Sender)
	return s
}

// NewSender returns a sender that can enqueue. [Sender.Start] lets it send.
func NewSender(app core.App, opts SenderOptions) *Sender {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.OpenToken == nil {
		opts.OpenToken = func(string) string { return "" }
	}
	opts.Retry = opts.Retry.WithDefaults()
	s := &Sender{app: app, providers: opts.Providers, sealed: opts.Sealed, opts: opts, log: opts.Log, now: opts.Now,
		sendOnly: map[string]bool{}, shown: newShownMails(opts.Now)}
	for _, address := range opts.SendOnlyTo {
		s.sendOnly[strings.ToLower(strings.TrimSpace(address))] = true
	}
	app.Store().Set(storeKeySender, s)
	s.ledger = newLedger(app, opts.Log, opts.Now)
	s.ledger.onStored = s.tellDesk
	s.counter = newCounter(app, opts.Log, opts.Now, s.held)
	return s
}

// Start makes the sender ready for its jobs and recounts what an earlier
// process left unfinished (the jobs themselves are taken up again by package
// jobs). Call it once, before the jobs start, and [Sender.Close] after the last
// one has ended and before the database closes.
func (s *Sender) Start() error {
	go s.ledger.run()
	go s.counter.run()
	return s.recoverCounts()
}

// Close stores what is in hand and stops.
func (s *Sender) Close() {
	s.ledger.close()
	s.counter.close()
}

// AddWorkers registers the kinds of jobs that the sender works.
func (s *Sender) AddWorkers(w *jobs.Workers) {
	jobs.AddWorker(w, planWorker{s})
	jobs.AddWorker(w, batchWorker{s})
	jobs.AddWorker(w, fallbackWorker{s})
	jobs.AddWorker(w, cancelWorker{s})
	jobs.AddWorker(w, mailWorker{s})
	jobs.AddWorker(w, purgeWorker{s})
	jobs.AddWorker(w, triggerWorker{s})
	jobs.AddWorker(w, testWorker{s})
	jobs.AddWorker(w, datesWorker{s})
	jobs.AddWorker(w, resultWorker{s})
}

func (s *Sender) recoverCounts() error {
	table, err := tableName(s.app, CollectionNotifications)
	if err != nil {
		return err
	}
	var ids []string
	err = s.app.ConcurrentDB().Select("id").From(table).
		Where(dbx.HashExp{"status": []any{string(StatusQueued), string(StatusSending)}}).Column(&ids)
	if err != nil {
		return fmt.Errorf("find unfinished notifications: %w", err)
	}
	for _, id := range ids {
		s.counter.touch(id)
	}
	return nil
}

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

// Channel is the channel whose messages a provider of this kind sends.
func (c ProviderChannel) Channel() Channel {
	switch c {
	case ProviderEmailTransactional, ProviderEmailPromotional:
		return ChannelEmail
	case ProviderSMSTransactional, ProviderSMSPromotional:
		return ChannelSMS
	default:
		return ChannelPush
	}
}

// Kind is the kind of message that a provider of this kind is bound to; empty
// when it sends both.
func (c ProviderChannel) Kind() Kind {
	switch c {
	case ProviderEmailTransactional, ProviderSMSTransactional:
		return KindTransactional
	case ProviderEmailPromotional, ProviderSMSPromotional:
		return KindPromotional
	default:
		return ""
	}
}

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

// dueSince is since when a message is tried: what it waited for quiet hours does not
// count.
func (r *deliveryRow) dueSince() time.Time {
	created, held := parseDBTime(r.Created), parseDBTime(r.HeldUntil)
	if held.After(created) {
		return held
	}
	return created
}

// mayRepeat says whether a message may go out twice after a crash: a push is
// recognised by its collapse id, an e-mail or SMS would arrive twice.
func (r *deliveryRow) mayRepeat() bool { return Channel(r.Channel) == ChannelPush }

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
		"status": []any{string(DeliveryPending), string(DeliverySending)}}, 2*pageSize)
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
		if err := s.markExpired(n.Id); err != nil || !elsewhere {
			return false, err
		}
		return false, jobs.Snooze(elsewhereWait(rows, now))
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
	rows, err := s.findDeliveries(dbx.HashExp{"notification": args.Notification, "batch": args.Batch, "status": string(DeliveryPending)}, 2*pageSize)
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

// isElsewhere says that a worker may have the message and its answer may come.
func (r *deliveryRow) isElsewhere(now time.Time) bool {
	return r.Status == string(DeliverySending) && parseDBTime(r.NextAttemptAt).After(now)
}

// elsewhereWait is how long the first answer from a worker may still take.
func elsewhereWait(rows []*deliveryRow, now time.Time) time.Duration {
	_, wait := splitDue(slices.DeleteFunc(slices.Clone(rows), func(row *deliveryRow) bool { return !row.isElsewhere(now) }), now)
	return wait
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

// item is one message ready to be handed over.
type item struct {
	row      *deliveryRow
	msg      *Message
	route    Route
	snapshot *Snapshot // nil for an account mail
	read     time.Time // when its person, target and opt-outs were read
	finding  finding   // of a second look
	hold     *hold     // nil: may go at any time
	expires  time.Time // zero: never
	email    string    // the person's; always known only where [SenderOptions.SendOnlyTo] counts
}

// prepare renders the messages of rows. What can not be sent gets its result at
// once; stored collects what is on its way to the database. places takes what the
// frequency cap has left.
func (s *Sender) prepare(n *Notification, snapshot Snapshot, compiled *Compiled, rows []*deliveryRow, places *claim) ([]item, *sync.WaitGroup, error) {
	read := time.Now()
	people, err := s.peopleOf(rows, compiled)
	if err != nil {
		return nil, nil, err
	}
	channel := Channel(rows[0].Channel)
	targets, err := s.targets(channel, rows, people)
	if err != nil {
		return nil, nil, err
	}
	blocked, err := s.findBlocked(channel, snapshot, rows, targets)
	if err != nil {
		return nil, nil, err
	}
	holds, err := s.findHolds(channel, snapshot, slices.Collect(maps.Keys(people)))
	if err != nil {
		return nil, nil, err
	}
	openers, err := s.findOpeners(rows)
	if err != nil {
		return nil, nil, err
	}

	badges, err := s.badges(channel, n, snapshot, rows)
	if err != nil {
		return nil, nil, err
	}

	stored := &sync.WaitGroup{}
	items := make([]item, 0, len(rows))
	finish := func(row *deliveryRow, status DeliveryStatus, reason, explanation string) {
		s.ledger.finish(row, &result{Status: status, Reason: reason, Explanation: explanation}, stored)
	}
	if snapshot.DataFrom != "" {
		rows = slices.SortedStableFunc(slices.Values(rows), func(a, b *deliveryRow) int { return strings.Compare(a.User, b.User) })
	}
	data, err := newDataPages(s.app, snapshot, usersOf(rows))
	if sentence, gone := dataGone(err); gone {
		for _, row := range rows {
			finish(row, DeliveryFailed, ReasonTemplateFailed, sentence)
		}
		return nil, stored, nil
	}
	if err != nil {
		return nil, nil, err
	}
	base := baseVars(n, snapshot)
	vars := maps.Clone(base)
	expires := n.ExpiresAt()
	push := snapshot.Options.push(n.Id, s.now(), expires)
	maxAge := s.opts.Retry.MaxAge
	needsLink, public := needsUnsubscribeLink(channel, snapshot.Kind), s.publicURL()
	going := make([]*deliveryRow, 0, len(rows))
	for _, row := range rows {
		user := people[row.User]
		to := targets[row.ID]
		switch block, isBlocked := blocked[row.ID]; {
		case user == nil:
			finish(row, DeliverySkipped, ReasonRecipientGone, "This person was deleted before the message went out.")
			continue
		case channel != ChannelInbox && to.address == "":
			finish(row, DeliverySkipped, ReasonNoAddress, "This person has no address on this channel any more.")
			continue
		case isBlocked:
			finish(row, DeliverySkipped, block.reason, block.sentence)
			continue
		case needsLink && public == "":
			finish(row, DeliveryFailed, ReasonNoPublicAddress, noPublicAddress)
			continue
		case s.now().Sub(row.dueSince()) > maxAge && row.Attempts > 0:
			finish(row, DeliveryFailed, ReasonRetriesExhausted, "It could not be handed over for "+plainDuration(maxAge)+", so it was given up.")
			continue
		}
		if openers[row.User] {
			s.ledger.finish(row, openedResult(), stored)
			continue
		}
		if r := holds[row.User].result(s.now(), expires); r != nil {
			s.ledger.finish(row, r, stored)
			continue
		}
		going = append(going, row)
	}
	if err := places.take(s, n, snapshot, going); err != nil {
		s.ledger.await(stored)
		return nil, nil, err
	}
	for _, row := range going {
		if over := places.over[row.User]; over != nil {
			s.ledger.finish(row, over, stored)
			continue
		}
		user, to := people[row.User], targets[row.ID]
		if compiled.loops() {
			vars = maps.Clone(base) // a loop that takes too long may still be reading the last ones
		}
		vars["user"] = user.Vars
		if data != nil {
			list, err := data.of(row.User)
			if sentence, gone := dataGone(err); gone {
				finish(row, DeliveryFailed, ReasonTemplateFailed, sentence)
				continue
			}
			if err != nil {
				s.ledger.await(stored)
				return nil, nil, err
			}
			if len(list) == 0 {
				finish(row, DeliverySkipped, ReasonNothingToSay, fmt.Sprintf(nothingToSay, data.source.Name))
				continue
			}
			vars["rows"] = list
		}
		link := ""
		if needsLink {
			link, err = s.unsubscribeLink(public, Unsubscription{Address: to.address, User: user.ID, Kind: snapshot.Kind, Category: snapshot.Category})
			if err != nil {
				s.ledger.await(stored)
				return nil, nil, err
			}
			vars[unsubscribeVar] = link
		}
		token := ""
		if channel != ChannelInbox {
			token = s.opts.OpenToken(row.ID)
			vars["openToken"] = token
		}
		rendered, err := compiled.In(localeOf(user, to)).Render(vars, channel)
		if err != nil {
			finish(row, DeliveryFailed, ReasonTemplateFailed, "The text could not be made for this person: "+err.Error())
			continue
		}
		it := item{row: row, msg: newMessage(n, snapshot, badges.over(push, user.ID), row, user, to, rendered), route: to.route, email: user.Email, snapshot: &snapshot, read: read, hold: holds[row.User], expires: expires}
		if it.msg.OpenToken = token; snapshot.Options.Silent {
			it.msg.OpenToken = "" // nothing of it can be opened
		}
		switch {
		case needsLink:
			s.addUnsubscribe(it.msg.Email, link)
		case channel == ChannelSMS:
			it.msg.Body = s.SMSText(it.msg.Kind, it.msg.Body)
		}
		if !row.read.IsZero() {
			it.read = row.read
		}
		items = append(items, it)
	}
	return items, stored, nil
}

// peopleOf returns the people of rows, by id. Those that were read together with
// the rows are not read again.
func (s *Sender) peopleOf(rows []*deliveryRow, texts *Compiled) (map[string]*recipient, error) {
	people := make(map[string]*recipient, len(rows))
	missing := make([]string, 0, len(rows))
	for _, row := range rows {
		if _, seen := people[row.User]; seen {
			continue
		}
		people[row.User] = row.person
		if row.person == nil {
			missing = append(missing, row.User)
		}
	}
	if len(missing) == 0 {
		return people, nil
	}
	found, err := findRecipients(s.app, missing, texts)
	if err != nil {
		return nil, err
	}
	maps.Copy(people, found)
	return people, nil
}

func baseVars(n *Notification, snapshot Snapshot) map[string]any {
	vars := map[string]any{"app": map[string]any{"name": snapshot.AppName, "url": snapshot.AppURL}, "openToken": ""}
	if snapshot.Kind == KindPromotional {
		vars[unsubscribeVar] = "" // each e-mail has its own; other channels have none
	}
	for k, v := range snapshot.Variables {
		if _, taken := vars[k]; !taken {
			vars[k] = v
		}
	}
	return vars
}

func newMessage(n *Notification, snapshot Snapshot, push *Push, row *deliveryRow, user *recipient, to target, r *Rendered) *Message {
	m := &Message{
		DeliveryID: row.ID, NotificationID: n.Id, RequestID: row.RequestID,
		Channel: Channel(row.Channel), Kind: snapshot.Kind,
		Target: Target{UserID: user.ID, Address: to.address, Name: user.Name},
		Title:  r.Title, Body: r.Body, Image: r.Image, Link: r.Link, Data: r.Data,
	}
	switch m.Channel {
	case ChannelEmail:
		m.Email = &Email{Subject: r.EmailSubject, Text: r.EmailText, HTML: r.EmailHTML}
	case ChannelSMS:
		m.Body = r.textOfSMS()
	case ChannelPush:
		m.Target.Device = &Device{ID: to.device.ID, Platform: to.device.Platform, App: to.device.App,
			Environment: to.device.Environment}
		m.Push = push
	}
	return m
}

// target is where one delivery goes now.
type target struct {
	address string
	device  *deviceRow // for push only
	route   Route
}

// targets returns the current target of each row: the one a person has now, not
// the one they had when the notification was planned.
func (s *Sender) targets(channel Channel, rows []*deliveryRow, people map[string]*recipient) (map[string]target, error) {
	out := make(map[string]target, len(rows))
	switch channel {
	case ChannelEmail, ChannelSMS:
		for _, row := range rows {
			p := people[row.User]
			if p == nil {
				continue
			}
			to := target{address: p.Email, route: Route{Channel: providerChannel(channel, Kind(row.Kind))}}
			if channel == ChannelSMS {
				to.address = p.Phone
			}
			out[row.ID] = to
		}
	case ChannelPush:
		if err := s.fillDevices(rows); err != nil {
			return nil, err
		}
		for _, row := range rows {
			// A device that moved to somebody else must not get this message.
			if d := row.device; d != nil && d.User == row.User {
				out[row.ID] = target{d.Token, d, d.route()}
			}
		}
	}
	return out, nil
}

func usersOf(rows []*deliveryRow) []string {
	users := make([]string, len(rows))
	for i, row := range rows {
		users[i] = row.User
	}
	return users
}

// localeOf is the language of a message: the person's, or when they have none
// that of the device.
func localeOf(user *recipient, to target) string {
	if user.Locale == "" && to.device != nil {
		return to.device.Locale
	}
	return user.Locale
}

// fillDevices reads the devices of the rows that were not made a moment ago.
func (s *Sender) fillDevices(rows []*deliveryRow) error {
	var ids []string
	for _, row := range rows {
		if row.device == nil {
			ids = append(ids, row.Device)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	devices, err := findDevices(s.app, "id", ids)
	if err != nil {
		return err
	}
	byID := make(map[string]*deviceRow, len(devices))
	for i := range devices {
		byID[devices[i].ID] = &devices[i]
	}
	for _, row := range rows {
		if row.device == nil {
			row.device = byID[row.Device]
		}
	}
	return nil
}

type block struct{ reason, sentence string }

// findBlocked returns the rows that must not be sent: suppressed addresses, people who
// switched the category off, and advertising without consent.
func (s *Sender) findBlocked(channel Channel, snapshot Snapshot, rows []*deliveryRow, targets map[string]target) (map[string]block, error) {
	blocked := map[string]block{}
	if channel == ChannelEmail || channel == ChannelSMS {
		table, err := tableName(s.app, CollectionSuppressions)
		if err != nil {
			return nil, err
		}
		formsOf := make(map[string][]string, len(rows))
		var wanted []string
		for _, row := range rows {
			a := targets[row.ID].address
			if a == "" {
				continue
			}
			lower := strings.ToLower(a)
			formsOf[row.ID] = suppressedForms(s.app, channel, lower)
			if wanted = append(wanted, formsOf[row.ID]...); a != lower {
				wanted = append(wanted, a)
			}
		}
		in := "LOWER([[address]]) IN (SELECT value FROM json_each({:addresses}))"
		if len(rows) == 1 {
			// The list is in lower case anyway. Only so is its index of use: one message
			// cannot pay for reading all of it.
			in = "[[address]] IN (SELECT value FROM json_each({:addresses}))"
		}
		var found []struct {
			Address string `db:"address"`
			Reason  string `db:"reason"`
		}
		err = s.app.ConcurrentDB().NewQuery("SELECT LOWER([[address]]) AS [[address]], [[reason]] FROM {{" + table +
			"}} WHERE [[channel]] = {:channel} AND ([[kind]] = '' OR [[kind]] = {:kind}) AND " + in).
			Bind(dbx.Params{"channel": string(channel), "kind": string(snapshot.Kind), "addresses": mustJSON(wanted)}).All(&found)
		if err != nil {
			return nil, fmt.Errorf("find suppressions: %w", err)
		}
		reasons := make(map[string]string, len(found))
		for _, f := range found {
			reasons[f.Address] = f.Reason
		}
		for _, row := range rows {
			for _, form := range formsOf[row.ID] {
				if reason, ok := reasons[form]; ok {
					blocked[row.ID] = block{ReasonSuppressed, "This address is on the suppression list (" + orElse(reason, "no reason given") + ")."}
				}
			}
		}
	}
	// What advertises can always be switched off.
	if snapshot.optional() {
		table, err := tableName(s.app, CollectionPreferences)
		if err != nil {
			return nil, err
		}
		users := make([]any, len(rows))
		for i, row := range rows {
			users[i] = row.User
		}
		// A row without a category or a channel is for all of them; the one that says
		// more about this message wins, a category before a channel.
		var found []struct {
			User    string `db:"user"`
			Enabled bool   `db:"enabled"`
		}
		err = s.app.ConcurrentDB().NewQuery("SELECT [[user]], [[enabled]] FROM {{" + table +
			"}} WHERE [[user]] IN (SELECT value FROM json_each({:users})) AND [[category]] IN ('', {:category}) AND [[channel]] IN ('', {:channel})" +
			" ORDER BY [[category]] <> '', [[channel]] <> ''").
			Bind(dbx.Params{"category": snapshot.Category, "channel": string(channel), "users": mustJSON(users)}).All(&found)
		if err != nil {
			return nil, fmt.Errorf("find preferences: %w", err)
		}
		off := make(map[string]bool, len(found))
		for _, f := range found {
			off[f.User] = !f.Enabled
		}
		for _, row := range rows {
			if off[row.User] {
				blocked[row.ID] = block{ReasonOptedOut, "This person switched this category off on this channel."}
			}
		}
	}
	if snapshot.Kind == KindPromotional && channel != ChannelInbox {
		if err := s.addWithoutConsent(blocked, channel, rows, targets); err != nil {
			return nil, err
		}
	}
	return blocked, nil
}

// captures says whether a message stays here. Nobody can write down the token of a
// device, so that for push the person's e-mail address counts.
func (s *Sender) captures(m *Message, email string) bool {
	address := m.Target.Address
	if m.Channel == ChannelPush {
		address = email
	}
	return s.opts.CaptureAll && (!s.sendOnly[strings.ToLower(address)] || m.Channel == ChannelSMS && m.Kind == KindPromotional)
}

// neededOfPeople are the fields of people that sending a push needs besides those
// that its texts name.
func (s *Sender) neededOfPeople() []string {
	if s.opts.CaptureAll && len(s.sendOnly) > 0 {
		return []string{core.FieldNameEmail}
	}
	return nil
}

// providerChannel is the one kind of provider that may send a message.
func providerChannel(channel Channel, kind Kind) ProviderChannel {
	switch {
	case channel == ChannelEmail && kind == KindPromotional:
		return ProviderEmailPromotional
	case channel == ChannelEmail:
		return ProviderEmailTransactional
	case channel == ChannelSMS && kind == KindPromotional:
		return ProviderSMSPromotional
	case channel == ChannelSMS:
		return ProviderSMSTransactional
	default:
		return ""
	}
}

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

// resultOf translates an outcome into what is stored.
func (s *Sender) resultOf(row *deliveryRow, o Outcome, providerID string) *result {
	now := s.now()
	r := &result{Provider: providerID, ProviderMessageID: o.ProviderMessageID, Explanation: o.Explanation, Tried: row.mayRepeat()}
	switch o.Kind {
	case Accepted:
		r.Status, r.Explanation = DeliveryAccepted, ""
	case Retry:
		r.Status = DeliveryPending
		r.NextAttemptAt = now.Add(max(o.RetryAfter, s.opts.Retry.Delay(row.Attempts+1)))
		if o.notBegun {
			r.NextAttemptAt, r.Tried = now, false
		}
		if r.NextAttemptAt.Sub(row.dueSince()) > s.opts.Retry.MaxAge {
			r.Status, r.Reason, r.NextAttemptAt = DeliveryFailed, ReasonRetriesExhausted, time.Time{}
			r.Explanation = "Given up after " + plainDuration(s.opts.Retry.MaxAge) + ": " + o.Explanation
		}
	case TargetGone:
		r.Status, r.Reason = DeliveryFailed, ReasonTargetGone
	case RecipientBlocked:
		r.Status, r.Reason = DeliveryFailed, ReasonRecipientBlocked
	case PayloadBad:
		r.Status, r.Reason = DeliveryFailed, ReasonPayloadRefused
	case ConfigBad:
		r.Status = DeliveryPending
	case Ambiguous:
		if row.mayRepeat() && row.Attempts < 3 {
			r.Status, r.NextAttemptAt = DeliveryPending, now.Add(s.opts.Retry.Delay(row.Attempts+1))
			break
		}
		r.Status, r.Reason = DeliveryUnknown, ReasonNoAnswer
	}
	return r
}

func noProviderResult(m *Message, route Route) *result {
	sentence := "Nothing is set up to send on this channel: add a provider in notification_providers."
	switch route.Channel {
	case ProviderEmailTransactional, ProviderEmailPromotional:
		sentence = "No mail server is set up: set SMTP_HOST, use Settings > Mail settings, or add a provider in notification_providers."
	case ProviderSMSTransactional, ProviderSMSPromotional:
		sentence = fmt.Sprintf("No sender for %s SMS is set up: add a provider of the channel %s in notification_providers, or set TWILIO_%s_SENDER. The other SMS sender never steps in.",
			m.Kind, route.Channel, strings.ToUpper(string(m.Kind)))
	case ProviderAPNs, ProviderFCM, ProviderWebPush:
		if route.Channel == ProviderWebPush {
			sentence = "Web Push is switched off: switch its provider on in notification_providers."
			break
		}
		sentence = fmt.Sprintf("Nothing is set up to push to this device: add a provider of the channel %s in notification_providers.", route.Channel)
		if route.App != "" {
			sentence = fmt.Sprintf("Nothing is set up to push to the app %s: add a provider of the channel %s for it in notification_providers.", route.App, route.Channel)
		}
	}
	return &result{Status: DeliveryFailed, Reason: ReasonNoProvider, Explanation: sentence}
}

// captured is the result of keeping a message here.
func (s *Sender) captured(m *Message, keepContent bool) *result {
	r := &result{Status: DeliveryCaptured, Reason: ReasonCaptured, Provider: captureProvider, Tried: true,
		Explanation: "Kept here instead of sent, because APP_ENV is not production."}
	if m.Channel == ChannelPush {
		r.Explanation += " To let the devices of this person get theirs, put the person's e-mail address into SEND_ONLY_TO."
	}
	if keepContent {
		rendered := mustJSON(renderedView(m))
		r.Rendered = &rendered
	}
	return r
}

// renderedView is the rendered field of a captured delivery.
func renderedView(m *Message) map[string]any {
	v := map[string]any{"title": m.Title, "body": m.Body}
	if m.Email != nil {
		v = map[string]any{"subject": m.Email.Subject, "text": m.Email.Text, "html": m.Email.HTML}
		if m.Email.Unsubscribe != "" {
			v[unsubscribeVar] = m.Email.Unsubscribe
		}
	}
	if m.Link != "" {
		v["link"] = m.Link
	}
	if m.Image != "" {
		v["image"] = m.Image
	}
	if len(m.Data) > 0 {
		v["data"] = m.Data
	}
	return v
}

// inboxChunk is how many inbox messages share one transaction.
const inboxChunk = 100

// deliverInbox writes inbox messages. The message and its delivery row are
// stored in one transaction, so that a crash can not write one twice. Each is
// saved as a record: realtime and the owner's own hooks see it.
func (s *Sender) deliverInbox(ctx context.Context, items []item) error {
	for start := 0; start < len(items); start += inboxChunk {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		chunk := items[start:min(start+inboxChunk, len(items))]
		err := s.app.RunInTransaction(func(txApp core.App) error {
			inbox, err := txApp.FindCachedCollectionByNameOrId(CollectionInbox)
			if err != nil {
				return err
			}
			deliveries, err := tableName(txApp, CollectionDeliveries)
			if err != nil {
				return err
			}
			now := dbTime(s.now())
			done := txApp.DB().NewQuery("UPDATE {{" + deliveries + "}} SET [[status]] = 'delivered', [[provider]] = 'inbox', [[attempts]] = [[attempts]] + 1," +
				" [[acceptedAt]] = {:now}, [[deliveredAt]] = {:now}, [[updated]] = {:now} WHERE [[id]] = {:id} AND [[status]] = 'pending'").Prepare()
			defer done.Close()
			for _, it := range chunk {
				res, err := done.Bind(dbx.Params{"id": it.row.ID, "now": now}).Execute()
				if err != nil {
					return fmt.Errorf("store delivery %s: %w", it.row.ID, err)
				}
				if changed, err := res.RowsAffected(); err != nil || changed == 0 {
					continue // cancelled meanwhile
				}
				record := newInboxRecord(inbox, it.msg.Target.UserID, it.msg.NotificationID, it.msg.Title, it.msg.Body, it.msg.Image, it.msg.Link, it.msg.Data)
				if err := txApp.SaveNoValidateWithContext(AsServer(context.Background()), record); err != nil {
					return fmt.Errorf("save inbox message for delivery %s: %w", it.row.ID, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

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

// errBusy says that somebody works on the same thing, and will look at it again.
var errBusy = errors.New("somebody is at it already")

// unlessBusy is the result of a job whose work somebody else does.
func unlessBusy(err error) error {
	if errors.Is(err, errBusy) {
		return nil
	}
	return err
}

// runs lets one goroutine at a time work on a key and keeps nobody waiting: a
// worker that waited for another would be missing elsewhere.
type runs struct {
	mu    sync.Mutex
	asked map[string]bool // keys at work; true when somebody asked meanwhile
}

// do calls work. When somebody is at key already, it returns [errBusy] at once and
// that one works once more when it is through, whatever came of it; when its time is
// up by then, its job is not done.
func (r *runs) do(ctx context.Context, key string, work func() error) error {
	if !r.begin(key) {
		return errBusy
	}
	ended := false
	defer func() {
		if !ended { // work panicked
			r.end(key, true)
		}
	}()
	for {
		err := work()
		var owed bool
		if ended, owed = r.end(key, ctx.Err() != nil); !ended {
			continue
		}
		if owed && err == nil {
			return ctx.Err()
		}
		return err
	}
}

func (r *runs) begin(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, busy := r.asked[key]; busy {
		r.asked[key] = true
		return false
	}
	if r.asked == nil {
		r.asked = map[string]bool{}
	}
	r.asked[key] = false
	return true
}

// end gives key up, unless somebody asked for it since it was begun; giveUp does
// so anyhow, and owed says that somebody had asked.
func (r *runs) end(key string, giveUp bool) (ended, owed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	owed = r.asked[key]
	if owed && !giveUp {
		r.asked[key] = false
		return false, false
	}
	delete(r.asked, key)
	return true, owed
}

func parseDBTime(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05.000Z", s)
	if err != nil {
		return time.Time{} // empty: never
	}
	return t
}

func plainDuration(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	default:
		return d.String()
	}
}
