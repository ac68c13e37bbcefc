package notifications

import (
	"context"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// CountUnread returns how many messages in a person's inbox are unread, with what
// was sent to everybody and is not in it yet (see [FillInboxes]).
func CountUnread(app core.App, user string) (int, error) {
	unread, err := findUnread(app, []string{user}, nil, Snapshot{})
	return unread[user], err
}

// ReadAll marks what a person has in their inbox as read and returns how many
// messages that were. Each is saved as a record: the person's other devices hear of
// it. What comes in meanwhile stays unread.
func ReadAll(app core.App, user string, now time.Time) (read int, err error) {
	if err := FillInboxes(app, user); err != nil {
		return 0, err
	}
	for {
		changed := 0
		err := app.RunInTransaction(func(txApp core.App) error {
			records, err := txApp.FindRecordsByFilter(CollectionInbox, "user = {:user} && readAt = '' && created <= {:now}", "", inboxChunk, 0,
				dbx.Params{"user": user, "now": dbTime(now)})
			if err != nil {
				return fmt.Errorf("find unread messages: %w", err)
			}
			for _, r := range records {
				r.Set("readAt", now)
				if err := txApp.SaveNoValidate(r); err != nil {
					return fmt.Errorf("mark message %s as read: %w", r.Id, err)
				}
			}
			changed = len(records)
			return nil
		})
		read += changed
		if err != nil || changed < inboxChunk {
			return read, err
		}
	}
}

// badges are the numbers that pushes show on the app's icon.
type badges struct {
	unread map[string]int // by user
	pushes map[int]*Push  // people with the same number share one
}

// badges counts what the people of rows have unread. Nil means that pushes show no
// number: they are silent, their author chose one, or nobody ever gets anything into
// the inbox here.
func (s *Sender) badges(channel Channel, n *Notification, snapshot Snapshot, rows []*deliveryRow) (*badges, error) {
	if channel != ChannelPush || snapshot.Options.Badge != nil || snapshot.Options.Silent {
		return nil, nil
	}
	used, err := inboxIsUsed(s.app, n)
	if err != nil || !used {
		return nil, err
	}
	unread, err := findUnread(s.app, usersOf(rows), n, snapshot)
	if err != nil {
		return nil, err
	}
	return &badges{unread: unread, pushes: map[int]*Push{}}, nil
}

// over is push with the number of one person.
func (b *badges) over(push *Push, user string) *Push {
	if b == nil {
		return push
	}
	n := b.unread[user]
	if b.pushes[n] == nil {
		own := *push
		own.Badge = &n
		b.pushes[n] = &own
	}
	return b.pushes[n]
}

// goesToInbox says whether a notification is an inbox message too.
func (n *Notification) goesToInbox() bool {
	for _, channel := range n.Channels() {
		if channel == ChannelInbox {
			return true
		}
	}
	return false
}

func inboxIsUsed(app core.App, n *Notification) (bool, error) {
	if n.goesToInbox() {
		return true, nil
	}
	inbox, err := tableName(app, CollectionInbox)
	if err != nil {
		return false, err
	}
	var used bool
	err = app.ConcurrentDB().NewQuery("SELECT EXISTS (SELECT 1 FROM {{" + inbox + "}}) OR EXISTS (SELECT 1 FROM {{groundwork_inbox_everyone}} WHERE [[seq]] > 0)").Row(&used)
	if err != nil {
		return false, fmt.Errorf("find out whether there are inbox messages: %w", err)
	}
	return used, nil
}

// findUnread counts unread messages by user, as they are once n, which may be nil,
// is in the inboxes that it goes to: nobody knows whether a push or its inbox message
// is first.
func findUnread(app core.App, users []string, n *Notification, snapshot Snapshot) (map[string]int, error) {
	inbox, err := tableName(app, CollectionInbox)
	if err != nil {
		return nil, err
	}
	shared, err := newSharedSQL(app)
	if err != nil {
		return nil, err
	}
	id, comes := "", "0"
	params := dbx.Params{"users": mustJSON(users)}
	if n != nil {
		id = n.Id
	}
	if n != nil && n.goesToInbox() {
		params["category"] = snapshot.Category
		comes = "NOT EXISTS (SELECT 1 FROM {{" + inbox + "}} i WHERE i.[[notification]] = {:id} AND i.[[user]] = j.value) AND " +
			shared.wants("j.value", "{:category}", fmt.Sprint(snapshot.optional()))
	}
	params["id"] = id
	var rows []struct {
		User   string `db:"user"`
		Unread int    `db:"unread"`
	}
	err = app.ConcurrentDB().NewQuery("SELECT j.value AS [[user]], (SELECT COUNT(*) FROM {{" + inbox + "}} i WHERE i.[[user]] = j.value AND i.[[readAt]] = '')" +
		" + (SELECT COUNT(*) FROM {{groundwork_inbox_everyone}} e WHERE e.[[seq]] > COALESCE(m.[[seq]], 0) AND e.[[notification]] <> {:id} AND " + shared.isFor("j.value") + ")" +
		" + (" + comes + ") AS [[unread]] FROM json_each({:users}) j LEFT JOIN {{groundwork_inbox_marks}} m ON m.[[user]] = j.value LEFT JOIN {{" + shared.users + "}} u ON u.[[id]] = j.value").
		Bind(params).All(&rows)
	if err != nil {
		return nil, fmt.Errorf("count unread messages: %w", err)
	}
	unread := make(map[string]int, len(rows))
	for _, row := range rows {
		unread[row.User] = row.Unread
	}
	return unread, nil
}

// inboxChunk is how many inbox messages share one transaction.
const inboxChunk = 100

// deliverInbox writes inbox messages. The message and its delivery row are
// stored in one transaction, so that a crash can not write one twice. Each is
// saved as a record: realtime and the owner's own hooks see it.
func (s *Sender) deliverInbox(ctx context.Context, items []item) error {
	for start := 0; start < len(items); start += inboxChunk {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		chunk := items[start:min(start+inboxChunk, len(items))]
		err := s.app.RunInTransaction(func(txApp core.App) error {
			inbox, err := txApp.FindCachedCollectionByNameOrId(CollectionInbox)
			if err != nil {
				return err
			}
			deliveries, err := tableName(txApp, CollectionDeliveries)
			if err != nil {
				return err
			}
			now := dbTime(s.now())
			done := txApp.DB().NewQuery("UPDATE {{" + deliveries + "}} SET [[status]] = 'delivered', [[provider]] = 'inbox', [[attempts]] = [[attempts]] + 1," +
				" [[acceptedAt]] = {:now}, [[deliveredAt]] = {:now}, [[updated]] = {:now} WHERE [[id]] = {:id} AND [[status]] = 'pending'").Prepare()
			defer done.Close()
			for _, it := range chunk {
				res, err := done.Bind(dbx.Params{"id": it.row.ID, "now": now}).Execute()
				if err != nil {
					return fmt.Errorf("store delivery %s: %w", it.row.ID, err)
				}
				if changed, err := res.RowsAffected(); err != nil || changed == 0 {
					continue // cancelled meanwhile
				}
				record := newInboxRecord(inbox, it.msg.Target.UserID, it.msg.NotificationID, it.msg.Title, it.msg.Body, it.msg.Image, it.msg.Link, it.msg.Data)
				if err := txApp.SaveNoValidateWithContext(AsServer(context.Background()), record); err != nil {
					return fmt.Errorf("save inbox message for delivery %s: %w", it.row.ID, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
