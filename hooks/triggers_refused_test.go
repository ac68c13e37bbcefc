package hooks_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// What a trigger cannot say is told where its owner looks, once.
func TestATriggerWhoseTemplateDoesNotFitIsShownAsFailed(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	template := app.Record(notifications.CollectionTemplates, map[string]any{"key": "shipped", "title": "Parcel {{ record.tracking }}"})
	app.Record(notifications.CollectionTriggers, map[string]any{"name": "Shipped", "collection": "users", "event": "created", "enabled": true,
		"template": template.Id, "channels": []string{"inbox"}})
	app.Handler()
	app.User("ana@example.com")

	require.True(t, waitFor(func() bool { return len(triggered(t, app)) == 1 }))
	n := triggered(t, app)[0]
	require.Equal(t, "failed", n.GetString("status"))
	require.Contains(t, n.GetString("statusReason"), "record.tracking")
}
