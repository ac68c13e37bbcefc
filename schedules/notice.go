package schedules

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// Notice is something that people are told once, until it is over.
type Notice struct {
	Key           string
	Subject, Text string

	// AtOnce tells them past the queue, which works with the databases: the disk has no
	// room for it.
	AtOnce bool
}

// Raise tells people something, unless they were told before and it is not over yet. Of
// several processes on one data folder one does. news says that it was this one, now. An
// error means that nobody is told, and that it may be tried again.
func (r *Runner) Raise(n Notice) (news bool, err error) {
	if r.marked(n.Key) {
		return false, nil
	}
	// First without a write: it may be that none is possible.
	if known, err := r.isRaised(n.Key); err != nil || known {
		return false, err
	}
	if n.AtOnce {
		if news, err := r.raiseAtOnce(n); err == nil {
			return news, nil
		}
	}
	err = r.app.RunInTransaction(func(txApp core.App) error {
		if news, err = addNotice(txApp, n.Key, r.o.Now()); err != nil || !news {
			return err
		}
		return r.tell(txApp, n.Subject, n.Text)
	})
	if err == nil {
		return news, nil
	}
	news, atOnce := r.raiseAtOnce(n)
	if atOnce != nil {
		return false, errors.Join(err, atOnce)
	}
	return news, nil
}

// raiseAtOnce needs no database that can be written to, and no disk that has room.
func (r *Runner) raiseAtOnce(n Notice) (news bool, err error) {
	if r.o.TellAtOnce == nil {
		return false, errors.New("there is no way past the queue")
	}
	if !r.mark(n.Key) {
		return false, nil // another process has just told it
	}
	ctx, cancel := context.WithTimeout(context.Background(), atOnceLimit)
	defer cancel()
	if err := r.o.TellAtOnce(ctx, n.Subject, n.Text); err != nil {
		r.unmark(n.Key)
		return false, err
	}
	return true, nil
}

// atOnceLimit is how long telling past the queue may take.
const atOnceLimit = 30 * time.Second

// Over tells people that something is over which [Runner.Raise] has told them. False
// means that nobody was told of it, or that another process says so.
func (r *Runner) Over(key, subject, text string) (bool, error) {
	if known, err := r.isRaised(key); err != nil || !known && !r.marked(key) {
		return false, err
	}
	over, marked := false, r.unmark(key)
	err := r.app.RunInTransaction(func(txApp core.App) error {
		dropped, err := dropNotice(txApp, key)
		if over = dropped || marked; err != nil || !over {
			return err
		}
		return r.tell(txApp, subject, text)
	})
	if err != nil {
		if marked {
			r.mark(key)
		}
		return false, err
	}
	return over, nil
}

func (r *Runner) isRaised(key string) (bool, error) {
	var n int
	if err := r.app.ConcurrentDB().Select("COUNT(*)").From("groundwork_notices").Where(dbxKey(key)).Row(&n); err != nil {
		return false, fmt.Errorf("find notice %s: %w", key, err)
	}
	return n > 0, nil
}

// Raised are the keys that begin so of what people were told and is not over.
func (r *Runner) Raised(begin string) (keys []string, err error) {
	err = r.app.ConcurrentDB().Select("key").From("groundwork_notices").Where(dbx.NewExp("substr([[key]], 1, length({:begin})) = {:begin}", dbx.Params{"begin": begin})).
		OrderBy("key").Column(&keys)
	if err != nil {
		return nil, fmt.Errorf("find notices: %w", err)
	}
	r.mu.Lock()
	marked := slices.Collect(maps.Keys(r.marks))
	r.mu.Unlock()
	files, err := os.ReadDir(filepath.Join(r.app.DataDir(), NoticeDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find notices: %w", err)
	}
	for _, file := range files {
		if key, err := url.PathUnescape(file.Name()); err == nil {
			marked = append(marked, key)
		}
	}
	for _, key := range marked {
		if strings.HasPrefix(key, begin) && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// NoticeDir, in the data folder, holds an empty file for each notice that was told past
// the database. A full disk still has room for its name, most often; where it has not,
// the process remembers.
const NoticeDir = ".groundwork/told"

func (r *Runner) markPath(key string) string {
	return filepath.Join(r.app.DataDir(), NoticeDir, url.PathEscape(key))
}

// mark remembers that a notice is told past the database; false means that it was.
func (r *Runner) mark(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marks[key] {
		return false
	}
	err := os.MkdirAll(filepath.Join(r.app.DataDir(), NoticeDir), 0o700)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(r.markPath(key), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			err = f.Close()
		}
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return false
	case err != nil:
		r.marks[key] = true
	}
	return true
}

func (r *Runner) marked(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := os.Stat(r.markPath(key))
	return err == nil || r.marks[key]
}

// unmark forgets it; true for one process that does.
func (r *Runner) unmark(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.marks[key]
	delete(r.marks, key)
	return os.Remove(r.markPath(key)) == nil || was
}
