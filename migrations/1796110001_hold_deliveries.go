package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	// The few people who have quiet hours are found without reading everybody's wishes.
	const quietIndex = "idx_gw_preferences_quiet"

	pbmigrations.Register(func(txApp core.App) error {
		deliveries, err := txApp.FindCollectionByNameOrId("gw_deliveries")
		if err != nil {
			return fmt.Errorf("find notification_deliveries: %w", err)
		}
		held := date("heldUntil", "Until when it was held back for the person's quiet hours.")
		held.SetSystem(true)
		deliveries.Fields.Add(held)
		preferences, err := txApp.FindCollectionByNameOrId("gw_preferences")
		if err != nil {
			return fmt.Errorf("find notification_preferences: %w", err)
		}
		preferences.AddIndex(quietIndex, false, "`user`", "`quietFrom` != ''")
		return unlockSchema(txApp, func() error {
			for _, c := range []*core.Collection{deliveries, preferences} {
				if err := txApp.SaveNoValidate(c); err != nil {
					return fmt.Errorf("make %s ready for quiet hours: %w", c.Name, err)
				}
			}
			return nil
		})
	}, func(txApp core.App) error {
		return unlockSchema(txApp, func() error {
			if c, err := txApp.FindCollectionByNameOrId("gw_deliveries"); err == nil {
				c.Fields.RemoveByName("heldUntil")
				if err := txApp.SaveNoValidate(c); err != nil {
					return fmt.Errorf("remove heldUntil from %s: %w", c.Name, err)
				}
			}
			if c, err := txApp.FindCollectionByNameOrId("gw_preferences"); err == nil {
				c.RemoveIndex(quietIndex)
				if err := txApp.SaveNoValidate(c); err != nil {
					return fmt.Errorf("remove %s: %w", quietIndex, err)
				}
			}
			return nil
		})
	})
}
