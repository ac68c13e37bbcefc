package hooks_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// shop adds the collection orders, which belong to people, and a view of it.
func shop(t *testing.T, app *pbtest.App) *core.Collection {
	t.Helper()
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	orders := core.NewBaseCollection("orders")
	orders.Fields.Add(&core.RelationField{Name: "user", CollectionId: users.Id, MaxSelect: 1}, &core.TextField{Name: "item"}, &core.NumberField{Name: "price"},
		&core.TextField{Name: "secret", Hidden: true}, &core.DateField{Name: "due"}, &core.AutodateField{Name: "created", OnCreate: true})
	require.NoError(t, app.Save(orders))
	view := core.NewViewCollection("spending")
	view.ViewQuery = "SELECT (ROW_NUMBER() OVER ()) AS id, user, item, SUM(price) AS total, (item || '!') AS loud FROM orders GROUP BY user, item ORDER BY total DESC"
	require.NoError(t, app.Save(view))
	return orders
}

func order(app *pbtest.App, user *core.Record, item string, price int) *core.Record {
	return app.Record("orders", map[string]any{"user": user.Id, "item": item, "price": price, "secret": "s3cret"})
}

func TestRowsOfEachPerson(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	shop(t, app)
	app.Handler()
	ana, bo := app.User("ana@example.com", map[string]any{"name": "Ana"}), app.User("bo@example.com", map[string]any{"name": "Bo"})
	app.User("cy@example.com", map[string]any{"name": "Cy"}) // bought nothing
	order(app, ana, "Lamp", 20)
	order(app, ana, "<b>Chair</b>", 50)
	order(app, bo, "Cup", 5)

	for source, want := range map[string]string{"orders": "<b>Chair</b>=50;Lamp=20;", "spending": "<b>Chair</b>=50;Lamp=20;"} {
		field := map[string]string{"orders": "price", "spending": "total"}[source]
		template := app.Record(notifications.CollectionTemplates, map[string]any{"key": source, "title": "{{ user.name }}, {{ rows | size }}", "dataFrom": source,
			"body":         "{% for r in rows %}{{ r.item }}={{ r." + field + " }};{% endfor %}",
			"emailHtml":    "{% for r in rows %}<li>{{ r.item }}</li>{% endfor %}",
			"translations": map[string]any{"fr": map[string]any{"title": "{{ rows | size }} lignes"}}})
		n := until(t, app, send(t, app, map[string]any{"title": "", "body": "", "template": template.Id, "channels": []string{"email", "inbox"}}), "status", "sent")
		require.Equal(t, 2, n.GetInt("skipped"))
		require.Equal(t, 4, n.GetInt("sent"))
		require.Equal(t, "<li>&lt;b&gt;Chair&lt;/b&gt;</li><li>Lamp</li>", renderedOf(t, app, n, ana, "email")[0]["html"])
		inbox, err := app.FindFirstRecordByFilter(notifications.CollectionInbox, "user = {:u} && notification = {:n}", dbx.Params{"u": ana.Id, "n": n.Id})
		require.NoError(t, err)
		require.Equal(t, "Ana, 2", inbox.GetString("title"))
		require.Equal(t, want, inbox.GetString("body"))
		skipped, err := app.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id, "status": "skipped"})
		require.NoError(t, err)
		for _, d := range skipped {
			require.Equal(t, "nothing_to_say", d.GetString("reason"))
			require.Equal(t, "There is nothing to tell this person: "+source+" has no row of theirs.", d.GetString("explanation"))
		}
	}
}

func TestDataFromThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	orders := shop(t, app)
	many := core.NewBaseCollection("teams")
	many.Fields.Add(&core.RelationField{Name: "user", CollectionId: "_pb_users_auth_", MaxSelect: 5})
	other := core.NewBaseCollection("parts")
	other.Fields.Add(&core.RelationField{Name: "user", CollectionId: orders.Id, MaxSelect: 1})
	number := core.NewBaseCollection("numbers")
	number.Fields.Add(&core.NumberField{Name: "user"})
	for _, c := range []*core.Collection{many, other, number, core.NewBaseCollection("plain")} {
		require.NoError(t, app.Save(c))
	}
	root := app.Token(app.Superuser("root@example.com"))
	ana := app.User("ana@example.com", map[string]any{"name": "Ana"})
	order(app, ana, "Lamp", 20)
	create := func(dataFrom, title string) pbtest.Response {
		return app.Send(http.MethodPost, "/api/collections/notification_templates/records",
			map[string]any{"key": "k" + security.RandomString(8), "title": title, "dataFrom": dataFrom}, root)
	}
	for dataFrom, says := range map[string]string{
		"nowhere": `There is no collection or view \"nowhere\"`, "_superusers": "The collection _superusers belongs to PocketBase itself", "plain": "The collection plain has no field user",
		"teams": "holds several people", "parts": "does not lead to users", "numbers": "is of the type number",
		"orders": "", "spending": "", orders.Id: "",
	} {
		res := create(dataFrom, "x")
		if says == "" {
			require.Equal(t, http.StatusOK, res.Status, res.String())
			continue
		}
		require.Equal(t, http.StatusBadRequest, res.Status, res.String())
		require.Contains(t, res.String(), `"dataFrom":`)
		require.Contains(t, res.String(), says)
	}

	// What no template ever sees.
	for _, name := range []string{"secret", "password", "tokenKey"} {
		template := create("orders", "{{ rows[0]."+name+" }}").JSON(t)
		res := app.Send(http.MethodPost, "/api/collections/notifications/records", map[string]any{"template": template["id"], "channels": []string{"inbox"},
			"audience": "users", "users": []string{ana.Id}, "action": "send"}, root)
		require.Equal(t, http.StatusBadRequest, res.Status, res.String())
		require.Contains(t, res.String(), `There is no \"rows[0].`+name)
	}
}

func TestDataFromThatIsGoneFailsWithASentence(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-24T12:00:00Z")
	app := pbtest.NewApp(t, c.option())
	orders := shop(t, app)
	root := app.Token(app.Superuser("root@example.com"))
	ana := app.User("ana@example.com")
	order(app, ana, "Lamp", 20)
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "t", "title": "{{ rows[0].item }}", "dataFrom": "spending"})
	app.Handler()
	later := send(t, app, map[string]any{"title": "", "body": "", "template": template.Id, "channels": []string{"inbox"}, "sendAt": c.now().Add(time.Hour)})
	require.Equal(t, "scheduled", app.Reload(later).GetString("status"))
	view, err := app.FindCollectionByNameOrId("spending")
	require.NoError(t, err)
	require.NoError(t, app.Delete(view))
	c.step(t, app, later, c.now().Add(time.Hour))
	later = until(t, app, later, "status", "failed")
	require.Equal(t, `The collection or view "spending", which the template takes its rows from, was deleted.`, later.GetString("statusReason"))

	res := app.Send(http.MethodPost, "/api/collections/notifications/records", map[string]any{"template": template.Id, "channels": []string{"inbox"},
		"audience": "users", "users": []string{ana.Id}, "action": "send"}, root)
	require.Equal(t, http.StatusBadRequest, res.Status, res.String())
	require.Contains(t, res.String(), `There is no collection or view \"spending\"`)

	// By a trigger: kept as failed, where its owner looks.
	orders.Fields.RemoveByName("secret")
	require.NoError(t, app.Save(orders))
	app.Record(notifications.CollectionTriggers, map[string]any{"name": "Bought", "collection": "orders", "event": "created", "enabled": true, "recipient": "user",
		"template": template.Id, "channels": []string{"inbox"}})
	order(app, ana, "Cup", 5)
	var told []*core.Record
	require.Eventually(t, func() bool { told = triggered(t, app); return len(told) == 1 }, patience, 20*time.Millisecond)
	require.Equal(t, "failed", told[0].GetString("status"))
	require.Contains(t, told[0].GetString("statusReason"), "There is no collection or view")
}

// A broadcast reads the rows of a page of people by one query, and no more of each
// than the limit.
func TestRowsAreReadByThePage(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	orders := shop(t, app)
	const people = 600
	require.NoError(t, app.RunInTransaction(func(txApp core.App) error {
		users, err := txApp.FindCollectionByNameOrId("users")
		require.NoError(t, err)
		for i := range people {
			u := core.NewRecord(users)
			u.SetEmail(fmt.Sprintf("p%d@example.com", i))
			u.SetTokenKey(security.PseudorandomString(40))
			if err := txApp.SaveNoValidate(u); err != nil {
				return err
			}
			for range map[bool]int{true: 150, false: 2}[i == 0] {
				o := core.NewRecord(orders)
				o.Load(map[string]any{"user": u.Id, "item": "x"})
				if err := txApp.SaveNoValidate(o); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "t", "title": "{{ rows | size }}", "dataFrom": "orders"})
	app.Handler()
	var queries atomic.Int64
	db := app.ConcurrentDB().(*dbx.DB)
	db.QueryLogFunc = func(_ context.Context, _ time.Duration, text string, _ *sql.Rows, _ error) {
		if strings.Contains(text, "FROM `orders`") {
			queries.Add(1)
		}
	}
	n := send(t, app, map[string]any{"title": "", "body": "", "template": template.Id, "channels": []string{"inbox"}})
	until(t, app, n, "status", "sent")
	require.LessOrEqual(t, queries.Load(), int64(1+people/250+3), "one a page, and one to try the text")
	for size, want := range map[string]int64{"100": 1, "2": people - 1} {
		found, err := app.CountRecords(notifications.CollectionInbox, dbx.HashExp{"title": size})
		require.NoError(t, err)
		require.Equal(t, want, found, "of %s rows", size)
	}
}
