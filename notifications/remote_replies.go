package notifications

import (
	"context"
	"errors"
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

	// replyAttempts is how often a server may try to store answers, a minute apart
	// ([resultWorker]): for most of a day, with a full disk. What is given up is a message
	// of which nobody knows.
	replyAttempts = 1000

	// lastReplies is how long a worker that shuts down tries to get rid of its answers.
	lastReplies = 3 * time.Second
)

// replies are the answers of a chunk on their way to Postgres.
type replies struct {
	w   *RemoteWorker
	ctx context.Context // has the job
	job *jobs.Job[HandoverArgs]

	open sync.WaitGroup // answers that are not stored
	mu   sync.Mutex
	err  error
}

func (r *replies) add(a answer) {
	r.open.Add(1)
	r.w.post(replyTo{r.job.Origin, r.job.Args.Process, r.job.Args.Channel}, letter{a, r})
}

func (r *replies) ended(err error) {
	if err != nil {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
	}
	r.open.Done()
}

// close returns when everything is stored in Postgres. The error says that it is not,
// because this process shuts down: the next worker that gets the chunk finds the marks.
func (r *replies) close() error {
	r.open.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// replyTo is where answers go: those of several chunks share a job.
type replyTo struct {
	origin, process string
	channel         ProviderChannel
}

// letter is an answer and the chunk that it is of.
type letter struct {
	answer
	of *replies
}

// mailbag are the answers to one place. It is emptied by one goroutine, as long as
// there is something in it.
type mailbag struct{ letters []letter }

func (w *RemoteWorker) post(to replyTo, l letter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	bag := w.mail[to]
	if bag == nil {
		bag = &mailbag{}
		w.mail[to] = bag
		go w.empty(to, bag)
	}
	bag.letters = append(bag.letters, l)
}

// mostReplies is how many answers are one job, at most.
const mostReplies = 500

func (w *RemoteWorker) empty(to replyTo, bag *mailbag) {
	for {
		time.Sleep(replyLinger) // for company
		w.mu.Lock()
		group := bag.letters[:min(len(bag.letters), mostReplies)]
		bag.letters = bag.letters[len(group):]
		if len(group) == 0 {
			delete(w.mail, to)
		}
		w.mu.Unlock()
		if len(group) == 0 {
			return
		}
		err := w.reply(to, group)
		for _, l := range group {
			l.of.ended(err)
		}
	}
}

// reply stores answers in Postgres. As long as this process lives it tries: an answer
// that is lost is a message of which nobody knows.
func (w *RemoteWorker) reply(to replyTo, group []letter) error {
	answers := make([]answer, len(group))
	for i, l := range group {
		answers[i] = l.answer
	}
	body, err := pack(answers)
	if err != nil {
		return fmt.Errorf("pack answers: %w", err)
	}
	args := ResultArgs{Channel: to.channel, Process: to.process, Host: w.opts.Host, Answers: len(group), Packed: body}
	var giveUp time.Time
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		ctx, cancel := context.WithTimeout(group[0].of.ctx, replyTimeout)
		err := w.memory.reply(ctx, args, jobs.Options{Queue: QueueResults, MaxAttempts: replyAttempts})
		cancel()
		if err == nil || errors.Is(err, jobs.ErrArgsTooLarge) {
			return err
		}
		if w.isStopping() {
			if giveUp.IsZero() {
				giveUp = time.Now().Add(lastReplies)
			}
			if time.Now().After(giveUp) {
				w.log.Error("answers of a provider are lost at the shutdown", "answers", len(group), "error", err)
				return fmt.Errorf("store answers: %w", err)
			}
		}
		w.log.Warn("answers of a provider cannot be stored, trying again", "answers", len(group), "error", err)
		time.Sleep(wait) // there is no signal for a database that is back
	}
}
