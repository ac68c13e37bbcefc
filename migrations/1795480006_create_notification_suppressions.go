package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		address := text("address", 1000, "The e-mail address or phone number that gets nothing more on this channel.")
		address.Required, address.Presentable = true, true

		c := newCollection("gw_suppressions", "notification_suppressions")
		addFields(c,
			requiredOneOf("channel", "The channel on which nothing is sent to the address.", "push", "email", "sms", "inbox"),
			address,
			oneOf("kind", "Which messages are held back; empty means all of them.", "transactional", "promotional"),
			requiredOneOf("reason", "Why: the person answered STOP, unsubscribed or complained, the address bounced, or you added it.",
				"stop", "unsubscribe", "bounce", "complaint", "manual"),
		)
		c.AddIndex("idx_gw_suppressions_channel_address_kind", true, "`channel`, `address`, `kind`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_suppressions: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_suppressions")
	})
}
