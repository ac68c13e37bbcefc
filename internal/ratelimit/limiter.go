package ratelimit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/pocketbase/pocketbase/core"
)

// Limiter counts. Make it with [New]; all methods may be called from any number
// of goroutines.
type Limiter struct {
	macs    sync.Pool
	memory  *memory
	durable *memory                // what the ledger has, as far as this process counted it
	shared  *redisLogs             // nil without Redis
	ledger  atomic.Pointer[ledger] // nil until [Limiter.Open]
	log     *slog.Logger
	ailing  atomic.Bool // the ledger failed, and that was logged
}

// Options of [New].
type Options struct {
	// Secret makes the keys; 32 bytes, the same in every process that shares
	// counters.
	Secret []byte

	// Memory bounds the ordinary counters in bytes; 0 means [DefaultMemory].
	Memory int64

	// Redis is the address of the Redis that processes share, such as
	// redis://:password@host:6379/0; empty means none.
	Redis string

	Log *slog.Logger // nil: [slog.Default]
}

// New returns a limiter without a counter. The error is about the address of
// Redis; whether it answers is found out later.
func New(o Options) (*Limiter, error) {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	secret := append([]byte(nil), o.Secret...)
	l := &Limiter{
		macs:    sync.Pool{New: func() any { return &keyMaker{mac: hmac.New(sha256.New, secret)} }},
		memory:  newMemory(o.Memory),
		durable: newMemory(o.Memory / 2),
		log:     o.Log,
	}
	if o.Redis != "" {
		var err error
		if l.shared, err = newRedis(o.Redis, redisTimeout, o.Log); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Open makes the tables usable, once the app's database is migrated. Until then
// durable counters are in memory.
func (l *Limiter) Open(app core.App) error {
	ledger, err := newLedger(app)
	if err != nil {
		return err
	}
	l.ledger.Store(ledger)
	return nil
}

// Close ends the use of the app's database and of Redis.
func (l *Limiter) Close() {
	l.ledger.Store(nil)
	if l.shared != nil {
		_ = l.shared.client.Close()
	}
}

// Prune deletes rows that no longer count, and corrects those that a clock which
// was put back has left in the future.
func (l *Limiter) Prune(ctx context.Context) error {
	if ledger := l.ledger.Load(); ledger != nil {
		if err := ledger.correct(ctx); err != nil {
			return err
		}
		return ledger.prune(ctx)
	}
	return nil
}

// Key returns the key of a counter. The first part says what is counted, such as
// a rule's id; no two lists of parts have the same key. It is an HMAC: what is
// stored names nobody.
func (l *Limiter) Key(parts ...string) Key {
	m := l.macs.Get().(*keyMaker)
	m.mac.Reset()
	m.text = m.text[:0]
	for _, part := range parts {
		m.text = binary.AppendUvarint(m.text, uint64(len(part)))
		m.text = append(m.text, part...)
	}
	_, _ = m.mac.Write(m.text)
	m.text = m.mac.Sum(m.text[:0])
	key := Key(m.text)
	l.macs.Put(m)
	return key
}

// keyMaker is used again and again: a key costs no memory.
type keyMaker struct {
	mac  hash.Hash
	text []byte
}

// Count is one counter: how many of what may come in how long.
type Count struct {
	Key    Key
	Window Window

	// Durable counters are rows, written before [Limiter.Take] returns, so that they
	// survive kill -9. They are for what protects an account or costs money: a take
	// costs some 0.1 ms. Limits up to 1,000.
	Durable bool

	// Known says that only somebody who was signed in once can bring this counter
	// into being. The bound on durable counters, which a flood of made-up keys
	// reaches, does not concern it.
	Known bool
}

// Slot is one take. It counts until it leaves the window, unless it is given
// back. The zero value is a refusal.
type Slot struct {
	Taken
	limiter  *Limiter
	count    Count
	row      int64 // in the ledger; 0: none
	memory   bool  // counted in memory, under memoryAt
	memoryAt int64
	shared   bool // counted in Redis, under sharedAt
	sharedAt int64
}

// Take takes one of what the window allows: Slot.OK says whether there was one,
// Slot.Grows how long it takes until there is one (Retry-After), and
// Slot.GiveBack undoes it. Never do more than Window.Limit takes succeed in any
// stretch of time as long as the window, in this process or in all that share
// the data folder (durable) or Redis.
//
// To limit something by failures, take before trying, and give back when it
// went well: thousands at once then try no more often than the limit says.
//
//	slot := limiter.Take(ctx, ratelimit.Count{
//		Key:     limiter.Key("sms prefix", "+4477"),
//		Window:  ratelimit.Window{Limit: 50, Length: time.Hour},
//		Durable: true,
//	})
//	if !slot.OK { … }
func (l *Limiter) Take(ctx context.Context, c Count) Slot {
	s := Slot{limiter: l, count: c}
	if !c.Durable {
		if l.shared != nil {
			if taken, ok := l.shared.take(c.Key, c.Window); ok {
				s.Taken, s.shared, s.sharedAt = taken, taken.OK, taken.at
				return s
			}
		}
		s.Taken = l.memory.take(c.Key, c.Window, false)
		s.memory, s.memoryAt = s.OK, s.at
		return s
	}

	// Here first, also with Redis: when Redis fails, this one knows what came.
	s.takeHere(ctx)
	if !s.OK || l.shared == nil {
		return s
	}
	if taken, ok := l.shared.take(c.Key, c.Window); ok {
		if !taken.OK {
			s.GiveBack()
			s.Taken = taken
			return s
		}
		s.Remaining = min(s.Remaining, taken.Remaining)
		s.shared, s.sharedAt = true, taken.at
	}
	return s
}

// takeHere takes in memory first: thousands at once are refused there, before one
// of them waits for the database, and what it counts still holds while the rows
// cannot be written.
func (s *Slot) takeHere(ctx context.Context) {
	l := s.limiter
	if s.Taken = l.durable.take(s.count.Key, s.count.Window, s.count.Known); !s.OK {
		return
	}
	s.memory, s.memoryAt = true, s.at
	if ledger := l.ledger.Load(); ledger != nil {
		// A client that goes away must not be able to end a take half way.
		taken, row, err := ledger.take(context.WithoutCancel(ctx), s.count)
		if err == nil {
			l.ailing.Store(false)
			if !taken.OK {
				s.GiveBack()
			}
			taken.Remaining = min(taken.Remaining, s.Remaining)
			s.Taken, s.row = taken, row
			return
		}
		if l.ailing.CompareAndSwap(false, true) {
			l.log.Error("rate limits cannot be written: they are counted in memory only until they can", "error", err)
		}
	}
}

// GiveBack undoes a take, as if it had never been. One that was refused, and one
// that was given back already, is left alone.
func (s *Slot) GiveBack() { s.change(false) }

// Touch makes a take count from now on instead of from when it was taken: what
// was tried meanwhile is over now. A take that has left the window stays where it is.
func (s *Slot) Touch() { s.change(true) }

func (s *Slot) change(again bool) {
	if !s.OK {
		return
	}
	s.OK = again
	l := s.limiter
	if s.row != 0 {
		if ledger := l.ledger.Load(); ledger != nil {
			ctx, cancel := context.WithTimeout(context.Background(), ledgerTimeout)
			defer cancel()
			var err error
			if again {
				err = ledger.touch(ctx, s.row, s.count.Window)
			} else {
				err = ledger.giveBack(ctx, s.row)
			}
			if err != nil && l.ailing.CompareAndSwap(false, true) {
				l.log.Error("a rate limit cannot be changed: the request counts as it is", "error", err)
			}
		}
	}
	if s.memory {
		m := l.memory
		if s.count.Durable {
			m = l.durable
		}
		m.change(s.count.Key, s.count.Window, s.memoryAt, again)
	}
	if s.shared {
		l.shared.change(s.count.Key, s.count.Window, s.sharedAt, again)
	}
}
