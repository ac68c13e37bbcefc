package hooks

import (
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/email"
)

// factories make the adapters, by the kind of provider.
var factories = map[notifications.ProviderChannel]notifications.ProviderFactory{
	notifications.ProviderEmailTransactional: email.New,
	notifications.ProviderEmailPromotional:   email.New,
}

// bindProviders builds the registry once the key is known.
func (g *groundwork) bindProviders() {
	g.app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.providers.build", Priority: 50, Func: func(e *core.BootstrapEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			if g.providers == nil {
				g.providers = notifications.NewProviders(notifications.ProvidersOptions{
					App: g.app, Factories: factories, Box: g.box, Environment: g.cfg.Providers, Log: g.log})
				g.providers.AddWorkers(g.workers)
			}
			return nil
		}})
}
