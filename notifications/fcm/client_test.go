package fcm_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/fcm"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func TestMain(m *testing.M) {
	if err := providertest.TrustCA(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func newProvider(t testing.TB, s *providertest.FCM) *fcm.Provider {
	t.Helper()
	adapter, err := fcm.New(notifications.ProviderConfig{Channel: notifications.ProviderFCM, Config: s.Config(), Secret: s.ServiceAccount()})
	require.NoError(t, err)
	p := adapter.(*fcm.Provider)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func message(token, title string) *notifications.Message {
	return &notifications.Message{
		DeliveryID: "delivery0000001", Channel: notifications.ChannelPush, Kind: notifications.KindTransactional,
		Target: notifications.Target{Address: token, Device: &notifications.Device{ID: "device000000001", Platform: "android"}},
		Title:  title, Body: "Your order is ready.", Push: &notifications.Push{CollapseID: "order-1"},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]providertest.FCMOptions{"HTTP/2": {}, "HTTP/1.1": {Plain: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			providertest.Run(t, suite(opts))
		})
	}
}

func suite(opts providertest.FCMOptions) providertest.Suite {
	return providertest.Suite{
		MaxRetryAfter: time.Minute,
		Expect: map[providertest.Fault]notifications.OutcomeKind{
			providertest.FaultNoAnswer:  notifications.Ambiguous,
			providertest.FaultRetry:     notifications.Retry,
			providertest.FaultDown:      notifications.Retry,
			providertest.FaultUnreached: notifications.Retry,
			providertest.FaultGone:      notifications.TargetGone,
			providertest.FaultPayload:   notifications.PayloadBad,
			providertest.FaultConfig:    notifications.ConfigBad,
			providertest.FaultGarbage:   notifications.Ambiguous,
		},
		New: func(t *testing.T) providertest.Subject {
			s := providertest.NewFCM(t, opts)
			p := newProvider(t, s)
			t.Cleanup(func() { require.Empty(t, s.Violations()) })
			return providertest.Subject{
				Send: func(ctx context.Context, target, title string) notifications.Outcome {
					return p.Send(ctx, message(target, title))
				},
				Check:    p.Check,
				Close:    p.Close,
				Release:  s.Release,
				Received: s.Received,
				Target:   providertest.FCMDeviceToken,
				Secrets:  []string{s.ServiceAccount(), s.Account().ClientEmail},
				Arrived: func(target string) <-chan struct{} {
					arrived := make(chan struct{})
					go func() {
						if s.AwaitToken(t.Context(), target, 1) == nil {
							close(arrived)
						}
					}()
					return arrived
				},
				Play: func(fault providertest.Fault, target string) {
					switch fault {
					case providertest.FaultSlow:
						s.Script(target, providertest.FCMScript{Hold: true})
					case providertest.FaultNoAnswer:
						s.Script(target, providertest.FCMScript{Fault: providertest.FCMNoAnswer})
					case providertest.FaultRetry:
						s.Script(target, providertest.FCMScript{Fault: providertest.FCMQuotaDevice, RetryAfter: "9"})
					case providertest.FaultDown:
						s.Set(providertest.FCMBehaviour{All: providertest.FCMScript{Fault: providertest.FCMUnavailable}})
					case providertest.FaultUnreached:
						require.NoError(t, s.Down())
					case providertest.FaultGone:
						s.Script(target, providertest.FCMScript{Fault: providertest.FCMUnregistered})
					case providertest.FaultPayload:
						s.Script(target, providertest.FCMScript{Fault: providertest.FCMBadRequest})
					case providertest.FaultConfig:
						s.Set(providertest.FCMBehaviour{Token: providertest.FCMTokenBadSignature})
					case providertest.FaultGarbage:
						s.Script(target, providertest.FCMScript{Fault: providertest.FCMGarbage})
					default:
						t.Fatalf("fault %d is not known", fault)
					}
				},
			}
		},
	}
}
