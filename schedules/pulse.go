package schedules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// PulseDir, in the data folder, holds a file for each run that is being worked. Its
// time is renewed as long as the process lives: whoever shares the folder sees that. It
// is no row, because a backup holds up all writes to the database.
const PulseDir = ".groundwork/runs"

const (
	pulseEvery = 3 * time.Second
	// pulseLost is how old a sign of life may be.
	pulseLost = 15 * time.Second
)

func pulsePath(app core.App, run string) string { return filepath.Join(app.DataDir(), PulseDir, run) }

// alive says for how long a run counts as being worked at least; 0 when nobody works
// on it.
func alive(app core.App, run string) time.Duration {
	info, err := os.Stat(pulsePath(app, run))
	if err != nil {
		return 0
	}
	return max(0, pulseLost-time.Since(info.ModTime()))
}

// beginPulse gives the first sign of life.
func beginPulse(app core.App, run string) error {
	path := pulsePath(app, run)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make folder for runs: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("begin run %s: %w", run, err)
	}
	now := time.Now()
	return errors.Join(f.Close(), os.Chtimes(path, now, now))
}

func endPulse(app core.App, run string) { _ = os.Remove(pulsePath(app, run)) } // it would end by itself

// keepPulse gives signs of life until stop is called, which also removes the file.
// gone is called once when the run was deleted meanwhile.
func keepPulse(app core.App, run string, gone func()) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(pulseEvery)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case now := <-ticker.C:
				_ = os.Chtimes(pulsePath(app, run), now, now) // tried again in a moment
				var n int
				if err := app.ConcurrentDB().Select("COUNT(*)").From(runsTable(app)).Where(dbxID(run)).Row(&n); err == nil && n == 0 {
					gone()
				}
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(quit)
		<-ended
		endPulse(app, run)
	})
}
