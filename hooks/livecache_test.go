package hooks_test

import (
	"archive/zip"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/livecache"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/versions"
)

// hardUpdate asks for iOS 1.0 and expects an answer.
func hardUpdate(t *testing.T, app *pbtest.App) bool {
	t.Helper()
	w := app.Send(http.MethodGet, "/api/version-check?platform=ios&version=1.0", nil, "")
	require.Equal(t, http.StatusOK, w.Status, w.String())
	return w.JSON(t)["hard_update"].(bool)
}

func TestEveryWayToSaveTakesEffectAtOnce(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root := app.Token(app.Superuser("root@example.com"))
	require.False(t, hardUpdate(t, app))

	// The dashboard's way.
	created := app.Send(http.MethodPost, "/api/collections/app_versions/records",
		map[string]any{"platform": "ios", "minimum": "2.0", "enabled": true}, root)
	require.Equal(t, http.StatusOK, created.Status, created.String())
	require.True(t, hardUpdate(t, app))
	id := created.JSON(t)["id"].(string)
	path := "/api/collections/app_versions/records/" + id
	require.Equal(t, http.StatusOK, app.Send(http.MethodPatch, path, map[string]any{"minimum": "1.0"}, root).Status)
	require.False(t, hardUpdate(t, app))

	// A batch.
	if settings := app.Settings(); !settings.Batch.Enabled {
		settings.Batch.Enabled, settings.Batch.Timeout = true, 120
		settings.Batch.MaxRequests = 10
		require.NoError(t, app.Save(settings))
	}
	batch := app.Send(http.MethodPost, "/api/batch", map[string]any{"requests": []map[string]any{
		{"method": "PATCH", "url": path, "body": map[string]any{"minimum": "1.1"}}}}, root)
	require.Equal(t, http.StatusOK, batch.Status, batch.String())
	require.True(t, hardUpdate(t, app))

	// The SQL console.
	sql := app.Send(http.MethodPost, "/api/sql", map[string]any{"query": "UPDATE app_versions SET minimum = '0.9'"}, root)
	require.Equal(t, http.StatusOK, sql.Status, sql.String())
	require.False(t, hardUpdate(t, app))

	// Go, with and without validation, inside a transaction, rolled back.
	record, err := app.FindRecordById(versions.Collection, id)
	require.NoError(t, err)
	record.Set("minimum", "1.2")
	require.NoError(t, app.SaveNoValidate(record))
	require.True(t, hardUpdate(t, app))
	require.NoError(t, app.RunInTransaction(func(txApp core.App) error {
		record.Set("minimum", "0.8")
		if err := txApp.Save(record); err != nil {
			return err
		}
		require.True(t, hardUpdate(t, app), "nothing is committed yet")
		return nil
	}))
	require.False(t, hardUpdate(t, app))
	require.Error(t, app.RunInTransaction(func(txApp core.App) error {
		record.Set("minimum", "3.0")
		require.NoError(t, txApp.Save(record))
		return errors.New("no")
	}))
	require.False(t, hardUpdate(t, app))

	// Renamed by an administrator, it is the same collection.
	collection, err := app.FindCollectionByNameOrId(versions.Collection)
	require.NoError(t, err)
	collection.Name = "our_versions"
	require.NoError(t, app.Save(collection))
	require.False(t, hardUpdate(t, app))
	path = "/api/collections/our_versions/records/" + id
	require.Equal(t, http.StatusOK, app.Send(http.MethodPatch, path, map[string]any{"minimum": "1.3"}, root).Status)
	require.True(t, hardUpdate(t, app))

	// Deleted: the row, then the collection.
	require.Equal(t, http.StatusNoContent, app.Send(http.MethodDelete, path, nil, root).Status)
	require.False(t, hardUpdate(t, app))
	app.Record(versions.Collection, map[string]any{"platform": "ios", "minimum": "2.0", "enabled": true})
	require.True(t, hardUpdate(t, app))
	collection, err = app.FindCollectionByNameOrId(versions.Collection)
	require.NoError(t, err)
	require.Error(t, app.Delete(collection))
	app.Store().Set("groundwork.schemaUnlocked", true) // as a down migration does
	require.NoError(t, app.Delete(collection))
	require.False(t, hardUpdate(t, app))
}

// An app's own hook that fails after the commit makes the request fail; the row
// is stored all the same, and so it counts.
func TestAFailingHookAfterTheCommitKeepsNothingBack(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.OnRecordAfterCreateSuccess("app_versions").BindFunc(func(*core.RecordEvent) error { return errors.New("their own trouble") })
	root := app.Token(app.Superuser("root@example.com"))
	require.False(t, hardUpdate(t, app))
	refused := app.Send(http.MethodPost, "/api/collections/app_versions/records",
		map[string]any{"platform": "ios", "minimum": "2.0", "enabled": true}, root)
	require.Equal(t, http.StatusBadRequest, refused.Status)
	require.True(t, hardUpdate(t, app))
}

func TestAnAdministratorMayReshapeAppVersions(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Record(versions.Collection, map[string]any{"platform": "ios", "minimum": "2.0", "enabled": true})
	root := app.Token(app.Superuser("root@example.com"))
	require.True(t, hardUpdate(t, app))
	require.Equal(t, http.StatusBadRequest, app.Send(http.MethodGet, "/api/version-check?platform=tvos&version=1", nil, "").Status)

	// As the dashboard does it: the whole collection comes back, changed.
	path := "/api/collections/app_versions"
	body := app.Send(http.MethodGet, path, nil, root).JSON(t)
	fields := body["fields"].([]any)
	for _, f := range fields {
		if field := f.(map[string]any); field["name"] == "platform" {
			field["values"] = append(field["values"].([]any), "tvos")
		}
	}
	last := len(fields) - 1
	fields[1], fields[last] = fields[last], fields[1]
	body["fields"] = append(fields, map[string]any{"name": "ownerNote", "type": "text"})
	saved := app.Send(http.MethodPatch, path, body, root)
	require.Equal(t, http.StatusOK, saved.Status, saved.String())

	require.True(t, hardUpdate(t, app))
	require.Equal(t, http.StatusOK, app.Send(http.MethodGet, "/api/version-check?platform=tvos&version=1", nil, "").Status)
	app.Record(versions.Collection, map[string]any{"platform": "tvos", "minimum": "2.0", "enabled": true, "ownerNote": "x"})

	// What would break the product is refused.
	body = app.Send(http.MethodGet, path, nil, root).JSON(t)
	for _, f := range body["fields"].([]any) {
		if field := f.(map[string]any); field["name"] == "minimum" {
			field["name"] = "lowest"
		}
	}
	require.Equal(t, http.StatusBadRequest, app.Send(http.MethodPatch, path, body, root).Status)
	require.True(t, hardUpdate(t, app))
}

func TestAppVersionsAreForSuperusers(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	record := app.Record(versions.Collection, map[string]any{"platform": "ios", "minimum": "2.0", "enabled": true})
	person := app.Token(app.User("a@example.com"))
	list := "/api/collections/app_versions/records"
	for token, status := range map[string]int{"": http.StatusUnauthorized, person: http.StatusForbidden} {
		for method, path := range map[string]string{
			http.MethodPost: list, http.MethodGet: list, http.MethodPatch: list + "/" + record.Id, http.MethodDelete: list + "/" + record.Id,
		} {
			w := app.Send(method, path, map[string]any{"platform": "web", "minimum": "0.1"}, token)
			require.Equal(t, status, w.Status, "%s %s", method, w)
		}
	}
	require.True(t, hardUpdate(t, app))
}

func TestRawWritesAreNotLost(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Record(versions.Collection, map[string]any{"platform": "ios", "minimum": "0.5", "latest": "2.0", "enabled": true})
	require.False(t, hardUpdate(t, app))

	// One readable field and one that is not: the hard update holds.
	_, err := app.NonconcurrentDB().NewQuery("UPDATE app_versions SET minimum = ' 1.5 ', latest = 'soon'").Execute()
	require.NoError(t, err)
	require.Eventually(t, func() bool { return hardUpdate(t, app) }, patience, 100*time.Millisecond) // a guest may ask 30 times in a second
	w := app.Send(http.MethodGet, "/api/version-check?platform=ios&version=1.0", nil, "")
	require.Equal(t, "", w.JSON(t)["latest"])
	require.Equal(t, "1.5", w.JSON(t)["minimum"])

	// A table that is gone answers with the last that was known.
	_, err = app.NonconcurrentDB().NewQuery("ALTER TABLE app_versions RENAME TO elsewhere").Execute()
	require.NoError(t, err)
	livecache.Changed(app, versions.Collection)
	require.True(t, hardUpdate(t, app))
}

func TestBackupsLeaveTheNotifyFolderOut(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Record(versions.Collection, map[string]any{"platform": "ios"})
	require.FileExists(t, filepath.Join(app.DataDir(), ".groundwork", "notify", versions.Collection))
	beside := filepath.Join(app.DataDir(), ".groundwork", "beside")
	require.NoError(t, os.WriteFile(beside, []byte("x"), 0o600))

	require.NoError(t, app.CreateBackup(context.Background(), "test.zip"))
	archive, err := zip.OpenReader(filepath.Join(app.DataDir(), core.LocalBackupsDirName, "test.zip"))
	require.NoError(t, err)
	defer func() { _ = archive.Close() }()
	var names []string
	for _, f := range archive.File {
		names = append(names, f.Name)
		require.False(t, strings.HasPrefix(f.Name, livecache.Dir), f.Name)
	}
	require.Contains(t, names, ".groundwork/beside")
}
