package notifications

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"

	"github.com/groundworkhq/groundwork/jobs"
)

const (
	// chunkSize is how many messages are one job, at most.
	chunkSize = 100

	// chunkLinger is how long a message waits for others to share its job.
	chunkLinger = 50 * time.Millisecond

	// maxChunkBytes is the largest job. Package jobs refuses more than 1 MB.
	maxChunkBytes = 900_000

	// handoverAttempts is how often workers may try at a chunk: each of them may be
	// killed.
	handoverAttempts = 5

	// lookEvery is how often the chunks on their way are looked at.
	lookEvery = time.Second

	// goneAfter is how long nobody may be there before the chunks are taken back: a
	// worker that is started again is back by then.
	goneAfter = 5 * time.Second

	// foreignAfter is how old a message without an answer is when its row is looked
	// at: another API process on the same folder may have got the answer.
	foreignAfter = 5 * time.Second
)

// RemoteOptions configure a [Remote].
type RemoteOptions struct {
	App      core.App
	Machines Machines

	// Only says that this process hands nothing over itself that a worker can (serve
	// --no-workers).
	Only bool

	Log *slog.Logger
}

// Remote is the desk of this process at which messages wait for workers on other
// machines: it makes chunks of them and gives each its answer. It is safe for
// concurrent use. See the comment at the top of remote.go.
type Remote struct {
	opts    RemoteOptions
	log     *slog.Logger
	process string

	mu      sync.Mutex
	filling map[chunkKey]*chunk
	waiting map[string]*waiter // by delivery
	takers  map[Work]*takers
	tell    map[*farAdapter]func(workers int) // see follow
	closed  bool                              // new messages are not taken
	left    bool                              // nobody waits any more

	gone func(Work)    // see [Providers.SendElsewhere]
	came func(Work)    // a worker is there again
	idle chan struct{} // closed when nobody waits, while draining

	stop     chan struct{} // ends watch
	stopOnce sync.Once
	watching sync.WaitGroup
}

// chunkKey is what the messages of one job have in common.
type chunkKey struct {
	share, environment, publicURL, queue string
	channel                              ProviderChannel
}

func (k chunkKey) work() Work { return Work{k.queue, k.share} }

// chunk is a job that is being put together.
type chunk struct {
	key   chunkKey
	all   []*waiter
	timer *time.Timer
}

// waiter is a message whose answer has not come, or is not stored yet.
type waiter struct {
	key    chunkKey
	msg    *Message
	since  time.Time
	job    string // empty as long as there is none
	answer chan Outcome

	// answered and what follows: the answer was given, and stored is closed when it is
	// in the database.
	answered bool
	stored   chan struct{}
}

// takers is what is known of who takes some work.
type takers struct {
	hosts    []string
	lastSeen time.Time // when somebody was there
}

// NewRemote returns a desk. It does nothing until [Remote.Start].
func NewRemote(opts RemoteOptions) *Remote {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Remote{opts: opts, log: opts.Log, process: security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet),
		filling: map[chunkKey]*chunk{}, waiting: map[string]*waiter{}, takers: map[Work]*takers{}, tell: map[*farAdapter]func(int){},
		stop: make(chan struct{})}
}

// Start watches the workers. [Remote.Close] ends it.
func (r *Remote) Start() { r.watching.Go(r.watch) }

// Drain takes no more messages and waits until those on their way have their answers,
// or ctx ends. Call it while jobs still run: the answers are jobs.
func (r *Remote) Drain(ctx context.Context) {
	r.mu.Lock()
	r.closed = true
	for key, c := range r.filling {
		c.timer.Stop()
		delete(r.filling, key)
		for _, w := range c.all {
			r.giveLocked(w, notBegun("The server is shutting down."))
		}
	}
	idle := make(chan struct{})
	if r.openLocked() == 0 {
		close(idle)
	} else {
		r.idle = idle
	}
	r.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	r.leave()
}

// leave sends those away who still wait. Their answers come all the same and are
// stored by whoever is there then.
func (r *Remote) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.left = true, true
	for _, w := range r.waiting {
		r.giveLocked(w, Outcome{elsewhere: true})
	}
}

// Close lets go of everything, at once.
func (r *Remote) Close() {
	r.leave()
	r.stopOnce.Do(func() { close(r.stop) })
	r.watching.Wait()
}

// openLocked is how many wait for an answer. The caller holds mu.
func (r *Remote) openLocked() int {
	n := 0
	for _, w := range r.waiting {
		if !w.answered {
			n++
		}
	}
	return n
}

func notBegun(sentence string) Outcome {
	return Outcome{Kind: Retry, Explanation: sentence, notBegun: true}
}

// send waits for the answer of a worker. It ends in any case: an answer comes, or the
// time for one is over (see look), or this process shuts down.
func (r *Remote) send(key chunkKey, m *Message) Outcome {
	w := &waiter{key: key, msg: m, since: time.Now(), answer: make(chan Outcome, 1), stored: make(chan struct{})}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return notBegun("The server is shutting down.")
	}
	if r.waiting[m.DeliveryID] != nil {
		r.mu.Unlock()
		return Outcome{Kind: Retry, Explanation: "The answer to the last try is not stored yet."}
	}
	r.waiting[m.DeliveryID] = w
	c := r.filling[key]
	if c == nil {
		c = &chunk{key: key}
		c.timer = time.AfterFunc(chunkLinger, func() { r.flush(c) })
		r.filling[key] = c
	}
	c.all = append(c.all, w)
	if full := len(c.all) >= chunkSize; full {
		c.timer.Stop()
		delete(r.filling, key)
		r.mu.Unlock()
		r.handOut(key, c.all)
	} else {
		r.mu.Unlock()
	}
	return <-w.answer
}

// flush makes a job of a chunk that is not full.
func (r *Remote) flush(c *chunk) {
	r.mu.Lock()
	if r.filling[c.key] != c {
		r.mu.Unlock()
		return
	}
	delete(r.filling, c.key)
	r.mu.Unlock()
	r.handOut(c.key, c.all)
}

// handOut stores the job of a chunk, or of two halves where one would be too large.
func (r *Remote) handOut(key chunkKey, all []*waiter) {
	parts := make([]handoverPart, len(all))
	for i, w := range all {
		parts[i] = handoverPart{Try: w.msg.try.number, Deadline: w.msg.try.deadline, Message: w.msg}
	}
	body, err := pack(parts)
	switch {
	case err != nil:
		r.log.Error("messages cannot be packed for a worker", "messages", len(all), "error", err)
		r.give(all, Outcome{Kind: PayloadBad, Explanation: "This message cannot be passed on to another machine."})
		return
	case len(body) > maxChunkBytes && len(all) > 1:
		r.handOut(key, all[:len(all)/2])
		r.handOut(key, all[len(all)/2:])
		return
	case len(body) > maxChunkBytes:
		r.give(all, Outcome{Kind: PayloadBad, Explanation: "This message is larger than what can be passed on to another machine (1 MB): make its pictures and attachments links."})
		return
	}
	id, err := r.opts.Machines.Enqueue(HandoverArgs{Share: key.share, Channel: key.channel, Environment: key.environment, PublicURL: key.publicURL,
		Process: r.process, Messages: len(parts), Parts: body}, jobs.Options{Queue: key.queue, Share: key.share, MaxAttempts: handoverAttempts})
	if err != nil {
		r.log.Error("messages cannot be stored for a worker", "messages", len(all), "error", err)
		r.give(all, Outcome{Kind: Retry, ProviderDown: true, Explanation: "The database cannot be written at the moment."})
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range all {
		w.job = id
	}
}

func (r *Remote) give(all []*waiter, o Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range all {
		r.giveLocked(w, o)
	}
}

// giveLocked answers a waiter; a second answer is for nobody. The caller holds mu.
func (r *Remote) giveLocked(w *waiter, o Outcome) {
	if w.answered {
		return
	}
	w.answered = true
	w.answer <- o
	if o.elsewhere {
		delete(r.waiting, w.msg.DeliveryID) // nothing of it will be stored by whoever waited
		close(w.stored)
	}
	if r.idle != nil && r.openLocked() == 0 {
		close(r.idle)
		r.idle = nil
	}
}

// take gives an answer to whoever waits for it. stored is closed when it is in the
// database. ours is false when nobody waits for this answer any more.
func (r *Remote) take(a answer) (stored <-chan struct{}, ours bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.waiting[a.Delivery]
	if w == nil || w.msg.try.number != a.Try {
		return nil, false
	}
	if w.answered {
		return w.stored, false
	}
	r.giveLocked(w, a.outcome())
	return w.stored, true
}

func (a answer) outcome() Outcome {
	o := a.Outcome
	if o.Kind < Accepted || o.Kind > Ambiguous {
		o = Outcome{Kind: Ambiguous, Explanation: "The worker's answer could not be understood, so it is not known whether this message was sent."}
	}
	o.notBegun = a.NotBegun && o.Kind == Retry
	return o
}

// settled is called when the results of deliveries are stored.
func (r *Remote) settled(ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if w := r.waiting[id]; w != nil && w.answered {
			delete(r.waiting, id)
			close(w.stored)
		}
	}
}

// inFlightPerWorker is how many messages per worker are on their way: enough to keep it busy
// while answers travel.
func inFlightPerWorker(l Limits) int {
	return min(max(25*max(l.MaxInFlight, l.StartInFlight), 200), 2000)
}

// follow calls tell with the number of workers that have the adapter's provider, now
// and whenever it changes, until [Remote.unfollow].
func (r *Remote) follow(a *farAdapter, tell func(workers int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell[a] = tell
	tell(r.workersLocked(a.key.share))
}

func (r *Remote) unfollow(a *farAdapter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.tell, a)
}

// workersLocked is how many workers take chunks of a provider, from the queue that has
// the most. The caller holds mu.
func (r *Remote) workersLocked(share string) int {
	n := 0
	for work, t := range r.takers {
		if work.Share == share {
			n = max(n, len(t.hosts))
		}
	}
	return n
}

func (r *Remote) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// alive says whether somebody takes work. The error is that Postgres does not answer.
func (r *Remote) alive(ctx context.Context, work Work) (bool, error) {
	all, err := r.opts.Machines.Takers(ctx)
	if err != nil {
		return false, err
	}
	r.note(all)
	return len(all[work]) > 0, nil
}

// others returns a host whose worker has another provider of the same channel, or
// takes from other queues.
func (r *Remote) others(work Work) (host string, otherQueue bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for other, t := range r.takers {
		switch {
		case len(t.hosts) == 0:
		case other.Share == work.Share:
			return t.hosts[0], true
		case shareChannel(other.Share) == shareChannel(work.Share):
			host = t.hosts[0]
		}
	}
	return host, false
}

// note compares who is alive with who was.
func (r *Remote) note(all map[Work][]string) {
	r.mu.Lock()
	var came []Work
	for work, hosts := range all {
		t := r.takers[work]
		if t == nil {
			t = &takers{}
			r.takers[work] = t
		}
		if len(hosts) > 0 && len(t.hosts) == 0 {
			came = append(came, work)
		}
	}
	now := time.Now()
	for work, t := range r.takers {
		if t.hosts = all[work]; len(t.hosts) > 0 {
			t.lastSeen = now
		}
	}
	for a, tell := range r.tell {
		tell(r.workersLocked(a.key.share))
	}
	tellCame := r.came
	r.mu.Unlock()
	for _, work := range came {
		r.log.Info("a worker on another machine takes messages", "queue", work.Queue, "provider", work.Share)
		if tellCame != nil {
			tellCame(work)
		}
	}
}

// isGoneLocked says that nobody has taken some work for a while. The caller holds mu.
func (r *Remote) isGoneLocked(work Work, now time.Time) bool {
	t := r.takers[work]
	return t == nil || len(t.hosts) == 0 && now.Sub(t.lastSeen) > goneAfter
}

func (r *Remote) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-r.stop
		cancel()
	}()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.look(ctx)
		case <-r.stop:
			return
		}
	}
}

// look ends the wait of those whom nobody will answer.
func (r *Remote) look(ctx context.Context) {
	all, err := r.opts.Machines.Takers(ctx)
	if err == nil {
		r.note(all)
	}
	now := time.Now()
	gone := map[Work]bool{}
	lost, late := map[string][]*waiter{}, map[string][]*waiter{} // by job
	var old []string
	r.mu.Lock()
	for id, w := range r.waiting {
		if w.answered || w.job == "" {
			continue
		}
		work := w.key.work()
		switch {
		case now.After(w.msg.try.answerBy()):
			late[w.job] = append(late[w.job], w)
		case err == nil && r.isGoneLocked(work, now):
			gone[work] = true
			lost[w.job] = append(lost[w.job], w)
		}
		if now.Sub(w.since) > foreignAfter {
			old = append(old, id)
		}
	}
	tellGone := r.gone
	r.mu.Unlock()

	for work := range gone {
		if tellGone != nil {
			tellGone(work)
		}
	}
	for job, waiters := range lost {
		r.takeBack(ctx, job, waiters, false)
	}
	for job, waiters := range late {
		r.takeBack(ctx, job, waiters, true)
	}
	r.lookForSettled(old)
}

// takeBack ends a chunk. In the end all its messages have an answer; before that only
// those of which it is sure that they did not leave.
func (r *Remote) takeBack(ctx context.Context, job string, waiters []*waiter, end bool) {
	found, err := r.opts.Machines.TakeBack(ctx, job)
	if err != nil {
		r.log.Warn("a chunk of messages cannot be taken back from the workers", "job", job, "messages", len(waiters), "error", err)
	}
	over := err == nil && found.Over
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range waiters {
		isPush := w.msg.Channel == ChannelPush
		switch {
		case over && (!found.Taken || !isPush && !found.Begun[w.msg.DeliveryID]):
			r.giveLocked(w, notBegun("No worker took this message in time."))
		case over && isPush, end && isPush:
			r.giveLocked(w, Outcome{Kind: Retry, Explanation: "The worker that had this message did not answer; it is sent again and replaces itself."})
		case end:
			r.giveLocked(w, Outcome{Kind: Ambiguous, Explanation: "The worker that had this message did not answer, so it is not known whether it was sent. It is not sent again by itself."})
		}
	}
}

// lookForSettled sends those away whose answer was stored by another API process on
// the same folder.
func (r *Remote) lookForSettled(ids []string) {
	for page := range slices.Chunk(ids, 500) {
		table, err := tableName(r.opts.App, CollectionDeliveries)
		if err != nil {
			return
		}
		var over []string
		err = r.opts.App.ConcurrentDB().Select("id").From(table).
			Where(dbx.NewExp("[[id]] IN (SELECT value FROM json_each({:ids})) AND [[status]] NOT IN ('pending', 'sending')", dbx.Params{"ids": mustJSON(page)})).Column(&over)
		if err != nil {
			r.log.Error("it cannot be found out which messages have their answers", "error", err)
			return
		}
		r.mu.Lock()
		for _, id := range over {
			if w := r.waiting[id]; w != nil {
				r.giveLocked(w, Outcome{elsewhere: true})
			}
		}
		r.mu.Unlock()
	}
}
