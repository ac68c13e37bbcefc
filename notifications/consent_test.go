package notifications_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
)

func TestWithOptOut(t *testing.T) {
	t.Parallel()
	const words = notifications.DefaultSMSOptOut
	for text, want := range map[string]string{
		"Sale today":                   "Sale today\n" + words,
		"Sale today\n\n":               "Sale today\n" + words,
		"Sale. Reply STOP to end":      "Sale. Reply STOP to end",
		"Sale. STOP=end":               "Sale. STOP=end",
		"Send \"STOP\" to end":         "Send \"STOP\" to end",
		"A non-stop sale":              "A non-stop sale\n" + words,
		"A NON-STOP sale":              "A NON-STOP sale\n" + words,
		"UNSTOPPABLE prices":           "UNSTOPPABLE prices\n" + words,
		"WE NEVER STOP. HALF PRICE":    "WE NEVER STOP. HALF PRICE\n" + words,
		"STOP! Big sale":               "STOP! Big sale\n" + words,
		"STOP waiting, buy now":        "STOP waiting, buy now\n" + words,
		"You must STOP! Big sale":      "You must STOP! Big sale\n" + words,
		"Don't stop now":               "Don't stop now\n" + words,
		"HALF PRICE\n" + words:         "HALF PRICE\n" + words,
		strings.Repeat("a", 150):       strings.Repeat("a", 150) + "\n" + words,
		"\u4e00\u4e8c STOP \u4e09 end": "\u4e00\u4e8c STOP \u4e09 end",
	} {
		require.Equal(t, want, notifications.WithOptOut(text, words))
		require.Equal(t, want, notifications.WithOptOut(want, words), "once is enough")
	}
	n, _ := notifications.Segments(notifications.WithOptOut(strings.Repeat("a", 150), words))
	require.Equal(t, 2, n, "the words are paid for too")
}
