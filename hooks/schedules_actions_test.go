package hooks_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/schedules"
)

const hookSecret = "a-secret-that-nobody-may-read"

// receiver takes webhooks and keeps a ledger.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	calls  []received
	answer func(n int, w http.ResponseWriter) // nil: 200
}

type received struct {
	path, signature, run, schedule, body string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.calls = append(r.calls, received{req.Method + " " + req.URL.Path, req.Header.Get("X-Groundwork-Signature"), req.Header.Get("X-Groundwork-Run"), req.Header.Get("X-Groundwork-Schedule"), string(body)})
		n, answer := len(r.calls), r.answer
		r.mu.Unlock()
		if answer != nil {
			answer(n, w)
			return
		}
		_, _ = io.WriteString(w, "thanks")
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ledger() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.calls...)
}

func (r *receiver) answers(answer func(n int, w http.ResponseWriter)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) host() string { return strings.TrimPrefix(r.URL, "http://") }

func allow(hosts ...string) pbtest.Option {
	return pbtest.WithConfig(func(c *hooks.Config) { c.WebhookPrivateHosts = hosts })
}

func hookTo(url string) map[string]any {
	return map[string]any{"action": "webhook", "secret": hookSecret, "payload": map[string]any{"url": url, "body": map[string]any{"hello": "wörld <&>", "n": 1234567}}}
}

func TestScheduleCallsAWebhook(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	x := newPlanned(t, allow(r.host()))
	s := x.make(hookTo(r.URL + "/hook#part"))
	x.tick(saturday)
	require.Equal(t, []string{"due ok"}, x.runs(s))
	run := x.rows(s)[0]
	require.Equal(t, r.host()+" answered 200 OK\nthanks", run.GetString("output"))
	calls := r.ledger()
	require.Len(t, calls, 1)
	call := calls[0]
	require.Equal(t, "POST /hook", call.path)
	require.Equal(t, run.Id, call.run)
	require.Equal(t, s.Id, call.schedule)
	require.JSONEq(t, `{"hello": "wörld <&>", "n": 1234567}`, call.body)
	at := fmt.Sprint(saturday.Unix())
	h := hmac.New(sha256.New, []byte(hookSecret))
	h.Write([]byte(at + "." + call.body))
	require.Equal(t, "t="+at+",v1="+hex.EncodeToString(h.Sum(nil)), call.signature)
}

// The secret goes to nobody: not to who reads the row, a log, a job or the database.
func TestScheduleKeepsItsSecret(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.answers(func(_ int, w http.ResponseWriter) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "you sent "+hookSecret)
	})
	r2 := newReceiver(t)
	x := newPlanned(t, allow(r.host(), r2.host()))
	res := x.Send(http.MethodPost, schedulesPath, weekly(hookTo(r.URL)), x.root)
	require.Equal(t, http.StatusOK, res.Status, res.String())
	require.Equal(t, "", res.JSON(t)["secret"])
	id := res.JSON(t)["id"].(string)
	s, err := x.FindRecordById(schedules.Collection, id)
	require.NoError(t, err)
	sealed := s.GetString("secret")
	require.True(t, strings.HasPrefix(sealed, "sealed:"))

	// Empty keeps it, and so does the whole record as the dashboard sends it back.
	for _, body := range []map[string]any{{"name": "N"}, {"secret": ""}, res.JSON(t)} {
		s = x.patch(s, body)
		require.Equal(t, sealed, s.GetString("secret"))
	}
	require.NoError(t, x.Save(x.Reload(s)))
	require.Equal(t, sealed, x.Reload(s).GetString("secret"))
	// Another one's is none here.
	other := x.make(hookTo(r2.URL))
	x.patch(other, map[string]any{"secret": sealed})
	x.tick(saturday)
	require.NotEqual(t, r.ledger()[0].signature, r2.ledger()[0].signature)
	require.Equal(t, "failed", x.Reload(s).GetString("lastStatus"))
	require.Contains(t, x.rows(s)[0].GetString("output"), "you sent [secret]")

	var outputs strings.Builder
	for _, path := range []string{schedulesPath, "/api/collections/schedule_runs/records", schedulesPath + "/" + id, "/api/logs"} {
		outputs.WriteString(x.Send(http.MethodGet, path, nil, x.root).String())
	}
	outputs.WriteString(x.log.String())
	for _, collection := range []string{"schedules", "schedule_runs", "groundwork_outbox"} {
		var rows []dbx.NullStringMap
		require.NoError(t, x.DB().Select("*").From(collection).All(&rows))
		fmt.Fprint(&outputs, rows)
	}
	require.False(t, strings.Contains(outputs.String(), hookSecret))
}

func TestScheduleTriesAWebhookAgain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.answers(func(n int, w http.ResponseWriter) {
		if n < 3 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	x := newPlanned(t, allow(r.host()))
	s := x.make(hookTo(r.URL))
	x.at(saturday)
	x.look()
	require.Eventually(t, func() bool {
		// Time goes by for the server, too.
		if rows := x.rows(s); rows[0].GetString("status") == "queued" && rows[0].GetInt("attempt") > 0 {
			require.Contains(t, rows[0].GetString("error"), "answered 503 Service Unavailable.")
			x.at(rows[0].GetDateTime("retryAt").Time())
		}
		return x.runs(s)[0] == "due ok"
	}, patience, 50*time.Millisecond)
	calls := r.ledger()
	require.Len(t, calls, 3)
	require.Equal(t, calls[0].run, calls[2].run, "they can be told to be one")
	require.NotEqual(t, calls[0].signature, calls[2].signature, "signed anew each time")
	require.Equal(t, 3, x.rows(s)[0].GetInt("attempt"))
	require.Empty(t, x.rows(s)[0].GetString("error"))
	require.Zero(t, x.told())
}

func TestScheduleWebhookAnswers(t *testing.T) {
	t.Parallel()
	elsewhere := newReceiver(t)
	r := newReceiver(t)
	x := newPlanned(t, allow(r.host(), elsewhere.host()))
	for name, tc := range map[string]struct {
		answer func(n int, w http.ResponseWriter)
		error  string
	}{
		"refused": {func(_ int, w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }, r.host() + " answered 403 Forbidden."},
		"moved": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "it sends the call elsewhere, and that is not followed"},
		"gone": {func(_ int, w http.ResponseWriter) { w.WriteHeader(http.StatusGone) }, "answered 410 Gone."},
	} {
		r.answers(tc.answer)
		s := x.make(hookTo(r.URL))
		x.patch(s, map[string]any{"run": "now"})
		x.idle()
		require.Equal(t, "failed", x.Reload(s).GetString("lastStatus"), name)
		require.Contains(t, x.Reload(s).GetString("lastError"), tc.error, name)
		require.Equal(t, 1, x.rows(s)[0].GetInt("attempt"), name)
	}
	require.Empty(t, elsewhere.ledger())

	// A long answer is cut.
	r.answers(func(_ int, w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat("ä", 5000)) })
	s := x.make(hookTo(r.URL))
	x.patch(s, map[string]any{"run": "now"})
	x.idle()
	output := x.rows(s)[0].GetString("output")
	require.Less(t, len(output), 2200)
	require.True(t, strings.HasSuffix(output, "ä…"), output)
}

// A name that leads into a private network is only known when it is looked up: what was
// allowed when it was saved is refused at the call.
func TestScheduleWebhookIntoAPrivateNetwork(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	_, port, err := net.SplitHostPort(r.host())
	require.NoError(t, err)
	x := newPlanned(t)
	s := x.make(hookTo("https://example.com/hook"))
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]"} {
		raw, err := json.Marshal(map[string]any{"url": "https://" + host + ":" + port})
		require.NoError(t, err)
		_, err = x.DB().NewQuery("UPDATE schedules SET payload = {:p} WHERE id = {:id}").Bind(dbx.Params{"p": string(raw), "id": s.Id}).Execute()
		require.NoError(t, err)
		run := core.NewRecord(x.runsCollection())
		run.Load(map[string]any{"schedule": s.Id, "dueAt": x.now(), "cause": "manual", "status": "running"})
		require.NoError(t, x.SaveWithContext(notifications.AsServer(context.Background()), run))
		x.tick(x.now().Add(time.Second))
		require.Equal(t, "failed", x.Reload(run).GetString("status"))
		require.Contains(t, x.Reload(run).GetString("error"), "leads into a private network. Such addresses are not called, unless WEBHOOK_PRIVATE_HOSTS has them.")
	}
	require.Empty(t, r.ledger())
}

func TestScheduleNotificationPayload(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	ana := x.User("ana@example.com", map[string]any{"name": "Ana"})
	x.User("bo@example.com")
	topic := x.Record(notifications.CollectionTopics, map[string]any{"key": "news", "name": "News"})
	x.Record(notifications.CollectionSubscriptions, map[string]any{"topic": topic.Id, "user": ana.Id})
	x.Record(notifications.CollectionTemplates, map[string]any{"key": "weekly", "title": "For {{ user.name }}: {{ what }}"})
	s := x.make(map[string]any{"payload": map[string]any{"template": "weekly", "category": "transactional", "channels": []string{"inbox"}, "audience": "topic", "topics": []string{"news"},
		"variables": map[string]any{"what": "shoes"}, "expiresAfterMinutes": 60, "link": "https://example.com/shoes"}})
	x.tick(saturday)
	require.Equal(t, []string{"due ok"}, x.runs(s))
	inbox, err := x.FindAllRecords(notifications.CollectionInbox)
	require.NoError(t, err)
	require.Len(t, inbox, 1)
	require.Equal(t, "For Ana: shoes", inbox[0].GetString("title"))
	n, err := x.FindRecordById(notifications.CollectionNotifications, inbox[0].GetString("notification"))
	require.NoError(t, err)
	require.Equal(t, saturday.Add(time.Hour), n.GetDateTime("expiresAt").Time())

	// More people than it may go to: nobody gets it, and its owner is told.
	many := x.make(map[string]any{"payload": map[string]any{"title": "T", "channels": []string{"inbox"}, "audience": "everyone", "maxRecipients": 2}})
	x.User("cleo@example.com")
	x.patch(many, map[string]any{"run": "now"})
	x.idle()
	require.Equal(t, `This would go to 3 people, and "maxRecipients" is 2: nothing was sent. If that many are right, raise it in the payload.`, x.Reload(many).GetString("lastError"))
	require.Equal(t, 1, x.told())

	// On people's own clocks.
	for at, want := range map[any]string{true: "2026-12-12 08:00", "20:30": "2026-12-12 20:30", "07:15": "2026-12-13 07:15"} {
		local := x.make(map[string]any{"timezone": "UTC", "cron": "0 8 * * sat", "payload": map[string]any{"title": fmt.Sprint(at), "channels": []string{"inbox"}, "audience": "everyone", "maxRecipients": 9, "localTime": at}})
		x.tick(saturday.AddDate(0, 0, 7))
		require.Equal(t, "ok", x.Reload(local).GetString("lastStatus"), x.Reload(local).GetString("lastError"))
		n, err := x.FindFirstRecordByData(notifications.CollectionNotifications, "title", fmt.Sprint(at))
		require.NoError(t, err)
		require.True(t, n.GetBool("localTime"))
		require.Equal(t, want, n.GetDateTime("sendAt").Time().Format("2006-01-02 15:04"))
		require.NoError(t, x.Delete(x.Reload(local)))
		x.at(saturday.AddDate(0, 0, 1))
	}
}

// A run that made its notification and was killed before it could say so makes no second
// one.
func TestScheduleSendsOnceOverAKill(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	x.User("ana@example.com")
	s := x.make(nil)
	x.tick(saturday)
	run := x.rows(s)[0]
	run.Set("status", "running")
	require.NoError(t, x.SaveWithContext(notifications.AsServer(context.Background()), run))
	x.tick(saturday.Add(time.Minute))
	require.Equal(t, []string{"due ok"}, x.runs(s))
	require.Equal(t, 2, x.Reload(run).GetInt("attempt"))
	n, err := x.CountRecords(notifications.CollectionNotifications)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

func TestSchedulePurges(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	ana, bo := x.User("ana@example.com"), x.User("bo@example.com")
	device := func(token, status string) *core.Record {
		d := x.Record(notifications.CollectionDevices, map[string]any{"user": ana.Id, "platform": "android", "token": token})
		d.Set("status", status)
		require.NoError(t, x.SaveWithContext(notifications.AsServer(context.Background()), d))
		return d
	}
	gone, active := device("gone", "gone"), device("active", "active")
	note := func(title string, change map[string]any) *core.Record {
		fields := map[string]any{"title": title, "body": "B", "channels": []string{"inbox"}, "audience": "users", "users": []string{ana.Id, bo.Id}, "action": "send"}
		for k, v := range change {
			fields[k] = v
		}
		res := x.Send(http.MethodPost, "/api/collections/notifications/records", fields, x.root)
		require.Equal(t, http.StatusOK, res.Status, res.String())
		x.idle()
		n, err := x.FindRecordById(notifications.CollectionNotifications, res.JSON(t)["id"].(string))
		require.NoError(t, err)
		return n
	}
	old := note("old", nil)
	everyone := note("everyone", map[string]any{"audience": "everyone", "users": nil, "confirmRecipients": 2})
	draft := note("draft", map[string]any{"action": ""})
	res := x.Send(http.MethodPost, "/api/collections/users/request-password-reset", map[string]any{"email": "ana@example.com"}, "")
	require.Equal(t, http.StatusNoContent, res.Status)
	x.idle()

	x.at(x.now().AddDate(0, 0, 60))
	fresh := note("new", nil)
	s := x.make(map[string]any{"action": "purge", "payload": map[string]any{"what": []string{"notifications", "account_messages", "devices"}, "olderThanDays": 30}})
	deliveries := func(n *core.Record) int64 {
		count, err := x.CountRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id})
		require.NoError(t, err)
		return count
	}
	require.EqualValues(t, 2, deliveries(old))
	// The rows of devices are as old as the database says.
	for _, d := range []*core.Record{gone, active} {
		_, err := x.DB().NewQuery("UPDATE devices SET updated = '2026-01-01 00:00:00.000Z' WHERE id = {:id}").Bind(dbx.Params{"id": d.Id}).Execute()
		require.NoError(t, err)
	}
	x.patch(s, map[string]any{"run": "now"})
	x.idle()
	require.Equal(t, "ok", x.Reload(s).GetString("lastStatus"), x.Reload(s).GetString("lastError"))
	require.Equal(t, "Deleted 1 notification, 1 account message and 1 device.", x.rows(s)[0].GetString("output"))
	require.Zero(t, deliveries(old))
	require.EqualValues(t, 2, deliveries(fresh))
	for record, there := range map[*core.Record]bool{old: false, gone: false, active: true, everyone: true, draft: true, fresh: true} {
		_, err := x.FindRecordById(record.Collection(), record.Id)
		require.Equal(t, there, err == nil, record.GetString("title")+record.GetString("token"))
	}
	// What people have in their inboxes is theirs.
	inbox, err := x.FindAllRecords(notifications.CollectionInbox, dbx.HashExp{"notification": old.Id})
	require.NoError(t, err)
	require.Len(t, inbox, 2)
}

func TestScheduleMakesBackups(t *testing.T) {
	t.Parallel()
	x := newPlanned(t)
	s := x.make(map[string]any{"action": "backup", "cron": "0 * * * *", "payload": map[string]any{"name": "nightly", "keep": 2}})
	fsys, err := x.NewBackupsFilesystem()
	require.NoError(t, err)
	defer func() { require.NoError(t, fsys.Close()) }()
	require.NoError(t, fsys.Upload([]byte("mine"), "nightly_by_hand.zip"))
	start := x.now()
	for i := 1; i <= 3; i++ {
		x.tick(start.Add(time.Duration(i) * time.Hour))
		require.Equal(t, "ok", x.Reload(s).GetString("lastStatus"), x.Reload(s).GetString("lastError"))
	}
	files, err := fsys.List("")
	require.NoError(t, err)
	var names []string
	for _, f := range files {
		names = append(names, f.Key)
	}
	require.ElementsMatch(t, []string{"nightly_by_hand.zip", "nightly_20261204220000.zip", "nightly_20261204230000.zip"}, names)
	require.Equal(t, "Made nightly_20261204230000.zip. Removed 1 older backup.", x.rows(s)[2].GetString("output"))

	// The clock was ahead, and is set right: the backup that was just made stays.
	x.patch(s, map[string]any{"payload": map[string]any{"name": "nightly", "keep": 1}})
	x.tick(start.AddDate(0, 0, -1).Add(time.Hour))
	x.tick(start.AddDate(0, 0, -1).Add(2 * time.Hour))
	there, err := fsys.Exists("nightly_20261203220000.zip")
	require.NoError(t, err)
	require.True(t, there)
}
