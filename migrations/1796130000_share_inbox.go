package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		for _, sql := range []string{
			// What was sent to everybody's inbox is one row here, and becomes one in
			// somebody's inbox when that person looks. seq is NULL until it is sent, and
			// then higher than that of all before; people get it, skipped had switched
			// its category off. Plain tables: nobody reads them through the API.
			`CREATE TABLE {{groundwork_inbox_everyone}} (
				[[notification]] TEXT PRIMARY KEY NOT NULL,
				[[seq]]          INTEGER UNIQUE,
				[[sentAt]]       TEXT NOT NULL DEFAULT '',
				[[category]]     TEXT NOT NULL DEFAULT '',
				[[optional]]     BOOLEAN NOT NULL DEFAULT FALSE,
				[[people]]       INTEGER NOT NULL DEFAULT 0,
				[[skipped]]      INTEGER NOT NULL DEFAULT 0
			)`,
			// The last one that somebody's own inbox has, or does not need to have.
			`CREATE TABLE {{groundwork_inbox_marks}} (
				[[user]] TEXT PRIMARY KEY NOT NULL,
				[[seq]]  INTEGER NOT NULL
			) WITHOUT ROWID`,
		} {
			if _, err := txApp.DB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("create the tables of inbox messages to everyone: %w", err)
			}
		}
		c, err := txApp.FindCollectionByNameOrId("gw_inbox")
		if err != nil {
			return fmt.Errorf("find notification_inbox: %w", err)
		}
		// Most messages are read: the count of the others stays cheap.
		c.AddIndex("idx_gw_inbox_unread", false, "`user`", "`readAt` = ''")
		return unlockSchema(txApp, func() error {
			if err := txApp.SaveNoValidate(c); err != nil {
				return fmt.Errorf("index the unread messages of notification_inbox: %w", err)
			}
			return nil
		})
	}, func(txApp core.App) error {
		for _, table := range []string{"groundwork_inbox_everyone", "groundwork_inbox_marks"} {
			if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{" + table + "}}").Execute(); err != nil {
				return fmt.Errorf("drop %s: %w", table, err)
			}
		}
		c, err := txApp.FindCollectionByNameOrId("gw_inbox")
		if err != nil {
			return nil // it is gone, and its indexes with it
		}
		c.RemoveIndex("idx_gw_inbox_unread")
		return unlockSchema(txApp, func() error { return txApp.SaveNoValidate(c) })
	})
}
