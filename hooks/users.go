package hooks

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the container has no time zones of its own

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"golang.org/x/text/language"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/notifications"
)

// storeKeyUsersCollection is where the migrations and the domain look up which
// collection holds the people: an id or a name, or nothing for PocketBase's own.
const storeKeyUsersCollection = "groundwork.usersCollection"

// bindUsers guards the fields that Groundwork adds to the users collection, and
// the phone of any other collection that people sign in to by phone: it belongs to
// its owner's proof, and nobody else sees it.
func (g *groundwork) bindUsers() {
	app := g.app

	// phone and phoneVerified are hidden fields, which PocketBase lets only
	// superusers write, filter and sort by; bindSchemaGuard keeps them hidden.
	// What is left is Go code, and superusers, who may change the number and not
	// whether it is proved.
	check := func(e *core.RecordEvent) error {
		if !isUsers(e.App, e.Record.Collection()) {
			tidyPhone(e.Record)
			return e.Next()
		}
		if err := checkUserFields(e.Record); err != nil {
			return err
		}
		return e.Next()
	}
	app.OnRecordCreate().Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.users.check", Priority: priorityLast, Func: check})
	app.OnRecordUpdate().Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.users.check", Priority: priorityLast, Func: check})

	app.OnRecordCreateExecute().Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.users.verified", Priority: priorityRestore, Func: func(e *core.RecordEvent) error {
			if accounts.HasPhone(e.Record.Collection()) && !notifications.IsServer(e.Context) {
				e.Record.Set("phoneVerified", false)
			}
			return e.Next()
		}})
	app.OnRecordUpdateExecute().Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.users.verified", Priority: priorityRestore, Func: func(e *core.RecordEvent) error {
			if !accounts.HasPhone(e.Record.Collection()) || notifications.IsServer(e.Context) {
				return e.Next()
			}
			return inTransaction(e, func() error {
				if err := ownPhoneVerified(e); err != nil {
					return err
				}
				return e.Next()
			})
		}})

	// The owner sees them; PocketBase shows superusers everything.
	app.OnRecordEnrich().Bind(&hook.Handler[*core.RecordEnrichEvent]{
		Id: "groundwork.users.showphone", Func: func(e *core.RecordEnrichEvent) error {
			auth := (*core.Record)(nil)
			if e.RequestInfo != nil {
				auth = e.RequestInfo.Auth
			}
			if auth != nil && auth.Id == e.Record.Id && auth.Collection().Id == e.Record.Collection().Id && accounts.HasPhone(e.Record.Collection()) {
				e.Record.Unhide("phone", "phoneVerified")
			}
			return e.Next()
		}})
}

// ownPhoneVerified decides phoneVerified for an update that is not the server's:
// it is what the row says, and no longer true once the phone is another one.
func ownPhoneVerified(e *core.RecordEvent) error {
	if e.Record.GetString("phone") != e.Record.Original().GetString("phone") {
		e.Record.Set("phoneVerified", false)
		return nil
	}
	// This save does not touch the phone: whatever happened to it meanwhile stays.
	return ownership{always: []string{"phone", "phoneVerified"}}.restore(e, storedNow)
}

// tidyPhone brings the phone of another auth collection into the form in which it
// is looked up. What is no number is the application's business: it leads nowhere.
func tidyPhone(r *core.Record) {
	phone := r.GetString(accounts.FieldPhone)
	if phone == "" || !accounts.HasPhone(r.Collection()) || !r.IsNew() && phone == r.Original().GetString(accounts.FieldPhone) {
		return
	}
	if normal, err := notifications.NormalizePhone(phone); err == nil {
		r.Set(accounts.FieldPhone, normal)
	}
}

// checkUserFields brings phone, locale and timezone into the one form that the
// rest relies on. What was stored before is left alone, so that an older value
// does not stand in the way of another change.
func checkUserFields(r *core.Record) error {
	before := r.Original()
	changed := func(name string) (string, bool) {
		value := r.GetString(name)
		return value, value != "" && (r.IsNew() || value != before.GetString(name))
	}
	errs := validation.Errors{}

	if phone, ok := changed("phone"); ok {
		normal, err := notifications.NormalizePhone(phone)
		if err != nil {
			errs["phone"] = sentence("invalid_phone", err.Error())
		} else {
			r.Set("phone", normal)
		}
	}
	if locale, ok := changed("locale"); ok && isOurs(r, "locale") {
		tag, err := language.Parse(locale)
		if err != nil {
			errs["locale"] = sentence("invalid_locale", "this is not a language code; write it like en or fr-CA")
		} else {
			r.Set("locale", tag.String())
		}
	}
	if zone, ok := changed("timezone"); ok && isOurs(r, "timezone") {
		if _, err := time.LoadLocation(zone); err != nil || zone == "Local" {
			errs["timezone"] = sentence("invalid_timezone", "this is not a time zone; write it like Europe/Berlin")
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// isOurs tells a field that Groundwork added from one that was there before,
// whose values are the application's business.
func isOurs(r *core.Record, name string) bool {
	f := r.Collection().Fields.GetByName(name)
	return f != nil && strings.HasPrefix(f.GetId(), "gw_users_")
}

// sentence is a refusal of one field. PocketBase shows it beside the field.
func sentence(code, text string) validation.Error {
	return validation.NewError(code, strings.ToUpper(text[:1])+text[1:]+".")
}

// isUsers tells whether c is the collection of the people who are notified.
func isUsers(app core.App, c *core.Collection) bool {
	return c.IsAuth() && c.Id == usersCollectionID(app)
}

// usersCollectionID returns the id of the users collection as it was when
// Groundwork was added to this app; empty before that. The devices know it for
// certain: Config.UsersCollection may be a name, and names change.
func usersCollectionID(app core.App) string {
	devices, err := app.FindCachedCollectionByNameOrId(notifications.CollectionDevices)
	if err != nil {
		return ""
	}
	user, ok := devices.Fields.GetByName("user").(*core.RelationField)
	if !ok {
		return ""
	}
	return user.CollectionId
}

// checkUsersCollection says, in one error, what is wrong with the users
// collection; the migrations said it for what was wrong before they ran.
func (g *groundwork) checkUsersCollection(app core.App) error {
	id := usersCollectionID(app)
	if id == "" {
		return fmt.Errorf("the collection %s has lost its user field: restore it from a backup", notifications.CollectionDevices)
	}
	users, err := app.FindCollectionByNameOrId(id)
	if err != nil {
		return fmt.Errorf("the users collection (id %s) was deleted: restore it from a backup", id)
	}
	if configured := g.cfg.UsersCollection; configured != "" {
		other, err := app.FindCollectionByNameOrId(configured)
		if err == nil && other.Id != id {
			return fmt.Errorf("the users collection is set to %q, but this data folder was made for %q and its records belong to it: set it back to %q", configured, users.Name, users.Name)
		}
	}

	var problems []string
	for _, want := range []struct {
		name  string
		types []string
	}{
		{"phone", []string{core.FieldTypeText}},
		{"phoneVerified", []string{core.FieldTypeBool}},
		{"locale", []string{core.FieldTypeText, core.FieldTypeSelect}},
		{"timezone", []string{core.FieldTypeText, core.FieldTypeSelect}},
	} {
		name, types := want.name, want.types
		f := users.Fields.GetByName(name)
		switch {
		case f == nil:
			problems = append(problems, fmt.Sprintf("it has no field %q: add one of type %s", name, types[0]))
		case !slices.Contains(types, f.Type()):
			problems = append(problems, fmt.Sprintf("its field %q is of type %s: rename it and add one of type %s", name, f.Type(), types[0]))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("the users collection %q does not fit:\n  - %s", users.Name, strings.Join(problems, "\n  - "))
	}

	// From here on an id, which survives a renaming while the app runs.
	app.Store().Set(storeKeyUsersCollection, id)
	return nil
}
