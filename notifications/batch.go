package notifications

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// A batch is planned as a list of people. Its deliveries become rows when it is
// worked: those of a push with their first result, because writing a row once is
// half the cost of a broadcast, and those of all other channels before anything
// leaves. Whatever keeps a batch from being worked (a pause, a provider that does
// not work, a cancellation) writes its rows as pending first, so that everybody
// has a row that says why.

// plannedBatch is a batch whose deliveries are not all rows yet. Planned counts
// one for each person; how many devices they have is counted when it is worked.
type plannedBatch struct {
	Notification string  `db:"notification"`
	Batch        int     `db:"batch"`
	Channel      Channel `db:"channel"`
	Users        string  `db:"users"` // JSON
	Planned      int64   `db:"planned"`
	RunAt        string  `db:"runAt"`  // not worked before; "" means at once
	Missed       bool    `db:"missed"` // the day of localTime was over for these people
}

// wait is how long a batch is not to be worked yet. What expires before is not
// waited for.
func (b *plannedBatch) wait(n *Notification, now time.Time) time.Duration {
	switch n.Status() {
	case StatusQueued, StatusSending, StatusPaused:
	default:
		return 0
	}
	until := parseDBTime(b.RunAt)
	if expires := n.ExpiresAt(); !expires.IsZero() && expires.Before(until) {
		until = expires
	}
	return until.Sub(now)
}

// insertPlanned stores planned batches in a transaction.
func insertPlanned(txApp core.App, batches []plannedBatch) error {
	for _, b := range batches {
		_, err := txApp.DB().Insert("groundwork_batches", dbx.Params{"notification": b.Notification, "batch": b.Batch,
			"channel": string(b.Channel), "users": b.Users, "planned": b.Planned, "runAt": b.RunAt, "missed": b.Missed}).Execute()
		if err != nil {
			return fmt.Errorf("store batch %d of notification %s: %w", b.Batch, b.Notification, err)
		}
		if b.forEveryone() {
			if err := insertShared(txApp, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// findPlanned returns a planned batch; nil when all its deliveries are rows. A
// negative number means any batch of the notification.
func (s *Sender) findPlanned(notificationID string, batch int) (*plannedBatch, error) {
	query := s.app.ConcurrentDB().Select("*").From("groundwork_batches").Where(dbx.HashExp{"notification": notificationID}).Limit(1)
	if batch >= 0 {
		query.AndWhere(dbx.HashExp{"batch": batch})
	}
	var b plannedBatch
	err := query.One(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find batch %d of notification %s: %w", batch, notificationID, err)
	}
	return &b, nil
}

// sqlPlanned counts the deliveries of a notification that are no rows yet, under
// the status "planned".
func sqlPlanned(deliveries string) string {
	return "SELECT 'planned' AS [[status]], COALESCE(SUM(MAX(b.[[planned]] - (SELECT COUNT(*) FROM {{" + deliveries +
		"}} d WHERE d.[[notification]] = b.[[notification]] AND d.[[batch]] = b.[[batch]]), 0)), 0) AS [[n]] FROM {{groundwork_batches}} b WHERE b.[[notification]] = {:id}"
}

// buildRows makes the deliveries of a planned batch that are no rows yet: one per
// person, for push one per device. Those that cannot be sent are skipped with the
// reason.
func (s *Sender) buildRows(n *Notification, b *plannedBatch) ([]*deliveryRow, error) {
	var ids []string
	if err := json.Unmarshal([]byte(b.Users), &ids); err != nil {
		return nil, fmt.Errorf("read batch %d of notification %s: %w", b.Batch, n.Id, err)
	}
	snapshot, err := n.Snapshot()
	if err != nil {
		return nil, err
	}
	there, err := s.targetsOf(b)
	if err != nil {
		return nil, err
	}
	now, read := s.now(), time.Now()
	next := newDeliveryIDs(now, len(ids)+8)
	rows := make([]*deliveryRow, 0, len(ids))
	add := func(user, device, address, missing string) *deliveryRow {
		target := user
		if device != "" {
			target = user + "/" + device // in the order of the people: rows of one page stay together
		}
		if there[target] {
			return &deliveryRow{}
		}
		row := &deliveryRow{ID: next(), Notification: n.Id, User: user, Device: device, Target: target, Channel: string(b.Channel), Kind: string(snapshot.Kind),
			Category: snapshot.Category, Address: address, Status: string(DeliveryPending), Batch: b.Batch, RequestID: n.RequestID(), Created: dbTime(now), unstored: true}
		if missing != "" {
			row.Status, row.Reason, row.Explanation = string(DeliverySkipped), ReasonNoAddress, missing
		}
		if b.Missed {
			row.Status, row.Reason, row.Explanation = string(DeliverySkipped), ReasonExpired, "The day it was meant for was over on this person's clock before it could go out."
		}
		rows = append(rows, row)
		return row
	}

	switch b.Channel {
	case ChannelInbox:
		people, err := s.findPeople(ids)
		if err != nil {
			return nil, err
		}
		// An inbox has no address: in the list the masked e-mail tells whose it is.
		masked := make(map[string]string, len(people))
		for _, p := range people {
			masked[p.ID] = MaskAddress(ChannelEmail, p.Email)
		}
		for _, id := range ids {
			add(id, "", masked[id], "")
		}
	case ChannelPush:
		texts, err := Compile(snapshot.Content)
		if err != nil {
			texts = &Compiled{} // the sender finds it too, and says so
		}
		people, err := s.readPushTargets(ids, texts)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			p := people[id]
			if p == nil {
				continue // deleted since it was planned
			}
			if len(p.Devices) == 0 {
				add(id, "", "", "This person has no device that takes push messages.")
			}
			for _, d := range p.Devices {
				row := add(id, d.ID, MaskAddress(ChannelPush, d.Token), "")
				row.device, row.person, row.read = d, p, read
			}
		}
	case ChannelEmail, ChannelSMS:
		people, err := s.findPeople(ids)
		if err != nil {
			return nil, err
		}
		for _, p := range people {
			address, missing := p.Email, "This person has no e-mail address."
			if b.Channel == ChannelSMS {
				address, missing = p.Phone, "This person has no phone number."
			}
			if address != "" {
				missing = ""
			}
			add(p.ID, "", MaskAddress(b.Channel, address), missing)
		}
	}
	return rows, nil
}

// readPage is how many people are read at a time: for so long the ledger waits.
const readPage = 500

// readPushTargets is [findPushTargets] for a whole batch. Batches read one after
// the other and in pieces: all at once they would keep the ledger from the
// writer's connection, and with it everything that is on its way.
func (s *Sender) readPushTargets(ids []string, texts *Compiled) (map[string]*recipient, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	people := make(map[string]*recipient, len(ids))
	for page := range slices.Chunk(ids, readPage) {
		found, err := findPushTargets(s.app, page, texts, s.neededOfPeople()...)
		if err != nil {
			return nil, err
		}
		maps.Copy(people, found)
	}
	return people, nil
}

// targetsOf returns the targets of a batch that have a row: a crash came in
// between.
func (s *Sender) targetsOf(b *plannedBatch) (map[string]bool, error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return nil, err
	}
	var targets []string
	err = s.app.ConcurrentDB().Select("target").From(table).Where(dbx.HashExp{"notification": b.Notification, "batch": b.Batch}).Column(&targets)
	if err != nil {
		return nil, fmt.Errorf("find targets of batch %d of notification %s: %w", b.Batch, b.Notification, err)
	}
	there := make(map[string]bool, len(targets))
	for _, t := range targets {
		there[t] = true
	}
	return there, nil
}

// storeRows makes rows of all deliveries of a batch that are none yet; with it
// the batch is planned no more. Nothing may be on its way of it.
func (s *Sender) storeRows(b *plannedBatch, rows []*deliveryRow) error {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return err
	}
	db, err := writerDB(s.app)
	if err != nil {
		return err
	}
	unstored := slices.DeleteFunc(slices.Clone(rows), func(row *deliveryRow) bool { return !row.unstored })
	err = inWriter(db, func(tx *sql.Tx) error {
		err := insertGroups(table, unstored, make([]*result, len(unstored)), dbTime(s.now()), func(text string, args []any) error {
			_, err := tx.Exec(text, args...)
			return err
		})
		if err != nil {
			return err
		}
		if _, err := tx.Exec("DELETE FROM groundwork_batches WHERE notification = ? AND batch = ?", b.Notification, b.Batch); err != nil {
			return fmt.Errorf("end planning of batch %d: %w", b.Batch, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store deliveries of notification %s: %w", b.Notification, err)
	}
	for _, row := range rows {
		row.unstored = false
	}
	return nil
}

// insertRow writes one delivery in the transaction of txApp.
func insertRow(txApp core.App, row *deliveryRow) error {
	table, err := tableName(txApp, CollectionDeliveries)
	if err != nil {
		return err
	}
	_, err = txApp.DB().Insert(table, dbx.Params{"id": row.ID, "notification": row.Notification, "user": row.User, "device": row.Device, "target": row.Target,
		"channel": row.Channel, "kind": row.Kind, "category": row.Category, "address": row.Address, "status": row.Status, "batch": row.Batch,
		"reason": row.Reason, "explanation": row.Explanation,
		"requestId": row.RequestID, "resendOf": row.ResendOf, "test": row.Test, "created": row.Created, "updated": row.Created}).Execute()
	if err != nil {
		return fmt.Errorf("insert delivery %s: %w", row.ID, err)
	}
	return nil
}

// writerDB is PocketBase's one writer connection, for rows in bulk: named
// parameters and records cost as much as the rows.
func writerDB(app core.App) (*sql.DB, error) {
	db, ok := app.NonconcurrentDB().(*dbx.DB)
	if !ok {
		return nil, errors.New("rows in bulk are not written inside another transaction")
	}
	return db.DB(), nil
}

// inWriter runs fn in a transaction of db.
func inWriter(db *sql.DB, fn func(tx *sql.Tx) error) (err error) {
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// insertChunk is how many rows one statement inserts.
const insertChunk = 50

// deliveryColumns are the columns of a delivery that one statement's rows share,
// and those that each has of its own.
var (
	sharedColumns = []string{"notification", "channel", "kind", "category", "batch", "requestId", "resendOf", "created", "updated", "status", "reason",
		"explanation", "provider", "attempts", "nextAttemptAt", "acceptedAt", "deliveredAt", "rendered", "heldUntil"}
	ownColumns = []string{"id", "user", "device", "target", "address", "providerMessageId"}
)

// sqlInsertDeliveries inserts n rows (1 or insertChunk). A target that has a row is left out: one
// per notification, channel and target is a unique index.
func sqlInsertDeliveries(table string, n int) string {
	type key struct {
		table string
		rows  int
	}
	if text, ok := insertTexts.Load(key{table, n}); ok {
		return text.(string)
	}
	var b strings.Builder
	// Plain question marks: the driver looks numbered ones up by name.
	b.WriteString("INSERT OR IGNORE INTO " + strconv.Quote(table) + " (" + strings.Join(sharedColumns, ", ") + ", " + strings.Join(ownColumns, ", ") +
		") SELECT s.*, v.* FROM (SELECT " + marks(len(sharedColumns)) + ") s, (VALUES ")
	for row := range n {
		if row > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + marks(len(ownColumns)) + ")")
	}
	b.WriteString(") v")
	insertTexts.Store(key{table, n}, b.String())
	return b.String()
}

func marks(n int) string { return strings.Repeat("?, ", n-1) + "?" }

// insertTexts keeps the texts of [sqlInsertDeliveries]: each is some kB.
var insertTexts sync.Map

// sharedValues are the values of sharedColumns for a row and its result; nil
// when it has none yet.
func sharedValues(row *deliveryRow, r *result, now string) []any {
	stored := result{Status: DeliveryStatus(row.Status), Reason: row.Reason, Explanation: row.Explanation}
	attempts := row.Attempts
	if r != nil {
		stored = *r
		if r.Tried {
			attempts++
		}
	}
	var rendered any
	if stored.Rendered != nil {
		rendered = *stored.Rendered
	}
	return append(make([]any, 0, len(sharedColumns)+insertChunk*len(ownColumns)),
		row.Notification, row.Channel, row.Kind, row.Category, row.Batch, row.RequestID, row.ResendOf, row.Created, now, string(stored.Status), stored.Reason,
		stored.Explanation, stored.Provider, attempts, dbTime(stored.NextAttemptAt), stored.acceptedAt(now), stored.deliveredAt(now), rendered, dbTime(stored.HeldUntil))
}

func ownValues(values []any, row *deliveryRow, r *result) []any {
	message := ""
	if r != nil {
		message = r.ProviderMessageID
	}
	return append(values, row.ID, row.User, row.Device, row.Target, row.Address, message)
}

// insertGroups inserts rows, those next to each other that have the same result
// by one statement. run executes a statement.
func insertGroups(table string, rows []*deliveryRow, results []*result, now string, run func(sql string, args []any) error) error {
	for start := 0; start < len(rows); {
		end := start + 1
		for end < len(rows) && end-start < insertChunk && shares(rows[start], results[start], rows[end], results[end]) {
			end++
		}
		if end-start < insertChunk {
			end = start + 1 // a statement for each number of rows would be prepared anew
		}
		values := sharedValues(rows[start], results[start], now)
		for i := start; i < end; i++ {
			values = ownValues(values, rows[i], results[i])
		}
		if err := run(sqlInsertDeliveries(table, end-start), values); err != nil {
			return fmt.Errorf("insert delivery %s: %w", rows[start].ID, err)
		}
		start = end
	}
	return nil
}

// shares says whether two rows with their results differ in their own columns
// only.
func shares(a *deliveryRow, ra *result, b *deliveryRow, rb *result) bool {
	if a.Notification != b.Notification || a.Batch != b.Batch || a.Channel != b.Channel || a.Kind != b.Kind || a.Category != b.Category || a.RequestID != b.RequestID ||
		a.ResendOf != b.ResendOf || a.Created != b.Created || a.Attempts != b.Attempts {
		return false
	}
	if ra == nil || rb == nil {
		return ra == rb && a.Status == b.Status && a.Reason == b.Reason
	}
	return ra.Status == rb.Status && ra.Reason == rb.Reason && ra.Explanation == rb.Explanation && ra.Provider == rb.Provider && ra.Tried == rb.Tried &&
		ra.NextAttemptAt.Equal(rb.NextAttemptAt) && ra.Rendered == nil && rb.Rendered == nil
}

const deliveryIDAlphabet = "0123456789abcdefghijklmnopqrstuvwxyz"

// newDeliveryIDs returns a source of ids for about n deliveries: the time in
// milliseconds, so that they sort, and 80 random bits, so that they tell nothing
// about each other.
func newDeliveryIDs(now time.Time, n int) func() string {
	prefix := strconv.FormatInt(now.UnixMilli(), 36)
	random := make([]byte, 0)
	return func() string {
		if len(random) < 16 {
			random = make([]byte, 16*max(n, 1))
			_, _ = rand.Read(random) // never fails: it ends the process instead
		}
		high, low := binary.LittleEndian.Uint64(random), binary.LittleEndian.Uint64(random[8:])
		random = random[16:]
		id := make([]byte, 0, 24)
		id = append(id, prefix...)
		for range 8 {
			id = append(id, deliveryIDAlphabet[high%36], deliveryIDAlphabet[low%36])
			high, low = high/36, low/36
		}
		return string(id)
	}
}
