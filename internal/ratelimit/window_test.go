package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// most is the largest number of times within one window, both ends included.
func most(times []int64, length int64) int {
	slices.Sort(times)
	best, first := 0, 0
	for i, t := range times {
		for times[first] < t-length {
			first++
		}
		best = max(best, i-first+1)
	}
	return best
}

func newTestMemory(bytes int64) (*memory, *int64) {
	m := newMemory(bytes)
	now := new(int64)
	m.clock = func() int64 { return *now }
	return m, now
}

// No window of the set length ever holds more than the limit, for any arrivals,
// and a client that comes rarely enough is never refused.
func TestNoWindowHoldsMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := Window{Limit: 1 + rnd.IntN(200), Length: time.Duration(1+rnd.IntN(100)) * time.Millisecond}
		m, now := newTestMemory(DefaultMemory)
		var passed []int64
		var slots []Taken
		for range 3000 {
			// Bursts at one instant, trickles, pauses of about a window.
			switch rnd.IntN(10) {
			case 0, 1, 2, 3, 4:
			case 5, 6, 7:
				*now += rnd.Int64N(int64(w.Length)/int64(w.Limit)*2 + 1)
			case 8:
				*now += rnd.Int64N(int64(w.Length) / 4)
			default:
				*now += int64(w.Length) - rnd.Int64N(3) + 1
			}
			switch taken := m.take(Key{1}, w, false); {
			case taken.OK:
				require.Positive(t, taken.Grows)
				passed = append(passed, *now)
				slots = append(slots, taken)
			default:
				require.Positive(t, taken.Grows)
				require.LessOrEqual(t, taken.Grows, w.Length+w.Length/steps+1)
				if rnd.IntN(50) == 0 { // as told: it passes then, and not a moment before
					*now += int64(taken.Grows) - 1
					require.False(t, m.take(Key{1}, w, false).OK)
					*now++
					again := m.take(Key{1}, w, false)
					require.True(t, again.OK)
					passed, slots = append(passed, *now), append(slots, again)
				}
			}
			if len(slots) > 0 && rnd.IntN(20) == 0 { // given back: as if it had never been
				last := len(slots) - 1
				m.change(Key{1}, w, slots[last].at, false)
				passed, slots = passed[:last], slots[:last]
			}
		}
		require.LessOrEqual(t, most(slices.Clone(passed), int64(w.Length)), w.Limit, "seed %d, %+v", seed, w)
		require.Greater(t, len(passed), w.Limit, "seed %d", seed)
	}
}

func TestARareClientIsNeverRefused(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 5, 64, 65, 300, 5000} {
		w := Window{Limit: limit, Length: 10 * time.Second}
		m, now := newTestMemory(DefaultMemory)
		for i := range 3 * limit {
			require.True(t, m.take(Key{}, w, false).OK, "limit %d, arrival %d", limit, i)
			*now += int64(w.Length)/int64(limit)*66/64 + 2
		}
	}
}

// Also with a real clock and many at once.
func TestNoWindowHoldsMoreThanTheLimitConcurrently(t *testing.T) {
	t.Parallel()
	for _, w := range []Window{{1, 5 * time.Millisecond}, {7, 20 * time.Millisecond}, {64, 30 * time.Millisecond}, {500, 50 * time.Millisecond}} {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			t.Parallel()
			m := newMemory(DefaultMemory)
			stamped := m.clock
			var mu sync.Mutex
			var last int64
			m.clock = func() int64 { last = stamped(); return last } // under the shard's lock
			var passed []int64
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 20_000 {
						mu.Lock() // the time of a take, as the counter saw it
						taken := m.take(Key{9}, w, false)
						if taken.OK {
							passed = append(passed, last)
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, most(passed, int64(w.Length)), w.Limit)
		})
	}
}

func TestTenThousandAtOnce(t *testing.T) {
	t.Parallel()
	l, err := New(Options{Secret: make([]byte, 32)})
	require.NoError(t, err)
	key := l.Key("codes", "somebody")
	var passed sync.Map
	var wg sync.WaitGroup
	for i := range 10_000 {
		wg.Go(func() {
			if slot := l.Take(t.Context(), Count{Key: key, Window: Window{5, 10 * time.Minute}}); slot.OK {
				passed.Store(i, true)
			}
		})
	}
	wg.Wait()
	n := 0
	passed.Range(func(any, any) bool { n++; return true })
	require.Equal(t, 5, n)
}

func TestAFloodOfKeysIsBounded(t *testing.T) {
	t.Parallel()
	const budget = 4 << 20
	l, err := New(Options{Secret: make([]byte, 32), Memory: budget})
	require.NoError(t, err)
	now := int64(0)
	l.memory.clock = func() int64 { return now }
	w := Window{3, time.Minute}

	victim := l.Key("rule", "victim")
	for range 3 {
		require.True(t, l.memory.take(victim, w, false).OK)
	}
	passed := 0
	for i := range 200_000 {
		if l.memory.take(l.Key("rule", fmt.Sprint(i)), w, false).OK {
			passed++
		}
	}
	keys, bytes := l.memory.size()
	require.LessOrEqual(t, bytes, int64(budget)+shards*sharedPerShard*(steps+2)*runBytes)
	require.Less(t, keys, 200_000)
	require.LessOrEqual(t, passed, keys+shards*sharedPerShard*w.Limit, "what has no counter of its own shares one")
	require.False(t, l.memory.take(victim, w, false).OK, "no flood gives somebody their tries back")

	now += int64(w.Length) + int64(time.Second)
	require.True(t, l.memory.take(l.Key("rule", "later"), w, false).OK)
	for i := range 20_000 {
		require.True(t, l.memory.take(l.Key("rule", fmt.Sprint("new", i)), w, false).OK)
	}
}

// An arrival late in a step counts as long as one early in it, at least.
func TestStepsNeverForgetTooEarly(t *testing.T) {
	t.Parallel()
	w := Window{Limit: 100, Length: 6400 * time.Millisecond} // steps of 100 ms
	m, now := newTestMemory(DefaultMemory)
	*now = int64(99 * time.Millisecond)
	for range 100 {
		require.True(t, m.take(Key{}, w, false).OK)
	}
	*now += int64(w.Length)
	require.False(t, m.take(Key{}, w, false).OK)
	*now += int64(time.Millisecond) + 1
	require.True(t, m.take(Key{}, w, false).OK)
}
