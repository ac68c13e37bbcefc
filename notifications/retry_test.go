package notifications

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// One connection that breaks takes the answers to many pushes along. Everybody else
// waits no longer for that than after a single failure.
func TestSilenceHoldsPushesUpOnlyShortly(t *testing.T) {
	t.Parallel()
	for _, p := range []RetryPolicy{{}, {Base: 20 * time.Millisecond}, {Base: time.Minute, Max: time.Hour}} {
		base := p.WithDefaults().Base
		for range 100 {
			require.LessOrEqual(t, p.silence(1, true), base)
			require.GreaterOrEqual(t, p.silence(1, true), base/2)
			require.Greater(t, p.silence(3, true), base, "a row that is silent again waits longer")
		}
		require.Equal(t, 6*base, p.silence(1, false), "what cannot be repeated is handed over to silence as rarely as may be")
	}
	require.Equal(t, 30*time.Second, RetryPolicy{}.silence(1, false))
}
