package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// A message to everyone's inbox is one delivery and one row of
// groundwork_inbox_everyone, however many people there are. Each person's own row in
// the inbox is made when that person looks (see [FillInboxes]), so that those who
// never do cost nothing.

// Everyone is the user of a delivery that is for all people at once.
const Everyone = "*"

// everyoneList is the list of people of a planned batch for everyone: no id is a
// single character.
const everyoneList = `["` + Everyone + `"]`

func (b *plannedBatch) forEveryone() bool { return b.Users == everyoneList }

func (r *deliveryRow) forEveryone() bool { return r.User == Everyone }

// optional says whether people may switch such messages off: what advertises always.
func (s Snapshot) optional() bool { return s.CanOptOut || s.Kind == KindPromotional }

// sharesInbox says whether a notification's inbox message is one for all. What is made
// of each person's own rows, is due at their own time or counts towards a frequency cap
// is not: it depends on the moment.
func (s *Sender) sharesInbox(n *Notification, snapshot Snapshot) (bool, error) {
	if n.Audience().Kind != AudienceEveryone || !n.goesToInbox() || snapshot.DataFrom != "" || n.LocalTime() {
		return false, nil
	}
	limit, err := s.findCap(snapshot)
	return limit == nil, err
}

// planShared adds the inbox batch for everyone to the first page of a plan.
func planShared(n *Notification, plan Plan, people int64, batches []plannedBatch) []plannedBatch {
	if !plan.Shared || plan.Batch > 0 {
		return batches
	}
	return append(batches, plannedBatch{Notification: n.Id, Batch: len(batches) + 1, Channel: ChannelInbox, Users: everyoneList, Planned: people})
}

// insertShared stores that a message to everyone is planned.
func insertShared(txApp core.App, b plannedBatch) error {
	_, err := txApp.DB().NewQuery("INSERT OR IGNORE INTO {{groundwork_inbox_everyone}} ([[notification]], [[people]]) VALUES ({:id}, {:people})").
		Bind(dbx.Params{"id": b.Notification, "people": b.Planned}).Execute()
	if err != nil {
		return fmt.Errorf("plan inbox message of notification %s to everyone: %w", b.Notification, err)
	}
	return nil
}

// sqlShared counts the people behind the one delivery to everyone, without the one
// that the row itself counts for.
func sqlShared(deliveries string) string {
	return "SELECT d.[[status]], e.[[people]] - 1 AS [[n]] FROM {{groundwork_inbox_everyone}} e JOIN {{" + deliveries +
		"}} d ON d.[[notification]] = e.[[notification]] AND d.[[channel]] = 'inbox' AND d.[[target]] = '" + Everyone + "' WHERE e.[[notification]] = {:id}" +
		" UNION ALL SELECT 'skipped', e.[[skipped]] FROM {{groundwork_inbox_everyone}} e WHERE e.[[notification]] = {:id}"
}

// sharedSQL are parts of queries about messages to everyone.
type sharedSQL struct {
	users, preferences string // tables
	hasCreated         bool
}

func newSharedSQL(app core.App) (sharedSQL, error) {
	users, err := UsersCollection(app)
	if err != nil {
		return sharedSQL{}, err
	}
	preferences, err := tableName(app, CollectionPreferences)
	if err != nil {
		return sharedSQL{}, err
	}
	created := users.Fields.GetByName("created")
	return sharedSQL{users.Name, preferences, created != nil && created.Type() == core.FieldTypeAutodate}, nil
}

// wants is the condition that a person has not switched a category off for the inbox.
// The row that says more wins, a category before a channel, as in findBlocked.
func (q sharedSQL) wants(user, category, optional string) string {
	return "(NOT " + optional + " OR COALESCE((SELECT p.[[enabled]] FROM {{" + q.preferences + "}} p WHERE p.[[user]] = " + user + " AND p.[[category]] IN ('', " + category +
		") AND p.[[channel]] IN ('', 'inbox') ORDER BY p.[[category]] <> '' DESC, p.[[channel]] <> '' DESC LIMIT 1), TRUE))"
}

// isFor is the condition that the message e is for the person u, whose mark is m or
// NULL: they were there when it was sent. Who signed up later has a mark from the start;
// the date counts for those who came into the database by another way.
func (q sharedSQL) isFor(user string) string {
	wants := q.wants(user, "e.[[category]]", "e.[[optional]]")
	if !q.hasCreated {
		return wants
	}
	return "(m.[[user]] IS NOT NULL OR u.[[created]] <= e.[[sentAt]]) AND " + wants
}

// deliverToEveryone sends a message to everyone's inbox.
func (s *Sender) deliverToEveryone(n *Notification, snapshot Snapshot, row *deliveryRow) error {
	shared, err := newSharedSQL(s.app)
	if err != nil {
		return err
	}
	deliveries, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return err
	}
	// Before the transaction: it may read many preferences.
	var skipped int64
	if snapshot.optional() {
		err := s.app.ConcurrentDB().NewQuery("SELECT COUNT(*) FROM (SELECT DISTINCT [[user]] FROM {{" + shared.preferences + "}} WHERE [[category]] IN ('', {:category}) AND [[channel]] IN ('', 'inbox')) q" +
			" JOIN {{" + shared.users + "}} u ON u.[[id]] = q.[[user]] WHERE NOT " + shared.wants("u.[[id]]", "{:category}", "TRUE")).
			Bind(dbx.Params{"category": snapshot.Category}).Row(&skipped)
		if err != nil {
			return fmt.Errorf("count who switched a category off: %w", err)
		}
	}
	sent := false
	err = s.app.RunInTransaction(func(txApp core.App) error {
		sent = false
		// First, so that nobody signs up from here on.
		res, err := txApp.DB().NewQuery("UPDATE {{" + deliveries + "}} SET [[status]] = 'delivered', [[provider]] = 'inbox', [[attempts]] = [[attempts]] + 1," +
			" [[acceptedAt]] = {:now}, [[deliveredAt]] = {:now}, [[updated]] = {:now} WHERE [[id]] = {:id} AND [[status]] = 'pending'").
			Bind(dbx.Params{"id": row.ID, "now": dbTime(s.now())}).Execute()
		if err != nil {
			return fmt.Errorf("store delivery %s: %w", row.ID, err)
		}
		if changed, err := res.RowsAffected(); err != nil || changed == 0 {
			return err // cancelled meanwhile
		}
		var people int64
		if err := txApp.DB().Select("COUNT(*)").From(shared.users).Row(&people); err != nil {
			return fmt.Errorf("count people: %w", err)
		}
		skipped := min(skipped, people)
		who := "people"
		if people-skipped == 1 {
			who = "person"
		}
		says := fmt.Sprintf("One message in the inbox of %d %s, stored once: everybody gets a copy of their own when their app looks.", people-skipped, who)
		if skipped > 0 {
			says += fmt.Sprintf(" %d more switched this category off.", skipped)
		}
		if _, err := txApp.DB().Update(deliveries, dbx.Params{"explanation": says}, dbx.HashExp{"id": row.ID}).Execute(); err != nil {
			return fmt.Errorf("store delivery %s: %w", row.ID, err)
		}
		_, err = txApp.DB().NewQuery("UPDATE {{groundwork_inbox_everyone}} SET [[seq]] = (SELECT COALESCE(MAX([[seq]]), 0) + 1 FROM {{groundwork_inbox_everyone}}), [[sentAt]] = {:now}," +
			" [[category]] = {:category}, [[optional]] = {:optional}, [[people]] = {:people}, [[skipped]] = {:skipped} WHERE [[notification]] = {:id} AND [[seq]] IS NULL").
			Bind(dbx.Params{"id": n.Id, "now": dbTime(s.now()), "category": snapshot.Category, "optional": snapshot.optional(), "people": people - skipped, "skipped": skipped}).Execute()
		if err != nil {
			return fmt.Errorf("send inbox message of notification %s to everyone: %w", n.Id, err)
		}
		sent = true
		return nil
	})
	if err == nil && sent && s.opts.SentToEveryone != nil {
		s.opts.SentToEveryone()
	}
	return err
}

// LastToEveryone returns the number of the last message to everyone's inbox; 0 when
// there is none. It only grows.
func LastToEveryone(app core.App) (last int64, err error) {
	if !app.HasTable("groundwork_inbox_everyone") {
		return 0, nil // the migrations have not run
	}
	err = app.ConcurrentDB().NewQuery("SELECT COALESCE(MAX([[seq]]), 0) FROM {{groundwork_inbox_everyone}}").Row(&last)
	if err != nil {
		return 0, fmt.Errorf("find last message to everyone: %w", err)
	}
	return last, nil
}

// MarkNewPerson keeps what was sent to everyone before out of the inbox of somebody
// who signs up now, in the transaction that creates them.
func MarkNewPerson(txApp core.App, user string) error {
	if !txApp.HasTable("groundwork_inbox_marks") {
		return nil // the migrations have not run
	}
	_, err := txApp.DB().NewQuery("INSERT OR REPLACE INTO {{groundwork_inbox_marks}} ([[user]], [[seq]])" +
		" SELECT {:user}, [[seq]] FROM {{groundwork_inbox_everyone}} WHERE [[seq]] > 0 ORDER BY [[seq]] DESC LIMIT 1").Bind(dbx.Params{"user": user}).Execute()
	if err != nil {
		return fmt.Errorf("mark inbox of new person: %w", err)
	}
	return nil
}

// fillPage is how many messages to everyone one person gets in one transaction.
const fillPage = 100

// FillInboxes gives people their own rows of what was sent to everyone's inbox since
// they last looked: in their language, dated when it was sent. It costs next to nothing
// when there is none. Package hooks calls it before a person's request reads their
// inbox; code that reads somebody's inbox by itself calls it first. It may run any
// number of times at once, in any number of processes: nobody gets a message twice.
func FillInboxes(app core.App, users ...string) error {
	f := &filling{app: app, texts: map[string]*sharedText{}}
	var err error
	if f.sql, err = newSharedSQL(app); err != nil {
		return err
	}
	for chunk := range slices.Chunk(users, inboxChunk) {
		for more := true; more; {
			if more, err = f.fill(chunk); err != nil {
				return err
			}
		}
	}
	return nil
}

// filling is one call of [FillInboxes].
type filling struct {
	app   core.App
	sql   sharedSQL
	texts map[string]*sharedText // by notification
}

// sharedText is what a message to everyone says; nil when it can no longer be read.
type sharedText struct {
	compiled *Compiled
	vars     map[string]any
}

// pendingMessage is one message to everyone that somebody's inbox does not have.
type pendingMessage struct {
	User         string `db:"user"`
	Notification string `db:"notification"`
	Seq          int64  `db:"seq"`
	SentAt       string `db:"sentAt"`
	IsFor        bool   `db:"isFor"`

	rendered *Rendered
}

// fill gives people the next page of what they have not got.
func (f *filling) fill(users []string) (more bool, err error) {
	var pending []*pendingMessage
	for _, user := range users {
		var page []*pendingMessage
		err := f.app.ConcurrentDB().NewQuery("SELECT {:user} AS [[user]], e.[[notification]], e.[[seq]], e.[[sentAt]], " + f.sql.isFor("{:user}") + " AS [[isFor]]" +
			" FROM {{" + f.sql.users + "}} u LEFT JOIN {{groundwork_inbox_marks}} m ON m.[[user]] = u.[[id]]" +
			" CROSS JOIN {{groundwork_inbox_everyone}} e ON e.[[seq]] > COALESCE(m.[[seq]], 0) WHERE u.[[id]] = {:user} ORDER BY e.[[seq]] LIMIT {:limit}").
			Bind(dbx.Params{"user": user, "limit": fillPage}).All(&page)
		if err != nil {
			return false, fmt.Errorf("find messages to everyone: %w", err)
		}
		more = more || len(page) == fillPage
		pending = append(pending, page...)
	}
	if len(pending) == 0 {
		return false, nil
	}
	if err := f.render(pending); err != nil {
		return false, err
	}
	return more, f.app.RunInTransaction(func(txApp core.App) error {
		inbox, err := txApp.FindCachedCollectionByNameOrId(CollectionInbox)
		if err != nil {
			return fmt.Errorf("find inbox collection: %w", err)
		}
		for start := 0; start < len(pending); {
			end := start + 1
			for end < len(pending) && pending[end].User == pending[start].User {
				end++
			}
			if err := fillOne(txApp, f.sql, inbox, pending[start:end]); err != nil {
				return err
			}
			start = end
		}
		return nil
	})
}

// fillOne stores the messages of one person that nobody stored meanwhile. The mark is
// written first: from there on no other process can write.
func fillOne(txApp core.App, q sharedSQL, inbox *core.Collection, messages []*pendingMessage) error {
	user := messages[0].User
	res, err := txApp.DB().NewQuery("INSERT INTO {{groundwork_inbox_marks}} ([[user]], [[seq]]) SELECT [[id]], 0 FROM {{" + q.users + "}} WHERE [[id]] = {:user}" +
		" ON CONFLICT ([[user]]) DO UPDATE SET [[seq]] = [[seq]]").Bind(dbx.Params{"user": user}).Execute()
	if err != nil {
		return fmt.Errorf("mark inbox: %w", err)
	}
	if there, err := res.RowsAffected(); err != nil || there == 0 {
		return err // deleted meanwhile
	}
	var mark int64
	if err := txApp.DB().Select("seq").From("groundwork_inbox_marks").Where(dbx.HashExp{"user": user}).Row(&mark); err != nil {
		return fmt.Errorf("read mark of inbox: %w", err)
	}
	for _, m := range messages {
		if m.Seq <= mark || m.rendered == nil {
			continue
		}
		sentAt, err := types.ParseDateTime(m.SentAt)
		if err != nil {
			return fmt.Errorf("read when notification %s was sent: %w", m.Notification, err)
		}
		record := newInboxRecord(inbox, user, m.Notification, m.rendered.Title, m.rendered.Body, m.rendered.Image, m.rendered.Link, m.rendered.Data)
		record.SetRaw("created", sentAt)
		record.SetRaw("updated", sentAt)
		if err := txApp.SaveNoValidateWithContext(AsServer(context.Background()), record); err != nil {
			return fmt.Errorf("save inbox message of notification %s: %w", m.Notification, err)
		}
	}
	last := max(mark, messages[len(messages)-1].Seq)
	if _, err := txApp.DB().Update("groundwork_inbox_marks", dbx.Params{"seq": last}, dbx.HashExp{"user": user}).Execute(); err != nil {
		return fmt.Errorf("mark inbox: %w", err)
	}
	return nil
}

func newInboxRecord(inbox *core.Collection, user, notification, title, body, image, link string, data map[string]any) *core.Record {
	record := core.NewRecord(inbox)
	record.Set("user", user)
	record.Set("notification", notification)
	record.Set("title", title)
	record.Set("body", body)
	record.Set("image", image)
	record.Set("link", link)
	if len(data) > 0 {
		record.Set("data", data)
	}
	return record
}

// render makes the texts of messages. Those that cannot be made are left out, with a
// line in the log: it was tried for somebody before anything was sent.
func (f *filling) render(messages []*pendingMessage) error {
	byText := map[string][]*pendingMessage{}
	for _, m := range messages {
		if m.IsFor {
			byText[m.Notification] = append(byText[m.Notification], m)
		}
	}
	for id, of := range byText {
		text, err := f.text(id)
		if err != nil {
			return err
		}
		if text == nil {
			continue
		}
		users := make([]string, len(of))
		for i, m := range of {
			users[i] = m.User
		}
		people, err := findRecipients(f.app, users, text.compiled)
		if err != nil {
			return err
		}
		for _, m := range of {
			p := people[m.User]
			if p == nil {
				continue // deleted meanwhile
			}
			vars := make(map[string]any, len(text.vars)+1)
			for k, v := range text.vars {
				vars[k] = v
			}
			vars["user"] = p.Vars
			rendered, err := text.compiled.In(p.Locale).Render(vars, ChannelInbox)
			if err != nil {
				f.app.Logger().Error("a message to everyone could not be made for somebody", "notification", id, "error", err)
				continue
			}
			m.rendered = rendered
		}
	}
	return nil
}

func (f *filling) text(id string) (*sharedText, error) {
	if text, ok := f.texts[id]; ok {
		return text, nil
	}
	n, err := FindNotificationByID(f.app, id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	f.texts[id] = nil
	if err == nil {
		var text *sharedText
		if text, err = readSharedText(n); err == nil {
			f.texts[id] = text
			return text, nil
		}
	}
	// Nobody's inbox may stop at one that cannot be read.
	f.app.Logger().Error("a message to everyone cannot be read, and is left out", "notification", id, "error", err)
	return nil, nil
}

func readSharedText(n *Notification) (*sharedText, error) {
	snapshot, err := n.Snapshot()
	if err != nil {
		return nil, err
	}
	if snapshot.Kind == "" {
		return nil, errors.New("its content was erased")
	}
	compiled, err := Compile(snapshot.Content)
	if err != nil {
		return nil, err
	}
	return &sharedText{compiled, baseVars(n, snapshot)}, nil
}
