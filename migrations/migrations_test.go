package migrations_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	_ "github.com/groundworkhq/groundwork/migrations"
)

// ours are the collections by id and their names in PRODUCT.md.
var ours = map[string]string{
	"gw_categories":    "notification_categories",
	"gw_templates":     "notification_templates",
	"gw_topics":        "notification_topics",
	"gw_subscriptions": "notification_subscriptions",
	"gw_preferences":   "notification_preferences",
	"gw_suppressions":  "notification_suppressions",
	"gw_providers":     "notification_providers",
	"gw_devices":       "devices",
	"gw_notifications": "notifications",
	"gw_deliveries":    "notification_deliveries",
	"gw_inbox":         "notification_inbox",
	"gw_triggers":      "notification_triggers",
	"gw_consents":      "notification_consents",
	"gw_app_versions":  "app_versions",
	"gw_erasures":      "erasures",
	"gw_phone_sign_in": "phone_sign_in",
	"gw_rate_limits":   "rate_limits",
	"gw_schedules":     "schedules",
	"gw_schedule_runs": "schedule_runs",
}

// plainApp is PocketBase as it comes, before ours is added.
func plainApp(t *testing.T) *core.BaseApp {
	t.Helper()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { _ = app.ClearBootstrap() })
	require.NoError(t, app.RunSystemMigrations())
	return app
}

func schema(t *testing.T, app core.App) string {
	t.Helper()
	var rows []dbx.NullStringMap
	// The secrets of the auth collections are random and stay the same here:
	// it is one data folder throughout.
	require.NoError(t, app.DB().Select("id", "name", "type", "system", "fields", "indexes", "listRule", "viewRule", "createRule", "updateRule", "deleteRule").
		From("_collections").OrderBy("id").All(&rows))
	var tables []dbx.NullStringMap
	require.NoError(t, app.DB().Select("type", "name").From("sqlite_master").
		Where(dbx.NewExp("name NOT LIKE 'sqlite_%'")).OrderBy("type", "name").All(&tables))
	out, err := json.MarshalIndent([]any{rows, tables}, "", " ")
	require.NoError(t, err)
	return string(out)
}

func TestUpDownUp(t *testing.T) {
	t.Parallel()
	app := plainApp(t)
	before := schema(t, app)

	require.NoError(t, app.RunAppMigrations())
	first := schema(t, app)
	for id, name := range ours {
		c, err := app.FindCollectionByNameOrId(id)
		require.NoError(t, err, id)
		require.Equal(t, name, c.Name)
	}

	runner := core.NewMigrationsRunner(app, core.AppMigrations)
	_, err := runner.Down(len(core.AppMigrations.Items()))
	require.NoError(t, err)
	require.JSONEq(t, before, schema(t, app), "down leaves the app as it was")

	_, err = runner.Up()
	require.NoError(t, err)
	require.JSONEq(t, first, schema(t, app))
}

func TestLimitTables(t *testing.T) {
	t.Parallel()
	app := plainApp(t)
	tables := []string{"groundwork_limit_arrivals", "groundwork_limit_codes", "groundwork_known_addresses"}
	require.NoError(t, app.RunAppMigrations())
	for _, table := range tables {
		require.True(t, app.AuxHasTable(table), table)
	}
	runner := core.NewMigrationsRunner(app, core.AppMigrations)
	_, err := runner.Down(len(core.AppMigrations.Items()))
	require.NoError(t, err)
	for _, table := range tables {
		require.False(t, app.AuxHasTable(table), table)
	}
	_, err = runner.Up()
	require.NoError(t, err)
	limits, err := app.FindAllRecords("gw_rate_limits")
	require.NoError(t, err)
	require.Len(t, limits, 11)
}

func TestDownAfterUse(t *testing.T) {
	t.Parallel()
	app := plainApp(t)
	require.NoError(t, app.RunAppMigrations())

	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	u := core.NewRecord(users)
	u.SetEmail("a@example.com")
	u.SetPassword("1234567890")
	u.Set("phone", "+4915112345678")
	require.NoError(t, app.Save(u))
	topics, err := app.FindCollectionByNameOrId("gw_topics")
	require.NoError(t, err)
	topic := core.NewRecord(topics)
	topic.Load(map[string]any{"key": "news", "name": "News"})
	require.NoError(t, app.Save(topic))
	subs, err := app.FindCollectionByNameOrId("gw_subscriptions")
	require.NoError(t, err)
	s := core.NewRecord(subs)
	s.Load(map[string]any{"topic": topic.Id, "user": u.Id})
	require.NoError(t, app.Save(s))

	_, err = core.NewMigrationsRunner(app, core.AppMigrations).Down(len(core.AppMigrations.Items()))
	require.NoError(t, err)
	_, err = app.FindRecordById("users", u.Id)
	require.NoError(t, err, "people stay")
}

func TestEveryFieldIsSystemAndExplained(t *testing.T) {
	t.Parallel()
	app := plainApp(t)
	require.NoError(t, app.RunAppMigrations())

	check := func(c *core.Collection, f core.Field) {
		require.True(t, f.GetSystem(), "%s.%s is a system field", c.Name, f.GetName())
		if f.Type() == core.FieldTypeAutodate {
			return // PocketBase has no help text there
		}
		raw, err := json.Marshal(f)
		require.NoError(t, err)
		var v struct {
			Help string `json:"help"`
		}
		require.NoError(t, json.Unmarshal(raw, &v))
		require.NotEmpty(t, v.Help, "%s.%s has a help text", c.Name, f.GetName())
		require.LessOrEqual(t, len(v.Help), 200)
		require.Equal(t, ".", v.Help[len(v.Help)-1:], "%s.%s: a sentence", c.Name, f.GetName())
	}
	for id := range ours {
		c, err := app.FindCollectionByNameOrId(id)
		require.NoError(t, err)
		for _, f := range c.Fields {
			check(c, f)
		}
		require.NotNil(t, c.Fields.GetByName("created"), id)
		require.NotNil(t, c.Fields.GetByName("updated"), id)
	}
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	for _, name := range []string{"phone", "phoneVerified", "locale", "timezone"} {
		check(users, users.Fields.GetByName(name))
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	app := plainApp(t)
	require.NoError(t, app.RunAppMigrations())

	for key, kind := range map[string]string{"transactional": "transactional", "promotional": "promotional", "account": "transactional"} {
		r, err := app.FindFirstRecordByData("notification_categories", "key", key)
		require.NoError(t, err)
		require.Equal(t, kind, r.GetString("kind"))
	}
	tr, err := app.FindFirstRecordByData("notification_triggers", "name", "Welcome")
	require.NoError(t, err)
	require.False(t, tr.GetBool("enabled"))
	require.Equal(t, "users", tr.GetString("collection"))
	require.Equal(t, "created", tr.GetString("event"))
	require.Equal(t, []string{"email", "inbox"}, tr.GetStringSlice("channels"))
	require.Empty(t, app.ExpandRecord(tr, []string{"template"}, nil))
	require.Equal(t, "welcome", tr.ExpandedOne("template").GetString("key"))
}

func TestUsersCollection(t *testing.T) {
	t.Parallel()

	edit := func(change func(app core.App, users *core.Collection)) func(t *testing.T, app core.App) {
		return func(t *testing.T, app core.App) {
			users, err := app.FindCollectionByNameOrId("_pb_users_auth_")
			require.NoError(t, err)
			change(app, users)
			require.NoError(t, app.Save(users))
		}
	}
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, app core.App)
		// want are parts of the one error; none means that it works.
		want []string
		// keepsHidden: a phone field that was taken over stays hidden after down;
		// showing it again is its owner's decision.
		keepsHidden bool
	}{
		"renamed": {prepare: edit(func(_ core.App, users *core.Collection) { users.Name = "people" })},
		"deleted": {
			prepare: func(t *testing.T, app core.App) {
				users, err := app.FindCollectionByNameOrId("users")
				require.NoError(t, err)
				require.NoError(t, app.Delete(users))
			},
			want: []string{"users collection was deleted", "Config.UsersCollection"},
		},
		"configured and missing": {
			prepare: func(_ *testing.T, app core.App) { app.Store().Set("groundwork.usersCollection", "members") },
			want:    []string{`"members"`, "does not exist"},
		},
		"configured and not for sign-in": {
			prepare: func(t *testing.T, app core.App) {
				require.NoError(t, app.Save(core.NewBaseCollection("members")))
				app.Store().Set("groundwork.usersCollection", "members")
			},
			want: []string{`"members"`, "not an auth collection"},
		},
		"configured": {
			prepare: func(t *testing.T, app core.App) {
				require.NoError(t, app.Save(core.NewAuthCollection("members")))
				app.Store().Set("groundwork.usersCollection", "members")
			},
		},
		"every clash at once": {
			prepare: func(t *testing.T, app core.App) {
				require.NoError(t, app.Save(core.NewBaseCollection("devices")))
				edit(func(_ core.App, users *core.Collection) {
					users.Fields.Add(&core.NumberField{Name: "phone"}, &core.TextField{Name: "phoneVerified"},
						&core.SelectField{Name: "locale", Values: []string{"en", "fr"}, MaxSelect: 2})
				})(t, app)
			},
			want: []string{`a collection called "devices"`, `"phone"`, "is of type number", `"phoneVerified"`, `"locale"`},
		},
		"fitting fields are taken over": {
			prepare: edit(func(_ core.App, users *core.Collection) {
				users.Fields.Add(&core.TextField{Name: "phone"}, &core.SelectField{Name: "locale", Values: []string{"en", "fr"}, MaxSelect: 1})
			}),
			keepsHidden: true,
		},
		"duplicates among verified phones": {
			prepare: func(t *testing.T, app core.App) {
				edit(func(_ core.App, users *core.Collection) {
					users.Fields.Add(&core.TextField{Name: "phone"}, &core.BoolField{Name: "phoneVerified"})
				})(t, app)
				users, err := app.FindCollectionByNameOrId("users")
				require.NoError(t, err)
				for id, phone := range map[string]string{"aaaaaaaaaaaaaa1": "+4915112345678", "aaaaaaaaaaaaaa2": "+4915112345678", "aaaaaaaaaaaaaa3": ""} {
					u := core.NewRecord(users)
					u.Id = id
					u.SetEmail(id + "@example.com")
					u.SetPassword("1234567890")
					u.Set("phone", phone)
					u.Set("phoneVerified", true)
					require.NoError(t, app.Save(u))
				}
			},
			want: []string{"…678", "aaaaaaaaaaaaaa1", "aaaaaaaaaaaaaa2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := plainApp(t)
			tc.prepare(t, app)
			before := schema(t, app)

			err := app.RunAppMigrations()
			if len(tc.want) == 0 {
				require.NoError(t, err)
				_, err = core.NewMigrationsRunner(app, core.AppMigrations).Down(len(core.AppMigrations.Items()))
				require.NoError(t, err)
				if tc.keepsHidden {
					return
				}
				require.JSONEq(t, before, schema(t, app), "down leaves the app as it was")
				return
			}
			require.Error(t, err)
			for _, part := range tc.want {
				require.Contains(t, err.Error(), part)
			}
			require.NotContains(t, err.Error(), "+4915112345678")
			require.NoError(t, app.ReloadCachedCollections())
			require.JSONEq(t, before, schema(t, app), "nothing was changed")
		})
	}
}

func fieldNames(t *testing.T, app core.App, id string) []string {
	t.Helper()
	c, err := app.FindCollectionByNameOrId(id)
	require.NoError(t, err)
	return c.Fields.FieldNames()
}

// beforeOrder undoes the migration that orders the fields, and those after it.
func beforeOrder(t *testing.T, app core.App) *core.MigrationsRunner {
	t.Helper()
	n := 0
	for _, m := range core.AppMigrations.Items() {
		if m.File >= "1795492000_order_fields.go" {
			n++
		}
	}
	runner := core.NewMigrationsRunner(app, core.AppMigrations)
	_, err := runner.Down(n)
	require.NoError(t, err)
	require.NoError(t, app.ReloadCachedCollections())
	return runner
}

func TestFieldsThatMatterComeFirst(t *testing.T) {
	t.Parallel()
	app := plainApp(t)
	require.NoError(t, app.RunAppMigrations())
	runner := beforeOrder(t, app)

	before := map[string][]string{}
	for id := range ours {
		if _, err := app.FindCollectionByNameOrId(id); err == nil { // not one that came later
			before[id] = fieldNames(t, app, id)
		}
	}
	require.Equal(t, []string{"id", "title", "body", "data"}, before["gw_notifications"][:4], "down restores the order")

	// What later migrations add.
	before["gw_deliveries"] = append(before["gw_deliveries"], "test")

	_, err := runner.Up()
	require.NoError(t, err)
	later := map[string][]string{"gw_deliveries": {"heldUntil"}, "gw_notifications": {"smsAfterMinutes"}} // fields of later migrations
	for id, want := range map[string][]string{
		"gw_notifications": {"id", "title", "body", "channels", "audience", "users", "topics", "filter", "confirmRecipients", "action", "status", "statusReason",
			"total", "sent", "failed", "skipped", "pending", "template", "variables", "category", "sendAt", "expiresAt"},
		"gw_deliveries": {"id", "channel", "address", "status", "reason", "explanation", "rendered", "notification", "user", "device"},
		"gw_providers":  {"id", "name", "channel", "enabled", "state", "stateReason", "action", "config", "secret", "senderId", "ratePerSecond"},
		"gw_triggers":   {"id", "name", "enabled", "collection", "event", "condition", "template", "channels", "recipient", "delayMinutes", "capPerHour"},
		"gw_templates":  {"id", "key", "title", "body", "emailSubject", "emailHtml", "smsBody", "category"},
		"gw_devices":    {"id", "user", "platform", "model", "status", "statusReason"},
	} {
		after := fieldNames(t, app, id)
		require.Equal(t, want, after[:len(want)], id)
		require.ElementsMatch(t, slices.Concat(before[id], later[id]), after, "%s has the fields that it had", id)
		require.NotEqual(t, before[id], after, id)
	}
	providers, err := app.FindCollectionByNameOrId("gw_providers")
	require.NoError(t, err)
	require.Contains(t, providers.Fields.GetByName("config").(*core.JSONField).Help, `"username": "shop"`)
}

// A limit's number, and what signed in, are seen without scrolling.
func TestAccountFieldsThatMatterComeFirst(t *testing.T) {
	t.Parallel()
	app := plainApp(t)
	require.NoError(t, app.RunAppMigrations())
	require.Equal(t, []string{"id", "name", "enabled", "limit", "windowSeconds", "route"}, fieldNames(t, app, "gw_rate_limits")[:6])
	require.Equal(t, []string{"id", "name", "recordRef", "kind", "ip", "lastSeenAt"}, fieldNames(t, app, "gw_sessions")[:6])
	for id, fields := range map[string][]string{
		"gw_rate_limits": {"enabled", "switch it on", "keyBy", "Write ip", "counts", "or empty", "audience", "what empty means", "route", "at the end"},
		"gw_sessions":    {"name", "signs it out", "recordRef", "who that is"},
		"gw_erasures":    {"origin", "Erase this person", "counts", "by collection"},
	} {
		c, err := app.FindCollectionByNameOrId(id)
		require.NoError(t, err)
		raw, err := json.Marshal(c.Fields)
		require.NoError(t, err)
		var stored []struct{ Name, Help string }
		require.NoError(t, json.Unmarshal(raw, &stored))
		for i := 0; i < len(fields); i += 2 {
			for _, f := range stored {
				if f.Name == fields[i] {
					require.Contains(t, f.Help, fields[i+1], id)
				}
			}
		}
	}
}

// What a help text gives as an example can be entered, and what surprises is said.
func TestHelpTextsSayWhatWorks(t *testing.T) {
	t.Parallel()
	app := plainApp(t)
	require.NoError(t, app.RunAppMigrations())
	help := func(collection, field string) string {
		c, err := app.FindCollectionByNameOrId(collection)
		require.NoError(t, err)
		raw, err := json.Marshal(c.Fields.GetByName(field))
		require.NoError(t, err)
		var stored struct{ Help string }
		require.NoError(t, json.Unmarshal(raw, &stored))
		return stored.Help
	}
	require.Contains(t, help("gw_phone_sign_in", "testNumbers"), `"+12025550100"`)
	require.Contains(t, help("gw_phone_sign_in", "collection"), "then Options")
	require.Contains(t, help("gw_preferences", "enabled"), "outside of quiet hours")
	require.Contains(t, help("gw_templates", "key"), "without spaces")
	require.Contains(t, help("users", "phone"), "ends the old password")
}

func TestAnAdministratorsOrderSurvives(t *testing.T) {
	t.Parallel()
	app := plainApp(t)
	require.NoError(t, app.RunAppMigrations())
	runner := beforeOrder(t, app)

	// In templates the administrator has another order and another help text, in
	// notifications only fields of their own, between ours and at the end.
	templates, err := app.FindCollectionByNameOrId("gw_templates")
	require.NoError(t, err)
	key := templates.Fields.GetByName("key")
	templates.Fields.RemoveByName("key")
	templates.Fields.Add(key)
	require.NoError(t, app.Save(templates))
	moved := fieldNames(t, app, "gw_templates")

	c, err := app.FindCollectionByNameOrId("gw_notifications")
	require.NoError(t, err)
	c.Fields.AddAt(2, &core.TextField{Name: "campaign"})
	c.Fields.Add(&core.TextField{Name: "note"})
	c.Fields.GetByName("status").(*core.SelectField).Help = "Ask Ana."
	require.NoError(t, app.Save(c))
	before := schema(t, app)

	_, err = runner.Up()
	require.NoError(t, err)
	require.Equal(t, moved, fieldNames(t, app, "gw_templates"), "an order of their own is left alone")
	names := fieldNames(t, app, "gw_notifications")
	require.Equal(t, []string{"id", "title", "campaign", "body", "channels"}, names[:5], "a field of their own stays where it was put")
	require.Equal(t, "note", names[len(names)-1])
	c, err = app.FindCollectionByNameOrId("gw_notifications")
	require.NoError(t, err)
	require.Equal(t, "Ask Ana.", c.Fields.GetByName("status").(*core.SelectField).Help)
	require.Contains(t, c.Fields.GetByName("total").(*core.NumberField).Help, "open notification_deliveries")

	beforeOrder(t, app)
	require.JSONEq(t, before, schema(t, app), "down leaves it as it was")
}
