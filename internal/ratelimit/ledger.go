package ratelimit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

const (
	// maxRows bounds the security counters: some 60 MB on disk.
	maxRows = 500_000
	// sharedRows is how many counters new keys of one window share beyond that.
	sharedRows = 4096
	pruneStep  = 5_000
)

// ledgerTimeout is how long a request waits for the database, which is closed to
// writers during a backup, before it is counted in memory instead.
var ledgerTimeout = 3 * time.Second

// ledger keeps security counters as rows, one for each arrival, written before
// the request goes on. They lie in auxiliary.db: a save in a transaction of
// data.db can count too, and is counted even when it is rolled back.
//
// The clock is SQLite's, read when the row is written: in milliseconds, so that
// a window is taken to be one longer.
type ledger struct {
	app   core.App
	rows  atomic.Int64 // about; exact after each prune
	limit int64        // of rows
	share int          // counters that the keys beyond share, for each window
	asked atomic.Int64 // Unix time of the last prune that the bound asked for
}

// tables of this package in auxiliary.db, as the migration makes them. Somebody
// who deletes that file to win space has them again at the next start.
var tables = []string{
	`CREATE TABLE IF NOT EXISTS {{groundwork_limit_arrivals}} (
		[[id]]    INTEGER PRIMARY KEY,
		[[key]]   BLOB NOT NULL,
		[[at]]    INTEGER NOT NULL,
		[[until]] INTEGER NOT NULL
	)`,
	`CREATE INDEX IF NOT EXISTS [[idx_groundwork_limit_arrivals_key]] ON {{groundwork_limit_arrivals}} ([[key]], [[at]])`,
	`CREATE INDEX IF NOT EXISTS [[idx_groundwork_limit_arrivals_until]] ON {{groundwork_limit_arrivals}} ([[until]])`,
	`CREATE TABLE IF NOT EXISTS {{groundwork_limit_codes}} (
		[[code]]    BLOB PRIMARY KEY NOT NULL,
		[[account]] BLOB NOT NULL,
		[[until]]   INTEGER NOT NULL
	) WITHOUT ROWID`,
	`CREATE INDEX IF NOT EXISTS [[idx_groundwork_limit_codes_until]] ON {{groundwork_limit_codes}} ([[until]])`,
	`CREATE TABLE IF NOT EXISTS {{groundwork_known_addresses}} (
		[[account]] BLOB NOT NULL,
		[[address]] BLOB NOT NULL,
		[[seenAt]]  INTEGER NOT NULL,
		PRIMARY KEY ([[account]], [[address]])
	) WITHOUT ROWID`,
	`CREATE INDEX IF NOT EXISTS [[idx_groundwork_known_addresses_seen]] ON {{groundwork_known_addresses}} ([[seenAt]])`,
}

// now is SQLite's clock in Unix milliseconds.
const now = `CAST(unixepoch('subsec') * 1000 AS INTEGER)`

func newLedger(app core.App) (*ledger, error) {
	for _, table := range tables {
		if _, err := app.AuxNonconcurrentDB().NewQuery(table).Execute(); err != nil {
			return nil, fmt.Errorf("make the tables of the rate limits: %w", err)
		}
	}
	l := &ledger{app: app, limit: maxRows, share: sharedRows}
	if err := l.correct(context.Background()); err != nil {
		return nil, err
	}
	return l, l.prune(context.Background())
}

// correct brings arrivals from the future to now, after a clock that was wrong: they
// would count, and lock their account, until the clock is there again.
func (l *ledger) correct(ctx context.Context) error {
	_, err := l.app.AuxNonconcurrentDB().NewQuery(`UPDATE {{groundwork_limit_arrivals}}
		SET [[until]] = ` + now + ` + [[until]] - [[at]], [[at]] = ` + now + ` WHERE [[at]] > ` + now + ` + 1000`).WithContext(ctx).Execute()
	if err != nil {
		return fmt.Errorf("correct the times of the rate limits: %w", err)
	}
	return nil
}

// take counts one if the window has room. id is the row, for giveBack and touch.
func (l *ledger) take(ctx context.Context, c Count) (taken Taken, id int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()

	// Reading first: under an attack nearly all are refused, and none of them waits
	// for the one who writes.
	params := dbx.Params{"key": c.Key[:], "limit": c.Window.Limit, "length": c.Window.Length.Milliseconds() + 1}
	inside, grows, err := l.look(ctx, l.app.AuxConcurrentDB(), params)
	if err != nil {
		return Taken{}, 0, err
	}
	if inside >= c.Window.Limit {
		return Taken{Grows: grows}, 0, nil
	}
	if inside == 0 && !c.Known && l.rows.Load() >= l.limit && !l.makeRoom(ctx) {
		shared := l.sharedKey(c)
		params["key"] = shared[:]
	}

	err = l.app.AuxNonconcurrentDB().NewQuery(`INSERT INTO {{groundwork_limit_arrivals}} ([[key]], [[at]], [[until]])
		SELECT {:key}, ` + now + `, ` + now + ` + {:length}
		WHERE (SELECT COUNT(*) FROM {{groundwork_limit_arrivals}} WHERE [[key]] = {:key} AND [[at]] >= ` + now + ` - {:length}) < {:limit}
		RETURNING [[id]]`).WithContext(ctx).Bind(params).Row(&id)
	full := errors.Is(err, sql.ErrNoRows)
	if err != nil && !full {
		return Taken{}, 0, fmt.Errorf("count a request: %w", err)
	}
	if !full {
		l.rows.Add(1)
	}
	inside, grows, err = l.look(ctx, l.app.AuxConcurrentDB(), params)
	if err != nil && full {
		return Taken{}, 0, err
	}
	if full {
		return Taken{Grows: max(grows, time.Millisecond)}, 0, nil
	}
	return Taken{OK: true, Remaining: max(c.Window.Limit-inside, 0), Grows: max(grows, time.Millisecond)}, id, nil
}

// look returns how many are in the window and how long until one leaves it.
func (l *ledger) look(ctx context.Context, db dbx.Builder, params dbx.Params) (inside int, grows time.Duration, err error) {
	var left int64
	err = db.NewQuery(`SELECT COUNT(*), COALESCE(MIN([[at]]) + {:length} - `+now+` + 1, 0) FROM {{groundwork_limit_arrivals}}
		WHERE [[key]] = {:key} AND [[at]] >= `+now+` - {:length}`).WithContext(ctx).Bind(params).Row(&inside, &left)
	if err != nil {
		return 0, 0, fmt.Errorf("look at a rate limit: %w", err)
	}
	return inside, time.Duration(left) * time.Millisecond, nil
}

// makeRoom prunes, at most every five seconds, and says whether there is room.
func (l *ledger) makeRoom(ctx context.Context) bool {
	last, unix := l.asked.Load(), time.Now().Unix()
	if unix-last < 5 || !l.asked.CompareAndSwap(last, unix) {
		return false
	}
	return l.prune(ctx) == nil && l.rows.Load() < l.limit
}

// sharedKey is the counter of a key that cannot have its own.
func (l *ledger) sharedKey(c Count) Key {
	var k Key
	copy(k[:], fmt.Sprintf("%d/%d", c.Window.Limit, c.Window.Length/time.Second))
	number := (int(c.Key[0])<<8 | int(c.Key[1])) % l.share
	k[14], k[15] = byte(number>>8), byte(number)
	return k
}

func (l *ledger) giveBack(ctx context.Context, id int64) error {
	_, err := l.app.AuxNonconcurrentDB().NewQuery(`DELETE FROM {{groundwork_limit_arrivals}} WHERE [[id]] = {:id}`).
		WithContext(ctx).Bind(dbx.Params{"id": id}).Execute()
	if err != nil {
		return fmt.Errorf("give back a request: %w", err)
	}
	l.rows.Add(-1)
	return nil
}

// touch makes a take count from now on. One that has left the window is left alone:
// somebody else may have its place by now.
func (l *ledger) touch(ctx context.Context, id int64, w Window) error {
	_, err := l.app.AuxNonconcurrentDB().NewQuery(`UPDATE {{groundwork_limit_arrivals}} SET [[at]] = ` + now + `, [[until]] = ` + now + ` + {:length} WHERE [[id]] = {:id} AND [[at]] >= ` + now + ` - {:length}`).
		WithContext(ctx).Bind(dbx.Params{"id": id, "length": w.Length.Milliseconds() + 1}).Execute()
	if err != nil {
		return fmt.Errorf("count a failure: %w", err)
	}
	return nil
}

// prune deletes what no longer counts, in small steps.
func (l *ledger) prune(ctx context.Context) error {
	for _, table := range []struct{ name, where string }{
		{"groundwork_limit_arrivals", `[[id]] IN (SELECT [[id]] FROM {{groundwork_limit_arrivals}} WHERE [[until]] < ` + now + ` LIMIT {:step})`},
		{"groundwork_limit_codes", `[[code]] IN (SELECT [[code]] FROM {{groundwork_limit_codes}} WHERE [[until]] < ` + now + ` LIMIT {:step})`},
		{"groundwork_known_addresses", fmt.Sprintf(`[[seenAt]] < `+now+` - %d AND {:step} > 0`, knownFor.Milliseconds())},
	} {
		for {
			res, err := l.app.AuxNonconcurrentDB().NewQuery(`DELETE FROM {{` + table.name + `}} WHERE ` + table.where).
				WithContext(ctx).Bind(dbx.Params{"step": pruneStep}).Execute()
			if err != nil {
				return fmt.Errorf("prune %s: %w", table.name, err)
			}
			if n, err := res.RowsAffected(); err != nil || n < pruneStep {
				break
			}
		}
	}
	var rows int64
	if err := l.app.AuxConcurrentDB().NewQuery(`SELECT COUNT(*) FROM {{groundwork_limit_arrivals}}`).WithContext(ctx).Row(&rows); err != nil {
		return fmt.Errorf("count the rows of the rate limits: %w", err)
	}
	l.rows.Store(rows)
	return nil
}
