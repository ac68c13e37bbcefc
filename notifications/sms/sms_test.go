package sms_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
	"github.com/groundworkhq/groundwork/notifications/sms"
)

const sender = "+15005550006"

// spec is Twilio's own description, which lies beside the repository on machines
// that have it.
func spec(t *testing.T) string {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "specs", "twilio_api_v2010.json")
	if _, err := os.Stat(path); err != nil {
		for dir := ".."; len(dir) < 40; dir = filepath.Join(dir, "..") {
			candidate := filepath.Join(dir, "shared", "specs", "twilio_api_v2010.json")
			if _, err := os.Stat(candidate); err == nil {
				return candidate
			}
		}
		return ""
	}
	return path
}

// kinds are the two adapters behind one function each, for tests only.
var kinds = map[notifications.ProviderChannel]struct {
	make notifications.ProviderFactory
	send func(ctx context.Context, a notifications.Adapter, to, body string) notifications.Outcome
}{
	notifications.ProviderSMSTransactional: {sms.NewTransactional, func(ctx context.Context, a notifications.Adapter, to, body string) notifications.Outcome {
		m, err := notifications.NewTransactionalSMS(message(notifications.KindTransactional, to, body))
		if err != nil {
			return notifications.Outcome{Explanation: err.Error()}
		}
		return a.(notifications.TransactionalSMSSender).SendTransactional(ctx, m)
	}},
	notifications.ProviderSMSPromotional: {sms.NewPromotional, func(ctx context.Context, a notifications.Adapter, to, body string) notifications.Outcome {
		m, err := notifications.NewPromotionalSMS(message(notifications.KindPromotional, to, body))
		if err != nil {
			return notifications.Outcome{Explanation: err.Error()}
		}
		return a.(notifications.PromotionalSMSSender).SendPromotional(ctx, m)
	}},
}

func message(kind notifications.Kind, to, body string) *notifications.Message {
	return &notifications.Message{DeliveryID: "delivery0000001", Channel: notifications.ChannelSMS, Kind: kind,
		Target: notifications.Target{Address: to}, Body: body}
}

func config(d *providertest.Twilio, ch notifications.ProviderChannel) notifications.ProviderConfig {
	return notifications.ProviderConfig{Channel: ch, Config: d.Config(), Secret: d.AuthToken(), SenderID: sender}
}

func number(n int) string {
	return "+1500555" + string([]byte{byte('0' + n/1000%10), byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)})
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for channel, kind := range kinds {
		t.Run(string(channel), func(t *testing.T) {
			t.Parallel()
			providertest.Run(t, providertest.Suite{
				MaxRetryAfter: time.Minute,
				Expect: map[providertest.Fault]notifications.OutcomeKind{
					providertest.FaultNoAnswer:  notifications.Ambiguous,
					providertest.FaultRetry:     notifications.Retry,
					providertest.FaultDown:      notifications.Retry,
					providertest.FaultUnreached: notifications.Retry,
					providertest.FaultBlocked:   notifications.RecipientBlocked,
					providertest.FaultPayload:   notifications.PayloadBad,
					providertest.FaultConfig:    notifications.ConfigBad,
					providertest.FaultGarbage:   notifications.Ambiguous,
				},
				New: func(t *testing.T) providertest.Subject {
					d := providertest.NewTwilio(t, providertest.TwilioOptions{Spec: spec(t)})
					a, err := kind.make(config(d, channel))
					require.NoError(t, err)
					closer, _ := a.(notifications.Closer)
					t.Cleanup(func() { require.NoError(t, closer.Close()) })
					check := a.(notifications.Checker).Check
					return providertest.Subject{
						Send: func(ctx context.Context, target, title string) notifications.Outcome {
							return kind.send(ctx, a, target, title)
						},
						Check: func(ctx context.Context) notifications.Outcome { return check(ctx) },
						Close: closer.Close,
						Play: func(fault providertest.Fault, target string) {
							switch fault {
							case providertest.FaultSlow:
								d.Script(target, providertest.TwilioFault{Hold: true})
							case providertest.FaultNoAnswer:
								d.Script(target, providertest.TwilioFault{NoAnswer: true})
							case providertest.FaultRetry:
								d.Script(target, providertest.TwilioFault{Code: 20429, RetryAfter: 7 * time.Second})
							case providertest.FaultDown:
								d.SetAll(providertest.TwilioFault{Code: 20503, Status: 503})
							case providertest.FaultUnreached:
								require.NoError(t, d.Down())
							case providertest.FaultBlocked:
								d.Script(target, providertest.TwilioFault{Code: 21610})
							case providertest.FaultPayload:
								d.Script(target, providertest.TwilioFault{Code: 21617})
							case providertest.FaultConfig:
								d.SetToken("anotherTokenAltogether0123456789")
							case providertest.FaultGarbage:
								d.Script(target, providertest.TwilioFault{HTML: 502})
							}
						},
						Release:  d.Release,
						Received: func(target string) int { return len(d.To(target)) },
						Arrived:  d.Arrived,
						Target:   number,
						Secrets:  []string{d.AuthToken()},
					}
				},
			})
		})
	}
}

func TestWhatTwilioGets(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		sender, publicURL string
		from, service     string
		callback          string
	}{
		"a number":            {sender, "https://api.example.com", sender, "", "https://api.example.com/api/webhooks/twilio/status?delivery=delivery0000001#rc=5&rp=all"},
		"a number with gaps":  {"+1 (500) 555-0006", "", sender, "", ""},
		"a name":              {"Example", "https://api.example.com/base/", "Example", "", "https://api.example.com/base/api/webhooks/twilio/status?delivery=delivery0000001#rc=5&rp=all"},
		"a short code":        {"12345", "http://localhost:8090", "12345", "", ""},
		"a messaging service": {"MG0123456789abcdef0123456789abcdef", "https://my_app.example.com", "", "MG0123456789abcdef0123456789abcdef", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for channel, kind := range kinds {
				d := providertest.NewTwilio(t, providertest.TwilioOptions{Spec: spec(t)})
				cfg := config(d, channel)
				cfg.SenderID, cfg.PublicURL = tc.sender, tc.publicURL
				a, err := kind.make(cfg)
				require.NoError(t, err)
				o := kind.send(t.Context(), a, number(1), "Grüße \xff 😀")
				require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
				got := d.Messages()
				require.Len(t, got, 1)
				require.Equal(t, providertest.SMS{SID: o.ProviderMessageID, To: number(1), From: tc.from, Service: tc.service, Body: "Grüße \uFFFD 😀",
					StatusCallback: tc.callback, ValidityPeriod: 14400, Status: got[0].Status, Answered: true, At: got[0].At}, got[0])
			}
		})
	}
}

func TestTwilioDescription(t *testing.T) {
	t.Parallel()
	path := spec(t)
	if path == "" {
		t.Skip("twilio_api_v2010.json, Twilio's own description, does not lie beside this repository; it is not a package that can be installed")
	}
	d := providertest.NewTwilio(t, providertest.TwilioOptions{Spec: path})
	for channel, kind := range kinds {
		a, err := kind.make(config(d, channel))
		require.NoError(t, err)
		o := kind.send(t.Context(), a, number(1), "hello")
		require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
		require.Equal(t, notifications.Accepted, a.(notifications.Checker).Check(t.Context()).Kind)
		poller := a.(notifications.ReceiptPoller)
		_, found, err := poller.PollMessage(t.Context(), o.ProviderMessageID)
		require.NoError(t, err)
		require.True(t, found)
		list, err := poller.PollAddress(t.Context(), number(1), time.Now().Add(-time.Hour))
		require.NoError(t, err)
		require.NotEmpty(t, list)
	}
	require.Empty(t, d.Violations())
	require.Equal(t, map[string]int{"POST Messages": 2, "GET Account": 2, "GET IncomingPhoneNumbers": 2, "GET Messages/SID": 2, "GET Messages": 2}, d.Requests())
}

// Every row of Twilio's error table as far as it matters.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{})
	a, err := sms.NewTransactional(config(d, notifications.ProviderSMSTransactional))
	require.NoError(t, err)
	send := kinds[notifications.ProviderSMSTransactional].send
	const (
		retry, blocked, payload = notifications.Retry, notifications.RecipientBlocked, notifications.PayloadBad
		config, ambiguous       = notifications.ConfigBad, notifications.Ambiguous
	)
	type fault = providertest.TwilioFault
	for i, tc := range []struct {
		fault    fault
		kind     notifications.OutcomeKind
		down     bool
		wait     time.Duration
		sentence string
		created  int
	}{
		{fault{Code: 20003}, config, false, 0, "auth token", 0},
		{fault{Code: 20005, Status: 403}, config, false, 0, "not active", 0},
		{fault{Code: 20008, Status: 403}, config, false, 0, "test credentials", 0},
		{fault{Code: 20404, Status: 404}, config, false, 0, "account SID", 0},
		{fault{Code: 20429}, retry, false, 0, "tried again", 0},
		{fault{Code: 20429, RetryAfter: 30 * time.Second}, retry, true, 30 * time.Second, "tried again", 0},
		{fault{Code: 20429, RetryAfter: 400 * time.Hour}, retry, true, time.Hour, "tried again", 0},
		{fault{Code: 14107}, retry, false, 0, "tried again", 0},
		{fault{Code: 99999, Status: 429}, retry, false, 0, "tried again", 0},
		{fault{Code: 21211}, blocked, false, 0, "exists", 0},
		{fault{Code: 21614}, blocked, false, 0, "mobile", 0},
		{fault{Code: 21635}, blocked, false, 0, "landline", 0},
		{fault{Code: 21408}, blocked, false, 0, "Geo permissions", 0},
		{fault{Code: 21606}, blocked, false, 0, "country", 0},
		{fault{Code: 21612}, blocked, false, 0, "country", 0},
		{fault{Code: 21659}, blocked, false, 0, "country", 0},
		{fault{Code: 21608}, blocked, false, 0, "trial account", 0},
		{fault{Code: 21610}, blocked, false, 0, "STOP", 0},
		{fault{Code: 21611}, retry, true, 5 * time.Minute, "queue", 0},
		{fault{Code: 30001}, retry, true, 5 * time.Minute, "queue", 0},
		{fault{Code: 30002}, config, false, 0, "suspended", 0},
		{fault{Code: 30003}, retry, false, 0, "reached", 0},
		{fault{Code: 30004}, blocked, false, 0, "blocks", 0},
		{fault{Code: 30005}, blocked, false, 0, "in use", 0},
		{fault{Code: 30006}, blocked, false, 0, "landline", 0},
		{fault{Code: 30007}, blocked, false, 0, "filtered", 0},
		{fault{Code: 30008}, retry, false, 0, "does not know why", 0},
		{fault{Code: 30034}, blocked, false, 0, "registered", 0},
		{fault{Code: 30047}, retry, false, time.Hour, "early", 0},
		{fault{Code: 30610}, retry, false, time.Hour, "early", 0},
		{fault{Code: 63038, Status: 429}, config, false, 0, "limit", 0},
		{fault{Code: 21212}, config, false, 0, "sender", 0},
		{fault{Code: 21609}, config, false, 0, "public address", 0},
		{fault{Code: 21701}, config, false, 0, "messaging service", 0},
		{fault{Code: 21703}, config, false, 0, "sender pool", 0},
		{fault{Code: 21617}, payload, false, 0, "too long", 0},
		{fault{Code: 21602}, payload, false, 0, "empty", 0},
		{fault{Code: 29999}, payload, false, 0, "29999", 0},
		{fault{Code: 29999, Status: 403}, config, false, 0, "29999", 0},
		{fault{Code: 20500, Status: 500}, ambiguous, false, 0, "not known", 0},
		{fault{Code: 20503, Status: 503}, retry, true, 0, "takes no messages", 0},
		{fault{HTML: 502}, ambiguous, false, 0, "not known", 0},
		{fault{HTML: 502, Create: true}, ambiguous, false, 0, "not known", 1},
		{fault{HTML: 201, Create: true}, ambiguous, false, 0, "not known", 1},
		{fault{HTML: 302}, config, false, 0, "redirect", 0},
		{fault{HTML: 400}, retry, true, 0, "on the way", 0},
		{fault{HTML: 401}, config, false, 0, "refused", 0},
		{fault{HTML: 404}, config, false, 0, "not Twilio", 0},
		{fault{HTML: 429, RetryAfter: 9 * time.Second}, retry, true, 9 * time.Second, "on the way", 0},
		{fault{Drop: true}, ambiguous, false, 0, "not known", 1},
	} {
		to := number(i)
		d.Script(to, tc.fault)
		o := send(t.Context(), a, to, "hello")
		require.Equal(t, tc.kind, o.Kind, "%+v: %s", tc.fault, o.Explanation)
		require.Equal(t, tc.down, o.ProviderDown, "%+v", tc.fault)
		require.Equal(t, tc.wait, o.RetryAfter, "%+v", tc.fault)
		require.Contains(t, o.Explanation, tc.sentence, "%+v", tc.fault)
		require.NotContains(t, o.Explanation, to)
		require.Len(t, d.To(to), tc.created, "%+v", tc.fault)
	}
}

func TestNeverLeftIsNotAmbiguous(t *testing.T) {
	t.Parallel()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{})
	send := kinds[notifications.ProviderSMSTransactional].send
	with := func(endpoint string) notifications.Adapter {
		cfg := config(d, notifications.ProviderSMSTransactional)
		cfg.Config = map[string]any{"accountSid": providertest.TwilioAccountSID, "endpoint": endpoint}
		a, err := sms.NewTransactional(cfg)
		require.NoError(t, err)
		return a
	}
	// A listener that nobody serves takes the connection and never the request's
	// TLS greeting.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := silent.Accept(); err == nil {
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1))
			cancel()
		}
	}()
	o := send(ctx, with("https://"+silent.Addr().String()), number(1), "hello")
	require.Equal(t, notifications.Retry, o.Kind, "the greeting is not the message: %s", o.Explanation)

	o = send(t.Context(), with("https://127.0.0.1:"+port(t, d)), number(1), "hello")
	require.Equal(t, notifications.ConfigBad, o.Kind, "plain HTTP there: %s", o.Explanation)
	require.Contains(t, o.Explanation, "TLS")

	o = send(t.Context(), with("http://sms.invalid"), number(1), "hello")
	require.Equal(t, notifications.ConfigBad, o.Kind, o.Explanation)
	require.Zero(t, d.Total())

	// Here the request left, although nobody will ever answer.
	d.SetAll(providertest.TwilioFault{DropUnread: true})
	o = send(t.Context(), with(d.URL()), number(1), "hello")
	require.Equal(t, notifications.Ambiguous, o.Kind, o.Explanation)
}

func port(t *testing.T, d *providertest.Twilio) string {
	t.Helper()
	_, port, err := net.SplitHostPort(d.URL()[len("http://"):])
	require.NoError(t, err)
	return port
}

func TestWrongConfigurationSaysWhat(t *testing.T) {
	t.Parallel()
	good := func() notifications.ProviderConfig {
		return notifications.ProviderConfig{Config: map[string]any{"accountSid": providertest.TwilioAccountSID}, Secret: providertest.TwilioAuthToken, SenderID: sender}
	}
	for name, tc := range map[string]struct {
		change   func(*notifications.ProviderConfig)
		sentence string
	}{
		"no account":         {func(c *notifications.ProviderConfig) { c.Config = nil }, "accountSid"},
		"half an account":    {func(c *notifications.ProviderConfig) { c.Config["accountSid"] = "AC123" }, "32 characters"},
		"an API key":         {func(c *notifications.ProviderConfig) { c.Config["accountSid"] = "SK00000000000000000000000000000001" }, "32 characters"},
		"no token":           {func(c *notifications.ProviderConfig) { c.Secret = "" }, "auth token"},
		"a token with signs": {func(c *notifications.ProviderConfig) { c.Secret = "hunter2-hunter2-hunter2" }, "letters and digits"},
		"no sender":          {func(c *notifications.ProviderConfig) { c.SenderID = "" }, "sender is missing"},
		"a number of 3":      {func(c *notifications.ProviderConfig) { c.SenderID = "+12" }, "complete phone number"},
		"no plus":            {func(c *notifications.ProviderConfig) { c.SenderID = "15005550006" }, "without a plus"},
		"a long name":        {func(c *notifications.ProviderConfig) { c.SenderID = "A very long name" }, "11 letters"},
		"signs in a name":    {func(c *notifications.ProviderConfig) { c.SenderID = "Hi!" }, "11 letters"},
		"no endpoint":        {func(c *notifications.ProviderConfig) { c.Config["endpoint"] = "gateway.example.com" }, "endpoint"},
		"a query":            {func(c *notifications.ProviderConfig) { c.Config["endpoint"] = "https://gateway.example.com?a=b" }, "endpoint"},
	} {
		for _, kind := range kinds {
			cfg := good()
			tc.change(&cfg)
			_, err := kind.make(cfg)
			require.ErrorContains(t, err, tc.sentence, name)
			if cfg.Secret != "" {
				require.NotContains(t, err.Error(), cfg.Secret)
			}
		}
	}
	_, err := sms.NewPromotional(good())
	require.NoError(t, err)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{Spec: spec(t), Numbers: []string{"+15005550001"}})
	check := func(change func(*notifications.ProviderConfig)) notifications.Outcome {
		cfg := config(d, notifications.ProviderSMSPromotional)
		change(&cfg)
		a, err := sms.NewPromotional(cfg)
		require.NoError(t, err)
		return a.(notifications.Checker).Check(t.Context())
	}
	require.Equal(t, notifications.Accepted, check(func(c *notifications.ProviderConfig) { c.SenderID = "+15005550001" }).Kind)
	require.Equal(t, notifications.Accepted, check(func(c *notifications.ProviderConfig) { c.SenderID = "Example" }).Kind, "a name belongs to nobody")
	o := check(func(*notifications.ProviderConfig) {})
	require.Equal(t, notifications.ConfigBad, o.Kind)
	require.Contains(t, o.Explanation, "does not belong")
	o = check(func(c *notifications.ProviderConfig) { c.Secret = "anotherTokenAltogether0123456789" })
	require.Equal(t, notifications.ConfigBad, o.Kind)
	require.Contains(t, o.Explanation, "auth token")
	o = check(func(c *notifications.ProviderConfig) { c.Config["accountSid"] = "AC00000000000000000000000000000002" })
	require.Equal(t, notifications.ConfigBad, o.Kind)
	require.NoError(t, d.Down())
	o = check(func(*notifications.ProviderConfig) {})
	require.Equal(t, notifications.Retry, o.Kind)
	require.True(t, o.ProviderDown)
	require.Zero(t, d.Total())
}

func TestPolling(t *testing.T) {
	t.Parallel()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{Spec: spec(t)})
	with := func(from string) (notifications.Adapter, notifications.ReceiptPoller) {
		cfg := config(d, notifications.ProviderSMSTransactional)
		cfg.SenderID = from
		a, err := sms.NewTransactional(cfg)
		require.NoError(t, err)
		return a, a.(notifications.ReceiptPoller)
	}
	send := kinds[notifications.ProviderSMSTransactional].send
	a, poller := with(sender)
	first := send(t.Context(), a, number(1), "one").ProviderMessageID
	second := send(t.Context(), a, number(1), "two").ProviderMessageID
	old := send(t.Context(), a, number(1), "old").ProviderMessageID
	d.Backdate(old, 48*time.Hour)
	other, service := with("MG0123456789abcdef0123456789abcdef")
	third := send(t.Context(), other, number(1), "three").ProviderMessageID
	send(t.Context(), a, number(2), "somebody else")

	ids := func(p notifications.ReceiptPoller) []string {
		list, err := p.PollAddress(t.Context(), number(1), time.Now().Add(-time.Hour))
		require.NoError(t, err)
		var ids []string
		for _, r := range list {
			if !r.OtherSender {
				ids = append(ids, r.ProviderMessageID)
			}
		}
		require.Len(t, list, 3, "all of the account")
		return ids
	}
	require.Equal(t, []string{first, second}, ids(poller), "oldest first, and only from this sender")
	require.Equal(t, []string{third}, ids(service))

	d.Become(first, "undelivered", 30005)
	r, found, err := poller.PollMessage(t.Context(), first)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, notifications.ReceiptFailed, r.State)
	require.Equal(t, "30005", r.Code)
	require.WithinDuration(t, time.Now(), r.CreatedAt, time.Minute)

	d.Forget(second)
	_, found, err = poller.PollMessage(t.Context(), second)
	require.NoError(t, err)
	require.False(t, found)

	require.NoError(t, d.Down())
	_, _, err = poller.PollMessage(t.Context(), first)
	require.Error(t, err)
	require.NotContains(t, err.Error(), d.AuthToken())
	_, err = poller.PollAddress(t.Context(), number(1), time.Now())
	require.Error(t, err)
	require.NotContains(t, err.Error(), number(1))
}

func TestPollingSaysWhenItCannotBeSure(t *testing.T) {
	t.Parallel()
	d := providertest.NewTwilio(t, providertest.TwilioOptions{})
	a, err := sms.NewTransactional(config(d, notifications.ProviderSMSTransactional))
	require.NoError(t, err)
	for range 200 {
		require.Equal(t, notifications.Accepted, kinds[notifications.ProviderSMSTransactional].send(t.Context(), a, number(1), "x").Kind)
	}
	_, err = a.(notifications.ReceiptPoller).PollAddress(t.Context(), number(1), time.Now().Add(-time.Hour))
	require.ErrorContains(t, err, "more than")
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		status   string
		code     int
		state    notifications.ReceiptState
		reason   string
		suppress string
	}{
		{"accepted", 0, notifications.ReceiptTaken, "", ""},
		{"scheduled", 0, notifications.ReceiptTaken, "", ""},
		{"queued", 0, notifications.ReceiptTaken, "", ""},
		{"sending", 0, notifications.ReceiptTaken, "", ""},
		{"sent", 0, notifications.ReceiptTaken, "", ""},
		{"delivered", 0, notifications.ReceiptDelivered, "", ""},
		{"read", 0, notifications.ReceiptRead, "", ""},
		{"undelivered", 30003, notifications.ReceiptFailed, "unreachable", ""},
		{"undelivered", 30004, notifications.ReceiptFailed, "recipient_blocked", ""},
		{"undelivered", 30005, notifications.ReceiptFailed, "recipient_blocked", "bounce"},
		{"undelivered", 30006, notifications.ReceiptFailed, "recipient_blocked", "bounce"},
		{"undelivered", 30007, notifications.ReceiptFailed, "filtered", ""},
		{"undelivered", 30008, notifications.ReceiptFailed, "undelivered", ""},
		{"failed", 21610, notifications.ReceiptFailed, "recipient_blocked", "stop"},
		{"failed", 30001, notifications.ReceiptFailed, "undelivered", ""},
		{"failed", 30002, notifications.ReceiptFailed, "undelivered", ""},
		{"failed", 30034, notifications.ReceiptFailed, "filtered", ""},
		{"failed", 21408, notifications.ReceiptFailed, "recipient_blocked", ""},
		{"failed", 0, notifications.ReceiptFailed, "undelivered", ""},
		{"failed", 12345, notifications.ReceiptFailed, "undelivered", ""},
		{"canceled", 0, notifications.ReceiptFailed, "undelivered", ""},
	} {
		r, ok := sms.NewReceipt(tc.status, tc.code)
		require.True(t, ok)
		require.Equal(t, tc.state, r.State, "%s %d", tc.status, tc.code)
		require.Equal(t, tc.reason, r.Reason, "%s %d", tc.status, tc.code)
		require.Equal(t, tc.suppress, r.Suppress, "%s %d", tc.status, tc.code)
		require.Equal(t, tc.state == notifications.ReceiptFailed, r.Explanation != "")
		require.NotContains(t, r.Explanation, "again by itself", "%d: nothing is tried again after a receipt", tc.code)
	}
	for _, status := range []string{"", "received", "receiving", "nonsense"} {
		_, ok := sms.NewReceipt(status, 0)
		require.False(t, ok, status)
	}
}
