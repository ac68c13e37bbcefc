package hooks_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

const (
	codesSender  = "+15005550006"
	offersSender = "+15005550007"
	anasPhone    = "+15005550001"
	statusPath   = "/api/webhooks/twilio/status"
	inboundPath  = "/api/webhooks/twilio/inbound"
)

// texting is an app that sends SMS by a double, with one sender for each kind.
type texting struct {
	*pbtest.App
	t      *testing.T
	twilio *providertest.Twilio
	ana    *core.Record
}

func newTexting(t *testing.T, opts ...pbtest.Option) *texting {
	t.Helper()
	x := &texting{t: t, twilio: providertest.NewTwilio(t, providertest.TwilioOptions{})}
	x.App = pbtest.NewApp(t, append([]pbtest.Option{pbtest.WithConfig(production)}, opts...)...)
	x.Handler()
	x.smsProvider("sms_transactional", codesSender, x.twilio)
	x.smsProvider("sms_promotional", offersSender, x.twilio)
	x.ana = x.User("ana@example.com", map[string]any{"phone": anasPhone})
	x.verify()
	agree(x.App, x.ana, "sms")
	return x
}

// verify does what a code does.
func (x *texting) verify() {
	x.t.Helper()
	ana := x.Reload(x.ana)
	ana.Set("phoneVerified", true)
	require.NoError(x.t, x.SaveWithContext(notifications.AsServer(x.t.Context()), ana))
	require.True(x.t, x.Reload(ana).GetBool("phoneVerified"))
}

func (x *texting) smsProvider(channel, sender string, d *providertest.Twilio) *core.Record {
	x.t.Helper()
	root, err := x.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com")
	if err != nil {
		root = x.Superuser("root@example.com")
	}
	res := x.Send(http.MethodPost, "/api/collections/notification_providers/records", map[string]any{"name": "SMS " + sender, "channel": channel,
		"config": d.Config(), "secret": d.AuthToken(), "senderId": sender, "enabled": true}, x.Token(root))
	require.Equal(x.t, http.StatusOK, res.Status, res.String())
	record, err := x.FindFirstRecordByData(notifications.CollectionProviders, "name", "SMS "+sender)
	require.NoError(x.t, err)
	return record
}

func (x *texting) category(key string) string {
	x.t.Helper()
	r, err := x.FindFirstRecordByData(notifications.CollectionCategories, "key", key)
	require.NoError(x.t, err)
	return r.Id
}

// text sends an SMS to Ana and returns her delivery once it has this status.
func (x *texting) text(kind, status string) (n, delivery *core.Record) {
	x.t.Helper()
	var last string
	n = send(x.t, x.App, map[string]any{"channels": []string{"sms"}, "audience": "users", "users": []string{x.ana.Id}, "category": x.category(kind)})
	if !waitFor(func() bool {
		var err error
		delivery, err = x.FindFirstRecordByFilter(notifications.CollectionDeliveries, "notification = {:id} && user = {:user}",
			dbx.Params{"id": n.Id, "user": x.ana.Id})
		last = fmt.Sprint(err, delivery)
		return err == nil && delivery.GetString("status") == status
	}) {
		require.FailNow(x.t, "the delivery never became "+status, "%s\n%s", x.Reload(n), last)
	}
	return n, delivery
}

// waitFor asks again and again, for as long as a slow machine may need.
func waitFor(met func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) { // between two looks
		if met() {
			return true
		}
	}
	return met()
}

func (x *texting) callback(sid, delivery string, c providertest.TwilioCallback) int {
	x.t.Helper()
	if c.URL == "" {
		c.URL = x.URL() + statusPath + "?delivery=" + delivery
	}
	status, err := x.twilio.Callback(x.t.Context(), sid, c)
	require.NoError(x.t, err)
	return status
}

func (x *texting) inbound(in providertest.TwilioInbound) (int, string) {
	x.t.Helper()
	if in.From == "" {
		in.From = anasPhone
	}
	status, body, err := x.twilio.Inbound(x.t.Context(), x.URL()+inboundPath, in)
	require.NoError(x.t, err)
	return status, body
}

// suppressions are Ana's, by kind and reason.
func (x *texting) suppressions() []string {
	x.t.Helper()
	rows, err := x.FindRecordsByFilter(notifications.CollectionSuppressions, "channel = 'sms' && address = {:a}", "kind", 0, 0, dbx.Params{"a": anasPhone})
	require.NoError(x.t, err)
	list := []string{}
	for _, r := range rows {
		list = append(list, r.GetString("kind")+" "+r.GetString("reason"))
	}
	return list
}

func TestTwilioWebhooksWhoMayCall(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	_, delivery := x.text("transactional", "accepted")
	sid := delivery.GetString("providerMessageId")
	good := func() url.Values {
		return url.Values{"AccountSid": {providertest.TwilioAccountSID}, "MessageSid": {sid}, "MessageStatus": {"delivered"}, "From": {anasPhone},
			"To": {offersSender}, "Body": {"STOP"}}
	}
	post := func(path string, form url.Values, contentType, signature string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.URL()+path, strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", contentType)
		if signature != "" {
			req.Header.Set("X-Twilio-Signature", signature)
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	const form = "application/x-www-form-urlencoded"
	root := x.Token(x.Superuser("second@example.com"))
	for _, path := range []string{statusPath, inboundPath} {
		sign := func(f url.Values) string { return providertest.TwilioSignature(x.twilio.AuthToken(), x.URL()+path, f) }
		other := good()
		other.Set("AccountSid", "AC00000000000000000000000000000002")
		changed := good()
		changed.Set("MessageStatus", "failed")
		for name, tc := range map[string]struct {
			form        url.Values
			contentType string
			signature   string
			status      int
		}{
			"a guest without signature": {good(), form, "", 403},
			"nonsense":                  {good(), form, "nonsense", 403},
			"another token":             {good(), form, providertest.TwilioSignature("anotherTokenAltogether0123456789", x.URL()+path, good()), 403},
			"an empty token":            {good(), form, providertest.TwilioSignature("", x.URL()+path, good()), 403},
			"another address":           {good(), form, providertest.TwilioSignature(x.twilio.AuthToken(), "https://api.example.com"+path, good()), 403},
			"another form":              {changed, form, sign(good()), 403},
			"an unknown account":        {other, form, sign(other), 403},
			"no account":                {url.Values{}, form, sign(url.Values{}), 403},
			"not a form":                {good(), "application/json", sign(good()), 403},
			"too large":                 {url.Values{"x": {strings.Repeat("x", 100_000)}}, form, "", 413},
		} {
			require.Equal(t, tc.status, post(path, tc.form, tc.contentType, tc.signature), "%s %s", path, name)
		}
		require.Equal(t, http.StatusForbidden, x.Send(http.MethodPost, path, nil, root).Status, "a superuser is not Twilio")
		require.NotEqual(t, http.StatusOK, x.Send(http.MethodGet, path, nil, "").Status)
	}
	require.Equal(t, "accepted", x.Reload(delivery).GetString("status"), "nothing of it had an effect")
	require.Empty(t, x.suppressions())

	// One sentence, and no token in it.
	res := x.Send(http.MethodPost, statusPath, nil, "")
	require.Contains(t, string(res.Body), "No SMS provider")
	require.NotContains(t, string(res.Body), x.twilio.AuthToken())

	for name, change := range map[string]func(url.Values){
		"plain": func(url.Values) {},
		"repeated key": func(f url.Values) {
			f["MediaUrl"] = []string{"https://b.example.com", "https://a.example.com", "https://b.example.com"}
		},
		"empty value": func(f url.Values) { f.Set("Body", "") },
		"letters":     func(f url.Values) { f.Set("Body", "Grüße, & = + % 😀") },
	} {
		f := good()
		change(f)
		require.Equal(t, http.StatusNoContent, post(statusPath, f, form, providertest.TwilioSignature(x.twilio.AuthToken(), x.URL()+statusPath, f)), name)
	}
	require.Equal(t, "delivered", x.Reload(delivery).GetString("status"))
}

func TestTwilioWebhooksWithoutProvider(t *testing.T) {
	t.Parallel()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{})
	app := pbtest.NewApp(t)
	status, _, err := d.Inbound(t.Context(), app.URL()+inboundPath, providertest.TwilioInbound{From: anasPhone, To: offersSender, Body: "STOP"})
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, status)
	n, err := app.CountRecords(notifications.CollectionSuppressions)
	require.NoError(t, err)
	require.Zero(t, n)
}

// Behind a proxy the request's own host is not the one that Twilio called.
func TestTwilioSignsThePublicAddress(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	x.Settings().Meta.AppURL = "https://api.example.com/"
	require.NoError(t, x.Save(x.Settings()))
	_, delivery := x.text("transactional", "accepted")
	sid := delivery.GetString("providerMessageId")
	form := url.Values{"AccountSid": {providertest.TwilioAccountSID}, "MessageSid": {sid}, "MessageStatus": {"delivered"}}
	for address, want := range map[string]int{
		"https://api.example.com" + statusPath + "?delivery=" + delivery.Id:                  http.StatusNoContent,
		"https://api.example.com:443" + statusPath + "?delivery=" + delivery.Id:              http.StatusNoContent,
		"https://api.example.com" + statusPath + "?delivery=" + delivery.Id + "#rc=5&rp=all": http.StatusNoContent,
		"https://api.example.com" + statusPath:                                               http.StatusForbidden,
		"http://api.example.com" + statusPath + "?delivery=" + delivery.Id:                   http.StatusForbidden,
		x.URL() + statusPath + "?delivery=" + delivery.Id:                                    http.StatusForbidden,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.URL()+statusPath+"?delivery="+delivery.Id, strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("X-Twilio-Signature", providertest.TwilioSignature(x.twilio.AuthToken(), address, form))
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, want, res.StatusCode, address)
	}
}

func TestReceiptsInAnyOrder(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	type call = providertest.TwilioCallback
	delivered, sent := call{Status: "delivered"}, call{Status: "sent"}
	undelivered := call{Status: "undelivered", ErrorCode: 30003}
	for name, tc := range map[string]struct {
		calls  []call
		status string
		reason string
	}{
		"as it should be":           {[]call{{Status: "sending"}, sent, delivered}, "delivered", ""},
		"backwards":                 {[]call{delivered, sent, {Status: "sending"}, {Status: "queued"}}, "delivered", ""},
		"twice":                     {[]call{sent, sent, delivered, delivered}, "delivered", ""},
		"a failure after delivery":  {[]call{delivered, undelivered}, "delivered", ""},
		"a delivery after failure":  {[]call{undelivered, delivered}, "failed", "unreachable"},
		"sent after failure":        {[]call{undelivered, sent}, "failed", "unreachable"},
		"read":                      {[]call{{Status: "read"}, delivered, sent}, "opened", ""},
		"read after a failure":      {[]call{undelivered, {Status: "read"}}, "opened", ""},
		"filtered":                  {[]call{{Status: "undelivered", ErrorCode: 30007}}, "failed", "filtered"},
		"failed without a code":     {[]call{{Status: "failed"}}, "failed", "undelivered"},
		"only on its way":           {[]call{{Status: "queued"}, sent}, "accepted", ""},
		"a word that is none":       {[]call{{Status: "teleported"}}, "accepted", ""},
		"a landline":                {[]call{{Status: "undelivered", ErrorCode: 30006}}, "failed", "recipient_blocked"},
		"the older form":            {[]call{{Status: "delivered", Change: func(f url.Values) { f.Del("MessageStatus"); f.Del("MessageSid") }}}, "delivered", ""},
		"an id of another delivery": {[]call{{Status: "delivered", URL: "other"}}, "delivered", ""},
	} {
		n, delivery := x.text("transactional", "accepted")
		for _, c := range tc.calls {
			if c.URL == "other" {
				c.URL = x.URL() + statusPath + "?delivery=somebodyelse000"
			}
			require.Equal(t, http.StatusNoContent, x.callback(delivery.GetString("providerMessageId"), delivery.Id, c), name)
		}
		now := x.Reload(delivery)
		require.Equal(t, tc.status, now.GetString("status"), name)
		require.Equal(t, tc.reason, now.GetString("reason"), name)
		require.Equal(t, tc.status == "failed", now.GetString("explanation") != "", name)
		require.Equal(t, tc.status == "delivered" || tc.status == "opened", !now.GetDateTime("deliveredAt").IsZero(), name)
		require.False(t, now.GetDateTime("acceptedAt").IsZero(), name)
		require.Equal(t, delivery.GetString("providerMessageId"), now.GetString("providerMessageId"), name)
		switch tc.status {
		case "failed":
			until(t, x.App, n, "failed", "1")
			require.Equal(t, 0, x.Reload(n).GetInt("sent"), name)
		case "delivered":
			until(t, x.App, n, "delivered", "1")
		}
		// A landline is suppressed: the next one would be skipped.
		for _, r := range mustFind(t, x.App, notifications.CollectionSuppressions) {
			require.Equal(t, "a landline", name)
			require.NoError(t, x.Delete(r))
		}
	}
}

func mustFind(t *testing.T, app *pbtest.App, collection string) []*core.Record {
	t.Helper()
	rows, err := app.FindAllRecords(collection)
	require.NoError(t, err)
	return rows
}

func TestReceiptSettlesWhatWasUnknown(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	x.twilio.Script(anasPhone, providertest.TwilioFault{Drop: true})
	n, delivery := x.text("transactional", "unknown")
	require.Empty(t, delivery.GetString("providerMessageId"))
	message := x.twilio.To(anasPhone)[0]

	require.Equal(t, http.StatusNoContent, x.callback(message.SID, delivery.Id, providertest.TwilioCallback{Status: "sent"}))
	now := x.Reload(delivery)
	require.Equal(t, "accepted", now.GetString("status"))
	require.Equal(t, message.SID, now.GetString("providerMessageId"))
	require.Empty(t, now.GetString("explanation"))
	until(t, x.App, n, "unknown", "0")
	require.Equal(t, http.StatusNoContent, x.callback(message.SID, delivery.Id, providertest.TwilioCallback{Status: "delivered"}))
	require.Equal(t, "delivered", x.Reload(delivery).GetString("status"))

	// A second message of the same delivery is not this one's news.
	require.Equal(t, http.StatusNoContent, x.callback("SM00000000000000000000000000000009", delivery.Id, providertest.TwilioCallback{Status: "read"}))
	require.Equal(t, "delivered", x.Reload(delivery).GetString("status"))
	require.Len(t, x.twilio.To(anasPhone), 1, "it was not sent again")
}

// A callback can be faster than the answer to the request.
func TestReceiptBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	x.twilio.Script(anasPhone, providertest.TwilioFault{Hold: true})
	n, delivery := x.text("promotional", "sending")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, x.twilio.Await(ctx, 1))
	sid := x.twilio.Messages()[0].SID
	require.Equal(t, http.StatusNoContent, x.callback(sid, delivery.Id, providertest.TwilioCallback{Status: "delivered"}))
	require.Equal(t, "delivered", x.Reload(delivery).GetString("status"))
	x.twilio.Release()
	until(t, x.App, n, "status", "sent")
	now := x.Reload(delivery)
	require.Equal(t, "delivered", now.GetString("status"))
	require.Equal(t, sid, now.GetString("providerMessageId"))
	provider, err := x.FindRecordById(notifications.CollectionProviders, now.GetString("provider"))
	require.NoError(t, err)
	require.Equal(t, "sms_promotional", provider.GetString("channel"))
}

func TestReceiptTouchesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	mailProvider(t, x.App, smtp.Config("hello@example.com"), "")
	mail := send(t, x.App, map[string]any{"audience": "users", "users": []string{x.ana.Id}})
	until(t, x.App, mail, "status", "sent")
	letter, err := x.FindFirstRecordByData(notifications.CollectionDeliveries, "notification", mail.Id)
	require.NoError(t, err)
	_, text := x.text("transactional", "accepted")

	// Somebody else's account, although it is set up here too.
	second := providertest.NewTwilio(t, providertest.TwilioOptions{AccountSID: "AC00000000000000000000000000000002", AuthToken: "theOtherAuthToken0123456789abcde"})
	x.smsProvider("sms_transactional", "+15005550008", second)
	sid := text.GetString("providerMessageId")
	for _, address := range []string{letter.Id, text.Id, "nosuchdelivery0"} {
		status, err := second.Callback(t.Context(), sid, providertest.TwilioCallback{Status: "failed", URL: x.URL() + statusPath + "?delivery=" + address})
		require.NoError(t, err)
		require.Equal(t, http.StatusNoContent, status)
	}
	require.Equal(t, "accepted", x.Reload(text).GetString("status"))

	for _, unknown := range []string{"SM00000000000000000000000000000009", ""} {
		require.Equal(t, http.StatusNoContent, x.callback(unknown, letter.Id, providertest.TwilioCallback{Status: "failed"}))
		require.Equal(t, http.StatusNoContent, x.callback(unknown, "nosuchdelivery0", providertest.TwilioCallback{Status: "failed"}))
	}
	require.Equal(t, "accepted", x.Reload(letter).GetString("status"))
	require.Equal(t, "accepted", x.Reload(text).GetString("status"))
}

func TestStopToOffersLeavesCodes(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	stop := providertest.TwilioInbound{To: offersSender, Body: "Stop.", SID: "SM00000000000000000000000000000001"}
	status, body := x.inbound(stop)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, `<?xml version="1.0" encoding="UTF-8"?><Response/>`, body)
	require.Equal(t, []string{"promotional stop"}, x.suppressions())
	x.text("promotional", "skipped")
	_, code := x.text("transactional", "accepted")
	require.Equal(t, map[string]int{codesSender: 1}, x.twilio.Senders())
	require.NotEmpty(t, code.GetString("providerMessageId"))

	x.inbound(stop)
	require.Equal(t, []string{"promotional stop"}, x.suppressions(), "twice is once")
	x.inbound(providertest.TwilioInbound{To: codesSender, Body: "START"})
	require.Equal(t, []string{"promotional stop"}, x.suppressions(), "that was said to the other sender")
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "start", SID: "SM00000000000000000000000000000002"})
	require.Empty(t, x.suppressions())
	x.inbound(stop)
	require.Empty(t, x.suppressions(), "the old STOP again does not undo the START")
	x.text("promotional", "accepted")
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "STOP"})
	require.Equal(t, []string{"promotional stop"}, x.suppressions(), "a new one does")
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "start", SID: "SM00000000000000000000000000000002"})
	require.Equal(t, []string{"promotional stop"}, x.suppressions(), "nor the old START the STOP")

	x.inbound(providertest.TwilioInbound{To: codesSender, Body: "STOP"})
	require.Equal(t, []string{"promotional stop", "transactional stop"}, x.suppressions())
}

func TestInboundWords(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	x.smsProvider("sms_promotional", "MG0123456789abcdef0123456789abcdef", x.twilio)
	for name, tc := range map[string]struct {
		in   providertest.TwilioInbound
		want []string
	}{
		"every word: STOP":           {providertest.TwilioInbound{To: offersSender, Body: "STOP"}, []string{"promotional stop"}},
		"every word: UNSUBSCRIBE":    {providertest.TwilioInbound{To: offersSender, Body: "unsubscribe"}, []string{"promotional stop"}},
		"every word: END":            {providertest.TwilioInbound{To: offersSender, Body: " End "}, []string{"promotional stop"}},
		"every word: QUIT":           {providertest.TwilioInbound{To: offersSender, Body: "quit!"}, []string{"promotional stop"}},
		"every word: STOPALL":        {providertest.TwilioInbound{To: offersSender, Body: "Stop all"}, []string{"promotional stop"}},
		"every word: REVOKE":         {providertest.TwilioInbound{To: offersSender, Body: "REVOKE"}, []string{"promotional stop"}},
		"every word: OPTOUT":         {providertest.TwilioInbound{To: offersSender, Body: "opt-out"}, []string{"promotional stop"}},
		"every word: CANCEL":         {providertest.TwilioInbound{To: offersSender, Body: "cancel\n"}, []string{"promotional stop"}},
		"Twilio's own reading":       {providertest.TwilioInbound{To: offersSender, Body: "ARRET", OptOutType: "STOP"}, []string{"promotional stop"}},
		"and when it is no stop":     {providertest.TwilioInbound{To: offersSender, Body: "STOP", OptOutType: "HELP"}, []string{}},
		"a sentence":                 {providertest.TwilioInbound{To: offersSender, Body: "please don't stop"}, []string{}},
		"HELP":                       {providertest.TwilioInbound{To: offersSender, Body: "HELP"}, []string{}},
		"nothing":                    {providertest.TwilioInbound{To: offersSender, Body: ""}, []string{}},
		"a long text":                {providertest.TwilioInbound{To: offersSender, Body: "stop" + strings.Repeat(" ", 2000)}, []string{}},
		"a number of no sender":      {providertest.TwilioInbound{To: "+15005550009", Body: "STOP"}, []string{}},
		"a number of the service":    {providertest.TwilioInbound{To: "+15005550009", Service: "MG0123456789abcdef0123456789abcdef", Body: "STOP"}, []string{"promotional stop"}},
		"the codes' own number":      {providertest.TwilioInbound{To: codesSender, Service: "MG0123456789abcdef0123456789abcdef", Body: "STOP"}, []string{"transactional stop"}},
		"from a short code":          {providertest.TwilioInbound{From: "12345", To: offersSender, Body: "STOP"}, []string{}},
		"forged":                     {providertest.TwilioInbound{To: offersSender, Body: "STOP", Token: "anotherTokenAltogether0123456789"}, []string{}},
		"unsigned":                   {providertest.TwilioInbound{To: offersSender, Body: "STOP", Token: "none"}, []string{}},
		"somebody else's number put": {providertest.TwilioInbound{From: "+15005550099", To: offersSender, Body: "STOP", Tamper: func(f url.Values) { f.Set("From", anasPhone) }}, []string{}},
	} {
		status, _ := x.inbound(tc.in)
		if tc.in.Token != "" || tc.in.Tamper != nil {
			require.Equal(t, http.StatusForbidden, status, name)
		} else {
			require.Equal(t, http.StatusOK, status, name)
		}
		require.Equal(t, tc.want, x.suppressions(), name)
		for _, r := range mustFind(t, x.App, notifications.CollectionSuppressions) {
			require.NoError(t, x.Delete(r))
		}
	}
}

func TestStartTakesBackNothingElse(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	x.Record(notifications.CollectionSuppressions, map[string]any{"channel": "sms", "address": anasPhone, "kind": "promotional", "reason": "manual"})
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "STOP"})
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "START"})
	require.Equal(t, []string{"promotional manual"}, x.suppressions())
}

func TestStopCanBeWidened(t *testing.T) {
	t.Parallel()
	x := newTexting(t, pbtest.WithConfig(func(c *hooks.Config) { c.StopWidens = true }))
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "STOP"})
	require.Equal(t, []string{" stop"}, x.suppressions())
	x.text("transactional", "skipped")
	x.inbound(providertest.TwilioInbound{To: codesSender, Body: "START"})
	require.Equal(t, []string{"promotional stop"}, x.suppressions(), "codes again, and still no offers")
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "START"})
	require.Empty(t, x.suppressions())
}

// Twilio says by a receipt, too, that somebody has stopped.
func TestReceiptOfAStopSuppressesOnce(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	_, delivery := x.text("promotional", "accepted")
	sid := delivery.GetString("providerMessageId")
	stopped := providertest.TwilioCallback{Status: "failed", ErrorCode: 21610}
	require.Equal(t, http.StatusNoContent, x.callback(sid, delivery.Id, stopped))
	require.Equal(t, []string{"promotional stop"}, x.suppressions())
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "START"})
	require.Equal(t, http.StatusNoContent, x.callback(sid, delivery.Id, stopped))
	require.Empty(t, x.suppressions(), "the same receipt again is no news")
}

// age makes a delivery look as if it had been handed over some time ago.
func (x *texting) age(delivery *core.Record, by time.Duration) {
	x.t.Helper()
	at := time.Now().Add(-by).UTC().Format("2006-01-02 15:04:05.000Z")
	_, err := x.NonconcurrentDB().NewQuery("UPDATE notification_deliveries SET updated = {:at}, created = {:at} WHERE id = {:id}").
		Bind(dbx.Params{"at": at, "id": delivery.Id}).Execute()
	require.NoError(x.t, err)
}

// poll runs the job once.
func (x *texting) poll() {
	x.t.Helper()
	_, err := jobs.Enqueue(x.TestApp, notifications.SMSPollArgs{}, jobs.Options{})
	require.NoError(x.t, err)
	require.Eventually(x.t, func() bool {
		due, err := jobs.CountDue(context.Background(), x.TestApp)
		require.NoError(x.t, err)
		return due == 0
	}, patience, 5*time.Millisecond)
}

func TestLostReceiptsAreAskedFor(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	n, delivery := x.text("transactional", "accepted")
	sid := delivery.GetString("providerMessageId")
	asked := func() int { return x.twilio.Requests()["GET Messages/SID"] }

	x.twilio.Become(sid, "delivered", 0)
	x.poll()
	require.Zero(t, asked(), "its receipt may still come by itself")
	x.age(delivery, 25*time.Hour)
	x.poll()
	require.Zero(t, asked(), "too old")

	x.twilio.Become(sid, "sent", 0)
	x.age(delivery, 11*time.Minute)
	x.poll()
	require.Equal(t, 1, asked())
	require.Equal(t, "accepted", x.Reload(delivery).GetString("status"))
	x.poll()
	require.Equal(t, 1, asked(), "not every minute")

	_, err := x.NonconcurrentDB().NewQuery("UPDATE groundwork_polls SET nextAt = '2020-01-01'").Execute()
	require.NoError(t, err)
	x.twilio.Become(sid, "undelivered", 30005)
	x.poll()
	now := x.Reload(delivery)
	require.Equal(t, "failed", now.GetString("status"))
	require.Equal(t, "recipient_blocked", now.GetString("reason"))
	require.Equal(t, []string{"transactional bounce"}, x.suppressions())
	until(t, x.App, n, "failed", "1")

	x.poll()
	require.Equal(t, 2, asked(), "it has its last word")
}

func TestPollingSettlesTheUnknown(t *testing.T) {
	t.Parallel()
	drop := providertest.TwilioFault{Drop: true}
	for name, tc := range map[string]struct {
		faults  []providertest.TwilioFault
		arrange func(x *texting, messages []providertest.SMS)
		want    []string // status and reason of each delivery
	}{
		"it had arrived":                {[]providertest.TwilioFault{drop}, func(*texting, []providertest.SMS) {}, []string{"accepted "}},
		"it had arrived and more":       {[]providertest.TwilioFault{drop}, func(x *texting, m []providertest.SMS) { x.twilio.Become(m[0].SID, "delivered", 0) }, []string{"delivered "}},
		"it had never arrived":          {[]providertest.TwilioFault{drop}, func(x *texting, m []providertest.SMS) { x.twilio.Forget(m[0].SID) }, []string{"failed not_sent"}},
		"an error of the proxy":         {[]providertest.TwilioFault{{HTML: 502}}, func(*texting, []providertest.SMS) {}, []string{"failed not_sent"}},
		"both of two":                   {[]providertest.TwilioFault{drop, drop}, func(*texting, []providertest.SMS) {}, []string{"accepted ", "accepted "}},
		"none of two":                   {[]providertest.TwilioFault{{HTML: 502}, {HTML: 502}}, func(*texting, []providertest.SMS) {}, []string{"failed not_sent", "failed not_sent"}},
		"one of two":                    {[]providertest.TwilioFault{drop, {HTML: 502}}, func(*texting, []providertest.SMS) {}, []string{"unknown no_answer", "unknown no_answer"}},
		"one that another delivery has": {[]providertest.TwilioFault{{HTML: 502}, {}}, func(*texting, []providertest.SMS) {}, []string{"failed not_sent", "accepted "}},
		"long before":                   {[]providertest.TwilioFault{drop}, func(x *texting, m []providertest.SMS) { x.twilio.Backdate(m[0].SID, 2*time.Hour) }, []string{"failed not_sent"}},
		"long after":                    {[]providertest.TwilioFault{drop}, func(*texting, []providertest.SMS) {}, []string{"failed not_sent"}},
		"Twilio is down":                {[]providertest.TwilioFault{drop}, func(x *texting, _ []providertest.SMS) { require.NoError(x.t, x.twilio.Down()) }, []string{"unknown no_answer"}},
		"the number has changed": {[]providertest.TwilioFault{{HTML: 502}}, func(x *texting, _ []providertest.SMS) {
			ana := x.Reload(x.ana)
			ana.Set("phone", "+15005550033")
			require.NoError(x.t, x.Save(ana))
		}, []string{"unknown no_answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTexting(t)
			var deliveries []*core.Record
			var last *core.Record
			for _, fault := range tc.faults {
				x.twilio.Script(anasPhone, fault)
				status := "unknown"
				if fault == (providertest.TwilioFault{}) {
					status = "accepted"
				}
				n, delivery := x.text("transactional", status)
				deliveries, last = append(deliveries, delivery), n
			}
			tc.arrange(x, x.twilio.To(anasPhone))
			x.poll()
			for i, d := range deliveries {
				require.Equal(t, d.GetString("status"), x.Reload(d).GetString("status"), "not before its time: %d", i)
				x.age(d, 11*time.Minute-time.Duration(i)*time.Second)
			}
			for _, m := range x.twilio.To(anasPhone) {
				if name != "long after" {
					x.twilio.Backdate(m.SID, 11*time.Minute)
				}
			}
			taken := x.twilio.Total()
			x.poll()
			var got []string
			seen := map[string]bool{}
			for _, d := range deliveries {
				now := x.Reload(d)
				got = append(got, now.GetString("status")+" "+now.GetString("reason"))
				if now.GetString("status") != "accepted" && now.GetString("status") != "delivered" {
					require.NotEmpty(t, now.GetString("explanation"))
				} else {
					require.False(t, seen[now.GetString("providerMessageId")], "one message for one delivery")
					seen[now.GetString("providerMessageId")] = true
					require.NotEmpty(t, now.GetString("providerMessageId"))
				}
			}
			require.Equal(t, tc.want, got)
			require.Equal(t, taken, x.twilio.Total(), "nothing is sent again by itself")
			if strings.HasPrefix(tc.want[0], "failed") && len(tc.want) == 1 {
				until(t, x.App, last, "failed", "1")
			}
		})
	}
}

// What was concluded from silence yields to a receipt.
func TestReceiptAfterNotSent(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	x.twilio.Script(anasPhone, providertest.TwilioFault{HTML: 502})
	n, delivery := x.text("transactional", "unknown")
	x.age(delivery, 11*time.Minute)
	x.poll()
	require.Equal(t, "not_sent", x.Reload(delivery).GetString("reason"))
	require.Equal(t, http.StatusNoContent, x.callback("SM00000000000000000000000000000003", delivery.Id, providertest.TwilioCallback{Status: "delivered"}))
	now := x.Reload(delivery)
	require.Equal(t, "delivered", now.GetString("status"))
	require.Empty(t, now.GetString("reason"))
	until(t, x.App, n, "delivered", "1")
}

// failedOnce is a text that did not arrive, whose delivery is tried again: the first
// message's id, and the delivery as it waits for its second message.
func (x *texting) failedOnce() (n, delivery *core.Record, first string) {
	x.t.Helper()
	n, delivery = x.text("transactional", "accepted")
	first = delivery.GetString("providerMessageId")
	require.Equal(x.t, http.StatusNoContent, x.callback(first, delivery.Id, providertest.TwilioCallback{Status: "undelivered", ErrorCode: 30003}))
	until(x.t, x.App, n, "status", "failed")
	root, err := x.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com")
	require.NoError(x.t, err)
	x.twilio.Script(anasPhone, providertest.TwilioFault{Code: 20429}) // it has to wait
	res := x.Send(http.MethodPost, "/api/notifications/"+n.Id+"/retry", nil, x.Token(root))
	require.Equal(x.t, http.StatusOK, res.Status, res.String())
	require.True(x.t, waitFor(func() bool { return x.Reload(delivery).GetInt("attempts") > 0 }))
	x.act(n, "pause")
	require.True(x.t, waitFor(func() bool { return x.Reload(delivery).GetString("status") == "pending" }))
	return n, delivery, first
}

func (x *texting) act(n *core.Record, action string) {
	x.t.Helper()
	n = x.Reload(n)
	n.Set("action", action)
	require.NoError(x.t, x.Save(n))
}

// Twilio repeats its callbacks. One about the message that failed says nothing
// about the one that is sent in its place.
func TestAnOldReceiptDoesNotDecideAboutARetry(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	n, delivery, first := x.failedOnce()
	replay := func(during string) {
		t.Helper()
		before := x.Reload(delivery)
		require.Equal(t, during, before.GetString("status"))
		for _, c := range []providertest.TwilioCallback{{Status: "undelivered", ErrorCode: 30003}, {Status: "failed", ErrorCode: 21610}, {Status: "sent"}, {Status: "queued"}} {
			require.Equal(t, http.StatusNoContent, x.callback(first, delivery.Id, c))
			require.Equal(t, before.FieldsData(), x.Reload(delivery).FieldsData(), "%s while it is %s", c.Status, during)
		}
		require.Empty(t, x.suppressions())
	}
	replay("pending")

	x.twilio.Script(anasPhone, providertest.TwilioFault{Hold: true})
	x.act(n, "resume")
	require.True(t, waitFor(func() bool { return x.twilio.Total() == 2 }))
	replay("sending")
	x.twilio.Release()
	until(t, x.App, n, "status", "sent")
	replay("accepted")
	second := x.Reload(delivery).GetString("providerMessageId")
	require.NotEqual(t, first, second)
	require.Equal(t, http.StatusNoContent, x.callback(second, delivery.Id, providertest.TwilioCallback{Status: "delivered"}))
	require.Equal(t, "delivered", x.Reload(delivery).GetString("status"))
	require.Equal(t, 2, x.twilio.Total())
}

// A message that was called lost and arrives after all is not sent again.
func TestAnOldMessageThatArrivesAfterAll(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	n, delivery, first := x.failedOnce()
	require.Equal(t, http.StatusNoContent, x.callback(first, delivery.Id, providertest.TwilioCallback{Status: "delivered"}))
	require.Equal(t, "delivered", x.Reload(delivery).GetString("status"))
	x.twilio.Script(anasPhone, providertest.TwilioFault{})
	x.act(n, "resume")
	until(t, x.App, n, "status", "sent")
	require.Equal(t, 1, x.twilio.Total())
}

// Nor is the failed message taken for one whose answer was lost.
func TestPollingKnowsTheMessagesOfFormerTries(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	n, delivery, first := x.failedOnce()
	x.twilio.Script(anasPhone, providertest.TwilioFault{Drop: true})
	x.act(n, "resume")
	require.True(t, waitFor(func() bool { return x.Reload(delivery).GetString("status") == "unknown" }))
	messages := x.twilio.To(anasPhone)
	require.Len(t, messages, 2)
	x.twilio.Become(first, "undelivered", 30003)
	x.age(delivery, 11*time.Minute)
	for _, m := range messages {
		x.twilio.Backdate(m.SID, 11*time.Minute)
	}
	x.poll()
	now := x.Reload(delivery)
	require.Equal(t, "accepted", now.GetString("status"), now.GetString("explanation"))
	require.Equal(t, messages[1].SID, now.GetString("providerMessageId"))
}

func TestInboundIsForgottenAfterAMonth(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "STOP"})
	x.inbound(providertest.TwilioInbound{To: offersSender, Body: "STOP", SID: "SM00000000000000000000000000000001"})
	_, err := x.NonconcurrentDB().NewQuery("UPDATE groundwork_inbound SET at = '2020-01-01' WHERE id = (SELECT min(id) FROM groundwork_inbound)").Execute()
	require.NoError(t, err)
	x.poll()
	var n int
	require.NoError(t, x.DB().Select("COUNT(*)").From("groundwork_inbound").Row(&n))
	require.Equal(t, 1, n)
}
