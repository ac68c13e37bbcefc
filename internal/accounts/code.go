package accounts

import (
	"crypto/hmac"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// Purpose says what a code is good for. A code of one purpose is unknown to the
// other.
type Purpose string

// Purposes of codes.
const (
	PurposeSignIn      Purpose = "sign_in"
	PurposeVerifyPhone Purpose = "verify_phone"
)

// MaxTries is how often a code may be guessed at. The right one counts too: after
// the fifth wrong one it is dead.
const MaxTries = 5

// ErrNoCode means that there is no such code: it never was, was used, has died or
// run out, or is for something else.
var ErrNoCode = errors.New("no such code, or it is used, dead or expired")

// Keyed is what codes need of the installation's key.
type Keyed interface {
	Seal(purpose string, plaintext []byte) ([]byte, error)
	Open(purpose string, sealed []byte) ([]byte, error)
	MAC(purpose string, parts ...string) ([]byte, error)
}

// Codes are the codes that were asked for by phone. They are in a table of their
// own and not in PocketBase's _otps: that one has rows for existing accounts only,
// so that a request for an unknown number would do less work and leave nothing
// behind to guess at.
//
// A code is stored as an HMAC under the installation's key, not as bcrypt: a code
// of a few digits is found by trying all of them, whatever a single try costs,
// unless a key is missing. The HMAC covers everything that the code is good for.
type Codes struct{ Key Keyed }

// Code is a code as it is made.
type Code struct {
	ID         string // the otpId
	Purpose    Purpose
	Collection string // id
	Record     string // id of the account; empty when there is none
	Phone      string // E.164

	// TokenKey is the account's: when it changes, its codes die with its tokens.
	TokenKey string

	// Digits is the code itself. Empty makes one that nothing matches.
	Digits string

	ExpiresAt time.Time
}

// Make stores a code.
func (c Codes) Make(txApp core.App, code Code) error {
	digest := make([]byte, 32)
	_, _ = rand.Read(digest) // never fails: it ends the process instead
	right, err := c.digest(code.ID, code.Purpose, code.Collection, code.Record, code.Phone, code.TokenKey, code.Digits)
	if err != nil {
		return err
	}
	if code.Digits != "" {
		digest = right
	}
	sealed, err := c.Key.Seal(sealPurpose(code.ID), []byte(code.Phone))
	if err != nil {
		return fmt.Errorf("seal phone of code: %w", err)
	}
	_, err = txApp.DB().Insert("groundwork_phone_codes", dbx.Params{"id": code.ID, "purpose": string(code.Purpose), "collection": code.Collection, "record": code.Record,
		"phone": sealed, "digest": digest, "tries": 0, "expiresAt": code.ExpiresAt.UnixMilli()}).Execute()
	if err != nil {
		return fmt.Errorf("store code: %w", err)
	}
	return nil
}

// Stored is a code that may be compared once.
type Stored struct {
	codes      Codes
	ID         string
	Purpose    Purpose
	Collection string
	Record     string // empty: no account had the number
	Phone      string
	digest     []byte
}

// Try takes one of the tries of a code. It is counted before anything is
// compared, so that tries at the same moment do not get one more. The error is
// [ErrNoCode] when there is nothing to compare with.
func (c Codes) Try(app core.App, id string, purpose Purpose, collection string) (*Stored, error) {
	res, err := app.NonconcurrentDB().NewQuery("UPDATE {{groundwork_phone_codes}} SET [[tries]] = [[tries]] + 1" +
		" WHERE [[id]] = {:id} AND [[purpose]] = {:purpose} AND [[collection]] = {:collection} AND [[tries]] < {:max} AND [[expiresAt]] > {:now}").
		Bind(dbx.Params{"id": id, "purpose": string(purpose), "collection": collection, "max": MaxTries, "now": time.Now().UnixMilli()}).Execute()
	if err != nil {
		return nil, fmt.Errorf("count the try of a code: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return nil, errors.Join(err, ErrNoCode)
	}
	var row struct {
		Record string `db:"record"`
		Phone  []byte `db:"phone"`
		Digest []byte `db:"digest"`
	}
	err = app.NonconcurrentDB().Select("record", "phone", "digest").From("groundwork_phone_codes").Where(dbx.HashExp{"id": id}).One(&row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNoCode // used in this moment
	}
	if err != nil {
		return nil, fmt.Errorf("read code: %w", err)
	}
	phone, err := c.Key.Open(sealPurpose(id), row.Phone)
	if err != nil {
		return nil, ErrNoCode // made under another key
	}
	return &Stored{codes: c, ID: id, Purpose: purpose, Collection: collection, Record: row.Record, Phone: string(phone), digest: row.Digest}, nil
}

// Known says whether an id is that of a code of this purpose, dead or alive.
func (c Codes) Known(app core.App, id string, purpose Purpose) (bool, error) {
	var n int
	err := app.ConcurrentDB().Select("count(*)").From("groundwork_phone_codes").Where(dbx.HashExp{"id": id, "purpose": string(purpose)}).Row(&n)
	if err != nil {
		return false, fmt.Errorf("look for code: %w", err)
	}
	return n > 0, nil
}

// Matches compares in constant time. tokenKey is the account's as it is now; empty
// when there is none.
func (s *Stored) Matches(digits, tokenKey string) (bool, error) {
	digest, err := s.codes.digest(s.ID, s.Purpose, s.Collection, s.Record, s.Phone, tokenKey, digits)
	if err != nil {
		return false, err
	}
	return hmac.Equal(digest, s.digest), nil
}

// Use takes a code out of the world. The error is [ErrNoCode] when somebody was
// faster.
func (s *Stored) Use(txApp core.App) error {
	res, err := txApp.DB().Delete("groundwork_phone_codes", dbx.HashExp{"id": s.ID}).Execute()
	if err != nil {
		return fmt.Errorf("use code: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrNoCode)
	}
	return nil
}

// Forget deletes the codes of an account, with the sealed numbers in them.
func (c Codes) Forget(txApp core.App, record *core.Record) error {
	_, err := txApp.DB().Delete("groundwork_phone_codes", dbx.HashExp{"collection": record.Collection().Id, "record": record.Id}).Execute()
	if err != nil {
		return fmt.Errorf("delete codes of account %s: %w", record.Id, err)
	}
	return nil
}

// Prune deletes the codes that have run out.
func (c Codes) Prune(app core.App) error {
	_, err := app.NonconcurrentDB().Delete("groundwork_phone_codes", dbx.NewExp("[[expiresAt]] <= {:now}", dbx.Params{"now": time.Now().UnixMilli()})).Execute()
	if err != nil {
		return fmt.Errorf("delete expired codes: %w", err)
	}
	return nil
}

func (c Codes) digest(id string, purpose Purpose, collection, record, phone, tokenKey, digits string) ([]byte, error) {
	digest, err := c.Key.MAC("phone code", id, string(purpose), collection, record, phone, tokenKey, digits)
	if err != nil {
		return nil, fmt.Errorf("hash code: %w", err)
	}
	return digest, nil
}

// sealPurpose binds a sealed number to its code.
func sealPurpose(id string) string { return "phone code:" + id }
