package hooks

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pocketbase/dbx"
	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/internal/requestlog"
	"github.com/groundworkhq/groundwork/notifications"
)

// bindNotifications makes the notifications collection act: a record is
// checked when it is saved, and its action is taken in the same transaction.
func (g *groundwork) bindNotifications() {
	app := g.app

	g.refuseUnreadableDates(notifications.CollectionNotifications, "sendAt", "expiresAt")

	take := func(e *core.RecordEvent) error {
		return inTransaction(e, func() error {
			n := notifications.AsNotification(e.Record)
			if id := requestlog.RecordRequestID(e.Record); id != "" && n.Action() != "" {
				n.SetRequestID(id)
			}
			if !notifications.IsServer(e.Context) {
				if err := fieldErrors(checkSaved(e.App, n, g.cfg.now())); err != nil {
					return err
				}
			}
			enqueue, err := n.Take(e.App, g.cfg.now())
			if err != nil {
				return fieldErrors(err)
			}
			if err := e.Next(); err != nil {
				return err
			}
			return enqueue()
		})
	}
	app.OnRecordCreateExecute(notifications.CollectionNotifications).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.notifications.take", Priority: priorityExecute, Func: take})
	app.OnRecordUpdateExecute(notifications.CollectionNotifications).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.notifications.take", Priority: priorityExecute, Func: take})

	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.notifications.routes", Func: func(e *core.ServeEvent) error {
			e.Router.POST("/api/notifications/opened", g.opened)
			routes := e.Router.Group("/api/notifications").Bind(apis.RequireSuperuserAuth())
			routes.POST("/preview", g.previewNotification)
			routes.POST("/{id}/test", g.testNotification)
			routes.POST("/{id}/retry", g.retryNotification)
			routes.POST("/deliveries/{id}/resend", g.resendDelivery)
			return e.Next()
		}})

	app.OnRecordDeleteExecute(notifications.CollectionNotifications).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.notifications.delete", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			return inTransaction(e, func() error {
				if err := notifications.AsNotification(e.Record).CheckDelete(e.App); err != nil {
					return fieldErrors(err)
				}
				return e.Next()
			})
		}})
}

// retryNotification sends the failed deliveries of a notification again.
func (g *groundwork) retryNotification(e *core.RequestEvent) error {
	retried, err := notifications.RetryFailed(e.App, e.Request.PathValue("id"), g.cfg.now())
	if err != nil {
		return againError(e, err, "There is no such notification.")
	}
	return e.JSON(http.StatusOK, map[string]any{"retried": retried})
}

// resendDelivery sends one delivery again, as a new row.
func (g *groundwork) resendDelivery(e *core.RequestEvent) error {
	id, err := notifications.ResendDelivery(e.App, e.Request.PathValue("id"), g.cfg.now())
	if err != nil {
		return againError(e, err, "There is no such delivery.")
	}
	return e.JSON(http.StatusOK, map[string]any{"delivery": id})
}

func againError(e *core.RequestEvent, err error, missing string) error {
	if sentence, ok := notifications.IsRefused(err); ok {
		return e.BadRequestError(sentence, nil)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return e.NotFoundError(missing, err)
	}
	return e.InternalServerError("", err)
}

func checkSaved(app core.App, n *notifications.Notification, now time.Time) error {
	if err := n.Check(app, now); err != nil {
		return err
	}
	switch n.Status() {
	case notifications.StatusDraft, notifications.StatusScheduled:
		return nil
	default:
		return n.CheckFrozen()
	}
}

// keptByUse refuses to delete what a notification refers to.
// PocketBase would save each of them without the reference, and speak of that
// save; and what is still to be sent would count as transactional without its
// category.
func keptByUse(app core.App, field, id string) error {
	for _, who := range []struct{ filter, says string }{
		{" && status != 'draft' && status != 'scheduled'", "Notifications that were sent use this %s, so it is kept with them. It can be renamed."},
		{"", "Drafts or scheduled notifications use this %s: give them another one first."},
	} {
		found, err := app.FindRecordsByFilter(notifications.CollectionNotifications, field+" = {:id}"+who.filter, "", 1, 0, dbx.Params{"id": id})
		if err != nil {
			return fmt.Errorf("find notifications of %s %s: %w", field, id, err)
		}
		if len(found) > 0 {
			return apis.NewBadRequestError(fmt.Sprintf(who.says, field), nil)
		}
	}
	return nil
}

// fieldErrors turns the domain's refusals into PocketBase's, which answer 400
// with the field and the sentence.
func fieldErrors(err error) error {
	if err == nil {
		return nil
	}
	var many notifications.FieldErrors
	var one *notifications.FieldError
	switch {
	case errors.As(err, &many):
		out := validation.Errors{}
		for field, e := range many {
			out[field] = validation.NewError(e.Code, e.Sentence)
		}
		return out
	case errors.As(err, &one):
		return validation.Errors{one.Field: validation.NewError(one.Code, one.Sentence)}
	default:
		return err
	}
}

// refuseUnreadableDates refuses requests in which a field holds something other than a
// date. PocketBase reads what it does not understand as "no date", and for sendAt that
// would mean "now". Only the request itself still has the words: RequestInfo's body
// holds what PocketBase has made of them by now.
func (g *groundwork) refuseUnreadableDates(collection string, fields ...string) {
	check := &hook.Handler[*core.RecordRequestEvent]{Id: "groundwork.dates." + collection, Func: func(e *core.RecordRequestEvent) error {
		body := map[string]any{}
		if err := e.BindBody(&body); err != nil {
			return e.BadRequestError("The request body cannot be read.", err)
		}
		if errs := unreadableDates(body, fields...); len(errs) > 0 {
			return e.BadRequestError("Some dates cannot be read.", errs)
		}
		return e.Next()
	}}
	g.app.OnRecordCreateRequest(collection).Bind(check)
	g.app.OnRecordUpdateRequest(collection).Bind(check)
}

// unreadableDates returns an error for each of the fields that holds something
// other than a date.
func unreadableDates(body map[string]any, fields ...string) validation.Errors {
	errs := validation.Errors{}
	for _, field := range fields {
		text, isText := body[field].(string)
		if !isText || text == "" {
			if body[field] != nil && !isText {
				errs[field] = validation.NewError("invalid_date", "Write a date such as 2026-12-24 18:00:00Z.")
			}
			continue
		}
		if d, err := types.ParseDateTime(text); err != nil || d.IsZero() {
			errs[field] = validation.NewError("invalid_date", "This is not a date. Write one such as 2026-12-24 18:00:00Z.")
		}
	}
	return errs
}
