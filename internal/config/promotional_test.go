package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPromotional(t *testing.T) {
	t.Parallel()
	v, err := read("PROMOTIONAL_EMAIL_FOOTER=off", "UNSUBSCRIBE_EMAIL= stop@example.com ", "PROMOTIONAL_EMAIL_CONSENT=assumed", "PROMOTIONAL_SMS_OPT_OUT=STOP antworten")
	require.NoError(t, err)
	require.Equal(t, Promotional{NoFooter: true, UnsubscribeEmail: "stop@example.com", AssumeEmailConsent: true, SMSOptOut: "STOP antworten"}, v.Promotional)

	for env, says := range map[string]string{
		"PROMOTIONAL_EMAIL_CONSENT=none":    "Use one of: required, assumed",
		"PROMOTIONAL_SMS_OPT_OUT=Reply end": "the word STOP in capitals",
		"PROMOTIONAL_SMS_OPT_OUT=Reply STOP to opt out of all the many messages that we like to send": "longer than 60 characters",
		"PROMOTIONAL_EMAIL_FOOTER=no":               "Use one of: on, off",
		"UNSUBSCRIBE_EMAIL=Stop <stop@example.com>": "write only the address",
		"UNSUBSCRIBE_MAIL=stop@example.com":         "Did you mean UNSUBSCRIBE_EMAIL?",
		"PROMOTIONAL_EMAIL_FOTER=off":               "Did you mean PROMOTIONAL_EMAIL_FOOTER?",
	} {
		_, err := read(env)
		require.ErrorContains(t, err, says, env)
	}
}

func TestEmailWebhookSecret(t *testing.T) {
	t.Parallel()
	v, err := read("EMAIL_WEBHOOK_SECRET=0123456789abcdef01234567")
	require.NoError(t, err)
	require.Equal(t, "0123456789abcdef01234567", v.EmailWebhookSecret)
	_, err = read("EMAIL_WEBHOOK_SECRET=short")
	require.ErrorContains(t, err, "needs at least 24")
	require.NotContains(t, err.Error(), "short;")
}
