package webpush

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// NewKey makes a private key: 32 bytes as base64url, without padding.
func NewKey() (string, error) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make VAPID key: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(key.Bytes()), nil
}

var errBadKey = errors.New("the private VAPID key (secret) is 32 bytes in base64url, as npx web-push generate-vapid-keys prints it")

// PublicKey returns the public key of a private one: the uncompressed point as
// base64url without padding, which is what a browser takes as
// applicationServerKey. The error is a sentence without its capital and full stop.
func PublicKey(private string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(private), "="))
	if err != nil {
		return "", errBadKey
	}
	key, err := ecdh.P256().NewPrivateKey(raw)
	if err != nil {
		return "", errBadKey
	}
	return base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()), nil
}
