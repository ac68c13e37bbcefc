package hooks

import (
	"net/http"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/livecache"
)

// bindLiveCaches keeps the collections that are held in memory up to date.
func (g *groundwork) bindLiveCaches() {
	const id = "groundwork.livecache"
	app := g.app

	app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{Id: id, Func: func(e *core.BootstrapEvent) error {
		if err := e.Next(); err != nil {
			return err
		}
		livecache.Start(e.App)
		return nil
	}})
	// Both before Next, which closes the database.
	app.OnBootstrapClear().Bind(&hook.Handler[*core.BootstrapEvent]{Id: id, Func: func(e *core.BootstrapEvent) error {
		livecache.Stop(e.App)
		return e.Next()
	}})
	app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{Id: id, Func: func(e *core.TerminateEvent) error {
		livecache.Stop(e.App)
		return e.Next()
	}})

	// After the commit and before anybody else: another hook that fails here must
	// not keep an outdated copy alive.
	record := func() *hook.Handler[*core.RecordEvent] {
		return &hook.Handler[*core.RecordEvent]{Id: id, Priority: -9999, Func: func(e *core.RecordEvent) error {
			livecache.Changed(e.App, e.Record.Collection().Id)
			return e.Next()
		}}
	}
	app.OnRecordAfterCreateSuccess().Bind(record())
	app.OnRecordAfterUpdateSuccess().Bind(record())
	app.OnRecordAfterDeleteSuccess().Bind(record())

	// After everybody else: PocketBase reloads its own copy of the definitions in
	// these hooks, and a load needs the new ones.
	collection := func() *hook.Handler[*core.CollectionEvent] {
		return &hook.Handler[*core.CollectionEvent]{Id: id, Priority: -9999, Func: func(e *core.CollectionEvent) error {
			err := e.Next()
			livecache.Changed(e.App, e.Collection.Id)
			return err
		}}
	}
	app.OnCollectionAfterCreateSuccess().Bind(collection())
	app.OnCollectionAfterUpdateSuccess().Bind(collection())
	app.OnCollectionAfterDeleteSuccess().Bind(collection())

	// The dashboard's SQL console goes round the hooks above.
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: id, Func: func(e *core.RequestEvent) error {
			err := e.Next()
			if e.Request.Method == http.MethodPost && e.Request.URL.Path == "/api/sql" {
				livecache.ChangedAll(e.App)
			}
			return err
		}})
		return e.Next()
	})

	app.OnBackupCreate().BindFunc(func(e *core.BackupEvent) error {
		e.Exclude = append(e.Exclude, livecache.Dir)
		return e.Next()
	})
}
