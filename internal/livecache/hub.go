package livecache

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// Dir is where the processes that serve one data folder tell each other about
// changes, relative to the data folder, with forward slashes. It belongs to the
// running processes and has no place in a backup.
const Dir = ".groundwork/notify"

// checkEvery is how often writes are looked for that no hook has seen.
const checkEvery = time.Second

// stamp is what a copy was made under. It differs once something has changed.
type stamp struct {
	local uint64 // changes seen in this process
	token uint64 // what the process that changed something last has written
}

// source is one collection that caches are kept of.
type source struct {
	app   core.App
	id    string
	local atomic.Uint64
	file  atomic.Pointer[token] // nil: not open, other processes are then seen by the check only

	openMu sync.Mutex // guards opening and closing of file
	warned bool       // guarded by openMu
}

func (s *source) stamp() stamp {
	now := stamp{local: s.local.Load()}
	if f := s.file.Load(); f != nil {
		now.token = f.read()
	}
	return now
}

func (s *source) path() string {
	return filepath.Join(s.app.DataDir(), filepath.FromSlash(Dir), s.id)
}

// open opens the token file unless it is open. Failing is no error: the check
// finds what others change, a second later.
func (s *source) open() {
	if s.file.Load() != nil {
		return
	}
	s.openMu.Lock()
	defer s.openMu.Unlock()
	if s.file.Load() != nil {
		return
	}
	err := os.MkdirAll(filepath.Dir(s.path()), 0o755)
	if err == nil {
		var f *token
		if f, err = openToken(s.path()); err == nil {
			s.file.Store(f)
			s.warned = false
			return
		}
	}
	s.warn(err)
}

// close forgets the file.
func (s *source) close() {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	if f := s.file.Swap(nil); f != nil {
		f.close()
	}
}

// reopen opens the file again when it was replaced or removed on disk, or could
// not be opened before.
func (s *source) reopen() {
	if f := s.file.Load(); f != nil {
		held, err := f.file.Stat()
		if err == nil {
			if onDisk, err := os.Stat(s.path()); err == nil && os.SameFile(held, onDisk) {
				return
			}
		}
		s.close()
	}
	s.open()
}

// changed marks all copies of the collection as outdated, here and in the other
// processes.
func (s *source) changed() {
	s.open()
	if f := s.file.Load(); f != nil {
		// Never 0, the token of a new file.
		if err := f.write(rand.Uint64() | 1); err != nil && !errors.Is(err, os.ErrClosed) {
			s.openMu.Lock()
			s.warn(err)
			s.openMu.Unlock()
		}
	}
	s.local.Add(1)
}

// warn logs the first of a series of failures. The caller holds openMu.
func (s *source) warn(err error) {
	if s.warned {
		return
	}
	s.warned = true
	s.app.Logger().Warn("Other processes on this data folder learn of changes up to a second late: the notify file cannot be used.",
		slog.String("file", s.path()), slog.String("error", err.Error()))
}

// hub holds the sources of one app and runs the check over them.
type hub struct {
	app        core.App
	checkEvery time.Duration

	mu      sync.RWMutex
	sources map[string]*source

	runMu sync.Mutex
	stop  context.CancelFunc // nil: the check is not running
	done  chan struct{}
}

const storeKey = "groundwork.livecache"

func hubOf(app core.App) *hub {
	return app.Store().GetOrSet(storeKey, func() any {
		return &hub{app: app, checkEvery: checkEvery, sources: map[string]*source{}}
	}).(*hub)
}

func (h *hub) source(id string) *source {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sources[id]
	if s == nil {
		s = &source{app: h.app, id: id}
		h.sources[id] = s
	}
	return s
}

func (h *hub) all() []*source {
	h.mu.RLock()
	defer h.mu.RUnlock()
	list := make([]*source, 0, len(h.sources))
	for _, s := range h.sources {
		list = append(list, s)
	}
	return list
}

// Changed says that a record of the collection was created, updated or deleted,
// or the collection itself was. Call it after the commit and before the answer.
// Collections without a [Cache] are ignored.
func Changed(app core.App, collectionID string) {
	h := hubOf(app)
	h.mu.RLock()
	s := h.sources[collectionID]
	h.mu.RUnlock()
	if s != nil {
		s.changed()
	}
}

// ChangedAll is [Changed] for every collection that has a cache: for writes of
// which nobody knows what they touched.
func ChangedAll(app core.App) {
	for _, s := range hubOf(app).all() {
		s.changed()
	}
}

// Start begins to look for writes that no hook has seen. The database must be
// open. A second call restarts.
func Start(app core.App) {
	Stop(app)
	h := hubOf(app)
	h.runMu.Lock()
	defer h.runMu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	h.stop, h.done = cancel, make(chan struct{})
	go h.run(ctx, h.done)
}

// Stop ends what [Start] began, waits for it, and closes the files. Call it
// before the database is closed. It may be called again, or without a Start.
func Stop(app core.App) {
	h := hubOf(app)
	h.runMu.Lock()
	defer h.runMu.Unlock()
	if h.stop != nil {
		h.stop()
		<-h.done
		h.stop, h.done = nil, nil
	}
	for _, s := range h.all() {
		s.close()
	}
}

// check looks for changes of the database by their traces in it.
type check struct {
	hub  *hub
	conn *sql.Conn // one and the same: data_version is a connection's own count
	seen int64
	// prints of the collections' content. A change counts twice, in two rounds:
	// PocketBase's copy of the collection's definition can be behind the database
	// for some 50 ms, and a cache that is loaded just then would keep its mistake.
	prints map[string]uint64
	again  map[string]bool
	seed   maphash.Seed
}

func (h *hub) newCheck() *check {
	return &check{hub: h, prints: map[string]uint64{}, again: map[string]bool{}, seed: maphash.MakeSeed()}
}

func (h *hub) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	c := h.newCheck()
	defer c.release()

	ticker := time.NewTicker(h.checkEvery)
	defer ticker.Stop()
	for {
		c.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *check) release() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *check) round(ctx context.Context) {
	sources := c.hub.all()
	for _, s := range sources {
		if c.again[s.id] {
			delete(c.again, s.id)
			s.local.Add(1)
		}
		s.reopen()
	}

	if !c.databaseChanged(ctx) {
		return
	}
	for _, s := range sources {
		print, err := c.print(ctx, s.id)
		if ctx.Err() != nil {
			return
		}
		// A content that cannot be read counts as changed: the load will say why.
		if old, known := c.prints[s.id]; err != nil || !known || old != print {
			c.prints[s.id] = print
			c.again[s.id] = true
			s.local.Add(1)
		}
	}
}

// databaseChanged reports whether anybody has committed anything since the last
// call. The first call reports true, and so does one that cannot tell.
func (c *check) databaseChanged(ctx context.Context) bool {
	first := c.conn == nil
	if first {
		db, ok := c.hub.app.ConcurrentDB().(*dbx.DB)
		if !ok {
			return true
		}
		conn, err := db.DB().Conn(ctx)
		if err != nil {
			return true
		}
		c.conn = conn
	}
	var version int64
	if err := c.conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version); err != nil {
		c.release()
		return true
	}
	changed := first || version != c.seen
	c.seen = version
	return changed
}

// print is a hash over the collection's definition and rows; 0 when it does not
// exist.
func (c *check) print(ctx context.Context, id string) (uint64, error) {
	if c.conn == nil {
		return 0, errors.New("the database cannot be reached")
	}
	var h maphash.Hash
	h.SetSeed(c.seed)

	// The name comes from the database: PocketBase's copy may be behind.
	var name string
	err := c.conn.QueryRowContext(ctx, "SELECT name FROM _collections WHERE id = ?", id).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find collection %s: %w", id, err)
	}
	if err := c.hashRows(ctx, &h, "SELECT * FROM _collections WHERE id = ?", id); err != nil {
		return 0, err
	}
	// Quoted here: the app that would do it may be closing its databases just now.
	table := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	if err := c.hashRows(ctx, &h, "SELECT * FROM "+table+" ORDER BY id"); err != nil {
		return 0, err
	}
	return h.Sum64(), nil
}

func (c *check) hashRows(ctx context.Context, h *maphash.Hash, query string, args ...any) error {
	rows, err := c.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("hash rows: %w", err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return fmt.Errorf("hash rows: %w", err)
	}
	values := make([]sql.RawBytes, len(columns))
	targets := make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return fmt.Errorf("hash rows: %w", err)
		}
		for _, v := range values {
			var length [8]byte
			n := uint64(len(v))
			if v == nil {
				n = ^uint64(0) // NULL is not ""
			}
			binary.LittleEndian.PutUint64(length[:], n)
			_, _ = h.Write(length[:])
			_, _ = h.Write(v)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("hash rows: %w", err)
	}
	return nil
}

// collectionExists looks into PocketBase's copy first. What is in the database
// and not (yet) in that copy is an error, so that it is looked for again.
func collectionExists(app core.App, id string) (bool, error) {
	_, err := app.FindCachedCollectionByNameOrId(id)
	if err == nil {
		return true, nil
	}
	_, err = app.FindCollectionByNameOrId(id)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err == nil {
		err = errors.New("it has just been created and is not loaded yet")
	}
	return false, err
}
