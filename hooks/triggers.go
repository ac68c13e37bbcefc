package hooks

import (
	"fmt"
	"slices"
	"sync"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/livecache"
	"github.com/groundworkhq/groundwork/internal/requestlog"
	"github.com/groundworkhq/groundwork/notifications"
)

// keyOrigin marks a record that a superuser creates through the API. It is no
// field, so it is not stored.
const keyOrigin = "@groundworkBySuperuser"

// bindTriggers evaluates triggers in the transaction of the record's own save.
// A collection that no trigger watches pays for one map lookup.
func (g *groundwork) bindTriggers() {
	app := g.app
	t := &triggers{g: g, cache: livecache.New(app, notifications.CollectionTriggers, notifications.LoadTriggers), created: map[*core.TxAppInfo]*creations{}}

	app.OnRecordCreateRequest().Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "groundwork.triggers.origin", Priority: -9999, Func: func(e *core.RecordRequestEvent) error {
			if e.HasSuperuserAuth() {
				e.Record.SetRaw(keyOrigin, true)
			}
			return e.Next()
		}})
	bind := func(name string, on *hook.TaggedHook[*core.RecordEvent], event string, do func(*core.RecordEvent, []*notifications.Trigger) error) {
		on.Bind(&hook.Handler[*core.RecordEvent]{
			Id: "groundwork.triggers." + name, Priority: priorityExecute + 1, Func: func(e *core.RecordEvent) error {
				watching := t.watching(e, event)
				if len(watching) == 0 {
					return e.Next()
				}
				return inTransaction(e, func() error { return do(e, watching) })
			}})
	}
	bind("created", app.OnRecordCreateExecute(), notifications.EventCreated, t.onCreated)
	bind("updated", app.OnRecordUpdateExecute(), notifications.EventUpdated, t.onUpdated)
	bind("deleted", app.OnRecordDeleteExecute(), notifications.EventDeleted, t.onDeleted)

	check := func(e *core.RecordEvent) error {
		if err := e.Next(); err != nil {
			return err
		}
		return fieldErrors(notifications.CheckTrigger(e.App, e.Record))
	}
	app.OnRecordValidate(notifications.CollectionTriggers).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.triggers.check", Func: check})

	// Once it is stored: an index on a large collection takes its time.
	index := func(e *core.RecordEvent) error {
		if err := notifications.IndexDates(e.App, e.Record); err != nil {
			g.log.Warn("the dates of a trigger have no index: looking them up takes longer", "trigger", e.Record.GetString("name"), "error", err)
		}
		return e.Next()
	}
	app.OnRecordAfterCreateSuccess(notifications.CollectionTriggers).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.triggers.index", Func: index})
	app.OnRecordAfterUpdateSuccess(notifications.CollectionTriggers).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.triggers.index", Func: index})
	dates := func() {
		if set, err := t.cache.Get(); err == nil && g.ready(app) { // no tables yet
			if err := notifications.EnqueueDates(app, set); err != nil {
				g.log.Error("a look at the dates of triggers cannot be enqueued", "error", err)
			}
		}
	}
	if err := app.Cron().Add("groundwork.triggers.dates", "* * * * *", dates); err != nil {
		panic(err) // the expression above is a constant
	}
	// What came while the server was down does not wait for the next minute.
	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.triggers.dates", Priority: priorityJobsStart, Func: func(e *core.ServeEvent) error {
			dates()
			return e.Next()
		}})

	app.OnRecordValidate(notifications.CollectionTemplates).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.templates.check", Func: func(e *core.RecordEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			return fieldErrors(notifications.CheckTemplate(e.App, e.Record))
		}})
	app.OnRecordDeleteExecute(notifications.CollectionTemplates).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.templates.delete", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			return inTransaction(e, func() error {
				used, err := e.App.FindAllRecords(notifications.CollectionTriggers, dbx.HashExp{"template": e.Record.Id})
				if err != nil {
					return fmt.Errorf("find triggers of template %s: %w", e.Record.Id, err)
				}
				if len(used) > 0 {
					return apis.NewBadRequestError(fmt.Sprintf("The trigger %q uses this template. Give it another one first.", used[0].GetString("name")), nil)
				}
				if err := keptByUse(e.App, "template", e.Record.Id); err != nil {
					return err
				}
				return e.Next()
			})
		}})
}

type triggers struct {
	g     *groundwork
	cache *livecache.Cache[notifications.TriggerSet]

	mu      sync.Mutex
	created map[*core.TxAppInfo]*creations
}

// creations counts what one transaction creates, to tell an import.
type creations struct {
	records map[string]int      // by collection id
	jobs    map[string][]string // ids of the jobs that were enqueued, by collection id
}

func (t *triggers) watching(e *core.RecordEvent, event string) []*notifications.Trigger {
	set, err := t.cache.Get()
	if err != nil || len(set) == 0 {
		return nil // no table yet, or none to watch
	}
	var watching []*notifications.Trigger
	for _, trigger := range set[e.Record.Collection().Id] {
		if trigger.Event == event {
			watching = append(watching, trigger)
		}
	}
	return watching
}

func (t *triggers) onCreated(e *core.RecordEvent, watching []*notifications.Trigger) error {
	if err := e.Next(); err != nil {
		return err
	}
	imported := e.Record.GetRaw(keyOrigin) != nil || !t.g.sending
	if count := t.count(e); count != nil {
		collection := e.Record.Collection().Id
		count.records[collection]++
		if count.records[collection] > notifications.ImportSize {
			imported = true
			if err := withdraw(e.App, count.jobs[collection]); err != nil {
				return err
			}
			count.jobs[collection] = nil
		}
	}
	for _, trigger := range watching {
		if imported && !trigger.IncludeImports {
			continue
		}
		ids, err := t.try(e, trigger, func() (bool, error) { return trigger.Matches(e.App, e.Record) })
		if err != nil {
			return err
		}
		if count := t.count(e); count != nil && !trigger.IncludeImports {
			collection := e.Record.Collection().Id
			count.jobs[collection] = append(count.jobs[collection], ids...)
		}
	}
	return nil
}

// withdraw takes jobs back that this transaction enqueued.
func withdraw(txApp core.App, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	values := make([]any, len(ids))
	for i, id := range ids {
		values[i] = id
	}
	if _, err := txApp.DB().Delete("groundwork_outbox", dbx.HashExp{"id": values}).Execute(); err != nil {
		return fmt.Errorf("withdraw messages of an import: %w", err)
	}
	return nil
}

// count returns the counter of the transaction that e runs in.
func (t *triggers) count(e *core.RecordEvent) *creations {
	tx := e.App.TxInfo()
	if tx == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.created[tx]
	if c == nil {
		c = &creations{records: map[string]int{}, jobs: map[string][]string{}}
		t.created[tx] = c
		tx.OnComplete(func(error) error {
			t.mu.Lock()
			delete(t.created, tx)
			t.mu.Unlock()
			return nil
		})
	}
	return c
}

func (t *triggers) onUpdated(e *core.RecordEvent, watching []*notifications.Trigger) error {
	before := make([]bool, len(watching))
	for i, trigger := range watching {
		if trigger.Condition == "" {
			continue // every update
		}
		matched, err := trigger.Matches(e.App, e.Record)
		if err != nil {
			t.complain(trigger, err)
			matched = true // it cannot turn true then
		}
		before[i] = matched
	}
	if err := e.Next(); err != nil {
		return err
	}
	for i, trigger := range watching {
		if before[i] {
			continue
		}
		if _, err := t.try(e, trigger, func() (bool, error) { return trigger.Matches(e.App, e.Record) }); err != nil {
			return err
		}
	}
	return nil
}

func (t *triggers) onDeleted(e *core.RecordEvent, watching []*notifications.Trigger) error {
	type firing struct {
		trigger *notifications.Trigger
		people  []string
	}
	var fire []firing
	for _, trigger := range watching {
		matched, err := trigger.Matches(e.App, e.Record)
		var people []string
		if err == nil && matched {
			people, err = trigger.RecipientsOf(e.App, e.Record)
		}
		if err != nil {
			t.complain(trigger, err)
			continue
		}
		// Nobody is told of their own deletion.
		people = slices.DeleteFunc(people, func(id string) bool { return id == e.Record.Id })
		fire = append(fire, firing{trigger, people})
	}
	if err := e.Next(); err != nil {
		return err
	}
	for _, f := range fire {
		if _, err := f.trigger.Fire(e.App, e.Record, f.people, requestlog.RecordRequestID(e.Record)); err != nil {
			return err
		}
	}
	return nil
}

// try fires a trigger if it matches. One that cannot be evaluated (its
// collection changed since) never stands in the way of the save; only a message
// that cannot be stored does, because the database cannot store then.
func (t *triggers) try(e *core.RecordEvent, trigger *notifications.Trigger, matches func() (bool, error)) (jobIDs []string, err error) {
	matched, err := matches()
	if err != nil || !matched {
		t.complain(trigger, err)
		return nil, nil
	}
	people, err := trigger.RecipientsOf(e.App, e.Record)
	if err != nil {
		t.complain(trigger, err)
		return nil, nil
	}
	return trigger.Fire(e.App, e.Record, people, requestlog.RecordRequestID(e.Record))
}

func (t *triggers) complain(trigger *notifications.Trigger, err error) {
	if err != nil {
		t.g.log.Error("trigger cannot be evaluated: open it in the dashboard and save it to see why", "trigger", trigger.Name, "error", err)
	}
}
