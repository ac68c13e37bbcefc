package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		users, err := usersCollection(txApp)
		if err != nil {
			return err
		}
		title := text("title", 500, "The headline of the message; {{ user.name }} is replaced for each person.")
		title.Presentable = true

		c := newCollection("gw_notifications", "notifications")
		addFields(c,
			title,
			text("body", 20000, "The text of the message; {{ user.name }} is replaced for each person."),
			jsonField("data", 100000, "Extra values for the app, as JSON; people do not see them."),
			text("image", 2000, "The address of a picture to show with the message."),
			text("link", 2000, "What opens when someone taps the message: a web address or a link into your app."),
			relation("template", "gw_templates", 1, "A template to send instead of the title and body above."),
			jsonField("variables", 100000, "Values for the placeholders of the texts, as JSON, the same for everybody."),
			relation("category", "gw_categories", 1, "What kind of message this is; people can switch categories off."),
			manyOf("channels", "How it reaches people; each channel is one message to each person.", "push", "email", "sms", "inbox"),
			oneOf("audience", "Who gets it: chosen users, subscribers of topics, users found by a filter, or everyone.",
				"users", "topic", "filter", "everyone"),
			relation("users", users.Id, 10000, "The people who get it, when the audience is users."),
			relation("topics", "gw_topics", 100, "The topics whose subscribers get it, when the audience is topic."),
			text("filter", 5000, `Which users get it, when the audience is filter, such as verified = true && locale = "fr".`),
			date("sendAt", "When it goes out; empty means as soon as you send it."),
			date("expiresAt", "After this time nobody gets it any more; empty means no end."),
			boolField("localTime", "Send at that time on each person's own clock instead of at one moment."),
			jsonField("options", 100000, "Special settings for push messages, as JSON, such as priority and sound."),
			text("idempotencyKey", 255, "A key that lets a program repeat its request without sending twice."),
			oneOf("action", "What you want now: send, pause, resume or cancel; empty again once it is taken.",
				"send", "pause", "resume", "cancel"),
			count("confirmRecipients", "The number of people it goes to, typed by you, when that is everyone or more than 1,000."),
			oneOf("status", "Where it stands; set by itself.",
				"draft", "scheduled", "queued", "sending", "paused", "sent", "sent_with_failures", "failed", "cancelled", "expired"),
			text("statusReason", 2000, "Why it stands there, in one sentence."),
			count("total", "How many messages it makes, over all people and channels."),
			count("sent", "How many were handed over, the captured, delivered and opened ones included."),
			count("delivered", "How many are known to have arrived."),
			count("opened", "How many were opened."),
			count("failed", "How many could not be sent."),
			count("skipped", "How many were left out, because of a person's wish or a missing address."),
			count("pending", "How many are still to be sent."),
			count("unknown", "How many left without an answer; they are not sent again by themselves."),
			count("cancelled", "How many were cancelled before they left."),
			date("startedAt", "When the first message went out."),
			date("finishedAt", "When the last message was done."),
			hiddenJSON("content", 2000000, "The exact content that is being sent; kept by the server."),
			hiddenJSON("plan", 2000000, "How far the server has got; kept by the server."),
			text("requestId", 128, "The request that asked for it."),
			text("trigger", 64, "The trigger that made it, when one did."),
			text("sourceCollection", 255, "The collection of the record that it is about, when a trigger made it."),
			text("sourceRecord", 255, "The record that it is about, when a trigger made it."),
		)
		c.AddIndex("idx_gw_notifications_idempotency_key", true, "`idempotencyKey`", "`idempotencyKey` != ''")
		c.AddIndex("idx_gw_notifications_status", false, "`status`, `sendAt`", "")
		c.AddIndex("idx_gw_notifications_source", false, "`sourceCollection`, `sourceRecord`", "`sourceRecord` != ''")
		c.AddIndex("idx_gw_notifications_trigger", false, "`trigger`, `created`", "`trigger` != ''")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create notifications: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_notifications")
	})
}
