package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// A plain table, not a collection: it only limits how often a device changes
		// hands. tokenHash is SHA-256 in hex, so that the table gives no device away;
		// movedAt is Unix milliseconds.
		for _, sql := range []string{
			`CREATE TABLE {{groundwork_device_moves}} (
				[[id]]        INTEGER PRIMARY KEY,
				[[tokenHash]] TEXT NOT NULL,
				[[fromUser]]  TEXT NOT NULL,
				[[toUser]]    TEXT NOT NULL,
				[[counted]]   INTEGER NOT NULL,
				[[movedAt]]   INTEGER NOT NULL
			)`,
			`CREATE INDEX [[idx_groundwork_device_moves_token]] ON {{groundwork_device_moves}} ([[tokenHash]], [[movedAt]])`,
			`CREATE INDEX [[idx_groundwork_device_moves_user]] ON {{groundwork_device_moves}} ([[toUser]], [[movedAt]])`,
			`CREATE INDEX [[idx_groundwork_device_moves_age]] ON {{groundwork_device_moves}} ([[movedAt]])`,
		} {
			if _, err := txApp.DB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("create groundwork_device_moves: %w", err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{groundwork_device_moves}}").Execute(); err != nil {
			return fmt.Errorf("drop groundwork_device_moves: %w", err)
		}
		return nil
	})
}
