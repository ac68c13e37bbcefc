package hooks

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/schedules"
)

const (
	// workersEvery is how often the machines of workers are looked at.
	workersEvery = 5 * time.Second

	// workerEnded is how long a machine that is in trouble may have no worker before
	// people are told that: one that is started again says how it is by itself.
	workerEnded = 2 * time.Minute

	// Before the jobs stop: telling enqueues.
	priorityHostsStop = priorityJobsStop - 60

	noticeOfWorker = "worker:"
)

// bindHosts tells people of disks that run full, each with the name of its host: that of
// this server while it serves, and those of the workers on other machines.
func (g *groundwork) bindHosts() {
	stop := func() {}
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.hosts.start", Priority: priorityJobsStart + 1, Func: func(e *core.ServeEvent) error {
			ctx, cancel := context.WithCancel(context.Background())
			var watch sync.WaitGroup
			watch.Go(func() {
				every(ctx, diskEvery, func() {
					if err := g.schedules.Look(ctx); err != nil {
						g.log.Error("schedules cannot be looked at, trying again in a minute", "error", err)
					}
				})
			})
			if client := g.client.Load(); client != nil && g.cfg.JobsDatabaseURL != "" {
				w := &workerHosts{machines: client.Machines, notices: g.schedules, gone: map[string]time.Time{}, now: time.Now}
				watch.Go(func() {
					every(ctx, workersEvery, func() {
						if err := w.look(ctx); err != nil && ctx.Err() == nil {
							g.log.Error("the machines of the workers cannot be looked at, trying again", "error", err)
						}
					})
				})
			}
			stop = sync.OnceFunc(func() {
				cancel()
				watch.Wait()
			})
			return e.Next()
		}})
	g.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "groundwork.hosts.stop", Priority: priorityHostsStop, Func: func(e *core.TerminateEvent) error {
			stop()
			return e.Next()
		}})
	g.app.OnBootstrapClear().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.hosts.stop", Priority: priorityHostsStop, Func: func(e *core.BootstrapEvent) error {
			stop()
			return e.Next()
		}})
}

// every calls do again and again until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

// workerHosts tells people what workers say of their machines.
type workerHosts struct {
	machines func(context.Context) ([]jobs.Machine, error)
	notices  interface {
		Raise(schedules.Notice) (bool, error)
		Over(key, subject, text string) (bool, error)
		Raised(begin string) ([]string, error)
	}
	gone map[string]time.Time // machines in trouble without a worker, since when
	now  func() time.Time
}

func (w *workerHosts) look(ctx context.Context) error {
	all, err := w.machines(ctx)
	if err != nil {
		return err
	}
	well := map[string]bool{}
	for _, machine := range all {
		well[machine.Host] = machine.Trouble == ""
		if machine.Trouble == "" {
			continue
		}
		if _, err := w.notices.Raise(schedules.Notice{Key: noticeOfWorker + machine.Host, Subject: "A worker's disk is nearly full on " + machine.Host,
			Text: fmt.Sprintf("%s\n\nA worker of this server runs there. It goes on with sending, for which it needs no disk, but what it logs may be lost. You are told again when there is room.", machine.Trouble)}); err != nil {
			return err
		}
	}
	told, err := w.notices.Raised(noticeOfWorker)
	if err != nil {
		return err
	}
	for _, key := range told {
		host := strings.TrimPrefix(key, noticeOfWorker)
		isWell, there := well[host]
		subject, text := "A worker's disk has room again on "+host, fmt.Sprintf("The disk of %s, where a worker of this server runs, has room again.", host)
		switch {
		case there:
			delete(w.gone, host)
			if !isWell {
				continue
			}
		case w.gone[host].IsZero():
			w.gone[host] = w.now()
			continue
		case w.now().Sub(w.gone[host]) < workerEnded:
			continue
		default:
			delete(w.gone, host)
			subject, text = "No worker runs any more on "+host, fmt.Sprintf("The worker on %s, whose disk was nearly full, has ended or cannot reach the jobs database. Whether there is room again is not known.", host)
		}
		if _, err := w.notices.Over(key, subject, text); err != nil {
			return err
		}
	}
	return nil
}
