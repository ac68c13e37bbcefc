package notifications

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// Account mails are PocketBase's own (verification, reset, code, e-mail change,
// alerts) and those that application code sends through PocketBase's mailer.
// Their content is never kept: it is sealed in groundwork_sealed until the mail
// is sent or has expired, the job row only carries the delivery's id, and the
// delivery row has no content. The codes that go out by SMS take the same way.

// DefaultMailLife is how long an account mail is tried; afterwards the link or
// code in it is of no use.
const DefaultMailLife = time.Hour

// purposeMail binds a sealed content to being a mail.
const purposeMail = "mail"

// SealedStore encrypts and decrypts; the rows are this package's.
type SealedStore interface {
	Seal(purpose string, plaintext []byte) ([]byte, error)
	Open(purpose string, sealed []byte) ([]byte, error)
}

// Mail is one e-mail to one address, outside any notification.
type Mail struct {
	To     string
	ToName string
	// UserID is the account that it is about; empty for a stranger.
	UserID    string
	RequestID string
	// ExpiresAt is when its content is worthless; zero means [DefaultMailLife]
	// from now.
	ExpiresAt time.Time
	Email     Email
}

// Skip says why a message is not sent although it was asked for. The zero value
// means that it is sent.
type Skip struct {
	Reason      string // one of the Reason constants
	Explanation string // one plain sentence
}

// AccountSMS is one transactional text to one number, outside any notification.
type AccountSMS struct {
	To string // E.164
	// UserID is the account that it is about; empty for a stranger.
	UserID    string
	RequestID string
	// ExpiresAt is when the code in it is worthless.
	ExpiresAt time.Time
	Body      string
	// Skip ends it as skipped. It is stored and taken up like any other, so that
	// whoever asked for it cannot tell.
	Skip Skip
}

// sealedMail is what is sealed: a mail, or a text.
type sealedMail struct {
	To, ToName string
	Email      Email
	Text       string
	Skip       Skip
}

// MailArgs sends one account mail, or one account SMS.
type MailArgs struct {
	Delivery string `json:"delivery"`
}

// Kind implements [jobs.Args].
func (MailArgs) Kind() string { return "account.mail" }

// PurgeArgs erases the sealed content of mails that expired.
type PurgeArgs struct{}

// Kind implements [jobs.Args].
func (PurgeArgs) Kind() string { return "account.purge" }

// EnqueueMail stores a mail and the job that sends it; with a transaction's app
// it commits or rolls back with it. It returns the id of the delivery row.
func (s *Sender) EnqueueMail(app core.App, m Mail) (string, error) {
	if m.ExpiresAt.IsZero() {
		m.ExpiresAt = s.now().Add(DefaultMailLife)
	}
	return s.enqueueAccount(app, accountMessage{ChannelEmail, m.To, m.UserID, m.RequestID, m.ExpiresAt}, sealedMail{To: m.To, ToName: m.ToName, Email: m.Email})
}

// EnqueueSMS is [Sender.EnqueueMail] for a text.
func (s *Sender) EnqueueSMS(app core.App, m AccountSMS) (string, error) {
	return s.enqueueAccount(app, accountMessage{ChannelSMS, m.To, m.UserID, m.RequestID, m.ExpiresAt}, sealedMail{To: m.To, Text: m.Body, Skip: m.Skip})
}

// accountMessage is what is kept of an account message beside its content.
type accountMessage struct {
	channel               Channel
	to, userID, requestID string
	expiresAt             time.Time
}

func (s *Sender) enqueueAccount(app core.App, m accountMessage, content sealedMail) (string, error) {
	now := s.now()
	plain, err := json.Marshal(content)
	if err != nil {
		return "", fmt.Errorf("encode account message: %w", err)
	}
	id := newDeliveryIDs(now, 1)()
	box, err := s.sealed.Seal(purposeMail+":"+id, plain)
	if err != nil {
		return "", fmt.Errorf("seal account message: %w", err)
	}
	err = app.RunInTransaction(func(txApp core.App) error {
		category, err := txApp.FindFirstRecordByData(CollectionCategories, "key", CategoryAccount)
		if err != nil {
			return fmt.Errorf("find account category: %w", err)
		}
		if err := insertRow(txApp, &deliveryRow{ID: id, User: m.userID, Target: orElse(m.userID, id), Channel: string(m.channel), Kind: string(KindTransactional),
			Category: category.Id, Address: MaskAddress(m.channel, m.to), Status: string(DeliveryPending), RequestID: m.requestID, Created: dbTime(now)}); err != nil {
			return err
		}
		_, err = txApp.DB().NewQuery("INSERT INTO {{groundwork_sealed}} ([[id]], [[purpose]], [[box]], [[expiresAt]]) VALUES ({:id}, {:purpose}, {:box}, {:expires})").
			Bind(dbx.Params{"id": id, "purpose": purposeMail, "box": box, "expires": dbTime(m.expiresAt)}).Execute()
		if err != nil {
			return fmt.Errorf("store sealed account message: %w", err)
		}
		_, err = jobs.Enqueue(txApp, MailArgs{id}, jobs.Options{Queue: jobs.QueueCritical, Priority: 1, RequestID: m.requestID})
		return err
	})
	if err != nil {
		return "", fmt.Errorf("enqueue account message: %w", err)
	}
	return id, nil
}

type mailWorker struct{ s *Sender }

func (mailWorker) Timeout() time.Duration { return 2 * handOverTimeout }

func (w mailWorker) Work(ctx context.Context, job *jobs.Job[MailArgs]) error {
	id := job.Args.Delivery
	return unlessBusy(w.s.atWork.do(ctx, "mail/"+id, func() error { return w.s.sendMail(ctx, id) }))
}

// sendMail makes one try at an account mail.
func (s *Sender) sendMail(ctx context.Context, id string) error {
	rows, err := s.findDeliveries(dbx.HashExp{"id": id}, 1)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return s.eraseSealed(id)
	}
	row := rows[0]
	switch DeliveryStatus(row.Status) {
	case DeliverySending:
		s.ledger.finishNow(row, interruptedResult(row))
		return s.eraseSealed(id)
	case DeliveryPending:
	default:
		return s.eraseSealed(id)
	}

	mail, expiresAt, err := s.openMail(id)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && !s.now().Before(expiresAt):
		return s.endMail(row, &result{Status: DeliveryFailed, Reason: ReasonExpired,
			Explanation: "It could not be handed over in time, and what it said is of no use any more. The person can ask for a new one."})
	case errors.Is(err, errMailClosed):
		return s.endMail(row, &result{Status: DeliveryFailed, Reason: ReasonExpired,
			Explanation: "Its content cannot be opened with this GROUNDWORK_KEY. The person can ask for a new one."})
	case err != nil:
		return err // the database cannot answer now
	}
	if mail.Skip.Reason != "" {
		return s.endMail(row, &result{Status: DeliverySkipped, Reason: mail.Skip.Reason, Explanation: mail.Skip.Explanation})
	}
	if next := parseDBTime(row.NextAttemptAt); next.After(s.now()) {
		return jobs.Snooze(next.Sub(s.now()))
	}
	msg := accountMessageOf(row, &mail, expiresAt)
	route := Route{Channel: providerChannel(msg.Channel, msg.Kind)}
	if refused, err := s.refuseAccountSMS(row, msg, route); err != nil {
		return err
	} else if refused != nil {
		return s.endMail(row, refused)
	}

	if s.captures(msg, "") {
		if s.opts.ShowAccountMails {
			s.shown.put(id, renderedView(msg))
		}
		return s.endMail(row, s.captured(msg, false))
	}
	active, err := s.providers.Active(s.app, route)
	var paused *PausedError
	switch {
	case errors.As(err, &paused):
		return nil // enqueued again when the provider resumes
	case errors.Is(err, ErrNoProvider):
		return s.endMail(row, noProviderResult(msg, route))
	case err != nil:
		return fmt.Errorf("find provider of account message: %w", err)
	}
	if err := active.Gate.AcquireUrgent(ctx); err != nil {
		return err
	}
	sendCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOverTimeout)
	defer cancel()
	outcome, r := s.handOverOne(ctx, sendCtx, active, item{row: row, msg: msg, route: route})
	active.Gate.Release(outcome)
	if r == nil {
		return jobs.Snooze(s.opts.Retry.Delay(1)) // the mark could not be stored: nothing was sent
	}
	s.ledger.finishNow(row, r)
	switch outcome.Kind {
	case ConfigBad:
		return s.providers.Pause(s.app, active.ID, outcome.Explanation)
	case Retry:
		if outcome.ProviderDown {
			s.markProvider(s.providers.MarkFailing, active.ID, outcome.Explanation)
		}
		return jobs.Snooze(max(outcome.RetryAfter, s.opts.Retry.Delay(row.Attempts+1)))
	default:
		if outcome.Kind == Accepted {
			s.markProvider(func(app core.App, id, _ string) error { return s.providers.MarkOK(app, id) }, active.ID, "")
		}
		return s.eraseSealed(id)
	}
}

func accountMessageOf(row *deliveryRow, mail *sealedMail, expiresAt time.Time) *Message {
	msg := &Message{DeliveryID: row.ID, RequestID: row.RequestID, Channel: Channel(row.Channel), Kind: KindTransactional,
		Target: Target{UserID: row.User, Address: mail.To, Name: mail.ToName}, Expires: expiresAt}
	if msg.Channel == ChannelSMS {
		msg.Body = mail.Text
		return msg
	}
	msg.Title, msg.Email = mail.Email.Subject, &mail.Email
	return msg
}

// refuseAccountSMS returns the result of a text that must not go out whatever the
// environment is; nil when it may.
func (s *Sender) refuseAccountSMS(row *deliveryRow, msg *Message, route Route) (*result, error) {
	if msg.Channel != ChannelSMS {
		return nil, nil
	}
	if refused, err := s.refuseSMS([]item{{row: row, msg: msg, route: route}}); refused != nil || err != nil {
		return refused, err
	}
	blocked, err := s.findBlocked(ChannelSMS, Snapshot{Kind: KindTransactional}, []*deliveryRow{row}, map[string]target{row.ID: {address: msg.Target.Address}})
	if err != nil {
		return nil, err
	}
	if block, ok := blocked[row.ID]; ok {
		return &result{Status: DeliverySkipped, Reason: block.reason, Explanation: block.sentence}, nil
	}
	return nil, nil
}

// endMail stores the last word on a mail, then erases its content.
func (s *Sender) endMail(row *deliveryRow, r *result) error {
	s.ledger.finishNow(row, r)
	return s.eraseSealed(row.ID)
}

// errMailClosed means that a sealed message cannot be opened, and never will be with
// this key.
var errMailClosed = errors.New("it was sealed with another key")

func (s *Sender) openMail(id string) (sealedMail, time.Time, error) {
	var row struct {
		Box       []byte `db:"box"`
		ExpiresAt string `db:"expiresAt"`
	}
	var mail sealedMail
	err := s.app.ConcurrentDB().Select("box", "expiresAt").From("groundwork_sealed").Where(dbx.HashExp{"id": id, "purpose": purposeMail}).One(&row)
	if err != nil {
		return mail, time.Time{}, fmt.Errorf("find sealed mail %s: %w", id, err)
	}
	plain, err := s.sealed.Open(purposeMail+":"+id, row.Box)
	if err != nil {
		return mail, time.Time{}, fmt.Errorf("open sealed mail %s: %w: %w", id, errMailClosed, err)
	}
	if err := json.Unmarshal(plain, &mail); err != nil {
		return mail, time.Time{}, fmt.Errorf("decode sealed mail %s: %w: %w", id, errMailClosed, err)
	}
	return mail, parseDBTime(row.ExpiresAt), nil
}

func (s *Sender) eraseSealed(id string) error {
	_, err := s.app.NonconcurrentDB().Delete("groundwork_sealed", dbx.HashExp{"id": id}).Execute()
	if err != nil {
		return fmt.Errorf("erase sealed mail %s: %w", id, err)
	}
	return nil
}

// enqueueWaitingMails asks again for the mails that waited for a provider.
func (s *Sender) enqueueWaitingMails(app core.App) error {
	table, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return err
	}
	var ids []string
	err = app.DB().Select("id").From(table).Where(dbx.NewExp("[[status]] = 'pending'")).
		AndWhere(dbx.HashExp{"notification": "", "channel": []any{string(ChannelEmail), string(ChannelSMS)}}).Column(&ids)
	if err != nil {
		return fmt.Errorf("find waiting mails: %w", err)
	}
	for _, id := range ids {
		if _, err := jobs.Enqueue(app, MailArgs{id}, jobs.Options{Queue: jobs.QueueCritical, Priority: 1}); err != nil {
			return fmt.Errorf("enqueue mail %s: %w", id, err)
		}
	}
	return nil
}

type purgeWorker struct{ s *Sender }

func (w purgeWorker) Work(_ context.Context, _ *jobs.Job[PurgeArgs]) error {
	s := w.s
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return err
	}
	return s.app.RunInTransaction(func(txApp core.App) error {
		now := dbTime(s.now())
		_, err := txApp.DB().NewQuery("UPDATE {{" + table + "}} SET [[status]] = 'failed', [[reason]] = {:reason}, [[explanation]] = {:why}, [[updated]] = {:now}" +
			" WHERE [[status]] = 'pending' AND [[id]] IN (SELECT [[id]] FROM {{groundwork_sealed}} WHERE [[purpose]] = {:purpose} AND [[expiresAt]] <= {:now})").
			Bind(dbx.Params{"now": now, "purpose": purposeMail, "reason": ReasonExpired,
				"why": "It could not be handed over in time, and what it said is of no use any more. The person can ask for a new one."}).Execute()
		if err != nil {
			return fmt.Errorf("expire mails: %w", err)
		}
		_, err = txApp.DB().Delete("groundwork_sealed", dbx.NewExp("[[purpose]] = {:purpose} AND [[expiresAt]] <= {:now}",
			dbx.Params{"purpose": purposeMail, "now": now})).Execute()
		if err != nil {
			return fmt.Errorf("erase expired mails: %w", err)
		}
		return nil
	})
}

// shownLife is how long a developer can read a captured account mail.
const shownLife = 10 * time.Minute

// shownMails keeps the content of captured account mails in memory, in the
// local environment only.
type shownMails struct {
	now func() time.Time
	mu  sync.Mutex
	all map[string]shownMail
}

type shownMail struct {
	view  map[string]any
	until time.Time
}

func newShownMails(now func() time.Time) *shownMails {
	return &shownMails{now: now, all: map[string]shownMail{}}
}

func (m *shownMails) put(id string, view map[string]any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for key, old := range m.all {
		if now.After(old.until) {
			delete(m.all, key)
		}
	}
	m.all[id] = shownMail{view, now.Add(shownLife)}
}

// ShownMail returns the content of a captured account mail, in the local
// environment and for ten minutes; nil otherwise.
func (s *Sender) ShownMail(deliveryID string) map[string]any {
	s.shown.mu.Lock()
	defer s.shown.mu.Unlock()
	mail, ok := s.shown.all[deliveryID]
	if !ok || s.now().After(mail.until) {
		delete(s.shown.all, deliveryID)
		return nil
	}
	return mail.view
}
