package config

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func read(env ...string) (Values, error) {
	return Read(env, func(path string) ([]byte, error) {
		if path == "/run/secrets/pass" {
			return []byte("from-a-file\n"), nil
		}
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
	})
}

func TestReadTheUsual(t *testing.T) {
	t.Parallel()
	v, err := read()
	require.NoError(t, err)
	require.Equal(t, Values{Env: EnvLocal}, v)

	v, err = read("APP_ENV=production", "GROUNDWORK_KEY="+strings.Repeat("k", 32), "SMTP_HOST=mail.example.com", "SMTP_PORT=2525",
		"SMTP_USERNAME=shop", "SMTP_PASSWORD_FILE=/run/secrets/pass", "SMTP_FROM=Shop <hello@example.com>", "SMTP_TLS=none",
		"SUPERUSER_EMAIL=root@example.com", "SUPERUSER_PASSWORD_FILE=/run/secrets/pass", "SEND_ONLY_TO=a@example.com, +15005550006", "HOME=/x")
	require.NoError(t, err)
	require.Equal(t, EnvProduction, v.Env)
	require.Equal(t, &SMTP{Host: "mail.example.com", Port: 2525, Username: "shop", Password: "from-a-file", TLS: "none", From: "hello@example.com", FromName: "Shop"}, v.SMTP)
	require.Equal(t, "from-a-file", v.SuperuserPassword)
	require.Equal(t, []string{"a@example.com", "+15005550006"}, v.SendOnlyTo)
	require.Nil(t, v.PromotionalSMTP)
}

func TestEveryProblemIsToldAtOnceWithItsFix(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env  []string
		want []string // parts of the sentences, one each
	}{
		{[]string{"APP_ENV=prod"}, []string{`APP_ENV is "prod". Use one of: local, staging, production. Did you mean production?`}},
		{[]string{"APP_ENV=production"}, []string{"GROUNDWORK_KEY is missing"}},
		{[]string{"GROUNDWORK_KEY=short"}, []string{"GROUNDWORK_KEY has 5 characters"}},
		{[]string{"GROUNDWORK_KEY="}, []string{"GROUNDWORK_KEY is empty"}},
		{[]string{"SMTP_HOST=mail.example.com"}, []string{"SMTP_FROM is missing"}},
		{[]string{"SMTP_FROM=a@example.com"}, []string{"SMTP_HOST is not"}},
		{[]string{"SMTP_HOST=mail.example.com:587", "SMTP_FROM=x"}, []string{"write the port into SMTP_PORT", "SMTP_FROM is"}},
		{[]string{"SMTP_HOST=m", "SMTP_FROM=a@example.com", "SMTP_PORT=abc", "SMTP_TLS=ssl", "SMTP_USERNAME=u"},
			[]string{"SMTP_TLS is", "SMTP_PORT is", "SMTP_PASSWORD is not"}},
		{[]string{"PROMOTIONAL_SMTP_HOST=m"}, []string{"PROMOTIONAL_SMTP_FROM is missing"}},
		{[]string{"SMTP_PASWORD=secret-value"}, []string{"SMTP_PASWORD is not a variable of Groundwork. Did you mean SMTP_PASSWORD?"}},
		{[]string{"SMTP_PASS=secret-value"}, []string{"Did you mean SMTP_PASSWORD?"}},
		{[]string{"SMTP_PASSWORD=secret-value", "SMTP_PASSWORD_FILE=/run/secrets/pass", "SMTP_HOST=m", "SMTP_FROM=a@example.com", "SMTP_USERNAME=u"}, []string{"both set"}},
		{[]string{"GROUNDWORK_KEY_FILE=/nowhere"}, []string{"GROUNDWORK_KEY_FILE names /nowhere, which cannot be read"}},
		{[]string{"SUPERUSER_EMAIL=root@example.com"}, []string{"SUPERUSER_PASSWORD_FILE"}},
		{[]string{"SUPERUSER_PASSWORD=secret-value"}, []string{"SUPERUSER_EMAIL is not"}},
		{[]string{"SUPERUSER_EMAIL=root@example.com", "SUPERUSER_PASSWORD=short"}, []string{"has 5 characters"}},
		{[]string{"SEND_ONLY_TO=nobody"}, []string{"neither an e-mail address nor a phone number"}},
		{[]string{"TWILIO_ENDPOINT=localhost"}, []string{"TWILIO_ENDPOINT is"}},
		{[]string{"APNS_ENVIRONMENT=prod"}, []string{"APNS_ENVIRONMENT is"}},
	} {
		t.Run(strings.Join(tc.env, " "), func(t *testing.T) {
			t.Parallel()
			_, err := read(tc.env...)
			var problems *Error
			require.True(t, errors.As(err, &problems), "%v", err)
			require.Len(t, problems.Problems, len(tc.want), "%v", problems.Problems)
			for i, want := range tc.want {
				require.Contains(t, problems.Problems[i], want)
			}
			require.NotContains(t, err.Error(), "secret-value")
			require.NotContains(t, err.Error(), "from-a-file")
		})
	}
}
