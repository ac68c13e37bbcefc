package accounts

import (
	"archive/zip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/dbutils"
	"github.com/pocketbase/pocketbase/tools/filesystem"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/notifications"
)

// Export is everything that is kept about a person, for themselves. As JSON it can
// be read by a program and, with some patience, by a person.
type Export struct {
	Application string         `json:"application"`
	MadeAt      time.Time      `json:"madeAt"`
	Account     map[string]any `json:"account"`

	// Sections are what is kept, one for each kind.
	Sections []ExportSection `json:"sections"`

	// Files are those of the account and of the records above.
	Files []*ExportFile `json:"files"`
}

// ExportSection is one kind of data.
type ExportSection struct {
	Name  string `json:"name"`
	About string `json:"about"`

	Records []map[string]any `json:"records"`

	// Withheld is how many more records there are that the application does not show
	// to the person themselves: what others wrote about them, for example.
	Withheld int `json:"withheld,omitempty"`
}

// ExportFile is one uploaded file.
type ExportFile struct {
	Collection string `json:"collection"`
	Record     string `json:"record"`
	Field      string `json:"field"`
	Name       string `json:"name"`
	Size       int64  `json:"size"` // bytes

	// Path is where it is in the archive.
	Path string `json:"path"`

	// Content is base64; empty in the archive and where files were not asked for.
	Content string `json:"content,omitempty"`

	key string // in the file storage
}

// ownExport are the fields of an account that nobody but its owner sees.
var ownExport = []string{core.FieldNameEmail, FieldPhone, FieldPhoneVerified}

// NewExport collects what is kept about an account. may says which of the
// application's records are shown; nil shows all, as to an administrator. Fields
// that are hidden from everybody are left out in either case, and so are passwords
// and keys.
func NewExport(app core.App, account *core.Record, may func(*core.Record) (bool, error)) (*Export, error) {
	x := &Export{Application: app.Settings().Meta.AppName, MadeAt: time.Now().UTC().Truncate(time.Second), Sections: []ExportSection{}, Files: []*ExportFile{}}
	own := account.Clone()
	own.IgnoreEmailVisibility(true)
	own.Unhide(ownExport...)
	x.Account = own.PublicExport()
	x.addFiles(account)
	if err := fillInbox(app, account); err != nil {
		return nil, err
	}

	for _, section := range []struct {
		collection, name, about string
		where                   dbx.Expression
	}{
		{core.CollectionNameExternalAuths, "sign-in accounts elsewhere", "Accounts at other services with which this person signs in.", accountRefs(account)},
		{core.CollectionNameAuthOrigins, "known devices", "Fingerprints of the devices from which this person has signed in.", accountRefs(account)},
		{CollectionSessions, "sessions", "Sign-ins that last, with the network address and the program they came from.", accountRefs(account)},
		{notifications.CollectionDeliveries, "deliveries", "Messages to this person, and what became of each.", dbx.HashExp{"user": account.Id}},
		{notifications.CollectionSuppressions, "suppressions", "Addresses of this person that get no more messages.", suppressionsOf(account)},
	} {
		c, err := app.FindCachedCollectionByNameOrId(section.collection)
		if err != nil {
			continue // not in this app
		}
		records, err := app.FindAllRecords(c, section.where)
		if err != nil {
			return nil, fmt.Errorf("export %s: %w", section.name, err)
		}
		x.add(section.name, section.about, records)
	}
	if err := x.addNotifications(app, account); err != nil {
		return nil, err
	}
	if err := x.addRelated(app, account, may); err != nil {
		return nil, err
	}
	return x, x.addLog(app, account)
}

// fillInbox puts into the inbox what was sent to everyone.
func fillInbox(app core.App, account *core.Record) error {
	users, err := notifications.UsersCollection(app)
	if err != nil || users.Id != account.Collection().Id {
		return nil // somebody who has none
	}
	if err := notifications.FillInboxes(app, account.Id); err != nil {
		return fmt.Errorf("export inbox: %w", err)
	}
	return nil
}

func accountRefs(account *core.Record) dbx.Expression {
	return dbx.HashExp{"collectionRef": account.Collection().Id, "recordRef": account.Id}
}

func suppressionsOf(account *core.Record) dbx.Expression {
	addresses := []any{}
	for channel, address := range map[notifications.Channel]string{notifications.ChannelEmail: account.Email(), notifications.ChannelSMS: account.GetString(FieldPhone)} {
		if normal, err := notifications.NormalizeAddress(channel, address); err == nil && normal != "" {
			addresses = append(addresses, normal)
		}
	}
	return dbx.HashExp{"address": addresses} // of none: nothing
}

func (x *Export) add(name, about string, records []*core.Record) {
	if len(records) == 0 {
		return
	}
	section := ExportSection{Name: name, About: about}
	for _, r := range records {
		section.Records = append(section.Records, r.PublicExport())
	}
	x.Sections = append(x.Sections, section)
}

// addNotifications adds what was written to this person alone; what went to others
// too is in the inbox and among the deliveries.
func (x *Export) addNotifications(app core.App, account *core.Record) error {
	c, err := app.FindCachedCollectionByNameOrId(notifications.CollectionNotifications)
	if err != nil {
		return nil
	}
	records, err := app.FindAllRecords(c, dbx.HashExp{"users": `["` + account.Id + `"]`})
	if err != nil {
		return fmt.Errorf("export notifications: %w", err)
	}
	section := ExportSection{Name: "notifications", About: "Messages that were written to this person alone, before names were filled in."}
	for _, r := range records {
		row := map[string]any{}
		for _, field := range []string{"title", "body", "data", "link", "image", "variables", "channels", "status", "created"} {
			row[field] = r.Get(field)
		}
		section.Records = append(section.Records, row)
	}
	if len(records) > 0 {
		x.Sections = append(x.Sections, section)
	}
	return nil
}

// addRelated adds the records of all collections that name the account in a
// relation.
func (x *Export) addRelated(app core.App, account *core.Record, may func(*core.Record) (bool, error)) error {
	collections, err := app.FindAllCollections(core.CollectionTypeBase, core.CollectionTypeAuth)
	if err != nil {
		return fmt.Errorf("find collections to export: %w", err)
	}
	for _, c := range collections {
		if c.Id == notifications.CollectionNotifications {
			continue
		}
		var fields []string
		var names []dbx.Expression
		for _, f := range c.Fields {
			relation, ok := f.(*core.RelationField)
			if !ok || relation.CollectionId != account.Collection().Id {
				continue
			}
			if relation.Hidden && may != nil {
				continue // that it names them is none of their business either
			}
			fields = append(fields, relation.Name)
			column := c.Name + "." + relation.Name
			if relation.IsMultiple() {
				names = append(names, dbx.NewExp("EXISTS (SELECT 1 FROM "+dbutils.JSONEach(column)+" {{gwje}} WHERE [[gwje.value]] = {:gwid})", dbx.Params{"gwid": account.Id}))
				continue
			}
			names = append(names, dbx.HashExp{column: account.Id})
		}
		if len(fields) == 0 {
			continue
		}
		records, err := app.FindAllRecords(c, dbx.Or(names...))
		if err != nil {
			return fmt.Errorf("export %s: %w", c.Name, err)
		}
		section := ExportSection{Name: c.Name, About: fmt.Sprintf("Records of %s that name this person in %s.", c.Name, strings.Join(fields, " or "))}
		for _, r := range records {
			shown := true
			if may != nil {
				if shown, err = may(r); err != nil {
					return fmt.Errorf("export %s: %w", c.Name, err)
				}
			}
			if !shown {
				section.Withheld++
				continue
			}
			section.Records = append(section.Records, r.PublicExport())
			x.addFiles(r)
		}
		if len(records) > 0 {
			x.Sections = append(x.Sections, section)
		}
	}
	return nil
}

// addLog adds the person's own requests, where the log has whose they were.
func (x *Export) addLog(app core.App, account *core.Record) error {
	var rows []struct {
		Created string             `db:"created"`
		Message string             `db:"message"`
		Data    types.JSONMap[any] `db:"data"`
	}
	err := app.AuxConcurrentDB().NewQuery("SELECT [[created]], [[message]], [[data]] FROM {{_logs}} WHERE json_extract([[data]], '$.authId') = {:id} ORDER BY [[created]]").
		Bind(dbx.Params{"id": account.Id}).All(&rows)
	if err != nil {
		return fmt.Errorf("export log: %w", err)
	}
	section := ExportSection{Name: "log", About: "Requests of this person that are in the log of the server."}
	for _, row := range rows {
		section.Records = append(section.Records, map[string]any{"created": row.Created, "message": row.Message, "data": row.Data})
	}
	if len(rows) > 0 {
		x.Sections = append(x.Sections, section)
	}
	return nil
}

func (x *Export) addFiles(r *core.Record) {
	for _, f := range r.Collection().Fields {
		if f.Type() != core.FieldTypeFile || f.GetHidden() {
			continue
		}
		for _, name := range r.GetStringSlice(f.GetName()) {
			x.Files = append(x.Files, &ExportFile{Collection: r.Collection().Name, Record: r.Id, Field: f.GetName(), Name: name,
				Path: "files/" + r.Collection().Name + "/" + r.Id + "/" + name, key: r.BaseFilesPath() + "/" + name})
		}
	}
}

// WriteJSON writes the export as one JSON text, with the files in it if so wished.
func (x *Export) WriteJSON(app core.App, w io.Writer, files bool) error {
	if err := x.eachFile(app, func(f *ExportFile, r io.Reader) error {
		if !files {
			return nil
		}
		raw, err := io.ReadAll(r)
		f.Content = base64.StdEncoding.EncodeToString(raw)
		return err
	}); err != nil {
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(x); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

// WriteZip writes an archive: export.json, and the files as they were uploaded.
func (x *Export) WriteZip(app core.App, w io.Writer) error {
	archive := zip.NewWriter(w)
	if err := x.eachFile(app, func(f *ExportFile, r io.Reader) error {
		entry, err := archive.CreateHeader(&zip.FileHeader{Name: f.Path, Method: zip.Deflate, Modified: x.MadeAt})
		if err != nil {
			return err
		}
		_, err = io.Copy(entry, r)
		return err
	}); err != nil {
		return err
	}
	entry, err := archive.CreateHeader(&zip.FileHeader{Name: "export.json", Method: zip.Deflate, Modified: x.MadeAt})
	if err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	enc := json.NewEncoder(entry)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := errors.Join(enc.Encode(x), archive.Close()); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

// eachFile opens the files one by one. One that is missing in the storage is left
// out.
func (x *Export) eachFile(app core.App, do func(*ExportFile, io.Reader) error) error {
	if len(x.Files) == 0 {
		return nil
	}
	storage, err := app.NewFilesystem()
	if err != nil {
		return fmt.Errorf("open file storage: %w", err)
	}
	defer func() { _ = storage.Close() }() // nothing was written
	missing := map[*ExportFile]bool{}
	for _, f := range x.Files {
		r, err := storage.GetReader(f.key)
		if errors.Is(err, filesystem.ErrNotFound) {
			missing[f] = true
			continue
		}
		if err != nil {
			return fmt.Errorf("open file %s: %w", f.Path, err)
		}
		f.Size = r.Size()
		if err := errors.Join(do(f, r), r.Close()); err != nil {
			return fmt.Errorf("read file %s: %w", f.Path, err)
		}
	}
	x.Files = slices.DeleteFunc(x.Files, func(f *ExportFile) bool { return missing[f] })
	return nil
}
