package schedules

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// call is one attempt at one run.
type call struct {
	runner   *Runner
	app      core.App
	schedule *Schedule
	run      string // id
	due      time.Time
	attempt  int
}

// timeouts are how long one attempt may take.
var timeouts = map[string]time.Duration{
	ActionNotification: 5 * time.Minute,
	ActionWebhook:      time.Minute,
	ActionPurge:        2 * time.Hour,
	ActionBackup:       2 * time.Hour,
	ActionHandler:      15 * time.Minute,
}

// endGrace is how long an action has to end once its time is up.
const endGrace = 5 * time.Second

// retryError asks for another attempt.
type retryError struct {
	Sentence
	after time.Duration // 0: as usual
}

func retryLater(format string, args ...any) error {
	return &retryError{Sentence: Sentence(fmt.Sprintf(format, args...))}
}

// retryWaits is how long the attempts that follow a failing one wait.
var retryWaits = []time.Duration{10 * time.Second, 30 * time.Second, 2 * time.Minute, 5 * time.Minute}

// maxAttempts is how often a run is begun: what asks for another attempt, and what a
// crash cut off, is begun again.
const maxAttempts = 5

// errCalledOff is what a run says that a person cancelled in the job monitor.
const errCalledOff = Sentence("The run was cancelled in the job monitor.")

type runWorker struct{ r *Runner }

// Timeout implements [jobs.Timeouter]: each action has its own.
func (runWorker) Timeout() time.Duration { return -1 }

// Work implements [jobs.Worker].
func (w runWorker) Work(ctx context.Context, job *jobs.Job[RunArgs]) error {
	r := w.r
	c, wait, err := r.begin(job.Args.Run)
	if err != nil {
		return err
	}
	if wait > 0 {
		return jobs.Snooze(wait)
	}
	if c == nil {
		return nil // done, deleted, or not to be run
	}
	runCtx, cancel := context.WithTimeout(ctx, timeouts[c.schedule.Action()])
	defer cancel()
	stop := keepPulse(r.app, c.run, cancel)
	defer stop()
	output, err := r.attempt(runCtx, c)
	switch {
	case err != nil && jobs.CalledOff(ctx):
		err = errCalledOff
	case err != nil && ctx.Err() != nil:
		// The process stops: the attempt does not count, and is made after the restart.
		if err := r.handBack(c); err != nil {
			r.o.Log.Error(logRunTrouble, "run", c.run, "error", err)
		}
		stop()
		return ctx.Err()
	case err != nil && errors.Is(runCtx.Err(), context.DeadlineExceeded):
		err = sentence("It did not end within %s.", duration(timeouts[c.schedule.Action()]))
	}
	var again *retryError
	if errors.As(err, &again) && c.attempt < maxAttempts {
		after := again.after
		if after <= 0 {
			after = retryWaits[min(c.attempt, len(retryWaits))-1]
		}
		if err := r.store(ctx, c, func() error { return r.postpone(c, again.Error(), after) }); err != nil {
			return err
		}
		return jobs.Snooze(after)
	}
	failure := err
	if err := r.store(ctx, c, func() error { return r.finish(c, output, failure) }); err != nil {
		return err
	}
	if errors.Is(failure, errCalledOff) {
		return jobs.Cancel(errCalledOff)
	}
	return nil
}

const (
	// storeEvery is how often the end of a run is tried to be stored, storeFor for how
	// long when it is not the disk that has no room for it.
	storeEvery = 2 * time.Second
	storeFor   = time.Minute
)

// store stores what came of an attempt. While the database takes nothing it keeps
// trying, and the run counts as being worked: what was done must not be done again
// because that cannot be said.
func (r *Runner) store(ctx context.Context, c *call, do func() error) error {
	for began := time.Now(); ; {
		err := do()
		if err == nil {
			return nil
		}
		r.o.Log.Error(logRunTrouble, "run", c.run, "error", err)
		if r.nearlyFull() == nil && time.Since(began) > storeFor {
			return err
		}
		select {
		case <-time.After(storeEvery):
		case <-ctx.Done():
			return err
		}
	}
}

// attempt makes one attempt. It returns when the time is up, even if the action does
// not.
func (r *Runner) attempt(ctx context.Context, c *call) (string, error) {
	type answer struct {
		output string
		err    error
	}
	done := make(chan answer, 1)
	tell := func(a answer) (string, error) {
		return r.o.Redact(a.output), r.withoutSecrets(a.err)
	}
	go func() {
		defer func() {
			if p := recover(); p != nil {
				r.o.Log.Error("schedule panicked", "schedule", c.schedule.Name(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				done <- answer{err: sentence("It panicked: %v. The log has more.", p)}
			}
		}()
		output, err := actionOf(c.schedule.Action()).run(ctx, c)
		done <- answer{output, err}
	}()
	select {
	case a := <-done:
		return tell(a)
	case <-ctx.Done():
	}
	timer := time.NewTimer(endGrace)
	defer timer.Stop()
	select {
	case a := <-done:
		return tell(a)
	case <-timer.C:
		return "", ctx.Err()
	}
}

// withoutSecrets takes secrets out of what an error says; it stays a request for another
// attempt, and one of the process's end.
func (r *Runner) withoutSecrets(err error) error {
	if err == nil {
		return nil
	}
	text := r.o.Redact(err.Error())
	var again *retryError
	switch {
	case errors.As(err, &again):
		return &retryError{Sentence: Sentence(r.o.Redact(again.Error())), after: again.after}
	case text != err.Error():
		return Sentence(text)
	default:
		return err
	}
}

// begin marks a run as running. Nothing is to be done when it returns no call; wait
// says that another process works on it, for all that is known.
func (r *Runner) begin(id string) (c *call, wait time.Duration, err error) {
	pulse := false // ours; another process's goes on
	err = r.transact(func(txApp core.App) error {
		c, wait = nil, 0
		record, err := txApp.FindRecordById(CollectionRuns, id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil // deleted with its schedule
		}
		if err != nil {
			return fmt.Errorf("find run %s: %w", id, err)
		}
		one := run{record}
		if one.status() != StatusQueued && one.status() != StatusRunning {
			return nil
		}
		if wait = alive(r.app, id); wait > 0 {
			return nil
		}
		scheduleRecord, err := txApp.FindRecordById(Collection, record.GetString("schedule"))
		if err != nil {
			return fmt.Errorf("find schedule of run %s: %w", id, err)
		}
		s, now := AsSchedule(scheduleRecord), r.o.Now()
		if one.status() == StatusQueued && now.Before(one.retryAt()) && one.attempt() > 0 {
			wait = one.retryAt().Sub(now) // taken up again while it waits for its next attempt
			return nil
		}
		end := func(status, why string) error {
			return r.end(txApp, s, record, status, "", why)
		}
		switch full := r.nearlyFull(); {
		case !s.Enabled() && record.GetString("cause") != CauseManual:
			return end(StatusSkipped, "The schedule was switched off before it began.")
		case one.attempt() >= maxAttempts:
			why := fmt.Sprintf("The server's process ended during the last of %d attempts.", one.attempt())
			if err := end(StatusFailed, why); err != nil {
				return err
			}
			return r.alert(txApp, s, why)
		case full != nil && needsRoom(s.Action()):
			if record.GetString("cause") != CauseManual {
				s.Set("owed", true) // else it stays what it is: one by hand is asked for again by hand
			}
			r.o.Log.Error(logFailed, "schedule", s.Name(), "id", s.Id, "host", r.o.Host, "error", full.Error())
			return end(StatusFailed, full.Error())
		}
		pulse = true
		if err := beginPulse(r.app, id); err != nil {
			return err
		}
		record.Set("status", StatusRunning)
		record.Set("attempt", one.attempt()+1)
		record.Set("host", r.o.Host)
		if record.GetDateTime("startedAt").IsZero() {
			record.Set("startedAt", dateTime(now))
		}
		s.Set("lastStatus", StatusRunning)
		s.Set("lastRunAt", dateTime(now))
		if err := errors.Join(r.save(txApp, record), r.save(txApp, scheduleRecord)); err != nil {
			return err
		}
		c = &call{runner: r, app: r.app, schedule: s, run: id, due: one.due(), attempt: one.attempt()}
		return nil
	})
	if err != nil {
		if pulse {
			endPulse(r.app, id)
		}
		return nil, 0, fmt.Errorf("begin run %s: %w", id, err)
	}
	return c, wait, nil
}

// change stores what became of a run, unless it was deleted meanwhile.
func (r *Runner) change(c *call, do func(txApp core.App, s *Schedule, run *core.Record) error) error {
	return r.transact(func(txApp core.App) error {
		record, err := txApp.FindRecordById(CollectionRuns, c.run)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find run %s: %w", c.run, err)
		}
		schedule, err := txApp.FindRecordById(Collection, record.GetString("schedule"))
		if err != nil {
			return fmt.Errorf("find schedule of run %s: %w", c.run, err)
		}
		return do(txApp, AsSchedule(schedule), record)
	})
}

// CallOff ends a run whose job was cancelled before a worker had it: nothing else would,
// and the next [Runner.Tick] would ask for it again. One that is being worked ends by
// itself.
func (r *Runner) CallOff(id string) error {
	return r.app.RunInTransaction(func(txApp core.App) error {
		record, err := txApp.FindRecordById(CollectionRuns, id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil // deleted with its schedule
		}
		if err != nil {
			return fmt.Errorf("find run %s: %w", id, err)
		}
		if (run{record}).status() != StatusQueued {
			return nil
		}
		schedule, err := txApp.FindRecordById(Collection, record.GetString("schedule"))
		if err != nil {
			return fmt.Errorf("find schedule of run %s: %w", id, err)
		}
		return r.end(txApp, AsSchedule(schedule), record, StatusSkipped, "", errCalledOff.Error())
	})
}

// handBack leaves a run to the next process.
func (r *Runner) handBack(c *call) error {
	return r.change(c, func(txApp core.App, _ *Schedule, record *core.Record) error {
		record.Set("status", StatusQueued)
		record.Set("attempt", c.attempt-1)
		record.Set("retryAt", dateTime(r.o.Now()))
		return r.save(txApp, record)
	})
}

// postpone leaves a run to another attempt.
func (r *Runner) postpone(c *call, why string, after time.Duration) error {
	return r.change(c, func(txApp core.App, s *Schedule, record *core.Record) error {
		record.Set("status", StatusQueued)
		record.Set("error", short(why, 2000))
		record.Set("retryAt", dateTime(r.o.Now().Add(after)))
		s.Set("lastError", short(why, 1900)+" It is tried again.")
		return errors.Join(r.save(txApp, record), r.save(txApp, s.ProxyRecord()))
	})
}

// finish stores the end of a run.
func (r *Runner) finish(c *call, output string, failure error) error {
	return r.change(c, func(txApp core.App, s *Schedule, record *core.Record) error {
		if failure == nil {
			return r.end(txApp, s, record, StatusOK, output, "")
		}
		why := failure.Error()
		if err := r.end(txApp, s, record, StatusFailed, output, why); err != nil {
			return err
		}
		if errors.Is(failure, errCalledOff) {
			return nil // by somebody who knows
		}
		return r.alert(txApp, s, why)
	})
}

func (r *Runner) end(txApp core.App, s *Schedule, record *core.Record, status, output, why string) error {
	record.Set("status", status)
	record.Set("output", short(output, 10000))
	record.Set("error", short(why, 2000))
	record.Set("finishedAt", dateTime(r.o.Now()))
	record.Set("retryAt", nil)
	s.Set("lastStatus", status)
	s.Set("lastError", short(why, 2000))
	if err := errors.Join(r.save(txApp, record), r.save(txApp, s.ProxyRecord())); err != nil {
		return err
	}
	if status == StatusOK {
		if err := r.recovered(txApp, s); err != nil {
			return err
		}
	}
	return r.prune(txApp, s.Id)
}

// alert tells about a schedule that fails, once until a run of it ends well.
func (r *Runner) alert(txApp core.App, s *Schedule, why string) error {
	r.o.Log.Error(logFailed, "schedule", s.Name(), "id", s.Id, "host", r.o.Host, "error", why)
	news, err := addNotice(txApp, noticeOf(s.Id), r.o.Now())
	if err != nil || !news {
		return err
	}
	return r.tell(txApp, fmt.Sprintf("The schedule %q failed", s.Name()), fmt.Sprintf("The schedule %q (%s) failed on %s:\n\n%s\n\nYou are told again when a run of it ends well; further failures are in the dashboard, in schedules and schedule_runs.",
		s.Name(), s.GetString("description"), r.o.Host, why))
}

func (r *Runner) recovered(txApp core.App, s *Schedule) error {
	over, err := dropNotice(txApp, noticeOf(s.Id))
	if err != nil || !over {
		return err
	}
	r.o.Log.Info(logRecovered, "schedule", s.Name(), "id", s.Id, "host", r.o.Host)
	return r.tell(txApp, fmt.Sprintf("The schedule %q works again", s.Name()), fmt.Sprintf("A run of the schedule %q (%s) has ended well on %s.", s.Name(), s.GetString("description"), r.o.Host))
}

// short cuts a text to at most so many characters.
func short(text string, most int) string {
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "�")
	all := []rune(text)
	if len(all) <= most {
		return text
	}
	return string(all[:most-1]) + "…"
}

func duration(d time.Duration) string {
	if d >= time.Hour {
		return countOf(int(d/time.Hour), "hour")
	}
	return countOf(int(d/time.Minute), "minute")
}

func runsTable(app core.App) string {
	c, err := app.FindCachedCollectionByNameOrId(CollectionRuns)
	if err != nil {
		return "schedule_runs" // the query on it fails and says so
	}
	return c.Name
}

func dbxID(id string) dbx.Expression   { return dbx.HashExp{"id": id} }
func dbxKey(key string) dbx.Expression { return dbx.HashExp{"key": key} }
