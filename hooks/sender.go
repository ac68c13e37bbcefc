package hooks

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

// bindSender builds the sender once the database is open, so that commands can
// enqueue too, and lets it send while the app serves.
func (g *groundwork) bindSender() {
	g.app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.sender.build", Func: func(e *core.BootstrapEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			if g.sender != nil {
				return nil // a second bootstrap of the same app (a restored backup)
			}
			g.sender = notifications.NewSender(g.app, notifications.SenderOptions{
				Providers:           g.providers,
				Sealed:              g.box,
				CaptureAll:          g.cfg.Env != EnvProduction,
				SendOnlyTo:          g.cfg.SendOnlyTo,
				ShowAccountMails:    g.cfg.Env == EnvLocal,
				PromotionalHours:    g.cfg.promotionalHours,
				AssumeEmailConsent:  g.cfg.AssumeEmailConsent,
				SMSOptOut:           g.cfg.SMSOptOut,
				PublicURL:           g.unsubscribeBase,
				UnsubscribeMailto:   g.cfg.UnsubscribeEmail,
				NoUnsubscribeFooter: g.cfg.NoUnsubscribeFooter,
				SentToEveryone:      g.inbox.sent,
				Retry:               g.cfg.Retry,
				Log:                 g.log,
				Now:                 g.cfg.now,
				OpenToken:           g.openToken,
			})
			g.sender.AddWorkers(g.workers)
			g.providers.OnResume(g.sender.Release)
			return nil
		}})

	// Before the jobs start (see bindJobs) and after they have stopped.
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.sender.start", Priority: prioritySenderStart, Func: func(e *core.ServeEvent) error {
			if err := g.sender.Start(); err != nil {
				return fmt.Errorf("start sender: %w", err)
			}
			g.sending = true
			return e.Next()
		}})
	g.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "groundwork.sender.stop", Priority: prioritySenderStop, Func: func(e *core.TerminateEvent) error {
			g.stopSender()
			return e.Next()
		}})
	g.app.OnBootstrapClear().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.sender.stop", Priority: prioritySenderStop, Func: func(e *core.BootstrapEvent) error {
			g.stopSender()
			return e.Next()
		}})

	if err := g.app.Cron().Add("groundwork.mails.purge", "*/10 * * * *", func() {
		if _, err := jobs.Enqueue(g.app, notifications.PurgeArgs{}, jobs.Options{Queue: jobs.QueueMaintenance, UniqueKey: "purge"}); err != nil {
			g.log.Error("purge of expired mails cannot be enqueued", "error", err)
		}
	}); err != nil {
		panic(err) // the expression above is a constant
	}
}

func (g *groundwork) stopSender() {
	if g.sending {
		g.sending = false
		g.sender.Close()
	}
}

// ready says whether our tables exist: they do not while the first migrations
// run, nor for a command on an empty folder.
func (g *groundwork) ready(app core.App) bool {
	_, err := app.FindCachedCollectionByNameOrId(notifications.CollectionDeliveries)
	return err == nil
}
