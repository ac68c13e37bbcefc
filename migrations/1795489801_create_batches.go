package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// A batch whose deliveries are not all rows yet: who is in it, as a JSON list
		// of ids, and how many deliveries that was when it was planned. A plain table:
		// nobody reads it through the API.
		if _, err := txApp.DB().NewQuery(`CREATE TABLE {{groundwork_batches}} (
			[[notification]] TEXT NOT NULL,
			[[batch]]        INTEGER NOT NULL,
			[[channel]]      TEXT NOT NULL,
			[[users]]        TEXT NOT NULL,
			[[planned]]      INTEGER NOT NULL,
			PRIMARY KEY ([[notification]], [[batch]])
		) WITHOUT ROWID`).Execute(); err != nil {
			return fmt.Errorf("create groundwork_batches: %w", err)
		}

		c, err := txApp.FindCollectionByNameOrId("gw_deliveries")
		if err != nil {
			return fmt.Errorf("find notification_deliveries: %w", err)
		}
		// Ids that begin with the time are written one after the other, which keeps
		// the pages of a broadcast together; PocketBase's 15 characters leave no room
		// for that beside 80 random bits.
		id, ok := c.Fields.GetByName("id").(*core.TextField)
		if !ok {
			return fmt.Errorf("the field id of %s is not a text", c.Name)
		}
		id.Max = 24
		// Every index costs a fifth of a delivery. A device's deliveries are found
		// through its owner, and only what providers call back about needs to be found
		// by their number.
		c.RemoveIndex("idx_gw_deliveries_device")
		c.AddIndex("idx_gw_deliveries_message", false, "`providerMessageId`", "`channel` = 'sms' AND `providerMessageId` != ''")
		// Rows of one person stand in it in the order in which they were written. A
		// condition such as user != '' would keep queries that compare with a parameter
		// from using it.
		c.RemoveIndex("idx_gw_deliveries_user")
		c.AddIndex("idx_gw_deliveries_user", false, "`user`", "")
		// What waits for a provider is found without reading the whole table; most
		// rows are never in it.
		c.AddIndex("idx_gw_deliveries_pending", false, "`notification`, `channel`", "`status` = 'pending'")
		return unlockSchema(txApp, func() error {
			if err := txApp.SaveNoValidate(c); err != nil {
				return fmt.Errorf("make room for longer ids in notification_deliveries: %w", err)
			}
			return nil
		})
	}, func(txApp core.App) error {
		if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{groundwork_batches}}").Execute(); err != nil {
			return fmt.Errorf("drop groundwork_batches: %w", err)
		}
		c, err := txApp.FindCollectionByNameOrId("gw_deliveries")
		if err != nil {
			return nil // it is gone, and its indexes with it
		}
		c.RemoveIndex("idx_gw_deliveries_pending")
		c.AddIndex("idx_gw_deliveries_user", false, "`user`, `created`", "`user` != ''")
		c.AddIndex("idx_gw_deliveries_device", false, "`device`", "`device` != ''")
		c.AddIndex("idx_gw_deliveries_message", false, "`providerMessageId`", "`providerMessageId` != ''")
		return unlockSchema(txApp, func() error { return txApp.SaveNoValidate(c) })
	})
}
