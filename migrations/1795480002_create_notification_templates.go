package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		c := newCollection("gw_templates", "notification_templates")
		addFields(c,
			key("The short name of this template, such as order_shipped."),
			relation("category", "gw_categories", 1, "The category of the messages made from this template; empty means transactional."),
			text("title", 500, "The headline of a push or inbox message; {{ user.name }} is replaced for each person."),
			text("body", 20000, "The text of the message; {{ user.name }} is replaced for each person."),
			text("emailSubject", 500, "The subject of the e-mail; empty means the title."),
			text("emailHtml", 500000, "The HTML of the e-mail; empty means a plain e-mail with the body."),
			text("smsBody", 1600, "The text of the SMS; empty means the body."),
			jsonField("data", 100000, "Extra values for the app, as JSON; people do not see them."),
			jsonField("translations", 2000000, `Other languages, as JSON by language code, such as {"fr": {"title": "Bienvenue"}}.`),
			text("dataFrom", 255, "A collection or view with a user field: each person's rows there are the list called rows in the texts."),
		)
		c.AddIndex("idx_gw_templates_key", true, "`key`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_templates: %w", err)
		}

		r := core.NewRecord(c)
		r.Load(map[string]any{
			"id": "gwwelcome000000", "key": "welcome", "category": "gwtransactional",
			"title": "Welcome",
			"body":  "Thank you for signing up. It is good to have you here.",
		})
		if err := txApp.Save(r); err != nil {
			return fmt.Errorf("create template welcome: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_templates")
	})
}
