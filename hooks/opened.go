package hooks

import (
	"net/http"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// openToken makes the token that comes with a message; empty when there is no key,
// which the start would have told.
func (g *groundwork) openToken(deliveryID string) string {
	key, err := g.openTokenKey()
	if err != nil {
		g.log.Error("a message goes out without the token for its opening", "delivery", deliveryID, "error", err)
		return ""
	}
	return notifications.OpenToken(key, deliveryID)
}

// openTokenKey is derived once: a broadcast needs it for everybody.
func (g *groundwork) openTokenKey() ([]byte, error) {
	if key := g.openKey.Load(); key != nil {
		return *key, nil
	}
	key, err := g.box.Key(notifications.OpenTokenPurpose)
	if err != nil {
		return nil, err
	}
	g.openKey.Store(&key)
	return key, nil
}

// opened takes {"token": "…"}, as it came with the message, from anybody, or
// {"delivery": "ID"} from the recipient, and answers 204 however often it is told.
// A token is not taken from somebody who is signed in as another person.
func (g *groundwork) opened(e *core.RequestEvent) error {
	var body struct {
		Token    string `json:"token"`
		Delivery string `json:"delivery"`
	}
	if err := e.BindBody(&body); err != nil {
		return e.BadRequestError(`Send a JSON object such as {"token": "…"}, with the openToken of the message.`, err)
	}
	user := ""
	if e.Auth != nil && !e.Auth.IsSuperuser() {
		people, err := notifications.UsersCollection(e.App)
		if err != nil {
			return e.InternalServerError("", err)
		}
		if e.Auth.Collection().Id != people.Id {
			return e.ForbiddenError("Messages go to people of another collection.", nil)
		}
		user = e.Auth.Id
	}
	id := body.Delivery
	switch {
	case body.Token != "":
		key, err := g.openTokenKey()
		if err != nil {
			return e.InternalServerError("", err)
		}
		var ok bool
		if id, ok = notifications.DeliveryOfToken(key, body.Token); !ok {
			return e.NotFoundError("There is no such message.", nil)
		}
	case id == "":
		return e.BadRequestError(`Send {"token": "…"} with the openToken of the message, or, signed in, {"delivery": "ID"}.`, nil)
	case e.Auth == nil:
		return apis.NewUnauthorizedError("Sign in as the person whom the message was for, or send its openToken.", nil)
	case user == "":
		return e.ForbiddenError("Only the person whom the message was for can say that.", nil)
	}
	found, err := g.sender.MarkOpened(id, user)
	switch {
	case err != nil:
		return e.InternalServerError("", err)
	case !found:
		return e.NotFoundError("There is no such message.", nil)
	}
	return e.NoContent(http.StatusNoContent)
}
