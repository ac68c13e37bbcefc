package notifications

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRender(t *testing.T) {
	t.Parallel()
	vars := map[string]any{"user": map[string]any{"name": `Ana <script>alert(1)</script>`, "nick": ""}, "rows": []any{"a", "b"}}
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
		{name: "html is escaped, text is not", content: Content{Body: "Hi {{ user.name }}", EmailHTML: "<p>Hi {{ user.name }}</p>"}, want: func(t *testing.T, r *Rendered) {
			require.Equal(t, "Hi Ana <script>alert(1)</script>", r.Body)
			require.Equal(t, "<p>Hi Ana &lt;script&gt;alert(1)&lt;/script&gt;</p>", r.EmailHTML)
		}},
		{name: "an empty field is blank", content: Content{Title: "Hi {{ user.nick }}!"}, want: func(t *testing.T, r *Rendered) { require.Equal(t, "Hi !", r.Title) }},
		{name: "loop", content: Content{Body: "{% for x in rows %}{{ x }},{% endfor %}"}, want: func(t *testing.T, r *Rendered) { require.Equal(t, "a,b,", r.Body) }},
		{name: "a default stands in", content: Content{Title: `Hi {{ user.none | default: "you" }}`}, want: func(t *testing.T, r *Rendered) { require.Equal(t, "Hi you", r.Title) }},
		{name: "missing variable", content: Content{Title: "Hi {{ user.nmae }}"}, err: `no variable "user.nmae"`},
		{name: "subject cannot carry a line break", content: Content{Title: "a\r\nBcc: x@example.com"}, want: func(t *testing.T, r *Rendered) {
			require.Equal(t, "a Bcc: x@example.com", r.EmailSubject)
		}},
		{name: "syntax", content: Content{Title: "{% if %}"}, err: "cannot be read"},
		{name: "unclosed", content: Content{Body: "{% for x in rows %}"}, err: "cannot be read"},
		{name: "endless", content: Content{Body: "{% for i in (1..1000000000) %}x{% endfor %}"}, err: "too long"},
		{name: "endless by nesting", content: Content{Body: strings.Repeat("{% for i in (1..10000) %}", 3) + "xxxxxxxxxx" + strings.Repeat("{% endfor %}", 3)}, err: "1 MB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			compiled, err := Compile(tc.content)
			var r *Rendered
			if err == nil {
				r, err = compiled.Render(vars)
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
