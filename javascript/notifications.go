package javascript

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dop251/goja"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"

	"github.com/groundworkhq/groundwork/notifications"
)

// Init returns what PocketBase's plugin calls for each JavaScript runtime. app is
// the one that calls without an app of their own use; what has a transaction under
// way passes that one.
func Init(app core.App) func(vm *goja.Runtime) {
	return func(vm *goja.Runtime) {
		n, j := &bridge{app: app}, &jobsBridge{app: app, vm: vm}
		for name, functions := range map[string]map[string]any{
			"$notifications": {"send": n.send, "preview": n.preview, "cancel": n.cancel},
			"$jobs":          {"enqueue": j.enqueue, "on": j.on},
		} {
			object := vm.NewObject()
			for name, f := range functions {
				if err := object.Set(name, f); err != nil {
					panic(err) // a plain object takes any property
				}
			}
			if err := vm.Set(name, object); err != nil {
				panic(err) // a constant name
			}
		}
	}
}

// bridge is $notifications. A Go error is an exception there.
type bridge struct{ app core.App }

func (b *bridge) in(apps []core.App) core.App {
	if len(apps) > 0 && apps[0] != nil {
		return apps[0]
	}
	return b.app
}

// send makes a notification of fields and sends it, in the transaction of the app
// that is given, if any. A second one with the same idempotencyKey is not made: the
// first is returned.
func (b *bridge) send(fields map[string]any, apps ...core.App) (*core.Record, error) {
	app := b.in(apps)
	if key := text(fields["idempotencyKey"]); key != "" {
		if found, err := app.FindFirstRecordByData(notifications.CollectionNotifications, "idempotencyKey", key); err == nil {
			return found, nil
		}
	}
	n, err := notificationOf(app, fields)
	if err != nil {
		return nil, err
	}
	if err := n.Create(app); err != nil {
		return nil, err
	}
	return n.ProxyRecord(), nil
}

// preview tells what sending fields would do; see [notifications.Sender.Preview].
// Beside the fields of a notification it takes sample, the person who is shown,
// pricePerSegment and currency.
func (b *bridge) preview(fields map[string]any, apps ...core.App) (map[string]any, error) {
	app := b.in(apps)
	sender := notifications.SenderOf(app)
	if sender == nil {
		return nil, errors.New("there is nothing here that sends: the app has not been started")
	}
	o, fields := notifications.PreviewOptions{}, maps.Clone(fields)
	switch sample := fields["sample"].(type) {
	case *core.Record:
		o.Sample = sample.Id
	case string:
		o.Sample = sample
	}
	switch price := fields["pricePerSegment"].(type) {
	case float64:
		o.PricePerSegment = &price
	case int64:
		whole := float64(price)
		o.PricePerSegment = &whole
	}
	o.Currency = text(fields["currency"])
	for _, name := range []string{"sample", "pricePerSegment", "currency"} {
		delete(fields, name)
	}
	n, err := notificationOf(app, fields)
	if err != nil {
		return nil, err
	}
	n.Set("id", security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet)) // of a collapse id, never stored
	p, err := sender.Preview(n, o)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(p) // under the names of the route
	if err != nil {
		return nil, fmt.Errorf("encode preview: %w", err)
	}
	answer := map[string]any{}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("decode preview: %w", err)
	}
	return answer, nil
}

// cancel stops what is pending of a notification.
func (b *bridge) cancel(id string, apps ...core.App) (*core.Record, error) {
	app := b.in(apps)
	n, err := notifications.FindNotificationByID(app, id)
	if err != nil {
		return nil, fmt.Errorf("there is no notification %q", id)
	}
	n.SetAction(notifications.ActionCancel)
	if err := app.Save(n); err != nil {
		return nil, err
	}
	return n.ProxyRecord(), nil
}

// notificationOf makes an unsaved notification of what a script wrote. Records
// stand for their ids, and a template, category or topic may be named by its key.
// What follows from the fields need not be said: who gives users means them.
func notificationOf(app core.App, fields map[string]any) (*notifications.Notification, error) {
	n, err := notifications.NewNotification(app)
	if err != nil {
		return nil, err
	}
	collection, ours := n.Collection(), notifications.RequestFields()
	for name, value := range fields {
		field := collection.Fields.GetByName(name)
		if field == nil || field.GetSystem() && !slices.Contains(ours, name) {
			return nil, fmt.Errorf("a notification has no field %q that you can set; there are %s", name, strings.Join(ours, ", "))
		}
		if relation, ok := field.(*core.RelationField); ok {
			if value, err = idsOf(app, relation, value); err != nil {
				return nil, err
			}
		}
		n.Set(name, value)
	}
	if n.GetString("audience") == "" {
		switch a := n.Audience(); {
		case len(a.Users) > 0:
			n.Set("audience", string(notifications.AudienceUsers))
		case len(a.Topics) > 0:
			n.Set("audience", string(notifications.AudienceTopic))
		case a.Filter != "":
			n.Set("audience", string(notifications.AudienceFilter))
		}
	}
	return n, nil
}

// idsOf returns the ids that a value of a relation names.
func idsOf(app core.App, field *core.RelationField, value any) ([]string, error) {
	var ids []string
	switch v := value.(type) {
	case nil:
	case []any:
		for _, one := range v {
			more, err := idsOf(app, field, one)
			if err != nil {
				return nil, err
			}
			ids = append(ids, more...)
		}
	case []string:
		ids = v
	case []*core.Record:
		for _, record := range v {
			ids = append(ids, record.Id)
		}
	case *core.Record:
		ids = []string{v.Id}
	case string:
		if v != "" {
			ids = []string{v}
		}
	default:
		return nil, fmt.Errorf("%s is neither a record nor an id", field.Name)
	}
	related, err := app.FindCachedCollectionByNameOrId(field.CollectionId)
	if err != nil {
		return nil, fmt.Errorf("find collection of %s: %w", field.Name, err)
	}
	if related.Fields.GetByName("key") == nil {
		return ids, nil
	}
	for i, id := range ids {
		if record, err := app.FindFirstRecordByData(related, "key", id); err == nil {
			ids[i] = record.Id
		}
	}
	return ids, nil
}

func text(value any) string {
	s, _ := value.(string)
	return s
}
