package commands

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/plugins/jsvm"
	"github.com/pocketbase/pocketbase/plugins/migratecmd"
	"github.com/pocketbase/pocketbase/tools/osutils"

	"github.com/groundworkhq/groundwork/javascript"
)

// Flags are those of PocketBase's own binary.
type Flags struct {
	hooksDir      string
	hooksWatch    bool
	hooksPool     int
	migrationsDir string
	automigrate   bool
	publicDir     string
	indexFallback bool
	noWorkers     bool
}

// ParseFlags defines and reads the flags. It comes before anything is
// registered: the plugins need their values.
func ParseFlags(app *pocketbase.PocketBase) *Flags {
	f := &Flags{}
	flags := app.RootCmd.PersistentFlags()
	flags.StringVar(&f.hooksDir, "hooksDir", "", "the folder with the JavaScript hooks (default pb_hooks beside the data folder)")
	flags.BoolVar(&f.hooksWatch, "hooksWatch", true, "restart when a JavaScript hook changes")
	flags.IntVar(&f.hooksPool, "hooksPool", 15, "how many JavaScript runtimes are kept ready")
	flags.StringVar(&f.migrationsDir, "migrationsDir", "", "the folder with your migrations (default pb_migrations beside the data folder)")
	flags.BoolVar(&f.automigrate, "automigrate", true, "write a migration when a collection is changed in the dashboard")
	flags.StringVar(&f.publicDir, "publicDir", defaultPublicDir(), "the folder with the static files of the root address")
	flags.BoolVar(&f.indexFallback, "indexFallback", true, "answer unknown static paths with index.html")
	flags.BoolVar(&f.noWorkers, "no-workers", false, "serve: leave the sending to workers on other machines (see groundwork worker)")
	_ = app.RootCmd.ParseFlags(os.Args[1:]) // wrong flags are told when the command runs
	return f
}

// NoWorkers says that the server leaves the sending to workers on other machines.
func (f *Flags) NoWorkers() bool { return f.noWorkers }

// defaultPublicDir is beside the binary, as with PocketBase.
func defaultPublicDir() string {
	if osutils.IsProbablyGoRun() {
		return "./pb_public"
	}
	return filepath.Join(filepath.Dir(os.Args[0]), "pb_public")
}

// RegisterJavaScript adds JavaScript hooks and migrations, and the migrate
// command.
func RegisterJavaScript(app *pocketbase.PocketBase, f *Flags) error {
	if err := jsvm.Register(app, jsvm.Config{
		MigrationsDir: f.migrationsDir, HooksDir: f.hooksDir, HooksWatch: f.hooksWatch, HooksPoolSize: f.hooksPool,
		OnInit: javascript.Init(app),
	}); err != nil {
		return err
	}
	app.OnBootstrap().BindFunc(func(e *core.BootstrapEvent) error {
		if err := e.Next(); err != nil {
			return err
		}
		if err := javascript.WriteTypes(e.App.DataDir()); err != nil {
			e.App.Logger().Warn("Editors will not know $notifications.", "error", err) // nothing else needs them
		}
		return nil
	})
	return migratecmd.Register(app, app.RootCmd, migratecmd.Config{
		TemplateLang: migratecmd.TemplateLangJS, Automigrate: f.automigrate, Dir: f.migrationsDir,
	})
}

// Public chooses the files of the root address: the folder if there is one, or
// else those built into the binary. ours says which.
func (f *Flags) Public(builtIn fs.FS) (files fs.FS, fallback, ours bool) {
	if info, err := os.Stat(f.publicDir); err == nil && info.IsDir() {
		return os.DirFS(f.publicDir), f.indexFallback, false
	}
	return builtIn, f.indexFallback, true
}
