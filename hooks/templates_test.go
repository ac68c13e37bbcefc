package hooks_test

import (
	"net/http"
	"testing"

	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
)

func TestTemplatesNameFieldsThatPeopleHave(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	const missing = `There is no "user.nmae". Check the spelling; if it may be missing, write {{ user.nmae | default: "…" }}.`
	for name, tc := range map[string]struct{ field, text, says string }{
		"title":                   {"title", "Hello {{ user.nmae }}", missing},
		"behind a filter":         {"body", "Hello {{ user.nmae | upcase }}", missing},
		"in a condition":          {"smsBody", "{% if user.nmae %}Hello{% endif %}", missing},
		"in a filter":             {"emailHtml", "{{ 'Hello ' | append: user.nmae }}", missing},
		"a hyphen":                {"title", "{{ user.name-x }}", `There is no "user.name-x".`},
		"beside the whole person": {"title", "{{ user['name'] }} {{ user.nmae }}", missing},
		"after what is not run":   {"body", "{% raw %}{{ x }}{% endraw %}{% comment %}{{ x }}{% endcomment %}{{ user.nmae }}", missing},
		"a secret":                {"emailSubject", "{{ user.tokenKey }}", `The field "tokenKey" of users is hidden, so that no message can show it.`},
		"a hidden field":          {"body", "{{ user.phone }}", `The field "phone" of users is hidden`},
		"an unknown filter":       {"body", "{{ user.name | upcse }}", `There is no filter "upcse"`},
		"decoded HTML":            {"emailHtml", "{{ user.name | url_decode }}", "url_decode cannot be used in HTML"},

		"fields":             {"title", "{{ user.name }} {{ user.email }} {{ user.id }} {{ user.locale }} {{ user.verified }} {{ user.created }}", ""},
		"a default":          {"title", `Hello {{ user.nmae | default: "you" }}`, ""},
		"only a word":        {"title", `Hello {{ user.name | append: " (user.nmae)" }}, user.nmae`, ""},
		"another user":       {"body", "{% for user in variables.rows %}{{ user.nmae }}{% endfor %}", ""},
		"somebody else":      {"body", "{{ record.user.nmae }}{{ variables.nmae }}", ""},
		"not run":            {"body", "{% raw %}{{ user.nmae }}{% endraw %}{% comment %}{{ user.nmae }}{% endcomment %}", ""},
		"the whole person":   {"body", "{{ user['name'] }}", ""},
		"the person's words": {"body", "{% assign u = user.name %}{{ u }}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := map[string]any{"key": "k" + security.RandomString(8), "title": "Hello"}
			body[tc.field] = tc.text
			res := app.Send(http.MethodPost, "/api/collections/notification_templates/records", body, root)
			if tc.says == "" {
				require.Equal(t, http.StatusOK, res.Status, res.String())
				return
			}
			require.Equal(t, http.StatusBadRequest, res.Status, res.String())
			refused, _ := res.JSON(t)["data"].(map[string]any)[tc.field].(map[string]any)
			require.Contains(t, refused["message"], tc.says)
		})
	}
}

func TestLinksThatRunAScriptAreRefusedWhenTheyAreSaved(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	ana := app.User("ana@example.com", map[string]any{"name": "Ana"})
	save := func(link string, variables map[string]any, action string) pbtest.Response {
		return app.Send(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "Hello", "link": link, "variables": variables,
			"channels": []string{"inbox"}, "audience": "users", "users": []string{ana.Id}, "action": action}, root)
	}
	for name, res := range map[string]pbtest.Response{
		"a draft":     save("javascript:alert(1)", nil, ""),
		"by variable": save("{{ page }}", map[string]any{"page": "data:text/html,x"}, "send"),
	} {
		require.Equal(t, http.StatusBadRequest, res.Status, name)
		refused, _ := res.JSON(t)["data"].(map[string]any)["link"].(map[string]any)
		require.Contains(t, refused["message"], "A link cannot begin with", name)
	}
	require.Equal(t, http.StatusOK, save("{{ page }}", map[string]any{"page": "shop://sale"}, "send").Status)
}
