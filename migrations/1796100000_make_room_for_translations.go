package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	// What is sent holds the texts of a template in all languages: as much as the
	// template's own fields may.
	resize := func(txApp core.App, size int64) error {
		c, err := txApp.FindCollectionByNameOrId("gw_notifications")
		if err != nil {
			return fmt.Errorf("find notifications: %w", err)
		}
		content, ok := c.Fields.GetByName("content").(*core.JSONField)
		if !ok {
			return fmt.Errorf("the field content of %s is no JSON field", c.Name)
		}
		content.MaxSize = size
		return unlockSchema(txApp, func() error {
			if err := txApp.SaveNoValidate(c); err != nil {
				return fmt.Errorf("make room for translations in %s: %w", c.Name, err)
			}
			return nil
		})
	}
	pbmigrations.Register(func(txApp core.App) error {
		return resize(txApp, 8_000_000)
	}, func(txApp core.App) error {
		if _, err := txApp.FindCollectionByNameOrId("gw_notifications"); err != nil {
			return nil // it is gone, and the field with it
		}
		return resize(txApp, 2_000_000)
	})
}
