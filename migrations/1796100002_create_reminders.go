package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		for _, sql := range []string{
			// Dates that a trigger has been through with, so that none is told twice: the
			// field and its value, and after when the row is of no use any more.
			`CREATE TABLE {{groundwork_reminders}} (
				[[trigger]] TEXT NOT NULL,
				[[record]]  TEXT NOT NULL,
				[[date]]    TEXT NOT NULL,
				[[past]]    TEXT NOT NULL,
				PRIMARY KEY ([[trigger]], [[record]], [[date]])
			) WITHOUT ROWID`,
			`CREATE INDEX [[idx_groundwork_reminders_past]] ON {{groundwork_reminders}} ([[trigger]], [[past]])`,
			// How far each trigger has looked, and at what.
			`CREATE TABLE {{groundwork_reminder_scans}} (
				[[trigger]] TEXT PRIMARY KEY NOT NULL,
				[[watches]] TEXT NOT NULL,
				[[until]]   TEXT NOT NULL
			) WITHOUT ROWID`,
		} {
			if _, err := txApp.DB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("create groundwork_reminders and groundwork_reminder_scans: %w", err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		for _, table := range []string{"groundwork_reminders", "groundwork_reminder_scans"} {
			if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{" + table + "}}").Execute(); err != nil {
				return fmt.Errorf("drop %s: %w", table, err)
			}
		}
		return nil
	})
}
