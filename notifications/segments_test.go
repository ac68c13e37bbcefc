package notifications_test

import (
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
)

func TestSegments(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text     string
		n        int
		encoding string
	}{
		"nothing":                            {"", 0, "GSM-7"},
		"a code":                             {"Your code is 123456.", 1, "GSM-7"},
		"all of one":                         {strings.Repeat("a", 160), 1, "GSM-7"},
		"one more":                           {strings.Repeat("a", 161), 2, "GSM-7"},
		"all of two":                         {strings.Repeat("a", 306), 2, "GSM-7"},
		"three":                              {strings.Repeat("a", 307), 3, "GSM-7"},
		"the longest that Twilio takes":      {strings.Repeat("a", 1600), 11, "GSM-7"},
		"umlauts":                            {strings.Repeat("ä", 160), 1, "GSM-7"},
		"Greek capitals are in the alphabet": {strings.Repeat("Ω", 160), 1, "GSM-7"},
		"Greek small letters are not":        {"ω", 1, "UCS-2"},
		"lines":                              {"a\r\nb", 1, "GSM-7"},
		"a tab is not in it":                 {"a\tb", 1, "UCS-2"},
		"the euro counts twice":              {strings.Repeat("€", 80), 1, "GSM-7"},
		"and 81 of them are too much":        {strings.Repeat("€", 81), 2, "GSM-7"},
		// 153 is odd: the 77th euro does not fit half.
		"a euro is not split":      {strings.Repeat("€", 153), 3, "GSM-7"},
		"UCS-2":                    {strings.Repeat("ж", 70), 1, "UCS-2"},
		"UCS-2, one more":          {strings.Repeat("ж", 71), 2, "UCS-2"},
		"UCS-2, all of two":        {strings.Repeat("ж", 134), 2, "UCS-2"},
		"UCS-2, three":             {strings.Repeat("ж", 135), 3, "UCS-2"},
		"one such character":       {strings.Repeat("a", 70) + "’", 2, "UCS-2"},
		"emoji count twice":        {strings.Repeat("😀", 35), 1, "UCS-2"},
		"an emoji is not split":    {strings.Repeat("😀", 67), 3, "UCS-2"},
		"ç small is not in it":     {"ça va", 1, "UCS-2"},
		"Ç large is":               {"ÇA VA", 1, "GSM-7"},
		"what is no text at all":   {"\xff\xfe", 1, "UCS-2"},
		"the backtick is not":      {"`", 1, "UCS-2"},
		"brackets count twice":     {strings.Repeat("[", 81), 2, "GSM-7"},
		"the escape is no letter":  {"\x1b", 1, "UCS-2"},
		"a nul is not in it":       {"\x00", 1, "UCS-2"},
		"a non-breaking space too": {"a\u00a0b", 1, "UCS-2"},
	} {
		n, encoding := notifications.Segments(tc.text)
		require.Equal(t, tc.n, n, name)
		require.Equal(t, tc.encoding, encoding, name)
	}
}

func FuzzSegments(f *testing.F) {
	for _, seed := range []string{"", "hello", strings.Repeat("€", 100), "\xff", strings.Repeat("😀", 40), strings.Repeat("a", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, encoding := notifications.Segments(text)
		units := len(utf16.Encode([]rune(text)))
		switch encoding {
		case "GSM-7":
			// At most two septets a character, of which one may be left over in each part.
			require.LessOrEqual(t, n, 1+2*utf8.RuneCountInString(text)/152)
			require.GreaterOrEqual(t, n*160, utf8.RuneCountInString(text))
		case "UCS-2":
			require.LessOrEqual(t, n, 1+units/66)
			require.GreaterOrEqual(t, n*70, units)
		default:
			t.Fatal(encoding)
		}
		longer, _ := notifications.Segments(text + "a")
		require.GreaterOrEqual(t, longer, n)
		require.LessOrEqual(t, longer, n+1)
		require.Equal(t, text == "", n == 0)
	})
}
