package hooks

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/livecache"
)

// bindSettings checks the rows of phone_sign_in.
func (p *phoneSignIn) bindSettings() {
	app, collection := p.app, accounts.CollectionPhoneSignIn

	// A bool that was not sent is false: whoever makes a row for a collection to set
	// its countries does not mean to switch it off.
	app.OnRecordCreateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "groundwork.phone.enabled", Func: func(e *core.RecordRequestEvent) error {
			info, err := e.RequestInfo()
			if err != nil {
				return e.BadRequestError("The request body cannot be read.", err)
			}
			if _, sent := info.Body["enabled"]; !sent {
				e.Record.Set("enabled", true)
			}
			return e.Next()
		}})

	app.OnRecordValidate(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.phone.validate", Func: func(e *core.RecordEvent) error {
			named, err := e.App.FindCachedCollectionByNameOrId(e.Record.GetString("collection"))
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return fmt.Errorf("find collection of phone_sign_in: %w", err)
			}
			problems := validation.Errors{}
			for _, problem := range accounts.CheckPhoneSettings(e.Record, named) {
				problems[problem.Field] = sentence(problem.Code, problem.Text)
			}
			if e.Record.GetBool("phoneSignUp") && named != nil {
				if fields := fieldsNobodyFills(named); len(fields) > 0 {
					problems["phoneSignUp"] = sentence("required_fields", fmt.Sprintf(
						"an account that is made by phone has nothing in %s, which %s requires: make that optional first", strings.Join(fields, ", "), named.Name))
				}
			}
			if err := e.Next(); err != nil {
				var theirs validation.Errors
				if !errors.As(err, &theirs) {
					return err
				}
				for field, problem := range theirs {
					problems[field] = problem
				}
			}
			if len(problems) > 0 {
				return problems
			}
			return nil
		}})

	optional := func(e *core.RecordEvent) error {
		return inTransaction(e, func() error {
			if err := p.makeEmailOptional(e); err != nil {
				return err
			}
			return e.Next()
		})
	}
	app.OnRecordCreateExecute(collection).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.phone.email", Priority: priorityExecute, Func: optional})
	app.OnRecordUpdateExecute(collection).Bind(&hook.Handler[*core.RecordEvent]{Id: "groundwork.phone.email", Priority: priorityExecute, Func: optional})

	// The rows name their collection, and followRename changes them.
	app.OnCollectionAfterUpdateSuccess().Bind(&hook.Handler[*core.CollectionEvent]{
		Id: "groundwork.phone.rename", Func: func(e *core.CollectionEvent) error {
			livecache.Changed(e.App, collection)
			return e.Next()
		}})
}

// fieldsNobodyFills are the fields without which a record of c cannot be made and
// that a phone number does not give.
func fieldsNobodyFills(c *core.Collection) []string {
	filled := []string{core.FieldNameId, core.FieldNamePassword, core.FieldNameTokenKey, core.FieldNameEmail, accounts.FieldPhone, accounts.FieldPhoneVerified}
	var names []string
	for _, f := range c.Fields {
		if slices.Contains(filled, f.GetName()) {
			continue
		}
		required := false
		switch f := f.(type) {
		case *core.TextField:
			required = f.Required && f.AutogeneratePattern == ""
		case *core.NumberField:
			required = f.Required
		case *core.BoolField:
			required = f.Required
		case *core.EmailField:
			required = f.Required
		case *core.URLField:
			required = f.Required
		case *core.EditorField:
			required = f.Required
		case *core.DateField:
			required = f.Required
		case *core.SelectField:
			required = f.Required
		case *core.FileField:
			required = f.Required
		case *core.RelationField:
			required = f.Required
		case *core.JSONField:
			required = f.Required
		case *core.GeoPointField:
			required = f.Required
		case *core.PasswordField:
			required = f.Required
		}
		if required {
			names = append(names, f.GetName())
		}
	}
	return names
}

// makeEmailOptional lets accounts be without an e-mail address once they can be
// made by phone: they have none, and could not be saved otherwise.
func (p *phoneSignIn) makeEmailOptional(e *core.RecordEvent) error {
	if !e.Record.GetBool("phoneSignUp") {
		return nil
	}
	c, err := e.App.FindCollectionByNameOrId(e.Record.GetString("collection"))
	if err != nil {
		return fmt.Errorf("find collection of phone_sign_in: %w", err)
	}
	email, ok := c.Fields.GetByName(core.FieldNameEmail).(*core.EmailField)
	if !ok || !email.Required {
		return nil
	}
	email.Required = false
	if err := e.App.Save(c); err != nil {
		return fmt.Errorf("make the e-mail address of %s optional: %w", c.Name, err)
	}
	p.log.Info("the e-mail address is optional now, because people can sign up by phone", "collection", c.Name)
	return nil
}
