package demo

import (
	"github.com/groundworkhq/groundwork/notifications"
)

// Categories that every installation has.
const (
	transactional = "gwtransactional"
	promotional   = "gwpromotional00"
)

// templates by their keys. A receipt lists the rows of its own order only.
var templates = []map[string]any{
	{
		"key": "receipt", "category": transactional, "dataFrom": "order_lines",
		"title":        "Thank you for your order, {{ user.name }}",
		"body":         "{% for line in rows %}{% if line.purchase == record.id %}{{ line.name }}: {{ line.price }} €\n{% endif %}{% endfor %}",
		"emailSubject": "Your receipt",
		"emailHtml": "<p>Hello {{ user.name }}, thank you for your order.</p>\n<table>{% assign total = 0 %}{% for line in rows %}{% if line.purchase == record.id %}" +
			"{% assign total = total | plus: line.price %}\n<tr><td>{{ line.name }}</td><td>{{ line.price }} €</td></tr>{% endif %}{% endfor %}\n" +
			"<tr><th>Total</th><th>{{ total }} €</th></tr></table>",
		"translations": map[string]any{"fr": map[string]any{
			"title": "Merci pour votre commande, {{ user.name }}", "emailSubject": "Votre reçu",
		}},
	},
	{
		"key": "shipped", "category": transactional, "title": "Your order is on its way",
		"body": "Hello {{ user.name }}, we have sent what you ordered on {{ record.created | date: \"%-d %B\" }}.",
	},
	{
		"key": "delivery-reminder", "category": transactional, "title": "We will be with you in an hour",
		"body": "Hello {{ user.name }}, somebody should be at home to take your order.",
	},
	{
		"key": "weekend-recommendations", "category": promotional, "dataFrom": "recommendations",
		"title":        "For your weekend, {{ user.name }}",
		"body":         "People who bought what you bought also like:{% for item in rows %}\n{{ item.name }}, {{ item.price }} €{% endfor %}",
		"emailSubject": "For your weekend",
		"emailHtml": "<p>Hello {{ user.name }}, people who bought what you bought also like:</p>\n<ul>{% for item in rows %}\n<li>{{ item.name }}, {{ item.price }} €</li>{% endfor %}</ul>\n" +
			"<p><a href=\"{{ unsubscribeUrl }}\">No more of these</a></p>",
		"translations": map[string]any{"fr": map[string]any{
			"title": "Pour votre week-end, {{ user.name }}", "emailSubject": "Pour votre week-end",
			"body": "D’autres clients aiment aussi :{% for item in rows %}\n{{ item.name }}, {{ item.price }} €{% endfor %}",
		}},
	},
}

// triggers with the key of their template. Orders that a superuser types into the
// dashboard get a receipt too (includeImports): nothing else in the demo places any.
var triggers = []map[string]any{
	{"name": "Receipt", "event": notifications.EventCreated, "condition": `status = "placed"`, "template": "receipt", "includeImports": true, "capPerHour": 20},
	{"name": "Shipped", "event": notifications.EventUpdated, "condition": `status = "shipped"`, "template": "shipped"},
	{
		"name": "Reminder", "event": notifications.EventDate, "dateField": "deliverAt", "offsetMinutes": -60,
		"condition": `status != "cancelled" && status != "delivered"`, "template": "delivery-reminder",
	},
}

func (s *shop) addMessages() error {
	ids := map[any]string{}
	for _, t := range templates {
		id, err := s.save(notifications.CollectionTemplates, t)
		if err != nil {
			return err
		}
		ids[t["key"]] = id
	}
	for _, t := range triggers {
		fields := map[string]any{"collection": "orders", "recipient": "buyer", "channels": []string{"email", "inbox"}, "enabled": true}
		for name, value := range t {
			fields[name] = value
		}
		fields["template"] = ids[t["template"]]
		if _, err := s.save(notifications.CollectionTriggers, fields); err != nil {
			return err
		}
	}
	return nil
}
