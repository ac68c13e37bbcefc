package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/internal/redact"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/schedules"
)

const (
	// jobsPage and jobsPageMost are how many jobs a page of the list has.
	jobsPage     = 50
	jobsPageMost = 200

	// listArgs is how much of a job's args, and of its result, the list shows, in
	// bytes; the job's own page shows all.
	listArgs = 400
)

var (
	jobStates = []string{jobs.StateAvailable, jobs.StateScheduled, jobs.StateRetryable, jobs.StateRunning, jobs.StateCompleted, jobs.StateCancelled, jobs.StateDiscarded}
	jobQueues = []string{jobs.QueueCritical, jobs.QueueDefault, jobs.QueueBulk, jobs.QueueMaintenance}
)

// jobView is a job as a person sees it: without the secrets in it.
type jobView struct {
	ID          string              `json:"id"`
	Kind        string              `json:"kind"`
	Queue       string              `json:"queue"`
	State       string              `json:"state"`
	Priority    int                 `json:"priority"`
	Attempt     int                 `json:"attempt"`
	MaxAttempts int                 `json:"maxAttempts"`
	Args        any                 `json:"args"`
	Result      any                 `json:"result"`
	Errors      []jobs.AttemptError `json:"errors"`
	Host        string              `json:"host"`
	Created     types.DateTime      `json:"created"`
	RunAt       types.DateTime      `json:"runAt"`
	StartedAt   types.DateTime      `json:"startedAt"`
	FinishedAt  types.DateTime      `json:"finishedAt"`
}

// queueView is a queue of the monitor.
type queueView struct {
	Queue      string         `json:"queue"`
	Paused     bool           `json:"paused"`
	States     map[string]int `json:"states"`     // how many jobs of each; none: absent
	LastMinute int            `json:"lastMinute"` // how many ended
	LastHour   int            `json:"lastHour"`
	OldestDue  types.DateTime `json:"oldestDue"`
}

// jobResult is what the owner of a job may know of it.
type jobResult struct {
	ID         string         `json:"id"`
	State      string         `json:"state"`
	Result     any            `json:"result"`
	Created    types.DateTime `json:"created"`
	FinishedAt types.DateTime `json:"finishedAt"`
}

// bindJobMonitor adds the routes of the job monitor, and of a job's result.
func (g *groundwork) bindJobMonitor() {
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.jobs.routes", Func: func(e *core.ServeEvent) error {
			e.Router.GET("/api/jobs/{id}", oneJob)
			routes := e.Router.Group("/api/jobs").Bind(apis.RequireSuperuserAuth())
			routes.GET("", listJobs)
			routes.GET("/queues", listQueues)
			routes.POST("/{id}/retry", actOnJob(jobs.Retry))
			routes.POST("/{id}/cancel", actOnJob(g.cancelJob))
			routes.POST("/queues/{queue}/pause", actOnQueue(jobs.PauseQueue))
			routes.POST("/queues/{queue}/resume", actOnQueue(jobs.ResumeQueue))
			return e.Next()
		}})
}

// oneJob shows a job to superusers, and its result to whom it belongs. Everybody
// else learns as little as about a job that does not exist.
func oneJob(e *core.RequestEvent) error {
	if e.Auth == nil {
		return e.UnauthorizedError("Sign in to see the result of a job.", nil)
	}
	job, err := jobs.Find(e.Request.Context(), e.App, e.Request.PathValue("id"))
	if errors.Is(err, jobs.ErrNotFound) {
		return noSuchJob(e)
	}
	if err != nil {
		return jobsUnreachable(e, err)
	}
	switch {
	case e.HasSuperuserAuth():
		return e.JSON(http.StatusOK, viewOf(job, false))
	case job.Owner == ownerOf(e.Auth):
		return e.JSON(http.StatusOK, resultOf(job))
	default:
		return noSuchJob(e)
	}
}

func noSuchJob(e *core.RequestEvent) error {
	return e.NotFoundError("There is no such job. Finished ones are kept for some days only.", nil)
}

// jobsUnreachable answers while the database of the jobs does not.
func jobsUnreachable(e *core.RequestEvent, err error) error {
	return e.Error(http.StatusServiceUnavailable, "The database of the jobs does not answer. Nothing is lost: jobs wait, and it is tried again by itself. The log says what is wrong.", err)
}

func listJobs(e *core.RequestEvent) error {
	query := e.Request.URL.Query()
	filter := jobs.Filter{State: query.Get("state"), Queue: query.Get("queue"), Kind: query.Get("kind"), Before: query.Get("before"), Limit: jobsPage}
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > jobsPageMost {
			return e.BadRequestError("limit is a number from 1 to 200.", nil)
		}
		filter.Limit = n
	}
	if filter.State != "" && !slices.Contains(jobStates, filter.State) {
		return e.BadRequestError("There is no such state of a job: use available, scheduled, retryable, running, completed, cancelled or discarded.", nil)
	}
	found, err := jobs.List(e.Request.Context(), e.App, filter)
	if err != nil {
		return jobsUnreachable(e, err)
	}
	items := make([]jobView, len(found))
	for i := range found {
		items[i] = viewOf(&found[i], true)
	}
	next := ""
	if len(found) == filter.Limit {
		next = found[len(found)-1].ID
	}
	return e.JSON(http.StatusOK, map[string]any{"items": items, "next": next})
}

func listQueues(e *core.RequestEvent) error {
	stats, err := jobs.Stats(e.Request.Context(), e.App)
	if err != nil {
		return jobsUnreachable(e, err)
	}
	views := make([]queueView, 0, len(stats))
	for _, q := range stats {
		views = append(views, queueView{Queue: q.Queue, Paused: q.Paused, States: q.States, LastMinute: q.LastMinute, LastHour: q.LastHour, OldestDue: dateOf(q.OldestDue)})
	}
	// The usual ones first, from the most to the least urgent, also while nothing is in
	// them.
	for i := len(jobQueues) - 1; i >= 0; i-- {
		at := slices.IndexFunc(views, func(v queueView) bool { return v.Queue == jobQueues[i] })
		first := queueView{Queue: jobQueues[i], States: map[string]int{}}
		if at >= 0 {
			first = views[at]
			views = slices.Delete(views, at, at+1)
		}
		views = slices.Insert(views, 0, first)
	}
	return e.JSON(http.StatusOK, views)
}

func actOnJob(act func(ctx context.Context, app core.App, id string) error) func(e *core.RequestEvent) error {
	return func(e *core.RequestEvent) error {
		err := act(e.Request.Context(), e.App, e.Request.PathValue("id"))
		if errors.Is(err, jobs.ErrNotFound) {
			return noSuchJob(e)
		}
		if err != nil {
			return jobsUnreachable(e, err)
		}
		job, err := jobs.Find(e.Request.Context(), e.App, e.Request.PathValue("id"))
		if err != nil {
			return jobsUnreachable(e, err)
		}
		return e.JSON(http.StatusOK, viewOf(job, false))
	}
}

// cancelJob cancels a job, and with it the run of a schedule that waits for it.
func (g *groundwork) cancelJob(ctx context.Context, app core.App, id string) error {
	if err := jobs.CancelJob(ctx, app, id); err != nil {
		return err
	}
	job, err := jobs.Find(ctx, app, id)
	if err != nil || job.Kind != (schedules.RunArgs{}).Kind() || job.State != jobs.StateCancelled {
		return err
	}
	var args schedules.RunArgs
	if err := json.Unmarshal(job.Args, &args); err != nil {
		return fmt.Errorf("read which run job %s does: %w", id, err)
	}
	return g.schedules.CallOff(args.Run)
}

func actOnQueue(act func(ctx context.Context, app core.App, queue string) error) func(e *core.RequestEvent) error {
	return func(e *core.RequestEvent) error {
		queue := e.Request.PathValue("queue")
		if !slices.Contains(jobQueues, queue) {
			return e.NotFoundError("There is no such queue: there are critical, default, bulk and maintenance.", nil)
		}
		if err := act(e.Request.Context(), e.App, queue); err != nil {
			return jobsUnreachable(e, err)
		}
		return listQueues(e)
	}
}

// viewOf shows a job without the secrets in it; short leaves out long args, a long
// result, and all errors but the last.
func viewOf(job *jobs.Info, short bool) jobView {
	v := jobView{ID: job.ID, Kind: job.Kind, Queue: job.Queue, State: job.State, Priority: job.Priority, Attempt: job.Attempt, MaxAttempts: job.MaxAttempts,
		Host: job.Host, Created: dateOf(job.EnqueuedAt), RunAt: dateOf(job.RunAt), StartedAt: dateOf(job.StartedAt), FinishedAt: dateOf(job.FinishedAt),
		Errors: []jobs.AttemptError{}, Result: withoutSecrets(job.Result)}
	failures := job.Errors
	if short && len(failures) > 1 {
		failures = failures[len(failures)-1:]
	}
	for _, failure := range failures {
		failure.Error = redact.String(failure.Error)
		v.Errors = append(v.Errors, failure)
	}
	v.Args = withoutSecrets(job.Args)
	if short && len(job.Args) > listArgs {
		v.Args = nil
	}
	if short && len(job.Result) > listArgs {
		v.Result = nil
	}
	return v
}

func resultOf(job *jobs.Info) jobResult {
	r := jobResult{ID: job.ID, State: job.State, Created: dateOf(job.EnqueuedAt), FinishedAt: dateOf(job.FinishedAt)}
	if len(job.Result) > 0 {
		r.Result = job.Result
	}
	return r
}

func withoutSecrets(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return redact.Mark
	}
	return redact.Value(v)
}

func dateOf(t time.Time) types.DateTime {
	if t.IsZero() {
		return types.DateTime{}
	}
	d, err := types.ParseDateTime(t)
	if err != nil {
		return types.DateTime{} // a time always parses
	}
	return d
}
