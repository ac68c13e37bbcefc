package hooks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/router"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/notifications"
)

// maxSessionsPerAccount is how many sessions one account may have. One more ends
// the one that was not seen for the longest time.
const maxSessionsPerAccount = 1000

// sessionsStopLimit is how long a shutdown writes when sessions were last seen.
const sessionsStopLimit = 5 * time.Second

// signInKey marks the request and the record of a sign-in that is going on.
const signInKey = "groundwork.sessions.signIn"

// signIn is a sign-in, or a refresh, between the token and the answer.
type signIn struct {
	event   *core.RecordAuthRequestEvent
	session string
	kind    accounts.Kind
	refresh bool // of a session that is there
	renewed bool // a token that had no session: when its holder signed in is not known
	stored  bool
}

// bindSessions gives every sign-in a session, and ends what belongs to a session
// together with it.
func (g *groundwork) bindSessions() {
	app := g.app
	g.sessions.OnEnded(g.signOutClients)

	// First, so that the application's own hooks see the token as it will be sent;
	// last, because they may put another one in its place.
	app.OnRecordAuthRequest().Bind(&hook.Handler[*core.RecordAuthRequestEvent]{
		Id: "groundwork.sessions.name", Priority: -9999, Func: g.nameSession})
	app.OnRecordAuthRequest().Bind(&hook.Handler[*core.RecordAuthRequestEvent]{
		Id: "groundwork.sessions.await", Priority: 9999, Func: g.awaitSession})
	// PocketBase asks for a second factor after all hooks on the sign-in. This one
	// comes after that, and before it reads the token for the answer.
	app.OnRecordEnrich().Bind(&hook.Handler[*core.RecordEnrichEvent]{
		Id: "groundwork.sessions.store", Priority: 9999, Func: func(e *core.RecordEnrichEvent) error {
			if e.Record.Collection().IsAuth() {
				if s, ok := e.Record.GetRaw(signInKey).(*signIn); ok {
					e.Record.SetRaw(signInKey, nil)
					if err := g.storeSession(e.App, s); err != nil {
						return err
					}
				}
			}
			return e.Next()
		}})
	app.OnFileTokenRequest().Bind(&hook.Handler[*core.FileTokenRequestEvent]{
		Id: "groundwork.sessions.file", Priority: -9999, Func: func(e *core.FileTokenRequestEvent) error {
			if holder, ok := e.Get(holderKey).(accounts.Holder); ok && holder.Session != "" {
				token, err := accounts.WithSession(e.Token, e.Record, holder.Session)
				if err != nil {
					return e.InternalServerError("The file token cannot be made right now; try again.", err)
				}
				e.Token = token
			}
			return e.Next()
		}})

	g.bindSessionRecords()
	g.bindSessionAccounts()
	g.bindSessionCollections()
	g.bindSessionRealtime()
	g.bindSessionUpkeep()

	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Router.POST("/api/logout", g.logout)
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: "groundwork.sessions.legacy", Func: g.showLegacySession})
		// The dashboard's SQL console goes round the hooks.
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: "groundwork.sessions.sql", Func: func(e *core.RequestEvent) error {
			err := e.Next()
			if e.Request.Method == http.MethodPost && e.Request.URL.Path == "/api/sql" {
				if err := g.sessions.Forget(); err != nil {
					g.log.Error("sessions cannot be read again after a query", "error", err)
				}
			}
			return err
		}})
		return e.Next()
	})
}

// nameSession puts a session into the token of a sign-in.
func (g *groundwork) nameSession(e *core.RecordAuthRequestEvent) error {
	s := g.signInOf(e)
	if s == nil {
		return e.Next()
	}
	token, err := accounts.WithSession(e.Token, e.Record, s.session)
	if err != nil {
		return e.Next() // not a token of PocketBase: an application's own, that no session could end
	}
	e.Token = token
	e.Set(signInKey, s)

	err = e.Next()
	switch {
	case err != nil && s.stored && !s.refresh:
		// The answer failed: nobody has the token.
		if err := g.endSession(e.App, s.session); err != nil {
			g.log.Error("session of a failed sign-in cannot be deleted", "error", err)
		}
	case err == nil && !s.stored && e.Written() && e.Status() < http.StatusBadRequest:
		// The application answered by itself.
		return g.storeSession(e.App, s)
	}
	return err
}

// signInOf decides which session the token gets. Nil means none.
func (g *groundwork) signInOf(e *core.RecordAuthRequestEvent) *signIn {
	if !g.sessions.Ready() || e.Record == nil {
		return nil
	}
	s := &signIn{event: e, kind: accounts.KindSignIn}
	if e.AuthMethod == "" && e.Auth != nil {
		if e.Auth.Id == e.Record.Id && e.Auth.Collection().Id == e.Record.Collection().Id {
			claims, _ := accounts.ReadClaims(e.Token)
			if sent, ok := sentToken(e.Request); ok && sent == e.Token && !claims.Refreshable {
				return nil // PocketBase answers a token that cannot be refreshed as it came
			}
			if holder, ok := e.Get(holderKey).(accounts.Holder); ok && holder.Session != "" {
				s.session, s.refresh = holder.Session, true
				return s
			}
			s.renewed = true
		} else if e.Auth.IsSuperuser() {
			s.kind = accounts.KindImpersonation
		}
	}
	s.session = security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet)
	return s
}

// awaitSession lets storeSession find the sign-in by its record.
func (g *groundwork) awaitSession(e *core.RecordAuthRequestEvent) error {
	s, ok := e.Get(signInKey).(*signIn)
	if !ok || s.event != e {
		return e.Next()
	}
	if claims, ok := accounts.ReadClaims(e.Token); ok && claims.Session != s.session {
		if token, err := accounts.WithSession(e.Token, e.Record, s.session); err == nil {
			e.Token = token
		}
	}
	record := e.Record
	record.SetRaw(signInKey, s)
	defer record.SetRaw(signInKey, nil)
	return e.Next()
}

// storeSession writes the session of a sign-in, or until when a refreshed one
// lasts.
func (g *groundwork) storeSession(app core.App, s *signIn) error {
	e := s.event
	claims, ok := accounts.ReadClaims(e.Token)
	if !ok || claims.Session != s.session || claims.ID != e.Record.Id {
		return nil // the application sends a token of its own
	}
	expires, err := types.ParseDateTime(claims.Expires())
	if err != nil {
		return fmt.Errorf("read when the token expires: %w", err)
	}
	err = app.RunInTransaction(func(txApp core.App) error {
		collection, err := txApp.FindCachedCollectionByNameOrId(accounts.CollectionSessions)
		if err != nil {
			return fmt.Errorf("find collection of sessions: %w", err)
		}
		if s.refresh {
			r, err := txApp.FindRecordById(collection, s.session)
			if errors.Is(err, sql.ErrNoRows) {
				return e.UnauthorizedError(tokenEnded.text, nil)
			}
			if err != nil {
				return fmt.Errorf("find session %s: %w", s.session, err)
			}
			r.Set("expiresAt", expires)
			return saveSession(txApp, r)
		}
		// A new password or the end of the account may have passed this sign-in: the
		// token is void then, and nothing would take its session away.
		now, err := storedTokenKey(txApp, e.Record.Collection(), e.Record.Id)
		if err != nil {
			return err
		}
		if now != e.Record.TokenKey() {
			return e.UnauthorizedError(tokenInvalid.text, nil)
		}
		r := core.NewRecord(collection)
		r.Id = s.session
		r.Load(map[string]any{
			"collectionRef": e.Record.Collection().Id, "recordRef": e.Record.Id, "kind": string(s.kind),
			"name": accounts.DeviceName(e.Request.UserAgent()), "userAgent": accounts.CleanUserAgent(e.Request.UserAgent()), "ip": g.limits.shownAddress(e.RequestEvent),
			"lastSeenAt": types.NowDateTime(), "expiresAt": expires,
		})
		if s.renewed {
			r.SetRaw("created", types.NowDateTime().Add(-recentSignIn)) // nobody signs in just now
		}
		if err := saveSession(txApp, r); err != nil {
			return err
		}
		return dropSurplusSessions(txApp, r)
	})
	var refusal *router.ApiError
	if err != nil && !errors.As(err, &refusal) {
		return e.InternalServerError("The sign-in cannot be stored right now; try again.", err)
	}
	if err == nil {
		s.stored = true
	}
	return err
}

func saveSession(txApp core.App, r *core.Record) error {
	if err := txApp.SaveWithContext(notifications.AsServer(context.Background()), r); err != nil {
		return fmt.Errorf("save session %s: %w", r.Id, err)
	}
	return nil
}

// dropSurplusSessions ends what the account of r has beyond
// maxSessionsPerAccount, never r.
func dropSurplusSessions(txApp core.App, r *core.Record) error {
	var surplus []*core.Record
	err := txApp.RecordQuery(r.Collection()).
		AndWhere(dbx.HashExp{"recordRef": r.GetString("recordRef"), "collectionRef": r.GetString("collectionRef")}).
		AndWhere(dbx.Not(dbx.HashExp{"id": r.Id})).
		OrderBy("lastSeenAt DESC").Offset(maxSessionsPerAccount - 1).Limit(100).All(&surplus)
	if err != nil {
		return fmt.Errorf("find surplus sessions of account %s: %w", r.GetString("recordRef"), err)
	}
	return deleteSessions(txApp, surplus)
}

func deleteSessions(txApp core.App, sessions []*core.Record) error {
	for _, r := range sessions {
		if err := txApp.Delete(r); err != nil {
			return fmt.Errorf("end session %s: %w", r.Id, err)
		}
	}
	return nil
}

// endSession deletes a session. One that is gone is no error.
func (g *groundwork) endSession(app core.App, id string) error {
	r, err := app.FindRecordById(accounts.CollectionSessions, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = app.Delete(r)
	}
	if err != nil {
		return fmt.Errorf("end session %s: %w", id, err)
	}
	return nil
}

// startSetupSession gives the token of a setup link its session, if there is a
// place for it.
func startSetupSession(app core.App, installer *core.Record, token string) (string, error) {
	collection, err := app.FindCachedCollectionByNameOrId(accounts.CollectionSessions)
	if err != nil {
		return token, nil // an empty data folder before our migrations
	}
	r := core.NewRecord(collection)
	r.Id = security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet)
	token, err = accounts.WithSession(token, installer, r.Id)
	if err != nil {
		return "", err
	}
	r.Load(map[string]any{
		"collectionRef": installer.Collection().Id, "recordRef": installer.Id, "kind": string(accounts.KindSetup), "name": "Setup link",
		"lastSeenAt": types.NowDateTime(), "expiresAt": time.Now().Add(setupLinkLife),
	})
	return token, saveSession(app, r)
}

// logout ends the session of whoever asks.
func (g *groundwork) logout(e *core.RequestEvent) error {
	if e.Auth == nil {
		return e.UnauthorizedError("Nobody is signed in.", nil)
	}
	holder, ok := e.Get(holderKey).(accounts.Holder)
	if !ok || holder.Session == "" {
		return e.BadRequestError("This token has no session of its own that could end. Forget the token; or delete the entry of kind legacy in the list of sessions, which ends all such tokens of this account.", nil)
	}
	if err := g.endSession(e.App, holder.Session); err != nil {
		return e.InternalServerError("The session cannot be ended right now; try again.", err)
	}
	return e.NoContent(http.StatusNoContent)
}

// showLegacySession writes the row of a token without a session before its owner
// reads the list.
func (g *groundwork) showLegacySession(e *core.RequestEvent) error {
	holder, ok := e.Get(holderKey).(accounts.Holder)
	if !ok || holder.Session != "" || e.Request.Method != http.MethodGet {
		return e.Next()
	}
	name, action, ok := collectionPath(e.Request.URL.Path)
	if ok && action == "records" {
		if c, err := e.App.FindCachedCollectionByNameOrId(name); err == nil && c.Id == accounts.CollectionSessions {
			if err := g.sessions.ShowLegacy(e.Request.Context(), holder); err != nil {
				return e.InternalServerError("The sessions cannot be read right now; try again.", err)
			}
		}
	}
	return e.Next()
}

// bindSessionRecords guards the rows, and does what their deletion means.
func (g *groundwork) bindSessionRecords() {
	const id = "groundwork.sessions.closed"
	app, collection := g.app, accounts.CollectionSessions
	const why = "Sessions begin with a sign-in. They can be read and deleted, not written."

	closed := func(e *core.RecordRequestEvent) error { return e.ForbiddenError(why, nil) }
	app.OnRecordCreateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: id, Func: closed})
	app.OnRecordUpdateRequest(collection).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: id, Func: closed})
	serverOnly := func(e *core.RecordEvent) error {
		if !notifications.IsServer(e.Context) {
			return apis.NewForbiddenError(why, nil)
		}
		return e.Next()
	}
	app.OnRecordCreate(collection).Bind(&hook.Handler[*core.RecordEvent]{Id: id, Priority: priorityFirst, Func: serverOnly})
	app.OnRecordUpdate(collection).Bind(&hook.Handler[*core.RecordEvent]{Id: id, Priority: priorityFirst, Func: serverOnly})
	app.OnRecordUpdate(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.sessions.narrow", Priority: priorityFirst, Func: func(e *core.RecordEvent) error {
			e.Record.IgnoreUnchangedFields(true) // when it was last seen is written past this
			return e.Next()
		}})

	app.OnRecordDeleteExecute(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.sessions.end", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			return inTransaction(e, func() error {
				if err := e.Next(); err != nil {
					return err
				}
				return sessionEnds(e.App, e.Record)
			})
		}})
	app.OnRecordAfterDeleteSuccess(collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.sessions.ended", Priority: -9999, Func: func(e *core.RecordEvent) error {
			if err := g.sessions.Changed(); err != nil {
				// It is deleted and logged: the next request reads the log.
				g.log.Error("a session ended, and realtime connections may not know yet", "error", err)
			}
			return e.Next()
		}})
}

// sessionEnds does what belongs to the end of a session, in its transaction.
func sessionEnds(txApp core.App, r *core.Record) error {
	collection, record := r.GetString("collectionRef"), r.GetString("recordRef")
	if r.GetString("kind") == string(accounts.KindLegacy) {
		// There is no way to tell such tokens apart: none of this account counts any more.
		if err := accounts.Require(txApp, collection, record); err != nil {
			return err
		}
	}
	if err := accounts.LogEnded(txApp, r.Id); err != nil {
		return err
	}
	if collection != usersCollectionID(txApp) {
		return nil
	}
	return signOutDevices(txApp, dbx.HashExp{"user": record, "session": r.Id}, "Signed out: the sign-in on this device was ended.")
}

// signOutDevices keeps pushes from devices that nobody is signed in on any more.
func signOutDevices(txApp core.App, which dbx.HashExp, reason string) error {
	devices, err := txApp.FindAllRecords(notifications.CollectionDevices, which, dbx.HashExp{"status": "active"})
	if err != nil {
		return fmt.Errorf("find devices to sign out: %w", err)
	}
	for _, device := range devices {
		device.Set("status", "signed_out")
		device.Set("statusReason", reason)
		if err := txApp.SaveWithContext(notifications.AsServer(context.Background()), device); err != nil {
			return fmt.Errorf("sign out device %s: %w", device.Id, err)
		}
	}
	return nil
}

// bindSessionAccounts ends sessions together with what their tokens hang on.
func (g *groundwork) bindSessionAccounts() {
	app := g.app

	app.OnRecordDeleteExecute().Bind(&hook.Handler[*core.RecordEvent]{
		// Outside of PocketBase's own hook, which deletes what relates to the account
		// after it has deleted the account.
		Id: "groundwork.sessions.account", Priority: priorityFirst, Func: func(e *core.RecordEvent) error {
			if !e.Record.Collection().IsAuth() || !g.sessions.Ready() {
				return e.Next()
			}
			return inTransaction(e, func() error {
				// Afterwards: the devices are gone by then.
				if err := e.Next(); err != nil {
					return err
				}
				return endSessionsOf(e.App, e.Record)
			})
		}})

	// A new tokenKey is what PocketBase ends all tokens of an account with: after a
	// new password or address, for example.
	app.OnRecordUpdateExecute().Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.sessions.tokenkey", Priority: priorityExecute, Func: func(e *core.RecordEvent) error {
			if !e.Record.Collection().IsAuth() || !g.sessions.Ready() {
				return e.Next()
			}
			return inTransaction(e, func() error {
				id, _ := e.Record.LastSavedPK().(string)
				before, err := storedTokenKey(e.App, e.Record.Collection(), id)
				if err != nil {
					return err
				}
				if err := e.Next(); err != nil {
					return err
				}
				after, err := storedTokenKey(e.App, e.Record.Collection(), e.Record.Id)
				if err != nil || before == "" || before == after {
					return err
				}
				if isUsers(e.App, e.Record.Collection()) {
					err := signOutDevices(e.App, dbx.HashExp{"user": e.Record.Id}, "Signed out: the password or the address of the account changed, or all its sign-ins were ended.")
					if err != nil {
						return err
					}
				}
				return endSessionsOf(e.App, e.Record)
			})
		}})
}

// bindSessionCollections ends the sessions of a whole auth collection: when it is
// deleted, and when a new secret makes all its tokens void. Both happen in the
// transaction that PocketBase opens.
func (g *groundwork) bindSessionCollections() {
	app := g.app
	app.OnCollectionDeleteExecute().Bind(&hook.Handler[*core.CollectionEvent]{
		Id: "groundwork.sessions.collection", Priority: priorityExecute, Func: func(e *core.CollectionEvent) error {
			if !e.Collection.IsAuth() || !g.sessions.Ready() {
				return e.Next()
			}
			return inCollectionTransaction(e, func() error {
				if err := e.Next(); err != nil {
					return err
				}
				return endSessionsIn(e.App, e.Collection)
			})
		}})
	told := &hook.Handler[*core.CollectionEvent]{Id: "groundwork.sessions.collection", Func: func(e *core.CollectionEvent) error {
		if e.Collection.IsAuth() && g.sessions.Ready() {
			if err := g.sessions.Changed(); err != nil {
				g.log.Error("sessions ended, and realtime connections may not know yet", "error", err)
			}
		}
		return e.Next()
	}}
	app.OnCollectionAfterDeleteSuccess().Bind(told)
	app.OnCollectionAfterUpdateSuccess().Bind(told)
	app.OnCollectionUpdateExecute().Bind(&hook.Handler[*core.CollectionEvent]{
		Id: "groundwork.sessions.collection", Priority: priorityExecute, Func: func(e *core.CollectionEvent) error {
			if !e.Collection.IsAuth() || !g.sessions.Ready() {
				return e.Next()
			}
			before, err := e.App.FindCollectionByNameOrId(e.Collection.Id)
			if err != nil || before.AuthToken.Secret == e.Collection.AuthToken.Secret {
				return e.Next()
			}
			return inCollectionTransaction(e, func() error {
				if err := e.Next(); err != nil {
					return err
				}
				return endSessionsIn(e.App, e.Collection)
			})
		}})
}

func inCollectionTransaction(e *core.CollectionEvent, fn func() error) error {
	original := e.App
	defer func() { e.App = original }()
	return original.RunInTransaction(func(txApp core.App) error {
		e.App = txApp
		return fn()
	})
}

// endSessionsIn ends the sessions of a collection, in three statements: they may
// be a hundred thousand, and other writers wait.
func endSessionsIn(txApp core.App, collection *core.Collection) error {
	sessions, err := txApp.FindCachedCollectionByNameOrId(accounts.CollectionSessions)
	if err != nil {
		return fmt.Errorf("find collection of sessions: %w", err)
	}
	where := dbx.HashExp{"collectionRef": collection.Id}
	if collection.Id == usersCollectionID(txApp) {
		devices, err := txApp.FindCachedCollectionByNameOrId(notifications.CollectionDevices)
		if err != nil {
			return fmt.Errorf("find collection of devices: %w", err)
		}
		_, err = txApp.DB().NewQuery("UPDATE {{" + devices.Name + "}} SET [[status]] = 'signed_out', [[statusReason]] = {:reason} " +
			"WHERE [[status]] = 'active' AND [[session]] IN (SELECT [[id]] FROM {{" + sessions.Name + "}} WHERE [[collectionRef]] = {:collection})").
			Bind(dbx.Params{"reason": "Signed out: all sign-ins of this app were ended.", "collection": collection.Id}).Execute()
		if err != nil {
			return fmt.Errorf("sign out devices of collection %s: %w", collection.Name, err)
		}
	}
	for _, table := range []string{sessions.Name, "groundwork_sessions_required"} {
		if _, err := txApp.DB().Delete(table, where).Execute(); err != nil {
			return fmt.Errorf("end sessions in collection %s: %w", collection.Name, err)
		}
	}
	return accounts.LogEndedAll(txApp)
}

// storedTokenKey is empty when there is no such account.
func storedTokenKey(app core.App, collection *core.Collection, id string) (string, error) {
	var key string
	err := app.DB().Select("tokenKey").From(collection.Name).Where(dbx.HashExp{"id": id}).Limit(1).Row(&key)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read tokenKey of %s: %w", id, err)
	}
	return key, nil
}

// endSessionsOf ends all sessions of an account whose tokens are void already.
func endSessionsOf(txApp core.App, account *core.Record) error {
	where := dbx.HashExp{"recordRef": account.Id, "collectionRef": account.Collection().Id}
	sessions, err := txApp.FindAllRecords(accounts.CollectionSessions, where)
	if err != nil {
		return fmt.Errorf("find sessions of account %s: %w", account.Id, err)
	}
	if err := deleteSessions(txApp, sessions); err != nil {
		return err
	}
	// Tokens from now on are new ones.
	return accounts.Unrequire(txApp, account.Collection().Id, account.Id)
}

// bindSessionUpkeep writes when sessions were last seen, and deletes those that
// ran out, while the app serves.
func (g *groundwork) bindSessionUpkeep() {
	stop := func() {}
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.sessions.upkeep", Func: func(e *core.ServeEvent) error {
			stop()
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				g.keepSessions(ctx)
			}()
			stop = func() {
				cancel()
				<-done
				stop = func() {}
			}
			return e.Next()
		}})
	// Before Next, which closes the database.
	g.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{Id: "groundwork.sessions.upkeep", Func: func(e *core.TerminateEvent) error {
		stop()
		return e.Next()
	}})
	g.app.OnBootstrapClear().Bind(&hook.Handler[*core.BootstrapEvent]{Id: "groundwork.sessions.upkeep", Func: func(e *core.BootstrapEvent) error {
		stop()
		return e.Next()
	}})
}

func (g *groundwork) keepSessions(ctx context.Context) {
	const lookEvery, flushEvery, pruneEvery = time.Second, time.Minute, 10 * time.Minute
	look, flush, prune := time.NewTicker(lookEvery), time.NewTicker(flushEvery), time.NewTicker(pruneEvery)
	defer look.Stop()
	defer flush.Stop()
	defer prune.Stop()

	tell := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			g.log.Error(what, "error", err)
		}
	}
	tell("sessions that ran out cannot be deleted", g.sessions.Prune(ctx))
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.Background(), sessionsStopLimit)
			defer cancel()
			if err := g.sessions.Flush(last); err != nil {
				g.log.Error("when sessions were last seen could not be written before the stop", "error", err)
			}
			return
		case <-look.C:
			tell("ended sessions cannot be read", g.sessions.Look())
		case <-flush.C:
			tell("when sessions were last seen cannot be written", g.sessions.Flush(ctx))
		case <-prune.C:
			tell("sessions that ran out cannot be deleted", g.sessions.Prune(ctx))
		}
	}
}

// sessionOf is the id of the session that a request came with; empty for none.
func sessionOf(e *core.RequestEvent) string {
	holder, _ := e.Get(holderKey).(accounts.Holder)
	return holder.Session
}
