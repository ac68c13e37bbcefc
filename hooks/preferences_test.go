package hooks_test

import (
	"maps"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// A wish without a category or a channel is for all of them, and the one that says
// more about a message wins.
func TestWishesForAllCategoriesAndChannels(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler() // starts the sending
	category, err := app.FindFirstRecordByData(notifications.CollectionCategories, "key", "promotional")
	require.NoError(t, err)
	other := app.Record(notifications.CollectionCategories, map[string]any{"key": "news", "name": "News", "kind": "promotional", "canOptOut": true})

	type wish struct {
		category, channel string
		enabled           bool
	}
	want := map[string]string{}
	for who, tc := range map[string]struct {
		wishes []wish
		gets   bool
	}{
		"nothing":                    {nil, true},
		"this":                       {[]wish{{category.Id, "inbox", false}}, false},
		"all-channels":               {[]wish{{category.Id, "", false}}, false},
		"all-categories":             {[]wish{{"", "inbox", false}}, false},
		"everything":                 {[]wish{{"", "", false}}, false},
		"everything-but-this":        {[]wish{{"", "", false}, {category.Id, "inbox", true}}, true},
		"everything-but-category":    {[]wish{{"", "", false}, {category.Id, "", true}}, true},
		"category-but-not-here":      {[]wish{{category.Id, "", true}, {category.Id, "inbox", false}}, false},
		"another-channel":            {[]wish{{category.Id, "email", false}}, true},
		"another-category":           {[]wish{{other.Id, "inbox", false}}, true},
		"channel-off-category-wins":  {[]wish{{"", "inbox", false}, {category.Id, "", true}}, true},
		"only-quiet-hours-otherwise": {[]wish{{"", "", true}}, true},
	} {
		user := app.User(who + "@example.com")
		for _, w := range tc.wishes {
			app.Record(notifications.CollectionPreferences, map[string]any{"user": user.Id, "category": w.category, "channel": w.channel, "enabled": w.enabled})
		}
		want[user.Id] = "delivered "
		if !tc.gets {
			want[user.Id] = "skipped opted_out"
		}
	}
	message := map[string]any{"channels": []string{"inbox"}, "category": category.Id, "title": "Sale", "body": "Half the price."}
	each := maps.Clone(message)
	each["audience"], each["filter"] = "filter", "id != ''"
	n := send(t, app, each)
	require.True(t, waitFor(func() bool { n = app.Reload(n); return n.GetString("finishedAt") != "" }), "it ends")
	got, _ := ends(t, app, n)
	require.Equal(t, want, got)

	// One message for all is for the same people.
	n = until(t, app, send(t, app, message), "status", "sent")
	require.Equal(t, []int{12, 7, 5}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("skipped")})
	for user, status := range want {
		messages := map[bool]int{true: 2, false: 0}[status == "delivered "]
		require.Equal(t, messages, must(notifications.CountUnread(app, user)))
		require.NoError(t, notifications.FillInboxes(app, user))
		require.EqualValues(t, messages, must(app.CountRecords(notifications.CollectionInbox, dbx.HashExp{"user": user})))
		require.Equal(t, messages, must(notifications.CountUnread(app, user)))
	}
}
