package webpush_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
	"github.com/groundworkhq/groundwork/notifications/webpush"
)

// BenchmarkSend is what one message costs without the network: payload, key
// agreement, encryption, token.
func BenchmarkSend(b *testing.B) {
	x := newPeer(b, providertest.WebPushOptions{})
	webpush.Stand(x.Provider, answer{status: 201})
	m := message(x.browser(1).JSON(), "hello")
	b.ReportAllocs()
	for b.Loop() {
		o := x.Send(b.Context(), m)
		require.Equal(b, notifications.Accepted, o.Kind)
	}
}
