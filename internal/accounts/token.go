package accounts

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
)

// ClaimSession is the claim that names a token's session, in auth and in file
// tokens.
const ClaimSession = "sid"

// Claims are what a token says about itself. Nobody has checked it.
type Claims struct {
	ID          string  `json:"id"`
	Collection  string  `json:"collectionId"`
	Type        string  `json:"type"`
	Session     string  `json:"sid"`
	Refreshable bool    `json:"refreshable"`
	ExpiresUnix float64 `json:"exp"` // seconds
}

// Expires is when the token stops working by itself.
func (c Claims) Expires() time.Time { return time.Unix(int64(c.ExpiresUnix), 0) }

// Holder is the one that the token claims to be made for.
func (c Claims) Holder() Holder {
	return Holder{Collection: c.Collection, Record: c.ID, Session: c.Session, Expires: c.Expires()}
}

// ReadClaims reads a token without checking its signature or its age. It reports
// false when the text is no token.
func ReadClaims(token string) (Claims, bool) {
	var c Claims
	_, rest, ok := strings.Cut(token, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(signature, ".") {
		return c, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(raw, &c) != nil {
		return Claims{}, false
	}
	return c, true
}

// WithSession returns token with the claim that names its session, signed again.
// Nothing else in it changes. The token must be one of record's, for signing in
// or for files.
func WithSession(token string, record *core.Record, session string) (string, error) {
	claims, ok := ReadClaims(token)
	if !ok || claims.ID != record.Id || claims.Collection != record.Collection().Id {
		return "", errors.New("add session to token: it is not a token of this record")
	}
	var secret string
	switch claims.Type {
	case core.TokenTypeAuth:
		secret = record.Collection().AuthToken.Secret
	case core.TokenTypeFile:
		secret = record.Collection().FileToken.Secret
	default:
		return "", fmt.Errorf("add session to token: a token of type %q has none", claims.Type)
	}
	key := record.TokenKey() + secret
	all, err := security.ParseJWT(token, key)
	if err != nil {
		return "", fmt.Errorf("add session to token: %w", err)
	}
	all[ClaimSession] = session
	signed, err := security.NewJWT(all, key, 0) // the claim exp that is in it counts, not the 0
	if err != nil {
		return "", fmt.Errorf("add session to token: %w", err)
	}
	return signed, nil
}
