package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
	"github.com/pocketbase/pocketbase/tools/types"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		users, err := usersCollection(txApp)
		if err != nil {
			return err
		}
		c := newCollection("gw_topics", "notification_topics")
		// Who may subscribe has to see what there is.
		c.ListRule = types.Pointer("open = true && " + signedInRule(users))
		c.ViewRule = types.Pointer("open = true && " + signedInRule(users))
		addFields(c,
			key("The short name of this topic, such as team-news."),
			requiredText("name", 200, "What people read when they choose topics."),
			boolField("open", "Whether people may subscribe themselves; otherwise only administrators add them."),
		)
		c.AddIndex("idx_gw_topics_key", true, "`key`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_topics: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_topics")
	})
}
