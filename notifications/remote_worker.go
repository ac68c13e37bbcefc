package notifications

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/groundworkhq/groundwork/jobs"
)

// RemoteWorkerOptions configure a [RemoteWorker].
type RemoteWorkerOptions struct {
	// Providers are those of this machine's environment.
	Providers []ProviderConfig
	Factories map[ProviderChannel]ProviderFactory

	// Host is what people know this machine by.
	Host string

	Log *slog.Logger
}

// RemoteWorker hands over the messages of API processes on other machines. It needs no
// database but that of the jobs. See the comment at the top of remote.go.
type RemoteWorker struct {
	opts      RemoteWorkerOptions
	log       *slog.Logger
	providers map[string]ProviderConfig // by share key
	memory    chunkMemory

	mu       sync.Mutex
	gates    map[farLane]*Gate
	adapters map[farLane]Adapter
	mail     map[replyTo]*mailbag

	stopping chan struct{}
	stopOnce sync.Once
}

// farLane is what an adapter of its own is made for. All with the same server share a
// gate; see [lane].
type farLane struct{ share, environment, publicURL string }

// chunkMemory is what a chunk remembers in Postgres: the functions of package jobs that
// take the context of a job.
type chunkMemory struct {
	begin func(ctx context.Context, part string) (fresh bool, err error)
	reply func(ctx context.Context, args jobs.Args, o jobs.Options) error
}

// NewRemoteWorker returns a worker that works once [RemoteWorker.AddWorkers] and a
// [jobs.Remote] have it. The error says in a sentence each which providers cannot be
// used, or that there is none.
func NewRemoteWorker(opts RemoteWorkerOptions) (*RemoteWorker, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	w := &RemoteWorker{opts: opts, log: opts.Log, providers: map[string]ProviderConfig{}, gates: map[farLane]*Gate{}, adapters: map[farLane]Adapter{},
		mail: map[replyTo]*mailbag{}, memory: chunkMemory{jobs.Begin, jobs.Reply}, stopping: make(chan struct{})}
	var problems []error
	for _, cfg := range opts.Providers {
		cfg.ID, cfg.Source = EnvironmentProviderID(cfg.Channel), SourceEnvironment
		if !mayGoElsewhere(cfg) {
			continue
		}
		w.providers[ShareKey(cfg)] = cfg
		// Made once, so that a key that cannot be read is told at the start.
		if _, _, err := w.lane(farLane{share: ShareKey(cfg)}); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", cfg.Name, err))
		}
	}
	if len(problems) > 0 {
		w.Close()
		return nil, errors.Join(problems...)
	}
	if len(w.providers) == 0 {
		return nil, errors.New("this worker has no provider, so that there is nothing it could send: set the variables of at least one, such as SMTP_HOST and SMTP_FROM, to the same values as the server's")
	}
	return w, nil
}

// Shares are the keys of the providers, sorted.
func (w *RemoteWorker) Shares() []string { return slices.Sorted(maps.Keys(w.providers)) }

// AddWorkers registers the kind of job that it works.
func (w *RemoteWorker) AddWorkers(to *jobs.Workers) { jobs.AddWorker(to, handoverWorker{w}) }

// Drain begins no more messages: what is left of the chunks in hand goes back. Call it
// before the jobs are stopped.
func (w *RemoteWorker) Drain() { w.stopOnce.Do(func() { close(w.stopping) }) }

// Close lets go of the connections. Call it after the last job has ended.
func (w *RemoteWorker) Close() {
	w.Drain()
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, a := range w.adapters {
		if c, ok := a.(Closer); ok {
			if err := c.Close(); err != nil {
				w.log.Debug("provider closed with an error", "channel", string(w.providers[key.share].Channel), "error", scrub(err.Error(), w.providers[key.share].Secret))
			}
		}
	}
}

// lane returns the adapter of a lane and its gate, made at the first use. The error is
// one sentence.
func (w *RemoteWorker) lane(key farLane) (Adapter, *Gate, error) {
	cfg, ok := w.providers[key.share]
	if !ok {
		return nil, nil, plainError("it has no such provider")
	}
	if cfg.Channel == ProviderAPNs {
		cfg.Config = maps.Clone(cfg.Config)
		own, _ := cfg.Config["environment"].(string)
		key.environment = orElse(key.environment, orElse(own, "production"))
		cfg.Config["environment"] = key.environment
	}
	cfg.PublicURL = key.publicURL
	w.mu.Lock()
	defer w.mu.Unlock()
	server := farLane{share: key.share, environment: key.environment}
	if a := w.adapters[key]; a != nil {
		return a, w.gates[server], nil
	}
	factory := w.opts.Factories[cfg.Channel]
	if factory == nil {
		return nil, nil, plainError("this version cannot send on the channel " + string(cfg.Channel))
	}
	a, err := factory(cfg)
	if err != nil {
		return nil, nil, plainError(scrub(err.Error(), cfg.Secret))
	}
	if !fits(a, cfg.Channel) {
		return nil, nil, plainError("this version has the wrong kind of sender on the channel " + string(cfg.Channel))
	}
	w.adapters[key] = a
	if w.gates[server] == nil {
		w.gates[server] = gateFor(a, newPace(0)) // the rate is kept by who sends the chunks
	}
	return a, w.gates[server], nil
}

type handoverWorker struct{ w *RemoteWorker }

// Timeout implements [jobs.Timeouter]: every message has a deadline.
func (handoverWorker) Timeout() time.Duration { return -1 }

// RetryAfter implements [jobs.RetryScheduler].
func (handoverWorker) RetryAfter(int) time.Duration { return time.Second }

// Work implements [jobs.Worker].
func (h handoverWorker) Work(ctx context.Context, job *jobs.Job[HandoverArgs]) error {
	w, args := h.w, &job.Args
	var parts []handoverPart
	if err := args.Parts.unpack(&parts); err != nil {
		return jobs.Cancel(fmt.Errorf("messages of a chunk: %w", err))
	}
	r := &chunkRun{w: w, job: job, replies: &replies{w: w, ctx: context.WithoutCancel(ctx), job: job}}
	adapter, gate, err := w.lane(farLane{args.Share, args.Environment, args.PublicURL})
	switch cfg := w.providers[args.Share]; {
	case err != nil && cfg.Channel != "":
		r.refuseAll(parts, Outcome{Kind: ConfigBad, Explanation: "The worker on " + w.opts.Host + " cannot use this provider: " + err.Error() + "."})
	case err != nil:
		r.refuseAll(parts, Outcome{Kind: Retry, Explanation: "The worker on " + w.opts.Host + " does not have this provider."})
	case cfg.Channel != args.Channel || !fits(adapter, args.Channel):
		// A promotional text must not reach the other sender, whatever a job says.
		r.refuseAll(parts, Outcome{Kind: PayloadBad, Code: "crossed", Explanation: "This message was stopped: it was meant for another kind of sender."})
	default:
		r.adapter, r.gate = adapter, gate
		r.all(ctx, parts)
	}
	return r.replies.close()
}

// chunkRun is one attempt at one chunk.
type chunkRun struct {
	w       *RemoteWorker
	job     *jobs.Job[HandoverArgs]
	adapter Adapter
	gate    *Gate
	replies *replies

	mu                        sync.Mutex
	halted                    string // why no more are begun; empty: they are
	accepted, silent, refused int
}

func (r *chunkRun) refuseAll(parts []handoverPart, o Outcome) {
	for i := range parts {
		r.answer(&parts[i], o, false)
	}
}

func (r *chunkRun) answer(p *handoverPart, o Outcome, notBegun bool) {
	a := answer{Try: p.Try, Outcome: o, NotBegun: notBegun}
	if p.Message != nil {
		a.Delivery, a.User = p.Message.DeliveryID, p.Message.Target.UserID
	}
	r.replies.add(a)
}

// all hands over the parts, as many at a time as the gate lets through.
func (r *chunkRun) all(ctx context.Context, parts []handoverPart) {
	// A job whose context ends is to stop: because the server took the chunk back, or
	// because this process ends. Only then what is in flight is cut off, in the end.
	sending, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() {
		if r.w.isStopping() {
			cut()
		}
	})
	defer stop()
	beginning, stopBeginning := context.WithCancel(ctx)
	defer stopBeginning()
	go func() {
		select {
		case <-r.w.stopping:
			stopBeginning()
		case <-beginning.Done():
		}
	}()

	var flight sync.WaitGroup
	for i := range parts {
		p := &parts[i]
		if p.Message == nil || p.Message.Channel != r.job.Args.Channel.Channel() {
			r.answer(p, Outcome{Kind: PayloadBad, Code: "crossed", Explanation: "This message was stopped: it was meant for another kind of sender."}, false)
			continue
		}
		if p.Message.Channel == ChannelPush && r.job.Attempt > 1 {
			// Its first worker is gone, and may have sent it. The server knows what was
			// answered, and sends the rest again.
			r.answer(p, Outcome{Kind: Retry, Explanation: "The worker that had this message stopped; it is sent again and replaces itself."}, false)
			continue
		}
		if why := r.stops(ctx); why != "" {
			r.answer(p, Outcome{Kind: Retry, Explanation: why}, true)
			continue
		}
		if late, err := r.enter(beginning, p); err != nil {
			r.turnAway(ctx, p, late)
			continue
		}
		// What stops it may have come while this one waited: the place that it has got
		// is then one that was given back because of that.
		if why := r.stops(ctx); why != "" {
			r.gate.Release(Outcome{})
			r.answer(p, Outcome{Kind: Retry, Explanation: why}, true)
			continue
		}
		flight.Go(func() { r.one(ctx, sending, p) })
	}
	flight.Wait()
}

// stops says why no more is begun; empty: it is.
func (r *chunkRun) stops(ctx context.Context) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.halted != "":
		return r.halted
	case r.w.isStopping():
		return "The worker on " + r.w.opts.Host + " is shutting down."
	case ctx.Err() != nil:
		return "The chunk was taken back from the worker on " + r.w.opts.Host + "."
	default:
		return ""
	}
}

func (w *RemoteWorker) isStopping() bool {
	select {
	case <-w.stopping:
		return true
	default:
		return false
	}
}

// enter waits for a place at the gate. late says that the part's deadline came first.
func (r *chunkRun) enter(beginning context.Context, p *handoverPart) (late bool, err error) {
	waiting, cancel := context.WithDeadline(beginning, p.Deadline)
	defer cancel()
	err = r.gate.Acquire(waiting)
	return err != nil && errors.Is(waiting.Err(), context.DeadlineExceeded), err
}

// turnAway answers a part that was not begun.
func (r *chunkRun) turnAway(ctx context.Context, p *handoverPart, late bool) {
	if why := r.stops(ctx); why != "" && !late {
		r.answer(p, Outcome{Kind: Retry, Explanation: why}, true)
		return
	}
	// Not at once: the provider is slower than what comes.
	r.answer(p, Outcome{Kind: Retry, Explanation: "It waited too long for its turn at the worker on " + r.w.opts.Host + ", so it was not begun."}, false)
}

// one hands over a part that has a place at the gate.
func (r *chunkRun) one(ctx, sending context.Context, p *handoverPart) {
	m := p.Message
	if m.Channel != ChannelPush {
		fresh, err := r.mark(ctx, p)
		switch {
		case errors.Is(err, jobs.ErrTakenAway):
			r.gate.Release(Outcome{})
			return // who has it now answers
		case err != nil:
			r.gate.Release(Outcome{})
			r.turnAway(ctx, p, !time.Now().Before(p.Deadline))
			return
		case !fresh:
			r.gate.Release(Outcome{})
			r.answer(p, Outcome{Kind: Ambiguous,
				Explanation: "The worker that handed this message over stopped before its answer came, so it is not known whether it was sent. It is not sent again by itself."}, false)
			return
		}
	}
	if !time.Now().Before(p.Deadline) {
		r.gate.Release(Outcome{})
		r.turnAway(ctx, p, true)
		return
	}
	timed, cancel := context.WithTimeout(sending, handOverTimeout)
	outcome := safeSend(timed, r.w.log, r.adapter, m)
	cancel()
	outcome.Explanation = scrub(outcome.Explanation, r.w.providers[r.job.Args.Share].Secret)
	if outcome.Kind == ConfigBad {
		outcome.Explanation = "At the worker on " + r.w.opts.Host + ": " + outcome.Explanation
	}
	r.learn(outcome)
	r.gate.Release(outcome)
	r.answer(p, outcome, false)
	if outcome.Kind != Accepted {
		r.w.log.Info("delivery", "delivery", m.DeliveryID, "notification", m.NotificationID, "channel", string(r.job.Args.Channel), "job", r.job.ID,
			"outcome", outcome.Kind.String(), "code", outcome.Code, "requestId", m.RequestID)
	}
}

// mark remembers durably that a part is begun. Without Postgres it waits: nothing may
// leave that is not marked.
func (r *chunkRun) mark(ctx context.Context, p *handoverPart) (fresh bool, err error) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		fresh, err = r.w.memory.begin(ctx, p.Message.DeliveryID)
		if err == nil || errors.Is(err, jobs.ErrTakenAway) || r.stops(ctx) != "" || !time.Now().Add(wait).Before(p.Deadline) {
			return fresh, err
		}
		r.w.log.Warn("a message cannot be marked as begun, trying again", "job", r.job.ID, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		case <-r.w.stopping:
		}
	}
}

// learn ends the chunk where a pass over messages would end: see [handOver.settle].
func (r *chunkRun) learn(o Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	halt := false
	switch {
	case o.Kind == Accepted:
		r.accepted++
	case o.Kind == Ambiguous:
		r.silent++
		halt = r.silent >= maxSilent && r.accepted == 0
	case o.Kind == PayloadBad:
		r.refused++
		halt = r.refused >= badPayloads && r.accepted == 0
	case o.Kind == ConfigBad, o.Kind == Retry && o.ProviderDown:
		halt = true
	}
	if halt && r.halted == "" {
		r.halted = orElse(strings.TrimSpace(o.Explanation), "The provider cannot be reached.")
	}
}
