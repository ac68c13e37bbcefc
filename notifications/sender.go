package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
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
	// but for the addresses in SendOnlyTo.
	CaptureAll bool
	SendOnlyTo []string

	// ShowAccountMails keeps the content of captured account mails in memory
	// for ten minutes, for a developer to read; only in the local environment.
	ShowAccountMails bool

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
	batches keyedLocks
}

// NewSender returns a sender that can enqueue. [Sender.Start] lets it send.
func NewSender(app core.App, opts SenderOptions) *Sender {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.Retry = opts.Retry.WithDefaults()
	s := &Sender{app: app, providers: opts.Providers, sealed: opts.Sealed, opts: opts, log: opts.Log, now: opts.Now,
		sendOnly: map[string]bool{}, shown: newShownMails(opts.Now)}
	for _, address := range opts.SendOnlyTo {
		s.sendOnly[strings.ToLower(strings.TrimSpace(address))] = true
	}
	s.ledger = newLedger(app, opts.Log, opts.Now)
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
	jobs.AddWorker(w, cancelWorker{s})
	jobs.AddWorker(w, mailWorker{s})
	jobs.AddWorker(w, purgeWorker{s})
	jobs.AddWorker(w, triggerWorker{s})
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
	query := app.DB().Select("notification").Distinct(true).From(deliveries).
		Where(dbx.HashExp{"channel": string(channel), "status": string(DeliveryPending)})
	if kind := ch.Kind(); kind != "" {
		query.AndWhere(dbx.HashExp{"kind": string(kind)})
	}
	var ids []string
	if err := query.Column(&ids); err != nil {
		return fmt.Errorf("find what waits for %s: %w", ch, err)
	}
	for _, id := range ids {
		if id == "" {
			if err := s.enqueueWaitingMails(app); err != nil {
				return err
			}
			continue
		}
		err := app.RunInTransaction(func(txApp core.App) error {
			n, err := FindNotificationByID(txApp, id)
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
		if err != nil {
			return fmt.Errorf("release notification %s: %w", id, err)
		}
	}
	return nil
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
	Created       string `db:"created"`
	RequestID     string `db:"requestId"`
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
		Select("id", "notification", "user", "device", "channel", "kind", "status", "attempts", "nextAttemptAt", "created", "requestId").
		From(table).Where(where).OrderBy("nextAttemptAt", "id").Limit(int64(limit)).All(&rows)
	if err != nil {
		return nil, fmt.Errorf("find deliveries: %w", err)
	}
	return rows, nil
}

type batchWorker struct{ s *Sender }

func (batchWorker) Timeout() time.Duration { return -1 }

func (w batchWorker) Work(ctx context.Context, job *jobs.Job[BatchArgs]) error {
	unlock := w.s.batches.lock(fmt.Sprintf("%s/%d", job.Args.Notification, job.Args.Batch))
	defer unlock()
	defer w.s.counter.touch(job.Args.Notification)
	for {
		again, err := w.s.sendBatch(ctx, job.Args)
		if err != nil || !again {
			return err
		}
	}
}

// sendBatch makes one pass over what is due in a batch. again means that there
// may be more to do at once.
func (s *Sender) sendBatch(ctx context.Context, args BatchArgs) (again bool, err error) {
	n, err := FindNotificationByID(s.app, args.Notification)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st := n.Status(); st != StatusSending && st != StatusQueued {
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
	var stored waitGroup
	interrupted := false
	for _, row := range rows {
		if row.Status == string(DeliverySending) {
			interrupted = true
			stored.add(s.ledger.finish(row.ID, interruptedResult(row)))
		}
	}
	if interrupted {
		stored.wait()
		return true, nil
	}

	if expires := n.ExpiresAt(); !expires.IsZero() && !now.Before(expires) {
		for _, row := range rows {
			stored.add(s.ledger.finish(row.ID, result{Status: DeliverySkipped, Reason: ReasonExpired,
				Explanation: "The notification's expiry time passed before this message could go out."}))
		}
		stored.wait()
		return false, s.markExpired(n.Id)
	}

	due, wait := splitDue(rows, now)
	if len(due) == 0 {
		return false, jobs.Snooze(wait)
	}
	pass, err := s.sendRows(ctx, n, due)
	if err != nil {
		return false, err
	}
	s.counter.touch(n.Id)
	switch {
	case pass.paused != nil:
		return false, s.pauseFor(n.Id, pass.paused)
	case ctx.Err() != nil:
		return false, ctx.Err()
	case pass.down > 0:
		return false, jobs.Snooze(pass.down)
	default:
		return true, nil
	}
}

// interruptedResult is what becomes of a row that was being handed over when
// its process ended.
func interruptedResult(row *deliveryRow) result {
	if row.mayRepeat() {
		return result{Status: DeliveryPending}
	}
	return result{Status: DeliveryUnknown, Reason: ReasonInterrupted,
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

// pauseCause is why a notification cannot go on.
type pauseCause struct {
	sentence   string
	byProvider bool // it goes on by itself when the provider is repaired
}

// pauseFor stores why a notification's messages cannot go out. A provider that
// is paused holds only its own channel: the status stays "sending" until the
// counter finds that nothing else is under way (see [Sender.held]).
func (s *Sender) pauseFor(id string, cause *pauseCause) error {
	return s.app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, id)
		if err != nil {
			return err
		}
		if st := n.Status(); st != StatusSending && st != StatusQueued {
			return nil
		}
		n.SetStatusReason(cause.sentence)
		if !cause.byProvider {
			n.SetStatus(StatusPaused)
		}
		return txApp.SaveNoValidateWithContext(AsServer(context.Background()), n)
	})
}

// held says whether all that is pending of a notification waits for paused
// providers, and why.
func (s *Sender) held(app core.App, id string) (sentence string, held bool) {
	table, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return "", false
	}
	var waiting []struct {
		Channel string `db:"channel"`
		Kind    string `db:"kind"`
		Status  string `db:"status"`
	}
	err = app.DB().Select("channel", "kind", "status").Distinct(true).From(table).
		Where(dbx.HashExp{"notification": id, "status": []any{string(DeliveryPending), string(DeliverySending)}}).All(&waiting)
	if err != nil || len(waiting) == 0 {
		return "", false
	}
	for _, w := range waiting {
		ch := providerChannel(Channel(w.Channel), Kind(w.Kind))
		if ch == "" || w.Status == string(DeliverySending) {
			return "", false
		}
		_, err := s.providers.Active(app, ch)
		var paused *PausedError
		if !errors.As(err, &paused) {
			return "", false
		}
		sentence = paused.Reason
	}
	return sentence, true
}

// passResult is what one pass over rows found about all of them.
type passResult struct {
	paused *pauseCause
	down   time.Duration // the provider cannot be reached: how long to wait
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
		return passResult{paused: &pauseCause{sentence: err.Error()}}, nil
	}
	items, stored, err := s.prepare(n, snapshot, compiled, rows)
	if err != nil {
		return passResult{}, err
	}
	if Channel(rows[0].Channel) == ChannelInbox {
		err := s.deliverInbox(ctx, items)
		stored.wait()
		return passResult{}, err
	}
	pass := s.handOverAll(ctx, items, stored)
	return pass, nil
}

// item is one message ready to be handed over.
type item struct {
	row *deliveryRow
	msg *Message
}

// prepare renders the messages of rows. What can not be sent gets its result at
// once; stored collects what is on its way to the database.
func (s *Sender) prepare(n *Notification, snapshot Snapshot, compiled *Compiled, rows []*deliveryRow) ([]item, *waitGroup, error) {
	users, err := UsersCollection(s.app)
	if err != nil {
		return nil, nil, err
	}
	ids := make([]string, 0, len(rows))
	seen := map[string]bool{}
	for _, row := range rows {
		if !seen[row.User] {
			seen[row.User] = true
			ids = append(ids, row.User)
		}
	}
	records, err := s.app.FindRecordsByIds(users, ids)
	if err != nil {
		return nil, nil, fmt.Errorf("find recipients: %w", err)
	}
	byID := make(map[string]*core.Record, len(records))
	for _, r := range records {
		byID[r.Id] = r
	}
	channel := Channel(rows[0].Channel)
	addresses, err := s.addresses(channel, rows, byID)
	if err != nil {
		return nil, nil, err
	}
	blocked, err := s.findBlocked(channel, snapshot, rows, addresses)
	if err != nil {
		return nil, nil, err
	}

	stored := &waitGroup{}
	items := make([]item, 0, len(rows))
	finish := func(row *deliveryRow, status DeliveryStatus, reason, explanation string) {
		stored.add(s.ledger.finish(row.ID, result{Status: status, Reason: reason, Explanation: explanation}))
	}
	base := baseVars(n, snapshot)
	maxAge := s.opts.Retry.MaxAge
	for _, row := range rows {
		user := byID[row.User]
		address := addresses[row.ID]
		switch block, isBlocked := blocked[row.ID]; {
		case user == nil:
			finish(row, DeliverySkipped, ReasonRecipientGone, "This person was deleted before the message went out.")
			continue
		case channel != ChannelInbox && address == "":
			finish(row, DeliverySkipped, ReasonNoAddress, "This person has no address on this channel any more.")
			continue
		case isBlocked:
			finish(row, DeliverySkipped, block.reason, block.sentence)
			continue
		case s.now().Sub(parseDBTime(row.Created)) > maxAge && row.Attempts > 0:
			finish(row, DeliveryFailed, ReasonRetriesExhausted, "It could not be handed over for "+plainDuration(maxAge)+", so it was given up.")
			continue
		}
		vars := make(map[string]any, len(base)+1)
		for k, v := range base {
			vars[k] = v
		}
		vars["user"] = userVars(user)
		rendered, err := compiled.Render(vars)
		if err != nil {
			finish(row, DeliveryFailed, ReasonTemplateFailed, "The text could not be made for this person: "+err.Error())
			continue
		}
		items = append(items, item{row, newMessage(n, snapshot, row, user, address, rendered)})
	}
	return items, stored, nil
}

func baseVars(n *Notification, snapshot Snapshot) map[string]any {
	vars := map[string]any{"app": map[string]any{"name": snapshot.AppName, "url": snapshot.AppURL}}
	for k, v := range snapshot.Variables {
		if _, taken := vars[k]; !taken {
			vars[k] = v
		}
	}
	return vars
}

func newMessage(n *Notification, snapshot Snapshot, row *deliveryRow, user *core.Record, address string, r *Rendered) *Message {
	m := &Message{
		DeliveryID: row.ID, NotificationID: n.Id, RequestID: row.RequestID,
		Channel: Channel(row.Channel), Kind: snapshot.Kind,
		Target: Target{UserID: user.Id, Address: address, Name: user.GetString("name")},
		Title:  r.Title, Body: r.Body, Image: r.Image, Link: r.Link, Data: r.Data,
	}
	if m.Channel == ChannelEmail {
		m.Email = &Email{Subject: r.EmailSubject, Text: r.EmailText, HTML: r.EmailHTML}
	}
	if m.Channel == ChannelSMS && r.SMSBody != "" {
		m.Body = r.SMSBody
	}
	return m
}

// addresses returns the current address of each row: the one a person has now,
// not the one they had when the notification was planned.
func (s *Sender) addresses(channel Channel, rows []*deliveryRow, users map[string]*core.Record) (map[string]string, error) {
	out := make(map[string]string, len(rows))
	switch channel {
	case ChannelEmail:
		for _, row := range rows {
			if u := users[row.User]; u != nil {
				out[row.ID] = u.Email()
			}
		}
	case ChannelSMS:
		for _, row := range rows {
			if u := users[row.User]; u != nil && u.GetBool("phoneVerified") {
				out[row.ID] = u.GetString("phone")
			}
		}
	case ChannelPush:
		table, err := tableName(s.app, CollectionDevices)
		if err != nil {
			return nil, err
		}
		ids := make([]string, len(rows))
		for i, row := range rows {
			ids[i] = row.Device
		}
		var devices []deviceRow
		err = s.app.ConcurrentDB().Select("id", "user", "token").From(table).
			Where(dbx.HashExp{"id": anySlice(ids), "status": "active"}).All(&devices)
		if err != nil {
			return nil, fmt.Errorf("find devices: %w", err)
		}
		tokens := make(map[string]deviceRow, len(devices))
		for _, d := range devices {
			tokens[d.ID] = d
		}
		for _, row := range rows {
			// A device that moved to somebody else must not get this message.
			if d := tokens[row.Device]; d.User == row.User {
				out[row.ID] = d.Token
			}
		}
	}
	return out, nil
}

type block struct{ reason, sentence string }

// findBlocked returns the rows that must not be sent: suppressed addresses and
// people who switched the category off.
func (s *Sender) findBlocked(channel Channel, snapshot Snapshot, rows []*deliveryRow, addresses map[string]string) (map[string]block, error) {
	blocked := map[string]block{}
	if channel == ChannelEmail || channel == ChannelSMS {
		table, err := tableName(s.app, CollectionSuppressions)
		if err != nil {
			return nil, err
		}
		wanted := make([]any, 0, len(rows))
		for _, row := range rows {
			if a := addresses[row.ID]; a != "" {
				wanted = append(wanted, strings.ToLower(a))
			}
		}
		var found []struct {
			Address string `db:"address"`
			Reason  string `db:"reason"`
		}
		err = s.app.ConcurrentDB().NewQuery("SELECT LOWER([[address]]) AS [[address]], [[reason]] FROM {{" + table +
			"}} WHERE [[channel]] = {:channel} AND ([[kind]] = '' OR [[kind]] = {:kind}) AND LOWER([[address]]) IN (SELECT value FROM json_each({:addresses}))").
			Bind(dbx.Params{"channel": string(channel), "kind": string(snapshot.Kind), "addresses": mustJSON(wanted)}).All(&found)
		if err != nil {
			return nil, fmt.Errorf("find suppressions: %w", err)
		}
		reasons := make(map[string]string, len(found))
		for _, f := range found {
			reasons[f.Address] = f.Reason
		}
		for _, row := range rows {
			if reason, ok := reasons[strings.ToLower(addresses[row.ID])]; ok && addresses[row.ID] != "" {
				blocked[row.ID] = block{ReasonSuppressed, "This address is on the suppression list (" + orElse(reason, "no reason given") + ")."}
			}
		}
	}
	if snapshot.CanOptOut {
		table, err := tableName(s.app, CollectionPreferences)
		if err != nil {
			return nil, err
		}
		users := make([]any, len(rows))
		for i, row := range rows {
			users[i] = row.User
		}
		var out []string
		err = s.app.ConcurrentDB().NewQuery("SELECT [[user]] FROM {{" + table +
			"}} WHERE [[category]] = {:category} AND [[channel]] = {:channel} AND [[enabled]] = FALSE AND [[user]] IN (SELECT value FROM json_each({:users}))").
			Bind(dbx.Params{"category": snapshot.Category, "channel": string(channel), "users": mustJSON(users)}).Column(&out)
		if err != nil {
			return nil, fmt.Errorf("find preferences: %w", err)
		}
		off := make(map[string]bool, len(out))
		for _, id := range out {
			off[id] = true
		}
		for _, row := range rows {
			if off[row.User] {
				blocked[row.ID] = block{ReasonOptedOut, "This person switched this category off on this channel."}
			}
		}
	}
	return blocked, nil
}

// captures says whether a message to this address stays here.
func (s *Sender) captures(address string) bool {
	return s.opts.CaptureAll && !s.sendOnly[strings.ToLower(address)]
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

// handOverAll captures or hands over items and waits until all results are
// stored.
func (s *Sender) handOverAll(ctx context.Context, items []item, stored *waitGroup) passResult {
	defer stored.wait()
	var live []item
	for _, it := range items {
		if s.captures(it.msg.Target.Address) {
			stored.add(s.ledger.finish(it.row.ID, s.captured(it.msg, true)))
			continue
		}
		live = append(live, it)
	}
	if len(live) == 0 {
		return passResult{}
	}
	active, err := s.providers.Active(s.app, providerChannel(live[0].msg.Channel, live[0].msg.Kind))
	var paused *PausedError
	switch {
	case errors.As(err, &paused):
		return passResult{paused: &pauseCause{sentence: paused.Reason, byProvider: true}}
	case errors.Is(err, ErrNoProvider):
		for _, it := range live {
			stored.add(s.ledger.finish(it.row.ID, noProviderResult(it.msg)))
		}
		return passResult{}
	case err != nil:
		s.log.Error("provider cannot be found", "error", err)
		return passResult{down: s.opts.Retry.Delay(1)}
	}

	var (
		halt   atomic.Bool
		mu     sync.Mutex
		pass   passResult
		flight sync.WaitGroup
		badPay atomic.Int32
		good   atomic.Int32
	)
	for _, it := range live {
		if halt.Load() || ctx.Err() != nil {
			break
		}
		if err := active.Gate.Acquire(ctx); err != nil {
			break
		}
		if halt.Load() {
			active.Gate.Release(Outcome{Kind: Retry})
			break
		}
		flight.Go(func() {
			outcome, done := s.handOver(ctx, active, it)
			active.Gate.Release(outcome)
			if done != nil {
				mu.Lock()
				stored.add(done)
				mu.Unlock()
			}
			switch {
			case outcome.Kind == ConfigBad:
				halt.Store(true)
				mu.Lock()
				pass.paused = &pauseCause{sentence: outcome.Explanation, byProvider: true}
				mu.Unlock()
			case outcome.Kind == Retry && outcome.ProviderDown:
				halt.Store(true)
				mu.Lock()
				pass.down = max(pass.down, max(outcome.RetryAfter, s.opts.Retry.Delay(it.row.Attempts+1)))
				mu.Unlock()
			case outcome.Kind == PayloadBad:
				if badPay.Add(1) >= 3 && good.Load() == 0 {
					halt.Store(true)
					mu.Lock()
					pass.paused = &pauseCause{sentence: "Stopped after the first refusals: " + outcome.Explanation}
					mu.Unlock()
				}
			case outcome.Kind == Accepted:
				good.Add(1)
			}
		})
	}
	flight.Wait()
	if pass.paused != nil && pass.paused.byProvider {
		stored.wait() // the rows are pending again before anybody can resume the provider
		if err := s.providers.Pause(s.app, active.ID, pass.paused.sentence); err != nil {
			s.log.Error("provider cannot be paused", "provider", active.ID, "error", err)
		}
	} else if pass.down > 0 {
		s.markProvider(s.providers.MarkFailing, active.ID, "The server cannot be reached; messages wait and are tried again by themselves.")
	} else if good.Load() > 0 {
		s.markProvider(func(app core.App, id, _ string) error { return s.providers.MarkOK(app, id) }, active.ID, "")
	}
	return pass
}

func (s *Sender) markProvider(mark func(app core.App, id, sentence string) error, id, sentence string) {
	if err := mark(s.app, id, sentence); err != nil {
		s.log.Error("provider state cannot be stored", "provider", id, "error", err)
	}
}

// handOver gives one message to the provider and stores the answer. done is
// closed once it is stored; nil when nothing was to be stored.
func (s *Sender) handOver(ctx context.Context, active *ActiveProvider, it item) (Outcome, <-chan struct{}) {
	if !it.row.mayRepeat() {
		ok, err := s.ledger.begin(ctx, it.row.ID)
		if err != nil {
			s.log.Error("delivery cannot be begun", "delivery", it.row.ID, "error", err)
			return Outcome{Kind: Retry, ProviderDown: true}, nil
		}
		if !ok {
			return Outcome{Kind: Retry}, nil // paused, cancelled or served meanwhile
		}
	}
	// A shutdown lets the message in flight finish: cutting it off would leave
	// it "not known whether sent".
	sendCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOverTimeout)
	defer cancel()
	outcome := s.safeSend(sendCtx, active.Provider, it.msg)
	r := s.resultOf(it.row, outcome, active.ID)
	s.log.Info("delivery", "delivery", it.row.ID, "notification", it.row.Notification, "channel", it.row.Channel,
		"provider", active.ID, "outcome", outcome.Kind.String(), "code", outcome.Code, "status", string(r.Status), "requestId", it.row.RequestID)
	return outcome, s.ledger.finish(it.row.ID, r)
}

// safeSend turns a panic of an adapter into an outcome: nobody knows how far
// it came.
func (s *Sender) safeSend(ctx context.Context, p Provider, m *Message) (outcome Outcome) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("provider panicked", "delivery", m.DeliveryID, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			outcome = Outcome{Kind: Ambiguous, Explanation: "The sending code failed half-way, so it is not known whether this message was sent."}
		}
	}()
	outcome = p.Send(ctx, m)
	if outcome.Kind < Accepted || outcome.Kind > Ambiguous {
		return Outcome{Kind: Ambiguous, Explanation: "The provider's answer could not be understood, so it is not known whether this message was sent."}
	}
	return outcome
}

// resultOf translates an outcome into what is stored.
func (s *Sender) resultOf(row *deliveryRow, o Outcome, providerID string) result {
	now := s.now()
	r := result{Provider: providerID, ProviderMessageID: o.ProviderMessageID, Explanation: o.Explanation, Tried: row.mayRepeat()}
	switch o.Kind {
	case Accepted:
		r.Status, r.Explanation = DeliveryAccepted, ""
	case Retry:
		r.Status = DeliveryPending
		r.NextAttemptAt = now.Add(max(o.RetryAfter, s.opts.Retry.Delay(row.Attempts+1)))
		if r.NextAttemptAt.Sub(parseDBTime(row.Created)) > s.opts.Retry.MaxAge {
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

func noProviderResult(m *Message) result {
	sentence := "Nothing is set up to send on this channel: add a provider in notification_providers."
	if m.Channel == ChannelEmail {
		sentence = "No mail server is set up: set SMTP_HOST, use Settings > Mail settings, or add a provider in notification_providers."
	}
	return result{Status: DeliveryFailed, Reason: ReasonNoProvider, Explanation: sentence}
}

// captured is the result of keeping a message here.
func (s *Sender) captured(m *Message, keepContent bool) result {
	r := result{Status: DeliveryCaptured, Reason: ReasonCaptured, Provider: captureProvider, Tried: true,
		Explanation: "Kept here instead of sent, because APP_ENV is not production."}
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
				record := core.NewRecord(inbox)
				record.Set("user", it.msg.Target.UserID)
				record.Set("notification", it.msg.NotificationID)
				record.Set("title", it.msg.Title)
				record.Set("body", it.msg.Body)
				record.Set("image", it.msg.Image)
				record.Set("link", it.msg.Link)
				if len(it.msg.Data) > 0 {
					record.Set("data", it.msg.Data)
				}
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
		more, err := w.s.cancelSome(job.Args.Notification)
		if err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

func (s *Sender) cancelSome(id string) (more bool, err error) {
	err = s.app.RunInTransaction(func(txApp core.App) error {
		n, err := FindNotificationByID(txApp, id)
		if err != nil || n.Status() != StatusCancelled {
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

// waitGroup waits for results to be stored. It is used by one goroutine at a
// time.
type waitGroup struct{ pending []<-chan struct{} }

func (w *waitGroup) add(done <-chan struct{}) { w.pending = append(w.pending, done) }

func (w *waitGroup) wait() {
	for _, done := range w.pending {
		<-done
	}
	w.pending = nil
}

// keyedLocks lets one goroutine at a time work on a key.
type keyedLocks struct {
	mu   sync.Mutex
	held map[string]*keyedLock
}

type keyedLock struct {
	mu   sync.Mutex
	refs int
}

func (k *keyedLocks) lock(key string) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*keyedLock{}
	}
	l := k.held[key]
	if l == nil {
		l = &keyedLock{}
		k.held[key] = l
	}
	l.refs++
	k.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		k.mu.Lock()
		if l.refs--; l.refs == 0 {
			delete(k.held, key)
		}
		k.mu.Unlock()
	}
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
