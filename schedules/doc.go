// Package schedules runs what is due by the clock: the rows of the schedules
// collection, each with a cron line, a time zone and something to do.
//
// It owns the meaning of a cron line and its explanation in plain words, the runs
// (claimed once whatever the number of processes, never two of one schedule at a
// time, made up for once after a time without a server), and the five actions:
// notification, webhook, purge, backup, handler. Package hooks binds it to
// PocketBase and calls [Runner.Tick] every minute; the work itself is a job.
//
// The clock of a run is the database: whoever inserts the row of (schedule, due
// time) has the run, in the transaction that enqueues its job.
package schedules
