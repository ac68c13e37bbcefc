package migrations

import (
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
	"github.com/pocketbase/pocketbase/tools/types"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		if _, err := txApp.FindCollectionByNameOrId("notification_consents"); err == nil {
			return errors.New(`a collection called "notification_consents" is already there, and Groundwork needs the name: rename yours in the dashboard and start again`)
		}
		users, err := usersCollection(txApp)
		if err != nil {
			return err
		}
		granted := boolField("granted", "On: the person agrees. Off: they take it back. The latest row about an address counts.")
		granted.Presentable = true

		c := newCollection("gw_consents", "notification_consents")
		c.System = true
		// No rule to change or delete: a row is evidence of what was said at the time.
		c.ListRule = types.Pointer(ownerRule(users))
		c.ViewRule = types.Pointer(ownerRule(users))
		c.CreateRule = types.Pointer(`(user = "" || user = @request.auth.id) && ` + signedInRule(users))
		addFields(c,
			belongsTo("user", users.Id, "Whose consent this is."),
			requiredOneOf("channel", "The channel that it is about.", "sms", "email", "push"),
			requiredOneOf("kind", "The messages that it is about: those that advertise.", "promotional"),
			granted,
			text("source", 500, "Where it was given, such as the sign-up form, paper or an import."),
			text("wording", 5000, "The exact words that the person agreed to."),
			text("wordingVersion", 100, "Your own name for that version of the words; may stay empty."),
			text("address", 255, "The phone number or e-mail address that it is about: the person's own at that time, filled in by the server."),
			oneOf("recordedBy", "Who made this row: the person, a superuser, or the server after a STOP or an unsubscribe.", "person", "superuser", "server"),
			text("ip", 64, "The network address that the request came from, filled in by the server."),
			text("userAgent", 500, "The program that the request came from, filled in by the server."),
		)
		c.AddIndex("idx_gw_consents_user", false, "`user`, `channel`, `kind`, `created`", "")
		c.AddIndex("idx_gw_consents_address", false, "`channel`, `address`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_consents: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_consents")
	})
}
