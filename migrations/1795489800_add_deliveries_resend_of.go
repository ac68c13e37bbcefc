package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		c, err := txApp.FindCollectionByNameOrId("gw_deliveries")
		if err != nil {
			return fmt.Errorf("find notification_deliveries: %w", err)
		}
		f := text("resendOf", 64, "The delivery that this one repeats, when somebody asked for it to be sent again.")
		f.SetSystem(true)
		c.Fields.Add(f)
		// One index for what is pending of a batch, and for the counts by status: it
		// is kept up to date once a change instead of twice.
		c.RemoveIndex("idx_gw_deliveries_status")
		c.RemoveIndex("idx_gw_deliveries_batch")
		c.AddIndex("idx_gw_deliveries_progress", false, "`notification`, `batch`, `status`", "")
		return unlockSchema(txApp, func() error {
			if err := txApp.Save(c); err != nil {
				return fmt.Errorf("add resendOf to notification_deliveries: %w", err)
			}
			return nil
		})
	}, func(txApp core.App) error {
		c, err := txApp.FindCollectionByNameOrId("gw_deliveries")
		if err != nil {
			return nil // it is gone, and the field with it
		}
		c.Fields.RemoveByName("resendOf")
		c.RemoveIndex("idx_gw_deliveries_progress")
		c.AddIndex("idx_gw_deliveries_status", false, "`notification`, `status`", "")
		c.AddIndex("idx_gw_deliveries_batch", false, "`notification`, `batch`", "")
		return unlockSchema(txApp, func() error { return txApp.SaveNoValidate(c) })
	})
}
