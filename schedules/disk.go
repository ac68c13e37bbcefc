package schedules

import (
	"context"
	"fmt"
)

// A disk is nearly full when less than a twentieth of it, and less than this, is free.
const enoughRoom = 1 << 30

// roomToWrite is how much must be free for the databases to take what is stored in
// them, and so for a mail to go by the queue.
const roomToWrite = 8 << 20

// nearlyFull is the sentence about a disk with too little room for a run; nil when
// there is enough, or when nobody can tell.
func (r *Runner) nearlyFull() error {
	_, full := r.lookAtDisk()
	return full
}

func (r *Runner) lookAtDisk() (free uint64, full error) {
	free, total, err := r.o.Disk(r.app.DataDir())
	if err != nil || free >= min(total/20, enoughRoom) {
		return free, nil
	}
	return free, sentence("The disk of %s is nearly full (%s of %s are free), so nothing was run. Free some space: one run makes up for it by itself.", r.o.Host, size(free), size(total))
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

// Look tells people when the disk gets too full for the next run, and when it has room
// again; then it also makes up for what was not run. Call it every few seconds in every
// process, so that people know before the next run is due.
func (r *Runner) Look(ctx context.Context) error {
	if !r.hasTables() {
		return nil
	}
	if _, room := r.watchDisk(); room {
		return r.Tick(ctx)
	}
	return nil
}

// watchDisk returns what [Runner.nearlyFull] does, and whether it has just told that the
// disk has room again.
func (r *Runner) watchDisk() (full error, room bool) {
	free, full := r.lookAtDisk()
	dir, key := r.app.DataDir(), "disk:"+r.o.Host
	if full == nil {
		room, err := r.Over(key, "Disk has room again on "+r.o.Host, fmt.Sprintf("The disk of %s has room again. Schedules that it kept back make up for it now.", r.o.Host))
		switch {
		case err != nil:
			r.o.Log.Error(logDiskRoom, "host", r.o.Host, "folder", dir, "error", fmt.Sprintf("it cannot be stored: %v", err))
		case room:
			r.o.Log.Info(logDiskRoom, "host", r.o.Host, "folder", dir)
		}
		return nil, room
	}
	news, err := r.Raise(Notice{Key: key, Subject: "Disk nearly full on " + r.o.Host, AtOnce: free < roomToWrite,
		Text: fmt.Sprintf("The disk of %s with the folder %s is nearly full. Schedules are not run until there is room again; then each of them makes up for what it missed, once.\n\n%s", r.o.Host, dir, full.Error())})
	switch {
	case err != nil:
		r.o.Log.Error(logDiskFull, "host", r.o.Host, "folder", dir, "error", fmt.Sprintf("%v; nobody can be told, it is tried again: %v", full, err))
	case news:
		r.o.Log.Error(logDiskFull, "host", r.o.Host, "folder", dir, "error", full.Error())
	}
	return full, false
}
