package accounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/jobs"
)

const (
	// compactAtOnce is how large the databases may be, together and in bytes, to be
	// compacted by day: nobody else can write meanwhile, some 10 ms for each MB.
	compactAtOnce = 256 << 20

	// compactEvery is the shortest time between two of them. Anybody can sign up and
	// erase themselves again.
	compactEvery = time.Hour

	// quietHour is when larger databases are compacted, in UTC.
	quietHour = 3
)

// Finish writes the databases anew and ends the erasures that waited for it: SQLite
// leaves what was deleted in the free space of its files until something else takes
// the place. again is how long to wait when it is not the time for it.
func (e *Eraser) Finish(ctx context.Context) (again time.Duration, err error) {
	waiting, err := findErasures(e.App, ErasureCompacting, 0)
	if err != nil || len(waiting) == 0 {
		return 0, err
	}
	size, err := databaseSize(e.App)
	if err != nil {
		return 0, err
	}
	if wait := compactWait(time.Now(), e.Compacted, size); wait > 0 {
		return wait, nil
	}
	if err := Compact(ctx, e.App, size > compactAtOnce); err != nil {
		return 0, err
	}
	e.Compacted = time.Now()
	for _, row := range waiting {
		if err := updateErasure(e.App, row.ID, dbx.Params{"status": ErasureDone, "finishedAt": types.NowDateTime().String()}); err != nil {
			return 0, err
		}
		e.Log.Info("an account was erased", "erasure", row.ID, "origin", row.Origin)
	}
	if waiting, err = findErasures(e.App, ErasureCompacting, 1); err != nil || len(waiting) == 0 {
		return 0, err
	}
	return compactEvery, nil // they came meanwhile
}

// compactWait is how long compacting has to wait.
func compactWait(now, last time.Time, size int64) time.Duration {
	if wait := last.Add(compactEvery).Sub(now); !last.IsZero() && wait > 0 {
		return wait
	}
	if size <= compactAtOnce || now.UTC().Hour() == quietHour {
		return 0
	}
	next := time.Date(now.UTC().Year(), now.UTC().Month(), now.UTC().Day(), quietHour, 0, 0, 0, time.UTC)
	if !next.After(now) {
		next = next.AddDate(0, 0, 1)
	}
	return next.Sub(now)
}

func databaseSize(app core.App) (total int64, err error) {
	for _, name := range []string{"data.db", "auxiliary.db", jobs.FileName} {
		info, err := os.Stat(filepath.Join(app.DataDir(), name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("look at %s: %w", name, err)
		}
		total += info.Size()
	}
	return total, nil
}

// Compact writes all databases anew and empties their write-ahead logs. large
// keeps the copies on disk instead of in memory.
func Compact(ctx context.Context, app core.App, large bool) error {
	for name, db := range map[string]dbx.Builder{"data.db": app.NonconcurrentDB(), "auxiliary.db": app.AuxNonconcurrentDB()} {
		if large {
			// There is one connection to write with: what is set here is set for the next.
			if _, err := db.NewQuery("PRAGMA temp_store = FILE").WithContext(ctx).Execute(); err != nil {
				return fmt.Errorf("compact %s: %w", name, err)
			}
		}
		_, err := db.NewQuery("VACUUM").WithContext(ctx).Execute()
		if large {
			_, back := db.NewQuery("PRAGMA temp_store = MEMORY").Execute()
			err = errors.Join(err, back)
		}
		if err != nil {
			return fmt.Errorf("compact %s: %w", name, err)
		}
		var busy, log, moved int
		if err := db.NewQuery("PRAGMA wal_checkpoint(TRUNCATE)").WithContext(ctx).Row(&busy, &log, &moved); err != nil {
			return fmt.Errorf("empty the log of %s: %w", name, err)
		}
		if busy != 0 {
			return fmt.Errorf("the log of %s is in use and cannot be emptied right now", name)
		}
	}
	return jobs.Compact(ctx, app)
}
