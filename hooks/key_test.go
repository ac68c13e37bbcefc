package hooks_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/notifications"
)

func withoutKey() hooks.Config {
	cfg := quiet(hooks.Config{})
	cfg.Key = ""
	return cfg
}

// keyless is an app without GROUNDWORK_KEY after its migrations, and where its
// key file belongs.
func keyless(t *testing.T) (*core.BaseApp, string) {
	t.Helper()
	dir := t.TempDir()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: filepath.Join(dir, "pb_data")})
	require.NoError(t, hooks.Register(app, withoutKey()))
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { stop(t, app) })
	require.NoError(t, app.RunAllMigrations())
	app.Settings().Logs.MaxDays = 0 // they are written later, when the folder may be gone
	return app, filepath.Join(dir, "groundwork.key")
}

func TestACommandThatNeedsNoKeyMakesNone(t *testing.T) {
	t.Parallel()
	app, file := keyless(t)
	_, err := hooks.SetupLink(app, "")
	require.NoError(t, err)
	require.NoFileExists(t, file)

	require.NoError(t, serve(app))
	require.FileExists(t, file)
}

func TestTheKeyIsMadeForWhatIsSealedFirst(t *testing.T) {
	t.Parallel()
	app, file := keyless(t)
	providers, err := app.FindCollectionByNameOrId(notifications.CollectionProviders)
	require.NoError(t, err)
	provider := core.NewRecord(providers)
	provider.Load(map[string]any{"name": "Mail", "channel": "email_transactional", "config": map[string]any{"host": "smtp.example.com", "port": 587},
		"secret": "hunter2-Zq9", "senderId": "shop@example.com"})
	require.NoError(t, app.Save(provider))
	require.NotContains(t, provider.GetString("secret"), "hunter2")
	key, err := os.ReadFile(file)
	require.NoError(t, err)

	require.NoError(t, serve(app))
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, key, after, "one key for good")
}

func TestABrokenKeyFileIsToldAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "groundwork.key"), []byte("short"), 0o600))
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: filepath.Join(dir, "pb_data")})
	require.NoError(t, hooks.Register(app, withoutKey()))
	require.ErrorContains(t, app.Bootstrap(), "groundwork.key cannot be used")
}
