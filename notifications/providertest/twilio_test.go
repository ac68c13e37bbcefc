package providertest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	twilio "github.com/twilio/twilio-go/client"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func twilioSpec(t *testing.T) string {
	t.Helper()
	for dir := filepath.Join("..", ".."); len(dir) < 40; dir = filepath.Join(dir, "..") {
		path := filepath.Join(dir, "shared", "specs", "twilio_api_v2010.json")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("twilio_api_v2010.json, Twilio's own description, does not lie beside this repository; it is not a package that can be installed")
	return ""
}

// ask sends a request as no client of ours would.
func ask(t *testing.T, method, address, contentType, body string, auth bool) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	if auth {
		req.SetBasicAuth(providertest.TwilioAccountSID, providertest.TwilioAuthToken)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(raw)
}

const twilioForm = "application/x-www-form-urlencoded"

func messagesURL(d *providertest.Twilio) string {
	return d.URL() + "/2010-04-01/Accounts/" + providertest.TwilioAccountSID + "/Messages.json"
}

func TestTwilioRefusesWhatTwilioRefuses(t *testing.T) {
	t.Parallel()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{Numbers: []string{"+15005550006"}})
	good := url.Values{"To": {"+15005550001"}, "From": {"+15005550006"}, "Body": {"hello"}}
	for name, tc := range map[string]struct {
		change map[string]string
		code   string // empty: taken
	}{
		"good":                    {nil, ""},
		"no recipient":            {map[string]string{"To": ""}, "21604"},
		"not a number":            {map[string]string{"To": "somebody"}, "21211"},
		"no sender":               {map[string]string{"From": ""}, "21603"},
		"a sender too long":       {map[string]string{"From": "A very long name"}, "21212"},
		"somebody else's number":  {map[string]string{"From": "+15005550007"}, "21606"},
		"not a service":           {map[string]string{"MessagingServiceSid": "MG1"}, "21701"},
		"empty":                   {map[string]string{"Body": ""}, "21602"},
		"1600 characters":         {map[string]string{"Body": strings.Repeat("ä", 1600)}, ""},
		"1601 characters":         {map[string]string{"Body": strings.Repeat("ä", 1601)}, "21617"},
		"an underscore":           {map[string]string{"StatusCallback": "https://a_b.example.com/"}, "21609"},
		"no validity":             {map[string]string{"ValidityPeriod": "0"}, "20001"},
		"a validity beyond all":   {map[string]string{"ValidityPeriod": "36001"}, "20001"},
		"the longest of validity": {map[string]string{"ValidityPeriod": "36000"}, ""},
	} {
		form := url.Values{}
		for key, values := range good {
			form[key] = values
		}
		for key, value := range tc.change {
			form.Set(key, value)
		}
		before := d.Total()
		status, body := ask(t, http.MethodPost, messagesURL(d), twilioForm, form.Encode(), true)
		if tc.code == "" {
			require.Equal(t, http.StatusCreated, status, "%s: %s", name, body)
			require.Equal(t, before+1, d.Total())
			continue
		}
		require.Equal(t, http.StatusBadRequest, status, "%s: %s", name, body)
		require.Contains(t, body, tc.code, name)
		require.Equal(t, before, d.Total(), name)
	}
	status, body := ask(t, http.MethodPost, messagesURL(d), twilioForm, good.Encode(), false)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Contains(t, body, "20003")
	status, _ = ask(t, http.MethodGet, d.URL()+"/elsewhere", "", "", true)
	require.Equal(t, http.StatusNotFound, status)
}

// Twilio's own description is the independent peer of the double.
func TestTwilioHoldsRequestsAgainstItsDescription(t *testing.T) {
	t.Parallel()
	d, err := providertest.StartTwilio(providertest.TwilioOptions{Spec: twilioSpec(t)})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	good := "To=%2B15005550001&From=%2B15005550006&Body=hello"
	status, body := ask(t, http.MethodPost, messagesURL(d), twilioForm, good, true)
	require.Equal(t, http.StatusCreated, status, body)
	require.Empty(t, d.Violations())
	for name, tc := range map[string][3]string{
		"no recipient":      {messagesURL(d), twilioForm, "From=%2B15005550006&Body=hello"},
		"JSON":              {messagesURL(d), "application/json", `{"To":"+15005550001"}`},
		"a wrong type":      {messagesURL(d), twilioForm, good + "&ValidityPeriod=soon"},
		"no such service":   {messagesURL(d), twilioForm, good + "&MessagingServiceSid=MG1"},
		"no address at all": {d.URL() + "/2010-04-01/Accounts/" + providertest.TwilioAccountSID + "/Messages/SM1.json", "", ""},
	} {
		before := len(d.Violations())
		method := http.MethodPost
		if tc[1] == "" {
			method = http.MethodPut
		}
		status, body := ask(t, method, tc[0], tc[1], tc[2], true)
		require.GreaterOrEqual(t, status, 400, "%s: %s", name, body)
		if method == http.MethodPost {
			require.Len(t, d.Violations(), before+1, name)
		}
	}
	require.Equal(t, 1, d.Total())
}

// The library's validator is the independent peer of the signature.
func TestTwilioSignsAsTwilioDoes(t *testing.T) {
	t.Parallel()
	form := url.Values{"CallSid": {"CA1234567890ABCDE"}, "Caller": {"+15005550009"}, "Digits": {"1234"}, "From": {"+15005550009"}, "To": {"+15005550001"}}
	flat := map[string]string{}
	for key := range form {
		flat[key] = form.Get(key)
	}
	const address = "https://example.com/myapp.php?foo=1&bar=2"
	signature := providertest.TwilioSignature("12345", address, form)
	validator := twilio.NewRequestValidator("12345")
	require.True(t, validator.Validate(address, flat, signature))
	other := twilio.NewRequestValidator("12346")
	require.False(t, other.Validate(address, flat, signature))
}

func TestTwilioFollowsMessagesWithCallbacks(t *testing.T) {
	t.Parallel()
	type call struct{ status, signature string }
	calls := make(chan call, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ParseForm() == nil {
			calls <- call{r.PostForm.Get("MessageStatus"), r.Header.Get("X-Twilio-Signature")}
		}
	}))
	defer hook.Close()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{Follow: providertest.TwilioFollow{Statuses: []string{"sent", "delivered"}, Times: 2}})
	status, body := ask(t, http.MethodPost, messagesURL(d), twilioForm,
		"To=%2B15005550001&From=%2B15005550006&Body=hello&StatusCallback="+url.QueryEscape(hook.URL+"/x#rc=5"), true)
	require.Equal(t, http.StatusCreated, status, body)
	for _, want := range []string{"sent", "sent", "delivered", "delivered"} {
		got := <-calls
		require.Equal(t, want, got.status)
		require.NotEmpty(t, got.signature)
	}
	d.SetFollow(providertest.TwilioFollow{})
	answer, err := d.Callback(t.Context(), d.Messages()[0].SID, providertest.TwilioCallback{Status: "read", Token: "none"})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer)
	require.Empty(t, (<-calls).signature)
	require.Equal(t, "delivered", d.Messages()[0].Status, "a forgery changes nothing here")
}

func TestTwilioFollowsAShare(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer hook.Close()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{Seed: 1, Follow: providertest.TwilioFollow{Statuses: []string{"delivered"}, Share: 0.5, Delay: time.Millisecond}})
	const messages = 100
	for range messages {
		status, body := ask(t, http.MethodPost, messagesURL(d), twilioForm,
			"To=%2B15005550001&From=%2B15005550006&Body=hello&StatusCallback="+url.QueryEscape(hook.URL), true)
		require.Equal(t, http.StatusCreated, status, body)
	}
	d.AwaitFollow()
	delivered := 0
	for _, m := range d.Messages() {
		if m.Status == "delivered" {
			delivered++
		}
	}
	require.Equal(t, delivered, int(calls.Load()), "all were posted")
	require.InDelta(t, messages/2, delivered, messages/4)
}

func TestTwilioStopsPerSender(t *testing.T) {
	t.Parallel()
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hook.Close()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{})
	from := func(sender string) int {
		status, _ := ask(t, http.MethodPost, messagesURL(d), twilioForm,
			url.Values{"To": {"+15005550001"}, "From": {sender}, "Body": {"hello"}}.Encode(), true)
		return status
	}
	say := func(body string) {
		_, _, err := d.Inbound(t.Context(), hook.URL, providertest.TwilioInbound{From: "+15005550001", To: "+15005550006", Body: body})
		require.NoError(t, err)
	}
	say("Stop")
	require.Equal(t, http.StatusBadRequest, from("+15005550006"))
	require.Equal(t, http.StatusCreated, from("+15005550007"))
	say("START")
	require.Equal(t, http.StatusCreated, from("+15005550006"))
	require.Equal(t, map[string]int{"+15005550006": 1, "+15005550007": 1}, d.Senders())
	require.Equal(t, map[string]int{"+15005550001": 2}, d.Counts())
}

func TestTwilioRandomFaultsAndScripts(t *testing.T) {
	t.Parallel()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{Seed: 7})
	post := func(to string) int {
		status, _ := ask(t, http.MethodPost, messagesURL(d), twilioForm, url.Values{"To": {to}, "From": {"Example"}, "Body": {"hello"}}.Encode(), true)
		return status
	}
	d.SetRandom(providertest.TwilioRate{Share: 0.5, Fault: providertest.TwilioFault{Code: 20429}})
	refused := 0
	for range 100 {
		if post("+15005550001") == http.StatusTooManyRequests {
			refused++
		}
	}
	require.Greater(t, refused, 25)
	require.Less(t, refused, 75)
	require.Equal(t, 100-refused, d.Total())
	d.Script("+15005550002", providertest.TwilioFault{Code: 30007}, providertest.TwilioFault{})
	require.Equal(t, http.StatusBadRequest, post("+15005550002"))
	require.Equal(t, http.StatusCreated, post("+15005550002"))
	require.Equal(t, http.StatusCreated, post("+15005550002"), "the last one stays")
}

func TestTwilioDownAndUp(t *testing.T) {
	t.Parallel()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{Fault: providertest.TwilioFault{NoAnswer: true}})
	hung := make(chan error, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, messagesURL(d), strings.NewReader("To=%2B15005550001&From=Example&Body=hello"))
	require.NoError(t, err)
	req.Header.Set("Content-Type", twilioForm)
	req.SetBasicAuth(providertest.TwilioAccountSID, providertest.TwilioAuthToken)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
		}
		hung <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, d.Await(ctx, 1))
	require.NoError(t, d.Down())
	require.Error(t, <-hung)
	require.False(t, d.Messages()[0].Answered)
	d.SetAll(providertest.TwilioFault{})
	require.NoError(t, d.Up())
	status, _ := ask(t, http.MethodPost, messagesURL(d), twilioForm, "To=%2B15005550001&From=Example&Body=hello", true)
	require.Equal(t, http.StatusCreated, status)
}
