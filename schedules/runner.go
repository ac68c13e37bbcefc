package schedules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

// Options configure a [Runner].
type Options struct {
	// Box seals the secrets of webhooks.
	Box notifications.SecretBox

	// Tell tells the superusers something, in the transaction of txApp. Nil tells
	// nobody but the log.
	Tell func(txApp core.App, subject, text string) error

	// TellAtOnce tells them past the queue and the database. An error means that nobody
	// was told. Nil cannot.
	TellAtOnce func(ctx context.Context, subject, text string) error

	// Dial connects webhooks; it refuses addresses in private networks. CheckHost says
	// by its looks whether a host is refused, as the end of a sentence, and Private
	// whether it may be one without encryption.
	Dial      func(ctx context.Context, network, address string) (net.Conn, error)
	CheckHost func(host, port string) error
	Private   func(host, port string) bool

	// Disk returns the room on the disk of a folder, in bytes; nil asks the system.
	Disk func(dir string) (free, total uint64, err error)

	// Redact takes secrets out of what actions tell: it is kept, logged and sent by mail.
	// Nil leaves it as it is.
	Redact func(text string) string

	// Host is the name of this machine; empty asks the system.
	Host string

	Log *slog.Logger

	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Runner runs the schedules of one app. Make it with [New], give its workers to the
// jobs, and call [Runner.Tick] every minute in every process.
type Runner struct {
	app  core.App
	o    Options
	http *webhookClient

	mu       sync.Mutex
	marks    map[string]bool     // notices that were told past the database, and have no file
	keptBack map[string]keptBack // by schedule
}

// keptBack is a run that could not even be stored, because the disk was full.
type keptBack struct {
	due time.Time
	why string
}

// New returns a Runner. It does nothing by itself.
func New(app core.App, o Options) *Runner {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Redact == nil {
		o.Redact = func(text string) string { return text }
	}
	if o.Disk == nil {
		o.Disk = diskSpace
	}
	if o.Host == "" {
		o.Host, _ = os.Hostname() // it is only shown
	}
	return &Runner{app: app, o: o, http: newWebhookClient(o.Dial), marks: map[string]bool{}, keptBack: map[string]keptBack{}}
}

// AddWorkers adds what runs a schedule to the workers.
func (r *Runner) AddWorkers(w *jobs.Workers) { jobs.AddWorker(w, runWorker{r}) }

// RunArgs does one run.
type RunArgs struct {
	Run string `json:"run"`
}

// Kind implements [jobs.Args].
func (RunArgs) Kind() string { return "schedule.run" }

// queueOf keeps what takes long away from what people wait for.
func queueOf(action string) string {
	switch action {
	case ActionPurge, ActionBackup:
		return jobs.QueueMaintenance
	default:
		return jobs.QueueDefault
	}
}

// enqueue asks for a run. What is asked for twice with one key is done once.
func enqueue(app core.App, run, action, key string) error {
	_, err := jobs.Enqueue(app, RunArgs{run}, jobs.Options{Queue: queueOf(action), UniqueKey: key})
	return err
}

// Tick begins what is due, makes up for what was missed, and takes up what a crash
// left. It may be called at any time and in several processes at once.
func (r *Runner) Tick(_ context.Context) error {
	if !r.hasTables() {
		return nil
	}
	full, _ := r.watchDisk()
	var problems []error
	problems = append(problems, r.takeUp(), r.planAgain())
	due, err := r.app.FindAllRecords(Collection, dbx.NewExp("[[enabled]] = TRUE AND ([[owed]] = TRUE OR [[nextRunAt]] != '' AND [[nextRunAt]] <= {:now})",
		dbx.Params{"now": dateTime(r.o.Now()).String()}))
	if err != nil {
		return errors.Join(append(problems, fmt.Errorf("find due schedules: %w", err))...)
	}
	for _, record := range due {
		if err := r.claim(record.Id, full); err != nil {
			r.keepBack(AsSchedule(record), full)
			problems = append(problems, fmt.Errorf("begin schedule %s: %w", record.Id, err))
		}
	}
	return errors.Join(problems...)
}

// planAgain brings back what is planned for later than its cron line says: the clock was
// ahead when it was, and until that day nothing would run. A time that has a run already
// is not run a second time by it.
func (r *Runner) planAgain() error {
	ahead := func(app core.App, record *core.Record) (*Schedule, *Cron) {
		s := AsSchedule(record)
		c, err := s.Cron()
		// A clock that was set back by a moment needs nothing.
		if err != nil || !c.Next(r.o.Now().Add(lateAfter), s.Zone(app)).Before(s.NextRunAt()) {
			return nil, nil
		}
		return s, c
	}
	later, err := r.app.FindAllRecords(Collection, dbx.NewExp("[[enabled]] = TRUE AND [[nextRunAt]] > {:now}", dbx.Params{"now": dateTime(r.o.Now()).String()}))
	if err != nil {
		return fmt.Errorf("find planned schedules: %w", err)
	}
	for _, record := range later {
		if s, _ := ahead(r.app, record); s == nil {
			continue
		}
		err := r.app.RunInTransaction(func(txApp core.App) error {
			record, err := txApp.FindRecordById(Collection, record.Id)
			if err != nil {
				return nil // deleted meanwhile
			}
			s, c := ahead(txApp, record)
			if s == nil || !s.Enabled() {
				return nil
			}
			r.o.Log.Warn("the clock was set back: a schedule is planned again", "schedule", s.Name(), "id", s.Id, "was", s.NextRunAt())
			s.plan(txApp, c, r.o.Now())
			return r.save(txApp, record)
		})
		if err != nil {
			return fmt.Errorf("plan schedule %s again: %w", record.Id, err)
		}
	}
	return nil
}

// hasTables is false as long as the migrations have not run.
func (r *Runner) hasTables() bool {
	_, err := r.app.FindCachedCollectionByNameOrId(CollectionRuns)
	return err == nil
}

// keepBack remembers a run that the full disk did not let be stored, so that it is as
// soon as there is room.
func (r *Runner) keepBack(s *Schedule, full error) {
	due := s.NextRunAt()
	if full == nil || due.IsZero() || !needsRoom(s.Action()) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keptBack[s.Id].due.Equal(due) {
		return
	}
	r.keptBack[s.Id] = keptBack{due, full.Error()}
	r.logKeptBack(s, full)
}

func (r *Runner) logKeptBack(s *Schedule, full error) {
	r.o.Log.Error(logFailed, "schedule", s.Name(), "id", s.Id, "host", r.o.Host, "error", full.Error())
}

// whyKeptBack is why a run could not be stored; empty when nothing kept it back.
func (r *Runner) whyKeptBack(id string, due time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.keptBack[id]; k.due.Equal(due) {
		return k.why
	}
	return ""
}

// claim makes the run of a schedule that is due, unless another process has.
func (r *Runner) claim(id string, full error) error {
	var failed *Schedule
	err := r.transact(func(txApp core.App) error {
		failed = nil
		record, err := txApp.FindRecordById(Collection, id)
		if err != nil {
			return nil // deleted meanwhile
		}
		s, now := AsSchedule(record), r.o.Now()
		next := s.NextRunAt()
		isDue := !next.IsZero() && !next.After(now)
		owed := s.Owed() && (full == nil || !needsRoom(s.Action()))
		if !s.Enabled() || !isDue && !owed {
			return nil // another process was first
		}
		c, err := s.Cron()
		if err != nil {
			// Written round our checks, or when they let more through: it rests until somebody repairs it.
			s.Set("nextRunAt", nil)
			s.Set("owed", false)
			s.Set("lastStatus", StatusFailed)
			s.Set("lastError", err.Error())
			if saveErr := r.save(txApp, record); saveErr != nil {
				return saveErr
			}
			return r.alert(txApp, s, err.Error())
		}
		run := &newRun{schedule: s, due: now, cause: CauseCatchUp}
		if isDue {
			last, missed := c.Missed(next, now, s.Zone(txApp))
			s.Set("nextRunAt", dateTime(c.Next(now, s.Zone(txApp))))
			run.due, run.cause = last, CauseDue
			keptBack := r.whyKeptBack(id, next)
			if missed > 0 || now.Sub(last) > lateAfter || owed || keptBack != "" && full == nil {
				run.cause = CauseCatchUp
			}
			first := &newRun{schedule: s, due: next, cause: CauseDue}
			switch {
			case keptBack != "" && (missed > 0 || full == nil):
				first.status, first.why = StatusFailed, keptBack
				if missed == 0 {
					run.due = now
				}
			case missed > 0:
				first.status, first.why = StatusMissed, missedWords(missed)
			}
			if first.status != "" {
				if err := r.insert(txApp, first); err != nil {
					return err
				}
			}
		}
		if full != nil && needsRoom(s.Action()) {
			run.status, run.why = StatusFailed, full.Error()
			s.Set("owed", true)
			s.Set("lastRunAt", dateTime(now))
			failed = s
		} else if before, err := unfinished(txApp, s.Id); err != nil {
			return err
		} else if before != nil && !isDue {
			return nil // what is owed waits for it
		} else if before != nil {
			run.status = StatusSkipped
			run.why = fmt.Sprintf("The run of %s was not done yet, and two never run at a time.", When(before.due(), s.Zone(txApp)))
		} else {
			s.Set("owed", false)
		}
		if run.status != "" {
			s.Set("lastStatus", run.status)
			s.Set("lastError", run.why)
		}
		if err := r.insert(txApp, run); err != nil {
			return err
		}
		return r.save(txApp, record)
	})
	if err == nil && failed != nil {
		r.logKeptBack(failed, full)
	}
	return err
}

// transact runs do in a transaction that waits for those of other processes. One that
// reads before it writes would be refused when another process has written in between.
func (r *Runner) transact(do func(txApp core.App) error) error {
	return r.app.RunInTransaction(func(txApp core.App) error {
		if _, err := txApp.DB().NewQuery("DELETE FROM {{groundwork_notices}} WHERE FALSE").Execute(); err != nil {
			return fmt.Errorf("begin to write: %w", err)
		}
		return do(txApp)
	})
}

// lateAfter is how late a run is that makes up for one. The tick itself comes within a
// minute.
const lateAfter = 2 * time.Minute

func missedWords(n int) string {
	switch n {
	case 1:
		return "No server was running at this time. One run makes up for it."
	case mostMissed:
		return fmt.Sprintf("No server was running at this time, nor for more than %s after it. One run makes up for all of them.", countOf(mostMissed, "run"))
	default:
		return fmt.Sprintf("No server was running at this time, nor for the %s after it. One run makes up for all of them.", countOf(n-1, "run"))
	}
}

// newRun is a row of schedule_runs to be.
type newRun struct {
	schedule *Schedule
	due      time.Time
	cause    string
	status   string // empty: it is to be run
	why      string
	run      *core.Record // once inserted
}

// insert stores a run, and the job that does it. One that another process stored
// before is left alone.
func (r *Runner) insert(txApp core.App, n *newRun) error {
	runs, err := txApp.FindCachedCollectionByNameOrId(CollectionRuns)
	if err != nil {
		return fmt.Errorf("find schedule_runs: %w", err)
	}
	at := dateTime(n.due)
	for {
		found, err := txApp.FindAllRecords(CollectionRuns, dbx.HashExp{"schedule": n.schedule.Id, "dueAt": at.String()})
		if err != nil {
			return fmt.Errorf("find run of schedule %s: %w", n.schedule.Id, err)
		}
		if len(found) == 0 {
			break
		}
		// A time that was missed comes again when the clock that said so was ahead.
		if n.cause == CauseDue && (n.status == StatusMissed || found[0].GetString("status") != StatusMissed) {
			return nil
		}
		at = dateTime(at.Time().Add(time.Millisecond)) // one that was asked for at the same moment
	}
	record := core.NewRecord(runs)
	record.Set("schedule", n.schedule.Id)
	record.Set("dueAt", at)
	record.Set("cause", n.cause)
	record.Set("status", StatusQueued)
	record.Set("retryAt", dateTime(r.o.Now()))
	if n.status != "" {
		record.Set("status", n.status)
		record.Set("error", n.why)
		record.Set("host", r.o.Host)
		record.Set("finishedAt", dateTime(r.o.Now()))
		record.Set("retryAt", nil)
	}
	if err := r.save(txApp, record); err != nil {
		return fmt.Errorf("store run of schedule %s: %w", n.schedule.Id, err)
	}
	n.run = record
	if n.status != "" {
		return r.prune(txApp, n.schedule.Id)
	}
	return enqueue(txApp, record.Id, n.schedule.Action(), record.Id)
}

func (r *Runner) save(app core.App, record *core.Record) error {
	return app.SaveWithContext(notifications.AsServer(context.Background()), record)
}

// keptRuns is how many runs of a schedule are kept.
const keptRuns = 100

// prune deletes the oldest runs of a schedule beyond the last hundred.
func (r *Runner) prune(txApp core.App, schedule string) error {
	runs, err := txApp.FindCachedCollectionByNameOrId(CollectionRuns)
	if err != nil {
		return fmt.Errorf("find schedule_runs: %w", err)
	}
	_, err = txApp.DB().NewQuery("DELETE FROM {{" + runs.Name + "}} WHERE [[schedule]] = {:schedule} AND [[status]] NOT IN ('queued', 'running') AND [[id]] NOT IN" +
		" (SELECT [[id]] FROM {{" + runs.Name + "}} WHERE [[schedule]] = {:schedule} ORDER BY [[dueAt]] DESC LIMIT {:kept})").
		Bind(dbx.Params{"schedule": schedule, "kept": keptRuns}).Execute()
	if err != nil {
		return fmt.Errorf("prune runs of schedule %s: %w", schedule, err)
	}
	return nil
}

// run is a record of schedule_runs.
type run struct{ *core.Record }

func (r run) due() time.Time     { return r.GetDateTime("dueAt").Time() }
func (r run) retryAt() time.Time { return r.GetDateTime("retryAt").Time() }
func (r run) status() string     { return r.GetString("status") }
func (r run) attempt() int       { return r.GetInt("attempt") }

// unfinished is the run of a schedule that is not done; nil when there is none.
func unfinished(app core.App, schedule string) (*run, error) {
	found, err := app.FindAllRecords(CollectionRuns, dbx.HashExp{"schedule": schedule, "status": []any{StatusQueued, StatusRunning}})
	if err != nil {
		return nil, fmt.Errorf("find unfinished run of schedule %s: %w", schedule, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &run{found[0]}, nil
}

// takeUp asks again for the runs that nobody works on: their process was killed, or
// their job was lost with the jobs' database. The job of a killed process counts as being
// worked as long as other processes go on, so that this is another one; if both come
// through in the end, [Runner.begin] lets one of them have the run.
func (r *Runner) takeUp() error {
	open, err := r.app.FindAllRecords(CollectionRuns, dbx.HashExp{"status": []any{StatusQueued, StatusRunning}})
	if err != nil {
		return fmt.Errorf("find unfinished runs: %w", err)
	}
	for _, record := range open {
		one := run{record}
		if one.status() == StatusRunning && alive(r.app, one.Id) > 0 || one.status() == StatusQueued && r.o.Now().Before(one.retryAt().Add(lateAfter)) {
			continue
		}
		schedule, err := r.app.FindRecordById(Collection, one.GetString("schedule"))
		if err != nil {
			continue // deleted meanwhile, and its runs with it
		}
		if err := enqueue(r.app, one.Id, schedule.GetString("action"), fmt.Sprintf("%s:%d", one.Id, one.attempt())); err != nil {
			return fmt.Errorf("take up run %s: %w", one.Id, err)
		}
	}
	return nil
}
