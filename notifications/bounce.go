package notifications

import (
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// Kinds of [MailEvent].
const (
	MailDelivered = "delivered" // the recipient's server took it
	MailBounced   = "bounce"    // it came back
	MailComplaint = "complaint" // the person reported it as unwanted
)

// Codes in the reason field of a delivery that a mail provider told about later.
const (
	ReasonBounced    = "bounced"    // the address does not exist, or takes no mail
	ReasonComplained = "complained" // it arrived, and the person reported it as unwanted
)

// SuppressComplaint is the reason of a suppression after a complaint.
const SuppressComplaint = "complaint"

// MailEvent is what a mail provider tells about a mail that it took earlier.
type MailEvent struct {
	Type string // one of the constants; others are passed over

	// Address is the recipient's. Without it the address of the delivery's person
	// counts, as far as it is still the one that the mail went to.
	Address string

	// MessageID is the Message-ID of the mail, DeliveryID the id of its delivery. One
	// of them is enough; with neither the event is about the address alone.
	MessageID, DeliveryID string

	// Permanent says of a bounce that the address is of no use any more.
	Permanent bool

	// Reason is what the recipient's server said; may be empty.
	Reason string

	// At is when it happened; zero when the provider did not say.
	At time.Time
}

// digest is the same for repetitions of one event.
func (m MailEvent) digest() string {
	at := ""
	if !m.At.IsZero() {
		at = m.At.UTC().Format(time.RFC3339Nano)
	}
	return messageDigest(strings.Join([]string{"mail event", m.Type, strings.ToLower(m.Address), m.MessageID, m.DeliveryID, fmt.Sprint(m.Permanent), at}, "\x1f"))
}

// mailChanges are what an event makes of a delivery, and of which. The conditions
// carry the order: a mail that was taken may still come back, one that came back for
// good never arrives, and who complains has it.
var mailChanges = map[string]struct{ set, where string }{
	MailDelivered: {
		"[[status]] = 'delivered', [[reason]] = '', [[explanation]] = '', [[deliveredAt]] = {:at}, [[nextAttemptAt]] = ''",
		"([[status]] IN ('pending', 'sending', 'accepted', 'unknown') OR [[status]] = 'failed' AND [[reason]] = '" + ReasonUndelivered + "')",
	},
	MailBounced: {
		"[[status]] = 'failed', [[reason]] = '" + ReasonUndelivered + "', [[explanation]] = {:explanation}",
		"[[status]] IN ('sending', 'accepted', 'unknown')",
	},
	mailBouncedForGood: {
		"[[status]] = 'failed', [[reason]] = '" + ReasonBounced + "', [[explanation]] = {:explanation}, [[deliveredAt]] = ''",
		"([[status]] IN ('sending', 'accepted', 'unknown') OR [[status]] = 'delivered' AND [[reason]] <> '" + ReasonComplained +
			"' OR [[status]] = 'failed' AND [[reason]] = '" + ReasonUndelivered + "')",
	},
	MailComplaint: {
		"[[status]] = CASE [[status]] WHEN 'opened' THEN 'opened' ELSE 'delivered' END, [[reason]] = '" + ReasonComplained + "', [[explanation]] = {:explanation}," +
			" [[deliveredAt]] = CASE [[deliveredAt]] WHEN '' THEN {:at} ELSE [[deliveredAt]] END",
		"([[status]] IN ('sending', 'accepted', 'unknown', 'delivered', 'opened') OR [[status]] = 'failed' AND [[reason]] = '" + ReasonUndelivered + "')",
	},
}

const mailBouncedForGood = "bounce for good"

// TakeMailEvent stores what a mail provider tells. It may be called again and in any
// order. applied is false for what is not about a mail or a person known here, and for
// a repetition.
//
// A bounce for good suppresses the address for everything, a complaint for what
// advertises.
func (s *Sender) TakeMailEvent(m MailEvent) (applied bool, err error) {
	kind := m.Type
	if kind == MailBounced && m.Permanent {
		kind = mailBouncedForGood
	}
	change, known := mailChanges[kind]
	if !known {
		return false, nil
	}
	var row *mailRow
	err = s.app.RunInTransaction(func(txApp core.App) error {
		applied = false
		var address, person string
		if row, address, person, err = s.findMail(txApp, m); err != nil || row == nil && address == "" {
			return err
		}
		res, err := txApp.DB().NewQuery("INSERT INTO {{groundwork_inbound}} ([[id]], [[at]]) VALUES ({:id}, {:at}) ON CONFLICT DO NOTHING").
			Bind(dbx.Params{"id": m.digest(), "at": dbTime(s.now())}).Execute()
		if err != nil {
			return fmt.Errorf("remember mail event: %w", err)
		}
		if first, err := res.RowsAffected(); err != nil || first == 0 {
			return err
		}
		if row != nil {
			if m.tooOld(row) {
				row = nil // about an earlier try: what became of this one is still to be told
			} else if applied, err = s.settleMail(txApp, row, change.set, change.where, m); err != nil {
				return err
			}
		}
		if address == "" {
			return nil
		}
		switch kind {
		case mailBouncedForGood:
			applied = true
			return suppressAddress(txApp, ChannelEmail, address, "", SuppressBounce)
		case MailComplaint:
			applied = true
			if err := withdrawConsents(txApp, ChannelEmail, address, sourceComplaint, person); err != nil {
				return err
			}
			return suppressAddress(txApp, ChannelEmail, address, KindPromotional, SuppressComplaint)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if applied && row != nil {
		s.counter.touch(row.Notification)
		s.log.Info("mail event", "delivery", row.ID, "notification", row.Notification, "type", m.Type, "permanent", m.Permanent)
	}
	return applied, nil
}

// mailRow is what an event needs to know of a delivery.
type mailRow struct {
	ID           string `db:"id"`
	Notification string `db:"notification"`
	User         string `db:"user"`
	Address      string `db:"address"` // masked
	AcceptedAt   string `db:"acceptedAt"`
}

// tooOld says that an event is about an earlier try of a delivery that was tried
// again since. A minute is for clocks that differ.
func (m MailEvent) tooOld(row *mailRow) bool {
	accepted := parseDBTime(row.AcceptedAt)
	return !m.At.IsZero() && !accepted.IsZero() && m.At.Before(accepted.Add(-time.Minute))
}

func (s *Sender) settleMail(txApp core.App, row *mailRow, set, where string, m MailEvent) (changed bool, err error) {
	table, err := tableName(txApp, CollectionDeliveries)
	if err != nil {
		return false, err
	}
	at := m.At
	if now := s.now(); at.IsZero() || at.After(now) {
		at = now
	}
	params := dbx.Params{"id": row.ID, "now": dbTime(s.now())}
	for name, value := range map[string]string{"at": dbTime(at), "explanation": m.explanation()} {
		if strings.Contains(set, "{:"+name+"}") {
			params[name] = value
		}
	}
	res, err := txApp.DB().NewQuery("UPDATE {{" + table + "}} SET " + set +
		", [[acceptedAt]] = CASE [[acceptedAt]] WHEN '' THEN {:now} ELSE [[acceptedAt]] END, [[updated]] = {:now} WHERE [[id]] = {:id} AND [[channel]] = 'email' AND " + where).Bind(params).Execute()
	if err != nil {
		return false, fmt.Errorf("store event of delivery %s: %w", row.ID, err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// addressPattern finds e-mail addresses in what servers say: deliveries show none.
var addressPattern = regexp.MustCompile(`<?[^\s<>"'(),;:]+@[^\s<>"'(),;:]+>?`)

func (m MailEvent) explanation() string {
	says := ""
	if reason := strings.Join(strings.Fields(strings.ToValidUTF8(m.Reason, "")), " "); reason != "" {
		reason = addressPattern.ReplaceAllString(strings.ReplaceAll(reason, "\x00", ""), "…")
		if cut := []rune(reason); len(cut) > 300 {
			reason = string(cut[:300]) + "…"
		}
		says = " It said: " + reason
	}
	switch {
	case m.Type == MailComplaint:
		return "It arrived, and this person reported it as unwanted. They get no more promotional e-mail."
	case m.Permanent:
		return "It came back: the mail server of this address takes nothing for it, and none is sent there any more." + says
	default:
		return "It did not arrive: the mail server of this address would not take it for the time being." + says
	}
}

// findMail returns the delivery that an event is about, nil when it is none of ours,
// the address in full, and whose it is; both are empty when nobody here has it.
func (s *Sender) findMail(txApp core.App, m MailEvent) (row *mailRow, address, person string, err error) {
	if address, err = NormalizeAddress(ChannelEmail, m.Address); err != nil {
		address = ""
	}
	id := m.DeliveryID
	if id == "" {
		// Our Message-ID is the delivery's id at the sender's domain.
		id, _, _ = strings.Cut(strings.Trim(strings.TrimSpace(m.MessageID), "<>"), "@")
	}
	if id != "" {
		table, err := tableName(txApp, CollectionDeliveries)
		if err != nil {
			return nil, "", "", err
		}
		row = &mailRow{}
		err = txApp.DB().Select("id", "notification", "user", "address", "acceptedAt").From(table).Where(dbx.HashExp{"id": id, "channel": string(ChannelEmail)}).One(row)
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return nil, "", "", fmt.Errorf("find delivery of a mail event: %w", err)
		case address == "":
			now, err := s.addressNow(txApp, row.User)
			if err != nil {
				return nil, "", "", err
			}
			if !isMaskOf(row.Address, now) {
				return row, "", "", nil // another one meanwhile: nothing came back from there
			}
			return row, now, row.User, nil
		case isMaskOf(row.Address, address):
			person, err := s.existing(txApp, row.User)
			return row, address, person, err
		}
		// A copy of it went to somebody else.
	}
	if address == "" {
		return nil, "", "", nil
	}
	// Not about a mail that is known here. Whoever was erased is not written down again.
	for _, form := range []string{address, strings.TrimSpace(m.Address)} {
		people, err := peopleAt(txApp, ChannelEmail, form)
		if err != nil {
			return nil, "", "", err
		}
		if len(people) > 0 {
			return nil, address, people[0], nil
		}
	}
	return nil, "", "", nil
}

// existing is the id of a person who is there; empty for one who is not.
func (s *Sender) existing(app core.App, user string) (string, error) {
	there, err := s.knowsPerson(app, user)
	if err != nil || !there {
		return "", err
	}
	return user, nil
}

func isMaskOf(masked, address string) bool {
	return address != "" && strings.EqualFold(masked, MaskAddress(ChannelEmail, address))
}

// addressNow is a person's normal e-mail address; empty for one who is gone.
func (s *Sender) addressNow(txApp core.App, user string) (string, error) {
	users, err := UsersCollection(txApp)
	if err != nil || user == "" {
		return "", err
	}
	var address string
	err = txApp.DB().Select("email").From(users.Name).Where(dbx.HashExp{"id": user}).Row(&address)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("find address of %s: %w", user, err)
	}
	normal, err := NormalizeAddress(ChannelEmail, address)
	if err != nil {
		return "", nil
	}
	return normal, nil
}
