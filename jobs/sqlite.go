package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
)

// FileName is the jobs database in PocketBase's data folder.
const FileName = "jobs.db"

// sqlite is the jobs database in the data folder.
type sqlite struct{ db *sql.DB }

func openSQLite(dataDir string) (*sqlite, error) {
	db, err := sql.Open("sqlite", filepath.Join(dataDir, FileName)+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=journal_size_limit(200000000)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open jobs database: %w", err)
	}
	db.SetMaxOpenConns(1) // River works in parallel, SQLite has one writer
	return &sqlite{db}, nil
}

// newSQLite returns an engine and what to call when something is in River's table.
func newSQLite(db *sqlite, cfg *river.Config) (engine, func(), error) {
	arrived := make(chan struct{}, 1)
	e, err := newEngine[*sql.Tx](db, &wakingDriver{riversqlite.New(db.db), arrived}, cfg)
	return e, func() {
		select {
		case arrived <- struct{}{}:
		default:
		}
	}, err
}

func (s *sqlite) begin(ctx context.Context) (*sql.Tx, error)      { return s.db.BeginTx(ctx, nil) }
func (s *sqlite) commit(_ context.Context, tx *sql.Tx) error      { return tx.Commit() }
func (s *sqlite) rollback(tx *sql.Tx)                             { _ = tx.Rollback() }
func (s *sqlite) in(tx *sql.Tx) querier                           { return sqlQuerier{tx} }
func (s *sqlite) close() error                                    { return s.db.Close() }
func (s *sqlite) locked(_ context.Context, do func() error) error { return do() } // one process has the folder

func (s *sqlite) serialize(context.Context, querier, string) error { return nil } // there is one writer

func (s *sqlite) refuses(err error) bool {
	return strings.Contains(err.Error(), "constraint failed") || strings.Contains(err.Error(), "malformed JSON")
}

func (s *sqlite) used(ctx context.Context) (used bool, err error) {
	err = queryRow(ctx, s, []any{&used}, "SELECT COUNT(*) > 0 FROM sqlite_master WHERE name = 'groundwork_relayed'")
	return used, err
}

// compact writes the file anew and empties its log.
func (s *sqlite) compact(ctx context.Context) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("compact jobs database: %w", err)
	}
	defer func() { _ = conn.Close() }() // back to the pool
	if _, err := conn.ExecContext(ctx, "VACUUM"); err != nil {
		return fmt.Errorf("compact jobs database: %w", err)
	}
	var busy, log, checkpointed int
	if err := conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &checkpointed); err != nil {
		return fmt.Errorf("empty the log of the jobs database: %w", err)
	}
	if busy != 0 {
		return errors.New("the log of the jobs database is in use and cannot be emptied right now")
	}
	return nil
}

func (s *sqlite) exec(ctx context.Context, query string, args ...any) (int64, error) {
	return sqlQuerier{s.db}.exec(ctx, query, args...)
}

func (s *sqlite) query(ctx context.Context, query string, args ...any) (rows, error) {
	return sqlQuerier{s.db}.query(ctx, query, args...)
}

func (s *sqlite) schema() []string {
	return []string{
		"CREATE TABLE IF NOT EXISTS groundwork_relayed (id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID",
		"CREATE TABLE IF NOT EXISTS groundwork_marks (job INTEGER NOT NULL, part TEXT NOT NULL, PRIMARY KEY (job, part)) WITHOUT ROWID",
		"CREATE INDEX IF NOT EXISTS groundwork_job_id ON river_job (metadata->>'gwId')",
		"CREATE INDEX IF NOT EXISTS groundwork_job_unique ON river_job (metadata->>'gwUnique', kind) WHERE metadata->>'gwUnique' IS NOT NULL",
	}
}

func (s *sqlite) text(expression string) string       { return "json(" + expression + ")" }
func (s *sqlite) value(parameter string) string       { return "jsonb(" + parameter + ")" }
func (s *sqlite) failures() string                    { return "COALESCE(json(errors), '')" }
func (s *sqlite) newFailures(parameter string) string { return "jsonb(" + parameter + ")" }
func (s *sqlite) andFailure(parameter string) string {
	return "jsonb_insert(COALESCE(errors, jsonb('[]')), '$[#]', json_object('at', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'attempt', attempt, 'error', " + parameter + ", 'trace', ''))"
}
func (s *sqlite) withResult(parameter string) string {
	return "jsonb_set(metadata, '$.output', json(" + parameter + "))"
}
func (s *sqlite) node() string                   { return "attempted_by->>'$[#-1]'" }
func (s *sqlite) state(expression string) string { return expression }
func (s *sqlite) now() string                    { return "strftime('%Y-%m-%d %H:%M:%f', 'now')" }
func (s *sqlite) ago(d time.Duration) string {
	return fmt.Sprintf("strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '-%.3f seconds')", d.Seconds())
}
func (s *sqlite) at(t time.Time) any { return t.UTC().Format(sqliteTime) }

// sqliteTime is how River writes times into SQLite, in UTC.
const sqliteTime = "2006-01-02 15:04:05.999"

// sqlQuerier is a *sql.DB, *sql.Tx or *sql.Conn.
type sqlQuerier struct {
	db interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
}

func (q sqlQuerier) exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := q.db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (q sqlQuerier) query(ctx context.Context, query string, args ...any) (rows, error) {
	found, err := q.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return sqlRows{found}, nil
}

// sqlRows closes as those of pgx do: what was wrong is told by Err.
type sqlRows struct{ *sql.Rows }

func (r sqlRows) Close() { _ = r.Rows.Close() }
