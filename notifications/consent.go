package notifications

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// What advertises needs consent. A consent is a row of notification_consents about
// one person, channel and address, and the latest one counts: a row with granted off
// takes back what the rows before it gave. Nobody changes a row or deletes it.

// Fields of notification_consents.
const (
	ConsentUser       = "user"
	ConsentChannel    = "channel"
	ConsentKind       = "kind"
	ConsentGranted    = "granted"
	ConsentSource     = "source"
	ConsentWording    = "wording"
	ConsentVersion    = "wordingVersion"
	ConsentAddress    = "address"
	ConsentRecordedBy = "recordedBy"
	ConsentIP         = "ip"
	ConsentUserAgent  = "userAgent"
)

// Values of recordedBy.
const (
	RecordedByPerson    = "person"
	RecordedBySuperuser = "superuser"
	RecordedByServer    = "server"
)

// Sources of the rows that the server makes.
const (
	sourceStop        = "STOP"
	sourceStart       = "START"
	sourceUnsubscribe = "unsubscribe link"
	sourceUndo        = "unsubscribe link, undone"
	sourceComplaint   = "complaint"
)

// ConsentAddressOf is the address on a channel that a consent of a person is about;
// empty when they have none, and for push.
func ConsentAddressOf(user *core.Record, channel Channel) string {
	address := ""
	switch channel {
	case ChannelEmail:
		address = user.Email()
	case ChannelSMS:
		address = user.GetString("phone")
	}
	normal, err := NormalizeAddress(channel, address)
	if err != nil {
		return ""
	}
	return normal
}

// CheckConsent says what is missing in a new consent. The error is [FieldErrors].
//
// SMS needs more than e-mail: the law asks for the consent of whoever has the
// number. A person's own word counts for a number that a code has verified; for
// another one a superuser vouches, who has it on paper or from an earlier system.
func CheckConsent(consent, user *core.Record) error {
	errs := FieldErrors{}
	channel := Channel(consent.GetString(ConsentChannel))
	if channel == ChannelSMS || channel == ChannelEmail {
		if consent.GetString(ConsentAddress) == "" {
			missing := "This person has no e-mail address that a consent could be about: add one first."
			if channel == ChannelSMS {
				missing = "This person has no phone number that a consent could be about: add one first."
			}
			errs.add(ConsentChannel, "no_address", missing)
		} else if channel == ChannelSMS && consent.GetBool(ConsentGranted) && consent.GetString(ConsentRecordedBy) == RecordedByPerson && !user.GetBool("phoneVerified") {
			errs.add(ConsentChannel, "phone_unverified", "Verify the phone number first: only its owner can agree to text messages.")
		}
	}
	if consent.GetBool(ConsentGranted) {
		if strings.TrimSpace(consent.GetString(ConsentWording)) == "" {
			errs.add(ConsentWording, "required", "Write the exact words that the person agreed to.")
		}
		if strings.TrimSpace(consent.GetString(ConsentSource)) == "" {
			errs.add(ConsentSource, "required", "Write where it was given, such as: sign-up form.")
		}
	}
	return errs.orNil()
}

// consentState is what the latest row about an address says.
type consentState int

const (
	consentNone consentState = iota // nobody said anything
	consentGranted
	consentUnproven // granted by the person, who has not shown that the address is theirs
	consentWithdrawn
)

// addWithoutConsent adds to blocked the rows whose people have not agreed: one query
// for all of them. SMS needs a consent for the very number that it goes to, e-mail
// too unless it is assumed; on every channel a withdrawal counts. People often agree
// before they have opened the link that verifies their e-mail address: their word counts
// from then on, as anybody can write somebody else's address into a form.
func (s *Sender) addWithoutConsent(blocked map[string]block, channel Channel, rows []*deliveryRow, targets map[string]target) error {
	table, err := tableName(s.app, CollectionConsents)
	if err != nil {
		return err
	}
	people, err := UsersCollection(s.app)
	if err != nil {
		return err
	}
	var found []struct {
		User     string `db:"user"`
		Address  string `db:"address"`
		Granted  bool   `db:"granted"`
		Unproven bool   `db:"unproven"`
	}
	err = s.app.ConcurrentDB().NewQuery("SELECT c.[[user]], c.[[address]], c.[[granted]], c.[[recordedBy]] = {:person} AND c.[[channel]] = {:email} AND u.[[verified]] IS NOT TRUE AS [[unproven]]" +
		" FROM json_each({:users}) j CROSS JOIN {{" + table + "}} c ON c.[[user]] = j.value AND c.[[channel]] = {:channel} AND c.[[kind]] = 'promotional'" +
		" LEFT JOIN {{" + people.Name + "}} u ON u.[[id]] = c.[[user]] ORDER BY c.[[created]], c.[[rowid]]").
		Bind(dbx.Params{"users": mustJSON(usersOf(rows)), "channel": string(channel), "person": RecordedByPerson, "email": string(ChannelEmail)}).All(&found)
	if err != nil {
		return fmt.Errorf("find consents: %w", err)
	}
	type about struct{ user, address string }
	latest := make(map[about]consentState, len(found))
	for _, f := range found {
		state := consentWithdrawn
		switch {
		case f.Granted && f.Unproven:
			state = consentUnproven
		case f.Granted:
			state = consentGranted
		}
		latest[about{f.User, f.Address}] = state
	}
	required := channel == ChannelSMS || channel == ChannelEmail && !s.opts.AssumeEmailConsent
	for _, row := range rows {
		address := targets[row.ID].address
		if channel == ChannelPush {
			address = ""
		} else if normal, err := NormalizeAddress(channel, address); err == nil {
			address = normal
		}
		if _, already := blocked[row.ID]; already || address == "" && channel != ChannelPush {
			continue
		}
		switch state := latest[about{row.User, address}]; {
		case state == consentWithdrawn:
			blocked[row.ID] = block{ReasonNoConsent, "This person took back the consent to promotional " + channelWord(channel) + "."}
		case state == consentUnproven && required:
			blocked[row.ID] = block{ReasonNoConsent, "This person agreed to promotional e-mail and has not verified the address yet: somebody else may have written it."}
		case state == consentNone && required:
			blocked[row.ID] = block{ReasonNoConsent, "Nobody recorded that this person agrees to promotional " + channelWord(channel) +
				" at this address: see notification_consents."}
		}
	}
	return nil
}

func channelWord(channel Channel) string {
	switch channel {
	case ChannelSMS:
		return "SMS"
	case ChannelEmail:
		return "e-mail"
	default:
		return "messages on this channel"
	}
}

// withdrawConsents stores that whoever has an address wants no promotional messages
// there any more: all whose address it is, and the one who is known to have it. It adds
// nothing where the latest row says so already.
func withdrawConsents(txApp core.App, channel Channel, address, source, known string) error {
	people, err := peopleAt(txApp, channel, address)
	if err != nil {
		return err
	}
	if known != "" && !slices.Contains(people, known) {
		people = append(people, known)
	}
	for _, user := range people {
		rows, err := consentsOf(txApp, user, channel, address)
		if err != nil {
			return err
		}
		if len(rows) > 0 && !rows[len(rows)-1].GetBool(ConsentGranted) {
			continue
		}
		if err := addConsent(txApp, map[string]any{ConsentUser: user, ConsentChannel: string(channel), ConsentAddress: address, ConsentGranted: false, ConsentSource: source}); err != nil {
			return err
		}
	}
	return nil
}

// restoreConsents takes back the withdrawals that came from a source, where a consent
// was there before: the words are those that the person agreed to then.
func restoreConsents(txApp core.App, channel Channel, address, withdrawnBy, source string) error {
	people, err := peopleAt(txApp, channel, address)
	if err != nil {
		return err
	}
	for _, user := range people {
		rows, err := consentsOf(txApp, user, channel, address)
		if err != nil {
			return err
		}
		n := len(rows)
		if n < 2 || rows[n-1].GetBool(ConsentGranted) || rows[n-1].GetString(ConsentRecordedBy) != RecordedByServer || rows[n-1].GetString(ConsentSource) != withdrawnBy ||
			!rows[n-2].GetBool(ConsentGranted) {
			continue
		}
		before := rows[n-2]
		err = addConsent(txApp, map[string]any{ConsentUser: user, ConsentChannel: string(channel), ConsentAddress: address, ConsentGranted: true, ConsentSource: source,
			ConsentWording: before.GetString(ConsentWording), ConsentVersion: before.GetString(ConsentVersion)})
		if err != nil {
			return err
		}
	}
	return nil
}

func addConsent(txApp core.App, fields map[string]any) error {
	collection, err := txApp.FindCachedCollectionByNameOrId(CollectionConsents)
	if err != nil {
		return fmt.Errorf("find collection %s: %w", CollectionConsents, err)
	}
	consent := core.NewRecord(collection)
	consent.Load(fields)
	consent.Set(ConsentKind, string(KindPromotional))
	consent.Set(ConsentRecordedBy, RecordedByServer)
	if err := txApp.SaveWithContext(AsServer(context.Background()), consent); err != nil {
		return fmt.Errorf("save consent: %w", err)
	}
	return nil
}

// consentsOf are the rows about one person and address, the latest last.
func consentsOf(app core.App, user string, channel Channel, address string) ([]*core.Record, error) {
	var rows []*core.Record
	err := app.RecordQuery(CollectionConsents).
		AndWhere(dbx.HashExp{ConsentUser: user, ConsentChannel: string(channel), ConsentAddress: address, ConsentKind: string(KindPromotional)}).
		OrderBy("created", "rowid").All(&rows)
	if err != nil {
		return nil, fmt.Errorf("find consents of %s: %w", user, err)
	}
	return rows, nil
}

// maxPeopleAt is how many people may share an address before the rest is left to the
// list of suppressed ones, which counts by address anyway.
const maxPeopleAt = 100

// peopleAt returns the ids of the people whose normal address this is, or was when
// they agreed.
func peopleAt(app core.App, channel Channel, address string) ([]string, error) {
	users, err := UsersCollection(app)
	if err != nil {
		return nil, err
	}
	table, err := tableName(app, CollectionConsents)
	if err != nil {
		return nil, err
	}
	var agreed, have []string
	err = app.DB().NewQuery("SELECT DISTINCT c.[[user]] FROM {{" + table + "}} c WHERE c.[[channel]] = {:channel} AND c.[[address]] = {:address} LIMIT {:max}").
		Bind(dbx.Params{"channel": string(channel), "address": address, "max": maxPeopleAt}).Column(&agreed)
	if err != nil {
		return nil, fmt.Errorf("find whose consents are about an address: %w", err)
	}
	column := "email"
	if channel == ChannelSMS {
		column = "phone"
	}
	err = app.DB().NewQuery("SELECT [[id]] FROM {{" + users.Name + "}} WHERE [[" + column + "]] != '' AND [[" + column + "]] = {:address} LIMIT {:max}").
		Bind(dbx.Params{"address": address, "max": maxPeopleAt}).Column(&have)
	if err != nil {
		return nil, fmt.Errorf("find who has an address: %w", err)
	}
	all := append(agreed, have...)
	slices.Sort(all)
	return slices.Compact(all), nil
}

// DefaultSMSOptOut tells the reader of a promotional text how to stop it.
const DefaultSMSOptOut = "Reply STOP to opt out"

// stopPattern finds the word in capitals, as instructions have it. A non-stop sale is
// none.
var stopPattern = regexp.MustCompile(`[^\w\-]STOP(?:[^\w\-!]|$)`)

// SaysSTOP reports whether a text tells its reader of the word STOP. At the beginning, as
// a cry, and in a text that is all in capitals the word may be anything, so that it does
// not count there.
func SaysSTOP(text string) bool {
	return stopPattern.MatchString(text) && strings.ToUpper(text) != text
}

// WithOptOut is a promotional SMS as it leaves: with words by which its reader stops
// it, unless its author wrote them. Count its [Segments], not those of the text
// alone.
func WithOptOut(text, words string) string {
	if SaysSTOP(text) || strings.Contains(text, words) {
		return text
	}
	return strings.TrimRight(text, " \n\t\r") + "\n" + words
}

// SMSText is the text of an SMS as this sender lets it leave.
func (s *Sender) SMSText(kind Kind, text string) string {
	if kind != KindPromotional {
		return text
	}
	return WithOptOut(text, orElse(s.opts.SMSOptOut, DefaultSMSOptOut))
}
