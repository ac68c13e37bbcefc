package notifications

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// take acquires n places and says whether that many were to be had at once.
func take(t *testing.T, g *Gate, n int) bool {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for range n {
		if _, ok := g.try(false); !ok {
			return false
		}
	}
	return true
}

func allowed(g *Gate) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int(g.limit)
}

func TestGateStartsLowAndGrowsOnlyWhenFull(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{MaxInFlight: 4}, 0)
	require.Equal(t, 1, allowed(g))

	require.NoError(t, g.Acquire(t.Context()))
	g.Release(Outcome{Kind: Accepted})
	require.Equal(t, 2, allowed(g))

	// One at a time proves nothing about three.
	for range 10 {
		require.NoError(t, g.Acquire(t.Context()))
		g.Release(Outcome{Kind: Accepted})
	}
	require.Equal(t, 2, allowed(g))

	for range 20 {
		n := allowed(g)
		for range n {
			require.NoError(t, g.Acquire(t.Context()))
		}
		for range n {
			g.Release(Outcome{Kind: RecipientBlocked}) // the server answered
		}
	}
	require.Equal(t, 4, allowed(g), "the adapter's limit is the ceiling")
}

func TestGateHoldsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{StartInFlight: 2, MaxInFlight: 2}, 0)
		require.True(t, take(t, g, 2))
		require.False(t, take(t, g, 1))

		through := make(chan error, 1)
		go func() { through <- g.Acquire(t.Context()) }()
		synctest.Wait()
		require.Empty(t, through)
		g.Release(Outcome{Kind: Accepted})
		require.NoError(t, <-through)
	})
}

func TestGateHalvesOncePerRound(t *testing.T) {
	t.Parallel()
	for _, bad := range []Outcome{{Kind: Retry, ProviderDown: true}, {Kind: Ambiguous}} {
		g := newGate(Limits{StartInFlight: 16, MaxInFlight: 64}, 0)
		for range 16 {
			require.NoError(t, g.Acquire(t.Context()))
		}
		for range 16 {
			g.Release(bad)
		}
		require.Equal(t, 8, allowed(g), "16 answers to one overload are one sign, not 16")

		require.NoError(t, g.Acquire(t.Context()))
		g.Release(bad)
		require.Equal(t, 4, allowed(g))
	}
}

func TestGateTellsOneRecipientFromOverload(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{StartInFlight: 8, MaxInFlight: 8}, 0)
	round := func(refused int) {
		for range 8 {
			require.NoError(t, g.Acquire(t.Context()))
		}
		for i := range 8 {
			if i < refused {
				g.Release(Outcome{Kind: Retry, RetryAfter: 5 * time.Minute})
			} else {
				g.Release(Outcome{Kind: Accepted})
			}
		}
	}
	round(3)
	require.Equal(t, 8, allowed(g), "greylisting of a few says nothing about the rest")
	require.True(t, g.pausedUntil.IsZero())
	round(8)
	require.Equal(t, 4, allowed(g))
}

func TestGateIgnoresWhatWasNotHandedOver(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{StartInFlight: 4, MaxInFlight: 8}, 0)
	for _, o := range []Outcome{{}, {Kind: ConfigBad}} {
		require.NoError(t, g.Acquire(t.Context()))
		g.Release(o)
		require.Equal(t, 4, allowed(g))
	}
	require.True(t, take(t, g, 4), "their places are free again")
}

func TestGateHonoursRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{StartInFlight: 2}, 0)
		start := time.Now()
		require.NoError(t, g.Acquire(t.Context()))
		g.Release(Outcome{Kind: Retry, ProviderDown: true, RetryAfter: 30 * time.Second})
		require.NoError(t, g.Acquire(t.Context()))
		require.Equal(t, 30*time.Second, time.Since(start))

		g.Release(Outcome{Kind: Retry, ProviderDown: true, RetryAfter: 240 * time.Hour})
		require.NoError(t, g.Acquire(t.Context()))
		require.Equal(t, 30*time.Second+maxGatePause, time.Since(start), "no provider can silence us for days")

		g.Release(Outcome{Kind: Retry, ProviderDown: true, RetryAfter: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.Acquire(ctx), context.DeadlineExceeded)
	})
}

func TestGateRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			rate float64
			want time.Duration // for 11 messages
		}{{0.5, 20 * time.Second}, {10, time.Second}, {20, 500 * time.Millisecond}} {
			g := newGate(Limits{StartInFlight: 100}, tt.rate)
			start := time.Now()
			for range 11 {
				require.NoError(t, g.Acquire(t.Context()))
				g.Release(Outcome{Kind: Accepted})
			}
			require.Equal(t, tt.want, time.Since(start), "%v a second", tt.rate)
		}

		// A high rate over a while, and it does not save up while idle.
		g := newGate(Limits{StartInFlight: 100}, 1000)
		time.Sleep(time.Hour) // idle, on a clock that waits for nobody
		start := time.Now()
		for range 1051 {
			require.NoError(t, g.Acquire(t.Context()))
			g.Release(Outcome{Kind: Accepted})
		}
		require.InDelta(t, time.Second, time.Since(start), float64(2*time.Millisecond))
	})
}

func TestGateUrgentFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{}, 0)
		require.NoError(t, g.Acquire(t.Context()))

		var mu sync.Mutex
		var order []string
		through := func(who string, acquire func(context.Context) error) {
			if acquire(t.Context()) == nil {
				mu.Lock()
				order = append(order, who)
				mu.Unlock()
				g.Release(Outcome{})
			}
		}
		for range 5 {
			go through("broadcast", g.Acquire)
		}
		synctest.Wait()
		go through("code", g.AcquireUrgent)
		synctest.Wait()
		g.Release(Outcome{})
		synctest.Wait()
		require.Len(t, order, 6)
		require.Equal(t, "code", order[0])

		// One that gives up holds nobody back.
		require.NoError(t, g.Acquire(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, g.AcquireUrgent(ctx))
		g.Release(Outcome{})
		require.True(t, take(t, g, 1))
	})
}

func TestGateClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{}, 0)
		require.NoError(t, g.Acquire(t.Context()))
		waiting := make(chan error, 1)
		go func() { waiting <- g.Acquire(t.Context()) }()
		synctest.Wait()

		idle := 0
		g.close(ErrProviderChanged, func() { idle++ })
		require.ErrorIs(t, <-waiting, ErrProviderChanged)
		require.Zero(t, idle, "a message is still in flight")
		g.Release(Outcome{Kind: Accepted})
		require.Equal(t, 1, idle)
		require.ErrorIs(t, g.Acquire(t.Context()), ErrProviderChanged)
		g.close(context.Canceled, func() { idle++ })
		require.Equal(t, 1, idle, "closed once")
	})
}

func TestGateNeverLetsTooManyThrough(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{StartInFlight: 2, MaxInFlight: 7}, 0)
	var inFlight, highest, passed atomic.Int64
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for i := range 200 {
				acquire := g.Acquire
				if i%10 == 0 {
					acquire = g.AcquireUrgent
				}
				if acquire(t.Context()) != nil {
					return
				}
				n := inFlight.Add(1)
				for h := highest.Load(); n > h && !highest.CompareAndSwap(h, n); h = highest.Load() {
				}
				inFlight.Add(-1)
				passed.Add(1)
				o := Outcome{Kind: Accepted}
				if (worker+i)%37 == 0 {
					o = Outcome{Kind: Ambiguous}
				}
				g.Release(o)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 16*200, passed.Load())
	require.LessOrEqual(t, highest.Load(), int64(7))
	require.Zero(t, g.inFlight)
}

func TestGateFollowsThePeersCapacity(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{StartInFlight: 8, MaxInFlight: 100}, 0)
	require.True(t, take(t, g, 8))
	g.setCapacity(1)
	require.Equal(t, 1, allowed(g), "down at once")
	for range 8 {
		g.Release(Outcome{Kind: Accepted})
	}
	require.Equal(t, 1, allowed(g), "never above what the peer takes")
	g.setCapacity(0)
	require.True(t, take(t, g, 1), "one always finds out")

	g.setCapacity(1000)
	g.Release(Outcome{Kind: Accepted})
	fill := func() {
		for range 200 {
			n := allowed(g)
			require.True(t, take(t, g, n))
			for range n {
				g.Release(Outcome{Kind: Accepted})
			}
		}
	}
	fill()
	require.Equal(t, 100, allowed(g), "the adapter's limit stays the ceiling")
	g.setCapacity(50)
	require.Equal(t, 50, allowed(g))
	fill()
	require.Equal(t, 50, allowed(g))
}

func TestGateWakesWhenThePeerTakesMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{StartInFlight: 4, MaxInFlight: 4}, 0)
		g.setCapacity(1)
		require.NoError(t, g.Acquire(t.Context()))
		through := make(chan error, 1)
		go func() { through <- g.Acquire(t.Context()) }()
		synctest.Wait()
		require.Empty(t, through)
		g.Release(Outcome{Kind: Accepted})
		require.NoError(t, <-through)
	})
}

// However many batches come in the same moment, only so many wait for a provider
// that takes its time.
func TestGateSendsAwayWhoWouldOnlyWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{StartInFlight: 1, MaxInFlight: 1}, 0)
		require.NoError(t, g.acquireUnlessCrowded(t.Context()))
		answers, code := make(chan error, 8), make(chan error, 1)
		for range 8 {
			go func() { answers <- g.acquireUnlessCrowded(t.Context()) }()
		}
		time.Sleep(crowdPatience - time.Nanosecond) // to the last moment of their patience
		synctest.Wait()
		require.Empty(t, answers)
		g.Release(Outcome{})
		require.NoError(t, <-answers, "a provider that works sends nobody away")
		time.Sleep(time.Nanosecond) // and past it
		synctest.Wait()
		require.Len(t, answers, 7-enoughWaiters)
		for range 7 - enoughWaiters {
			require.ErrorIs(t, <-answers, errCrowded)
		}

		go func() { code <- g.AcquireUrgent(t.Context()) }()
		time.Sleep(time.Hour) // far longer than anybody's patience
		synctest.Wait()
		require.Empty(t, code, "a code waits, whoever else does")
		require.Empty(t, answers, "enough are there all the time")
		g.Release(Outcome{})
		require.NoError(t, <-code, "and is the first")
		for range enoughWaiters {
			g.Release(Outcome{})
			require.NoError(t, <-answers)
		}
		g.Release(Outcome{})
		require.Zero(t, g.waiting)
		require.Zero(t, g.inFlight)
	})
}
