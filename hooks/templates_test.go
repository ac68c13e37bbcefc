package hooks_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
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

func TestTranslationsThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	for name, tc := range map[string]struct{ translations, says string }{
		"nothing":            {`null`, ""},
		"an empty object":    {`{}`, ""},
		"an empty text":      {`""`, ""},
		"two languages":      {`{"fr": {"title": "Bonjour {{ user.name }}", "data": {"a": 1}}, "pt-BR": {"body": "Oi", "emailSubject": null, "smsBody": ""}}`, ""},
		"a list":             {`[{"fr": {}}]`, "This must be a JSON object by language code"},
		"a text":             {`"fr"`, "This must be a JSON object by language code"},
		"no language":        {`{"french": {"title": "x"}}`, "In french: There is no such language"},
		"an unknown one":     {`{"xx": {"title": "x"}}`, "In xx: There is no such language"},
		"an empty one":       {`{"": {"title": "x"}}`, "There is no such language"},
		"twice":              {`{"fr-ca": {"title": "x"}, "fr-CA": {"title": "x"}}`, "In fr-ca: This is the same language as fr-CA"},
		"not an object":      {`{"fr": "Bonjour"}`, `In fr: This must be a JSON object, such as {"title"`},
		"null":               {`{"fr": null}`, "In fr: This must be a JSON object"},
		"an unknown key":     {`{"fr": {"titel": "x"}}`, `In fr: "titel" is not known here. Known are title, body, emailSubject, emailHtml, smsBody, data.`},
		"a number":           {`{"fr": {"title": 3}}`, "In fr, title: This must be a text in quotation marks"},
		"data as text":       {`{"fr": {"data": "x"}}`, "In fr, data: This must be a JSON object"},
		"too long":           {`{"fr": {"title": "` + strings.Repeat("é", 501) + `"}}`, "In fr, title: This has 501 characters"},
		"unclosed":           {`{"fr-CA": {"body": "a\nb {{ user.name"}}`, `In fr-CA, body, line 2: "{{ user.name" is opened and never closed`},
		"an unknown filter":  {`{"fr": {"smsBody": "{{ user.name | upcse }}"}}`, `In fr, smsBody, line 1: There is no filter "upcse"`},
		"an unknown field":   {`{"fr": {"emailHtml": "<p>\n{{ user.nmae }}"}}`, `In fr, emailHtml, line 2: There is no "user.nmae"`},
		"a hidden field":     {`{"fr": {"title": "{{ user.tokenKey }}"}}`, `In fr, title, line 1: The field "tokenKey" of users is hidden`},
		"an endless loop":    {`{"fr": {"title": "{% for i in (1..99999999) %}{% endfor %}"}}`, "In fr, title, line 1: It counts through"},
		"a file of this one": {`{"fr": {"body": "{% include 'x' %}"}}`, "In fr, body, line 1: The template cannot be read: templates cannot include files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := app.Send(http.MethodPost, "/api/collections/notification_templates/records",
				`{"key": "k`+security.RandomString(8)+`", "title": "Hello", "translations": `+tc.translations+`}`, root)
			if tc.says == "" {
				require.Equal(t, http.StatusOK, res.Status, res.String())
				return
			}
			require.Equal(t, http.StatusBadRequest, res.Status, res.String())
			refused, _ := res.JSON(t)["data"].(map[string]any)["translations"].(map[string]any)
			require.Contains(t, refused["message"], tc.says)
		})
	}
	// Not only requests.
	col, err := app.FindCollectionByNameOrId(notifications.CollectionTemplates)
	require.NoError(t, err)
	r := core.NewRecord(col)
	r.Load(map[string]any{"key": "code", "title": "Hello", "translations": map[string]any{"fr": map[string]any{"titel": "x"}}})
	require.ErrorContains(t, app.Save(r), `"titel" is not known here`)
}

// What was sent stays as it was, in every language.
func TestEverybodyReadsTheirLanguage(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "hello", "title": "Hello {{ user.name }}", "body": "Default", "smsBody": "Default",
		"translations": map[string]any{"fr": map[string]any{"title": "Bonjour {{ user.name }}", "body": "Corps"}, "fr-CA": map[string]any{"title": "Allô {{ user.name }}"}}})
	app.Handler()
	people := map[string]*core.Record{}
	for name, locale := range map[string]string{"Ana": "fr-CA", "Bo": "fr", "Cy": "fr-BE", "Di": "de", "Ed": ""} {
		people[name] = app.User(name+"@example.com", map[string]any{"name": name, "locale": locale})
		for i, deviceLocale := range []string{"fr-CA", ""} {
			app.Record(notifications.CollectionDevices, map[string]any{"user": people[name].Id, "platform": "android", "token": name + string(rune('a'+i)), "locale": deviceLocale})
		}
	}
	_, err := app.NonconcurrentDB().Update("users", dbx.Params{"locale": "?? nonsense"}, dbx.HashExp{"id": people["Di"].Id}).Execute()
	require.NoError(t, err)
	n := send(t, app, map[string]any{"title": "", "body": "", "template": template.Id, "channels": []string{"email", "inbox", "push"}})
	until(t, app, n, "status", "sent")

	for _, p := range people {
		require.NoError(t, notifications.FillInboxes(app, p.Id))
	}
	for name, want := range map[string]struct{ title, body string }{
		"Ana": {"Allô Ana", "Corps"}, "Bo": {"Bonjour Bo", "Corps"}, "Cy": {"Bonjour Cy", "Corps"}, "Di": {"Hello Di", "Default"}, "Ed": {"Hello Ed", "Default"},
	} {
		inbox, err := app.FindFirstRecordByData(notifications.CollectionInbox, "user", people[name].Id)
		require.NoError(t, err)
		require.Equal(t, want.title, inbox.GetString("title"))
		require.Equal(t, want.body, inbox.GetString("body"))
		require.Equal(t, want.title, renderedOf(t, app, n, people[name], "email")[0]["subject"])
		titles := []any{}
		for _, r := range renderedOf(t, app, n, people[name], "push") {
			titles = append(titles, r["title"])
		}
		if name == "Ed" {
			require.ElementsMatch(t, []any{"Allô Ed", "Hello Ed"}, titles, "the device's language, where the person has none")
		} else {
			require.Equal(t, []any{want.title, want.title}, titles)
		}
	}
	template.Set("translations", map[string]any{})
	require.NoError(t, app.Save(template))
	snapshot, err := notifications.AsNotification(app.Reload(n)).Snapshot()
	require.NoError(t, err)
	require.Equal(t, "Corps", snapshot.Content.Translations["fr"].Body)

	// What the notification says itself is said in every language.
	n = send(t, app, map[string]any{"title": "Sale", "body": "", "template": app.Record(notifications.CollectionTemplates, map[string]any{"key": "sale", "title": "x", "body": "y",
		"translations": map[string]any{"fr": map[string]any{"title": "z", "body": "Soldes"}}}).Id, "channels": []string{"inbox"}})
	until(t, app, n, "status", "sent")
	require.NoError(t, notifications.FillInboxes(app, people["Bo"].Id))
	inbox, err := app.FindFirstRecordByFilter(notifications.CollectionInbox, "user = {:u} && notification = {:n}", dbx.Params{"u": people["Bo"].Id, "n": n.Id})
	require.NoError(t, err)
	require.Equal(t, "Sale / Soldes", inbox.GetString("title")+" / "+inbox.GetString("body"))
}

// renderedOf is what was captured for a person on a channel.
func renderedOf(t *testing.T, app *pbtest.App, n, person *core.Record, channel string) []map[string]any {
	t.Helper()
	rows, err := app.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id, "user": person.Id, "channel": channel})
	require.NoError(t, err)
	all := make([]map[string]any, len(rows))
	for i, row := range rows {
		require.NoError(t, row.UnmarshalJSONField("rendered", &all[i]), row.GetString("status"))
	}
	return all
}

func TestAMissingVariableInAnyLanguageStopsTheSend(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	ana := app.User("ana@example.com", map[string]any{"name": "Ana"})
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "hello", "title": "Hello", "translations": map[string]any{"fr": map[string]any{"title": "Bonjour {{ town }}"}}})
	body := map[string]any{"template": template.Id, "channels": []string{"inbox"}, "audience": "users", "users": []string{ana.Id}, "action": "send"}
	res := app.Send(http.MethodPost, "/api/collections/notifications/records", body, root)
	require.Equal(t, http.StatusBadRequest, res.Status, res.String())
	require.Contains(t, res.String(), `In fr, title, line 1: There is no \"town\".`)
	body["variables"] = map[string]any{"town": "Lyon"}
	require.Equal(t, http.StatusOK, app.Send(http.MethodPost, "/api/collections/notifications/records", body, root).Status)
}
