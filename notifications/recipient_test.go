package notifications

import (
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"
)

// newUsersApp is an app whose users collection has a field of every kind.
func newUsersApp(t *testing.T) core.App {
	t.Helper()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { require.NoError(t, app.ClearBootstrap()) })
	require.NoError(t, app.RunAllMigrations())
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	users.Fields.Add(&core.TextField{Name: "phone", Hidden: true}, &core.BoolField{Name: "phoneVerified", Hidden: true},
		&core.NumberField{Name: "age"}, &core.NumberField{Name: "score"}, &core.BoolField{Name: "vip"}, &core.DateField{Name: "born"}, &core.DateField{Name: "never"},
		&core.SelectField{Name: "plan", Values: []string{"free", "paid"}, MaxSelect: 1}, &core.SelectField{Name: "tags", Values: []string{"a", "b"}, MaxSelect: 2},
		&core.JSONField{Name: "extra"}, &core.URLField{Name: "site"}, &core.TextField{Name: "secretNote", Hidden: true})
	require.NoError(t, app.Save(users))
	return app
}

// Both ways to read a person give templates the same values.
func TestRecipientsReadNarrowAndWholeAreTheSame(t *testing.T) {
	t.Parallel()
	app := newUsersApp(t)
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	ana := core.NewRecord(users)
	ana.Load(map[string]any{"email": "ana@example.com", "password": "a-long-password", "name": "Ana", "age": 30, "score": 1.5, "vip": true,
		"born": "1990-05-01 00:00:00.000Z", "plan": "paid", "tags": []string{"a", "b"}, "extra": map[string]any{"k": 1}, "site": "https://example.com",
		"secretNote": "x", "phone": "+15005550006", "phoneVerified": true})
	require.NoError(t, app.Save(ana))
	empty := core.NewRecord(users)
	empty.Load(map[string]any{"email": "bo@example.com", "password": "a-long-password", "phone": "+15005550007"})
	require.NoError(t, app.Save(empty))
	whole, err := findWholeRecipients(app, users, []string{ana.Id, empty.Id})
	require.NoError(t, err)

	texts, err := Compile(Content{Body: "{{user.name}}{{user.email}}{{user.age}}{{user.score}}{{user.vip}}{{user.born}}{{user.never}}{{user.plan}}{{user.site}}{{user.created}}{{user.secretNote}}{{user.tokenKey}}{{user.password}}{{user.nosuch}}"})
	require.NoError(t, err)
	narrow, err := findRecipients(app, []string{ana.Id, empty.Id, "nobody000000000"}, texts)
	require.NoError(t, err)
	require.Len(t, narrow, 2)
	for id, p := range narrow {
		require.Equal(t, whole[id].Name, p.Name)
		require.Equal(t, whole[id].Email, p.Email)
		require.Equal(t, whole[id].Phone, p.Phone)
		for name, value := range p.Vars {
			require.Equal(t, whole[id].Vars[name], value, name)
		}
		for _, name := range []string{"secretNote", "tokenKey", "password", "nosuch"} {
			require.NotContains(t, p.Vars, name)
		}
		require.Contains(t, p.Vars, "born")
		require.NotContains(t, p.Vars, "tags", "only what the texts name is read")
	}
	require.Equal(t, "+15005550006", narrow[ana.Id].Phone)
	require.Equal(t, "+15005550007", narrow[empty.Id].Phone)

	texts, err = Compile(Content{Body: "{{ user.tags | join: ',' }}"})
	require.NoError(t, err)
	lists, err := findRecipients(app, []string{ana.Id}, texts)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, lists[ana.Id].Vars["tags"])
}
