package apns_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/apns"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// Every answer that Apple documents, over the line.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	const (
		accepted = notifications.Accepted
		again    = notifications.Retry
		gone     = notifications.TargetGone
		payload  = notifications.PayloadBad
		config   = notifications.ConfigBad
		unknown  = notifications.Ambiguous
	)
	at := time.UnixMilli(1_700_000_000_123).UTC()
	type script = providertest.APNsScript
	cases := []struct {
		script  script
		want    notifications.OutcomeKind
		down    bool
		suspect bool
		goneAt  time.Time
		after   time.Duration
	}{
		{script: script{}, want: accepted},

		{script: script{Status: 410, Reason: "Unregistered", Timestamp: at}, want: gone, goneAt: at},
		{script: script{Status: 410, Reason: "ExpiredToken", Timestamp: at}, want: gone, goneAt: at},
		{script: script{Status: 410, Reason: "Unregistered"}, want: gone},
		{script: script{Status: 410, Body: `{"reason":"Unregistered","timestamp":"1700000000123"}`}, want: gone, goneAt: at},
		{script: script{Status: 410, Reason: "SomethingNew", Timestamp: at}, want: gone, goneAt: at},

		{script: script{Status: 400, Reason: "BadDeviceToken"}, want: gone, suspect: true},
		{script: script{Status: 400, Reason: "DeviceTokenNotForTopic"}, want: gone, suspect: true},
		{script: script{Status: 400, Reason: "BadTopic"}, want: config},
		{script: script{Status: 400, Reason: "MissingTopic"}, want: config},
		{script: script{Status: 400, Reason: "TopicDisallowed"}, want: config},

		{script: script{Status: 400, Reason: "BadCollapseId"}, want: payload},
		{script: script{Status: 400, Reason: "BadExpirationDate"}, want: payload},
		{script: script{Status: 400, Reason: "BadMessageId"}, want: payload},
		{script: script{Status: 400, Reason: "BadPriority"}, want: payload},
		{script: script{Status: 400, Reason: "DuplicateHeaders"}, want: payload},
		{script: script{Status: 400, Reason: "InvalidPushType"}, want: payload},
		{script: script{Status: 400, Reason: "MissingDeviceToken"}, want: payload},
		{script: script{Status: 400, Reason: "PayloadEmpty"}, want: payload},
		{script: script{Status: 404, Reason: "BadPath"}, want: payload},
		{script: script{Status: 405, Reason: "MethodNotAllowed"}, want: payload},
		{script: script{Status: 413, Reason: "PayloadTooLarge"}, want: payload},
		{script: script{Status: 400, Reason: "SomethingNew"}, want: payload},
		{script: script{Status: 400, Reason: "IdleTimeout"}, want: again},

		{script: script{Status: 403, Reason: "BadCertificate"}, want: config},
		{script: script{Status: 403, Reason: "BadCertificateEnvironment"}, want: config},
		{script: script{Status: 403, Reason: "InvalidProviderToken"}, want: config},
		{script: script{Status: 403, Reason: "MissingProviderToken"}, want: config},
		{script: script{Status: 403, Reason: "Forbidden"}, want: config},
		{script: script{Status: 403, Reason: "UnrelatedKeyIdInToken"}, want: config},
		{script: script{Status: 403, Reason: "BadEnvironmentKeyIdInToken"}, want: config},
		{script: script{Status: 403, Reason: "BadEnvironmentKeyInToken"}, want: config},
		{script: script{Status: 403, Reason: "SomethingNew"}, want: config},

		{script: script{Status: 429, Reason: "TooManyRequests", RetryAfter: "7"}, want: again, after: 7 * time.Second},
		{script: script{Status: 429, Reason: "TooManyRequests"}, want: again},
		{script: script{Status: 429, Reason: "TooManyProviderTokenUpdates"}, want: again, down: true, after: time.Minute},
		{script: script{Status: 429, Reason: "TooManyProviderTokenUpdates", RetryAfter: "90"}, want: again, down: true, after: 90 * time.Second},
		{script: script{Status: 500, Reason: "InternalServerError"}, want: again},
		{script: script{Status: 500, Reason: "SomethingNew"}, want: again},
		{script: script{Status: 503, Reason: "ServiceUnavailable", RetryAfter: "5"}, want: again, down: true, after: 5 * time.Second},
		{script: script{Status: 503, Reason: "Shutdown"}, want: again},

		{script: script{Status: 502, Body: "<html>Bad Gateway</html>", RetryAfter: "3"}, want: again, down: true, after: 3 * time.Second},
		{script: script{Status: 500, Body: "oops"}, want: again, down: true},
		{script: script{Status: 502, Body: strings.Repeat("x", 200_000)}, want: again, down: true},
		{script: script{Status: 504}, want: again, down: true},
		{script: script{Status: 404, Body: "<html>Not Found</html>"}, want: unknown},
		{script: script{Status: 403, Body: "<html>Forbidden</html>"}, want: unknown},
		{script: script{Status: 400, Body: `{"reason":`}, want: unknown},
		{script: script{Status: 302}, want: unknown},
		{script: script{Status: 204}, want: unknown},
	}
	double, p, _ := start(t, providertest.APNsOptions{})
	for i, tc := range cases {
		name := http.StatusText(tc.script.Status) + " " + tc.script.Reason
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			double.Script(token(i), tc.script)
			o := p.Send(t.Context(), message(i, "hello"))
			require.Equal(t, tc.want, o.Kind, "%s %s", o.Code, o.Explanation)
			require.Equal(t, tc.down, o.ProviderDown)
			require.Equal(t, tc.suspect, o.Suspect)
			require.Equal(t, tc.goneAt, o.GoneAt)
			require.Equal(t, tc.after, o.RetryAfter)
			require.Equal(t, 1, double.Count(token(i)))
			if tc.want == accepted {
				require.Equal(t, double.Last(token(i)).Header["apns-id"], o.ProviderMessageID)
				require.Empty(t, o.Explanation)
				return
			}
			require.NotEmpty(t, o.Code)
			require.Regexp(t, `^[A-Z].*[.?]$`, o.Explanation)
		})
	}
}

// The app is what a client said when it registered: it must not be able to pause
// the provider for everybody, nor can a message with a push type of its own.
func TestATopicThatIsNotTheProviders(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{Topics: []string{bundle}})
	m := message(1, "hello")
	m.Target.Device.App = "com.example.other"
	o := p.Send(t.Context(), m)
	require.Equal(t, notifications.TargetGone, o.Kind, o.Explanation)
	require.True(t, o.Suspect)
	require.Equal(t, "TopicDisallowed", o.Code)
	require.Equal(t, "com.example.other", double.Last(token(1)).Header["apns-topic"])

	for _, reason := range []string{"BadTopic", "MissingTopic", "TopicDisallowed", "DeviceTokenNotForTopic"} {
		double.Script(token(1), providertest.APNsScript{Status: 400, Reason: reason})
		o := p.Send(t.Context(), m)
		require.Equal(t, notifications.TargetGone, o.Kind, reason)
		require.True(t, o.Suspect, reason)

		special := message(1, "hello")
		special.Push.APNs = map[string]any{"pushType": "voip"}
		require.Equal(t, notifications.PayloadBad, p.Send(t.Context(), special).Kind, reason)
	}

	for _, address := range []string{"", "../", "zz", token(1) + "\r\n"} {
		m := message(1, "hello")
		m.Target.Address = address
		o := p.Send(t.Context(), m)
		require.Equal(t, notifications.TargetGone, o.Kind, address)
		require.True(t, o.Suspect)
	}
	m.Target.Device.App = "a b"
	require.Equal(t, notifications.TargetGone, p.Send(t.Context(), m).Kind)
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "30": 30 * time.Second, " 30 ": 30 * time.Second, "-5": 0, "soon": 0, "1e9": 0,
		"Mon, 03 Feb 2031 04:06:06 GMT": time.Minute, "Mon, 03 Feb 2031 04:00:00 GMT": 0,
		"999999999": 24 * time.Hour, "99999999999999999999": 0,
	} {
		require.Equal(t, want, apns.RetryAfter(header, now), header)
	}
}
