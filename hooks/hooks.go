package hooks

import (
	"log/slog"
	"sync/atomic"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/schedules"

	_ "github.com/groundworkhq/groundwork/migrations" // our collections are app migrations
)

// groundwork is what the hook files share: one value per PocketBase app.
type groundwork struct {
	app core.App
	cfg Config
	log *slog.Logger
	box *keyBox // nil before the bootstrap

	openKey atomic.Pointer[[]byte] // see openToken

	sessions  *accounts.Sessions
	erasing   *erasing
	workers   *jobs.Workers
	client    atomic.Pointer[jobs.Client] // nil unless the app serves
	remote    *notifications.Remote       // nil unless the app serves with Postgres
	providers *notifications.Providers
	limits    *limits
	inbox     *inbox
	schedules *schedules.Runner     // nil before the bootstrap
	sender    *notifications.Sender // nil before the bootstrap
	sending   bool                  // the sender was started
	subject   atomic.Value          // a string: Web Push's, as it was set last
}

// Register adds all of Groundwork to app. Call it before app.Start, once per
// app. It registers hooks, routes and migrations and does no work yet: the
// database is not open at that point.
//
// The error lists everything that is wrong with cfg, in sentences.
func Register(app core.App, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	g := &groundwork{app: app, cfg: cfg, log: slog.New(slog.NewJSONHandler(cfg.LogOutput, nil)),
		workers: jobs.WorkersOf(app), sessions: accounts.Of(app)}

	if cfg.UsersCollection != "" {
		// The migrations read it here: they know no configuration.
		app.Store().Set(notifications.StoreKeyUsersCollection, cfg.UsersCollection)
	}

	app.Store().Set(notifications.StoreKeyTimezone, cfg.DefaultTimezone)

	// The order below is the order in which the hooks run.
	g.bindServerOwned()
	g.bindDevices()
	g.bindCollections()
	g.bindRefusals()
	g.bindUsers()
	g.bindPhone()
	g.bindLiveCaches()
	g.bindBadTokens()
	g.bindSessions()
	g.bindKey()
	g.bindRequestIDs()
	g.bindLogs()
	g.bindProviders()
	g.bindWebPush()
	g.bindInbox()
	g.bindSender()
	g.bindErase()
	g.bindExport()
	g.bindDashboard()
	g.bindWebhooks()
	g.bindEmailWebhook()
	g.bindUnsubscribe()
	g.bindConsents()
	g.bindNotifications()
	g.bindQuietHours()
	g.bindFormats()
	g.bindTriggers()
	g.bindSchedules()
	g.bindMails()
	g.bindVersions()
	g.bindLimits()
	g.bindRemote()
	g.bindJobs()
	g.bindHosts()
	g.bindJobMonitor()
	g.bindJobRealtime()
	g.bindSetup()
	g.bindPublic()
	g.bindBanner()

	return nil
}

// MustRegister is [Register] that panics on an error.
func MustRegister(app core.App, cfg Config) {
	if err := Register(app, cfg); err != nil {
		panic(err)
	}
}
