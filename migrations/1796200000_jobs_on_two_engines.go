package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		for _, sql := range []string{
			// Who may read the result, and the key of those who may do the work.
			`ALTER TABLE {{groundwork_outbox}} ADD COLUMN [[owner]] TEXT NOT NULL DEFAULT ''`,
			`ALTER TABLE {{groundwork_outbox}} ADD COLUMN [[share]] TEXT NOT NULL DEFAULT ''`,
			// One row, once it is needed: the name of this data folder among those that
			// share a jobs database.
			`CREATE TABLE {{groundwork_installation}} ([[id]] TEXT PRIMARY KEY NOT NULL)`,
		} {
			if _, err := txApp.DB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("make the tables of jobs in Postgres: %w", err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		for _, sql := range []string{
			`DROP TABLE IF EXISTS {{groundwork_installation}}`,
			`ALTER TABLE {{groundwork_outbox}} DROP COLUMN [[share]]`,
			`ALTER TABLE {{groundwork_outbox}} DROP COLUMN [[owner]]`,
		} {
			if _, err := txApp.DB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("drop the tables of jobs in Postgres: %w", err)
			}
		}
		return nil
	})
}
