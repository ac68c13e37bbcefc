package hooks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

const (
	// recentSignIn is how long ago the sign-in may be with which somebody takes
	// everything along, or deletes it.
	recentSignIn = 10 * time.Minute

	// watchErased is for how long what requests under way write about an erased
	// person is held back.
	watchErased = time.Hour
)

// Marks on a record that is deleted. They are no fields.
const (
	erasureOriginKey = "groundwork:erasureOrigin" // accounts.Origin
	erasureIDKey     = "groundwork:erasureId"     // string, once it is deleted
)

// storeKeyErasing is where the command line finds what the hooks share.
const storeKeyErasing = "groundwork.erasing"

// erasing is what the deletion of accounts needs while the app runs.
type erasing struct {
	g *groundwork

	mu      sync.Mutex
	deleted map[*core.TxAppInfo]*deletedRecords
	watched []watched

	work   sync.Mutex // one erasure at a time
	eraser *accounts.Eraser
}

// deletedRecords are the records that one transaction deletes with an account.
type deletedRecords struct{ refs []accounts.RecordRef }

type watched struct {
	scrub *accounts.Scrub
	until time.Time
}

// bindErase makes the deletion of an account's record, by whomever, the erasure of
// the person: what Groundwork keeps about them goes too. The record, and what the
// application's own relations delete with it, go in the transaction; a job does
// the rest.
func (g *groundwork) bindErase() {
	app := g.app
	er := &erasing{g: g, deleted: map[*core.TxAppInfo]*deletedRecords{}}
	g.erasing = er
	app.Store().Set(storeKeyErasing, er)
	jobs.AddWorker(g.workers, eraseWorker{er})
	jobs.AddWorker(g.workers, compactWorker{er})

	app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "groundwork.erase.hash", Func: func(e *core.BootstrapEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			notifications.SetAddressHasher(g.app, notifications.HashAddresses(func(purpose string, parts ...string) ([]byte, error) {
				return g.box.MAC(purpose, parts...)
			}))
			return nil
		}})

	app.OnRecordDeleteExecute().Bind(&hook.Handler[*core.RecordEvent]{
		Id: "groundwork.erase.record", Priority: priorityFirst, Func: er.onDelete})

	// What is still to be written about somebody who is being erased.
	app.OnModelCreate(core.LogsTableName).Bind(&hook.Handler[*core.ModelEvent]{
		Id: "groundwork.erase.logs", Priority: -9998, Func: er.onLog})

	closed := func(e *core.RecordRequestEvent) error {
		return e.ForbiddenError("Receipts of erasures are written by the server. They can be read, not changed.", nil)
	}
	app.OnRecordCreateRequest(accounts.CollectionErasures).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: "groundwork.erasures.closed", Func: closed})
	app.OnRecordUpdateRequest(accounts.CollectionErasures).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: "groundwork.erasures.closed", Func: closed})
	app.OnRecordDeleteRequest(accounts.CollectionErasures).Bind(&hook.Handler[*core.RecordRequestEvent]{Id: "groundwork.erasures.closed", Func: closed})

	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.erase.routes", Func: func(e *core.ServeEvent) error {
			e.Router.DELETE("/api/account", er.eraseSelf)
			e.Router.POST("/api/accounts/{collection}/{id}/erase", er.eraseOther).Bind(apis.RequireSuperuserAuth())
			if err := accounts.EnqueueOpen(e.App); err != nil {
				return fmt.Errorf("go on with erasures: %w", err)
			}
			return e.Next()
		}})
	if err := app.Cron().Add("groundwork.erase.open", "7 * * * *", func() {
		if !er.ready(app) {
			return
		}
		if err := accounts.EnqueueOpen(app); err != nil {
			g.log.Error("open erasures cannot be enqueued", "error", err)
		}
	}); err != nil {
		panic(err) // the expression above is a constant
	}
}

// ready says whether the tables are there: a command may run on a folder that has
// none of ours.
func (er *erasing) ready(app core.App) bool {
	_, err := app.FindCachedCollectionByNameOrId(accounts.CollectionErasures)
	return err == nil && er.g.sender != nil && er.g.ready(app)
}

func (er *erasing) tracked(app core.App) *deletedRecords {
	tx := app.TxInfo()
	if tx == nil {
		return nil
	}
	er.mu.Lock()
	defer er.mu.Unlock()
	return er.deleted[tx]
}

// onDelete runs for every record that is deleted.
func (er *erasing) onDelete(e *core.RecordEvent) error {
	c := e.Record.Collection()
	if !c.IsAuth() || c.Name == core.CollectionNameSuperusers || !er.ready(e.App) {
		with := er.tracked(e.App)
		if with == nil {
			return e.Next()
		}
		if err := e.Next(); err != nil {
			return err
		}
		with.refs = append(with.refs, accounts.Ref(e.Record))
		return nil
	}
	return inTransaction(e, func() error { return er.deleteAccount(e) })
}

func (er *erasing) deleteAccount(e *core.RecordEvent) error {
	tx := e.App.TxInfo()
	with := er.tracked(e.App)
	if with == nil {
		with = &deletedRecords{}
		er.mu.Lock()
		er.deleted[tx] = with
		er.mu.Unlock()
		tx.OnComplete(func(error) error {
			er.mu.Lock()
			delete(er.deleted, tx)
			er.mu.Unlock()
			return nil
		})
	}
	before := len(with.refs)
	// From the row as it is: the record may have been read long ago, or in parts.
	stored, err := storedNow(e)
	if errors.Is(err, sql.ErrNoRows) {
		return e.Next() // somebody was faster
	}
	if err != nil {
		return fmt.Errorf("read account %s before deleting: %w", e.Record.Id, err)
	}
	trace, err := accounts.TakeTrace(e.App, stored, isUsers(e.App, stored.Collection()))
	if err != nil {
		return err
	}
	if err := e.Next(); err != nil {
		return err
	}
	trace.Records = with.refs[before:]
	origin, _ := e.Record.GetRaw(erasureOriginKey).(accounts.Origin)
	if origin == "" {
		origin = accounts.OriginDeletion
	}
	id, err := er.the().Begin(e.App, trace, origin)
	if err != nil {
		return err
	}
	e.Record.SetRaw(erasureIDKey, id)
	return nil
}

// the is the one eraser of this process.
func (er *erasing) the() *accounts.Eraser {
	er.mu.Lock()
	defer er.mu.Unlock()
	if er.eraser == nil || er.eraser.Key != accounts.Keyed(er.g.box) {
		er.eraser = &accounts.Eraser{App: er.g.app, Sender: er.g.sender, Key: er.g.box, Log: er.g.log, Watch: er.watch, Forget: er.g.limits.forget}
	}
	return er.eraser
}

func (er *erasing) watch(s *accounts.Scrub) {
	er.mu.Lock()
	defer er.mu.Unlock()
	now := time.Now()
	kept := er.watched[:0:0]
	for _, w := range er.watched {
		if now.Before(w.until) {
			kept = append(kept, w)
		}
	}
	er.watched = append(kept, watched{s, now.Add(watchErased)})
}

func (er *erasing) onLog(e *core.ModelEvent) error {
	er.mu.Lock()
	watching := er.watched
	er.mu.Unlock()
	row, ok := e.Model.(*core.Log)
	if !ok || len(watching) == 0 {
		return e.Next()
	}
	data := map[string]any(row.Data)
	for _, w := range watching {
		message, keep := w.scrub.LogRow(row.Message, data)
		if !keep {
			return nil // without Next it is not stored
		}
		row.Message = message
	}
	row.Data = types.JSONMap[any](data)
	return e.Next()
}

type eraseWorker struct{ er *erasing }

func (eraseWorker) Timeout() time.Duration { return -1 }

func (w eraseWorker) Work(ctx context.Context, _ *jobs.Job[accounts.EraseArgs]) error {
	w.er.work.Lock()
	defer w.er.work.Unlock()
	again, err := w.er.the().Run(ctx)
	if err == nil && again > 0 {
		return jobs.Snooze(again)
	}
	return err
}

type compactWorker struct{ er *erasing }

func (compactWorker) Timeout() time.Duration { return -1 }

func (w compactWorker) Work(ctx context.Context, _ *jobs.Job[accounts.CompactArgs]) error {
	w.er.work.Lock()
	defer w.er.work.Unlock()
	again, err := w.er.the().Finish(ctx)
	if err == nil && again > 0 {
		return jobs.Snooze(again)
	}
	return err
}

// EraseAccount deletes the record of an account, and with it what Groundwork keeps
// about the person. It returns the id of the receipt in erasures; a job of the
// serving process does the rest.
func EraseAccount(app core.App, account *core.Record, origin accounts.Origin) (string, error) {
	account.SetRaw(erasureOriginKey, origin)
	if err := app.Delete(account); err != nil {
		return "", fmt.Errorf("delete account %s: %w", account.Id, err)
	}
	id, _ := account.GetRaw(erasureIDKey).(string)
	return id, nil
}

// RunErasures works on the open erasures in this process, for a folder that no
// process serves.
func RunErasures(ctx context.Context, app core.App) error {
	er, ok := app.Store().Get(storeKeyErasing).(*erasing)
	if !ok {
		return errors.New("this app has no Groundwork registered")
	}
	er.work.Lock()
	defer er.work.Unlock()
	if err := jobs.FreeRunning(ctx, app); err != nil {
		return err
	}
	if again, err := er.the().Run(ctx); err != nil || again > 0 {
		return err
	}
	_, err := er.the().Finish(ctx)
	return err
}

// eraseSelf is DELETE /api/account.
func (er *erasing) eraseSelf(e *core.RequestEvent) error {
	if err := er.signedInJustNow(e, "delete your account"); err != nil {
		return err
	}
	return er.answerErase(e, e.Auth, accounts.OriginSelf)
}

// eraseOther is POST /api/accounts/{collection}/{id}/erase, for superusers.
func (er *erasing) eraseOther(e *core.RequestEvent) error {
	account, err := accountOf(e)
	if err != nil {
		return err
	}
	return er.answerErase(e, account, accounts.OriginSuperuser)
}

func (er *erasing) answerErase(e *core.RequestEvent, account *core.Record, origin accounts.Origin) error {
	id, err := EraseAccount(e.App, account, origin)
	if errors.Is(err, sql.ErrNoRows) {
		return e.NotFoundError("There is no such account any more.", err)
	}
	if err != nil {
		text := "The account cannot be deleted: other records need it, or the application does not allow it."
		if origin == accounts.OriginSuperuser {
			names, findErr := needing(e.App, account)
			if findErr != nil {
				return e.InternalServerError("The account cannot be deleted, and why cannot be found out right now; try again.", findErr)
			}
			if len(names) > 0 {
				text = "The account cannot be deleted: other records need it. Delete or change these first: " + strings.Join(names, ", ") + "."
			}
		}
		return e.BadRequestError(text, err)
	}
	return e.JSON(http.StatusAccepted, map[string]any{"erasure": id,
		"message": "The account is deleted. What else is kept about it is being erased; the receipt in erasures says when that is done."})
}

// needing names the collections with records that could not be without an account,
// as "orders (3)": their relation is required and has nobody else, and they are not
// set to be deleted with it.
func needing(app core.App, account *core.Record) (names []string, err error) {
	references, err := app.FindCollectionReferences(account.Collection())
	if err != nil {
		return nil, fmt.Errorf("find what refers to account %s: %w", account.Id, err)
	}
	for collection, fields := range references {
		n := 0
		for _, f := range fields {
			relation, ok := f.(*core.RelationField)
			if !ok || !relation.Required || relation.CascadeDelete || collection.IsView() {
				continue
			}
			// Of several people in one field the others stay.
			only, params := "[["+relation.Name+"]] = {:id}", dbx.Params{"id": account.Id}
			if relation.IsMultiple() {
				only, params = "[["+relation.Name+"]] = {:ids}", dbx.Params{"ids": `["` + account.Id + `"]`}
			}
			var m int
			if err := app.ConcurrentDB().Select("count(*)").From(collection.Name).Where(dbx.NewExp(only, params)).Row(&m); err != nil {
				return nil, fmt.Errorf("count %s that need account %s: %w", collection.Name, account.Id, err)
			}
			n += m
		}
		if n > 0 {
			names = append(names, fmt.Sprintf("%s (%d)", collection.Name, n))
		}
	}
	slices.Sort(names)
	return names, nil
}

// accountOf is the account that the path names. The error is the answer.
func accountOf(e *core.RequestEvent) (*core.Record, error) {
	c, err := e.App.FindCachedCollectionByNameOrId(e.Request.PathValue("collection"))
	if err != nil || !c.IsAuth() {
		return nil, e.NotFoundError("There is no such collection of accounts.", err)
	}
	if c.Name == core.CollectionNameSuperusers {
		return nil, e.BadRequestError("Superusers are managed in the dashboard under System > _superusers.", nil)
	}
	account, err := e.App.FindRecordById(c, e.Request.PathValue("id"))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, e.NotFoundError("There is no such account.", err)
	}
	if err != nil {
		return nil, e.InternalServerError("The account cannot be read right now; try again.", err)
	}
	return account, nil
}

// signedInJustNow refuses whoever has not signed in again for this: a stolen or
// forgotten token must not be enough. The error is the answer.
func (er *erasing) signedInJustNow(e *core.RequestEvent, toDo string) error {
	if e.Auth == nil {
		return e.UnauthorizedError("Sign in first.", nil)
	}
	if e.HasSuperuserAuth() {
		return e.ForbiddenError("This is for people's own accounts. Superusers are managed in the dashboard.", nil)
	}
	if id := sessionOf(e); id != "" {
		session, err := e.App.FindRecordById(accounts.CollectionSessions, id)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return e.InternalServerError("The sign-in cannot be checked right now; try again.", err)
		}
		if err == nil && session.GetString("kind") == string(accounts.KindSignIn) && time.Since(session.GetDateTime("created").Time()) < recentSignIn {
			return nil
		}
	}
	text := fmt.Sprintf("To %s, sign in again first: it needs a sign-in that is at most %d minutes old.", toDo, int(recentSignIn.Minutes()))
	return e.ForbiddenError(text, validation.Errors{"token": validation.NewError("sign_in_again", text)})
}
