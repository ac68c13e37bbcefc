package jobs_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
)

// Jobs with large args are taken a few at a time, however many wait: each of them is in
// memory several times over meanwhile.
func TestOutboxIsTakenInBoundedPages(t *testing.T) {
	both(t, func(x *rig) {
		const waiting = 30
		large := make([]jobs.Args, waiting)
		for i := range large {
			large[i] = echoArgs{strings.Repeat("x", 1_000_000)}
		}
		_, err := jobs.EnqueueMany(x.App, large, jobs.Options{})
		require.NoError(x, err)
		client, err := jobs.New(x.App, jobs.NewWorkers(), jobs.Config{DatabaseURL: x.url})
		require.NoError(x, err)
		n, bytes, err := client.Page()
		require.NoError(x, err)
		require.NoError(x, client.Stop(context.Background()))
		require.Positive(x, n)
		require.Less(x, bytes, 10<<20)

		r, _ := x.start(nil)
		for range waiting {
			require.Len(x, r.next(x.T).Args.Text, 1_000_000)
		}
		x.relayed()
	})
}
