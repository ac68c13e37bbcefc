package notifications

import (
	"context"
	"time"

	"github.com/groundworkhq/groundwork/jobs"
)

// answerBy is when the answer of a try is overdue; zero for one that leaves from here.
func (t try) answerBy() time.Time {
	if t.deadline.IsZero() {
		return time.Time{}
	}
	return t.deadline.Add(answerGrace)
}

// deadlineStep is how exactly the end of somebody's hours is met.
const deadlineStep = 5 * time.Second

// deadline is until when a worker may begin to hand a message over: for a while, and
// never beyond what the message itself allows.
func (it *item) deadline(now time.Time, held *hold) time.Time {
	end := now.Add(remotePatience)
	for _, expires := range []time.Time{it.expires, it.msg.Expires} {
		if !expires.IsZero() && expires.Before(end) {
			end = expires
		}
	}
	// The hours may end before, or even have a gap.
	for t := now; t.Before(end); t = t.Add(deadlineStep) {
		if !held.until(t).Equal(t) {
			return t.Add(-deadlineStep)
		}
	}
	return end
}

// queueKey is where the context of a job says from which queue it is.
type queueKey struct{}

func withQueue(ctx context.Context, queue string) context.Context {
	return context.WithValue(ctx, queueKey{}, queue)
}

func queueOf(ctx context.Context) string {
	if queue, ok := ctx.Value(queueKey{}).(string); ok && queue != "" {
		return queue
	}
	return jobs.QueueDefault
}
