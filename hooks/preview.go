package hooks

import (
	"database/sql"
	"errors"
	"maps"
	"net/http"
	"slices"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"

	"github.com/groundworkhq/groundwork/internal/requestlog"
	"github.com/groundworkhq/groundwork/notifications"
)

// previewNotification answers what would happen if a notification was sent. The
// body holds the fields of one, or the id of one that is stored, or both: then the
// fields are put over the stored ones. Nothing is sent and nothing stored.
func (g *groundwork) previewNotification(e *core.RequestEvent) error {
	body := map[string]any{}
	if err := e.BindBody(&body); err != nil {
		return e.BadRequestError("The request body cannot be read.", err)
	}
	n, err := g.unsaved(e, body)
	if err != nil {
		return err
	}
	options, errs := previewOptions(body)
	maps.Copy(errs, unreadableDates(body, "sendAt", "expiresAt"))
	maps.Copy(errs, unwritableTexts(n.ProxyRecord()))
	if len(errs) > 0 {
		return refusal(e, errs)
	}
	// What PocketBase itself checks when a record is saved.
	if err := e.App.ValidateWithContext(e.Request.Context(), n.ProxyRecord()); err != nil {
		return refusal(e, err)
	}
	preview, err := g.sender.Preview(n, options)
	if err != nil {
		return refusal(e, fieldErrors(err))
	}
	return e.JSON(http.StatusOK, preview)
}

// unsaved makes a notification of a request's body, as saving it would. Fields that
// are the server's are left alone.
func (g *groundwork) unsaved(e *core.RequestEvent, body map[string]any) (*notifications.Notification, error) {
	n, err := notifications.NewNotification(e.App)
	if err != nil {
		return nil, e.InternalServerError("", err)
	}
	if given, ok := body["id"]; ok {
		id, _ := given.(string)
		if n, err = notifications.FindNotificationByID(e.App, id); errors.Is(err, sql.ErrNoRows) {
			return nil, e.NotFoundError("There is no such notification.", err)
		} else if err != nil {
			return nil, e.InternalServerError("", err)
		}
	} else {
		n.Set("id", security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet))
	}
	owned := serverOwned[slices.IndexFunc(serverOwned, func(o ownership) bool { return o.collection == notifications.CollectionNotifications })]
	for _, f := range n.Collection().Fields {
		name := f.GetName()
		if value, given := body[name]; given && name != core.FieldNameId && !slices.Contains(owned.always, name) {
			n.Set(name, value)
		}
	}
	n.SetAction("")
	return n, nil
}

func previewOptions(body map[string]any) (notifications.PreviewOptions, validation.Errors) {
	options, errs := notifications.PreviewOptions{}, validation.Errors{}
	if value := body["sample"]; value != nil {
		id, ok := value.(string)
		if !ok {
			errs["sample"] = validation.NewError("not_a_text", "Write the id of a person.")
		}
		options.Sample = id
	}
	if value := body["pricePerSegment"]; value != nil {
		price, ok := value.(float64)
		if !ok {
			errs["pricePerSegment"] = validation.NewError("price", "Write a number, such as 0.0075.")
		}
		options.PricePerSegment = &price
	}
	options.Currency, _ = body["currency"].(string)
	return options, errs
}

// refusal is the answer to what could not be saved or sent like this, with the
// first sentence where everybody sees it.
func refusal(e *core.RequestEvent, err error) error {
	var fields validation.Errors
	if !errors.As(err, &fields) {
		if sentence, ok := notifications.IsRefused(err); ok {
			return e.BadRequestError(sentence, nil)
		}
		return e.InternalServerError("", err)
	}
	answer := e.BadRequestError("This cannot be sent like this.", fields)
	order := []string{"user", "address", "sample", "pricePerSegment"}
	if col, err := e.App.FindCachedCollectionByNameOrId(notifications.CollectionNotifications); err == nil {
		order = append(order, col.Fields.FieldNames()...)
	}
	if text := firstSentence(answer.Data, order); text != "" {
		answer.Message = text
	}
	return answer
}

// testNotification sends a notification to one person or address only.
func (g *groundwork) testNotification(e *core.RequestEvent) error {
	var body struct {
		User     string                  `json:"user"`
		Address  string                  `json:"address"`
		Sample   string                  `json:"sample"`
		Channels []notifications.Channel `json:"channels"`
	}
	if err := e.BindBody(&body); err != nil {
		return e.BadRequestError(`The request body cannot be read: send an object such as {"user": "ID"} or {"address": "name@example.com"}.`, err)
	}
	deliveries, err := g.sender.SendTest(e.Request.PathValue("id"), notifications.TestRequest{
		User: body.User, Address: body.Address, Sample: body.Sample, Channels: body.Channels, RequestID: requestlog.ID(e)})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return e.NotFoundError("There is no such notification.", err)
	case err != nil:
		return refusal(e, fieldErrors(err))
	}
	return e.JSON(http.StatusOK, map[string]any{"deliveries": deliveries})
}
