package accounts

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// endedKept is how long the log of ended sessions is kept. A process that was
// asleep for longer forgets everything it knew.
const endedKept = time.Hour

// batchRows is how many rows one transaction writes, so that other writers get
// their turn.
const batchRows = 500

// seen is a sign of life that is not written yet.
type seen struct {
	holder Holder
	at     int64 // Unix seconds
}

// Flush writes when the sessions were last seen. Its caller decides how often:
// once a minute. What it finds missing has been deleted behind everybody's back,
// and counts as ended from then on.
func (s *Sessions) Flush(ctx context.Context) error {
	if !s.Ready() {
		return nil
	}
	s.flushMu.Lock()
	defer s.flushMu.Unlock()

	batch := s.takeSeen()
	var gone []string
	for len(batch) > 0 {
		n := min(batchRows, len(batch))
		missing, err := s.write(ctx, batch[:n])
		if err != nil {
			s.putBack(batch)
			return err
		}
		gone = append(gone, missing...)
		batch = batch[n:]
	}
	if len(gone) > 0 {
		if err := LogEnded(s.app, gone...); err != nil {
			return err
		}
		return s.Changed()
	}
	return nil
}

// ShowLegacy writes the row that stands for the tokens without a session of h's
// account, if it is to appear with the next [Sessions.Flush]: before somebody
// looks at the list.
func (s *Sessions) ShowLegacy(ctx context.Context, h Holder) error {
	if h.Session != "" || !s.Ready() {
		return nil
	}
	key := h.Key()
	s.mu.Lock()
	k := s.young[key]
	if k == nil {
		k = s.old[key]
	}
	if k == nil || k.stored > 0 {
		s.mu.Unlock()
		return nil
	}
	sign := k.sign()
	k.stored = sign.at - 1 // there, and due again with the next flush
	s.mu.Unlock()
	if _, err := s.write(ctx, []seen{sign}); err != nil {
		s.putBack([]seen{sign})
		return err
	}
	return nil
}

// takeSeen takes what is to be written. A failed write is put back.
func (s *Sessions) takeSeen() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch []seen
	for _, generation := range []map[string]*known{s.young, s.old} {
		for key, k := range generation {
			if sign := k.sign(); sign.at > k.stored {
				k.stored = sign.at
				delete(s.spilled, key)
				batch = append(batch, sign)
			}
		}
	}
	for item := range maps.Values(s.spilled) {
		batch = append(batch, item)
	}
	clear(s.spilled)
	return batch
}

func (s *Sessions) putBack(batch []seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, item := range batch {
		if len(s.spilled) < s.max {
			s.spilled[item.holder.Key()] = item
		}
	}
}

func (s *Sessions) write(ctx context.Context, batch []seen) (missing []string, err error) {
	err = s.app.RunInTransaction(func(txApp core.App) error {
		missing = nil // PocketBase may run this again
		collection, err := txApp.FindCachedCollectionByNameOrId(CollectionSessions)
		if err != nil {
			return fmt.Errorf("find collection of sessions: %w", err)
		}
		table := "{{" + collection.Name + "}}"
		// Two processes may have seen the same session; the later one counts.
		update := txApp.DB().NewQuery("UPDATE " + table + " SET [[lastSeenAt]] = MAX([[lastSeenAt]], {:at}) WHERE [[id]] = {:id}").Prepare()
		defer update.Close()
		for _, item := range batch {
			at, _ := types.ParseDateTime(time.Unix(item.at, 0))
			if item.holder.Session == "" {
				if err := writeLegacy(txApp, table, item.holder, at); err != nil {
					return err
				}
				continue
			}
			result, err := update.Bind(dbx.Params{"at": at.String(), "id": item.holder.Session}).WithContext(ctx).Execute()
			if err != nil {
				return fmt.Errorf("write when session %s was seen: %w", item.holder.Session, err)
			}
			if n, err := result.RowsAffected(); err == nil && n == 0 {
				missing = append(missing, item.holder.Session)
			}
		}
		return nil
	})
	return missing, err
}

// writeLegacy makes or renews the row that stands for an account's tokens without
// a session. It is not there yet at the first, and not after the account was
// deleted or its tokens were refused meanwhile.
func writeLegacy(txApp core.App, table string, h Holder, at types.DateTime) error {
	account, err := txApp.FindCachedCollectionByNameOrId(h.Collection)
	if err != nil {
		return nil // the collection was deleted
	}
	expires, _ := types.ParseDateTime(h.Expires)
	_, err = txApp.DB().NewQuery(`INSERT INTO ` + table + `
			([[id]], [[collectionRef]], [[recordRef]], [[kind]], [[name]], [[lastSeenAt]], [[expiresAt]], [[created]], [[updated]])
		SELECT {:id}, {:collection}, {:record}, {:kind}, {:name}, {:at}, {:expires}, {:at}, {:at}
		WHERE EXISTS (SELECT 1 FROM {{` + account.Name + `}} WHERE [[id]] = {:record})
			AND NOT EXISTS (SELECT 1 FROM {{groundwork_sessions_required}} WHERE ([[recordRef]] = {:record} AND [[collectionRef]] = {:collection}) OR ([[recordRef]] = '' AND [[collectionRef]] = ''))
		ON CONFLICT ([[id]]) DO UPDATE SET
			[[lastSeenAt]] = MAX([[lastSeenAt]], excluded.[[lastSeenAt]]),
			[[expiresAt]] = MAX([[expiresAt]], excluded.[[expiresAt]])`).
		Bind(dbx.Params{"id": h.Key(), "collection": h.Collection, "record": h.Record, "kind": string(KindLegacy),
			"name": "Sign-ins without a session of their own", "at": at.String(), "expires": expires.String()}).Execute()
	if err != nil {
		return fmt.Errorf("write when account %s was seen: %w", h.Record, err)
	}
	return nil
}

// Prune deletes sessions that have run out, and what is no longer needed of the
// log. Their tokens have run out too, so that nobody needs to be told.
func (s *Sessions) Prune(ctx context.Context) error {
	if !s.Ready() {
		return nil
	}
	collection, err := s.app.FindCachedCollectionByNameOrId(CollectionSessions)
	if err != nil {
		return fmt.Errorf("find collection of sessions: %w", err)
	}
	for {
		result, err := s.app.NonconcurrentDB().NewQuery("DELETE FROM {{" + collection.Name + "}} WHERE [[id]] IN (" +
			"SELECT [[id]] FROM {{" + collection.Name + "}} WHERE [[expiresAt]] != '' AND [[expiresAt]] < {:now} LIMIT {:n})").
			Bind(dbx.Params{"now": types.NowDateTime().String(), "n": batchRows}).WithContext(ctx).Execute()
		if err != nil {
			return fmt.Errorf("delete sessions that ran out: %w", err)
		}
		if n, err := result.RowsAffected(); err != nil || n < batchRows {
			break
		}
	}
	// Never the newest entry: by it a reader knows that it has missed nothing.
	_, err = s.app.NonconcurrentDB().NewQuery("DELETE FROM {{groundwork_sessions_ended}} WHERE [[endedAt]] < {:before} " +
		"AND [[seq]] < (SELECT MAX([[seq]]) FROM {{groundwork_sessions_ended}})").
		Bind(dbx.Params{"before": time.Now().Add(-endedKept).UnixMilli()}).WithContext(ctx).Execute()
	if err != nil {
		return fmt.Errorf("delete old entries of ended sessions: %w", err)
	}
	return nil
}
