package notifications_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/notifications"
)

// Code sends as the dashboard does: by a record. In a transaction the notification
// leaves with the commit, or not at all.
func ExampleNotification_Create() {
	app, ana, end := shop()
	defer end()

	err := app.RunInTransaction(func(txApp core.App) error {
		// … the order is stored here …
		n, err := notifications.NewNotification(txApp)
		if err != nil {
			return err
		}
		n.Set("title", "Thank you, {{ user.name }}")
		n.Set("body", "Order {{ number }} is on its way.")
		n.Set("variables", map[string]any{"number": "A-17"})
		n.Set("channels", []string{"email", "inbox"})
		n.Set("audience", string(notifications.AudienceUsers))
		n.Set("users", []string{ana.Id})
		n.Set("idempotencyKey", "receipt A-17") // a second one is refused
		return n.Create(txApp)
	})
	if err != nil {
		log.Fatal(err)
	}
	rows, err := app.FindAllRecords(notifications.CollectionNotifications)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(notifications.AsNotification(rows[0]).Status())
	// Output: queued
}

// What cannot be sent is refused at once, with a sentence for each field.
func ExampleFieldErrors() {
	app, _, end := shop()
	defer end()

	n, err := notifications.NewNotification(app)
	if err != nil {
		log.Fatal(err)
	}
	n.Set("title", "Hello {{ user.name }}")
	n.Set("channels", []string{"inbox"})
	n.Set("audience", string(notifications.AudienceEveryone))
	var refused notifications.FieldErrors
	if errors.As(n.Create(app), &refused) {
		fmt.Println(refused["confirmRecipients"].Sentence)
	}
	// Output: This goes to 1 person. If that is right, enter 1 here and send again.
}

// shop is an app with one person in it.
func shop() (app core.App, ana *core.Record, end func()) {
	dir, err := os.MkdirTemp("", "groundwork-example-")
	if err != nil {
		log.Fatal(err)
	}
	app = core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	hooks.MustRegister(app, hooks.Config{Key: strings.Repeat("k", 32), LogOutput: io.Discard, Console: io.Discard})
	if err := app.Bootstrap(); err != nil {
		log.Fatal(err)
	}
	if err := app.RunAllMigrations(); err != nil {
		log.Fatal(err)
	}
	users, err := app.FindCollectionByNameOrId("users")
	if err != nil {
		log.Fatal(err)
	}
	ana = core.NewRecord(users)
	ana.SetEmail("ana@example.com")
	ana.SetPassword("groundwork-test")
	ana.Set("name", "Ana")
	if err := app.Save(ana); err != nil {
		log.Fatal(err)
	}
	return app, ana, func() {
		_ = app.ClearBootstrap()
		_ = os.RemoveAll(dir)
	}
}
