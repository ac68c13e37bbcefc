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
		c := newCollection("gw_categories", "notification_categories")
		// A preferences screen has to know what can be switched off.
		c.ListRule = types.Pointer("canOptOut = true && " + signedInRule(users))
		c.ViewRule = types.Pointer("canOptOut = true && " + signedInRule(users))
		addFields(c,
			key("The short name that programs use for this category; it is in no message."),
			requiredText("name", 200, "What people read in their notification settings, such as Order updates."),
			requiredOneOf("kind", "Transactional answers something the person did; promotional needs their consent. It cannot be changed later.",
				"transactional", "promotional"),
			text("description", 1000, "One sentence for the notification settings: what someone gets in this category."),
			boolField("canOptOut", "Whether people may switch this category off for themselves."),
			count("frequencyCap", "The most messages one person gets in this category within the window; empty or 0 means no cap."),
			count("frequencyWindow", "The window of the cap in hours, such as 24."),
		)
		c.AddIndex("idx_gw_categories_key", true, "`key`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_categories: %w", err)
		}

		for _, row := range []map[string]any{
			{"id": "gwtransactional", "key": "transactional", "kind": "transactional", "name": "Transactional", "canOptOut": false,
				"description": "Answers to what you did, such as receipts and reminders."},
			{"id": "gwpromotional00", "key": "promotional", "kind": "promotional", "name": "Promotional", "canOptOut": true,
				"description": "News and offers."},
			{"id": "gwaccount000000", "key": "account", "kind": "transactional", "name": "Account", "canOptOut": false,
				"description": "Sign-in codes, verification and password messages; their content is never kept."},
		} {
			r := core.NewRecord(c)
			r.Load(row)
			if err := txApp.Save(r); err != nil {
				return fmt.Errorf("create category %s: %w", row["key"], err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_categories")
	})
}
