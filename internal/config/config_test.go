package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
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

	v, err = read("REDIS_URL_FILE=/run/secrets/pass", "REDIS_URL=")
	require.ErrorContains(t, err, "REDIS_URL cannot be read")
	require.NotContains(t, err.Error(), "from-a-file")
	require.Empty(t, v.Redis)
	v, err = read("REDIS_URL=rediss://:secret@cache.example.com:6379/1", "TRUSTED_PROXIES=10.1.2.3/8, 2001:db8::1,::ffff:192.0.2.1", "REDIS_PORT_6379_TCP=x")
	require.NoError(t, err)
	require.Equal(t, "rediss://:secret@cache.example.com:6379/1", v.Redis)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("192.0.2.1/32")}, v.TrustedProxies)
	v, err = read("TRUSTED_PROXIES=*")
	require.NoError(t, err)
	require.Len(t, v.TrustedProxies, 2)
	require.Empty(t, v.DefaultTimezone)
	v, err = read("DEFAULT_TIMEZONE=Europe/Berlin", "PROMOTIONAL_HOURS=10:00 - 20:00")
	require.NoError(t, err)
	require.Equal(t, []string{"Europe/Berlin", "10:00-20:00"}, []string{v.DefaultTimezone, v.PromotionalHours})
	v, err = read("PROMOTIONAL_HOURS=off")
	require.NoError(t, err)
	require.Equal(t, "off", v.PromotionalHours)
}

// A service of the same namespace may be called as our variables begin.
func TestTheVariablesOfContainerEnginesAreNobodysMistake(t *testing.T) {
	t.Parallel()
	v, err := read("GROUNDWORK_SERVICE_HOST=10.0.0.3", "GROUNDWORK_SERVICE_PORT=8090", "GROUNDWORK_SERVICE_PORT_HTTP=8090", "GROUNDWORK_PORT=tcp://10.0.0.3:8090",
		"GROUNDWORK_PORT_8090_TCP=tcp://10.0.0.3:8090", "GROUNDWORK_PORT_8090_TCP_PROTO=tcp", "GROUNDWORK_PORT_8090_TCP_PORT=8090", "GROUNDWORK_PORT_8090_TCP_ADDR=10.0.0.3",
		"SMTP_SERVICE_HOST=10.0.0.4", "SMTP_PORT=tcp://10.0.0.4:25", "SMTP_PORT_25_TCP=tcp://10.0.0.4:25")
	require.NoError(t, err)
	require.Nil(t, v.SMTP)

	_, err = read("GROUNDWORK_PORT=8090")
	require.ErrorContains(t, err, "GROUNDWORK_PORT is not a variable of Groundwork")
	_, err = read("SMTP_HOST=m", "SMTP_FROM=a@example.com", "SMTP_PORT=http://x")
	require.ErrorContains(t, err, "SMTP_PORT is")
}

func TestEveryProblemIsToldAtOnceWithItsFix(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env  []string
		want []string // parts of the sentences, one each
	}{
		{[]string{"APP_ENV=prod"}, []string{`APP_ENV is "prod". Use one of: local, staging, production. Did you mean production?`}},
		{[]string{"APP_ENV=production"}, []string{"GROUNDWORK_KEY is missing"}},
		{[]string{"REDIS_URL=cache.example.com:6379"}, []string{"REDIS_URL cannot be read: write redis://"}},
		{[]string{"DEFAULT_TIMEZONE=Berlin"}, []string{`DEFAULT_TIMEZONE is "Berlin", which is not a time zone. Write it like Europe/Berlin.`}},
		{[]string{"PROMOTIONAL_HOURS=8-21"}, []string{`PROMOTIONAL_HOURS is "8-21". Write hours like 08:00-21:00, or off`}},
		{[]string{"PROMOTIONAL_HOURS=22:00-08:00"}, []string{`PROMOTIONAL_HOURS is "22:00-08:00"`}},
		{[]string{"PROMOTIONAL_HOUR=off"}, []string{"Did you mean PROMOTIONAL_HOURS?"}},
		{[]string{"DEFAULT_TIMEZON=Europe/Berlin"}, []string{"DEFAULT_TIMEZON is not a variable of Groundwork. Did you mean DEFAULT_TIMEZONE?"}},
		{[]string{"TRUSTED_PROXY=10.0.0.0/8"}, []string{"Did you mean TRUSTED_PROXIES?"}},
		{[]string{"SEND_ONLY=ana@example.com"}, []string{"Did you mean SEND_ONLY_TO?"}},
		{[]string{"TWILIO_SENDER=+15005550006"}, []string{"see docs/operations.md for the names"}},
		{[]string{"DEFAULT_TIMEZONE=Local"}, []string{`DEFAULT_TIMEZONE is "Local"`}},
		{[]string{"JOBS_DATABASE_URL=db.example.com:5432"}, []string{"JOBS_DATABASE_URL cannot be read: write postgres://"}},
		{[]string{"JOBS_DATABASE_URL=postgres:///jobs"}, []string{"JOBS_DATABASE_URL names no host"}},
		{[]string{"JOBS_DATABASE_URL=postgres://jobs:se%ret@db.example.com/jobs"}, []string{"Percent-encode special characters"}},
		{[]string{"JOBS_DATABASE_URL=postgres://jobs:x@db.example.com/jobs?pool_max_conns=many"}, []string{"JOBS_DATABASE_URL cannot be read"}},
		{[]string{"JOBS_DATABASE_URI=postgres://db.example.com/jobs"}, []string{"JOBS_DATABASE_URI is not a variable of Groundwork. Did you mean JOBS_DATABASE_URL?"}},
		{[]string{"REDIS_URL=redis://"}, []string{"REDIS_URL names no host"}},
		{[]string{"REDIS_URL=redis://:se%ret@cache.example.com"}, []string{"Percent-encode special characters"}},
		{[]string{"TRUSTED_PROXIES=10.0.0.0/8, proxy"}, []string{`TRUSTED_PROXIES has "proxy"`}},
		{[]string{"GROUNDWORK_KEY=short"}, []string{"GROUNDWORK_KEY has 5 characters"}},
		{[]string{"GROUNDWORK_KEY="}, []string{"GROUNDWORK_KEY is empty"}},
		{[]string{"SMTP_HOST=mail.example.com"}, []string{"SMTP_FROM is missing"}},
		{[]string{"SMTP_FROM=a@example.com"}, []string{"SMTP_HOST is not"}},
		{[]string{"SMTP_HOST=mail.example.com:587", "SMTP_FROM=x"}, []string{"write the port into SMTP_PORT", "SMTP_FROM is"}},
		{[]string{"SMTP_HOST=smtp://mail.example.com/", "SMTP_FROM=a@example.com"}, []string{"write only the name of the mail server, such as mail.example.com."}},
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
		{[]string{"WEBPUSH_SUBJECT=me"}, []string{`WEBPUSH_SUBJECT is "me". It tells push services how to reach you: use mailto:hello@example.com`}},
		{[]string{"WEBPUSH_SUBJECT=http://example.com"}, []string{"WEBPUSH_SUBJECT is"}},
		{[]string{"WEBPUSH_SUBJECT=mailto:"}, []string{"WEBPUSH_SUBJECT is"}},
		{[]string{"WEBPUSH_PRIVATE_HOSTS=https://10.0.0.7"}, []string{`WEBPUSH_PRIVATE_HOSTS has "https://10.0.0.7", which is not a host such as`}},
		{[]string{"WEBHOOK_PRIVATE_HOSTS=https://10.0.0.7"}, []string{`WEBHOOK_PRIVATE_HOSTS has "https://10.0.0.7", which is not a host such as hooks.intranet.example.com`}},
		{[]string{"WEBHOOK_PRIVATE_HOST=10.0.0.7"}, []string{"WEBHOOK_PRIVATE_HOST"}},
		{[]string{"WEBPUSH_PRIVATE_HOSTS=10.0.0.7/x, a b,:8443"}, []string{"WEBPUSH_PRIVATE_HOSTS has", "WEBPUSH_PRIVATE_HOSTS has", "WEBPUSH_PRIVATE_HOSTS has"}},
		{[]string{"WEBPUSH_SUBJEKT=x"}, []string{"Did you mean WEBPUSH_SUBJECT?"}},
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

// signingKey is a throw-away ECDSA key.
func signingKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestReadPushAndSMS(t *testing.T) {
	t.Parallel()
	key, account := signingKey(t), `{"type":"service_account","project_id":"shop","client_email":"a@example.com","private_key":"x"}`
	sid := "AC" + strings.Repeat("0", 32)
	v, err := read("APNS_KEY="+strings.ReplaceAll(key, "\n", `\n`), "APNS_KEY_ID=ABC123DEFG", "APNS_TEAM_ID=DEF123GHIJ", "APNS_TOPIC=com.example.shop",
		"APNS_ENVIRONMENT=sandbox", "APNS_ENDPOINT=https://127.0.0.1:1/", "FCM_CREDENTIALS="+account,
		"TWILIO_ACCOUNT_SID="+sid, "TWILIO_AUTH_TOKEN=t", "TWILIO_TRANSACTIONAL_SENDER=+15005550006", "TWILIO_PROMOTIONAL_SENDER=Shop")
	require.NoError(t, err)
	require.Equal(t, &APNs{Key: strings.TrimSpace(key) + "\n", KeyID: "ABC123DEFG", TeamID: "DEF123GHIJ", Topic: "com.example.shop",
		Environment: "sandbox", Endpoint: "https://127.0.0.1:1"}, &APNs{Key: strings.TrimSpace(v.APNs.Key) + "\n", KeyID: v.APNs.KeyID, TeamID: v.APNs.TeamID,
		Topic: v.APNs.Topic, Environment: v.APNs.Environment, Endpoint: v.APNs.Endpoint})
	require.Equal(t, &FCM{Credentials: account, ProjectID: "shop"}, v.FCM)
	require.Equal(t, &Twilio{AccountSID: sid, AuthToken: "t", Transactional: "+15005550006", Promotional: "Shop"}, v.Twilio)

	// An endpoint or environment alone sets up nothing.
	v, err = read("APNS_ENVIRONMENT=sandbox", "FCM_ENDPOINT=http://127.0.0.1:1")
	require.NoError(t, err)
	require.Nil(t, v.APNs)
	require.Nil(t, v.FCM)
	require.Nil(t, v.Twilio)

	for _, tc := range []struct{ env, want []string }{
		{[]string{"APNS_KEY=nonsense", "APNS_KEY_ID=short"}, []string{"APNS_TEAM_ID is not", "APNS_TOPIC is not", "APNS_KEY is not the text", "APNS_KEY_ID is \"short\""}},
		{[]string{"APNS_ENVIRONMENT=test"}, []string{"APNS_ENVIRONMENT is \"test\""}},
		{[]string{"FCM_CREDENTIALS=/path/to.json"}, []string{"FCM_CREDENTIALS is not JSON"}},
		{[]string{`FCM_CREDENTIALS={"type":"authorized_user"}`}, []string{"FCM_CREDENTIALS is not a service account"}},
		{[]string{"FCM_ENDPOINT=gateway"}, []string{"FCM_ENDPOINT is \"gateway\""}},
		{[]string{"TWILIO_ACCOUNT_SID=AC1"}, []string{"TWILIO_AUTH_TOKEN is not", "TWILIO_ACCOUNT_SID is \"AC1\"", "there is no sender"}},
		{[]string{"TWILIO_ACCOUNT_SID=" + sid, "TWILIO_AUTH_TOKEN=t", "TWILIO_TRANSACTIONAL_SENDER=+15005550006", "TWILIO_PROMOTIONAL_SENDER=+15005550006"}, []string{"are the same"}},
		{[]string{"TWILIO_ACCOUNT_SID=" + sid, "TWILIO_AUTH_TOKEN=t", "TWILIO_TRANSACTIONAL_SENDER=not a sender at all"}, []string{"TWILIO_TRANSACTIONAL_SENDER is"}},
	} {
		_, err := read(tc.env...)
		var all *Error
		require.ErrorAs(t, err, &all, "%v", tc.env)
		text := strings.Join(all.Problems, "\n")
		for _, want := range tc.want {
			require.Contains(t, text, want)
		}
		require.Len(t, all.Problems, len(tc.want), text)
	}
}

func TestAFileThatNeverEndsIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, make([]byte, maxSecret+1), 0o600))
	_, err := readSecret(path)
	require.ErrorContains(t, err, "larger than 1 MB")
	require.NoError(t, os.Truncate(path, maxSecret))
	_, err = readSecret(path)
	require.NoError(t, err)
}

func TestWebPush(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"": "", " hello@example.com ": "mailto:hello@example.com", "mailto:hello@example.com": "mailto:hello@example.com",
		"https://example.com/contact": "https://example.com/contact"} {
		v, err := read("WEBPUSH_SUBJECT=" + given)
		require.NoError(t, err)
		require.Equal(t, WebPush{Subject: want}, v.WebPush)
	}
	v, err := read("WEBPUSH_PRIVATE_HOSTS=push.intranet.example.com, 10.0.0.7:8443,[fd00::7]:8443 ,")
	require.NoError(t, err)
	require.Equal(t, []string{"push.intranet.example.com", "10.0.0.7:8443", "[fd00::7]:8443"}, v.WebPush.PrivateHosts)
}
