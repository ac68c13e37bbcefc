package hooks

import (
	"fmt"
	"log/slog"
	"os"
	"time"
)

const (
	// diskEvery is how often the free space is looked at.
	diskEvery = 10 * time.Second

	// leastFree is when a disk counts as full, enoughFree when it does not any more.
	leastFree  = 50 << 20
	enoughFree = 100 << 20
)

// newDiskWatch tells, with each look, when the disks of a worker's host run full. It
// goes on sending, for which it needs none; but its log may be lost, and whatever else
// is on that machine.
func newDiskWatch(log *slog.Logger, host string, tell func(trouble string)) *diskWatch {
	return &diskWatch{log: log, host: host, tell: tell, free: freeBytes}
}

type diskWatch struct {
	log  *slog.Logger
	host string
	tell func(trouble string)
	free func(dir string) (int64, error)
	full string // the folder on the disk that is; empty: none
}

func (w *diskWatch) look() {
	if w.full != "" {
		free, err := w.free(w.full)
		if err != nil || free < enoughFree {
			return
		}
		w.log.Info("the disk has room again", "folder", w.full, "freeMB", free>>20)
		w.full = ""
		w.tell("")
	}
	work, err := os.Getwd()
	if err != nil {
		work = "."
	}
	for _, dir := range []string{work, os.TempDir()} {
		free, err := w.free(dir)
		if err != nil || free >= leastFree {
			continue // where it cannot be known nothing is said
		}
		w.full = dir
		w.log.Error("the disk is nearly full", "folder", dir, "freeMB", free>>20)
		w.tell(fmt.Sprintf("The disk of %s is nearly full: %d MB are left for %s.", w.host, free>>20, dir))
		return
	}
}
