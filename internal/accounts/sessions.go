package accounts

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/internal/livecache"
)

// maxRemembered is how many sessions are kept in memory, some 200 bytes each. A
// session beyond them costs a read of one row when it is used next.
const maxRemembered = 100_000

// everything in the log of ended sessions stands for all of them.
const everything = "*"

// Sessions knows which sessions last. There is one per app: [Of]. All methods may
// be called from any number of goroutines.
type Sessions struct {
	app    core.App
	signal *livecache.Signal
	max    int
	ready  atomic.Bool

	// ended is told the ids of sessions that are over, from whatever process; nil
	// means that any of them may be. It is called without a lock being held.
	ended func(ids []string)

	// mu guards what is known. A session that is used stays in young; when that is
	// full, it becomes old and the old one is forgotten.
	mu         sync.RWMutex
	young, old map[string]*known
	at         livecache.Stamp // everything that was told before is in young and old
	seq        int64           // the last entry of the log that is
	round      uint64          // grows with everything that was forgotten

	syncMu sync.Mutex // one reader of the log at a time
	synced bool       // guarded by mu: the log was read at least once

	flushMu sync.Mutex
	spilled map[string]seen // guarded by mu: of sessions that are not kept, not written yet
}

// known is a session that lasts.
type known struct {
	holder  Holder
	expires atomic.Int64 // Unix seconds: of the longest token
	seen    atomic.Int64 // Unix seconds
	stored  int64        // what was written of seen; guarded by mu
}

func (k *known) use(h Holder) {
	k.seen.Store(time.Now().Unix())
	if expires := h.Expires.Unix(); expires > k.expires.Load() {
		k.expires.Store(expires) // two at once may leave the shorter one: it is only shown
	}
}

func (k *known) sign() seen {
	h := k.holder
	h.Expires = time.Unix(k.expires.Load(), 0)
	return seen{holder: h, at: k.seen.Load()}
}

const storeKey = "groundwork.sessions"

// Of returns the app's sessions.
func Of(app core.App) *Sessions {
	signal := livecache.NewSignal(app, "sessions-ended") // outside: the store's lock is not reentrant
	return app.Store().GetOrSet(storeKey, func() any {
		return &Sessions{app: app, signal: signal, max: maxRemembered,
			young: map[string]*known{}, old: map[string]*known{}, spilled: map[string]seen{}}
	}).(*Sessions)
}

// OnEnded sets who is told about sessions that are over. Call it once, before
// the app is started.
func (s *Sessions) OnEnded(fn func(ids []string)) { s.ended = fn }

// Ready reports whether the migrations of the sessions have run. Before, every
// token counts as PocketBase says.
func (s *Sessions) Ready() bool {
	if s.ready.Load() {
		return true // the collection cannot be deleted
	}
	_, err := s.app.FindCachedCollectionByNameOrId(CollectionSessions)
	if err == nil {
		s.ready.Store(true)
	}
	return err == nil
}

// Check returns nil when the session of h lasts, [ErrEnded] or
// [ErrWithoutSession] when it does not, and another error when that cannot be
// told right now. The token must have been verified.
//
// It counts as a sign of life: see [Sessions.Flush].
func (s *Sessions) Check(h Holder) error {
	if !s.Ready() {
		return nil
	}
	if err := s.sync(false); err != nil {
		return err
	}
	key := h.Key()
	if k := s.find(key); k != nil {
		if !k.holder.same(h) {
			return ErrEnded // of somebody else: a token that Go code has put together
		}
		k.use(h)
		return nil
	}

	s.mu.RLock()
	at, round := s.at, s.round
	s.mu.RUnlock()
	if err := s.read(h); err != nil {
		return err
	}
	s.remember(key, h, at, round)
	return nil
}

// Knows reports whether the session of h is known to last, without asking the
// database and without counting as a sign of life: for tokens that nobody has
// verified.
func (s *Sessions) Knows(h Holder) bool {
	if !s.Ready() || s.sync(false) != nil {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	k := s.young[h.Key()]
	if k == nil {
		k = s.old[h.Key()]
	}
	return k != nil && k.holder.same(h)
}

// find returns a session that is in memory. One that is used stays there.
func (s *Sessions) find(key string) *known {
	s.mu.RLock()
	k, isOld := s.young[key], false
	if k == nil {
		k, isOld = s.old[key], true
	}
	s.mu.RUnlock()
	if k == nil || !isOld {
		return k
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.old[key] == k { // it may have ended since
		delete(s.old, key)
		s.add(key, k)
	}
	return k
}

// read looks into the database.
func (s *Sessions) read(h Holder) error {
	if h.Session == "" {
		var one int
		err := s.app.ConcurrentDB().Select("(1)").From("groundwork_sessions_required").
			Where(dbx.NewExp("([[recordRef]] = {:record} AND [[collectionRef]] = {:collection}) OR ([[recordRef]] = '' AND [[collectionRef]] = '')",
				dbx.Params{"record": h.Record, "collection": h.Collection})).Limit(1).Row(&one)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return nil
		case err != nil:
			return fmt.Errorf("find out whether account %s needs a session: %w", h.Record, err)
		}
		return ErrWithoutSession
	}
	if !isID(h.Session) || h.Session == LegacyID(h.Collection, h.Record) {
		return ErrEnded
	}
	collection, err := s.app.FindCachedCollectionByNameOrId(CollectionSessions)
	if err != nil {
		return fmt.Errorf("find collection of sessions: %w", err)
	}
	var row struct {
		Collection string `db:"collectionRef"`
		Record     string `db:"recordRef"`
	}
	err = s.app.ConcurrentDB().Select("collectionRef", "recordRef").From(collection.Name).
		Where(dbx.HashExp{"id": h.Session}).Limit(1).One(&row)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrEnded
	case err != nil:
		return fmt.Errorf("find session %s: %w", h.Session, err)
	case row.Collection != h.Collection || row.Record != h.Record:
		return ErrEnded
	}
	return nil
}

// remember keeps a session that was read, unless anything has ended meanwhile:
// the row may have been read just before it was deleted.
func (s *Sessions) remember(key string, h Holder, at livecache.Stamp, round uint64) {
	k := &known{holder: h}
	k.use(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.at == at && s.round == round && s.signal.Stamp() == at:
		s.add(key, k)
	case len(s.spilled) < s.max:
		s.spilled[key] = k.sign() // it is not kept, and was seen all the same
	}
}

// add puts k in, and makes room. The caller holds mu.
func (s *Sessions) add(key string, k *known) {
	if len(s.young) >= s.max/2 {
		for id, old := range s.old {
			if sign := old.sign(); sign.at > old.stored && len(s.spilled) < s.max {
				s.spilled[id] = sign
			}
		}
		s.old, s.young = s.young, make(map[string]*known, s.max/2)
	}
	s.young[key] = k
}

// sync takes in what ended since the last time. Without looking (force is false)
// it asks nobody while no process has said anything.
func (s *Sessions) sync(force bool) error {
	s.mu.RLock()
	current := s.synced && s.at == s.signal.Stamp()
	s.mu.RUnlock()
	if current && !force {
		return nil
	}

	ids, all, err := s.catchUp(force)
	if err != nil {
		return err
	}
	if s.ended != nil && (all || len(ids) > 0) {
		if all {
			ids = nil
		}
		s.ended(ids)
	}
	return nil
}

func (s *Sessions) catchUp(force bool) (ids []string, all bool, err error) {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()

	// Before reading: a change during the read is then read again.
	s.signal.Open()
	now := s.signal.Stamp()
	s.mu.RLock()
	seq, synced, current := s.seq, s.synced, s.synced && s.at == now
	s.mu.RUnlock()
	if current && !force {
		return nil, false, nil // somebody else did it while this one waited
	}

	var rows []struct {
		Seq     int64  `db:"seq"`
		Session string `db:"session"`
	}
	query := s.app.ConcurrentDB().Select("seq", "session").From("groundwork_sessions_ended")
	if synced {
		query = query.Where(dbx.NewExp("[[seq]] >= {:seq}", dbx.Params{"seq": seq})).OrderBy("seq")
	} else {
		query = query.OrderBy("seq DESC").Limit(1)
	}
	if err := query.All(&rows); err != nil {
		return nil, false, fmt.Errorf("read which sessions ended: %w", err)
	}
	// The last entry that was read is always there still, or some may be missing.
	all = synced && seq > 0 && (len(rows) == 0 || rows[0].Seq != seq)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.synced = now, true
	for _, row := range rows {
		if row.Seq <= s.seq {
			continue
		}
		s.seq = row.Seq
		if !synced {
			continue // nothing is known yet that could end
		}
		if row.Session == everything {
			all = true
		}
		ids = append(ids, row.Session)
		delete(s.young, row.Session)
		delete(s.old, row.Session)
		delete(s.spilled, row.Session)
		s.round++
	}
	if all {
		s.seq = 0
		if n := len(rows); n > 0 {
			s.seq = rows[n-1].Seq
		}
		s.young, s.old = map[string]*known{}, map[string]*known{}
		s.round++
	}
	return ids, all, nil
}

// Look reads the log although nobody has said that anything ended: the process
// that was to say it may have died. Call it once in a while.
func (s *Sessions) Look() error {
	if !s.Ready() {
		return nil
	}
	return s.sync(true)
}

// Changed says that what [LogEnded] wrote is committed. When it returns, no
// process answers a request of those sessions any more, and OnEnded's function
// was called in this one.
func (s *Sessions) Changed() error {
	s.signal.Changed()
	return s.sync(false)
}

// LogEnded writes down that sessions are over, in the transaction that ends them.
// [Sessions.Changed] follows after the commit.
func LogEnded(txApp core.App, ids ...string) error {
	now := time.Now().UnixMilli()
	for _, id := range ids {
		if _, err := txApp.DB().Insert("groundwork_sessions_ended", dbx.Params{"session": id, "endedAt": now}).Execute(); err != nil {
			return fmt.Errorf("log the end of session %s: %w", id, err)
		}
	}
	return nil
}

// Forget makes every process read the sessions again: for writes of which nobody
// knows what they touched.
func (s *Sessions) Forget() error {
	if !s.Ready() {
		return nil
	}
	if err := LogEndedAll(s.app); err != nil {
		return err
	}
	return s.Changed()
}

// LogEndedAll is [LogEnded] for when any session may have ended: every process
// reads again.
func LogEndedAll(txApp core.App) error { return LogEnded(txApp, everything) }
