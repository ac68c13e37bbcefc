package jobs_test

import (
	"context"
	"database/sql"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
)

// A disk that is busy for longer than anybody waits for it stops no server.
func TestABusyDatabaseIsWaitedForAtTheStart(t *testing.T) {
	t.Parallel()
	x := newRig(t, "")
	_, before := x.start(nil) // makes the tables
	require.NoError(t, before.Stop(context.Background()))

	r, w := &recorder{seen: make(chan echo, 10)}, jobs.NewWorkers()
	jobs.AddWorker(w, r)
	client, err := jobs.New(x.App, w, jobs.Config{Log: slog.New(slog.NewTextHandler(&x.log, nil))})
	require.NoError(t, err)
	started := make(chan error, 1)
	x.lite(func(db *sql.DB) {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), "DELETE FROM river_leader") // nobody else writes from now on
		require.NoError(t, err)
		go func() { started <- client.Start(context.Background()) }()
		x.eventually(func() bool { return len(started) > 0 || strings.Contains(x.log.String(), "starting them again") })
		require.NoError(t, tx.Rollback())
	})
	require.NoError(t, <-started)
	t.Cleanup(func() { _ = client.Stop(context.Background()) })
	x.enqueue("afterwards", jobs.Options{})
	require.Equal(t, "afterwards", r.next(t).Args.Text)
	require.Contains(t, x.log.String(), "starting them again")
}
