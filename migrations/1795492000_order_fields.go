package migrations

import (
	"fmt"
	"slices"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

// fieldOrder is the order of one collection's fields, which the dashboard takes
// for its list and its form alike, before this migration and after it.
type fieldOrder struct {
	collection    string // id
	before, after []string
}

// fieldHelp is one help text before this migration and after it.
type fieldHelp struct {
	collection, field, before, after string
}

func init() {
	orders := []fieldOrder{
		{
			collection: "gw_notifications",
			before: []string{"id", "title", "body", "data", "image", "link", "template", "variables", "category", "channels", "audience", "users", "topics",
				"filter", "sendAt", "expiresAt", "localTime", "options", "idempotencyKey", "action", "confirmRecipients", "status", "statusReason", "total",
				"sent", "delivered", "opened", "failed", "skipped", "pending", "unknown", "cancelled", "startedAt", "finishedAt", "content", "plan",
				"requestId", "trigger", "sourceCollection", "sourceRecord", "created", "updated"},
			after: []string{"id", "title", "body", "channels", "audience", "users", "topics", "filter", "confirmRecipients", "action", "status", "statusReason",
				"total", "sent", "failed", "skipped", "pending", "template", "variables", "category", "sendAt", "expiresAt", "localTime", "image", "link",
				"data", "options", "delivered", "opened", "unknown", "cancelled", "startedAt", "finishedAt", "trigger", "sourceCollection", "sourceRecord",
				"idempotencyKey", "requestId", "content", "plan", "created", "updated"},
		},
		{
			collection: "gw_deliveries",
			before: []string{"id", "notification", "user", "device", "target", "batch", "channel", "kind", "category", "provider", "address", "status",
				"reason", "explanation", "rendered", "providerMessageId", "attempts", "nextAttemptAt", "acceptedAt", "deliveredAt", "requestId", "created",
				"updated", "resendOf"},
			after: []string{"id", "channel", "address", "status", "reason", "explanation", "rendered", "notification", "user", "device", "acceptedAt",
				"deliveredAt", "attempts", "nextAttemptAt", "provider", "providerMessageId", "kind", "category", "resendOf", "target", "batch", "requestId",
				"created", "updated"},
		},
		{
			collection: "gw_providers",
			before: []string{"id", "name", "channel", "source", "config", "secret", "senderId", "enabled", "ratePerSecond", "state", "stateReason", "action",
				"created", "updated"},
			after: []string{"id", "name", "channel", "enabled", "state", "stateReason", "action", "config", "secret", "senderId", "ratePerSecond", "source",
				"created", "updated"},
		},
		{
			collection: "gw_triggers",
			before: []string{"id", "name", "collection", "event", "condition", "template", "channels", "recipient", "delayMinutes", "dateField",
				"offsetMinutes", "includeImports", "capPerHour", "enabled", "created", "updated"},
			after: []string{"id", "name", "enabled", "collection", "event", "condition", "template", "channels", "recipient", "delayMinutes", "capPerHour",
				"includeImports", "dateField", "offsetMinutes", "created", "updated"},
		},
		{
			collection: "gw_templates",
			before: []string{"id", "key", "category", "title", "body", "emailSubject", "emailHtml", "smsBody", "data", "translations", "dataFrom", "created",
				"updated"},
			after: []string{"id", "key", "title", "body", "emailSubject", "emailHtml", "smsBody", "category", "data", "translations", "dataFrom", "created",
				"updated"},
		},
		{
			collection: "gw_devices",
			before: []string{"id", "user", "platform", "pushService", "token", "app", "environment", "locale", "timezone", "appVersion", "model", "session",
				"status", "statusReason", "registeredAt", "created", "updated"},
			after: []string{"id", "user", "platform", "model", "status", "statusReason", "appVersion", "registeredAt", "locale", "timezone", "app",
				"pushService", "environment", "token", "session", "created", "updated"},
		},
	}
	helps := []fieldHelp{
		{
			"gw_providers", "config",
			`Its settings, as JSON, such as {"host": "smtp.example.com", "port": 587, "tls": "starttls"}.`,
			`Its settings, as JSON, such as {"host": "smtp.example.com", "port": 587, "tls": "starttls", "username": "shop"}. The keys for APNs, FCM and SMS are in the reference.`,
		},
		{
			"gw_providers", "secret",
			"The password or key; it is stored encrypted and never shown again, and leaving it empty keeps the old one.",
			"E-mail: the password; APNs: the text of the .p8 file; FCM: the service account JSON; SMS: the auth token. Stored encrypted and never shown again; leaving it empty keeps the old one.",
		},
		{
			"gw_notifications", "total",
			"How many messages it makes, over all people and channels.",
			`How many messages it makes, over all people and channels; to see them, open notification_deliveries and search for notification = "this id".`,
		},
		{
			"gw_notifications", "confirmRecipients",
			"The number of people it goes to, typed by you, when that is everyone or more than 1,000.",
			"Needed when it goes to everyone or to more than 1,000 people: type how many; leave it empty and send, and you are told the number.",
		},
		{
			"gw_notifications", "status",
			"Where it stands; set by itself.",
			"Where it stands; set by the server, and what you change here is ignored.",
		},
		{
			"gw_deliveries", "user",
			"Who it is for.",
			"Who it is for: the id of a record in users.",
		},
	}

	pbmigrations.Register(func(txApp core.App) error {
		return arrangeFields(txApp, orders, helps)
	}, func(txApp core.App) error {
		back := make([]fieldOrder, len(orders))
		for i, o := range orders {
			back[i] = fieldOrder{o.collection, o.after, o.before}
		}
		helpBack := make([]fieldHelp, len(helps))
		for i, h := range helps {
			helpBack[i] = fieldHelp{h.collection, h.field, h.after, h.before}
		}
		return arrangeFields(txApp, back, helpBack)
	})
}

// arrangeFields puts fields and help texts from their state before to the one
// after. What an administrator has changed in the meantime is left alone.
func arrangeFields(txApp core.App, orders []fieldOrder, helps []fieldHelp) error {
	return unlockSchema(txApp, func() error {
		for _, o := range orders {
			c, err := txApp.FindCollectionByNameOrId(o.collection)
			if err != nil {
				continue // it is gone, and its fields with it
			}
			c.Fields = arranged(c.Fields, o.before, o.after)
			for _, h := range helps {
				if h.collection == o.collection {
					rewriteHelp(c.Fields.GetByName(h.field), h.before, h.after)
				}
			}
			// Without validation: no order is wrong, a system collection refuses its own
			// save, and a rule that broke since is nothing to stop the start for.
			if err := txApp.SaveNoValidate(c); err != nil {
				return fmt.Errorf("arrange the fields of %s: %w", c.Name, err)
			}
		}
		return nil
	})
}

// arranged returns fields in the order after if they are in the order before.
// Others than those named there stay behind the field that they stood behind.
func arranged(fields core.FieldsList, before, after []string) core.FieldsList {
	var first core.FieldsList // what stands before all named ones
	groups := map[string]core.FieldsList{}
	var found []string
	for _, f := range fields {
		if slices.Contains(before, f.GetName()) {
			found = append(found, f.GetName())
		}
		if len(found) == 0 {
			first = append(first, f)
			continue
		}
		last := found[len(found)-1]
		groups[last] = append(groups[last], f)
	}
	if !slices.Equal(found, before) {
		return fields
	}
	out := first
	for _, name := range after {
		out = append(out, groups[name]...)
	}
	return out
}

func rewriteHelp(f core.Field, before, after string) {
	var help *string
	switch f := f.(type) {
	case *core.TextField:
		help = &f.Help
	case *core.NumberField:
		help = &f.Help
	case *core.SelectField:
		help = &f.Help
	case *core.JSONField:
		help = &f.Help
	case *core.BoolField:
		help = &f.Help
	}
	if help != nil && *help == before {
		*help = after
	}
}
