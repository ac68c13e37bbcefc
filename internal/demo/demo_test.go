package demo_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/demo"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

func person(t *testing.T, app *pbtest.App, name string) *core.Record {
	t.Helper()
	r, err := app.FindFirstRecordByData("users", "name", name)
	require.NoError(t, err)
	return r
}

// recommended are the names of what is recommended to each person, in the order of
// the view, which only a query of the view alone keeps.
func recommended(t *testing.T, app *pbtest.App) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, name := range []string{"Ana", "Bo", "Cleo", "Dan", "Emma"} {
		var products []string
		require.NoError(t, app.DB().NewQuery("SELECT name FROM recommendations WHERE user = {:user}").Bind(dbx.Params{"user": person(t, app, name).Id}).Column(&products))
		if len(products) > 0 {
			found[name] = products
		}
	}
	return found
}

func TestRecommendations(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	require.NoError(t, demo.Fill(app, time.Now()))
	want := map[string][]string{"Ana": {"Tea cups", "Honey"}, "Cleo": {"Green tea", "Honey"}, "Dan": {"Teapot"}}
	require.Equal(t, want, recommended(t, app), "Bo bought nothing, Emma what nobody else did, and a cancelled kettle is nobody's")

	// What she buys is recommended to her no more.
	honey, err := app.FindFirstRecordByData("products", "name", "Honey")
	require.NoError(t, err)
	order := app.Record("orders", map[string]any{"buyer": person(t, app, "Ana").Id, "items": []string{honey.Id}, "status": "placed"})
	require.Equal(t, []string{"Tea cups"}, recommended(t, app)["Ana"])
	order.Set("status", "cancelled")
	require.NoError(t, app.Save(order))
	require.Equal(t, want, recommended(t, app))

	// The order of somebody who left is nobody's.
	order.Set("buyer", "")
	order.Set("status", "placed")
	require.NoError(t, app.Save(order))
	require.Equal(t, want, recommended(t, app))
}

func TestTheDemoSendsNothingByItself(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler() // as if it were filled while a server runs
	require.Eventually(t, func() bool {
		due, err := jobs.CountDue(t.Context(), app)
		require.NoError(t, err)
		return due == 0
	}, 2*time.Minute, 10*time.Millisecond, "what the start asks for is done")
	require.NoError(t, demo.Fill(app, time.Now()))
	var waiting int
	require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM groundwork_outbox").Row(&waiting))
	require.Zero(t, waiting)
	n, err := app.CountRecords(notifications.CollectionNotifications)
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestAFolderInUseIsLeftAlone(t *testing.T) {
	t.Parallel()
	for says, use := range map[string]func(app *pbtest.App){
		"there are records in users":   func(app *pbtest.App) { app.User("ana@example.com") },
		"it has the collection visits": func(app *pbtest.App) { require.NoError(t, app.Save(core.NewBaseCollection("visits"))) },
		"there are records in notification_templates": func(app *pbtest.App) {
			app.Record(notifications.CollectionTemplates, map[string]any{"key": "x", "title": "x"})
		},
		"there are records in notifications": func(app *pbtest.App) { app.Record(notifications.CollectionNotifications, map[string]any{"title": "x"}) },
		"there are records in notification_triggers": func(app *pbtest.App) {
			app.Record(notifications.CollectionTriggers, map[string]any{"name": "x", "collection": "users", "event": "updated", "template": "gwwelcome000000", "channels": []string{"inbox"}})
		},
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			app := pbtest.NewApp(t)
			use(app)
			err := demo.Fill(app, time.Now())
			require.ErrorIs(t, err, demo.ErrUsed)
			require.ErrorContains(t, err, says)
			_, err = app.FindCollectionByNameOrId("products")
			require.Error(t, err)
		})
	}
}

func TestTheDemoIsFilledOnce(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Superuser("root@example.com") // may be there
	require.NoError(t, demo.Fill(app, time.Now()))
	products, err := app.FindCollectionByNameOrId("products")
	require.NoError(t, err)
	products.Name = "goods" // known by its id
	require.NoError(t, app.Save(products))
	require.ErrorIs(t, demo.Fill(app, time.Now()), demo.ErrFilled)
	n, err := app.CountRecords("users")
	require.NoError(t, err)
	require.EqualValues(t, 5, n)
	signedIn := app.Send(http.MethodPost, "/api/collections/users/auth-with-password", map[string]any{"identity": "ana@example.com", "password": demo.Password}, "")
	require.Equal(t, http.StatusOK, signedIn.Status, signedIn.String())
}

func TestWhoMayDoWhatInTheDemo(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	require.NoError(t, demo.Fill(app, time.Now()))
	ana, bo := person(t, app, "Ana"), person(t, app, "Bo")
	tea, err := app.FindFirstRecordByData("products", "name", "Green tea")
	require.NoError(t, err)
	own, err := app.FindFirstRecordByFilter("orders", "buyer = {:ana} && status = 'placed'", dbx.Params{"ana": ana.Id})
	require.NoError(t, err)
	place := func(change map[string]any) map[string]any {
		body := map[string]any{"buyer": ana.Id, "items": []string{tea.Id}, "status": "placed"}
		for k, v := range change {
			body[k] = v
		}
		return body
	}
	const records = "/api/collections/%s/records"
	tokens := []string{"", app.Token(bo), app.Token(ana), app.Token(app.Superuser("root@example.com"))}
	for _, tc := range []struct {
		method, path string
		body         map[string]any
		want         [4]int // guest, other, owner, superuser
	}{
		{http.MethodPost, fmt.Sprintf(records, "orders"), place(nil), [4]int{400, 400, 200, 200}},
		{http.MethodPost, fmt.Sprintf(records, "orders"), place(map[string]any{"status": "shipped"}), [4]int{400, 400, 400, 200}},
		{http.MethodPost, fmt.Sprintf(records, "orders"), place(map[string]any{"items": nil}), [4]int{400, 400, 400, 400}},
		{http.MethodGet, fmt.Sprintf(records, "orders") + "/" + own.Id, nil, [4]int{404, 404, 200, 200}},
		{http.MethodPatch, fmt.Sprintf(records, "orders") + "/" + own.Id, map[string]any{"deliverAt": ""}, [4]int{403, 403, 403, 200}},
		{http.MethodDelete, fmt.Sprintf(records, "orders") + "/" + own.Id, nil, [4]int{403, 403, 403, 204}},
		{http.MethodPost, fmt.Sprintf(records, "products"), map[string]any{"name": "Mug", "price": 8}, [4]int{403, 403, 403, 200}},
		{http.MethodPatch, fmt.Sprintf(records, "products") + "/" + tea.Id, map[string]any{"price": 1}, [4]int{403, 403, 403, 200}},
	} {
		var got [4]int
		for i, token := range tokens {
			got[i] = app.Send(tc.method, tc.path, tc.body, token).Status
		}
		require.Equal(t, tc.want, got, "%s %s %v", tc.method, tc.path, tc.body)
	}
	for collection, want := range map[string][4]float64{"products": {8, 8, 8, 8}, "recommendations": {0, 0, 2, 5}} {
		var got [4]float64
		for i, token := range tokens {
			got[i] = app.Send(http.MethodGet, fmt.Sprintf(records, collection), nil, token).JSON(t)["totalItems"].(float64)
		}
		require.Equal(t, want, got, collection)
	}
	lines := app.Send(http.MethodGet, fmt.Sprintf(records, "order_lines"), nil, tokens[2]).JSON(t)["items"].([]any)
	require.False(t, slices.ContainsFunc(lines, func(line any) bool { return line.(map[string]any)["user"] != ana.Id }))
}
