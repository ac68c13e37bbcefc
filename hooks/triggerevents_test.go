package hooks_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// What somebody may not do fires nothing, and what a superuser does fires like the
// owner's, but for what they create: that is an import.
func TestWhoFiresWhichEvent(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	tasks := core.NewBaseCollection("tasks")
	tasks.Fields.Add(&core.RelationField{Name: "owner", CollectionId: "_pb_users_auth_", MaxSelect: 1}, &core.TextField{Name: "state"}, &core.DateField{Name: "due"})
	mine := types.Pointer("owner = @request.auth.id && @request.auth.id != ''")
	tasks.CreateRule, tasks.UpdateRule, tasks.DeleteRule, tasks.ListRule, tasks.ViewRule = mine, mine, mine, mine, mine
	require.NoError(t, app.Save(tasks))
	for event, condition := range map[string]string{"created": "", "updated": `state = "done"`, "deleted": "", "date": ""} {
		template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "task-" + event, "title": event + " {{ record.state }}"})
		fields := map[string]any{"name": event, "collection": "tasks", "event": event, "condition": condition, "recipient": "owner",
			"template": template.Id, "channels": []string{"inbox"}, "enabled": true}
		if event == "date" {
			fields["dateField"] = "due"
		}
		app.Record(notifications.CollectionTriggers, fields)
	}
	ana := app.User("ana@example.com")
	path := "/api/collections/tasks/records"
	for _, tc := range []struct {
		who, token string
		statuses   [3]int // create, update, delete
		told       []string
	}{
		{"guest", "", [3]int{400, 404, 404}, nil},
		{"other", app.Token(app.User("bo@example.com")), [3]int{400, 404, 404}, nil},
		{"owner", app.Token(ana), [3]int{200, 200, 204}, []string{"created open", "updated done", "deleted done"}},
		{"superuser", app.Token(app.Superuser("root@example.com")), [3]int{200, 200, 204}, []string{"updated done", "deleted done"}},
	} {
		before := len(inboxTitles(t, app))
		task := app.Record("tasks", map[string]any{"owner": ana.Id, "state": "open"})
		require.Len(t, triggered(t, app), before+1, "application code creates")
		before++
		var got [3]int
		res := app.Send(http.MethodPost, path, map[string]any{"owner": ana.Id, "state": "open"}, tc.token)
		got[0] = res.Status
		triggered(t, app) // a message tells how things stand when it is made
		got[1] = app.Send(http.MethodPatch, path+"/"+task.Id, map[string]any{"state": "done"}, tc.token).Status
		triggered(t, app)
		got[2] = app.Send(http.MethodDelete, path+"/"+task.Id, nil, tc.token).Status
		require.Equal(t, tc.statuses, got, tc.who)
		triggered(t, app)
		require.ElementsMatch(t, tc.told, inboxTitles(t, app)[before:], tc.who)
	}
	told := len(inboxTitles(t, app))
	due := app.Record("tasks", map[string]any{"owner": ana.Id, "state": "late", "due": time.Now().Add(-time.Minute)})
	require.Equal(t, 1, minute(t, app)["date late"], due.Id)
	require.Len(t, inboxTitles(t, app), told+2, "created, and its date")
}

// inboxTitles are those of everything in the inbox, in the order in which it came.
func inboxTitles(t *testing.T, app *pbtest.App) []string {
	t.Helper()
	var all []string
	require.NoError(t, app.DB().NewQuery("SELECT title FROM notification_inbox ORDER BY rowid").Column(&all))
	return all
}
