package notifications

import (
	"context"
	"errors"
	"sync"
)

// errBusy says that somebody works on the same thing, and will look at it again.
var errBusy = errors.New("somebody is at it already")

// unlessBusy is the result of a job whose work somebody else does.
func unlessBusy(err error) error {
	if errors.Is(err, errBusy) {
		return nil
	}
	return err
}

// runs lets one goroutine at a time work on a key and keeps nobody waiting: a
// worker that waited for another would be missing elsewhere.
type runs struct {
	mu    sync.Mutex
	asked map[string]bool // keys at work; true when somebody asked meanwhile
}

// do calls work. When somebody is at key already, it returns [errBusy] at once and
// that one works once more when it is through, whatever came of it; when its time is
// up by then, its job is not done.
func (r *runs) do(ctx context.Context, key string, work func() error) error {
	if !r.begin(key) {
		return errBusy
	}
	ended := false
	defer func() {
		if !ended { // work panicked
			r.end(key, true)
		}
	}()
	for {
		err := work()
		var owed bool
		if ended, owed = r.end(key, ctx.Err() != nil); !ended {
			continue
		}
		if owed && err == nil {
			return ctx.Err()
		}
		return err
	}
}

func (r *runs) begin(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, busy := r.asked[key]; busy {
		r.asked[key] = true
		return false
	}
	if r.asked == nil {
		r.asked = map[string]bool{}
	}
	r.asked[key] = false
	return true
}

// end gives key up, unless somebody asked for it since it was begun; giveUp does
// so anyhow, and owed says that somebody had asked.
func (r *runs) end(key string, giveUp bool) (ended, owed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	owed = r.asked[key]
	if owed && !giveUp {
		r.asked[key] = false
		return false, false
	}
	delete(r.asked, key)
	return true, owed
}
