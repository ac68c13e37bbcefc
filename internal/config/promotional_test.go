package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPromotional(t *testing.T) {
	t.Parallel()
	v, err := read("PROMOTIONAL_EMAIL_FOOTER=off", "UNSUBSCRIBE_EMAIL= stop@example.com ")
	require.NoError(t, err)
	require.Equal(t, Promotional{NoFooter: true, UnsubscribeEmail: "stop@example.com"}, v.Promotional)

	for env, says := range map[string]string{
		"PROMOTIONAL_EMAIL_FOOTER=no":               "Use one of: on, off",
		"UNSUBSCRIBE_EMAIL=Stop <stop@example.com>": "write only the address",
		"UNSUBSCRIBE_MAIL=stop@example.com":         "Did you mean UNSUBSCRIBE_EMAIL?",
		"PROMOTIONAL_EMAIL_FOTER=off":               "Did you mean PROMOTIONAL_EMAIL_FOOTER?",
	} {
		_, err := read(env)
		require.ErrorContains(t, err, says, env)
	}
}
