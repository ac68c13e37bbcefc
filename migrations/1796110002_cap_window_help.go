package migrations

import (
	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	helps := []struct{ field, before, after string }{
		{
			"frequencyCap",
			"The most messages one person gets in this category within the window; empty or 0 means no cap.",
			"The most messages one person gets in this category within the window; empty or 0 means no cap. A notification counts once, on however many channels it goes out.",
		},
		{
			"frequencyWindow",
			"The window of the cap in hours, such as 24.",
			"The window of the cap in hours; empty means 24.",
		},
	}
	rewrite := func(txApp core.App, back bool) error {
		c, err := txApp.FindCollectionByNameOrId("gw_categories")
		if err != nil {
			return nil // it is gone, and its fields with it
		}
		for _, h := range helps {
			from, to := h.before, h.after
			if back {
				from, to = to, from
			}
			rewriteHelp(c.Fields.GetByName(h.field), from, to)
		}
		return unlockSchema(txApp, func() error { return txApp.SaveNoValidate(c) })
	}
	pbmigrations.Register(func(txApp core.App) error {
		return rewrite(txApp, false)
	}, func(txApp core.App) error {
		return rewrite(txApp, true)
	})
}
