package apns_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/apns"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func TestMain(m *testing.M) {
	if err := providertest.TrustCA(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const (
	bundle = "com.example.shop"
	keyID  = "ABC123DEFG"
	teamID = "DEF123GHIJ"
)

// token returns the n-th device token.
func token(n int) string { return fmt.Sprintf("%064x", n+1) }

func message(n int, title string) *notifications.Message {
	return &notifications.Message{DeliveryID: fmt.Sprintf("delivery%07d", n), Channel: notifications.ChannelPush, Title: title, Body: "world",
		Target: notifications.Target{Address: token(n), Device: &notifications.Device{Platform: "ios"}}, Push: &notifications.Push{CollapseID: "c1"}}
}

// start returns a double, and a provider that sends to it.
func start(t testing.TB, opts providertest.APNsOptions) (*providertest.APNs, *apns.Provider, *providertest.APNsKey) {
	t.Helper()
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	if opts.Key == nil {
		opts.Key = key.Public
	}
	opts.KeyID, opts.TeamID = keyID, teamID
	double := providertest.NewAPNs(t, opts)
	return double, provider(t, double, key), key
}

func provider(t testing.TB, double *providertest.APNs, key *providertest.APNsKey) *apns.Provider {
	t.Helper()
	a, err := apns.New(notifications.ProviderConfig{Channel: notifications.ProviderAPNs, Config: double.Config(bundle), Secret: key.PEM})
	require.NoError(t, err)
	p, ok := a.(*apns.Provider)
	require.True(t, ok)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func TestConformance(t *testing.T) {
	t.Parallel()
	providertest.Run(t, providertest.Suite{
		New: func(t *testing.T) providertest.Subject {
			double, p, key := start(t, providertest.APNsOptions{Topics: []string{bundle}})
			return providertest.Subject{
				Send: func(ctx context.Context, target, title string) notifications.Outcome {
					m := message(0, title)
					m.Target.Address = target
					return p.Send(ctx, m)
				},
				Check:    p.Check,
				Close:    p.Close,
				Release:  double.Release,
				Received: double.Count,
				Arrived:  double.Arrived,
				Target:   token,
				Secrets:  []string{key.PEM},
				Play: func(fault providertest.Fault, target string) {
					switch fault {
					case providertest.FaultSlow:
						double.Script(target, providertest.APNsScript{Hold: true})
					case providertest.FaultNoAnswer:
						double.Script(target, providertest.APNsScript{NoAnswer: true})
					case providertest.FaultRetry:
						double.Script(target, providertest.APNsScript{Status: 429, Reason: "TooManyRequests", RetryAfter: "30"})
					case providertest.FaultDown:
						double.Set(providertest.APNsBehaviour{All: providertest.APNsScript{Status: 503, Reason: "ServiceUnavailable"}})
					case providertest.FaultUnreached:
						require.NoError(t, double.Down())
					case providertest.FaultGone:
						double.Script(target, providertest.APNsScript{Status: 410, Reason: "Unregistered", Timestamp: time.Now()})
					case providertest.FaultPayload:
						double.Script(target, providertest.APNsScript{Status: 400, Reason: "InvalidPushType"})
					case providertest.FaultConfig:
						double.Set(providertest.APNsBehaviour{All: providertest.APNsScript{Status: 403, Reason: "InvalidProviderToken"}})
					case providertest.FaultGarbage:
						double.Script(target, providertest.APNsScript{Status: http.StatusBadGateway, Body: "<html>Bad Gateway</html>"})
					}
				},
			}
		},
		Expect: map[providertest.Fault]notifications.OutcomeKind{
			providertest.FaultNoAnswer:  notifications.Ambiguous,
			providertest.FaultRetry:     notifications.Retry,
			providertest.FaultDown:      notifications.Retry,
			providertest.FaultUnreached: notifications.Retry,
			providertest.FaultGone:      notifications.TargetGone,
			providertest.FaultPayload:   notifications.PayloadBad,
			providertest.FaultConfig:    notifications.ConfigBad,
			providertest.FaultGarbage:   notifications.Retry,
		},
		MaxRetryAfter: 30 * time.Second,
	})
}
