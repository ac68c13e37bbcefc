package hooks_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

const (
	inboxPath   = "/api/collections/notification_inbox/records"
	unreadPath  = "/api/notifications/unread"
	readAllPath = "/api/notifications/read-all"
)

// toEveryone sends a message to everyone's inbox and waits for its end.
func toEveryone(t *testing.T, app *pbtest.App, fields map[string]any) *core.Record {
	t.Helper()
	body := map[string]any{"channels": []string{"inbox"}}
	for k, v := range fields {
		body[k] = v
	}
	return until(t, app, send(t, app, body), "status", "sent")
}

func unreadOf(t *testing.T, app *pbtest.App, token string) int {
	t.Helper()
	res := app.Send(http.MethodGet, unreadPath, nil, token)
	requireStatus(t, http.StatusOK, res)
	n, err := strconv.Atoi(fmt.Sprint(res.JSON(t)["unread"]))
	require.NoError(t, err)
	return n
}

// titles are those of the messages that a client sees, in its order.
func titles(t *testing.T, app *pbtest.App, query, token string) []string {
	t.Helper()
	out := []string{}
	for _, item := range list(t, app, inboxPath+query, token) {
		out = append(out, item["title"].(string))
	}
	return out
}

// rows counts the rows of a table.
func rows(t *testing.T, app core.App, table string) (n int) {
	t.Helper()
	require.NoError(t, app.DB().Select("COUNT(*)").From(table).Row(&n))
	return n
}

func TestUnreadMessages(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana, bo := app.User("ana@example.com"), app.User("bo@example.com")
	tokens := map[string]string{"guest": "", "other": app.Token(bo), "owner": app.Token(ana), "superuser": app.Token(app.Superuser("root@example.com"))}
	for i := range 3 {
		app.Record(notifications.CollectionInbox, map[string]any{"user": ana.Id, "title": strconv.Itoa(i)})
	}
	app.Record(notifications.CollectionInbox, map[string]any{"user": bo.Id, "title": "For Bo"})
	app.Record(notifications.CollectionInbox, map[string]any{"user": ana.Id, "title": "Old", "readAt": "2026-01-01 00:00:00.000Z"})

	for who, want := range map[string]struct {
		status int
		unread int
	}{"guest": {401, 0}, "other": {200, 1}, "owner": {200, 3}, "superuser": {403, 0}} {
		res := app.Send(http.MethodGet, unreadPath, nil, tokens[who])
		requireStatus(t, want.status, res, who)
		if want.status == http.StatusOK {
			require.JSONEq(t, fmt.Sprintf(`{"unread":%d}`, want.unread), string(res.Body), who)
		}
	}
	requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodPost, readAllPath, nil, ""))
	requireStatus(t, http.StatusForbidden, app.Send(http.MethodPost, readAllPath, nil, tokens["superuser"]))
	require.Equal(t, 3, unreadOf(t, app, tokens["owner"]))
	res := app.Send(http.MethodPost, readAllPath, nil, tokens["owner"])
	requireStatus(t, http.StatusOK, res)
	require.JSONEq(t, `{"read":3}`, string(res.Body))
	require.Equal(t, []int{0, 1}, []int{unreadOf(t, app, tokens["owner"]), unreadOf(t, app, tokens["other"])})
	require.JSONEq(t, `{"read":0}`, string(app.Send(http.MethodPost, readAllPath, nil, tokens["owner"]).Body))
	old := must(app.FindFirstRecordByData(notifications.CollectionInbox, "title", "Old"))
	require.Equal(t, "2026-01-01 00:00:00.000Z", old.GetString("readAt"), "it was read before")

	var plan []struct {
		Detail string `db:"detail"`
	}
	require.NoError(t, app.DB().NewQuery("EXPLAIN QUERY PLAN SELECT COUNT(*) FROM notification_inbox i WHERE i.user = 'x' AND i.readAt = ''").All(&plan))
	require.Contains(t, plan[0].Detail, "COVERING INDEX idx_gw_inbox_unread")
}

// One message for all is the same to each client as one of their own.
func TestMessageToEveryonesInbox(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	category := must(app.FindFirstRecordByData(notifications.CollectionCategories, "key", "promotional"))
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "sale", "title": "Sale, {{ user.name }}", "body": "Half the price", "category": category.Id,
		"data": map[string]any{"code": "HALF"}, "translations": map[string]any{"fr": map[string]any{"title": "Soldes, {{ user.name }}"}}})
	ana, bo := app.User("ana@example.com", map[string]any{"name": "Ana"}), app.User("bo@example.com")
	cy, di := app.User("cy@example.com", map[string]any{"name": "Cy", "locale": "fr"}), app.User("di@example.com", map[string]any{"name": "Di"})
	switchOff(app, bo, category.Id, "inbox")
	root := app.Token(app.Superuser("root@example.com"))
	token := map[string]string{"ana": app.Token(ana), "bo": app.Token(bo), "cy": app.Token(cy), "di": app.Token(di)}

	n := toEveryone(t, app, map[string]any{"title": "", "body": "", "template": template.Id})
	require.Equal(t, []int{4, 3, 3, 1, 0}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("delivered"), n.GetInt("skipped"), n.GetInt("pending")})
	deliveries := must(app.FindAllRecords(notifications.CollectionDeliveries))
	require.Len(t, deliveries, 1)
	require.Equal(t, []string{"*", "delivered", "inbox"}, []string{deliveries[0].GetString("user"), deliveries[0].GetString("status"), deliveries[0].GetString("channel")})
	require.Contains(t, deliveries[0].GetString("explanation"), "the inbox of 3 people")
	require.Contains(t, deliveries[0].GetString("explanation"), "1 more switched this category off")
	require.Zero(t, rows(t, app, "notification_inbox"))
	newcomer := app.User("new@example.com")
	token["newcomer"] = app.Token(newcomer)

	// The count costs no row; nobody who sees nothing has one.
	for who, want := range map[string]int{"ana": 1, "bo": 0, "cy": 1, "di": 1, "newcomer": 0} {
		require.Equal(t, want, unreadOf(t, app, token[who]), who)
	}
	require.Zero(t, rows(t, app, "notification_inbox"))
	require.Empty(t, titles(t, app, "", ""), "guest")
	require.Empty(t, titles(t, app, "", token["bo"]))
	require.Empty(t, titles(t, app, "", token["newcomer"]))
	require.Equal(t, []string{"Soldes, Cy"}, titles(t, app, "", token["cy"]))
	app.Record(notifications.CollectionInbox, map[string]any{"user": ana.Id, "title": "Later"})
	require.Equal(t, []string{"Later", "Sale, Ana"}, titles(t, app, "?sort=-created&filter="+url.QueryEscape("readAt = ''"), token["ana"]), "it is dated when it was sent")
	require.Equal(t, 3, rows(t, app, "notification_inbox"), "two looked")
	require.Equal(t, []string{"Sale, Ana", "Later"}, titles(t, app, "?sort=created", token["ana"]), "not twice")

	// What an expand of another collection shows is there too.
	expanded := app.Send(http.MethodGet, "/api/collections/users/records/"+di.Id+"?expand=notification%5Finbox_via_user", nil, token["di"])
	require.Contains(t, string(expanded.Body), "Sale, Di")

	message := list(t, app, inboxPath+"?sort=created", token["ana"])[0]
	require.Equal(t, []any{ana.Id, n.Id, "Half the price", map[string]any{"code": "HALF"}, ""}, []any{message["user"], message["notification"], message["body"], message["data"], message["readAt"]})
	path := inboxPath + "/" + message["id"].(string)
	for who, want := range map[string]int{"": 404, token["cy"]: 404, token["ana"]: 200, root: 200} {
		requireStatus(t, want, app.Send(http.MethodGet, path, nil, who))
		requireStatus(t, want, app.Send(http.MethodPatch, path, map[string]any{"readAt": "2026-01-02 00:00:00.000Z", "title": "Other"}, who))
		stored := must(app.FindRecordById(notifications.CollectionInbox, message["id"].(string)))
		require.Equal(t, want == 200, stored.GetString("readAt") != "")
		if want == 200 {
			stored.Set("readAt", "")
			require.NoError(t, app.Save(stored))
		}
	}
	requireStatus(t, http.StatusOK, app.Send(http.MethodPatch, path, map[string]any{"readAt": "2026-01-02 00:00:00.000Z"}, token["ana"]))
	refused := app.Send(http.MethodPatch, path, map[string]any{"readAt": "yesterday"}, token["ana"])
	requireStatus(t, http.StatusBadRequest, refused)
	require.Contains(t, string(refused.Body), "This is not a date.", "it would be unread again")
	require.Equal(t, []int{1, 1}, []int{unreadOf(t, app, token["ana"]), unreadOf(t, app, token["cy"])}, "Ana has the other one still")

	requireStatus(t, http.StatusBadRequest, app.Send(http.MethodPost, "/api/notifications/deliveries/"+deliveries[0].Id+"/resend", nil, root))
}

// However many requests look at once, and by however many processes.
func TestMessageToEveryoneComesOnce(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	ana := app.User("ana@example.com")
	token := app.Token(ana)
	other := secondApp(t, app)
	for i := range 3 {
		toEveryone(t, app, map[string]any{"title": strconv.Itoa(i)})
		var all sync.WaitGroup
		for k := range 8 {
			all.Go(func() {
				if k%2 == 0 {
					require.Equal(t, http.StatusOK, other(http.MethodGet, inboxPath, token))
					return
				}
				require.Equal(t, http.StatusOK, app.Send(http.MethodGet, inboxPath, nil, token).Status)
			})
		}
		all.Wait()
		require.Equal(t, i+1, rows(t, app, "notification_inbox"))
	}
	require.Equal(t, []string{"0", "1", "2"}, titles(t, app, "?sort=created", token))
}

func TestMessageToEveryoneReachesThoseConnected(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	bo := app.User("bo@example.com")
	app.OnRealtimeConnectRequest().BindFunc(func(e *core.RealtimeConnectRequestEvent) error {
		e.Client.Set(apis.RealtimeClientIPKey, "192.0.2.1") // that of Send
		return e.Next()
	})
	missed := func() { toEveryone(t, app, map[string]any{"title": "Missed"}) }
	app.Handler()
	missed()
	one, two := connect(t, app.URL()), connect(t, app.URL())
	requireStatus(t, http.StatusNoContent, app.Send(http.MethodPost, "/api/realtime", map[string]any{"clientId": one.id, "subscriptions": []string{"notification_inbox/*"}}, app.Token(ana)))
	requireStatus(t, http.StatusNoContent, app.Send(http.MethodPost, "/api/realtime", map[string]any{"clientId": two.id, "subscriptions": []string{"users/" + bo.Id}}, app.Token(bo)))
	require.Equal(t, 1, rows(t, app, "notification_inbox"), "what was sent before is there, without an event")
	toEveryone(t, app, map[string]any{"title": "Now"})
	require.Equal(t, "notification_inbox/*", one.nextEvent(t))
	require.True(t, waitFor(func() bool { return rows(t, app, "notification_inbox") == 2 }), "Ana's; Bo does not listen to it")
	require.Empty(t, one.events)
	require.Equal(t, 2, unreadOf(t, app, app.Token(bo)))
}

// Either of two processes may have sent it.
func TestMessageToEveryoneReachesThoseConnectedToAnother(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	app.OnRealtimeConnectRequest().BindFunc(func(e *core.RealtimeConnectRequestEvent) error {
		e.Client.Set(apis.RealtimeClientIPKey, "192.0.2.1") // that of Send
		return e.Next()
	})
	one := connect(t, app.URL())
	requireStatus(t, http.StatusNoContent, app.Send(http.MethodPost, "/api/realtime", map[string]any{"clientId": one.id, "subscriptions": []string{"notification_inbox/*"}}, app.Token(ana)))
	secondApp(t, app)
	for range 6 {
		toEveryone(t, app, map[string]any{"title": "Now"})
		require.Equal(t, "notification_inbox/*", one.nextEvent(t))
	}
	require.Equal(t, 6, rows(t, app, "notification_inbox"))

	// Its process was killed before it could tell.
	n := must(app.FindFirstRecordByData(notifications.CollectionInbox, "user", ana.Id)).GetString("notification")
	_, err := app.NonconcurrentDB().NewQuery("UPDATE groundwork_inbox_everyone SET seq = 100 WHERE notification = {:n}").Bind(dbx.Params{"n": n}).Execute()
	require.NoError(t, err)
	require.Equal(t, "notification_inbox/*", one.nextEvent(t))
}

func TestMessageToTenThousandIsFewRows(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	const people = 10_000
	_, err := app.NonconcurrentDB().NewQuery("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {:people})" +
		" INSERT INTO users (id, email, tokenKey, password, created, updated) SELECT printf('person%09d', i), 'p' || i || '@example.com', printf('%050d', i), 'x', '2026-01-01 00:00:00.000Z', '2026-01-01 00:00:00.000Z' FROM n").
		Bind(dbx.Params{"people": people}).Execute()
	require.NoError(t, err)
	var tables []string
	require.NoError(t, app.DB().NewQuery("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").Column(&tables))
	count := func() map[string]int {
		counts := map[string]int{}
		for _, table := range tables {
			counts[table] = rows(t, app, table)
		}
		return counts
	}
	triggered(t, app) // no job is left: those of the start are through
	before := count()
	n := toEveryone(t, app, map[string]any{"title": "Hello {{ user.name }}"})
	triggered(t, app) // nor is one now
	require.Equal(t, []int{people, people, people}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("delivered")})
	written := map[string]int{}
	for table, rows := range count() {
		if rows != before[table] {
			written[table] = rows - before[table]
		}
	}
	require.Equal(t, map[string]int{"notifications": 1, "notification_deliveries": 1, "groundwork_inbox_everyone": 1}, written)
}

// A person who goes leaves nothing, and who asks for their data gets it.
func TestMessageToEveryoneBelongsToEachPerson(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	ana, bo := app.User("ana@example.com"), app.User("bo@example.com")
	n := toEveryone(t, app, map[string]any{"title": "Hello"})
	res := app.Send(http.MethodGet, "/api/account/export", nil, signIn(t, app, ana))
	requireStatus(t, http.StatusOK, res)
	require.Contains(t, string(res.Body), n.Id)
	require.Equal(t, []int{1, 1}, []int{rows(t, app, "notification_inbox"), rows(t, app, "groundwork_inbox_marks")})

	require.NoError(t, app.Delete(app.Reload(ana)))
	require.Equal(t, []int{0, 0}, []int{rows(t, app, "notification_inbox"), rows(t, app, "groundwork_inbox_marks")})
	require.NoError(t, notifications.FillInboxes(app, ana.Id), "a request that was under way")
	require.Equal(t, []int{0, 0}, []int{rows(t, app, "notification_inbox"), rows(t, app, "groundwork_inbox_marks")})
	require.Equal(t, 2, app.Reload(n).GetInt("total"), "the counts stay")
	require.Equal(t, 1, unreadOf(t, app, app.Token(bo)))
}

// What is cancelled before it is out counts everybody as cancelled, and is in nobody's
// inbox.
func TestMessageToEveryoneThatIsStopped(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	app.User("bo@example.com")
	app.Handler()
	n := send(t, app, map[string]any{"channels": []string{"inbox"}, "sendAt": time.Now().Add(time.Hour)})
	until(t, app, n, "status", "scheduled")
	// As if it had been planned and not worked yet.
	_, err := app.NonconcurrentDB().Insert("groundwork_batches", dbx.Params{"notification": n.Id, "batch": 1, "channel": "inbox", "users": `["*"]`, "planned": 2}).Execute()
	require.NoError(t, err)
	_, err = app.NonconcurrentDB().Insert("groundwork_inbox_everyone", dbx.Params{"notification": n.Id, "people": 2}).Execute()
	require.NoError(t, err)
	require.Equal(t, int64(2), must(notifications.FindCounts(app, n.Id)).Pending)
	n = app.Reload(n)
	n.Set("action", "cancel")
	require.NoError(t, app.Save(n))
	require.True(t, waitFor(func() bool { return app.Reload(n).GetInt("cancelled") == 2 }), "both")
	require.Equal(t, notifications.Counts{Total: 2, Cancelled: 2}, must(notifications.FindCounts(app, n.Id)))
	require.Zero(t, unreadOf(t, app, app.Token(ana)))
	require.Empty(t, titles(t, app, "", app.Token(ana)))
}

// A frequency cap counts what each person got, so that each has a row.
func TestMessageToEveryoneUnderACap(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	ana := app.User("ana@example.com")
	category := app.Record(notifications.CollectionCategories, map[string]any{"key": "tips", "name": "Tips", "kind": "transactional", "frequencyCap": 1})
	toEveryone(t, app, map[string]any{"title": "First", "category": category.Id})
	require.Equal(t, 1, rows(t, app, "notification_inbox"))
	n := toEveryone(t, app, map[string]any{"title": "Second", "category": category.Id})
	require.Equal(t, 1, n.GetInt("skipped"))
	require.Equal(t, []string{"First"}, titles(t, app, "", app.Token(ana)))
}

// A push shows how many messages its reader has not read, the one that comes with it
// included; the author's number wins, and an app without an inbox shows none.
func TestPushShowsTheUnreadCount(t *testing.T) {
	t.Parallel()
	key := must(providertest.NewAPNsKey())
	apple := providertest.NewAPNs(t, providertest.APNsOptions{Key: key.Public, KeyID: "KEY1234567", TeamID: "TEAM123456", Topics: []string{pushBundle}})
	x := newPushing(t)
	x.people(3, "ios")
	until(t, x.App, x.provider("apns", apple.Config(pushBundle), key.PEM, ""), "state", "ok")
	category := must(x.FindFirstRecordByData(notifications.CollectionCategories, "key", "promotional"))
	person := func(i int) *core.Record { return must(x.FindAuthRecordByEmail("users", mailAddress(i))) }
	switchOff(x.App, person(2), category.Id, "inbox")
	badges := func(fields map[string]any) []any {
		until(t, x.App, send(t, x.App, fields), "status", "sent")
		out := []any{}
		for i := range 3 {
			var payload struct {
				APS map[string]any `json:"aps"`
			}
			require.NoError(t, json.Unmarshal(apple.Last(iosToken(i)).Payload, &payload))
			out = append(out, payload.APS["badge"])
		}
		return out
	}
	push, both := []string{"push"}, []string{"push", "inbox"}

	require.Equal(t, []any{nil, nil, nil}, badges(map[string]any{"channels": push}), "nobody has an inbox here")
	require.Equal(t, []any{1.0, 1.0, 1.0}, badges(map[string]any{"channels": both}))
	require.Equal(t, []any{2.0, 2.0, 1.0}, badges(map[string]any{"channels": both, "category": category.Id}), "the third one does not want it in the inbox")
	requireStatus(t, http.StatusOK, x.Send(http.MethodPost, readAllPath, nil, x.Token(person(0))))
	require.Equal(t, []any{0.0, 2.0, 1.0}, badges(map[string]any{"channels": push}))
	require.Equal(t, []any{1.0, 3.0, 2.0}, badges(map[string]any{"channels": both, "audience": "filter", "filter": "id != ''"}), "a row for each")
	require.Equal(t, []any{7.0, 7.0, 7.0}, badges(map[string]any{"channels": push, "options": map[string]any{"badge": 7}}))
	require.Equal(t, []any{nil, nil, nil}, badges(map[string]any{"channels": push, "options": map[string]any{"silent": true}}))
}
