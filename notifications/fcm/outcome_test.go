package fcm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/fcm"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func TestOutcomes(t *testing.T) {
	t.Parallel()
	const (
		gone      = notifications.TargetGone
		retry     = notifications.Retry
		payload   = notifications.PayloadBad
		config    = notifications.ConfigBad
		ambiguous = notifications.Ambiguous
	)
	for name, row := range map[string]struct {
		script  providertest.FCMScript
		kind    notifications.OutcomeKind
		down    bool
		suspect bool
		wait    time.Duration
		code    string
		says    string
	}{
		"unregistered":               {script: fault(providertest.FCMUnregistered), kind: gone, code: "UNREGISTERED", says: "removed"},
		"404 without detail":         {script: fault(providertest.FCMNotFound), kind: config, code: "404 NOT_FOUND", says: "demo-project"},
		"token never was one":        {script: fault(providertest.FCMInvalidToken), kind: gone, code: "INVALID_ARGUMENT", says: "none that Google knows"},
		"other invalid argument":     {script: fault(providertest.FCMInvalidArgument), kind: payload, code: "INVALID_ARGUMENT"},
		"malformed field":            {script: fault(providertest.FCMBadRequest), kind: payload, code: "400 INVALID_ARGUMENT", says: "android.ttl"},
		"other project":              {script: fault(providertest.FCMSenderIDMismatch), kind: gone, suspect: true, code: "SENDER_ID_MISMATCH", says: "demo-project"},
		"project quota":              {script: fault(providertest.FCMQuotaProject), kind: retry, down: true, wait: time.Minute, code: "QUOTA_EXCEEDED"},
		"project quota with a time":  {script: after(providertest.FCMQuotaProject, "90"), kind: retry, down: true, wait: 90 * time.Second},
		"project quota, short time":  {script: after(providertest.FCMQuotaProject, "5"), kind: retry, down: true, wait: 5 * time.Second},
		"device quota":               {script: fault(providertest.FCMQuotaDevice), kind: retry, wait: time.Minute, code: "QUOTA_EXCEEDED", says: "one device"},
		"device quota with a time":   {script: after(providertest.FCMQuotaDevice, "3600"), kind: retry, wait: time.Hour},
		"429 without body":           {script: fault(providertest.FCMTooManyWithoutBody), kind: retry, down: true, wait: time.Minute, code: "429"},
		"unavailable":                {script: fault(providertest.FCMUnavailable), kind: retry, down: true, code: "UNAVAILABLE", says: "overloaded"},
		"unavailable with a time":    {script: after(providertest.FCMUnavailable, "30"), kind: retry, down: true, wait: 30 * time.Second},
		"unavailable with nonsense":  {script: after(providertest.FCMUnavailable, "soon"), kind: retry, down: true},
		"unavailable with the past":  {script: after(providertest.FCMUnavailable, "-5"), kind: retry, down: true},
		"unavailable for too long":   {script: after(providertest.FCMUnavailable, "2000000000"), kind: retry, down: true, wait: 24 * time.Hour},
		"503 and HTML":               {script: after(providertest.FCMUnavailableHTML, "20"), kind: retry, down: true, wait: 20 * time.Second, code: "503"},
		"internal":                   {script: fault(providertest.FCMInternal), kind: retry, code: "INTERNAL"},
		"APNs key missing":           {script: fault(providertest.FCMThirdPartyAuth), kind: config, code: "THIRD_PARTY_AUTH_ERROR", says: "APNs key"},
		"401 without detail":         {script: fault(providertest.FCMUnauthenticated), kind: config, code: "401 UNAUTHENTICATED", says: "service account"},
		"403 without detail":         {script: fault(providertest.FCMPermissionDenied), kind: config, code: "403 PERMISSION_DENIED", says: "role"},
		"API switched off":           {script: fault(providertest.FCMServiceDisabled), kind: config, code: "403 PERMISSION_DENIED", says: "switch it on"},
		"502 and HTML":               {script: fault(providertest.FCMBadGateway), kind: retry, down: true, code: "502"},
		"200 and HTML":               {script: fault(providertest.FCMGarbage), kind: ambiguous},
		"200 that breaks off":        {script: fault(providertest.FCMCut), kind: ambiguous, says: "not known whether"},
		"taken, then hung up":        {script: fault(providertest.FCMReset), kind: ambiguous, says: "not known whether"},
		"sent elsewhere":             {script: fault(providertest.FCMRedirect), kind: config, code: "307", says: "endpoint"},
		"too large, says the server": {script: fault(providertest.FCMTooLarge), kind: payload, code: "413", says: "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, plain := range []bool{false, true} {
				s := providertest.NewFCM(t, providertest.FCMOptions{Plain: plain})
				p := newProvider(t, s)
				token := providertest.FCMDeviceToken(1)
				s.Script(token, row.script)
				o := p.Send(t.Context(), message(token, "hello"))
				require.Equal(t, row.kind, o.Kind, "%s %s", o.Code, o.Explanation)
				require.Equal(t, row.down, o.ProviderDown)
				require.Equal(t, row.suspect, o.Suspect)
				require.Equal(t, row.wait, o.RetryAfter)
				require.Contains(t, o.Explanation, row.says)
				requirePlain(t, s, o.Explanation)
				if row.code != "" {
					require.Equal(t, row.code, o.Code)
				}
				require.Zero(t, o.GoneAt, "Google does not say since when")
				require.Equal(t, 1, s.Total(), "the SDK must not send again by itself")
				require.Empty(t, s.Violations())
			}
		})
	}
}

func fault(f providertest.FCMFault) providertest.FCMScript { return providertest.FCMScript{Fault: f} }

func after(f providertest.FCMFault, wait string) providertest.FCMScript {
	return providertest.FCMScript{Fault: f, RetryAfter: wait}
}

// requirePlain holds a sentence for a product owner against what must not be in
// it.
func requirePlain(t *testing.T, s *providertest.FCM, sentence string) {
	t.Helper()
	require.Regexp(t, `^[A-Z"].*\.$`, sentence)
	for _, secret := range []string{providertest.FCMDeviceToken(1), s.Account().ClientEmail, "ya29", "PRIVATE KEY", "://", "json:", "http2", "EOF"} {
		require.NotContains(t, sentence, secret)
	}
}

func TestRetryAfterMayBeADate(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	p := newProvider(t, s)
	token := providertest.FCMDeviceToken(1)
	asked := time.Now()
	s.Script(token, after(providertest.FCMUnavailable, asked.Add(5*time.Minute).UTC().Format(http.TimeFormat)))
	o := p.Send(t.Context(), message(token, "hello"))
	require.Equal(t, notifications.Retry, o.Kind)
	require.LessOrEqual(t, o.RetryAfter, 5*time.Minute)
	require.GreaterOrEqual(t, o.RetryAfter, 5*time.Minute-time.Second-time.Since(asked), "such a date has whole seconds")
}

func TestAcceptedKeepsGooglesName(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	o := newProvider(t, s).Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello"))
	require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
	require.Regexp(t, `^projects/demo-project/messages/0:\d+%double$`, o.ProviderMessageID)
}

func TestTokenOutcomes(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		fault providertest.FCMTokenFault
		kind  notifications.OutcomeKind
		wait  time.Duration
		says  string
	}{
		"key deleted":     {providertest.FCMTokenBadSignature, notifications.ConfigBad, 0, "new key"},
		"account deleted": {providertest.FCMTokenNoAccount, notifications.ConfigBad, 0, "does not exist any more"},
		"clock is wrong":  {providertest.FCMTokenClock, notifications.ConfigBad, 0, "clock"},
		"client refused":  {providertest.FCMTokenClient, notifications.ConfigBad, 0, "role"},
		"forbidden":       {providertest.FCMTokenForbidden, notifications.ConfigBad, 0, "switched on"},
		"unavailable":     {providertest.FCMTokenUnavailable, notifications.Retry, 7 * time.Second, "at the moment"},
		"garbage":         {providertest.FCMTokenGarbage, notifications.Retry, 0, "could not be read"},
		"hung up":         {providertest.FCMTokenReset, notifications.Retry, 0, "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := providertest.NewFCM(t, providertest.FCMOptions{Behaviour: providertest.FCMBehaviour{Token: row.fault}})
			p := newProvider(t, s)
			for _, o := range []notifications.Outcome{p.Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello")), p.Check(t.Context())} {
				require.Equal(t, row.kind, o.Kind, o.Explanation)
				require.Equal(t, row.kind == notifications.Retry, o.ProviderDown)
				require.Equal(t, row.wait, o.RetryAfter)
				require.Contains(t, o.Explanation, row.says)
				requirePlain(t, s, o.Explanation)
			}
			require.Zero(t, s.Total())
			s.Set(providertest.FCMBehaviour{})
			require.Equal(t, notifications.Accepted, p.Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello")).Kind, "a failed sign-in is not kept")
		})
	}
}

func TestSignInThatHangsHoldsNobodyBeyondTheirTime(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{Behaviour: providertest.FCMBehaviour{Token: providertest.FCMTokenNoAnswer}})
	p := newProvider(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if s.AwaitTokenRequests(t.Context(), 1) == nil {
			cancel()
		}
	}()
	o := p.Send(ctx, message(providertest.FCMDeviceToken(1), "hello"))
	require.Equal(t, notifications.Retry, o.Kind)
	require.False(t, o.ProviderDown, "it was called off: that says nothing about Google")

	late, stop := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer stop()
	o = p.Send(late, message(providertest.FCMDeviceToken(1), "hello"))
	require.Equal(t, notifications.Retry, o.Kind)
	require.True(t, o.ProviderDown)
	asked, _ := s.Tokens()
	require.Equal(t, 1, asked, "both waited for the same one")
	require.Zero(t, s.Total())
}

func TestOneSignInForAll(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{Behaviour: providertest.FCMBehaviour{HoldToken: true}})
	p := newProvider(t, s)
	outcomes := make(chan notifications.Outcome)
	for i := range 20 {
		go func() { outcomes <- p.Send(t.Context(), message(providertest.FCMDeviceToken(i), "hello")) }()
	}
	require.NoError(t, s.AwaitTokenRequests(t.Context(), 1))
	s.Set(providertest.FCMBehaviour{})
	s.Release()
	for range 20 {
		require.Equal(t, notifications.Accepted, (<-outcomes).Kind)
	}
	asked, issued := s.Tokens()
	require.Equal(t, 1, asked)
	require.Equal(t, 1, issued)
}

func TestWithdrawnSignInIsRenewed(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	p := newProvider(t, s)
	var ahead atomic.Int64
	fcm.SetClock(p, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	send := func() notifications.Outcome {
		return p.Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello"))
	}
	require.Equal(t, notifications.Accepted, send().Kind)
	s.RevokeTokens()
	ahead.Store(int64(10 * time.Minute))
	o := send()
	require.Equal(t, notifications.Retry, o.Kind, "an old token says nothing about the account")
	require.False(t, o.ProviderDown)
	require.Equal(t, notifications.Accepted, send().Kind)
	s.RevokeTokens()
	require.Equal(t, notifications.ConfigBad, send().Kind, "a token of this minute that is refused does")
}

func TestSignInIsRenewedInTime(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	p := newProvider(t, s)
	var ahead atomic.Int64
	fcm.SetClock(p, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	send := func() notifications.Outcome {
		return p.Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello"))
	}
	require.Equal(t, notifications.Accepted, send().Kind)
	ahead.Store(int64(54 * time.Minute))
	require.Equal(t, notifications.Accepted, send().Kind)
	asked, _ := s.Tokens()
	require.Equal(t, 1, asked, "not yet")

	s.Set(providertest.FCMBehaviour{HoldToken: true})
	ahead.Store(int64(56 * time.Minute))
	require.Equal(t, notifications.Accepted, send().Kind, "nobody waits for the next token while this one is good")
	require.NoError(t, s.AwaitTokenRequests(t.Context(), 2))
	s.Set(providertest.FCMBehaviour{})
	s.Release()

	ahead.Store(int64(59*time.Minute + 45*time.Second))
	require.Equal(t, notifications.Accepted, send().Kind, "so close to its end the old one is not used")
	asked, _ = s.Tokens()
	require.Equal(t, 2, asked)
}

func TestSignInCloseToItsEndIsNotUsed(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	p := newProvider(t, s)
	var ahead atomic.Int64
	fcm.SetClock(p, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	require.Equal(t, notifications.Accepted, p.Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello")).Kind)
	s.Set(providertest.FCMBehaviour{HoldToken: true})
	ahead.Store(int64(59*time.Minute + 45*time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if s.AwaitTokenRequests(t.Context(), 2) == nil {
			cancel()
		}
	}()
	require.Equal(t, notifications.Retry, p.Send(ctx, message(providertest.FCMDeviceToken(1), "hello")).Kind, "it waits for the next one")
	require.Equal(t, 1, s.Total())
	s.Release()
}

func TestTextThatIsNoTokenIsGone(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	o := newProvider(t, s).Send(t.Context(), message("not a token", "hello"))
	require.Equal(t, notifications.TargetGone, o.Kind)
	require.False(t, o.Suspect)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	p := newProvider(t, s)
	o := p.Check(t.Context())
	require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
	require.Zero(t, s.Total(), "a check sends nothing")
	require.Equal(t, 1, s.DryRuns())
	require.Empty(t, s.Violations())

	for name, row := range map[string]struct {
		fault providertest.FCMFault
		kind  notifications.OutcomeKind
	}{
		"valid after all":    {providertest.FCMAccept, notifications.Accepted},
		"unregistered":       {providertest.FCMUnregistered, notifications.Accepted},
		"invalid argument":   {providertest.FCMInvalidArgument, notifications.Accepted},
		"404 without detail": {providertest.FCMNotFound, notifications.ConfigBad},
		"403 without detail": {providertest.FCMPermissionDenied, notifications.ConfigBad},
		"401 without detail": {providertest.FCMUnauthenticated, notifications.ConfigBad},
		"unavailable":        {providertest.FCMUnavailable, notifications.Retry},
		"quota":              {providertest.FCMQuotaProject, notifications.Retry},
		"no answer":          {providertest.FCMReset, notifications.Retry},
		"garbage":            {providertest.FCMGarbage, notifications.Retry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := providertest.NewFCM(t, providertest.FCMOptions{AnyToken: true, Behaviour: providertest.FCMBehaviour{All: fault(row.fault)}})
			o := newProvider(t, s).Check(t.Context())
			require.Equal(t, row.kind, o.Kind, o.Explanation)
			require.Zero(t, s.Total())
			if row.kind == notifications.ConfigBad {
				require.Contains(t, o.Explanation, "demo-project")
			}
			if row.kind != notifications.Accepted {
				requirePlain(t, s, o.Explanation)
			}
		})
	}
}

func TestCheckNamesTheWrongProject(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	config := s.Config()
	config["projectId"] = "another-project"
	adapter, err := fcm.New(notifications.ProviderConfig{Config: config, Secret: s.ServiceAccount()})
	require.NoError(t, err)
	o := adapter.(*fcm.Provider).Check(t.Context())
	require.Equal(t, notifications.ConfigBad, o.Kind)
	require.Contains(t, o.Explanation, "another-project")
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		cert providertest.Cert
		says string
	}{
		"unknown authority": {providertest.CertUnknownCA, "SSL_CERT_FILE"},
		"expired":           {providertest.CertExpired, "clock"},
		"another name":      {providertest.CertWrongName, "another name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := providertest.NewFCM(t, providertest.FCMOptions{Cert: row.cert})
			o := newProvider(t, s).Send(t.Context(), message(providertest.FCMDeviceToken(1), "hello"))
			require.Equal(t, notifications.ConfigBad, o.Kind, o.Explanation)
			require.Contains(t, o.Explanation, row.says)
			requirePlain(t, s, o.Explanation)
		})
	}
}

func TestRefusedAccountIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	whole := map[string]any{}
	account, err := providertest.NewFCMAccount("demo-project", "https://oauth2.googleapis.com/token")
	require.NoError(t, err)
	text, err := account.JSON()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(text), &whole))
	without := func(change map[string]any) string {
		out := map[string]any{}
		for key, value := range whole {
			out[key] = value
		}
		for key, value := range change {
			if out[key] = value; value == nil {
				delete(out, key)
			}
		}
		raw, err := json.Marshal(out)
		require.NoError(t, err)
		return string(raw)
	}
	for name, row := range map[string]struct {
		secret string
		config map[string]any
		says   string
	}{
		"nothing":             {secret: " ", says: "service account is missing"},
		"no JSON":             {secret: "c2VjcmV0", says: "not valid JSON"},
		"half of it":          {secret: text[:len(text)/2], says: "not valid JSON"},
		"the app's file":      {secret: `{"project_info":{"project_id":"x"},"client":[]}`, says: "google-services.json"},
		"no type":             {secret: without(map[string]any{"type": nil}), says: "no type"},
		"a person's":          {secret: without(map[string]any{"type": "authorized_user"}), says: "authorized_user"},
		"no email":            {secret: without(map[string]any{"client_email": nil}), says: "no client_email"},
		"odd email":           {secret: without(map[string]any{"client_email": "sender"}), says: "client_email is not"},
		"no key":              {secret: without(map[string]any{"private_key": nil}), says: "no private_key"},
		"key is cut":          {secret: without(map[string]any{"private_key": whole["private_key"].(string)[:200]}), says: "not complete"},
		"key is nonsense":     {secret: without(map[string]any{"private_key": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"}), says: "cannot be read"},
		"key is a number":     {secret: without(map[string]any{"private_key": 7}), says: "private_key is not a text"},
		"elliptic key":        {secret: without(map[string]any{"private_key": ellipticKey}), says: "not an RSA key"},
		"no token address":    {secret: without(map[string]any{"token_uri": nil}), says: "no token_uri"},
		"odd token address":   {secret: without(map[string]any{"token_uri": "oauth2"}), says: "token_uri is not an address"},
		"open token address":  {secret: without(map[string]any{"token_uri": "http://oauth2.example.com/token"}), says: "begin with https"},
		"no project":          {secret: without(map[string]any{"project_id": nil}), says: "projectId"},
		"odd project":         {secret: text, config: map[string]any{"projectId": "My Project"}, says: "not a Firebase project's id"},
		"project with a path": {secret: text, config: map[string]any{"projectId": "a/../b"}, says: "not a Firebase project's id"},
		"odd endpoint":        {secret: text, config: map[string]any{"endpoint": "fcm.example.com"}, says: "endpoint is not an address"},
		"open endpoint":       {secret: text, config: map[string]any{"endpoint": "http://fcm.example.com"}, says: "endpoint must begin with https"},
		"endpoint with query": {secret: text, config: map[string]any{"endpoint": "https://fcm.example.com/?a=b"}, says: "no ?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := fcm.New(notifications.ProviderConfig{Config: row.config, Secret: row.secret})
			require.ErrorContains(t, err, row.says)
			require.NotContains(t, err.Error(), "\n")
			for _, secret := range []string{account.ClientEmail, "c2VjcmV0", "MII"} {
				require.NotContains(t, err.Error(), secret)
			}
		})
	}
	for name, row := range map[string]struct {
		secret string
		config map[string]any
	}{
		"as it comes":                  {secret: text},
		"line breaks that were spoilt": {secret: without(map[string]any{"private_key": escaped(whole["private_key"].(string))})},
		"project from the config":      {secret: without(map[string]any{"project_id": nil}), config: map[string]any{"projectId": "demo-project"}},
		"project of a domain":          {secret: text, config: map[string]any{"projectId": "example.com:demo"}},
		"endpoint with a slash":        {secret: text, config: map[string]any{"endpoint": "https://fcm.example.com/"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := fcm.New(notifications.ProviderConfig{Config: row.config, Secret: row.secret})
			require.NoError(t, err)
		})
	}
}

func escaped(key string) string { return strings.ReplaceAll(key, "\n", `\n`) }

// ellipticKey is a key as Apple's are, which people mix up with Google's.
var ellipticKey = func() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}()
