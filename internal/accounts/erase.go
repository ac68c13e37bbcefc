package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/schedules"
)

// CollectionErasures is the id of the collection erasures: one receipt for each
// account that was erased, without a word about whose it was.
const CollectionErasures = "gw_erasures"

// Status of an erasure.
const (
	ErasureErasing    = "erasing"
	ErasureCompacting = "compacting"
	ErasureDone       = "done"
)

// Origin says who asked for an erasure.
type Origin string

// Origins of erasures.
const (
	OriginSelf      Origin = "self"
	OriginSuperuser Origin = "superuser"
	OriginCommand   Origin = "command"
	OriginDeletion  Origin = "deletion" // the record was deleted, in the dashboard, by an SDK or in Go
)

// EraseArgs deletes what is left of the accounts whose erasure is open. It names
// nobody.
type EraseArgs struct{}

// Kind implements [jobs.Args].
func (EraseArgs) Kind() string { return "account.erase" }

// CompactArgs ends the erasures after which the databases have to be written anew.
type CompactArgs struct{}

// Kind implements [jobs.Args].
func (CompactArgs) Kind() string { return "account.compact" }

// EnqueueErase asks for the open erasures to be worked on.
func EnqueueErase(app core.App) error {
	// Not unique: one that is asked for while another one runs must not be lost.
	if _, err := jobs.Enqueue(app, EraseArgs{}, jobs.Options{Queue: jobs.QueueMaintenance}); err != nil {
		return fmt.Errorf("enqueue erasure: %w", err)
	}
	return nil
}

// EnqueueCompact asks for the databases to be compacted when it is time.
func EnqueueCompact(app core.App) error {
	if _, err := jobs.Enqueue(app, CompactArgs{}, jobs.Options{Queue: jobs.QueueMaintenance, UniqueKey: "compact"}); err != nil {
		return fmt.Errorf("enqueue compacting: %w", err)
	}
	return nil
}

// EnqueueOpen asks for whatever a crash left open.
func EnqueueOpen(app core.App) error {
	for status, enqueue := range map[string]func(core.App) error{ErasureErasing: EnqueueErase, ErasureCompacting: EnqueueCompact} {
		ids, err := findErasures(app, status, 1)
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			if err := enqueue(app); err != nil {
				return err
			}
		}
	}
	return nil
}

// erasure is a row of erasures.
type erasure struct {
	ID      string `db:"id"`
	Origin  string `db:"origin"`
	Counts  string `db:"counts"` // JSON
	Created string `db:"created"`
}

// findErasures returns those with a status, the oldest first; all for limit 0.
func findErasures(app core.App, status string, limit int64) ([]erasure, error) {
	table, err := erasuresTable(app)
	if err != nil {
		return nil, err
	}
	query := app.ConcurrentDB().Select("id", "origin", "COALESCE([[counts]], '') AS counts", "created").From(table).
		Where(dbx.HashExp{"status": status}).AndWhere(dbx.NewExp("[[status]] != 'done'")).OrderBy("created", "id")
	if limit > 0 {
		query.Limit(limit)
	}
	var rows []erasure
	if err := query.All(&rows); err != nil {
		return nil, fmt.Errorf("find erasures: %w", err)
	}
	return rows, nil
}

func erasuresTable(app core.App) (string, error) {
	c, err := app.FindCachedCollectionByNameOrId(CollectionErasures)
	if err != nil {
		return "", fmt.Errorf("find collection of erasures: %w", err)
	}
	return c.Name, nil
}

func updateErasure(app core.App, id string, to dbx.Params) error {
	table, err := erasuresTable(app)
	if err != nil {
		return err
	}
	to["updated"] = types.NowDateTime().String()
	if _, err := app.NonconcurrentDB().Update(table, to, dbx.HashExp{"id": id}).Execute(); err != nil {
		return fmt.Errorf("store erasure %s: %w", id, err)
	}
	return nil
}

// Eraser takes what is left of deleted accounts out of everything that Groundwork
// keeps. The deletion of the record stores a [Trace] in its own transaction
// ([Eraser.Begin]); [Eraser.Run] does the rest, in small steps that can be cut off
// anywhere and begun again.
type Eraser struct {
	App    core.App
	Sender *notifications.Sender
	Key    Keyed
	Log    *slog.Logger

	// Watch is told whose traces must not be written any more: by a request that is
	// still under way, for example. Nil tells nobody.
	Watch func(*Scrub)

	// Forget drops the addresses from which an account was signed in to, given the ids
	// of its collection and of itself. The rate limits keep them.
	Forget func(ctx context.Context, collection, record string) error

	// Compacted is when the databases were last compacted for an erasure; the zero
	// time means never. Compacting locks writers out, so that nobody may have it
	// done all the time.
	Compacted time.Time
}

// erasePeople is how many erasures are worked on together: the tables that have to
// be read from end to end are read once for all of them.
const erasePeople = 100

// sealErasure binds a sealed trace to being one.
const sealErasure = "erasure"

// Begin stores, in the transaction that deletes an account, what the erasure has to
// know, and asks for it. It returns the id of the receipt.
func (e *Eraser) Begin(txApp core.App, trace *Trace, origin Origin) (string, error) {
	table, err := erasuresTable(txApp)
	if err != nil {
		return "", err
	}
	id, now := core.GenerateDefaultRandomId(), types.NowDateTime().String()
	gone := &task{counts: map[string]int{}}
	for _, r := range append([]RecordRef{trace.Account}, trace.Records...) {
		gone.count(strings.TrimPrefix(r.CollectionName, "_"), 1)
	}
	// Not as a record: the application's hooks are about the deletion, and hear of
	// that.
	_, err = txApp.DB().Insert(table, dbx.Params{"id": id, "status": ErasureErasing, "origin": string(origin),
		"collection": trace.Account.CollectionName, "counts": gone.json(), "finishedAt": "", "created": now, "updated": now}).Execute()
	if err != nil {
		return "", fmt.Errorf("store erasure: %w", err)
	}
	plain, err := json.Marshal(trace)
	if err != nil {
		return "", fmt.Errorf("encode trace: %w", err)
	}
	box, err := e.Key.Seal(sealErasure+":"+id, plain)
	if err != nil {
		return "", fmt.Errorf("seal trace: %w", err)
	}
	// It never expires: whoever works on it deletes it.
	if _, err := txApp.DB().Insert("groundwork_sealed", dbx.Params{"id": id, "purpose": sealErasure, "box": box, "expiresAt": "9999"}).Execute(); err != nil {
		return "", fmt.Errorf("store trace: %w", err)
	}
	return id, EnqueueErase(txApp)
}

// task is an erasure that is worked on.
type task struct {
	row    erasure
	trace  *Trace
	counts map[string]int
}

func (t *task) count(what string, n int) {
	if n > 0 {
		t.counts[what] += n
	}
}

func (t *task) json() string {
	raw, err := json.Marshal(t.counts)
	if err != nil {
		return "{}" // numbers always encode
	}
	return string(raw)
}

// Run deletes for all open erasures. again is how long to wait before it has to be
// called once more; zero when nothing is open. [Eraser.Finish] comes after it.
func (e *Eraser) Run(ctx context.Context) (again time.Duration, err error) {
	for {
		tasks, failed := e.open()
		if len(tasks) == 0 {
			return 0, failed
		}
		wait, err := e.erase(ctx, tasks)
		if err != nil || wait > 0 || failed != nil {
			return wait, errors.Join(err, failed)
		}
	}
}

// open reads the next erasures that are not done with deleting. Those that cannot be
// read are left out, and said in the error.
func (e *Eraser) open() ([]*task, error) {
	rows, err := findErasures(e.App, ErasureErasing, erasePeople)
	if err != nil {
		return nil, err
	}
	var tasks []*task
	var failed error
	for _, row := range rows {
		t := &task{row: row, counts: map[string]int{}}
		if t.trace, err = e.openTrace(row.ID); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if err := json.Unmarshal([]byte(row.Counts), &t.counts); err != nil || t.counts == nil {
			t.counts = map[string]int{}
		}
		tasks = append(tasks, t)
	}
	return tasks, failed
}

func (e *Eraser) openTrace(id string) (*Trace, error) {
	var box []byte
	err := e.App.ConcurrentDB().Select("box").From("groundwork_sealed").Where(dbx.HashExp{"id": id, "purpose": sealErasure}).Row(&box)
	if err != nil {
		return nil, fmt.Errorf("find trace of erasure %s: %w", id, err)
	}
	plain, err := e.Key.Open(sealErasure+":"+id, box)
	if err != nil {
		return nil, fmt.Errorf("open trace of erasure %s, which needs the GROUNDWORK_KEY that it was begun with: %w", id, err)
	}
	trace := &Trace{}
	if err := json.Unmarshal(plain, trace); err != nil {
		return nil, fmt.Errorf("read trace of erasure %s: %w", id, err)
	}
	return trace, nil
}

// busyWait is how long to wait for jobs that still know an erased person.
const busyWait = 2 * time.Second

func (e *Eraser) erase(ctx context.Context, tasks []*task) (again time.Duration, err error) {
	last, err := time.Parse(types.DefaultDateLayout, tasks[len(tasks)-1].row.Created)
	if err != nil {
		return 0, fmt.Errorf("read when erasure %s began: %w", tasks[len(tasks)-1].row.ID, err)
	}
	// Jobs that began before the account was gone may still write about it; the
	// sweep below that counts is one that begins when they have ended.
	busy, err := jobs.RunningSince(ctx, e.App, last.Add(time.Second), EraseArgs{}.Kind(), CompactArgs{}.Kind())
	if err != nil {
		return 0, err
	}
	scrub, err := e.scrubOf(tasks)
	if err != nil {
		return 0, err
	}
	if e.Watch != nil {
		e.Watch(scrub)
	}
	for _, t := range tasks {
		if err := e.eraseRows(ctx, t); err != nil {
			return 0, err
		}
	}
	if busy > 0 {
		return busyWait, e.save(tasks)
	}
	for _, t := range tasks {
		if err := e.eraseMasked(t, scrub); err != nil {
			return 0, err
		}
		if err := e.eraseContent(t, scrub); err != nil {
			return 0, err
		}
		if err := e.eraseFiles(t); err != nil {
			return 0, err
		}
	}
	// What one table says about several people is counted on the first receipt only
	// when there is one: receipts must not tell about others.
	common := map[string]int{}
	swept, busy, err := jobs.Sweep(ctx, e.App, func(job jobs.Stored) jobs.Change { return e.judge(job, tasks, scrub) })
	if err != nil {
		return 0, err
	}
	common["jobs"] = swept
	if busy > 0 {
		return busyWait, e.save(tasks)
	}
	if common["logs"], err = scrub.eraseLogs(ctx, e.App); err != nil {
		return 0, err
	}
	if err := e.scrubTexts(scrub); err != nil {
		return 0, err
	}
	if len(tasks) == 1 {
		for what, n := range common {
			tasks[0].count(what, n)
		}
	}
	return 0, e.erased(tasks)
}

func (e *Eraser) save(tasks []*task) error {
	for _, t := range tasks {
		if err := updateErasure(e.App, t.row.ID, dbx.Params{"counts": t.json()}); err != nil {
			return err
		}
	}
	return nil
}

// erased stores that everything is deleted, and deletes what told whose it was.
func (e *Eraser) erased(tasks []*task) error {
	return e.App.RunInTransaction(func(txApp core.App) error {
		for _, t := range tasks {
			if err := updateErasure(txApp, t.row.ID, dbx.Params{"status": ErasureCompacting, "counts": t.json()}); err != nil {
				return err
			}
			if _, err := txApp.DB().Delete("groundwork_sealed", dbx.HashExp{"id": t.row.ID}).Execute(); err != nil {
				return fmt.Errorf("delete trace of erasure %s: %w", t.row.ID, err)
			}
		}
		return EnqueueCompact(txApp)
	})
}

// eraseRows erases what is found by the id of the account.
func (e *Eraser) eraseRows(ctx context.Context, t *task) error {
	account := t.trace.Account
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var n int
		var err error
		if n, done, err = e.Sender.EraseDeliveries(account.ID); err != nil {
			return err
		}
		t.count("deliveries", n)
	}
	if t.trace.Person {
		if err := e.Sender.EraseFromBatches(account.ID); err != nil {
			return err
		}
		if err := e.Sender.EraseOrphans(account.ID); err != nil {
			return err
		}
	}
	hash := notifications.HashAddresses(e.Key.MAC)
	for channel, address := range map[notifications.Channel]string{notifications.ChannelEmail: t.trace.Email, notifications.ChannelSMS: t.trace.Phone} {
		if err := notifications.EraseSuppression(e.App, channel, address, hash); err != nil {
			return err
		}
	}
	for _, token := range t.trace.Tokens {
		if err := notifications.EraseSuppression(e.App, notifications.ChannelPush, token, hash); err != nil {
			return err
		}
	}
	if err := e.Forget(ctx, account.Collection, account.ID); err != nil {
		return err
	}
	return e.eraseAccountRows(t)
}

// eraseAccountRows erases what PocketBase deletes with the account too, for what a
// request under way stored afterwards, and our plain tables.
func (e *Eraser) eraseAccountRows(t *task) error {
	account := t.trace.Account
	refs := dbx.HashExp{"collectionRef": account.Collection, "recordRef": account.ID}
	tables := map[string]dbx.Expression{
		core.CollectionNameOTPs: refs, core.CollectionNameMFAs: refs, core.CollectionNameAuthOrigins: refs, core.CollectionNameExternalAuths: refs,
		"groundwork_sessions_required": refs,
		"groundwork_phone_codes":       dbx.HashExp{"collection": account.Collection, "record": account.ID},
	}
	if sessions, err := e.App.FindCachedCollectionByNameOrId(CollectionSessions); err == nil {
		tables[sessions.Name] = refs
	}
	for _, table := range slices.Sorted(maps.Keys(tables)) {
		res, err := e.App.NonconcurrentDB().Delete(table, tables[table]).Execute()
		if err != nil {
			return fmt.Errorf("erase from %s: %w", table, err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return fmt.Errorf("erase from %s: %w", table, err)
		}
		t.count(strings.TrimPrefix(table, "_"), int(n))
	}
	if !t.trace.Person {
		return nil
	}
	// Who had a device first is remembered for its next owner; nobody is a good answer.
	for _, column := range []string{"fromUser", "toUser"} {
		if _, err := e.App.NonconcurrentDB().Update("groundwork_device_moves", dbx.Params{column: ""}, dbx.HashExp{column: account.ID}).Execute(); err != nil {
			return fmt.Errorf("erase from groundwork_device_moves: %w", err)
		}
	}
	return nil
}

// eraseMasked erases messages that name no account, by the masked address, where
// nobody else has one that looks like it.
func (e *Eraser) eraseMasked(t *task, scrub *Scrub) error {
	for channel, masked := range map[notifications.Channel]string{
		notifications.ChannelEmail: notifications.MaskAddress(notifications.ChannelEmail, t.trace.Email),
		notifications.ChannelSMS:   notifications.MaskAddress(notifications.ChannelSMS, t.trace.Phone),
	} {
		if !scrub.masks[masked] {
			continue
		}
		for done := false; !done; {
			var n int
			var err error
			if n, done, err = e.Sender.EraseMailsTo(channel, masked); err != nil {
				return err
			}
			t.count("deliveries", n)
		}
	}
	return nil
}

// eraseContent erases what notifications said to the person, or about a record of
// theirs.
func (e *Eraser) eraseContent(t *task, scrub *Scrub) error {
	if err := notifications.EraseContent(e.App, t.trace.Notifications); err != nil {
		return err
	}
	if t.counts["notifications"] == 0 { // again after a crash
		t.count("notifications", len(t.trace.Notifications))
	}
	sources := make([]notifications.SourceRecord, 0, len(t.trace.Records)+1)
	for _, r := range append([]RecordRef{t.trace.Account}, t.trace.Records...) {
		sources = append(sources, notifications.SourceRecord{Collection: r.CollectionName, ID: r.ID})
	}
	about, err := notifications.FindNotificationsOf(e.App, sources)
	if err != nil {
		return err
	}
	if _, err := notifications.ScrubContent(e.App, about, scrub.Text); err != nil {
		return err
	}
	return notifications.EraseCopies(e.App, about)
}

// eraseFiles deletes the files of the records: PocketBase does it after the
// deletion, and a crash comes in between.
func (e *Eraser) eraseFiles(t *task) error {
	files, err := e.App.NewFilesystem()
	if err != nil {
		return fmt.Errorf("open file storage: %w", err)
	}
	defer func() { _ = files.Close() }() // nothing was written
	for _, r := range append([]RecordRef{t.trace.Account}, t.trace.Records...) {
		if errs := files.DeletePrefix(r.Collection + "/" + r.ID + "/"); len(errs) > 0 {
			return fmt.Errorf("delete files of an erased record: %w", errors.Join(errs...))
		}
	}
	return nil
}

// scrubTexts takes people out of the sentences that say what went wrong elsewhere.
func (e *Eraser) scrubTexts(scrub *Scrub) error {
	for collection, columns := range map[string][]string{
		notifications.CollectionProviders:     {"stateReason"},
		notifications.CollectionNotifications: {"statusReason"},
		schedules.Collection:                  {"lastError"},
		schedules.CollectionRuns:              {"output", "error"},
	} {
		c, err := e.App.FindCachedCollectionByNameOrId(collection)
		if err != nil {
			return fmt.Errorf("find collection %s: %w", collection, err)
		}
		if _, err := notifications.ScrubRows(e.App.NonconcurrentDB(), c.Name, columns, dbx.NewExp("[["+strings.Join(columns, "]] || [[")+"]] != ''"), scrub.Text); err != nil {
			return err
		}
	}
	return nil
}

// judgeHandover takes people out of a chunk of messages for another machine, or of the
// answers to one. The others in it stay.
func (e *Eraser) judgeHandover(job jobs.Stored, tasks []*task, scrub *Scrub) jobs.Change {
	var change jobs.Change
	args := job.Args
	for _, t := range tasks {
		erased, changed, err := notifications.EraseFromHandover(job.Kind, args, t.trace.Account.ID)
		if err != nil {
			e.Log.Error("a job with messages for another machine cannot be read; it is deleted", "kind", job.Kind, "error", err)
			return jobs.Change{Delete: true}
		}
		if changed {
			args, change.Args = erased, erased
		}
	}
	change.Errors = scrub.json(job.Errors, scrub.value)
	return change
}

// judge decides about a stored job.
func (e *Eraser) judge(job jobs.Stored, tasks []*task, scrub *Scrub) jobs.Change {
	if job.Kind == (EraseArgs{}).Kind() || job.Kind == (CompactArgs{}).Kind() {
		return jobs.Change{}
	}
	if job.Kind == (notifications.HandoverArgs{}).Kind() || job.Kind == (notifications.ResultArgs{}).Kind() {
		return e.judgeHandover(job, tasks, scrub)
	}
	var args struct {
		Notification string `json:"notification"`
		Delivery     string `json:"delivery"`
		Collection   string `json:"collection"`
		Record       string `json:"record"`
		User         string `json:"user"`
		Event        string `json:"event"`
	}
	_ = json.Unmarshal(job.Args, &args) // args of another shape name none of these
	for _, t := range tasks {
		switch {
		case args.User == t.trace.Account.ID,
			job.Owner == t.trace.Account.Collection+"/"+t.trace.Account.ID,
			args.Notification != "" && slices.Contains(t.trace.Notifications, args.Notification):
			return jobs.Change{Delete: true} // it was for this person alone
		case args.Record != "" && args.Event != notifications.EventDeleted && t.trace.has(args.Collection, args.Record):
			return jobs.Change{Delete: true} // there is nothing to tell about any more
		}
	}
	if job.Kind == (notifications.MailArgs{}).Kind() {
		// An erased delivery has another id.
		there, err := notifications.AccountMailExists(e.App, args.Delivery)
		if err != nil {
			e.Log.Error("the delivery of a mail's job cannot be looked for; its job is deleted", "error", err)
		}
		if !there {
			return jobs.Change{Delete: true}
		}
	}
	change := jobs.Change{Errors: scrub.json(job.Errors, scrub.value), Result: scrub.json(job.Result, scrub.value)}
	if job.Kind == (notifications.TriggerArgs{}).Kind() && args.Event == notifications.EventDeleted {
		// Others are still told that the record is gone.
		change.Args = scrub.json(job.Args, scrub.deletion)
	} else if stored, ok := decode(job.Args); ok && !slices.Contains(ourKinds, job.Kind) && scrub.names(stored) {
		change.Delete = true // the application's, about this person
	}
	return change
}

// ourKinds are the jobs of Groundwork that were looked at in the fields in which they
// name people. An id elsewhere is not a person's, though somebody may have given it to
// their own account.
var ourKinds = []string{
	notifications.PlanArgs{}.Kind(), notifications.BatchArgs{}.Kind(), notifications.CancelArgs{}.Kind(), notifications.FallbackArgs{}.Kind(),
	notifications.TriggerArgs{}.Kind(), notifications.DatesArgs{}.Kind(), notifications.TestArgs{}.Kind(), notifications.MailArgs{}.Kind(),
	notifications.PurgeArgs{}.Kind(), notifications.SMSPollArgs{}.Kind(), notifications.CheckArgs{}.Kind(), notifications.RecheckArgs{}.Kind(),
	notifications.ResumedArgs{}.Kind(), schedules.RunArgs{}.Kind(),
}
