package jobs_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/jobs"
)

func TestJobOnPostgres(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	r := &recorder{seen: make(chan jobs.Job[echoArgs], 1000)}
	w := jobs.NewWorkers()
	jobs.AddWorker(w, r)
	client, err := jobs.New(app, w, jobs.Config{DatabaseURL: pgtest.Database(t)})
	require.NoError(t, err)
	require.NoError(t, client.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, client.Stop(context.Background())) })
	id, err := jobs.Enqueue(app, echoArgs{"hello"}, jobs.Options{Queue: jobs.QueueCritical, RequestID: "req-12345678"})
	require.NoError(t, err)
	require.Equal(t, id, r.next(t).ID)
}
