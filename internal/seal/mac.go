package seal

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// MAC returns the HMAC-SHA256 of parts under a key that only this purpose uses.
// It stands in for a value that must be recognised and not be read: without the
// master key nobody can try values against it, however few there are. Compare
// with [hmac.Equal].
//
// The parts are kept apart by their lengths: ("a", "bc") and ("ab", "c") differ.
func (b *Box) MAC(purpose string, parts ...string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, b.key, nil, "groundwork mac v1 "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("derive mac key: %w", err)
	}
	h := hmac.New(sha256.New, key)
	var length [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return h.Sum(nil), nil
}
