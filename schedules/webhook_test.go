package schedules_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications/webpush"
	"github.com/groundworkhq/groundwork/schedules"
)

// Whatever a name looked like when it was saved: the address it leads to decides at the
// connection.
func TestWebhooksConnectToPublicAddressesOnly(t *testing.T) {
	t.Parallel()
	calls := 0
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls++ }))
	t.Cleanup(inside.Close)
	_, err := schedules.WebhookClient(webpush.Dialer(nil)).Get(inside.URL) //nolint:bodyclose // there is no answer
	require.Error(t, err)
	require.EqualError(t, schedules.Unanswered("example.com", err), "example.com leads into a private network. Such addresses are not called, unless WEBHOOK_PRIVATE_HOSTS has them.")
	require.Zero(t, calls)

	answer, err := schedules.WebhookClient(webpush.Dialer([]string{inside.Listener.Addr().String()})).Get(inside.URL)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, 1, calls)
}
