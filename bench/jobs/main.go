// Command jobs measures what jobs cost beside plain River on the same kind of
// database.
//
//	go run ./bench/jobs
//
// For SQLite and, where it is installed, for a Postgres of its own it starts two
// clients, ours and River's, each on a database that holds the same, with the same
// workers. It alternates rounds between them within one run: so many jobs that do
// nothing are added at once, in one transaction, and the round ends when the last one has run.
// Ours go through the outbox of the app's own database, are remembered, and can be
// found by a public id; River's are inserted as fast as it can. Each pair of rounds
// gives one ratio; the result is their median. Then single jobs are added to both in
// turn, and the times until they start are compared. The exit status is 1 when a
// median is below -target.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pocketbase/pocketbase/core"
	_ "github.com/pocketbase/pocketbase/migrations"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/jobs"
	_ "github.com/groundworkhq/groundwork/migrations"
)

type options struct {
	jobs, pairs, singles int
	target               float64
	profile              string
	only                 string
}

// workers is how many jobs run at a time, with ours and with River's.
const workers = 8

func main() {
	var o options
	flag.IntVar(&o.jobs, "jobs", 400, "jobs of one round")
	flag.IntVar(&o.pairs, "pairs", 31, "pairs of rounds for each database")
	flag.IntVar(&o.singles, "singles", 300, "single jobs whose start is timed")
	flag.Float64Var(&o.target, "target", 0.8, "the least ratio that is good enough")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile of our rounds to this file")
	flag.StringVar(&o.only, "only", "", "sqlite or postgres: measure only that")
	flag.Parse()
	good, err := run(o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "jobs:", err)
		os.Exit(1)
	}
	if !good {
		os.Exit(1)
	}
}

// side is what is measured: many adds n jobs that do nothing, one adds a job; both
// kinds say on ran that they have begun.
type side struct {
	ran  *ran
	many func(n int) error
	one  func() error
	stop func()
}

// ran counts the jobs that have begun.
type ran struct {
	n     atomic.Int64
	until atomic.Int64
	done  chan struct{}
}

func newRan() *ran { return &ran{done: make(chan struct{}, 1)} }

func (r *ran) count() {
	if r.n.Add(1) == r.until.Load() {
		r.done <- struct{}{}
	}
}

// expect prepares for n more.
func (r *ran) expect(n int) { r.until.Store(r.n.Load() + int64(n)) }

func (r *ran) wait() error {
	select {
	case <-r.done:
		return nil
	case <-time.After(2 * time.Minute):
		return fmt.Errorf("%d of %d jobs have begun after 2 minutes", r.n.Load(), r.until.Load())
	}
}

func run(o options, out io.Writer) (good bool, err error) {
	dir, err := os.MkdirTemp("", "groundwork-bench-jobs-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	good = true
	for _, database := range []string{"sqlite", "postgres"} {
		if o.only != "" && o.only != database {
			continue
		}
		urls := [2]string{}
		if database == "postgres" {
			server, err := pgtest.Start()
			if err != nil {
				fmt.Fprintln(out, "postgres is left out:", err)
				continue
			}
			defer server.Stop()
			for i := range urls {
				name, err := server.NewDatabase()
				if err != nil {
					return false, err
				}
				urls[i] = server.URL(name)
			}
		}
		ok, err := measure(o, out, database, filepath.Join(dir, database), urls)
		if err != nil {
			return false, fmt.Errorf("%s: %w", database, err)
		}
		good = good && ok
	}
	return good, nil
}

func measure(o options, out io.Writer, name, dir string, urls [2]string) (bool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	own, err := ours(dir, urls[0])
	if err != nil {
		return false, err
	}
	defer own.stop()
	plain, err := rivers(dir, urls[1])
	if err != nil {
		return false, err
	}
	defer plain.stop()
	var rates [2][]float64
	var ratios []float64
	for pair := range o.pairs + 1 {
		var rate [2]float64
		for i, s := range []*side{own, plain} {
			if i == 0 && o.profile != "" && pair > 0 {
				stop, err := profile(fmt.Sprintf("%s.%s.%d", o.profile, name, pair))
				if err != nil {
					return false, err
				}
				defer stop()
			}
			s.ran.expect(o.jobs)
			began := time.Now()
			if err := s.many(o.jobs); err != nil {
				return false, err
			}
			if err := s.ran.wait(); err != nil {
				return false, err
			}
			rate[i] = float64(o.jobs) / time.Since(began).Seconds()
			if i == 0 && o.profile != "" {
				pprof.StopCPUProfile()
			}
			time.Sleep(200 * time.Millisecond) // River stores the ends of jobs a moment after them and tells nobody: they would be written in the other side's round
		}
		if pair == 0 {
			continue // both are warm
		}
		rates[0], rates[1] = append(rates[0], rate[0]), append(rates[1], rate[1])
		ratios = append(ratios, rate[0]/rate[1])
	}
	ratio := median(ratios)
	fmt.Fprintf(out, "%-9s %6.0f jobs/s, plain River %6.0f: ratio %.2f (median of %d pairs, %.2f to %.2f)\n",
		name, median(rates[0]), median(rates[1]), ratio, len(ratios), slices.Min(ratios), slices.Max(ratios))

	var starts [2][]time.Duration
	for n := range o.singles {
		for i, s := range []*side{own, plain} {
			s.ran.expect(1)
			began := time.Now()
			if err := s.one(); err != nil {
				return false, err
			}
			if err := s.ran.wait(); err != nil {
				return false, err
			}
			starts[i] = append(starts[i], time.Since(began))
			time.Sleep(time.Duration(5+n%13) * time.Millisecond) // jobs come at any moment, not in step with the polls whose wait is measured
		}
	}
	for i, who := range []string{"start", "plain River"} {
		slices.Sort(starts[i])
		fmt.Fprintf(out, "%-9s %-11s p50 %5.1f ms, p99 %5.1f ms\n", name, who, ms(starts[i][len(starts[i])/2]), ms(starts[i][len(starts[i])*99/100]))
	}
	return ratio >= o.target, nil
}

func profile(name string) (stop func(), err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, pprof.StartCPUProfile(f)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// args are those of both.
type args struct {
	Notification string `json:"notification"`
	Batch        int    `json:"batch"`
}

func (args) Kind() string { return "bench.nothing" }

func some(i int) args { return args{"abcdefghijklmno", i} }

type ownWorker struct{ ran *ran }

func (w ownWorker) Work(context.Context, *jobs.Job[args]) error { w.ran.count(); return nil }

func ours(dir, url string) (*side, error) {
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	if err := app.Bootstrap(); err != nil {
		return nil, err
	}
	if err := app.RunAllMigrations(); err != nil {
		return nil, err
	}
	s := &side{ran: newRan()}
	w := jobs.NewWorkers()
	jobs.AddWorker(w, ownWorker{s.ran})
	client, err := jobs.New(app, w, jobs.Config{DatabaseURL: url, Workers: map[string]int{jobs.QueueDefault: workers}, Log: warnings()})
	if err == nil {
		err = client.Start(context.Background())
	}
	if err != nil {
		return nil, err
	}
	s.one = func() error { _, err := jobs.Enqueue(app, some(0), jobs.Options{}); return err }
	s.many = func(n int) error {
		all := make([]jobs.Args, n)
		for i := range all {
			all[i] = some(i)
		}
		_, err := jobs.EnqueueMany(app, all, jobs.Options{})
		return err
	}
	s.stop = func() {
		_ = client.Stop(context.Background())
		_ = app.ClearBootstrap()
	}
	return s, nil
}

func warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type riverWorker struct {
	river.WorkerDefaults[args]
	ran *ran
}

func (w *riverWorker) Work(context.Context, *river.Job[args]) error { w.ran.count(); return nil }

func rivers(dir, url string) (*side, error) {
	if url == "" {
		db, err := sql.Open("sqlite", filepath.Join(dir, "plain.db")+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=journal_size_limit(200000000)&_txlock=immediate")
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(1)
		return plain[*sql.Tx](riversqlite.New(db), func() { _ = db.Close() })
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 12
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, err
	}
	return plain[pgx.Tx](riverpgxv5.New(pool), pool.Close)
}

// plain is River as it comes, with the workers and the cooldown of ours.
func plain[TTx any](driver riverdriver.Driver[TTx], closeDB func()) (*side, error) {
	ctx := context.Background()
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: warnings()})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	s := &side{ran: newRan()}
	w := river.NewWorkers()
	river.AddWorker(w, &riverWorker{ran: s.ran})
	client, err := river.NewClient(driver, &river.Config{Queues: map[string]river.QueueConfig{jobs.QueueDefault: {MaxWorkers: workers}}, Workers: w,
		Logger: warnings(), FetchCooldown: 5 * time.Millisecond})
	if err == nil {
		err = client.Start(ctx)
	}
	if err != nil {
		return nil, err
	}
	s.one = func() error { _, err := client.Insert(ctx, some(0), nil); return err }
	s.many = func(n int) error {
		all := make([]river.InsertManyParams, n)
		for i := range all {
			all[i].Args = some(i)
		}
		_, err := client.InsertManyFast(ctx, all)
		return err
	}
	s.stop = func() {
		_ = client.Stop(ctx)
		closeDB()
	}
	return s, nil
}
