package migrations

import (
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

// phoneLookupIndex finds the account of a number that nobody has proved yet; the
// proved ones have an index of their own.
const phoneLookupIndex = "idx_gw_users_phone_lookup"

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		if _, err := txApp.FindCollectionByNameOrId("phone_sign_in"); err == nil {
			return errors.New(`a collection called "phone_sign_in" is already there, and Groundwork needs the name: rename yours in the dashboard and start again`)
		}
		users, err := usersCollection(txApp)
		if err != nil {
			return err
		}

		// The rules stay empty: superusers only.
		c := newCollection("gw_phone_sign_in", "phone_sign_in")
		c.System = true
		addFields(c,
			requiredText("collection", 255, "The collection whose people sign in, such as users; its One-time password (OTP) option must be on too."),
			boolField("enabled", "Whether people of this collection can sign in with a code that they get by SMS."),
			boolField("phoneSignUp", "Whether a right code for an unknown number makes a new account. Switching it on makes the e-mail address of this collection optional."),
			jsonField("countries", 4000, `Where codes are sent, as country codes such as ["DE", "AT"]. Empty: in production only the country of your own SMS number, elsewhere everywhere.`),
			count("maxPerHour", "The most codes sent by SMS within an hour, over all numbers; empty means 500. It limits what an attack can cost."),
			count("maxPerPrefixPerHour", "The most codes sent within an hour to numbers that differ only in their last four digits; empty means 20."),
			jsonField("testNumbers", 8000, `Up to 20 numbers with a fixed code, for people who review your app in a store: [{"phone": "+15550100", "code": "123456"}]. Nothing is ever sent to them.`),
		)
		c.AddIndex("idx_gw_phone_sign_in_collection", true, "`collection`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create phone_sign_in: %w", err)
		}

		row := core.NewRecord(c)
		row.Load(map[string]any{"collection": users.Name, "enabled": true, "countries": []string{}, "testNumbers": []any{}, "maxPerHour": 500, "maxPerPrefixPerHour": 20})
		if err := txApp.Save(row); err != nil {
			return fmt.Errorf("create the phone_sign_in row of %s: %w", users.Name, err)
		}

		return unlockSchema(txApp, func() error {
			users.AddIndex(phoneLookupIndex, false, "`phone`", "`phone` != ''")
			if err := txApp.Save(users); err != nil {
				return fmt.Errorf("index phone of collection %s: %w", users.Name, err)
			}
			return nil
		})
	}, func(txApp core.App) error {
		users, err := usersCollection(txApp)
		if err == nil {
			err = unlockSchema(txApp, func() error {
				users.RemoveIndex(phoneLookupIndex)
				return txApp.SaveNoValidate(users)
			})
			if err != nil {
				return fmt.Errorf("remove index on phone of collection %s: %w", users.Name, err)
			}
		}
		return deleteCollections(txApp, "gw_phone_sign_in")
	})
}
