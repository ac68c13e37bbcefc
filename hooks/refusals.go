package hooks

import (
	"errors"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/router"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
	"github.com/groundworkhq/groundwork/internal/versions"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/schedules"
)

// bindRefusals puts the sentence of a refused save also where the dashboard
// shows it for certain: its long forms stay where they were scrolled to, and say
// no more than "Failed to create record".
func (g *groundwork) bindRefusals() {
	tell := &hook.Handler[*core.RecordRequestEvent]{
		Id: "groundwork.refusals.tell", Priority: -9999, Func: func(e *core.RecordRequestEvent) error {
			err := e.Next()
			var refusal *router.ApiError
			if errors.As(err, &refusal) {
				if text := firstSentence(refusal.Data, e.Collection.Fields.FieldNames()); text != "" {
					refusal.Message = text
				}
			}
			return err
		}}
	ours := []string{
		notifications.CollectionNotifications, notifications.CollectionTemplates, notifications.CollectionTriggers,
		notifications.CollectionProviders, versions.Collection, accounts.CollectionPhoneSignIn, ratelimit.Collection,
		schedules.Collection,
	}
	g.app.OnRecordCreateRequest(ours...).Bind(tell)
	g.app.OnRecordUpdateRequest(ours...).Bind(tell)
}

// firstSentence returns the sentence of the topmost field of the form.
func firstSentence(data map[string]any, order []string) string {
	for _, field := range order {
		if item, ok := data[field].(map[string]any); ok {
			if text, ok := item["message"].(string); ok {
				return field + ": " + text
			}
		}
	}
	return ""
}
