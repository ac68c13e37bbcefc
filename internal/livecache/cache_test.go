package livecache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	_ "github.com/pocketbase/pocketbase/migrations" // PocketBase's own tables
)

const things = "things_by_id_0"

// patience is how long a test waits for what comes in a moment on a machine that is
// not busy.
const patience = 2 * time.Minute

// open starts a plain app over dir. A second one over the same folder stands for
// a second process: they share nothing but the files.
func open(t *testing.T, dir string) core.App {
	t.Helper()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	// PocketBase's own watcher reloads the definitions 50 ms after a change, and
	// panics when the app has ended by then. The tests do that reload themselves.
	app.OnBootstrap().Unbind("__pbNotifyWatcherSystemHook__")
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() {
		Stop(app)
		_ = app.ClearBootstrap()
	})
	return app
}

// create makes the collection, with one row that holds 0.
func create(t *testing.T, app core.App) *core.Record {
	t.Helper()
	collection := core.NewBaseCollection("things", things)
	collection.Fields.Add(&core.NumberField{Name: "n"})
	require.NoError(t, app.Save(collection))
	record := core.NewRecord(collection)
	require.NoError(t, app.Save(record))
	return record
}

// save stores n and says so, as the hooks do.
func save(t *testing.T, app core.App, record *core.Record, n int) {
	t.Helper()
	record.Set("n", n)
	require.NoError(t, app.Save(record))
	Changed(app, things)
}

type counted struct {
	*Cache[int]
	loads atomic.Int64
}

func newCounted(app core.App) *counted {
	c := &counted{}
	c.Cache = New(app, things, func(app core.App) (int, error) {
		c.loads.Add(1)
		return readN(app)
	})
	return c
}

func readN(app core.App) (int, error) {
	collection, err := app.FindCachedCollectionByNameOrId(things)
	if err != nil {
		return 0, err
	}
	records, err := app.FindAllRecords(collection)
	if err != nil || len(records) == 0 {
		return -1, err
	}
	return records[0].GetInt("n"), nil
}

func get[T any](t *testing.T, c *Cache[T]) T {
	t.Helper()
	v, err := c.Get()
	require.NoError(t, err)
	return v
}

func TestLoadsOnceAndAfterAChange(t *testing.T) {
	t.Parallel()
	app := open(t, t.TempDir())
	record := create(t, app)
	c := newCounted(app)

	for range 10 {
		require.Equal(t, 0, get(t, c.Cache))
	}
	require.EqualValues(t, 1, c.loads.Load())

	save(t, app, record, 1)
	require.EqualValues(t, 1, c.loads.Load(), "nothing is read before somebody asks")
	for range 10 {
		require.Equal(t, 1, get(t, c.Cache))
	}
	require.EqualValues(t, 2, c.loads.Load())

	Changed(app, "another_one_00")
	require.Equal(t, 1, get(t, c.Cache))
	require.EqualValues(t, 2, c.loads.Load())
	_, err := os.Stat(filepath.Join(app.DataDir(), ".groundwork", "notify", "another_one_00"))
	require.ErrorIs(t, err, os.ErrNotExist, "nobody wants to know about that collection")

	ChangedAll(app)
	require.Equal(t, 1, get(t, c.Cache))
	require.EqualValues(t, 3, c.loads.Load())
}

func TestSeesAnotherProcessAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	here := open(t, dir)
	record := create(t, here)
	there := open(t, dir)
	a, b := newCounted(here), newCounted(there)

	for n := 1; n <= 100; n++ {
		save(t, here, record, n)
		require.Equal(t, n, get(t, b.Cache)) // no waiting: the check is not even running
		require.Equal(t, n, get(t, a.Cache))
	}
	require.EqualValues(t, 100, b.loads.Load())
}

func TestNoReaderIsEverBehindAFinishedSave(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	here := open(t, dir)
	record := create(t, here)
	there := open(t, dir)

	var finished atomic.Int64
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for _, c := range []*counted{newCounted(here), newCounted(here), newCounted(there)} {
		for range 3 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					floor := finished.Load()
					n, err := c.Get()
					if err != nil || int64(n) < floor {
						t.Errorf("read %d (%v) after %d was saved", n, err, floor)
						return
					}
				}
			})
		}
	}
	for n := 1; n <= 300; n++ {
		save(t, here, record, n)
		finished.Store(int64(n))
	}
	close(stop)
	readers.Wait()
}

func TestAChangeDuringALoadIsNotLost(t *testing.T) {
	t.Parallel()
	app := open(t, t.TempDir())
	record := create(t, app)
	var c *Cache[int]
	first := true
	c = New(app, things, func(app core.App) (int, error) {
		n, err := readN(app)
		if first { // somebody saves after the rows were read
			first = false
			save(t, app, record, 7)
		}
		return n, err
	})
	require.Equal(t, 0, get(t, c))
	require.Equal(t, 7, get(t, c))
}

func TestWithoutTheCollection(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := open(t, dir)
	there := open(t, dir)
	a, b := newCounted(app), newCounted(there)
	require.Equal(t, 0, get(t, a.Cache))
	require.Equal(t, 0, get(t, b.Cache))
	require.Zero(t, a.loads.Load())

	record := create(t, app)
	save(t, app, record, 3)
	require.Equal(t, 3, get(t, a.Cache))

	// The other process finds the collection in the database and not yet in
	// PocketBase's copy of the definitions: it keeps what it has, and looks again.
	require.Equal(t, 0, get(t, b.Cache))
	require.NoError(t, there.ReloadCachedCollections())
	require.Eventually(t, func() bool { n, err := b.Get(); return err == nil && n == 3 }, patience, 10*time.Millisecond)

	collection, err := app.FindCollectionByNameOrId(things)
	require.NoError(t, err)
	require.NoError(t, app.Delete(collection))
	Changed(app, things)
	require.Equal(t, 0, get(t, a.Cache))
}

func TestRename(t *testing.T) {
	t.Parallel()
	app := open(t, t.TempDir())
	record := create(t, app)
	c := newCounted(app)
	save(t, app, record, 1)
	require.Equal(t, 1, get(t, c.Cache))

	collection, err := app.FindCollectionByNameOrId(things)
	require.NoError(t, err)
	collection.Name = "renamed"
	require.NoError(t, app.Save(collection))
	Changed(app, things)
	require.Equal(t, 1, get(t, c.Cache))
	require.EqualValues(t, 2, c.loads.Load())
}

func TestAFailingLoad(t *testing.T) {
	t.Parallel()
	app := open(t, t.TempDir())
	record := create(t, app)
	broken := errors.New("broken")
	var fail error
	loads := 0
	c := New(app, things, func(app core.App) (int, error) {
		loads++
		if fail != nil {
			return 0, fail
		}
		return readN(app)
	})
	c.retry = time.Hour

	fail = broken
	_, err := c.Get()
	require.ErrorIs(t, err, broken)
	_, err = c.Get()
	require.ErrorIs(t, err, broken)
	require.Equal(t, 1, loads, "not on every request")

	fail = nil
	save(t, app, record, 5)
	require.Equal(t, 5, get(t, c), "a change tries again at once")

	fail = broken
	save(t, app, record, 6)
	require.Equal(t, 5, get(t, c), "the earlier copy stays in use")
	require.Equal(t, 5, get(t, c))
	require.Equal(t, 3, loads)

	fail, c.retry = nil, retryAfter
	c.current.Load().retryAt = time.Now().Add(retryAfter)
	require.Eventually(t, func() bool { n, err := c.Get(); return err == nil && n == 6 }, patience, 10*time.Millisecond)
}

func TestBeforeTheDatabaseIsOpen(t *testing.T) {
	t.Parallel()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	c := newCounted(app)
	_, err := c.Get()
	require.ErrorContains(t, err, "the database is not open")
	require.Zero(t, c.loads.Load())
}

func TestWithoutTheNotifyFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := open(t, dir)
	record := create(t, app)
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".groundwork"), nil, 0o600)) // in the way
	c := newCounted(app)
	save(t, app, record, 1)
	require.Equal(t, 1, get(t, c.Cache))
	save(t, app, record, 2)
	require.Equal(t, 2, get(t, c.Cache))
}

// newCheck is a check that is driven by hand.
func newCheck(t *testing.T, app core.App) func() {
	t.Helper()
	c := hubOf(app).newCheck()
	t.Cleanup(c.release)
	return func() { c.round(context.Background()) }
}

func TestCheckFindsRawWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := open(t, dir)
	create(t, app)
	other := open(t, dir)
	c := newCounted(app)
	round := newCheck(t, app)
	raw := func(app core.App, sql string) {
		_, err := app.NonconcurrentDB().NewQuery(sql).Execute()
		require.NoError(t, err)
	}

	// Between the load and the first round.
	require.Equal(t, 0, get(t, c.Cache))
	raw(app, "UPDATE things SET n = 1")
	require.Equal(t, 0, get(t, c.Cache))
	round()
	require.Equal(t, 1, get(t, c.Cache))

	// By this process, by another one, an equal number of rows, a deletion.
	for n, write := range []func(){
		2: func() { raw(app, "UPDATE things SET n = 2") },
		3: func() { raw(other, "UPDATE things SET n = 3") },
		4: func() { raw(other, "DELETE FROM things"); raw(other, "INSERT INTO things (n) VALUES (4)") },
	} {
		if write == nil {
			continue
		}
		write()
		round()
		require.Equal(t, n, get(t, c.Cache))
	}
	raw(other, "DELETE FROM things")
	round()
	require.Equal(t, -1, get(t, c.Cache))
}

func TestCheckLeavesTheCopyAloneWhenOthersWrite(t *testing.T) {
	t.Parallel()
	app := open(t, t.TempDir())
	create(t, app)
	other := core.NewBaseCollection("others")
	require.NoError(t, app.Save(other))
	c := newCounted(app)
	round := newCheck(t, app)
	round()
	round()
	get(t, c.Cache)
	before := c.loads.Load()
	for range 5 {
		require.NoError(t, app.Save(core.NewRecord(other)))
		round()
		get(t, c.Cache)
	}
	require.Equal(t, before, c.loads.Load())
}

// In another process PocketBase's copy of the definitions is renewed a moment
// after the change: a load in between must not last.
func TestCheckLooksTwiceAfterAChangedDefinition(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	here := open(t, dir)
	create(t, here)
	there := open(t, dir)
	c := New(there, things, func(app core.App) (int, error) {
		collection, err := app.FindCachedCollectionByNameOrId(things)
		if err != nil {
			return 0, err
		}
		return len(collection.Fields), nil
	})
	round := newCheck(t, there)
	round()
	round()
	before := get(t, c)

	collection, err := here.FindCollectionByNameOrId(things)
	require.NoError(t, err)
	collection.Fields.Add(&core.TextField{Name: "added"})
	require.NoError(t, here.Save(collection))
	round()
	require.Equal(t, before, get(t, c), "PocketBase's own copy is still the old one")
	require.NoError(t, there.ReloadCachedCollections())
	round()
	require.Equal(t, before+1, get(t, c))
}

func TestCheckSurvivesARemovedNotifyFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	here := open(t, dir)
	record := create(t, here)
	there := open(t, dir)
	a, b := newCounted(here), newCounted(there)
	roundHere, roundThere := newCheck(t, here), newCheck(t, there)
	save(t, here, record, 1)
	require.Equal(t, 1, get(t, a.Cache))
	require.Equal(t, 1, get(t, b.Cache))

	require.NoError(t, os.RemoveAll(filepath.Join(dir, ".groundwork")))
	for range 2 {
		roundHere()
		roundThere()
	}
	require.Equal(t, 1, get(t, a.Cache))
	require.Equal(t, 1, get(t, b.Cache))

	// One that comes now opens the new file.
	late := open(t, dir)
	newCounted(late)
	fresh, err := late.FindRecordById(things, record.Id)
	require.NoError(t, err)
	save(t, late, fresh, 2)
	require.Equal(t, 2, get(t, a.Cache), "without another round")
	require.Equal(t, 2, get(t, b.Cache), "without another round")
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	app := open(t, t.TempDir())
	create(t, app)
	c := newCounted(app)
	h := hubOf(app)
	h.checkEvery = time.Millisecond

	Stop(app) // without a start
	Start(app)
	Start(app) // again: the first one ends
	require.Equal(t, 0, get(t, c.Cache))
	_, err := app.NonconcurrentDB().NewQuery("UPDATE things SET n = 9").Execute()
	require.NoError(t, err)
	require.Eventually(t, func() bool { n, err := c.Get(); return err == nil && n == 9 }, patience, time.Millisecond)

	done := h.done
	Stop(app)
	select {
	case <-done:
	default:
		t.Fatal("the check still runs after Stop")
	}
	require.Nil(t, c.source.file.Load())

	// The database is closed: what was read stays, and nothing panics.
	require.NoError(t, app.ClearBootstrap())
	Changed(app, things)
	require.Equal(t, 9, get(t, c.Cache))
	Stop(app)

	// And the whole thing again, as a restored backup does it.
	require.NoError(t, app.Bootstrap())
	Start(app)
	_, err = app.NonconcurrentDB().NewQuery("UPDATE things SET n = 10").Execute()
	require.NoError(t, err)
	require.Eventually(t, func() bool { n, err := c.Get(); return err == nil && n == 10 }, patience, time.Millisecond)
}

func BenchmarkGet(b *testing.B) {
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: b.TempDir()})
	require.NoError(b, app.Bootstrap())
	defer func() { Stop(app); _ = app.ClearBootstrap() }()
	c := New(app, things, func(core.App) (int, error) { return 1, nil })
	_, err := c.Get()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Get()
	}
}

func BenchmarkGetParallel(b *testing.B) {
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: b.TempDir()})
	require.NoError(b, app.Bootstrap())
	defer func() { Stop(app); _ = app.ClearBootstrap() }()
	c := New(app, things, func(core.App) (int, error) { return 1, nil })
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = c.Get()
		}
	})
}
