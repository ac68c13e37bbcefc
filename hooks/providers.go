package hooks

import (
	"errors"
	"strings"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/apns"
	"github.com/groundworkhq/groundwork/notifications/email"
	"github.com/groundworkhq/groundwork/notifications/fcm"
	"github.com/groundworkhq/groundwork/notifications/sms"
	"github.com/groundworkhq/groundwork/notifications/webpush"
)

// factories make the adapters, by the kind of provider.
func factories(cfg Config) map[notifications.ProviderChannel]notifications.ProviderFactory {
	return map[notifications.ProviderChannel]notifications.ProviderFactory{
		notifications.ProviderEmailTransactional: email.New,
		notifications.ProviderEmailPromotional:   email.New,
		notifications.ProviderAPNs:               apns.New,
		notifications.ProviderFCM:                fcm.New,
		notifications.ProviderWebPush:            webpush.Factory(webpush.Options{PrivateHosts: cfg.WebPushPrivateHosts}),
		notifications.ProviderSMSTransactional:   sms.NewTransactional,
		notifications.ProviderSMSPromotional:     sms.NewPromotional,
	}
}

// bindProviders builds the registry once the key is known, brings its rows up
// to date when the app serves, and lets a save of a row act.
func (g *groundwork) bindProviders() {
	app := g.app
	app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.providers.build", Priority: 50, Func: func(e *core.BootstrapEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			if g.providers == nil {
				g.providers = notifications.NewProviders(notifications.ProvidersOptions{
					App: app, Factories: factories(g.cfg), Box: g.box, Environment: g.cfg.Providers, Log: g.log,
					PublicURL: func() string { return publicURL(app) }})
				g.providers.AddWorkers(g.workers)
			}
			return nil
		}})
	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.providers.start", Priority: prioritySenderStart, Func: func(e *core.ServeEvent) error {
			if err := g.providers.Start(e.App); err != nil {
				return err
			}
			return e.Next()
		}})
	app.OnSettingsReload().Bind(&hook.Handler[*core.SettingsReloadEvent]{
		Id: "groundwork.providers.settings", Func: func(e *core.SettingsReloadEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			if g.client.Load() == nil {
				return nil // not serving: read at the next start
			}
			return g.providers.SettingsChanged(e.App)
		}})
	app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "groundwork.providers.stop", Priority: prioritySenderStop + 1, Func: func(e *core.TerminateEvent) error {
			if g.providers != nil {
				g.providers.Close()
			}
			return e.Next()
		}})

	// Before validation: nothing is refused for what will be put back anyway.
	restore := func(e *core.RecordEvent) error {
		if !notifications.IsServer(e.Context) {
			if err := g.providers.Restore(e.App, e.Record); err != nil {
				return err
			}
		}
		return e.Next()
	}
	app.OnRecordUpdate(notifications.CollectionProviders).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.providers.restore", Priority: priorityFirst, Func: restore})

	take := func(e *core.RecordEvent) error {
		if notifications.IsServer(e.Context) {
			return e.Next()
		}
		return inTransaction(e, func() error {
			after, err := g.providers.Take(e.App, e.Record)
			if err != nil {
				return err
			}
			if err := e.Next(); err != nil {
				return err
			}
			return after()
		})
	}
	app.OnRecordCreateExecute(notifications.CollectionProviders).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.providers.take", Priority: priorityExecute, Func: take})
	app.OnRecordUpdateExecute(notifications.CollectionProviders).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.providers.take", Priority: priorityExecute, Func: take})

	app.OnRecordDeleteExecute(notifications.CollectionProviders).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.providers.delete", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			if notifications.IsServer(e.Context) {
				return e.Next()
			}
			return inTransaction(e, func() error {
				after, err := g.providers.TakeDelete(e.App, e.Record)
				var elsewhere *notifications.ElsewhereError
				if errors.As(err, &elsewhere) {
					return apis.NewBadRequestError(elsewhere.Sentence, nil)
				}
				if err != nil {
					return err
				}
				if err := e.Next(); err != nil {
					return err
				}
				return after()
			})
		}})

	// The live adapter of a changed row is replaced at once, not with the next
	// message.
	changed := func(e *core.RecordEvent) error {
		if err := e.Next(); err != nil {
			return err
		}
		return g.providers.Refresh(e.App)
	}
	app.OnRecordAfterUpdateSuccess(notifications.CollectionProviders).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.providers.refresh", Func: changed})
	app.OnRecordAfterDeleteSuccess(notifications.CollectionProviders).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.providers.refresh", Func: changed})

	// The sealed secret is of no use to anybody who reads the API: always blank,
	// in lists, answers and realtime, for superusers too.
	app.OnRecordEnrich(notifications.CollectionProviders).Bind(&hook.Handler[*core.RecordEnrichEvent]{
		Id: "groundwork.providers.blank", Func: func(e *core.RecordEnrichEvent) error {
			e.Record.SetRaw("secret", "")
			return e.Next()
		}})
}

// publicURL is the address in the application settings; empty as long as it is
// PocketBase's placeholder, which nobody else can reach.
func publicURL(app core.App) string {
	url := strings.TrimRight(app.Settings().Meta.AppURL, "/")
	if url == "http://localhost:8090" || !strings.HasPrefix(url, "http") {
		return ""
	}
	return url
}
