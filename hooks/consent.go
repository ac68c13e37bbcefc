package hooks

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/notifications"
)

// consentRequestKey marks a new consent with the request that it came in. It is no
// field: nobody can send it.
const consentRequestKey = "groundwork:consentRequest" // consentRequest

// consentRequest is what a request tells of who records a consent.
type consentRequest struct{ by, ip, userAgent string }

// consentsPerDay is how many rows one person may add within a day, because they stay
// for ever; as many again may take something back.
const consentsPerDay = 50

// bindConsents keeps notification_consents what it is: evidence. Rows are added, by
// people about themselves and by superusers, and never change.
func (g *groundwork) bindConsents() {
	app, collection := g.app, notifications.CollectionConsents

	app.OnRecordCreateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "groundwork.consents.request", Func: g.takeConsent})

	// Twice, as all that the server owns: see bindServerOwned.
	app.OnRecordCreate(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.consents.own", Priority: priorityFirst, Func: func(e *core.RecordEvent) error {
			if err := ownConsent(e); err != nil {
				return err
			}
			return e.Next()
		}})
	app.OnRecordCreate(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.consents.check", Priority: priorityLast, Func: func(e *core.RecordEvent) error {
			if !notifications.IsServer(e.Context) {
				if err := checkConsent(e); err != nil {
					return err
				}
			}
			return e.Next()
		}})
	app.OnRecordCreateExecute(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.consents.own", Priority: priorityRestore, Func: func(e *core.RecordEvent) error {
			return inTransaction(e, func() error {
				if err := ownConsent(e); err != nil {
					return err
				}
				return e.Next()
			})
		}})

	app.OnRecordUpdate(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.consents.keep", Priority: priorityFirst, Func: func(*core.RecordEvent) error {
			return apis.NewForbiddenError("A consent is never changed: it is what was said at the time. Create another one; the latest counts, and one with granted off takes the consent back.", nil)
		}})
	app.OnRecordDelete(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.consents.keep", Priority: priorityFirst, Func: func(e *core.RecordEvent) error {
			// It goes with its person, whose row is gone by then.
			if _, err := consentUser(e.App, e.Record); errors.Is(err, sql.ErrNoRows) {
				return e.Next()
			} else if err != nil {
				return err
			}
			return apis.NewForbiddenError("A consent is never deleted while its person has an account. To take it back, create one with granted off.", nil)
		}})

	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.consents.warn", Func: func(e *core.ServeEvent) error {
			if g.cfg.AssumeEmailConsent {
				g.log.Warn("promotional e-mail goes to people of whom no consent is recorded (PROMOTIONAL_EMAIL_CONSENT=assumed); the law of most countries asks for it")
			}
			return e.Next()
		}})
}

// takeConsent takes down who sends a consent, and from where.
func (g *groundwork) takeConsent(e *core.RecordRequestEvent) error {
	info, err := e.RequestInfo()
	if err != nil {
		return e.BadRequestError("The request body cannot be read.", err)
	}
	// A bool that was not sent is false, which would take a consent back.
	if _, sent := info.Body[notifications.ConsentGranted]; !sent {
		return e.BadRequestError("Say whether the person agrees.", validation.Errors{notifications.ConsentGranted: sentence("required",
			"send true when the person agrees, and false when they take it back")})
	}
	from := consentRequest{by: notifications.RecordedBySuperuser, ip: g.limits.shownAddress(e.RequestEvent), userAgent: accounts.CleanUserAgent(e.Request.UserAgent())}
	if e.Auth != nil && !e.HasSuperuserAuth() {
		from.by = notifications.RecordedByPerson
		e.Record.Set(notifications.ConsentUser, e.Auth.Id)
		var n int
		err := e.App.DB().Select("COUNT(*)").From(e.Collection.Name).Where(dbx.HashExp{"user": e.Auth.Id, "recordedBy": notifications.RecordedByPerson}).
			AndWhere(dbx.NewExp("[[created]] > {:since}", dbx.Params{"since": types.NowDateTime().Add(-24 * time.Hour).String()})).Row(&n)
		if err != nil {
			return e.InternalServerError("The consents cannot be read right now; try again.", err)
		}
		// Taking back is possible for longer, so that it always has the last word.
		if n >= 2*consentsPerDay || n >= consentsPerDay && e.Record.GetBool(notifications.ConsentGranted) {
			return e.TooManyRequestsError("This account has recorded many consents today. Record one when the person decides, not each time the app starts.", nil)
		}
	}
	e.Record.SetRaw(consentRequestKey, from)
	return e.Next()
}

// ownConsent fills in what the server owns of a new consent.
func ownConsent(e *core.RecordEvent) error {
	if e.Record.GetString(notifications.ConsentKind) == "" {
		e.Record.Set(notifications.ConsentKind, string(notifications.KindPromotional))
	}
	if notifications.IsServer(e.Context) {
		return nil
	}
	from, ok := e.Record.GetRaw(consentRequestKey).(consentRequest)
	if !ok {
		from = consentRequest{by: notifications.RecordedByServer} // application code
	}
	e.Record.Set(notifications.ConsentRecordedBy, from.by)
	e.Record.Set(notifications.ConsentIP, from.ip)
	e.Record.Set(notifications.ConsentUserAgent, from.userAgent)
	e.Record.Set(notifications.ConsentAddress, "")
	user, err := consentUser(e.App, e.Record)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // the relation is validated, and says so
	}
	if err != nil {
		return err
	}
	e.Record.Set(notifications.ConsentAddress, notifications.ConsentAddressOf(user, notifications.Channel(e.Record.GetString(notifications.ConsentChannel))))
	return nil
}

func checkConsent(e *core.RecordEvent) error {
	user, err := consentUser(e.App, e.Record)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return fieldErrors(notifications.CheckConsent(e.Record, user))
}

// consentUser is the person of a consent, as they are now. The error wraps
// sql.ErrNoRows when there is none.
func consentUser(app core.App, consent *core.Record) (*core.Record, error) {
	users, err := notifications.UsersCollection(app)
	if err != nil {
		return nil, err
	}
	user, err := app.FindRecordById(users, consent.GetString(notifications.ConsentUser))
	if err != nil {
		return nil, fmt.Errorf("find person of a consent: %w", err)
	}
	return user, nil
}
