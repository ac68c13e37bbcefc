package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// Plain tables, not collections: nobody reads them through the API.
		// Times are RFC 3339 in UTC.
		for _, sql := range []string{
			`CREATE TABLE {{groundwork_outbox}} (
				[[id]]          TEXT PRIMARY KEY NOT NULL,
				[[kind]]        TEXT NOT NULL,
				[[args]]        TEXT NOT NULL DEFAULT '{}',
				[[queue]]       TEXT NOT NULL DEFAULT '',
				[[priority]]    INTEGER NOT NULL DEFAULT 0,
				[[maxAttempts]] INTEGER NOT NULL DEFAULT 0,
				[[runAt]]       TEXT NOT NULL DEFAULT '',
				[[uniqueKey]]   TEXT NOT NULL DEFAULT '',
				[[requestId]]   TEXT NOT NULL DEFAULT '',
				[[createdAt]]   TEXT NOT NULL DEFAULT ''
			)`,
			`CREATE TABLE {{groundwork_sealed}} (
				[[id]]        TEXT PRIMARY KEY NOT NULL,
				[[purpose]]   TEXT NOT NULL,
				[[box]]       BLOB NOT NULL,
				[[expiresAt]] TEXT NOT NULL DEFAULT ''
			)`,
			`CREATE INDEX [[idx_groundwork_sealed_expires]] ON {{groundwork_sealed}} ([[expiresAt]])`,
		} {
			if _, err := txApp.DB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("create groundwork_outbox and groundwork_sealed: %w", err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		for _, table := range []string{"groundwork_outbox", "groundwork_sealed"} {
			if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{" + table + "}}").Execute(); err != nil {
				return fmt.Errorf("drop %s: %w", table, err)
			}
		}
		return nil
	})
}
