package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
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

	// jobLookSeldom is how often those are that have ended, and may be run again, that
	// are not there, and that are somebody else's: whoever makes ids up costs little.
	jobLookSeldom = 15 * time.Second

	// jobEars is where a client keeps what it was told.
	jobEars = "groundwork.jobs.ears"
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

// ears is what a client knows of the jobs that it listens to.
type ears struct {
	jobs map[string]heard // by topic
	full atomic.Bool      // what it was told last is not taken yet
}

type heard struct {
	who, state string
	next       time.Time // when it is looked at again
}

func (g *groundwork) tellOfJobs(ctx context.Context) {
	ticker := time.NewTicker(jobLook)
	defer ticker.Stop()
	troubled := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := g.tellClients(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !troubled { // once: it may go on for hours, with many who listen
			g.log.Error("jobs cannot be looked at for who listens to them, and it is tried again", "error", err)
		}
		troubled = err != nil
	}
}

// tellClients tells all clients what is new. After an error the rest waits for the next
// time, too: it is that of the database.
func (g *groundwork) tellClients(ctx context.Context) error {
	for _, client := range g.app.SubscriptionsBroker().Clients() {
		auth, _ := client.Get(apis.RealtimeClientAuthKey).(*core.Record)
		topics := make([]string, 0, jobTopics)
		for topic := range client.Subscriptions(jobTopic) {
			topics = append(topics, topic)
		}
		e, _ := client.Get(jobEars).(*ears)
		if auth == nil || len(topics) == 0 && e == nil {
			continue
		}
		if e == nil {
			e = &ears{}
			client.Set(jobEars, e)
		}
		if e.full.Load() {
			continue
		}
		slices.Sort(topics)
		news, err := g.newsOfJobs(ctx, e, auth, topics[:min(len(topics), jobTopics)])
		if len(news) > 0 {
			// A client takes one message at a time, and one that does not read takes none:
			// the others do not wait for it.
			e.full.Store(true)
			go func() {
				defer e.full.Store(false)
				for _, message := range news {
					client.Send(message)
				}
			}()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// newsOfJobs is what a client does not know yet of the jobs in its topics, in as far as
// they are its own. What it does not listen to any more is forgotten.
func (g *groundwork) newsOfJobs(ctx context.Context, e *ears, auth *core.Record, topics []string) (news []subscriptions.Message, err error) {
	known, now := e.jobs, time.Now()
	e.jobs = make(map[string]heard, len(topics))
	for _, topic := range topics {
		h := known[topic]
		if h.who != ownerOf(auth) {
			h = heard{who: ownerOf(auth)}
		}
		e.jobs[topic] = h
		if err != nil || now.Before(h.next) {
			continue
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(topic, jobTopic), "?")
		job, findErr := jobs.Find(ctx, g.app, id)
		if findErr != nil && !errors.Is(findErr, jobs.ErrNotFound) {
			err = findErr
			continue
		}
		if findErr != nil || !auth.IsSuperuser() && job.Owner != h.who {
			h.next = now.Add(jobLookSeldom)
			e.jobs[topic] = h
			continue
		}
		switch job.State {
		case jobs.StateCompleted, jobs.StateCancelled, jobs.StateDiscarded:
			h.next = now.Add(jobLookSeldom)
		}
		if h.state != job.State {
			raw, encodeErr := json.Marshal(resultOf(job))
			if encodeErr != nil {
				err = encodeErr
				continue
			}
			h.state = job.State
			news = append(news, subscriptions.Message{Name: topic, Data: raw})
		}
		e.jobs[topic] = h
	}
	return news, err
}

// ownerOf is how a job names whom it belongs to.
func ownerOf(record *core.Record) string { return record.Collection().Id + "/" + record.Id }
