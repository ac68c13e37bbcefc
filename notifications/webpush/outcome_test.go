package webpush_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
	"github.com/groundworkhq/groundwork/notifications/webpush"
)

// TestAnswers is the table of the push services' answers, row by row, over the
// wire. stranger is the outcome when somebody's own server gives the answer, which
// must never concern anybody else.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		script   providertest.WebPushScript
		kind     notifications.OutcomeKind
		code     string
		says     string
		wait     time.Duration
		suspect  bool
		stranger notifications.OutcomeKind // zero: the same
	}{
		"201":                      {script: providertest.WebPushScript{}, kind: notifications.Accepted},
		"202":                      {script: providertest.WebPushScript{Fault: providertest.WebPushAccepted202}, kind: notifications.Accepted},
		"200":                      {script: providertest.WebPushScript{Fault: providertest.WebPushOK}, kind: notifications.Accepted},
		"200 and HTML":             {script: providertest.WebPushScript{Fault: providertest.WebPushGarbage}, kind: notifications.Accepted},
		"404":                      {script: providertest.WebPushScript{Fault: providertest.WebPushNotFound}, kind: notifications.TargetGone, code: "404", says: "subscription has ended"},
		"410":                      {script: providertest.WebPushScript{Fault: providertest.WebPushGone}, kind: notifications.TargetGone, code: "410", says: "subscription has ended"},
		"413":                      {script: providertest.WebPushScript{Fault: providertest.WebPushTooLarge}, kind: notifications.PayloadBad, code: "413", says: "too large", stranger: notifications.RecipientBlocked},
		"429":                      {script: providertest.WebPushScript{Fault: providertest.WebPushTooMany, RetryAfter: "30"}, kind: notifications.Retry, code: "429", wait: 30 * time.Second, says: "too many"},
		"429 without a time":       {script: providertest.WebPushScript{Fault: providertest.WebPushTooMany}, kind: notifications.Retry, code: "429", says: "too many"},
		"429 and nonsense":         {script: providertest.WebPushScript{Fault: providertest.WebPushTooMany, RetryAfter: "soon"}, kind: notifications.Retry, code: "429", says: "too many"},
		"429 and a year":           {script: providertest.WebPushScript{Fault: providertest.WebPushTooMany, RetryAfter: "31536000"}, kind: notifications.Retry, code: "429", wait: 24 * time.Hour, says: "too many"},
		"400 BadJwtToken":          {script: providertest.WebPushScript{Fault: providertest.WebPushBadTokenOf400}, kind: notifications.ConfigBad, code: "400 BadJwtToken", says: "WEBPUSH_SUBJECT", stranger: notifications.TargetGone},
		"401 Invalid VAPID":        {script: providertest.WebPushScript{Fault: providertest.WebPushUnauthorized}, kind: notifications.ConfigBad, code: "401 109", says: "WEBPUSH_SUBJECT", stranger: notifications.TargetGone},
		"403 invalid JWT":          {script: providertest.WebPushScript{Fault: providertest.WebPushBadToken}, kind: notifications.ConfigBad, code: "403", says: "WEBPUSH_SUBJECT", stranger: notifications.TargetGone},
		"403 other keys":           {script: providertest.WebPushScript{Fault: providertest.WebPushOtherKey}, kind: notifications.TargetGone, code: "403", suspect: true, says: "other Web Push keys"},
		"403 in other words":       {script: providertest.WebPushScript{Fault: providertest.WebPushForbidden}, kind: notifications.TargetGone, code: "403", suspect: true, says: "refuses messages for this browser"},
		"400 in other words":       {script: providertest.WebPushScript{Fault: providertest.WebPushBadRequest}, kind: notifications.TargetGone, code: "400", suspect: true, says: "refuses messages for this browser"},
		"500":                      {script: providertest.WebPushScript{Fault: providertest.WebPushInternal}, kind: notifications.Retry, code: "500", says: "out of order"},
		"502 and HTML":             {script: providertest.WebPushScript{Fault: providertest.WebPushBadGateway}, kind: notifications.Retry, code: "502", says: "out of order"},
		"503":                      {script: providertest.WebPushScript{Fault: providertest.WebPushUnavailable, RetryAfter: "7"}, kind: notifications.Retry, code: "503", wait: 7 * time.Second, says: "out of order"},
		"a redirect, not followed": {script: providertest.WebPushScript{Fault: providertest.WebPushRedirect}, kind: notifications.TargetGone, code: "307", suspect: true, says: "not a push service (it said 307)"},
		"405":                      {script: providertest.WebPushScript{Fault: providertest.WebPushNotAllowed}, kind: notifications.TargetGone, code: "405", suspect: true, says: "not a push service"},
		"hangs up":                 {script: providertest.WebPushScript{Fault: providertest.WebPushReset}, kind: notifications.Ambiguous, says: "not known whether it was sent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newPeer(t, providertest.WebPushOptions{})
			x.service.All(row.script)
			check := func(o notifications.Outcome, kind notifications.OutcomeKind) {
				t.Helper()
				require.Equal(t, kind, o.Kind, "%s %s", o.Code, o.Explanation)
				require.False(t, o.ProviderDown, "one server's trouble is not everybody's")
				require.Equal(t, row.code, o.Code)
				if kind == row.kind {
					require.Contains(t, o.Explanation, row.says)
					require.Equal(t, row.wait, o.RetryAfter)
				}
				require.Equal(t, kind == notifications.TargetGone && (row.suspect || row.kind == notifications.ConfigBad), o.Suspect)
			}
			check(x.Send(t.Context(), message(x.browser(1).JSON(), "hello")), row.kind)
			require.Equal(t, 1, x.service.Received(x.browser(1)), "sent once")
			require.Equal(t, 1, x.service.Total(), "and nowhere else")

			// The same from a server that is nobody's we know.
			kind := row.stranger
			if kind == 0 {
				kind = row.kind
			}
			webpush.Stand(x.Provider, x.elsewhere(t))
			check(x.Send(t.Context(), message(strings.Replace(x.browser(2).JSON(), x.service.Addr(), "push.example.com", 1), "hello")), kind)
		})
	}
}

// elsewhere answers as the double does, whatever host is asked.
func (x *peer) elsewhere(t *testing.T) http.RoundTripper {
	t.Helper()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.ServerName = "localhost"
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, x.service.Addr())
	}
	t.Cleanup(transport.CloseIdleConnections)
	// The double would find the token made out to somebody else.
	x.service.SetOrigin("https://push.example.com")
	return transport
}

// answer is a push service in memory.
type answer struct {
	status int
	body   string
	header http.Header
}

func (a answer) RoundTrip(req *http.Request) (*http.Response, error) {
	header := a.header
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: a.status, Header: header, Body: io.NopCloser(strings.NewReader(a.body)), Request: req, ProtoMajor: 1}, nil
}

// Which servers' words about our signature are believed: whoever is signed in can
// name a server, and must not be able to pause everybody's messages.
func TestWhoIsBelieved(t *testing.T) {
	t.Parallel()
	x := newPeer(t, providertest.WebPushOptions{})
	webpush.Stand(x.Provider, answer{status: 403, body: `{"reason":"BadJwtToken"}`})
	for host, want := range map[string]notifications.OutcomeKind{
		"fcm.googleapis.com":                     notifications.ConfigBad,
		"updates.push.services.mozilla.com":      notifications.ConfigBad,
		"web.push.apple.com":                     notifications.ConfigBad,
		"wns2-par02p.notify.windows.com":         notifications.ConfigBad,
		"push.example.com":                       notifications.TargetGone,
		"fcm.googleapis.com.example.com":         notifications.TargetGone,
		"evilpush.apple.com.example.com":         notifications.TargetGone,
		"x-fcm.googleapis.com":                   notifications.TargetGone,
		"fcm.googleapis.com:444":                 notifications.TargetGone,
		"web.push.apple.com:2197":                notifications.TargetGone,
		"storage.googleapis.com":                 notifications.TargetGone,
		"notpush.services.mozilla.com":           notifications.TargetGone,
		"user.fcm.googleapis.com":                notifications.TargetGone,
		"push.services.mozilla.com.evil.example": notifications.TargetGone,
	} {
		o := x.Send(t.Context(), message(strings.Replace(x.browser(1).JSON(), x.service.Addr(), host, 1), "hello"))
		require.Equal(t, want, o.Kind, "%s: %s", host, o.Explanation)
	}
}

func TestClockThatIsOff(t *testing.T) {
	t.Parallel()
	x := newPeer(t, providertest.WebPushOptions{})
	x.service.All(providertest.WebPushScript{Fault: providertest.WebPushBadToken})
	webpush.SetClock(x.Provider, func() time.Time { return time.Now().Add(-30 * time.Hour) })
	o := x.Send(t.Context(), message(x.browser(1).JSON(), "hello"))
	require.Equal(t, notifications.ConfigBad, o.Kind)
	require.Contains(t, o.Explanation, "clock is off by 30h0m0s, set it right")
}

// A server of somebody's own that takes messages and does not answer is left alone
// for a while; one of the big ones, and an answer that was not waited for, is not.
func TestServersThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	x := newPeer(t, providertest.WebPushOptions{})
	x.service.All(providertest.WebPushScript{Fault: providertest.WebPushReset})
	for n := range 2 {
		require.Equal(t, notifications.Ambiguous, x.Send(t.Context(), message(x.browser(n).JSON(), "hello")).Kind, "the listed one")
	}
	webpush.Stand(x.Provider, x.elsewhere(t))
	stranger := func(n int, host string) string {
		return strings.Replace(x.browser(n).JSON(), x.service.Addr(), host, 1)
	}

	x.service.All(providertest.WebPushScript{Hold: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_ = x.service.Await(t.Context(), x.browser(9), 1)
		cancel()
	}()
	require.Equal(t, notifications.Ambiguous, x.Send(ctx, message(stranger(9, "push.example.com"), "hello")).Kind, "called off here")

	x.service.All(providertest.WebPushScript{Fault: providertest.WebPushReset})
	before := x.service.Total()
	require.Equal(t, notifications.Ambiguous, x.Send(t.Context(), message(stranger(1, "push.example.com"), "hello")).Kind)
	for n := range 3 {
		o := x.Send(t.Context(), message(stranger(n, "push.example.com"), "hello"))
		require.Equal(t, notifications.Retry, o.Kind, o.Explanation)
		require.False(t, o.ProviderDown)
		require.InDelta(t, 5*time.Minute, o.RetryAfter, float64(time.Minute))
	}
	require.Equal(t, before+1, x.service.Total())
	require.Equal(t, notifications.Ambiguous, x.Send(t.Context(), message(stranger(1, "other.example.com"), "hello")).Kind, "another one")

	x.service.All(providertest.WebPushScript{})
	webpush.SetClock(x.Provider, func() time.Time { return time.Now().Add(6 * time.Minute) })
	require.Equal(t, notifications.Accepted, x.Send(t.Context(), message(stranger(1, "push.example.com"), "hello")).Kind)
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2031, 5, 4, 10, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, " 5 ": 5 * time.Second, "-1": 0, "99999999999": 0, "1e3": 0, "86401": 24 * time.Hour,
		"Sun, 04 May 2031 10:00:30 GMT": 30 * time.Second, "Sun, 04 May 2031 09:00:00 GMT": 0, "Sun, 04 May 2036 09:00:00 GMT": 24 * time.Hour,
	} {
		require.Equal(t, want, webpush.RetryAfter(header, now), "%q", header)
	}
}

func TestMessageID(t *testing.T) {
	t.Parallel()
	for want, header := range map[string]http.Header{
		"":        {},
		"0:15%25": {"Location": {"https://fcm.googleapis.com/0:15%25"}},
		"gAAA":    {"Location": {"/m/gAAA"}},
		"AB-1":    {"Apns-Id": {"AB-1"}, "Location": {"/m/x"}},
	} {
		require.Equal(t, want, webpush.MessageID(&http.Response{Header: header}))
	}
	for _, strange := range []string{"/m/a b", "/m/" + strings.Repeat("x", 300), "/m/\x01", "/m/ä"} {
		require.Empty(t, webpush.MessageID(&http.Response{Header: http.Header{"Location": {strange}}}))
	}
}
