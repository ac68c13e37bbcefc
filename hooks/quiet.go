package hooks

import (
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/notifications"
)

// bindQuietHours refuses quiet hours that are none, and tells where promotional
// messages may come at night.
func (g *groundwork) bindQuietHours() {
	check := &hook.Handler[*core.RecordEvent]{
		Id: "groundwork.quiet.check", Priority: priorityLast, Func: func(e *core.RecordEvent) error {
			if err := notifications.CheckQuietHours(e.Record); err != nil {
				return fieldErrors(err)
			}
			return e.Next()
		}}
	g.app.OnRecordCreate(notifications.CollectionPreferences).Bind(check)
	g.app.OnRecordUpdate(notifications.CollectionPreferences).Bind(check)

	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.quiet.warn", Func: func(e *core.ServeEvent) error {
			if !g.cfg.promotionalHours.IsLawful() {
				g.log.Warn("PROMOTIONAL_HOURS lets promotional SMS and push reach people at night; the law of many countries allows them from 08:00 to 21:00 only",
					"promotionalHours", g.cfg.PromotionalHours)
			}
			return e.Next()
		}})
}
