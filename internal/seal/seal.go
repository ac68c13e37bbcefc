// Package seal encrypts what must not be readable in the database: provider
// secrets and the content of account mails.
//
// It owns the format of a sealed value and the derivation of keys from
// GROUNDWORK_KEY. It does not know where the key comes from (internal/config)
// nor where sealed values are stored.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrWrongKey means that a value was sealed with another key, for another
// purpose, or was altered.
var ErrWrongKey = errors.New("this value was sealed with another GROUNDWORK_KEY, or it is damaged")

// MinKeyLength is the shortest accepted key in bytes.
const MinKeyLength = 32

const version = 1

// Box seals and opens values. It is safe for concurrent use.
type Box struct {
	key []byte
}

// New returns a Box for a master key of at least [MinKeyLength] bytes.
func New(key []byte) (*Box, error) {
	if len(key) < MinKeyLength {
		return nil, fmt.Errorf("the key has %d bytes; it needs at least %d", len(key), MinKeyLength)
	}
	return &Box{key: append([]byte(nil), key...)}, nil
}

// Seal encrypts plaintext (AES-256-GCM, random nonce). The purpose, such as
// "provider:ID", is bound to the value: opening it for another purpose fails,
// so that a sealed value cannot be moved from one row to another.
func (b *Box) Seal(purpose string, plaintext []byte) ([]byte, error) {
	aead, err := b.aead()
	if err != nil {
		return nil, err
	}
	out := make([]byte, 1+aead.NonceSize(), 1+aead.NonceSize()+len(plaintext)+aead.Overhead())
	out[0] = version
	if _, err := rand.Read(out[1:]); err != nil {
		return nil, fmt.Errorf("read random nonce: %w", err)
	}
	return aead.Seal(out, out[1:], plaintext, []byte(purpose)), nil
}

// Open decrypts a value made by [Box.Seal] for the same purpose, or returns
// [ErrWrongKey].
func (b *Box) Open(purpose string, sealed []byte) ([]byte, error) {
	aead, err := b.aead()
	if err != nil {
		return nil, err
	}
	if len(sealed) < 1+aead.NonceSize() || sealed[0] != version {
		return nil, ErrWrongKey
	}
	nonce, box := sealed[1:1+aead.NonceSize()], sealed[1+aead.NonceSize():]
	plain, err := aead.Open(nil, nonce, box, []byte(purpose))
	if err != nil {
		return nil, ErrWrongKey
	}
	return plain, nil
}

// Key derives a key of 32 bytes for one purpose, such as "rate limits". It opens
// nothing that was sealed.
func (b *Box) Key(purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, b.key, nil, "groundwork key v1 "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("derive key for %s: %w", purpose, err)
	}
	return key, nil
}

func (b *Box) aead() (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, b.key, nil, "groundwork seal v1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive seal key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return cipher.NewGCM(block)
}
