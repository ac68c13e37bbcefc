package accounts

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// Names of the fields that phone sign-in needs in an auth collection.
const (
	FieldPhone         = "phone"
	FieldPhoneVerified = "phoneVerified"
)

// PhoneOwner is whose account a phone number leads to.
type PhoneOwner int

// Answers of [FindByPhone] beside an account. In all of them nobody is signed in.
const (
	// PhoneUnknown: no account has the number.
	PhoneUnknown PhoneOwner = iota

	// PhoneFound: the returned account is the one.
	PhoneFound

	// PhoneAmbiguous: several accounts have it, and none has proved it.
	PhoneAmbiguous

	// PhoneClaimed: an account has it, which nobody but its owner says.
	PhoneClaimed
)

// FindByPhone returns the account that the holder of a phone number may enter.
//
// A number that was verified leads to the account that verified it; whoever else
// writes it into theirs changes nothing. There is at most one such account.
//
// A number that nobody has verified is a claim, and a claim may be false: a slip
// of the finger would open one person's account to another, and an attacker who
// writes a victim's number into an account of their own (whose e-mail address they
// keep, and with it a way back in) would have the victim fill it. So such a number
// leads somewhere only when both hold:
//
//   - Exactly one account has it. Of two, one would be the wrong one.
//   - People can not write the field themselves, so that the claim is the
//     administrator's or the application's word; see [PhoneIsClosed]. Elsewhere
//     people first sign in as they did before and verify the number.
//
// PocketBase's e-mail codes work on the same ground: an address that was never
// verified leads to the one account that has it.
func FindByPhone(app core.App, collection *core.Collection, phone string) (*core.Record, PhoneOwner, error) {
	verified, err := findPhones(app, collection, phone, true)
	switch {
	case err != nil:
		return nil, PhoneUnknown, err
	case len(verified) == 1:
		return verified[0], PhoneFound, nil
	case len(verified) > 1:
		return nil, PhoneAmbiguous, nil // only without the unique index, in a collection that had such fields before
	}
	claims, err := findPhones(app, collection, phone, false)
	switch {
	case err != nil:
		return nil, PhoneUnknown, err
	case len(claims) == 0:
		return nil, PhoneUnknown, nil
	case !PhoneIsClosed(collection):
		return nil, PhoneClaimed, nil
	case len(claims) > 1:
		return nil, PhoneAmbiguous, nil
	default:
		return claims[0], PhoneFound, nil
	}
}

// findPhones returns at most two accounts.
func findPhones(app core.App, collection *core.Collection, phone string, verified bool) ([]*core.Record, error) {
	var found []*core.Record
	// "!= ''" lets SQLite use the partial indexes.
	err := app.RecordQuery(collection).
		AndWhere(dbx.NewExp("[[phone]] = {:phone} AND [[phone]] != ''", dbx.Params{"phone": phone})).
		AndWhere(dbx.NewExp(map[bool]string{true: "[[phoneVerified]] = 1", false: "[[phoneVerified]] != 1"}[verified])).
		Limit(2).All(&found)
	if err != nil {
		return nil, fmt.Errorf("find accounts of %s by phone: %w", collection.Name, err)
	}
	return found, nil
}

// PhoneIsTaken says whether another account than record has verified a number.
func PhoneIsTaken(app core.App, record *core.Record, phone string) (bool, error) {
	verified, err := findPhones(app, record.Collection(), phone, true)
	if err != nil {
		return false, err
	}
	for _, other := range verified {
		if other.Id != record.Id {
			return true, nil
		}
	}
	return false, nil
}

// phoneFieldID is the id of the phone field where Groundwork has made it.
const phoneFieldID = "gw_users_phone"

// PhoneIsClosed says whether nobody but an administrator and the application's own
// code could ever write the phone of a collection's records: the field is hidden
// and was so from its first day, or the API rules let nobody create or change
// records.
func PhoneIsClosed(c *core.Collection) bool {
	f := c.Fields.GetByName(FieldPhone)
	if f == nil {
		return false
	}
	if f.GetId() == phoneFieldID {
		return f.GetHidden()
	}
	return c.CreateRule == nil && c.UpdateRule == nil && c.ManageRule == nil
}

// HasPhone says whether the records of an auth collection have a phone and whether
// it is verified. phoneVerified is then the server's alone.
func HasPhone(c *core.Collection) bool {
	if !c.IsAuth() || c.Name == core.CollectionNameSuperusers {
		return false
	}
	phone, verified := c.Fields.GetByName(FieldPhone), c.Fields.GetByName(FieldPhoneVerified)
	return phone != nil && phone.Type() == core.FieldTypeText &&
		verified != nil && verified.Type() == core.FieldTypeBool && verified.GetSystem()
}

// FindRecord returns the account with that id, nil when there is none.
func FindRecord(app core.App, collection *core.Collection, id string) (*core.Record, error) {
	record, err := app.FindRecordById(collection, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find account: %w", err)
	}
	return record, nil
}
