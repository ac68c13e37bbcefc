package notifications

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
)

// post is a provider whose answers a test sets, and what Postgres remembers of chunks.
type post struct {
	mu      sync.Mutex
	sent    []string
	answer  func(ctx context.Context, id string) Outcome // nil: accepted
	begun   map[string]bool
	begin   func(id string) error // nil: nothing fails
	reply   func() error          // nil: nothing fails
	answers []answer
	asked   jobs.Options // for the last reply
}

func (p *post) send(ctx context.Context, id string) Outcome {
	p.mu.Lock()
	p.sent = append(p.sent, id)
	p.mu.Unlock()
	if p.answer != nil {
		return p.answer(ctx, id)
	}
	return Outcome{Kind: Accepted, ProviderMessageID: "m" + id}
}

// of returns the answers so far, by delivery.
func (p *post) of(t *testing.T) map[string]answer {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]answer{}
	for _, a := range p.answers {
		require.NotContains(t, all, a.Delivery, "two answers of one attempt")
		all[a.Delivery] = a
	}
	return all
}

type (
	postMail  struct{ *post }
	postCodes struct{ *post }
	postOffer struct{ *post }
)

func (p postMail) Send(ctx context.Context, m *Message) Outcome { return p.send(ctx, m.DeliveryID) }
func (p postCodes) SendTransactional(ctx context.Context, m TransactionalSMS) Outcome {
	return p.send(ctx, m.DeliveryID())
}
func (p postOffer) SendPromotional(ctx context.Context, m PromotionalSMS) Outcome {
	return p.send(ctx, m.DeliveryID())
}
func (postMail) Limits() Limits { return Limits{StartInFlight: 4, MaxInFlight: 4} }

// workerOf is a worker with a provider of a channel.
func workerOf(t *testing.T, ch ProviderChannel, p *post) (*RemoteWorker, string) {
	t.Helper()
	p.begun = map[string]bool{}
	cfg := ProviderConfig{Channel: ch, Name: "Test", SenderID: "sender", Secret: "a-long-secret", Config: map[string]any{}}
	made := func(cfg ProviderConfig) (Adapter, error) {
		switch cfg.Channel {
		case ProviderSMSTransactional:
			return postCodes{p}, nil
		case ProviderSMSPromotional:
			return postOffer{p}, nil
		default:
			return postMail{p}, nil
		}
	}
	w, err := NewRemoteWorker(RemoteWorkerOptions{Host: "w1", Providers: []ProviderConfig{cfg}, Factories: map[ProviderChannel]ProviderFactory{ch: made}})
	require.NoError(t, err)
	t.Cleanup(w.Close)
	w.memory = chunkMemory{
		begin: func(_ context.Context, id string) (bool, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.begin != nil {
				if err := p.begin(id); err != nil {
					return false, err
				}
			}
			was := p.begun[id]
			p.begun[id] = true
			return !was, nil
		},
		reply: func(_ context.Context, args jobs.Args, o jobs.Options) error {
			var group []answer
			if err := args.(ResultArgs).Packed.unpack(&group); err != nil || o.Queue != QueueResults {
				panic("a reply is not what it says")
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.reply != nil {
				if err := p.reply(); err != nil {
					return err
				}
			}
			p.answers, p.asked = append(p.answers, group...), o
			return nil
		},
	}
	return w, w.Shares()[0]
}

func chunkJob(t *testing.T, share string, ch ProviderChannel, attempt int, all ...*Message) *jobs.Job[HandoverArgs] {
	t.Helper()
	parts := make([]handoverPart, len(all))
	for i, m := range all {
		parts[i] = handoverPart{Try: 1, Deadline: m.try.deadline, Message: m}
	}
	body, err := pack(parts)
	require.NoError(t, err)
	return &jobs.Job[HandoverArgs]{ID: "job", Attempt: attempt, Args: HandoverArgs{Share: share, Channel: ch, Messages: len(all), Parts: body}}
}

func mails(n int, deadline time.Time) []*Message {
	all := make([]*Message, n)
	for i := range all {
		all[i] = testMessage(fmt.Sprintf("d%03d", i), ChannelEmail, deadline)
	}
	return all
}

func soon() time.Time { return time.Now().Add(2 * time.Minute) }

func TestWorkerAnswersEveryMessage(t *testing.T) {
	t.Parallel()
	p := &post{answer: func(_ context.Context, id string) Outcome {
		switch id {
		case "d001":
			return Outcome{Kind: RecipientBlocked, OptedOut: true, Code: "21610", Explanation: "They refuse."}
		case "d002":
			return Outcome{Kind: Retry, RetryAfter: 7 * time.Second, Explanation: "Later."}
		case "d003":
			panic("a mistake")
		case "d004":
			return Outcome{} // an adapter that forgot to decide
		case "d005":
			return Outcome{Kind: TargetGone, Suspect: true, GoneAt: time.Unix(1700000000, 0).UTC(), Explanation: "a-long-secret is not there."}
		}
		return Outcome{Kind: Accepted, ProviderMessageID: "m" + id}
	}}
	w, share := workerOf(t, ProviderEmailTransactional, p)
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderEmailTransactional, 1, mails(chunkSize, soon())...)))
	answers := p.of(t)
	require.Len(t, answers, chunkSize)
	require.Equal(t, Outcome{Kind: Accepted, ProviderMessageID: "md000"}, answers["d000"].Outcome)
	require.Equal(t, "ud000", answers["d000"].User)
	require.Equal(t, Outcome{Kind: RecipientBlocked, OptedOut: true, Code: "21610", Explanation: "They refuse."}, answers["d001"].Outcome)
	require.Equal(t, 7*time.Second, answers["d002"].Outcome.RetryAfter)
	require.False(t, answers["d002"].NotBegun)
	require.Equal(t, Ambiguous, answers["d003"].Outcome.Kind)
	require.Equal(t, Ambiguous, answers["d004"].Outcome.Kind)
	require.Equal(t, Outcome{Kind: TargetGone, Suspect: true, GoneAt: time.Unix(1700000000, 0).UTC(), Explanation: "… is not there."}, answers["d005"].Outcome)
}

// TestAnswersAreKeptForHours is a server whose disk is full: what left is not to become
// unknown because nobody looks after it before the evening.
func TestAnswersAreKeptForHours(t *testing.T) {
	t.Parallel()
	p := &post{}
	w, share := workerOf(t, ProviderEmailTransactional, p)
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderEmailTransactional, 1, mails(1, soon())...)))
	require.Len(t, p.of(t), 1)
	attempts := p.asked.MaxAttempts
	if attempts == 0 {
		attempts = 25 // of package jobs
	}
	var kept time.Duration
	for attempt := 1; attempt < attempts; attempt++ {
		kept += resultWorker{}.RetryAfter(attempt)
	}
	require.Greater(t, kept, 12*time.Hour)
}

// TestWorkerSendsNothingTwice is a chunk that comes again: its first worker has marked
// some messages and was killed.
func TestWorkerSendsNothingTwice(t *testing.T) {
	t.Parallel()
	p := &post{}
	w, share := workerOf(t, ProviderEmailTransactional, p)
	p.begun["d001"], p.begun["d003"] = true, true
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderEmailTransactional, 2, mails(5, soon())...)))
	answers := p.of(t)
	require.Len(t, answers, 5)
	for id, a := range answers {
		if id == "d001" || id == "d003" {
			require.Equal(t, Ambiguous, a.Outcome.Kind)
			require.Contains(t, a.Outcome.Explanation, "It is not sent again by itself.")
			require.NotContains(t, p.sent, id)
			continue
		}
		require.Equal(t, Accepted, a.Outcome.Kind)
	}
}

// TestWorkerLeavesPushesOfADeadWorker to the server, which knows their answers.
func TestWorkerLeavesPushesOfADeadWorker(t *testing.T) {
	t.Parallel()
	p := &post{}
	w, share := workerOf(t, ProviderFCM, p)
	push := testMessage("a", ChannelPush, soon())
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderFCM, 2, push)))
	require.Empty(t, p.sent)
	require.Equal(t, Retry, p.of(t)["a"].Outcome.Kind)
	p.answers = nil
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderFCM, 1, push)))
	require.Equal(t, []string{"a"}, p.sent)
	require.Empty(t, p.begun) // it may come twice, so that it costs no mark
}

func TestWorkerDoesNotBeginAfterTheDeadline(t *testing.T) {
	t.Parallel()
	p := &post{}
	w, share := workerOf(t, ProviderEmailTransactional, p)
	all := mails(2, soon())
	all[1].try.deadline = time.Now().Add(-time.Second)
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderEmailTransactional, 1, all...)))
	require.Equal(t, []string{"d000"}, p.sent)
	late := p.of(t)["d001"]
	require.Equal(t, Retry, late.Outcome.Kind)
	require.Contains(t, late.Outcome.Explanation, "not begun")
	require.False(t, late.NotBegun) // not at once
}

// TestWorkerStopsWhereAPassWould: the rest of a chunk goes back.
func TestWorkerStopsWhereAPassWould(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		outcome Outcome
		most    int // that are handed over: what came before the one that stops it, and what was in flight
	}{
		"configuration bad":   {Outcome{Kind: ConfigBad, Explanation: "The password is wrong."}, 4},
		"the server is away":  {Outcome{Kind: Retry, ProviderDown: true, RetryAfter: time.Millisecond, Explanation: "Try later."}, 4},
		"it does not answer":  {Outcome{Kind: Ambiguous, Explanation: "No answer."}, maxSilent - 1 + 4},
		"it refuses the text": {Outcome{Kind: PayloadBad, Explanation: "Spam."}, badPayloads - 1 + 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &post{answer: func(context.Context, string) Outcome { return tt.outcome }}
			w, share := workerOf(t, ProviderEmailTransactional, p)
			require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderEmailTransactional, 1, mails(50, soon())...)))
			answers := p.of(t)
			require.Len(t, answers, 50)
			require.LessOrEqual(t, len(p.sent), tt.most)
			for id, a := range answers {
				if slices.Contains(p.sent, id) {
					require.Equal(t, tt.outcome.Kind, a.Outcome.Kind)
					continue
				}
				require.Equal(t, Retry, a.Outcome.Kind)
				require.True(t, a.NotBegun)
			}
			if tt.outcome.Kind == ConfigBad {
				require.Equal(t, "At the worker on w1: The password is wrong.", answers[p.sent[0]].Outcome.Explanation)
			}
		})
	}
}

// TestWorkerKeepsTheTwoSMSSendersApart: whatever a job says.
func TestWorkerKeepsTheTwoSMSSendersApart(t *testing.T) {
	t.Parallel()
	p := &post{}
	w, share := workerOf(t, ProviderSMSTransactional, p)
	offer := testMessage("offer", ChannelSMS, soon())
	offer.Kind = KindPromotional
	code := testMessage("code", ChannelSMS, soon())
	mail := testMessage("mail", ChannelEmail, soon())
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderSMSTransactional, 1, offer, code, mail)))
	// The job claims to be for the other sender.
	offer2 := testMessage("offer2", ChannelSMS, soon())
	offer2.Kind = KindPromotional
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderSMSPromotional, 1, offer2)))
	require.Equal(t, []string{"code"}, p.sent)
	answers := p.of(t)
	for _, id := range []string{"offer", "mail", "offer2"} {
		require.Equal(t, PayloadBad, answers[id].Outcome.Kind, id)
		require.Equal(t, "crossed", answers[id].Outcome.Code, id)
	}
}

// TestWorkerWithoutPostgres sends nothing that is not marked, and loses no answer.
func TestWorkerWithoutPostgres(t *testing.T) {
	t.Parallel()
	away := errors.New("no connection")
	p := &post{}
	w, share := workerOf(t, ProviderEmailTransactional, p)
	begins, replies := 3, 3
	p.begin = func(string) error { // with mu held
		if begins--; begins >= 0 {
			return away
		}
		return nil
	}
	p.reply = func() error {
		if replies--; replies >= 0 {
			return away
		}
		return nil
	}
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderEmailTransactional, 1, mails(3, soon())...)))
	require.Len(t, p.sent, 3)
	for _, a := range p.of(t) {
		require.Equal(t, Accepted, a.Outcome.Kind)
	}

	p.sent, p.answers = nil, nil
	p.begin = func(string) error { return away }
	require.NoError(t, handoverWorker{w}.Work(context.Background(), chunkJob(t, share, ProviderEmailTransactional, 1, mails(3, time.Now().Add(200*time.Millisecond))...)))
	require.Empty(t, p.sent)
	for _, a := range p.of(t) {
		require.Equal(t, Retry, a.Outcome.Kind)
	}
}

// TestWorkerHandsBackAtTheShutdown: what is in flight ends, the rest goes back.
func TestWorkerHandsBackAtTheShutdown(t *testing.T) {
	t.Parallel()
	flying := make(chan struct{}, 4)
	land := make(chan struct{})
	p := &post{answer: func(ctx context.Context, _ string) Outcome {
		flying <- struct{}{}
		select {
		case <-land:
			return Outcome{Kind: Accepted}
		case <-ctx.Done():
			return Outcome{Kind: Ambiguous, Explanation: "It was cut off."}
		}
	}}
	w, share := workerOf(t, ProviderEmailTransactional, p)
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	done := make(chan error, 1)
	go func() {
		done <- handoverWorker{w}.Work(ctx, chunkJob(t, share, ProviderEmailTransactional, 1, mails(20, soon())...))
	}()
	for range 4 {
		<-flying
	}
	w.Drain()
	land <- struct{}{} // one ends by itself
	cut()              // the others are cut off
	require.NoError(t, <-done)
	kinds := map[string]int{}
	for _, a := range p.of(t) {
		kinds[a.Outcome.Kind.String()+fmt.Sprint(a.NotBegun)]++
	}
	require.Len(t, p.sent, 4)
	require.Equal(t, map[string]int{"acceptedfalse": 1, "ambiguousfalse": 3, "retrytrue": 16}, kinds)
}

// TestChunkThatIsTakenBack is let finish what has left.
func TestChunkThatIsTakenBack(t *testing.T) {
	t.Parallel()
	flying, land := make(chan struct{}, 4), make(chan struct{})
	p := &post{answer: func(ctx context.Context, _ string) Outcome {
		flying <- struct{}{}
		<-land
		if ctx.Err() != nil {
			return Outcome{Kind: Ambiguous}
		}
		return Outcome{Kind: Accepted}
	}}
	w, share := workerOf(t, ProviderEmailTransactional, p)
	ctx, cut := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- handoverWorker{w}.Work(ctx, chunkJob(t, share, ProviderEmailTransactional, 1, mails(20, soon())...))
	}()
	for range 4 {
		<-flying
	}
	cut()
	close(land)
	require.NoError(t, <-done)
	for id, a := range p.of(t) {
		require.Equal(t, !slices.Contains(p.sent, id), a.NotBegun, id)
		if !a.NotBegun {
			require.Equal(t, Accepted, a.Outcome.Kind)
		}
	}
	require.Len(t, p.sent, 4)
}

func TestWorkerNeedsAProvider(t *testing.T) {
	t.Parallel()
	_, err := NewRemoteWorker(RemoteWorkerOptions{Host: "w1"})
	require.ErrorContains(t, err, "no provider")
	broken := func(ProviderConfig) (Adapter, error) { return nil, errors.New("the key a-long-secret cannot be read") }
	cfg := mailServer(func(cfg *ProviderConfig) { cfg.Name, cfg.Secret = "SMTP (environment)", "a-long-secret" })
	_, err = NewRemoteWorker(RemoteWorkerOptions{Host: "w1", Providers: []ProviderConfig{cfg}, Factories: map[ProviderChannel]ProviderFactory{cfg.Channel: broken}})
	require.ErrorContains(t, err, "SMTP (environment): the key … cannot be read")
	// An adapter of the other kind of SMS.
	sms := ProviderConfig{Channel: ProviderSMSTransactional, Name: "SMS", Config: map[string]any{}}
	crossed := func(ProviderConfig) (Adapter, error) { return postOffer{&post{}}, nil }
	_, err = NewRemoteWorker(RemoteWorkerOptions{Host: "w1", Providers: []ProviderConfig{sms}, Factories: map[ProviderChannel]ProviderFactory{sms.Channel: crossed}})
	require.ErrorContains(t, err, "wrong kind of sender")
}
