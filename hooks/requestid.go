package hooks

import (
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/requestlog"
)

// bindRequestIDs gives every request its id, and every record that a request
// saves, inside a batch too.
func (g *groundwork) bindRequestIDs() {
	const id = "groundwork.requests.id"
	g.app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{
			// Before PocketBase's own log of the request.
			Id: id, Priority: apis.DefaultActivityLoggerMiddlewarePriority - 10,
			Func: func(e *core.RequestEvent) error {
				requestlog.Assign(e)
				return e.Next()
			}})
		return e.Next()
	})
	carry := func(e *core.RecordRequestEvent) error {
		requestlog.SetRecordRequestID(e.Record, requestlog.ID(e.RequestEvent))
		return e.Next()
	}
	handler := &hook.Handler[*core.RecordRequestEvent]{Id: id, Priority: -9999, Func: carry}
	g.app.OnRecordCreateRequest().Bind(handler)
	g.app.OnRecordUpdateRequest().Bind(handler)
	g.app.OnRecordDeleteRequest().Bind(handler)
}
