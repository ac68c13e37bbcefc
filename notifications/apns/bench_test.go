package apns_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/payload"
	apnstoken "github.com/sideshow/apns2/token"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/apns"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// BenchmarkSend compares the adapter with the stock apns2 client on net/http's
// transport: the same double, the same 256 in flight.
func BenchmarkSend(b *testing.B) {
	for _, latency := range []time.Duration{0, 10 * time.Millisecond} {
		b.Run("adapter/latency="+latency.String(), func(b *testing.B) {
			double, p, _ := start(b, providertest.APNsOptions{CountOnly: true, Latency: latency})
			flood(b, double, func(n int) bool {
				return p.Send(context.Background(), message(n, "hello")).Kind == notifications.Accepted
			})
		})
		b.Run("stock/latency="+latency.String(), func(b *testing.B) {
			key, err := providertest.NewAPNsKey()
			require.NoError(b, err)
			double := providertest.NewAPNs(b, providertest.APNsOptions{CountOnly: true, Latency: latency, Key: key.Public, KeyID: keyID, TeamID: teamID})
			authKey, err := apnstoken.AuthKeyFromBytes([]byte(key.PEM))
			require.NoError(b, err)
			client := apns2.NewTokenClient(&apnstoken.Token{AuthKey: authKey, KeyID: keyID, TeamID: teamID})
			client.Host = double.URL()
			flood(b, double, func(n int) bool {
				answer, err := client.Push(&apns2.Notification{DeviceToken: token(n), Topic: bundle, CollapseID: "c1", Priority: apns2.PriorityHigh,
					ApnsID: "00000000-0000-8000-8000-000000000001", Payload: payload.NewPayload().AlertTitle("hello").AlertBody("world").Sound("default")})
				return err == nil && answer.Sent()
			})
		})
	}
}

func flood(b *testing.B, double *providertest.APNs, send func(n int) bool) {
	const inFlight = 256
	require.True(b, send(0)) // connects
	b.ReportAllocs()
	b.ResetTimer()
	var next, failed atomic.Int64
	var all sync.WaitGroup
	for range inFlight {
		all.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if !send(int(n)) {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
	require.Zero(b, failed.Load())
	require.Equal(b, b.N+1, double.Total())
	require.Zero(b, double.RefusedStreams())
}

// BenchmarkPayload is the request's content alone.
func BenchmarkPayload(b *testing.B) {
	m := message(1, "hello")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := apns.Request(m, bundle); err != nil {
			b.Fatal(err)
		}
	}
}
