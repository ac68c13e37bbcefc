package schedules

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// defaultRecipients is how many people a notification may go to whose payload does
// not say so. It is the number above which the owner of a notification types it.
const defaultRecipients = 1000

// notifyAction makes a notification and sends it.
type notifyAction struct{}

func (notifyAction) keys() []Key {
	return []Key{
		{"template", "the key or id of the template"},
		{"title", "the headline; in place of the template's"},
		{"body", "the text; in place of the template's"},
		{"category", "the key or id of the category; the template's when it is left out"},
		{"channels", `how it reaches people, such as ["email", "inbox"]; required`},
		{"audience", "who gets it: users, topic, filter or everyone; required"},
		{"users", "the ids of the people, for the audience users"},
		{"topics", "the keys or ids of the topics, for the audience topic"},
		{"filter", `which users, for the audience filter, such as "verified = true"`},
		{"maxRecipients", "the most people it may go to; a run that finds more sends nothing and fails. 1,000 when it is left out; required for the audience everyone"},
		{"localTime", `true sends at the schedule's time on each person's own clock; "09:00" at 9 o'clock there, on the day of the run or, when that is later than 9, on the next`},
		{"expiresAfterMinutes", "after how many minutes nobody gets it any more"},
		{"smsAfterMinutes", "after how many minutes whoever has not opened the push gets an SMS"},
		{"variables", "values for the placeholders of the texts"},
		{"data", "extra values for the app"},
		{"image", "the address of a picture"},
		{"link", "what opens when someone taps the message"},
		{"options", "special settings for push messages, as in a notification"},
	}
}

var timeOfDay = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]$`)

// build makes the notification that a run at due sends, unsaved, and says to how many
// people it may go.
func (a notifyAction) build(app core.App, s *Schedule, due time.Time) (n *notifications.Notification, most int64, err error) {
	p := readPayload(s.GetString("payload"), a.keys())
	n, err = notifications.NewNotification(app)
	if err != nil {
		return nil, 0, err
	}
	for _, name := range []string{"title", "body", "image", "link", "filter"} {
		n.Set(name, p.text(name))
	}
	for _, name := range []string{"variables", "data", "options"} {
		if object := p.object(name); object != nil {
			n.Set(name, object)
		}
	}
	n.Set("template", p.one(app, "template", notifications.CollectionTemplates))
	n.Set("category", p.one(app, "category", notifications.CollectionCategories))
	n.Set("channels", p.among("channels", "push", "email", "sms", "inbox"))
	audience := p.text("audience")
	if kinds := []string{"users", "topic", "filter", "everyone"}; !slices.Contains(kinds, audience) {
		p.fail(`Say who gets it: "audience" must be %s.`, list(kinds, "or"))
	}
	n.Set("audience", audience)
	for name, kind := range map[string]string{"users": "users", "topics": "topic", "filter": "filter"} {
		if p.has(name) && kind != audience {
			p.fail("%q does not go together with the audience %s: take one of them out.", name, audience)
		}
	}
	n.Set("users", p.list("users"))
	n.Set("topics", p.many(app, "topics", notifications.CollectionTopics))
	if p.has("smsAfterMinutes") {
		n.Set("smsAfterMinutes", p.number("smsAfterMinutes", 1, 10080, 0))
	}
	if minutes := p.number("expiresAfterMinutes", 1, 525600, 0); minutes > 0 {
		n.Set("expiresAt", dateTime(due.Add(time.Duration(minutes)*time.Minute)))
	}
	p.localTime(app, n, due, s.Zone(app))
	most = p.number("maxRecipients", 1, 1e9, 0)
	switch {
	case most == 0 && audience == "everyone":
		p.fail(`This goes to everyone. Say how many people that may be at most, such as "maxRecipients": 5000: a run that finds more sends nothing and tells you.`)
	case most == 0:
		most = defaultRecipients
	}
	return n, most, p.err
}

// localTime sets when the notification goes out on each person's own clock.
func (p *payload) localTime(app core.App, n *notifications.Notification, due time.Time, zone *time.Location) {
	if !p.has("localTime") {
		return
	}
	var own bool
	var at string
	clock := notifications.ClockOf(due, zone)
	switch strings.TrimSpace(string(p.values["localTime"])) {
	case "true":
		own = true
	case "false":
		return
	default:
		at = p.text("localTime")
		if !timeOfDay.MatchString(at) {
			p.fail(`"localTime" in the payload must be true, or a time such as "09:00".`)
			return
		}
	}
	if !own {
		that, _ := time.Parse("15:04", at) // it matched above
		wanted := time.Date(clock.Year(), clock.Month(), clock.Day(), that.Hour(), that.Minute(), 0, 0, time.UTC)
		if !wanted.After(clock) {
			wanted = wanted.AddDate(0, 0, 1)
		}
		clock = wanted
	}
	n.Set("localTime", true)
	// Of sendAt the clock time counts, as it is read in the default zone.
	n.Set("sendAt", dateTime(notifications.AtClock(clock, notifications.DefaultZone(app))))
}

func (p *payload) among(name string, known ...string) []string {
	all := p.list(name)
	for _, v := range all {
		if !slices.Contains(known, v) {
			p.fail("%q in the payload has %q. It knows %s.", name, v, list(known, "and"))
		}
	}
	if len(all) == 0 {
		p.fail("%q is missing in the payload: write at least one of %s.", name, list(known, "and"))
	}
	return all
}

// one is the id of the record that a key names, by its key or its id.
func (p *payload) one(app core.App, name, collection string) string {
	return p.find(app, name, collection, p.text(name))
}

func (p *payload) many(app core.App, name, collection string) []string {
	all := p.list(name)
	for i, v := range all {
		all[i] = p.find(app, name, collection, strings.TrimSpace(v))
	}
	return all
}

func (p *payload) find(app core.App, name, collection, keyOrID string) string {
	if keyOrID == "" {
		return ""
	}
	records, err := app.FindAllRecords(collection, dbx.Or(dbx.HashExp{"key": keyOrID}, dbx.HashExp{"id": keyOrID}))
	switch {
	case err != nil:
		p.fail("%q in the payload cannot be looked up right now.", name)
	case len(records) == 0:
		p.fail("There is no %s %q.", strings.TrimSuffix(name, "s"), keyOrID)
	default:
		// A key wins over an id that looks like it.
		sort.SliceStable(records, func(i, _ int) bool { return records[i].GetString("key") == keyOrID })
		return records[0].Id
	}
	return ""
}

// check refuses what would be refused when it is sent.
func (a notifyAction) check(app core.App, s *Schedule, c checking) error {
	n, _, err := a.build(app, s, c.next)
	if err != nil {
		return err
	}
	if err := allThere(app, n.GetStringSlice("users")); err != nil {
		return err
	}
	if err := n.Check(app, c.now); err != nil {
		return asSentence(err)
	}
	people, err := n.Audience().Count(app)
	if err != nil {
		return asSentence(err)
	}
	n.Set("confirmRecipients", people)
	n.SetAction(notifications.ActionSend)
	if _, err := n.Take(app, c.now); err != nil {
		return asSentence(err)
	}
	return nil
}

// allThere refuses people who do not exist, which a run would only find out at night.
func allThere(app core.App, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	users, err := notifications.UsersCollection(app)
	if err != nil {
		return err
	}
	found, err := app.FindRecordsByIds(users, ids)
	if err != nil {
		return fmt.Errorf("find people of a schedule: %w", err)
	}
	for _, id := range ids {
		if !slices.ContainsFunc(found, func(r *core.Record) bool { return r.Id == id }) {
			return sentence("There is nobody with the id %q. Write ids as they are in the list of %s, not names or e-mail addresses.", id, users.Name)
		}
	}
	return nil
}

// asSentence turns the refusals of a notification into one of the payload.
func asSentence(err error) error {
	var many notifications.FieldErrors
	var one *notifications.FieldError
	switch {
	case errors.As(err, &many):
		return Sentence(many.Error())
	case errors.As(err, &one):
		return Sentence(one.Error())
	default:
		return err
	}
}

func (a notifyAction) run(ctx context.Context, c *call) (string, error) {
	key := fmt.Sprintf("schedule:%s:%s", c.schedule.Id, c.due.UTC().Format(time.RFC3339Nano))
	var output string
	err := c.app.RunInTransaction(func(txApp core.App) error {
		made, err := txApp.FindFirstRecordByData(notifications.CollectionNotifications, "idempotencyKey", key)
		if err == nil {
			// By an attempt that was cut off after it.
			output = fmt.Sprintf("Notification %s was made.", made.Id)
			return nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("find notification of schedule %s: %w", c.schedule.Id, err)
		}
		n, most, err := a.build(txApp, c.schedule, c.due)
		if err != nil {
			return err
		}
		people, err := n.Audience().Count(txApp)
		if err != nil {
			return asSentence(err)
		}
		if people > most {
			return sentence("This would go to %s, and \"maxRecipients\" is %s: nothing was sent. If that many are right, raise it in the payload.", peopleOf(people), grouped(most))
		}
		n.Set("confirmRecipients", people)
		n.Set("idempotencyKey", key)
		if err := n.Create(txApp); err != nil {
			return asSentence(err)
		}
		output = fmt.Sprintf("Notification %s goes to %s.", n.Id, peopleOf(people))
		return nil
	})
	return output, err
}

func peopleOf(n int64) string {
	if n == 1 {
		return "1 person"
	}
	return grouped(n) + " people"
}

// FindByTemplate is a schedule whose notifications are made of a template, by its key or
// id; nil when there is none.
func FindByTemplate(app core.App, template string) (*Schedule, error) {
	if template == "" {
		return nil, nil
	}
	found, err := app.FindAllRecords(Collection, dbx.NewExp("[[action]] = 'notification' AND json_valid([[payload]]) AND json_extract([[payload]], '$.template') = {:template}",
		dbx.Params{"template": template}))
	if err != nil {
		return nil, fmt.Errorf("find schedules of template %s: %w", template, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return AsSchedule(found[0]), nil
}

// ForgetPerson takes a person out of the payloads that name them, in the transaction
// that deletes the account.
func ForgetPerson(txApp core.App, id string) error {
	// The tables may not be there yet.
	if _, err := txApp.FindCachedCollectionByNameOrId(Collection); err != nil {
		return nil
	}
	found, err := txApp.FindAllRecords(Collection, dbx.NewExp("[[action]] = 'notification' AND json_valid([[payload]]) AND EXISTS"+
		" (SELECT 1 FROM json_each([[payload]], '$.users') WHERE value = {:id})", dbx.Params{"id": id}))
	if err != nil {
		return fmt.Errorf("find schedules that name person %s: %w", id, err)
	}
	for _, record := range found {
		var values map[string]any
		if err := record.UnmarshalJSONField("payload", &values); err != nil {
			return fmt.Errorf("read payload of schedule %s: %w", record.Id, err)
		}
		all, _ := values["users"].([]any)
		values["users"] = slices.DeleteFunc(all, func(v any) bool { return v == id })
		record.Set("payload", values)
		if err := txApp.SaveWithContext(notifications.AsServer(context.Background()), record); err != nil {
			return fmt.Errorf("take person %s out of schedule %s: %w", id, record.Id, err)
		}
	}
	return nil
}
