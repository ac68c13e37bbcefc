package hooks

import (
	"context"
	"fmt"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/jobs"
)

// The order of start and stop. Everything that jobs need starts before them and
// stops after them. PocketBase closes its listener at -9999.
const (
	prioritySenderStart = -200
	priorityJobsStart   = -100
	priorityJobsStop    = -200
	prioritySenderStop  = -100
)

// jobsStopLimit is how long a shutdown waits for the jobs in hand.
const jobsStopLimit = 15 * time.Second

// bindJobs works the jobs while the app serves. Not earlier: the app's
// migrations run at the start of serving, after the bootstrap.
func (g *groundwork) bindJobs() {
	if g.cfg.JobsDatabaseURL != "" {
		g.app.Store().Set(jobs.StoreKeyDatabaseURL, g.cfg.JobsDatabaseURL)
	}
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.jobs.start", Priority: priorityJobsStart, Func: func(e *core.ServeEvent) error {
			g.warnOfForgottenPostgres()
			client, err := jobs.New(g.app, g.workers, jobs.Config{DatabaseURL: g.cfg.JobsDatabaseURL, Workers: g.queueWorkers(), Log: g.log})
			if err != nil {
				return fmt.Errorf("open jobs: %w", err)
			}
			g.client.Store(client)
			if err := client.Start(context.Background()); err != nil {
				g.client.Store(nil)
				return fmt.Errorf("start jobs: %w", err)
			}
			return e.Next()
		}})

	// Before Next, which closes the databases. A restored backup and some tests
	// clear the bootstrap without terminating.
	g.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "groundwork.jobs.stop", Priority: priorityJobsStop, Func: func(e *core.TerminateEvent) error {
			g.stopJobs()
			return e.Next()
		}})
	g.app.OnBootstrapClear().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.jobs.stop", Priority: priorityJobsStop, Func: func(e *core.BootstrapEvent) error {
			g.stopJobs()
			return e.Next()
		}})

	// A copy of a database that is being written is not a backup of it.
	g.app.OnBackupCreate().BindFunc(func(e *core.BackupEvent) error {
		e.Exclude = append(e.Exclude, jobs.FileName, jobs.FileName+"-wal", jobs.FileName+"-shm")
		return e.Next()
	})
}

// warnOfForgottenPostgres says what a missing variable leaves behind: nothing fails by
// it, and what waited in Postgres is not done.
func (g *groundwork) warnOfForgottenPostgres() {
	var names int
	if g.cfg.JobsDatabaseURL != "" || g.app.ConcurrentDB().Select("COUNT(*)").From("groundwork_installation").Row(&names) != nil || names == 0 {
		return
	}
	g.log.Warn("JOBS_DATABASE_URL is not set, and the jobs of this data folder have been in Postgres before: what waits there is not done until it is set again")
}

func (g *groundwork) stopJobs() {
	client := g.client.Load()
	if client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), jobsStopLimit)
	defer cancel()
	if err := client.Stop(ctx); err != nil {
		g.log.Error("jobs did not stop in time; they go on after the next start", "error", err)
	}
	g.client.Store(nil)
}
