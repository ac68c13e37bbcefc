package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		users, err := usersCollection(txApp)
		if err != nil {
			return err
		}
		template := relation("template", "gw_templates", 1, "The template of the message.")
		template.Required = true
		collection := text("collection", 255, "The collection whose records are watched.")
		collection.Required = true
		channels := manyOf("channels", "How the message reaches the person.", "push", "email", "sms", "inbox")
		channels.Required = true

		c := newCollection("gw_triggers", "notification_triggers")
		addFields(c,
			requiredText("name", 200, "What you call this trigger, such as Receipt."),
			collection,
			requiredOneOf("event", "When it fires: a record is created, updated or deleted, or a date in it comes.",
				"created", "updated", "deleted", "date"),
			text("condition", 5000, `Which records it fires for, such as status = "paid"; empty means all, and updated fires when it becomes true.`),
			template,
			channels,
			text("recipient", 500, "The field that leads to the person, such as buyer; empty means the record itself, when people sign in with it."),
			count("delayMinutes", "How many minutes to wait before sending."),
			text("dateField", 255, "The date field that a reminder goes by, when the event is date."),
			&core.NumberField{Name: "offsetMinutes", OnlyInt: true, Help: "How many minutes after that date the reminder goes out; negative means before."},
			boolField("includeImports", "Whether records that are imported in bulk fire it too."),
			count("capPerHour", "The most messages one person gets from this trigger in an hour; empty or 0 means no cap."),
			boolField("enabled", "Whether it is switched on."),
		)
		c.AddIndex("idx_gw_triggers_collection", false, "`collection`, `event`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_triggers: %w", err)
		}

		r := core.NewRecord(c)
		r.Load(map[string]any{
			"id": "gwwelcome000000", "name": "Welcome", "collection": users.Name, "event": "created",
			"template": "gwwelcome000000", "channels": []string{"email", "inbox"}, "enabled": false,
		})
		if err := txApp.Save(r); err != nil {
			return fmt.Errorf("create trigger Welcome: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_triggers")
	})
}
