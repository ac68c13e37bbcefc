package migrations

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

// The users collection belongs to the app. Ours are the fields with these ids;
// a field of the same name and a fitting type that was there before is taken
// over and keeps its own id, so that undoing this migration leaves it.
var usersFieldIDs = []string{"gw_users_phone", "gw_users_phone_verified", "gw_users_locale", "gw_users_timezone"}

const usersPhoneIndex = "idx_gw_users_phone"

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		users, err := usersCollection(txApp)
		if err != nil {
			return err
		}
		if err := findClashes(txApp, users); err != nil {
			return err
		}

		for _, f := range []core.Field{
			// Hidden keeps people from filtering, sorting and guessing by other
			// people's numbers; the owner is shown theirs by a hook.
			&core.TextField{Id: usersFieldIDs[0], Name: "phone", Max: 20, Hidden: true, Help: "The person's mobile number with country code, such as +4915112345678; only they and administrators see it."},
			&core.BoolField{Id: usersFieldIDs[1], Name: "phoneVerified", Hidden: true, Help: "Whether the person has proved with a code that the number is theirs; set by itself."},
			&core.TextField{Id: usersFieldIDs[2], Name: "locale", Max: 35, Help: "The language the person reads, such as en or fr-CA; it picks the translation of a message."},
			&core.TextField{Id: usersFieldIDs[3], Name: "timezone", Max: 64, Help: "Where the person's clock is, such as Europe/Berlin; used for quiet hours and local send times."},
		} {
			if existing := users.Fields.GetByName(f.GetName()); existing != nil {
				existing.SetSystem(true)
				existing.SetHidden(existing.GetHidden() || f.GetHidden())
				continue
			}
			f.SetSystem(true)
			users.Fields.Add(f)
		}
		users.AddIndex(usersPhoneIndex, true, "`phone`", "`phoneVerified` = 1 AND `phone` != ''")
		if err := txApp.Save(users); err != nil {
			return fmt.Errorf("add phone, phoneVerified, locale and timezone to collection %s: %w", users.Name, err)
		}
		return nil
	}, func(txApp core.App) error {
		users, err := usersCollection(txApp)
		if err != nil {
			return nil // it is gone, and our fields with it
		}
		users.RemoveIndex(usersPhoneIndex)
		for _, id := range usersFieldIDs {
			users.Fields.RemoveById(id)
		}
		for _, name := range []string{"phone", "phoneVerified", "locale", "timezone"} {
			if f := users.Fields.GetByName(name); f != nil {
				f.SetSystem(false)
			}
		}
		// PocketBase's validation lets nobody remove a system field.
		return unlockSchema(txApp, func() error { return txApp.SaveNoValidate(users) })
	})
}

// findClashes names everything in the existing app that stands in the way, in
// one error, so that it is put right in one go.
func findClashes(txApp core.App, users *core.Collection) error {
	var problems []string

	for _, name := range []string{
		"notification_categories", "notification_templates", "notification_topics", "notification_subscriptions",
		"notification_preferences", "notification_suppressions", "notification_providers", "devices",
		"notifications", "notification_deliveries", "notification_inbox", "notification_triggers", "app_versions",
	} {
		if _, err := txApp.FindCollectionByNameOrId(name); err == nil {
			problems = append(problems, fmt.Sprintf("a collection called %q is already there: rename it (or its view) in the dashboard", name))
		} else if txApp.HasTable(name) {
			problems = append(problems, fmt.Sprintf("a table called %q is already in the database: rename or drop it", name))
		}
	}

	phoneFits := clash(&problems, users, "phone", core.FieldTypeText)
	verifiedFits := clash(&problems, users, "phoneVerified", core.FieldTypeBool)
	clash(&problems, users, "locale", core.FieldTypeText, core.FieldTypeSelect)
	clash(&problems, users, "timezone", core.FieldTypeText, core.FieldTypeSelect)

	if phoneFits && verifiedFits {
		var rows []struct {
			Phone string `db:"phone"`
			IDs   string `db:"ids"`
		}
		err := txApp.DB().Select("phone", "group_concat([[id]], ', ') AS ids").From(users.Name).
			Where(dbx.NewExp("[[phoneVerified]] = 1 AND [[phone]] != ''")).
			GroupBy("phone").Having(dbx.NewExp("count(*) > 1")).OrderBy("phone").Limit(50).All(&rows)
		if err != nil {
			return fmt.Errorf("look for duplicate phones in %s: %w", users.Name, err)
		}
		for _, r := range rows {
			problems = append(problems, fmt.Sprintf("the verified phone %s belongs to several records of %s (%s): leave it verified on one of them", maskPhone(r.Phone), users.Name, r.IDs))
		}
	}

	if len(problems) == 0 {
		return nil
	}
	return errors.New("Groundwork cannot add its collections and fields to this app yet; nothing was changed. Put these right and start again:\n  - " + strings.Join(problems, "\n  - "))
}

// clash reports a field of another type and tells whether a fitting one is there.
func clash(problems *[]string, users *core.Collection, name string, fitting ...string) bool {
	f := users.Fields.GetByName(name)
	if f == nil {
		return false
	}
	for _, typ := range fitting {
		multi, ok := f.(core.MultiValuer)
		if f.Type() == typ && (!ok || !multi.IsMultiple()) {
			return true
		}
	}
	*problems = append(*problems, fmt.Sprintf("the field %q of collection %s is of type %s and Groundwork needs a single %s: rename the field in the dashboard", name, users.Name, f.Type(), fitting[0]))
	return false
}

// maskPhone keeps the last three digits: the text ends up in logs.
func maskPhone(phone string) string {
	if len(phone) <= 3 {
		return "…"
	}
	return "…" + phone[len(phone)-3:]
}
