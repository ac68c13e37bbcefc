package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"
)

// What these tests count is to be found in rows, however busy the machine is.
func init() { ledgerTimeout = patience }

func newDurable(t *testing.T) (*Limiter, core.App) {
	t.Helper()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { _ = app.ClearBootstrap() })
	l, err := New(Options{Secret: make([]byte, 32)})
	require.NoError(t, err)
	require.NoError(t, l.Open(app))
	return l, app
}

// The rows themselves say it, by SQLite's clock, with several limiters as in
// several processes.
func TestNoWindowHoldsMoreThanTheLimitOnDisk(t *testing.T) {
	t.Parallel()
	l, app := newDurable(t)
	other, err := New(Options{Secret: make([]byte, 32)})
	require.NoError(t, err)
	require.NoError(t, other.Open(app))
	for _, w := range []Window{{1, 20 * time.Millisecond}, {5, 50 * time.Millisecond}, {40, 100 * time.Millisecond}} {
		count := Count{Key: l.Key("property", fmt.Sprint(w)), Window: w, Durable: true}
		var wg sync.WaitGroup
		var kept atomic.Int64
		deadline := time.Now().Add(patience)
		for i := range 6 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), 3))
				for kept.Load() <= int64(2*w.Limit) && time.Now().Before(deadline) {
					slot := []*Limiter{l, other}[i%2].Take(t.Context(), count)
					switch {
					case slot.OK && rnd.IntN(8) == 0:
						slot.GiveBack()
						continue
					case slot.OK && rnd.IntN(2) == 0:
						slot.Touch()
					}
					if slot.OK {
						kept.Add(1)
					}
				}
			})
		}
		wg.Wait()
		var stamps []int64
		require.NoError(t, app.AuxDB().NewQuery("SELECT [[at]] FROM {{groundwork_limit_arrivals}} WHERE [[key]] = {:key}").
			Bind(dbx.Params{"key": count.Key[:]}).Column(&stamps))
		require.LessOrEqual(t, most(stamps, w.Length.Milliseconds()), w.Limit)
		require.Greater(t, len(stamps), 2*w.Limit)
	}
}

func TestDurableCountersSurviveARestart(t *testing.T) {
	t.Parallel()
	l, app := newDurable(t)
	count := Count{Key: l.Key("codes"), Window: Window{5, time.Hour}, Durable: true}
	for i := range 5 {
		slot := l.Take(t.Context(), count)
		require.True(t, slot.OK)
		require.Equal(t, 4-i, slot.Remaining)
		require.LessOrEqual(t, slot.Grows, time.Hour+2*time.Millisecond)
	}
	again, err := New(Options{Secret: make([]byte, 32)})
	require.NoError(t, err)
	require.NoError(t, again.Open(app))
	slot := again.Take(t.Context(), count)
	require.False(t, slot.OK)
	require.Greater(t, slot.Grows, 59*time.Minute)

	// In the rows there is nothing but keyed hashes and times.
	var keys [][]byte
	require.NoError(t, app.AuxDB().NewQuery("SELECT DISTINCT [[key]] FROM {{groundwork_limit_arrivals}}").Column(&keys))
	require.Equal(t, [][]byte{count.Key[:]}, keys)
}

// Somebody set the clock ahead and back again: what was counted meanwhile counts
// for one window, and not until that day comes.
func TestAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	l, app := newDurable(t)
	running, err := New(Options{Secret: make([]byte, 32)}) // as another process: it has nothing of this in memory
	require.NoError(t, err)
	require.NoError(t, running.Open(app))
	count := Count{Key: l.Key("codes"), Window: Window{1, time.Minute}, Durable: true}
	require.True(t, l.Take(t.Context(), count).OK)
	ahead := func() {
		_, err := app.AuxNonconcurrentDB().NewQuery("UPDATE {{groundwork_limit_arrivals}} SET [[at]] = [[at]] + 86400000, [[until]] = [[until]] + 86400000").Execute()
		require.NoError(t, err)
	}
	ahead()
	require.Greater(t, running.Take(t.Context(), count).Grows, time.Hour)
	require.NoError(t, running.Prune(t.Context()))
	require.LessOrEqual(t, running.Take(t.Context(), count).Grows, time.Minute+time.Second)

	ahead()
	require.False(t, l.Take(t.Context(), count).OK)
	again, err := New(Options{Secret: make([]byte, 32)})
	require.NoError(t, err)
	require.NoError(t, again.Open(app))
	slot := again.Take(t.Context(), count)
	require.False(t, slot.OK)
	require.LessOrEqual(t, slot.Grows, time.Minute+time.Second)
}

func TestAFloodOfDurableKeysIsBounded(t *testing.T) {
	t.Parallel()
	l, app := newDurable(t)
	l.ledger.Load().limit, l.ledger.Load().share = 100, 8
	w := Window{2, time.Hour}
	take := func(name string, known bool) bool {
		return l.Take(t.Context(), Count{Key: l.Key(name), Window: w, Durable: true, Known: known}).OK
	}
	require.True(t, take("victim", false))
	require.True(t, take("victim", false))
	passed := 0
	for i := range 300 {
		if take(fmt.Sprint("flood", i), false) {
			passed++
		}
	}
	require.Equal(t, 98+8*2, passed, "what has no counter of its own shares one of eight")
	require.False(t, take("victim", false), "nobody gets their tries back by it")
	require.True(t, take("owner at home", true))
	require.True(t, take("owner at home", true))
	require.False(t, take("owner at home", true))
	var shared int
	require.NoError(t, app.AuxDB().NewQuery("SELECT COUNT(*) FROM {{groundwork_limit_arrivals}} WHERE hex(substr([[key]], 1, 6)) = hex('2/3600')").Row(&shared))
	require.Positive(t, shared)
}

// When the rows cannot be written, counting goes on in memory: closed, not open.
func TestWithoutTheTables(t *testing.T) {
	t.Parallel()
	l, app := newDurable(t)
	_, err := app.AuxNonconcurrentDB().NewQuery("DROP TABLE {{groundwork_limit_arrivals}}").Execute()
	require.NoError(t, err)
	count := Count{Key: l.Key("codes"), Window: Window{5, time.Hour}, Durable: true}
	n := 0
	for range 20 {
		if slot := l.Take(t.Context(), count); slot.OK {
			n++
		}
	}
	require.Equal(t, 5, n)
	again, err := New(Options{Secret: make([]byte, 32)})
	require.NoError(t, err)
	require.NoError(t, again.Open(app), "the next start makes them again")
	slot := again.Take(t.Context(), count)
	require.True(t, slot.OK)
	require.NotZero(t, slot.row)
}

// A database that stops taking rows in the middle opens nothing: this process
// knows what it counted.
func TestTheTablesGoInTheMiddle(t *testing.T) {
	t.Parallel()
	l, app := newDurable(t)
	count := Count{Key: l.Key("codes"), Window: Window{5, time.Hour}, Durable: true}
	for range 3 {
		require.True(t, l.Take(t.Context(), count).OK)
	}
	_, err := app.AuxNonconcurrentDB().NewQuery("DROP TABLE {{groundwork_limit_arrivals}}").Execute()
	require.NoError(t, err)
	n := 0
	for range 20 {
		if l.Take(t.Context(), count).OK {
			n++
		}
	}
	require.Equal(t, 2, n)
}

func TestKnownAddresses(t *testing.T) {
	t.Parallel()
	l, app := newDurable(t)
	ctx := t.Context()
	ana, bea := l.Account("users", "ana"), l.Account("users", "bea")
	require.False(t, l.Knows(ctx, ana, "home"))
	require.NoError(t, l.Remember(ctx, ana, "home"))
	require.True(t, l.Knows(ctx, ana, "home"))
	require.False(t, l.Knows(ctx, bea, "home"))
	require.NoError(t, l.Remember(ctx, bea, "home"))
	var distinct int
	require.NoError(t, app.AuxDB().NewQuery("SELECT COUNT(DISTINCT [[address]]) FROM {{groundwork_known_addresses}}").Row(&distinct))
	require.Equal(t, 2, distinct, "the table does not say that two people share an address")

	_, err := app.AuxNonconcurrentDB().NewQuery("UPDATE {{groundwork_known_addresses}} SET [[seenAt]] = [[seenAt]] - 7200000").Execute()
	require.NoError(t, err)
	for i := range knownPerAccount - 1 {
		require.NoError(t, l.Remember(ctx, ana, fmt.Sprint("hotel", i)))
	}
	require.True(t, l.Knows(ctx, ana, "home"))
	require.NoError(t, l.Remember(ctx, ana, "one more"))
	require.False(t, l.Knows(ctx, ana, "home"), "the oldest makes room")
	require.NoError(t, l.Forget(ctx, ana))
	require.False(t, l.Knows(ctx, ana, "one more"))
	require.True(t, l.Knows(ctx, bea, "home"))
}
