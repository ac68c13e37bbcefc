package providertest_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(s)
	require.NoError(t, err)
	return raw
}

// TestWebPushReadsTheStandardsExample holds the double's decryption against the
// example of RFC 8291, 5.
func TestWebPushReadsTheStandardsExample(t *testing.T) {
	t.Parallel()
	private, err := ecdh.P256().NewPrivateKey(unbase64(t, "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
	require.NoError(t, err)
	auth := unbase64(t, "BTBZMqHH6r4Tts7J_aSIgg")
	body := unbase64(t, "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN")
	plain, err := providertest.DecryptWebPush(private, auth, body)
	require.NoError(t, err)
	require.Equal(t, "When I grow up, I want to be a watermelon", string(plain))

	for at := range body {
		spoiled := append([]byte(nil), body...)
		spoiled[at] ^= 1
		if at >= 16 && at < 20 {
			continue // the record size: a larger one is as good
		}
		_, err := providertest.DecryptWebPush(private, auth, spoiled)
		require.Error(t, err, "byte %d", at)
	}
	for end := range body {
		_, err := providertest.DecryptWebPush(private, auth, body[:end])
		require.Error(t, err, "%d bytes", end)
	}
}

// TestWebPushKnowsTheStandardsSignature is the example of RFC 8292, 2.4.
func TestWebPushKnowsTheStandardsSignature(t *testing.T) {
	t.Parallel()
	const header = "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0." +
		"i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA, " +
		"k=BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
	claims, key, err := providertest.VerifyVAPID(header)
	require.NoError(t, err)
	require.Equal(t, providertest.VAPIDClaims{Audience: "https://push.example.net", Subject: "mailto:push@example.com", Expires: time.Unix(1453523768, 0)}, claims)
	require.Equal(t, header[len(header)-87:], key)
	spoiled := []byte(header)
	spoiled[len("vapid t=")+60]++
	_, _, err = providertest.VerifyVAPID(string(spoiled))
	require.Error(t, err)
}

// spoiler changes a request of the library's before it leaves.
type spoiler struct {
	*http.Client
	change func(*http.Request)
}

func (s spoiler) Do(req *http.Request) (*http.Response, error) {
	s.change(req)
	return s.Client.Do(req)
}

// TestWebPushJudges sends what a push service would refuse.
func TestWebPushJudges(t *testing.T) {
	t.Parallel()
	private, public, err := webpush.GenerateVAPIDKeys()
	require.NoError(t, err)
	otherPrivate, otherPublic, err := webpush.GenerateVAPIDKeys()
	require.NoError(t, err)
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, row := range map[string]struct {
		options func(o *webpush.Options)
		change  func(r *http.Request)
		clock   time.Duration
		origin  string
		status  int
	}{
		"right":                  {status: 201},
		"no TTL":                 {change: func(r *http.Request) { r.Header.Del("TTL") }, status: 400},
		"TTL twice":              {change: func(r *http.Request) { r.Header.Add("TTL", "1") }, status: 400},
		"negative TTL":           {change: set("TTL", "-1"), status: 400},
		"TTL of words":           {change: set("TTL", "soon"), status: 400},
		"TTL too long":           {change: set("TTL", "2419201"), status: 400},
		"urgency":                {change: set("Urgency", "now"), status: 400},
		"topic too long":         {change: set("Topic", strings.Repeat("a", 33)), status: 400},
		"topic of other letters": {change: set("Topic", "a b"), status: 400},
		"encoding":               {change: set("Content-Encoding", "aesgcm"), status: 400},
		"GET":                    {change: func(r *http.Request) { r.Method = http.MethodGet }, status: 405},
		"another subscription":   {change: func(r *http.Request) { r.URL.Path += "x" }, status: 404},
		"body too long": {change: func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(make([]byte, 4097))), 4097
		}, status: 413},
		"body of nothing": {change: func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }, status: 400},
		"no token":        {change: func(r *http.Request) { r.Header.Del("Authorization") }, status: 401},
		"scheme of a draft": {change: func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "vapid t=", "WebPush ", 1))
		}, status: 401},
		"signed by another":        {options: func(o *webpush.Options) { o.VAPIDPrivateKey = otherPrivate }, status: 401},
		"keys of another":          {options: func(o *webpush.Options) { o.VAPIDPrivateKey, o.VAPIDPublicKey = otherPrivate, otherPublic }, status: 403},
		"made out to another":      {origin: "https://push.example.com", status: 403},
		"over":                     {clock: 13 * time.Hour, status: 403},
		"good for more than a day": {clock: -13 * time.Hour, status: 403},
		"nobody's address":         {options: func(o *webpush.Options) { o.Subscriber = "me@localhost" }, status: 403},
		"the most that is taken": {options: func(o *webpush.Options) {
			o.TTL, o.Urgency, o.Topic = 2419200, webpush.UrgencyVeryLow, strings.Repeat("_", 32)
		}, status: 201},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := providertest.NewWebPush(t, providertest.WebPushOptions{Now: func() time.Time { return time.Now().Add(row.clock) }})
			b, err := s.Subscribe(public)
			require.NoError(t, err)
			if row.origin != "" {
				s.SetOrigin(row.origin)
			}
			var sub webpush.Subscription
			require.NoError(t, json.Unmarshal([]byte(b.JSON()), &sub))
			pem, err := providertest.CAPEM()
			require.NoError(t, err)
			roots := x509.NewCertPool()
			require.True(t, roots.AppendCertsFromPEM(pem))
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
			t.Cleanup(transport.CloseIdleConnections)
			o := &webpush.Options{Subscriber: "me@example.com", TTL: 60, VAPIDPrivateKey: private, VAPIDPublicKey: public}
			if row.options != nil {
				row.options(o)
			}
			change := row.change
			if change == nil {
				change = func(*http.Request) {}
			}
			o.HTTPClient = spoiler{&http.Client{Transport: transport}, change}
			resp, err := webpush.SendNotification([]byte("hello"), &sub, o)
			require.NoError(t, err)
			said, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, row.status, resp.StatusCode, string(said))
			require.Equal(t, row.status == 201, len(s.Violations()) == 0)
			require.Len(t, s.Messages(b), map[bool]int{true: 1}[row.status == 201])
		})
	}
}
