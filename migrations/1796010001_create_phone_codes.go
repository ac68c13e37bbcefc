package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// Plain tables, not collections: nobody reads them through the API. Neither
		// holds a number or a code that can be read: prefixKey and digest are HMACs under
		// GROUNDWORK_KEY, phone is sealed. Times are Unix milliseconds.
		for _, sql := range []string{
			`CREATE TABLE {{groundwork_phone_codes}} (
				[[id]]         TEXT PRIMARY KEY NOT NULL,
				[[purpose]]    TEXT NOT NULL,
				[[collection]] TEXT NOT NULL,
				[[record]]     TEXT NOT NULL,
				[[phone]]      BLOB NOT NULL,
				[[digest]]     BLOB NOT NULL,
				[[tries]]      INTEGER NOT NULL DEFAULT 0,
				[[expiresAt]]  INTEGER NOT NULL
			)`,
			`CREATE INDEX [[idx_groundwork_phone_codes_expires]] ON {{groundwork_phone_codes}} ([[expiresAt]])`,
			`CREATE TABLE {{groundwork_phone_texts}} (
				[[id]]         INTEGER PRIMARY KEY,
				[[collection]] TEXT NOT NULL,
				[[prefixKey]]  TEXT NOT NULL,
				[[counted]]    INTEGER NOT NULL,
				[[at]]         INTEGER NOT NULL
			)`,
			`CREATE INDEX [[idx_groundwork_phone_texts_prefix]] ON {{groundwork_phone_texts}} ([[collection]], [[prefixKey]], [[at]]) WHERE [[counted]] = 1`,
			`CREATE INDEX [[idx_groundwork_phone_texts_all]] ON {{groundwork_phone_texts}} ([[collection]], [[at]]) WHERE [[counted]] = 1`,
			`CREATE INDEX [[idx_groundwork_phone_texts_age]] ON {{groundwork_phone_texts}} ([[at]])`,
		} {
			if _, err := txApp.DB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("create groundwork_phone_codes and groundwork_phone_texts: %w", err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		for _, table := range []string{"groundwork_phone_codes", "groundwork_phone_texts"} {
			if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{" + table + "}}").Execute(); err != nil {
				return fmt.Errorf("drop %s: %w", table, err)
			}
		}
		return nil
	})
}
