package pbtest

import (
	"bytes"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pocketbase/dbx"

	"github.com/groundworkhq/groundwork/jobs"
)

// mostLines bounds what a failed test prints of its log and of each table.
const mostLines = 60

// tail keeps the last warnings and errors of a log.
type tail struct {
	mu    sync.Mutex
	lines []string
}

// Write implements [io.Writer]. The logger writes whole lines.
func (t *tail) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if !bytes.Contains(line, []byte(`"level":"ERROR"`)) && !bytes.Contains(line, []byte(`"level":"WARN"`)) {
			continue
		}
		t.mu.Lock()
		if t.lines = append(t.lines, strings.TrimSpace(string(line))); len(t.lines) > mostLines {
			t.lines = t.lines[1:]
		}
		t.mu.Unlock()
	}
	return len(p), nil
}

// state tells what the app was doing: what had not been done yet, and what went
// wrong before. It is what somebody asks first about a test that waited in vain.
func (a *App) state(log *tail) string {
	var b strings.Builder
	log.mu.Lock()
	fmt.Fprintf(&b, "last warnings: %d\n%s\n", len(log.lines), strings.Join(log.lines, "\n"))
	log.mu.Unlock()

	table := func(name string, db *sql.DB, query string) {
		fmt.Fprintf(&b, "%s:\n", name)
		rows, err := db.Query(query)
		if err != nil {
			fmt.Fprintln(&b, "  ", err)
			return
		}
		defer rows.Close()
		columns, err := rows.Columns()
		for n := 0; err == nil && rows.Next() && n < mostLines; n++ {
			values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			if err = rows.Scan(into...); err == nil {
				for i, column := range columns {
					fmt.Fprintf(&b, "  %s=%s", column, values[i].String)
				}
				fmt.Fprintln(&b)
			}
		}
		if err == nil {
			err = rows.Err()
		}
		if err != nil {
			fmt.Fprintln(&b, "  ", err)
		}
	}
	if data, ok := a.ConcurrentDB().(*dbx.DB); ok {
		own := data.DB()
		table("outbox", own, "SELECT kind, args, queue, runAt, createdAt FROM groundwork_outbox")
		table("notifications", own, "SELECT id, status, statusReason, plan, updated FROM notifications ORDER BY created")
		table("deliveries", own, "SELECT id, notification, channel, status, reason, attempts, nextAttemptAt FROM notification_deliveries WHERE status NOT IN ('sent', 'delivered') ORDER BY created")
		table("now", own, "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now') AS now")
	}
	queue, err := sql.Open("sqlite", "file:"+filepath.Join(a.DataDir(), jobs.FileName)+"?mode=ro&_pragma=busy_timeout(1000)")
	if err != nil {
		fmt.Fprintln(&b, err)
		return b.String()
	}
	defer func() { _ = queue.Close() }() // it was only read
	table("jobs that are not done", queue, "SELECT kind, json(args) AS args, queue, state, attempt, scheduled_at, attempted_at, json(errors) AS errors FROM river_job WHERE state <> 'completed' ORDER BY id")
	return b.String()
}
