package notifications

import (
	"context"
	"errors"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// maxRemoteMessage is how large a message may be to be passed on: below what fits
// into a job however badly it can be compressed. Larger ones are sent from here.
const maxRemoteMessage = 600_000

// farAdapter stands in for an adapter whose provider a worker has. It is one of three
// types, so that what fits a channel here also fits it there.
type farAdapter struct {
	desk   *Remote
	key    chunkKey // without its queue
	near   Adapter  // for what is too large to be passed on
	limits Limits
}

type (
	farProvider      struct{ farAdapter }
	farTransactional struct{ farAdapter }
	farPromotional   struct{ farAdapter }
)

// Send implements [Provider].
func (a *farProvider) Send(ctx context.Context, m *Message) Outcome { return a.send(ctx, m) }

// SendTransactional implements [TransactionalSMSSender].
func (a *farTransactional) SendTransactional(ctx context.Context, t TransactionalSMS) Outcome {
	return a.send(ctx, t.message(KindTransactional))
}

// SendPromotional implements [PromotionalSMSSender].
func (a *farPromotional) SendPromotional(ctx context.Context, t PromotionalSMS) Outcome {
	return a.send(ctx, t.message(KindPromotional))
}

// message is the way back from newSMS.
func (s sms) message(kind Kind) *Message {
	return &Message{DeliveryID: s.deliveryID, RequestID: s.requestID, Channel: ChannelSMS, Kind: kind,
		Target: Target{UserID: s.userID, Address: s.to}, Body: s.body, Expires: s.expires, try: s.try}
}

func (a *farAdapter) send(ctx context.Context, m *Message) Outcome {
	if m.size() > maxRemoteMessage {
		ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
		defer cancel()
		return handTo(ctx, a.near, m)
	}
	key := a.key
	key.queue = m.try.queue
	return a.desk.send(key, m)
}

// size is about how many bytes a message has.
func (m *Message) size() int {
	n := len(m.Title) + len(m.Body) + len(m.Link) + len(m.Image)
	if e := m.Email; e != nil {
		n += len(e.Subject) + len(e.Text) + len(e.HTML)
		for _, a := range e.Attachments {
			n += len(a.Bytes)*4/3 + len(a.Name)
		}
	}
	return n
}

// Limits implements [Limiter].
func (a *farAdapter) Limits() Limits { return a.limits }

// maxWorkers is how many workers of a provider count.
const maxWorkers = 16

// OnCapacity implements [CapacityTeller]: each worker adds what keeps it busy.
func (a *farAdapter) OnCapacity(tell func(inFlight int)) {
	each := a.limits.MaxInFlight / maxWorkers
	a.desk.follow(a, func(workers int) { tell(max(workers, 1) * each) })
}

// Close implements [Closer].
func (a *farAdapter) Close() error {
	a.desk.unfollow(a)
	if c, ok := a.near.(Closer); ok {
		return c.Close()
	}
	return nil
}

// far wraps an adapter of this process.
func (r *Remote) far(near Adapter, cfg ProviderConfig, environment string) Adapter {
	var limits Limits
	if l, ok := near.(Limiter); ok {
		limits = l.Limits()
	}
	each := inFlightPerWorker(limits)
	a := farAdapter{desk: r, near: near, limits: Limits{StartInFlight: each / 2, MaxInFlight: maxWorkers * each},
		key: chunkKey{share: ShareKey(cfg), environment: environment, publicURL: cfg.PublicURL, channel: cfg.Channel}}
	switch cfg.Channel {
	case ProviderSMSTransactional:
		return &farTransactional{a}
	case ProviderSMSPromotional:
		return &farPromotional{a}
	default:
		return &farProvider{a}
	}
}

// nobodyError means that only a worker may send this and that none is there.
type nobodyError struct{ providerID, sentence string }

func (e *nobodyError) Error() string { return e.sentence }

var errShuttingDown = errors.New("the server is shutting down")

// SendElsewhere lets workers on other machines hand over what providers from the
// environment send. Call it before anything is sent.
func (p *Providers) SendElsewhere(r *Remote) {
	r.gone = p.nobodyLeft
	if r.opts.Only {
		r.came = p.somebodyCame
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remote = r
}

func (p *Providers) desk() *Remote {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.remote
}

// elsewhere says whether the messages of a row go to workers now; the error is a
// [*nobodyError].
func (p *Providers) elsewhere(app core.App, row *providerRow, queue string) (bool, error) {
	r := p.desk()
	if r == nil || row.source != SourceEnvironment {
		return false, nil
	}
	cfg, err := p.config(app, row)
	if err != nil || !mayGoElsewhere(cfg) {
		return false, nil // activate says what is wrong
	}
	if r.isClosed() {
		return false, errShuttingDown
	}
	ctx, cancel := context.WithTimeout(context.Background(), takersTimeout)
	defer cancel()
	work := Work{queue, ShareKey(cfg)}
	there, err := r.alive(ctx, work)
	switch {
	case there:
		return true, nil
	case !r.opts.Only:
		return false, nil
	case err != nil:
		return false, &nobodyError{row.id, jobsUnreachable}
	default:
		return false, &nobodyError{row.id, r.nobodySentence(cfg.Channel, work)}
	}
}

// takersTimeout is how long the database of the jobs may take to say who is alive.
const takersTimeout = 5 * time.Second

func (r *Remote) nobodySentence(ch ProviderChannel, work Work) string {
	variables := environmentVariables(ch)
	s := noWorker + ", and this server was started with --no-workers: start \"groundwork worker\" with JOBS_DATABASE_URL and the same variables " + variables + "."
	switch host, otherQueue := r.others(work); {
	case otherQueue:
		s += " The one on " + host + " does not take the queue " + work.Queue + "."
	case host != "":
		s += " The one on " + host + " has other values in " + variables + "."
	}
	return s
}

// unlessNobody is the outcome of a check of a provider that itself works: it is of no
// use where only workers may send and none is there.
func (p *Providers) unlessNobody(ctx context.Context, cfg ProviderConfig) Outcome {
	r := p.desk()
	if r == nil || !r.opts.Only || !mayGoElsewhere(cfg) {
		return Outcome{Kind: Accepted}
	}
	ctx, cancel := context.WithTimeout(ctx, takersTimeout)
	defer cancel()
	work := Work{jobs.QueueBulk, ShareKey(cfg)}
	if _, err := r.alive(ctx, work); err != nil {
		return Outcome{Kind: Retry, Explanation: jobsUnreachable}
	}
	r.mu.Lock()
	workers := r.workersLocked(work.Share)
	r.mu.Unlock()
	if workers == 0 {
		return Outcome{Kind: Retry, Explanation: r.nobodySentence(cfg.Channel, work)}
	}
	return Outcome{Kind: Accepted}
}

const noWorker = "No worker is running that has this provider"

const jobsUnreachable = "The database of the jobs (JOBS_DATABASE_URL) cannot be reached, and with it no worker."

// nobodyLeft sends those away who wait at the gates of a provider: the next pass asks
// again where its messages go.
func (p *Providers) nobodyLeft(work Work) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, live := range p.live {
		if key.far && live.share == work.Share {
			p.retireLocked(live, ErrProviderChanged)
		}
	}
}

// somebodyCame has a provider checked that said there was nobody.
func (p *Providers) somebodyCame(work Work) {
	p.envMu.RLock()
	var ids []string
	for id, cfg := range p.environment {
		if mayGoElsewhere(cfg) && ShareKey(cfg) == work.Share {
			ids = append(ids, id)
		}
	}
	p.envMu.RUnlock()
	for _, id := range ids {
		if err := p.enqueueCheck(p.app, id, false); err != nil {
			p.log.Error("provider cannot be checked after a worker came", "provider", id, "error", err)
		}
	}
}

// StopElsewhere ends the passes that go to workers; see [Remote.Drain].
func (p *Providers) StopElsewhere() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, live := range p.live {
		if key.far {
			p.retireLocked(live, errShuttingDown)
		}
	}
}
