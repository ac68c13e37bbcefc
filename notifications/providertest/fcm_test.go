package providertest_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2/google"
	fcmapi "google.golang.org/api/fcm/v1"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// Google's own generated client and its own sign-in are the independent peers of
// the double.
func googleClient(t *testing.T, s *providertest.FCM) *fcmapi.ProjectsMessagesService {
	t.Helper()
	config, err := google.JWTConfigFromJSON([]byte(s.ServiceAccount()), fcmapi.FirebaseMessagingScope)
	require.NoError(t, err)
	service, err := fcmapi.NewService(t.Context(), option.WithHTTPClient(config.Client(t.Context())), option.WithEndpoint(s.Endpoint()+"/"))
	require.NoError(t, err)
	return service.Projects.Messages
}

func TestFCMTakesMessagesOfGooglesClient(t *testing.T) {
	t.Parallel()
	for _, opts := range []providertest.FCMOptions{{}, {Plain: true}, {CountOnly: true, CheckEvery: 2}} {
		s := providertest.NewFCM(t, opts)
		messages := googleClient(t, s)
		token := providertest.FCMDeviceToken(1)
		send := func(m *fcmapi.Message, dry bool) (*fcmapi.Message, error) {
			return messages.Send("projects/"+s.Project(), &fcmapi.SendMessageRequest{Message: m, ValidateOnly: dry}).Do()
		}
		answer, err := send(&fcmapi.Message{Token: token, Android: &fcmapi.AndroidConfig{Priority: "HIGH", Ttl: "3.5s", CollapseKey: "a"}}, false)
		require.NoError(t, err)
		require.Regexp(t, "^projects/demo-project/messages/", answer.Name)
		require.Equal(t, 1, s.Received(token))
		require.Equal(t, 1, s.Accepted(token))
		require.Equal(t, map[string]int{token: 1}, s.Counts())
		require.NoError(t, s.Await(t.Context(), 1))
		if opts.CountOnly {
			require.Nil(t, s.Last(token))
		} else {
			m, err := s.LastMessage(token)
			require.NoError(t, err)
			require.Equal(t, "3.5s", m.Android.Ttl)
		}

		s.Script(token, providertest.FCMScript{Fault: providertest.FCMUnregistered, RetryAfter: "3"})
		_, err = send(&fcmapi.Message{Token: token}, false)
		var refused *googleapi.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, 404, refused.Code)
		require.Equal(t, "3", refused.Header.Get("Retry-After"))
		require.Contains(t, refused.Body, `"errorCode":"UNREGISTERED"`)
		require.Equal(t, 2, s.Received(token))
		require.Equal(t, 1, s.Accepted(token))
		s.Script(token)
		if opts.CheckEvery == 0 {
			_, err = send(&fcmapi.Message{Token: token}, true)
			require.NoError(t, err)
			require.Equal(t, 1, s.DryRuns())
			require.Equal(t, 2, s.Total(), "a dry run is not a message")
			require.Equal(t, 2, s.Received(token))
		}
		asked, issued := s.Tokens()
		require.Equal(t, []int{1, 1}, []int{asked, issued})
		require.Empty(t, s.Violations())
	}
}

func TestFCMCountsOtherCollapseKeys(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	messages := googleClient(t, s)
	for i, step := range []struct {
		message     fcmapi.Message
		recollapsed int
	}{
		{fcmapi.Message{Token: providertest.FCMDeviceToken(1), Android: &fcmapi.AndroidConfig{CollapseKey: "a"}}, 0},
		{fcmapi.Message{Token: providertest.FCMDeviceToken(1), Android: &fcmapi.AndroidConfig{CollapseKey: "a"}}, 0},
		{fcmapi.Message{Token: providertest.FCMDeviceToken(2), Apns: &fcmapi.ApnsConfig{Headers: map[string]string{"apns-collapse-id": "b"}}}, 0},
		{fcmapi.Message{Token: providertest.FCMDeviceToken(1), Android: &fcmapi.AndroidConfig{CollapseKey: "b"}}, 1},
		{fcmapi.Message{Token: providertest.FCMDeviceToken(2), Webpush: &fcmapi.WebpushConfig{Headers: map[string]string{"Topic": "b"}}}, 1},
		{fcmapi.Message{Token: providertest.FCMDeviceToken(2)}, 2},
		{fcmapi.Message{Token: providertest.FCMDeviceToken(1), Android: &fcmapi.AndroidConfig{Notification: &fcmapi.AndroidNotification{Tag: "b"}}}, 2},
		{fcmapi.Message{Token: providertest.FCMDeviceToken(1), Android: &fcmapi.AndroidConfig{CollapseKey: "b", Notification: &fcmapi.AndroidNotification{Tag: "c"}}}, 3},
	} {
		_, err := messages.Send("projects/"+s.Project(), &fcmapi.SendMessageRequest{Message: &step.message}).Do()
		require.NoError(t, err)
		require.Equal(t, step.recollapsed, s.Recollapsed(), i)
	}
}

func TestFCMRefusesOtherCredentials(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{TokenLife: 2 * time.Second})
	account := s.Account()
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	now := time.Now().Unix()
	good := func() (map[string]any, map[string]any) {
		return map[string]any{"alg": "RS256", "typ": "JWT", "kid": account.KeyID},
			map[string]any{"iss": account.ClientEmail, "aud": s.Endpoint() + "/token", "scope": "https://www.googleapis.com/auth/firebase.messaging", "iat": now, "exp": now + 3600}
	}
	ask := func(header, claims map[string]any, key *rsa.PrivateKey) (int, string) {
		part := func(v any) string {
			raw, err := json.Marshal(v)
			require.NoError(t, err)
			return base64.RawURLEncoding.EncodeToString(raw)
		}
		text := part(header) + "." + part(claims)
		sum := sha256.Sum256([]byte(text))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		require.NoError(t, err)
		resp, err := http.PostForm(s.Endpoint()+"/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"},
			"assertion": {text + "." + base64.RawURLEncoding.EncodeToString(signature)}})
		require.NoError(t, err)
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(raw)
	}
	header, claims := good()
	status, answer := ask(header, claims, account.Key)
	require.Equal(t, 200, status, answer)
	require.Contains(t, answer, `"expires_in":2`)
	for name, spoil := range map[string]struct {
		change func(header, claims map[string]any)
		key    *rsa.PrivateKey
		code   string
	}{
		"another key":      {func(_, _ map[string]any) {}, stranger, "invalid_grant"},
		"another key's id": {func(h, _ map[string]any) { h["kid"] = "x" }, nil, "invalid_grant"},
		"no algorithm":     {func(h, _ map[string]any) { h["alg"] = "none" }, nil, "invalid_grant"},
		"another account":  {func(_, c map[string]any) { c["iss"] = "x@example.com" }, nil, "invalid_grant"},
		"another audience": {func(_, c map[string]any) { c["aud"] = "https://example.com" }, nil, "invalid_grant"},
		"over":             {func(_, c map[string]any) { c["iat"], c["exp"] = now-7200, now-3600 }, nil, "invalid_grant"},
		"too long":         {func(_, c map[string]any) { c["exp"] = now + 7200 }, nil, "invalid_grant"},
		"from the future":  {func(_, c map[string]any) { c["iat"], c["exp"] = now+600, now+1200 }, nil, "invalid_grant"},
		"too wide a scope": {func(_, c map[string]any) { c["scope"] = "https://www.googleapis.com/auth/cloud-platform" }, nil, "invalid_scope"},
	} {
		t.Run(name, func(t *testing.T) {
			header, claims := good()
			spoil.change(header, claims)
			key := spoil.key
			if key == nil {
				key = account.Key
			}
			status, answer := ask(header, claims, key)
			require.Equal(t, 400, status)
			require.Contains(t, answer, `"error":"`+spoil.code+`"`)
		})
	}
	resp, err := http.Post(s.Endpoint()+"/v1/projects/demo-project/messages:send", "application/json", strings.NewReader(`{}`))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 401, resp.StatusCode)
	require.Zero(t, s.Total())
}

func TestParseFCMIsAsStrictAsGoogle(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ body, field string }{
		"no JSON":               {`{`, ""},
		"two":                   {`{"message":{"token":"a"}} {}`, ""},
		"no message":            {`{}`, "message"},
		"no target":             {`{"message":{}}`, "message"},
		"two targets":           {`{"message":{"token":"a","topic":"b"}}`, "message"},
		"unknown":               {`{"message":{"token":"a"},"validateonly":true}`, ""},
		"unknown deep down":     {`{"message":{"token":"a","android":{"notification":{"channel":"a"}}}}`, "message.android.notification"},
		"twice":                 {`{"message":{"token":"a","android":{"collapse_key":"a","collapseKey":"b"}}}`, ""},
		"number in the data":    {`{"message":{"token":"a","data":{"a":1}}}`, ""},
		"text for a number":     {`{"message":{"token":"a","android":{"notification":{"notification_count":"1"}}}}`, ""},
		"object for a text":     {`{"message":{"token":{}}}`, ""},
		"priority":              {`{"message":{"token":"a","android":{"priority":"urgent"}}}`, "message.android.priority"},
		"visibility":            {`{"message":{"token":"a","android":{"notification":{"visibility":"HIDDEN"}}}}`, "message.android.notification.visibility"},
		"shown priority":        {`{"message":{"token":"a","android":{"notification":{"notification_priority":"HIGH"}}}}`, "message.android.notification.notification_priority"},
		"proxy":                 {`{"message":{"token":"a","android":{"notification":{"proxy":"NO"}}}}`, "message.android.notification.proxy"},
		"ttl":                   {`{"message":{"token":"a","android":{"ttl":"1m"}}}`, "message.android.ttl"},
		"ttl too long":          {`{"message":{"token":"a","android":{"ttl":"2419201s"}}}`, "message.android.ttl"},
		"time":                  {`{"message":{"token":"a","android":{"notification":{"event_time":"now"}}}}`, "message.android.notification.event_time"},
		"colour":                {`{"message":{"token":"a","android":{"notification":{"color":"red"}}}}`, "message.android.notification.color"},
		"image":                 {`{"message":{"token":"a","notification":{"image":"a.png"}}}`, "message.notification.image"},
		"key of Google's":       {`{"message":{"token":"a","data":{"google.x":"1"}}}`, "message.data"},
		"link":                  {`{"message":{"token":"a","webpush":{"fcm_options":{"link":"http://example.com"}}}}`, "message.webpush.fcm_options.link"},
		"no aps":                {`{"message":{"token":"a","apns":{"payload":{"a":1}}}}`, "message.apns.payload"},
		"payload is no object":  {`{"message":{"token":"a","apns":{"payload":[1]}}}`, "message.apns.payload"},
		"long collapse id":      {`{"message":{"token":"a","apns":{"headers":{"apns-collapse-id":"` + strings.Repeat("x", 65) + `"}}}}`, "message.apns.headers"},
		"background at once":    {`{"message":{"token":"a","apns":{"headers":{"apns-push-type":"background","apns-priority":"10"}}}}`, "message.apns.headers"},
		"arguments without key": {`{"message":{"token":"a","android":{"notification":{"body_loc_args":["a"]}}}}`, "message.android.notification.title_loc_args"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := providertest.ParseFCM([]byte(row.body))
			require.Error(t, err)
			require.True(t, strings.HasPrefix(err.Error(), row.field+": ") || row.field == "", "%s", err)
		})
	}
	for _, body := range []string{
		`{"message":{"token":"a"}}`, `{"validate_only":true,"message":{"topic":"a","data":{"any_key":"1","anyKey":"2"}}}`, `{"validateOnly":true,"message":{"fid":"a"}}`,
		`{"message":{"token":"a","android":{"priority":"high","ttl":"0s"},"apns":{"payload":{"aps":{},"some_key":{"other_key":1}}},"webpush":{"notification":{"some_key":1}}}}`,
	} {
		_, err := providertest.ParseFCM([]byte(body))
		require.NoError(t, err, body)
	}
}

// TestFCMEnumsAreGoogles holds the values that the double knows against the
// description of the API that Google's client is made from.
func TestFCMEnumsAreGoogles(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "google.golang.org/api").Output()
	require.NoError(t, err)
	raw, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "fcm", "v1", "fcm-api.json"))
	require.NoError(t, err)
	var api struct {
		Schemas map[string]struct {
			Properties map[string]struct {
				Enum []string `json:"enum"`
			} `json:"properties"`
		} `json:"schemas"`
	}
	require.NoError(t, json.Unmarshal(raw, &api))
	described := map[string][]string{}
	for schema, s := range api.Schemas {
		for property, p := range s.Properties {
			if len(p.Enum) > 0 && !strings.HasSuffix(schema, "V2") {
				described[schema+"."+property] = p.Enum
			}
		}
	}
	require.NotEmpty(t, described)
	require.Equal(t, described, providertest.FCMEnums)
}

func TestFCMFaultsComeByChanceAndTheSameEachTime(t *testing.T) {
	t.Parallel()
	run := func() (refused []int) {
		s := providertest.NewFCM(t, providertest.FCMOptions{Plain: true, Seed: 7, Behaviour: providertest.FCMBehaviour{Rates: []providertest.FCMRate{
			{Share: 0.3, Script: providertest.FCMScript{Fault: providertest.FCMUnregistered}}, {Share: 0.2, Script: providertest.FCMScript{Fault: providertest.FCMInternal}}}}})
		messages := googleClient(t, s)
		for n := range 60 {
			_, err := messages.Send("projects/"+s.Project(), &fcmapi.SendMessageRequest{Message: &fcmapi.Message{Token: providertest.FCMDeviceToken(n)}}).Do()
			var e *googleapi.Error
			if errors.As(err, &e) {
				refused = append(refused, n, e.Code)
			}
		}
		return refused
	}
	first := run()
	require.Greater(t, len(first)/2, 10)
	require.Less(t, len(first)/2, 50)
	require.Contains(t, first, 404)
	require.Equal(t, first, run())
}
