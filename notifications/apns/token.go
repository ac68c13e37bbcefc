package apns

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/sideshow/apns2/token"
)

// Apple refuses a provider token that is older than an hour, and one that
// replaces another within 20 minutes.
const (
	renewAfter    = 45 * time.Minute
	renewNotUnder = 20 * time.Minute
	// clockStep is how far the wall clock may run from the monotonic one before
	// it counts as having been set: the token's time is then wrong.
	clockStep = time.Minute
)

// signer makes the provider tokens of one key.
type signer struct {
	now func() time.Time

	mu       sync.Mutex
	token    token.Token
	header   string    // "bearer …"; empty before the first
	issued   time.Time // with the monotonic clock
	forcedAt time.Time
}

// Apple counts the tokens of a key, whoever sends them: all connections and
// providers of this process share them. They are few and stay.
var signers = struct {
	sync.Mutex
	byKey map[[sha256.Size]byte]*signer
}{byKey: map[[sha256.Size]byte]*signer{}}

// sharedSigner returns the signer of a key. It is never called for a key that
// cannot be used.
func sharedSigner(pem string, key *ecdsa.PrivateKey, keyID, teamID string) *signer {
	print := sha256.Sum256([]byte(keyID + "\x00" + teamID + "\x00" + pem))
	signers.Lock()
	defer signers.Unlock()
	s := signers.byKey[print]
	if s == nil {
		s = newSigner(key, keyID, teamID)
		signers.byKey[print] = s
	}
	return s
}

func newSigner(key *ecdsa.PrivateKey, keyID, teamID string) *signer {
	return &signer{now: time.Now, token: token.Token{AuthKey: key, KeyID: keyID, TeamID: teamID}}
}

// authorization returns the header to send.
func (s *signer) authorization() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.header != "" {
		now := s.now()
		age := now.Sub(s.issued)
		stepped := (now.Round(0).Sub(s.issued.Round(0)) - age).Abs() > clockStep
		if age >= 0 && age < renewAfter && !stepped {
			return s.header, nil
		}
	}
	if err := s.sign(); err != nil {
		return "", err
	}
	return s.header, nil
}

// renewed returns another header than the one that Apple called expired, or
// false when there was another one just now: then it is not the token's age.
func (s *signer) renewed(expired string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.header != expired {
		return s.header, true
	}
	now := s.now()
	if !s.forcedAt.IsZero() && now.Sub(s.forcedAt) < renewNotUnder {
		return "", false
	}
	s.forcedAt = now
	if err := s.sign(); err != nil {
		return "", false
	}
	return s.header, true
}

// sign makes a token. The caller holds mu.
func (s *signer) sign() error {
	if _, err := s.token.Generate(); err != nil {
		return err
	}
	s.header, s.issued = "bearer "+s.token.Bearer, s.now()
	return nil
}
