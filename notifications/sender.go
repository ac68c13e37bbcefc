package notifications

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

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
	// One that is over is counted again only when something happens to it: of a
	// cancelled one nothing is pending once its job has ended.
	err = s.app.ConcurrentDB().Select("id").From(table).
		Where(dbx.HashExp{"status": []any{string(StatusQueued), string(StatusSending), string(StatusPaused)}}).
		OrWhere(dbx.And(dbx.HashExp{"status": string(StatusCancelled)}, dbx.NewExp("[[pending]] > 0"))).Column(&ids)
	if err != nil {
		return fmt.Errorf("find unfinished notifications: %w", err)
	}
	for _, id := range ids {
		s.counter.touch(id)
	}
	return nil
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
