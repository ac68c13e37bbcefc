package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// No rows from the start: a client or a script that creates the row for ios
		// would meet one it does not know of.
		platform := requiredOneOf("platform", "The kind of device this row is about; there is one row for each.",
			"ios", "android", "web", "macos", "windows", "linux")
		platform.Presentable = true

		// The rules stay empty: superusers only. Apps ask GET /api/version-check.
		c := newCollection("gw_app_versions", "app_versions")
		addFields(c,
			platform,
			text("latest", 256, "The newest version people can install, such as 2.0.0; it is shown, and nobody has to update because of it."),
			text("minimum", 256, "Apps below this version must update before they can be used; a build number after + does not count."),
			text("recommended", 256, "Apps below this version suggest the update and work without it; a build number after + does not count."),
			text("storeUrl", 2000, "The address that the update button opens, such as the app's page in the store."),
			text("message", 2000, "What the app says to people when it asks for the update."),
			boolField("enabled", "Whether this row is in force; otherwise nobody on this platform is asked to update."),
		)
		c.AddIndex("idx_gw_app_versions_platform", true, "`platform`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create app_versions: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_app_versions")
	})
}
