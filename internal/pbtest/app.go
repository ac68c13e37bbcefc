package pbtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"

	"github.com/groundworkhq/groundwork/hooks"
)

// Password is the password of everybody made by this package.
const Password = "groundwork-test"

// passwordHash is bcrypt of [Password] at its lowest cost: the usual cost takes
// longer than the rest of most tests.
const passwordHash = "$2a$04$0hePurI82RKlzDnX.1tq/uUz9Ck9n.Zog/jXQsMksc8XUEtk0.Uby"

// App is a core.App on a data folder of its own, with Groundwork registered. It
// ends with the test.
//
// The embedded TestApp counts events (EventCalls), and keeps the mails that
// PocketBase would have sent itself (TestMailer).
type App struct {
	*tests.TestApp

	t testing.TB

	handler func() http.Handler
	server  func() *httptest.Server
}

// Option changes the configuration that Groundwork is registered with.
type Option func(*hooks.Config)

// WithConfig changes the configuration.
func WithConfig(change func(*hooks.Config)) Option { return change }

// NewApp starts an app: local environment, nothing sent, logs and console
// discarded; a failed test prints what the app was doing. Its HTTP server, and with
// it everything that starts in OnServe, begins with the first use of [App.Handler],
// [App.URL] or [App.Send].
//
// What is due by the clock (app.Cron()) does not run by itself: it would come in
// between in the tests that happen to be under way when a minute begins.
func NewApp(t testing.TB, opts ...Option) *App {
	t.Helper()

	dir := t.TempDir()
	for name, content := range template(t) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatalf("copy the data folder: %v", err)
		}
	}
	testApp, err := tests.NewTestAppWithConfig(core.BaseAppConfig{DataDir: dir})
	if err != nil {
		t.Fatalf("start the app: %v", err)
	}
	a := &App{TestApp: testApp, t: t}

	log := &tail{}
	cfg := hooks.Config{
		// Without one a key file would be made beside the data folder.
		Key:     strings.Repeat("k", 32),
		Console: io.Discard,
		// Tests run at any time of the day, wherever their people are.
		PromotionalHours: "off",
	}
	for _, opt := range opts {
		opt(&cfg)
	}
	if cfg.LogOutput == nil {
		cfg.LogOutput = log
	} else {
		cfg.LogOutput = io.MultiWriter(cfg.LogOutput, log)
	}
	if err := hooks.Register(testApp, cfg); err != nil {
		testApp.Cleanup()
		t.Fatalf("register groundwork: %v", err)
	}
	// Once more, for the bootstrap hooks that were registered just now.
	if err := testApp.Bootstrap(); err != nil {
		testApp.Cleanup()
		t.Fatalf("bootstrap the app: %v", err)
	}
	// PocketBase writes its request log in goroutines that outlive a test.
	testApp.Settings().Logs.MaxDays = 0
	testApp.OnServe().Unbind("__pbCronStart__")

	a.handler = sync.OnceValue(a.buildHandler)
	a.server = sync.OnceValue(func() *httptest.Server {
		srv := httptest.NewServer(a.Handler())
		t.Cleanup(func() {
			srv.CloseClientConnections() // realtime connections would last for minutes
			srv.Close()
		})
		return srv
	})
	// An ApiScenario cleans up by itself; ending twice would run every
	// OnTerminate hook twice.
	var ended bool
	testApp.OnTerminate().BindFunc(func(e *core.TerminateEvent) error {
		ended = true
		return e.Next()
	})
	t.Cleanup(func() {
		if t.Failed() && !ended {
			t.Log(a.state(log))
		}
		if !ended {
			testApp.Cleanup()
		}
	})
	return a
}

// Factory is the TestAppFactory of a [tests.ApiScenario]. The scenario builds
// its own router: do not use [App.Handler] of the same app.
func Factory(opts ...Option) func(t testing.TB) *tests.TestApp {
	return func(t testing.TB) *tests.TestApp { return NewApp(t, opts...).TestApp }
}

// Handler serves the API and the dashboard. PocketBase allows one router per
// app, so it is built once.
func (a *App) Handler() http.Handler { return a.handler() }

// URL is the base address of a loopback server in front of [App.Handler].
func (a *App) URL() string { return a.server().URL }

func (a *App) buildHandler() http.Handler {
	a.t.Helper()
	router, err := apis.NewRouter(a.TestApp)
	if err != nil {
		a.t.Fatalf("make the router: %v", err)
	}
	serve := &core.ServeEvent{Router: router, Server: &http.Server{}}
	serve.App = a.TestApp
	var handler http.Handler
	err = a.OnServe().Trigger(serve, func(e *core.ServeEvent) error {
		mux, err := e.Router.BuildMux()
		handler = mux
		return err
	})
	if err != nil {
		a.t.Fatalf("serve: %v", err)
	}
	return handler
}

// Response is the answer to [App.Send].
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// JSON decodes an answer that is an object; a broken one fails the test.
func (r Response) JSON(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(r.Body, &v); err != nil {
		t.Fatalf("the answer (status %d) is no JSON object: %v\n%s", r.Status, err, r.Body)
	}
	return v
}

// String is what a failed assertion prints.
func (r Response) String() string { return fmt.Sprintf("%d %s", r.Status, r.Body) }

// Send serves one request in this goroutine. A body that is not a string is
// encoded as JSON; nil means none. An empty token is a guest.
func (a *App) Send(method, path string, body any, token string) Response {
	a.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			a.t.Fatalf("encode the request body: %v", err)
		}
		reader = strings.NewReader(string(raw))
	}
	req := httptest.NewRequest(method, path, reader)
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	rec := httptest.NewRecorder()
	a.Handler().ServeHTTP(rec, req)
	return Response{Status: rec.Code, Header: rec.Result().Header, Body: rec.Body.Bytes()}
}

// User makes a verified person in PocketBase's users collection; fields may
// override and add.
func (a *App) User(email string, fields ...map[string]any) *core.Record {
	a.t.Helper()
	return a.auth("_pb_users_auth_", email, fields)
}

// Superuser makes a superuser.
func (a *App) Superuser(email string) *core.Record {
	a.t.Helper()
	return a.auth(core.CollectionNameSuperusers, email, nil)
}

func (a *App) auth(collection, email string, fields []map[string]any) *core.Record {
	a.t.Helper()
	col, err := a.FindCachedCollectionByNameOrId(collection)
	if err != nil {
		a.t.Fatalf("find collection %s: %v", collection, err)
	}
	r := core.NewRecord(col)
	r.SetEmail(email)
	r.SetVerified(true)
	r.SetRaw(core.FieldNamePassword, &core.PasswordFieldValue{Hash: passwordHash})
	for _, f := range fields {
		r.Load(f)
	}
	if err := a.Save(r); err != nil {
		a.t.Fatalf("make %s: %v", email, err)
	}
	return r
}

// Record makes a record with a plain Save, as application code would.
func (a *App) Record(collection string, fields map[string]any) *core.Record {
	a.t.Helper()
	col, err := a.FindCachedCollectionByNameOrId(collection)
	if err != nil {
		a.t.Fatalf("find collection %s: %v", collection, err)
	}
	r := core.NewRecord(col)
	r.Load(fields)
	if err := a.Save(r); err != nil {
		a.t.Fatalf("make a record of %s: %v", collection, err)
	}
	return r
}

// Reload reads a record as it is in the database.
func (a *App) Reload(r *core.Record) *core.Record {
	a.t.Helper()
	fresh, err := a.FindRecordById(r.Collection().Id, r.Id)
	if err != nil {
		a.t.Fatalf("reload %s/%s: %v", r.Collection().Name, r.Id, err)
	}
	return fresh
}

// Token signs a person in.
func (a *App) Token(r *core.Record) string {
	a.t.Helper()
	token, err := r.NewAuthToken()
	if err != nil {
		a.t.Fatalf("make a token: %v", err)
	}
	return token
}

// template holds the files of a migrated data folder. Migrating takes longer
// than most tests, so that a process does it once.
func template(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := templateOnce()
	if err != nil {
		t.Fatalf("make the data folder: %v", err)
	}
	return files
}

var templateOnce = sync.OnceValues(func() (files map[string][]byte, err error) {
	dir, err := os.MkdirTemp("", "groundwork-pbtest-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	if err := app.Bootstrap(); err != nil {
		return nil, err
	}
	if err := app.RunAllMigrations(); err != nil {
		return nil, err
	}
	// Nothing may be left in the write-ahead log: only whole database files are
	// copied.
	if _, err := app.NonconcurrentDB().NewQuery("PRAGMA wal_checkpoint(TRUNCATE)").Execute(); err != nil {
		return nil, err
	}
	if _, err := app.AuxNonconcurrentDB().NewQuery("PRAGMA wal_checkpoint(TRUNCATE)").Execute(); err != nil {
		return nil, err
	}
	if err := app.ClearBootstrap(); err != nil {
		return nil, err
	}

	files = map[string][]byte{}
	for _, name := range []string{"data.db", "auxiliary.db"} {
		if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return files, nil
})
