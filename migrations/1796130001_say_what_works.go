package migrations

import (
	"fmt"
	"slices"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	helps := []fieldHelp{
		{
			"gw_phone_sign_in", "testNumbers",
			`Up to 20 numbers with a fixed code, for people who review your app in a store: [{"phone": "+15550100", "code": "123456"}]. Nothing is ever sent to them.`,
			`Up to 20 numbers with a fixed code, for people who review your app in a store: [{"phone": "+12025550100", "code": "123456"}]. Nothing is ever sent to them.`,
		},
		{
			"gw_phone_sign_in", "collection",
			"The collection whose people sign in, such as users; its One-time password (OTP) option must be on too.",
			"The collection whose people sign in, such as users. One-time password (OTP) must be on too: open that collection, then its gear, then Options.",
		},
		{
			"gw_templates", "key",
			"The short name of this template, such as order_shipped.",
			"The short name of this template, such as order_shipped, without spaces.",
		},
		{
			"gw_preferences", "enabled",
			"On: the person wants these messages. Off: they get none of them.",
			"On: the person wants these messages, outside of quiet hours. Off: they get none of them.",
		},
	}
	rewrite := func(txApp core.App, back bool) error {
		return unlockSchema(txApp, func() error {
			all := helps
			if users, err := usersCollection(txApp); err == nil {
				all = append(slices.Clone(helps), fieldHelp{
					users.Id, "phone",
					"The person's mobile number with country code, such as +4915112345678; only they and administrators see it.",
					"The person's mobile number with country code, such as +4915112345678; only they and administrators see it. The first sign-in by SMS at an unverified number ends the old password.",
				})
			}
			for _, h := range all {
				c, err := txApp.FindCollectionByNameOrId(h.collection)
				if err != nil {
					continue // it is gone, and its fields with it
				}
				from, to := h.before, h.after
				if back {
					from, to = to, from
				}
				rewriteHelp(c.Fields.GetByName(h.field), from, to)
				// Without validation: a system collection refuses its own save.
				if err := txApp.SaveNoValidate(c); err != nil {
					return fmt.Errorf("rewrite the help texts of %s: %w", c.Name, err)
				}
			}
			return nil
		})
	}
	pbmigrations.Register(func(txApp core.App) error {
		return rewrite(txApp, false)
	}, func(txApp core.App) error {
		return rewrite(txApp, true)
	})
}
