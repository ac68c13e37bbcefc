package hooks_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// Who may do what: the answers in the order list, view, create, update, delete,
// for a guest, another user, a member of another auth collection, the owner, and a
// superuser. "list" is ok, none (200 and empty) or
// 403.
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()

	closed := [5]string{"403", "403", "403", "403", "403"}
	unknown := [5]string{"401", "401", "401", "401", "401"} // who has not signed in
	superuser := [5]string{"ok", "200", "200", "200", "204"}

	for name, tc := range map[string]struct {
		// record makes the record that is listed, viewed, updated and deleted.
		record func(app *pbtest.App, owner *core.Record) *core.Record
		// create is the body of the create request.
		create func(app *pbtest.App, owner *core.Record) map[string]any
		update map[string]any
		// want is for guest, other, member, owner, superuser.
		want [5][5]string
	}{
		notifications.CollectionCategories: {
			record: func(app *pbtest.App, _ *core.Record) *core.Record {
				return app.Record(notifications.CollectionCategories, map[string]any{"key": "orders", "name": "Orders", "kind": "transactional"})
			},
			create: fields(map[string]any{"key": "news", "name": "News", "kind": "promotional"}),
			update: map[string]any{"name": "x"},
			want: [5][5]string{
				{"none", "404", "401", "401", "401"},
				{"promotional", "404", "403", "403", "403"},
				{"none", "404", "403", "403", "403"},
				{"promotional", "404", "403", "403", "403"},
				superuser,
			},
		},
		notifications.CollectionTemplates: {
			record: func(app *pbtest.App, _ *core.Record) *core.Record {
				return app.Record(notifications.CollectionTemplates, map[string]any{"key": "a", "title": "A", "body": "A"})
			},
			create: fields(map[string]any{"key": "b", "title": "B", "body": "B"}),
			update: map[string]any{"title": "x"},
			want:   [5][5]string{unknown, closed, closed, closed, superuser},
		},
		notifications.CollectionTopics: {
			record: func(app *pbtest.App, _ *core.Record) *core.Record {
				return app.Record(notifications.CollectionTopics, map[string]any{"key": "a", "name": "A", "open": true})
			},
			create: fields(map[string]any{"key": "b", "name": "B"}),
			update: map[string]any{"name": "x"},
			want: [5][5]string{
				{"none", "404", "401", "401", "401"},
				{"ok", "200", "403", "403", "403"},
				{"none", "404", "403", "403", "403"},
				{"ok", "200", "403", "403", "403"},
				superuser,
			},
		},
		notifications.CollectionSubscriptions: {
			record: func(app *pbtest.App, owner *core.Record) *core.Record {
				topic := app.Record(notifications.CollectionTopics, map[string]any{"key": "a", "name": "A", "open": true})
				app.Record(notifications.CollectionTopics, map[string]any{"id": "opentopic000000", "key": "b", "name": "B", "open": true})
				return app.Record(notifications.CollectionSubscriptions, map[string]any{"topic": topic.Id, "user": owner.Id})
			},
			create: func(_ *pbtest.App, owner *core.Record) map[string]any {
				return map[string]any{"topic": "opentopic000000", "user": owner.Id}
			},
			update: map[string]any{},
			want: [5][5]string{
				{"none", "404", "400", "401", "404"},
				{"none", "404", "400", "403", "404"},
				{"none", "404", "400", "403", "404"},
				{"ok", "200", "200", "403", "204"},
				superuser,
			},
		},
		notifications.CollectionPreferences: {
			record: func(app *pbtest.App, owner *core.Record) *core.Record {
				return app.Record(notifications.CollectionPreferences, map[string]any{"user": owner.Id, "category": "gwpromotional00"})
			},
			create: func(_ *pbtest.App, owner *core.Record) map[string]any {
				return map[string]any{"user": owner.Id, "channel": "sms"}
			},
			update: map[string]any{"enabled": true},
			want: [5][5]string{
				{"none", "404", "400", "404", "404"},
				{"none", "404", "400", "404", "404"},
				{"none", "404", "400", "404", "404"},
				{"ok", "200", "200", "200", "204"},
				superuser,
			},
		},
		notifications.CollectionSuppressions: {
			record: func(app *pbtest.App, _ *core.Record) *core.Record {
				return app.Record(notifications.CollectionSuppressions, map[string]any{"channel": "email", "address": "x@example.com", "reason": "manual"})
			},
			create: fields(map[string]any{"channel": "email", "address": "y@example.com", "reason": "manual"}),
			update: map[string]any{"reason": "bounce"},
			want:   [5][5]string{unknown, closed, closed, closed, superuser},
		},
		notifications.CollectionProviders: {
			record: func(app *pbtest.App, _ *core.Record) *core.Record {
				return app.Record(notifications.CollectionProviders, provider("A"))
			},
			create: fields(provider("B")),
			update: map[string]any{"name": "x"},
			want:   [5][5]string{unknown, closed, closed, closed, superuser},
		},
		notifications.CollectionDevices: {
			record: func(app *pbtest.App, owner *core.Record) *core.Record {
				return app.Record(notifications.CollectionDevices, map[string]any{"user": owner.Id, "platform": "android", "token": "a"})
			},
			create: func(_ *pbtest.App, owner *core.Record) map[string]any {
				return map[string]any{"user": owner.Id, "platform": "android", "token": "b"}
			},
			update: map[string]any{"appVersion": "1.2.3"},
			want: [5][5]string{
				{"none", "404", "400", "404", "404"},
				{"none", "404", "200", "404", "404"}, // it becomes theirs: see TestOwnerOfWhatIsCreated
				{"none", "404", "400", "404", "404"},
				{"ok", "200", "200", "200", "204"},
				superuser,
			},
		},
		notifications.CollectionNotifications: {
			record: func(app *pbtest.App, _ *core.Record) *core.Record {
				return app.Record(notifications.CollectionNotifications, map[string]any{"title": "A"})
			},
			create: fields(map[string]any{"title": "B"}),
			update: map[string]any{"title": "x"},
			want:   [5][5]string{unknown, closed, closed, closed, superuser},
		},
		notifications.CollectionDeliveries: {
			record: func(app *pbtest.App, owner *core.Record) *core.Record { return delivery(t, app, owner) },
			create: func(_ *pbtest.App, owner *core.Record) map[string]any {
				return map[string]any{"user": owner.Id, "channel": "email", "status": "accepted"}
			},
			update: map[string]any{"status": "failed"},
			want:   [5][5]string{unknown, closed, closed, closed, {"ok", "200", "403", "403", "403"}},
		},
		notifications.CollectionConsents: {
			record: func(app *pbtest.App, owner *core.Record) *core.Record { return agree(app, owner, "email") },
			create: func(_ *pbtest.App, owner *core.Record) map[string]any {
				return map[string]any{"user": owner.Id, "channel": "email", "granted": true, "source": "Settings", "wording": "News by e-mail"}
			},
			update: map[string]any{"granted": false},
			want: [5][5]string{
				{"none", "404", "400", "401", "401"},
				{"none", "404", "400", "403", "403"},
				{"none", "404", "400", "403", "403"},
				{"ok", "200", "200", "403", "403"},
				{"ok", "200", "200", "403", "403"},
			},
		},
		notifications.CollectionInbox: {
			record: func(app *pbtest.App, owner *core.Record) *core.Record {
				return app.Record(notifications.CollectionInbox, map[string]any{"user": owner.Id, "title": "A"})
			},
			create: func(_ *pbtest.App, owner *core.Record) map[string]any {
				return map[string]any{"user": owner.Id, "title": "B"}
			},
			update: map[string]any{"readAt": "2026-01-01 00:00:00.000Z"},
			want: [5][5]string{
				{"none", "404", "401", "404", "401"},
				{"none", "404", "403", "404", "403"},
				{"none", "404", "403", "404", "403"},
				{"ok", "200", "403", "200", "403"},
				superuser,
			},
		},
		accounts.CollectionSessions: {
			record: func(app *pbtest.App, owner *core.Record) *core.Record {
				session, err := app.FindRecordById(accounts.CollectionSessions, sessionID(t, signIn(t, app, owner)))
				require.NoError(t, err)
				return session
			},
			create: func(_ *pbtest.App, owner *core.Record) map[string]any {
				return map[string]any{"collectionRef": owner.Collection().Id, "recordRef": owner.Id, "kind": "sign_in"}
			},
			update: map[string]any{"name": "x"},
			want: [5][5]string{
				{"none", "404", "401", "401", "404"},
				{"", "404", "403", "403", "404"}, // in the list is the entry of their own token, see TestLegacyTokens
				{"", "404", "403", "403", "404"},
				{"ok", "200", "403", "403", "204"},
				{"ok", "200", "403", "403", "204"},
			},
		},
		notifications.CollectionTriggers: {
			record: func(app *pbtest.App, _ *core.Record) *core.Record {
				return app.Record(notifications.CollectionTriggers, trigger("A"))
			},
			create: fields(trigger("B")),
			update: map[string]any{"name": "x"},
			want:   [5][5]string{unknown, closed, closed, closed, superuser},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := pbtest.NewApp(t)
			owner := app.User("owner@example.com")
			members := core.NewAuthCollection("members")
			require.NoError(t, app.Save(members))
			member := core.NewRecord(members)
			member.SetEmail("member@example.com")
			member.SetPassword(pbtest.Password)
			require.NoError(t, app.Save(member))

			tokens := []string{"", app.Token(app.User("other@example.com")), app.Token(member), app.Token(owner), app.Token(app.Superuser("root@example.com"))}
			record := tc.record(app, owner)
			base := "/api/collections/" + name + "/records"

			for i, who := range []string{"guest", "other", "member", "owner", "superuser"} {
				send := func(method, path string, body any) string {
					return fmt.Sprint(app.Send(method, path, body, tokens[i]).Status)
				}
				list := app.Send("GET", base, nil, tokens[i])
				got := [5]string{fmt.Sprint(list.Status), send("GET", base+"/"+record.Id, nil)}
				if list.Status == http.StatusOK {
					got[0] = listed(t, list, record)
				}

				created := app.Send("POST", base, tc.create(app, owner), tokens[i])
				got[2] = fmt.Sprint(created.Status)
				got[3] = send("PATCH", base+"/"+record.Id, tc.update)
				got[4] = send("DELETE", base+"/"+record.Id, nil)
				require.Equal(t, tc.want[i], got, "%s: list, view, create, update, delete", who)

				// The next one finds the same.
				if created.Status == http.StatusOK {
					fresh, err := app.FindRecordById(name, created.JSON(t)["id"].(string))
					require.NoError(t, err)
					if tc.want[4][4] == "403" {
						continue // it stays
					}
					require.NoError(t, app.Delete(fresh))
				}
				if got[4] == "204" && who != "superuser" {
					again := core.NewRecord(record.Collection())
					for _, f := range record.Collection().Fields {
						again.SetRaw(f.GetName(), record.GetRaw(f.GetName()))
					}
					require.NoError(t, app.SaveWithContext(notifications.AsServer(t.Context()), again))
					record = again
				}
			}
		})
	}
}

// listed is "ok" when the record is in the list, "none" when the list is empty,
// and else the keys in it.
func listed(t *testing.T, res pbtest.Response, record *core.Record) string {
	t.Helper()
	var list struct {
		Items []struct {
			ID  string `json:"id"`
			Key string `json:"key"`
		} `json:"items"`
	}
	require.NoError(t, json.Unmarshal(res.Body, &list))
	var keys []string
	for _, item := range list.Items {
		if item.ID == record.Id {
			return "ok"
		}
		keys = append(keys, item.Key)
	}
	if len(keys) == 0 {
		return "none"
	}
	return strings.Join(keys, ",")
}

func fields(v map[string]any) func(*pbtest.App, *core.Record) map[string]any {
	return func(*pbtest.App, *core.Record) map[string]any { return v }
}

func provider(name string) map[string]any {
	return map[string]any{
		"name": name, "channel": "email_transactional", "senderId": "a@example.com",
		"config": map[string]any{"host": "127.0.0.1", "port": 2525, "tls": "none", "from": "a@example.com"},
	}
}

func trigger(name string) map[string]any {
	return map[string]any{"name": name, "collection": "users", "event": "created", "template": "gwwelcome000000", "channels": []string{"email"}}
}

func delivery(t *testing.T, app *pbtest.App, owner *core.Record) *core.Record {
	t.Helper()
	col, err := app.FindCollectionByNameOrId(notifications.CollectionDeliveries)
	require.NoError(t, err)
	r := core.NewRecord(col)
	r.Load(map[string]any{"user": owner.Id, "target": owner.Id, "channel": "email", "status": "accepted"})
	require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), r))
	return r
}

func TestOwnerOfWhatIsCreated(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me, other := app.User("me@example.com"), app.User("other@example.com")
	admin := app.Token(app.Superuser("root@example.com"))
	app.Record(notifications.CollectionTopics, map[string]any{"id": "opentopic000000", "key": "b", "name": "B", "open": true})
	app.Record(notifications.CollectionTopics, map[string]any{"id": "closedtopic0000", "key": "c", "name": "C"})

	for _, body := range []map[string]any{{}, {"user": me.Id}, {"user": other.Id}} {
		body["platform"], body["token"] = "android", fmt.Sprint(body["user"], "token")
		res := app.Send("POST", "/api/collections/devices/records", body, app.Token(me))
		require.Equal(t, 200, res.Status, res.String())
		require.Equal(t, me.Id, res.JSON(t)["user"], "a device belongs to whoever registers it")
		require.Equal(t, "fcm", res.JSON(t)["pushService"])
		require.Equal(t, "active", res.JSON(t)["status"])
		require.NotEmpty(t, res.JSON(t)["registeredAt"])
	}
	res := app.Send("POST", "/api/collections/devices/records", map[string]any{"user": other.Id, "platform": "android", "token": "t"}, admin)
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, other.Id, res.JSON(t)["user"], "a superuser says whose it is")

	// Without naming oneself, as a client would.
	res = app.Send("POST", "/api/collections/notification_subscriptions/records", map[string]any{"topic": "opentopic000000"}, app.Token(me))
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, me.Id, res.JSON(t)["user"])
	require.Equal(t, 400, app.Send("POST", "/api/collections/notification_subscriptions/records", map[string]any{"topic": "closedtopic0000"}, app.Token(me)).Status)
	require.Equal(t, 400, app.Send("POST", "/api/collections/notification_subscriptions/records", map[string]any{"topic": "opentopic000000", "user": other.Id}, app.Token(me)).Status)

	res = app.Send("POST", "/api/collections/notification_preferences/records", map[string]any{"quietFrom": "22:00", "quietTo": "07:00"}, app.Token(me))
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, me.Id, res.JSON(t)["user"])
	require.Equal(t, true, res.JSON(t)["enabled"], "quiet hours are no opting out")
	res = app.Send("POST", "/api/collections/notification_preferences/records", map[string]any{"user": other.Id}, admin)
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, false, res.JSON(t)["enabled"], "off, as the dashboard shows a switch that was not touched")
	res = app.Send("POST", "/api/collections/notification_preferences/records", map[string]any{"channel": "sms", "enabled": false}, app.Token(me))
	require.Equal(t, false, res.JSON(t)["enabled"])
	require.Equal(t, 400, app.Send("POST", "/api/collections/notification_preferences/records", map[string]any{"user": other.Id}, app.Token(me)).Status)
	require.Equal(t, 400, app.Send("POST", "/api/collections/notification_preferences/records", map[string]any{"channel": "push", "quietFrom": "25:00"}, app.Token(me)).Status)
}

func TestOwnersWriteOnlyTheirFields(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me, other := app.User("me@example.com"), app.User("other@example.com")

	// An administrator's own field follows the collection's rule.
	col, err := app.FindCollectionByNameOrId(notifications.CollectionInbox)
	require.NoError(t, err)
	col.Fields.Add(&core.BoolField{Name: "starred"})
	require.NoError(t, app.Save(col))

	msg := app.Record(notifications.CollectionInbox, map[string]any{
		"user": me.Id, "notification": "n1", "title": "T", "body": "B", "data": map[string]any{"a": 1}, "image": "I", "link": "L",
	})
	res := app.Send("PATCH", "/api/collections/notification_inbox/records/"+msg.Id, map[string]any{
		"user": other.Id, "notification": "x", "title": "x", "body": "x", "data": nil, "image": "x", "link": "x",
		"readAt": "2026-01-02 03:04:05.000Z", "starred": true,
	}, app.Token(me))
	require.Equal(t, 200, res.Status, res.String())
	now := app.Reload(msg)
	for name, want := range map[string]string{
		"user": me.Id, "notification": "n1", "title": "T", "body": "B", "data": `{"a":1}`, "image": "I", "link": "L",
		"readAt": "2026-01-02 03:04:05.000Z", "starred": "true",
	} {
		require.Equal(t, want, now.GetString(name), name)
	}

	dev := app.Record(notifications.CollectionDevices, map[string]any{"user": me.Id, "platform": "ios", "token": appleToken, "environment": "sandbox"})
	res = app.Send("PATCH", "/api/collections/devices/records/"+dev.Id, map[string]any{
		"platform": "web", "pushService": "fcm", "environment": "production", "token": "x", "user": other.Id, "status": "gone",
		"locale": "fr", "timezone": "Europe/Paris", "appVersion": "2.0", "model": "M", "app": "com.example",
	}, app.Token(me))
	require.Equal(t, 200, res.Status, res.String())
	now = app.Reload(dev)
	for name, want := range map[string]string{
		"platform": "ios", "pushService": "apns", "environment": "sandbox", "token": appleToken, "user": me.Id, "status": "active",
		"locale": "fr", "timezone": "Europe/Paris", "appVersion": "2.0", "model": "M", "app": "com.example",
	} {
		require.Equal(t, want, now.GetString(name), name)
	}
}

func TestCategoriesStay(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	admin := app.Token(app.Superuser("root@example.com"))
	base := "/api/collections/notification_categories/records/"

	for _, id := range []string{"gwtransactional", "gwpromotional00", "gwaccount000000"} {
		res := app.Send("DELETE", base+id, nil, admin)
		require.Equal(t, 400, res.Status)
		require.Contains(t, res.String(), "cannot be deleted")
		res = app.Send("PATCH", base+id, map[string]any{"key": "other"}, admin)
		require.Equal(t, 400, res.Status)
		require.Contains(t, res.String(), `"key":{`)
		require.Equal(t, 200, app.Send("PATCH", base+id, map[string]any{"name": "Mine", "frequencyCap": 3}, admin).Status)
	}
	res := app.Send("PATCH", base+"gwaccount000000", map[string]any{"canOptOut": true}, admin)
	require.Equal(t, 400, res.Status)
	require.Contains(t, res.String(), "cannot be switched off")
	require.Equal(t, 400, app.Send("DELETE", "/api/collections/notification_categories/truncate", nil, admin).Status)

	for _, change := range []map[string]any{{"kind": "transactional"}} {
		res := app.Send("PATCH", base+"gwpromotional00", change, admin)
		require.Equal(t, 400, res.Status)
		require.Contains(t, res.String(), "make another category instead")
	}
	// Go code, also with a record that was never read.
	col, err := app.FindCollectionByNameOrId(notifications.CollectionCategories)
	require.NoError(t, err)
	r := core.NewRecord(col)
	r.Id = "gwpromotional00"
	r.MarkAsNotNew()
	r.Load(map[string]any{"key": "promotional", "name": "Promotional", "kind": "transactional"})
	require.Error(t, app.SaveNoValidate(r))
	require.Error(t, app.Delete(r))
	stored, err := app.FindRecordById(col, "gwpromotional00")
	require.NoError(t, err)
	require.Equal(t, "promotional", stored.GetString("kind"))

	own := app.Record(notifications.CollectionCategories, map[string]any{"key": "orders", "name": "Orders", "kind": "transactional"})
	require.Equal(t, 204, app.Send("DELETE", base+own.Id, nil, admin).Status)
}

func TestProviderChannelStays(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	admin := app.Token(app.Superuser("root@example.com"))
	p := app.Record(notifications.CollectionProviders, provider("Mail"))
	res := app.Send("PATCH", "/api/collections/notification_providers/records/"+p.Id, map[string]any{"channel": "email_promotional"}, admin)
	require.Equal(t, 400, res.Status)
	require.Contains(t, res.String(), "make another provider instead")
	require.Equal(t, "email_transactional", app.Reload(p).GetString("channel"))
}

func TestSuppressionsAreNormalized(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	admin := app.Token(app.Superuser("root@example.com"))
	post := func(channel, address string) pbtest.Response {
		return app.Send("POST", "/api/collections/notification_suppressions/records",
			map[string]any{"channel": channel, "address": address, "reason": "manual"}, admin)
	}
	require.Equal(t, "ada@example.com", post("email", "Ada@Example.com").JSON(t)["address"])
	require.Equal(t, "+4915112345678", post("sms", "+49 151 12345678").JSON(t)["address"])
	for channel, address := range map[string]string{"email": "ada", "sms": "0151 1234"} {
		res := post(channel, address)
		require.Equal(t, 400, res.Status)
		require.Contains(t, res.String(), `"address":{"code":"invalid_address"`)
	}
	require.Equal(t, 400, post("email", "ADA@example.com").Status, "it is there already")
}

func TestDeliveriesAreClosed(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	d := delivery(t, app, app.User("a@example.com"))
	admin := app.Token(app.Superuser("root@example.com"))

	d.Set("status", "failed")
	require.ErrorContains(t, app.Save(d), "written by the server")
	require.ErrorContains(t, app.Delete(app.Reload(d)), "written by the server")
	require.Equal(t, 400, app.Send("DELETE", "/api/collections/notification_deliveries/truncate", nil, admin).Status)
	require.Equal(t, "accepted", app.Reload(d).GetString("status"))

	server := notifications.AsServer(context.Background())
	require.NoError(t, app.SaveWithContext(server, d))
	require.Equal(t, "failed", app.Reload(d).GetString("status"))
	require.NoError(t, app.DeleteWithContext(server, d))
}

func TestTextsThatNothingCanCarry(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	admin := app.Token(app.Superuser("root@example.com"))
	for name, body := range map[string]string{
		"nul":   `{"title":"a\u0000b"}`,
		"huge":  `{"title":"` + strings.Repeat("x", 10<<20) + `"}`,
		"bytes": "{\"title\":\"a\xffb\"}",
	} {
		res := app.Send("POST", "/api/collections/notifications/records", body, admin)
		require.Equal(t, 400, res.Status, name)
		if name != "bytes" { // no JSON at all
			require.Contains(t, res.String(), `"title":{`, name)
		}
	}
	col, err := app.FindCollectionByNameOrId(notifications.CollectionInbox)
	require.NoError(t, err)
	r := core.NewRecord(col)
	r.Load(map[string]any{"user": app.User("a@example.com").Id, "title": "a\xff"})
	require.ErrorContains(t, app.Save(r), "cannot be written")
}

// Whoever leaves takes along what is theirs; what was sent stays on record.
func TestDeletingAPerson(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me := app.User("me@example.com")
	topic := app.Record(notifications.CollectionTopics, map[string]any{"key": "a", "name": "A", "open": true})
	theirs := []*core.Record{
		app.Record(notifications.CollectionSubscriptions, map[string]any{"topic": topic.Id, "user": me.Id}),
		app.Record(notifications.CollectionPreferences, map[string]any{"user": me.Id}),
		app.Record(notifications.CollectionDevices, map[string]any{"user": me.Id, "platform": "android", "token": "a"}),
		app.Record(notifications.CollectionInbox, map[string]any{"user": me.Id, "title": "A"}),
		agree(app, me, "email"),
	}
	n := app.Record(notifications.CollectionNotifications, map[string]any{"title": "A", "users": []string{me.Id}})
	n.Set("status", "sent")
	require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), n))
	delivery(t, app, me)

	res := app.Send("DELETE", "/api/collections/users/records/"+me.Id, nil, app.Token(me))
	require.Equal(t, 204, res.Status, res.String())
	for _, r := range theirs {
		_, err := app.FindRecordById(r.Collection(), r.Id)
		require.Error(t, err, r.Collection().Name)
	}
	kept, err := app.CountRecords(notifications.CollectionDeliveries) // under another id once it names nobody
	require.NoError(t, err)
	require.EqualValues(t, 1, kept)
	require.Empty(t, app.Reload(n).GetStringSlice("users"))
	require.Equal(t, "sent", app.Reload(n).GetString("status"))
}

// An administrator edits every one of our collections as the dashboard does: it
// reads the whole definition and sends it back with the change.
func TestAdminEditsOurCollections(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	admin := app.Token(app.Superuser("root@example.com"))
	user := app.User("a@example.com", map[string]any{"phone": "+4915112345678"})
	notification := app.Record(notifications.CollectionNotifications, map[string]any{"title": "T", "users": []string{user.Id}})

	ids := []string{
		notifications.CollectionCategories, notifications.CollectionTemplates, notifications.CollectionTopics,
		notifications.CollectionSubscriptions, notifications.CollectionPreferences, notifications.CollectionSuppressions,
		notifications.CollectionProviders, notifications.CollectionDevices, notifications.CollectionNotifications,
		notifications.CollectionDeliveries, notifications.CollectionInbox, notifications.CollectionTriggers, notifications.CollectionConsents, "gw_app_versions", "gw_phone_sign_in", "_pb_users_auth_",
	}
	read := func(id string) map[string]any {
		res := app.Send("GET", "/api/collections/"+id, nil, admin)
		require.Equal(t, 200, res.Status, res.String())
		return res.JSON(t)
	}
	write := func(id string, def map[string]any) pbtest.Response {
		return app.Send("PATCH", "/api/collections/"+id, def, admin)
	}
	ok := func(res pbtest.Response) {
		t.Helper()
		require.Equal(t, 200, res.Status, res.String())
	}

	for _, id := range ids {
		before, err := app.FindCollectionByNameOrId(id)
		require.NoError(t, err)

		ok(write(id, read(id))) // nothing changed

		def := read(id)
		def["fields"] = append(def["fields"].([]any), map[string]any{"name": "adminNote", "type": "text"})
		ok(write(id, def))

		def = read(id)
		slices.Reverse(def["fields"].([]any))
		ok(write(id, def))

		def = read(id)
		name := def["name"].(string)
		def["indexes"] = append(def["indexes"].([]any), fmt.Sprintf("CREATE INDEX `idx_admin_%s` ON `%s` (`adminNote`)", id, name))
		ok(write(id, def))

		// A switch flipped, a value removed, a limit lowered, an index dropped: what
		// the code relies on comes back by itself.
		def = read(id)
		for _, f := range def["fields"].([]any) {
			f := f.(map[string]any)
			if f["name"] == "id" || f["primaryKey"] == true {
				continue
			}
			if id == "_pb_users_auth_" && !slices.Contains([]string{"phone", "phoneVerified", "locale", "timezone"}, f["name"].(string)) {
				continue
			}
			f["system"], f["hidden"], f["help"] = false, false, "My own words."
			switch f["type"] {
			case "select":
				f["values"] = append(f["values"].([]any)[:1:1], "extra")
			case "text":
				f["max"], f["pattern"] = 3, "^x$"
			case "json":
				f["maxSize"] = 5
			case "number":
				f["max"] = 1
			case "relation":
				f["cascadeDelete"] = f["cascadeDelete"] != true
			}
		}
		def["indexes"] = slices.DeleteFunc(def["indexes"].([]any), func(v any) bool {
			return strings.Contains(v.(string), "idx_gw_") && !strings.Contains(v.(string), "UNIQUE")
		})
		for i, v := range def["indexes"].([]any) {
			if strings.Contains(v.(string), "idx_gw_") {
				def["indexes"].([]any)[i] = strings.Split(v.(string), " WHERE ")[0]
			}
		}
		ok(write(id, def))

		after, err := app.FindCollectionByNameOrId(id)
		require.NoError(t, err)
		for _, f := range before.Fields {
			if !f.GetSystem() {
				continue
			}
			now := after.Fields.GetByName(f.GetName())
			require.NotNil(t, now, f.GetName())
			require.True(t, now.GetSystem(), f.GetName())
			require.Equal(t, f.GetHidden(), now.GetHidden(), "%s.%s", before.Name, f.GetName())
			switch f := f.(type) {
			case *core.SelectField:
				require.Subset(t, now.(*core.SelectField).Values, f.Values)
				require.Contains(t, now.(*core.SelectField).Values, "extra", "an administrator may add values")
			case *core.TextField:
				require.Equal(t, f.Max, now.(*core.TextField).Max)
				require.Equal(t, f.Pattern, now.(*core.TextField).Pattern)
			case *core.JSONField:
				require.Equal(t, f.MaxSize, now.(*core.JSONField).MaxSize)
			case *core.RelationField:
				require.Equal(t, f.CascadeDelete, now.(*core.RelationField).CascadeDelete)
			}
		}
		for _, index := range before.Indexes {
			require.Contains(t, after.Indexes, index)
		}
		require.NotNil(t, after.Fields.GetByName("adminNote"))
		require.NotEmpty(t, after.GetIndex("idx_admin_"+id))

		// A system field cannot be removed or renamed, and a collection of ours not deleted.
		def = read(id)
		var removed []any
		for _, f := range def["fields"].([]any) {
			if n := f.(map[string]any)["name"]; n != "created" && n != "phone" {
				removed = append(removed, f)
			}
		}
		if id != "_pb_users_auth_" || len(removed) < len(def["fields"].([]any))-1 {
			def["fields"] = removed
			require.Equal(t, 400, write(id, def).Status, id)
		}
		require.Equal(t, 400, app.Send("DELETE", "/api/collections/"+id, nil, admin).Status)
	}

	// A new name, which a system collection cannot get.
	for _, id := range ids {
		def := read(id)
		def["name"] = "renamed_" + id
		res := write(id, def)
		if id == notifications.CollectionDeliveries || id == notifications.CollectionConsents || id == "gw_phone_sign_in" {
			require.Equal(t, 400, res.Status)
			continue
		}
		ok(res)
	}

	// And everything still works.
	res := app.Send("PATCH", "/api/collections/renamed_gw_notifications/records/"+notification.Id, map[string]any{"title": "New", "sent": 3}, admin)
	ok(res)
	require.Equal(t, "New", app.Reload(notification).GetString("title"))
	require.Zero(t, app.Reload(notification).GetInt("sent"))
	require.Equal(t, 400, app.Send("DELETE", "/api/collections/renamed_gw_categories/records/gwaccount000000", nil, admin).Status)
	res = app.Send("GET", "/api/collections/renamed__pb_users_auth_/records/"+user.Id, nil, app.Token(user))
	ok(res)
	require.Equal(t, "+4915112345678", res.JSON(t)["phone"])
	res = app.Send("POST", "/api/collections/renamed_gw_devices/records", map[string]any{"platform": "android", "token": "t"}, app.Token(app.Reload(user)))
	ok(res)
	tr, err := app.FindRecordById(notifications.CollectionTriggers, "gwwelcome000000")
	require.NoError(t, err)
	require.Equal(t, "renamed__pb_users_auth_", tr.GetString("collection"), "a trigger follows the collection that it watches")
	_, err = core.NewMigrationsRunner(app, core.AppMigrations).Down(len(core.AppMigrations.Items()))
	require.NoError(t, err)
}

// The dashboard's import sends many definitions at once and may delete the rest.
func TestImportKeepsOurCollections(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	admin := app.Token(app.Superuser("root@example.com"))
	old := core.NewBaseCollection("old")
	require.NoError(t, app.Save(old))
	before := map[string]string{}
	for id := range forgeries {
		col, err := app.FindCollectionByNameOrId(id)
		require.NoError(t, err)
		raw, err := json.Marshal(col.Fields)
		require.NoError(t, err)
		before[id] = string(raw)
	}

	orders := map[string]any{"name": "orders", "type": "base", "fields": []any{map[string]any{"name": "a", "type": "text"}}}
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	res := app.Send("PUT", "/api/collections/import", map[string]any{"deleteMissing": true, "collections": []any{orders, users}}, admin)
	require.Equal(t, 204, res.Status, res.String())
	_, err = app.FindCollectionByNameOrId("old")
	require.Error(t, err, "what is missing was deleted")
	_, err = app.FindCollectionByNameOrId("orders")
	require.NoError(t, err)
	for id, fields := range before {
		col, err := app.FindCollectionByNameOrId(id)
		require.NoError(t, err)
		raw, err := json.Marshal(col.Fields)
		require.NoError(t, err)
		require.Equal(t, fields, string(raw), "%s is as it was", col.Name)
	}
	// Without the people that our collections belong to nothing is done at all.
	res = app.Send("PUT", "/api/collections/import", map[string]any{"deleteMissing": true, "collections": []any{orders}}, admin)
	require.Equal(t, 400, res.Status, res.String())
	res = app.Send("PUT", "/api/collections/import", map[string]any{
		"collections": []any{map[string]any{"id": notifications.CollectionNotifications, "fields": []any{map[string]any{"name": "status", "type": "select", "values": []string{"x"}}}}},
	}, admin)
	col, err := app.FindCollectionByNameOrId(notifications.CollectionNotifications)
	require.NoError(t, err)
	require.Contains(t, col.Fields.GetByName("status").(*core.SelectField).Values, "draft", res.String())
}
