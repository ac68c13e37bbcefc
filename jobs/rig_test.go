package jobs_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pocketbase/pocketbase/core"
	_ "github.com/pocketbase/pocketbase/migrations"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/jobs"
	_ "github.com/groundworkhq/groundwork/migrations"
)

// patience is how long a test waits for what comes in a moment on a machine that is
// not busy.
const patience = 2 * time.Minute

type echoArgs struct {
	Text string `json:"text"`
}

func (echoArgs) Kind() string { return "test.echo" }

type echo = jobs.Job[echoArgs]

// recorder is a worker whose behaviour a test sets and whose runs it sees.
type recorder struct {
	seen    chan echo
	work    func(ctx context.Context, job *echo) error
	timeout time.Duration
}

func (r *recorder) Work(ctx context.Context, job *echo) error {
	var err error
	if r.work != nil {
		err = r.work(ctx, job)
	}
	r.seen <- *job
	return err
}

func (r *recorder) RetryAfter(int) time.Duration { return 10 * time.Millisecond }
func (r *recorder) Timeout() time.Duration       { return r.timeout }

func (r *recorder) next(t *testing.T) echo {
	t.Helper()
	select {
	case job := <-r.seen:
		return job
	case <-time.After(patience):
		t.Fatal("no job ran")
		panic("unreachable")
	}
}

// rig is an app with an engine for its jobs.
type rig struct {
	*testing.T
	core.App
	url string // empty: SQLite
	dir string
	log lines
}

// both runs a test on both engines.
func both(t *testing.T, test func(x *rig)) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(newRig(t, ""))
	})
	t.Run("Postgres", func(t *testing.T) {
		t.Parallel()
		test(newRig(t, pgtest.Database(t)))
	})
}

func newRig(t *testing.T, url string) *rig {
	t.Helper()
	files, err := template()
	require.NoError(t, err)
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	x := &rig{T: t, url: url, dir: dir}
	x.App = x.open()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(x.log.String())
		}
	})
	return x
}

// open opens the data folder, as another process would.
func (x *rig) open() core.App {
	x.Helper()
	app, err := openApp(x.dir, x.url)
	require.NoError(x, err)
	x.Cleanup(func() { _ = app.ClearBootstrap() })
	return app
}

func openApp(dir, url string) (core.App, error) {
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	if url != "" {
		app.Store().Set(jobs.StoreKeyDatabaseURL, url)
	}
	return app, app.Bootstrap()
}

// template is a migrated data folder: migrating takes longer than most tests.
var template = sync.OnceValues(func() (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "groundwork-jobs-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	if err := app.Bootstrap(); err != nil {
		return nil, err
	}
	if err := app.RunAllMigrations(); err != nil {
		return nil, err
	}
	if _, err := app.NonconcurrentDB().NewQuery("PRAGMA wal_checkpoint(TRUNCATE)").Execute(); err != nil {
		return nil, err
	}
	if err := app.ClearBootstrap(); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, name := range []string{"data.db", "auxiliary.db"} {
		if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return files, nil
})

// start starts a client with one worker.
func (x *rig) start(work func(ctx context.Context, job *echo) error, change ...func(*jobs.Config, *recorder, *jobs.Workers)) (*recorder, *jobs.Client) {
	x.Helper()
	return x.startOn(x.App, work, change...)
}

func (x *rig) startOn(app core.App, work func(ctx context.Context, job *echo) error, change ...func(*jobs.Config, *recorder, *jobs.Workers)) (*recorder, *jobs.Client) {
	x.Helper()
	r := &recorder{seen: make(chan echo, 10_000), work: work}
	w := jobs.NewWorkers()
	cfg := jobs.Config{DatabaseURL: x.url, Log: slog.New(slog.NewTextHandler(&x.log, nil)), StopTimeout: 200 * time.Millisecond}
	for _, c := range change {
		c(&cfg, r, w)
	}
	jobs.AddWorker(w, r)
	client, err := jobs.New(app, w, cfg)
	require.NoError(x, err)
	require.NoError(x, client.Start(context.Background()))
	x.Cleanup(func() { _ = client.Stop(context.Background()) })
	return r, client
}

func (x *rig) enqueue(text string, o jobs.Options) string {
	x.Helper()
	id, err := jobs.Enqueue(x.App, echoArgs{text}, o)
	require.NoError(x, err)
	return id
}

// find reads a job.
func (x *rig) find(id string) jobs.Info {
	x.Helper()
	info, err := jobs.Find(x.Context(), x.App, id)
	require.NoError(x, err)
	return *info
}

// becomes waits until a job is in a state.
func (x *rig) becomes(id, state string) (info jobs.Info) {
	x.Helper()
	x.eventually(func() bool {
		info = x.find(id)
		return info.State == state
	}, func() string { return fmt.Sprintf("%s is %s: %+v", id, info.State, info.Errors) })
	return info
}

func (x *rig) eventually(met func() bool, why ...func() string) {
	x.Helper()
	eventually(x.T, met, why...)
}

func eventually(t *testing.T, met func() bool, why ...func() string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) { // between two looks
		if met() {
			return
		}
	}
	for _, w := range why {
		t.Log(w())
	}
	require.True(t, met())
}

// sql changes the jobs database behind the package's back.
func (x *rig) sql(query string, args ...any) {
	x.Helper()
	if x.url == "" {
		x.lite(func(db *sql.DB) {
			_, err := db.ExecContext(x.Context(), query, args...)
			require.NoError(x, err)
		})
		return
	}
	x.pg(func(conn *pgx.Conn) {
		_, err := conn.Exec(x.Context(), query, args...)
		require.NoError(x, err)
	})
}

// count reads a number from the jobs database.
func (x *rig) count(query string, args ...any) (n int) {
	x.Helper()
	if x.url == "" {
		x.lite(func(db *sql.DB) { require.NoError(x, db.QueryRowContext(x.Context(), query, args...).Scan(&n)) })
		return n
	}
	x.pg(func(conn *pgx.Conn) { require.NoError(x, conn.QueryRow(x.Context(), query, args...).Scan(&n)) })
	return n
}

func (x *rig) lite(do func(*sql.DB)) {
	x.Helper()
	db, err := sql.Open("sqlite", filepath.Join(x.dir, jobs.FileName)+"?_pragma=busy_timeout(10000)")
	require.NoError(x, err)
	defer func() { require.NoError(x, db.Close()) }()
	do(db)
}

func (x *rig) pg(do func(*pgx.Conn)) {
	x.Helper()
	conn, err := pgx.Connect(x.Context(), x.url)
	require.NoError(x, err)
	defer func() { _ = conn.Close(context.Background()) }()
	do(conn)
}

// listens waits until Postgres tells a client that has just started what happens:
// what it does not hear of in that moment it reads within a minute.
func (x *rig) listens() {
	x.Helper()
	if x.url != "" {
		x.eventually(func() bool {
			return x.count("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'listen %' AND query LIKE '%river_control%'") > 0
		})
	}
}

// relayed waits until nothing is in the outbox. The row of a job that is taken stays
// there for a moment longer.
func (x *rig) relayed() {
	x.Helper()
	x.eventually(func() bool {
		var left int
		require.NoError(x, x.ConcurrentDB().Select("COUNT(*)").From("groundwork_outbox").Row(&left))
		return left == 0
	})
}

// texts are the args of all jobs that are stored, and which of them run.
func (x *rig) texts() map[string]bool {
	x.Helper()
	all := map[string]bool{}
	_, _, err := jobs.Sweep(x.Context(), x.App, func(job jobs.Stored) jobs.Change {
		var args echoArgs
		require.NoError(x, json.Unmarshal(job.Args, &args))
		all[args.Text] = all[args.Text] || job.Running // its row may be in the outbox, too
		return jobs.Change{}
	})
	require.NoError(x, err)
	return all
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
