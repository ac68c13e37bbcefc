package hooks

import (
	"errors"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/notifications"
)

// formats say how a field with a pattern is written. PocketBase's own message
// is "Invalid value format.", which tells nobody what to change.
var formats = map[string]string{
	"key":       "use letters, digits, dots, hyphens and underscores, without spaces, such as order_shipped",
	"quietFrom": "write hours and minutes on a 24-hour clock, such as 22:00",
	"quietTo":   "write hours and minutes on a 24-hour clock, such as 07:00",
}

// bindFormats puts those sentences in place of PocketBase's.
func (g *groundwork) bindFormats() {
	g.app.OnRecordValidate(notifications.CollectionCategories, notifications.CollectionTemplates, notifications.CollectionTopics, notifications.CollectionPreferences).
		Bind(&hook.Handler[*core.RecordEvent]{
			// Around all other checks: whichever of them ran the field's own.
			Id: "groundwork.formats", Priority: -9999, Func: func(e *core.RecordEvent) error {
				err := e.Next()
				var fields validation.Errors
				if !errors.As(err, &fields) {
					return err
				}
				for name, problem := range fields {
					var coded validation.Error
					says, ok := formats[name]
					if ok && errors.As(problem, &coded) && (coded.Code() == "validation_invalid_format" || name != "key" && coded.Code() == "validation_max_text_constraint") {
						fields[name] = sentence(coded.Code(), says)
					}
				}
				return fields
			}})
}
