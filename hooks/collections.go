package hooks

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pocketbase/dbx"
	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/dbutils"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
	"github.com/groundworkhq/groundwork/internal/versions"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/schedules"
)

// ourCollections are the collections that the product cannot do without.
var ourCollections = []string{
	notifications.CollectionCategories, notifications.CollectionTemplates, notifications.CollectionTopics,
	notifications.CollectionSubscriptions, notifications.CollectionPreferences, notifications.CollectionSuppressions,
	notifications.CollectionProviders, notifications.CollectionDevices, notifications.CollectionNotifications,
	notifications.CollectionDeliveries, notifications.CollectionInbox, notifications.CollectionTriggers, notifications.CollectionConsents,
	versions.Collection, accounts.CollectionSessions, accounts.CollectionPhoneSignIn, ratelimit.Collection, accounts.CollectionErasures,
	schedules.Collection, schedules.CollectionRuns,
}

// ownerLocked are fields that a record's owner sees and does not write. Fields
// that an administrator added are not in it: those follow the collection's rule.
var ownerLocked = map[string][]string{
	notifications.CollectionInbox: {"title", "body", "data", "image", "link"},
}

// fixedCategories are there in every installation and referred to by key.
var fixedCategories = []string{
	notifications.CategoryTransactional, notifications.CategoryPromotional, notifications.CategoryAccount,
}

// bindCollections guards the records and the definitions of our collections.
func (g *groundwork) bindCollections() {
	app := g.app

	g.bindSchemaGuard()

	for collection, fields := range ownerLocked {
		app.OnRecordUpdateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{
			Id: "groundwork.collections.ownerlocked." + collection, Func: lockForOwner(fields...)})
	}

	// What a person creates is that person's.
	app.OnRecordCreateRequest(notifications.CollectionSubscriptions, notifications.CollectionPreferences).
		Bind(&hook.Handler[*core.RecordRequestEvent]{
			Id: "groundwork.collections.owner", Func: func(e *core.RecordRequestEvent) error {
				if e.Auth != nil && !e.HasSuperuserAuth() {
					e.Record.Set("user", e.Auth.Id)
				}
				return e.Next()
			}})

	// A bool that was not sent is false, which would mean "nothing, please" to
	// somebody who only set quiet hours. The dashboard leaves out a switch that was
	// not touched and shows it as off: for superusers off is what it means.
	app.OnRecordCreateRequest(notifications.CollectionPreferences).Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "groundwork.preferences.enabled", Func: func(e *core.RecordRequestEvent) error {
			info, err := e.RequestInfo()
			if err != nil {
				return e.BadRequestError("The request body cannot be read.", err)
			}
			if _, sent := info.Body["enabled"]; !sent && !e.HasSuperuserAuth() {
				e.Record.Set("enabled", true)
			}
			return e.Next()
		}})

	g.bindFixed(notifications.CollectionCategories, "kind", "the kind of a category is fixed when it is created; make another category instead")
	g.bindFixed(notifications.CollectionProviders, "channel", "the channel of a provider is fixed when it is created; make another provider instead")
	g.bindCategories()
	g.bindDeliveries()

	normalize := func(e *core.RecordEvent) error {
		channel, address := e.Record.GetString("channel"), e.Record.GetString("address")
		before := e.Record.Original()
		if notifications.IsServer(e.Context) && strings.HasPrefix(address, notifications.ErasedAddress) {
			return e.Next() // of somebody who was erased: there is no other form of it
		}
		if address != "" && (address != before.GetString("address") || channel != before.GetString("channel")) {
			normal, err := notifications.NormalizeAddress(notifications.Channel(channel), address)
			if err != nil {
				return validation.Errors{"address": sentence("invalid_address", err.Error())}
			}
			e.Record.Set("address", normal)
		}
		return e.Next()
	}
	app.OnRecordCreate(notifications.CollectionSuppressions).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.suppressions.normalize", Priority: priorityLast, Func: normalize})
	app.OnRecordUpdate(notifications.CollectionSuppressions).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.suppressions.normalize", Priority: priorityLast, Func: normalize})

	for _, id := range ourCollections {
		if id == versions.Collection {
			continue // it looks at its texts itself
		}
		h := &hook.Handler[*core.RecordEvent]{Id: "groundwork.collections.text." + id, Priority: priorityLast, Func: func(e *core.RecordEvent) error {
			if errs := unwritableTexts(e.Record); len(errs) > 0 && !notifications.IsServer(e.Context) {
				return errs
			}
			return e.Next()
		}}
		app.OnRecordCreate(id).Bind(h)
		app.OnRecordUpdate(id).Bind(h)
	}

	// The migrations have run and nothing has started yet.
	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.collections.check", Priority: priorityFirst, Func: func(e *core.ServeEvent) error {
			for _, id := range ourCollections {
				if _, err := e.App.FindCachedCollectionByNameOrId(id); err != nil {
					return fmt.Errorf("the collection with the id %s is missing: restore it from a backup of this data folder", id)
				}
			}
			if err := g.checkUsersCollection(e.App); err != nil {
				return err
			}
			return e.Next()
		}})
}

// lockForOwner keeps fields as they are in an update that is not a superuser's.
func lockForOwner(fields ...string) func(*core.RecordRequestEvent) error {
	return func(e *core.RecordRequestEvent) error {
		if !e.HasSuperuserAuth() {
			stored := e.Record.Original()
			for _, name := range fields {
				e.Record.SetRaw(name, stored.GetRaw(name))
			}
		}
		return e.Next()
	}
}

// unwritableTexts names the texts that no message, mail header or URL can carry:
// those with a nul byte, and those that are not UTF-8.
func unwritableTexts(r *core.Record) validation.Errors {
	errs := validation.Errors{}
	for _, f := range r.Collection().Fields {
		if f.Type() != core.FieldTypeText {
			continue
		}
		if s := r.GetString(f.GetName()); strings.ContainsRune(s, 0) || !utf8.ValidString(s) {
			errs[f.GetName()] = sentence("invalid_text", "this contains characters that cannot be written; type it again instead of pasting it")
		}
	}
	return errs
}

// bindFixed refuses to change a field after creation. Unlike a server-owned
// field it is somebody's choice, so that a change deserves an answer.
func (g *groundwork) bindFixed(collection, field, why string) {
	g.app.OnRecordUpdate(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork." + collection + "." + field, Priority: priorityLast, Func: func(e *core.RecordEvent) error {
			// From the database: the value never changes, so that there is no race, and
			// a record put together by hand has no other memory of it.
			stored, err := storedNow(e)
			if err != nil {
				return fmt.Errorf("read %s %s before saving: %w", e.Record.Collection().Name, e.Record.Id, err)
			}
			if stored.GetString(field) != e.Record.GetString(field) {
				return validation.Errors{field: sentence("fixed", why)}
			}
			return e.Next()
		}})
}

func (g *groundwork) bindCategories() {
	app := g.app

	check := func(e *core.RecordEvent) error {
		if e.Record.GetString("key") == notifications.CategoryAccount && e.Record.GetBool("canOptOut") {
			return validation.Errors{"canOptOut": sentence("fixed", "nobody can do without codes and password messages, so that this category cannot be switched off")}
		}
		return e.Next()
	}
	app.OnRecordCreate(notifications.CollectionCategories).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.categories.check", Priority: priorityLast, Func: check})
	app.OnRecordUpdate(notifications.CollectionCategories).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.categories.check", Priority: priorityLast, Func: func(e *core.RecordEvent) error {
		stored, err := storedNow(e)
		if err != nil {
			return fmt.Errorf("read category %s before saving: %w", e.Record.Id, err)
		}
		if key := stored.GetString("key"); slices.Contains(fixedCategories, key) && e.Record.GetString("key") != key {
			return validation.Errors{"key": sentence("fixed", "the key of this category is fixed; you can change its name")}
		}
		return check(e)
	}})
	app.OnRecordDeleteExecute(notifications.CollectionCategories).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.categories.keep", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			return inTransaction(e, func() error {
				if err := keepCategory(e); err != nil {
					return err
				}
				return e.Next()
			})
		}})
}

// keepCategory refuses to delete a category that something needs.
func keepCategory(e *core.RecordEvent) error {
	stored, err := storedNow(e)
	if err == nil && slices.Contains(fixedCategories, stored.GetString("key")) {
		return apis.NewBadRequestError(fmt.Sprintf("The category %q cannot be deleted: messages of your app and of Groundwork itself use it.", stored.GetString("key")), nil)
	}
	if err := keptByUse(e.App, "category", e.Record.Id); err != nil {
		return err
	}
	// Without its category a template would be transactional.
	templates, err := e.App.FindRecordsByFilter(notifications.CollectionTemplates, "category = {:id}", "", 1, 0, dbx.Params{"id": e.Record.Id})
	if err != nil {
		return fmt.Errorf("find templates of category %s: %w", e.Record.Id, err)
	}
	if len(templates) > 0 {
		return apis.NewBadRequestError(fmt.Sprintf("The template %q is in this category. Give it another one first.", templates[0].GetString("key")), nil)
	}
	return nil
}

// bindDeliveries leaves the deliveries to the server: they are a record of what
// happened.
func (g *groundwork) bindDeliveries() {
	const id = "groundwork.deliveries.closed"
	app, collection := g.app, notifications.CollectionDeliveries

	closed := func(e *core.RecordRequestEvent) error {
		return e.ForbiddenError("Deliveries are written by the server. They can be read, not changed.", nil)
	}
	app.OnRecordCreateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: id, Func: closed})
	app.OnRecordUpdateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: id, Func: closed})
	app.OnRecordDeleteRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: id, Func: closed})

	// Go code, hooks in JavaScript, and the dashboard's "truncate".
	serverOnly := func(e *core.RecordEvent) error {
		if !notifications.IsServer(e.Context) {
			return apis.NewForbiddenError("Deliveries are written by the server. They can be read, not changed.", nil)
		}
		return e.Next()
	}
	for _, h := range []*hook.TaggedHook[*core.RecordEvent]{
		app.OnRecordCreate(collection), app.OnRecordUpdate(collection), app.OnRecordDelete(collection),
	} {
		h.Bind(&hook.Handler[*core.RecordEvent]{Id: id, Priority: priorityFirst, Func: serverOnly})
	}
	app.OnRecordUpdate(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.deliveries.narrow", Priority: priorityFirst, Func: func(e *core.RecordEvent) error {
			e.Record.IgnoreUnchangedFields(true)
			return e.Next()
		}})
}

// storeKeySchemaUnlocked is set while one of our migrations changes a
// collection of ours.
const storeKeySchemaUnlocked = "groundwork.schemaUnlocked"

func schemaUnlocked(app core.App) bool {
	unlocked, _ := app.Store().Get(storeKeySchemaUnlocked).(bool)
	return unlocked
}

// bindSchemaGuard lets an administrator add to our collections (fields, indexes,
// values, rules, a new name, another order) and keeps what the code relies on.
// PocketBase itself keeps system fields from being renamed and removed.
func (g *groundwork) bindSchemaGuard() {
	app := g.app

	app.OnCollectionUpdate().Bind(&hook.Handler[*core.CollectionEvent]{
		Id: "groundwork.collections.guard", Priority: priorityFirst, Func: func(e *core.CollectionEvent) error {
			if err := keepOurs(e); err != nil {
				return err
			}
			return e.Next()
		}})

	app.OnCollectionDelete().Bind(&hook.Handler[*core.CollectionEvent]{
		Id: "groundwork.collections.keep", Priority: priorityFirst, Func: func(e *core.CollectionEvent) error {
			if slices.Contains(ourCollections, e.Collection.Id) && !schemaUnlocked(e.App) {
				return apis.NewBadRequestError(fmt.Sprintf("The collection %q belongs to Groundwork and cannot be deleted.", e.Collection.Name), nil)
			}
			return e.Next()
		}})

	// "Import collections" with "delete missing" leaves PocketBase's own system
	// collections alone; ours stay in the same way, whatever the file was exported from.
	app.OnCollectionsImportRequest().Bind(&hook.Handler[*core.CollectionsImportRequestEvent]{
		Id: "groundwork.collections.import", Func: func(e *core.CollectionsImportRequestEvent) error {
			if e.DeleteMissing {
				if err := addMissingOurs(e); err != nil {
					return e.InternalServerError("The collections cannot be read.", err)
				}
			}
			return e.Next()
		}})

	// Triggers, templates and phone_sign_in name a collection. This runs inside the
	// transaction that PocketBase opens for a collection's save.
	app.OnCollectionUpdateExecute().Bind(&hook.Handler[*core.CollectionEvent]{
		Id: "groundwork.collections.rename", Priority: priorityExecute, Func: func(e *core.CollectionEvent) error {
			var before string
			err := e.App.DB().Select("name").From("_collections").Where(dbx.HashExp{"id": e.Collection.Id}).Row(&before)
			if err != nil {
				return fmt.Errorf("read the name of collection %s: %w", e.Collection.Id, err)
			}
			if err := e.Next(); err != nil {
				return err
			}
			if before == e.Collection.Name {
				return nil
			}
			return followRename(e.App, before, e.Collection.Name)
		}})
}

// addMissingOurs adds our collections, as they are, to an import that does not
// name them.
func addMissingOurs(e *core.CollectionsImportRequestEvent) error {
	named := func(c *core.Collection) bool {
		return slices.ContainsFunc(e.CollectionsData, func(data map[string]any) bool {
			return data["id"] == c.Id || (data["id"] == nil || data["id"] == "") && data["name"] == c.Name
		})
	}
	for _, id := range ourCollections {
		collection, err := e.App.FindCollectionByNameOrId(id)
		if err != nil {
			continue // not made yet
		}
		if named(collection) {
			continue
		}
		// Its id is enough: what is not sent stays, but fields must be there.
		raw, err := json.Marshal(map[string]any{"id": collection.Id, "fields": collection.Fields})
		if err != nil {
			return fmt.Errorf("encode collection %s: %w", collection.Name, err)
		}
		var data map[string]any
		if err := json.Unmarshal(raw, &data); err != nil {
			return fmt.Errorf("decode collection %s: %w", collection.Name, err)
		}
		e.CollectionsData = append(e.CollectionsData, data)
	}
	return nil
}

func followRename(txApp core.App, before, after string) error {
	// A limit names collections in its routes.
	if limits, err := txApp.FindCollectionByNameOrId(ratelimit.Collection); err == nil {
		table := limits.Name
		if table == after {
			table = before
		}
		_, err = txApp.DB().NewQuery("UPDATE {{" + table + "}} SET [[route]] = replace([[route]], {:before}, {:after}) WHERE instr([[route]], {:before}) > 0").
			Bind(dbx.Params{"before": "/api/collections/" + before + "/", "after": "/api/collections/" + after + "/"}).Execute()
		if err != nil {
			return fmt.Errorf("tell %s about the new name of collection %s: %w", table, before, err)
		}
	}
	for _, ref := range []struct{ collection, field string }{
		{notifications.CollectionTriggers, "collection"},
		{notifications.CollectionTemplates, "dataFrom"},
		{accounts.CollectionPhoneSignIn, "collection"},
	} {
		col, err := txApp.FindCollectionByNameOrId(ref.collection)
		if err != nil {
			continue // an empty data folder before our migrations
		}
		// The table itself is renamed after this hook.
		table := col.Name
		if table == after {
			table = before
		}
		_, err = txApp.DB().Update(table, dbx.Params{ref.field: after}, dbx.HashExp{ref.field: before}).Execute()
		if err != nil {
			return fmt.Errorf("tell %s about the new name of collection %s: %w", table, before, err)
		}
	}
	return nil
}

// keepOurs puts back what an edit must not change in our fields and indexes.
func keepOurs(e *core.CollectionEvent) error {
	ours := slices.Contains(ourCollections, e.Collection.Id)
	users := !ours && isUsers(e.App, e.Collection)
	if (!ours && !users) || schemaUnlocked(e.App) {
		return nil
	}
	stored, err := e.App.FindCollectionByNameOrId(e.Collection.Id)
	if err != nil {
		return fmt.Errorf("read collection %s before saving: %w", e.Collection.Id, err)
	}

	for _, f := range stored.Fields {
		if !f.GetSystem() || (users && !slices.Contains([]string{"phone", "phoneVerified", "locale", "timezone"}, f.GetName())) {
			continue
		}
		edited := e.Collection.Fields.GetById(f.GetId())
		if edited == nil || edited.GetName() != f.GetName() || edited.Type() != f.Type() {
			continue // PocketBase refuses it and says so
		}
		keepField(f, edited)
		e.Collection.Fields.Add(f) // in its place: it has the id of the edited one
	}

	for _, index := range stored.Indexes {
		name := dbutils.ParseIndex(index).IndexName
		if !strings.HasPrefix(name, "idx_gw_") {
			continue
		}
		if i := slices.IndexFunc(e.Collection.Indexes, func(other string) bool {
			return strings.EqualFold(dbutils.ParseIndex(other).IndexName, name)
		}); i >= 0 {
			e.Collection.Indexes[i] = index
		} else {
			e.Collection.Indexes = append(e.Collection.Indexes, index)
		}
	}
	return nil
}

// keepField carries over to stored what an administrator may change about one of
// our fields: how the dashboard shows it, and more values to choose from.
func keepField(stored, edited core.Field) {
	switch f := stored.(type) {
	case *core.TextField:
		o := edited.(*core.TextField)
		f.Help, f.Presentable = o.Help, o.Presentable
	case *core.JSONField:
		o := edited.(*core.JSONField)
		f.Help, f.Presentable = o.Help, o.Presentable
	case *core.NumberField:
		o := edited.(*core.NumberField)
		f.Help, f.Presentable = o.Help, o.Presentable
	case *core.BoolField:
		o := edited.(*core.BoolField)
		f.Help, f.Presentable = o.Help, o.Presentable
	case *core.DateField:
		o := edited.(*core.DateField)
		f.Help, f.Presentable = o.Help, o.Presentable
	case *core.RelationField:
		o := edited.(*core.RelationField)
		f.Help, f.Presentable = o.Help, o.Presentable
	case *core.SelectField:
		o := edited.(*core.SelectField)
		f.Help, f.Presentable = o.Help, o.Presentable
		for _, v := range o.Values {
			if !slices.Contains(f.Values, v) {
				f.Values = append(f.Values, v)
			}
		}
	}
}
