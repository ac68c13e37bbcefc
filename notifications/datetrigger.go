package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/dbutils"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/jobs"
)

// A date trigger fires when a date in a record comes, give or take its offset:
// once for each value of the date, so that a date that moves is told again. There is
// no job for each record: once a minute the records are looked up whose dates came
// since the last time. Whoever was looked at gets a row in groundwork_reminders, in
// the transaction that enqueues the message, whether the condition let it fire or
// not.

const (
	// dateGrace is how far back each look goes beyond the last one: a record that is
	// saved with a date that has just passed is told at once. It is also how far a
	// new trigger looks back.
	dateGrace = time.Hour

	// datesKept is how long it is remembered that a date was told after the last
	// moment at which it could be found again.
	datesKept = 24 * time.Hour

	// datePage is how many records are gone through in one transaction.
	datePage = 100

	// maxOffset bounds offsetMinutes in both directions.
	maxOffset = 5 * 366 * 24 * time.Hour
)

// DatesArgs looks for dates that have come.
type DatesArgs struct{}

// Kind implements [jobs.Args].
func (DatesArgs) Kind() string { return "notification.dates" }

// EnqueueDates asks for a look at the dates, unless nobody waits for any.
func EnqueueDates(app core.App, set TriggerSet) error {
	waiting := false
	for _, triggers := range set {
		for _, t := range triggers {
			waiting = waiting || t.Event == EventDate
		}
	}
	if !waiting {
		// What a trigger that was switched off has left is to be cleared.
		var left int
		err := app.ConcurrentDB().NewQuery("SELECT 1 FROM {{groundwork_reminder_scans}} LIMIT 1").Row(&left)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find date triggers: %w", err)
		}
	}
	_, err := jobs.Enqueue(app, DatesArgs{}, jobs.Options{UniqueKey: "dates"})
	return err
}

type datesWorker struct{ s *Sender }

// Timeout implements [jobs.Timeouter].
func (datesWorker) Timeout() time.Duration { return -1 }

// Work implements [jobs.Worker].
func (w datesWorker) Work(ctx context.Context, _ *jobs.Job[DatesArgs]) error {
	s := w.s
	set, err := LoadTriggers(s.app)
	if err != nil {
		return err
	}
	var waiting []string
	for collection, triggers := range set {
		for _, t := range triggers {
			if t.Event != EventDate {
				continue
			}
			waiting = append(waiting, t.ID)
			if err := s.lookAtDates(ctx, collection, t); err != nil {
				return err
			}
		}
	}
	return s.forgetDates(waiting)
}

// watches is what a trigger looks at: another field or offset is another look.
func (t *Trigger) watches(collectionID string) string {
	return fmt.Sprintf("%s %s %d", collectionID, t.DateField, int(t.Offset.Minutes()))
}

// lookAtDates fires a trigger for the dates that came since the last look.
func (s *Sender) lookAtDates(ctx context.Context, collectionID string, t *Trigger) error {
	now := s.now()
	var last struct {
		Watches string `db:"watches"`
		Until   string `db:"until"`
	}
	err := s.app.ConcurrentDB().Select("watches", "until").From("groundwork_reminder_scans").Where(dbx.HashExp{"trigger": t.ID}).One(&last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("find last look of trigger %s: %w", t.ID, err)
	}
	watches := t.watches(collectionID)
	from := now
	if until := parseDBTime(last.Until); last.Watches == watches && until.Before(now) {
		from = until // everything that came while the server was down
	}
	from = from.Add(-dateGrace)

	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		more, err := s.fireDates(collectionID, t, from, now)
		if err != nil {
			var broken *brokenTriggerError
			if !errors.As(err, &broken) {
				return err
			}
			// It changed since it was saved. As with all triggers, nobody waits for it.
			s.log.Error("trigger cannot be evaluated: open it in the dashboard and save it to see why", "trigger", t.Name, "error", broken.error)
			break
		}
		if !more {
			break
		}
	}
	return s.app.RunInTransaction(func(txApp core.App) error {
		if _, err := txApp.DB().NewQuery("INSERT INTO {{groundwork_reminder_scans}} ([[trigger]], [[watches]], [[until]]) VALUES ({:trigger}, {:watches}, {:until})" +
			" ON CONFLICT ([[trigger]]) DO UPDATE SET [[watches]] = excluded.[[watches]], [[until]] = excluded.[[until]]").
			Bind(dbx.Params{"trigger": t.ID, "watches": watches, "until": dbTime(now)}).Execute(); err != nil {
			return fmt.Errorf("store look of trigger %s: %w", t.ID, err)
		}
		if _, err := txApp.DB().NewQuery("DELETE FROM {{groundwork_reminders}} WHERE [[trigger]] = {:trigger} AND [[past]] < {:past}").
			Bind(dbx.Params{"trigger": t.ID, "past": dbTime(from.Add(-datesKept))}).Execute(); err != nil {
			return fmt.Errorf("forget dates of trigger %s: %w", t.ID, err)
		}
		return nil
	})
}

// brokenTriggerError means that a trigger does not fit its collection any more.
type brokenTriggerError struct{ error }

// fireDates goes through one page of the dates between from and to, both of them
// moments at which the trigger is due. more says that there may be others.
func (s *Sender) fireDates(collectionID string, t *Trigger, from, to time.Time) (more bool, err error) {
	collection, err := s.app.FindCachedCollectionByNameOrId(collectionID)
	if err != nil || !isDate(collection.Fields.GetByName(t.DateField)) {
		return false, &brokenTriggerError{fmt.Errorf("there is no date field %q", t.DateField)}
	}
	err = s.app.RunInTransaction(func(txApp core.App) error {
		var found []struct {
			ID   string `db:"id"`
			Date string `db:"date"`
		}
		// The column stands alone in the comparisons: only so is its index of use.
		column := "r.[[" + t.DateField + "]]"
		err := txApp.DB().NewQuery("SELECT r.[[id]], " + column + " AS [[date]] FROM {{" + collection.Name + "}} r WHERE " + column + " > {:from} AND " + column + " <= {:to}" +
			" AND NOT EXISTS (SELECT 1 FROM {{groundwork_reminders}} m WHERE m.[[trigger]] = {:trigger} AND m.[[record]] = r.[[id]] AND m.[[date]] = {:field} || " + column + ")" +
			" ORDER BY " + column + " LIMIT {:limit}").
			Bind(dbx.Params{"from": dbTime(from.Add(-t.Offset)), "to": dbTime(to.Add(-t.Offset)), "trigger": t.ID, "field": t.DateField + " ", "limit": datePage}).All(&found)
		if err != nil {
			return fmt.Errorf("find dates of trigger %s: %w", t.ID, err)
		}
		more = len(found) == datePage
		for _, row := range found {
			date, err := types.ParseDateTime(row.Date)
			if err != nil {
				date = types.NowDateTime() // it is told and forgotten
			}
			past := date.Time()
			if t.Offset > 0 {
				past = past.Add(t.Offset)
			}
			if _, err := txApp.DB().Insert("groundwork_reminders", dbx.Params{"trigger": t.ID, "record": row.ID, "date": t.DateField + " " + row.Date, "past": dbTime(past)}).Execute(); err != nil {
				return fmt.Errorf("remember date of record %s: %w", row.ID, err)
			}
			if err := t.fireDate(txApp, collection, row.ID, row.Date); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
}

func (t *Trigger) fireDate(txApp core.App, collection *core.Collection, id, date string) error {
	record, err := txApp.FindRecordById(collection, id)
	if err != nil {
		return fmt.Errorf("find record %s of trigger %s: %w", id, t.ID, err)
	}
	matched, err := t.Matches(txApp, record)
	if err != nil || !matched {
		return asBroken(err)
	}
	people, err := t.RecipientsOf(txApp, record)
	if err != nil {
		return asBroken(err)
	}
	_, err = t.fire(txApp, record, people, date, "")
	return err
}

func asBroken(err error) error {
	if err == nil {
		return nil
	}
	return &brokenTriggerError{err}
}

// forgetDates drops what is known of triggers that do not wait for dates any more:
// one that is switched on again begins anew, and does not make up for all that
// came meanwhile. That a date was told is kept as long as the trigger is there.
func (s *Sender) forgetDates(waiting []string) error {
	table, err := tableName(s.app, CollectionTriggers)
	if err != nil {
		return err
	}
	for _, sql := range []string{
		"DELETE FROM {{groundwork_reminder_scans}} WHERE [[trigger]] NOT IN (SELECT value FROM json_each({:waiting}))",
		"DELETE FROM {{groundwork_reminders}} WHERE [[trigger]] NOT IN (SELECT value FROM json_each({:waiting})) AND [[trigger]] NOT IN (SELECT [[id]] FROM {{" + table + "}})",
	} {
		if waiting == nil {
			waiting = []string{}
		}
		if _, err := s.app.NonconcurrentDB().NewQuery(sql).Bind(dbx.Params{"waiting": mustJSON(waiting)}).Execute(); err != nil {
			return fmt.Errorf("forget dates of triggers: %w", err)
		}
	}
	return nil
}

// stillDue says whether a record has the date for which its trigger fired.
func (t *Trigger) stillDue(record *core.Record, date string) bool {
	told, err := types.ParseDateTime(date)
	return err == nil && told.Equal(record.GetDateTime(t.DateField))
}

func isDate(f core.Field) bool {
	return f != nil && (f.Type() == core.FieldTypeDate || f.Type() == core.FieldTypeAutodate)
}

// checkDate refuses what a date trigger cannot go by.
func (e FieldErrors) checkDate(watched *core.Collection, field string, offset float64) {
	switch f := watched.Fields.GetByName(field); {
	case field == "":
		e.add("dateField", "required", "Name the date field that the reminder goes by, such as startsAt.")
	case f == nil:
		e.add("dateField", "not_found", fmt.Sprintf("The collection %s has no field %q.", watched.Name, field))
	case !isDate(f):
		e.add("dateField", "not_a_date", fmt.Sprintf("The field %q is no date: choose a date field of %s.", field, watched.Name))
	}
	if offset > maxOffset.Minutes() || offset < -maxOffset.Minutes() {
		e.add("offsetMinutes", "too_far", fmt.Sprintf("This is too far from the date: at most %d minutes, which are five years.", int(maxOffset.Minutes())))
	}
}

// IndexDates adds an index for the date field of a trigger to its collection,
// unless there is one: the records are looked up once a minute.
func IndexDates(app core.App, trigger *core.Record) error {
	if trigger.GetString("event") != EventDate {
		return nil
	}
	collection, err := app.FindCollectionByNameOrId(trigger.GetString("collection"))
	if err != nil {
		return fmt.Errorf("find collection of trigger %s: %w", trigger.Id, err)
	}
	field := strings.TrimSpace(trigger.GetString("dateField"))
	for _, text := range collection.Indexes {
		index := dbutils.ParseIndex(text)
		if len(index.Columns) > 0 && strings.EqualFold(index.Columns[0].Name, field) && index.Where == "" {
			return nil
		}
	}
	collection.AddIndex("idx_gw_dates_"+collection.Id+"_"+field, false, "`"+field+"`", "")
	if err := app.Save(collection); err != nil {
		return fmt.Errorf("add index for %s.%s: %w", collection.Name, field, err)
	}
	return nil
}
