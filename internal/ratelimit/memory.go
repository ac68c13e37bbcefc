package ratelimit

import (
	"sync"
	"time"
	"unsafe"
)

// Key names a counter. See [Limiter.Key].
type Key [16]byte

const (
	// shards divide the keys, so that requests seldom wait for each other.
	shards = 64

	// DefaultMemory bounds the ordinary counters, in bytes. The durable ones have half
	// as much beside it.
	DefaultMemory = 64 << 20

	// entryBytes is what a key costs besides its runs: its place in the map (key,
	// pointer, control byte, and the half that is empty on average) and the entry.
	entryBytes = 56 + int64(unsafe.Sizeof(entry{}))
	runBytes   = int64(unsafe.Sizeof(run{}))

	// sharedPerShard is how many counters new keys of one window share in each
	// shard once the memory is used up.
	sharedPerShard = 16
)

// memory keeps counters in memory, in a bounded number of bytes. A counter is
// never dropped while something in it still counts. When the bytes are used up,
// keys that have no counter share a fixed number of them (1,024 for each
// window): a flood of made-up keys then refuses others too early, and lets
// nobody through too often.
type memory struct {
	clock  func() int64 // nanoseconds, never back
	budget int64        // bytes per shard
	shards [shards]shard
}

type shard struct {
	mu      sync.Mutex
	entries map[Key]*entry
	shared  map[sharedKey]*entry
	bytes   int64
	sweepAt int64 // bytes at which to look for what no longer counts,
	sweptAt int64 // and when that was done last
	_       [64]byte
}

// entry is one counter. until is when nothing in it counts any more.
type entry struct {
	arrivals
	until int64
}

type sharedKey struct {
	window Window
	number byte
}

func newMemory(bytes int64) *memory {
	start := time.Now()
	m := &memory{clock: func() int64 { return int64(time.Since(start)) }, budget: bytes / shards}
	for i := range m.shards {
		m.shards[i].entries = map[Key]*entry{}
	}
	return m
}

// take counts one if the window has room. A known key always has a counter of its
// own.
func (m *memory) take(key Key, w Window, known bool) Taken {
	s := &m.shards[key[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	now, length := m.clock(), int64(w.Length)

	e := s.entries[key]
	if e == nil {
		e = s.open(key, w, now, m.budget, known)
	} else {
		e.prune(now, length)
	}
	if e.total >= w.Limit {
		return Taken{Grows: time.Duration(e.grows(now, length))}
	}
	before := cap(e.runs)
	at := e.add(stamp(w.Limit, length, now))
	s.bytes += int64(cap(e.runs)-before) * runBytes
	e.until = max(e.until, at+length)
	return Taken{OK: true, Remaining: w.Limit - e.total, Grows: time.Duration(e.grows(now, length)), at: at}
}

// change undoes a take, or makes it count again, from now on. One that has left the
// window is left alone: somebody else may have its place by now.
func (m *memory) change(key Key, w Window, at int64, again bool) {
	s := &m.shards[key[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		if e = s.shared[sharedKey{w, key[1] % sharedPerShard}]; e == nil {
			return // it left the window long ago
		}
	}
	before := cap(e.runs)
	now, length := m.clock(), int64(w.Length)
	e.prune(now, length)
	if e.remove(at) && again {
		e.until = max(e.until, e.add(stamp(w.Limit, length, now))+length)
	}
	s.bytes += int64(cap(e.runs)-before) * runBytes
}

// open returns a counter for a key that has none.
func (s *shard) open(key Key, w Window, now, budget int64, known bool) *entry {
	if need := s.bytes + entryBytes; need > max(s.sweepAt, budget/8) && (need <= budget || now-s.sweptAt > int64(time.Second)) {
		s.sweep(now)
		s.sweepAt, s.sweptAt = min(2*s.bytes, budget), now
	}
	if known || s.bytes+entryBytes <= budget {
		e := &entry{}
		s.entries[key] = e
		s.bytes += entryBytes
		return e
	}
	if s.shared == nil {
		s.shared = map[sharedKey]*entry{}
	}
	k := sharedKey{w, key[1] % sharedPerShard}
	e := s.shared[k]
	if e == nil {
		e = &entry{}
		s.shared[k] = e
	}
	e.prune(now, int64(w.Length))
	return e
}

// sweep drops the counters in which nothing counts. A Go map keeps its size when
// it is emptied: one that has become much too large is made again.
func (s *shard) sweep(now int64) {
	was := len(s.entries)
	s.bytes = 0
	for key, e := range s.entries {
		if e.until < now || e.total == 0 {
			delete(s.entries, key)
			continue
		}
		s.bytes += entryBytes + int64(cap(e.runs))*runBytes
	}
	for k, e := range s.shared {
		if e.until < now {
			delete(s.shared, k)
			continue
		}
		s.bytes += int64(cap(e.runs)) * runBytes
	}
	if len(s.entries) < was/4 {
		fresh := make(map[Key]*entry, len(s.entries))
		for key, e := range s.entries {
			fresh[key] = e
		}
		s.entries = fresh
	}
}

// size is the number of counters and the bytes they are reckoned to use.
func (m *memory) size() (keys int, bytes int64) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		keys += len(s.entries)
		bytes += s.bytes
		s.mu.Unlock()
	}
	return keys, bytes
}
