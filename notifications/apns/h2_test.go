package apns_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/apns"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// burst sends n messages at once, ungated.
func burst(ctx context.Context, p *apns.Provider, from, n int) []notifications.Outcome {
	outcomes := make([]notifications.Outcome, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { outcomes[i] = p.Send(ctx, message(from+i, "hello")) })
	}
	all.Wait()
	return outcomes
}

func requireAccepted(t *testing.T, double *providertest.APNs, from int, outcomes []notifications.Outcome) {
	t.Helper()
	for i, o := range outcomes {
		require.Equal(t, notifications.Accepted, o.Kind, "%s %s", o.Code, o.Explanation)
		require.Equal(t, 1, double.Count(token(from+i)))
		require.Equal(t, double.Last(token(from + i)).Header["apns-id"], o.ProviderMessageID, "the answer is somebody else's")
	}
}

func TestStreamLimitsAreKept(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		opts   providertest.APNsOptions
		growth time.Duration
		conns  int64
	}{
		{"plenty", providertest.APNsOptions{}, time.Nanosecond, 1},
		{"one at first, plenty after the first push", providertest.APNsOptions{Streams: 1, StreamsAfterAccept: 1000}, time.Hour, 1},
		{"a hundred", providertest.APNsOptions{Streams: 100, Latency: time.Millisecond}, time.Nanosecond, 4},
		{"one for ever", providertest.APNsOptions{Streams: 1}, time.Nanosecond, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			double, p, _ := start(t, tc.opts)
			apns.Tune(p, apns.Timing{Growth: tc.growth})
			requireAccepted(t, double, 0, burst(t.Context(), p, 0, 500))
			require.Zero(t, double.RefusedStreams())
			if tc.opts.Streams > 0 && tc.opts.StreamsAfterAccept == 0 {
				require.LessOrEqual(t, double.PeakStreams(), int(tc.opts.Streams))
			}
			made, _, _ := double.Connections()
			require.LessOrEqual(t, made, tc.conns)
		})
	}
}

// Until a push was accepted a second connection is an attack to Apple.
func TestOneConnectionUntilTheFirstSuccess(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{Streams: 2})
	apns.Tune(p, apns.Timing{Growth: time.Nanosecond})
	double.Set(providertest.APNsBehaviour{All: providertest.APNsScript{Status: 403, Reason: "InvalidProviderToken"}})
	for _, o := range burst(t.Context(), p, 0, 50) {
		require.Equal(t, notifications.ConfigBad, o.Kind)
	}
	made, _, _ := double.Connections()
	require.Equal(t, int64(1), made)

	double.Set(providertest.APNsBehaviour{All: providertest.APNsScript{Hold: true}})
	double.Script(token(100), providertest.APNsScript{})
	require.Equal(t, notifications.Accepted, p.Send(t.Context(), message(100, "hello")).Kind)
	done := make(chan []notifications.Outcome)
	go func() { done <- burst(t.Context(), p, 200, 8) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, double.Await(ctx, 50+1+8), "all eight are out at once: on four connections")
	double.Release()
	requireAccepted(t, double, 200, <-done)
	made, _, _ = double.Connections()
	require.Equal(t, int64(4), made)
	require.Zero(t, double.RefusedStreams())
}

func TestALowerLimitHoldsForThoseWhoWait(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{Streams: 50, Latency: 100 * time.Microsecond})
	told := follow(p)
	require.Equal(t, notifications.Accepted, p.Send(t.Context(), message(0, "hello")).Kind)
	told.await(t, 45)
	done := make(chan []notifications.Outcome)
	go func() { done <- burst(t.Context(), p, 1000, 1000) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, double.Await(ctx, 100))
	double.SetStreams(3)
	requireAccepted(t, double, 1000, <-done)
	require.Zero(t, double.RefusedStreams())
}

func TestGoAwayLetsTheOpenOnesFinish(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{})
	double.Set(providertest.APNsBehaviour{All: providertest.APNsScript{Hold: true}})
	done := make(chan []notifications.Outcome)
	go func() { done <- burst(t.Context(), p, 0, 20) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, double.Await(ctx, 20))
	told := follow(p)
	told.await(t, 900)
	double.GoAway("")
	told.await(t, 1)
	double.Set(providertest.APNsBehaviour{})
	requireAccepted(t, double, 100, burst(t.Context(), p, 100, 20))
	require.Equal(t, int64(2), double.Last(token(100)).Connection)
	double.Release()
	requireAccepted(t, double, 0, <-done)
	require.Eventually(t, func() bool { _, open, _ := double.Connections(); return open == 1 }, time.Minute, time.Millisecond)
}

func TestGoAwayInTheMiddle(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{Latency: time.Millisecond})
	for i := 30; i < 1000; i += 97 {
		double.Script(token(i), providertest.APNsScript{GoAway: true}, providertest.APNsScript{})
	}
	unread := 0
	for i, o := range burst(t.Context(), p, 0, 1000) {
		if o.Kind == notifications.Accepted {
			require.Equal(t, 1, double.Count(token(i)))
			continue
		}
		// Nothing of it was processed, twice: the sender decides.
		require.Equal(t, notifications.Retry, o.Kind, "%s %s", o.Code, o.Explanation)
		require.False(t, o.ProviderDown)
		require.Zero(t, double.Count(token(i)))
		unread++
	}
	require.Less(t, unread, 1000)
	requireAccepted(t, double, 2000, burst(t.Context(), p, 2000, 10))
}

func TestWhatWasNotProcessed(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]providertest.APNsScript{
		"GOAWAY":         {GoAway: true},
		"REFUSED_STREAM": {Reset: true, ResetCode: http2.ErrCodeRefusedStream},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			double, p, _ := start(t, providertest.APNsOptions{})
			double.Script(token(1), script, providertest.APNsScript{})
			requireAccepted(t, double, 1, []notifications.Outcome{p.Send(t.Context(), message(1, "hello"))})

			double.Script(token(2), script)
			o := p.Send(t.Context(), message(2, "hello"))
			require.Equal(t, notifications.Retry, o.Kind, o.Explanation)
			require.False(t, o.ProviderDown, "others are not affected")
			require.Zero(t, double.Count(token(2)))
			requireAccepted(t, double, 3, []notifications.Outcome{p.Send(t.Context(), message(3, "hello"))})
		})
	}
}

func TestAConnectionThatIsEndedOverTheCertificate(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{})
	double.Script(token(1), providertest.APNsScript{GoAway: true, Reason: "BadCertificate"})
	o := p.Send(t.Context(), message(1, "hello"))
	require.Equal(t, notifications.ConfigBad, o.Kind, o.Explanation)
	require.Equal(t, "BadCertificate", o.Code)
}

func TestWhatLeftAndHasNoAnswer(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]providertest.APNsScript{
		"CANCEL":            {Reset: true, ResetCode: http2.ErrCodeCancel},
		"INTERNAL_ERROR":    {Reset: true, ResetCode: http2.ErrCodeInternal},
		"ENHANCE_YOUR_CALM": {Reset: true, ResetCode: http2.ErrCodeEnhanceYourCalm},
		"hung up":           {Drop: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			double, p, _ := start(t, providertest.APNsOptions{})
			double.Script(token(1), script)
			o := p.Send(t.Context(), message(1, "hello"))
			require.Equal(t, notifications.Ambiguous, o.Kind, o.Explanation)
			require.Equal(t, 1, double.Count(token(1)))
			requireAccepted(t, double, 2, []notifications.Outcome{p.Send(t.Context(), message(2, "hello"))})
		})
	}
}

func TestABlackHoleIsNoticed(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{})
	// Long enough for a busy machine to answer a PING while there is no hole.
	apns.Tune(p, apns.Timing{Quiet: 20 * time.Millisecond, PingTimeout: 5 * time.Second})
	require.Equal(t, notifications.Accepted, p.Send(t.Context(), message(0, "hello")).Kind)
	double.BlackHole()
	for _, o := range burst(t.Context(), p, 1, 10) {
		require.Equal(t, notifications.Ambiguous, o.Kind)
	}
	requireAccepted(t, double, 100, []notifications.Outcome{p.Send(t.Context(), message(100, "hello"))})
}

func TestASlowAnswerIsNoBlackHole(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{})
	// Long enough for a busy machine to answer a PING.
	apns.Tune(p, apns.Timing{Quiet: 5 * time.Millisecond, PingTimeout: 10 * time.Second, IdlePing: 10 * time.Millisecond})
	double.Script(token(1), providertest.APNsScript{Hold: true})
	done := make(chan notifications.Outcome)
	go func() { done <- p.Send(t.Context(), message(1, "hello")) }()
	require.Eventually(t, func() bool { return double.Pings() >= 3 }, time.Minute, time.Millisecond)
	double.Release()
	requireAccepted(t, double, 1, []notifications.Outcome{<-done})
	before := double.Pings()
	require.Eventually(t, func() bool { return double.Pings() > before }, time.Minute, time.Millisecond, "an idle connection is asked as well")
}

func TestAnIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{})
	apns.Tune(p, apns.Timing{Idle: 10 * time.Millisecond})
	told := follow(p)
	require.Equal(t, notifications.Accepted, p.Send(t.Context(), message(1, "hello")).Kind)
	require.Eventually(t, func() bool { _, open, _ := double.Connections(); return open == 0 }, time.Minute, time.Millisecond)
	told.await(t, 1)
	requireAccepted(t, double, 2, []notifications.Outcome{p.Send(t.Context(), message(2, "hello"))})
}

func TestWindowsAreKept(t *testing.T) {
	t.Parallel()
	for _, window := range []uint32{1, 100, 16384} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			t.Parallel()
			double, p, _ := start(t, providertest.APNsOptions{Window: window})
			long := strings.Repeat("x", 3000)
			people := 200
			if window == 1 {
				people = 3
			}
			var all sync.WaitGroup
			for i := range people {
				all.Go(func() {
					if o := p.Send(t.Context(), message(i, long)); o.Kind != notifications.Accepted {
						t.Errorf("%s %s", o.Code, o.Explanation)
					}
				})
			}
			all.Wait()
			for i := range people {
				require.Contains(t, string(double.Last(token(i)).Payload), long)
			}
		})
	}
}

// A push that could not be sent in full was not processed.
func TestHalfAPush(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{Window: 10})
	double.BlockWindows()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan notifications.Outcome)
	go func() { done <- p.Send(ctx, message(1, "hello")) }()
	require.Eventually(t, func() bool { return double.PeakStreams() == 1 }, time.Minute, time.Millisecond)
	cancel()
	o := <-done
	require.Equal(t, notifications.Retry, o.Kind, o.Explanation)
	require.Zero(t, double.Count(token(1)))
}

// The peer's table is kept in step whatever its size, and whatever requests have
// in common.
func TestHeadersArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, table := range []int{0, -1, 100, 300, 700} {
		t.Run(fmt.Sprint(table), func(t *testing.T) {
			t.Parallel()
			double, p, _ := start(t, providertest.APNsOptions{HeaderTable: table})
			for i := range 300 {
				m := message(i, "hello")
				m.Push.Expires = time.Unix(int64(2_000_000_000+i/7%3), 0)
				switch i % 5 {
				case 0:
					m.Push.CollapseID = fmt.Sprint("own", i)
				case 1:
					m.Push.CollapseID = strings.Repeat("l", 64)
				case 2:
					m.Push.CollapseID = ""
				}
				if i/50%2 == 1 {
					m.Target.Device.App = fmt.Sprintf("com.example.app%d", i%3)
				}
				m.Push.Silent = i/20%2 == 1
				require.Equal(t, notifications.Accepted, p.Send(t.Context(), m).Kind)
				want, err := apns.Request(m, bundle)
				require.NoError(t, err)
				header := double.Last(token(i)).Header
				require.Regexp(t, `^bearer \S+$`, header["authorization"])
				delete(header, "authorization")
				expected := map[string]string{":method": "POST", ":scheme": "https", ":authority": double.Addr(), ":path": "/3/device/" + token(i),
					"content-type": "application/json", "apns-topic": want.Topic, "apns-push-type": want.PushType, "apns-priority": want.Priority,
					"apns-expiration": want.Expiration, "apns-id": want.ID, "apns-collapse-id": want.CollapseID}
				if want.CollapseID == "" {
					delete(expected, "apns-collapse-id")
				}
				require.Equal(t, expected, header)
			}
			made, _, _ := double.Connections()
			require.Equal(t, int64(1), made)
		})
	}
}

func TestStreamIDsEnd(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{})
	apns.LimitStreamIDs(p, 9) // five requests
	requireAccepted(t, double, 0, burst(t.Context(), p, 0, 5))
	requireAccepted(t, double, 100, burst(t.Context(), p, 100, 5))
	made, _, _ := double.Connections()
	require.Equal(t, int64(2), made)
	for i := range 12 {
		requireAccepted(t, double, 200+i, burst(t.Context(), p, 200+i, 1))
	}
}

func TestRandomFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]providertest.APNsScript{
		"500":      {Status: 500, Reason: "InternalServerError"},
		"hung up":  {Drop: true},
		"reset":    {Reset: true, ResetCode: http2.ErrCodeInternal},
		"too many": {Status: 429, Reason: "TooManyRequests", RetryAfter: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			double, p, _ := start(t, providertest.APNsOptions{Behaviour: providertest.APNsBehaviour{FaultRate: 0.01, Fault: fault}})
			accepted, waves, wave := 0, 10, 200
			if fault.Drop {
				waves, wave = 200, 10 // the others of a wave are lost as well
			}
			for range waves {
				for _, o := range burst(t.Context(), p, 0, wave) {
					switch o.Kind {
					case notifications.Accepted:
						accepted++
					case notifications.Retry, notifications.Ambiguous:
						require.NotEmpty(t, o.Explanation)
					default:
						require.Fail(t, o.Kind.String(), o.Explanation)
					}
				}
			}
			// With an answer lost, the double may have accepted more than we know of.
			require.GreaterOrEqual(t, double.Accepted(), accepted)
			require.Positive(t, accepted)
			require.LessOrEqual(t, double.Total(), 2000)
		})
	}
}

func TestCloseDecidesEverything(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{Streams: 5})
	double.Set(providertest.APNsBehaviour{All: providertest.APNsScript{Hold: true}})
	done := make(chan []notifications.Outcome)
	go func() { done <- burst(t.Context(), p, 0, 20) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, double.Await(ctx, 5))
	require.NoError(t, p.Close())
	counts := map[notifications.OutcomeKind]int{}
	for _, o := range <-done {
		counts[o.Kind]++
	}
	require.Equal(t, map[notifications.OutcomeKind]int{notifications.Ambiguous: 5, notifications.Retry: 15}, counts)
	require.Eventually(t, func() bool { _, open, _ := double.Connections(); return open == 0 }, time.Minute, time.Millisecond)
}

// sendTo sends one message to any server.
func sendTo(ctx context.Context, t *testing.T, endpoint string, timing apns.Timing) notifications.Outcome {
	t.Helper()
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	a, err := apns.New(notifications.ProviderConfig{Secret: key.PEM, Config: map[string]any{"keyId": keyID, "teamId": teamID, "bundleId": bundle, "endpoint": endpoint}})
	require.NoError(t, err)
	apns.Tune(a, timing)
	p := a.(*apns.Provider)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p.Send(ctx, message(1, "hello"))
}

func TestServersThatAreNotApple(t *testing.T) {
	t.Parallel()
	trusted := providertest.NewAPNs(t, providertest.APNsOptions{})
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, silent.Close()) })
	old, err := tls.Listen("tcp", "127.0.0.1:0", trusted.OldTLS())
	require.NoError(t, err)
	t.Cleanup(func() { _ = old.Close() })
	go func() {
		for {
			conn, err := old.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
		}
	}()

	o := sendTo(t.Context(), t, strings.Replace(plain.URL, "http://", "https://", 1), apns.Timing{})
	require.Equal(t, notifications.ConfigBad, o.Kind)
	require.Contains(t, o.Explanation, "does not speak TLS")

	o = sendTo(t.Context(), t, "https://"+old.Addr().String(), apns.Timing{})
	require.Equal(t, notifications.ConfigBad, o.Kind, o.Explanation)
	require.Contains(t, o.Explanation, "HTTP/2")

	o = sendTo(t.Context(), t, "https://"+silent.Addr().String(), apns.Timing{Dial: 20 * time.Millisecond})
	require.Equal(t, notifications.Retry, o.Kind)
	require.True(t, o.ProviderDown)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	o = sendTo(ctx, t, "https://"+silent.Addr().String(), apns.Timing{})
	require.Equal(t, notifications.Retry, o.Kind)
	require.True(t, o.ProviderDown, "there was no connection to be had")
}

func TestCertificatesOfThePeer(t *testing.T) {
	t.Parallel()
	for _, kind := range []providertest.Cert{providertest.CertExpired, providertest.CertWrongName, providertest.CertUnknownCA} {
		_, p, _ := start(t, providertest.APNsOptions{Cert: kind})
		o := p.Send(t.Context(), message(1, "hello"))
		require.Equal(t, notifications.ConfigBad, o.Kind, o.Explanation)
		require.Contains(t, o.Explanation, "SSL_CERT_FILE")
	}
}

// An endpoint may lie below a path.
func TestEndpointWithAPath(t *testing.T) {
	t.Parallel()
	double := providertest.NewAPNs(t, providertest.APNsOptions{})
	o := sendTo(t.Context(), t, double.URL()+"/gateway/", apns.Timing{})
	require.Equal(t, "BadPath", o.Code)
	require.Equal(t, 1, double.Total())
}

// net/http's server is the independent peer: it shares no code with the double.
func TestAgainstTheStockServer(t *testing.T) {
	t.Parallel()
	trusted := providertest.NewAPNs(t, providertest.APNsOptions{})
	var mu sync.Mutex
	got := map[string]string{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.ProtoMajor != 2 {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		mu.Lock()
		got[r.URL.Path] = r.Header.Get("apns-id") + r.Header.Get("apns-topic") + string(body)
		mu.Unlock()
		w.Header().Set("apns-id", r.Header.Get("apns-id"))
		if strings.HasSuffix(r.URL.Path, "0") {
			w.WriteHeader(http.StatusGone)
			_, _ = io.WriteString(w, `{"reason":"Unregistered","timestamp":1700000000123}`)
		}
	}))
	server.EnableHTTP2 = true
	server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 20}
	server.TLS = trusted.OldTLS()
	server.StartTLS()
	t.Cleanup(server.Close)
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	a, err := apns.New(notifications.ProviderConfig{Secret: key.PEM, Config: map[string]any{"keyId": keyID, "teamId": teamID, "bundleId": bundle, "endpoint": server.URL}})
	require.NoError(t, err)
	p := a.(*apns.Provider)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	for i, o := range burst(t.Context(), p, 0, 1000) {
		want, err := apns.Request(message(i, "hello"), bundle)
		require.NoError(t, err)
		mu.Lock()
		require.Equal(t, want.ID+bundle+want.Payload, got["/3/device/"+token(i)])
		mu.Unlock()
		if strings.HasSuffix(token(i), "0") {
			require.Equal(t, notifications.TargetGone, o.Kind, "%s %s", o.Code, o.Explanation)
			require.Equal(t, int64(1700000000123), o.GoneAt.UnixMilli())
			continue
		}
		require.Equal(t, notifications.Accepted, o.Kind, "%s %s", o.Code, o.Explanation)
		require.Equal(t, want.ID, o.ProviderMessageID)
	}
}
