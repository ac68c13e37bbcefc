package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestLanes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // nobody's patience ends because the machine is busy
		var l Lanes
		var inside, most, done atomic.Int64
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				l.Enter(t.Context(), "one")
				defer l.Leave("one")
				n := inside.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				done.Add(1)
				inside.Add(-1)
			})
		}
		wg.Wait()
		require.EqualValues(t, 500, done.Load())
		require.LessOrEqual(t, most.Load(), int64(laneWidth))
		require.Empty(t, l.lanes)

		// A full lane holds nobody else up, and whoever goes away does not stay in it.
		for range laneWidth {
			l.Enter(t.Context(), "one")
		}
		l.Enter(t.Context(), "two")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		l.Enter(gone, "one")
		for range laneWidth + 1 {
			l.Leave("one")
		}
		l.Leave("two")
		require.Empty(t, l.lanes)
	})
}

// A crowd goes through a narrower lane, which gets wide again when it is over.
func TestLanesLeaveRoomBesideACrowd(t *testing.T) {
	t.Parallel()
	crowd := &lane{inside: laneWidth}
	for range 3 * laneCrowd {
		crowd.waiting = append(crowd.waiting, make(chan struct{}))
	}
	l := Lanes{lanes: map[string]*lane{"one": crowd}}
	for len(crowd.waiting) > laneCrowd {
		before := crowd.inside
		l.Leave("one")
		if len(crowd.waiting) > laneCrowd {
			require.Equal(t, max(before-1, crowdWidth), crowd.inside)
		}
	}
	for len(crowd.waiting) > 0 {
		l.Leave("one")
		if len(crowd.waiting) > 0 {
			require.Equal(t, laneWidth, crowd.inside)
		}
	}
	for range laneWidth {
		l.Leave("one")
	}
	require.Empty(t, l.lanes)
}
