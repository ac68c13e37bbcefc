package migrations

import (
	"fmt"
	"slices"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		c, err := txApp.FindCollectionByNameOrId("gw_deliveries")
		if err != nil {
			return fmt.Errorf("find notification_deliveries: %w", err)
		}
		f := boolField("test", "Whether it was a test that somebody asked for; tests are not counted in the notification.")
		f.SetSystem(true)
		// Before the fields that are for programs.
		if at := slices.Index(c.Fields.FieldNames(), "target"); at >= 0 {
			c.Fields.AddAt(at, f)
		} else {
			c.Fields.Add(f)
		}
		return unlockSchema(txApp, func() error {
			if err := txApp.SaveNoValidate(c); err != nil {
				return fmt.Errorf("add test to notification_deliveries: %w", err)
			}
			return nil
		})
	}, func(txApp core.App) error {
		c, err := txApp.FindCollectionByNameOrId("gw_deliveries")
		if err != nil {
			return nil // it is gone, and the field with it
		}
		c.Fields.RemoveByName("test")
		return unlockSchema(txApp, func() error { return txApp.SaveNoValidate(c) })
	})
}
