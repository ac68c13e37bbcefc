package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		c := newCollection("gw_deliveries", "notification_deliveries")
		c.System = true
		// notification, user, device and category hold plain ids: PocketBase
		// rewrites every row that relates to a deleted record, in one transaction,
		// and this is the largest table.
		addFields(c,
			text("notification", 64, "The notification that this message belongs to; empty for PocketBase's own mails."),
			text("user", 64, "Who it is for."),
			text("device", 64, "The device it goes to, for a push."),
			text("target", 64, "What it is addressed to: the person, or for a push the device."),
			count("batch", "The part of the notification that it is sent with."),
			requiredOneOf("channel", "How it is sent.", "push", "email", "sms", "inbox"),
			oneOf("kind", "Whether it answers something the person did, or advertises.", "transactional", "promotional"),
			text("category", 64, "The category it was sent under."),
			text("provider", 255, "Who carried it."),
			text("address", 255, "Where it went, mostly blanked out."),
			requiredOneOf("status", "What became of it.",
				"pending", "sending", "accepted", "delivered", "opened", "captured", "failed", "skipped", "unknown", "cancelled"),
			text("reason", 100, "Why, as a code for programs."),
			text("explanation", 2000, "Why, in one plain sentence."),
			jsonField("rendered", 2000000, "The message as it would have been sent, when it was captured."),
			text("providerMessageId", 255, "The provider's own number for the message."),
			count("attempts", "How often it was tried."),
			date("nextAttemptAt", "When it is tried next."),
			date("acceptedAt", "When the provider took it."),
			date("deliveredAt", "When it arrived, as far as the provider says."),
			text("requestId", 128, "The request that led to it."),
		)
		c.AddIndex("idx_gw_deliveries_target", true, "`notification`, `channel`, `target`", "`notification` != ''")
		c.AddIndex("idx_gw_deliveries_status", false, "`notification`, `status`", "")
		c.AddIndex("idx_gw_deliveries_batch", false, "`notification`, `batch`", "")
		c.AddIndex("idx_gw_deliveries_user", false, "`user`, `created`", "`user` != ''")
		c.AddIndex("idx_gw_deliveries_device", false, "`device`", "`device` != ''")
		c.AddIndex("idx_gw_deliveries_message", false, "`providerMessageId`", "`providerMessageId` != ''")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_deliveries: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_deliveries")
	})
}
