package hooks_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// What cannot work is refused before anything is sent, in a sentence, wherever it
// is written; what people put into their own fields is only ever text.
func TestUnsafeTextsSendNothing(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	eve := app.User("eve@example.com", map[string]any{"name": `<script>alert(1)</script>{{ app.url }}`, "locale": "fr"})
	app.Handler()
	turns := strings.Repeat("{% for i in (1..9999) %}", 4) + strings.Repeat("{% endfor %}", 4)
	for name, tc := range map[string]struct{ text, says string }{
		"a missing variable":           {"Hi\n{{ town }}", `There is no \"town\".`},
		"a missing one in a loop":      {"{% for i in (1..2) %}\n{{ i }}{{ town }}\n{% endfor %}", `There is no \"town\".`},
		"a missing field":              {"{{ user.town }}", `There is no \"user.town\".`},
		"a secret field":               {"{{ user.tokenKey }}", "is hidden, so that no message can show it"},
		"a broken tag":                 {"{% if user.name %}", "The template cannot be read"},
		"an endless loop":              {turns, "The text takes too long to make"},
		"an endless text":              {"{% assign a = 'xxxxxxxxxxxxxxxx' %}" + strings.Repeat("{% assign a = a | append: a %}", 40), "The text gets longer than 1 MB"},
		"a file":                       {"{% include 'main.go' %}", "templates cannot include files"},
		"a script, as text":            {"{{ user.name }}", ""},
		"a default in place of a name": {"{{ user.town | default: 'you' }}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for where, template := range map[string]map[string]any{
				"body": {"title": "x", "body": tc.text, "emailHtml": "<p>x</p>"}, "emailHtml": {"title": "x", "body": "x", "emailHtml": tc.text},
				"translations": {"title": "x", "translations": map[string]any{"fr": map[string]any{"body": tc.text, "emailHtml": tc.text}}},
			} {
				template["key"] = "k" + security.RandomString(8)
				res := app.Send(http.MethodPost, "/api/collections/notification_templates/records", template, root)
				at := `"` + where + `":`
				if res.Status == http.StatusOK {
					// It only shows when it is made: with the first person.
					at = `"template":`
					res = app.Send(http.MethodPost, "/api/collections/notifications/records", map[string]any{"template": res.JSON(t)["id"], "channels": []string{"email", "inbox"},
						"audience": "users", "users": []string{eve.Id}, "action": "send"}, root)
				}
				if tc.says != "" {
					require.Equal(t, http.StatusBadRequest, res.Status, "%s: %s", where, res)
					require.Contains(t, res.String(), tc.says, where)
					require.Contains(t, res.String(), at, where)
					continue
				}
				require.Equal(t, http.StatusOK, res.Status, "%s: %s", where, res)
				n, err := app.FindRecordById(notifications.CollectionNotifications, res.JSON(t)["id"].(string))
				require.NoError(t, err)
				n = until(t, app, n, "status", "sent")
				html, _ := renderedOf(t, app, n, eve, "email")[0]["html"].(string)
				require.NotContains(t, html, "<script", where)
				require.NotContains(t, html, "127.0.0.1", "nobody's name is a template")
			}
		})
	}
	t.Cleanup(func() {
		var sent []*core.Record
		require.NoError(t, app.RecordQuery(notifications.CollectionNotifications).All(&sent))
		require.Len(t, sent, 2*3, "only what is safe")
	})
}
