package migrations

import (
	"fmt"
	"slices"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
	"github.com/pocketbase/pocketbase/tools/types"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// The batches of pushes whose people may still get an SMS instead. A plain table:
		// nobody reads it through the API.
		if _, err := txApp.DB().NewQuery(`CREATE TABLE {{groundwork_fallbacks}} (
			[[notification]] TEXT NOT NULL,
			[[batch]]        INTEGER NOT NULL,
			PRIMARY KEY ([[notification]], [[batch]])
		) WITHOUT ROWID`).Execute(); err != nil {
			return fmt.Errorf("create groundwork_fallbacks: %w", err)
		}
		c, err := txApp.FindCollectionByNameOrId("gw_notifications")
		if err != nil {
			return fmt.Errorf("find notifications: %w", err)
		}
		f := count("smsAfterMinutes", "Who has not opened the push after this many minutes, or has no device, gets it as an SMS; empty means nobody does.")
		f.Max = types.Pointer(7 * 24 * 60.0)
		f.SetSystem(true)
		// Behind localTime, with the other times.
		at := 1 + slices.IndexFunc(c.Fields, func(f core.Field) bool { return f.GetName() == "localTime" })
		if at == 0 {
			at = len(c.Fields)
		}
		c.Fields.AddAt(at, f)
		return unlockSchema(txApp, func() error {
			if err := txApp.SaveNoValidate(c); err != nil {
				return fmt.Errorf("add smsAfterMinutes to notifications: %w", err)
			}
			return nil
		})
	}, func(txApp core.App) error {
		if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{groundwork_fallbacks}}").Execute(); err != nil {
			return fmt.Errorf("drop groundwork_fallbacks: %w", err)
		}
		c, err := txApp.FindCollectionByNameOrId("gw_notifications")
		if err != nil {
			return nil // it is gone, and the field with it
		}
		c.Fields.RemoveByName("smsAfterMinutes")
		return unlockSchema(txApp, func() error { return txApp.SaveNoValidate(c) })
	})
}
