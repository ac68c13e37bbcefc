package hooks

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/ozzo-validation/v4/is"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/dbutils"
	"github.com/pocketbase/pocketbase/tools/router"
	"github.com/spf13/cast"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
	"github.com/groundworkhq/groundwork/notifications"
)

const (
	// maxSignInBody is many times what a sign-in has.
	maxSignInBody = 1 << 20
	// maxCountedBody is PocketBase's usual limit.
	maxCountedBody = apis.DefaultMaxBodySize
)

// The forms of the routes that concern an account. They have the names and types
// of the handlers' own forms, and are read by the same function: what one of
// them cannot read the other cannot either, and a key that is repeated, or
// written in capitals, means the same to both. XML goes by the names of the fields
// in Go: the routes by phone have these very forms.
type (
	passwordForm struct {
		Identity      string `form:"identity" json:"identity"`
		Password      string `form:"password" json:"password"`
		IdentityField string `form:"identityField" json:"identityField"`
	}
	otpForm struct {
		OTPId    string `form:"otpId" json:"otpId"`
		Password string `form:"password" json:"password"`
	}
	emailForm struct {
		Email string `form:"email" json:"email"`
	}
	phoneForm struct {
		Phone string `form:"phone" json:"phone"`
	}
	codeForm struct {
		OTPId string `form:"otpId" json:"otpId"`
		Code  string `form:"code" json:"code"`
	}
	emailChangeForm struct {
		Token    string `form:"token" json:"token"`
		Password string `form:"password" json:"password"`
	}
)

// subject is whom a request is about, worked out when a rule asks for it.
type subject struct {
	limits  *limits
	event   *core.RequestEvent
	network string

	collection *core.Collection  // nil: not an auth collection's route
	account    *ratelimit.Key    // nil: nobody
	known      bool              // the account was signed in from this address before
	code       string            // the id of the code that is tried
	fields     map[string]string // of the body, where the route has a form of its own
	codeLimit  int               // how many wrong tries a code bears; 0: no rule says
	codeSlot   ratelimit.Slot
}

// takeByBody takes from the rules that need the body.
func (t *taking) takeByBody(rules []*ratelimit.Rule, s *subject) error {
	if err := s.resolve(); err != nil {
		t.refused(&ratelimit.Rule{KeyBy: ratelimit.KeyBody})
		return err
	}
	for _, rule := range rules {
		if !rule.NeedsBody() {
			continue
		}
		count, err := s.count(rule)
		if err != nil {
			t.refused(rule)
			return err
		}
		if err := t.take(rule, count); err != nil {
			return err
		}
		if rule.Failures && rule.KeyBy == ratelimit.KeyAccount && s.code != "" && (s.codeLimit == 0 || rule.Limit < s.codeLimit) {
			s.codeLimit = rule.Limit
		}
	}
	return t.takeCode(s)
}

// count is what a rule counts the request under.
func (s *subject) count(rule *ratelimit.Rule) (ratelimit.Count, error) {
	limiter := s.limits.limiter
	c := ratelimit.Count{Window: rule.Window, Durable: true}
	if rule.KeyBy == ratelimit.KeyAccount {
		switch {
		case s.account != nil && s.known:
			// An allowance of its own: nobody else can use it up.
			c.Key, c.Known = limiter.Key(rule.ID, "known", string(s.account[:]), s.network), true
		case s.account != nil:
			c.Key = limiter.Key(rule.ID, "account", string(s.account[:]))
		default: // it will be refused by the handler; until then it counts by its address
			c.Key = limiter.Key(rule.ID, "nobody", s.network)
		}
		return c, nil
	}
	value, err := s.field(rule.Field)
	if err != nil {
		return c, err
	}
	if value == "" {
		c.Key = limiter.Key(rule.ID, "nothing", s.network)
	} else {
		c.Key = limiter.Key(rule.ID, "value", value)
	}
	return c, nil
}

// resolve finds the account. It reads the same rows for an account that exists
// and one that does not.
func (s *subject) resolve() error {
	e := s.event
	action, part := authAction(e.Request.Pattern)
	if action == "" {
		return nil
	}
	collection, err := e.App.FindCachedCollectionByNameOrId(e.Request.PathValue(part))
	if err != nil || !collection.IsAuth() {
		return nil // the handler answers 404
	}
	s.collection = collection

	var account ratelimit.Key
	switch action {
	case "auth-with-password":
		form := &passwordForm{}
		if err = s.bind(form); err == nil && form.Identity != "" {
			s.fields = map[string]string{"identity": form.Identity, "identityField": form.IdentityField}
			account = s.byIdentity(form.IdentityField, form.Identity)
		}
	case "auth-with-otp":
		form := &otpForm{}
		if err = s.bind(form); err == nil && form.OTPId != "" {
			s.fields, s.code = map[string]string{"otpId": form.OTPId}, form.OTPId
			account = s.byCode(form.OTPId)
		}
	case "confirm-phone-verification":
		form := &codeForm{}
		if err = s.bind(form); err == nil && form.OTPId != "" {
			s.fields, s.code = map[string]string{"otpId": form.OTPId}, form.OTPId
			if e.Auth != nil {
				account = s.limits.accountOf(e.Auth)
			} else {
				account = s.byCode(form.OTPId)
			}
		}
	case "request-phone-otp", "request-phone-verification":
		form := &phoneForm{}
		if err = s.bind(form); err == nil && form.Phone == "" && action == "request-phone-verification" && e.Auth != nil {
			form.Phone = e.Auth.GetString(accounts.FieldPhone) // nothing means the own number
		}
		if err == nil && form.Phone != "" {
			s.fields = map[string]string{"phone": form.Phone}
			account = s.byPhone(form.Phone)
		}
	case "request-otp", "request-password-reset", "request-verification":
		form := &emailForm{}
		if err = s.bind(form); err == nil && form.Email != "" {
			s.fields = map[string]string{"email": form.Email}
			account = s.byField(core.FieldNameEmail, form.Email)
		}
	case "confirm-email-change":
		form := &emailChangeForm{}
		if err = s.bind(form); err == nil && form.Token != "" {
			s.fields = map[string]string{"token": form.Token}
			account = s.byEmailChange(form.Token)
		}
	default:
		if e.Auth == nil {
			return nil
		}
		account = s.limits.accountOf(e.Auth)
	}
	if err != nil {
		var refusal *router.ApiError
		if errors.As(err, &refusal) {
			return refusal
		}
		return nil // the handler cannot read it either
	}
	if account == (ratelimit.Key{}) {
		return nil
	}
	s.account = &account
	s.known = s.limits.limiter.Knows(e.Request.Context(), account, s.network) || s.ownMachine()
	return nil
}

// ownMachine says that a superuser signs in on the machine itself, through a
// tunnel for example: nobody outside can close that way.
func (s *subject) ownMachine() bool {
	if s.collection.Name != core.CollectionNameSuperusers {
		return false
	}
	v4, v6 := [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}, [16]byte{} // ::1 counts as its /64
	return s.network == string(v4[:]) || s.network == string(v6[:])
}

// accountOf is the key of a record's account.
func (l *limits) accountOf(r *core.Record) ratelimit.Key {
	return l.limiter.Account(r.Collection().Id, r.Id)
}

// byIdentity looks for the account as PocketBase's handler does.
func (s *subject) byIdentity(field, identity string) ratelimit.Key {
	if field != "" {
		return s.byField(field, identity)
	}
	fields := slices.Clone(s.collection.PasswordAuth.IdentityFields)
	slices.SortStableFunc(fields, func(a, b string) int {
		switch core.FieldNameEmail {
		case a:
			return -1
		case b:
			return 1
		}
		return 0
	})
	folded := identity
	for _, name := range fields {
		if name == core.FieldNameEmail && is.EmailFormat.Validate(identity) != nil {
			continue
		}
		record, insensitive := s.find(name, identity)
		if record != nil {
			return s.limits.accountOf(record)
		}
		if insensitive {
			folded = asciiLower(identity)
		}
	}
	return s.limits.limiter.Account("nobody", s.collection.Id, folded)
}

// byField is the account with that value, or that of nobody.
func (s *subject) byField(field, value string) ratelimit.Key {
	record, insensitive := s.find(field, value)
	if record != nil {
		return s.limits.accountOf(record)
	}
	if insensitive {
		value = asciiLower(value)
	}
	return s.limits.limiter.Account("nobody", s.collection.Id, value)
}

// find returns nil when there is no such record, and whether capitals matter.
func (s *subject) find(field, value string) (record *core.Record, insensitive bool) {
	if s.collection.Fields.GetByName(field) == nil {
		return nil, false
	}
	var expr dbx.Expression = dbx.HashExp{field: value}
	if index, ok := dbutils.FindSingleColumnUniqueIndex(s.collection.Indexes, field); ok && strings.EqualFold(index.Columns[0].Collate, "nocase") {
		insensitive = true
		expr = dbx.NewExp("[["+field+"]] = {:value} COLLATE NOCASE", dbx.Params{"value": value})
	}
	record = &core.Record{}
	if err := s.event.App.RecordQuery(s.collection).AndWhere(expr).Limit(1).One(record); err != nil {
		return nil, insensitive
	}
	return record, insensitive
}

// asciiLower folds what SQLite's NOCASE folds.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// byPhone is the account that a code for the number leads into. A number that leads
// nowhere stands for itself, whoever wrote it into their record.
func (s *subject) byPhone(phone string) ratelimit.Key {
	if normal, err := notifications.NormalizePhone(phone); err == nil {
		phone = normal
	} else {
		phone = strings.TrimSpace(phone)
	}
	if accounts.HasPhone(s.collection) {
		if record, _, err := accounts.FindByPhone(s.event.App, s.collection, phone); err == nil && record != nil {
			return s.limits.accountOf(record)
		}
	}
	return s.limits.limiter.Account("phone", s.collection.Id, phone)
}

// byCode is the account that a code was asked for. Where the database fails, a
// code stands for itself: it can be tried no more often than by its account.
func (s *subject) byCode(id string) ratelimit.Key {
	limiter, ctx := s.limits.limiter, s.event.Request.Context()
	if account, ok := limiter.AccountOfCode(ctx, id); ok {
		return account
	}
	// Made by application code, or invented.
	if otp, err := s.event.App.FindOTPById(id); err == nil {
		account := limiter.Account(otp.CollectionRef(), otp.RecordRef())
		// Its row goes when it was tried too often; whom it was about has to stay.
		if err := limiter.RememberCode(ctx, id, account, codeLife(s.collection)); err != nil {
			s.limits.g.log.Error("it cannot be remembered whom a code is about", "error", err)
		}
		return account
	}
	// Or one that was deleted just now, and remembered before that.
	if account, ok := limiter.AccountOfCode(ctx, id); ok {
		return account
	}
	return limiter.Account("code", id)
}

// byEmailChange is the account whose address a token changes, whoever sends it; none
// for a token that is not valid, which no password is compared for.
func (s *subject) byEmailChange(token string) ratelimit.Key {
	record, err := s.event.App.FindAuthRecordByToken(token, core.TokenTypeEmailChange)
	if err != nil {
		return ratelimit.Key{}
	}
	return s.limits.accountOf(record)
}

// field is the value of a field of the body, in the one form in which it counts.
// Empty means that there is none.
func (s *subject) field(name string) (string, error) {
	value, ok := s.fields[name]
	if !ok {
		body, err := s.body()
		if err != nil {
			return "", err
		}
		value = fieldOf(body, name)
	}
	return normalField(name, value), nil
}

// fieldOf looks for the name as it is written, then in any letters: some handlers
// take it either way.
func fieldOf(body map[string]any, name string) string {
	v, ok := body[name]
	if !ok {
		for other, item := range body {
			if strings.EqualFold(other, name) {
				v = item
				break
			}
		}
	}
	return cast.ToString(v)
}

// normalField folds different ways of writing the same.
func normalField(name, value string) string {
	value = strings.ToLower(strings.TrimSpace(value))
	if name == "phone" {
		if normal, err := notifications.NormalizePhone(value); err == nil {
			return normal
		}
	}
	return value
}

// errUnreadable is a body that no handler reads either.
var errUnreadable = errors.New("the body cannot be read")

// bind reads the body into a form as the handler will, and leaves it to be read
// again.
func (s *subject) bind(form any) error {
	body, err := s.read(maxSignInBody)
	if err != nil {
		return err
	}
	return bindCopy(s.event, body, form)
}

// body is the whole body by its names; an unreadable one has none.
func (s *subject) body() (map[string]any, error) {
	e := s.event
	all := map[string]any{}
	if strings.HasPrefix(e.Request.Header.Get("Content-Type"), "multipart/form-data") {
		// Files go to the disk as they would a moment later.
		if err := e.BindBody(&all); err != nil {
			return nil, nil
		}
		return all, nil
	}
	body, err := s.read(maxCountedBody)
	if err != nil {
		return nil, err
	}
	if err := bindCopy(e, body, &all); err != nil {
		return nil, nil
	}
	return all, nil
}

// read returns the body, to its end: a reader that stops half way would leave
// the handler another beginning.
func (s *subject) read(most int64) ([]byte, error) {
	e := s.event
	tooLarge := e.Error(http.StatusRequestEntityTooLarge, "This request is too large.", nil)
	if e.Request.ContentLength > most {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(e.Request.Body, most+1))
	switch {
	case err != nil:
		var refusal *router.ApiError
		if errors.As(err, &refusal) {
			return nil, refusal
		}
		return nil, e.BadRequestError("The request could not be read to its end.", err)
	case int64(len(body)) > most:
		return nil, tooLarge
	}
	if again, ok := e.Request.Body.(router.Rereader); ok {
		again.Reread()
	}
	return body, nil
}

// bindCopy is PocketBase's BindBody on a copy of the request.
func bindCopy(e *core.RequestEvent, body []byte, into any) error {
	request := e.Request.WithContext(e.Request.Context())
	request.Body = io.NopCloser(bytes.NewReader(body))
	request.Form, request.PostForm, request.MultipartForm = nil, nil, nil
	shadow := &router.Event{Request: request}
	if err := shadow.BindBody(into); err != nil {
		return errUnreadable
	}
	return nil
}

// codeLife is how long it is remembered which account a code is about.
func codeLife(collection *core.Collection) time.Duration {
	return max(collection.OTP.DurationTime(), 15*time.Minute)
}
