package notifications

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

const (
	// maxRows is how many rows a template sees of one person; maxRowBytes is how
	// much they may hold together. What comes after is left out.
	maxRows     = 100
	maxRowBytes = 1 << 20

	// dataPage is the number of people whose rows are read by one query, and whose
	// rows are in memory at a time.
	dataPage = 250
)

const nothingToSay = "There is nothing to tell this person: %s has no row of theirs."

// findDataFrom returns the collection that a template takes its rows from. What
// its author can mend is a [*FieldError] of the field dataFrom.
func findDataFrom(app core.App, nameOrID string) (*core.Collection, error) {
	refuse := func(code, format string, args ...any) (*core.Collection, error) {
		return nil, &FieldError{"dataFrom", code, fmt.Sprintf(format, args...)}
	}
	users, err := UsersCollection(app)
	if err != nil {
		return nil, err
	}
	source, err := app.FindCachedCollectionByNameOrId(nameOrID)
	if err != nil {
		return refuse("not_found", "There is no collection or view %q: create it, or leave dataFrom empty.", nameOrID)
	}
	if strings.HasPrefix(source.Name, "_") {
		return refuse("own", "The collection %s belongs to PocketBase itself: choose one of your own collections or views.", source.Name)
	}
	switch f := source.Fields.GetByName("user").(type) {
	case *core.RelationField:
		switch {
		case f.CollectionId != users.Id:
			return refuse("user_field", "The field user of %s does not lead to %s: rows are found by the person in it.", source.Name, users.Name)
		case f.IsMultiple():
			return refuse("user_field", "The field user of %s holds several people: rows are found by one person each. Set its maximum to 1.", source.Name)
		}
	case *core.TextField, *core.JSONField: // an id; a view makes JSON of what it calculates
	case nil:
		return refuse("user_field", "The collection %s has no field user: rows are found by the person in it.", source.Name)
	default:
		return refuse("user_field", "The field user of %s is of the type %s: it must be a relation to %s, or hold a person's id.", source.Name, f.Type(), users.Name)
	}
	return source, nil
}

// findRows returns the rows of people in source, by person: at most maxRows each,
// as templates see a record. Those of a view are in its own order, those of a
// collection the newest first.
func findRows(app core.App, source *core.Collection, people []string) (map[string][]any, error) {
	columns := []string{"user"}
	for _, f := range source.Fields {
		if name := f.GetName(); isShown(f) && name != "user" {
			columns = append(columns, name)
		}
	}
	text := "SELECT [[" + strings.Join(columns, "]], [[") + "]] FROM {{" + source.Name + "}} WHERE [[user]] IN (SELECT value FROM json_each({:people}))"
	if !source.IsView() {
		text += " ORDER BY "
		if f := source.Fields.GetByName("created"); f != nil && f.Type() == core.FieldTypeAutodate {
			text += "[[created]] DESC, "
		}
		text += "[[rowid]] DESC"
	}
	query, err := app.ConcurrentDB().NewQuery(text).Bind(dbx.Params{"people": mustJSON(people)}).Rows()
	if err != nil {
		if strings.Contains(err.Error(), "no such ") { // a view of what is gone
			return nil, &FieldError{"dataFrom", "unreadable", fmt.Sprintf("The rows of %s cannot be read: open it in the dashboard and save it to see why.", source.Name)}
		}
		return nil, fmt.Errorf("read rows of %s: %w", source.Name, err)
	}
	defer query.Close()
	rows, sizes := make(map[string][]any, len(people)), map[string]int{}
	for query.Next() {
		values := dbx.NullStringMap{}
		if err := query.ScanMap(values); err != nil {
			return nil, fmt.Errorf("read rows of %s: %w", source.Name, err)
		}
		person := values["user"].String
		if len(rows[person]) >= maxRows || sizes[person] >= maxRowBytes {
			continue
		}
		record := core.NewRecord(source)
		for _, f := range source.Fields {
			var stored any
			if v := values[f.GetName()]; v.Valid {
				stored = v.String
			}
			value, err := f.PrepareValue(record, stored)
			if err != nil {
				return nil, fmt.Errorf("read field %s of %s: %w", f.GetName(), source.Name, err)
			}
			record.SetRaw(f.GetName(), value)
		}
		vars := recordVars(record)
		vars[core.FieldNameId] = values[core.FieldNameId].String
		size := sizeOf(vars)
		if sizes[person] += size; sizes[person] > maxRowBytes {
			continue
		}
		rows[person] = append(rows[person], vars)
	}
	if err := query.Err(); err != nil {
		return nil, fmt.Errorf("read rows of %s: %w", source.Name, err)
	}
	return rows, nil
}

// dataPages reads the rows of many people, a page of them at a time. Ask for them
// in the order in which they were given.
type dataPages struct {
	app    core.App
	source *core.Collection
	people []string // still to be read
	read   map[string]bool
	rows   map[string][]any
}

// newDataPages is nil when a snapshot takes no rows from anywhere.
func newDataPages(app core.App, s Snapshot, people []string) (*dataPages, error) {
	if s.DataFrom == "" {
		return nil, nil
	}
	source, err := findDataFrom(app, s.DataFrom)
	var field *FieldError
	if errors.As(err, &field) && field.Code == "not_found" { // by its id, which tells nobody anything
		return nil, &FieldError{"dataFrom", "not_found", fmt.Sprintf("The collection or view %q, which the template takes its rows from, was deleted.", s.DataName)}
	}
	if err != nil {
		return nil, err
	}
	return &dataPages{app: app, source: source, people: slices.Compact(people)}, nil
}

func (d *dataPages) of(person string) ([]any, error) {
	for !d.read[person] && len(d.people) > 0 {
		page := d.people[:min(dataPage, len(d.people))]
		rows, err := findRows(d.app, d.source, page)
		if err != nil {
			return nil, err
		}
		d.rows, d.read, d.people = rows, map[string]bool{}, d.people[len(page):]
		for _, p := range page {
			d.read[p] = true
		}
	}
	return d.rows[person], nil
}

// checkData says whether what a snapshot takes its rows from is still there; the
// error is as that of [findDataFrom].
func (s Snapshot) checkData(app core.App) error {
	_, err := newDataPages(app, s, nil)
	return err
}

// dataGone is the sentence of an error about dataFrom that nobody can wait for.
func dataGone(err error) (sentence string, gone bool) {
	var field *FieldError
	if errors.As(err, &field) {
		return field.Sentence, true
	}
	return "", false
}

// sample is a person to try a text with.
type sample struct {
	user *core.Record
	rows []any // of dataFrom
}

// vars are what the texts of a snapshot see of the sample.
func (p *sample) vars(n *Notification, s Snapshot) map[string]any {
	vars := baseVars(n, s)
	vars["user"] = userVars(p.user)
	if s.DataFrom != "" {
		vars["rows"] = p.rows
	}
	return vars
}

// findSample returns the first person of the audience whom there is something to
// tell; nil when there is none among the first of them. The rows of a person that
// is named are read whether there are any or not.
func findSample(app core.App, audience Audience, s Snapshot, named string) (*sample, error) {
	users, err := UsersCollection(app)
	if err != nil {
		return nil, err
	}
	ids := []string{named}
	if named == "" {
		size := 1
		if s.DataFrom != "" {
			size = dataPage
		}
		if ids, err = audience.Page(app, "", size); err != nil {
			return nil, err
		}
	}
	pages, err := newDataPages(app, s, ids)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		var rows []any
		if pages != nil {
			if rows, err = pages.of(id); err != nil {
				return nil, err
			}
			if len(rows) == 0 && named == "" {
				continue
			}
		}
		user, err := app.FindRecordById(users, id)
		if err != nil {
			return nil, fmt.Errorf("find sample recipient: %w", err)
		}
		return &sample{user, rows}, nil
	}
	return nil, nil
}
