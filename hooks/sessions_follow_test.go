package hooks_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/filesystem"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
)

func TestDevicesFollowTheirSession(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana, ben := app.User("ana@example.com"), app.User("ben@example.com")
	first, second, bens := signIn(t, app, ana), signIn(t, app, ana), signIn(t, app, ben)
	register := func(token, device string) *core.Record {
		res := app.Send(http.MethodPost, devicesPath, map[string]any{"platform": "android", "token": device, "session": "chosen"}, token)
		requireStatus(t, http.StatusOK, res)
		return must(app.FindRecordById("devices", res.JSON(t)["id"].(string)))
	}
	status := func(d *core.Record) string { return app.Reload(d).GetString("status") }
	phone, tablet := register(first, "phone"), register(second, "tablet")
	register(first, "desk")
	require.Equal(t, sessionID(t, first), phone.GetString("session"))
	require.Equal(t, sessionID(t, second), tablet.GetString("session"))

	// Registered again it belongs to the session that did so, whoever's.
	desk := register(second, "desk")
	require.Equal(t, sessionID(t, second), desk.GetString("session"))
	register(first, "lost")
	lost := register(bens, "lost")
	require.Equal(t, sessionID(t, bens), lost.GetString("session"))
	moved := app.Reload(lost)
	moved.Set("session", sessionID(t, first))
	require.NoError(t, app.Save(moved))
	require.Equal(t, sessionID(t, bens), app.Reload(lost).GetString("session"), "it is the server's")

	requireStatus(t, http.StatusNoContent, app.Send(http.MethodDelete, sessionsPath+"/"+sessionID(t, first), nil, second))
	require.Equal(t, []string{"signed_out", "active", "active", "active"}, []string{status(phone), status(tablet), status(desk), status(lost)})
	require.Equal(t, "Signed out: the sign-in on this device was ended.", app.Reload(phone).GetString("statusReason"))

	// Who signs in again gets pushes again.
	again := register(signIn(t, app, ana), "phone")
	require.Equal(t, phone.Id, again.Id)
	require.Equal(t, []string{"active", ""}, []string{again.GetString("status"), again.GetString("statusReason")})

	// A new password signs all devices out, those without a session too; nobody else's.
	old := app.Record("devices", map[string]any{"user": ana.Id, "platform": "android", "token": "old"})
	ana = app.Reload(ana)
	ana.SetPassword("another-password")
	require.NoError(t, app.Save(ana))
	for _, d := range []*core.Record{phone, tablet, desk, old} {
		require.Equal(t, "signed_out", status(d))
	}
	require.Equal(t, "active", status(lost))

	// A superuser who registers a device for somebody lends it no session.
	root := signIn(t, app, app.Superuser("root@example.com"))
	res := app.Send(http.MethodPost, devicesPath, map[string]any{"platform": "android", "token": "helped", "user": ben.Id}, root)
	requireStatus(t, http.StatusOK, res)
	require.Empty(t, res.JSON(t)["session"])

	// A session that runs out signs nobody out: who has not opened the app for weeks
	// is who a push is meant for.
	_, err := app.DB().Update("sessions", dbx.Params{"expiresAt": "2020-01-01 00:00:00.000Z"}, dbx.HashExp{"id": sessionID(t, bens)}).Execute()
	require.NoError(t, err)
	require.NoError(t, accounts.Of(app).Prune(t.Context()))
	require.Nil(t, sessionRow(t, app, bens))
	require.Equal(t, "active", status(lost))
}

func TestDevicesOfACollectionWithANewSecret(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	token := signIn(t, app, app.User("ana@example.com"))
	res := app.Send(http.MethodPost, devicesPath, map[string]any{"platform": "android", "token": "a"}, token)
	users := must(app.FindCollectionByNameOrId("users"))
	users.AuthToken.Secret = strings.Repeat("s", 50)
	require.NoError(t, app.Save(users))
	require.Equal(t, "signed_out", must(app.FindRecordById("devices", res.JSON(t)["id"].(string))).GetString("status"))
}

func TestFileTokensCarryTheSession(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	papers := core.NewBaseCollection("papers")
	rule := "@request.auth.id != ''"
	papers.ViewRule = &rule
	papers.Fields.Add(&core.FileField{Name: "paper", MaxSelect: 1, Protected: true}, &core.FileField{Name: "cover", MaxSelect: 1})
	require.NoError(t, app.Save(papers))
	paper := core.NewRecord(papers)
	paper.Set("paper", must(filesystem.NewFileFromBytes([]byte("secret"), "paper.txt")))
	paper.Set("cover", must(filesystem.NewFileFromBytes([]byte("cover"), "cover.txt")))
	require.NoError(t, app.Save(paper))
	path := "/api/files/papers/" + paper.Id + "/"
	private, public := path+paper.GetString("paper"), path+paper.GetString("cover")
	get := func(path, token string) int { return app.Send(http.MethodGet, path+"?token="+token, nil, "").Status }

	fileToken := func(token string) string {
		res := app.Send(http.MethodPost, "/api/files/token", nil, token)
		requireStatus(t, http.StatusOK, res)
		return res.JSON(t)["token"].(string)
	}
	first, second := signIn(t, app, ana), signIn(t, app, ana)
	doomed, kept, plain := fileToken(first), fileToken(second), fileToken(app.Token(ana))
	require.Equal(t, sessionID(t, first), sessionID(t, doomed))
	require.Empty(t, sessionID(t, plain))
	for _, token := range []string{doomed, kept, plain} {
		require.Equal(t, http.StatusOK, get(private, token))
	}

	requireStatus(t, http.StatusNoContent, app.Send(http.MethodDelete, sessionsPath+"/"+sessionID(t, first), nil, second))
	require.Equal(t, http.StatusNotFound, get(private, doomed))
	require.Equal(t, http.StatusNotFound, app.Send(http.MethodGet, private+"?%74oken="+doomed, nil, "").Status, "whatever way it is written")
	require.Equal(t, http.StatusOK, get(public, doomed), "a file for everybody")
	require.Equal(t, http.StatusOK, get(private, kept))
	requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodPost, "/api/files/token", nil, first))

	// PocketBase's backups take a file token too.
	root := app.Superuser("root@example.com")
	rootToken := signIn(t, app, root)
	rootFile := fileToken(rootToken)
	require.NotEqual(t, http.StatusForbidden, get("/api/backups/none.zip", rootFile))
	requireStatus(t, http.StatusNoContent, app.Send(http.MethodPost, "/api/logout", nil, rootToken))
	require.Equal(t, http.StatusForbidden, get("/api/backups/none.zip", rootFile))
}

// stream is a realtime connection as a browser has it.
type stream struct {
	id     string
	events chan string
}

func connect(t *testing.T, base string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/realtime", nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	s := &stream{events: make(chan string, 100)}
	go func() {
		defer close(s.events)
		lines := bufio.NewScanner(res.Body)
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event:"); ok {
				s.events <- name
			} else if id, ok := strings.CutPrefix(lines.Text(), "id:"); ok {
				s.events <- "id:" + id
			}
		}
	}()
	s.id = strings.TrimPrefix(s.next(t), "id:")
	require.Equal(t, "PB_CONNECT", s.next(t))
	return s
}

func (s *stream) next(t *testing.T) string {
	t.Helper()
	select {
	case event, ok := <-s.events:
		require.True(t, ok, "the connection was closed")
		return event
	case <-time.After(time.Minute):
		require.Fail(t, "nothing came")
		return ""
	}
}

// nextEvent skips the ids.
func (s *stream) nextEvent(t *testing.T) string {
	t.Helper()
	for {
		if event := s.next(t); !strings.HasPrefix(event, "id:") {
			return event
		}
	}
}

func TestRealtimeLosesItsSession(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	doomed, kept := signIn(t, app, ana), signIn(t, app, ana)
	base := app.URL()
	topics := func(names ...string) []string { return names }
	subscribe := func(s *stream, token string, topics []string) pbtest.Response {
		return app.Send(http.MethodPost, "/api/realtime", map[string]any{"clientId": s.id, "subscriptions": topics}, token)
	}
	// The recorder of Send has another address than the connection.
	app.OnRealtimeConnectRequest().BindFunc(func(e *core.RealtimeConnectRequestEvent) error {
		e.Client.Set(apis.RealtimeClientIPKey, "192.0.2.1")
		return e.Next()
	})
	one, two := connect(t, base), connect(t, base)
	mine := topics("notification_inbox/*", "users/"+ana.Id)
	requireStatus(t, http.StatusNoContent, subscribe(one, doomed, mine))
	requireStatus(t, http.StatusNoContent, subscribe(two, kept, mine))
	app.Record("notification_inbox", map[string]any{"user": ana.Id, "title": "A"})
	require.Equal(t, "notification_inbox/*", one.nextEvent(t))
	require.Equal(t, "notification_inbox/*", two.nextEvent(t))

	requireStatus(t, http.StatusNoContent, app.Send(http.MethodDelete, sessionsPath+"/"+sessionID(t, doomed), nil, kept))
	client, err := app.SubscriptionsBroker().ClientById(one.id)
	require.NoError(t, err, "the connection stays open")
	require.Nil(t, client.Get(apis.RealtimeClientAuthKey))
	require.Empty(t, client.Subscriptions())

	// The client subscribes again with the token that it has, and is a guest.
	requireStatus(t, http.StatusNoContent, subscribe(one, doomed, append(mine, "app_versions/*")))
	app.Record("notification_inbox", map[string]any{"user": ana.Id, "title": "B"})
	require.Equal(t, "notification_inbox/*", two.nextEvent(t))
	require.Empty(t, one.events)

	// Signed in again on the same connection it goes on.
	requireStatus(t, http.StatusNoContent, subscribe(one, signIn(t, app, ana), mine))
	app.Record("notification_inbox", map[string]any{"user": ana.Id, "title": "C"})
	require.Equal(t, "notification_inbox/*", one.nextEvent(t))

	// A token without a session, until its entry is deleted.
	three := connect(t, base)
	requireStatus(t, http.StatusNoContent, subscribe(three, app.Token(ana), mine))
	require.NoError(t, accounts.Of(app).Flush(t.Context()))
	legacy := must(app.FindRecordById(accounts.CollectionSessions, accounts.LegacyID(ana.Collection().Id, ana.Id)))
	require.NoError(t, app.Delete(legacy))
	client = must(app.SubscriptionsBroker().ClientById(three.id))
	require.Nil(t, client.Get(apis.RealtimeClientAuthKey))
}

// Tokens that name no session.
func TestLegacyTokens(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana, ben, root := app.User("ana@example.com"), app.User("ben@example.com"), app.Superuser("root@example.com")
	old, bens, own := app.Token(ana), app.Token(ben), signIn(t, app, ana)
	static := must(ana.NewStaticAuthToken(30 * 24 * time.Hour))

	// One entry for all of an account's, there when they look.
	rows := list(t, app, sessionsPath, old)
	require.Len(t, rows, 2)
	kinds := []any{rows[0]["kind"], rows[1]["kind"]}
	require.ElementsMatch(t, []any{"sign_in", "legacy"}, kinds)
	list(t, app, sessionsPath, static)
	require.NoError(t, accounts.Of(app).Flush(t.Context()))
	require.Len(t, list(t, app, sessionsPath, static), 2)
	legacyID := accounts.LegacyID(ana.Collection().Id, ana.Id)
	row := must(app.FindRecordById(accounts.CollectionSessions, legacyID))
	require.Greater(t, row.GetDateTime("expiresAt").Time(), time.Now().Add(29*24*time.Hour), "as long as the longest")

	// There is nothing to log out of.
	res := app.Send(http.MethodPost, "/api/logout", nil, old)
	requireStatus(t, http.StatusBadRequest, res)
	require.Contains(t, res.String(), "no session of its own")
	require.Len(t, list(t, app, sessionsPath, old), 2)

	// Deleting the entry ends all of them, and nothing else.
	requireStatus(t, http.StatusNoContent, app.Send(http.MethodDelete, sessionsPath+"/"+legacyID, nil, own))
	for _, token := range []string{old, static, app.Token(ana)} {
		res := app.Send(http.MethodGet, sessionsPath, nil, token)
		requireStatus(t, http.StatusUnauthorized, res)
		require.Contains(t, res.String(), `"code":"session_required"`)
	}
	require.Len(t, list(t, app, sessionsPath, own), 1)
	require.Len(t, list(t, app, sessionsPath, bens), 1)
	require.NoError(t, accounts.Of(app).Flush(t.Context()))
	require.Len(t, list(t, app, sessionsPath, own), 1, "it does not come back")

	// A new tokenKey makes such tokens void by itself; those made after it count.
	ana = app.Reload(ana)
	ana.RefreshTokenKey()
	require.NoError(t, app.Save(ana))
	require.Len(t, list(t, app, sessionsPath, app.Token(ana)), 1)

	// For everybody, in the running server at once, and back.
	rootOld, rootOwn := app.Token(root), signIn(t, app, root)
	list(t, app, sessionsPath, rootOld)
	n, err := accounts.Of(app).RequireAll(true)
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	for _, token := range []string{bens, rootOld, app.Token(ana)} {
		requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodGet, sessionsPath, nil, token))
	}
	require.Len(t, list(t, app, sessionsPath+"?filter=(kind='legacy')", rootOwn), 0)
	require.NoError(t, accounts.Of(app).Flush(t.Context()))
	require.Len(t, list(t, app, sessionsPath+"?filter=(kind='legacy')", rootOwn), 0)
	_, err = accounts.Of(app).RequireAll(false)
	require.NoError(t, err)
	list(t, app, sessionsPath, bens)
}

// secondApp serves the data folder of app a second time, as another process does.
func secondApp(t *testing.T, app *pbtest.App) func(method, path, token string) int {
	t.Helper()
	second := core.NewBaseApp(core.BaseAppConfig{DataDir: app.DataDir()})
	require.NoError(t, hooks.Register(second, hooks.Config{Key: strings.Repeat("k", 32), LogOutput: io.Discard, Console: io.Discard}))
	require.NoError(t, second.Bootstrap())
	second.OnServe().Unbind("__pbCronStart__") // as in pbtest
	router, err := apis.NewRouter(second)
	require.NoError(t, err)
	serve := &core.ServeEvent{Router: router, Server: &http.Server{}}
	serve.App = second
	var handler http.Handler
	require.NoError(t, second.OnServe().Trigger(serve, func(e *core.ServeEvent) (err error) {
		handler, err = e.Router.BuildMux()
		return err
	}))
	t.Cleanup(func() {
		terminate := &core.TerminateEvent{}
		terminate.App = second
		_ = second.OnTerminate().Trigger(terminate, func(e *core.TerminateEvent) error { return second.ClearBootstrap() })
	})
	return func(method, path, token string) int {
		req := httptest.NewRequest(method, path, nil)
		req.Header.Set("Authorization", token)
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, req)
		return rec.Code
	}
}

func TestSessionsOfTwoProcesses(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	other := secondApp(t, app)

	for range 20 {
		token, old := signIn(t, app, ana), app.Token(ana)
		for range 2 {
			require.Equal(t, http.StatusOK, other(http.MethodGet, sessionsPath, token))
			require.Equal(t, http.StatusOK, app.Send(http.MethodGet, sessionsPath, nil, token).Status)
		}
		// Ended here, refused there, and the other way round.
		requireStatus(t, http.StatusNoContent, app.Send(http.MethodPost, "/api/logout", nil, token))
		require.Equal(t, http.StatusUnauthorized, other(http.MethodGet, sessionsPath, token))
		token = signIn(t, app, ana)
		require.Equal(t, http.StatusOK, app.Send(http.MethodGet, sessionsPath, nil, token).Status)
		require.Equal(t, http.StatusNoContent, other(http.MethodPost, "/api/logout", token))
		requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodGet, sessionsPath, nil, token))

		require.Equal(t, http.StatusOK, other(http.MethodGet, sessionsPath, old))
		_, err := accounts.Of(app).RequireAll(true)
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, other(http.MethodGet, sessionsPath, old))
		_, err = accounts.Of(app).RequireAll(false)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, other(http.MethodGet, sessionsPath, old))
	}
}

// A session that is known costs no query.
func TestSessionCheckReadsNothing(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	token := signIn(t, app, app.User("ana@example.com"))
	claims, _ := accounts.ReadClaims(token)
	sessions := accounts.Of(app)
	db := app.ConcurrentDB().(*dbx.DB)
	var here atomic.Int64 // by this goroutine: the jobs ask for themselves all the while
	db.QueryLogFunc = func(context.Context, time.Duration, string, *sql.Rows, error) {
		if bytes.Contains(debug.Stack(), []byte("TestSessionCheckReadsNothing")) {
			here.Add(1)
		}
	}
	queries := func() int64 {
		before := here.Load()
		require.NoError(t, sessions.Check(claims.Holder()))
		return here.Load() - before
	}
	_, err := app.FindRecordById(accounts.CollectionSessions, claims.Holder().Session)
	require.NoError(t, err)
	require.Positive(t, here.Load(), "a query is counted")
	// It is known from the first look at which nothing else was ending.
	require.True(t, waitFor(func() bool { return queries() == 0 }))
	for range 100 {
		require.Zero(t, queries())
	}
}
