package hooks

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/schedules"
)

// Priorities of the hooks on OnRecord…Execute, where validation and uploads are
// done and the row is about to be written.
//
// A hook that decides about server-owned fields itself, on anybody's save, runs
// at priorityExecute: after they were restored, in the same transaction.
const (
	priorityRestore = 900
	priorityExecute = 1000

	// priorityFirst is for OnRecordCreate and OnRecordUpdate: before the
	// application's own hooks, so that they see what will be stored.
	priorityFirst = -1000

	// priorityLast is for OnRecordCreate and OnRecordUpdate too: checks that see
	// what the application's own hooks made of the record.
	priorityLast = 1000
)

// ownership says which fields of a collection belong to the server.
type ownership struct {
	collection string

	// always are the server's from the beginning.
	always []string

	// afterCreation are set by whoever creates the record and never change again.
	afterCreation []string

	// defaults are the first values of fields in always; the others begin empty.
	defaults map[string]func() any

	// renewed says that this save gives an existing record a new beginning: the
	// fields in always get their first values again, and the row is written whole.
	// Nil means that none does.
	renewed func(*core.Record) bool
}

func (o ownership) isRenewed(r *core.Record) bool { return o.renewed != nil && o.renewed(r) }

// serverOwned is the whole table. What is sent for these fields is ignored,
// never refused: the dashboard and the SDKs send whole records back.
//
// The deliveries are not in it: nobody but the server writes them at all.
var serverOwned = []ownership{
	{
		collection: notifications.CollectionNotifications,
		always: []string{
			"status", "statusReason", "total", "sent", "delivered", "opened", "failed", "skipped", "pending", "unknown",
			"cancelled", "startedAt", "finishedAt", "content", "plan", "requestId", "trigger", "sourceCollection", "sourceRecord",
		},
		defaults: map[string]func() any{"status": constant(string(notifications.StatusDraft))},
	},
	{
		collection: notifications.CollectionProviders,
		always:     []string{"state", "stateReason", "source"},
		defaults:   map[string]func() any{"source": constant(notifications.SourceDashboard)}, // no state: nobody has tried it
	},
	deviceOwnership,
	{collection: schedules.Collection, always: schedules.ServerOwned},
	{collection: notifications.CollectionSubscriptions, afterCreation: []string{"user"}},
	{collection: notifications.CollectionPreferences, afterCreation: []string{"user"}},
	{collection: notifications.CollectionInbox, afterCreation: []string{"user", "notification"}},
}

// savedKey marks a record object that was saved since it was read. It is no
// field, so it is neither stored nor shown.
const savedKey = "groundwork:saved"

// narrow makes a save write only what it changes: the server's counters and the
// owner's edits pass each other. PocketBase compares with the record as it was
// read, even after a save: a second save of the same object that puts a value
// back would look like no change, so that one is written whole.
func narrow(r *core.Record) {
	r.IgnoreUnchangedFields(r.GetRaw(savedKey) == nil)
}

func markSaved(e *core.RecordEvent) error {
	if err := e.Next(); err != nil {
		return err
	}
	e.Record.SetRaw(savedKey, true)
	return nil
}

func constant(v any) func() any { return func() any { return v } }

// bindServerOwned keeps everybody but the server from writing the fields in
// serverOwned: requests, batches and Go code alike. See [notifications.AsServer].
func (g *groundwork) bindServerOwned() {
	for _, o := range serverOwned {
		// The ids name the collection: within one hook a handler replaces an earlier
		// one of the same id, whatever their tags.
		g.app.OnRecordCreate(o.collection).Bind(&hook.Handler[*core.RecordEvent]{
			Id: "groundwork.serverowned.create." + o.collection, Priority: priorityFirst, Func: func(e *core.RecordEvent) error {
				o.reset(e)
				return e.Next()
			}})
		// Again, for what the application's own hooks did in between.
		g.app.OnRecordCreateExecute(o.collection).Bind(&hook.Handler[*core.RecordEvent]{
			Id: "groundwork.serverowned.create." + o.collection, Priority: priorityRestore, Func: func(e *core.RecordEvent) error {
				o.reset(e)
				return markSaved(e)
			}})

		// Before validation, so that nonsense in such a field is ignored too.
		g.app.OnRecordUpdate(o.collection).Bind(&hook.Handler[*core.RecordEvent]{
			Id: "groundwork.serverowned.update." + o.collection, Priority: priorityFirst, Func: func(e *core.RecordEvent) error {
				if o.isRenewed(e.Record) {
					e.Record.IgnoreUnchangedFields(false)
					o.begin(e.Record)
					return e.Next()
				}
				narrow(e.Record)
				if !notifications.IsServer(e.Context) {
					if err := o.restore(e, storedBefore); err != nil {
						return err
					}
				}
				return e.Next()
			}})
		// From the row as it is now: the record may have been read long ago.
		g.app.OnRecordUpdateExecute(o.collection).Bind(&hook.Handler[*core.RecordEvent]{
			Id: "groundwork.serverowned.update." + o.collection, Priority: priorityRestore, Func: func(e *core.RecordEvent) error {
				if o.isRenewed(e.Record) {
					o.begin(e.Record)
					return markSaved(e)
				}
				if notifications.IsServer(e.Context) {
					return markSaved(e)
				}
				return inTransaction(e, func() error {
					if err := o.restore(e, storedNow); err != nil {
						return err
					}
					return markSaved(e)
				})
			}})
	}
}

// reset gives a new record's server-owned fields their first values.
func (o ownership) reset(e *core.RecordEvent) {
	if notifications.IsServer(e.Context) {
		// The server sets what it knows and leaves the rest to the defaults.
		for name, value := range o.defaults {
			if isZero(e.Record, name) {
				e.Record.Set(name, value())
			}
		}
		return
	}
	o.begin(e.Record)
}

// begin gives the fields in always their first values, whatever they are.
func (o ownership) begin(r *core.Record) {
	for _, name := range o.always {
		var value any
		if f, ok := o.defaults[name]; ok {
			value = f()
		}
		r.Set(name, value)
	}
}

func isZero(r *core.Record, name string) bool {
	field := r.Collection().Fields.GetByName(name)
	if field == nil {
		return false
	}
	switch field.Type() {
	case core.FieldTypeDate:
		return r.GetDateTime(name).IsZero()
	default:
		return r.GetString(name) == ""
	}
}

// restore puts the stored values back into the server-owned fields.
func (o ownership) restore(e *core.RecordEvent, find func(*core.RecordEvent) (*core.Record, error)) error {
	stored, err := find(e)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // deleted meanwhile: there is nothing to protect and nothing will be written
	}
	if err != nil {
		return fmt.Errorf("read %s %s before saving: %w", e.Record.Collection().Name, e.Record.Id, err)
	}
	for _, names := range [][]string{o.always, o.afterCreation} {
		for _, name := range names {
			e.Record.SetRaw(name, stored.GetRaw(name))
		}
	}
	return nil
}

// storedBefore is the record as it was when it was read.
func storedBefore(e *core.RecordEvent) (*core.Record, error) {
	if before := e.Record.Original(); before.Id != "" {
		return before, nil
	}
	// Made with NewRecord and MarkAsNotNew: it was never read.
	return storedNow(e)
}

// storedNow is the record as it is in the database.
func storedNow(e *core.RecordEvent) (*core.Record, error) {
	id, _ := e.Record.LastSavedPK().(string)
	return e.App.FindRecordById(e.Record.Collection(), id)
}

// inTransaction runs fn with e.App inside a transaction, the caller's when there
// is one. fn calls e.Next: a plain app.Save is not in a transaction by itself,
// so that an error after e.Next would leave the row.
func inTransaction(e *core.RecordEvent, fn func() error) error {
	original := e.App
	defer func() { e.App = original }()
	return original.RunInTransaction(func(txApp core.App) error {
		e.App = txApp
		return fn()
	})
}
