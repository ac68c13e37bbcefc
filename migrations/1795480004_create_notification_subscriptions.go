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
		c := newCollection("gw_subscriptions", "notification_subscriptions")
		c.ListRule = types.Pointer(ownerRule(users))
		c.ViewRule = types.Pointer(ownerRule(users))
		c.CreateRule = types.Pointer(`topic.open = true && (user = "" || user = @request.auth.id) && ` + signedInRule(users))
		c.DeleteRule = types.Pointer(ownerRule(users))
		addFields(c,
			belongsTo("topic", "gw_topics", "The topic that the person gets messages of."),
			belongsTo("user", users.Id, "Who subscribed; it cannot be changed later."),
		)
		c.AddIndex("idx_gw_subscriptions_topic_user", true, "`topic`, `user`", "")
		c.AddIndex("idx_gw_subscriptions_user", false, "`user`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_subscriptions: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_subscriptions")
	})
}
