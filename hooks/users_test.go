package hooks_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

func TestPhoneBelongsToItsProof(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	server := notifications.AsServer(context.Background())
	admin := app.Token(app.Superuser("root@example.com"))
	me := app.User("me@example.com", map[string]any{"phone": "+49 151 12345678", "phoneVerified": true})
	require.Equal(t, "+4915112345678", app.Reload(me).GetString("phone"))
	require.False(t, app.Reload(me).GetBool("phoneVerified"), "only the server proves a phone")
	path := "/api/collections/users/records/" + me.Id

	me.Set("phoneVerified", true)
	require.NoError(t, app.SaveWithContext(server, me))
	require.True(t, app.Reload(me).GetBool("phoneVerified"))

	// The owner sends it along and nothing changes.
	res := app.Send("PATCH", path, map[string]any{"name": "Ada", "phone": "+4915199999999", "phoneVerified": false}, app.Token(me))
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, "Ada", res.JSON(t)["name"])
	require.Equal(t, "+4915112345678", app.Reload(me).GetString("phone"))
	require.True(t, app.Reload(me).GetBool("phoneVerified"))

	// A stranger signs up with somebody's number.
	res = app.Send("POST", "/api/collections/users/records", map[string]any{
		"email": "x@example.com", "password": "1234567890", "passwordConfirm": "1234567890", "phone": "+4915112345678", "phoneVerified": true,
	}, "")
	require.Equal(t, 200, res.Status, res.String())
	x, err := app.FindAuthRecordByEmail("users", "x@example.com")
	require.NoError(t, err)
	require.Empty(t, x.GetString("phone"))
	require.False(t, x.GetBool("phoneVerified"))

	// A superuser sends the whole record back: still verified. Then another number.
	res = app.Send("PATCH", path, map[string]any{"name": "B", "phone": "+4915112345678", "phoneVerified": false}, admin)
	require.Equal(t, 200, res.Status, res.String())
	require.True(t, app.Reload(me).GetBool("phoneVerified"), "a superuser does not decide it either")
	res = app.Send("PATCH", path, map[string]any{"phone": "+4915199999999", "phoneVerified": true}, admin)
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, "+4915199999999", app.Reload(me).GetString("phone"))
	require.False(t, app.Reload(me).GetBool("phoneVerified"), "another number is not proved")

	for _, bad := range []string{"0151 12345678", "12", "+49", "hello"} {
		res = app.Send("PATCH", path, map[string]any{"phone": bad}, admin)
		require.Equal(t, 400, res.Status)
		require.Contains(t, res.String(), `"phone":{"code":"invalid_phone"`)
	}
	res = app.Send("PATCH", path, map[string]any{"phone": ""}, admin)
	require.Equal(t, 200, res.Status, res.String())
}

func TestStaleSaveLeavesThePhone(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me := app.User("me@example.com", map[string]any{"phone": "+4915112345678"})
	stale := app.Reload(me)

	me.Set("phone", "+4915199999999")
	me.Set("phoneVerified", true)
	require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), me))

	stale.Set("name", "Ada")
	require.NoError(t, app.Save(stale))
	now := app.Reload(me)
	require.Equal(t, "Ada", now.GetString("name"))
	require.Equal(t, "+4915199999999", now.GetString("phone"))
	require.True(t, now.GetBool("phoneVerified"))
}

func TestPhoneIsUniqueAmongVerified(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	server := notifications.AsServer(context.Background())
	phone := map[string]any{"phone": "+4915112345678"}
	a, b := app.User("a@example.com", phone), app.User("b@example.com", phone)

	a.Set("phoneVerified", true)
	require.NoError(t, app.SaveWithContext(server, a))
	b.Set("phoneVerified", true)
	err := app.SaveWithContext(server, b)
	require.ErrorContains(t, err, "phone")
	require.False(t, app.Reload(b).GetBool("phoneVerified"))
}

func TestPhoneIsShownToItsOwnerOnly(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	users.ListRule, users.ViewRule = types.Pointer(""), types.Pointer("") // a community, where people see each other
	require.NoError(t, app.Save(users))
	me := app.User("me@example.com", map[string]any{"phone": "+4915112345678"})
	other := app.Token(app.User("other@example.com"))
	admin := app.Token(app.Superuser("root@example.com"))

	seen := func(method, path string, body any, token string) bool {
		res := app.Send(method, path, body, token)
		require.Equal(t, 200, res.Status, res.String())
		return bytes.Contains(res.Body, []byte("+4915112345678"))
	}
	records := "/api/collections/users/records"
	require.False(t, seen("GET", records, nil, ""))
	require.False(t, seen("GET", records, nil, other))
	require.True(t, seen("GET", records, nil, app.Token(me)))
	require.True(t, seen("GET", records, nil, admin))
	require.False(t, seen("GET", records+"/"+me.Id, nil, other))
	require.True(t, seen("GET", records+"/"+me.Id, nil, app.Token(me)))
	require.True(t, seen("POST", "/api/collections/users/auth-with-password", map[string]any{"identity": "me@example.com", "password": pbtest.Password}, ""))
	require.True(t, seen("POST", "/api/collections/users/auth-refresh", nil, app.Token(me)))

	// Nor can it be guessed.
	require.Equal(t, 400, app.Send("GET", records+"?filter=phone~%22%2B4915%22", nil, other).Status)
	require.Equal(t, 400, app.Send("GET", records+"?sort=phone", nil, other).Status)

	// Nor through somebody else's record.
	notes := core.NewBaseCollection("notes")
	notes.ListRule = types.Pointer("")
	notes.Fields.Add(&core.RelationField{Name: "author", CollectionId: users.Id, MaxSelect: 1})
	require.NoError(t, app.Save(notes))
	app.Record("notes", map[string]any{"author": me.Id})
	require.False(t, seen("GET", "/api/collections/notes/records?expand=author", nil, other))
	require.True(t, seen("GET", "/api/collections/notes/records?expand=author", nil, app.Token(me)))
}

func TestLocaleAndTimezone(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me := app.User("me@example.com")
	path := "/api/collections/users/records/" + me.Id
	res := app.Send("PATCH", path, map[string]any{"locale": "fr_ca", "timezone": "Europe/Berlin"}, app.Token(me))
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, "fr-CA", res.JSON(t)["locale"])
	for field, value := range map[string]string{"locale": "not a language", "timezone": "Berlin"} {
		res := app.Send("PATCH", path, map[string]any{field: value}, app.Token(me))
		require.Equal(t, 400, res.Status)
		require.Contains(t, res.String(), `"`+field+`":{"code":"invalid_`+field)
	}
	require.Equal(t, 200, app.Send("PATCH", path, map[string]any{"locale": "", "timezone": ""}, app.Token(me)).Status)
	require.Equal(t, 400, app.Send("PATCH", path, map[string]any{"timezone": "Local"}, app.Token(me)).Status)
}

// serve starts everything up to the listener.
func serve(app core.App) error {
	if err := app.RunAllMigrations(); err != nil {
		return err
	}
	router, err := apis.NewRouter(app)
	if err != nil {
		return err
	}
	app.OnServe().Unbind("__pbCronStart__") // as in pbtest
	e := &core.ServeEvent{Router: router, Server: &http.Server{}}
	e.App = app
	return app.OnServe().Trigger(e, func(*core.ServeEvent) error { return nil })
}

func TestStartUpSaysWhatIsWrongWithUsers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		configured string
		// prepare runs on PocketBase as it comes, change after the first start.
		prepare, change func(t *testing.T, app core.App)
		// again is UsersCollection at the second start; empty means the same.
		again string
		want  []string
	}{
		"as it comes": {},
		"another collection": {
			configured: "members",
			prepare:    func(t *testing.T, app core.App) { require.NoError(t, app.Save(core.NewAuthCollection("members"))) },
		},
		"renamed": {
			configured: "members",
			prepare:    func(t *testing.T, app core.App) { require.NoError(t, app.Save(core.NewAuthCollection("members"))) },
			change: func(t *testing.T, app core.App) {
				c, err := app.FindCollectionByNameOrId("members")
				require.NoError(t, err)
				c.Name = "people"
				require.NoError(t, app.Save(c))
			},
		},
		"switched to another one": {
			change: func(t *testing.T, app core.App) { require.NoError(t, app.Save(core.NewAuthCollection("members"))) },
			again:  "members",
			want:   []string{`set to "members"`, `made for "users"`},
		},
		"fields lost": {
			change: func(t *testing.T, app core.App) {
				_, err := app.DB().NewQuery(`UPDATE _collections SET fields = replace(replace(fields, '"name":"phone"', '"name":"fone"'), '"name":"timezone"', '"name":"zone"') WHERE id = '_pb_users_auth_'`).Execute()
				require.NoError(t, err)
			},
			want: []string{`"users" does not fit`, `no field "phone"`, `no field "timezone"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			start := func(users string) *core.BaseApp {
				app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
				require.NoError(t, hooks.Register(app, quiet(hooks.Config{UsersCollection: users})))
				require.NoError(t, app.Bootstrap())
				return app
			}
			app := start(tc.configured)
			if tc.prepare != nil {
				tc.prepare(t, app)
			}
			require.NoError(t, serve(app))
			if tc.change != nil {
				tc.change(t, app)
			}
			stop(t, app)

			if tc.again == "" {
				tc.again = tc.configured
			}
			app = start(tc.again)
			defer stop(t, app)
			err := serve(app)
			if tc.want == nil {
				require.NoError(t, err)
				return
			}
			for _, part := range tc.want {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

// quiet keeps an app that is made by hand from printing and from making a key
// file.
func quiet(cfg hooks.Config) hooks.Config {
	cfg.Key = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
	cfg.LogOutput, cfg.Console = io.Discard, io.Discard
	return cfg
}

func stop(t *testing.T, app *core.BaseApp) {
	t.Helper()
	e := &core.TerminateEvent{}
	e.App = app
	require.NoError(t, app.OnTerminate().Trigger(e, func(e *core.TerminateEvent) error { return app.ClearBootstrap() }))
}

// PocketBase's own commands, such as "superuser upsert", run on a folder that
// has none of our tables yet.
func TestHooksTolerateAnEmptyFolder(t *testing.T) {
	t.Parallel()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	require.NoError(t, hooks.Register(app, quiet(hooks.Config{})))
	require.NoError(t, app.Bootstrap())
	defer stop(t, app)

	for _, name := range []string{core.CollectionNameSuperusers, "users"} {
		col, err := app.FindCollectionByNameOrId(name)
		require.NoError(t, err)
		r := core.NewRecord(col)
		r.SetEmail("a@example.com")
		r.SetPassword("1234567890")
		require.NoError(t, app.Save(r))
		r.SetEmail("b@example.com")
		require.NoError(t, app.Save(r))
	}
	col, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	col.Name = "people"
	require.NoError(t, app.Save(col))
}
