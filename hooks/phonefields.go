package hooks

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/accounts"
)

// bindPhoneFields gives every auth collection that has a phone and lets people
// sign in with a code the field that tells whether the phone is proved. The users
// collection has it from our migrations.
func (g *groundwork) bindPhoneFields() {
	app := g.app
	complete := func(e *core.CollectionEvent) error {
		addPhoneVerified(e.Collection)
		return e.Next()
	}
	app.OnCollectionCreate().Bind(&hook.Handler[*core.CollectionEvent]{Id: "groundwork.phone.fields", Priority: priorityFirst, Func: complete})
	app.OnCollectionUpdate().Bind(&hook.Handler[*core.CollectionEvent]{Id: "groundwork.phone.fields", Priority: priorityFirst, Func: complete})

	// Those that were there before Groundwork.
	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.phone.fields", Priority: priorityFirst, Func: func(e *core.ServeEvent) error {
			collections, err := e.App.FindAllCollections(core.CollectionTypeAuth)
			if err != nil {
				return fmt.Errorf("find auth collections: %w", err)
			}
			for _, c := range collections {
				if !addPhoneVerified(c) {
					continue
				}
				if err := e.App.Save(c); err != nil {
					// The rest of the app works; the route for its codes says what is wrong.
					g.log.Error("a collection with a phone field cannot get phoneVerified, so that nobody signs in to it by phone", "collection", c.Name, "error", err)
				}
			}
			return e.Next()
		}})
}

// addPhoneVerified adds phoneVerified to a collection that needs it, or takes over
// the one that it has. It says whether it changed something.
func addPhoneVerified(c *core.Collection) bool {
	if !c.IsAuth() || !c.OTP.Enabled || c.Name == core.CollectionNameSuperusers {
		return false
	}
	if phone := c.Fields.GetByName(accounts.FieldPhone); phone == nil || phone.Type() != core.FieldTypeText {
		return false
	}
	existing := c.Fields.GetByName(accounts.FieldPhoneVerified)
	switch {
	case existing == nil:
		c.Fields.Add(&core.BoolField{Id: "gw_phone_verified_" + c.Id, Name: accounts.FieldPhoneVerified, System: true, Hidden: true,
			Help: "Whether the person has proved with a code that the number is theirs; set by itself."})
		c.AddIndex("idx_gw_phone_"+c.Id, true, "`phone`", "`phoneVerified` = 1 AND `phone` != ''")
		c.AddIndex("idx_gw_phone_lookup_"+c.Id, false, "`phone`", "`phone` != ''")
		return true
	case existing.Type() != core.FieldTypeBool, existing.GetSystem() && existing.GetHidden():
		return false
	default:
		// Anybody who may write it could otherwise call any number proved.
		existing.SetSystem(true)
		existing.SetHidden(true)
		return true
	}
}
