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
// logged like other failures. An address that goes on and on waits for its
// answers, and is logged as a number: a flood must fill neither the processor nor
// the disk.
func (l *limits) refuse(e *core.RequestEvent, rule *ratelimit.Rule, taken ratelimit.Taken) error {
	if h := e.Response.Header(); e.Request.Header.Get("Origin") != "" && h.Get("Access-Control-Expose-Headers") == "" {
		h.Set("Access-Control-Expose-Headers", "Retry-After, RateLimit, RateLimit-Policy") // a browser hides them from another origin's page
	}
	refusal := e.TooManyRequestsError(ratelimit.Refusal(taken.Grows), errors.New("rate limit "+rule.ID+" ("+rule.Name+")"))
	if rule.NeedsBody() || !l.goesOn(e, rule, l.network(e)) {
		return refusal
	}
	l.silent.Add(1)
	e.Set(eventKeyQuiet, true)
	e.Set(eventKeySkipLog, true)
	if l.waiting.Add(1) <= maxWaiting {
		timer := time.NewTimer(refusalPause/2 + rand.N(refusalPause))
		select {
		case <-timer.C:
		case <-e.Request.Context().Done():
		}
		timer.Stop()
	}
	l.waiting.Add(-1)
	if err := e.JSON(http.StatusTooManyRequests, refusal); err != nil {
		return err
	}
	return errAnswered
}

// goesOn counts a refusal, and says whether the address was refused as often
// within the window as the rule allows requests, and patiently often at that.
func (l *limits) goesOn(e *core.RequestEvent, rule *ratelimit.Rule, network string) bool {
	return !l.limiter.Take(e.Request.Context(), ratelimit.Count{
		Key:    l.limiter.Key(rule.ID, "refused", network),
		Window: ratelimit.Window{Limit: max(rule.Limit, patience), Length: rule.Window.Length},
	}).OK
}
