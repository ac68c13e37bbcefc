package accounts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/notifications"
)

func TestPhoneText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		purpose           accounts.Purpose
		name, url, digits string
		want              string
	}{
		{accounts.PurposeSignIn, "Acme", "https://acme.example.com", "123456", "123456 is your sign-in code for Acme. Do not share it.\n\n@acme.example.com #123456"},
		{accounts.PurposeVerifyPhone, "Acme", "https://acme.example.com:8443/x?y", "123456", "123456 is your code to confirm this number for Acme. Do not share it.\n\n@acme.example.com #123456"},
		{accounts.PurposeSignIn, "Acme", "http://localhost:8090", "123456", "123456 is your sign-in code for Acme. Do not share it."},
		{accounts.PurposeSignIn, "", "", "1234", "1234 is your sign-in code. Do not share it."},
		{accounts.PurposeSignIn, "日本語 ✨", "https://x.example.com", "1234", "1234 is your sign-in code. Do not share it.\n\n@x.example.com #1234"},
		{accounts.PurposeSignIn, "Fake\n\n@evil.example.com #1", "", "1234", "1234 is your sign-in code for Fake @evil.example.com #1. Do not share it."},
		{accounts.PurposeSignIn, strings.Repeat("Long ", 20), "", "1234", "1234 is your sign-in code for Long Long Long Long Long Long. Do not share it."},
		{accounts.PurposeSignIn, "Acme", "https://" + strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".example.com", "123456", "123456 is your sign-in code for Acme. Do not share it."},
		{accounts.PurposeSignIn, "Acme", "", strings.Repeat("1", 120), strings.Repeat("1", 120)},
	} {
		text := accounts.PhoneText(tc.purpose, tc.name, tc.url, tc.digits)
		require.Equal(t, tc.want, text)
		parts, encoding := notifications.Segments(text)
		require.Equal(t, "1 GSM-7", fmt.Sprint(parts, " ", encoding))
	}
}

func TestPhoneCountry(t *testing.T) {
	t.Parallel()
	for phone, want := range map[string]string{
		"+4915112345678": "DE", "+447700900123": "GB", "+12025550123": "US", "+16135550123": "CA", "+18765550123": "JM", "+77012345678": "KZ", "+79161234567": "RU",
		"+15550100":     "US", // no such area: the plan's first country
		"+881612345678": "001", "+999123": "",
	} {
		got := accounts.PhoneCountry(phone)
		if want == "" {
			require.NotRegexp(t, `^[A-Z]{2}$`, strings.Replace(got, "ZZ", "", 1), phone)
			continue
		}
		require.Equal(t, want, got, phone)
	}
	require.True(t, accounts.MayText("+881612345678", nil))
	require.False(t, accounts.MayText("+881612345678", []string{"DE", "US"}))
	require.False(t, accounts.MayText("+4915112345678", []string{}))
	require.True(t, accounts.MayText("+4915112345678", []string{"DE"}))
	require.False(t, accounts.MayText("+499001234567", []string{"DE"}), "whoever owns it earns by each message")
}
