package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// Plain tables, not collections: nobody reads them through the API.
		for _, sql := range []string{
			// Texts of people that were acted on, so that each counts once.
			`CREATE TABLE {{groundwork_inbound}} (
				[[id]] TEXT PRIMARY KEY NOT NULL,
				[[at]] TEXT NOT NULL
			)`,
			`CREATE INDEX [[idx_groundwork_inbound_at]] ON {{groundwork_inbound}} ([[at]])`,
			// Deliveries whose provider was asked what became of them.
			`CREATE TABLE {{groundwork_polls}} (
				[[delivery]] TEXT PRIMARY KEY NOT NULL,
				[[polls]]    INTEGER NOT NULL DEFAULT 0,
				[[nextAt]]   TEXT NOT NULL
			)`,
			`CREATE INDEX [[idx_groundwork_polls_next]] ON {{groundwork_polls}} ([[nextAt]])`,
		} {
			if _, err := txApp.DB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("create groundwork_inbound and groundwork_polls: %w", err)
			}
		}
		// Those that wait for a receipt are looked for every minute.
		return changeDeliveryIndexes(txApp, func(c *core.Collection) {
			c.AddIndex("idx_gw_deliveries_receipts", false, "`status`, `updated`", "`channel` = 'sms'")
		})
	}, func(txApp core.App) error {
		for _, table := range []string{"groundwork_inbound", "groundwork_polls"} {
			if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{" + table + "}}").Execute(); err != nil {
				return fmt.Errorf("drop %s: %w", table, err)
			}
		}
		return changeDeliveryIndexes(txApp, func(c *core.Collection) {
			c.RemoveIndex("idx_gw_deliveries_receipts")
		})
	})
}

func changeDeliveryIndexes(txApp core.App, change func(c *core.Collection)) error {
	return unlockSchema(txApp, func() error {
		c, err := txApp.FindCollectionByNameOrId("gw_deliveries")
		if err != nil {
			return fmt.Errorf("find notification_deliveries: %w", err)
		}
		change(c)
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("change the indexes of notification_deliveries: %w", err)
		}
		return nil
	})
}
