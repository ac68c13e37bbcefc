package hooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/notifications"
)

const (
	// emailWebhookPath takes what mail providers tell, in a form of our own: whatever
	// they send is translated before it comes here.
	emailWebhookPath = "/api/webhooks/email"

	emailWebhookBody   = 1 << 20
	emailWebhookEvents = 1000 // of one request

	// signatureHeader is t=UNIX,v1=HEX: the HMAC-SHA256, under the secret, of the time, a
	// dot and the body.
	signatureHeader = "X-Groundwork-Signature"

	// signatureAge is how far the time in a signature may be from now.
	signatureAge = 5 * time.Minute
)

// bindEmailWebhook takes bounces and complaints.
func (g *groundwork) bindEmailWebhook() {
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.emailwebhook.routes", Func: func(e *core.ServeEvent) error {
			e.Router.POST(emailWebhookPath, g.emailWebhook).Bind(apis.BodyLimit(emailWebhookBody))
			return e.Next()
		}})
}

// mailEvent is one of the events in a request.
type mailEvent struct {
	Type      string    `json:"type"`
	Address   string    `json:"address"`
	MessageID string    `json:"messageId"`
	Delivery  string    `json:"delivery"`
	Permanent bool      `json:"permanent"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
}

// emailWebhook stores events. An answer that is no success makes whoever sends them
// try again, so that what is not for us is answered with one.
func (g *groundwork) emailWebhook(e *core.RequestEvent) error {
	body, err := io.ReadAll(e.Request.Body)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return e.Error(http.StatusRequestEntityTooLarge, "The request is larger than 1 MB: send fewer events at once.", nil)
		}
		return e.BadRequestError("The request cannot be read.", err)
	}
	if err := g.mayTellOfMail(e, body); err != nil {
		return err
	}
	var request struct {
		Events []mailEvent `json:"events"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return e.BadRequestError(`The body is not the JSON that is expected: {"events": [{"type": "bounce", "address": "…", "permanent": true, "at": "2026-01-31T12:00:00Z"}]}.`, err)
	}
	switch n := len(request.Events); {
	case n == 0:
		return e.BadRequestError("There is no event in the request.", validation.Errors{"events": sentence("required", "send a list with at least one event")})
	case n > emailWebhookEvents:
		return e.BadRequestError(fmt.Sprintf("One request may have %d events at most.", emailWebhookEvents), validation.Errors{"events": sentence("too_many", "send fewer events at once")})
	}
	applied := 0
	for _, event := range request.Events {
		did, err := g.sender.TakeMailEvent(notifications.MailEvent{Type: event.Type, Address: event.Address, MessageID: event.MessageID,
			DeliveryID: event.Delivery, Permanent: event.Permanent, Reason: event.Reason, At: event.At})
		if err != nil {
			return e.InternalServerError("The events cannot be stored right now; send them again.", err)
		}
		if did {
			applied++
		}
	}
	return e.JSON(http.StatusOK, map[string]int{"events": len(request.Events), "applied": applied})
}

// mayTellOfMail checks the signature of a request, or the secret itself from those who
// cannot sign. The error is the answer.
func (g *groundwork) mayTellOfMail(e *core.RequestEvent, body []byte) error {
	secret := g.cfg.EmailWebhookSecret
	if secret == "" {
		return e.ForbiddenError("This webhook is closed: set EMAIL_WEBHOOK_SECRET.", nil)
	}
	why := ""
	signature := e.Request.Header.Get(signatureHeader)
	scheme, token, _ := strings.Cut(e.Request.Header.Get("Authorization"), " ")
	switch {
	case signature != "":
		why = checkSignature(secret, signature, body, time.Now())
	case strings.EqualFold(scheme, "Bearer"):
		given, wanted := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(secret))
		if subtle.ConstantTimeCompare(given[:], wanted[:]) != 1 {
			why = "The secret is not the one in EMAIL_WEBHOOK_SECRET."
		}
	default:
		return e.ForbiddenError("Sign the request in "+signatureHeader+", or send the secret as Authorization: Bearer.", nil)
	}
	if why != "" {
		g.log.Warn("webhook refused", "path", emailWebhookPath, "why", why)
		return e.ForbiddenError(why, nil)
	}
	return nil
}

// checkSignature returns what is wrong with a signature; empty when nothing is.
func checkSignature(secret, signature string, body []byte, now time.Time) string {
	var at, given string
	for _, part := range strings.Split(signature, ",") {
		switch key, value, _ := strings.Cut(strings.TrimSpace(part), "="); key {
		case "t":
			at = value
		case "v1":
			given = value
		}
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	sum, errSum := hex.DecodeString(given)
	if err != nil || errSum != nil {
		return "The signature cannot be read: send t=UNIX,v1=HEX."
	}
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(at + "."))
	h.Write(body)
	if !hmac.Equal(sum, h.Sum(nil)) {
		return "The signature is not right: it is the HMAC-SHA256 of the time, a dot and the body, under EMAIL_WEBHOOK_SECRET."
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > signatureAge || age < -signatureAge {
		return "The signature is more than five minutes old, or from a clock that is wrong: sign each request anew."
	}
	return ""
}
