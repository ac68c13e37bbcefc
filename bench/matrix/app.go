package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing/fstest"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
	"github.com/groundworkhq/groundwork/notifications"
)

// passwordHash is bcrypt of password at its lowest cost.
const (
	password     = "groundwork-test"
	passwordHash = "$2a$04$0hePurI82RKlzDnX.1tq/uUz9Ck9n.Zog/jXQsMksc8XUEtk0.Uby"
)

// installation is the real app on a folder of its own, with people in it.
type installation struct {
	app     *core.BaseApp
	dir     string
	handler http.Handler
	routes  []string // ours

	superuser *core.Record
	tokens    map[string]string // superuser, other, revoked
	other     *core.Record
}

// start makes an installation. End it with close.
func start() (in *installation, err error) {
	in = &installation{tokens: map[string]string{}}
	if in.dir, err = os.MkdirTemp("", "groundwork-matrix-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	in.app = core.NewBaseApp(core.BaseAppConfig{DataDir: in.dir})
	cfg := hooks.Config{Key: strings.Repeat("k", 32), LogOutput: io.Discard, Console: io.Discard, Public: fstest.MapFS{"index.html": {Data: []byte("<p>Hello</p>")}}}
	if err = hooks.Register(in.app, cfg); err != nil {
		return nil, err
	}
	if err = in.app.Bootstrap(); err != nil {
		return nil, err
	}
	if err = in.app.RunAllMigrations(); err != nil {
		return nil, err
	}
	in.app.Settings().Logs.MaxDays = 0
	// Every answer here is about who asks, none about how often.
	rules, err := in.app.FindCollectionByNameOrId(ratelimit.Collection)
	if err != nil {
		return nil, err
	}
	if _, err = in.app.NonconcurrentDB().Update(rules.Name, dbx.Params{"enabled": false}, nil).Execute(); err != nil {
		return nil, err
	}
	users, err := in.app.FindCollectionByNameOrId("users")
	if err != nil {
		return nil, err
	}
	users.OTP.Enabled = true // the phone routes need it
	if err = in.app.Save(users); err != nil {
		return nil, err
	}
	if err = in.serve(); err != nil {
		return nil, err
	}
	return in, in.people()
}

func (in *installation) serve() error {
	router, err := apis.NewRouter(in.app)
	if err != nil {
		return err
	}
	theirs := routesOf(router)
	event := &core.ServeEvent{Router: router, Server: &http.Server{}}
	event.App = in.app
	return in.app.OnServe().Trigger(event, func(e *core.ServeEvent) error {
		for _, route := range routesOf(e.Router) {
			if !slices.Contains(theirs, route) {
				in.routes = append(in.routes, route)
			}
		}
		in.handler, err = e.Router.BuildMux()
		return err
	})
}

func (in *installation) close() {
	if in.app != nil && in.app.IsBootstrapped() {
		event := new(core.TerminateEvent)
		event.App = in.app
		_ = in.app.OnTerminate().Trigger(event, func(e *core.TerminateEvent) error { return in.app.ClearBootstrap() })
	}
	_ = os.RemoveAll(in.dir)
}

func (in *installation) people() (err error) {
	if in.superuser, err = in.account(core.CollectionNameSuperusers); err != nil {
		return err
	}
	if in.tokens["superuser"], err = in.signIn(in.superuser); err != nil {
		return err
	}
	if in.other, err = in.account("users"); err != nil {
		return err
	}
	if in.tokens["other"], err = in.signIn(in.other); err != nil {
		return err
	}
	gone, err := in.account("users")
	if err != nil {
		return err
	}
	if in.tokens["revoked"], err = in.signIn(gone); err != nil {
		return err
	}
	if status, body := in.send(http.MethodPost, "/api/logout", nil, in.tokens["revoked"]); status != http.StatusNoContent {
		return fmt.Errorf("sign out: %d %s", status, body)
	}
	return nil
}

// account makes a person who can sign in.
func (in *installation) account(collection string) (*core.Record, error) {
	c, err := in.app.FindCollectionByNameOrId(collection)
	if err != nil {
		return nil, err
	}
	r := core.NewRecord(c)
	r.SetEmail(word() + "@example.com")
	r.SetVerified(true)
	r.SetRaw(core.FieldNamePassword, &core.PasswordFieldValue{Hash: passwordHash})
	return r, in.app.Save(r)
}

func (in *installation) signIn(r *core.Record) (string, error) {
	status, body := in.send(http.MethodPost, "/api/collections/"+r.Collection().Name+"/auth-with-password", map[string]any{"identity": r.Email(), "password": password}, "")
	var answer struct{ Token string }
	if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK {
		return "", fmt.Errorf("sign in: %d %s", status, body)
	}
	return answer.Token, nil
}

func (in *installation) send(method, path string, body any, token string) (int, []byte) {
	var raw []byte
	if body != nil {
		raw, _ = json.Marshal(body) // of maps of texts
	}
	req := httptest.NewRequest(method, path, bytes.NewReader(raw))
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	rec := httptest.NewRecorder()
	in.handler.ServeHTTP(rec, req)
	return rec.Code, rec.Body.Bytes()
}

// insert stores a record as the server does.
func (in *installation) insert(collection string, fields map[string]any) (*core.Record, error) {
	c, err := in.app.FindCollectionByNameOrId(collection)
	if err != nil {
		return nil, err
	}
	r := core.NewRecord(c)
	r.Load(fields)
	if c.IsAuth() {
		r.SetRaw(core.FieldNamePassword, &core.PasswordFieldValue{Hash: passwordHash})
	}
	if err := in.app.SaveNoValidateWithContext(notifications.AsServer(context.Background()), r); err != nil {
		return nil, fmt.Errorf("seed %s: %w", collection, err)
	}
	return r, nil
}

// drop deletes a record behind everybody's back.
func (in *installation) drop(r *core.Record) error {
	if r == nil {
		return nil
	}
	_, err := in.app.NonconcurrentDB().Delete(r.TableName(), dbx.HashExp{"id": r.Id}).Execute()
	return err
}

func word() string { return security.RandomStringWithAlphabet(12, "abcdefghijklmnopqrstuvwxyz") }
