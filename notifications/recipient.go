package notifications

import (
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// recipient is what sending needs to know of a person.
type recipient struct {
	ID, Email, Name string
	// Locale is only read when there are translations to choose from.
	Locale string
	// Phone need not be verified: only a code or a superuser puts one there.
	Phone string
	// Vars is what templates see of the person.
	Vars map[string]any
	// Lent says that only the values are this person's: the message goes to another
	// address, as a test may.
	Lent bool
	// Devices are the active ones; only [findPushTargets] reads them.
	Devices []*deviceRow
}

// findRecipients returns the people with these ids, by id. Whole records are
// only loaded when the texts need more than single simple fields: that costs a
// third of a broadcast.
func findRecipients(app core.App, ids []string, texts *Compiled) (map[string]*recipient, error) {
	users, err := UsersCollection(app)
	if err != nil {
		return nil, err
	}
	columns := newPeopleColumns(users, texts, "email", "phone")
	if columns == nil {
		return findWholeRecipients(app, users, ids)
	}
	// The list is one parameter, so that the statement stays small.
	query, err := app.ConcurrentDB().NewQuery("SELECT " + columns.sql("u") + " FROM json_each({:ids}) j CROSS JOIN {{" + users.Name +
		"}} u ON u.[[id]] = j.value").Bind(dbx.Params{"ids": mustJSON(ids)}).Rows()
	if err != nil {
		return nil, fmt.Errorf("find recipients: %w", err)
	}
	defer query.Close()
	found := make(map[string]*recipient, len(ids))
	for query.Next() {
		if err := query.Scan(columns.into...); err != nil {
			return nil, fmt.Errorf("find recipients: %w", err)
		}
		p := columns.recipient()
		found[p.ID] = p
	}
	if err := query.Err(); err != nil {
		return nil, fmt.Errorf("find recipients: %w", err)
	}
	return found, nil
}

// peopleColumns are the columns of the users collection that texts need.
type peopleColumns struct {
	names  []string     // the id is the first
	fields []core.Field // of names but the id
	values []sql.NullString
	into   []any // pointers to values, for Scan
}

// newPeopleColumns returns the columns that the texts name, the person's name,
// and those that are asked for besides; nil when the texts need whole records.
func newPeopleColumns(users *core.Collection, texts *Compiled, besides ...string) *peopleColumns {
	fields, whole := texts.userFields()
	if whole || slices.ContainsFunc(fields, func(name string) bool {
		f := users.Fields.GetByName(name)
		return f != nil && isShown(f) && !isSimple(f)
	}) {
		return nil
	}
	if len(texts.locales) > 0 {
		besides = append(slices.Clone(besides), "locale")
	}
	c := &peopleColumns{names: []string{core.FieldNameId}}
	for _, name := range slices.Concat(besides, []string{"name"}, fields) {
		f := users.Fields.GetByName(name)
		if f == nil || slices.Contains(c.names, name) || !isShown(f) && !slices.Contains(besides, name) {
			continue
		}
		c.names, c.fields = append(c.names, name), append(c.fields, f)
	}
	c.values, c.into = make([]sql.NullString, len(c.names)), make([]any, len(c.names))
	for i := range c.values {
		c.into[i] = &c.values[i]
	}
	return c
}

func (c *peopleColumns) sql(table string) string {
	return table + ".[[" + strings.Join(c.names, "]], "+table+".[[") + "]]"
}

// recipient is the person whose values were scanned last.
func (c *peopleColumns) recipient() *recipient {
	p := &recipient{ID: c.values[0].String, Vars: make(map[string]any, len(c.names))}
	p.Vars[core.FieldNameId] = p.ID
	for i, f := range c.fields {
		text := c.values[i+1].String
		switch c.names[i+1] {
		case core.FieldNameEmail:
			p.Email = text
		case "phone":
			p.Phone = text
		case "name":
			p.Name = text
		case "locale":
			p.Locale = text
		}
		// A template sees a person's e-mail, whoever else does.
		if isShown(f) || c.names[i+1] == core.FieldNameEmail {
			p.Vars[c.names[i+1]] = simpleVar(f, text)
		}
	}
	return p
}

// findPushTargets returns the people with these ids that there are, by id, each
// with their active devices: one reading in place of two. It reads on the
// writer's connection, whose page cache stays warm: each commit empties those of
// all others, and a broadcast commits all the time.
func findPushTargets(app core.App, ids []string, texts *Compiled, besides ...string) (map[string]*recipient, error) {
	users, err := UsersCollection(app)
	if err != nil {
		return nil, err
	}
	columns := newPeopleColumns(users, texts, besides...)
	if columns == nil {
		return findWholePushTargets(app, users, ids)
	}
	table, err := tableName(app, CollectionDevices)
	if err != nil {
		return nil, err
	}
	// One column for all of a device: each one more costs as much as finding the row.
	query, err := app.NonconcurrentDB().NewQuery("SELECT " + columns.sql("u") + ", d.[[id]] || char(31) || d.[[token]] || char(31) ||" +
		" d.[[platform]] || char(31) || d.[[pushService]] || char(31) || d.[[environment]] || char(31) || d.[[locale]] || char(31) || d.[[app]]" +
		" FROM json_each({:ids}) j CROSS JOIN {{" + users.Name + "}} u ON u.[[id]] = j.value" +
		" LEFT JOIN {{" + table + "}} d ON d.[[user]] = u.[[id]] AND d.[[status]] = 'active'").Bind(dbx.Params{"ids": mustJSON(ids)}).Rows()
	if err != nil {
		return nil, fmt.Errorf("find push targets: %w", err)
	}
	defer query.Close()
	var device sql.NullString
	into := append(slices.Clone(columns.into), &device)
	found := make(map[string]*recipient, len(ids))
	kinds := map[string]*deviceRow{} // a broadcast has few
	for query.Next() {
		if err := query.Scan(into...); err != nil {
			return nil, fmt.Errorf("find push targets: %w", err)
		}
		p := found[columns.values[0].String]
		if p == nil {
			p = columns.recipient()
			found[p.ID] = p
		}
		if !device.Valid {
			continue
		}
		id, rest, _ := strings.Cut(device.String, "\x1f")
		token, kind, _ := strings.Cut(rest, "\x1f")
		like := kinds[kind]
		if like == nil {
			part := strings.SplitN(kind, "\x1f", 5)
			like = &deviceRow{Platform: part[0], PushService: part[1], Environment: part[2], Locale: part[3], App: part[4]}
			kinds[kind] = like
		}
		d := *like
		d.ID, d.User, d.Token = id, p.ID, token
		p.Devices = append(p.Devices, &d)
	}
	if err := query.Err(); err != nil {
		return nil, fmt.Errorf("find push targets: %w", err)
	}
	return found, nil
}

func findWholePushTargets(app core.App, users *core.Collection, ids []string) (map[string]*recipient, error) {
	found, err := findWholeRecipients(app, users, ids)
	if err != nil {
		return nil, err
	}
	devices, err := findDevices(app, "user", ids)
	if err != nil {
		return nil, err
	}
	for i := range devices {
		if p := found[devices[i].User]; p != nil {
			p.Devices = append(p.Devices, &devices[i])
		}
	}
	return found, nil
}

func findWholeRecipients(app core.App, users *core.Collection, ids []string) (map[string]*recipient, error) {
	records, err := app.FindRecordsByIds(users, ids)
	if err != nil {
		return nil, fmt.Errorf("find recipients: %w", err)
	}
	found := make(map[string]*recipient, len(records))
	for _, r := range records {
		found[r.Id] = recipientOf(r)
	}
	return found, nil
}

func recipientOf(r *core.Record) *recipient {
	return &recipient{ID: r.Id, Email: r.Email(), Phone: r.GetString("phone"), Name: r.GetString("name"), Locale: r.GetString("locale"), Vars: userVars(r)}
}

// isSimple says whether a field's column can be read without PocketBase's record.
func isSimple(f core.Field) bool {
	switch f := f.(type) {
	case *core.TextField, *core.EmailField, *core.URLField, *core.EditorField, *core.NumberField, *core.BoolField, *core.DateField, *core.AutodateField:
		return true
	case *core.SelectField:
		return !f.IsMultiple()
	case *core.RelationField:
		return !f.IsMultiple()
	default:
		return false
	}
}

// simpleVar is the value of a simple field as [recordVars] makes it.
func simpleVar(f core.Field, stored string) any {
	switch f.Type() {
	case core.FieldTypeNumber:
		n, err := strconv.ParseFloat(stored, 64)
		if err != nil {
			n = 0 // PocketBase reads it so
		}
		return numberVar(n)
	case core.FieldTypeBool:
		b, _ := strconv.ParseBool(stored)
		return b
	case core.FieldTypeDate, core.FieldTypeAutodate:
		d, _ := types.ParseDateTime(stored)
		return dateVar(d)
	default:
		return stored
	}
}

func numberVar(n float64) any {
	if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
		return int64(n)
	}
	return n
}

func dateVar(d types.DateTime) any {
	if d.IsZero() {
		return ""
	}
	return d.Time()
}
