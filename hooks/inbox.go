package hooks

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/livecache"
	"github.com/groundworkhq/groundwork/notifications"
)

// inboxLook is how often a process looks for messages to everyone that nobody has
// told it of: another process may have been killed before it could.
const inboxLook = time.Second

// inbox gives people their own rows of what was sent to everyone's inbox, before
// anything reads them. See [notifications.FillInboxes].
type inbox struct {
	g      *groundwork
	signal *livecache.Signal

	mu   sync.Mutex
	last int64 // what was sent last, as of the next two
	at   livecache.Stamp
	read time.Time

	stop, done chan struct{} // nil unless the app serves
}

// bindInbox adds what people ask their inbox for besides the records.
func (g *groundwork) bindInbox() {
	app := g.app
	in := &inbox{g: g, signal: livecache.NewSignal(app, "inbox-everyone")}
	g.inbox = in
	g.refuseUnreadableDates(notifications.CollectionInbox, "readAt")

	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.inbox.routes", Func: func(e *core.ServeEvent) error {
			e.Router.GET("/api/notifications/unread", in.unread).Bind(apis.RequireAuth())
			e.Router.POST("/api/notifications/read-all", in.readAll).Bind(apis.RequireAuth())
			// After whatever refuses a request.
			e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: "groundwork.inbox.fill", Priority: priorityEnd - 1, Func: in.beforeReading})
			in.start()
			return e.Next()
		}})
	app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "groundwork.inbox.stop", Priority: prioritySenderStop, Func: func(e *core.TerminateEvent) error {
			in.end()
			return e.Next()
		}})
	app.OnBootstrapClear().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.inbox.stop", Priority: prioritySenderStop, Func: func(e *core.BootstrapEvent) error {
			in.end()
			return e.Next()
		}})

	app.OnRealtimeSubscribeRequest().Bind(&hook.Handler[*core.RealtimeSubscribeRequestEvent]{
		Id: "groundwork.inbox.subscribe", Func: func(e *core.RealtimeSubscribeRequestEvent) error {
			if !in.isPerson(e.App, e.Auth) || !in.names(e.App, e.Subscriptions...) {
				return e.Next()
			}
			in.fill(e.App, e.Auth.Id)
			err := e.Next()
			in.fill(e.App, e.Auth.Id) // sent in between: to the others only
			return err
		}})

	app.OnRecordCreateExecute().Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.inbox.newcomer", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			if !isUsers(e.App, e.Record.Collection()) {
				return e.Next()
			}
			return inTransaction(e, func() error {
				if err := e.Next(); err != nil {
					return err
				}
				return notifications.MarkNewPerson(e.App, e.Record.Id)
			})
		}})
}

// unread is GET /api/notifications/unread.
func (in *inbox) unread(e *core.RequestEvent) error {
	if !isUsers(e.App, e.Auth.Collection()) {
		return e.ForbiddenError(noInbox, nil)
	}
	n, err := notifications.CountUnread(e.App, e.Auth.Id)
	if err != nil {
		return e.InternalServerError("The messages cannot be counted right now; try again.", err)
	}
	return e.JSON(http.StatusOK, map[string]any{"unread": n})
}

// readAll is POST /api/notifications/read-all.
func (in *inbox) readAll(e *core.RequestEvent) error {
	if !isUsers(e.App, e.Auth.Collection()) {
		return e.ForbiddenError(noInbox, nil)
	}
	n, err := notifications.ReadAll(e.App, e.Auth.Id, in.g.cfg.now())
	if err != nil {
		return e.InternalServerError("The messages cannot be marked as read right now; try again.", err)
	}
	return e.JSON(http.StatusOK, map[string]any{"read": n})
}

const noInbox = "This account has no inbox: sign in as one of the people who are notified."

// beforeReading runs for every request. PocketBase's own list hook comes after the
// reading, and an expand of another collection reads too.
func (in *inbox) beforeReading(e *core.RequestEvent) error {
	if in.isPerson(e.App, e.Auth) && in.lastSent(e.App) > 0 && in.mayRead(e) {
		in.fill(e.App, e.Auth.Id)
	}
	return e.Next()
}

// mayRead says whether a request can show inbox messages: it names the inbox in its
// path or its query, or nobody knows what is in it.
func (in *inbox) mayRead(e *core.RequestEvent) bool {
	query := e.Request.URL.RawQuery
	if plain, err := url.QueryUnescape(query); err == nil {
		query = plain
	}
	return strings.HasSuffix(e.Request.URL.Path, "/api/batch") || in.names(e.App, e.Request.URL.Path, query)
}

// names says whether any of the texts has the inbox's name or id in it.
func (in *inbox) names(app core.App, texts ...string) bool {
	c, err := app.FindCachedCollectionByNameOrId(notifications.CollectionInbox)
	if err != nil {
		return false
	}
	name := strings.ToLower(c.Name)
	for _, text := range texts {
		if text = strings.ToLower(text); strings.Contains(text, name) || strings.Contains(text, c.Id) {
			return true
		}
	}
	return false
}

func (in *inbox) isPerson(app core.App, auth *core.Record) bool {
	return auth != nil && isUsers(app, auth.Collection())
}

// fill never fails a request: what is missing is there the next time.
func (in *inbox) fill(app core.App, users ...string) {
	if in.lastSent(app) == 0 {
		return
	}
	if err := notifications.FillInboxes(app, users...); err != nil {
		in.g.log.Error("messages to everyone cannot be put into an inbox; they are at the next request", "error", err)
	}
}

// lastSent is the number of the last message to everyone, from memory.
func (in *inbox) lastSent(app core.App) int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.signal.Open()
	at, now := in.signal.Stamp(), time.Now()
	if !in.read.IsZero() && at == in.at && now.Sub(in.read) < inboxLook {
		return in.last
	}
	last, err := notifications.LastToEveryone(app)
	if err != nil {
		in.g.log.Error("messages to everyone cannot be found", "error", err)
		return in.last
	}
	in.last, in.at, in.read = last, at, now
	return last
}

// sent tells everybody who is connected, here and in the other processes.
func (in *inbox) sent() {
	in.signal.Changed()
	in.fillConnected()
}

// fillConnected gives a message to everyone at once to those who wait for it. The
// record that it makes is what their connection hears of.
func (in *inbox) fillConnected() {
	app := in.g.app
	seen := map[string]bool{}
	var users []string
	for _, chunk := range app.SubscriptionsBroker().ChunkedClients(500) {
		for _, client := range chunk {
			auth, _ := client.Get(apis.RealtimeClientAuthKey).(*core.Record)
			if !in.isPerson(app, auth) || seen[auth.Id] {
				continue
			}
			for subscription := range client.Subscriptions() {
				if in.names(app, subscription) {
					seen[auth.Id] = true
					users = append(users, auth.Id)
					break
				}
			}
		}
	}
	if len(users) > 0 {
		in.fill(app, users...)
	}
}

// start looks for what other processes send.
func (in *inbox) start() {
	in.end()
	stop, done := make(chan struct{}), make(chan struct{})
	in.mu.Lock()
	in.stop, in.done = stop, done
	in.mu.Unlock()
	go func() {
		defer close(done)
		tick := time.NewTicker(inboxLook)
		defer tick.Stop()
		known := in.lastSent(in.g.app)
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if last := in.lastSent(in.g.app); last != known {
				known = last
				in.fillConnected()
			}
		}
	}()
}

func (in *inbox) end() {
	in.mu.Lock()
	stop, done := in.stop, in.done
	in.stop, in.done = nil, nil
	in.mu.Unlock()
	if stop != nil {
		close(stop)
		<-done
	}
}
