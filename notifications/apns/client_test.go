package apns_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/apns"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func p12Secret(t *testing.T, p12, password string) string {
	t.Helper()
	secret, err := json.Marshal(map[string]string{"p12": p12, "password": password})
	require.NoError(t, err)
	return string(secret)
}

func keyPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestWrongSetups(t *testing.T) {
	t.Parallel()
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	cases := []struct {
		name   string
		config map[string]any
		secret string
		want   string
	}{
		{"no bundle id", map[string]any{"bundleId": ""}, key.PEM, "bundleId"},
		{"bundle id", map[string]any{"bundleId": "com.example shop"}, key.PEM, "is not a bundle id"},
		{"environment", map[string]any{"environment": "staging"}, key.PEM, "use production or sandbox"},
		{"no key id", map[string]any{"keyId": ""}, key.PEM, "keyId"},
		{"key id", map[string]any{"keyId": "AuthKey_ABC123DEFG.p8"}, key.PEM, "keyId"},
		{"no team id", map[string]any{"teamId": nil}, key.PEM, "teamId"},
		{"team id", map[string]any{"teamId": "abcdefghij"}, key.PEM, "teamId"},
		{"no key", nil, "  ", "the key is missing"},
		{"not a key", nil, "hello", "not a .p8 file"},
		{"half a key", nil, key.PEM[:80] + "\n-----END PRIVATE KEY-----\n", ".p8 file"},
		{"another curve", nil, keyPEM(t, p384), "P-256"},
		{"another kind", nil, keyPEM(t, rsaKey), "P-256"},
		{"a damaged key", nil, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("no")})), "damaged"},
		{"endpoint", map[string]any{"endpoint": "push.example.com"}, key.PEM, "not an address"},
		{"endpoint in the open", map[string]any{"endpoint": "http://push.example.com"}, key.PEM, "https://"},
		{"endpoint's port", map[string]any{"endpoint": "https://push.example.com:99999"}, key.PEM, "port"},
		{"certificate without file", nil, `{"password": "x"}`, "base64"},
		{"certificate that is none", nil, `{"p12": "!", "password": "x"}`, "base64"},
		{"certificate that is something else", nil, `{"p12": "aGVsbG8=", "password": "x"}`, ".p12 file cannot be read"},
		{"certificate's password", nil, p12Secret(t, providertest.APNsP12, "wrong-password"), "password of the .p12 file is wrong"},
		{"certificate of a newer program", nil, p12Secret(t, providertest.APNsP12Modern, providertest.APNsP12Password), "-legacy"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			config := map[string]any{"keyId": keyID, "teamId": teamID, "bundleId": bundle}
			maps.Copy(config, tc.config)
			_, err := apns.New(notifications.ProviderConfig{Config: config, Secret: tc.secret})
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "wrong-password")
			require.NotContains(t, err.Error(), key.PEM)
		})
	}
}

func TestRightSetups(t *testing.T) {
	t.Parallel()
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	for name, secret := range map[string]string{
		"as it is": key.PEM, "on one line": strings.ReplaceAll(key.PEM, "\n", `\n`), "with blanks": "\n  " + key.PEM + "\n\n",
		"certificate": p12Secret(t, providertest.APNsP12, providertest.APNsP12Password),
	} {
		a, err := apns.New(notifications.ProviderConfig{Config: map[string]any{"keyId": keyID, "teamId": teamID, "bundleId": " " + bundle + " ", "environment": "Sandbox"}, Secret: secret})
		require.NoError(t, err, name)
		limiter, ok := a.(notifications.Limiter)
		require.True(t, ok)
		require.Equal(t, notifications.Limits{StartInFlight: 1, MaxInFlight: 1000}, limiter.Limits())
	}
}

func TestCertificateDates(t *testing.T) {
	t.Parallel()
	secret := p12Secret(t, providertest.APNsP12, providertest.APNsP12Password)
	cert, err := apns.ReadCertificate(secret, time.Now())
	require.NoError(t, err)
	_, err = apns.ReadCertificate(secret, cert.Leaf.NotAfter.Add(time.Second))
	require.ErrorContains(t, err, "expired on "+cert.Leaf.NotAfter.Format(time.DateOnly))
	_, err = apns.ReadCertificate(secret, cert.Leaf.NotBefore.Add(-time.Second))
	require.ErrorContains(t, err, "clock")
}

func TestCertificateInPlaceOfAKey(t *testing.T) {
	t.Parallel()
	double := providertest.NewAPNs(t, providertest.APNsOptions{ClientCert: true, Topics: []string{bundle}})
	a, err := apns.New(notifications.ProviderConfig{Config: double.Config(bundle), Secret: p12Secret(t, providertest.APNsP12, providertest.APNsP12Password)})
	require.NoError(t, err)
	p := a.(*apns.Provider)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	require.Equal(t, notifications.Accepted, p.Check(t.Context()).Kind)
	o := p.Send(t.Context(), message(1, "hello"))
	require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
	require.NotContains(t, double.Last(token(1)).Header, "authorization")

	double.Script(token(1), providertest.APNsScript{Status: 403, Reason: "ExpiredProviderToken"})
	require.Equal(t, notifications.ConfigBad, p.Send(t.Context(), message(1, "hello")).Kind, "there is no token to renew")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	type script = providertest.APNsScript
	for name, tc := range map[string]struct {
		opts providertest.APNsOptions
		all  script
		down bool
		want notifications.OutcomeKind
	}{
		"good":               {want: notifications.Accepted},
		"a gateway's answer": {all: script{Status: 200}, want: notifications.Accepted},
		"another key":        {opts: providertest.APNsOptions{Key: &otherKey(t).PublicKey}, want: notifications.ConfigBad},
		"another app":        {opts: providertest.APNsOptions{Topics: []string{"com.example.other"}}, want: notifications.ConfigBad},
		"another app's":      {all: script{Status: 400, Reason: "DeviceTokenNotForTopic"}, want: notifications.ConfigBad},
		"not there":          {down: true, want: notifications.Retry},
		"not available":      {all: script{Status: 503, Reason: "ServiceUnavailable"}, want: notifications.Retry},
		"not Apple":          {all: script{Status: 404, Body: "<html>"}, want: notifications.Retry},
		"untrusted":          {opts: providertest.APNsOptions{Cert: providertest.CertUnknownCA}, want: notifications.ConfigBad},
		"expired":            {opts: providertest.APNsOptions{Cert: providertest.CertExpired}, want: notifications.ConfigBad},
		"wrong name":         {opts: providertest.APNsOptions{Cert: providertest.CertWrongName}, want: notifications.ConfigBad},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			double, p, _ := start(t, tc.opts)
			double.Set(providertest.APNsBehaviour{All: tc.all})
			if tc.down {
				require.NoError(t, double.Down())
			}
			o := p.Check(t.Context())
			require.Equal(t, tc.want, o.Kind, o.Explanation)
			require.Zero(t, double.Total(), "a check is for nobody")
			if tc.want != notifications.Accepted {
				require.Regexp(t, `^[A-Z].*\.$`, o.Explanation)
			}
			if tc.opts.Cert != providertest.CertValid {
				require.Contains(t, o.Explanation, "SSL_CERT_FILE")
			}
		})
	}
}

func otherKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func TestOneTokenForAll(t *testing.T) {
	t.Parallel()
	double, p, key := start(t, providertest.APNsOptions{})
	second := provider(t, double, key)
	require.True(t, apns.SharesTokens(p, second))
	for i, sender := range []*apns.Provider{p, second, p} {
		require.Equal(t, notifications.Accepted, sender.Send(t.Context(), message(i, "hello")).Kind)
	}
	seen, refused := double.TokenUpdates()
	require.Equal(t, 1, seen)
	require.Zero(t, refused)
	made, _, _ := double.Connections()
	require.Equal(t, int64(2), made)
	_, other, _ := start(t, providertest.APNsOptions{})
	require.False(t, apns.SharesTokens(p, other))
}

func TestTokensAreRenewedInTime(t *testing.T) {
	t.Parallel()
	_, p, _ := start(t, providertest.APNsOptions{})
	now := time.Now() // with a monotonic clock, which Add moves along
	s := apns.NewSigner(p, func() time.Time { return now })
	header := func() string {
		t.Helper()
		h, err := s.Authorization()
		require.NoError(t, err)
		require.Regexp(t, `^bearer [\w-]+\.[\w-]+\.[\w-]+$`, h)
		return h
	}
	first := header()
	for range 4 {
		now = now.Add(10 * time.Minute)
		require.Equal(t, first, header(), "not more often than Apple allows")
	}
	now = now.Add(10 * time.Minute)
	second := header()
	require.NotEqual(t, first, second, "not later than Apple demands")

	// Called expired: by those who still have the first one, and by others.
	got, ok := s.Renewed(first)
	require.True(t, ok)
	require.Equal(t, second, got, "somebody else has renewed it")
	third, ok := s.Renewed(second)
	require.True(t, ok)
	require.NotEqual(t, second, third)
	_, ok = s.Renewed(third)
	require.False(t, ok, "once; then it is the clock")
	now = now.Add(21 * time.Minute)
	_, ok = s.Renewed(third)
	require.True(t, ok)

	// Somebody sets the clock back: the token comes from the future.
	before := header()
	now = now.Round(0).Add(-2 * time.Hour)
	require.NotEqual(t, before, header())
}

func TestAnExpiredTokenIsRenewedOnce(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{})
	expired := providertest.APNsScript{Status: 403, Reason: "ExpiredProviderToken"}
	double.Script(token(1), expired, providertest.APNsScript{})
	o := p.Send(t.Context(), message(1, "hello"))
	require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
	require.Equal(t, 2, double.Count(token(1)))
	seen, refused := double.TokenUpdates()
	require.Equal(t, 2, seen)
	require.Zero(t, refused)

	double.Script(token(2), expired)
	o = p.Send(t.Context(), message(2, "hello"))
	require.Equal(t, notifications.ConfigBad, o.Kind)
	require.Contains(t, o.Explanation, "clock")
	require.Equal(t, 1, double.Count(token(2)), "it was renewed a moment ago")
}

func TestTheOtherEnvironment(t *testing.T) {
	t.Parallel()
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	opts := providertest.APNsOptions{Key: key.Public, KeyID: keyID, TeamID: teamID}
	main, side := providertest.NewAPNs(t, opts), providertest.NewAPNs(t, opts)
	p, other := provider(t, main, key), provider(t, side, key)
	apns.UseSandbox(p, other)

	m := message(1, "hello")
	m.Target.Device.Environment = "sandbox"
	require.Equal(t, notifications.Accepted, p.Send(t.Context(), m).Kind)
	require.Equal(t, 0, main.Count(token(1)), "the device said where it is")

	unknown := providertest.APNsScript{Status: 400, Reason: "BadDeviceToken"}
	main.Script(token(2), unknown)
	require.Equal(t, notifications.Accepted, p.Send(t.Context(), message(2, "hello")).Kind)
	require.Equal(t, 1, side.Count(token(2)))

	main.Script(token(3), unknown)
	side.Script(token(3), unknown)
	o := p.Send(t.Context(), message(3, "hello"))
	require.Equal(t, notifications.TargetGone, o.Kind)
	require.True(t, o.Suspect)

	main.Script(token(4), unknown)
	side.Script(token(4), providertest.APNsScript{Status: 403, Reason: "BadEnvironmentKeyInToken"})
	o = p.Send(t.Context(), message(4, "hello"))
	require.Equal(t, notifications.TargetGone, o.Kind, "a key for one environment is no fault of the provider's: %s", o.Explanation)
	require.True(t, o.Suspect)

	require.Equal(t, notifications.Accepted, p.Check(t.Context()).Kind)
	require.Equal(t, 0, side.Checks())
}

// capacity remembers what was told.
type capacity struct {
	mu   sync.Mutex
	last int
	news chan struct{}
}

func follow(p *apns.Provider) *capacity {
	c := &capacity{news: make(chan struct{}, 100)}
	p.OnCapacity(func(n int) {
		c.mu.Lock()
		c.last = n
		c.mu.Unlock()
		c.news <- struct{}{}
	})
	return c
}

func (c *capacity) await(t *testing.T, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		c.mu.Lock()
		last := c.last
		c.mu.Unlock()
		if last == want {
			return
		}
		select {
		case <-c.news:
		case <-ctx.Done():
			require.Equal(t, want, last)
		}
	}
}

func TestCapacityIsTold(t *testing.T) {
	t.Parallel()
	double, p, _ := start(t, providertest.APNsOptions{Streams: 1, StreamsAfterAccept: 500})
	told := follow(p)
	told.await(t, 1)
	require.Equal(t, notifications.Accepted, p.Send(t.Context(), message(1, "hello")).Kind)
	told.await(t, 450)
	double.SetStreams(1)
	told.await(t, 1)
	double.SetStreams(100_000)
	told.await(t, 900)
	double.Drop()
	told.await(t, 1)
}
