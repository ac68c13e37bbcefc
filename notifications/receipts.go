package notifications

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// ReceiptState is how far a message came after its provider took it.
type ReceiptState int

const (
	// ReceiptTaken: the provider has the message, or the network already; neither
	// knows yet whether it arrived.
	ReceiptTaken ReceiptState = iota + 1

	// ReceiptFailed: it did not arrive, and the provider does not try again.
	ReceiptFailed

	// ReceiptDelivered: it arrived.
	ReceiptDelivered

	// ReceiptRead: the person has opened it.
	ReceiptRead
)

// Codes in the reason field of a delivery that a receipt says has failed.
const (
	ReasonUndelivered = "undelivered" // it did not arrive, and nobody knows why
	ReasonUnreachable = "unreachable" // the phone was switched off or without a network for too long
	ReasonFiltered    = "filtered"    // the network took it for unwanted
	ReasonNotSent     = "not_sent"    // the provider never got it
)

// Receipt is what a provider says became of a message that it took earlier.
type Receipt struct {
	// ProviderMessageID is the provider's id of the message.
	ProviderMessageID string

	// DeliveryID is ours, when the provider gave it back; empty otherwise.
	DeliveryID string

	State ReceiptState

	// Reason, Explanation and Code say why, as in [Outcome]; for ReceiptFailed
	// only. An empty Reason means [ReasonUndelivered].
	Reason      string
	Explanation string
	Code        string

	// Address is where the message went, in full; it is stored nowhere but in the
	// list of suppressed addresses. Suppress is the reason to put it there:
	// [SuppressStop], [SuppressBounce], or empty for none.
	Address  string
	Suppress string

	// CreatedAt is when the provider took the message; zero when it did not say.
	CreatedAt time.Time

	// OtherSender says that the message came from another sender of the same
	// account ([ReceiptPoller.PollAddress] only).
	OtherSender bool
}

// Reasons of a suppression that the server itself makes.
const (
	SuppressStop        = "stop"        // the person answered STOP
	SuppressBounce      = "bounce"      // the address cannot get messages
	SuppressUnsubscribe = "unsubscribe" // the person followed an unsubscribe link
)

// ReceiptPoller is an optional second interface of an SMS sender: it asks what
// became of messages whose receipt did not come. The errors are for the log and
// hold no address.
type ReceiptPoller interface {
	// PollMessage asks for one message. found is false when the provider does not
	// know its id.
	PollMessage(ctx context.Context, providerMessageID string) (r Receipt, found bool, err error)

	// PollAddress returns all messages that the account of this sender sent to an
	// address since a time, oldest first. It is an error when it cannot say for
	// sure that these are all.
	PollAddress(ctx context.Context, address string, since time.Time) ([]Receipt, error)
}

// openStates is the condition on a delivery that a receipt may still settle. A
// pending one is among them: a receipt for it proves that a try which counted as
// not sent did arrive, and that it must not be sent again.
const openStates = "([[status]] IN ('pending', 'sending', 'accepted', 'unknown') OR [[status]] = 'failed' AND [[reason]] = '" + ReasonNotSent + "')"

// notOutdated is the condition that a receipt is not about a message whose failure
// was answered with another try (see [RetryFailed]): Twilio repeats its callbacks,
// and one of the old message must not decide about the new one. That the old one
// arrived after all does count: the person has it.
const notOutdated = "NOT EXISTS (SELECT 1 FROM {{groundwork_inbound}} old WHERE old.[[id]] = {:digest})"

// receiptChanges are what a receipt of each state makes of a row, and of which
// rows. The conditions carry the order: what came later in the life of a message
// is never undone by a receipt that was late or came twice.
var receiptChanges = map[ReceiptState]struct{ set, where string }{
	ReceiptTaken: {
		"[[status]] = 'accepted', [[reason]] = '', [[explanation]] = ''",
		openStates + " AND ([[status]] <> 'accepted' OR [[providerMessageId]] = '') AND " + notOutdated,
	},
	ReceiptFailed: {
		"[[status]] = 'failed', [[reason]] = {:reason}, [[explanation]] = {:explanation}",
		openStates + " AND " + notOutdated,
	},
	ReceiptDelivered: {
		"[[status]] = 'delivered', [[reason]] = '', [[explanation]] = '', [[deliveredAt]] = {:now}",
		openStates,
	},
	ReceiptRead: {
		"[[status]] = 'opened', [[reason]] = '', [[explanation]] = '', [[deliveredAt]] = CASE WHEN [[deliveredAt]] = '' THEN {:now} ELSE [[deliveredAt]] END",
		"(" + openStates + " OR [[status]] = 'delivered' OR [[status]] = 'failed' AND [[providerMessageId]] <> '')",
	},
}

// receiptRow is what a receipt needs to know of a delivery.
type receiptRow struct {
	ID                string `db:"id"`
	Notification      string `db:"notification"`
	User              string `db:"user"`
	Kind              string `db:"kind"`
	Provider          string `db:"provider"`
	Address           string `db:"address"`
	Status            string `db:"status"`
	ProviderMessageID string `db:"providerMessageId"`
	Created           string `db:"created"`
	Updated           string `db:"updated"`
}

var receiptColumns = []string{"id", "notification", "user", "kind", "provider", "address", "status", "providerMessageId", "created", "updated"}

// TakeReceipt stores what the owner of some providers (the SMS account that
// signed, with all its senders) says became of a message. It may be called again
// and in any order. A receipt for a message that is not known here, or that went
// another way, changes nothing.
func (s *Sender) TakeReceipt(r Receipt, from []ProviderConfig) error {
	row, err := s.findReceiptRow(r, from)
	if row == nil || err != nil {
		return err
	}
	if row.ProviderMessageID != "" && row.ProviderMessageID != r.ProviderMessageID {
		// Two messages of one delivery: nothing that a receipt could mend.
		s.log.Warn("receipt for a second message of a delivery", "delivery", row.ID)
		return nil
	}
	_, err = s.settleReceipt(row, r, orElse(row.Provider, senderOf(from, Kind(row.Kind))))
	return err
}

// senderOf returns the id of the provider that messages of a kind went by: the
// one that is switched on, if any.
func senderOf(from []ProviderConfig, kind Kind) string {
	id := ""
	for _, cfg := range from {
		if cfg.Channel.Kind() == kind {
			id = cfg.ID
		}
	}
	return id
}

// findReceiptRow returns the delivery that a receipt is about, or nil.
func (s *Sender) findReceiptRow(r Receipt, from []ProviderConfig) (*receiptRow, error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return nil, err
	}
	if r.ProviderMessageID == "" {
		return nil, nil
	}
	// A delivery whose answer is not stored yet has neither provider nor message
	// id; it is known by our own id, which the provider gives back.
	for _, by := range []dbx.Expression{byMessageID(r.ProviderMessageID), dbx.HashExp{"id": r.DeliveryID, "channel": string(ChannelSMS)}} {
		var rows []receiptRow
		if err := s.app.ConcurrentDB().Select(receiptColumns...).From(table).Where(by).Limit(2).All(&rows); err != nil {
			return nil, fmt.Errorf("find delivery of a receipt: %w", err)
		}
		for i := range rows {
			if rows[i].ID != "" && owns(from, &rows[i]) {
				return &rows[i], nil
			}
		}
		if r.DeliveryID == "" {
			return nil, nil
		}
	}
	return nil, nil
}

// byMessageID is the condition on the SMS that its provider knows by an id. The
// terms without a parameter are those of the index: without them SQLite reads
// every SMS there is, for each receipt.
func byMessageID(id string) dbx.Expression {
	return dbx.NewExp("[[channel]] = 'sms' AND [[providerMessageId]] <> '' AND [[providerMessageId]] = {:message}", dbx.Params{"message": id})
}

// owns says whether a delivery went by one of these providers, or may have.
func owns(from []ProviderConfig, row *receiptRow) bool {
	for _, cfg := range from {
		if row.Provider == cfg.ID || row.Provider == "" && cfg.Channel.Kind() == Kind(row.Kind) {
			return true
		}
	}
	return false
}

// settleReceipt writes a receipt into its row, and what it says about the address
// into the list of suppressed ones, once.
func (s *Sender) settleReceipt(row *receiptRow, r Receipt, provider string) (changed bool, err error) {
	change, known := receiptChanges[r.State]
	if !known {
		return false, fmt.Errorf("receipt for delivery %s: state %d is not known", row.ID, r.State)
	}
	if DeliveryStatus(row.Status) == DeliveryAccepted && r.State == ReceiptTaken && row.ProviderMessageID != "" {
		return false, nil // the usual case: no news, no write
	}
	err = s.app.RunInTransaction(func(txApp core.App) error {
		changed = false
		table, err := tableName(txApp, CollectionDeliveries)
		if err != nil {
			return err
		}
		update := txApp.DB().NewQuery("UPDATE {{" + table + "}} SET " + change.set +
			", [[providerMessageId]] = {:message}, [[provider]] = {:provider}, [[nextAttemptAt]] = ''," +
			" [[acceptedAt]] = CASE WHEN [[acceptedAt]] = '' THEN {:now} ELSE [[acceptedAt]] END, [[updated]] = {:now}" +
			" WHERE [[id]] = {:id} AND [[channel]] = 'sms' AND [[providerMessageId]] IN ('', {:message}) AND " + change.where).Prepare()
		defer update.Close()
		params := dbx.Params{"id": row.ID, "message": r.ProviderMessageID, "digest": messageDigest(r.ProviderMessageID), "provider": provider, "now": dbTime(s.now())}
		if r.State == ReceiptFailed {
			params["reason"], params["explanation"] = orElse(r.Reason, ReasonUndelivered), r.Explanation
		}
		res, err := update.Bind(params).Execute()
		if err != nil {
			return fmt.Errorf("store receipt of delivery %s: %w", row.ID, err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return fmt.Errorf("store receipt of delivery %s: %w", row.ID, err)
		}
		if changed = n == 1; !changed || r.Suppress == "" {
			return nil
		}
		return suppress(txApp, r.Address, Kind(row.Kind), r.Suppress)
	})
	if err != nil {
		return false, err
	}
	if changed {
		s.counter.touch(row.Notification)
		s.log.Info("receipt", "delivery", row.ID, "notification", row.Notification, "provider", provider,
			"state", int(r.State), "code", r.Code)
	}
	return changed, nil
}

// suppress puts a phone number on the list of those that get nothing of a kind any
// more; an empty kind means nothing at all. One that is on it already, for
// whatever reason, stays as it is. What is no number that can be sent to is passed
// over.
func suppress(txApp core.App, number string, kind Kind, reason string) error {
	return suppressAddress(txApp, ChannelSMS, number, kind, reason)
}

// suppressAddress is [suppress] for any channel.
func suppressAddress(txApp core.App, channel Channel, address string, kind Kind, reason string) error {
	address, err := NormalizeAddress(channel, address)
	if err != nil {
		return nil // a short code or a sender name: nobody sends there
	}
	return suppressAs(txApp, channel, address, address, kind, reason)
}

// withdrawalBy are the reasons of a suppression by which a person also takes their
// consent back, and what the row says that tells so.
var withdrawalBy = map[string]string{SuppressStop: sourceStop, SuppressUnsubscribe: sourceUnsubscribe, SuppressComplaint: sourceComplaint}

// suppressAs is [suppressAddress] for a normal address that is stored in another
// form, such as the hash of an erased one.
func suppressAs(txApp core.App, channel Channel, address, stored string, kind Kind, reason string) error {
	if source := withdrawalBy[reason]; source != "" && kind != KindTransactional {
		if err := withdrawConsents(txApp, channel, address, source, ""); err != nil {
			return err
		}
	}
	known, err := txApp.FindAllRecords(CollectionSuppressions, suppressedAddress(txApp, channel, address, kind))
	if err != nil {
		return fmt.Errorf("find suppression: %w", err)
	}
	if len(known) > 0 {
		return nil
	}
	col, err := txApp.FindCachedCollectionByNameOrId(CollectionSuppressions)
	if err != nil {
		return fmt.Errorf("find collection %s: %w", CollectionSuppressions, err)
	}
	record := core.NewRecord(col)
	record.Load(map[string]any{"channel": string(channel), "address": stored, "kind": string(kind), "reason": reason})
	if err := txApp.SaveWithContext(AsServer(context.Background()), record); err != nil {
		return fmt.Errorf("save suppression: %w", err)
	}
	return nil
}

// suppressedSMS is the condition on what holds texts of a kind to a number back.
func suppressedSMS(app core.App, number string, kind Kind) dbx.Expression {
	return suppressedAddress(app, ChannelSMS, number, kind)
}

func suppressedAddress(app core.App, channel Channel, address string, kind Kind) dbx.Expression {
	return dbx.HashExp{"channel": string(channel), "address": anySlice(suppressedForms(app, channel, address)), "kind": string(kind)}
}

// unsuppress takes back what a STOP did, and nothing else. It returns how many
// rows there were.
func unsuppress(txApp core.App, number string, kind Kind) (int, error) {
	records, err := txApp.FindAllRecords(CollectionSuppressions, suppressedSMS(txApp, number, kind), dbx.HashExp{"reason": SuppressStop})
	if err != nil {
		return 0, fmt.Errorf("find suppression: %w", err)
	}
	for _, r := range records {
		if err := txApp.DeleteWithContext(AsServer(context.Background()), r); err != nil {
			return 0, fmt.Errorf("delete suppression: %w", err)
		}
	}
	return len(records), nil
}

// OptOut is a person's STOP or START to one of our senders.
type OptOut struct {
	// MessageID is the provider's id of the text: the same one counts once.
	MessageID string

	// Number is the person's.
	Number string

	// Kind is what the sender that was written to sends.
	Kind Kind

	// Stop is true for STOP, false for START.
	Stop bool

	// Widen makes a STOP to one sender count for all.
	Widen bool
}

// messageDigest stands in for a provider's id of a text: with the id itself its
// author could be looked up at the provider, also after they were erased here.
func messageDigest(messageID string) string {
	sum := sha256.Sum256([]byte(messageID))
	return hex.EncodeToString(sum[:])
}

// inboundLife is for how long a text that was acted on is remembered, and a message
// that was tried again. Twilio's own repetitions come within minutes.
const inboundLife = 30 * 24 * time.Hour

// TakeOptOut acts on a person's STOP or START. It may be called again for the same
// message, also after a later one of the same person: only the first call counts.
//
// A STOP suppresses what the sender that was written to sends, so that a code to
// sign in still reaches a person who wants no more offers. A START takes back that
// sender's STOP only, never a suppression made for another reason.
func (s *Sender) TakeOptOut(o OptOut) error {
	number, err := NormalizePhone(o.Number)
	if err != nil || o.MessageID == "" {
		return nil // from a short code or a sender name: nobody sends there
	}
	return s.app.RunInTransaction(func(txApp core.App) error {
		res, err := txApp.DB().NewQuery("INSERT INTO {{groundwork_inbound}} ([[id]], [[at]]) VALUES ({:id}, {:at}) ON CONFLICT DO NOTHING").
			Bind(dbx.Params{"id": messageDigest(o.MessageID), "at": dbTime(s.now())}).Execute()
		if err != nil {
			return fmt.Errorf("remember inbound message: %w", err)
		}
		if first, err := res.RowsAffected(); err != nil || first == 0 {
			return err
		}
		switch {
		case o.Stop && o.Widen:
			return suppress(txApp, number, "", SuppressStop)
		case o.Stop:
			return suppress(txApp, number, o.Kind, SuppressStop)
		}
		if _, err := unsuppress(txApp, number, o.Kind); err != nil {
			return err
		}
		if o.Kind == KindPromotional {
			if err := restoreConsents(txApp, ChannelSMS, number, sourceStop, sourceStart); err != nil {
				return err
			}
		}
		widened, err := unsuppress(txApp, number, "")
		if err != nil || widened == 0 || o.Kind == KindPromotional {
			return err
		}
		// A STOP that counted for all senders still stands for the others.
		return suppress(txApp, number, KindPromotional, SuppressStop)
	})
}
