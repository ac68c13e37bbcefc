package hooks_test

import (
	"net/http"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// newTeams has tasks of teams, and teams of people.
func newTeams(t *testing.T) *pbtest.App {
	t.Helper()
	app := pbtest.NewApp(t)
	app.Handler()
	teams := core.NewBaseCollection("teams")
	teams.Fields.Add(&core.RelationField{Name: "members", CollectionId: "_pb_users_auth_", MaxSelect: 9})
	require.NoError(t, app.Save(teams))
	tasks := core.NewBaseCollection("tasks")
	tasks.Fields.Add(&core.RelationField{Name: "teams", CollectionId: teams.Id, MaxSelect: 9}, &core.TextField{Name: "state"})
	require.NoError(t, app.Save(tasks))
	return app
}

// A relation may hold several people. Each of them is told, once, whatever the event.
func TestATriggerTellsEverybodyInARelation(t *testing.T) {
	t.Parallel()
	app := newTeams(t)
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "task", "title": "Task {{ record.state }}"})
	for event, condition := range map[string]string{"created": "", "updated": "state = 'done'", "deleted": ""} {
		app.Record(notifications.CollectionTriggers, map[string]any{"name": event, "collection": "tasks", "event": event, "condition": condition, "enabled": true,
			"recipient": "teams.members", "template": template.Id, "channels": []string{"inbox"}})
	}
	ana, bo, cy, di := app.User("ana@example.com").Id, app.User("bo@example.com").Id, app.User("cy@example.com").Id, app.User("di@example.com").Id
	red := app.Record("teams", map[string]any{"members": []string{ana, bo}})
	blue := app.Record("teams", map[string]any{"members": []string{bo, cy}})
	none := app.Record("teams", nil)
	told := func() map[string]int {
		triggered(t, app)
		messages, err := app.FindAllRecords(notifications.CollectionInbox)
		require.NoError(t, err)
		n := map[string]int{}
		for _, m := range messages {
			n[m.GetString("user")]++
		}
		return n
	}
	task := app.Record("tasks", map[string]any{"teams": []string{red.Id, blue.Id, none.Id}, "state": "open"})
	require.Equal(t, map[string]int{ana: 1, bo: 1, cy: 1}, told(), "bo is in two teams, and is told once")
	task.Set("state", "done")
	require.NoError(t, app.Save(task))
	require.Equal(t, map[string]int{ana: 2, bo: 2, cy: 2}, told())
	require.NoError(t, app.Delete(task))
	require.Equal(t, map[string]int{ana: 3, bo: 3, cy: 3}, told())

	app.Record("tasks", map[string]any{"teams": []string{none.Id}, "state": "open"})
	require.NotContains(t, told(), di)
}

// What PocketBase would read as nothing makes a trigger that fires never, or always.
func TestConditionsAboutWhatATriggerDoesNotSeeAreRefused(t *testing.T) {
	t.Parallel()
	app := newTeams(t)
	root := app.Token(app.Superuser("root@example.com"))
	for condition, says := range map[string]string{
		"@request.auth.id = ''":               "no request: take @request.auth.id out",
		"@request.body.state:changed = true":  "no request",
		"teams.members.tokenKey ~ 'a'":        "cannot read passwords or token keys",
		"@collection.users.password != ''":    "cannot read passwords or token keys",
		"state:changed = true":                "fires when its condition turns true",
		"state:isset = true && state = 'new'": "fires when its condition turns true",
		"state = '@request.auth.id'":          "",
		"teams:length > 1 && @now > '2026'":   "",
	} {
		res := app.Send(http.MethodPost, "/api/collections/notification_triggers/records", map[string]any{"name": "x", "collection": "tasks", "event": "updated",
			"recipient": "teams.members", "condition": condition, "template": "gwwelcome000000", "channels": []string{"inbox"}}, root)
		if says == "" {
			require.Equal(t, http.StatusOK, res.Status, "%s: %s", condition, res.Body)
			continue
		}
		require.Equal(t, http.StatusBadRequest, res.Status, condition)
		require.Contains(t, string(res.Body), says, condition)
	}
}
