package hooks

import (
	"context"
	"errors"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

const (
	// Before the jobs stop: the answers of the workers are jobs.
	priorityRemoteStop = priorityJobsStop - 50

	// remoteStopLimit is how long a shutdown waits for the answers on their way.
	remoteStopLimit = 5 * time.Second

	// resultWorkers is how many jobs with answers are taken at a time. They wait for
	// the database together.
	resultWorkers = 16
)

// bindRemote lets workers on other machines hand over messages, where the jobs are in
// Postgres.
func (g *groundwork) bindRemote() {
	if g.cfg.JobsDatabaseURL == "" {
		return
	}
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.remote.start", Priority: prioritySenderStart, Func: func(e *core.ServeEvent) error {
			g.remote = notifications.NewRemote(notifications.RemoteOptions{App: g.app, Machines: machines{g}, Only: g.cfg.NoWorkers, Log: g.log})
			g.providers.SendElsewhere(g.remote)
			g.remote.Start()
			return e.Next()
		}})
	g.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "groundwork.remote.stop", Priority: priorityRemoteStop, Func: func(e *core.TerminateEvent) error {
			g.stopRemote()
			return e.Next()
		}})
	g.app.OnBootstrapClear().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.remote.stop", Priority: priorityRemoteStop, Func: func(e *core.BootstrapEvent) error {
			g.stopRemote()
			return e.Next()
		}})
}

func (g *groundwork) stopRemote() {
	if g.remote == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), remoteStopLimit)
	defer cancel()
	g.providers.StopElsewhere()
	g.remote.Drain(ctx)
	g.remote.Close()
	g.remote = nil
}

// queueWorkers are the queues of this process besides the usual ones.
func (g *groundwork) queueWorkers() map[string]int {
	if g.cfg.JobsDatabaseURL == "" {
		return nil
	}
	return map[string]int{notifications.QueueResults: resultWorkers}
}

// machines are the workers that this app's jobs reach.
type machines struct{ g *groundwork }

// Takers implements [notifications.Machines].
func (m machines) Takers(ctx context.Context) (map[notifications.Work][]string, error) {
	client := m.g.client.Load()
	if client == nil {
		return nil, jobs.ErrNotRunning
	}
	found, err := client.Takers(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[notifications.Work][]string, len(found))
	for work, hosts := range found {
		all[notifications.Work{Queue: work.Queue, Share: work.Share}] = hosts
	}
	return all, nil
}

// Enqueue implements [notifications.Machines].
func (m machines) Enqueue(args jobs.Args, o jobs.Options) (string, error) {
	return jobs.Enqueue(m.g.app, args, o)
}

// TakeBack implements [notifications.Machines].
func (m machines) TakeBack(ctx context.Context, id string) (notifications.TakenBack, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteStopLimit)
	defer cancel()
	if err := jobs.CancelJob(ctx, m.g.app, id); err != nil && !errors.Is(err, jobs.ErrNotFound) {
		return notifications.TakenBack{}, err
	}
	job, err := jobs.Find(ctx, m.g.app, id)
	if errors.Is(err, jobs.ErrNotFound) {
		return notifications.TakenBack{}, nil // an erasure deleted it: what came of it cannot be told
	}
	if err != nil {
		return notifications.TakenBack{}, err
	}
	switch job.State {
	case jobs.StateCancelled, jobs.StateCompleted, jobs.StateDiscarded:
	default:
		return notifications.TakenBack{}, nil
	}
	found := notifications.TakenBack{Over: true, Taken: job.Attempt > 0}
	if found.Taken {
		// After the job was seen to be over: nothing is begun any more.
		found.Begun, err = jobs.BegunBy(ctx, m.g.app, id)
	}
	return found, err
}
