package hooks

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/router"
	"github.com/pocketbase/pocketbase/tools/security"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/livecache"
	"github.com/groundworkhq/groundwork/internal/requestlog"
	"github.com/groundworkhq/groundwork/notifications"
)

// phoneSignIn is what the routes below share.
type phoneSignIn struct {
	*groundwork
	settings *livecache.Cache[map[string]accounts.PhoneSettings]
	warn     warnSeldom
}

// bindPhone lets people sign in with a code that they get by SMS, and verify and
// change their number.
//
// What a request for a code answers, and how long that takes, does not depend on
// the number: every request stores a code, a delivery and a job, also for a number
// that nobody has. Whether a text leaves is decided by the job. See also
// evenTiming.
func (g *groundwork) bindPhone() {
	p := &phoneSignIn{groundwork: g, settings: livecache.New(g.app, accounts.CollectionPhoneSignIn, accounts.LoadPhoneSettings)}
	g.bindPhoneFields()
	p.bindSettings()

	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.phone.routes", Func: func(e *core.ServeEvent) error {
			const base = "/api/collections/{collection}/"
			e.Router.POST(base+"request-phone-otp", p.requestSignIn)
			e.Router.POST(base+"request-phone-verification", p.requestVerification).Bind(apis.RequireSameCollectionContextAuth(""))
			e.Router.POST(base+"confirm-phone-verification", p.confirmVerification).Bind(apis.RequireSameCollectionContextAuth(""))
			e.Router.Bind(&hook.Handler[*core.RequestEvent]{
				// After all that limits and checks a request: it answers in PocketBase's place.
				Id: "groundwork.phone.signin", Priority: priorityEnd, Func: p.signIn})
			return e.Next()
		}})

	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		// After the providers of the environment have their rows.
		Id: "groundwork.phone.nowhere", Priority: priorityLast, Func: func(e *core.ServeEvent) error {
			if err := p.warnNowhere(e.App); err != nil {
				return err
			}
			return e.Next()
		}})

	// The number of a person who is gone goes with them.
	g.app.OnRecordDeleteExecute().Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.phone.forget", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			if !accounts.HasPhone(e.Record.Collection()) || !g.ready(e.App) {
				return e.Next()
			}
			return inTransaction(e, func() error {
				if err := g.codes().Forget(e.App, e.Record); err != nil {
					return err
				}
				return e.Next()
			})
		}})

	// Expired codes have a sealed number in them; each request deletes them too.
	if err := g.app.Cron().Add("groundwork.phone.prune", "*/10 * * * *", func() {
		if err := g.codes().Prune(g.app); err != nil && g.ready(g.app) {
			g.log.Error("expired codes cannot be deleted", "error", err)
		}
	}); err != nil {
		panic(err) // the expression above is a constant
	}
}

func (g *groundwork) codes() accounts.Codes { return accounts.Codes{Key: g.box} }

// phoneCollection returns the collection of a request and its settings, or why
// nobody signs in to it by phone.
func (p *phoneSignIn) phoneCollection(e *core.RequestEvent) (*core.Collection, accounts.PhoneSettings, error) {
	var none accounts.PhoneSettings
	c, err := e.App.FindCachedCollectionByNameOrId(e.Request.PathValue("collection"))
	if err != nil || !c.IsAuth() {
		return nil, none, e.NotFoundError("There is no auth collection with this name.", nil)
	}
	all, err := p.settings.Get()
	if err != nil {
		return nil, none, e.InternalServerError("The settings cannot be read right now; try again.", err)
	}
	s := accounts.PhoneSettingsOf(all, c)
	switch {
	case c.Name == core.CollectionNameSuperusers:
		return nil, none, e.BadRequestError("Superusers do not sign in by phone.", nil)
	case c.Fields.GetByName(accounts.FieldPhone) == nil:
		return nil, none, e.BadRequestError(fmt.Sprintf("Nobody signs in to %s by phone: it has no field called phone.", c.Name), nil)
	case !c.OTP.Enabled:
		return nil, none, e.BadRequestError(fmt.Sprintf("Signing in with a code is switched off: switch on One-time password (OTP) in the options of %s.", c.Name), nil)
	case !s.Enabled:
		return nil, none, e.BadRequestError(fmt.Sprintf("Signing in by phone is switched off for %s: switch it on in phone_sign_in.", c.Name), nil)
	case !accounts.HasPhone(c):
		return nil, none, e.BadRequestError(fmt.Sprintf("Nobody signs in to %s by phone: its fields phone and phoneVerified have to be a text and a bool.", c.Name), nil)
	}
	return c, s, nil
}

// requestSignIn sends a code to sign in with: {"phone"} to {"otpId"}.
func (p *phoneSignIn) requestSignIn(e *core.RequestEvent) error {
	collection, settings, err := p.phoneCollection(e)
	if err != nil {
		return err
	}
	phone, err := p.readPhone(e, settings, "")
	if err != nil {
		return err
	}
	return p.send(e, phoneRequest{accounts.PurposeSignIn, collection, settings, phone}, func(txApp core.App) (*core.Record, notifications.Skip, error) {
		record, owner, err := accounts.FindByPhone(txApp, collection, phone)
		if err != nil {
			return nil, notifications.Skip{}, err
		}
		return record, notSignedIn(collection, owner, settings), nil
	})
}

// notSignedIn says why no code is sent for a number.
func notSignedIn(c *core.Collection, owner accounts.PhoneOwner, s accounts.PhoneSettings) notifications.Skip {
	switch {
	case owner == accounts.PhoneFound, owner != accounts.PhoneAmbiguous && s.SignUp:
		return notifications.Skip{}
	case owner == accounts.PhoneAmbiguous:
		return notifications.Skip{Reason: notifications.ReasonPhoneAmbiguous, Explanation: fmt.Sprintf(
			"Several records of %s have this number and none has verified it, so it is not known whose code this would be: leave it in one of them.", c.Name)}
	case owner == accounts.PhoneClaimed:
		return notifications.Skip{Reason: notifications.ReasonPhoneUnverified, Explanation: fmt.Sprintf(
			"This number was never verified, and people can write any number into their record of %s: they sign in as before and verify it first.", c.Name)}
	default:
		return notifications.Skip{Reason: notifications.ReasonNoAccount, Explanation: fmt.Sprintf("No record of %s has this number.", c.Name)}
	}
}

// requestVerification sends a code to the caller's number, or to the one they
// want: {"phone"} to {"otpId"}.
func (p *phoneSignIn) requestVerification(e *core.RequestEvent) error {
	collection, settings, err := p.phoneCollection(e)
	if err != nil {
		return err
	}
	phone, err := p.readPhone(e, settings, e.Auth.GetString(accounts.FieldPhone))
	if err != nil {
		return err
	}
	id := e.Auth.Id
	return p.send(e, phoneRequest{accounts.PurposeVerifyPhone, collection, settings, phone}, func(txApp core.App) (*core.Record, notifications.Skip, error) {
		record, err := txApp.FindRecordById(collection, id)
		if err != nil {
			return nil, notifications.Skip{}, fmt.Errorf("find the caller's record: %w", err)
		}
		taken, err := accounts.PhoneIsTaken(txApp, record, phone)
		if err != nil || !taken {
			return record, notifications.Skip{}, err
		}
		return record, notifications.Skip{Reason: notifications.ReasonPhoneTaken, Explanation: fmt.Sprintf(
			"Another record of %s has verified this number, so it cannot be verified again. If its holder has changed, take it out of that record.", collection.Name)}, nil
	})
}

// readPhone returns the number of a request in E.164, or why no code is sent to
// such a number, whoever has it.
func (p *phoneSignIn) readPhone(e *core.RequestEvent, s accounts.PhoneSettings, own string) (string, error) {
	body := phoneForm{}
	if err := e.BindBody(&body); err != nil {
		return "", e.BadRequestError(`The request body cannot be read: send {"phone": "+4915112345678"}.`, err)
	}
	if body.Phone == "" {
		body.Phone = own
	}
	if body.Phone == "" {
		return "", fieldRefused(e, "phone", "validation_required", "the phone number is missing; write it like +4915112345678")
	}
	phone, err := notifications.NormalizePhone(body.Phone)
	if err != nil {
		return "", fieldRefused(e, "phone", "invalid_phone", err.Error())
	}
	countries, err := p.countriesInForce(e.App, s)
	if err != nil {
		return "", e.InternalServerError("The settings cannot be read right now; try again.", err)
	}
	if !accounts.MayText(phone, countries) {
		p.warn.say(func() {
			p.log.Warn("no code was sent: the country is not in phone_sign_in; add it to countries there if people of yours live in it",
				"country", accounts.PhoneCountry(phone), "countries", strings.Join(countries, " "), "requestId", requestlog.ID(e))
		}, "country")
		return "", fieldRefused(e, "phone", "country_not_allowed", "codes are not sent to numbers of this kind or country")
	}
	return phone, nil
}

func fieldRefused(e *core.RequestEvent, field, code, text string) error {
	s := sentence(code, text)
	return e.BadRequestError(s.Error(), validation.Errors{field: s})
}

// countriesInForce returns where codes are sent; nil means everywhere.
//
// Where the owner has set nothing it is the country of their own sender: an
// attacker who earns by texts to far countries finds them closed from the start,
// and most products begin at home. Outside production nothing is sent, so that
// nothing is closed.
func (p *phoneSignIn) countriesInForce(app core.App, s accounts.PhoneSettings) ([]string, error) {
	if len(s.Countries) > 0 {
		return s.Countries, nil
	}
	if p.cfg.Env != EnvProduction {
		return nil, nil
	}
	providers, err := p.providers.SMSProviders(app)
	if err != nil {
		return nil, err
	}
	var countries []string // nobody sends: nothing to close, and the delivery says what is missing
	for _, cfg := range providers {
		if cfg.Channel != notifications.ProviderSMSTransactional {
			continue
		}
		countries = []string{} // a sender without a country: the owner has to name some
		if number, err := notifications.NormalizePhone(cfg.SenderID); err == nil {
			countries = []string{accounts.PhoneCountry(number)} // the one that serves comes last
		}
	}
	return countries, nil
}

// warnNowhere tells an operator at the start what people would find out otherwise:
// that no number is in a country to which codes are sent.
func (p *phoneSignIn) warnNowhere(app core.App) error {
	all, err := p.settings.Get()
	if err != nil {
		return fmt.Errorf("read phone_sign_in: %w", err)
	}
	collections, err := app.FindAllCollections(core.CollectionTypeAuth)
	if err != nil {
		return fmt.Errorf("find auth collections: %w", err)
	}
	for _, c := range collections {
		s := accounts.PhoneSettingsOf(all, c)
		if !c.OTP.Enabled || !s.Enabled || !accounts.HasPhone(c) {
			continue
		}
		countries, err := p.countriesInForce(app, s)
		if err != nil {
			return fmt.Errorf("read the SMS providers: %w", err)
		}
		if countries != nil && len(countries) == 0 {
			p.log.Warn("nobody can sign in by phone: the SMS sender is not a phone number, so that its country is not known; name the countries to send to in phone_sign_in", "collection", c.Name)
		}
	}
	return nil
}

// phoneRequest is a code that is asked for.
type phoneRequest struct {
	purpose    accounts.Purpose
	collection *core.Collection
	settings   accounts.PhoneSettings
	phone      string
}

// send stores a code, and the job that sends it or does not. find says whose code
// it is, nil for nobody's, and why it is not sent.
func (p *phoneSignIn) send(e *core.RequestEvent, req phoneRequest, find func(txApp core.App) (*core.Record, notifications.Skip, error)) error {
	if p.sender == nil || !p.ready(e.App) {
		return e.InternalServerError("Codes cannot be sent right now; try again.", errors.New("the sender is not ready"))
	}
	otp := req.collection.OTP
	code := accounts.Code{ID: core.GenerateDefaultRandomId(), Purpose: req.purpose, Collection: req.collection.Id, Phone: req.phone,
		Digits: security.RandomStringWithAlphabet(otp.Length, "1234567890"), ExpiresAt: time.Now().Add(otp.DurationTime())}
	meta := e.App.Settings().Meta
	text := notifications.AccountSMS{To: req.phone, RequestID: requestlog.ID(e), ExpiresAt: code.ExpiresAt,
		Body: accounts.PhoneText(req.purpose, meta.AppName, meta.AppURL, code.Digits)}

	var counted accounts.Text
	err := e.App.RunInTransaction(func(txApp core.App) error {
		codes := p.codes()
		if err := codes.Prune(txApp); err != nil {
			return err
		}
		record, skip, err := find(txApp)
		if err != nil {
			return err
		}
		if record != nil {
			code.Record, code.TokenKey, text.UserID = record.Id, record.TokenKey(), record.Id
		}
		fixed, isTest := req.settings.TestNumbers[req.phone]
		if counted, err = codes.CountText(txApp, req.collection.Id, req.phone, req.settings, p.asker(e, req, record), skip.Reason == "" && !isTest); err != nil {
			return err
		}
		switch {
		case skip.Reason != "":
			code.Digits = "" // nobody has it, and nobody shall guess it
		case isTest:
			code.Digits = fixed
			skip = notifications.Skip{Reason: notifications.ReasonTestNumber, Explanation: "This is a test number: its code is fixed in phone_sign_in and is never sent."}
		case counted.Capped:
			code.Digits = ""
			skip = notifications.Skip{Reason: notifications.ReasonCodeCap, Explanation: fmt.Sprintf(
				"No code was sent: within the last hour %s had its %d codes, or numbers like this one their %d; the last fifth of them is kept for people who have an account. Raise maxPerHour or maxPerPrefixPerHour in phone_sign_in if these are people of yours.",
				req.collection.Name, req.settings.MaxPerHour, req.settings.MaxPerPrefixPerHour)}
		}
		text.Skip = skip
		if err := codes.Make(txApp, code); err != nil {
			return err
		}
		if !counted.Listed {
			return nil
		}
		_, err = p.sender.EnqueueSMS(txApp, text)
		return err
	})
	if err != nil {
		return e.InternalServerError("The code cannot be sent right now; try again.", err)
	}
	if !counted.Listed {
		p.warn.say(func() {
			p.log.Warn("codes are asked for that are not sent, more than are listed among the deliveries: somebody tries out numbers",
				"collection", req.collection.Name, "listedPerHour", req.settings.MaxPerHour, "requestId", text.RequestID)
		}, "unlisted")
	}
	if counted.Capped {
		p.warn.say(func() {
			p.log.Warn("codes are not sent any more: a limit in phone_sign_in is reached; deliveries with the reason code_cap_reached show which",
				"collection", req.collection.Name, "maxPerHour", req.settings.MaxPerHour, "maxPerPrefixPerHour", req.settings.MaxPerPrefixPerHour, "requestId", text.RequestID)
		}, "cap")
	}
	return e.JSON(http.StatusOK, map[string]string{"otpId": code.ID})
}

// asker says how much of the caps there is for a request. It looks into the known
// addresses for every number, known or not.
func (p *phoneSignIn) asker(e *core.RequestEvent, req phoneRequest, record *core.Record) accounts.Asker {
	limiter := p.limits.limiter
	account := limiter.Account("phone", req.collection.Id, req.phone)
	if record != nil {
		account = p.limits.accountOf(record)
	}
	switch atHome := limiter.Knows(e.Request.Context(), account, p.limits.network(e)); {
	case record == nil, req.purpose != accounts.PurposeSignIn:
		return accounts.Stranger
	case atHome:
		return accounts.OwnerAtHome
	default:
		return accounts.Owner
	}
}

// isAuthWithOTP says whether a request is one to auth-with-otp.
func isAuthWithOTP(e *core.RequestEvent) bool {
	return e.Request.Method == http.MethodPost && strings.HasPrefix(e.Request.URL.Path, "/api/collections/") && strings.HasSuffix(e.Request.URL.Path, "/auth-with-otp")
}

var errWrongCode = errors.New("wrong, used or expired code")

// wrongCode is PocketBase's answer.
func wrongCode(e *core.RequestEvent) error {
	return e.BadRequestError("Invalid or expired OTP", errWrongCode)
}

// signIn answers auth-with-otp for codes that were asked for by phone, and leaves
// the others to PocketBase.
func (p *phoneSignIn) signIn(e *core.RequestEvent) error {
	if !isAuthWithOTP(e) || !p.ready(e.App) {
		return e.Next()
	}
	body := otpForm{} // what the limits read, in every content type
	if err := e.BindBody(&body); err != nil || body.OTPId == "" || body.Password == "" || len(body.Password) > 71 {
		return e.Next() // PocketBase says what is wrong
	}
	known, err := p.codes().Known(e.App, body.OTPId, accounts.PurposeSignIn)
	if err != nil {
		return e.InternalServerError("The code cannot be checked right now; try again.", err)
	}
	if !known {
		return e.Next()
	}
	collection, settings, err := p.phoneCollection(e)
	if err != nil {
		return err
	}
	e.Set(core.RequestEventKeyInfoContext, core.RequestInfoContextOTP)

	code, err := p.match(e.App, accounts.PurposeSignIn, collection, body.OTPId, body.Password)
	var record *core.Record
	if err == nil {
		err = e.App.RunInTransaction(func(txApp core.App) error {
			record, err = p.enter(txApp, collection, settings, code, requestlog.ID(e))
			return err
		})
	}
	switch {
	case errors.Is(err, errWrongCode), errors.Is(err, accounts.ErrNoCode):
		return wrongCode(e)
	case err != nil:
		return cannotEnter(e, err)
	}

	event := new(core.RecordAuthWithOTPRequestEvent)
	event.RequestEvent, event.Collection, event.Record = e, collection, record
	// The application's hooks see what they know from e-mail codes. It is not stored:
	// the code is used up.
	event.OTP = core.NewOTP(e.App)
	event.OTP.Id = code.ID
	event.OTP.SetCollectionRef(collection.Id)
	event.OTP.SetRecordRef(record.Id)
	event.OTP.SetSentTo(code.Phone)
	return e.App.OnRecordAuthWithOTPRequest().Trigger(event, func(e *core.RecordAuthWithOTPRequestEvent) error {
		return apis.RecordAuthResponse(e.RequestEvent, e.Record, core.MFAMethodOTP, nil)
	})
}

// cannotEnter answers when a right code led nowhere: an account could not be made
// or changed. The code is as it was, one try poorer.
func cannotEnter(e *core.RequestEvent, err error) error {
	var refusal *router.ApiError
	var fields validation.Errors
	switch {
	case errors.As(err, &refusal): // of the application's own hook
		return refusal
	case errors.As(err, &fields):
		return e.BadRequestError("The account cannot be made by phone.", fields)
	default:
		return e.InternalServerError("The code cannot be checked right now; try again.", err)
	}
}

// match takes a try of a code and compares.
func (p *phoneSignIn) match(app core.App, purpose accounts.Purpose, collection *core.Collection, id, digits string) (*accounts.Stored, error) {
	code, err := p.codes().Try(app, id, purpose, collection.Id)
	if err != nil {
		return nil, err
	}
	record, err := accounts.FindRecord(app, collection, code.Record)
	if err != nil {
		return nil, err
	}
	tokenKey := ""
	if record != nil {
		tokenKey = record.TokenKey()
	}
	ok, err := code.Matches(digits, tokenKey)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errWrongCode
	}
	return code, nil
}

// enter uses up a right code and returns whom it signs in.
func (p *phoneSignIn) enter(txApp core.App, collection *core.Collection, settings accounts.PhoneSettings, code *accounts.Stored, requestID string) (*core.Record, error) {
	if err := code.Use(txApp); err != nil {
		return nil, err
	}
	// Again, as it is now: since the request the number may have become somebody
	// else's, or somebody's at all, by another code for it a moment ago.
	record, owner, err := accounts.FindByPhone(txApp, collection, code.Phone)
	switch {
	case err != nil:
		return nil, err
	case record != nil && code.Record != "" && code.Record != record.Id:
		return nil, errWrongCode
	case record != nil && record.GetBool(accounts.FieldPhoneVerified):
		return record, nil
	case record != nil:
		return record, p.firstProof(txApp, record, requestID)
	case code.Record == "" && settings.SignUp && owner != accounts.PhoneAmbiguous:
		return p.signUp(txApp, collection, code.Phone, requestID)
	default:
		return nil, errWrongCode
	}
}
