package livecache

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// retryAfter is how long a failed load is not tried again, unless something is
// saved meanwhile.
const retryAfter = time.Second

// Cache is an in-memory copy of one small collection. Make it with [New]; all
// methods may be called from any number of goroutines.
type Cache[T any] struct {
	app    core.App
	source *source
	load   func(app core.App) (T, error)
	retry  time.Duration // retryAfter

	mu      sync.Mutex // one load at a time
	current atomic.Pointer[snapshot[T]]
}

type snapshot[T any] struct {
	stamp   stamp
	value   T
	loaded  bool      // value comes from load, this time or earlier
	err     error     // of the last load
	retryAt time.Time // when err is set
}

// New returns a cache of what load makes of the collection with that id. Call
// it once, before the app is started.
//
// load runs at the first [Cache.Get] and at the first one after each change. It
// reads through the app it is given and must return a value that is never
// changed afterwards. It is not called while the collection does not exist: the
// value is then T's zero value.
func New[T any](app core.App, collectionID string, load func(app core.App) (T, error)) *Cache[T] {
	return &Cache[T]{app: app, source: hubOf(app).source(collectionID), load: load, retry: retryAfter}
}

// Get returns the current copy. It must not be changed.
//
// When a load fails, the copy before it stays in use, the failure is logged, and
// the load is tried again a second later; the error is returned only when there
// is no earlier copy.
//
// Inside a transaction Get sees what was committed before, not the
// transaction's own writes.
func (c *Cache[T]) Get() (T, error) {
	if s := c.current.Load(); s.fresh(c.source.stamp()) {
		return s.answer()
	}
	return c.reload()
}

func (c *Cache[T]) reload() (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	// The stamp is taken before reading: a change during the load leaves the
	// copy outdated by its stamp, and the next Get reads again.
	c.source.open()
	next := &snapshot[T]{stamp: c.source.stamp()}
	previous := c.current.Load()
	if previous.fresh(next.stamp) {
		return previous.answer()
	}

	next.value, next.err = c.read()
	next.loaded = next.err == nil
	if next.err != nil {
		next.retryAt = time.Now().Add(c.retry)
		if previous != nil && previous.loaded {
			next.value, next.loaded = previous.value, true
			c.app.Logger().Warn("A collection could not be read again; its earlier content stays in use.",
				slog.String("collection", c.source.id), slog.String("error", next.err.Error()))
		}
	}
	c.current.Store(next)
	return next.answer()
}

func (c *Cache[T]) read() (T, error) {
	var zero T
	if !c.app.IsBootstrapped() {
		return zero, errors.New("the database is not open")
	}
	exists, err := collectionExists(c.app, c.source.id)
	if err != nil {
		return zero, fmt.Errorf("find collection %s: %w", c.source.id, err)
	}
	if !exists {
		return zero, nil
	}
	return c.load(c.app)
}

func (s *snapshot[T]) fresh(now stamp) bool {
	return s != nil && s.stamp == now && (s.err == nil || time.Now().Before(s.retryAt))
}

func (s *snapshot[T]) answer() (T, error) {
	if s.loaded {
		return s.value, nil
	}
	return s.value, s.err
}
