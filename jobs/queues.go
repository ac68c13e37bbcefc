package jobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// PauseQueue stops that jobs of a queue are begun, in all processes; what runs goes
// on. It is remembered until [ResumeQueue].
func PauseQueue(ctx context.Context, app core.App, queue string) error {
	return withQueue(ctx, app, queue, engine.pauseQueue)
}

// ResumeQueue ends [PauseQueue].
func ResumeQueue(ctx context.Context, app core.App, queue string) error {
	return withQueue(ctx, app, queue, engine.resumeQueue)
}

func withQueue(ctx context.Context, app core.App, queue string, do func(engine, context.Context, string) error) error {
	known := false
	err := withPlace(ctx, app, func(p place) error {
		known = true
		return do(p.engine, ctx, queueNamed(p, queue))
	})
	if err == nil && !known {
		err = ErrNotFound // no job was ever taken
	}
	return err
}

// QueueStats is what is known of a queue.
type QueueStats struct {
	Queue  string // as in [Info]
	Paused bool

	// States are how many jobs there are of each state; those with none are absent.
	States map[string]int

	// LastMinute and LastHour are how many ended then, however that was.
	LastMinute, LastHour int

	// OldestDue is when the oldest job that is due and not begun was to start; zero
	// when none is.
	OldestDue time.Time
}

// Stats returns every queue that has jobs of app, that processes of app work, or that
// is paused, by name.
func Stats(ctx context.Context, app core.App) ([]QueueStats, error) {
	queues := map[string]*QueueStats{}
	of := func(p place, name string) *QueueStats {
		if p.origin != "" {
			name = strings.TrimSuffix(name, "_"+p.origin)
		}
		if queues[name] == nil {
			queues[name] = &QueueStats{Queue: name, States: map[string]int{}}
		}
		return queues[name]
	}
	err := withPlace(ctx, app, func(p place) error {
		ended := func(d time.Duration) string {
			return "COALESCE(SUM(CASE WHEN finalized_at >= " + p.ago(d) + " THEN 1 ELSE 0 END), 0)"
		}
		found, err := p.query(ctx, "SELECT queue, CAST(state AS TEXT), COUNT(*), "+ended(time.Minute)+", "+ended(time.Hour)+", MIN(CASE WHEN state = 'available' THEN scheduled_at END)"+
			" FROM river_job WHERE "+mine(p.origin)+" GROUP BY queue, state")
		if err != nil {
			return fmt.Errorf("count jobs: %w", err)
		}
		defer found.Close()
		for found.Next() {
			var name, state string
			var n, minute, hour int
			var oldest moment
			if err := found.Scan(&name, &state, &n, &minute, &hour, &oldest); err != nil {
				return fmt.Errorf("count jobs: %w", err)
			}
			q := of(p, name)
			q.States[state] = n
			q.LastMinute += minute
			q.LastHour += hour
			if !oldest.IsZero() {
				q.OldestDue = oldest.Time
			}
		}
		if err := found.Err(); err != nil {
			return fmt.Errorf("count jobs: %w", err)
		}
		found.Close()
		return readQueues(ctx, p, of)
	})
	if err != nil {
		return nil, err
	}
	all := make([]QueueStats, 0, len(queues))
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		all = append(all, *queues[name])
	}
	return all, nil
}

// readQueues reads which queues there are and which are paused. Those of other
// installations are none of ours; shared ones are when there is something in them.
func readQueues(ctx context.Context, p place, of func(place, string) *QueueStats) error {
	which, args := "TRUE", []any{}
	if p.origin != "" {
		which, args = "name LIKE $1 OR name LIKE '%_at_%' AND paused_at IS NOT NULL", []any{"%_" + p.origin}
	}
	found, err := p.query(ctx, "SELECT name, paused_at IS NOT NULL FROM river_queue WHERE "+which, args...)
	if err != nil {
		return fmt.Errorf("read queues: %w", err)
	}
	defer found.Close()
	for found.Next() {
		var name string
		var paused bool
		if err := found.Scan(&name, &paused); err != nil {
			return fmt.Errorf("read queues: %w", err)
		}
		of(p, name).Paused = paused
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("read queues: %w", err)
	}
	return nil
}
