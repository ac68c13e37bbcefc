package notifications

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/groundworkhq/groundwork/jobs"
)

const (
	// replyLinger is how long an answer waits for others to share its job.
	replyLinger = 20 * time.Millisecond

	// replyTimeout is how long Postgres may take to store answers, each time.
	replyTimeout = 10 * time.Second

	// lastReplies is how long a worker that shuts down tries to get rid of its answers.
	lastReplies = 3 * time.Second
)

// replies sends the answers of a chunk, as they come, in groups.
type replies struct {
	w    *RemoteWorker
	ctx  context.Context // has the job
	job  *jobs.Job[HandoverArgs]
	done chan error

	mu     sync.Mutex
	queue  []answer
	closed bool
	wake   chan struct{}
}

func newReplies(ctx context.Context, w *RemoteWorker, job *jobs.Job[HandoverArgs]) *replies {
	r := &replies{w: w, ctx: context.WithoutCancel(ctx), job: job, done: make(chan error, 1), wake: make(chan struct{}, 1)}
	go func() { r.done <- r.run() }()
	return r
}

func (r *replies) add(a answer) {
	r.mu.Lock()
	r.queue = append(r.queue, a)
	r.mu.Unlock()
	signal(r.wake)
}

// close returns when everything is stored in Postgres. The error says that it is not,
// because this process shuts down: the next worker that gets the chunk finds the marks.
func (r *replies) close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	signal(r.wake)
	return <-r.done
}

func (r *replies) run() error {
	for {
		<-r.wake
		r.mu.Lock()
		closed := r.closed
		r.mu.Unlock()
		if !closed {
			timer := time.NewTimer(replyLinger)
			for lingers := true; lingers; {
				select {
				case <-timer.C:
					lingers = false
				case <-r.wake:
					r.mu.Lock()
					lingers = !r.closed && len(r.queue) < chunkSize
					r.mu.Unlock()
				}
			}
			timer.Stop()
		}
		r.mu.Lock()
		group := r.queue
		r.queue, closed = nil, r.closed
		r.mu.Unlock()
		if err := r.send(group); err != nil {
			return err
		}
		r.mu.Lock()
		over := closed && len(r.queue) == 0
		r.mu.Unlock()
		if over {
			return nil
		}
	}
}

// send stores a group of answers in Postgres. As long as this process lives it tries:
// an answer that is lost is a message of which nobody knows.
func (r *replies) send(group []answer) error {
	if len(group) == 0 {
		return nil
	}
	body, err := pack(group)
	if err != nil {
		return fmt.Errorf("pack answers: %w", err)
	}
	args := ResultArgs{Channel: r.job.Args.Channel, Process: r.job.Args.Process, Host: r.w.opts.Host, Answers: len(group), Packed: body}
	var giveUp time.Time
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		ctx, cancel := context.WithTimeout(r.ctx, replyTimeout)
		err := r.w.memory.reply(ctx, args, jobs.Options{Queue: QueueResults})
		cancel()
		if err == nil {
			return nil
		}
		if r.w.isStopping() {
			if giveUp.IsZero() {
				giveUp = time.Now().Add(lastReplies)
			}
			if time.Now().After(giveUp) {
				r.w.log.Error("answers of a provider are lost at the shutdown", "job", r.job.ID, "answers", len(group), "error", err)
				return fmt.Errorf("store answers: %w", err)
			}
		}
		r.w.log.Warn("answers of a provider cannot be stored, trying again", "job", r.job.ID, "answers", len(group), "error", err)
		time.Sleep(wait) // there is no signal for a database that is back
	}
}
