package schedules

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
)

// A disk is nearly full when less than a twentieth of it, and less than this, is free.
const enoughRoom = 1 << 30

// nearlyFull is the sentence about a disk with too little room for a run; nil when
// there is enough, or when nobody can tell.
func (r *Runner) nearlyFull() error {
	free, total, err := r.o.Disk(r.app.DataDir())
	if err != nil || free >= min(total/20, enoughRoom) {
		return nil
	}
	return sentence("The disk of %s is nearly full (%s of %s are free), so nothing was run. Free some space: one run makes up for it by itself.", r.o.Host, size(free), size(total))
}

// needsRoom says whether an action waits for room on the disk. A purge makes some.
func needsRoom(action string) bool { return action != ActionPurge }

func size(n uint64) string {
	for _, unit := range []struct {
		name string
		size uint64
	}{{"GB", 1 << 30}, {"MB", 1 << 20}} {
		if n >= unit.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%d kB", n>>10)
}

// watchDisk tells people when the disk gets too full for the next run, and when it has
// room again. It returns what [Runner.nearlyFull] does.
func (r *Runner) watchDisk() error {
	full := r.nearlyFull()
	key := "disk:" + r.o.Host
	if full == nil {
		var n int
		// Most of the time there is nothing to drop, and nothing to write.
		if err := r.app.ConcurrentDB().Select("COUNT(*)").From("groundwork_notices").Where(dbxKey(key)).Row(&n); err != nil || n == 0 {
			return nil
		}
	}
	err := r.app.RunInTransaction(func(txApp core.App) error {
		if full != nil {
			told, err := addNotice(txApp, key, r.o.Now())
			if err != nil || !told {
				return err
			}
			r.o.Log.Error(logDiskFull, "host", r.o.Host, "folder", r.app.DataDir(), "error", full.Error())
			return r.tell(txApp, "Disk nearly full on "+r.o.Host, fmt.Sprintf("The disk of %s with the folder %s is nearly full. Schedules are not run until there is room again; then each of them makes up for what it missed, once.\n\n%s",
				r.o.Host, r.app.DataDir(), full.Error()))
		}
		over, err := dropNotice(txApp, key)
		if err != nil || !over {
			return err
		}
		r.o.Log.Info(logDiskRoom, "host", r.o.Host, "folder", r.app.DataDir())
		return r.tell(txApp, "Disk has room again on "+r.o.Host, fmt.Sprintf("The disk of %s has room again. Schedules that it kept back make up for it now.", r.o.Host))
	})
	if err != nil {
		r.o.Log.Error(logDiskFull, "host", r.o.Host, "folder", r.app.DataDir(), "error", fmt.Sprintf("%v; it cannot be stored: %v", full, err))
	}
	return full
}
