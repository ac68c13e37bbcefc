package jobs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/riverqueue/river"
)

// storeKeyClient is where a running client is found. app.Store() is shared by an
// app and its transactions.
const storeKeyClient = "groundwork.jobs.client"

const (
	defaultPriority    = 2
	defaultMaxAttempts = 25
	outboxPage         = 500
	outboxBytes        = 8 << 20 // of args in one page, about: they are in memory several times over
	timeLayout         = time.RFC3339Nano
)

// mostArgs is how large the args of a job may be, in bytes of JSON.
const mostArgs = 1 << 20

// Enqueue stores a job. With the app of a transaction it is stored when that
// commits and gone when it rolls back; otherwise at once. The returned id is
// public and random. Args of more than 1 MB, and options that cannot be, are an
// error.
//
// It is one insert into the app's own database: the move to River's happens
// outside the caller's transaction.
func Enqueue(app core.App, args Args, o Options) (string, error) {
	ids, err := EnqueueMany(app, []Args{args}, o)
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// EnqueueMany stores several jobs with the same options, as [Enqueue] does one, and
// all of them or none. It is many times faster than to enqueue them one by one.
func EnqueueMany(app core.App, args []Args, o Options) (ids []string, err error) {
	if app.TxInfo() == nil && len(args) > outboxPage {
		err := app.RunInTransaction(func(txApp core.App) error {
			ids, err = EnqueueMany(txApp, args, o)
			return err
		})
		return ids, err
	}
	if err := checkPlace(app, o); err != nil {
		return nil, fmt.Errorf("enqueue jobs: %w", err)
	}
	for page := range slices.Chunk(args, outboxPage) {
		rows := make([]outboxRow, len(page))
		for i, a := range page {
			if rows[i], err = newRow(a, o); err != nil {
				return nil, err
			}
			ids = append(ids, rows[i].ID)
		}
		raw, err := json.Marshal(rows)
		if err != nil {
			return nil, fmt.Errorf("encode jobs: %w", err)
		}
		_, err = app.NonconcurrentDB().NewQuery("INSERT INTO groundwork_outbox (id, kind, args, queue, priority, maxAttempts, runAt, uniqueKey, requestId, createdAt, owner, share)" +
			" SELECT value->>'id', value->>'kind', value->>'args', value->>'queue', value->>'priority', value->>'maxAttempts', value->>'runAt', value->>'uniqueKey', value->>'requestId'," +
			" value->>'createdAt', value->>'owner', value->>'share' FROM json_each({:rows})").Bind(dbx.Params{"rows": string(raw)}).Execute()
		if err != nil {
			return nil, fmt.Errorf("enqueue %d jobs %s: %w", len(rows), rows[0].Kind, err)
		}
	}
	if tx := app.TxInfo(); tx != nil {
		tx.OnComplete(func(txErr error) error {
			if txErr == nil {
				wake(app)
			}
			return nil
		})
		return ids, nil
	}
	wake(app)
	return ids, nil
}

func newRow(args Args, o Options) (outboxRow, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return outboxRow{}, fmt.Errorf("encode args of job %s: %w", args.Kind(), err)
	}
	if string(raw) == "null" {
		raw = []byte("{}") // River takes args that are null for none
	}
	if len(raw) > mostArgs {
		return outboxRow{}, fmt.Errorf("%w: those of this job %s have %d bytes", ErrArgsTooLarge, args.Kind(), len(raw))
	}
	// Scalars do not come through SQLite as they were: a text is refused, true becomes 1.
	if c := bytes.TrimLeft(raw, " \t\r\n"); c[0] != '{' && c[0] != '[' {
		return outboxRow{}, fmt.Errorf("the args of job %s are neither an object nor a list: write them as one, such as {\"id\": 1}", args.Kind())
	}
	// What has another form than RFC 3339 would be read as no time at all, which is now.
	if year := o.RunAt.UTC().Year(); year > 9999 {
		return outboxRow{}, fmt.Errorf("job %s cannot run in the year %d: the last one is 9999", args.Kind(), year)
	} else if year < 1 {
		o.RunAt = time.Time{}
	}
	row := outboxRow{ID: security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet), Kind: args.Kind(), Args: string(cleanJSON(raw)),
		Queue: cmp.Or(o.Queue, QueueDefault), Priority: cmp.Or(o.Priority, defaultPriority), MaxAttempts: cmp.Or(o.MaxAttempts, defaultMaxAttempts),
		UniqueKey: strings.ToValidUTF8(withoutNull(o.UniqueKey), "\ufffd"), RequestID: strings.ToValidUTF8(withoutNull(o.RequestID), "\ufffd"),
		CreatedAt: time.Now().UTC().Format(timeLayout), Owner: o.Owner, Share: o.Share}
	if !o.RunAt.IsZero() {
		row.RunAt = o.RunAt.UTC().Format(timeLayout)
	}
	if err := row.check(); err != nil {
		return outboxRow{}, fmt.Errorf("enqueue job %s: %w", row.Kind, err)
	}
	return row, nil
}

// ErrArgsTooLarge means that the args of a job are too large to be stored with it.
var ErrArgsTooLarge = errors.New("the args of a job may have 1 MB: store what is larger elsewhere and carry its id")

// ErrNeedsPostgres means that work cannot be shared: the jobs are in SQLite.
var ErrNeedsPostgres = errors.New("work is shared with other processes only through Postgres: set JOBS_DATABASE_URL")

var (
	kindPattern = regexp.MustCompile(`^\w[\w\-/.:+]+$`)
	namePattern = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)
)

func checkKind(kind string) error {
	if len(kind) > 120 || !kindPattern.MatchString(kind) {
		return fmt.Errorf("the kind %q cannot be one: use 2 to 120 letters, digits and . - _ / : +", kind)
	}
	return nil
}

// check says what is wrong with a job that no engine would take.
func (r outboxRow) check() error {
	if err := checkKind(r.Kind); err != nil {
		return err
	}
	switch {
	case len(r.Queue) > 40 || !namePattern.MatchString(r.Queue):
		return fmt.Errorf("the queue %q cannot be one: use at most 40 small letters, digits and single underscores", r.Queue)
	case r.Share != "" && (len(r.Share) > 40 || !namePattern.MatchString(r.Share)):
		return fmt.Errorf("the share key %q cannot be one: use at most 40 small letters, digits and single underscores", r.Share)
	case len(sharedQueue(r.Queue, r.Share)) > 64:
		return fmt.Errorf("the queue %q and the share key %q are too long together: at most 60 characters", r.Queue, r.Share)
	case r.Priority < 1 || r.Priority > 4:
		return fmt.Errorf("the priority %d cannot be one: use 1 (first) to 4 (last)", r.Priority)
	case r.MaxAttempts < 1 || r.MaxAttempts > 1000:
		return fmt.Errorf("%d attempts cannot be: use 1 to 1000", r.MaxAttempts)
	case !json.Valid([]byte(r.Args)):
		return errors.New("its args are not JSON")
	case r.Owner != "" && strings.Count(r.Owner, "/") != 1:
		return fmt.Errorf("the owner %q cannot be one: write <collectionId>/<recordId>", r.Owner)
	}
	return nil
}

// checkPlace says whether anybody could do the job.
func checkPlace(app core.App, o Options) error {
	c, _ := app.Store().Get(storeKeyClient).(*Client)
	address, _ := app.Store().Get(StoreKeyDatabaseURL).(string)
	if o.Share != "" && (c == nil || !c.shared) && address == "" {
		return ErrNeedsPostgres
	}
	if o.Share != "" || o.Queue == "" || c == nil {
		return nil
	}
	if _, ok := c.cfg.Workers[o.Queue]; !ok {
		return fmt.Errorf("nothing works the queue %q: there are %s", o.Queue, strings.Join(slices.Sorted(maps.Keys(c.cfg.Workers)), ", "))
	}
	return nil
}

// Queues of River's. Those of an installation are its own: several may share one
// Postgres. Shared work goes to whoever holds the key.
func ownQueue(queue, origin string) string {
	if origin == "" {
		return queue
	}
	return queue + "_" + origin
}

func sharedQueue(queue, share string) string { return queue + "_at_" + share }

// plainQueue is the name under which a job was enqueued.
func plainQueue(queue string) string {
	if plain, _, ok := strings.Cut(queue, "_at_"); ok {
		return plain
	}
	if i := len(queue) - core.DefaultIdLength - 1; i > 0 && queue[i] == '_' {
		return queue[:i]
	}
	return queue
}

func wake(app core.App) {
	if c, ok := app.Store().Get(storeKeyClient).(*Client); ok {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// ErrNotRunning means that this process works no jobs of this app.
var ErrNotRunning = errors.New("no jobs run in this process")

// CountDue returns how many jobs of app are due and not finished: those in the
// outbox, waiting for a worker, or being worked. Jobs for later, and those that
// wait for another attempt, do not count. The error is [ErrNotRunning] unless a
// [Client] works them here.
func CountDue(ctx context.Context, app core.App) (int, error) {
	c, ok := app.Store().Get(storeKeyClient).(*Client)
	if !ok {
		return 0, ErrNotRunning
	}
	// A job may enqueue another one and end, and a row may move, between two of
	// the counts: only their order makes "none" mean none.
	total := 0
	for _, count := range []func(*int) error{c.countTaken(ctx), c.countOutbox, c.countTaken(ctx)} {
		n := 0
		if err := count(&n); err != nil {
			return 0, err
		}
		total = max(total, n)
	}
	return total, nil
}

func (c *Client) countOutbox(n *int) error {
	if err := c.app.ConcurrentDB().Select("COUNT(*)").From("groundwork_outbox").Row(n); err != nil {
		return fmt.Errorf("count outbox: %w", err)
	}
	return nil
}

func (c *Client) countTaken(ctx context.Context) func(*int) error {
	return func(n *int) error {
		if err := queryRow(ctx, c.engine, []any{n}, "SELECT COUNT(*) FROM river_job WHERE state IN ('available', 'running') AND "+mine(c.origin)); err != nil {
			return fmt.Errorf("count jobs: %w", err)
		}
		return nil
	}
}

// outboxRow is a stored job that is not River's yet.
type outboxRow struct {
	ID          string `db:"id" json:"id"`
	Kind        string `db:"kind" json:"kind"`
	Args        string `db:"args" json:"args"`
	Queue       string `db:"queue" json:"queue"`
	Priority    int    `db:"priority" json:"priority"`
	MaxAttempts int    `db:"maxAttempts" json:"maxAttempts"`
	RunAt       string `db:"runAt" json:"runAt"`
	UniqueKey   string `db:"uniqueKey" json:"uniqueKey"`
	RequestID   string `db:"requestId" json:"requestId"`
	CreatedAt   string `db:"createdAt" json:"createdAt"`
	Owner       string `db:"owner" json:"owner"`
	Share       string `db:"share" json:"share"`
}

// relay moves outbox rows to River until there are none. It is called by one
// goroutine of a process; several processes may do it at once.
//
// The two databases share no transaction. So River's database remembers the id
// of each row it took, in the same transaction as the job: after a crash
// between that and the deletion of the row, the row is seen to be taken.
func (c *Client) relay(ctx context.Context) error {
	for ctx.Err() == nil {
		rows, err := c.nextRows()
		if err != nil {
			return fmt.Errorf("read outbox: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		taken, err := take(ctx, c.engine, c.origin, rows)
		if err != nil && len(rows) > 1 && c.engine.refuses(err) {
			taken, err = c.takeSingly(ctx, rows)
		}
		if len(taken) > 0 {
			c.arrived()
			if _, err := c.app.NonconcurrentDB().Delete("groundwork_outbox", dbx.HashExp{"id": taken}).Execute(); err != nil {
				return fmt.Errorf("clear outbox: %w", err)
			}
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// nextRows are the first rows of the outbox, one at least: a page of jobs with large args
// has fewer.
func (c *Client) nextRows() (rows []outboxRow, err error) {
	found, err := c.app.ConcurrentDB().Select("*").From("groundwork_outbox").OrderBy("rowid").Limit(outboxPage).Rows()
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for bytes := 0; bytes < outboxBytes && found.Next(); {
		var row outboxRow
		if err := found.ScanStruct(&row); err != nil {
			return nil, err
		}
		rows = append(rows, row)
		bytes += len(row.Args)
	}
	return rows, found.Err()
}

// takeSingly takes rows of which one at least is refused: that is set aside, where
// it can be seen.
func (c *Client) takeSingly(ctx context.Context, rows []outboxRow) (taken []any, err error) {
	for _, row := range rows {
		_, err := take(ctx, c.engine, c.origin, []outboxRow{row})
		if err != nil && c.engine.refuses(err) {
			c.log.Error("a job cannot be stored as it is, and is given up", "kind", row.Kind, "job", row.ID, "error", err)
			why := fmt.Errorf("The job cannot be stored as it is: %w", err) //nolint:staticcheck // a sentence: the monitor shows it
			err = c.engine.inTx(ctx, func(tx transaction) error {
				if _, err := remember(ctx, tx, []outboxRow{row}, time.Now()); err != nil {
					return err
				}
				return setAside(ctx, c.engine, tx, c.origin, row, StateDiscarded, why)
			})
		}
		if err != nil {
			return taken, err
		}
		taken = append(taken, row.ID)
	}
	return taken, nil
}

// take makes rows jobs of River's, those that are not yet. It returns their ids.
func take(ctx context.Context, e engine, origin string, rows []outboxRow) (taken []any, err error) {
	now := time.Now()
	err = e.inTx(ctx, func(tx transaction) error {
		// Two processes of one installation could both find that a unique job is not
		// there. For others nobody waits.
		if slices.ContainsFunc(rows, func(row outboxRow) bool { return row.UniqueKey != "" }) {
			if err := e.serialize(ctx, tx, origin); err != nil {
				return err
			}
		}
		fresh, err := remember(ctx, tx, rows, now)
		if err != nil {
			return err
		}
		there, err := uniqueThere(ctx, tx, origin, rows)
		if err != nil {
			return err
		}
		jobs := make([]river.InsertManyParams, 0, len(rows))
		for _, row := range rows {
			key := row.Kind + "\x00" + row.UniqueKey
			if !fresh[row.ID] || row.UniqueKey != "" && there[key] {
				continue // taken before a crash, or one like it is waiting
			}
			if err := row.check(); err != nil {
				if err := setAside(ctx, e, tx, origin, row, StateDiscarded, fmt.Errorf("The job cannot be stored as it is: %w", err)); err != nil { //nolint:staticcheck // a sentence: the monitor shows it
					return err
				}
				continue
			}
			there[key] = true
			job, err := row.params(origin, now)
			if err != nil {
				return err
			}
			jobs = append(jobs, job)
		}
		return tx.insert(ctx, jobs)
	})
	if err != nil {
		return nil, fmt.Errorf("take %d jobs: %w", len(rows), err)
	}
	for _, row := range rows {
		taken = append(taken, row.ID)
	}
	return taken, nil
}

// remember returns which rows were not taken before, and remembers them.
func remember(ctx context.Context, tx querier, rows []outboxRow, now time.Time) (map[string]bool, error) {
	fresh := make(map[string]bool, len(rows))
	values, args := make([]string, len(rows)), []any{now.Unix()}
	for i, row := range rows {
		values[i] = fmt.Sprintf("($%d, $1)", i+2)
		args = append(args, row.ID)
	}
	found, err := tx.query(ctx, "INSERT INTO groundwork_relayed (id, at) VALUES "+strings.Join(values, ", ")+" ON CONFLICT DO NOTHING RETURNING id", args...)
	if err != nil {
		return nil, fmt.Errorf("remember jobs: %w", err)
	}
	defer found.Close()
	for found.Next() {
		var id string
		if err := found.Scan(&id); err != nil {
			return nil, fmt.Errorf("remember jobs: %w", err)
		}
		fresh[id] = true
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("remember jobs: %w", err)
	}
	return fresh, nil
}

// uniqueThere returns which unique jobs there are that did not end, as kind and key.
func uniqueThere(ctx context.Context, tx querier, origin string, rows []outboxRow) (map[string]bool, error) {
	there := map[string]bool{}
	var keys []string
	for _, row := range rows {
		if row.UniqueKey != "" {
			keys = append(keys, row.UniqueKey)
		}
	}
	if len(keys) == 0 {
		return there, nil
	}
	parameters, args := list(1, keys)
	found, err := tx.query(ctx, "SELECT kind, metadata->>'gwUnique' FROM river_job WHERE metadata->>'gwUnique' IS NOT NULL AND metadata->>'gwUnique' IN ("+parameters+")"+
		" AND state NOT IN ('completed', 'cancelled', 'discarded') AND "+mine(origin), args...)
	if err != nil {
		return nil, fmt.Errorf("find unique jobs: %w", err)
	}
	defer found.Close()
	for found.Next() {
		var kind, key string
		if err := found.Scan(&kind, &key); err != nil {
			return nil, fmt.Errorf("find unique jobs: %w", err)
		}
		there[kind+"\x00"+key] = true
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("find unique jobs: %w", err)
	}
	return there, nil
}

// mine is the condition that a job is of an installation. Its name has letters and
// digits only.
func mine(origin string) string {
	if origin == "" {
		return "TRUE"
	}
	return "metadata->>'gwOrigin' = '" + origin + "'"
}

func (r outboxRow) metadata(origin string, now time.Time) ([]byte, error) {
	created, err := time.Parse(timeLayout, r.CreatedAt)
	if err != nil {
		created = now
	}
	metadata, err := json.Marshal(meta{ID: r.ID, RequestID: r.RequestID, UniqueKey: r.UniqueKey, EnqueuedAt: created, Origin: origin, Owner: r.Owner})
	if err != nil {
		return nil, fmt.Errorf("encode metadata of job %s: %w", r.ID, err)
	}
	return metadata, nil
}

func (r outboxRow) params(origin string, now time.Time) (river.InsertManyParams, error) {
	metadata, err := r.metadata(origin, now)
	if err != nil {
		return river.InsertManyParams{}, err
	}
	queue := ownQueue(r.Queue, origin)
	if r.Share != "" {
		queue = sharedQueue(r.Queue, r.Share)
	}
	opts := &river.InsertOpts{Queue: queue, Priority: r.Priority, MaxAttempts: r.MaxAttempts, Metadata: metadata}
	if at, err := time.Parse(timeLayout, r.RunAt); err == nil && at.After(now) {
		opts.ScheduledAt = at
	}
	return river.InsertManyParams{Args: named{r.Kind, json.RawMessage(r.Args)}, InsertOpts: opts}, nil
}

// setAside stores what can be of a job that is not to be done, as one that ended in
// a state for a reason.
func setAside(ctx context.Context, e engine, tx querier, origin string, row outboxRow, state string, why error) error {
	metadata, err := row.metadata(origin, time.Now())
	if err != nil {
		return err
	}
	stored := outboxRow{Kind: row.Kind, Queue: QueueDefault, Args: "{}", Priority: 1, MaxAttempts: 1}
	if row.check() == nil {
		stored = row
	}
	if checkKind(stored.Kind) != nil {
		stored.Kind = "unknown"
	}
	if e.refuses(why) {
		stored.Args = "{}"
	}
	queue := ownQueue(stored.Queue, origin)
	if stored.Share != "" {
		queue = sharedQueue(stored.Queue, stored.Share)
	}
	if _, err := tx.exec(ctx, "INSERT INTO river_job (kind, queue, args, attempt, max_attempts, priority, state, finalized_at, metadata)"+
		" VALUES ($1, $2, "+e.value("$3")+", 0, $4, $5, "+e.state("$6")+", "+e.now()+", "+e.value("$7")+")",
		stored.Kind, queue, stored.Args, stored.MaxAttempts, stored.Priority, state, string(metadata)); err != nil {
		return fmt.Errorf("set job %s aside: %w", row.ID, err)
	}
	_, err = tx.exec(ctx, "UPDATE river_job SET errors = "+e.andFailure("$1")+" WHERE metadata->>'gwId' = $2", strings.ToValidUTF8(why.Error(), " "), row.ID)
	if err != nil {
		return fmt.Errorf("tell why job %s was set aside: %w", row.ID, err)
	}
	return nil
}
