package hooks_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/filesystem"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

const devicesPath = "/api/collections/devices/records"

// appleToken is a token as APNs gives it.
var appleToken = strings.Repeat("0a1b", 16)

// register is what a client does at every start.
func register(app *pbtest.App, who *core.Record, body map[string]any) pbtest.Response {
	token, err := who.NewAuthToken()
	if err != nil {
		return pbtest.Response{Body: []byte(err.Error())}
	}
	return app.Send("POST", devicesPath, body, token)
}

func android(token string) map[string]any {
	return map[string]any{"platform": "android", "token": token}
}

func registered(t *testing.T, app *pbtest.App, who *core.Record, body map[string]any) map[string]any {
	t.Helper()
	res := register(app, who, body)
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, who.Id, res.JSON(t)["user"])
	return res.JSON(t)
}

// subscription is what a browser gives: its endpoint and fresh keys.
func subscription(t testing.TB, endpoint string) map[string]any {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	secret := make([]byte, 16)
	_, _ = rand.Read(secret)
	return map[string]any{"endpoint": endpoint, "expirationTime": nil, "keys": map[string]any{
		"p256dh": base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()), "auth": base64.RawURLEncoding.EncodeToString(secret),
	}}
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	return string(raw)
}

func allowBatch(t *testing.T, app *pbtest.App) {
	t.Helper()
	settings := app.Settings()
	settings.Batch.Enabled, settings.Batch.MaxRequests, settings.Batch.Timeout = true, 50, 120
	require.NoError(t, app.Save(settings))
}

func countDevices(t *testing.T, app *pbtest.App, where dbx.HashExp) int64 {
	t.Helper()
	if where == nil {
		where = dbx.HashExp{}
	}
	n, err := app.CountRecords(notifications.CollectionDevices, dbx.And(dbx.NewExp("1=1"), where))
	require.NoError(t, err)
	return n
}

// deviceEvents counts what happens to devices, and to nothing else: the server
// writes in the background, too.
type deviceEvents struct{ executed, updated atomic.Int32 }

func watchDevices(app *pbtest.App) *deviceEvents {
	seen := &deviceEvents{}
	count := func(n *atomic.Int32) func(*core.RecordEvent) error {
		return func(e *core.RecordEvent) error {
			n.Add(1)
			return e.Next()
		}
	}
	app.OnRecordCreateExecute("devices").BindFunc(count(&seen.executed))
	app.OnRecordUpdateExecute("devices").BindFunc(count(&seen.executed))
	app.OnRecordAfterUpdateSuccess("devices").BindFunc(count(&seen.updated))
	return seen
}

// Whoever creates a device that is known already; TestWhoMayDoWhat has the
// other actions and a device that is new.
func TestCreatingAKnownDevice(t *testing.T) {
	t.Parallel()
	for who, tc := range map[string]struct {
		user   func(owner, other *core.Record) string // in the body
		status int
		owner  func(owner, other *core.Record) string // afterwards
	}{
		"guest":     {user: func(_, other *core.Record) string { return other.Id }, status: 400, owner: func(owner, _ *core.Record) string { return owner.Id }},
		"member":    {user: func(_, other *core.Record) string { return other.Id }, status: 400, owner: func(owner, _ *core.Record) string { return owner.Id }},
		"other":     {user: func(owner, _ *core.Record) string { return owner.Id }, status: 200, owner: func(_, other *core.Record) string { return other.Id }},
		"owner":     {user: func(_, other *core.Record) string { return other.Id }, status: 200, owner: func(owner, _ *core.Record) string { return owner.Id }},
		"superuser": {user: func(_, other *core.Record) string { return other.Id }, status: 200, owner: func(_, other *core.Record) string { return other.Id }},
		"superuser without a user": {user: func(_, _ *core.Record) string { return "" }, status: 400,
			owner: func(owner, _ *core.Record) string { return owner.Id }},
		"superuser with an unknown user": {user: func(_, _ *core.Record) string { return "nobody000000000" }, status: 400,
			owner: func(owner, _ *core.Record) string { return owner.Id }},
	} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			app := pbtest.NewApp(t)
			owner, other := app.User("owner@example.com"), app.User("other@example.com")
			first := registered(t, app, owner, android("t"))
			token := ""
			switch who {
			case "guest":
			case "member":
				members := core.NewAuthCollection("members")
				require.NoError(t, app.Save(members))
				m := core.NewRecord(members)
				m.SetEmail("m@example.com")
				m.SetPassword("1234567890")
				require.NoError(t, app.Save(m))
				token = app.Token(m)
			case "other":
				token = app.Token(other)
			case "owner":
				token = app.Token(owner)
			default:
				token = app.Token(app.Superuser("root@example.com"))
			}
			body := android("t")
			body["user"] = tc.user(owner, other)
			seen := watchDevices(app)
			res := app.Send("POST", devicesPath, body, token)
			require.Equal(t, tc.status, res.Status, res.String())
			if tc.status == 200 {
				require.Equal(t, first["id"], res.JSON(t)["id"])
				require.Equal(t, tc.owner(owner, other), res.JSON(t)["user"])
				require.EqualValues(t, 1, seen.updated.Load())
			} else {
				require.Zero(t, seen.executed.Load())
			}
			d, err := app.FindRecordById("devices", first["id"].(string))
			require.NoError(t, err)
			require.Equal(t, tc.owner(owner, other), d.GetString("user"))
			require.EqualValues(t, 1, countDevices(t, app, nil))
		})
	}
}

// An administrator who opens the create rule opens it for people, not for guests:
// whose device would it be?
func TestGuestsRegisterNothingWhateverTheRule(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	victim := app.User("a@example.com")
	col, err := app.FindCollectionByNameOrId("devices")
	require.NoError(t, err)
	open := ""
	col.CreateRule = &open
	require.NoError(t, app.Save(col))
	body := android("t")
	body["user"] = victim.Id
	res := app.Send("POST", devicesPath, body, "")
	require.Equal(t, 403, res.Status, res.String())
	require.Contains(t, res.String(), "signed in")
	require.Zero(t, countDevices(t, app, nil))
}

func TestRegisteringADeviceAgain(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me := app.User("me@example.com")
	first := registered(t, app, me, map[string]any{"platform": "ios", "token": appleToken, "locale": "fr-ca", "timezone": " Europe/Paris ", "appVersion": "1.0",
		"environment": "sandbox"})
	require.Equal(t, "apns", first["pushService"])
	require.Equal(t, "fr-CA", first["locale"])
	require.Equal(t, "Europe/Paris", first["timezone"])
	require.Equal(t, "sandbox", first["environment"])

	// Gone meanwhile, long ago, as the server would say.
	d, err := app.FindRecordById("devices", first["id"].(string))
	require.NoError(t, err)
	d.Load(map[string]any{"status": "gone", "statusReason": "Uninstalled.", "session": "s1", "registeredAt": "2020-01-01 00:00:00.000Z"})
	require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), d))

	again := registered(t, app, me, map[string]any{"platform": "ios", "token": "  " + strings.ToUpper(appleToken) + "\n", "appVersion": "1.1",
		"status": "gone", "statusReason": "forged", "session": "forged", "registeredAt": "2001-01-01 00:00:00.000Z"})
	for name, want := range map[string]any{
		"id": first["id"], "created": first["created"], "token": appleToken, "platform": "ios", "pushService": "apns", "appVersion": "1.1",
		"locale": "", "timezone": "", "environment": "", "status": "active", "statusReason": "", "session": "",
	} {
		require.Equal(t, want, again[name], name)
	}
	require.Greater(t, again["registeredAt"], "2021")
	require.EqualValues(t, 1, countDevices(t, app, nil))

	// The row says what the answer says.
	stored := app.Reload(d).PublicExport()
	require.JSONEq(t, asJSON(t, again), asJSON(t, stored))
}

// Every field that the former owner or the server wrote holds a canary. None of
// them is in the answer, the row, or the files after another person registers
// the device with nothing but its token.
func TestAMovedDeviceHoldsNothingOfItsFormerOwner(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	former, next := app.User("former@example.com"), app.User("next@example.com")

	col, err := app.FindCollectionByNameOrId("devices")
	require.NoError(t, err)
	col.Fields.Add(
		&core.TextField{Name: "nickname"},
		&core.TextField{Name: "secretNote", Hidden: true},
		&core.NumberField{Name: "weight"},
		&core.BoolField{Name: "beta"},
		&core.JSONField{Name: "extras"},
		&core.SelectField{Name: "colors", Values: []string{"canary-red", "blue"}, MaxSelect: 2},
		&core.RelationField{Name: "friends", CollectionId: "_pb_users_auth_", MaxSelect: 5},
		&core.EditorField{Name: "story"},
		&core.GeoPointField{Name: "place"},
		&core.DateField{Name: "bought"},
		&core.FileField{Name: "photo", MaxSelect: 2, MaxSize: 1000},
		&core.AutodateField{Name: "firstSeen", OnCreate: true},
		&core.AutodateField{Name: "lastSeen", OnCreate: true, OnUpdate: true},
	)
	require.NoError(t, app.Save(col))

	photo, err := filesystem.NewFileFromBytes([]byte("canary"), "canary.txt")
	require.NoError(t, err)
	d := app.Record("devices", map[string]any{
		"user": former.Id, "platform": "ios", "pushService": "fcm", "token": "shared-token", "app": "canary.app", "locale": "fr-CA", "timezone": "Europe/Paris",
		"appVersion": "canary-1", "model": "canary-phone", "nickname": "canary", "secretNote": "canary", "weight": 424242, "beta": true,
		"extras": map[string]any{"canary": 1}, "colors": []string{"canary-red"}, "friends": []string{former.Id}, "story": "canary",
		"place": map[string]any{"lon": 42.42, "lat": 42.42}, "bought": "2019-04-02 00:00:00.000Z", "photo": []any{photo},
	})
	d.Load(map[string]any{"status": "signed_out", "statusReason": "canary", "session": "canary", "registeredAt": "2019-04-02 00:00:00.000Z"})
	d.SetRaw("created", "2019-04-02 00:00:00.000Z")
	d.SetRaw("firstSeen", "2019-04-02 00:00:00.000Z")
	d.SetRaw("lastSeen", "2019-04-02 00:00:00.000Z")
	require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), d))
	d = app.Reload(d)
	files := filepath.Join(app.DataDir(), "storage", d.BaseFilesPath())
	entries, err := os.ReadDir(files)
	require.NoError(t, err)
	require.NotEmpty(t, entries)

	before := dbx.NullStringMap{}
	require.NoError(t, app.DB().Select("*").From("devices").Where(dbx.HashExp{"id": d.Id}).One(before))
	require.Contains(t, fmt.Sprint(before), "canary")
	require.Contains(t, fmt.Sprint(before), "2019-04-02")

	// With everything that the API can be asked to show.
	token := app.Token(next)
	res := app.Send("POST", devicesPath+"?expand=user,friends&fields=*", android("shared-token"), token)
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, d.Id, res.JSON(t)["id"])

	row := dbx.NullStringMap{}
	require.NoError(t, app.DB().Select("*").From("devices").Where(dbx.HashExp{"id": d.Id}).One(row))
	for _, text := range []string{
		res.String(), fmt.Sprint(row),
		app.Send("GET", devicesPath+"/"+d.Id+"?expand=user,friends", nil, token).String(),
		app.Send("GET", devicesPath+"/"+d.Id+"?expand=user,friends", nil, app.Token(app.Superuser("root@example.com"))).String(),
	} {
		require.Contains(t, text, "shared-token")
		require.Contains(t, text, next.Id)
		for _, canary := range []string{"canary", former.Id, "former@example.com", "424242", "42.42", "2019-04-02", "fr-CA", "Paris"} {
			require.NotContains(t, text, canary)
		}
	}
	left, err := os.ReadDir(files)
	require.True(t, err == nil && len(left) == 0 || errors.Is(err, os.ErrNotExist), "%v %v", left, err)

	// And what was sent is there, uploads and custom fields included.
	body := android("shared-token")
	maps.Copy(body, map[string]any{"nickname": "mine", "secretNote": "not mine to write", "weight": 1, "model": "Pixel 9"})
	back := registered(t, app, former, body)
	require.Equal(t, "mine", back["nickname"])
	require.Equal(t, "Pixel 9", back["model"])
	require.Empty(t, app.Reload(d).GetString("secretNote"))
}

// Two requests look at the same moment and find nothing; then both write. Each
// round is the lost race, not the luck of having one.
func TestTwoCreatesAtOnce(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	one, two := app.User("one@example.com"), app.User("two@example.com")

	var barrier *sync.WaitGroup
	app.OnRecordCreateRequest("devices").BindFunc(func(e *core.RecordRequestEvent) error {
		barrier.Done()
		barrier.Wait()
		return e.Next()
	})
	web := func(string) map[string]any {
		return map[string]any{"platform": "web", "token": subscription(t, "https://push.example.com/same")}
	}
	for name, body := range map[string]func(string) map[string]any{"android": android, "web": web} {
		for round, users := range [][]*core.Record{{one, one}, {one, two}, {two, one}, {one, one, two, two}} {
			_, err := app.DB().Delete("devices", nil).Execute()
			require.NoError(t, err)
			_, err = app.DB().Delete("groundwork_device_moves", nil).Execute()
			require.NoError(t, err)
			barrier = &sync.WaitGroup{}
			barrier.Add(len(users))
			answers := make([]pbtest.Response, len(users))
			var all sync.WaitGroup
			bodies := make([]map[string]any, len(users))
			for i := range users {
				bodies[i] = body("race")
			}
			for i, user := range users {
				all.Go(func() { answers[i] = register(app, user, bodies[i]) })
			}
			all.Wait()
			ids, last := map[any]bool{}, ""
			d, err := app.FindFirstRecordByFilter("devices", "")
			require.NoError(t, err)
			for i, res := range answers {
				require.Equal(t, 200, res.Status, "%s %d %s", name, round, res.String())
				require.Equal(t, users[i].Id, res.JSON(t)["user"])
				ids[res.JSON(t)["id"]] = true
				if res.JSON(t)["user"] == d.GetString("user") {
					last = d.GetString("user")
				}
			}
			require.Len(t, ids, 1, "all answers name the same record")
			require.True(t, ids[d.Id])
			require.NotEmpty(t, last)
			require.EqualValues(t, 1, countDevices(t, app, nil))
		}
	}
}

// Many at once and in any order: one row, whose owner is one of those who asked.
func TestManyCreatesAtOnce(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	users := []*core.Record{app.User("a@example.com"), app.User("b@example.com"), app.User("c@example.com")}
	app.Handler()
	var all sync.WaitGroup
	answers := make([]pbtest.Response, 30)
	for i := range answers {
		all.Go(func() { answers[i] = register(app, users[i%3], android(fmt.Sprintf("many-%d", i%2))) })
	}
	all.Wait()
	for _, res := range answers {
		// Three people on two devices may exceed the moves of a day; nothing else goes wrong.
		require.Contains(t, []int{200, 429}, res.Status, res.String())
	}
	require.Equal(t, 200, answers[0].Status)
	require.EqualValues(t, 2, countDevices(t, app, nil))
}

// Between the look and the write the known row changes hands, goes, or goes and
// comes back as another one.
func TestADeviceThatChangesWhileItIsRegistered(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(t *testing.T, app *pbtest.App, d, third *core.Record){
		"deleted": func(t *testing.T, app *pbtest.App, d, _ *core.Record) { require.NoError(t, app.Delete(d)) },
		"moved": func(t *testing.T, app *pbtest.App, d, third *core.Record) {
			body := android("t")
			body["model"] = "canary"
			require.Equal(t, d.Id, registered(t, app, third, body)["id"])
		},
		"deleted and registered anew": func(t *testing.T, app *pbtest.App, d, third *core.Record) {
			require.NoError(t, app.Delete(d))
			require.NotEqual(t, d.Id, registered(t, app, third, android("t"))["id"])
		},
		"edited": func(t *testing.T, app *pbtest.App, d, _ *core.Record) {
			d.Set("model", "canary")
			require.NoError(t, app.Save(d))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := pbtest.NewApp(t)
			former, next, third := app.User("former@example.com"), app.User("next@example.com"), app.User("third@example.com")
			d := app.Record("devices", map[string]any{"user": former.Id, "platform": "android", "token": "t"})
			did := false // the request that comes in between passes here too
			app.OnRecordCreateRequest("devices").BindFunc(func(e *core.RecordRequestEvent) error {
				if !did {
					did = true
					meanwhile(t, app, app.Reload(d), third)
				}
				return e.Next()
			})
			answer := registered(t, app, next, android("t"))
			require.EqualValues(t, 1, countDevices(t, app, nil))
			stored, err := app.FindRecordById("devices", answer["id"].(string))
			require.NoError(t, err)
			require.Equal(t, next.Id, stored.GetString("user"))
			require.JSONEq(t, asJSON(t, answer), asJSON(t, stored.PublicExport()))
			require.NotContains(t, asJSON(t, answer), "canary")
		})
	}
}

// The former owner's change or deletion was on its way when the device moved.
func TestAFormerOwnersRequestComesTooLate(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	former, next := app.User("former@example.com"), app.User("next@example.com")
	move := func(e *core.RecordRequestEvent) error {
		if e.Auth.Id == former.Id {
			registered(t, app, next, android("t"))
		}
		return e.Next()
	}
	app.OnRecordUpdateRequest("devices").BindFunc(move)
	app.OnRecordDeleteRequest("devices").BindFunc(move)

	for method, body := range map[string]any{"PATCH": map[string]any{"model": "late"}, "DELETE": nil} {
		d := registered(t, app, former, android("t"))
		res := app.Send(method, devicesPath+"/"+d["id"].(string), body, app.Token(former))
		require.Equal(t, 404, res.Status, res.String())
		require.NotContains(t, res.String(), next.Id)
		stored, err := app.FindRecordById("devices", d["id"].(string))
		require.NoError(t, err)
		require.Equal(t, next.Id, stored.GetString("user"))
		require.Empty(t, stored.GetString("model"))
	}
}

func TestMovesPerDeviceAreLimited(t *testing.T) {
	t.Parallel()
	out := &lockedBuffer{}
	app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = out }))
	owner := app.User("owner@example.com")
	admin := app.Token(app.Superuser("root@example.com"))
	thieves := []*core.Record{app.User("thief1@example.com"), app.User("thief2@example.com")}
	first := registered(t, app, owner, android("victims-token"))

	// Ten takes by strangers; whoever had it first always gets it back.
	for i := range 10 {
		registered(t, app, thieves[i%2], android("victims-token"))
		registered(t, app, owner, android("victims-token"))
	}
	for _, thief := range thieves {
		res := register(app, thief, android("victims-token"))
		require.Equal(t, 429, res.Status, res.String())
		require.Contains(t, res.String(), "changed hands too often today")
		wait, err := strconv.Atoi(res.Header.Get("Retry-After"))
		require.NoError(t, err)
		require.InDelta(t, 24*60*60, wait, 600)
		stored, err := app.FindRecordById("devices", first["id"].(string))
		require.NoError(t, err)
		require.Equal(t, owner.Id, stored.GetString("user"))
	}
	registered(t, app, thieves[0], android("their-own")) // their own devices go on

	// The log has who, whose, which request, and not the token.
	require.Equal(t, 20, strings.Count(out.String(), `"msg":"device moved"`))
	require.Equal(t, 2, strings.Count(out.String(), `"msg":"device move refused"`))
	require.NotContains(t, out.String(), "victims-token")
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "device move") {
			var entry map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &entry))
			require.Equal(t, first["id"], entry["device"])
			require.Len(t, entry["from"], 15)
			require.Len(t, entry["to"], 15)
			require.NotEmpty(t, entry["requestId"])
			require.Contains(t, entry["token"], "…")
		}
	}

	// Any window of a day: the first of the ten leaves it, one more may come.
	_, err := app.DB().NewQuery("UPDATE groundwork_device_moves SET movedAt = movedAt - 86400001 WHERE id = (SELECT MIN(id) FROM groundwork_device_moves WHERE counted)").Execute()
	require.NoError(t, err)
	registered(t, app, thieves[1], android("victims-token"))
	registered(t, app, owner, android("victims-token"))
	require.Equal(t, 429, register(app, thieves[1], android("victims-token")).Status)

	// A superuser moves it whatever the count.
	body := android("victims-token")
	body["user"] = thieves[0].Id
	require.Equal(t, 200, app.Send("POST", devicesPath, body, admin).Status)

	// What is older than 30 days is forgotten.
	_, err = app.DB().NewQuery("UPDATE groundwork_device_moves SET movedAt = movedAt - 31 * 86400000").Execute()
	require.NoError(t, err)
	registered(t, app, owner, android("victims-token"))
	var rows int
	require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM groundwork_device_moves").Row(&rows))
	require.Equal(t, 1, rows)
}

func TestMovesPerPersonAreLimited(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	thief := app.User("thief@example.com")
	var owners []*core.Record
	for i := range 21 {
		owners = append(owners, app.User(fmt.Sprintf("owner%d@example.com", i)))
		registered(t, app, owners[i], android(fmt.Sprintf("token-%d", i)))
	}
	for i := range 20 {
		registered(t, app, thief, android(fmt.Sprintf("token-%d", i)))
	}
	res := register(app, thief, android("token-20"))
	require.Equal(t, 429, res.Status, res.String())
	require.Contains(t, res.String(), "Too many devices were moved to this account today")
	require.NotEmpty(t, res.Header.Get("Retry-After"))
	require.NotContains(t, res.String(), owners[20].Id)
	registered(t, app, thief, android("token-3")) // what is theirs by now stays so
	for i := range 21 {
		registered(t, app, owners[i], android(fmt.Sprintf("token-%d", i)))
	}
}

// The usual change of hands: one signs out, another signs in on the same device.
func TestMovesAfterSigningOutAreFree(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	users := []*core.Record{app.User("a@example.com"), app.User("b@example.com"), app.User("c@example.com")}
	var id string
	for i := range 30 {
		id = registered(t, app, users[i%3], android("tablet"))["id"].(string)
		d, err := app.FindRecordById("devices", id)
		require.NoError(t, err)
		d.Set("status", "signed_out")
		require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), d))
	}
	// They are remembered all the same: who had it first is known, should somebody
	// take it from them while they are signed out.
	registered(t, app, users[1], android("tablet"))
	for range 11 {
		registered(t, app, users[0], android("tablet"))
		if res := register(app, users[1], android("tablet")); res.Status != 200 {
			require.Equal(t, 429, res.Status, res.String())
			return
		}
	}
	t.Fatal("the moves of an active device were not counted")
}

// A batch that fails takes its count and its log lines back with it.
func TestMovesInABatch(t *testing.T) {
	t.Parallel()
	out := &lockedBuffer{}
	app := pbtest.NewApp(t, pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = out }))
	allowBatch(t, app)
	me, other := app.User("me@example.com"), app.User("other@example.com")
	d := registered(t, app, other, map[string]any{"platform": "android", "token": "t", "model": "canary"})
	batch := func(requests ...any) pbtest.Response {
		return app.Send("POST", "/api/batch", map[string]any{"requests": requests}, app.Token(me))
	}
	request := func(method, path string, body map[string]any) map[string]any {
		return map[string]any{"method": method, "url": devicesPath + path, "body": body}
	}

	res := batch(request("POST", "", android("t")), request("POST", "", map[string]any{"platform": "moon"}))
	require.Equal(t, 400, res.Status)
	var rows int
	require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM groundwork_device_moves").Row(&rows))
	require.Zero(t, rows)
	require.NotContains(t, out.String(), "device moved")
	require.EqualValues(t, 1, countDevices(t, app, dbx.HashExp{"user": other.Id, "model": "canary"}))

	// Known, new, and the same once more, also as a subscription.
	sub := subscription(t, "https://push.example.com/b")
	res = batch(
		request("POST", "", android("t")), request("POST", "", android("new")), request("POST", "", android(" new ")), request("PUT", "", android("t")),
		request("POST", "", map[string]any{"platform": "web", "token": sub}), request("POST", "", map[string]any{"platform": "web", "token": asJSON(t, sub)}))
	require.Equal(t, 200, res.Status, res.String())
	var answers []struct{ Body map[string]any }
	require.NoError(t, json.Unmarshal(res.Body, &answers))
	require.Equal(t, d["id"], answers[0].Body["id"])
	require.Equal(t, answers[1].Body["id"], answers[2].Body["id"])
	require.Equal(t, d["id"], answers[3].Body["id"])
	require.Equal(t, answers[4].Body["id"], answers[5].Body["id"])
	require.NotContains(t, res.String(), "canary")
	require.EqualValues(t, 3, countDevices(t, app, dbx.HashExp{"user": me.Id}))
	require.EqualValues(t, 3, countDevices(t, app, nil))
	require.Equal(t, 1, strings.Count(out.String(), `"msg":"device moved"`))
	require.Contains(t, out.String(), res.Header.Get("X-Request-Id"))

	// An upsert of one's own row is an update, and follows its rules.
	res = batch(request("PUT", "", map[string]any{"id": d["id"], "platform": "web", "pushService": "webpush", "environment": "sandbox", "token": "x", "user": other.Id,
		"status": "gone", "statusReason": "forged", "session": "forged", "registeredAt": "2001-01-01 00:00:00.000Z", "model": "Mine"}))
	require.Equal(t, 200, res.Status, res.String())
	stored, err := app.FindRecordById("devices", d["id"].(string))
	require.NoError(t, err)
	for name, want := range map[string]string{"platform": "android", "pushService": "fcm", "environment": "", "token": "t", "user": me.Id, "status": "active",
		"statusReason": "", "session": "", "model": "Mine"} {
		require.Equal(t, want, stored.GetString(name), name)
	}
	require.NotContains(t, stored.GetString("registeredAt"), "2001")

	// Of somebody else's row it is refused, and of a new id with a known token it
	// is the known row.
	theirs := registered(t, app, other, android("theirs"))
	require.Equal(t, 400, batch(request("PUT", "", map[string]any{"id": theirs["id"], "platform": "android", "token": "z"})).Status)
	require.EqualValues(t, 1, countDevices(t, app, dbx.HashExp{"id": theirs["id"], "user": other.Id, "token": "theirs"}))
	res = batch(request("PUT", "", map[string]any{"id": "mynewid00000000", "platform": "android", "token": "theirs"}))
	require.Equal(t, 200, res.Status, res.String())
	require.Contains(t, res.String(), theirs["id"])
	require.NotContains(t, res.String(), "mynewid00000000")
}

func TestAPersonHasAtMostFiftyDevices(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me, other := app.User("me@example.com"), app.User("other@example.com")
	var first, second, gone string
	for i := range 50 {
		id := registered(t, app, me, android(fmt.Sprintf("token-%d", i)))["id"].(string)
		d, err := app.FindRecordById("devices", id)
		require.NoError(t, err)
		d.Set("registeredAt", time.Now().Add(time.Duration(i-100)*time.Hour))
		switch i {
		case 0:
			first = id
		case 1:
			second = id
		case 30:
			gone = id
			d.Set("status", "gone")
		}
		require.NoError(t, app.SaveWithContext(notifications.AsServer(context.Background()), d))
	}
	sent := delivery(t, app, me)
	moved := registered(t, app, other, android("others"))

	exists := func(id string) bool { return countDevices(t, app, dbx.HashExp{"id": id}) == 1 }
	one := registered(t, app, me, android("one-more"))
	require.EqualValues(t, 50, countDevices(t, app, dbx.HashExp{"user": me.Id}))
	require.False(t, exists(gone), "no push reaches it")
	require.True(t, exists(first) && exists(second) && exists(one["id"].(string)))

	require.Equal(t, moved["id"], registered(t, app, me, android("others"))["id"])
	require.EqualValues(t, 50, countDevices(t, app, dbx.HashExp{"user": me.Id}))
	require.False(t, exists(first), "registered first")
	require.True(t, exists(moved["id"].(string)))

	// Go code cannot go beyond it either.
	app.Record("devices", map[string]any{"user": me.Id, "platform": "android", "token": "from-go"})
	require.EqualValues(t, 50, countDevices(t, app, dbx.HashExp{"user": me.Id}))
	require.False(t, exists(second))
	require.Equal(t, "accepted", app.Reload(sent).GetString("status"))
}

func TestWhatADeviceMayHold(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me := app.User("me@example.com")
	good := subscription(t, "https://push.example.com/x?a=1&b=2")
	keys := good["keys"].(map[string]any)
	with := func(change func(sub, keys map[string]any)) map[string]any {
		sub, k := maps.Clone(good), maps.Clone(keys)
		sub["keys"] = k
		change(sub, k)
		return map[string]any{"platform": "web", "token": asJSON(t, sub)}
	}
	offCurve := make([]byte, 65)
	offCurve[0], offCurve[1] = 4, 1

	for name, tc := range map[string]struct {
		body     any
		field    string
		sentence string
	}{
		"no token":           {map[string]any{"platform": "ios"}, "token", ""},
		"blank token":        {map[string]any{"platform": "ios", "token": " \n "}, "token", ""},
		"null token":         {map[string]any{"platform": "ios", "token": nil}, "token", ""},
		"number":             {map[string]any{"platform": "ios", "token": 12345}, "token", "must be a text"},
		"array":              {map[string]any{"platform": "ios", "token": []any{appleToken}}, "token", "must be a text"},
		"bool":               {map[string]any{"platform": "ios", "token": true}, "token", "must be a text"},
		"object":             {map[string]any{"platform": "ios", "token": good}, "token", "Apple device token"},
		"no platform":        {map[string]any{"token": appleToken}, "platform", ""},
		"unknown platform":   {map[string]any{"platform": "moon", "token": appleToken}, "platform", ""},
		"apple, short":       {map[string]any{"platform": "ios", "token": appleToken[1:]}, "token", "64 to 200 hexadecimal digits"},
		"apple, long":        {map[string]any{"platform": "ios", "token": strings.Repeat("a", 201)}, "token", "64 to 200 hexadecimal digits"},
		"apple, not hex":     {map[string]any{"platform": "ios", "token": strings.Repeat("g", 64)}, "token", "64 to 200 hexadecimal digits"},
		"apple, description": {map[string]any{"platform": "ios", "token": "<" + appleToken + ">"}, "token", "64 to 200 hexadecimal digits"},
		"firebase, spaces":   {map[string]any{"platform": "android", "token": "a b"}, "token", "without spaces"},
		"firebase, unicode":  {map[string]any{"platform": "android", "token": "tökén"}, "token", "without spaces"},
		"firebase, browser":  {map[string]any{"platform": "android", "token": asJSON(t, good)}, "token", "platform web"},
		"nul":                {map[string]any{"platform": "android", "token": "a\x00b"}, "token", ""},
		"nul elsewhere":      {map[string]any{"platform": "android", "token": "a", "model": "a\x00b"}, "model", ""},
		"huge":               {map[string]any{"platform": "android", "token": strings.Repeat("a", 10<<20)}, "token", "4096"},
		"huge for apple":     {map[string]any{"platform": "ios", "token": strings.Repeat("a", 10<<20)}, "token", "4096"},
		"huge for browsers":  {with(func(sub, _ map[string]any) { sub["endpoint"] = "https://example.com/" + strings.Repeat("a", 10<<20) }), "token", "4096"},
		"long for browsers":  {with(func(sub, _ map[string]any) { sub["endpoint"] = "https://example.com/" + strings.Repeat("a", 4096) }), "token", "4096"},
		"a little too long":  {map[string]any{"platform": "android", "token": strings.Repeat("a", 4097)}, "token", "4096"},
		"browser, no JSON":   {map[string]any{"platform": "web", "token": "https://push.example.com/x"}, "token", "JSON.stringify(subscription)"},
		"browser, a list":    {map[string]any{"platform": "web", "token": "[1]"}, "token", "JSON.stringify(subscription)"},
		"browser, empty":     {map[string]any{"platform": "web", "token": map[string]any{}}, "token", "https"},
		"browser, http":      {with(func(sub, _ map[string]any) { sub["endpoint"] = "http://push.example.com/x" }), "token", "https"},
		"browser, no host":   {with(func(sub, _ map[string]any) { sub["endpoint"] = "https:///x" }), "token", "https"},
		"browser, password":  {with(func(sub, _ map[string]any) { sub["endpoint"] = "https://a:b@push.example.com/x" }), "token", "https"},
		"browser, no keys":   {with(func(sub, _ map[string]any) { delete(sub, "keys") }), "token", "p256dh"},
		"browser, short key": {with(func(_, k map[string]any) { k["p256dh"] = k["p256dh"].(string)[2:] }), "token", "p256dh"},
		"browser, off curve": {with(func(_, k map[string]any) { k["p256dh"] = base64.RawURLEncoding.EncodeToString(offCurve) }), "token", "p256dh"},
		"browser, auth":      {with(func(_, k map[string]any) { k["auth"] = "AAAA" }), "token", "keys.auth"},
		"service, ios":       {map[string]any{"platform": "ios", "token": appleToken, "pushService": "webpush"}, "pushService", "apns or fcm"},
		"service, android":   {map[string]any{"platform": "android", "token": "a", "pushService": "apns"}, "pushService", "by fcm"},
		"service, web":       {map[string]any{"platform": "web", "token": "a", "pushService": "apns"}, "pushService", "webpush or fcm"},
		"environment":        {map[string]any{"platform": "ios", "token": appleToken, "environment": "moon"}, "environment", ""},
		"locale":             {map[string]any{"platform": "android", "token": "a", "locale": "no language"}, "locale", "en or fr-CA"},
		"timezone":           {map[string]any{"platform": "android", "token": "a", "timezone": "Europe/Nowhere"}, "timezone", "Europe/Berlin"},
		"timezone, local":    {map[string]any{"platform": "android", "token": "a", "timezone": "Local"}, "timezone", "Europe/Berlin"},
		"timezone, path":     {map[string]any{"platform": "android", "token": "a", "timezone": "../../etc/passwd"}, "timezone", "Europe/Berlin"},
		"long version":       {map[string]any{"platform": "android", "token": "a", "appVersion": strings.Repeat("1", 65)}, "appVersion", "64"},
	} {
		res := app.Send("POST", devicesPath, tc.body, app.Token(me))
		require.Equal(t, 400, res.Status, "%s: %.200s", name, res.String())
		var answer struct {
			Data map[string]struct{ Code, Message string }
		}
		require.NoError(t, json.Unmarshal(res.Body, &answer))
		require.NotEmpty(t, answer.Data[tc.field].Message, "%s: %.300s", name, res.String())
		require.Contains(t, answer.Data[tc.field].Message, tc.sentence, name)
		require.Less(t, len(res.Body), 1000, "%s: nothing is sent back", name)
	}
	require.Zero(t, countDevices(t, app, nil))

	// All that is wrong at once, ours and PocketBase's.
	res := register(app, me, map[string]any{"platform": "ios", "token": "x", "locale": "?", "timezone": "?", "appVersion": strings.Repeat("1", 65)})
	for _, field := range []string{"token", "locale", "timezone", "appVersion"} {
		require.Contains(t, res.String(), `"`+field+`":{`)
	}
	require.Equal(t, 400, app.Send("POST", devicesPath, `{"platform":`, app.Token(me)).Status)

	// Updates of the owner are looked at in the same way.
	d := registered(t, app, me, android("mine"))
	for _, change := range []map[string]any{{"locale": "?"}, {"timezone": "?"}} {
		require.Equal(t, 400, app.Send("PATCH", devicesPath+"/"+d["id"].(string), change, app.Token(me)).Status)
	}
	res = app.Send("PATCH", devicesPath+"/"+d["id"].(string), map[string]any{"locale": "pt-br", "timezone": "UTC"}, app.Token(me))
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, "pt-BR", res.JSON(t)["locale"])

	// Apple's environment means nothing elsewhere.
	require.Equal(t, "", registered(t, app, me, map[string]any{"platform": "android", "token": "mine", "environment": "sandbox"})["environment"])
	require.Equal(t, "", registered(t, app, me, map[string]any{"platform": "ios", "pushService": "fcm", "token": "mine", "environment": "sandbox"})["environment"])
	require.Equal(t, "fcm", registered(t, app, me, map[string]any{"platform": "web", "pushService": "fcm", "token": "web-by-firebase"})["pushService"])
}

// The endpoint is the address: one row, however the subscription is written.
func TestBrowserSubscriptions(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me, other := app.User("me@example.com"), app.User("other@example.com")
	web := func(token any) map[string]any { return map[string]any{"platform": "web", "token": token} }
	sub := subscription(t, "https://push.example.com/p/a%2Fb?x=1&y=<2>")
	keys := sub["keys"].(map[string]any)
	first := registered(t, app, me, web(sub))
	require.Equal(t, "webpush", first["pushService"])
	require.Equal(t, `{"endpoint":"https://push.example.com/p/a%2Fb?x=1&y=<2>","keys":{"p256dh":"`+keys["p256dh"].(string)+`","auth":"`+keys["auth"].(string)+`"}}`, first["token"])

	padded := maps.Clone(sub)
	padded["endpoint"] = "https://PUSH.example.com:443/p/a%2Fb?x=1&y=<2>#part"
	secret, err := base64.RawURLEncoding.DecodeString(keys["auth"].(string))
	require.NoError(t, err)
	padded["keys"] = map[string]any{"p256dh": keys["p256dh"], "auth": base64.StdEncoding.EncodeToString(secret)}
	for _, token := range []any{asJSON(t, sub), " " + asJSON(t, sub) + "\n", padded, first["token"]} {
		again := registered(t, app, me, web(token))
		require.Equal(t, first["id"], again["id"])
		require.Equal(t, first["token"], again["token"])
	}

	// New keys take the row over, for the same person and for another.
	renewed := subscription(t, sub["endpoint"].(string))
	again := registered(t, app, me, web(renewed))
	require.Equal(t, first["id"], again["id"])
	require.Contains(t, again["token"], renewed["keys"].(map[string]any)["auth"])
	taken := registered(t, app, other, web(sub))
	require.Equal(t, first["id"], taken["id"])
	require.Equal(t, first["token"], taken["token"])

	// An endpoint that only begins alike is another one.
	for _, endpoint := range []string{"https://push.example.com/p/a%2Fb?x=1&y=<2>3", "https://push.example.com/p/a%2Fb", `https://push.example.com/p/a%2Fb?x=1&y=<2>","keys":{"`} {
		require.NotEqual(t, first["id"], registered(t, app, me, web(subscription(t, endpoint)))["id"], endpoint)
	}

	// Go code gets an error that says so.
	col, err := app.FindCollectionByNameOrId("devices")
	require.NoError(t, err)
	r := core.NewRecord(col)
	r.Load(map[string]any{"user": me.Id, "platform": "web", "token": asJSON(t, renewed)})
	require.ErrorContains(t, app.Save(r), "registered already")
}

func TestGoCodeSavesADuplicate(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me, other := app.User("me@example.com"), app.User("other@example.com")
	d := app.Record("devices", map[string]any{"user": me.Id, "platform": "ios", "token": strings.ToUpper(appleToken), "model": "Mine"})
	require.Equal(t, appleToken, d.GetString("token"))
	for _, save := range []func(core.Model) error{app.Save, app.SaveNoValidate, func(m core.Model) error {
		return app.RunInTransaction(func(txApp core.App) error { return txApp.Save(m) })
	}} {
		r := core.NewRecord(d.Collection())
		r.Load(map[string]any{"user": other.Id, "platform": "ios", "token": " " + appleToken})
		require.ErrorContains(t, save(r), "registered already")
	}
	require.EqualValues(t, 1, countDevices(t, app, nil))
	require.Equal(t, me.Id, app.Reload(d).GetString("user"))

	// The record of a registration is an ordinary one afterwards: a hook of the
	// application that saves it once more begins nothing anew.
	var again *core.Record
	app.OnRecordAfterUpdateSuccess("devices").BindFunc(func(e *core.RecordEvent) error {
		if again == nil {
			again = e.Record
		}
		return e.Next()
	})
	registered(t, app, other, map[string]any{"platform": "ios", "token": appleToken})
	again.Load(map[string]any{"user": me.Id, "status": "gone", "model": "Edited"})
	require.NoError(t, app.Save(again))
	require.Equal(t, other.Id, app.Reload(d).GetString("user"))
	require.Equal(t, "Edited", app.Reload(d).GetString("model"))
	registered(t, app, me, map[string]any{"platform": "ios", "token": appleToken})
	require.Error(t, app.Save(again), "it does not take the device back")
	require.Equal(t, me.Id, app.Reload(d).GetString("user"))
}

// The application's own hooks see the record that is saved, and cannot give away
// what the server decides.
func TestApplicationHooksOnARegistration(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me, other := app.User("me@example.com"), app.User("other@example.com")
	first := registered(t, app, other, android("t"))
	app.OnRecordCreateRequest("devices").BindFunc(func(e *core.RecordRequestEvent) error {
		e.Record.Set("model", "from a hook")
		// Through the outer app, as hooks in JavaScript do.
		other.Set("name", "Seen")
		if err := app.Save(other); err != nil {
			return err
		}
		return e.Next()
	})
	app.OnRecordUpdate("devices").BindFunc(func(e *core.RecordEvent) error {
		e.Record.Load(map[string]any{"user": other.Id, "token": "x", "status": "gone", "session": "forged"})
		return e.Next()
	})
	d := registered(t, app, me, android("t"))
	require.Equal(t, first["id"], d["id"])
	for name, want := range map[string]any{"model": "from a hook", "token": "t", "status": "active", "session": ""} {
		require.Equal(t, want, d[name], name)
	}
	stored, err := app.FindRecordById("devices", d["id"].(string))
	require.NoError(t, err)
	require.JSONEq(t, asJSON(t, d), asJSON(t, stored.PublicExport()))
}

func TestSuperusersCorrectADevice(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me, other := app.User("me@example.com"), app.User("other@example.com")
	admin := app.Token(app.Superuser("root@example.com"))
	d := registered(t, app, me, map[string]any{"platform": "ios", "token": appleToken})
	patch := func(change map[string]any) pbtest.Response {
		return app.Send("PATCH", devicesPath+"/"+d["id"].(string), change, admin)
	}

	res := patch(map[string]any{"environment": "sandbox", "user": other.Id, "token": "x"})
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, "sandbox", res.JSON(t)["environment"])
	require.Equal(t, me.Id, res.JSON(t)["user"])
	require.Equal(t, appleToken, res.JSON(t)["token"])

	res = patch(map[string]any{"pushService": "fcm"})
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, "", res.JSON(t)["environment"])
	res = patch(map[string]any{"platform": "android", "pushService": ""})
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, "fcm", res.JSON(t)["pushService"])
	res = patch(map[string]any{"platform": "web", "pushService": "apns"})
	require.Equal(t, 400, res.Status, res.String())
	require.Contains(t, res.String(), `"pushService":{`)
	res = patch(map[string]any{"platform": "web", "pushService": "webpush"})
	require.Equal(t, 400, res.Status, "the token is no subscription")
	require.Contains(t, res.String(), `"token":{`)
	require.Equal(t, 200, patch(map[string]any{"platform": "ios", "pushService": "apns", "environment": "production"}).Status)

	// An older value that would be refused today stands in nobody's way.
	_, err := app.DB().Update("devices", dbx.Params{"token": "odd token", "locale": "??"}, dbx.HashExp{"id": d["id"]}).Execute()
	require.NoError(t, err)
	require.Equal(t, 200, patch(map[string]any{"model": "iPhone"}).Status)
}

// The events of a move go to the new owner, and hold nothing of the former one.
func TestRealtimeOfAMovedDevice(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	former, next := app.User("former@example.com"), app.User("next@example.com")
	d := registered(t, app, former, map[string]any{"platform": "android", "token": "t", "model": "canary-former"})

	listen := func(who *core.Record, topics ...string) *subscriptions.DefaultClient {
		client := subscriptions.NewDefaultClient()
		client.Set(apis.RealtimeClientAuthKey, who)
		client.Subscribe(topics...)
		app.SubscriptionsBroker().Register(client)
		return client
	}
	topics := []string{"devices/*", "devices/" + d["id"].(string), "devices/*?options={\"query\":{\"expand\":\"user\"}}"}
	old, now := listen(former, topics...), listen(next, topics...)
	received := func(c *subscriptions.DefaultClient, until string) string {
		var all strings.Builder
		for {
			select {
			case m := <-c.Channel():
				all.Write(m.Data)
				if strings.Contains(string(m.Data), until) {
					return all.String()
				}
			case <-time.After(patience):
				t.Fatalf("no event with %s: %s", until, all.String())
			}
		}
	}

	registered(t, app, next, map[string]any{"platform": "android", "token": "t", "model": "canary-next"})
	require.NotContains(t, received(now, "canary-next"), "canary-former")
	// A device of the former owner afterwards: all that came before it is there.
	registered(t, app, former, map[string]any{"platform": "android", "token": "t2", "model": "canary-last"})
	require.NotContains(t, received(old, "canary-last"), "canary-next")
}

func TestDeletingADeviceLeavesWhatWasSent(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	me, other := app.User("me@example.com"), app.User("other@example.com")
	server := notifications.AsServer(context.Background())
	col, err := app.FindCollectionByNameOrId(notifications.CollectionDeliveries)
	require.NoError(t, err)
	var devices []map[string]any
	var sent []*core.Record
	for i := range 2 {
		devices = append(devices, registered(t, app, me, android(fmt.Sprintf("t%d", i))))
		r := core.NewRecord(col)
		r.Load(map[string]any{"user": me.Id, "device": devices[i]["id"], "target": devices[i]["id"], "channel": "push", "status": "accepted"})
		require.NoError(t, app.SaveWithContext(server, r))
		sent = append(sent, r)
	}
	require.Equal(t, 404, app.Send("DELETE", devicesPath+"/"+devices[0]["id"].(string), nil, app.Token(other)).Status)

	// No row but the device's own is written: whatever refers to it, in whatever number.
	var deleted, updated atomic.Int32
	app.OnModelDeleteExecute().BindFunc(func(e *core.ModelEvent) error {
		deleted.Add(1)
		return e.Next()
	})
	app.OnModelUpdateExecute().BindFunc(func(e *core.ModelEvent) error {
		if e.Model.TableName() != "notification_providers" { // written by their checks
			updated.Add(1)
		}
		return e.Next()
	})
	require.Equal(t, 204, app.Send("DELETE", devicesPath+"/"+devices[0]["id"].(string), nil, app.Token(me)).Status)
	require.EqualValues(t, 1, deleted.Load())
	require.Zero(t, updated.Load())
	for i, r := range sent {
		require.Equal(t, devices[i]["id"], app.Reload(r).GetString("device"))
		require.Equal(t, "accepted", app.Reload(r).GetString("status"))
	}
	require.Equal(t, 204, app.Send("DELETE", "/api/collections/users/records/"+me.Id, nil, app.Token(me)).Status)
	require.Zero(t, countDevices(t, app, nil))
	// And the token is free again.
	registered(t, app, other, android("t0"))
}

// Whatever a stranger sends: an answer that is no failure of ours, and what was
// taken is taken as the same device the next time.
func FuzzRegisterDevice(f *testing.F) {
	app := pbtest.NewApp(f)
	me := app.User("me@example.com")
	for _, platform := range []string{"ios", "android", "web", ""} {
		for _, token := range []string{appleToken, "a", "", `{"endpoint":"https://example.com/x"}`, asJSON(f, subscription(f, "https://example.com/%zz?\"#")), "{", "\x00", "\xff"} {
			f.Add(platform, token, "en", "UTC")
		}
	}
	handler, token := app.Handler(), app.Token(me)
	post := func(t *testing.T, body map[string]any) (status int, answer map[string]any) {
		req := httptest.NewRequest("POST", devicesPath, strings.NewReader(asJSON(t, body)))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", token)
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, req)
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &answer), rec.Body.String())
		return rec.Code, answer
	}
	f.Fuzz(func(t *testing.T, platform, token, locale, timezone string) {
		body := map[string]any{"platform": platform, "token": token, "locale": locale, "timezone": timezone}
		status, first := post(t, body)
		if status == 400 {
			return
		}
		require.Equal(t, 200, status, first)
		for _, name := range []string{"token", "locale", "timezone"} {
			body[name] = first[name]
		}
		status, again := post(t, body)
		require.Equal(t, 200, status, again)
		for _, name := range []string{"id", "token", "locale", "timezone"} {
			require.Equal(t, first[name], again[name], name)
		}
	})
}
