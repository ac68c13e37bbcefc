package sms_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
	twilio "github.com/twilio/twilio-go/client"

	"github.com/groundworkhq/groundwork/notifications/providertest"
	"github.com/groundworkhq/groundwork/notifications/sms"
)

func TestValidSignature(t *testing.T) {
	t.Parallel()
	const token = "12345"
	form := url.Values{"From": {"+15005550009"}, "Body": {"hello & goodbye"}, "To": {"+15005550006"}}
	for name, tc := range map[string]struct {
		signed, called string
		valid          bool
	}{
		"as it is":            {"https://example.com/x?a=1&b=2", "https://example.com/x?a=1&b=2", true},
		"a port more":         {"https://example.com:443/x", "https://example.com/x", true},
		"a port less":         {"https://example.com/x", "https://example.com:443/x", true},
		"the same over http":  {"http://example.com:80/x", "http://example.com/x", true},
		"another port":        {"https://example.com:8443/x", "https://example.com/x", false},
		"a port of its own":   {"https://example.com:8443/x", "https://example.com:8443/x", true},
		"no path":             {"https://example.com:443?a=1", "https://example.com?a=1", true},
		"an IPv6 address":     {"https://[2001:db8::1]:443/x", "https://[2001:db8::1]/x", true},
		"what is for Twilio":  {"https://example.com/x?a=1#rc=5&rp=all", "https://example.com/x?a=1", true},
		"another fragment":    {"https://example.com/x#rc=9", "https://example.com/x", false},
		"another path":        {"https://example.com/y", "https://example.com/x", false},
		"another scheme":      {"http://example.com/x", "https://example.com/x", false},
		"something to follow": {"https://example.com/x", "https://example.com/x?a=1", false},
	} {
		require.Equal(t, tc.valid, sms.ValidSignature(token, tc.called, form, providertest.TwilioSignature(token, tc.signed, form)), name)
	}
	const address = "https://example.com/x"
	require.False(t, sms.ValidSignature("", address, form, providertest.TwilioSignature("", address, form)), "no token proves nothing")
	require.False(t, sms.ValidSignature(token, address, form, ""))
}

// Twilio's own library and this package must agree on every form without repeated
// keys; a form that says something else must never pass.
func FuzzValidSignature(f *testing.F) {
	f.Add("token", "Body", "hello", "From", "+15005550001")
	f.Add("token", "a", "", "ab", "c")
	f.Fuzz(func(t *testing.T, token, key, value, key2, value2 string) {
		const address = "https://example.com/x"
		form := url.Values{key: {value}}
		form.Set(key2, value2)
		flat := map[string]string{}
		for k := range form {
			flat[k] = form.Get(k)
		}
		signature := providertest.TwilioSignature(token, address, form)
		validator := twilio.NewRequestValidator(token)
		require.True(t, validator.Validate(address, flat, signature))
		require.Equal(t, token != "", sms.ValidSignature(token, address, form, signature))
		form.Set(key, value+"x")
		require.False(t, sms.ValidSignature(token, address, form, signature) && key < key2, "a changed form")
	})
}

func FuzzParse(f *testing.F) {
	f.Add("MessageStatus=delivered&MessageSid=SM1&ErrorCode=30003")
	f.Add("Body=STOP&From=%2B15005550001&OptOutType=")
	f.Fuzz(func(t *testing.T, raw string) {
		form, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		r, ok := sms.ParseStatus(form)
		require.False(t, ok && (r.ProviderMessageID == "" || r.State == 0))
		in := sms.ParseInbound(form)
		require.False(t, in.Word != sms.WordNone && form.Get("Body") == "" && form.Get("OptOutType") == "")
	})
}
