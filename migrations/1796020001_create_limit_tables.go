package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// Plain tables in auxiliary.db: what counts a request is written while a
		// transaction of data.db may be open, and stays when that one is undone.
		// Keys are HMACs, times are Unix milliseconds. They may be there already: the
		// server makes them again when somebody has deleted that file.
		for _, sql := range []string{
			`CREATE TABLE IF NOT EXISTS {{groundwork_limit_arrivals}} (
				[[id]]    INTEGER PRIMARY KEY,
				[[key]]   BLOB NOT NULL,
				[[at]]    INTEGER NOT NULL,
				[[until]] INTEGER NOT NULL
			)`,
			`CREATE INDEX IF NOT EXISTS [[idx_groundwork_limit_arrivals_key]] ON {{groundwork_limit_arrivals}} ([[key]], [[at]])`,
			`CREATE INDEX IF NOT EXISTS [[idx_groundwork_limit_arrivals_until]] ON {{groundwork_limit_arrivals}} ([[until]])`,
			`CREATE TABLE IF NOT EXISTS {{groundwork_limit_codes}} (
				[[code]]    BLOB PRIMARY KEY NOT NULL,
				[[account]] BLOB NOT NULL,
				[[until]]   INTEGER NOT NULL
			) WITHOUT ROWID`,
			`CREATE INDEX IF NOT EXISTS [[idx_groundwork_limit_codes_until]] ON {{groundwork_limit_codes}} ([[until]])`,
			`CREATE TABLE IF NOT EXISTS {{groundwork_known_addresses}} (
				[[account]] BLOB NOT NULL,
				[[address]] BLOB NOT NULL,
				[[seenAt]]  INTEGER NOT NULL,
				PRIMARY KEY ([[account]], [[address]])
			) WITHOUT ROWID`,
			`CREATE INDEX IF NOT EXISTS [[idx_groundwork_known_addresses_seen]] ON {{groundwork_known_addresses}} ([[seenAt]])`,
		} {
			if _, err := txApp.AuxDB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("create the tables of the rate limits: %w", err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		for _, table := range []string{"groundwork_limit_arrivals", "groundwork_limit_codes", "groundwork_known_addresses"} {
			if _, err := txApp.AuxDB().NewQuery("DROP TABLE IF EXISTS {{" + table + "}}").Execute(); err != nil {
				return fmt.Errorf("drop %s: %w", table, err)
			}
		}
		return nil
	})
}
