package ratelimit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// Limiter counts. Make it with [New]; all methods may be called from any number
// of goroutines.
type Limiter struct {
	macs   sync.Pool
	memory *memory
}

// Options of [New].
type Options struct {
	// Secret makes the keys; 32 bytes, the same in every process that shares
	// counters.
	Secret []byte

	// Memory bounds the ordinary counters in bytes; 0 means [DefaultMemory].
	Memory int64
}

// New returns a limiter without a counter.
func New(o Options) *Limiter {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	secret := append([]byte(nil), o.Secret...)
	return &Limiter{
		macs:   sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }},
		memory: newMemory(o.Memory),
	}
}

// Key returns the key of a counter. The first part says what is counted, such as
// a rule's id; no two lists of parts have the same key.
func (l *Limiter) Key(parts ...string) Key {
	mac := l.macs.Get().(hash.Hash)
	mac.Reset()
	var room [256]byte
	text := room[:0]
	for _, part := range parts {
		text = binary.AppendUvarint(text, uint64(len(part)))
		text = append(text, part...)
	}
	_, _ = mac.Write(text)
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	l.macs.Put(mac)
	return Key(sum[:len(Key{})])
}

// Slot is one take. It counts until it leaves the window, unless it is given
// back.
type Slot struct {
	Taken
	limiter *Limiter
	key     Key
	window  Window
}

// Take takes one of what the window allows for that key.
func (l *Limiter) Take(ctx context.Context, key Key, w Window) Slot {
	return Slot{Taken: l.memory.take(key, w), limiter: l, key: key, window: w}
}

// GiveBack undoes a take, as if it had never been. A refused one, and one given
// back already, is left alone.
func (s *Slot) GiveBack() {
	if s.OK {
		s.OK = false
		s.limiter.memory.giveBack(s.key, s.window, s.at)
	}
}
