package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/subscriptions"

	"github.com/groundworkhq/groundwork/jobs"
)

const (
	// jobTopic and an id are what a client subscribes to in order to hear what becomes
	// of a job.
	jobTopic = "jobs/"

	// jobTopics is how many jobs one connection can listen to.
	jobTopics = 20

	// jobLook is how often the jobs that somebody listens to are looked at. They may
	// run in another process, which tells nobody here.
	jobLook = time.Second
)

// bindJobRealtime tells the owners of jobs, and superusers, by realtime what becomes
// of them.
func (g *groundwork) bindJobRealtime() {
	var stop context.CancelFunc
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.jobs.realtime", Func: func(e *core.ServeEvent) error {
			var ctx context.Context
			ctx, stop = context.WithCancel(context.Background())
			go g.tellOfJobs(ctx)
			return e.Next()
		}})
	end := func() {
		if stop != nil {
			stop()
		}
	}
	g.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "groundwork.jobs.realtime", Priority: priorityJobsStop, Func: func(e *core.TerminateEvent) error {
			end()
			return e.Next()
		}})
	g.app.OnBootstrapClear().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.jobs.realtime", Priority: priorityJobsStop, Func: func(e *core.BootstrapEvent) error {
			end()
			return e.Next()
		}})
}

func (g *groundwork) tellOfJobs(ctx context.Context) {
	ticker := time.NewTicker(jobLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, client := range g.app.SubscriptionsBroker().Clients() {
			auth, _ := client.Get(apis.RealtimeClientAuthKey).(*core.Record)
			if auth == nil {
				continue
			}
			n := 0
			for topic := range client.Subscriptions(jobTopic) {
				if n++; n > jobTopics {
					break
				}
				if err := g.tellOfJob(ctx, client, auth, topic); err != nil && ctx.Err() == nil {
					g.log.Error("a job cannot be looked at for who listens to it", "error", err)
				}
			}
		}
	}
}

// tellOfJob sends the state of a job to a client that does not know it yet.
func (g *groundwork) tellOfJob(ctx context.Context, client subscriptions.Client, auth *core.Record, topic string) error {
	id, _, _ := strings.Cut(strings.TrimPrefix(topic, jobTopic), "?")
	known := "groundwork." + jobTopic + id
	switch client.Get(known) {
	case jobs.StateCompleted, jobs.StateCancelled, jobs.StateDiscarded:
		return nil
	}
	job, err := jobs.Find(ctx, g.app, id)
	if errors.Is(err, jobs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if !auth.IsSuperuser() && job.Owner != ownerOf(auth) || client.Get(known) == job.State {
		return nil
	}
	raw, err := json.Marshal(resultOf(job))
	if err != nil {
		return err
	}
	client.Set(known, job.State)
	client.Send(subscriptions.Message{Name: topic, Data: raw})
	return nil
}

// ownerOf is how a job names whom it belongs to.
func ownerOf(record *core.Record) string { return record.Collection().Id + "/" + record.Id }
