package providertest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// webPushRefusal is what is wrong with a request.
type webPushRefusal struct {
	status int
	why    string
}

var (
	webPushTopic   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)
	webPushUrgency = map[string]bool{"": true, "very-low": true, "low": true, "normal": true, "high": true}
)

// judge holds a request against RFC 8030, 8188, 8291 and 8292.
func (s *WebPush) judge(r *http.Request, b *WebPushSubscription, body []byte) (*WebPushMessage, *webPushRefusal) {
	refuse := func(status int, format string, args ...any) (*WebPushMessage, *webPushRefusal) {
		return nil, &webPushRefusal{status, fmt.Sprintf(format, args...)}
	}
	switch {
	case b == nil:
		return refuse(http.StatusNotFound, "no such subscription")
	case r.Method != http.MethodPost:
		return refuse(http.StatusMethodNotAllowed, "%s", r.Method)
	case len(body) > 4096:
		return refuse(http.StatusRequestEntityTooLarge, "the body has %d bytes", len(body))
	case len(r.Header.Values("TTL")) != 1 || len(r.Header.Values("Topic")) > 1 || len(r.Header.Values("Urgency")) > 1:
		return refuse(http.StatusBadRequest, "TTL is there once, Topic and Urgency at most once")
	}
	m := &WebPushMessage{Urgency: r.Header.Get("Urgency"), Topic: r.Header.Get("Topic"), Length: len(body)}
	var err error
	if m.TTL, err = strconv.Atoi(r.Header.Get("TTL")); err != nil || m.TTL < 0 || m.TTL > 2419200 {
		return refuse(http.StatusBadRequest, "TTL %q", r.Header.Get("TTL"))
	}
	if !webPushUrgency[m.Urgency] {
		return refuse(http.StatusBadRequest, "Urgency %q", m.Urgency)
	}
	if m.Topic != "" && !webPushTopic.MatchString(m.Topic) {
		return refuse(http.StatusBadRequest, "Topic %q", m.Topic)
	}
	if r.Header.Get("Content-Encoding") != "aes128gcm" {
		return refuse(http.StatusBadRequest, "Content-Encoding %q", r.Header.Get("Content-Encoding"))
	}
	claims, key, err := VerifyVAPID(r.Header.Get("Authorization"))
	now := s.opts.Now()
	switch {
	case err != nil:
		return refuse(http.StatusUnauthorized, "invalid JWT provided: %v", err)
	case b.serverKey != "" && key != b.serverKey:
		return refuse(http.StatusForbidden, "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.")
	case claims.Audience != s.audience():
		return refuse(http.StatusForbidden, "invalid JWT provided: aud %q", claims.Audience)
	case !claims.Expires.After(now) || claims.Expires.After(now.Add(24*time.Hour)):
		return refuse(http.StatusForbidden, "invalid JWT provided: exp %s", claims.Expires)
	case !strings.HasPrefix(claims.Subject, "mailto:") && !strings.HasPrefix(claims.Subject, "https://"), strings.HasSuffix(claims.Subject, "localhost"):
		return refuse(http.StatusForbidden, "invalid JWT provided: sub %q", claims.Subject)
	}
	m.Subject = claims.Subject
	// What follows a push service cannot do: it is the browser's part.
	if m.Payload, err = DecryptWebPush(b.private, b.auth, body); err != nil {
		return refuse(http.StatusBadRequest, "the browser cannot read it: %v", err)
	}
	return m, nil
}

// VAPIDClaims is what a sender says about itself.
type VAPIDClaims struct {
	Audience string
	Subject  string
	Expires  time.Time
}

var vapidHeader = regexp.MustCompile(`^vapid t=([\w-]+\.[\w-]+)\.([\w-]+), ?k=([\w-]+)$`)

// VerifyVAPID reads the header of RFC 8292 and checks its signature; whether the
// claims suit is the caller's to judge. key is the public key as it stands there.
func VerifyVAPID(header string) (claims VAPIDClaims, key string, err error) {
	parts := vapidHeader.FindStringSubmatch(header)
	if parts == nil {
		return claims, "", errors.New("the header is not of the scheme vapid with t and k")
	}
	rawKey, errKey := base64.RawURLEncoding.DecodeString(parts[3])
	signature, errSignature := base64.RawURLEncoding.DecodeString(parts[2])
	if errKey != nil || errSignature != nil || len(signature) != 64 {
		return claims, "", errors.New("key or signature cannot be decoded")
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), rawKey)
	if err != nil {
		return claims, "", fmt.Errorf("key: %w", err)
	}
	hash := sha256.Sum256([]byte(parts[1]))
	if !ecdsa.Verify(public, hash[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return claims, "", errors.New("the signature is not of this key")
	}
	encodedHead, encodedBody, _ := strings.Cut(parts[1], ".")
	var head struct{ Typ, Alg string }
	var body struct {
		Aud string `json:"aud"`
		Sub string `json:"sub"`
		Exp int64  `json:"exp"`
	}
	for encoded, into := range map[string]any{encodedHead: &head, encodedBody: &body} {
		raw, err := base64.RawURLEncoding.DecodeString(encoded)
		if err == nil {
			err = json.Unmarshal(raw, into)
		}
		if err != nil {
			return claims, "", fmt.Errorf("read token: %w", err)
		}
	}
	if head.Alg != "ES256" {
		return claims, "", fmt.Errorf("alg %q", head.Alg)
	}
	return VAPIDClaims{body.Aud, body.Sub, time.Unix(body.Exp, 0)}, parts[3], nil
}

// DecryptWebPush is the browser's part of RFC 8291: it reads a body of one record
// (RFC 8188) with the private key and the secret of a subscription.
func DecryptWebPush(private *ecdh.PrivateKey, auth, body []byte) ([]byte, error) {
	if len(body) < 21 {
		return nil, errors.New("the header is cut off")
	}
	salt, size, length := body[:16], binary.BigEndian.Uint32(body[16:20]), int(body[20])
	if length != 65 || len(body) < 21+length {
		return nil, errors.New("the sender's key does not have 65 bytes")
	}
	rawKey, record := body[21:21+length], body[21+length:]
	if len(record) < 18 || size < 18 || uint32(len(record)) > size {
		return nil, fmt.Errorf("a record of %d bytes, announced as %d", len(record), size)
	}
	sender, err := ecdh.P256().NewPublicKey(rawKey)
	if err != nil {
		return nil, fmt.Errorf("the sender's key: %w", err)
	}
	secret, err := private.ECDH(sender)
	if err != nil {
		return nil, fmt.Errorf("agree on a secret: %w", err)
	}
	derive := func(secret, salt []byte, info string, n int) []byte {
		key, _ := hkdf.Key(sha256.New, secret, salt, info, n) // fails only for lengths that are not used here
		return key
	}
	ikm := derive(secret, auth, "WebPush: info\x00"+string(private.PublicKey().Bytes())+string(rawKey), 32)
	block, err := aes.NewCipher(derive(ikm, salt, "Content-Encoding: aes128gcm\x00", 16))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, derive(ikm, salt, "Content-Encoding: nonce\x00", 12), record, nil)
	if err != nil {
		return nil, errors.New("it was encrypted for another browser, or altered")
	}
	end := len(plain) - 1
	for end >= 0 && plain[end] == 0 {
		end--
	}
	if end < 0 || plain[end] != 2 {
		return nil, errors.New("the padding of the last record does not begin with 2")
	}
	return plain[:end], nil
}
