package hooks_test

import (
	"net/http"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// Topics live in our tables: whoever is subscribed at the planning gets the message,
// once, however many of its topics they have.
func TestWhoIsReachedByTopics(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	people, names := map[string]*core.Record{}, map[string]string{}
	for _, name := range []string{"news", "sport", "both", "neither", "left", "gone"} {
		people[name] = app.User(name + "@example.com")
		names[people[name].Id] = name
	}
	news := app.Record(notifications.CollectionTopics, map[string]any{"key": "news", "name": "News", "open": true})
	sport := app.Record(notifications.CollectionTopics, map[string]any{"key": "sport", "name": "Sport"})
	empty := app.Record(notifications.CollectionTopics, map[string]any{"key": "empty", "name": "Empty"})
	subscribe := func(topic *core.Record, name string) *core.Record {
		return app.Record(notifications.CollectionSubscriptions, map[string]any{"topic": topic.Id, "user": people[name].Id})
	}
	subscribe(news, "news")
	subscribe(sport, "sport")
	subscribe(news, "both")
	subscribe(sport, "both")
	require.NoError(t, app.Delete(subscribe(news, "left")))
	subscribe(news, "gone")
	require.NoError(t, app.Delete(people["gone"]))

	for name, tc := range map[string]struct {
		topics []string
		want   []string
	}{
		"one":          {[]string{news.Id}, []string{"news", "both"}},
		"two":          {[]string{news.Id, sport.Id}, []string{"news", "sport", "both"}},
		"nobody in it": {[]string{empty.Id}, nil},
	} {
		n := send(t, app, map[string]any{"audience": "topic", "topics": tc.topics, "channels": []string{"inbox"}})
		n = until(t, app, n, "status", "sent")
		require.ElementsMatch(t, tc.want, reached(t, app, n, names, "delivered"), name)
		require.Equal(t, len(tc.want), n.GetInt("total"), name)
	}

	root := app.Token(app.Superuser("root@example.com"))
	for name, topics := range map[string]any{"none": []string{}, "unknown": []string{"nosuchtopic0000"}} {
		res := app.Send(http.MethodPost, "/api/collections/notifications/records",
			map[string]any{"title": "Hi", "audience": "topic", "topics": topics, "channels": []string{"inbox"}, "action": "send"}, root)
		require.Equal(t, http.StatusBadRequest, res.Status, name)
		require.Contains(t, res.JSON(t)["data"], "topics", name)
	}
}
