package hooks_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/filesystem"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

func section(x accounts.Export, name string) accounts.ExportSection {
	for _, s := range x.Sections {
		if s.Name == name {
			return s
		}
	}
	return accounts.ExportSection{}
}

func TestExport(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	orders := core.NewBaseCollection("orders")
	orders.ViewRule = types.Pointer("buyer = @request.auth.id")
	orders.Fields.Add(&core.TextField{Name: "note"}, &core.TextField{Name: "risk", Hidden: true}, &core.FileField{Name: "receipt", MaxSelect: 1, Protected: true},
		&core.RelationField{Name: "buyer", CollectionId: "_pb_users_auth_", MaxSelect: 1}, &core.RelationField{Name: "reported", CollectionId: "_pb_users_auth_", MaxSelect: 5})
	require.NoError(t, app.Save(orders))
	ana, bo := app.User("ana@example.com", map[string]any{"phone": "+447700900123", "name": "Ana"}), app.User("bo@example.com")
	receipt, err := filesystem.NewFileFromBytes([]byte("paid"), "receipt.txt")
	require.NoError(t, err)
	app.Record("orders", map[string]any{"buyer": ana.Id, "note": "tea", "risk": "high", "receipt": receipt})
	app.Record("orders", map[string]any{"buyer": bo.Id, "note": "what Bo wrote about Ana", "reported": []string{bo.Id, ana.Id}})
	app.Record("orders", map[string]any{"buyer": bo.Id, "note": "of Bo alone"})
	app.Record(notifications.CollectionInbox, map[string]any{"user": ana.Id, "title": "Hello Ana"})
	app.Record(notifications.CollectionSuppressions, map[string]any{"channel": "sms", "address": "+447700900123", "reason": "stop"})
	agree(app, ana, "sms")
	agree(app, bo, "email")
	send(t, app, map[string]any{"channels": []string{"email"}, "audience": "users", "users": []string{ana.Id}, "title": "For Ana"})
	triggered(t, app)

	token := signIn(t, app, ana)
	res := app.Send(http.MethodGet, "/api/account/export", nil, token)
	require.Equal(t, http.StatusOK, res.Status, res)
	require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	var own accounts.Export
	require.NoError(t, json.Unmarshal(res.Body, &own))
	require.Equal(t, "ana@example.com", own.Account["email"])
	require.Equal(t, "+447700900123", own.Account["phone"])
	require.Len(t, section(own, "orders").Records, 1)
	require.Equal(t, 1, section(own, "orders").Withheld, "what Bo wrote is not shown by the view rule")
	for _, name := range []string{"sessions", "deliveries", "notification_inbox", "notification_consents", "suppressions", "notifications"} {
		require.Len(t, section(own, name).Records, 1, name)
	}
	require.Len(t, own.Files, 1)
	require.Empty(t, own.Files[0].Content)
	for _, secret := range []string{"of Bo alone", "about Ana", "high", "tokenKey", "passwordHash", pbtest.Password, ana.TokenKey()} {
		require.NotContains(t, string(res.Body), secret)
	}

	root := app.Token(app.Superuser("root@example.com"))
	res = app.Send(http.MethodGet, "/api/accounts/users/"+ana.Id+"/export?format=zip", nil, root)
	require.Equal(t, http.StatusOK, res.Status, res)
	require.Equal(t, "application/zip", res.Header.Get("Content-Type"))
	archive, err := zip.NewReader(bytes.NewReader(res.Body), int64(len(res.Body)))
	require.NoError(t, err)
	content := map[string]string{}
	for _, f := range archive.File {
		r, err := f.Open()
		require.NoError(t, err)
		raw, err := io.ReadAll(r)
		require.NoError(t, err)
		content[f.Name] = string(raw)
	}
	require.Len(t, content, 2)
	var all accounts.Export
	require.NoError(t, json.Unmarshal([]byte(content["export.json"]), &all))
	require.Equal(t, "paid", content[all.Files[0].Path])
	require.Len(t, section(all, "orders").Records, 2, "an administrator decides what is handed out")
	require.NotContains(t, content["export.json"], "high")

	require.Equal(t, http.StatusBadRequest, app.Send(http.MethodGet, "/api/account/export?format=pdf", nil, token).Status)
	require.Equal(t, http.StatusNotFound, app.Send(http.MethodGet, "/api/accounts/users/nobody000000000/export", nil, root).Status)
	require.Equal(t, http.StatusNotFound, app.Send(http.MethodGet, "/api/accounts/orders/nobody000000000/export", nil, root).Status)
}
