package hooks_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

const openedPath = "/api/notifications/opened"

// apple is a double that takes the pushes of x.
func (x *pushing) apple() *providertest.APNs {
	x.t.Helper()
	apple := providertest.NewAPNs(x.t, providertest.APNsOptions{KeyID: "KEY1234567", TeamID: "TEAM123456", Topics: []string{pushBundle}})
	key, err := providertest.NewAPNsKey()
	require.NoError(x.t, err)
	until(x.t, x.App, x.provider("apns", apple.Config(pushBundle), key.PEM, ""), "state", "ok")
	return apple
}

func TestAnOpenedMessageIsCounted(t *testing.T) {
	t.Parallel()
	x := newPushing(t)
	x.people(4, "ios")
	apple := x.apple()
	n := until(t, x.App, send(t, x.App, map[string]any{"title": "Hello", "channels": []string{"push"}}), "status", "sent")
	people, deliveries, tokens := make([]*core.Record, 4), make([]*core.Record, 4), make([]string, 4)
	for i := range 4 {
		var err error
		people[i], err = x.FindAuthRecordByEmail("users", mailAddress(i))
		require.NoError(t, err)
		deliveries[i], err = x.FindFirstRecordByFilter(notifications.CollectionDeliveries, "notification = {:n} && user = {:u}", dbx.Params{"n": n.Id, "u": people[i].Id})
		require.NoError(t, err)
		var payload struct{ OpenToken string }
		require.NoError(t, json.Unmarshal(apple.Last(iosToken(i)).Payload, &payload))
		tokens[i] = payload.OpenToken
		require.True(t, strings.HasPrefix(tokens[i], deliveries[i].Id+"."), tokens[i])
	}
	forged := deliveries[3].Id + "." + strings.SplitN(tokens[2], ".", 2)[1]
	ana, bo := x.Token(people[0]), x.Token(people[1])

	opened := 0
	for _, tc := range []struct {
		name   string
		body   any
		who    string
		status int
		opens  int // whose message is opened by it; -1: nobody's
	}{
		{"nothing", map[string]any{}, "", 400, -1},
		{"no object", `[1]`, "", 400, -1},
		{"guest, forged", map[string]any{"token": forged}, "", 404, -1},
		{"guest, nonsense", map[string]any{"token": "x"}, "", 404, -1},
		{"superuser, forged", map[string]any{"token": forged}, x.root, 404, -1},
		{"guest, without the token", map[string]any{"delivery": deliveries[0].Id}, "", 401, -1},
		{"superuser, without the token", map[string]any{"delivery": deliveries[0].Id}, x.root, 403, -1},
		{"another person", map[string]any{"delivery": deliveries[0].Id}, bo, 404, -1},
		{"another person, with the token", map[string]any{"token": tokens[0]}, bo, 404, -1},
		{"of nothing", map[string]any{"delivery": "nosuchdelivery"}, ana, 404, -1},
		{"recipient", map[string]any{"delivery": deliveries[0].Id}, ana, 204, 0},
		{"recipient, again", map[string]any{"delivery": deliveries[0].Id}, ana, 204, 0},
		{"recipient, with the token", map[string]any{"token": tokens[1]}, bo, 204, 1},
		{"guest", map[string]any{"token": tokens[2]}, "", 204, 2},
		{"guest, again", map[string]any{"token": tokens[2]}, "", 204, 2},
		{"bad token in the header", map[string]any{"token": tokens[3]}, "x.y.z", 401, -1},
	} {
		res := x.Send(http.MethodPost, openedPath, tc.body, tc.who)
		require.Equal(t, tc.status, res.Status, "%s: %s", tc.name, res)
		if tc.opens >= 0 {
			opened = max(opened, tc.opens+1)
			d := x.Reload(deliveries[tc.opens])
			require.Equal(t, "opened", d.GetString("status"), tc.name)
			require.False(t, d.GetDateTime("deliveredAt").IsZero())
		}
		require.Equal(t, opened, deliveryStatuses(t, x.App, n)["opened"], tc.name)
	}
	require.True(t, waitFor(func() bool { return x.Reload(n).GetInt("opened") == 3 }))
	n = x.Reload(n)
	require.Equal(t, []any{4, 4, 3, 3, "sent"}, []any{n.GetInt("total"), n.GetInt("sent"), n.GetInt("delivered"), n.GetInt("opened"), n.GetString("status")})

	// A silent push has nothing to open.
	until(t, x.App, send(t, x.App, map[string]any{"title": "", "body": "", "channels": []string{"push"}, "options": map[string]any{"silent": true}}), "status", "sent")
	require.NotContains(t, string(apple.Last(iosToken(0)).Payload), "openToken")
}

// A link in a mail can carry the token to the app, and what did not go out cannot be
// opened.
func TestTheTokenInATemplate(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2025-06-24T21:30:00Z")
	x := newPushing(t, c.option())
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	mailProvider(t, x.App, smtp.Config("hello@example.com"), "")
	ana := x.User("ana@example.com")
	quietHours(x.App, ana, "", "", "21:00", "07:00")
	n := send(t, x.App, map[string]any{"body": "Read on: https://shop.example.com/?opened={{ openToken }}."})
	settled(t, x.App, n, c.now())
	delivery, err := x.FindFirstRecordByData(notifications.CollectionDeliveries, "notification", n.Id)
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, x.Send(http.MethodPost, openedPath, map[string]any{"delivery": delivery.Id}, x.Token(ana)).Status)
	require.Equal(t, "pending", x.Reload(delivery).GetString("status"))

	c.step(t, x.App, n, moment(t, "2025-06-25T07:00:00Z"))
	until(t, x.App, n, "status", "sent")
	require.Len(t, smtp.To("ana@example.com"), 1)
	mail, err := smtp.To("ana@example.com")[0].Parse()
	require.NoError(t, err)
	_, token, found := strings.Cut(strings.TrimSpace(mail.Text), "opened=")
	require.True(t, found, mail.Text)
	require.Equal(t, http.StatusNoContent, x.Send(http.MethodPost, openedPath, map[string]any{"token": strings.TrimSuffix(token, ".")}, "").Status)
	require.Equal(t, "opened", x.Reload(delivery).GetString("status"))
}
