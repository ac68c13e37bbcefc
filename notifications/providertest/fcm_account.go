package providertest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const fcmScope = "https://www.googleapis.com/auth/firebase.messaging"

// One key per process: making one takes longer than most tests.
var fcmKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// FCMAccount is a service account as the Firebase console hands it out.
type FCMAccount struct {
	ProjectID   string
	ClientEmail string
	KeyID       string
	TokenURI    string
	Key         *rsa.PrivateKey
}

// NewFCMAccount makes a service account of a project. All of one process share
// one key.
func NewFCMAccount(project, tokenURI string) (*FCMAccount, error) {
	key, err := fcmKey()
	if err != nil {
		return nil, fmt.Errorf("make service account: %w", err)
	}
	sum := sha256.Sum256(key.N.Bytes())
	return &FCMAccount{ProjectID: project, ClientEmail: "sender@" + project + ".iam.gserviceaccount.example.com", KeyID: hex.EncodeToString(sum[:20]), TokenURI: tokenURI, Key: key}, nil
}

// JSON is the file's text: an FCM provider's secret.
func (a *FCMAccount) JSON() (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.Key)
	if err != nil {
		return "", fmt.Errorf("encode service account: %w", err)
	}
	raw, err := json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": a.ProjectID, "private_key_id": a.KeyID,
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": a.ClientEmail, "client_id": "100000000000000000000", "token_uri": a.TokenURI, "universe_domain": "googleapis.com",
	}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode service account: %w", err)
	}
	return string(raw), nil
}

// FCMTokenFault is what the token route does.
type FCMTokenFault int

// Faults of the token route.
const (
	FCMTokenFine         FCMTokenFault = iota
	FCMTokenBadSignature               // invalid_grant: the key is not the account's any more
	FCMTokenNoAccount                  // invalid_grant: the account was deleted
	FCMTokenClock                      // invalid_grant: the assertion's time is off
	FCMTokenClient                     // 401 invalid_client
	FCMTokenForbidden                  // 403 without a word
	FCMTokenUnavailable                // 503 with Retry-After: 7
	FCMTokenGarbage                    // 200 and HTML
	FCMTokenNoAnswer                   // takes the request and never answers
	FCMTokenReset                      // takes the request and hangs up
)

func (s *FCM) serveToken(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code, description string) {
		writeJSON(w, status, map[string]string{"error": code, "error_description": description})
	}
	s.mu.Lock()
	s.tokenRequests++
	fault, hold := s.now.Token, s.now.HoldToken
	released, done := s.released, s.done
	s.wake()
	s.mu.Unlock()
	if hold {
		select {
		case <-released:
		case <-done:
		case <-r.Context().Done():
		}
	}
	if err := r.ParseForm(); err != nil || r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		refuse(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+r.PostForm.Get("grant_type"))
		return
	}
	switch fault {
	case FCMTokenBadSignature:
		refuse(http.StatusBadRequest, "invalid_grant", "Invalid JWT Signature.")
		return
	case FCMTokenNoAccount:
		refuse(http.StatusBadRequest, "invalid_grant", "Invalid grant: account not found")
		return
	case FCMTokenClock:
		refuse(http.StatusBadRequest, "invalid_grant", fcmTimeRefusal)
		return
	case FCMTokenClient:
		refuse(http.StatusUnauthorized, "invalid_client", "The OAuth client was not found.")
		return
	case FCMTokenForbidden:
		w.WriteHeader(http.StatusForbidden)
		return
	case FCMTokenUnavailable:
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case FCMTokenGarbage:
		writeHTML(w, http.StatusOK)
		return
	case FCMTokenNoAnswer:
		select {
		case <-done:
		case <-r.Context().Done():
		}
		return
	case FCMTokenReset:
		hangUp(w)
		return
	}
	if code, description := s.account.judge(r.PostForm.Get("assertion"), time.Now()); code != "" {
		refuse(http.StatusBadRequest, code, description)
		return
	}
	raw := make([]byte, 24)
	_, _ = rand.Read(raw)
	token := "ya29.double-" + base64.RawURLEncoding.EncodeToString(raw)
	life := s.opts.TokenLife
	s.mu.Lock()
	s.bearers[token] = time.Now().Add(life)
	s.tokensIssued++
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"access_token": token, "expires_in": int(life.Seconds()), "token_type": "Bearer"})
}

const fcmTimeRefusal = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."

// judge checks a signed assertion as Google does (RFC 7523). code is empty when
// it is good.
func (a *FCMAccount) judge(assertion string, now time.Time) (code, description string) {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return "invalid_request", "Bad Request"
	}
	var header struct{ Alg, Typ, Kid string }
	var claims struct {
		Iss, Scope, Aud string
		Iat, Exp        int64
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || decodePart(parts[0], &header) != nil || decodePart(parts[1], &claims) != nil {
		return "invalid_grant", "Invalid JWT: it cannot be decoded."
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	switch {
	case header.Alg != "RS256" || header.Typ != "JWT":
		return "invalid_grant", "Invalid JWT: the algorithm must be RS256."
	case header.Kid != a.KeyID:
		return "invalid_grant", "Invalid JWT Signature."
	case rsa.VerifyPKCS1v15(&a.Key.PublicKey, crypto.SHA256, digest[:], signature) != nil:
		return "invalid_grant", "Invalid JWT Signature."
	case claims.Iss != a.ClientEmail:
		return "invalid_grant", "Invalid grant: account not found"
	case claims.Aud != a.TokenURI:
		return "invalid_grant", "Invalid JWT: Failed audience check."
	case claims.Iat > now.Add(time.Minute).Unix() || claims.Exp <= now.Unix() || claims.Exp-claims.Iat > 3600:
		return "invalid_grant", fcmTimeRefusal
	case !slices.Contains(strings.Fields(claims.Scope), fcmScope) || len(strings.Fields(claims.Scope)) != 1:
		return "invalid_scope", "Invalid OAuth scope or ID token audience provided."
	}
	return "", ""
}

func decodePart(part string, into any) error {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}
