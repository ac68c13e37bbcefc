package hooks

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/internal/ratelimit"
)

const (
	// refusalPause is how long the answer is held back from an address that goes on
	// although it was refused as often as it is allowed to ask: whoever sends the
	// next request when the last one is answered is slowed down by it. Half of it to
	// one and a half times as long, so that hundreds do not come back at one moment.
	refusalPause = time.Second

	// patience is how often an address is refused at once, even by a small limit.
	patience = 300

	// loud is how many of these refusals are logged one by one. A line and a row in
	// the log cost more than the refusal, and thirty tell as much as three hundred.
	loud = 30

	// maxWaiting bounds the answers that are held back: each holds a connection,
	// which takes some 10 kB.
	maxWaiting = 2_000

	// eventKeyQuiet marks a request that is counted in the log and not written there.
	eventKeyQuiet = "groundwork.limits.quiet"
	// eventKeySkipLog is PocketBase's own name for it, which it does not export.
	eventKeySkipLog = "__skipSuccessActivityLogger"
)

// errAnswered means that a refusal was written already. It becomes nil where the
// chain of handlers began: PocketBase would log it otherwise.
var errAnswered = errors.New("this request was refused and answered")

func answered(err error) error {
	if errors.Is(err, errAnswered) {
		return nil
	}
	return err
}

// refuse answers one request too many. The first ones are refused at once and
// logged like other failures. An address that goes on is logged as a number, and
// when it goes on and on it waits for its answers: a flood must fill neither the
// processor nor the disk.
func (l *limits) refuse(e *core.RequestEvent, rule *ratelimit.Rule, taken ratelimit.Taken) error {
	if h := e.Response.Header(); e.Request.Header.Get("Origin") != "" && h.Get("Access-Control-Expose-Headers") == "" {
		h.Set("Access-Control-Expose-Headers", "Retry-After, RateLimit, RateLimit-Policy") // a browser hides them from another origin's page
	}
	refusal := e.TooManyRequestsError(ratelimit.Refusal(taken.Grows), errors.New("rate limit "+rule.ID+" ("+rule.Name+")"))
	if rule.NeedsBody() {
		return refusal
	}
	before, goesOn := l.refusals(e, rule, l.network(e))
	if before < loud && !goesOn {
		return refusal
	}
	l.silent.Add(1)
	e.Set(eventKeyQuiet, true)
	e.Set(eventKeySkipLog, true)
	if goesOn {
		l.holdBack(e)
	}
	if err := e.JSON(http.StatusTooManyRequests, refusal); err != nil {
		return err
	}
	return errAnswered
}

// holdBack waits before the answer, unless too many wait already.
func (l *limits) holdBack(e *core.RequestEvent) {
	defer l.waiting.Add(-1)
	if l.waiting.Add(1) > maxWaiting {
		return
	}
	timer := time.NewTimer(refusalPause/2 + rand.N(refusalPause))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-e.Request.Context().Done():
	}
}

// refusals counts a refusal. It returns how many of the rule the address had before
// within the window, and whether it was refused as often as the rule allows
// requests, and patiently often at that.
func (l *limits) refusals(e *core.RequestEvent, rule *ratelimit.Rule, network string) (before int, goesOn bool) {
	w := ratelimit.Window{Limit: max(rule.Limit, patience), Length: rule.Length}
	taken := l.limiter.Take(e.Request.Context(), ratelimit.Count{Key: l.limiter.Key(rule.ID, "refused", network), Window: w})
	if !taken.OK {
		return w.Limit, true
	}
	return w.Limit - taken.Remaining - 1, false
}
