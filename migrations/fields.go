package migrations

import (
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// The helpers below only shorten the literals in the migrations. A published
// migration must keep its meaning, so they never change: a new need gets a new
// helper.

// newCollection starts a superuser-only base collection with a fixed id.
func newCollection(id, name string) *core.Collection {
	c := core.NewBaseCollection(name, id)
	if idField, ok := c.Fields.GetByName("id").(*core.TextField); ok {
		idField.Help = "The record's own id; made by itself."
	}
	return c
}

// addFields appends fields, then created and updated, all of them as system
// fields, which the dashboard neither renames nor removes.
func addFields(c *core.Collection, fields ...core.Field) {
	fields = append(fields,
		&core.AutodateField{Name: "created", OnCreate: true},
		&core.AutodateField{Name: "updated", OnCreate: true, OnUpdate: true},
	)
	for _, f := range fields {
		f.SetSystem(true)
	}
	c.Fields.Add(fields...)
}

// text is a text of at most max characters.
func text(name string, max int, help string) *core.TextField {
	return &core.TextField{Name: name, Max: max, Help: help}
}

func requiredText(name string, max int, help string) *core.TextField {
	return &core.TextField{Name: name, Max: max, Help: help, Required: true, Presentable: true}
}

// key is a short name that programs use.
func key(help string) *core.TextField {
	return &core.TextField{
		Name: "key", Min: 1, Max: 100, Pattern: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`, Help: help, Required: true, Presentable: true,
	}
}

// jsonField is a JSON value of at most maxSize bytes.
func jsonField(name string, maxSize int64, help string) *core.JSONField {
	return &core.JSONField{Name: name, MaxSize: maxSize, Help: help}
}

func oneOf(name, help string, values ...string) *core.SelectField {
	return &core.SelectField{Name: name, Values: values, MaxSelect: 1, Help: help}
}

func requiredOneOf(name, help string, values ...string) *core.SelectField {
	return &core.SelectField{Name: name, Values: values, MaxSelect: 1, Help: help, Required: true}
}

func manyOf(name, help string, values ...string) *core.SelectField {
	return &core.SelectField{Name: name, Values: values, MaxSelect: len(values), Help: help}
}

// count is a whole number that is not negative.
func count(name, help string) *core.NumberField {
	return &core.NumberField{Name: name, OnlyInt: true, Min: types.Pointer(0.0), Help: help}
}

func boolField(name, help string) *core.BoolField {
	return &core.BoolField{Name: name, Help: help}
}

func date(name, help string) *core.DateField {
	return &core.DateField{Name: name, Help: help}
}

// relation refers to at most max records (1 is a single id) and is emptied when
// they are deleted.
func relation(name, collectionID string, max int, help string) *core.RelationField {
	return &core.RelationField{Name: name, CollectionId: collectionID, MaxSelect: max, Help: help}
}

// belongsTo is required and deletes the record together with its owner.
func belongsTo(name, collectionID, help string) *core.RelationField {
	return &core.RelationField{
		Name: name, CollectionId: collectionID, MaxSelect: 1, Required: true, CascadeDelete: true, Help: help,
	}
}

func hiddenJSON(name string, maxSize int64, help string) *core.JSONField {
	return &core.JSONField{Name: name, MaxSize: maxSize, Help: help, Hidden: true}
}

// usersCollection returns the auth collection of the people who are notified.
func usersCollection(txApp core.App) (*core.Collection, error) {
	nameOrID, _ := txApp.Store().Get("groundwork.usersCollection").(string)
	configured := nameOrID != ""
	if !configured {
		nameOrID = "_pb_users_auth_"
	}
	users, err := txApp.FindCollectionByNameOrId(nameOrID)
	switch {
	case err != nil && configured:
		return nil, fmt.Errorf("the users collection %q (Config.UsersCollection) does not exist: create it as an auth collection, or name another one", nameOrID)
	case err != nil:
		return nil, errors.New("PocketBase's users collection was deleted: set Config.UsersCollection to the auth collection that holds the people to notify")
	case !users.IsAuth():
		return nil, fmt.Errorf("the users collection %q is not an auth collection: set Config.UsersCollection to one that people sign in with", users.Name)
	}
	return users, nil
}

// ownerRule lets a signed-in person reach the records whose user is that
// person. The collection is compared too: another auth collection may hold an
// account with the same id, since ids may be chosen on creation.
func ownerRule(users *core.Collection) string {
	return `user = @request.auth.id && ` + signedInRule(users)
}

func signedInRule(users *core.Collection) string {
	return `@request.auth.id != "" && @request.auth.collectionId = "` + users.Id + `"`
}

// unlockSchema lets a migration change and delete what the hooks otherwise keep
// as it is. Every migration after the first release that edits one of our
// collections does so inside fn.
func unlockSchema(txApp core.App, fn func() error) error {
	txApp.Store().Set("groundwork.schemaUnlocked", true)
	defer txApp.Store().Remove("groundwork.schemaUnlocked")
	return fn()
}

// deleteCollections removes collections by id, in the given order. One that is
// already gone is not an error.
func deleteCollections(txApp core.App, ids ...string) error {
	return unlockSchema(txApp, func() error {
		for _, id := range ids {
			c, err := txApp.FindCollectionByNameOrId(id)
			if err != nil {
				continue
			}
			// PocketBase deletes no system collection.
			c.System = false
			if err := txApp.SaveNoValidate(c); err != nil {
				return fmt.Errorf("unlock collection %s: %w", id, err)
			}
			if err := txApp.Delete(c); err != nil {
				return fmt.Errorf("delete collection %s: %w", id, err)
			}
		}
		return nil
	})
}
