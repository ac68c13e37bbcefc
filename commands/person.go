package commands

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/notifications"
)

// onePerson says what is missing in a sentence; cobra counts arguments.
func onePerson(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one person by an id, an e-mail address or a phone number: %s", strings.TrimSpace(cmd.Example))
	}
	return nil
}

// findPerson returns the one account that who means: an id, an e-mail address or a
// phone number, of the users collection or any other auth collection. Where several
// have it, "collection/id" tells them apart. Superusers are not among them.
func findPerson(app core.App, who string) (*core.Record, error) {
	collections, err := app.FindAllCollections(core.CollectionTypeAuth)
	if err != nil {
		return nil, fmt.Errorf("the collections cannot be read: %w", err)
	}
	only, rest, named := strings.Cut(who, "/")
	if named {
		who = rest
	}
	if named && !slices.ContainsFunc(collections, func(c *core.Collection) bool { return c.Name == only || c.Id == only }) {
		return nil, fmt.Errorf("there is no collection of accounts called %q", only)
	}
	phone, err := notifications.NormalizePhone(who)
	if err != nil {
		phone = ""
	}
	var found []*core.Record
	for _, c := range collections {
		if c.Name == core.CollectionNameSuperusers || named && c.Name != only && c.Id != only {
			continue
		}
		means := []dbx.Expression{dbx.HashExp{"id": who}, dbx.NewExp("LOWER([[email]]) = LOWER({:who}) AND [[email]] != ''", dbx.Params{"who": who})}
		if phone != "" && c.Fields.GetByName(accounts.FieldPhone) != nil {
			means = append(means, dbx.HashExp{accounts.FieldPhone: phone})
		}
		records, err := app.FindAllRecords(c, dbx.Or(means...))
		if err != nil {
			return nil, fmt.Errorf("the accounts of %s cannot be read: %w", c.Name, err)
		}
		found = append(found, records...)
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("nobody has the id, e-mail address or phone number %q; write a phone number with its country code, such as +12025550100", who)
	case 1:
		return found[0], nil
	}
	lines := make([]string, len(found))
	for i, r := range found {
		lines[i] = "  " + r.Collection().Name + "/" + r.Id
	}
	return nil, fmt.Errorf("%d accounts have it; say which one:\n%s", len(found), strings.Join(lines, "\n"))
}
