package notifications

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// erasePage is how many rows one transaction of an erasure changes: other writers
// get their turn in between.
const erasePage = 500

// ErasedTarget is how the target of a delivery begins whose person was erased.
const ErasedTarget = "erased:"

// UnlistPerson takes a person out of the recipients of all notifications and
// deletes their inbox and their consents, in the transaction that deletes them: PocketBase would load
// and save each of those records, one by one. alone are the ids of the
// notifications that went to nobody else.
func UnlistPerson(txApp core.App, user string) (alone []string, err error) {
	table, err := tableName(txApp, CollectionNotifications)
	if err != nil {
		return nil, err
	}
	var rows []struct {
		ID     string `db:"id"`
		People int    `db:"people"`
	}
	err = txApp.DB().NewQuery("SELECT [[id]], json_array_length([[users]]) AS [[people]] FROM {{" + table + "}} WHERE " + sqlNames).
		Bind(dbx.Params{"user": user}).All(&rows)
	if err != nil {
		return nil, fmt.Errorf("find notifications of person %s: %w", user, err)
	}
	for _, row := range rows {
		if row.People == 1 {
			alone = append(alone, row.ID)
		}
		_, err := txApp.DB().NewQuery("UPDATE {{" + table + "}} SET [[users]] = (SELECT json_group_array(value) FROM json_each([[users]]) WHERE value <> {:user}) WHERE [[id]] = {:id}").
			Bind(dbx.Params{"user": user, "id": row.ID}).Execute()
		if err != nil {
			return nil, fmt.Errorf("take person out of notification %s: %w", row.ID, err)
		}
	}
	inbox, err := tableName(txApp, CollectionInbox)
	if err != nil {
		return nil, err
	}
	if _, err := txApp.DB().Delete(inbox, dbx.HashExp{"user": user}).Execute(); err != nil {
		return nil, fmt.Errorf("delete inbox of person %s: %w", user, err)
	}
	consents, err := tableName(txApp, CollectionConsents)
	if err != nil {
		return nil, err
	}
	if _, err := txApp.DB().Delete(consents, dbx.HashExp{"user": user}).Execute(); err != nil {
		return nil, fmt.Errorf("delete consents of person %s: %w", user, err)
	}
	if _, err := txApp.DB().Delete("groundwork_inbox_marks", dbx.HashExp{"user": user}).Execute(); err != nil {
		return nil, fmt.Errorf("delete mark of the inbox of person %s: %w", user, err)
	}
	return alone, nil
}

// sqlNames is the condition on a notification that names {:user} as a recipient.
const sqlNames = "instr([[users]], {:user}) > 0 AND json_valid([[users]]) AND EXISTS (SELECT 1 FROM json_each([[users]]) WHERE value = {:user})"

// EraseDeliveries takes a person out of their deliveries, a page at a time: what
// became of a message stays, so that the counts of a notification stay right, and
// nothing tells whose it was. The id is a new one, because providers were given the
// old one. done is false as long as there may be more.
//
// What was still to be sent is skipped. Nobody may be sending to them any more.
func (s *Sender) EraseDeliveries(user string) (erased int, done bool, err error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return 0, false, err
	}
	if user == "" {
		return 0, true, nil
	}
	return s.eraseDeliveries(table, dbx.HashExp{"user": user})
}

// EraseMailsTo is [Sender.EraseDeliveries] for tests and for messages outside any
// notification that name no account, only an address as [MaskAddress] makes it.
func (s *Sender) EraseMailsTo(channel Channel, masked string) (erased int, done bool, err error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil || masked == "" {
		return 0, true, err
	}
	return s.eraseDeliveries(table, dbx.And(dbx.HashExp{"user": "", "channel": string(channel), "address": masked}, dbx.NewExp("([[notification]] = '' OR [[test]])")))
}

func (s *Sender) eraseDeliveries(table string, whose dbx.Expression) (erased int, done bool, err error) {
	touched := map[string]bool{}
	err = s.app.RunInTransaction(func(txApp core.App) error {
		erased = 0
		clear(touched)
		var rows []struct {
			ID           string `db:"id"`
			Notification string `db:"notification"`
			Status       string `db:"status"`
		}
		if err := txApp.DB().Select("id", "notification", "status").From(table).Where(whose).Limit(erasePage).All(&rows); err != nil {
			return fmt.Errorf("find deliveries to erase: %w", err)
		}
		ids := make([]any, len(rows))
		for i, row := range rows {
			ids[i] = row.ID
			if row.Notification != "" && (row.Status == string(DeliveryPending) || row.Status == string(DeliverySending)) {
				touched[row.Notification] = true // its counts change
			}
		}
		if len(ids) == 0 {
			return nil
		}
		for _, of := range []struct{ table, column string }{{"groundwork_sealed", "id"}, {"groundwork_polls", "delivery"}} {
			if _, err := txApp.DB().Delete(of.table, dbx.HashExp{of.column: ids}).Execute(); err != nil {
				return fmt.Errorf("erase from %s: %w", of.table, err)
			}
		}
		// The first eight characters are the time: rows of one page stay together.
		res, err := txApp.DB().NewQuery("UPDATE {{" + table + "}} SET [[id]] = substr([[id]], 1, 8) || lower(hex(randomblob(8))), [[target]] = '" + ErasedTarget + "' || lower(hex(randomblob(10)))," +
			" [[user]] = '', [[device]] = '', [[address]] = '', [[explanation]] = '', [[rendered]] = NULL, [[providerMessageId]] = '', [[requestId]] = '', [[resendOf]] = '', [[nextAttemptAt]] = ''," +
			" [[reason]] = CASE [[status]] WHEN 'pending' THEN '" + ReasonRecipientGone + "' WHEN 'sending' THEN '" + ReasonInterrupted + "' ELSE [[reason]] END," +
			" [[status]] = CASE [[status]] WHEN 'pending' THEN 'skipped' WHEN 'sending' THEN 'unknown' ELSE [[status]] END, [[updated]] = {:now}" +
			" WHERE [[id]] IN (SELECT value FROM json_each({:ids}))").Bind(dbx.Params{"ids": mustJSON(ids), "now": dbTime(s.now())}).Execute()
		if err != nil {
			return fmt.Errorf("erase deliveries: %w", err)
		}
		n, err := res.RowsAffected()
		erased = int(n)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	for id := range touched {
		if err := s.counter.recount(id, true); err != nil {
			return erased, false, err
		}
	}
	return erased, erased < erasePage, nil
}

// EraseFromBatches takes a person out of the batches whose deliveries are not rows
// yet, and out of the planner's place in the list of people.
func (s *Sender) EraseFromBatches(user string) error {
	var batches []plannedBatch
	err := s.app.ConcurrentDB().NewQuery("SELECT * FROM {{groundwork_batches}} WHERE instr([[users]], {:user}) > 0").Bind(dbx.Params{"user": user}).All(&batches)
	if err != nil {
		return fmt.Errorf("find batches of person %s: %w", user, err)
	}
	for _, b := range batches {
		var ids []string
		if err := json.Unmarshal([]byte(b.Users), &ids); err != nil {
			return fmt.Errorf("read batch %d of notification %s: %w", b.Batch, b.Notification, err)
		}
		rest := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == user })
		if len(rest) == len(ids) {
			continue
		}
		_, err := s.app.NonconcurrentDB().Update("groundwork_batches", dbx.Params{"users": mustJSON(rest), "planned": max(b.Planned-1, 0)},
			dbx.HashExp{"notification": b.Notification, "batch": b.Batch}).Execute()
		if err != nil {
			return fmt.Errorf("take person out of batch %d of notification %s: %w", b.Batch, b.Notification, err)
		}
		s.counter.touch(b.Notification)
	}

	table, err := tableName(s.app, CollectionNotifications)
	if err != nil {
		return err
	}
	// Its last letter off, the place is the same: nobody else has such an id.
	_, err = s.app.NonconcurrentDB().NewQuery("UPDATE {{" + table + "}} SET [[plan]] = json_set([[plan]], '$.cursor', substr({:user}, 1, length({:user}) - 1))" +
		" WHERE instr([[plan]], {:user}) > 0 AND json_valid([[plan]]) AND json_extract([[plan]], '$.cursor') = {:user}").Bind(dbx.Params{"user": user}).Execute()
	if err != nil {
		return fmt.Errorf("take person out of plans: %w", err)
	}
	return nil
}

// SourceRecord is a record that notifications were made of.
type SourceRecord struct{ Collection, ID string } // the collection's name

// FindNotificationsOf returns the ids of the notifications that triggers made of
// records.
func FindNotificationsOf(app core.App, records []SourceRecord) ([]string, error) {
	table, err := tableName(app, CollectionNotifications)
	if err != nil {
		return nil, err
	}
	var all []string
	for page := range slices.Chunk(records, erasePage) {
		pairs := make([][2]string, len(page))
		for i, r := range page {
			pairs[i] = [2]string{r.Collection, r.ID}
		}
		var ids []string
		err := app.ConcurrentDB().NewQuery("SELECT n.[[id]] FROM json_each({:pairs}) j JOIN {{" + table + "}} n ON n.[[sourceCollection]] = j.value->>0 AND n.[[sourceRecord]] = j.value->>1 AND n.[[sourceRecord]] != ''").
			Bind(dbx.Params{"pairs": mustJSON(pairs)}).Column(&ids)
		if err != nil {
			return nil, fmt.Errorf("find notifications by source: %w", err)
		}
		all = append(all, ids...)
	}
	return all, nil
}

// EraseContent empties what notifications said that went to an erased person
// alone. Status and counts stay.
func EraseContent(app core.App, ids []string) error {
	table, err := tableName(app, CollectionNotifications)
	if err != nil {
		return err
	}
	for page := range slices.Chunk(ids, erasePage) {
		_, err := app.NonconcurrentDB().NewQuery("UPDATE {{" + table + "}} SET [[title]] = '', [[body]] = '', [[data]] = NULL, [[image]] = '', [[link]] = '', [[variables]] = NULL," +
			" [[options]] = NULL, [[content]] = NULL, [[filter]] = '', [[statusReason]] = '', [[idempotencyKey]] = CASE WHEN [[idempotencyKey]] = '' THEN '' ELSE '" + ErasedTarget + "' || lower(hex(randomblob(10))) END," +
			" [[requestId]] = '', [[sourceRecord]] = '', [[plan]] = json_remove([[plan]], '$.cursor'), [[updated]] = {:now}" +
			" WHERE [[id]] IN (SELECT value FROM json_each({:ids}))").Bind(dbx.Params{"ids": mustJSON(page), "now": dbTime(time.Now())}).Execute()
		if err != nil {
			return fmt.Errorf("erase content of notifications: %w", err)
		}
	}
	return nil
}

// EraseCopies deletes what is kept of a record of an erased person in notifications
// that a trigger made of it for others, once those are over: the record's values, the
// exact content, and what was captured. What the others have in their inbox is
// theirs; see [ScrubContent].
func EraseCopies(app core.App, ids []string) error {
	table, err := tableName(app, CollectionNotifications)
	if err != nil {
		return err
	}
	deliveries, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return err
	}
	for page := range slices.Chunk(ids, erasePage) {
		over := "SELECT [[id]] FROM {{" + table + "}} WHERE [[id]] IN (SELECT value FROM json_each({:ids})) AND [[status]] IN ('sent', 'sent_with_failures', 'failed', 'cancelled', 'expired')"
		for _, sql := range []string{
			"UPDATE {{" + deliveries + "}} SET [[rendered]] = NULL WHERE [[notification]] IN (" + over + ") AND [[rendered]] IS NOT NULL",
			"UPDATE {{" + table + "}} SET [[variables]] = NULL, [[content]] = NULL, [[sourceRecord]] = '' WHERE [[id]] IN (" + over + ")",
		} {
			if _, err := app.NonconcurrentDB().NewQuery(sql).Bind(dbx.Params{"ids": mustJSON(page)}).Execute(); err != nil {
				return fmt.Errorf("erase copies of records: %w", err)
			}
		}
	}
	return nil
}

// ScrubContent rewrites the texts of notifications that a trigger made of a record
// of an erased person, for others: what those others have of it too. The message
// stays, and may still have to be sent; scrub takes the person out of it. changed is
// how many rows were written.
func ScrubContent(app core.App, ids []string, scrub func(string) string) (changed int, err error) {
	for _, of := range []struct {
		collection, by string
		columns        []string
	}{
		{CollectionNotifications, "id", []string{"title", "body", "data", "image", "link", "variables", "content", "statusReason", "sourceRecord"}},
		{CollectionDeliveries, "notification", []string{"rendered", "explanation"}},
		{CollectionInbox, "notification", []string{"title", "body", "data", "image", "link"}},
	} {
		table, err := tableName(app, of.collection)
		if err != nil {
			return changed, err
		}
		for _, id := range ids {
			n, err := ScrubRows(app.NonconcurrentDB(), table, of.columns, dbx.HashExp{of.by: id}, scrub)
			if changed += n; err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

// ScrubRows rewrites texts of the rows of a table that where picks, a page at a
// time. Rows whose texts stay the same are not written.
func ScrubRows(db dbx.Builder, table string, columns []string, where dbx.Expression, scrub func(string) string) (changed int, err error) {
	var last int64
	for {
		var rows []dbx.NullStringMap
		err := db.Select(append([]string{"rowid AS gwrow"}, columns...)...).From(table).Where(where).
			AndWhere(dbx.NewExp("[[rowid]] > {:gwlast}", dbx.Params{"gwlast": last})).OrderBy("rowid").Limit(erasePage).All(&rows)
		if err != nil {
			return changed, fmt.Errorf("read %s to erase from it: %w", table, err)
		}
		for _, row := range rows {
			last, err = strconv.ParseInt(row["gwrow"].String, 10, 64)
			if err != nil {
				return changed, fmt.Errorf("read %s to erase from it: %w", table, err)
			}
			update := dbx.Params{}
			for _, c := range columns {
				if now := scrub(row[c].String); row[c].Valid && now != row[c].String {
					update[c] = now
				}
			}
			if len(update) == 0 {
				continue
			}
			if _, err := db.Update(table, update, dbx.HashExp{"rowid": last}).Execute(); err != nil {
				return changed, fmt.Errorf("erase from %s: %w", table, err)
			}
			changed++
		}
		if len(rows) < erasePage {
			return changed, nil
		}
	}
}

// ErasedAddress says that the address of a suppression is kept as a hash: nobody
// reads it, and it goes on to hold.
const ErasedAddress = "hmac:"

// AddressHasher makes the hash of a suppressed address, under the installation's
// key: without it, all phone numbers there are could be tried.
type AddressHasher func(channel Channel, address string) (string, error)

// EraseSuppression keeps the wish behind a suppressed address (no more texts after
// a STOP, for example) without the address.
func EraseSuppression(app core.App, channel Channel, address string, hash AddressHasher) error {
	address, err := NormalizeAddress(channel, address)
	if err != nil || address == "" {
		return nil // nothing that a suppression could be about
	}
	table, err := tableName(app, CollectionSuppressions)
	if err != nil {
		return err
	}
	hashed, err := hash(channel, address)
	if err != nil {
		return err
	}
	return app.RunInTransaction(func(txApp core.App) error {
		params := dbx.Params{"channel": string(channel), "address": address, "hashed": hashed, "now": dbTime(time.Now())}
		// The same wish may be there already, from an erasure before.
		for _, sql := range []string{
			"UPDATE OR IGNORE {{" + table + "}} SET [[address]] = {:hashed}, [[updated]] = {:now} WHERE [[channel]] = {:channel} AND LOWER([[address]]) = LOWER({:address})",
			"DELETE FROM {{" + table + "}} WHERE [[channel]] = {:channel} AND LOWER([[address]]) = LOWER({:address})",
		} {
			if _, err := txApp.DB().NewQuery(sql).Bind(params).Execute(); err != nil {
				return fmt.Errorf("erase suppressed address: %w", err)
			}
		}
		return nil
	})
}

// HashAddresses returns a hasher that tells nobody's address from the hash alone.
func HashAddresses(mac func(purpose string, parts ...string) ([]byte, error)) AddressHasher {
	return func(channel Channel, address string) (string, error) {
		sum, err := mac("suppressed address", string(channel), strings.ToLower(address))
		if err != nil {
			return "", fmt.Errorf("hash suppressed address: %w", err)
		}
		return fmt.Sprintf("%s%x", ErasedAddress, sum), nil
	}
}

// storeKeyHasher is where the hasher of this installation is found: suppressions
// are written from many places.
const storeKeyHasher = "groundwork.notifications.hashAddress"

// SetAddressHasher lets suppressions hold whose address was erased.
func SetAddressHasher(app core.App, hash AddressHasher) { app.Store().Set(storeKeyHasher, hash) }

// suppressedForms are the forms in which an address may stand in the list of
// suppressed ones: itself, and its hash.
func suppressedForms(app core.App, channel Channel, address string) []string {
	hash, ok := app.Store().Get(storeKeyHasher).(AddressHasher)
	if !ok {
		return []string{address}
	}
	hashed, err := hash(channel, address)
	if err != nil {
		return []string{address} // without a key nothing was hashed here
	}
	return []string{address, hashed}
}

// EraseOrphans deletes what a request that was under way stored for a person after
// their account was gone.
func (s *Sender) EraseOrphans(user string) error {
	for _, id := range []string{CollectionInbox, CollectionDevices, CollectionSubscriptions, CollectionPreferences, CollectionConsents} {
		table, err := tableName(s.app, id)
		if err != nil {
			return err
		}
		if _, err := s.app.NonconcurrentDB().Delete(table, dbx.HashExp{"user": user}).Execute(); err != nil {
			return fmt.Errorf("erase from %s: %w", table, err)
		}
	}
	if _, err := s.app.NonconcurrentDB().Delete("groundwork_reminders", dbx.HashExp{"record": user}).Execute(); err != nil {
		return fmt.Errorf("erase from groundwork_reminders: %w", err)
	}
	return nil
}

// AccountMailExists says whether the delivery of an account mail is there still,
// under the id that its job has.
func AccountMailExists(app core.App, id string) (bool, error) {
	table, err := tableName(app, CollectionDeliveries)
	if err != nil {
		return false, err
	}
	var one int
	err = app.ConcurrentDB().Select("(1)").From(table).Where(dbx.HashExp{"id": id}).Limit(1).WithContext(context.Background()).Row(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}
