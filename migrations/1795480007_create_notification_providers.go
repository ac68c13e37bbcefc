package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
	"github.com/pocketbase/pocketbase/tools/types"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		secret := text("secret", 200000, "The password or key; it is stored encrypted and never shown again, and leaving it empty keeps the old one.")
		secret.Hidden = true

		c := newCollection("gw_providers", "notification_providers")
		addFields(c,
			requiredText("name", 200, "What you call this provider, such as Our mail server."),
			requiredOneOf("channel", "What it sends; it cannot be changed later.",
				"apns", "fcm", "webpush", "email_transactional", "email_promotional", "sms_transactional", "sms_promotional"),
			oneOf("source", "Where it is set up: here, by environment variables, or in PocketBase's mail settings.",
				"dashboard", "environment", "settings"),
			jsonField("config", 100000, `Its settings, as JSON, such as {"host": "smtp.example.com", "port": 587, "tls": "starttls"}.`),
			secret,
			text("senderId", 255, "Who messages come from: an e-mail address, a phone number or a sender name."),
			boolField("enabled", "Whether messages may go out through it."),
			&core.NumberField{Name: "ratePerSecond", Min: types.Pointer(0.0), Help: "The most messages it sends in a second; empty or 0 means as fast as the other side takes them."},
			oneOf("state", "Whether it works: ok, failing for now, or paused because its setup is wrong.", "ok", "paused", "failing"),
			text("stateReason", 2000, "What is wrong with it, in one sentence."),
			oneOf("action", "Ask it to check its setup now, or to resume after a pause; empty again once done.", "check", "resume"),
		)
		c.AddIndex("idx_gw_providers_channel", false, "`channel`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notification_providers: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_providers")
	})
}
