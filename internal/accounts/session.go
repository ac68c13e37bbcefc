package accounts

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"strings"
	"time"
)

// CollectionSessions is the id of the collection sessions, which an administrator
// may rename.
const CollectionSessions = "gw_sessions"

// Kind is how a session began.
type Kind string

const (
	// KindSignIn is a password, a code, OAuth2, or application code.
	KindSignIn Kind = "sign_in"
	// KindImpersonation is a superuser who acts as somebody else.
	KindImpersonation Kind = "impersonation"
	// KindSetup is the one-time link for the first superuser.
	KindSetup Kind = "setup"
	// KindLegacy stands for all tokens of one account that name no session: those
	// from before Groundwork, and those that Go code makes by itself.
	KindLegacy Kind = "legacy"
)

var (
	// ErrEnded means that the token's session was ended.
	ErrEnded = errors.New("the session was ended")
	// ErrWithoutSession means that the token names no session where one is needed.
	ErrWithoutSession = errors.New("the token has no session")
)

// Holder is who a token was made for. Session is empty for one that names none.
type Holder struct {
	Collection, Record, Session string
	Expires                     time.Time
}

// Key is the id of the session's row.
func (h Holder) Key() string {
	if h.Session != "" {
		return h.Session
	}
	return LegacyID(h.Collection, h.Record)
}

func (h Holder) same(other Holder) bool {
	return h.Collection == other.Collection && h.Record == other.Record && h.Session == other.Session
}

var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// LegacyID is the id of the one row that stands for an account's tokens without
// a session. It is made of the account's, so that two processes make the same.
func LegacyID(collection, record string) string {
	sum := sha256.Sum256([]byte("groundwork legacy session\x00" + collection + "\x00" + record))
	return idEncoding.EncodeToString(sum[:10])[:15]
}

// isID reports whether s could be the id of a session.
func isID(s string) bool {
	return len(s) == 15 && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}
