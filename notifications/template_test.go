package notifications

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRender(t *testing.T) {
	t.Parallel()
	vars := map[string]any{"user": map[string]any{"name": `Ana <script>alert(1)</script>`, "nick": "",
		"prefs": map[string]any{"<b>": true}, "site": "https://example.com/ana", "script": " Java\tscript:alert(1)"}, "rows": []any{"a", "b"}}
	for _, tc := range []struct {
		name    string
		content Content
		want    func(t *testing.T, r *Rendered)
		err     string // part of the sentence
	}{
		{name: "plain text is left alone", content: Content{Title: "50% off & more", Body: "x < y"}, want: func(t *testing.T, r *Rendered) {
			require.Equal(t, "50% off & more", r.Title)
			require.Equal(t, "x < y", r.EmailText)
			require.Contains(t, r.EmailHTML, "x &lt; y")
			require.Equal(t, "50% off & more", r.EmailSubject)
		}},
		{name: "without HTML there is all the same", content: Content{Title: "T", Body: "B", Image: "https://example.com/a.png?x=1&y=2", Link: "https://example.com/"}, want: func(t *testing.T, r *Rendered) {
			require.Regexp(t, `(?s)<h1[^>]*>T</h1>.*<img src="https://example.com/a.png\?x=1&amp;y=2" alt="".*<p[^>]*>B</p>.*<a href="https://example.com/">`, r.EmailHTML)
		}},
		{name: "html is escaped, text is not", content: Content{Body: "Hi {{ user.name }}", EmailHTML: "<p>Hi {{ user.name }}</p>"}, want: func(t *testing.T, r *Rendered) {
			require.Equal(t, "Hi Ana <script>alert(1)</script>", r.Body)
			require.Equal(t, "<p>Hi Ana &lt;script&gt;alert(1)&lt;/script&gt;</p>", r.EmailHTML)
		}},
		{name: "an empty field is blank", content: Content{Title: "Hi {{ user.nick }}!"}, want: func(t *testing.T, r *Rendered) { require.Equal(t, "Hi !", r.Title) }},
		{name: "loop", content: Content{Body: "{% for x in rows %}{{ x }},{% endfor %}"}, want: func(t *testing.T, r *Rendered) { require.Equal(t, "a,b,", r.Body) }},
		{name: "a default stands in", content: Content{Title: `Hi {{ user.none | default: "you" }}`}, want: func(t *testing.T, r *Rendered) { require.Equal(t, "Hi you", r.Title) }},
		{name: "no record", content: Content{Title: "Order {{ record.number }}"}, err: `There is no "record.number". Only a message that a trigger sends is about a record; in that case check the spelling, and if it may be missing, write {{ record.number | default: "…" }}.`},
		{name: "missing variable", content: Content{Title: "Hi {{ user.nmae }}"}, err: `There is no "user.nmae". Check the spelling; if it may be missing, write {{ user.nmae | default: "…" }}.`},
		{name: "missing variable between dashes", content: Content{Title: "Hi {{- user.nmae -}}"}, err: `There is no "user.nmae". Check`},
		{name: "names in JSON are escaped too", content: Content{EmailHTML: "{% for p in user.prefs %}{{ p[0] }}{% endfor %}"}, want: func(t *testing.T, r *Rendered) {
			require.Equal(t, "&lt;b&gt;", r.EmailHTML)
		}},
		{name: "a link by variable", content: Content{Link: "{{ user.site }}"}, want: func(t *testing.T, r *Rendered) { require.Equal(t, "https://example.com/ana", r.Link) }},
		{name: "a script by variable", content: Content{Link: "{{ user.script }}"}, err: "A link cannot begin with javascript:"},
		{name: "a script put together", content: Content{Link: "{% assign s = 'script' %}java{{ s }}:alert(1)"}, err: "A link cannot begin with javascript:"},
		{name: "subject cannot carry a line break", content: Content{Title: "a\r\nBcc: x@example.com"}, want: func(t *testing.T, r *Rendered) {
			require.Equal(t, "a Bcc: x@example.com", r.EmailSubject)
		}},
		{name: "syntax", content: Content{Title: "{% if %}"}, err: "cannot be read"},
		{name: "unclosed", content: Content{Body: "{% for x in rows %}"}, err: "cannot be read"},
		{name: "endless", content: Content{Body: "{% for i in (1..1000000000) %}x{% endfor %}"}, err: "too long"},
		{name: "endless by nesting", content: Content{Body: strings.Repeat("{% for i in (1..10000) %}", 3) + strings.Repeat("x", 10_000) + strings.Repeat("{% endfor %}", 3)}, err: "1 MB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			compiled, err := Compile(tc.content)
			var r *Rendered
			if err == nil {
				r, err = compiled.Render(vars, "")
			}
			if tc.err != "" {
				var te *TemplateError
				require.ErrorAs(t, err, &te)
				require.Contains(t, te.Sentence, tc.err)
				require.NotContains(t, te.Sentence, "Liquid error")
				return
			}
			require.NoError(t, err)
			tc.want(t, r)
		})
	}
}

func TestUserFieldsOfATemplate(t *testing.T) {
	t.Parallel()
	for source, want := range map[string][]string{
		"Dear user.name, no Liquid": nil, "{{ user.name }} {{ user.city | upcase }}, dear user": {"city", "name"},
		"{% if user.vip and record.user.name == 'x' %}{{ user.name }}{% endif %}": {"name", "vip"}, "{{ variables.user }}{{ superuser.name }}": nil,
	} {
		c, err := Compile(Content{Body: source})
		require.NoError(t, err)
		fields, whole := c.userFields()
		require.False(t, whole, source)
		require.Equal(t, want, fields, source)
	}
	for _, source := range []string{"{{ user }}", `{{ user["name"] }}`, "{% assign u = user %}{{ u.name }}", "{% for f in user %}{{ f }}{% endfor %}"} {
		c, err := Compile(Content{Body: source})
		require.NoError(t, err)
		_, whole := c.userFields()
		require.True(t, whole, source)
	}
}

func TestLinksThatRunAScriptAreRefused(t *testing.T) {
	t.Parallel()
	for link, scheme := range map[string]string{
		"javascript:alert(1)": "javascript", "JavaScript:alert(1)": "javascript", " \t javascript:alert(1)": "javascript", "java\nscript\r:alert(1)": "javascript",
		"\x01javascript\x00 :alert(1)": "javascript", "java\u200bscript:alert(1)": "javascript", "javascript:{{ user.name }}": "javascript",
		"data:text/html,<script>": "data", "DATA:text/html;base64,{{ variables.page }}": "data", "vbscript:x": "vbscript", "v b s c r i p t:x": "vbscript",
		"": "", "https://example.com/javascript:x": "", "http://example.com?data:x": "", "mailto:ana@example.com": "", "tel:+15005550006": "", "myapp://orders/1": "",
		"myapp:data:1": "", "/orders/1": "", "database:1": "", "{{ app.url }}/javascript:": "", "javascript": "",
	} {
		_, err := Compile(Content{Title: "x", Link: link})
		if scheme == "" {
			require.NoError(t, err, link)
			continue
		}
		var te *TemplateError
		require.ErrorAs(t, err, &te, link)
		require.Equal(t, "link", te.Field)
		require.Contains(t, te.Sentence, "A link cannot begin with "+scheme+":", link)
	}
}

func TestFiltersAreLookedForWhenATextIsRead(t *testing.T) {
	t.Parallel()
	for source, unknown := range map[string]string{
		`{{ user.name | upcse }}`: "upcse", `{{ user.name | append: "|", "x"|upcase|nope: 1 }}`: "nope", `{% assign x = user.name | nope %}`: "nope",
		`{% for x in rows | nope %}{% endfor %}`: "nope", `{%- if user.name | nope -%}{% endif %}`: "nope",
		`{{ user.name | upcase | default: "a | nope" }} | nope`: "", `{% raw %}{{ a | nope }}{% endraw %}{{ "x" | upcase }}`: "",
		`{% comment %}{{ a | nope }}{% endcomment %}`: "", `{{ 'it | nope' | upcase }}`: "", `{{ user.name | truncatewords: 3 }}`: "",
	} {
		_, err := Compile(Content{Body: source})
		if unknown == "" {
			require.NoError(t, err, source)
		} else {
			require.EqualError(t, err, `There is no filter "`+unknown+`": check the spelling, or leave it out.`, source)
		}
	}
	for name := range liquidFilters {
		_, sentence := checkFilters([]tag{{"x | " + name, 1}}, false)
		require.Empty(t, sentence)
	}
}

func TestNoFilterUndoesTheEscaping(t *testing.T) {
	t.Parallel()
	var te *TemplateError
	for _, source := range []string{`{{ user.name | url_decode }}`, `{% assign x = user.name | url_decode %}{{ x }}`, `{{ user.name | url_encode|url_decode }}`} {
		_, err := Compile(Content{EmailHTML: source})
		require.ErrorAs(t, err, &te, source)
		require.Equal(t, "emailHtml", te.Field)
		require.Contains(t, te.Sentence, "url_decode cannot be used in HTML")
		_, err = Compile(Content{Title: source})
		require.NoError(t, err, "a title is no HTML")
	}
	// What a person could have written, through every other filter.
	vars := map[string]any{"x": `<script>&lt;b&gt;%3Cb%3E\u003cb`}
	for name := range liquidFilters {
		for _, arguments := range []string{"", ": ''", ": '', ''"} {
			c, err := Compile(Content{EmailHTML: "{{ x | " + name + arguments + " }}"})
			if name == "url_decode" {
				require.Error(t, err)
				continue
			}
			require.NoError(t, err)
			if r, err := c.Render(vars, ChannelEmail); err == nil {
				require.NotRegexp(t, `<(script|b)\b`, strings.TrimPrefix(r.EmailHTML, plainHTML(r)), name)
			}
		}
	}
}
