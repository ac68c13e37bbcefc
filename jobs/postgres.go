package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// postgres is a jobs database that several processes share.
type postgres struct{ pool *pgxpool.Pool }

// maxConns is how many connections a process has at most, unless the address says
// otherwise (pool_max_conns).
const maxConns = 12

// ErrAddress means that the address of a jobs database cannot be one.
var ErrAddress = errors.New("the address of the jobs database has to look like postgres://user:password@host:5432/database")

// openPostgres reads the address. It does not connect.
func openPostgres(address string) (*postgres, error) {
	if !strings.HasPrefix(address, "postgres://") && !strings.HasPrefix(address, "postgresql://") {
		return nil, ErrAddress
	}
	cfg, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, ErrAddress // what pgx says has the address in it
	}
	if !strings.Contains(address, "pool_max_conns=") {
		cfg.MaxConns = maxConns
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "groundwork"
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("open jobs database: %w", err)
	}
	return &postgres{pool}, nil
}

func newPostgres(db *postgres, cfg *river.Config) (engine, error) {
	return newEngine[pgx.Tx](db, riverpgxv5.New(db.pool), cfg)
}

func (p *postgres) begin(ctx context.Context) (pgx.Tx, error)   { return p.pool.Begin(ctx) }
func (p *postgres) commit(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) }
func (p *postgres) rollback(tx pgx.Tx)                          { _ = tx.Rollback(context.Background()) }
func (p *postgres) in(tx pgx.Tx) querier                        { return pgxQuerier{tx} }
func (p *postgres) close() error                                { p.pool.Close(); return nil }

func (p *postgres) exec(ctx context.Context, query string, args ...any) (int64, error) {
	return pgxQuerier{p.pool}.exec(ctx, query, args...)
}

func (p *postgres) query(ctx context.Context, query string, args ...any) (rows, error) {
	return pgxQuerier{p.pool}.query(ctx, query, args...)
}

// advisoryLock is the key under which tables are made: several processes start at
// once. It is "groundwo" in ASCII.
const advisoryLock = 0x67726f756e64776f

func (p *postgres) locked(ctx context.Context, do func() error) error {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(advisoryLock)); err != nil {
		return fmt.Errorf("lock the jobs database: %w", err)
	}
	err = do()
	if _, back := conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(advisoryLock)); back != nil {
		_ = conn.Conn().Close(ctx) // the lock ends with its connection
	}
	return err
}

func (p *postgres) serialize(ctx context.Context, tx querier, key string) error {
	_, err := tx.exec(ctx, "SELECT pg_advisory_xact_lock($1, hashtext($2))", int32(advisoryLock&0xffff), key)
	return err
}

// refuses: SQLSTATE classes 22 (data exception) and 23 (constraint violation).
func (p *postgres) refuses(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23"))
}

func (p *postgres) used(ctx context.Context) (used bool, err error) {
	err = queryRow(ctx, p, []any{&used}, "SELECT to_regclass('groundwork_nodes') IS NOT NULL")
	return used, err
}

// compact frees what deleted rows took, for other rows: writing the table anew would
// stop everybody's jobs. What was in them can be read from the files of Postgres, by
// who reads those, until it is overwritten.
func (p *postgres) compact(ctx context.Context) error {
	if _, err := p.exec(ctx, "VACUUM river_job"); err != nil {
		return fmt.Errorf("compact jobs database: %w", err)
	}
	return nil
}

func (p *postgres) schema() []string {
	return []string{
		// Nothing reads these two of River's, and every step of a job would write them.
		"DROP INDEX IF EXISTS river_job_args_index",
		"DROP INDEX IF EXISTS river_job_metadata_index",
		"CREATE TABLE IF NOT EXISTS groundwork_relayed (id text PRIMARY KEY, at bigint NOT NULL)",
		"CREATE TABLE IF NOT EXISTS groundwork_marks (job bigint NOT NULL, part text NOT NULL, PRIMARY KEY (job, part))",
		// machine names the system that pid means something in.
		`CREATE TABLE IF NOT EXISTS groundwork_nodes (
			id text PRIMARY KEY, host text NOT NULL, pid bigint NOT NULL, machine text NOT NULL, installation text NOT NULL, kind text NOT NULL,
			queues text[] NOT NULL, shares text[] NOT NULL, started_at timestamptz NOT NULL DEFAULT now(), seen_at timestamptz NOT NULL DEFAULT now())`,
		"CREATE INDEX IF NOT EXISTS groundwork_job_id ON river_job ((metadata->>'gwId'))",
		"CREATE INDEX IF NOT EXISTS groundwork_job_unique ON river_job ((metadata->>'gwUnique'), kind) WHERE metadata->>'gwUnique' IS NOT NULL",
	}
}

func (p *postgres) text(expression string) string { return "(" + expression + ")::text" }
func (p *postgres) value(parameter string) string { return parameter + "::jsonb" }
func (p *postgres) failures() string              { return "COALESCE(array_to_json(errors)::text, '')" }
func (p *postgres) newFailures(parameter string) string {
	return "CASE WHEN " + parameter + "::text IS NULL THEN NULL ELSE ARRAY(SELECT jsonb_array_elements(" + parameter + "::jsonb)) END"
}
func (p *postgres) andFailure(parameter string) string {
	return "array_append(errors, jsonb_build_object('at', now(), 'attempt', attempt, 'error', " + parameter + "::text, 'trace', ''))"
}
func (p *postgres) withResult(parameter string) string {
	return "jsonb_set(metadata, '{output}', " + parameter + "::jsonb)"
}
func (p *postgres) node() string                   { return "attempted_by[cardinality(attempted_by)]" }
func (p *postgres) state(expression string) string { return "(" + expression + ")::river_job_state" }
func (p *postgres) now() string                    { return "now()" }
func (p *postgres) ago(d time.Duration) string {
	return fmt.Sprintf("now() - interval '%.3f seconds'", d.Seconds())
}
func (p *postgres) at(t time.Time) any { return t }

// pgxQuerier is a pool or a transaction.
type pgxQuerier struct {
	db interface {
		Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
		Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
	}
}

func (q pgxQuerier) exec(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := q.db.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

func (q pgxQuerier) query(ctx context.Context, query string, args ...any) (rows, error) {
	return q.db.Query(ctx, query, args...)
}
