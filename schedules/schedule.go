package schedules

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/notifications"
)

// Ids of our collections.
const (
	Collection     = "gw_schedules"
	CollectionRuns = "gw_schedule_runs"
)

// What a schedule does.
const (
	ActionNotification = "notification"
	ActionWebhook      = "webhook"
	ActionPurge        = "purge"
	ActionBackup       = "backup"
	ActionHandler      = "handler"
)

// Status of a run. A schedule's lastStatus is one of these too.
const (
	StatusQueued  = "queued" // waits for a worker, or for another attempt
	StatusRunning = "running"
	StatusOK      = "ok"
	StatusFailed  = "failed"
	StatusSkipped = "skipped" // the one before it was still running
	StatusMissed  = "missed"  // no server was running
)

// Why a run came about.
const (
	CauseDue     = "due"
	CauseCatchUp = "catch_up"
	CauseManual  = "manual"
)

// ServerOwned are the fields of a schedule that nobody but the server writes.
var ServerOwned = []string{"description", "nextRunAt", "nextRuns", "lastRunAt", "lastStatus", "lastError", "owed"}

// shownRuns is how many of the next runs are shown.
const shownRuns = 5

// Schedule is a record of the schedules collection.
type Schedule struct {
	core.BaseRecordProxy
}

// AsSchedule wraps a record of the schedules collection.
func AsSchedule(record *core.Record) *Schedule {
	s := &Schedule{}
	s.SetProxyRecord(record)
	return s
}

func (s *Schedule) Name() string         { return s.GetString("name") }
func (s *Schedule) Enabled() bool        { return s.GetBool("enabled") }
func (s *Schedule) Action() string       { return s.GetString("action") }
func (s *Schedule) NextRunAt() time.Time { return s.GetDateTime("nextRunAt").Time() }
func (s *Schedule) Owed() bool           { return s.GetBool("owed") }

// Cron is the line as it was read; an error means that it cannot be.
func (s *Schedule) Cron() (*Cron, error) { return ParseCron(s.GetString("cron")) }

// Zone is whose clock it goes by.
func (s *Schedule) Zone(app core.App) *time.Location {
	if zone := notifications.LoadZone(s.GetString("timezone")); zone != nil {
		return zone
	}
	return notifications.DefaultZone(app)
}

// UpcomingRun is one of the next runs, for people and programs.
type UpcomingRun struct {
	At    types.DateTime `json:"at"`
	Local string         `json:"local"` // on the clock of the schedule's zone
}

// Upcoming lists the next runs of a cron line.
func Upcoming(c *Cron, now time.Time, zone *time.Location) []UpcomingRun {
	runs := []UpcomingRun{}
	for _, at := range c.Upcoming(now, zone, shownRuns) {
		runs = append(runs, UpcomingRun{At: dateTime(at), Local: When(at, zone)})
	}
	return runs
}

// Show brings the next runs of a schedule that is about to be shown up to date.
func (s *Schedule) Show(app core.App, now time.Time) {
	c, err := s.Cron()
	if err != nil || !s.Enabled() {
		s.SetRaw("nextRuns", types.JSONRaw("[]"))
		return
	}
	s.Set("nextRuns", Upcoming(c, now, s.Zone(app)))
}

// plan sets what follows from cron and timezone.
func (s *Schedule) plan(app core.App, c *Cron, now time.Time) {
	zone := s.Zone(app)
	s.Set("timezone", zone.String())
	s.Set("description", c.Words(zone))
	if !s.Enabled() {
		s.Set("nextRunAt", nil)
		s.Set("owed", false)
		s.Show(app, now)
		return
	}
	s.Set("nextRunAt", dateTime(c.Next(now, zone)))
	s.Show(app, now)
}

func dateTime(t time.Time) types.DateTime {
	if t.IsZero() {
		return types.DateTime{}
	}
	d, _ := types.ParseDateTime(t.UTC()) // of a time it always is one
	return d
}

// Sentence is an error that ends up before a person as it is.
type Sentence string

// Error is the sentence.
func (s Sentence) Error() string { return string(s) }

func sentence(format string, args ...any) error { return Sentence(fmt.Sprintf(format, args...)) }

func refusal(field, code, sentence string) validation.Errors {
	return validation.Errors{field: validation.NewError(code, sentence)}
}

// CheckTimezone refuses a name that is no time zone; empty is the server's default.
func CheckTimezone(name string) error {
	if name == "" || notifications.LoadZone(name) != nil {
		return nil
	}
	if meant := zoneMeant(name); meant != "" {
		return sentence("There is no time zone %q. Write it as %s.", name, meant)
	}
	return sentence("There is no time zone %q. Write it like Europe/Paris or America/New_York, or UTC.", name)
}

// zoneMeant is the zone that a name written in other letters means, such as
// "europe/paris" or "America/new york"; empty when there is none.
func zoneMeant(name string) string {
	name = strings.ReplaceAll(strings.TrimSpace(name), " ", "_")
	words := []byte(strings.ToLower(name))
	for i := range words {
		if i == 0 || strings.IndexByte("/_-", words[i-1]) >= 0 {
			words[i] = byte(unicode.ToUpper(rune(words[i])))
		}
	}
	for _, meant := range []string{name, string(words), strings.ToUpper(name)} {
		if notifications.LoadZone(meant) != nil {
			return meant
		}
	}
	return ""
}

// sealedPrefix marks a stored secret, as with providers.
const sealedPrefix = "sealed:"

func secretPurpose(id string) string { return "schedule:" + id }

// takeSecret leaves in the record what is to be stored: the sealed secret. Empty
// keeps the one there is.
func takeSecret(box notifications.SecretBox, s *Schedule, stored string) error {
	given := s.GetString("secret")
	switch {
	case given == "" || given == stored:
		s.Set("secret", stored)
		return nil
	case strings.HasPrefix(given, sealedPrefix):
		// A record that Go code read and saves again as a new one: opened, or refused.
		if _, err := openSecret(box, s.Id, given); err == nil {
			return nil
		}
	}
	if len(given) < minSecret {
		return refusal("secret", "too_short", fmt.Sprintf("A secret of fewer than %d characters can be guessed: a password manager makes a longer one, or openssl rand -hex 32.", minSecret))
	}
	sealed, err := box.Seal(secretPurpose(s.Id), []byte(given))
	if err != nil {
		return fmt.Errorf("seal secret of schedule %s: %w", s.Id, err)
	}
	s.Set("secret", sealedPrefix+base64.RawStdEncoding.EncodeToString(sealed))
	return nil
}

// minSecret is the shortest secret, in bytes.
const minSecret = 16

const errSecretClosed = Sentence("The secret cannot be opened: it was encrypted with another GROUNDWORK_KEY. Start with the former GROUNDWORK_KEY, or enter the secret again.")

func openSecret(box notifications.SecretBox, id, stored string) (string, error) {
	encoded, ok := strings.CutPrefix(stored, sealedPrefix)
	sealed, err := base64.RawStdEncoding.DecodeString(encoded)
	if !ok || err != nil {
		return "", errSecretClosed
	}
	plain, err := box.Open(secretPurpose(id), sealed)
	if err != nil {
		return "", errSecretClosed
	}
	return string(plain), nil
}
