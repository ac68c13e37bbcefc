package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
	"github.com/pocketbase/pocketbase/tools/types"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		users, err := usersCollection(txApp)
		if err != nil {
			return err
		}
		category := relation("category", "gw_categories", 1, "The category that is switched on or off; empty means every category.")
		category.CascadeDelete = true
		quietFrom := text("quietFrom", 5, "When quiet hours begin on the person's own clock, such as 22:00.")
		quietFrom.Pattern = `^([01][0-9]|2[0-3]):[0-5][0-9]$`
		quietTo := text("quietTo", 5, "When quiet hours end on the person's own clock, such as 07:00.")
		quietTo.Pattern = `^([01][0-9]|2[0-3]):[0-5][0-9]$`

		c := newCollection("gw_preferences", "notification_preferences")
		c.ListRule = types.Pointer(ownerRule(users))
		c.ViewRule = types.Pointer(ownerRule(users))
		c.CreateRule = types.Pointer(`(user = "" || user = @request.auth.id) && ` + signedInRule(users))
		c.UpdateRule = types.Pointer(ownerRule(users))
		c.DeleteRule = types.Pointer(ownerRule(users))
		addFields(c,
			belongsTo("user", users.Id, "Whose wish this is; it cannot be changed later."),
			category,
			oneOf("channel", "The channel that is switched on or off; empty means every channel.", "push", "email", "sms", "inbox"),
			boolField("enabled", "On: the person wants these messages. Off: they get none of them."),
			quietFrom,
			quietTo,
		)
		c.AddIndex("idx_gw_preferences_user_category_channel", true, "`user`, `category`, `channel`", "")
		c.AddIndex("idx_gw_preferences_category", false, "`category`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_preferences: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_preferences")
	})
}
