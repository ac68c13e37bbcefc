package hooks

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/redact"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/webpush"
	"github.com/groundworkhq/groundwork/schedules"
)

// bindSchedules runs what is due by the clock. Every process that serves looks every
// minute: the database decides which of them has the run.
func (g *groundwork) bindSchedules() {
	app := g.app
	app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.schedules.build", Func: func(e *core.BootstrapEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			if g.schedules != nil {
				return nil // a second bootstrap of the same app (a restored backup)
			}
			hosts := g.cfg.WebhookPrivateHosts
			g.schedules = schedules.New(app, schedules.Options{
				Box:        g.box,
				Tell:       g.tellSuperusers,
				TellAtOnce: g.tellSuperusersAtOnce,
				Dial:       webpush.Dialer(hosts),
				CheckHost:  func(host, port string) error { return webpush.CheckHost(host, port, hosts) },
				Private:    func(host, port string) bool { return webpush.IsListed(hosts, host, port) },
				Redact:     redact.String,
				Disk:       g.cfg.disk,
				Log:        g.log,
				Now:        g.cfg.now,
			})
			g.schedules.AddWorkers(g.workers)
			return nil
		}})

	tick := func() {
		if g.client.Load() == nil {
			return // not serving, or on the way down
		}
		if err := g.schedules.Tick(context.Background()); err != nil {
			g.log.Error("schedules cannot be looked at, trying again in a minute", "error", err)
		}
	}
	if err := app.Cron().Add("groundwork.schedules.tick", "* * * * *", tick); err != nil {
		panic(err) // the expression above is a constant
	}
	// What came while the server was down does not wait for the next minute.
	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.schedules.start", Priority: priorityJobsStart + 1, Func: func(e *core.ServeEvent) error {
			tick()
			e.Router.POST("/api/schedules/explain", g.explainSchedule).Bind(apis.RequireSuperuserAuth())
			return e.Next()
		}})

	take := func(e *core.RecordEvent) error {
		if notifications.IsServer(e.Context) {
			return e.Next()
		}
		return inTransaction(e, func() error {
			after, err := g.schedules.Take(e.App, e.Record)
			if err != nil {
				return err
			}
			if err := e.Next(); err != nil {
				return err
			}
			return after()
		})
	}
	app.OnRecordCreateExecute(schedules.Collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.schedules.take", Priority: priorityExecute, Func: take})
	app.OnRecordUpdateExecute(schedules.Collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.schedules.take", Priority: priorityExecute, Func: take})
	app.OnRecordDeleteExecute(schedules.Collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.schedules.forget", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			return inTransaction(e, func() error {
				if err := schedules.Forget(e.App, e.Record.Id); err != nil {
					return err
				}
				return e.Next()
			})
		}})

	// The secret is of no use to anybody who reads the API. The next runs are those
	// from now on, however long ago the row was written.
	app.OnRecordEnrich(schedules.Collection).Bind(&hook.Handler[*core.RecordEnrichEvent]{
		Id: "groundwork.schedules.show", Func: func(e *core.RecordEnrichEvent) error {
			e.Record.SetRaw("secret", "")
			schedules.AsSchedule(e.Record).Show(e.App, g.cfg.now())
			return e.Next()
		}})
	g.bindScheduleRuns()
	g.bindScheduleReferences()

	app.OnBackupCreate().BindFunc(func(e *core.BackupEvent) error {
		e.Exclude = append(e.Exclude, schedules.PulseDir, schedules.NoticeDir)
		return e.Next()
	})
}

// bindScheduleRuns leaves the history to the server.
func (g *groundwork) bindScheduleRuns() {
	const id, sentence = "groundwork.schedules.runs", "The runs of schedules are written by the server. They can be read, not changed."
	app, collection := g.app, schedules.CollectionRuns
	closed := func(e *core.RecordRequestEvent) error { return e.ForbiddenError(sentence, nil) }
	app.OnRecordCreateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: id, Func: closed})
	app.OnRecordUpdateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: id, Func: closed})
	app.OnRecordDeleteRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: id, Func: closed})
	serverOnly := func(e *core.RecordEvent) error {
		if !notifications.IsServer(e.Context) {
			return apis.NewForbiddenError(sentence, nil)
		}
		return e.Next()
	}
	app.OnRecordCreate(collection).Bind(&hook.Handler[*core.RecordEvent]{Id: id, Priority: priorityFirst, Func: serverOnly})
	app.OnRecordUpdate(collection).Bind(&hook.Handler[*core.RecordEvent]{Id: id, Priority: priorityFirst, Func: serverOnly})
}

// bindScheduleReferences keeps payloads true: they name templates and people.
func (g *groundwork) bindScheduleReferences() {
	app := g.app
	app.OnRecordDeleteExecute(notifications.CollectionTemplates).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.schedules.template", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			return inTransaction(e, func() error {
				for _, name := range []string{e.Record.Id, e.Record.Original().GetString("key")} {
					using, err := schedules.FindByTemplate(e.App, name)
					if err != nil {
						return err
					}
					if using != nil {
						return apis.NewBadRequestError(fmt.Sprintf("The schedule %q uses this template. Give it another one first.", using.Name()), nil)
					}
				}
				return e.Next()
			})
		}})
	app.OnRecordDeleteExecute().Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.schedules.person", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			if !e.Record.Collection().IsAuth() || !g.ready(e.App) {
				return e.Next()
			}
			return inTransaction(e, func() error {
				if err := schedules.ForgetPerson(e.App, e.Record.Id); err != nil {
					return err
				}
				return e.Next()
			})
		}})
}

// explainSchedule says in plain words when a cron line runs.
func (g *groundwork) explainSchedule(e *core.RequestEvent) error {
	var body struct {
		Cron     string `json:"cron"`
		Timezone string `json:"timezone"`
		Action   string `json:"action"`
	}
	if err := e.BindBody(&body); err != nil {
		return e.BadRequestError("The request body cannot be read.", err)
	}
	explained, err := g.schedules.Explain(body.Cron, body.Timezone, body.Action)
	var problems validation.Errors
	switch {
	case errors.As(err, &problems):
		return e.BadRequestError("This schedule cannot be read.", problems)
	case err != nil:
		return e.InternalServerError("", err)
	}
	return e.JSON(http.StatusOK, explained)
}
