package notifications

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever becomes of the one who is at it, what is asked for meanwhile is done, or
// is left to the job that comes again.
func TestRunsLoseNothing(t *testing.T) {
	t.Parallel()
	trouble := errors.New("trouble")
	for name, tc := range map[string]struct {
		stop  bool // the job's time is up
		ends  error
		times int
		want  error
	}{
		"it goes well":         {false, nil, 2, nil},
		"it fails":             {false, trouble, 2, trouble},
		"the server stops":     {true, nil, 1, context.Canceled},
		"it fails as it stops": {true, trouble, 1, trouble},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r runs
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			times := 0
			err := r.do(ctx, "one", func() error {
				if times++; times == 1 {
					require.ErrorIs(t, r.do(t.Context(), "one", nil), errBusy)
					require.NoError(t, r.do(t.Context(), "another", func() error { return nil }))
					if tc.stop {
						cancel()
					}
				}
				return tc.ends
			})
			require.Equal(t, tc.want, err)
			require.Equal(t, tc.times, times)
			require.NoError(t, r.do(t.Context(), "one", func() error { return nil }), "it is free again")
		})
	}

	var r runs
	require.Panics(t, func() { _ = r.do(t.Context(), "one", func() error { panic("boom") }) })
	require.NoError(t, r.do(t.Context(), "one", func() error { return nil }), "a panic holds nobody up")

	// Nobody asked: the end of a server is no failure.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, r.do(ctx, "one", func() error { return nil }))
}
