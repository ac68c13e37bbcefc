package migrations

import (
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		if _, err := txApp.FindCollectionByNameOrId("erasures"); err == nil {
			return errors.New(`a collection called "erasures" is already there, and Groundwork needs the name: rename yours in the dashboard and start again`)
		}
		// The rules stay empty: superusers only. Nothing in it tells who was erased:
		// what that takes is sealed in groundwork_sealed until it is done.
		c := newCollection("gw_erasures", "erasures")
		c.System = true
		addFields(c,
			requiredOneOf("status", "Erasing: at work. Compacting: all is deleted, and the freed space is about to be overwritten. Done: nothing is left.",
				"erasing", "compacting", "done"),
			requiredOneOf("origin", "Who asked for it: the person, a superuser by the erase route, the command line, or somebody who deleted the record.",
				"self", "superuser", "command", "deletion"),
			text("collection", 255, "The collection that the account was in."),
			jsonField("counts", 10000, "How many rows and files were deleted or emptied, by kind."),
			date("finishedAt", "When it was done."),
		)
		c.AddIndex("idx_gw_erasures_open", false, "`status`", "`status` != 'done'")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create erasures: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_erasures")
	})
}
