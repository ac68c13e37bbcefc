package providertest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/payload"
	apnstoken "github.com/sideshow/apns2/token"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

const (
	apnsTopic = "com.example.shop"
	apnsKeyID = "ABC123DEFG"
	apnsTeam  = "DEF123GHIJ"
)

func deviceToken(n int) string { return fmt.Sprintf("%064x", n+1) }

// stockClient is the independent peer of the double.
func stockClient(t *testing.T, double *providertest.APNs, key *providertest.APNsKey) *apns2.Client {
	t.Helper()
	authKey, err := apnstoken.AuthKeyFromBytes([]byte(key.PEM))
	require.NoError(t, err)
	client := apns2.NewTokenClient(&apnstoken.Token{AuthKey: authKey, KeyID: apnsKeyID, TeamID: apnsTeam})
	client.Host = double.URL()
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func startAPNs(t *testing.T, opts providertest.APNsOptions) (*providertest.APNs, *apns2.Client) {
	t.Helper()
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	opts.Key, opts.KeyID, opts.TeamID = key.Public, apnsKeyID, apnsTeam
	double := providertest.NewAPNs(t, opts)
	return double, stockClient(t, double, key)
}

func push(n int) *apns2.Notification {
	return &apns2.Notification{DeviceToken: deviceToken(n), Topic: apnsTopic, Payload: payload.NewPayload().Alert("hello"),
		ApnsID: fmt.Sprintf("00000000-0000-8000-8000-%012d", n)}
}

func TestAPNsTakesPushes(t *testing.T) {
	t.Parallel()
	for _, latency := range []time.Duration{0, time.Millisecond} {
		double, client := startAPNs(t, providertest.APNsOptions{Topics: []string{apnsTopic}, Latency: latency})
		var all sync.WaitGroup
		for i := range 300 {
			all.Go(func() {
				answer, err := client.Push(push(i))
				if err != nil || !answer.Sent() || answer.ApnsID != push(i).ApnsID {
					t.Errorf("%v %v", answer, err)
				}
			})
		}
		all.Wait()
		require.Equal(t, 300, double.Total())
		require.Equal(t, 300, double.Accepted())
		require.Len(t, double.Counts(), 300)
		last := double.Last(deviceToken(7))
		require.Equal(t, apnsTopic, last.Header["apns-topic"])
		require.JSONEq(t, `{"aps":{"alert":"hello"}}`, string(last.Payload))
		require.Nil(t, double.Last(deviceToken(1000)))
	}
}

func TestAPNsAnswersAsTold(t *testing.T) {
	t.Parallel()
	double, client := startAPNs(t, providertest.APNsOptions{})
	at := time.UnixMilli(1_700_000_000_000)
	for _, script := range []providertest.APNsScript{
		{Status: 410, Reason: "Unregistered", Timestamp: at},
		{Status: 429, Reason: "TooManyRequests", RetryAfter: "7"},
		{Status: 400, Reason: "BadDeviceToken", Delay: time.Millisecond},
	} {
		double.Script(deviceToken(1), script, providertest.APNsScript{})
		answer, err := client.Push(push(1))
		require.NoError(t, err)
		require.Equal(t, script.Status, answer.StatusCode)
		require.Equal(t, script.Reason, answer.Reason)
		require.Equal(t, script.Timestamp.IsZero(), answer.Timestamp.IsZero())
		answer, err = client.Push(push(1))
		require.NoError(t, err)
		require.True(t, answer.Sent(), "the script was for one push")
	}
	require.Equal(t, 6, double.Count(deviceToken(1)))
	require.Equal(t, 3, double.Accepted())

	double.Script(deviceToken(2), providertest.APNsScript{Status: 502, Body: "<html>Bad Gateway</html>"})
	_, err := client.Push(push(2))
	require.Error(t, err)

	double.Script(deviceToken(3), providertest.APNsScript{Drop: true})
	_, err = client.Push(push(3))
	require.Error(t, err)
	require.Equal(t, 1, double.Count(deviceToken(3)))

	double.Script(deviceToken(4), providertest.APNsScript{NoAnswer: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-double.Arrived(deviceToken(4))
		cancel()
	}()
	_, err = client.PushWithContext(ctx, push(4))
	require.ErrorIs(t, err, context.Canceled)

	double.Script(deviceToken(5), providertest.APNsScript{Hold: true})
	done := make(chan error)
	go func() {
		_, err := client.Push(push(5))
		done <- err
	}()
	<-double.Arrived(deviceToken(5))
	select {
	case err := <-done:
		require.Fail(t, "it was held", "%v", err)
	default:
	}
	double.Release()
	require.NoError(t, <-done)

	double.Set(providertest.APNsBehaviour{Fault: providertest.APNsScript{Status: 500, Reason: "InternalServerError"}, FaultRate: 0.5})
	failed := 0
	for i := range 200 {
		answer, err := client.Push(push(100 + i))
		require.NoError(t, err)
		if !answer.Sent() {
			failed++
		}
	}
	require.Positive(t, failed)
	require.Less(t, failed, 200)
}

// Unread pushes come again by themselves: the stock client's transport knows that
// they were not processed.
func TestAPNsSaysWhatItDidNotRead(t *testing.T) {
	t.Parallel()
	double, client := startAPNs(t, providertest.APNsOptions{})
	for i, script := range []providertest.APNsScript{{GoAway: true}, {Reset: true, ResetCode: http2.ErrCodeRefusedStream}} {
		double.Script(deviceToken(i), script, providertest.APNsScript{})
		n := push(i)
		answer, err := client.Push(n)
		require.NoError(t, err)
		require.True(t, answer.Sent())
		require.Equal(t, 1, double.Count(deviceToken(i)))
	}
	double.GoAway("Shutdown")
	require.Eventually(t, func() bool { _, open, _ := double.Connections(); return open == 0 }, time.Minute, time.Millisecond)
	answer, err := client.Push(push(9))
	require.NoError(t, err)
	require.True(t, answer.Sent())
}

func TestAPNsChecksWhatAppleChecks(t *testing.T) {
	t.Parallel()
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	otherKey, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	double := providertest.NewAPNs(t, providertest.APNsOptions{Key: key.Public, KeyID: apnsKeyID, TeamID: apnsTeam, Topics: []string{apnsTopic}, TokenLife: -1})
	bearer := func(pem, keyID, team string) string {
		authKey, err := apnstoken.AuthKeyFromBytes([]byte(pem))
		require.NoError(t, err)
		return "bearer " + (&apnstoken.Token{AuthKey: authKey, KeyID: keyID, TeamID: team}).GenerateIfExpired()
	}
	good := bearer(key.PEM, apnsKeyID, apnsTeam)
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true}}
	t.Cleanup(client.CloseIdleConnections)
	alert := `{"aps":{"alert":"hello"}}`
	cases := []struct {
		name, method, path, body string
		header                   map[string]string
		status                   int
		reason                   string
	}{
		{name: "good", status: 200},
		{name: "method", method: "PUT", status: 405, reason: "MethodNotAllowed"},
		{name: "path", path: "/4/device/" + deviceToken(1), status: 404, reason: "BadPath"},
		{name: "no token", header: map[string]string{"authorization": ""}, status: 403, reason: "MissingProviderToken"},
		{name: "empty token", header: map[string]string{"authorization": "bearer "}, status: 403, reason: "MissingProviderToken"},
		{name: "no JWT", header: map[string]string{"authorization": "bearer abc"}, status: 403, reason: "InvalidProviderToken"},
		{name: "another key", header: map[string]string{"authorization": bearer(otherKey.PEM, apnsKeyID, apnsTeam)}, status: 403, reason: "InvalidProviderToken"},
		{name: "another key id", header: map[string]string{"authorization": bearer(key.PEM, "XXXXXXXXXX", apnsTeam)}, status: 403, reason: "InvalidProviderToken"},
		{name: "another team", header: map[string]string{"authorization": bearer(key.PEM, apnsKeyID, "XXXXXXXXXX")}, status: 403, reason: "InvalidProviderToken"},
		{name: "message id", header: map[string]string{"apns-id": "1"}, status: 400, reason: "BadMessageId"},
		{name: "expiration", header: map[string]string{"apns-expiration": "soon"}, status: 400, reason: "BadExpirationDate"},
		{name: "collapse id", header: map[string]string{"apns-collapse-id": strings.Repeat("c", 65)}, status: 400, reason: "BadCollapseId"},
		{name: "priority", header: map[string]string{"apns-priority": "7"}, status: 400, reason: "BadPriority"},
		{name: "push type", header: map[string]string{"apns-push-type": "shout"}, status: 400, reason: "InvalidPushType"},
		{name: "urgent background", header: map[string]string{"apns-push-type": "background", "apns-priority": "10"}, status: 400, reason: "BadPriority"},
		{name: "background", header: map[string]string{"apns-push-type": "background", "apns-priority": "5"}, status: 200},
		{name: "no topic", header: map[string]string{"apns-topic": ""}, status: 400, reason: "MissingTopic"},
		{name: "another topic", header: map[string]string{"apns-topic": "com.example.other"}, status: 400, reason: "TopicDisallowed"},
		{name: "a call's topic", header: map[string]string{"apns-topic": apnsTopic + ".voip", "apns-push-type": "voip"}, status: 200},
		{name: "not a call's topic", header: map[string]string{"apns-push-type": "voip"}, status: 400, reason: "BadTopic"},
		{name: "no payload", body: "-", status: 400, reason: "PayloadEmpty"},
		{name: "no JSON", body: `{"aps":{`, status: 400, reason: "PayloadEmpty"},
		{name: "no aps", body: `{"alert":"hello"}`, status: 400, reason: "PayloadEmpty"},
		{name: "aps elsewhere", body: `{"k":1,"aps":{"alert":"hello"}}`, status: 200},
		{name: "large", body: `{"aps":{"alert":"` + strings.Repeat("x", 4096-20) + `"}}`, status: 200},
		{name: "too large", body: `{"aps":{"alert":"` + strings.Repeat("x", 4096-19) + `"}}`, status: 413, reason: "PayloadTooLarge"},
		{name: "no device", path: "/3/device/", status: 400, reason: "MissingDeviceToken"},
		{name: "device", path: "/3/device/abc", status: 400, reason: "BadDeviceToken"},
		{name: "nobody", path: "/3/device/" + providertest.APNsNobody, status: 400, reason: "BadDeviceToken"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			method, path, body := "POST", "/3/device/"+deviceToken(1), alert
			if tc.method != "" {
				method = tc.method
			}
			if tc.path != "" {
				path = tc.path
			}
			if tc.body != "" {
				body = strings.TrimPrefix(tc.body, "-")
			}
			req, err := http.NewRequestWithContext(t.Context(), method, double.URL()+path, bytes.NewBufferString(body))
			require.NoError(t, err)
			for name, value := range map[string]string{"authorization": good, "apns-topic": apnsTopic, "apns-push-type": "alert"} {
				req.Header.Set(name, value)
			}
			for name, value := range tc.header {
				req.Header.Set(name, value)
				if value == "" {
					req.Header.Del(name)
				}
			}
			resp, err := client.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, tc.status, resp.StatusCode)
			raw, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			var answer struct{ Reason string }
			if len(raw) > 0 {
				require.NoError(t, json.Unmarshal(raw, &answer))
			}
			require.Equal(t, tc.reason, answer.Reason)
		})
	}
	require.Equal(t, 1, double.Checks())
}

func TestAPNsCountsTokenUpdates(t *testing.T) {
	t.Parallel()
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	double := providertest.NewAPNs(t, providertest.APNsOptions{Key: key.Public})
	first, second := stockClient(t, double, key), stockClient(t, double, key)
	for range 2 {
		answer, err := first.Push(push(1))
		require.NoError(t, err)
		require.True(t, answer.Sent())
	}
	answer, err := second.Push(push(1))
	require.NoError(t, err)
	require.Equal(t, "TooManyProviderTokenUpdates", answer.Reason)
	seen, refused := double.TokenUpdates()
	require.Equal(t, 2, seen)
	require.Equal(t, 1, refused)
}

func TestAPNsCountsOtherCollapseIDs(t *testing.T) {
	t.Parallel()
	double, client := startAPNs(t, providertest.APNsOptions{})
	for _, step := range []struct {
		token       int
		collapse    string
		recollapsed int
	}{{1, "a", 0}, {1, "a", 0}, {2, "b", 0}, {1, "b", 1}, {1, "b", 1}, {2, "", 2}} {
		n := push(step.token)
		n.CollapseID = step.collapse
		_, err := client.Push(n)
		require.NoError(t, err)
		require.Equal(t, step.recollapsed, double.Recollapsed(), "%+v", step)
	}
}

func TestAPNsCountsWhatItCouldNotAnswer(t *testing.T) {
	t.Parallel()
	double, client := startAPNs(t, providertest.APNsOptions{})
	_, err := client.Push(push(0))
	require.NoError(t, err)
	double.Script(deviceToken(1), providertest.APNsScript{NoAnswer: true})
	failed := make(chan error)
	go func() {
		_, err := client.Push(push(1))
		failed <- err
	}()
	<-double.Arrived(deviceToken(1))
	require.Zero(t, double.Unanswered(), "it may still be")
	double.Drop()
	require.Error(t, <-failed)
	require.NoError(t, double.Down()) // the connection has ended for the double as well
	require.Equal(t, 1, double.Unanswered())
}

// A client that opens more streams than it may is told so, and counted.
func TestAPNsRefusesTooManyStreams(t *testing.T) {
	t.Parallel()
	double, client := startAPNs(t, providertest.APNsOptions{Streams: 2})
	_, err := client.Push(push(0)) // the settings are known now
	require.NoError(t, err)
	conn, err := tls.Dial("tcp", double.Addr(), &tls.Config{NextProtos: []string{"h2"}})
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
	framer := http2.NewFramer(conn, conn)
	require.NoError(t, framer.WriteSettings())
	require.NoError(t, framer.WriteSettingsAck())
	for id := uint32(1); id <= 7; id += 2 {
		// An empty header block: the stream is open, and its body is awaited.
		require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true}))
	}
	var refused []uint32
	for len(refused) < 2 {
		f, err := framer.ReadFrame()
		require.NoError(t, err)
		if reset, ok := f.(*http2.RSTStreamFrame); ok {
			require.Equal(t, http2.ErrCodeRefusedStream, reset.ErrCode)
			refused = append(refused, reset.StreamID)
		}
	}
	require.Equal(t, []uint32{5, 7}, refused)
	require.Equal(t, 2, double.RefusedStreams())
	require.Equal(t, 2, double.PeakStreams())
}

func TestAPNsDownAndUp(t *testing.T) {
	t.Parallel()
	double, client := startAPNs(t, providertest.APNsOptions{})
	_, err := client.Push(push(1))
	require.NoError(t, err)
	require.NoError(t, double.Down())
	_, err = client.Push(push(2))
	require.Error(t, err)
	require.NoError(t, double.Up())
	_, err = client.Push(push(3))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, double.Await(ctx, 2))
	require.Equal(t, 2, double.Total())
	cancel()
	require.ErrorIs(t, double.Await(ctx, 3), context.Canceled)
}
