package schedules

import (
	"context"
	"net"
	"net/http"
)

// WebhookClient is what calls the addresses of webhooks.
func WebhookClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return newWebhookClient(dial).client
}

// Unanswered is what is said of a call without an answer.
var Unanswered = unanswered
