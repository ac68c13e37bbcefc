package notifications

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// Notification is a record of the notifications collection: the intent to tell
// an audience something.
type Notification struct {
	core.BaseRecordProxy
}

// NewNotification returns an empty draft.
func NewNotification(app core.App) (*Notification, error) {
	col, err := app.FindCachedCollectionByNameOrId(CollectionNotifications)
	if err != nil {
		return nil, fmt.Errorf("find notifications collection: %w", err)
	}
	return AsNotification(core.NewRecord(col)), nil
}

// AsNotification wraps a record of the notifications collection.
func AsNotification(record *core.Record) *Notification {
	n := &Notification{}
	n.SetProxyRecord(record)
	return n
}

// FindNotificationByID returns one notification, or an error that wraps
// sql.ErrNoRows when there is none.
func FindNotificationByID(app core.App, id string) (*Notification, error) {
	record, err := app.FindRecordById(CollectionNotifications, id)
	if err != nil {
		return nil, fmt.Errorf("find notification %s: %w", id, err)
	}
	return AsNotification(record), nil
}

func (n *Notification) Title() string            { return n.GetString("title") }
func (n *Notification) Body() string             { return n.GetString("body") }
func (n *Notification) Image() string            { return n.GetString("image") }
func (n *Notification) Link() string             { return n.GetString("link") }
func (n *Notification) Template() string         { return n.GetString("template") }
func (n *Notification) Category() string         { return n.GetString("category") }
func (n *Notification) SendAt() time.Time        { return n.GetDateTime("sendAt").Time() }
func (n *Notification) ExpiresAt() time.Time     { return n.GetDateTime("expiresAt").Time() }
func (n *Notification) StartedAt() time.Time     { return n.GetDateTime("startedAt").Time() }
func (n *Notification) Action() Action           { return Action(n.GetString("action")) }
func (n *Notification) SetAction(a Action)       { n.Set("action", string(a)) }
func (n *Notification) ConfirmRecipients() int64 { return n.GetInt64("confirmRecipients") }
func (n *Notification) StatusReason() string     { return n.GetString("statusReason") }
func (n *Notification) SetStatusReason(s string) { n.Set("statusReason", s) }
func (n *Notification) RequestID() string        { return n.GetString("requestId") }
func (n *Notification) SetRequestID(id string)   { n.Set("requestId", id) }
func (n *Notification) Trigger() string          { return n.GetString("trigger") }
func (n *Notification) SetStatus(s Status)       { n.Set("status", string(s)) }

// Status is draft for a notification that was never asked to be sent.
func (n *Notification) Status() Status {
	if s := n.GetString("status"); s != "" {
		return Status(s)
	}
	return StatusDraft
}

// Channels are the channels asked for, each once.
func (n *Notification) Channels() []Channel {
	names := n.GetStringSlice("channels")
	channels := make([]Channel, len(names))
	for i, name := range names {
		channels[i] = Channel(name)
	}
	return channels
}

// Data is the custom payload; nil when empty.
func (n *Notification) Data() map[string]any { return n.jsonObject("data") }

// Variables are what templates see besides user and app; nil when empty.
func (n *Notification) Variables() map[string]any { return n.jsonObject("variables") }

func (n *Notification) jsonObject(field string) map[string]any {
	var object map[string]any
	_ = n.UnmarshalJSONField(field, &object) // the field's own validation refuses what is not an object
	return object
}

// Audience is who this notification is for. Its filter's @now is the moment
// planning began, or the current time before that.
func (n *Notification) Audience() Audience {
	return Audience{
		Kind:   AudienceKind(n.GetString("audience")),
		Users:  n.GetStringSlice("users"),
		Topics: n.GetStringSlice("topics"),
		Filter: n.GetString("filter"),
		Now:    n.Plan().Now,
	}
}

// Snapshot is what a notification says and on whose behalf, fixed when it is
// sent: an edit of the template afterwards does not change half of a broadcast.
type Snapshot struct {
	Content     Content        `json:"content"`
	DataFrom    string         `json:"dataFrom,omitempty"` // id of the collection whose rows the texts show
	DataName    string         `json:"dataName,omitempty"` // what it was called
	Kind        Kind           `json:"kind"`
	Category    string         `json:"category"` // id
	CategoryKey string         `json:"categoryKey"`
	CanOptOut   bool           `json:"canOptOut"`
	Variables   map[string]any `json:"variables,omitempty"`
	Options     Options        `json:"options,omitzero"`
	AppName     string         `json:"appName"`
	AppURL      string         `json:"appUrl"`
}

// Snapshot returns what was fixed at the send; the zero value for a draft.
func (n *Notification) Snapshot() (Snapshot, error) {
	var s Snapshot
	if err := n.UnmarshalJSONField("content", &s); err != nil {
		return s, fmt.Errorf("read content of notification %s: %w", n.Id, err)
	}
	return s, nil
}

// SetSnapshot stores what is sent. HTML is not escaped in it: that would make it
// several times as long.
func (n *Notification) SetSnapshot(s Snapshot) {
	var raw bytes.Buffer
	encoder := json.NewEncoder(&raw)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s); err != nil {
		n.Set("content", s) // its validation says what is wrong
		return
	}
	n.Set("content", types.JSONRaw(bytes.TrimSpace(raw.Bytes())))
}

// Plan is how far the planner has come.
type Plan struct {
	Now     time.Time `json:"now"`               // what @now means; zero before planning began
	Cursor  string    `json:"cursor,omitempty"`  // the last user id that has its deliveries
	Batch   int       `json:"batch,omitempty"`   // the number of the last batch
	Pages   int       `json:"pages,omitempty"`   // pages planned so far, as far as their size depends on it
	People  int64     `json:"people,omitempty"`  // users planned so far
	Queue   string    `json:"queue,omitempty"`   // the queue of its batches
	Clock   time.Time `json:"clock,omitzero"`    // with localTime: what people's clocks show when it goes out, written in UTC
	AnyDay  bool      `json:"anyDay,omitempty"`  // Clock is a time of day only: the next one counts
	Shared  bool      `json:"shared,omitempty"`  // its inbox message is one for all
	Done    bool      `json:"done,omitempty"`    // everybody has their deliveries
	Expired bool      `json:"expired,omitempty"` // expiresAt passed before everything was out
	Held    bool      `json:"held,omitempty"`    // paused because a provider is; goes on when it does
}

// Plan returns the planner's state; the zero value before planning began.
func (n *Notification) Plan() Plan {
	var p Plan
	_ = n.UnmarshalJSONField("plan", &p) // only the planner writes it
	return p
}

// SetPlan stores the planner's state.
func (n *Notification) SetPlan(p Plan) { n.Set("plan", p) }

// Counts are the deliveries of a notification by what became of them.
// Total = Sent + Failed + Skipped + Pending + Unknown + Cancelled.
type Counts struct {
	Total, Sent, Failed, Skipped, Pending, Unknown, Cancelled int64
	// Delivered and Opened are part of Sent.
	Delivered, Opened int64

	// Fallbacks are the batches whose people may still get an SMS in place of a push;
	// their deliveries are counted once there are any.
	Fallbacks int64
}

// FindCounts counts the deliveries of a notification from its rows and its
// planned batches, at one moment.
func FindCounts(app core.App, notificationID string) (Counts, error) {
	var c Counts
	table, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return c, err
	}
	var rows []struct {
		Status string `db:"status"`
		N      int64  `db:"n"`
	}
	// Tests are in no batch: only of what is in none the rows themselves are read.
	err = app.ConcurrentDB().NewQuery("SELECT [[status]], COUNT(*) AS [[n]] FROM {{" + table +
		"}} WHERE [[notification]] = {:id} AND [[batch]] > 0 GROUP BY [[status]] UNION ALL " +
		"SELECT [[status]], COUNT(*) FROM {{" + table + "}} WHERE [[notification]] = {:id} AND [[batch]] = 0 AND NOT [[test]] GROUP BY [[status]] UNION ALL " + sqlPlanned(table) + " UNION ALL " + sqlShared(table) +
		" UNION ALL SELECT 'fallback' AS [[status]], COUNT(*) AS [[n]] FROM {{groundwork_fallbacks}} WHERE [[notification]] = {:id}").
		Bind(map[string]any{"id": notificationID}).All(&rows)
	if err != nil {
		return c, fmt.Errorf("count deliveries of notification %s: %w", notificationID, err)
	}
	for _, row := range rows {
		if row.Status == "fallback" {
			c.Fallbacks = row.N
			continue
		}
		c.Total += row.N
		switch DeliveryStatus(row.Status) {
		case DeliveryPending, DeliverySending, "planned":
			c.Pending += row.N
		case DeliveryAccepted, DeliveryCaptured:
			c.Sent += row.N
		case DeliveryDelivered:
			c.Sent += row.N
			c.Delivered += row.N
		case DeliveryOpened:
			c.Sent += row.N
			c.Delivered += row.N
			c.Opened += row.N
		case DeliveryFailed:
			c.Failed += row.N
		case DeliverySkipped:
			c.Skipped += row.N
		case DeliveryUnknown:
			c.Unknown += row.N
		case DeliveryCancelled:
			c.Cancelled += row.N
		}
	}
	return c, nil
}

// SetCounts writes the counts into the record; it does not save.
func (n *Notification) SetCounts(c Counts) {
	n.Set("total", c.Total)
	n.Set("sent", c.Sent)
	n.Set("failed", c.Failed)
	n.Set("skipped", c.Skipped)
	n.Set("pending", c.Pending)
	n.Set("unknown", c.Unknown)
	n.Set("cancelled", c.Cancelled)
	n.Set("delivered", c.Delivered)
	n.Set("opened", c.Opened)
}

// tableName is the current table of one of our collections (an administrator
// may have renamed it).
func tableName(app core.App, collectionID string) (string, error) {
	col, err := app.FindCachedCollectionByNameOrId(collectionID)
	if err != nil {
		return "", fmt.Errorf("find collection %s: %w", collectionID, err)
	}
	return col.Name, nil
}

// dbTime is a time as PocketBase stores it; "" for the zero time.
func dbTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(types.DefaultDateLayout)
}

func mustJSON(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return "null" // only for values built here, which always encode
	}
	return string(raw)
}
