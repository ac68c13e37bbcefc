package accounts_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// begin makes a session of r.
func begin(t testing.TB, app core.App, r *core.Record) accounts.Holder {
	t.Helper()
	collection, err := app.FindCachedCollectionByNameOrId(accounts.CollectionSessions)
	require.NoError(t, err)
	row := core.NewRecord(collection)
	row.Load(map[string]any{"collectionRef": r.Collection().Id, "recordRef": r.Id, "kind": "sign_in", "lastSeenAt": "2020-01-01 00:00:00.000Z", "expiresAt": types.NowDateTime().Add(time.Hour)})
	require.NoError(t, app.SaveWithContext(notifications.AsServer(t.Context()), row))
	return accounts.Holder{Collection: r.Collection().Id, Record: r.Id, Session: row.Id, Expires: time.Now().Add(time.Hour)}
}

func end(t testing.TB, app core.App, h accounts.Holder) {
	t.Helper()
	row, err := app.FindRecordById(accounts.CollectionSessions, h.Session)
	require.NoError(t, err)
	require.NoError(t, app.Delete(row))
}

// second opens the data folder once more, as another process or after a restart.
func second(t testing.TB, app *pbtest.App) core.App {
	t.Helper()
	other := core.NewBaseApp(core.BaseAppConfig{DataDir: app.DataDir()})
	require.NoError(t, hooks.Register(other, hooks.Config{Key: strings.Repeat("k", 32), LogOutput: io.Discard, Console: io.Discard}))
	require.NoError(t, other.Bootstrap())
	t.Cleanup(func() { _ = other.ClearBootstrap() })
	return other
}

func TestCheck(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana, ben, root := app.User("ana@example.com"), app.User("ben@example.com"), app.Superuser("root@example.com")
	h := begin(t, app, ana)
	gone := begin(t, app, ana)
	end(t, app, gone)
	refused := accounts.Holder{Collection: ben.Collection().Id, Record: ben.Id}
	require.NoError(t, accounts.Require(app, refused.Collection, refused.Record))

	for name, tc := range map[string]struct {
		holder accounts.Holder
		want   error
	}{
		"it lasts":                {h, nil},
		"it ended":                {gone, accounts.ErrEnded},
		"there never was one":     {accounts.Holder{Collection: h.Collection, Record: h.Record, Session: "000000000000000"}, accounts.ErrEnded},
		"no id at all":            {accounts.Holder{Collection: h.Collection, Record: h.Record, Session: "' OR 1"}, accounts.ErrEnded},
		"somebody else's":         {accounts.Holder{Collection: h.Collection, Record: ben.Id, Session: h.Session}, accounts.ErrEnded},
		"of another collection":   {accounts.Holder{Collection: root.Collection().Id, Record: h.Record, Session: h.Session}, accounts.ErrEnded},
		"none":                    {accounts.Holder{Collection: h.Collection, Record: h.Record}, nil},
		"none, and one is needed": {refused, accounts.ErrWithoutSession},
		"the id of a legacy row":  {accounts.Holder{Collection: h.Collection, Record: h.Record, Session: accounts.LegacyID(h.Collection, h.Record)}, accounts.ErrEnded},
	} {
		for range 2 { // from the database, from memory
			require.ErrorIs(t, accounts.Of(app).Check(tc.holder), tc.want, name)
		}
	}
}

// At any moment, in two processes: once a deletion has returned, no check that
// begins says that the session lasts.
func TestNoCheckAfterTheEnd(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	apps := []core.App{app, second(t, app)}

	var ended sync.Map
	var current atomic.Pointer[accounts.Holder]
	first := begin(t, app, ana)
	current.Store(&first)
	stop := make(chan struct{})
	var checks atomic.Int64
	var wg sync.WaitGroup
	for _, a := range apps {
		for range 3 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					h := *current.Load()
					_, over := ended.Load(h.Session)
					err := accounts.Of(a).Check(h)
					checks.Add(1)
					if over && err == nil {
						t.Errorf("session %s lasts after its end", h.Session)
						return
					}
				}
			})
		}
	}
	for i := range 15 {
		h := begin(t, app, ana)
		current.Store(&h)
		before := checks.Load()
		for checks.Load() < before+20 && !t.Failed() {
			runtime.Gosched() // until everybody has asked for it
		}
		end(t, apps[i%2], h)
		ended.Store(h.Session, true)
		before = checks.Load()
		for checks.Load() < before+20 && !t.Failed() {
			runtime.Gosched()
		}
	}
	close(stop)
	wg.Wait()
}

// The row is read, then the session ends, then what was read would be remembered.
func TestEndWhileItIsRead(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	h := begin(t, app, app.User("ana@example.com"))
	sessions := accounts.Of(app)
	require.NoError(t, sessions.Look()) // what is not about the session is read by then
	var once sync.Once
	app.ConcurrentDB().(*dbx.DB).QueryLogFunc = func(_ context.Context, _ time.Duration, query string, _ *sql.Rows, _ error) {
		if strings.Contains(query, "collectionRef") && strings.Contains(query, h.Session) {
			once.Do(func() { end(t, app, h) })
		}
	}
	require.NoError(t, sessions.Check(h), "it lasted when the request came")
	require.ErrorIs(t, sessions.Check(h), accounts.ErrEnded)
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	sessions := accounts.Of(app)
	sessions.SetMax(20)
	holders := make([]accounts.Holder, 100)
	for i := range holders {
		holders[i] = begin(t, app, ana)
	}
	for range 2 {
		for _, h := range holders {
			require.NoError(t, sessions.Check(h))
			require.LessOrEqual(t, sessions.Remembered(), 41)
		}
	}
	// What was pushed out ends like any other.
	for _, h := range holders[:10] {
		end(t, app, h)
		require.ErrorIs(t, sessions.Check(h), accounts.ErrEnded)
	}
	// Nobody fills it with what there is not.
	before := sessions.Remembered()
	for i := range 100 {
		h := accounts.Holder{Collection: ana.Collection().Id, Record: ana.Id, Session: fmt.Sprintf("%015d", i)}
		require.ErrorIs(t, sessions.Check(h), accounts.ErrEnded)
	}
	require.Equal(t, before, sessions.Remembered())
}

func lastSeen(t testing.TB, app core.App, id string) time.Time {
	t.Helper()
	row, err := app.FindRecordById(accounts.CollectionSessions, id)
	require.NoError(t, err)
	return row.GetDateTime("lastSeenAt").Time()
}

func TestFlush(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	sessions := accounts.Of(app)
	began := time.Now()
	used, idle, busy := begin(t, app, ana), begin(t, app, ana), begin(t, app, ana)
	many := make([]accounts.Holder, 600) // more than one batch
	for i := range many {
		many[i] = begin(t, app, ana)
		require.NoError(t, sessions.Check(many[i]))
	}
	require.NoError(t, sessions.Check(used))
	sessions.RememberLate(busy)
	require.Equal(t, 2020, lastSeen(t, app, used.Session).Year(), "not in the request")
	require.NoError(t, sessions.Flush(t.Context()))
	for _, h := range append(many, used, busy) {
		require.WithinRange(t, lastSeen(t, app, h.Session), began.Add(-time.Second), time.Now())
	}
	require.Equal(t, 2020, lastSeen(t, app, idle.Session).Year())

	// A second process that saw it earlier does not turn it back.
	_, err := app.DB().Update("sessions", dbx.Params{"lastSeenAt": "2099-01-01 00:00:00.000Z"}, dbx.HashExp{"id": used.Session}).Execute()
	require.NoError(t, err)
	other := accounts.Of(second(t, app))
	for other.Remembered() == 0 { // nothing is kept while the signal moves, as it does at the start
		require.NoError(t, other.Check(used))
	}
	require.NoError(t, other.Flush(t.Context()))
	require.Equal(t, 2099, lastSeen(t, app, used.Session).Year())
}

func TestPrune(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	sessions := accounts.Of(app)
	lasting := begin(t, app, ana)
	for range 3 {
		end(t, app, begin(t, app, ana))
	}
	over := begin(t, app, ana)
	_, err := app.DB().Update("sessions", dbx.Params{"expiresAt": "2020-01-01 00:00:00.000Z"}, dbx.HashExp{"id": over.Session}).Execute()
	require.NoError(t, err)
	_, err = app.DB().Update("groundwork_sessions_ended", dbx.Params{"endedAt": 1}, nil).Execute()
	require.NoError(t, err)

	require.NoError(t, sessions.Prune(t.Context()))
	rows, err := app.FindAllRecords(accounts.CollectionSessions)
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Equal(t, lasting.Session, rows[0].Id)
	var log []int
	require.NoError(t, app.DB().Select("seq").From("groundwork_sessions_ended").Column(&log))
	require.Equal(t, []int{4}, log, "the newest stays")
}

// Who missed a part of the log reads everything again.
func TestAsleepWhileTheLogWasPruned(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	other := second(t, app)
	h, gone := begin(t, app, ana), begin(t, app, ana)
	for _, x := range []accounts.Holder{h, gone} {
		require.NoError(t, accounts.Of(other).Check(x))
	}
	// As if by a process that died before it could say so, and long ago.
	for _, id := range []string{gone.Session, "another00000000", "another00000001"} {
		_, err := app.DB().Delete("sessions", dbx.HashExp{"id": id}).Execute()
		require.NoError(t, err)
		require.NoError(t, accounts.LogEnded(app, id))
	}
	_, err := app.DB().Delete("groundwork_sessions_ended", dbx.NewExp("seq < 4")).Execute()
	require.NoError(t, err)

	require.NoError(t, accounts.Of(other).Look())
	require.ErrorIs(t, accounts.Of(other).Check(gone), accounts.ErrEnded)
	require.NoError(t, accounts.Of(other).Check(h))
}

// A process that dies between the commit and the word to the others.
func TestLookFindsWhatNobodyTold(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	h := begin(t, app, app.User("ana@example.com"))
	sessions := accounts.Of(app)
	require.NoError(t, sessions.Check(h))
	_, err := app.DB().Delete("sessions", dbx.HashExp{"id": h.Session}).Execute()
	require.NoError(t, err)
	require.NoError(t, accounts.LogEnded(app, h.Session))
	require.NoError(t, sessions.Look())
	require.ErrorIs(t, sessions.Check(h), accounts.ErrEnded)
}

func TestWithSession(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana, ben := app.User("ana@example.com"), app.User("ben@example.com")
	for name, make := range map[string]func() (string, error){
		"auth": ana.NewAuthToken, "static": func() (string, error) { return ana.NewStaticAuthToken(time.Minute) }, "file": ana.NewFileToken,
	} {
		plain, err := make()
		require.NoError(t, err)
		token, err := accounts.WithSession(plain, ana, "abcdefghijklmno")
		require.NoError(t, err, name)
		before, err := security.ParseUnverifiedJWT(plain)
		require.NoError(t, err)
		after, err := security.ParseUnverifiedJWT(token)
		require.NoError(t, err)
		require.Equal(t, "abcdefghijklmno", after["sid"])
		delete(after, "sid")
		require.Equal(t, before, after, name)
		found, err := app.FindAuthRecordByToken(token)
		require.NoError(t, err)
		require.Equal(t, ana.Id, found.Id)

		_, err = accounts.WithSession(plain, ben, "abcdefghijklmno")
		require.Error(t, err, "not ben's")
	}
	reset, err := ana.NewPasswordResetToken()
	require.NoError(t, err)
	for _, token := range []string{"", "x", "a.b.c", reset} {
		_, err := accounts.WithSession(token, ana, "abcdefghijklmno")
		require.Error(t, err, token)
	}
}

func FuzzReadClaims(f *testing.F) {
	for _, seed := range []string{"", "a.b.c", "..", "a.e30.c", "a.eyJzaWQiOjF9.c", "a.eyJleHAiOjFlMzB9.c", "a.bnVsbA.c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if claims, ok := accounts.ReadClaims(token); ok {
			_ = claims.Holder().Key()
		}
	})
}
