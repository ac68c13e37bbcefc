package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
)

const (
	// beatEvery is how often a node says that it lives, silentFor how long it may
	// say nothing before its jobs are given to others. Both by Postgres's clock.
	beatEvery = 2 * time.Second
	silentFor = 15 * time.Second

	// lostAfter is how long the end of an attempt may take to be stored: a job that
	// is said to run here after that, and does not, is free again.
	lostAfter = 30 * time.Second

	// statementLimit bounds a statement of the upkeep.
	statementLimit = 10 * time.Second
)

// firstLook is how long the start waits for a Postgres that does not answer, or to
// which jobs move, before it goes on without.
var firstLook = 5 * time.Second

type logger = *slog.Logger

// Kinds of nodes.
const (
	nodeAPI    = "api"
	nodeWorker = "worker"
)

// node is one process that works jobs.
type node struct {
	id, host, machine, installation, kind string

	queues, shares []string
}

// process works the jobs of one engine, and keeps its node alive where there are
// several. Client and Remote have it in common.
type process struct {
	engine   engine
	node     node
	shared   bool // other processes work on the same database
	attempts *attempts
	log      logger
	trouble  atomic.Pointer[string] // of this machine; nil or empty: none

	// ready runs when the tables are there and before the first job is taken; the
	// loops run from then on.
	ready func(ctx context.Context) error
	loop  []func(ctx context.Context)

	started atomic.Bool
	cancel  context.CancelFunc
	loops   sync.WaitGroup
}

// startTries is how often the jobs are started whose file is busy. SQLite and River wait
// for ten seconds each time, and a disk that takes longer once is no reason for a server
// not to start.
const startTries = 3

// isBusy says that a file was locked, or its disk or the machine slow, for longer than
// anybody waits.
func isBusy(err error) bool {
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return err != nil
	}
	text := err.Error()
	return strings.Contains(text, "SQLITE_BUSY") || strings.Contains(text, "timed out waiting for interrupt operation") // River's notifier
}

// start begins to work. With a database that others share it goes on in the
// background when that does not answer, and tries again.
func (p *process) start(ctx context.Context) error {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	if !p.shared {
		err := p.open(run)
		for try := 1; try < startTries && isBusy(err) && ctx.Err() == nil; try++ {
			p.log.Warn("the database of the jobs is busy, starting them again", "error", err)
			err = p.open(run)
		}
		if err != nil {
			cancel()
		}
		return err
	}
	done := make(chan struct{})
	p.loops.Go(func() {
		says := trouble{log: p.log, begins: "The jobs database cannot be used. " + p.meanwhile() + ", and it is tried again.", ends: "The jobs database can be used now."}
		for first := true; ; first = false {
			err := p.open(run)
			says.tell(run, err)
			if first {
				close(done)
			}
			if err == nil || !wait(run, beatEvery) {
				return
			}
		}
	})
	select {
	case <-done:
	case <-time.After(firstLook):
		p.log.Warn("The jobs database takes long to answer. " + p.meanwhile() + " until it does.")
	}
	return nil
}

// meanwhile is what happens without the database.
func (p *process) meanwhile() string {
	if p.node.kind == nodeWorker {
		return "This worker takes nothing"
	}
	return "Jobs are kept in the outbox"
}

// open makes the tables, and starts what runs until run ends.
func (p *process) open(run context.Context) error {
	if err := p.engine.migrate(run); err != nil {
		return err
	}
	if p.shared {
		if err := p.join(run); err != nil {
			return err
		}
	}
	if err := p.ready(run); err != nil {
		return err
	}
	if err := p.engine.start(run); err != nil {
		return err
	}
	p.started.Store(true)
	for _, loop := range append(p.loop, p.beats) {
		p.loops.Go(func() { loop(run) })
	}
	return nil
}

// stop ends the work. The node stays when jobs did not end: it is still theirs.
func (p *process) stop(ctx context.Context) error {
	if p.cancel == nil {
		return nil
	}
	var err error
	if p.started.Load() {
		err = p.engine.stop(ctx) // while it is said that the node lives
	}
	p.cancel()
	p.loops.Wait()
	if !p.started.Load() {
		return nil
	}
	if err = errors.Join(err, p.engine.stop(ctx)); err != nil { // it may just have started
		return err
	}
	here.Delete(p.node.id)
	if p.shared {
		ctx, cancel := context.WithTimeout(ctx, statementLimit)
		defer cancel()
		if _, err := p.engine.exec(ctx, "DELETE FROM groundwork_nodes WHERE id = $1", p.node.id); err != nil {
			p.log.Warn("this process could not sign off from the jobs database; the others notice by themselves", "error", err)
		}
	}
	return nil
}

// here are the nodes of this process.
var here sync.Map

// newNode names a process: its id says its host, and is never used again.
func newNode(host, kind, installation string, queues map[string]int, shares []string) node {
	if host == "" {
		host, _ = os.Hostname()
	}
	host = hostName(host)
	n := node{id: host + "/" + security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet),
		host: host, machine: machine(), installation: installation, kind: kind, queues: []string{}, shares: []string{}}
	for queue := range queues {
		n.queues = append(n.queues, queue)
	}
	n.shares = append(n.shares, shares...)
	return n
}

var notInHost = regexp.MustCompile(`[^A-Za-z0-9.\-]+`)

func hostName(host string) string {
	host = strings.Trim(notInHost.ReplaceAllString(host, "-"), "-")
	if host == "" {
		return "host"
	}
	return host[:min(len(host), 60)]
}

// machine names the system in which a process id means something: a boot, and the
// container's own numbers. Empty where that cannot be told.
func machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, err2 := os.Readlink("/proc/self/ns/pid")
	if err != nil || err2 != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + space
}

// join makes the node known and frees what processes of this machine left that are
// gone.
func (p *process) join(ctx context.Context) error {
	here.Store(p.node.id, true)
	if err := p.beat(ctx); err != nil {
		return err
	}
	found, err := p.engine.query(ctx, "SELECT id, pid FROM groundwork_nodes WHERE host = $1 AND machine = $2 AND installation = $3 AND machine <> '' AND id <> $4",
		p.node.host, p.node.machine, p.node.installation, p.node.id)
	if err != nil {
		return fmt.Errorf("find earlier processes: %w", err)
	}
	defer found.Close()
	var dead []string
	for found.Next() {
		var id string
		var pid int
		if err := found.Scan(&id, &pid); err != nil {
			return fmt.Errorf("find earlier processes: %w", err)
		}
		if _, mine := here.Load(id); !mine && !alive(pid) {
			dead = append(dead, id)
		}
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("find earlier processes: %w", err)
	}
	found.Close()
	if len(dead) > 0 {
		parameters, args := list(1, dead)
		if _, err := p.engine.exec(ctx, "DELETE FROM groundwork_nodes WHERE id IN ("+parameters+")", args...); err != nil {
			return fmt.Errorf("forget earlier processes: %w", err)
		}
	}
	return p.bury(ctx)
}

// alive says whether another process of this number may exist. Ours had one of the
// same number before: it is gone.
func alive(pid int) bool {
	if pid == os.Getpid() || runtime.GOOS == "windows" {
		return pid != os.Getpid()
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = process.Signal(syscall.Signal(0))
	return err == nil || err == syscall.EPERM //nolint:errorlint // os returns it as it is
}

// beat says that the node lives.
func (p *process) beat(ctx context.Context) error {
	n, trouble := p.node, ""
	if said := p.trouble.Load(); said != nil {
		trouble = *said
	}
	_, err := p.engine.exec(ctx, `INSERT INTO groundwork_nodes (id, host, pid, machine, installation, kind, queues, shares, trouble) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (id) DO UPDATE SET seen_at = now(), trouble = $9`, n.id, n.host, os.Getpid(), n.machine, n.installation, n.kind, n.queues, n.shares, trouble)
	if err != nil {
		return fmt.Errorf("sign in at the jobs database: %w", err)
	}
	return nil
}

// bury forgets silent nodes and gives the jobs of those that are not there to others.
func (p *process) bury(ctx context.Context) error {
	return p.engine.inTx(ctx, func(tx transaction) error {
		// Of several that notice at once, one does it.
		if _, err := tx.exec(ctx, "DELETE FROM groundwork_nodes WHERE id IN (SELECT id FROM groundwork_nodes WHERE seen_at < "+p.engine.ago(silentFor)+" FOR UPDATE SKIP LOCKED)"); err != nil {
			return fmt.Errorf("forget silent processes: %w", err)
		}
		if err := depose(ctx, tx, "NOT EXISTS (SELECT 1 FROM groundwork_nodes WHERE groundwork_nodes.id = river_leader.leader_id)"); err != nil {
			return err
		}
		n, err := free(ctx, p.engine, tx, processEnded, "NOT EXISTS (SELECT 1 FROM groundwork_nodes WHERE groundwork_nodes.id = "+p.engine.node()+")")
		if err == nil && n > 0 {
			p.log.Warn("jobs of a process that is gone go on elsewhere", "jobs", n)
		}
		return err
	})
}

// Why a job that was running is free again.
const (
	processEnded = "The process that worked on it ended before the job did."
	endWasLost   = "The end of this attempt could not be stored."
)

// free gives running jobs to others; parameters of which begin with $2. The attempt that was cut off counts, so that a
// job which kills its process each time is given up in the end.
func free(ctx context.Context, e engine, q querier, why, which string, args ...any) (int64, error) {
	const cancelled, spent = "metadata->>'cancel_attempted_at' IS NOT NULL", "attempt >= max_attempts"
	args = append([]any{why}, args...)
	n, err := q.exec(ctx, "UPDATE river_job SET errors = "+e.andFailure("$1")+
		", state = "+e.state("CASE WHEN "+cancelled+" THEN 'cancelled' WHEN "+spent+" THEN 'discarded' ELSE 'available' END")+
		", finalized_at = CASE WHEN "+cancelled+" OR "+spent+" THEN "+e.now()+" ELSE NULL END"+
		" WHERE state = 'running' AND metadata->>'gwId' IS NOT NULL AND "+which, args...)
	if err != nil {
		return 0, fmt.Errorf("free running jobs: %w", err)
	}
	return n, nil
}

// depose takes the lead from a process that is gone. The leader makes jobs available
// whose time has come; its successor would wait 15 seconds for the term to end, and
// retries and timed jobs with it.
func depose(ctx context.Context, q querier, which string) error {
	if _, err := q.exec(ctx, "DELETE FROM river_leader WHERE "+which); err != nil {
		return fmt.Errorf("take the lead from a process that is gone: %w", err)
	}
	return nil
}

// beats keeps the node alive until ctx ends.
func (p *process) beats(ctx context.Context) {
	says := trouble{log: p.log, begins: "The jobs database does not answer. Jobs wait, and it is tried again.", ends: "The jobs database answers again."}
	for i := 1; wait(ctx, beatEvery); i++ {
		says.tell(ctx, p.upkeep(ctx, i))
	}
}

func (p *process) upkeep(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, statementLimit)
	defer cancel()
	if p.shared {
		if err := p.beat(ctx); err != nil {
			return err
		}
		if err := p.bury(ctx); err != nil {
			return err
		}
	}
	if i%5 != 0 {
		return nil
	}
	p.attempts.forget()
	return p.freeLost(ctx)
}

// freeLost frees jobs that are said to run here and do not: the answer to taking
// them, or the news of their end, was lost with a connection or on a full disk.
func (p *process) freeLost(ctx context.Context) error {
	found, err := p.engine.query(ctx, "SELECT id FROM river_job WHERE state = 'running' AND "+p.engine.node()+" = $1 AND attempted_at < "+p.engine.ago(lostAfter), p.node.id)
	if err != nil {
		return fmt.Errorf("find lost jobs: %w", err)
	}
	defer found.Close()
	var lost []int64
	for found.Next() {
		var id int64
		if err := found.Scan(&id); err != nil {
			return fmt.Errorf("find lost jobs: %w", err)
		}
		if !p.attempts.has(id) {
			lost = append(lost, id)
		}
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("find lost jobs: %w", err)
	}
	found.Close()
	if len(lost) == 0 {
		return nil
	}
	parameters, args := list(2, lost)
	n, err := free(ctx, p.engine, p.engine, endWasLost, "id IN ("+parameters+")", args...)
	if err == nil && n > 0 {
		p.log.Warn("jobs whose end could not be stored are done again", "jobs", n)
	}
	return err
}

// wait returns false when ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// trouble tells once that something does not work, and once that it does again.
type trouble struct {
	log          logger
	begins, ends string
	told         bool
}

func (t *trouble) tell(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil && !t.told:
		t.told = true
		t.log.Error(t.begins, "error", err)
	case err == nil && t.told:
		t.told = false
		t.log.Info(t.ends)
	}
}
