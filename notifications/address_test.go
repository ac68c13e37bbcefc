package notifications_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
)

func TestNormalizePhone(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"+4915112345678":        "+4915112345678",
		" +49 (0)151 1234-5678": "+4915112345678",
		"+1 (555) 555-0100":     "+15555550100",
		"+44 7911 123456":       "+447911123456",
		"+33.6.12.34.56.78":     "+33612345678",
		"+39 06 698 12345":      "+390669812345", // where the zero belongs to the number
	} {
		got, err := notifications.NormalizePhone(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
	for _, in := range []string{
		"", "+", "0151 12345678", "4915112345678", "+49", "+1555", "+999123456789", "+491511234567890123",
		"+1 800 FLOWERS", "tel:+4915112345678", "+4915112345678;ext=1", "+4915112345678 x5", "a@example.com", "+49\x0015112345678",
	} {
		_, err := notifications.NormalizePhone(in)
		require.ErrorIs(t, err, notifications.ErrBadPhone, in)
	}
}

func TestNormalizeAddress(t *testing.T) {
	t.Parallel()
	got, err := notifications.NormalizeAddress(notifications.ChannelEmail, " Ada@Example.COM ")
	require.NoError(t, err)
	require.Equal(t, "ada@example.com", got)
	for _, in := range []string{"", "ada", "Ada <ada@example.com>", "a@example.com, b@example.com", "a@exa\r\nmple.com"} {
		_, err := notifications.NormalizeAddress(notifications.ChannelEmail, in)
		require.ErrorIs(t, err, notifications.ErrBadEmail, in)
	}
	_, err = notifications.NormalizeAddress(notifications.ChannelSMS, "12")
	require.ErrorIs(t, err, notifications.ErrBadPhone)
	got, err = notifications.NormalizeAddress(notifications.ChannelPush, " Token ")
	require.NoError(t, err)
	require.Equal(t, "Token", got)
}

func FuzzNormalizePhone(f *testing.F) {
	f.Add("+49 (0)151 1234-5678")
	f.Add("+1")
	f.Add("+4900000000000000")
	f.Add("+4910000000000000")
	f.Fuzz(func(t *testing.T, in string) {
		out, err := notifications.NormalizePhone(in)
		if err != nil {
			require.ErrorIs(t, err, notifications.ErrBadPhone)
			return
		}
		again, err := notifications.NormalizePhone(out)
		require.NoError(t, err)
		require.Equal(t, out, again)
		require.Regexp(t, `^\+[1-9][0-9]{4,14}$`, out)
	})
}
