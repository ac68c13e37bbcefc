package hooks_test

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

const (
	shopURL     = "https://shop.example.com"
	promotional = "gwpromotional00"
)

// reachable tells an app its public address, as an owner does in the settings.
func reachable(t *testing.T, app *pbtest.App, address string) {
	t.Helper()
	app.Settings().Meta.AppURL, app.Settings().Meta.AppName = address, "Shop"
	require.NoError(t, app.Save(app.Settings()))
}

// newMailing is an app in production that sends by a double.
func newMailing(t *testing.T, opts ...pbtest.Option) (*pbtest.App, *providertest.SMTP) {
	t.Helper()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	app := pbtest.NewApp(t, append([]pbtest.Option{pbtest.WithConfig(production), pbtest.WithConfig(assumeConsent)}, opts...)...)
	app.Handler()
	mailProvider(t, app, smtp.Config("hello@example.com"), "")
	reachable(t, app, shopURL)
	return app, smtp
}

// links are the unsubscribe links of the mails to an address, by its header.
func links(t *testing.T, smtp *providertest.SMTP, to string) []string {
	t.Helper()
	var found []string
	for _, m := range smtp.To(to) {
		read, err := mail.ReadMessage(bytes.NewReader(m.Raw))
		require.NoError(t, err)
		link := regexp.MustCompile(`^<(` + shopURL + `/api/unsubscribe/[\w-]{60,})>$`).FindStringSubmatch(read.Header.Get("List-Unsubscribe"))
		require.NotNil(t, link, "%q", read.Header.Get("List-Unsubscribe"))
		require.Equal(t, "List-Unsubscribe=One-Click", read.Header.Get("List-Unsubscribe-Post"))
		found = append(found, link[1])
	}
	return found
}

func TestPromotionalMailHasAWayOut(t *testing.T) {
	t.Parallel()
	app, smtp := newMailing(t)
	ana := app.User("ana@example.com", map[string]any{"name": "Ana"})
	own := app.Record(notifications.CollectionTemplates, map[string]any{"key": "own", "category": promotional, "title": "Sale",
		"body": "Stop: {{ unsubscribeUrl }}", "emailHtml": `<HTML><BODY><a href="{{ unsubscribeUrl }}">Stop</a></BODY></HTML>`})
	html := app.Record(notifications.CollectionTemplates, map[string]any{"key": "html", "category": promotional, "title": "Sale", "emailHtml": "<html><body><p>Half price</p></body></html>"})

	for name, tc := range map[string]struct {
		fields map[string]any
		check  func(m *providertest.Mail, link string)
	}{
		"written here": {map[string]any{"category": promotional}, func(m *providertest.Mail, link string) {
			require.True(t, strings.HasSuffix(strings.TrimSpace(m.Text), "Unsubscribe from these e-mails:\r\n"+link), m.Text)
			require.Contains(t, m.HTML, `<a href="`+link+`"`)
			require.Less(t, strings.Index(m.HTML, link), strings.Index(m.HTML, "</body>"))
		}},
		"a template's own HTML": {map[string]any{"template": html.Id, "title": "", "body": ""}, func(m *providertest.Mail, link string) {
			require.Contains(t, m.HTML, "<p>Half price</p>")
			require.Equal(t, 1, strings.Count(m.HTML, link))
			require.True(t, strings.HasSuffix(strings.TrimSpace(m.HTML), "</body></html>"), m.HTML)
		}},
		"a template that has it": {map[string]any{"template": own.Id, "title": "", "body": ""}, func(m *providertest.Mail, link string) {
			require.Equal(t, "Stop: "+link, strings.TrimSpace(m.Text))
			require.Equal(t, `<HTML><BODY><a href="`+link+`">Stop</a></BODY></HTML>`, strings.TrimSpace(m.HTML))
		}},
	} {
		before := smtp.Total()
		until(t, app, send(t, app, tc.fields), "status", "sent")
		require.Equal(t, before+1, smtp.Total(), name)
		all := links(t, smtp, "ana@example.com")
		got := smtp.Messages()[before]
		parsed, err := got.Parse()
		require.NoError(t, err)
		require.NotContains(t, string(got.Raw), ana.Id, "the token shows no id")
		tc.check(parsed, all[len(all)-1])
	}

	before := smtp.Total()
	until(t, app, send(t, app, nil), "status", "sent")
	got, err := smtp.Messages()[before].Parse()
	require.NoError(t, err)
	require.Empty(t, got.Get("List-Unsubscribe"))
	require.Empty(t, got.Get("List-Unsubscribe-Post"))
	require.NotContains(t, got.Text+got.HTML, "nsubscribe")

	// What does not advertise has no such link to put into its text.
	res := app.Send(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "{{ unsubscribeUrl }}", "channels": []string{"email"},
		"audience": "users", "users": []string{ana.Id}, "action": "send"}, app.Token(must(app.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com"))))
	require.Equal(t, http.StatusBadRequest, res.Status)
	require.Contains(t, res.String(), `There is no \"unsubscribeUrl\"`)
}

func TestTheFooterCanBeLeftOutAndTheHeadersCannot(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	app, smtp := newMailing(t, pbtest.WithConfig(func(c *hooks.Config) {
		c.NoUnsubscribeFooter, c.UnsubscribeEmail, c.LogOutput = true, "unsubscribe@example.com", &log
	}))
	app.User("ana@example.com")
	until(t, app, send(t, app, map[string]any{"category": promotional}), "status", "sent")
	got, err := smtp.Messages()[0].Parse()
	require.NoError(t, err)
	require.Regexp(t, `^<`+shopURL+`/api/unsubscribe/[\w-]+>, <mailto:unsubscribe@example.com\?subject=unsubscribe>$`, got.Get("List-Unsubscribe"))
	require.Equal(t, "List-Unsubscribe=One-Click", got.Get("List-Unsubscribe-Post"))
	require.NotContains(t, got.Text+got.HTML, "nsubscribe")
	require.Contains(t, log.String(), "PROMOTIONAL_EMAIL_FOOTER=off")
}

func TestNoPromotionalMailWithoutAPublicAddress(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"http://localhost:8090", "http://shop.example.com"} {
		app, smtp := newMailing(t)
		reachable(t, app, address)
		ana := app.User("ana@example.com")
		n := until(t, app, send(t, app, map[string]any{"category": promotional}), "status", "failed")
		got, explained := ends(t, app, n)
		require.Equal(t, map[string]string{ana.Id: "failed no_public_address"}, got, address)
		require.Contains(t, explained[ana.Id], "Settings > Application > Application URL")
		require.Zero(t, smtp.Total())

		until(t, app, send(t, app, nil), "status", "sent")
		require.Equal(t, 1, smtp.Total(), "what does not advertise needs none")

		// Once it is set, the owner retries.
		reachable(t, app, shopURL)
		root := must(app.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com"))
		res := app.Send(http.MethodPost, "/api/notifications/"+n.Id+"/retry", nil, app.Token(root))
		require.Equal(t, http.StatusOK, res.Status, res.String())
		until(t, app, n, "status", "sent")
		require.Equal(t, 2, smtp.Total())
	}
}

// optingOut is an app with one promotional mail to Ana, whose link it knows.
type optingOut struct {
	*pbtest.App
	t    *testing.T
	ana  *core.Record
	path string
}

func newOptingOut(t *testing.T) *optingOut {
	t.Helper()
	x := &optingOut{App: pbtest.NewApp(t, pbtest.WithConfig(assumeConsent)), t: t}
	x.Handler()
	reachable(t, x.App, shopURL)
	x.ana = x.User("Ana@Example.com")
	n := until(t, x.App, send(t, x.App, map[string]any{"category": promotional}), "status", "sent")
	row := must(x.FindFirstRecordByData(notifications.CollectionDeliveries, "notification", n.Id))
	require.Equal(t, "captured", row.GetString("status"), row.GetString("explanation"))
	var rendered struct {
		UnsubscribeURL string `json:"unsubscribeUrl"`
	}
	require.NoError(t, row.UnmarshalJSONField("rendered", &rendered))
	path, found := strings.CutPrefix(rendered.UnsubscribeURL, shopURL)
	require.True(t, found, rendered.UnsubscribeURL)
	x.path = path
	return x
}

const urlencoded = "application/x-www-form-urlencoded"

func (x *optingOut) ask(method, path, contentType, body, token string) *httptest.ResponseRecorder {
	x.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	rec := httptest.NewRecorder()
	x.Handler().ServeHTTP(rec, req)
	return rec
}

// post sends a form and returns the page.
func (x *optingOut) post(fields url.Values) string {
	x.t.Helper()
	rec := x.ask(http.MethodPost, x.path, urlencoded, fields.Encode(), "")
	require.Equal(x.t, http.StatusOK, rec.Code, rec.Body.String())
	return rec.Body.String()
}

// held is what holds mail to Ana back: suppressions, and wishes about a category.
func (x *optingOut) held() []string {
	x.t.Helper()
	held := []string{}
	rows, err := x.FindAllRecords(notifications.CollectionSuppressions)
	require.NoError(x.t, err)
	for _, r := range rows {
		held = append(held, r.GetString("channel")+" "+r.GetString("address")+" "+r.GetString("kind")+" "+r.GetString("reason"))
	}
	wishes, err := x.FindAllRecords(notifications.CollectionPreferences, dbx.HashExp{"enabled": false})
	require.NoError(x.t, err)
	for _, r := range wishes {
		held = append(held, r.GetString("channel")+" off "+r.GetString("category"))
	}
	return held
}

func TestOneClick(t *testing.T) {
	t.Parallel()
	x := newOptingOut(t)
	rex, ben := x.Superuser("root@example.com"), x.User("ben@example.com")
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	require.NoError(t, w.WriteField("List-Unsubscribe", "One-Click"))
	require.NoError(t, w.Close())

	tokens := map[string]string{"guest": "", "other": x.Token(ben), "owner": x.Token(x.ana), "superuser": x.Token(rex), "an old token": "eyJhbGciOiJIUzI1NiJ9.e30.x"}
	for name, token := range tokens {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			rec := x.ask(method, x.path, "", "", token)
			require.Equal(t, http.StatusOK, rec.Code, name)
			require.Empty(t, rec.Result().Cookies())
			require.Equal(t, "no-store", rec.Header().Get("Cache-Control"))
			require.Equal(t, "no-referrer", rec.Header().Get("Referrer-Policy"))
			require.Contains(t, rec.Header().Get("Content-Security-Policy"), "default-src 'none'")
			require.NotContains(t, rec.Body.String(), "<script")
			require.NotContains(t, strings.ToLower(rec.Body.String()), "ana@example.com", "who reads a forwarded mail learns no address")
		}
	}
	require.Empty(t, x.held(), "following the link changes nothing")

	for name, token := range tokens {
		for _, f := range []struct{ contentType, body string }{{urlencoded, "List-Unsubscribe=One-Click"}, {w.FormDataContentType(), form.String()}} {
			rec := x.ask(http.MethodPost, x.path, f.contentType, f.body, token)
			require.Equal(t, http.StatusOK, rec.Code, "%s: %s", name, rec.Body.String())
			require.Empty(t, rec.Header().Get("Location"))
			require.Empty(t, rec.Result().Cookies())
			require.Equal(t, []string{"email ana@example.com promotional unsubscribe"}, x.held(), "%s, as often as it likes", name)
			require.Contains(t, rec.Body.String(), "You are unsubscribed")
		}
	}

	got, _ := ends(t, x.App, until(t, x.App, send(t, x.App, map[string]any{"category": promotional}), "status", "sent"))
	require.Equal(t, "skipped suppressed", got[x.ana.Id])
	require.Equal(t, "captured captured", got[ben.Id])
	got, _ = ends(t, x.App, until(t, x.App, send(t, x.App, nil), "status", "sent"))
	require.Equal(t, "captured captured", got[x.ana.Id], "receipts and the like go on")
}

func TestUnsubscribePage(t *testing.T) {
	t.Parallel()
	x := newOptingOut(t)
	x.post(url.Values{"scope": {"category"}})
	require.Equal(t, []string{"email off " + promotional}, x.held())
	require.Contains(t, x.post(url.Values{"scope": {"category"}}), "no more e-mails of the kind")
	require.Equal(t, []string{"email off " + promotional}, x.held(), "twice is once")
	got, _ := ends(t, x.App, until(t, x.App, send(t, x.App, map[string]any{"category": promotional}), "status", "sent"))
	require.Equal(t, "skipped opted_out", got[x.ana.Id])
	other := x.Record(notifications.CollectionCategories, map[string]any{"key": "tips", "name": "Tips", "kind": "promotional"})
	got, _ = ends(t, x.App, until(t, x.App, send(t, x.App, map[string]any{"category": other.Id}), "status", "sent"))
	require.Equal(t, "captured captured", got[x.ana.Id], "only that kind")

	require.Contains(t, x.post(url.Values{"action": {"undo"}}), "You get these e-mails again")
	require.Empty(t, x.held())
	require.Contains(t, x.post(url.Values{"scope": {"all"}}), ">Undo<")
	require.Equal(t, []string{"email ana@example.com promotional unsubscribe"}, x.held())
	require.Contains(t, x.post(url.Values{"action": {"undo"}}), "You get these e-mails again")
	require.Empty(t, x.held())

	// After an hour only the app takes it back, and never what others decided.
	x.post(url.Values{"scope": {"all"}})
	_, err := x.DB().NewQuery("UPDATE notification_suppressions SET created = {:then}").Bind(dbx.Params{"then": time.Now().Add(-2 * time.Hour).UTC().Format("2006-01-02 15:04:05.000Z")}).Execute()
	require.NoError(t, err)
	page := x.post(url.Values{"action": {"undo"}})
	require.NotContains(t, page, ">Undo<")
	require.Contains(t, page, "no more promotional e-mail")
	require.Len(t, x.held(), 1)
	_, err = x.DB().NewQuery("UPDATE notification_suppressions SET reason = 'complaint', created = {:now}").Bind(dbx.Params{"now": time.Now().UTC().Format("2006-01-02 15:04:05.000Z")}).Execute()
	require.NoError(t, err)
	x.post(url.Values{"action": {"undo"}})
	require.Equal(t, []string{"email ana@example.com promotional complaint"}, x.held())
}

func TestUnsubscribeRefusals(t *testing.T) {
	t.Parallel()
	x := newOptingOut(t)
	cut := x.path[:len(x.path)-3]
	other := x.path[:len(x.path)-1] + "A"
	if other == x.path {
		other = x.path[:len(x.path)-1] + "Q"
	}
	for name, tc := range map[string]struct {
		method, path, contentType, body string
		status                          int
		says                            string
	}{
		"cut off":              {http.MethodGet, cut, "", "", http.StatusNotFound, "not complete"},
		"one letter":           {http.MethodPost, other, urlencoded, "List-Unsubscribe=One-Click", http.StatusNotFound, "not complete"},
		"made up":              {http.MethodPost, "/api/unsubscribe/abc", urlencoded, "List-Unsubscribe=One-Click", http.StatusNotFound, "not complete"},
		"no base64":            {http.MethodGet, "/api/unsubscribe/%22%3E%3Cscript%3E", "", "", http.StatusNotFound, "not complete"},
		"nothing said":         {http.MethodPost, x.path, urlencoded, "", http.StatusBadRequest, "Nothing was changed"},
		"in the address":       {http.MethodPost, x.path + "?List-Unsubscribe=One-Click", urlencoded, "", http.StatusBadRequest, "Nothing was changed"},
		"JSON":                 {http.MethodPost, x.path, "application/json", `{"List-Unsubscribe":"One-Click"}`, http.StatusBadRequest, "Nothing was changed"},
		"another word":         {http.MethodPost, x.path, urlencoded, "List-Unsubscribe=yes", http.StatusBadRequest, "Nothing was changed"},
		"a broken form":        {http.MethodPost, x.path, "multipart/form-data", "x", http.StatusBadRequest, "cannot be read"},
		"undo without a cause": {http.MethodPost, x.path, urlencoded, "action=undo", http.StatusOK, "Unsubscribe"},
	} {
		rec := x.ask(tc.method, tc.path, tc.contentType, tc.body, "")
		require.Equal(t, tc.status, rec.Code, "%s: %s", name, rec.Body.String())
		require.Contains(t, rec.Body.String(), tc.says, name)
		require.NotContains(t, rec.Body.String(), "<script")
	}
	require.Equal(t, http.StatusRequestEntityTooLarge, x.ask(http.MethodPost, x.path, urlencoded, strings.Repeat("a", 17<<10), "").Code)
	require.Empty(t, x.held())
}

// A link works for as long as somebody keeps the mail.
func TestUnsubscribeLinksOutliveWhatTheyCameFrom(t *testing.T) {
	t.Parallel()
	x := newOptingOut(t)
	later := pbtest.NewApp(t) // another process with the same key
	reachable(t, later, shopURL)
	y := &optingOut{App: later, t: t, path: x.path}
	require.Contains(t, y.post(url.Values{"List-Unsubscribe": {"One-Click"}}), "You are unsubscribed")
	require.Len(t, y.held(), 1, "no row is needed")
	require.Contains(t, y.held()[0], "email "+notifications.ErasedAddress, "a person whom nobody knows is not written down")

	other := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.Key = strings.Repeat("x", 32) }))
	z := &optingOut{App: other, t: t, path: x.path}
	require.Equal(t, http.StatusNotFound, z.ask(http.MethodGet, x.path, "", "", "").Code)

	// Erased in the meantime: the wish counts when the person comes back.
	require.NoError(t, x.Delete(x.Reload(x.ana)))
	x.post(url.Values{"scope": {"category"}})
	require.Len(t, x.held(), 1)
	require.NotContains(t, x.held()[0], "ana")
	x.post(url.Values{"scope": {"all"}})
	require.Len(t, x.held(), 1)
	again := x.User("ana@example.com")
	got, _ := ends(t, x.App, until(t, x.App, send(t, x.App, map[string]any{"category": promotional}), "status", "sent"))
	require.Equal(t, "skipped suppressed", got[again.Id])
}

// The links grant something, so that no log has them.
func TestUnsubscribeTokensStayOutOfTheLog(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	app := pbtest.NewApp(t, pbtest.WithConfig(assumeConsent), pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = &log }))
	app.Handler()
	app.User("ana@example.com")
	n := until(t, app, send(t, app, map[string]any{"category": promotional}), "status", "sent")
	row := must(app.FindFirstRecordByData(notifications.CollectionDeliveries, "notification", n.Id))
	var rendered struct {
		UnsubscribeURL string `json:"unsubscribeUrl"`
	}
	require.NoError(t, row.UnmarshalJSONField("rendered", &rendered))
	path := strings.TrimPrefix(rendered.UnsubscribeURL, "http://localhost:8090")
	require.Equal(t, http.StatusOK, app.Send(http.MethodGet, path, nil, "").Status)
	require.Equal(t, http.StatusBadRequest, app.Send(http.MethodPost, path, "", "").Status)
	token := path[strings.LastIndex(path, "/")+1:]
	require.Contains(t, log.String(), "POST")
	require.NotContains(t, log.String(), token[len(token)/2:])
	require.NotContains(t, log.String(), token[:len(token)/2])
}

// The link in a test to an address is about that address: whoever tries it must not
// unsubscribe the person whose values the test shows.
func TestTheLinkOfATestIsNotAboutTheSample(t *testing.T) {
	t.Parallel()
	app, smtp := newMailing(t)
	ana := app.User("ana@example.com", map[string]any{"name": "Ana"})
	draft := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Sale, {{ user.name }}", "category": promotional, "channels": []string{"email"}})
	root := app.Token(app.Superuser("second-root@example.com"))
	res := app.Send(http.MethodPost, "/api/notifications/"+draft.Id+"/test", map[string]any{"address": "press@example.com", "sample": ana.Id}, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	row := must(app.FindRecordById(notifications.CollectionDeliveries, res.JSON(t)["deliveries"].([]any)[0].(map[string]any)["id"].(string)))
	until(t, app, row, "status", "accepted")

	path := strings.TrimPrefix(links(t, smtp, "press@example.com")[0], shopURL)
	for _, form := range []string{"scope=category", "scope=all"} {
		req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form))
		req.Header.Set("Content-Type", urlencoded)
		rec := httptest.NewRecorder()
		app.Handler().ServeHTTP(rec, req)
		require.Equal(t, http.StatusOK, rec.Code, rec.Body.String())
		require.Contains(t, rec.Body.String(), "You are unsubscribed")
	}
	for _, collection := range []string{notifications.CollectionPreferences, notifications.CollectionConsents} {
		require.Zero(t, must(app.CountRecords(collection)), "nothing is Ana's wish")
	}
	until(t, app, send(t, app, map[string]any{"category": promotional}), "status", "sent")
	require.Len(t, smtp.To("ana@example.com"), 1)
	res = app.Send(http.MethodPost, "/api/notifications/"+draft.Id+"/test", map[string]any{"address": "press@example.com", "sample": ana.Id}, root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	row = must(app.FindRecordById(notifications.CollectionDeliveries, res.JSON(t)["deliveries"].([]any)[0].(map[string]any)["id"].(string)))
	require.Equal(t, "suppressed", until(t, app, row, "status", "skipped").GetString("reason"))
}
