package providertest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// APNsKey is a key such as Apple's developer account gives out.
type APNsKey struct {
	// PEM is the text of the .p8 file.
	PEM    string
	Public *ecdsa.PublicKey
}

// NewAPNsKey makes a key.
func NewAPNsKey() (*APNsKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make APNs key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make APNs key: %w", err)
	}
	return &APNsKey{PEM: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), Public: &key.PublicKey}, nil
}

// apnsBearer is a bearer token that was looked at.
type apnsBearer struct {
	reason string // why it is refused; empty: it is good
	issued time.Time
}

var apnsSuffixes = map[string]string{
	"alert": "", "background": "", "location": ".location-query", "voip": ".voip", "complication": ".complication", "fileprovider": ".pushkit.fileprovider",
	"mdm": "", "liveactivity": ".push-type.liveactivity", "pushtotalk": ".voip-ptt",
}

// judge finds what Apple would refuse. The zero value is a push in order.
func (a *APNs) judge(r *apnsStream, certificate bool) APNsScript {
	bad := func(reason string) APNsScript { return APNsScript{Status: 400, Reason: reason} }
	token, ok := strings.CutPrefix(r.path, "/3/device/")
	r.token = token
	switch {
	case r.method != "POST":
		return APNsScript{Status: 405, Reason: "MethodNotAllowed"}
	case !ok:
		return APNsScript{Status: 404, Reason: "BadPath"}
	}
	if !certificate {
		if refusal := a.judgeBearer(r.authorization); refusal.Status != 0 {
			return refusal
		}
	}
	suffix, known := apnsSuffixes[r.pushType]
	topic := strings.TrimSuffix(r.topic, suffix)
	switch {
	case r.duplicate:
		return bad("DuplicateHeaders")
	case r.apnsID != "" && !isUUID(r.apnsID):
		return bad("BadMessageId")
	case r.expiration != "" && !isDigits(r.expiration):
		return bad("BadExpirationDate")
	case len(r.collapseID) > 64:
		return bad("BadCollapseId")
	case r.priority != "" && r.priority != "10" && r.priority != "5" && r.priority != "1":
		return bad("BadPriority")
	case !known:
		return bad("InvalidPushType")
	case r.pushType == "background" && r.priority != "5":
		return bad("BadPriority")
	case r.topic == "":
		return bad("MissingTopic")
	case !strings.HasSuffix(r.topic, suffix):
		return bad("BadTopic")
	case len(a.topics) > 0 && !a.topics[topic]:
		return bad("TopicDisallowed")
	case len(r.body) == 0:
		return bad("PayloadEmpty")
	case len(r.body) > 5120, len(r.body) > 4096 && r.pushType != "voip":
		return APNsScript{Status: 413, Reason: "PayloadTooLarge"}
	case !hasAPS(r.body):
		return bad("PayloadEmpty")
	case token == "":
		return bad("MissingDeviceToken")
	case len(token) < 64 || len(token)%2 != 0 || !isHexadecimal(token):
		return bad("BadDeviceToken")
	}
	return APNsScript{}
}

func hasAPS(body []byte) bool {
	if bytes.HasPrefix(body, []byte(`{"aps":{`)) {
		return json.Valid(body)
	}
	var payload struct {
		APS *map[string]json.RawMessage `json:"aps"`
	}
	return json.Unmarshal(body, &payload) == nil && payload.APS != nil
}

func isDigits(s string) bool {
	_, err := strconv.ParseUint(s, 10, 63)
	return err == nil
}

func isHexadecimal(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (s[i] == '-') || !dash && !isHexadecimal(s[i:i+1]) {
			return false
		}
	}
	return true
}

const apnsTokenAge = time.Hour

// judgeBearer looks at the authorization header.
func (a *APNs) judgeBearer(header string) APNsScript {
	bad := func(reason string) APNsScript { return APNsScript{Status: 403, Reason: reason} }
	a.mu.Lock()
	defer a.mu.Unlock()
	b, seen := a.bearers[header]
	if !seen {
		b = a.readBearer(header)
		if b.reason != "MissingProviderToken" {
			a.bearers[header] = b
		}
	}
	if b.reason != "" {
		return bad(b.reason)
	}
	now := time.Now()
	if age := now.Sub(b.issued); age > apnsTokenAge || age < -apnsTokenAge {
		a.expired = true
		return bad("ExpiredProviderToken")
	}
	if header == a.bearer {
		return APNsScript{}
	}
	life := a.opts.TokenLife
	if life == 0 {
		life = 20 * time.Minute
	}
	if a.bearer != "" && !a.expired && now.Sub(a.bearerAt) < life {
		a.bearers429++
		return APNsScript{Status: 429, Reason: "TooManyProviderTokenUpdates"}
	}
	a.bearer, a.bearerAt, a.expired = header, now, false
	return APNsScript{}
}

// readBearer verifies a token. It shares no code with who signs them.
func (a *APNs) readBearer(header string) apnsBearer {
	kind, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(kind, "bearer") || token == "" {
		return apnsBearer{reason: "MissingProviderToken"}
	}
	invalid := apnsBearer{reason: "InvalidProviderToken"}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return invalid
	}
	var raw [3][]byte
	for i, part := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return invalid
		}
	}
	var head struct{ Alg, Kid string }
	var claims struct {
		Iss string
		Iat int64
	}
	if json.Unmarshal(raw[0], &head) != nil || json.Unmarshal(raw[1], &claims) != nil || head.Alg != "ES256" || len(raw[2]) != 64 || claims.Iat == 0 {
		return invalid
	}
	if a.opts.KeyID != "" && head.Kid != a.opts.KeyID || a.opts.TeamID != "" && claims.Iss != a.opts.TeamID {
		return invalid
	}
	if a.opts.Key != nil {
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		if !ecdsa.Verify(a.opts.Key, sum[:], new(big.Int).SetBytes(raw[2][:32]), new(big.Int).SetBytes(raw[2][32:])) {
			return invalid
		}
	}
	return apnsBearer{issued: time.Unix(claims.Iat, 0)}
}
