package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// The rules stay empty: superusers only.
		c := newCollection("gw_schedules", "schedules")
		addFields(c,
			requiredText("name", 200, "What you call it, such as Weekly recommendations."),
			boolField("enabled", "Whether it is switched on; a new one is off until you switch it on."),
			text("description", 500, "When it runs, in plain words; set by itself."),
			requiredText("cron", 200, "When it runs: minute, hour, day of the month, month, day of the week. 0 9 * * sat is every Saturday at 09:00; */5 is every fifth, 1-5 from 1 to 5. Or @daily, @hourly."),
			text("timezone", 64, "Whose clock that is, such as Europe/Paris; empty becomes the server's DEFAULT_TIMEZONE."),
			requiredOneOf("action", "What it does: send a notification, call a web address (webhook), delete what is old (purge), make a backup, or run a function of your own (handler).",
				"notification", "webhook", "purge", "backup", "handler"),
			jsonField("payload", 200000, `What the action needs, as JSON, such as {"template": "weekly", "audience": "topic", "topics": ["news"], "channels": ["email"]} for a notification.`),
			text("secret", 2000, "The key that webhooks are signed with. It is encrypted as it is saved and never shown again; leave it empty to keep the one there is."),
			oneOf("run", "Choose now and save to run it once at this moment; empty again once it is taken.", "now"),
			date("nextRunAt", "When it runs next; set by itself."),
			jsonField("nextRuns", 10000, "The next five runs on the clock of its time zone; set by itself."),
			date("lastRunAt", "When it ran last; set by itself."),
			oneOf("lastStatus", "What became of the last run; set by itself.", "running", "ok", "failed", "skipped", "missed"),
			text("lastError", 2000, "Why the last run failed or was skipped, in one sentence; empty after a good one."),
			hiddenBool("owed", "Whether a run that a full disk kept back is still to be made up for; kept by the server."),
		)
		c.AddIndex("idx_gw_schedules_next", false, "`enabled`, `nextRunAt`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create schedules: %w", err)
		}

		// At most some hundred rows for each schedule: these may be relations.
		runs := newCollection("gw_schedule_runs", "schedule_runs")
		runs.System = true
		addFields(runs,
			belongsTo("schedule", "gw_schedules", "The schedule that ran."),
			&core.DateField{Name: "dueAt", Required: true, Help: "When it was to run."},
			oneOf("cause", "Why it ran: it was due, made up for runs that were missed (catch_up), or was asked for (manual).", "due", "catch_up", "manual"),
			requiredOneOf("status", "What became of it.", "queued", "running", "ok", "failed", "skipped", "missed"),
			text("output", 10000, "What it did, or what the other side answered."),
			text("error", 2000, "Why it failed, was skipped or missed, in one sentence."),
			date("startedAt", "When it began."),
			date("finishedAt", "When it ended."),
			count("attempt", "How often it was begun: a webhook is tried again, and so is what a crash cut off."),
			text("host", 255, "The machine it ran on."),
			hiddenDate("retryAt", "When it is to be begun; kept by the server."),
		)
		runs.AddIndex("idx_gw_schedule_runs_due", true, "`schedule`, `dueAt`", "")
		runs.AddIndex("idx_gw_schedule_runs_status", false, "`status`", "")
		if err := txApp.Save(runs); err != nil {
			return fmt.Errorf("create schedule_runs: %w", err)
		}

		// What people were told and is not over yet, so that they are told once. A plain
		// table: nobody reads it through the API. Times are RFC 3339 in UTC.
		if _, err := txApp.DB().NewQuery(`CREATE TABLE {{groundwork_notices}} (
			[[key]] TEXT PRIMARY KEY NOT NULL,
			[[at]]  TEXT NOT NULL
		) WITHOUT ROWID`).Execute(); err != nil {
			return fmt.Errorf("create groundwork_notices: %w", err)
		}
		return nil
	}, func(txApp core.App) error {
		if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{groundwork_notices}}").Execute(); err != nil {
			return fmt.Errorf("drop groundwork_notices: %w", err)
		}
		return deleteCollections(txApp, "gw_schedule_runs", "gw_schedules")
	})
}

func hiddenBool(name, help string) *core.BoolField {
	return &core.BoolField{Name: name, Help: help, Hidden: true}
}

func hiddenDate(name, help string) *core.DateField {
	return &core.DateField{Name: name, Help: help, Hidden: true}
}
