package notifications_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
)

func TestTokensOfOpenedMessages(t *testing.T) {
	t.Parallel()
	key := []byte(strings.Repeat("k", 32))
	token := notifications.OpenToken(key, "mi1abcdefgh")
	require.Regexp(t, `^mi1abcdefgh\.[A-Za-z0-9_-]{22}$`, token)
	id, ok := notifications.DeliveryOfToken(key, token)
	require.True(t, ok)
	require.Equal(t, "mi1abcdefgh", id)
	require.NotEqual(t, token, notifications.OpenToken([]byte(strings.Repeat("l", 32)), "mi1abcdefgh"))
	for _, forged := range []string{"", ".", "mi1abcdefgh", "mi1abcdefgh.", token + "A", token[:len(token)-1], "x" + token, strings.Replace(token, "mi1", "mi2", 1),
		token + "=", strings.ToUpper(token), "." + strings.SplitN(token, ".", 2)[1], token + "." + token} {
		_, ok := notifications.DeliveryOfToken(key, forged)
		require.False(t, ok, forged)
	}
}
