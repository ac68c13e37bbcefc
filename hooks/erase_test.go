package hooks_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/logger"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
	"github.com/groundworkhq/groundwork/internal/seal"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// canary is a text that stands for something about the person who is erased.
func canary(n int) string { return fmt.Sprintf("canary%02dxyz", n) }

const canaries = 24

// life is an app in which Ana has left something everywhere, and Bo too.
type life struct {
	*texting
	root      string
	anasToken string
	orders    *core.Collection
	marks     map[string]bool // one for each request: the log has to have it
}

// request sends one as a client somewhere in the world.
func (l *life) request(method, path string, body []byte, contentType, token string, headers map[string]string) *httptest.ResponseRecorder {
	l.t.Helper()
	req := httptest.NewRequest(method, path, bytes.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", token)
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	req.RemoteAddr = "192.0.2.9:1234"
	if headers["From"] != "" {
		req.RemoteAddr = headers["From"]
	}
	rec := httptest.NewRecorder()
	mark := fmt.Sprintf("mark%dx", len(l.marks))
	if l.marks == nil {
		l.marks = map[string]bool{}
	}
	l.marks[mark] = true
	query := req.URL.Query()
	query.Set("mark", mark)
	req.URL.RawQuery = query.Encode()
	l.Handler().ServeHTTP(rec, req)
	return rec
}

func (l *life) call(method, path string, body any, token string, headers map[string]string) map[string]any {
	l.t.Helper()
	raw, err := json.Marshal(body)
	require.NoError(l.t, err)
	rec := l.request(method, path, raw, "application/json", token, headers)
	require.Less(l.t, rec.Code, 300, "%s %s: %s", method, path, rec.Body)
	var out map[string]any
	_ = json.Unmarshal(rec.Body.Bytes(), &out)
	return out
}

// newLife lets both live. c gives what Ana's values are.
func newLife(t *testing.T, opts ...pbtest.Option) *life {
	t.Helper()
	mails := providertest.NewSMTP(t, providertest.SMTPOptions{})
	l := &life{texting: newTexting(t, opts...)}
	mailProvider(t, l.App, mails.Config("hello@example.com"), "")
	root, err := l.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com")
	require.NoError(t, err)
	l.root = l.Token(root)
	// PocketBase's own log, with everything that it can have about people.
	l.Settings().Logs.MaxDays, l.Settings().Logs.LogIP = 5, true
	t.Cleanup(func() { l.Settings().Logs.MaxDays = 0 })

	l.orders = core.NewBaseCollection("orders")
	l.orders.Fields.Add(
		&core.TextField{Name: "note"}, &core.FileField{Name: "receipt", MaxSelect: 1, Protected: true},
		&core.RelationField{Name: "buyer", CollectionId: "_pb_users_auth_", MaxSelect: 1, CascadeDelete: true},
		&core.RelationField{Name: "seller", CollectionId: "_pb_users_auth_", MaxSelect: 1},
	)
	require.NoError(t, l.Save(l.orders))
	template := l.Record(notifications.CollectionTemplates, map[string]any{"key": "order", "title": "Order", "body": "{{ record.note }}"})
	for _, recipient := range []string{"buyer", "seller"} {
		l.Record(notifications.CollectionTriggers, map[string]any{"name": "Order for " + recipient, "collection": "orders", "event": "created", "template": template.Id,
			"channels": []string{"email", "inbox"}, "recipient": recipient, "enabled": true})
	}
	topic := l.Record(notifications.CollectionTopics, map[string]any{"key": "news", "name": "News", "open": true})

	for _, p := range []struct {
		record *core.Record
		email  string
		phone  string
		c      func(n int) string
		from   string
	}{
		{l.User("bo@example.com", map[string]any{"phone": "+15005550002"}), "bo@example.com", "+15005550002", func(n int) string { return fmt.Sprintf("bonary%02dxyz", n) }, "198.51.100.7:99"},
		{l.ana, canary(1) + "@" + canary(2) + ".example.com", anasPhone, canary, "203.0.113.77:99"},
	} {
		l.person(p.record, p.email, p.phone, p.c, p.from, topic)
	}
	l.settle()
	return l
}

// person leaves a trace everywhere, by the ways that people and owners go.
func (l *life) person(who *core.Record, email, phone string, c func(n int) string, from string, topic *core.Record) {
	t := l.t
	t.Helper()
	who = l.Reload(who)
	who.SetEmail(email)
	who.Set("name", c(3)+" Person")
	require.NoError(t, l.Save(who))
	agent := map[string]string{"User-Agent": c(4) + "/1.0", "X-Request-Id": c(5) + "-request", "From": from}
	token := l.call(http.MethodPost, "/api/collections/users/auth-with-password", map[string]any{"identity": email, "password": pbtest.Password}, "", agent)["token"].(string)
	if who.Id == l.ana.Id {
		l.anasToken = token
	}

	// Files: an avatar and a protected one.
	upload := func(method, path, field string, fields map[string]string, name, content string) map[string]any {
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		for k, v := range fields {
			require.NoError(t, form.WriteField(k, v))
		}
		file, err := form.CreateFormFile(field, name)
		require.NoError(t, err)
		_, err = file.Write([]byte(content))
		require.NoError(t, err)
		require.NoError(t, form.Close())
		rec := l.request(method, path, body.Bytes(), form.FormDataContentType(), l.root, nil)
		require.Less(t, rec.Code, 300, rec.Body)
		var out map[string]any
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &out))
		return out
	}
	upload(http.MethodPatch, "/api/collections/users/records/"+who.Id, "avatar", nil, c(6)+".svg", "<svg xmlns='http://www.w3.org/2000/svg'>"+c(7)+"</svg>")
	order := l.Record("orders", map[string]any{"buyer": who.Id, "note": c(8)}) // by trigger: mail, inbox, variables
	upload(http.MethodPatch, "/api/collections/orders/records/"+order.Id, "receipt", nil, c(9)+".txt", c(10))

	device := l.call(http.MethodPost, devicesPath, map[string]any{"platform": "android", "token": c(11) + strings.Repeat("t", 40), "model": c(12)}, token, agent)
	// It was somebody else's before: a row of the moves.
	_, err := l.NonconcurrentDB().Insert("groundwork_device_moves", dbx.Params{"tokenHash": "x", "fromUser": who.Id, "toUser": who.Id, "counted": 0, "movedAt": time.Now().UnixMilli()}).Execute()
	require.NoError(t, err)
	require.NotEmpty(t, device["id"])
	l.Record(notifications.CollectionSubscriptions, map[string]any{"topic": topic.Id, "user": who.Id})
	// Quiet hours that are far away, whatever time it is: what is sent below waits for none.
	far := time.Now().UTC().Add(12 * time.Hour)
	l.call(http.MethodPost, "/api/collections/notification_preferences/records", map[string]any{"channel": "email", "enabled": true,
		"quietFrom": far.Format("15:04"), "quietTo": far.Add(time.Hour).Format("15:04")}, token, agent)

	// To this person alone, on every channel; then to everybody, with their name.
	alone := l.Record(notifications.CollectionNotifications, map[string]any{"title": c(13), "body": c(14) + " {{ user.name }}", "data": map[string]any{"k": c(15)},
		"variables": map[string]any{"v": c(16)}, "link": "https://example.com/" + c(17), "action": "send", "audience": "users", "users": []string{who.Id},
		"channels": []string{"email", "inbox", "push", "sms"}})
	require.True(t, waitFor(func() bool { return l.Reload(alone).GetString("finishedAt") != "" }), "%v", l.Reload(alone))
	send(t, l.App, map[string]any{"title": "To all, {{ user.name }}", "channels": []string{"inbox", "email"}})

	// Account mails, a code by SMS, a STOP.
	l.call(http.MethodPost, "/api/collections/users/request-password-reset", map[string]any{"email": email}, "", agent)
	l.inbound(providertest.TwilioInbound{From: phone, To: offersSender, Body: "STOP", SID: "SM" + c(18) + strings.Repeat("0", 20)})
	for table, fields := range map[string]dbx.Params{
		"_externalAuths": {"provider": "google", "providerId": c(19)},
		"_otps":          {"password": "x", "sentTo": c(20) + "@example.com"},
		"_mfas":          {"method": "password"},
		"_authOrigins":   {"fingerprint": c(21)},
	} {
		now := time.Now().UTC().Format("2006-01-02 15:04:05.000Z")
		for k, v := range map[string]any{"id": core.GenerateDefaultRandomId(), "collectionRef": "_pb_users_auth_", "recordRef": who.Id, "created": now, "updated": now} {
			fields[k] = v
		}
		if table == "_authOrigins" {
			fields["id"] = core.GenerateDefaultRandomId()
		}
		_, err := l.NonconcurrentDB().Insert(table, fields).Execute()
		require.NoError(t, err, table)
	}

	// What an application logs, and requests about the person by others.
	l.Logger().Error("payment failed", "customer", who.Id, "mail", email, "note", c(3)+" Person")
	l.call(http.MethodGet, "/api/collections/orders/records?x="+who.Id, nil, l.root, map[string]string{"Referer": "https://example.com/" + who.Id})
	l.call(http.MethodGet, "/api/collections/users/records?filter=name%3D%22"+c(22)+"%22", nil, token, agent)
	l.call(http.MethodGet, "/api/collections/users/records/"+who.Id, nil, l.root, nil)
}

// settle waits until nothing is on its way and the logs are stored.
func (l *life) settle() {
	l.t.Helper()
	triggered(l.t, l.App)
	// PocketBase hands a request to its log from a goroutine.
	require.True(l.t, waitFor(func() bool {
		l.flushLogs()
		logged := map[string]bool{}
		var rows []string
		require.NoError(l.t, l.AuxConcurrentDB().Select("data").From("_logs").Column(&rows))
		for _, row := range rows {
			for mark := range l.marks {
				logged[mark] = logged[mark] || strings.Contains(row, mark)
			}
		}
		return len(logged) == len(l.marks) && !slices.Contains(slices.Collect(maps.Values(logged)), false)
	}))
}

func (l *life) flushLogs() {
	l.t.Helper()
	h, ok := l.Logger().Handler().(*logger.BatchHandler)
	require.True(l.t, ok)
	require.NoError(l.t, h.WriteAll(context.WithValue(context.Background(), logger.BlockKey, true)))
}

// failedJob stores one that failed with a sentence about somebody, as River does.
func (l *life) failedJob(kind, args, failure string) {
	l.t.Helper()
	l.jobs(func(db *sql.DB) {
		_, err := db.Exec(`INSERT INTO river_job (kind, args, attempt, max_attempts, queue, state, finalized_at, errors, metadata, tags)
			VALUES (?, jsonb(?), 1, 1, 'default', 'discarded', datetime('now'), jsonb(?), jsonb('{}'), jsonb('[]'))`,
			kind, args, `[{"at":"2026-01-01T00:00:00Z","attempt":1,"error":"`+failure+`","trace":""}]`)
		require.NoError(l.t, err)
	})
}

func (l *life) jobs(do func(db *sql.DB)) {
	l.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(l.DataDir(), jobs.FileName)+"?_pragma=busy_timeout(10000)")
	require.NoError(l.t, err)
	do(db)
	require.NoError(l.t, db.Close())
}

// everything is all rows of all tables of the three databases, as JSON.
func (l *life) everything() map[string][]string {
	l.t.Helper()
	all := map[string][]string{}
	for _, name := range []string{"data.db", "auxiliary.db", jobs.FileName} {
		db, err := sql.Open("sqlite", filepath.Join(l.DataDir(), name)+"?_pragma=busy_timeout(10000)")
		require.NoError(l.t, err)
		tables := column(l.t, db, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
		for _, table := range tables {
			rows, err := db.Query(`SELECT * FROM "` + table + `"`)
			require.NoError(l.t, err)
			defer func() { _ = rows.Close() }() // read to its end below
			columns, err := rows.Columns()
			require.NoError(l.t, err)
			for rows.Next() {
				values := make([]any, len(columns))
				for i := range values {
					values[i] = new(any)
				}
				require.NoError(l.t, rows.Scan(values...))
				var line strings.Builder
				for i, v := range values {
					fmt.Fprintf(&line, "%s=%s ", columns[i], show(*v.(*any)))
				}
				all[name+"/"+table] = append(all[name+"/"+table], line.String())
			}
			require.NoError(l.t, rows.Err())
		}
		require.NoError(l.t, db.Close())
	}
	return all
}

func show(v any) string {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	return fmt.Sprint(v)
}

func column(t *testing.T, db *sql.DB, query string) []string {
	t.Helper()
	rows, err := db.Query(query)
	require.NoError(t, err)
	defer rows.Close()
	var all []string
	for rows.Next() {
		var v string
		require.NoError(t, rows.Scan(&v))
		all = append(all, v)
	}
	require.NoError(t, rows.Err())
	return all
}

// find returns where texts are: rows of tables, and files byte by byte.
func (l *life) find(texts ...string) []string {
	l.t.Helper()
	var found []string
	for table, rows := range l.everything() {
		for _, row := range rows {
			for _, text := range texts {
				if strings.Contains(strings.ToLower(row), strings.ToLower(text)) {
					found = append(found, text+" in "+table+": "+row[:min(len(row), 300)])
				}
			}
		}
	}
	require.NoError(l.t, filepath.WalkDir(l.DataDir(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		for _, text := range texts {
			if strings.Contains(path, text) {
				found = append(found, text+" in the name "+path)
			}
		}
		// By another process: closing a file of SQLite's drops the locks that this one
		// holds on it.
		raw, err := exec.Command("cat", path).Output()
		if err != nil {
			return err
		}
		raw = bytes.ToLower(raw)
		for _, text := range texts {
			if bytes.Contains(raw, []byte(strings.ToLower(text))) {
				found = append(found, text+" in the bytes of "+entry.Name())
			}
		}
		return nil
	}))
	sort.Strings(found)
	return found
}

// anas are all texts that stand for Ana.
func (l *life) anas() []string {
	texts := []string{l.ana.Id, anasPhone, "203.0.113.77"}
	for n := range canaries {
		texts = append(texts, canary(n))
	}
	return texts
}

var whenUpdated = regexp.MustCompile(`(updated|lastSeenAt)=\S+ \S+`)

// bos are the rows that name Bo.
func (l *life) bos() map[string][]string {
	all := map[string][]string{}
	bo, err := l.FindAuthRecordByEmail("users", "bo@example.com")
	require.NoError(l.t, err)
	for table, rows := range l.everything() {
		for _, row := range rows {
			if strings.Contains(row, bo.Id) || strings.Contains(row, "bonary") {
				if table == "data.db/notifications" || table == "data.db/sessions" {
					row = whenUpdated.ReplaceAllString(row, "") // a last recount, and when somebody was last seen, come when they come
				}
				all[table] = append(all[table], row)
			}
		}
		sort.Strings(all[table])
	}
	return all
}

// erased waits until a receipt says so.
func (l *life) erased(receipt string) *core.Record {
	l.t.Helper()
	var r *core.Record
	require.True(l.t, waitFor(func() bool {
		var err error
		r, err = l.FindRecordById(accounts.CollectionErasures, receipt)
		return err == nil && r.GetString("status") == accounts.ErasureDone
	}), "%v", r)
	return r
}

func TestEraseLeavesNothing(t *testing.T) {
	t.Parallel()
	l := newLife(t)
	l.failedJob("notification.trigger", `{"trigger":"t","event":"created","collection":"c","record":"r","user":"`+l.ana.Id+`"}`, canary(23))
	l.failedJob("notification.plan", `{"notification":"somebodyelses"}`, "no mailbox "+canary(1)+"@"+canary(2)+".example.com here")
	l.failedJob("app.export", `{"user":"`+l.ana.Id+`"}`, "disk full")

	// They are there, in all databases and files.
	where := strings.Join(l.find(l.anas()...), "\n")
	for _, text := range l.anas() {
		if text != canary(0) && text != canary(18) { // none of the person's; a message id is stored as its hash
			require.True(t, strings.Contains(where, text), "%s was planted", text)
		}
	}
	for _, place := range []string{"data.db/", "auxiliary.db/_logs", "jobs.db/river_job", "bytes of data.db", ".svg", ".txt"} {
		require.True(t, strings.Contains(where, place), "nothing is in %s", place)
	}
	before, counts := l.bos(), l.countsOfNotifications()

	res := l.Send(http.MethodDelete, "/api/account", nil, l.anasToken)
	require.Equal(t, http.StatusAccepted, res.Status, res)
	receipt := l.erased(res.JSON(t)["erasure"].(string))
	require.Equal(t, "self", receipt.GetString("origin"))
	for _, what := range []string{`"users":1`, `"devices":1`, `"orders":1`, `"deliveries":`} {
		require.Contains(t, receipt.GetString("counts"), what)
	}
	// What was under way meanwhile says something about her.
	l.Logger().Error("late", "type", "request", "authId", l.ana.Id, "url", "/"+canary(1))
	l.Logger().Error("late", "type", "request", "auth", "users", "userIP", "203.0.113.77", "url", "/"+canary(1))
	l.Logger().Error("late mail to "+canary(1)+"@"+canary(2)+".example.com", "to", l.ana.Id)
	l.flushLogs()

	require.Empty(t, l.find(l.anas()...))
	require.Equal(t, counts, l.countsOfNotifications())
	require.Equal(t, http.StatusUnauthorized, l.Send(http.MethodGet, devicesPath, nil, l.anasToken).Status)

	after := l.bos()
	for table, rows := range before {
		require.Equal(t, rows, after[table], table)
	}

	// The STOP holds, also for the next person with the number.
	again := l.User("new@example.com", map[string]any{"phone": anasPhone})
	n := send(t, l.App, map[string]any{"channels": []string{"sms"}, "audience": "users", "users": []string{again.Id}, "category": l.category("promotional")})
	until(t, l.App, n, "skipped", "1")
	d := deliveryOf(t, l.App, n, again)
	require.Equal(t, notifications.ReasonSuppressed, d.GetString("reason"))
	// And a START ends it, for who agrees.
	agree(l.App, again, "sms")
	l.inbound(providertest.TwilioInbound{From: anasPhone, To: offersSender, Body: "START"})
	n = send(t, l.App, map[string]any{"channels": []string{"sms"}, "audience": "users", "users": []string{again.Id}, "category": l.category("promotional")})
	until(t, l.App, n, "sent", "1")
}

func (l *life) countsOfNotifications() map[string]notifications.Counts {
	l.t.Helper()
	all := map[string]notifications.Counts{}
	for _, n := range mustFind(l.t, l.App, notifications.CollectionNotifications) {
		counts, err := notifications.FindCounts(l.App, n.Id)
		require.NoError(l.t, err)
		all[n.Id] = counts
		require.EqualValues(l.t, counts.Total, n.GetInt("total"))
	}
	return all
}

func TestWhoMayEraseAndExport(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	ana, root := app.User("ana@example.com"), app.Superuser("root@example.com")
	fresh, rootToken := signIn(t, app, ana), signIn(t, app, root)
	old := signIn(t, app, ana)
	sessions, err := app.FindCollectionByNameOrId(accounts.CollectionSessions)
	require.NoError(t, err)
	_, err = app.NonconcurrentDB().Update(sessions.Name, dbx.Params{"created": time.Now().Add(-11 * time.Minute).UTC().Format("2006-01-02 15:04:05.000Z")},
		dbx.HashExp{"id": sessionID(t, old)}).Execute()
	require.NoError(t, err)
	impersonated := app.Send(http.MethodPost, "/api/collections/users/impersonate/"+ana.Id, nil, rootToken).JSON(t)["token"].(string)
	refreshed := app.Send(http.MethodPost, "/api/collections/users/auth-refresh", nil, old).JSON(t)["token"].(string)

	for _, way := range []struct{ method, path string }{{http.MethodGet, "/api/account/export"}, {http.MethodDelete, "/api/account"}} {
		for _, who := range []struct {
			name, token string
			status      int
			says        string
		}{
			{"guest", "", http.StatusUnauthorized, "Sign in first"},
			{"superuser", rootToken, http.StatusForbidden, "own accounts"},
			{"signed in long ago", old, http.StatusForbidden, "sign in again first"},
			{"refreshed since", refreshed, http.StatusForbidden, "sign in again first"},
			{"impersonated", impersonated, http.StatusForbidden, "sign in again first"},
			{"without a session", app.Token(ana), http.StatusForbidden, "sign in again first"},
		} {
			res := app.Send(way.method, way.path, nil, who.token)
			require.Equal(t, who.status, res.Status, "%s as %s: %s", way.path, who.name, res)
			require.Contains(t, res.JSON(t)["message"], who.says, who.name)
		}
	}
	require.Equal(t, "Ana", app.Send(http.MethodPatch, "/api/collections/users/records/"+ana.Id, map[string]any{"name": "Ana"}, fresh).JSON(t)["name"])
	require.Equal(t, http.StatusOK, app.Send(http.MethodGet, "/api/account/export", nil, fresh).Status)
	require.Equal(t, http.StatusAccepted, app.Send(http.MethodDelete, "/api/account", nil, fresh).Status)
	require.Equal(t, http.StatusUnauthorized, app.Send(http.MethodDelete, "/api/account", nil, fresh).Status)
}

// A token from before sessions gets one when it is refreshed. That is no sign-in: a
// stolen one must not be enough for this.
func TestARenewedTokenIsNoSignInOfNow(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	res := app.Send(http.MethodPost, "/api/collections/users/auth-refresh", nil, app.Token(ana))
	require.Equal(t, http.StatusOK, res.Status, res)
	renewed := res.JSON(t)["token"].(string)
	require.Len(t, list(t, app, sessionsPath+"?filter=(kind='sign_in')", renewed), 1)
	for _, way := range []struct{ method, path string }{{http.MethodGet, "/api/account/export"}, {http.MethodDelete, "/api/account"}} {
		res := app.Send(way.method, way.path, nil, renewed)
		require.Equal(t, http.StatusForbidden, res.Status, "%s: %s", way.path, res)
		require.Contains(t, res.String(), "sign_in_again")
	}
	require.Equal(t, http.StatusOK, app.Send(http.MethodGet, "/api/account/export", nil, signIn(t, app, ana)).Status)
}

// A command deletes accounts too, and serves nothing.
func TestACommandForgetsAddresses(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	box, err := seal.New([]byte(strings.Repeat("k", seal.MinKeyLength)))
	require.NoError(t, err)
	secret, err := box.Key("rate limits")
	require.NoError(t, err)
	server, err := ratelimit.New(ratelimit.Options{Secret: secret})
	require.NoError(t, err)
	require.NoError(t, server.Open(app))
	account := server.Account(ana.Collection().Id, ana.Id)
	require.NoError(t, server.Remember(t.Context(), account, "198.51.100.7"))

	receipt, err := hooks.EraseAccount(app, ana, accounts.OriginCommand)
	require.NoError(t, err)
	require.NoError(t, hooks.RunErasures(t.Context(), app))
	require.Equal(t, accounts.ErasureDone, mustRecord(t, app, accounts.CollectionErasures, receipt).GetString("status"))
	require.False(t, server.Knows(t.Context(), account, "198.51.100.7"))
}

// Whoever deletes the record, the person is erased.
func TestEveryDeletionErases(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	root := app.Token(app.Superuser("root@example.com"))
	staff := core.NewAuthCollection("staff")
	require.NoError(t, app.Save(staff))

	for name, remove := range map[string]func(r *core.Record) (origin string){
		"the dashboard": func(r *core.Record) string {
			require.Equal(t, http.StatusNoContent, app.Send(http.MethodDelete, "/api/collections/"+r.Collection().Name+"/records/"+r.Id, nil, root).Status)
			return "deletion"
		},
		"the person, by an SDK": func(r *core.Record) string {
			if r.Collection().Id == staff.Id {
				return "" // its rules let nobody
			}
			require.Equal(t, http.StatusNoContent, app.Send(http.MethodDelete, "/api/collections/users/records/"+r.Id, nil, app.Token(r)).Status)
			return "deletion"
		},
		"Go code": func(r *core.Record) string {
			require.NoError(t, app.Delete(r))
			return "deletion"
		},
		"Go code, which knows only the id": func(r *core.Record) string {
			other := core.NewRecord(r.Collection())
			other.Id = r.Id
			other.MarkAsNotNew()
			require.NoError(t, app.Delete(other))
			return "deletion"
		},
		"the erase route": func(r *core.Record) string {
			require.Equal(t, http.StatusAccepted, app.Send(http.MethodPost, "/api/accounts/"+r.Collection().Name+"/"+r.Id+"/erase", nil, root).Status)
			return "superuser"
		},
	} {
		for _, collection := range []string{"users", "staff"} {
			c, err := app.FindCollectionByNameOrId(collection)
			require.NoError(t, err)
			r := core.NewRecord(c)
			r.SetEmail("gone@example.com")
			r.SetPassword(pbtest.Password)
			require.NoError(t, app.Save(r))
			mail := app.Send(http.MethodPost, "/api/collections/"+collection+"/request-password-reset", map[string]any{"email": "gone@example.com"}, "")
			require.Equal(t, http.StatusNoContent, mail.Status, mail)
			before, err := app.CountRecords(accounts.CollectionErasures)
			require.NoError(t, err)
			origin := remove(r)
			if origin == "" {
				require.NoError(t, app.Delete(r))
				continue
			}
			receipts, err := app.FindRecordsByFilter(accounts.CollectionErasures, "origin = {:origin} && collection = {:c}", "-created", 0, 0, dbx.Params{"origin": origin, "c": collection})
			require.NoError(t, err)
			require.NotEmpty(t, receipts, name)
			after, err := app.CountRecords(accounts.CollectionErasures)
			require.NoError(t, err)
			require.Equal(t, before+1, after, "%s: one receipt", name)
			require.True(t, waitFor(func() bool {
				n, err := app.CountRecords(notifications.CollectionDeliveries, dbx.HashExp{"user": r.Id})
				return err == nil && n == 0
			}), "%s of %s", name, collection)
		}
	}
}

// An account that something needs stays, and nothing of it is erased.
func TestRefusedDeletionErasesNothing(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	contracts := core.NewBaseCollection("contracts")
	contracts.Fields.Add(&core.RelationField{Name: "party", CollectionId: "_pb_users_auth_", MaxSelect: 1, Required: true},
		&core.RelationField{Name: "witnesses", CollectionId: "_pb_users_auth_", MaxSelect: 5, Required: true})
	require.NoError(t, app.Save(contracts))
	ana := app.User("ana@example.com")
	bo := app.User("bo@example.com")
	app.Record("contracts", map[string]any{"party": ana.Id, "witnesses": []string{bo.Id}})
	app.Record("contracts", map[string]any{"party": bo.Id, "witnesses": []string{ana.Id}})
	app.Record("contracts", map[string]any{"party": bo.Id, "witnesses": []string{bo.Id, ana.Id}}) // has another one
	app.Record(notifications.CollectionInbox, map[string]any{"user": ana.Id, "title": "Hello"})

	res := app.Send(http.MethodDelete, "/api/account", nil, signIn(t, app, ana))
	require.Equal(t, http.StatusBadRequest, res.Status, res)
	require.Contains(t, res.JSON(t)["message"], "other records need it")
	require.NotContains(t, res.String(), "contracts", "people are not told what there is")
	res = app.Send(http.MethodPost, "/api/accounts/users/"+ana.Id+"/erase", nil, app.Token(app.Superuser("root@example.com")))
	require.Equal(t, http.StatusBadRequest, res.Status, res)
	require.Contains(t, res.JSON(t)["message"], "Delete or change these first: contracts (2).")
	for collection, n := range map[string]int64{accounts.CollectionErasures: 0, notifications.CollectionInbox: 1, "users": 2, accounts.CollectionSessions: 1} {
		count, err := app.CountRecords(collection)
		require.NoError(t, err)
		require.Equal(t, n, count, collection)
	}
	var sealed int
	require.NoError(t, app.DB().Select("count(*)").From("groundwork_sealed").Where(dbx.HashExp{"purpose": "erasure"}).Row(&sealed))
	require.Zero(t, sealed)
}

// What others were told about a person stays with them, without the person; what
// the server kept of the record to tell it goes.
func TestEraseInWhatOthersWereTold(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	orders := core.NewBaseCollection("orders")
	orders.Fields.Add(&core.TextField{Name: "note"}, &core.TextField{Name: "name"},
		&core.RelationField{Name: "buyer", CollectionId: "_pb_users_auth_", MaxSelect: 1, CascadeDelete: true},
		&core.RelationField{Name: "seller", CollectionId: "_pb_users_auth_", MaxSelect: 1})
	require.NoError(t, app.Save(orders))
	for event, body := range map[string]string{"created": "{{ record.name }} ordered {{ record.note }}", "deleted": "No more: {{ record.name }}"} {
		template := app.Record(notifications.CollectionTemplates, map[string]any{"key": event, "title": "Order", "body": body})
		app.Record(notifications.CollectionTriggers, map[string]any{"name": event, "collection": "orders", "event": event, "template": template.Id,
			"channels": []string{"email", "inbox"}, "recipient": "seller", "enabled": true})
	}
	ana, bo := app.User("ana@example.com", map[string]any{"name": "Ana Canary"}), app.User("bo@example.com")
	app.Record("orders", map[string]any{"buyer": ana.Id, "seller": bo.Id, "name": "Ana Canary", "note": "a secret gift"})
	require.Len(t, triggered(t, app), 1)

	receipt, err := hooks.EraseAccount(app, ana, accounts.OriginCommand)
	require.NoError(t, err)
	until(t, app, mustRecord(t, app, accounts.CollectionErasures, receipt), "status", accounts.ErasureDone)
	require.Len(t, triggered(t, app), 2)

	texts := []string{}
	for _, r := range mustFind(t, app, notifications.CollectionInbox) {
		require.Equal(t, bo.Id, r.GetString("user"))
		texts = append(texts, r.GetString("body"))
	}
	require.ElementsMatch(t, []string{accounts.Erased + " ordered a secret gift", "No more: " + accounts.Erased}, texts)
	for _, n := range mustFind(t, app, notifications.CollectionNotifications) {
		require.NotContains(t, n.GetString("variables")+n.GetString("content"), "Ana Canary")
		if trigger, err := app.FindFirstRecordByData(notifications.CollectionTriggers, "name", "created"); err == nil && n.GetString("trigger") == trigger.Id {
			require.NotContains(t, n.GetString("variables")+n.GetString("content"), "gift", "what was kept of the order goes")
			require.Empty(t, n.GetString("sourceRecord"))
			_, err := notifications.RetryFailed(app, n.Id, time.Now())
			sentence, refused := notifications.IsRefused(err)
			require.True(t, refused)
			require.Contains(t, sentence, "erased")
		}
	}
}

func mustRecord(t *testing.T, app *pbtest.App, collection, id string) *core.Record {
	t.Helper()
	r, err := app.FindRecordById(collection, id)
	require.NoError(t, err)
	return r
}

// What people call themselves, and their devices, decides about nobody else's messages.
func TestErasureLeavesTheJobsOfOthers(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	later := jobs.Options{RunAt: time.Now().Add(24 * time.Hour)}
	for _, args := range []jobs.Args{notifications.PlanArgs{Notification: "somebodyelses00"}, jobs.Named("app.mail", json.RawMessage(`{"template":"welcome","to":"bo"}`))} {
		_, err := jobs.Enqueue(app, args, later)
		require.NoError(t, err)
	}
	stored := func() (args []string) {
		_, _, err := jobs.Sweep(t.Context(), app, func(job jobs.Stored) jobs.Change {
			if job.Kind == (notifications.PlanArgs{}).Kind() || job.Kind == "app.mail" {
				args = append(args, strings.ReplaceAll(string(job.Args), " ", ""))
			}
			return jobs.Change{}
		})
		require.NoError(t, err)
		slices.Sort(args)
		return slices.Compact(args) // the outbox is read twice
	}
	before := stored()
	require.Len(t, before, 2)

	ana := app.User("ana@example.com", map[string]any{"name": "notification", "id": "somebodyelses00"})
	app.Record(notifications.CollectionDevices, map[string]any{"user": ana.Id, "platform": "android", "token": "template"})
	receipt, err := hooks.EraseAccount(app, ana, accounts.OriginCommand)
	require.NoError(t, err)
	until(t, app, mustRecord(t, app, accounts.CollectionErasures, receipt), "status", accounts.ErasureDone)
	require.Equal(t, before, stored())
}

// Nothing names the person in a message about their own deletion.
func TestTriggerOnDeletedAccount(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	users.Fields.Add(&core.RelationField{Name: "boss", CollectionId: users.Id, MaxSelect: 1})
	require.NoError(t, app.Save(users))
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "left", "title": "Somebody left", "body": "Who: {{ record.name }}."})
	app.Record(notifications.CollectionTriggers, map[string]any{"name": "left", "collection": "users", "event": "deleted", "template": template.Id,
		"channels": []string{"inbox"}, "recipient": "boss", "enabled": true})
	boss := app.User("boss@example.com")
	ana := app.User("ana@example.com", map[string]any{"name": "Ana", "boss": boss.Id})
	require.NoError(t, app.Delete(ana))
	require.Len(t, triggered(t, app), 1)
	inbox := mustFind(t, app, notifications.CollectionInbox)
	require.Len(t, inbox, 1)
	require.Equal(t, "Who: .", inbox[0].GetString("body"))
}

// A notification to several people goes on to the others.
func TestEraseWhileSomethingWaits(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	ana, bo := app.User("ana@example.com"), app.User("bo@example.com")
	n := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hi", "body": "Hello", "audience": "users", "users": []string{ana.Id, bo.Id},
		"channels": []string{"inbox"}, "action": "send", "sendAt": time.Now().Add(time.Hour)})
	draft := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Dear Ana", "audience": "users", "users": []string{ana.Id}})
	// Planned, and not rows yet.
	_, err := app.NonconcurrentDB().Insert("groundwork_batches", dbx.Params{"notification": n.Id, "batch": 1, "channel": "inbox", "users": `["` + ana.Id + `","` + bo.Id + `"]`, "planned": 2}).Execute()
	require.NoError(t, err)
	pending := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Held", "audience": "everyone"})
	held := core.NewRecord(mustCollection(t, app, notifications.CollectionDeliveries))
	held.Load(map[string]any{"notification": pending.Id, "user": ana.Id, "target": ana.Id, "channel": "email", "status": "pending", "address": "a…@example.com"})
	require.NoError(t, app.SaveWithContext(notifications.AsServer(t.Context()), held))

	require.NoError(t, app.Delete(app.Reload(ana)))
	require.True(t, waitFor(func() bool {
		open, err := app.CountRecords(accounts.CollectionErasures, dbx.Not(dbx.HashExp{"status": accounts.ErasureDone}))
		return err == nil && open == 0
	}))
	require.Equal(t, []string{bo.Id}, app.Reload(n).GetStringSlice("users"))
	require.Equal(t, "scheduled", app.Reload(n).GetString("status"))
	require.Empty(t, app.Reload(draft).GetString("title"))
	var batch struct {
		Users   string `db:"users"`
		Planned int    `db:"planned"`
	}
	require.NoError(t, app.DB().Select("users", "planned").From("groundwork_batches").One(&batch))
	require.Equal(t, `["`+bo.Id+`"]`, batch.Users)
	require.Equal(t, 1, batch.Planned)
	deliveries := mustFind(t, app, notifications.CollectionDeliveries)
	require.Len(t, deliveries, 1)
	require.Equal(t, "skipped", deliveries[0].GetString("status"))
	require.Equal(t, notifications.ReasonRecipientGone, deliveries[0].GetString("reason"))
	require.NotEqual(t, held.Id, deliveries[0].Id, "a provider was given the old id")
	require.Equal(t, 1, app.Reload(pending).GetInt("skipped"))
	_, err = notifications.ResendDelivery(app, deliveries[0].Id, time.Now())
	sentence, _ := notifications.IsRefused(err)
	require.Contains(t, sentence, "erased")
}

func mustCollection(t *testing.T, app *pbtest.App, id string) *core.Collection {
	t.Helper()
	c, err := app.FindCollectionByNameOrId(id)
	require.NoError(t, err)
	return c
}
