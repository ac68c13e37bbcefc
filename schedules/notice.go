package schedules

import (
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// Messages of the log. They are stable: alerts of the operator's own rely on them.
const (
	logFailed     = "schedule failed"
	logRecovered  = "schedule works again"
	logDiskFull   = "disk nearly full"
	logDiskRoom   = "disk has room again"
	logRunTrouble = "schedule's run cannot be stored, it is tried again"
)

func noticeOf(schedule string) string { return "schedule:" + schedule }

// addNotice remembers that people are told of something. False means that they were.
func addNotice(txApp core.App, key string, now time.Time) (bool, error) {
	res, err := txApp.DB().NewQuery("INSERT INTO {{groundwork_notices}} ([[key]], [[at]]) VALUES ({:key}, {:at}) ON CONFLICT DO NOTHING").
		Bind(dbx.Params{"key": key, "at": now.UTC().Format(time.RFC3339)}).Execute()
	if err != nil {
		return false, fmt.Errorf("store notice %s: %w", key, err)
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// dropNotice forgets it, because it is over. False means that there was none.
func dropNotice(txApp core.App, key string) (bool, error) {
	res, err := txApp.DB().Delete("groundwork_notices", dbx.HashExp{"key": key}).Execute()
	if err != nil {
		return false, fmt.Errorf("drop notice %s: %w", key, err)
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func (r *Runner) tell(txApp core.App, subject, text string) error {
	if r.o.Tell == nil {
		return nil
	}
	return r.o.Tell(txApp, subject, text)
}
