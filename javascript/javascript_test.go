package javascript_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dop251/goja"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/plugins/jsvm"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/javascript"
	"github.com/groundworkhq/groundwork/notifications"
)

// runtime is a JavaScript runtime as PocketBase's plugin makes it.
func runtime(app core.App) *goja.Runtime {
	vm := goja.New()
	vm.SetFieldNameMapper(jsvm.FieldMapper{})
	javascript.Init(app)(vm)
	return vm
}

func TestSend(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	ana := app.User("ana@example.com")
	app.Record(notifications.CollectionTemplates, map[string]any{"key": "hello", "title": "Hello {{ name }}"})
	vm := runtime(app)
	require.NoError(t, vm.Set("ana", ana))

	for name, tc := range map[string]struct {
		script, title string
	}{
		"its own words":         {`$notifications.send({title: "Hi {{ user.email }}", channels: ["inbox"], users: ana})`, "Hi ana@example.com"},
		"by id, in a list":      {`$notifications.send({title: "Hi", channels: ["inbox"], users: [ana.id]})`, "Hi"},
		"records in a list":     {`$notifications.send({title: "Hi all", channels: ["inbox"], users: [ana]})`, "Hi all"},
		"a template by its key": {`$notifications.send({template: "hello", variables: {name: "Ana"}, channels: ["inbox"], users: ana})`, "Hello Ana"},
		"by a filter":           {`$notifications.send({title: "Filtered", channels: ["inbox"], filter: 'email = "ana@example.com"'})`, "Filtered"},
		"a category by its key": {`$notifications.send({title: "News", category: "promotional", channels: ["inbox"], users: ana})`, "News"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := vm.RunString(tc.script)
			require.NoError(t, err)
			record, ok := v.Export().(*core.Record)
			require.True(t, ok, "%T", v.Export())
			require.Eventually(t, func() bool { return app.Reload(record).GetString("status") == "sent" }, 2*time.Minute, 10*time.Millisecond)
			rows, err := app.FindAllRecords(notifications.CollectionInbox)
			require.NoError(t, err)
			var titles []string
			for _, row := range rows {
				if row.GetString("notification") == record.Id {
					titles = append(titles, row.GetString("title"))
				}
			}
			require.Equal(t, []string{tc.title}, titles)
		})
	}
}

func TestPreview(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	app.User("bo@example.com")
	vm := runtime(app)
	require.NoError(t, vm.Set("ana", ana))
	v, err := vm.RunString(`const p = $notifications.preview({title: "Hi {{ user.email }}", channels: ["email", "sms"], filter: 'id != ""', sample: ana, pricePerSegment: 1, currency: "EUR"});
		[p.people, p.channels[0].channel, p.channels[0].targets, p.channels[1].withoutAddress, JSON.stringify(p.sample.messages.email).includes("Hi ana@example.com")]`)
	require.NoError(t, err)
	require.Equal(t, []any{int64(2), "email", int64(2), int64(2), true}, v.Export())
	_, err = vm.RunString(`$notifications.preview({title: "Hi {{ user.shoeSize }}", channels: ["email"], users: ana})`)
	require.ErrorContains(t, err, "shoeSize")
	n, err := app.CountRecords(notifications.CollectionNotifications)
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestSendLater(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.User("ana@example.com")
	vm := runtime(app)
	v, err := vm.RunString(`$notifications.send({title: "Later", channels: ["inbox"], filter: 'id != ""', sendAt: new Date("2099-01-02T03:04:05Z"), idempotencyKey: "once"})`)
	require.NoError(t, err)
	record := v.Export().(*core.Record)
	require.Equal(t, "2099-01-02 03:04:05.000Z", app.Reload(record).GetDateTime("sendAt").String())
	require.Equal(t, "scheduled", app.Reload(record).GetString("status"))

	v, err = vm.RunString(`$notifications.send({title: "Later", channels: ["inbox"], filter: 'id != ""', idempotencyKey: "once"}).id`)
	require.NoError(t, err)
	require.Equal(t, record.Id, v.String(), "the same key is the same notification")

	require.NoError(t, vm.Set("id", record.Id))
	v, err = vm.RunString(`$notifications.cancel(id).get("status")`)
	require.NoError(t, err)
	require.Equal(t, "cancelled", v.String())
}

func TestSendInATransaction(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	vm := runtime(app)
	require.NoError(t, vm.Set("ana", ana))
	require.Error(t, app.RunInTransaction(func(txApp core.App) error {
		require.NoError(t, vm.Set("txApp", txApp))
		_, err := vm.RunString(`$notifications.send({title: "Hi", channels: ["inbox"], users: ana}, txApp)`)
		require.NoError(t, err)
		return os.ErrInvalid
	}))
	n, err := app.CountRecords(notifications.CollectionNotifications)
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	vm := runtime(app)
	require.NoError(t, vm.Set("ana", ana))
	for script, want := range map[string]string{
		`$notifications.send({titel: "Hi", channels: ["inbox"], users: ana})`:                     `no field "titel"`,
		`$notifications.send({title: "Hi", status: "sent", channels: ["inbox"]})`:                 `no field "status"`,
		`$notifications.send({id: "0123456789abcde", channels: ["inbox"]})`:                       `no field "id"`,
		`$notifications.send({title: "Hi {{ user.shoeSize }}", channels: ["inbox"], users: ana})`: `shoeSize`,
		`$notifications.send({title: "Hi", channels: ["fax"], users: ana})`:                       `channels`,
		`$notifications.send({title: "Hi", channels: ["inbox"]})`:                                 `audience`,
		`$notifications.send({title: "Hi", channels: ["inbox"], users: 7})`:                       `neither a record nor an id`,
		`$notifications.send({template: "nothing", channels: ["inbox"], users: ana})`:             `template`,
		`$notifications.cancel("nothing")`:                                                        `no notification "nothing"`,
	} {
		_, err := vm.RunString(script)
		require.ErrorContains(t, err, want, script)
	}
	n, err := app.CountRecords(notifications.CollectionNotifications)
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestWriteTypes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, javascript.TypesFileName), []byte("// of an earlier version"), 0o600))
	for range 2 {
		require.NoError(t, javascript.WriteTypes(dir))
		raw, err := os.ReadFile(filepath.Join(dir, javascript.TypesFileName))
		require.NoError(t, err)
		require.Contains(t, string(raw), "declare namespace $notifications")
	}
}

// Whatever can be sent is declared, or an editor calls it a mistake.
func TestTypesNameAllFields(t *testing.T) {
	t.Parallel()
	declared, err := os.ReadFile(javascript.TypesFileName)
	require.NoError(t, err)
	for _, field := range notifications.RequestFields() {
		require.Regexp(t, `\n  `+field+`\??: `, string(declared))
	}
}
