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
		title := text("title", 500, "The headline of the message.")
		title.Presentable = true

		c := newCollection("gw_inbox", "notification_inbox")
		c.ListRule = types.Pointer(ownerRule(users))
		c.ViewRule = types.Pointer(ownerRule(users))
		c.UpdateRule = types.Pointer(ownerRule(users))
		addFields(c,
			belongsTo("user", users.Id, "Whose inbox it is in; it cannot be changed later."),
			// A plain id: a broadcast has one row here for each person.
			text("notification", 64, "The notification that it came with."),
			title,
			text("body", 20000, "The text of the message."),
			jsonField("data", 100000, "Extra values for the app, as JSON; people do not see them."),
			text("image", 2000, "The address of a picture to show with the message."),
			text("link", 2000, "What opens when the person taps the message."),
			date("readAt", "When the person read it; empty means unread."),
		)
		c.AddIndex("idx_gw_inbox_user", false, "`user`, `created`", "")
		c.AddIndex("idx_gw_inbox_notification", false, "`notification`, `user`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_inbox: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_inbox")
	})
}
