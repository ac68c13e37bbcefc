package webpush_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
	"github.com/groundworkhq/groundwork/notifications/webpush"
)

func TestMain(m *testing.M) {
	if err := providertest.TrustCA(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// peer is a provider connected to a double.
type peer struct {
	*webpush.Provider
	service         *providertest.WebPush
	private, public string

	mu       sync.Mutex
	browsers map[int]*providertest.WebPushSubscription
	byToken  map[string]*providertest.WebPushSubscription
}

func newPeer(t testing.TB, opts providertest.WebPushOptions) *peer {
	t.Helper()
	x := &peer{service: providertest.NewWebPush(t, opts), browsers: map[int]*providertest.WebPushSubscription{}, byToken: map[string]*providertest.WebPushSubscription{}}
	var err error
	x.private, err = webpush.NewKey()
	require.NoError(t, err)
	x.public, err = webpush.PublicKey(x.private)
	require.NoError(t, err)
	adapter, err := webpush.Factory(webpush.Options{PrivateHosts: []string{x.service.Addr()}})(notifications.ProviderConfig{
		Channel: notifications.ProviderWebPush, Secret: x.private, Config: map[string]any{"subject": "mailto:hello@example.com"}})
	require.NoError(t, err)
	x.Provider = adapter.(*webpush.Provider)
	t.Cleanup(func() { require.NoError(t, x.Close()) })
	return x
}

// browser is the n-th one that subscribed.
func (x *peer) browser(n int) *providertest.WebPushSubscription {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.browsers[n] == nil {
		b, err := x.service.Subscribe(x.public)
		if err != nil {
			panic(err)
		}
		x.browsers[n], x.byToken[b.JSON()] = b, b
	}
	return x.browsers[n]
}

func (x *peer) of(token string) *providertest.WebPushSubscription {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.byToken[token]
}

func message(token, title string) *notifications.Message {
	return &notifications.Message{
		DeliveryID: "delivery0000001", NotificationID: "notification001", Channel: notifications.ChannelPush, Kind: notifications.KindTransactional,
		Target: notifications.Target{Address: token, Device: &notifications.Device{ID: "device000000001", Platform: "web"}},
		Title:  title, Body: "Your order is ready.", Push: &notifications.Push{CollapseID: "order-1"},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	providertest.Run(t, providertest.Suite{
		MaxRetryAfter: time.Minute,
		ManyPeers:     true,
		Expect: map[providertest.Fault]notifications.OutcomeKind{
			providertest.FaultNoAnswer:  notifications.Ambiguous,
			providertest.FaultRetry:     notifications.Retry,
			providertest.FaultDown:      notifications.Retry,
			providertest.FaultUnreached: notifications.Retry,
			providertest.FaultGone:      notifications.TargetGone,
			providertest.FaultPayload:   notifications.PayloadBad,
			providertest.FaultConfig:    notifications.ConfigBad,
		},
		New: func(t *testing.T) providertest.Subject {
			x := newPeer(t, providertest.WebPushOptions{})
			t.Cleanup(func() { require.Empty(t, x.service.Violations()) })
			return providertest.Subject{
				Send: func(ctx context.Context, target, title string) notifications.Outcome {
					return x.Send(ctx, message(target, title))
				},
				// No Check: nobody can be asked, so that it finds nothing at the other side.
				Close:    x.Close,
				Release:  x.service.Release,
				Received: func(target string) int { return x.service.Received(x.of(target)) },
				Target:   func(n int) string { return x.browser(n).JSON() },
				Secrets:  []string{x.private},
				Arrived: func(target string) <-chan struct{} {
					arrived := make(chan struct{})
					go func() {
						if x.service.Await(t.Context(), x.of(target), 1) == nil {
							close(arrived)
						}
					}()
					return arrived
				},
				Play: func(fault providertest.Fault, target string) {
					one := func(script providertest.WebPushScript) { x.service.Script(x.of(target), script) }
					switch fault {
					case providertest.FaultSlow:
						one(providertest.WebPushScript{Hold: true})
					case providertest.FaultNoAnswer:
						one(providertest.WebPushScript{Fault: providertest.WebPushNoAnswer})
					case providertest.FaultRetry:
						one(providertest.WebPushScript{Fault: providertest.WebPushTooMany, RetryAfter: "9"})
					case providertest.FaultDown:
						x.service.All(providertest.WebPushScript{Fault: providertest.WebPushUnavailable})
					case providertest.FaultUnreached:
						require.NoError(t, x.service.Down())
					case providertest.FaultGone:
						one(providertest.WebPushScript{Fault: providertest.WebPushGone})
					case providertest.FaultPayload:
						one(providertest.WebPushScript{Fault: providertest.WebPushTooLarge})
					case providertest.FaultConfig:
						x.service.All(providertest.WebPushScript{Fault: providertest.WebPushBadToken})
					default:
						t.Fatalf("fault %d is not known", fault)
					}
				},
			}
		},
	})
}
