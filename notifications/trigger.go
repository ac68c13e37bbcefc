package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/search"

	"github.com/groundworkhq/groundwork/jobs"
)

// Events that a trigger waits for.
const (
	EventCreated = "created"
	EventUpdated = "updated"
	EventDeleted = "deleted"
	EventDate    = "date"
)

// ImportSize is how many records one transaction may create before all of them
// count as an import.
const ImportSize = 50

// Trigger is an enabled row of notification_triggers, ready to be evaluated.
type Trigger struct {
	ID, Name       string
	Event          string
	Condition      string
	Recipient      string
	Delay          time.Duration
	IncludeImports bool
	DateField      string        // for EventDate
	Offset         time.Duration // from that date; negative is before
}

// TriggerSet holds the enabled triggers by the id of the collection they watch.
type TriggerSet map[string][]*Trigger

// LoadTriggers reads the enabled triggers. One whose collection is gone watches
// nothing.
func LoadTriggers(app core.App) (TriggerSet, error) {
	records, err := app.FindAllRecords(CollectionTriggers, dbx.HashExp{"enabled": true})
	if err != nil {
		return nil, fmt.Errorf("load triggers: %w", err)
	}
	set := TriggerSet{}
	for _, r := range records {
		watched, err := app.FindCachedCollectionByNameOrId(r.GetString("collection"))
		if err != nil {
			continue
		}
		set[watched.Id] = append(set[watched.Id], newTrigger(r))
	}
	return set, nil
}

func newTrigger(r *core.Record) *Trigger {
	return &Trigger{ID: r.Id, Name: r.GetString("name"), Event: r.GetString("event"),
		Condition: strings.TrimSpace(r.GetString("condition")), Recipient: strings.TrimSpace(r.GetString("recipient")),
		Delay: time.Duration(r.GetInt("delayMinutes")) * time.Minute, IncludeImports: r.GetBool("includeImports"),
		DateField: strings.TrimSpace(r.GetString("dateField")), Offset: time.Duration(r.GetInt("offsetMinutes")) * time.Minute}
}

// Matches says whether the stored row of record meets the condition. In a
// transaction it sees the row as the transaction left it.
func (t *Trigger) Matches(app core.App, record *core.Record) (bool, error) {
	if t.Condition == "" {
		return true, nil
	}
	collection := record.Collection()
	resolver := core.NewRecordFieldResolver(app, collection, nil, true)
	expr, err := search.FilterData(t.Condition).BuildExpr(resolver)
	if err != nil {
		return false, fmt.Errorf("read condition of trigger %s: %w", t.ID, err)
	}
	query := app.RecordQuery(collection).Select("(1)").AndWhere(dbx.HashExp{collection.Name + ".id": record.Id}).AndWhere(expr).Limit(1)
	if err := resolver.UpdateQuery(query); err != nil {
		return false, fmt.Errorf("read condition of trigger %s: %w", t.ID, err)
	}
	var found int
	if err := query.Row(&found); errors.Is(err, sql.ErrNoRows) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("evaluate condition of trigger %s: %w", t.ID, err)
	}
	return true, nil
}

// RecipientsOf follows the recipient path from a record and returns the ids of the
// people at its end, each once: several where a relation on the way holds several, and
// none where one is empty.
func (t *Trigger) RecipientsOf(app core.App, record *core.Record) ([]string, error) {
	current, collection := []*core.Record{record}, record.Collection()
	for _, name := range recipientPath(t.Recipient) {
		relation, ok := collection.Fields.GetByName(name).(*core.RelationField)
		if !ok {
			return nil, fmt.Errorf("recipient of trigger %s: %s has no relation %q", t.ID, collection.Name, name)
		}
		var ids []string
		for _, r := range current {
			ids = append(ids, r.GetStringSlice(name)...)
		}
		slices.Sort(ids)
		if ids = slices.Compact(ids); len(ids) == 0 {
			return nil, nil
		}
		next, err := app.FindRecordsByIds(relation.CollectionId, ids)
		if err != nil {
			return nil, fmt.Errorf("recipient of trigger %s: %w", t.ID, err)
		}
		if len(next) == 0 {
			return nil, nil
		}
		current, collection = next, next[0].Collection()
	}
	users, err := UsersCollection(app)
	if err != nil {
		return nil, err
	}
	if collection.Id != users.Id {
		return nil, fmt.Errorf("recipient of trigger %s: the path does not lead to the users collection", t.ID)
	}
	people := make([]string, len(current))
	for i, r := range current {
		people[i] = r.Id
	}
	return people, nil
}

func recipientPath(path string) []string {
	if path == "" {
		return nil
	}
	return strings.Split(path, ".")
}

// TriggerArgs sends what a trigger says about one record. They hold ids, and
// for a deleted record what its template may show of it.
type TriggerArgs struct {
	Trigger    string         `json:"trigger"`
	Event      string         `json:"event"`
	Collection string         `json:"collection"` // id
	Record     string         `json:"record"`
	User       string         `json:"user"`
	Deleted    map[string]any `json:"deleted,omitempty"`
	Date       string         `json:"date,omitempty"` // for which a date trigger fired
}

// Kind implements [jobs.Args].
func (TriggerArgs) Kind() string { return "notification.trigger" }

// Fire enqueues the trigger's messages to people, one for each, in the transaction of
// app. It returns the ids of the jobs.
func (t *Trigger) Fire(app core.App, record *core.Record, people []string, requestID string) (jobIDs []string, err error) {
	return t.fire(app, record, people, "", requestID)
}

func (t *Trigger) fire(app core.App, record *core.Record, people []string, date, requestID string) (jobIDs []string, err error) {
	args := TriggerArgs{Trigger: t.ID, Event: t.Event, Collection: record.Collection().Id, Record: record.Id, Date: date}
	if t.Event == EventDeleted && len(people) > 0 {
		args.Deleted = recordVars(record)
		if record.Collection().IsAuth() {
			// Nothing that names a person outlives their account.
			blankTexts(args.Deleted)
		}
	}
	o := jobs.Options{RequestID: requestID}
	if t.Delay > 0 {
		o.RunAt = time.Now().Add(t.Delay)
	}
	for _, args.User = range people {
		id, err := jobs.Enqueue(app, args, o)
		if err != nil {
			return jobIDs, err
		}
		jobIDs = append(jobIDs, id)
	}
	return jobIDs, nil
}

// blankTexts empties the texts in vars, so that a template that shows them still
// works.
func blankTexts(vars map[string]any) {
	for name, value := range vars {
		switch v := value.(type) {
		case string:
			vars[name] = ""
		case []string:
			vars[name] = []string{}
		case []any:
			vars[name] = []any{}
		case map[string]any:
			blankTexts(v)
		}
	}
}

// CheckTrigger refuses a trigger that could not work. The error is
// [FieldErrors].
func CheckTrigger(app core.App, r *core.Record) error {
	errs := FieldErrors{}
	users, err := UsersCollection(app)
	if err != nil {
		return err
	}
	watched, err := app.FindCachedCollectionByNameOrId(r.GetString("collection"))
	switch {
	case err != nil:
		errs.add("collection", "not_found", fmt.Sprintf("There is no collection %q.", r.GetString("collection")))
	case watched.IsView():
		errs.add("collection", "view", "A view has no records of its own to watch: choose the collection behind it.")
	case strings.HasPrefix(watched.Name, "_") || watched.Id == CollectionNotifications || watched.Id == CollectionDeliveries || watched.Id == CollectionInbox:
		errs.add("collection", "own", "Messages about messages never end: choose one of your own collections.")
	}
	if watched != nil && r.GetString("event") == EventDate {
		errs.checkDate(watched, strings.TrimSpace(r.GetString("dateField")), r.GetFloat("offsetMinutes"))
	}
	if watched != nil && len(errs) == 0 {
		t := &Trigger{ID: r.Id, Condition: strings.TrimSpace(r.GetString("condition")), Recipient: strings.TrimSpace(r.GetString("recipient"))}
		probe := core.NewRecord(watched)
		probe.Id = "probe"
		if sentence := checkCondition(t.Condition); sentence != "" {
			errs.add("condition", "forbidden_field", sentence)
		} else if _, err := t.Matches(app, probe); err != nil {
			a := Audience{Kind: AudienceFilter}
			var field *FieldError
			if errors.As(a.readable(err), &field) {
				sentence := strings.ReplaceAll(strings.ReplaceAll(field.Sentence, "The filter", "The condition"), "the users collection", watched.Name)
				errs.add("condition", field.Code, sentence)
			}
		}
		current := watched
		for _, name := range recipientPath(t.Recipient) {
			relation, ok := current.Fields.GetByName(name).(*core.RelationField)
			if !ok {
				errs.add("recipient", "not_a_relation", fmt.Sprintf("%s has no relation field %q.", current.Name, name))
				break
			}
			if current, err = app.FindCachedCollectionByNameOrId(relation.CollectionId); err != nil {
				return fmt.Errorf("find collection of relation %s: %w", name, err)
			}
		}
		if errs["recipient"] == nil && current.Id != users.Id {
			errs.add("recipient", "not_a_person", fmt.Sprintf("This leads to %s. It must lead to the people in %s, such as buyer or order.buyer.", current.Name, users.Name))
		}
	}
	return errs.orNil()
}

// checkCondition refuses what a trigger does not see, although PocketBase would read
// it: as nothing, so that the trigger would fire never or always.
func checkCondition(condition string) (sentence string) {
	refuse := func(says string) error { return &FieldError{"condition", "forbidden_field", says} }
	_, err := rewriteIdentifiers(condition, func(name string) (string, error) {
		lower := strings.ToLower(name)
		_, modifier, _ := strings.Cut(lower, ":")
		parts := strings.FieldsFunc(lower, func(r rune) bool { return r == '.' || r == ':' })
		switch {
		case strings.HasPrefix(lower, "@request"):
			return "", refuse("A trigger sees the record, and no request: take " + name + " out of the condition.")
		case slices.Contains(parts, "password") || slices.Contains(parts, "tokenkey"):
			return "", refuse("A condition cannot read passwords or token keys: take " + name + " out of it.")
		case !strings.HasPrefix(lower, "@") && (modifier == "changed" || modifier == "isset"):
			return "", refuse("A condition is about the record as it is, so that " + name + " means nothing. With the event updated, a trigger fires when its condition turns true: write what the field must be then.")
		}
		return name, nil
	})
	var refused *FieldError
	if errors.As(err, &refused) {
		return refused.Sentence
	}
	return ""
}

type triggerWorker struct{ s *Sender }

func (w triggerWorker) Work(_ context.Context, job *jobs.Job[TriggerArgs]) error {
	s, args := w.s, job.Args
	trigger, err := s.app.FindRecordById(CollectionTriggers, args.Trigger)
	if errors.Is(err, sql.ErrNoRows) || err == nil && !trigger.GetBool("enabled") {
		return nil // deleted or switched off while it waited
	}
	if err != nil {
		return fmt.Errorf("find trigger %s: %w", args.Trigger, err)
	}
	key := "trigger:" + job.ID
	if _, err := s.app.FindFirstRecordByData(CollectionNotifications, "idempotencyKey", key); err == nil {
		return nil // made before a crash
	} else if !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("find notification of job %s: %w", job.ID, err)
	}
	users, err := UsersCollection(s.app)
	if err != nil {
		return err
	}
	if _, err := s.app.FindRecordById(users, args.User); errors.Is(err, sql.ErrNoRows) {
		return nil // the person is gone
	} else if err != nil {
		return fmt.Errorf("find recipient of trigger %s: %w", args.Trigger, err)
	}
	vars := args.Deleted
	collection, err := s.app.FindCachedCollectionByNameOrId(args.Collection)
	if err != nil {
		return jobs.Cancel(fmt.Errorf("the collection that trigger %q watches is gone", trigger.GetString("name")))
	}
	if args.Event != EventDeleted {
		// Read now, not when it fired: a delayed message tells how things stand.
		record, err := s.app.FindRecordById(collection, args.Record)
		if errors.Is(err, sql.ErrNoRows) {
			return nil // deleted meanwhile: there is nothing to tell about
		}
		if err != nil {
			return fmt.Errorf("find record %s of trigger %s: %w", args.Record, args.Trigger, err)
		}
		still, err := s.stillWanted(newTrigger(trigger), record, args.Date)
		if err != nil || !still {
			return err
		}
		vars = recordVars(record)
	}
	n, err := NewNotification(s.app)
	if err != nil {
		return err
	}
	n.Set("template", trigger.GetString("template"))
	n.Set("channels", trigger.GetStringSlice("channels"))
	n.Set("audience", string(AudienceUsers))
	n.Set("users", []string{args.User})
	n.Set("variables", map[string]any{"record": vars})
	n.Set("trigger", args.Trigger)
	n.Set("sourceCollection", collection.Name)
	n.Set("sourceRecord", args.Record)
	n.Set("idempotencyKey", key)
	n.SetRequestID(job.RequestID)
	// Counted and created in one go: many may fire for one person at once.
	err = s.app.RunInTransaction(func(txApp core.App) error {
		if most := trigger.GetInt("capPerHour"); most > 0 {
			sent, err := s.countTriggered(txApp, args.Trigger, args.User)
			if err != nil {
				return err
			}
			if sent >= most {
				s.log.Warn("trigger reached its cap for one person", "trigger", trigger.GetString("name"), "user", args.User, "capPerHour", most)
				return nil
			}
		}
		return n.Create(txApp)
	})
	var refused FieldErrors
	if errors.As(err, &refused) {
		// The template does not fit this record. Kept as a failed notification:
		// that is where its owner looks.
		n.MarkAsNew()
		n.SetAction("")
		n.SetStatus(StatusFailed)
		n.SetStatusReason(refused.Error())
		n.Set("finishedAt", s.now())
		if err := s.app.SaveWithContext(AsServer(context.Background()), n); err != nil {
			return fmt.Errorf("save failed notification of trigger %s: %w", args.Trigger, err)
		}
		return nil
	}
	return err
}

// stillWanted says whether a message that has waited still holds: its record has
// the date that it was about, and after a delay meets the condition.
func (s *Sender) stillWanted(t *Trigger, record *core.Record, date string) (bool, error) {
	if date != "" && !t.stillDue(record, date) {
		return false, nil // the date has moved: the new one fires again
	}
	if t.Delay <= 0 {
		return true, nil
	}
	matches, err := t.Matches(s.app, record)
	if err != nil {
		s.log.Error("trigger cannot be evaluated: open it in the dashboard and save it to see why", "trigger", t.Name, "error", err)
		return false, nil
	}
	return matches, nil
}

// countTriggered counts what a trigger sent to one person in the last hour.
func (s *Sender) countTriggered(txApp core.App, trigger, user string) (int, error) {
	table, err := tableName(txApp, CollectionNotifications)
	if err != nil {
		return 0, err
	}
	var n int
	err = txApp.DB().NewQuery("SELECT COUNT(*) FROM {{" + table + "}} WHERE [[trigger]] = {:trigger} AND [[created]] > {:since}" +
		" AND EXISTS (SELECT 1 FROM json_each({{" + table + "}}.[[users]]) WHERE value = {:user})").
		Bind(dbx.Params{"trigger": trigger, "user": user, "since": dbTime(s.now().Add(-time.Hour))}).Row(&n)
	if err != nil {
		return 0, fmt.Errorf("count notifications of trigger %s: %w", trigger, err)
	}
	return n, nil
}
