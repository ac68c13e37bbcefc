package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// confirmFrom is the audience size above which the owner types the number of
// people before anything is sent.
const confirmFrom = 1000

// FieldErrors are the refusals of a record's fields, by field.
type FieldErrors map[string]*FieldError

// Error implements error.
func (e FieldErrors) Error() string {
	fields := make([]string, 0, len(e))
	for field := range e {
		fields = append(fields, field)
	}
	sort.Strings(fields)
	lines := make([]string, len(fields))
	for i, field := range fields {
		lines[i] = e[field].Error()
	}
	return strings.Join(lines, "; ")
}

func (e FieldErrors) add(field, code, sentence string) {
	if e[field] == nil {
		e[field] = &FieldError{field, code, sentence}
	}
}

func (e FieldErrors) addError(field string, err error) error {
	var fieldError *FieldError
	if errors.As(err, &fieldError) {
		e.add(fieldError.Field, fieldError.Code, fieldError.Sentence)
		return nil
	}
	var template *TemplateError
	if errors.As(err, &template) {
		e.add(field, "template", template.Error())
		return nil
	}
	return err
}

func (e FieldErrors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// Check refuses what is wrong with a notification whatever is done with it.
// The error is [FieldErrors] when the owner can mend it.
func (n *Notification) Check(app core.App, now time.Time) error {
	errs := FieldErrors{}
	for _, field := range []string{"title", "body", "image", "link", "filter", "idempotencyKey"} {
		if strings.ContainsRune(n.GetString(field), 0) {
			errs.add(field, "nul_byte", "This text contains an invisible nul character: type it again instead of pasting it.")
		}
	}
	for _, field := range []string{"data", "variables", "options"} {
		raw := strings.TrimSpace(n.GetString(field))
		if raw != "" && raw != "null" && !strings.HasPrefix(raw, "{") {
			errs.add(field, "not_an_object", `This must be a JSON object, such as {"key": "value"}.`)
		}
	}
	errs.checkOptions(n.jsonObject("options"))
	if expires := n.ExpiresAt(); !expires.IsZero() {
		switch {
		case !now.Before(expires) && n.Status() == StatusDraft:
			errs.add("expiresAt", "in_the_past", "This time is over: choose one in the future, or leave it empty.")
		case !n.SendAt().IsZero() && !n.SendAt().Before(expires):
			errs.add("expiresAt", "before_send_at", "It would expire before it is sent: choose a time after sendAt.")
		}
	}
	if n.Template() == "" {
		compiled, err := Compile(n.ownContent())
		if err != nil {
			err = errs.addTemplate(err)
		} else if s := n.Status(); s == StatusDraft || s == StatusScheduled {
			// Not later: what was sent can be paused and cancelled whatever became of a field.
			err = errs.addUnknownFields(app, compiled)
		}
		if err != nil {
			return err
		}
	}
	if audience := n.Audience(); audience.Kind == AudienceFilter && strings.TrimSpace(audience.Filter) != "" {
		if err := errs.addError("filter", audience.Check(app)); err != nil {
			return err
		}
	}
	return errs.orNil()
}

// addTemplate files a template's error under the field of the notification it
// stands in.
func (e FieldErrors) addTemplate(err error) error {
	var template *TemplateError
	if errors.As(err, &template) {
		e.addWrong(template)
		return nil
	}
	return err
}

func (e FieldErrors) addWrong(template *TemplateError) {
	field := orElse(template.Field, "body")
	if template.Locale != "" {
		field = "translations"
	}
	e.add(field, "template", template.Error())
}

func (n *Notification) ownContent() Content {
	return Content{Title: n.Title(), Body: n.Body(), Image: n.Image(), Link: n.Link(), Data: n.Data()}
}

// contentFields may not change once a notification was sent: the deliveries
// tell what people got.
var contentFields = []string{"title", "body", "data", "image", "link", "template", "variables", "category", "channels",
	"audience", "users", "topics", "filter", "sendAt", "localTime", "smsAfterMinutes", "options", "idempotencyKey"}

// audienceFields say who a notification goes to.
var audienceFields = []string{"audience", "users", "topics", "filter"}

// RequestFields are the fields that whoever asks for a notification writes; the
// others of ours are the server's.
func RequestFields() []string {
	return append(slices.Clone(contentFields), "expiresAt", "confirmRecipients")
}

// CheckFrozen refuses changes of what was already sent.
func (n *Notification) CheckFrozen() error {
	errs := FieldErrors{}
	before := n.Original()
	for _, field := range contentFields {
		if n.GetString(field) != before.GetString(field) {
			errs.add(field, "already_sent", "This notification was already sent, so it cannot be changed. Duplicate it and change the copy.")
		}
	}
	return errs.orNil()
}

// Take does what the owner asked for with the record's action, inside the
// transaction that saves it, and empties the action. enqueue must be called
// once the row is written.
func (n *Notification) Take(txApp core.App, now time.Time) (enqueue func() error, err error) {
	action, status := n.Action(), n.Status()
	asked := action == ActionSend
	n.SetAction("")
	nothing := func() error { return nil }
	refuse := func(sentence string) (func() error, error) {
		return nil, FieldErrors{"action": {"action", "not_now", sentence}}
	}
	switch action {
	case "":
		if status != StatusScheduled || n.IsNew() {
			return nothing, nil
		}
		// An edit of what is scheduled is sent as edited, after the same checks.
		before := n.Original()
		changed := false
		for _, field := range append([]string{"expiresAt"}, contentFields...) {
			changed = changed || n.GetString(field) != before.GetString(field)
		}
		if !changed {
			return nothing, nil
		}
		// Whoever confirmed a number of people confirmed it for this audience.
		for _, field := range audienceFields {
			asked = asked || n.GetString(field) != before.GetString(field)
		}
		fallthrough
	case ActionSend:
		switch status {
		case StatusDraft, StatusScheduled:
		case StatusPaused:
			return refuse("It is paused: set the action to resume.")
		case StatusCancelled:
			return refuse("It was cancelled. To send it after all, duplicate it and send the copy.")
		default:
			return refuse("It was already sent. To send it again, duplicate it and send the copy.")
		}
		if err := n.prepareSend(txApp, now, asked); err != nil {
			return nil, err
		}
		n.SetStatus(StatusQueued)
		if n.PlanAt(txApp).After(now) {
			n.SetStatus(StatusScheduled)
		}
		n.SetStatusReason(n.localReason(txApp))
		n.SetPlan(Plan{})
		return func() error { return EnqueuePlan(txApp, n) }, nil
	case ActionPause:
		switch status {
		case StatusScheduled, StatusQueued, StatusSending:
		default:
			return refuse("Only a notification that is scheduled or on its way can be paused.")
		}
		n.SetStatus(StatusPaused)
		n.SetStatusReason("Paused by its owner. Set the action to resume to go on.")
		stopsWith(txApp)
		return nothing, nil
	case ActionResume:
		if status != StatusPaused {
			return refuse("Only a paused notification can be resumed.")
		}
		plan := n.Plan()
		plan.Held = false
		n.SetPlan(plan)
		n.SetStatusReason(n.localReason(txApp))
		switch {
		case plan.Now.IsZero() && n.PlanAt(txApp).After(now):
			n.SetStatus(StatusScheduled)
		case plan.Now.IsZero():
			n.SetStatus(StatusQueued)
		default:
			n.SetStatus(StatusSending)
		}
		return func() error {
			if err := EnqueueBatches(txApp, n, ""); err != nil {
				return err
			}
			if plan.Done {
				return nil
			}
			return EnqueuePlan(txApp, n)
		}, nil
	case ActionCancel:
		switch status {
		case StatusScheduled, StatusQueued, StatusSending, StatusPaused:
		default:
			return refuse("Only a notification that is scheduled, paused or on its way can be cancelled.")
		}
		n.SetStatus(StatusCancelled)
		n.SetStatusReason("Cancelled by its owner. What had already gone out stays sent.")
		n.Set("finishedAt", now)
		stopsWith(txApp)
		return func() error {
			_, err := jobs.Enqueue(txApp, CancelArgs{n.Id}, jobs.Options{RequestID: n.RequestID()})
			return err
		}, nil
	default:
		return nil, FieldErrors{"action": {"action", "unknown", "Choose send, pause, resume or cancel."}}
	}
}

// prepareSend checks that a notification is complete and fixes what it says.
func (n *Notification) prepareSend(app core.App, now time.Time, asked bool) error {
	errs := FieldErrors{}
	if len(n.Channels()) == 0 {
		errs.add("channels", "required", "Choose at least one channel: e-mail, inbox, push or SMS.")
	}
	if expires := n.ExpiresAt(); !expires.IsZero() && !now.Before(expires) {
		errs.add("expiresAt", "in_the_past", "This time is over: choose one in the future, or leave it empty.")
	}
	n.checkLocalTime(app, now, errs)
	n.checkFallback(n.Options(), errs)
	snapshot, compiled, err := n.buildSnapshot(app, errs)
	if err != nil {
		return err
	}
	audience := n.Audience()
	people, err := audience.Count(app)
	if err != nil {
		if err := errs.addError("audience", err); err != nil {
			return err
		}
		return errs
	}
	if asked && (audience.Kind == AudienceEveryone || people > confirmFrom) && n.Trigger() == "" && n.ConfirmRecipients() != people {
		errs.add("confirmRecipients", "confirm_recipients",
			fmt.Sprintf("This goes to %s. If that is right, enter %d here and send again.", countPeople(people), people))
	}
	if compiled != nil && len(errs) == 0 {
		if err := n.trySample(app, audience, snapshot, compiled, errs); err != nil {
			return err
		}
	}
	if len(errs) > 0 {
		return errs
	}
	n.SetSnapshot(snapshot)
	return nil
}

func (n *Notification) buildSnapshot(app core.App, errs FieldErrors) (Snapshot, *Compiled, error) {
	s := Snapshot{Content: n.ownContent(), Variables: n.Variables(), Kind: KindTransactional, Options: n.Options()}
	settings := app.Settings()
	s.AppName, s.AppURL = settings.Meta.AppName, settings.Meta.AppURL

	categoryID, templateCategoryID := n.Category(), ""
	if n.Template() != "" {
		template, err := app.FindRecordById(CollectionTemplates, n.Template())
		if errors.Is(err, sql.ErrNoRows) {
			errs.add("template", "not_found", "This template does not exist any more: choose another one.")
			return s, nil, nil
		}
		if err != nil {
			return s, nil, fmt.Errorf("find template of notification %s: %w", n.Id, err)
		}
		content, err := contentOfTemplate(template)
		if err != nil {
			return s, nil, errs.addError("template", err)
		}
		// What the notification itself says wins over the template, in every language.
		if title := n.Title(); title != "" {
			content.Title = title
			content.without("title")
		}
		if body := n.Body(); body != "" {
			content.Body = body
			content.without("body")
		}
		content.Image, content.Link = orElse(n.Image(), content.Image), orElse(n.Link(), content.Link)
		if data := n.Data(); len(data) > 0 {
			content.Data = data
			content.without("data")
		}
		s.Content = content
		if dataFrom := template.GetString("dataFrom"); dataFrom != "" {
			source, err := findDataFrom(app, dataFrom)
			if sentence, gone := dataGone(err); gone {
				errs.add("template", "data_from", sentence)
				return s, nil, nil
			}
			if err != nil {
				return s, nil, err
			}
			s.DataFrom, s.DataName = source.Id, source.Name
		}
		templateCategoryID = template.GetString("category")
		categoryID = orElse(categoryID, templateCategoryID)
	}
	category, err := findCategory(app, categoryID)
	if errors.Is(err, sql.ErrNoRows) {
		errs.add("category", "not_found", "This category does not exist any more: choose another one.")
		return s, nil, nil
	}
	if err != nil {
		return s, nil, err
	}
	s.Category, s.CategoryKey = category.Id, category.GetString("key")
	s.Kind, s.CanOptOut = Kind(category.GetString("kind")), category.GetBool("canOptOut")
	if s.Kind == KindTransactional && templateCategoryID != "" && templateCategoryID != category.Id {
		other, err := findCategory(app, templateCategoryID)
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return s, nil, err
		case Kind(other.GetString("kind")) != KindTransactional:
			errs.add("category", "template_promotional", fmt.Sprintf("The template is promotional (its category is %q), so the message cannot be transactional: leave the category empty, or choose a promotional one.",
				other.GetString("name")))
		}
	}
	if s.Options.QuietHours && s.Kind == KindPromotional {
		errs.add("options", "quiet_hours", "ignoreQuietHours is for transactional messages only: take it out, or choose a transactional category.")
	}
	if s.CategoryKey == CategoryAccount {
		errs.add("category", "reserved", "This category is for sign-in mails, whose content is never kept: choose another one.")
	}

	// A silent push wakes the app and shows nothing.
	silent := s.Options.Silent && slices.Equal(n.Channels(), []Channel{ChannelPush})
	if !silent && strings.TrimSpace(s.Content.Title) == "" && strings.TrimSpace(s.Content.Body) == "" {
		errs.add("title", "required", "Write a title or a text, or choose a template.")
		return s, nil, nil
	}
	compiled, err := Compile(s.Content)
	if err != nil {
		if n.Template() != "" {
			return s, nil, errs.addError("template", err)
		}
		return s, nil, errs.addTemplate(err)
	}
	return s, compiled, nil
}

// findCategory returns the category with this id, or the transactional one when
// the id is empty.
func findCategory(app core.App, id string) (*core.Record, error) {
	if id == "" {
		record, err := app.FindFirstRecordByData(CollectionCategories, "key", CategoryTransactional)
		if err != nil {
			return nil, fmt.Errorf("find transactional category: %w", err)
		}
		return record, nil
	}
	record, err := app.FindRecordById(CollectionCategories, id)
	if err != nil {
		return nil, fmt.Errorf("find category %s: %w", id, err)
	}
	return record, nil
}

// trySample renders for the first person of the audience, in every language, so
// that a missing variable is told before anything is sent.
func (n *Notification) trySample(app core.App, audience Audience, s Snapshot, compiled *Compiled, errs FieldErrors) error {
	person, err := findSample(app, audience, s, "")
	if err != nil || person == nil {
		return err
	}
	vars := person.vars(n, s)
	for _, texts := range compiled.everyLanguage() {
		if _, err := texts.Render(vars, ""); err != nil {
			if n.Template() != "" {
				return errs.addError("template", err)
			}
			return errs.addTemplate(err)
		}
	}
	return nil
}

// CheckDelete refuses to delete what people received.
func (n *Notification) CheckDelete(app core.App) error {
	counts, err := FindCounts(app, n.Id)
	if err != nil {
		return err
	}
	switch {
	case counts.Total > 0:
		return &FieldError{"id", "already_sent", "This notification was sent, so it is kept: its deliveries tell who got it. It can be cancelled, not deleted."}
	case n.Status() == StatusQueued || n.Status() == StatusSending:
		return &FieldError{"id", "sending", "This notification is on its way. Cancel it first."}
	default:
		return nil
	}
}

// Create saves a notification in the server's own name and sends it: for triggers,
// schedules and code. The error is [FieldErrors] when something in it is wrong.
func (n *Notification) Create(app core.App) error {
	n.SetAction(ActionSend)
	err := app.SaveWithContext(AsServer(context.Background()), n)
	var invalid validation.Errors
	if errors.As(err, &invalid) {
		return fieldErrorsOf(invalid)
	}
	if err != nil {
		return fmt.Errorf("create notification: %w", err)
	}
	return nil
}

// fieldErrorsOf is what a save refused, as it was before PocketBase's form of it.
func fieldErrorsOf(invalid validation.Errors) FieldErrors {
	errs := FieldErrors{}
	for field, err := range invalid {
		code := "invalid"
		var coded validation.Error
		if errors.As(err, &coded) {
			code = coded.Code()
		}
		errs.add(field, code, err.Error())
	}
	return errs
}

func countPeople(n int64) string {
	if n == 1 {
		return "1 person"
	}
	return fmt.Sprintf("%d people", n)
}
