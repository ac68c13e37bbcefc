package notifications

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhichTranslationAPersonGets(t *testing.T) {
	t.Parallel()
	c, err := Compile(Content{
		Title: "Welcome", Body: "Hello {{ name }}", SMSBody: "Hi", Link: "https://example.com", Data: map[string]any{"l": "en"},
		Translations: map[string]Translation{
			"fr":      {Title: "Bienvenue", Body: "Bonjour {{ name }}", Data: map[string]any{"l": "fr"}},
			"fr-CA":   {Title: "Bienvenue chez nous", EmailHTML: "<p>{{ name }}</p>"},
			"zh-Hant": {Title: "歡迎"},
			"he":      {Title: "ברוכים"},
			"pt-BR":   {Title: "Bem-vindo"},
		},
	})
	require.NoError(t, err)
	const own = "Welcome"
	for locale, want := range map[string][2]string{ // title and body
		"": {own, "Hello <b>"}, "en": {own, "Hello <b>"}, "en-US": {own, "Hello <b>"},
		"fr": {"Bienvenue", "Bonjour <b>"}, "fr-FR": {"Bienvenue", "Bonjour <b>"}, "FR_fr": {"Bienvenue", "Bonjour <b>"}, "fr_FR.UTF-8": {"Bienvenue", "Bonjour <b>"},
		"fr-CA": {"Bienvenue chez nous", "Bonjour <b>"}, "fr-ca-x-a": {"Bienvenue chez nous", "Bonjour <b>"}, "fr-CA-u-hc-h12": {"Bienvenue chez nous", "Bonjour <b>"},
		"zh-Hant-TW": {"歡迎", "Hello <b>"}, "zh": {own, "Hello <b>"}, "zh-TW": {own, "Hello <b>"},
		"iw": {"ברוכים", "Hello <b>"}, "pt-BR": {"Bem-vindo", "Hello <b>"}, "pt": {own, "Hello <b>"}, "pt-PT": {own, "Hello <b>"},
		"??": {own, "Hello <b>"}, "french": {own, "Hello <b>"}, "-": {own, "Hello <b>"}, "---": {own, "Hello <b>"}, "xx-YY": {own, "Hello <b>"}, "f\x00r": {own, "Hello <b>"},
	} {
		r, err := c.In(locale).Render(map[string]any{"name": "<b>"}, "")
		require.NoError(t, err, locale)
		require.Equal(t, want, [2]string{r.Title, r.Body}, "%q", locale)
		require.Equal(t, "Hi", r.SMSBody, "what a translation leaves out")
		require.Equal(t, "https://example.com", r.Link)
		require.Equal(t, want[0], r.EmailSubject)
	}
	r, err := c.In("fr-CA").Render(map[string]any{"name": "<script>"}, "")
	require.NoError(t, err)
	require.Equal(t, "<p>&lt;script&gt;</p>", r.EmailHTML, "a translation is escaped too")
	require.Equal(t, map[string]any{"l": "fr"}, r.Data)
	require.Equal(t, map[string]any{"l": "en"}, c.In("he").content.Data)
}

func TestBrokenTranslationsSayWhere(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"{{ user.name | upcse }}":           `In fr-CA, body, line 1: There is no filter "upcse"`,
		"Un\n\n{{ user.name":                `In fr-CA, body, line 3: "{{ user.name" is opened and never closed`,
		"Un\n{% for i in rows %}":           "In fr-CA, body, line 2: The template cannot be read",
		"Un\n{{ x | }}":                     "In fr-CA, body, line 2: The template cannot be read: syntax error",
		"\n\n\n{% for i in (1..999999) %}x": "In fr-CA, body, line 4: It counts through (1..999999)",
	} {
		_, err := Compile(Content{Title: "x", Translations: map[string]Translation{"de": {Body: "Gut"}, "fr-CA": {Body: source}}})
		var te *TemplateError
		require.ErrorAs(t, err, &te, source)
		require.Equal(t, "fr-CA", te.Locale)
		require.Contains(t, err.Error(), want)
	}
	// What only shows when a text is made.
	for source, want := range map[string]string{
		"Un\n{{ town }}": `In fr, title, line 2: There is no "town".`,
		"Un\n{% for r in rows %}\n  {% if true %}\n{{ r.nope }}{% endif %}{% endfor %}": `In fr, title, line 4: There is no "r.nope".`,
		// Each turn makes it much longer, so that it does not take too long before that.
		"{% assign n = 2000000000 %}{% for i in (1..n) %}" + strings.Repeat("x", 100_000) + "{% endfor %}": "In fr, title: The text gets longer than 1 MB",
	} {
		c, err := Compile(Content{Title: "x", Translations: map[string]Translation{"fr": {Title: source}}})
		require.NoError(t, err, source)
		vars := map[string]any{"rows": []any{map[string]any{"a": 1}}}
		_, err = c.Render(vars, "")
		require.NoError(t, err)
		_, err = c.In("fr-BE").Render(vars, "")
		require.ErrorContains(t, err, want)
	}
}
