package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	const (
		before = "Send at that time on each person's own clock instead of at one moment."
		after  = "Send at that time on each person's own clock instead of at one moment. The time is read on the clock of DEFAULT_TIMEZONE (UTC unless set); without sendAt it is the time at which you send."
	)
	help := func(txApp core.App, from, to string) error {
		c, err := txApp.FindCollectionByNameOrId("gw_notifications")
		if err != nil {
			return nil // it is gone, and the field with it
		}
		f, ok := c.Fields.GetByName("localTime").(*core.BoolField)
		if !ok || f.Help != from {
			return nil // an administrator wrote another one
		}
		f.Help = to
		return unlockSchema(txApp, func() error { return txApp.SaveNoValidate(c) })
	}
	pbmigrations.Register(func(txApp core.App) error {
		// When a batch is due, and whether its people have missed their day.
		for _, column := range []string{"[[runAt]] TEXT NOT NULL DEFAULT ''", "[[missed]] BOOLEAN NOT NULL DEFAULT FALSE"} {
			if _, err := txApp.DB().NewQuery("ALTER TABLE {{groundwork_batches}} ADD COLUMN " + column).Execute(); err != nil {
				return fmt.Errorf("add %s to groundwork_batches: %w", column, err)
			}
		}
		return help(txApp, before, after)
	}, func(txApp core.App) error {
		for _, column := range []string{"runAt", "missed"} {
			if _, err := txApp.DB().NewQuery("ALTER TABLE {{groundwork_batches}} DROP COLUMN [[" + column + "]]").Execute(); err != nil {
				return fmt.Errorf("drop %s of groundwork_batches: %w", column, err)
			}
		}
		return help(txApp, after, before)
	})
}
