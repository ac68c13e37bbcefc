package fcm_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/fcm"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// sendMany sends to n devices at once and returns where the outcomes arrive.
func sendMany(t *testing.T, p *fcm.Provider, n int) <-chan notifications.Outcome {
	outcomes := make(chan notifications.Outcome, n)
	for i := range n {
		go func() { outcomes <- p.Send(t.Context(), message(providertest.FCMDeviceToken(i), "hello")) }()
	}
	return outcomes
}

func TestManyInFlightShareFewConnections(t *testing.T) {
	t.Parallel()
	const people = 500
	s := providertest.NewFCM(t, providertest.FCMOptions{Behaviour: providertest.FCMBehaviour{All: providertest.FCMScript{Hold: true}}})
	p := newProvider(t, s)
	told := make(chan int, people)
	p.OnCapacity(func(inFlight int) { told <- inFlight })
	outcomes := sendMany(t, p, people)
	require.Equal(t, people, <-told)
	require.NoError(t, s.Await(t.Context(), people), "all of them are under way before the first answer")
	s.Release()
	for range people {
		o := <-outcomes
		require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
	}
	require.Equal(t, people, s.Peak())
	require.Equal(t, people, s.Total())
	require.Len(t, s.Counts(), people)
	made, _, _ := s.Connections()
	require.LessOrEqual(t, made, 6+1, "five are needed for 500 messages at 100 a connection, and one for the sign-in")
}

func TestPeerThatTakesOneAtATime(t *testing.T) {
	t.Parallel()
	const people = 40
	s := providertest.NewFCM(t, providertest.FCMOptions{MaxStreams: 1})
	p := newProvider(t, s)
	told := make(chan int, people)
	p.OnCapacity(func(inFlight int) { told <- inFlight })
	outcomes := sendMany(t, p, people)
	for range people {
		o := <-outcomes
		require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
	}
	require.Equal(t, people, s.Total(), "each once")
	require.Equal(t, 10, <-told)
	made, _, _ := s.Connections()
	require.LessOrEqual(t, made, 10+1, "it is not answered with a connection for each")
}

func TestConnectionsThatTheServerEnded(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		s := providertest.NewFCM(t, providertest.FCMOptions{Plain: plain})
		p := newProvider(t, s)
		for range 20 {
			o := p.Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello"))
			require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
			s.HangUp()
			require.NoError(t, s.AwaitConnections(t.Context(), 0))
			require.NoError(t, fcm.AwaitNoConnections(t.Context(), p))
		}
		require.Equal(t, 20, s.Total())
	}
}

func TestServerThatComesBack(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	p := newProvider(t, s)
	send := func() notifications.Outcome {
		return p.Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello"))
	}
	require.Equal(t, notifications.Accepted, send().Kind)
	require.NoError(t, s.Down())
	require.NoError(t, fcm.AwaitNoConnections(t.Context(), p))
	o := send()
	require.Equal(t, notifications.Retry, o.Kind)
	require.True(t, o.ProviderDown)
	require.NoError(t, s.Up())
	require.Equal(t, notifications.Accepted, send().Kind)
}

func TestCloseLetsWhatIsUnderWayFinish(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{Behaviour: providertest.FCMBehaviour{All: providertest.FCMScript{Hold: true}}})
	p := newProvider(t, s)
	outcomes := sendMany(t, p, 3)
	require.NoError(t, s.Await(t.Context(), 3))
	require.NoError(t, p.Close())
	s.Release()
	for range 3 {
		require.Equal(t, notifications.Accepted, (<-outcomes).Kind)
	}
	require.NoError(t, s.AwaitConnections(t.Context(), 0), "the connection ends with its last message")
	o := p.Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello"))
	require.Equal(t, notifications.Retry, o.Kind)
}

// A listener that accepts and says nothing is what a firewall in the wrong mood
// looks like.
func TestConnectionThatDoesNotComeAbout(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	adapter, err := fcm.New(notifications.ProviderConfig{Secret: s.ServiceAccount(), Config: map[string]any{"endpoint": "https://" + listener.Addr().String()}})
	require.NoError(t, err)
	p := adapter.(*fcm.Provider)
	defer func() { require.NoError(t, p.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	o := p.Send(ctx, message(providertest.FCMDeviceToken(1), "hello"))
	require.Equal(t, notifications.Retry, o.Kind)
	require.True(t, o.ProviderDown)
	require.Contains(t, o.Explanation, "in time")
}

// roundTripper answers like Google, without a network.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// BenchmarkSDK is what the SDK's Send costs by itself.
func BenchmarkSDK(b *testing.B) {
	client, err := fcm.NewClient(b.Context(), "demo-project", "https://fcm.example.com/v1", roundTripper(func(req *http.Request) (*http.Response, error) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil, err
		}
		return fcm.Synthetic(req, 200, http.Header{}, []byte(`{"name":"projects/demo-project/messages/1"}`)), nil
	}))
	require.NoError(b, err)
	built, err := fcm.Payload(message(providertest.FCMDeviceToken(1), "hello"), "", now)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if name, err := client.Send(b.Context(), built); err != nil || name == "" {
			b.Fatal(fmt.Sprint(name, err))
		}
	}
}
