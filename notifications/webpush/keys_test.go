package webpush_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/webpush"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	// The subscription of RFC 8291, 5: a pair whose halves are known.
	public, err := webpush.PublicKey("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94")
	require.NoError(t, err)
	require.Equal(t, "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4", public)

	seen := map[string]bool{}
	for range 50 {
		private, err := webpush.NewKey()
		require.NoError(t, err)
		require.Len(t, private, 43)
		require.False(t, seen[private])
		seen[private] = true
		public, err := webpush.PublicKey(private + "=\n")
		require.NoError(t, err)
		raw, err := base64.RawURLEncoding.DecodeString(public)
		require.NoError(t, err)
		require.Len(t, raw, 65)
		require.EqualValues(t, 4, raw[0])
	}
	for _, bad := range []string{"", "secret", strings.Repeat("A", 43), strings.Repeat("_", 43), strings.Repeat("A", 44), "-----BEGIN EC PRIVATE KEY-----"} {
		_, err := webpush.PublicKey(bad)
		require.ErrorContains(t, err, "32 bytes in base64url", bad)
	}
}

func TestWrongConfigurations(t *testing.T) {
	t.Parallel()
	private, err := webpush.NewKey()
	require.NoError(t, err)
	public, err := webpush.PublicKey(private)
	require.NoError(t, err)
	for name, row := range map[string]struct {
		cfg  notifications.ProviderConfig
		says string // empty: it is right
	}{
		"right":              {notifications.ProviderConfig{Secret: private, Config: map[string]any{"subject": "mailto:hello@example.com", "publicKey": public}}, ""},
		"a plain address":    {notifications.ProviderConfig{Secret: private, Config: map[string]any{"subject": "hello@example.com"}}, ""},
		"a page":             {notifications.ProviderConfig{Secret: private, Config: map[string]any{"subject": "https://example.com/contact"}}, ""},
		"no subject":         {notifications.ProviderConfig{Secret: private}, "the subject (WEBPUSH_SUBJECT)"},
		"an http page":       {notifications.ProviderConfig{Secret: private, Config: map[string]any{"subject": "http://example.com"}}, "the subject (WEBPUSH_SUBJECT)"},
		"a word":             {notifications.ProviderConfig{Secret: private, Config: map[string]any{"subject": "me"}}, "the subject (WEBPUSH_SUBJECT)"},
		"another public key": {notifications.ProviderConfig{Secret: private, Config: map[string]any{"subject": "mailto:hello@example.com", "publicKey": "B" + public[1:40]}}, "does not belong to the private one"},
		"no key":             {notifications.ProviderConfig{Source: notifications.SourceDashboard}, "the private VAPID key (secret) is 32 bytes"},
		"key not opened":     {notifications.ProviderConfig{Source: notifications.SourceEnvironment}, "another GROUNDWORK_KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			adapter, err := webpush.Factory(webpush.Options{})(row.cfg)
			if row.says != "" {
				require.ErrorContains(t, err, row.says)
				require.NotContains(t, err.Error(), private)
				require.Nil(t, adapter)
				return
			}
			require.NoError(t, err)
			require.Equal(t, notifications.Accepted, adapter.(notifications.Checker).Check(t.Context()).Kind)
		})
	}
}
