package ratelimit

import "time"

// Window is how many may come in how long. Both are at least 1 of their unit.
type Window struct {
	Limit  int
	Length time.Duration
}

const (
	// exactLimit is the largest limit whose arrivals are remembered one by one.
	exactLimit = 64
	// steps is how many parts the window of a larger limit has.
	steps = 64
)

// stamp is the time under which an arrival at now is remembered: now itself, or
// the end of its step. Times are in any unit, as long as it is always the same.
func stamp(limit int, length, now int64) int64 {
	step := length / steps
	if limit <= exactLimit || step < 2 {
		return now
	}
	return (now/step + 1) * step
}

// run is n arrivals remembered under one time.
type run struct {
	at int64
	n  int32
}

// arrivals is the log of one key: what came within the window, oldest first.
// The zero value is empty. It is not safe for concurrent use.
type arrivals struct {
	runs  []run
	total int
}

// prune forgets what has left the window that ends at now. The window is closed
// on both sides: an arrival exactly one length ago is still in it.
func (a *arrivals) prune(now, length int64) {
	gone := 0
	for gone < len(a.runs) && a.runs[gone].at < now-length {
		a.total -= int(a.runs[gone].n)
		gone++
	}
	if gone > 0 {
		a.runs = a.runs[:copy(a.runs, a.runs[gone:])]
	}
}

// add remembers one more. A clock that went back, or a window that was edited,
// does not disturb the order: the arrival then counts as late as the last one.
func (a *arrivals) add(at int64) int64 {
	last := len(a.runs) - 1
	if last >= 0 && a.runs[last].at >= at {
		a.runs[last].n++
		a.total++
		return a.runs[last].at
	}
	if a.runs == nil {
		a.runs = make([]run, 0, 1)
	}
	a.runs = append(a.runs, run{at: at, n: 1})
	a.total++
	return at
}

// remove forgets one arrival that was remembered under at, and says whether there
// was one.
func (a *arrivals) remove(at int64) bool {
	for i := len(a.runs) - 1; i >= 0; i-- {
		if a.runs[i].at != at {
			continue
		}
		a.total--
		if a.runs[i].n--; a.runs[i].n == 0 {
			a.runs = append(a.runs[:i], a.runs[i+1:]...)
		}
		return true
	}
	return false
}

// grows is how long it takes until one of those in the window leaves it.
func (a *arrivals) grows(now, length int64) int64 {
	if len(a.runs) == 0 {
		return 0
	}
	return max(a.runs[0].at+length-now+1, 1)
}

// Taken is the answer to a take.
type Taken struct {
	OK        bool
	Remaining int           // further ones that would pass now
	Grows     time.Duration // until one more passes than now; when refused: until the next one does

	at int64 // under which it is remembered, in the counter's own unit
}
