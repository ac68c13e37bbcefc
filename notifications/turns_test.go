package notifications

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
)

func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var all turns
		enter := func(channel Channel) (func(), error) { return all.enter(t.Context(), jobs.QueueDefault, channel) }
		var leave []func()
		for range 4 {
			l, err := enter(ChannelPush)
			require.NoError(t, err)
			leave = append(leave, l)
		}

		// One more waits for a second, and has the place that is left meanwhile.
		start := time.Now()
		_, err := enter(ChannelPush)
		require.ErrorIs(t, err, errCrowded)
		require.Equal(t, time.Second, time.Since(start))
		leave[0]()
		leave[0], err = enter(ChannelPush)
		require.NoError(t, err)
		go func() {
			time.Sleep(300 * time.Millisecond) // while the next one waits
			leave[1]()
		}()
		start = time.Now()
		leave[1], err = enter(ChannelPush)
		require.NoError(t, err)
		require.Equal(t, 300*time.Millisecond, time.Since(start))

		// Where nobody moves nobody waits.
		time.Sleep(2 * time.Second) // so long
		start = time.Now()
		_, err = enter(ChannelPush)
		require.ErrorIs(t, err, errCrowded)
		require.Zero(t, time.Since(start))

		// Other channels and queues have turns of their own; the inbox needs none.
		for range 20 {
			_, err = enter(ChannelInbox)
			require.NoError(t, err)
		}
		_, err = enter(ChannelEmail)
		require.NoError(t, err)
		_, err = all.enter(t.Context(), jobs.QueueBulk, ChannelPush)
		require.NoError(t, err)

		// A shutdown ends the wait.
		leave[2]()
		leave[2], err = enter(ChannelPush)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		_, err = all.enter(ctx, jobs.QueueDefault, ChannelPush)
		require.ErrorIs(t, err, context.Canceled)
	})
}
