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
		token := text("token", 4096, "The address that Apple, Google or the browser gave this device.")
		token.Required = true
		model := text("model", 200, "What the device is, such as Pixel 9.")
		model.Presentable = true

		c := newCollection("gw_devices", "devices")
		c.ListRule = types.Pointer(ownerRule(users))
		c.ViewRule = types.Pointer(ownerRule(users))
		c.CreateRule = types.Pointer(signedInRule(users))
		c.UpdateRule = types.Pointer(ownerRule(users))
		c.DeleteRule = types.Pointer(ownerRule(users))
		addFields(c,
			belongsTo("user", users.Id, "Whose device it is."),
			requiredOneOf("platform", "What runs on the device.", "ios", "android", "web"),
			oneOf("pushService", "Who carries the push messages; empty means the usual one for the platform.", "apns", "fcm", "webpush"),
			token,
			text("app", 255, "The app's bundle or package id; empty means the only one there is."),
			oneOf("environment", "Apple's server for this build: production for the App Store and TestFlight, sandbox for builds from Xcode.", "production", "sandbox"),
			text("locale", 35, "The device's language, such as en or fr-CA."),
			text("timezone", 64, "The device's time zone, such as Europe/Berlin."),
			text("appVersion", 64, "The version of the app on the device, such as 1.4.2."),
			model,
			text("session", 64, "The sign-in that registered the device; set by itself."),
			oneOf("status", "Whether pushes reach it: active, gone (removed or token expired) or signed out.", "active", "gone", "signed_out"),
			text("statusReason", 1000, "Why it is gone or signed out, in one sentence."),
			date("registeredAt", "When the device was last registered."),
		)
		c.AddIndex("idx_gw_devices_token", true, "`token`", "")
		c.AddIndex("idx_gw_devices_user", false, "`user`, `status`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create devices: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_devices")
	})
}
