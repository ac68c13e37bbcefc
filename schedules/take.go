package schedules

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// action is one thing that schedules do.
type action interface {
	// keys are those that its payload may have.
	keys() []Key

	// check refuses a payload that could not be run; the error for people is a
	// [Sentence].
	check(app core.App, s *Schedule, c checking) error

	run(ctx context.Context, c *call) (output string, err error)
}

// checking is what a check may want to know.
type checking struct {
	runner *Runner
	now    time.Time
	next   time.Time // the next run
}

func actionOf(name string) action {
	switch name {
	case ActionNotification:
		return notifyAction{}
	case ActionWebhook:
		return webhookAction{}
	case ActionPurge:
		return purgeAction{}
	case ActionBackup:
		return backupAction{}
	case ActionHandler:
		return handlerAction{}
	default:
		return nil
	}
}

// Keys are those that the payload of an action may have.
func Keys(action string) []Key {
	if a := actionOf(action); a != nil {
		return a.keys()
	}
	return []Key{}
}

// check refuses what could not be run. The error is [validation.Errors] when whoever
// saves can mend it.
func (r *Runner) check(app core.App, s *Schedule) (*Cron, error) {
	errs := validation.Errors{}
	if err := CheckTimezone(s.GetString("timezone")); err != nil {
		errs["timezone"] = validation.NewError("timezone", err.Error())
	}
	c, err := s.Cron()
	if err != nil {
		errs["cron"] = validation.NewError("cron", err.Error())
	}
	a := actionOf(s.Action())
	if a == nil {
		errs["action"] = validation.NewError("required", "Choose what it does.")
	}
	if len(errs) > 0 {
		return nil, errs
	}
	now := r.o.Now()
	err = a.check(app, s, checking{r, now, c.Next(now, s.Zone(app))})
	var told Sentence
	switch {
	case errors.As(err, &told):
		errs["payload"] = validation.NewError("payload", told.Error())
	case err != nil:
		return nil, err
	}
	if s.Action() == ActionWebhook && s.GetString("secret") == "" {
		errs["secret"] = validation.NewError("required", "Enter a secret of 16 characters or more: whoever gets the call checks with it that the call is yours. A password manager makes one, or openssl rand -hex 32.")
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return c, nil
}

// Take makes a save of a schedule by anybody but the server fit to be stored, in its
// transaction: refuses what is wrong, seals the secret, plans the next run, takes what
// is asked for in run. after is to be called when the row has been written.
func (r *Runner) Take(txApp core.App, record *core.Record) (after func() error, err error) {
	s := AsSchedule(record)
	var old *core.Record
	if id, _ := record.LastSavedPK().(string); !record.IsNew() {
		if old, err = txApp.FindRecordById(Collection, id); err != nil {
			return nil, fmt.Errorf("read schedule %s before saving: %w", id, err)
		}
	}
	changed := func(fields ...string) bool {
		for _, f := range fields {
			if old == nil || old.GetString(f) != record.GetString(f) {
				return true
			}
		}
		return false
	}
	stored := ""
	if old != nil {
		stored = old.GetString("secret")
	}
	if err := takeSecret(r.o.Box, s, stored); err != nil {
		return nil, err
	}
	asked := record.GetString("run") != ""
	record.Set("run", "")

	// Switching off must be possible whatever became of a template meanwhile, and so
	// must another name for what is off.
	if s.Enabled() || asked || changed("action", "payload", "cron", "timezone") {
		c, err := r.check(txApp, s)
		if err != nil {
			return nil, err
		}
		if changed("cron", "timezone", "enabled") || s.Enabled() && s.NextRunAt().IsZero() {
			s.plan(txApp, c, r.o.Now())
		}
	} else {
		s.Set("nextRunAt", nil)
		s.Set("owed", false)
		s.Show(txApp, r.o.Now())
	}
	if !asked {
		return func() error { return nil }, nil
	}
	before, err := unfinished(txApp, s.Id)
	if err != nil {
		return nil, err
	}
	if before != nil {
		return nil, refusal("run", "running", fmt.Sprintf("The run of %s is not done yet, and two never run at a time: wait until it is.", When(before.due(), s.Zone(txApp))))
	}
	return func() error {
		return r.insert(txApp, &newRun{schedule: s, due: r.o.Now(), cause: CauseManual})
	}, nil
}

// Explained is a cron line in plain words.
type Explained struct {
	Description string        `json:"description"`
	NextRuns    []UpcomingRun `json:"nextRuns"`
	Timezone    string        `json:"timezone"`
	Keys        []Key         `json:"keys"`    // of the payload, for the action that was named
	Example     string        `json:"example"` // a payload to begin with
}

// examples are payloads to begin with.
var examples = map[string]string{
	ActionNotification: `{"title": "News of the week", "body": "Look what is new.", "channels": ["inbox", "email"], "audience": "filter", "filter": "verified = true"}`,
	ActionWebhook:      `{"url": "https://example.com/hook", "body": {"from": "our schedule"}}`,
	ActionPurge:        `{"what": ["notifications", "devices"], "olderThanDays": 90}`,
	ActionBackup:       `{"name": "nightly", "keep": 7}`,
	ActionHandler:      `{"handler": "cleanUp", "args": {"days": 30}}`,
}

// Explain says in plain words when a line runs. Without a line it says what there is to
// say about the action. The error is [validation.Errors].
func (r *Runner) Explain(cron, timezone, action string) (*Explained, error) {
	explained := &Explained{NextRuns: []UpcomingRun{}, Keys: Keys(action), Example: examples[action]}
	if strings.TrimSpace(cron) == "" && action != "" {
		return explained, nil
	}
	errs := validation.Errors{}
	if err := CheckTimezone(timezone); err != nil {
		errs["timezone"] = validation.NewError("timezone", err.Error())
	}
	c, err := ParseCron(cron)
	if err != nil {
		errs["cron"] = validation.NewError("cron", err.Error())
	}
	if len(errs) > 0 {
		return nil, errs
	}
	zone := notifications.LoadZone(timezone)
	if zone == nil {
		zone = notifications.DefaultZone(r.app)
	}
	explained.Description, explained.NextRuns, explained.Timezone = c.Words(zone), Upcoming(c, r.o.Now(), zone), zone.String()
	return explained, nil
}

// Forget drops what is known of a schedule that is deleted, in its transaction.
func Forget(txApp core.App, id string) error {
	_, err := dropNotice(txApp, noticeOf(id))
	return err
}
