package notifications

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a template may not do. Each runs to its end here, on this goroutine: what
// only gives up waiting leaves a goroutine behind that eats the machine.
func TestTemplatesEnd(t *testing.T) { //nolint:paralleltest // it measures the memory of the process
	double := func(step string, n int) string {
		return "{% assign a = 'xxxxxxxxxxxxxxxx' %}" + strings.Repeat(step, n)
	}
	const ten = "{{a}}{{a}}{{a}}{{a}}{{a}}{{a}}{{a}}{{a}}{{a}}{{a}}"
	for name, tc := range map[string]struct {
		source string
		want   error
	}{
		"empty loops":            {strings.Repeat("{% for i in (1..9999) %}", 4) + strings.Repeat("{% endfor %}", 4), errTooSlow},
		"loops of nothing much":  {strings.Repeat("{% for i in (1..90) %}", 6) + "{% assign x = 1 %}" + strings.Repeat("{% endfor %}", 6), errTooSlow},
		"a loop in an else":      {"{% for x in none %}{% else %}" + strings.Repeat("{% for i in (1..9999) %}", 3) + strings.Repeat("{% endfor %}", 3) + "{% endfor %}", errTooSlow},
		"a loop in a condition":  {"{% if 1 == 1 %}" + strings.Repeat("{% for i in (1..9999) %}", 3) + strings.Repeat("{% endfor %}", 3) + "{% endif %}", errTooSlow},
		"a range by variable":    {"{% assign n = 2000000000 %}{% for i in (1..n) %}{% endfor %}", errTooSlow},
		"skipped turns":          {"{% assign n = 2000000000 %}{% for i in (1..n) %}{% continue %}{% endfor %}", errTooSlow},
		"a table":                {"{% assign n = 2000000000 %}{% tablerow i in (1..n) %}{% endtablerow %}", errTooLong},
		"append":                 {double("{% assign a = a | append: a %}", 40), errTooLong},
		"prepend in a loop":      {double("{% for i in (1..100) %}{% assign a = a | prepend: a %}{% endfor %}", 1), errTooLong},
		"append within a value":  {double("{{ a"+strings.Repeat(" | append: a | replace: 'x', 'xxxxxxxxxxxxxxxx'", 8)+" | size }}", 1), errTooLong},
		"replace":                {double("{% assign a = a | replace: 'x', 'xxxxxxxxxxxxxxxx' %}", 9), errTooLong},
		"replace with much":      {double("{% assign a = a | append: a %}", 15) + "{{ a | replace: 'x', a | size }}", errTooLong},
		"replace the first":      {double("{% for i in (1..5000) %}{% assign a = a | replace_first: 'x', a %}{% endfor %}", 1), errTooLong},
		"capture":                {"{% capture a %}xxxxxxxxxx{% endcapture %}" + strings.Repeat("{% capture a %}"+ten+"{% endcapture %}", 9), errTooLong},
		"capture in a capture":   {strings.Repeat("{% capture a %}", 1) + "{% for i in (1..9999) %}{% for j in (1..9999) %}xxxxxxxx{% endfor %}{% endfor %}{%endcapture%}", errTooLong},
		"join":                   {double("{% assign a = a | append: a %}", 15) + "{% assign l = a | slice: 0, 9000 | split: '' %}{{ l | join: a | size }}", errTooLong},
		"concat":                 {"{% assign l = 'a,b,c' | split: ',' %}" + strings.Repeat("{% assign l = l | concat: l %}", 30), errTooLong},
		"many variables":         {double("{% assign a = a | append: a %}", 15) + manyVariables(), errTooLong},
		"a date of many digits":  {"{{ 'now' | date: '%900000000Y' }}", nil},
		"an end at much output":  {"{% for i in (1..9999) %}{% for j in (1..9999) %}xxxxxxxx{% endfor %}{% endfor %}", errTooLong},
		"a slice out of nothing": {"{{ 'abc' | slice: 9, 99999999999 }}", nil},
	} {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // see above
			root, unread := parseLiquid("body", tc.source)
			require.Nil(t, unread)
			b := newBudget()
			if tc.want == errTooSlow { //nolint:errorlint // the table's own value
				b.deadline = time.Now().Add(300 * time.Millisecond)
			} else {
				b.deadline = time.Now().Add(10 * time.Minute) // a busy machine must not decide it
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := renderLiquid(root, map[string]any{"none": []any{}}, b)
			runtime.ReadMemStats(&after)
			if tc.want == nil {
				require.Error(t, err)
			} else {
				require.ErrorIs(t, err, tc.want)
			}
			if tc.want != errTooSlow { //nolint:errorlint // the table's own value
				require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<29), "bytes")
			}
		})
	}
}

func manyVariables() string {
	var b strings.Builder
	for _, first := range "abcdefghijklmnopqrstuvwxyz" {
		for _, second := range "abcdefghijklmnopqrstuvwxyz" {
			b.WriteString("{% assign v" + string(first) + string(second) + " = a | append: '' %}")
		}
	}
	return b.String()
}

func TestTemplatesReadNoFiles(t *testing.T) {
	t.Parallel()
	for _, source := range []string{`{% include 'template.go' %}`, `{%- include 'template.go' -%}`, `{% if false %}{% include x %}{% endif %}`} {
		_, err := Compile(Content{Body: source})
		var te *TemplateError
		require.ErrorAs(t, err, &te)
		require.Equal(t, "body", te.Field)
		require.Contains(t, te.Sentence, "cannot include files")
	}
}

func TestNonsenseIsRefusedWhereItIsWritten(t *testing.T) {
	t.Parallel()
	for _, source := range []string{"{{ 99999999999999999999999 }}", "{{ 1 | }}", "{% assign %}", "{% for %}{% endfor %}", "{{ 'a }}", "{% case %}{% endcase %}", "{{ a[ }}", "{% endcapture %}"} {
		_, err := Compile(Content{Title: source})
		var te *TemplateError
		require.ErrorAs(t, err, &te, source)
	}
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{{ a | append: b }}", "{% for i in (1..n) %}{{ i }}{% endfor %}", "{% capture x %}{% endcapture %}", "{%- raw -%}{% endraw %}", "{% case a %}{% when 1 %}{% else %}{% endcase %}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		compiled, err := Compile(Content{Body: source})
		if err == nil {
			_, err = compiled.Render(map[string]any{"a": "x", "n": 3, "l": []any{1, "y"}}, ChannelInbox)
		}
		if err != nil {
			var te *TemplateError
			require.ErrorAs(t, err, &te)
		}
	})
}

func TestRangesThatWouldBecomeLists(t *testing.T) {
	t.Parallel()
	for source, sentence := range map[string]string{
		`{% for i in (1..99999) %}{% endfor %}`:                            "the limit is 10000",
		`{% for i in (5..99999999999999999999) %}{% endfor %}`:             "the limit is 10000",
		`{% for i in (99999..1) %}{% endfor %}`:                            "the limit is 10000",
		`{{ (1..user.n) | join: ',' }}`:                                    "only possible in a loop",
		`{% assign r = (1..user.n) %}`:                                     "only possible in a loop",
		`{% for i in (1..user.n) | reverse %}{% endfor %}`:                 "only possible in a loop",
		`Chapters (1..99999), {{ user.n }}`:                                "",
		`{% for i in (1..user.n) reversed %}{% endfor %}`:                  "",
		`{% for i in (user.n..10) limit: 5 %}{% endfor %}{{ (1..9)|size}}`: "",
	} {
		_, err := Compile(Content{Body: source})
		if sentence == "" {
			require.NoError(t, err, source)
		} else {
			require.ErrorContains(t, err, sentence, source)
		}
	}
}

func TestLimitsChangeNothingElse(t *testing.T) {
	t.Parallel()
	vars := map[string]any{"n": 3, "rows": []any{"a", "b"}, "long": strings.Repeat("word ", 2000), "at": time.Date(2026, 3, 1, 9, 5, 0, 0, time.UTC)}
	for source, want := range map[string]string{
		`{% capture x %}{% for r in rows %}{{ r }}-{% endfor %}{% endcapture %}[{{ x }}]`:         "[a-b-]",
		`{%- capture 'x' -%} a {%- endcapture -%} {{ x }}`:                                        "a",
		`{% raw %}{% capture x %}{{ y }}{% endcapture %}{% endraw %}{{ n }}`:                      "{% capture x %}{{ y }}{% endcapture %}3",
		"{% for r in rows -%}\n {{ r }}\n{%- endfor %}.":                                          "ab.",
		`{% for r in rows %}{% if forloop.last %}{% break %}{% endif %}{{ r }}{% endfor %}`:       "a",
		`{% for r in rows %}{% cycle 'x','y' %}{% else %}none{% endfor %}`:                        "xy",
		`{% for i in (1..n) %}{{ i }}{% endfor %}`:                                                "123",
		`{% comment %}{% capture x %}{% endcapture %}{% endcomment %}{{ n }}`:                     "3",
		`{{ rows | join: ', ' }} {{ rows | join }}`:                                               "a, b a b",
		`{{ 'a-b-c' | replace: '-', '+' | replace_first: '+', '' }}`:                              "ab+c",
		`{{ 'abcdefghij' | truncate: 5 }} {{ 'abc' | truncate: 3 }} {{ 'ab' | truncate: 0, '' }}`: "ab... abc ",
		`{{ 'äöüß' | truncate: 3, '…' }}`:                                                         "äö…",
		`{{ 'one  two three' | truncatewords: 2 }} {{ ' one ' | truncatewords: 1 }}`:              "one  two...  one ",
		`{{ long | truncate: 5000 | size }} {{ long | truncatewords: 1500 | size }}`:              "5000 7502",
		`{{ at | date: '%Y-%m-%d %H:%M' }} {{ at | date }}`:                                       "2026-03-01 09:05 Sun, Mar 01, 26",
		`{{ rows | json }} {{ 7 | divided_by: 2 }} {{ 1.5 | times: 2 }}`:                          `["a","b"] 3 3`,
	} {
		compiled, err := Compile(Content{Body: source})
		require.NoError(t, err, source)
		r, err := compiled.Render(vars, ChannelInbox)
		require.NoError(t, err, source)
		require.Equal(t, want, r.Body, source)
	}
	_, err := Compile(Content{Body: "{% capture x %}"})
	require.ErrorContains(t, err, "capture")
	require.NotContains(t, err.Error(), "groundwork")
}

// What a filter cannot count with is told in a sentence, without the insides of the
// library.
func TestNumbersThatNoFilterCountsWith(t *testing.T) {
	t.Parallel()
	for _, source := range []string{
		`{{ "abc" | slice: 9223372036854775807, 9223372036854775807 }}`,
		`{{ "abc" | slice: -1, -9223372036854775808 }}`,
	} {
		compiled, err := Compile(Content{Body: source})
		require.NoError(t, err)
		_, err = compiled.Render(map[string]any{}, "")
		require.EqualError(t, err, "The text cannot be made: a filter was given a number that it cannot count with.", source)
	}
	compiled, err := Compile(Content{Body: `{{ "abc" | truncate: -9223372036854775808 }}`})
	require.NoError(t, err)
	r, err := compiled.Render(map[string]any{}, "")
	require.NoError(t, err)
	require.Equal(t, "...", r.Body)
}
