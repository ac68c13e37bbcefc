package notifications

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/pocketbase/dbx"
)

// An app tells that a message was opened with the token that came with it, or, signed
// in as the recipient, with the delivery's id.

// OpenTokenPurpose is what the key of [OpenToken] is derived for.
const OpenTokenPurpose = "notifications.opened"

// openTokenBytes are the bits that cannot be guessed: 128.
const openTokenBytes = 16

// OpenToken is the token that says that one delivery was opened, and grants nothing
// else: the delivery's id, a dot, and what only the holder of the key can make of it.
func OpenToken(key []byte, deliveryID string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(deliveryID))
	var sum [sha256.Size]byte
	return deliveryID + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(sum[:0])[:openTokenBytes])
}

// DeliveryOfToken returns the id of the delivery that a token is for; ok is false for
// one that was not made with key.
func DeliveryOfToken(key []byte, token string) (deliveryID string, ok bool) {
	deliveryID, _, found := strings.Cut(token, ".")
	return deliveryID, found && deliveryID != "" && hmac.Equal([]byte(OpenToken(key, deliveryID)), []byte(token))
}

// MarkOpened notes that a message was opened, once: what came in between does not
// matter, as whoever opens a message has it. userID is the person who must be its
// recipient; empty when a token speaks for them. found is false when there is no such
// delivery of theirs.
func (s *Sender) MarkOpened(deliveryID, userID string) (found bool, err error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return false, err
	}
	where := dbx.HashExp{"id": deliveryID}
	if userID != "" {
		where["user"] = userID
	}
	var rows []struct {
		Notification string `db:"notification"`
	}
	if err := s.app.ConcurrentDB().Select("notification").From(table).Where(where).Limit(1).All(&rows); err != nil {
		return false, fmt.Errorf("find delivery %s: %w", deliveryID, err)
	}
	if len(rows) == 0 {
		return false, nil
	}
	res, err := s.app.NonconcurrentDB().NewQuery("UPDATE {{" + table + "}} SET [[status]] = 'opened', [[reason]] = '', [[explanation]] = '', [[nextAttemptAt]] = ''," +
		" [[acceptedAt]] = CASE WHEN [[acceptedAt]] = '' THEN {:now} ELSE [[acceptedAt]] END, [[deliveredAt]] = CASE WHEN [[deliveredAt]] = '' THEN {:now} ELSE [[deliveredAt]] END," +
		" [[updated]] = {:now} WHERE [[id]] = {:id} AND [[status]] IN ('pending', 'sending', 'accepted', 'delivered', 'captured', 'unknown', 'failed') AND ([[attempts]] > 0 OR [[status]] <> 'pending')").
		Bind(dbx.Params{"id": deliveryID, "now": dbTime(s.now())}).Execute()
	if err != nil {
		return false, fmt.Errorf("mark delivery %s opened: %w", deliveryID, err)
	}
	if changed, err := res.RowsAffected(); err != nil || changed == 0 {
		return err == nil, err // it was opened before, or never went out
	}
	s.counter.touch(rows[0].Notification)
	return true, nil
}
