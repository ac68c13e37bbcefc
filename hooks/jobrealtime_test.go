package hooks_test

import (
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/jobs"
)

// A connection that is not read holds up nobody else's news.
func TestJobsAreToldBesideAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	ana, bo := app.User("ana@example.com"), app.User("bo@example.com")
	listen := func(who *core.Record, id string) *subscriptions.DefaultClient {
		client := subscriptions.NewDefaultClient()
		client.Set(apis.RealtimeClientAuthKey, who)
		client.Subscribe("jobs/" + id)
		app.SubscriptionsBroker().Register(client)
		t.Cleanup(client.Discard)
		return client
	}
	hears := func(client *subscriptions.DefaultClient, id string) {
		t.Helper()
		select {
		case m := <-client.Channel():
			require.Equal(t, "jobs/"+id, m.Name)
			require.Contains(t, string(m.Data), `"state":"scheduled"`)
		case <-time.After(patience):
			t.Fatal("nothing is heard")
		}
	}
	later := func(who *core.Record) string {
		id, err := jobs.Enqueue(app, jobs.Named("shop.price", nil), jobs.Options{Owner: who.Collection().Id + "/" + who.Id, RunAt: time.Now().Add(time.Hour)})
		require.NoError(t, err)
		return id
	}
	anas := later(ana)
	for range 20 {
		listen(ana, anas) // and is never read
	}
	bos := later(bo)
	client := listen(bo, bos)
	hears(client, bos)

	// Who comes back to a job hears again how it stands.
	seen := later(bo)
	client.Unsubscribe("jobs/" + bos)
	client.Subscribe("jobs/" + seen)
	hears(client, seen)
	client.Unsubscribe("jobs/" + seen)
	client.Subscribe("jobs/" + bos)
	hears(client, bos)
}
