package fcm_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/fcm"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// BenchmarkPayload is what one message costs before the SDK has it, and what its
// encoding costs.
func BenchmarkPayload(b *testing.B) {
	m := message(providertest.FCMDeviceToken(1), "hello")
	m.Data = map[string]any{"order": "1", "total": 12}
	b.Run("build", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := fcm.Payload(m, "", now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		built, err := fcm.Payload(m, "", now)
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(built); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("options", func(b *testing.B) {
		m := *m
		p := *m.Push
		p.FCM = map[string]any{"android": map[string]any{"notification": map[string]any{"channel_id": "orders"}}}
		m.Push = &p
		b.ReportAllocs()
		for b.Loop() {
			if _, err := fcm.Payload(&m, "", now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSend is a whole message to a double on the same machine, which needs
// as much of it again.
func BenchmarkSend(b *testing.B) {
	for _, inFlight := range []int{8, 90, 500} {
		b.Run(fmt.Sprintf("%d in flight", inFlight), func(b *testing.B) {
			s := providertest.NewFCM(b, providertest.FCMOptions{CountOnly: true, CheckEvery: 1 << 30, Behaviour: providertest.FCMBehaviour{Latency: 20 * time.Millisecond}})
			p := newProvider(b, s)
			require.Equal(b, notifications.Accepted, p.Send(b.Context(), message(providertest.FCMDeviceToken(0), "hello")).Kind)
			places := make(chan struct{}, inFlight)
			var all sync.WaitGroup
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				places <- struct{}{}
				n++
				all.Go(func() {
					defer func() { <-places }()
					if o := p.Send(b.Context(), message(providertest.FCMDeviceToken(n), "hello")); o.Kind != notifications.Accepted {
						b.Error(o.Explanation)
					}
				})
			}
			all.Wait()
			made, _, peak := s.Connections()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(float64(made), "connections")
			b.ReportMetric(float64(peak), "at-once")
		})
	}
}
