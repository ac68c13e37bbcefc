package notifications

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
)

func mailServer(change ...func(*ProviderConfig)) ProviderConfig {
	cfg := ProviderConfig{Channel: ProviderEmailTransactional, Source: SourceEnvironment, SenderID: "hello@example.com", Secret: "a-password",
		Config: map[string]any{"host": "smtp.example.com", "port": 587, "username": "shop", "tls": "starttls", "from": "hello@example.com", "fromName": "Shop"}}
	for _, c := range change {
		c(&cfg)
	}
	return cfg
}

func with(key string, value any) func(*ProviderConfig) {
	return func(cfg *ProviderConfig) { cfg.Config[key] = value }
}

func TestShareKeyIsTheProvider(t *testing.T) {
	t.Parallel()
	key := ShareKey(mailServer())
	require.Regexp(t, `^email_transactional_[0-9a-f]{12}$`, key)
	require.Equal(t, ProviderEmailTransactional, shareChannel(key))
	same := map[string]ProviderConfig{
		"another password":          mailServer(func(cfg *ProviderConfig) { cfg.Secret = "another" }),
		"another name":              mailServer(func(cfg *ProviderConfig) { cfg.Name = "another" }),
		"another rate":              mailServer(func(cfg *ProviderConfig) { cfg.RatePerSecond = 5 }),
		"another address of ours":   mailServer(func(cfg *ProviderConfig) { cfg.PublicURL = "https://api.example.com" }),
		"another environment":       mailServer(with("environment", "sandbox")),
		"a host in capitals":        mailServer(with("host", "SMTP.example.com")),
		"a number of another kind":  mailServer(with("port", 587.0)),
		"a number as a text":        mailServer(with("port", "587")),
		"something that is not set": mailServer(with("localName", "")),
	}
	for name, cfg := range same {
		require.Equal(t, key, ShareKey(cfg), name)
	}
	different := map[string]ProviderConfig{
		"another host":    mailServer(with("host", "mail.example.com")),
		"another port":    mailServer(with("port", 465)),
		"another account": mailServer(with("username", "other")),
		"another sender":  mailServer(func(cfg *ProviderConfig) { cfg.SenderID = "other@example.com" }),
		"another channel": mailServer(func(cfg *ProviderConfig) { cfg.Channel = ProviderEmailPromotional }),
	}
	for name, cfg := range different {
		require.NotEqual(t, key, ShareKey(cfg), name)
	}
	require.NotContains(t, ShareKey(mailServer()), "shop")
}

// TestWireFormStaysTheSame: an API process and a worker of different versions
// understand each other.
func TestWireFormStaysTheSame(t *testing.T) {
	t.Parallel()
	badge := 3
	m := &Message{DeliveryID: "d", NotificationID: "n", RequestID: "r", Channel: ChannelPush, Kind: KindPromotional,
		Target: Target{UserID: "u", Address: "a", Name: "N", Device: &Device{ID: "i", Platform: "ios", App: "b", Environment: "sandbox"}},
		Title:  "t", Body: "b", Push: &Push{CollapseID: "c", Badge: &badge, APNs: map[string]any{"x": 1.0}},
		Email: &Email{Subject: "s", Text: "t", HTML: "h", Unsubscribe: "l", Headers: map[string]string{"X": "y"}, Attachments: []Attachment{{Name: "f", Bytes: []byte{1}}}},
		Image: "i", Link: "l", OpenToken: "o", Data: map[string]any{"k": "v"}}
	raw, err := json.Marshal(handoverPart{Try: 2, Deadline: time.Unix(0, 0).UTC(), Message: m})
	require.NoError(t, err)
	require.JSONEq(t, `{"Try":2,"Deadline":"1970-01-01T00:00:00Z","Message":{"DeliveryID":"d","NotificationID":"n","RequestID":"r","Channel":"push","Kind":"promotional",
		"Target":{"UserID":"u","Address":"a","Name":"N","Device":{"ID":"i","Platform":"ios","App":"b","Environment":"sandbox"}},"Title":"t","Body":"b",
		"Email":{"From":"","ReplyTo":"","Subject":"s","Text":"t","HTML":"h","Cc":null,"Bcc":null,"Unsubscribe":"l","UnsubscribeMailto":"","Headers":{"X":"y"},
			"Attachments":[{"Name":"f","Inline":false,"Bytes":"AQ=="}]},
		"Push":{"CollapseID":"c","Expires":"0001-01-01T00:00:00Z","Priority":"","Badge":3,"Sound":"","Silent":false,"APNs":{"x":1},"FCM":null,"WebPush":null},
		"Expires":"0001-01-01T00:00:00Z","OpenToken":"o","Image":"i","Link":"l","Data":{"k":"v"}}}`, string(raw))
	raw, err = json.Marshal(answer{Delivery: "d", User: "u", Try: 1, NotBegun: true, Outcome: Outcome{Kind: Retry, Explanation: "e", Code: "c", RetryAfter: time.Second,
		ProviderDown: true, Suspect: true, OptedOut: true, ProviderMessageID: "p"}})
	require.NoError(t, err)
	require.JSONEq(t, `{"Delivery":"d","User":"u","Try":1,"NotBegun":true,"Outcome":{"Kind":2,"Explanation":"e","Code":"c","RetryAfter":1000000000,
		"ProviderDown":true,"GoneAt":"0001-01-01T00:00:00Z","Suspect":true,"OptedOut":true,"ProviderMessageID":"p"}}`, string(raw))
}

// FuzzMessagesComeThrough: what is packed here is the same over there.
func FuzzMessagesComeThrough(f *testing.F) {
	f.Add("Hello", "we are open\x00\u2028", "<p>é</p>", "ana@example.com", int64(1796169600), true, []byte{0, 255})
	f.Add("", "", "", "", int64(0), false, []byte(nil))
	f.Fuzz(func(t *testing.T, title, body, html, address string, at int64, push bool, bytes []byte) {
		m := &Message{DeliveryID: "d", Channel: ChannelEmail, Kind: KindPromotional, Target: Target{Address: address}, Title: title, Body: body,
			Email: &Email{Subject: title, HTML: html, Headers: map[string]string{"X-A": body}, Attachments: []Attachment{{Name: title, Bytes: bytes}}},
			Data:  map[string]any{"text": html, "number": float64(at), "list": []any{body, nil, true}}}
		if at > 0 && at < 1<<37 {
			m.Expires = time.Unix(at, 0).UTC()
		}
		if push {
			m.Channel, m.Email = ChannelPush, nil
			m.Push = &Push{CollapseID: title, APNs: map[string]any{"aps": map[string]any{"alert": body}}}
			m.Target.Device = &Device{ID: "x", Platform: "ios"}
		}
		body1, err := pack([]handoverPart{{Try: 1, Message: m}})
		require.NoError(t, err)
		require.NotContains(t, string(body1), "\x00") // Postgres would refuse it
		var back []handoverPart
		require.NoError(t, body1.unpack(&back))
		require.Len(t, back, 1)
		// Equal up to what is no text at all.
		want, err := json.Marshal(m)
		require.NoError(t, err)
		got, err := json.Marshal(back[0].Message)
		require.NoError(t, err)
		require.JSONEq(t, string(want), string(got))
	})
}

func TestBrokenChunkIsAnError(t *testing.T) {
	t.Parallel()
	var parts []handoverPart
	for _, broken := range []packed{"", "%", "aGVsbG8", "e30"} {
		require.Error(t, broken.unpack(&parts), string(broken))
	}
}

// island is Postgres and the workers of a test: jobs are given to workers at once,
// their answers go to answer.
type island struct {
	mu      sync.Mutex
	hosts   map[Work][]string
	jobs    map[string]HandoverArgs
	taken   map[string]bool
	begun   map[string]map[string]bool
	over    map[string]bool
	refuses error
	onJob   func(id string, args HandoverArgs)
}

func newIsland() *island {
	return &island{hosts: map[Work][]string{}, jobs: map[string]HandoverArgs{}, taken: map[string]bool{}, begun: map[string]map[string]bool{}, over: map[string]bool{}}
}

func (i *island) Takers(context.Context) (map[Work][]string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.hosts), i.refuses
}

func (i *island) Enqueue(args jobs.Args, o jobs.Options) (string, error) {
	i.mu.Lock()
	id := fmt.Sprint("job", len(i.jobs))
	i.jobs[id] = args.(HandoverArgs)
	onJob := i.onJob
	i.mu.Unlock()
	if onJob != nil {
		go onJob(id, args.(HandoverArgs))
	}
	return id, nil
}

func (i *island) TakeBack(_ context.Context, id string) (TakenBack, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.refuses != nil {
		return TakenBack{}, i.refuses
	}
	if !i.taken[id] {
		i.over[id] = true
	}
	return TakenBack{Over: i.over[id], Taken: i.taken[id], Begun: maps.Clone(i.begun[id])}, nil
}

func testMessage(id string, channel Channel, deadline time.Time) *Message {
	return &Message{DeliveryID: id, Channel: channel, Kind: KindTransactional, Target: Target{UserID: "u" + id}, try: try{1, deadline, jobs.QueueBulk}}
}

var bulkMail = chunkKey{share: "email_transactional_000000000000", queue: jobs.QueueBulk, channel: ProviderEmailTransactional}

// sendAll sends messages at once and returns the outcomes by delivery.
func sendAll(r *Remote, key chunkKey, all ...*Message) func() map[string]Outcome {
	var mu sync.Mutex
	var flight sync.WaitGroup
	outcomes := map[string]Outcome{}
	for _, m := range all {
		flight.Go(func() {
			o := r.send(key, m)
			mu.Lock()
			defer mu.Unlock()
			outcomes[m.DeliveryID] = o
		})
	}
	return func() map[string]Outcome {
		flight.Wait()
		return outcomes
	}
}

// On a clock that waits for everybody: a chunk leaves when nobody comes to it any more.
func TestMessagesShareChunks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIsland()
		r := NewRemote(RemoteOptions{Machines: i})
		t.Cleanup(r.Close)
		i.onJob = func(_ string, args HandoverArgs) {
			var parts []handoverPart
			if args.Parts.unpack(&parts) != nil || len(parts) != args.Messages || len(parts) > chunkSize {
				panic("a chunk is not what it says")
			}
			for _, p := range parts {
				_, ours := r.take(answer{Delivery: p.Message.DeliveryID, Try: p.Try, Outcome: Outcome{Kind: Accepted, ProviderMessageID: "m" + p.Message.DeliveryID}})
				if !ours {
					panic("nobody waits")
				}
			}
		}
		var all []*Message
		for n := range 2*chunkSize + 1 {
			all = append(all, testMessage(fmt.Sprint(n), ChannelEmail, time.Now().Add(time.Minute)))
		}
		outcomes := sendAll(r, bulkMail, all...)()
		require.Len(t, outcomes, len(all))
		for id, o := range outcomes {
			require.Equal(t, Outcome{Kind: Accepted, ProviderMessageID: "m" + id}, o)
		}
		require.Len(t, i.jobs, 3)
	})
}

func TestAnswerOfAnotherTryIsNobodys(t *testing.T) {
	t.Parallel()
	i := newIsland()
	r := NewRemote(RemoteOptions{Machines: i})
	t.Cleanup(r.Close)
	asked := make(chan struct{})
	i.onJob = func(string, HandoverArgs) { close(asked) }
	wait := sendAll(r, bulkMail, testMessage("a", ChannelEmail, time.Now().Add(time.Minute)))
	<-asked
	_, ours := r.take(answer{Delivery: "a", Try: 7, Outcome: Outcome{Kind: Accepted}})
	require.False(t, ours)
	stored, ours := r.take(answer{Delivery: "a", Try: 1, Outcome: Outcome{Kind: RecipientBlocked}})
	require.True(t, ours)
	require.Equal(t, RecipientBlocked, wait()["a"].Kind)

	// As long as it is not stored, a second answer waits for that and is not given.
	again, ours := r.take(answer{Delivery: "a", Try: 1, Outcome: Outcome{Kind: Accepted}})
	require.False(t, ours)
	require.Equal(t, stored, again)
	r.settled([]string{"a"})
	<-stored
	later, ours := r.take(answer{Delivery: "a", Try: 1, Outcome: Outcome{Kind: Accepted}})
	require.False(t, ours)
	require.Nil(t, later)
}

// TestNobodyWaitsForEver looks at what no worker answers.
func TestNobodyWaitsForEver(t *testing.T) {
	t.Parallel()
	const soon, over = time.Minute, -answerGrace - time.Second
	for name, tt := range map[string]struct {
		deadline time.Duration // from now on
		setUp    func(i *island)
		mail     Outcome // zero: it waits
		push     Outcome
	}{
		"in hand": {deadline: soon, setUp: func(i *island) { i.hosts[bulkMail.work()] = []string{"w"} }},
		"nobody came": {deadline: soon, setUp: func(*island) {},
			mail: Outcome{Kind: Retry, notBegun: true}, push: Outcome{Kind: Retry, notBegun: true}},
		"a worker had it and is gone": {deadline: soon, setUp: func(i *island) { i.taken["job0"], i.over["job0"] = true, true },
			mail: Outcome{Kind: Retry, notBegun: true}, push: Outcome{Kind: Retry}},
		"a worker had begun it and is gone": {deadline: soon, setUp: func(i *island) {
			i.taken["job0"], i.over["job0"], i.begun["job0"] = true, true, map[string]bool{"mail": true}
		}, push: Outcome{Kind: Retry}},
		"a worker may still have it": {deadline: soon, setUp: func(i *island) { i.taken["job0"] = true }},
		"too late, and nobody had it": {deadline: over, setUp: func(i *island) { i.hosts[bulkMail.work()] = []string{"w"} },
			mail: Outcome{Kind: Retry, notBegun: true}, push: Outcome{Kind: Retry, notBegun: true}},
		"too late, and a worker had begun": {deadline: over, setUp: func(i *island) {
			i.hosts[bulkMail.work()] = []string{"w"}
			i.taken["job0"], i.over["job0"], i.begun["job0"] = true, true, map[string]bool{"mail": true}
		}, mail: Outcome{Kind: Ambiguous}, push: Outcome{Kind: Retry}},
		"too late, and a worker has it": {deadline: over, setUp: func(i *island) {
			i.hosts[bulkMail.work()] = []string{"w"}
			i.taken["job0"] = true
		}, mail: Outcome{Kind: Ambiguous}, push: Outcome{Kind: Retry}},
		"too late, and Postgres does not answer": {deadline: over, setUp: func(i *island) { i.refuses = errors.New("gone") },
			mail: Outcome{Kind: Ambiguous}, push: Outcome{Kind: Retry}},
		"Postgres does not answer": {deadline: soon, setUp: func(i *island) { i.refuses = errors.New("gone") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i := newIsland()
				r := NewRemote(RemoteOptions{Machines: i})
				t.Cleanup(r.Close)
				tt.setUp(i)
				deadline := time.Now().Add(tt.deadline)
				wait := sendAll(r, bulkMail, testMessage("mail", ChannelEmail, deadline), testMessage("push", ChannelPush, deadline))
				time.Sleep(chunkLinger) // on a clock that waits for both: they share a job
				synctest.Wait()
				r.mu.Lock()
				require.Len(t, r.waiting, 2)
				for _, w := range r.waiting {
					require.Equal(t, "job0", w.job)
				}
				r.mu.Unlock()
				r.look(context.Background())
				want := map[string]Outcome{"mail": tt.mail, "push": tt.push}
				r.mu.Lock()
				for id, w := range r.waiting {
					require.Equal(t, want[id].Kind != 0, w.answered, id)
				}
				r.mu.Unlock()
				r.Close() // those who wait still are sent away, and their rows left alone
				for id, o := range wait() {
					if want[id].Kind == 0 {
						require.Equal(t, Outcome{elsewhere: true}, o, id)
						continue
					}
					require.NotEmpty(t, o.Explanation, id)
					o.Explanation = ""
					require.Equal(t, want[id], o, id)
				}
			})
		})
	}
}

func TestDrainWaitsForAnswers(t *testing.T) {
	t.Parallel()
	i := newIsland()
	r := NewRemote(RemoteOptions{Machines: i})
	t.Cleanup(r.Close)
	asked := make(chan struct{})
	i.onJob = func(string, HandoverArgs) { close(asked) }
	wait := sendAll(r, bulkMail, testMessage("a", ChannelEmail, time.Now().Add(time.Minute)))
	<-asked
	drained := make(chan struct{})
	go func() {
		r.Drain(context.Background())
		close(drained)
	}()
	require.Eventually(t, r.isClosed, 2*time.Minute, time.Millisecond)
	require.Equal(t, notBegun("The server is shutting down."), r.send(bulkMail, testMessage("b", ChannelEmail, time.Now().Add(time.Minute))))
	select {
	case <-drained:
		t.Fatal("it did not wait")
	default:
	}
	r.take(answer{Delivery: "a", Try: 1, Outcome: Outcome{Kind: Accepted}})
	<-drained
	require.Equal(t, Accepted, wait()["a"].Kind)
}

func TestErasedPersonIsTakenOutOfChunks(t *testing.T) {
	t.Parallel()
	parts, err := pack([]handoverPart{{Try: 1, Message: testMessage("a", ChannelEmail, time.Time{})}, {Try: 1, Message: testMessage("b", ChannelEmail, time.Time{})}})
	require.NoError(t, err)
	raw, err := json.Marshal(HandoverArgs{Share: "s", Messages: 2, Parts: parts})
	require.NoError(t, err)
	erased, changed, err := EraseFromHandover(HandoverArgs{}.Kind(), raw, "ua")
	require.NoError(t, err)
	require.True(t, changed)
	var left HandoverArgs
	var rest []handoverPart
	require.NoError(t, json.Unmarshal(erased, &left))
	require.NoError(t, left.Parts.unpack(&rest))
	require.Equal(t, 1, left.Messages)
	require.Len(t, rest, 1)
	require.Equal(t, "b", rest[0].Message.DeliveryID)
	_, changed, err = EraseFromHandover(HandoverArgs{}.Kind(), erased, "ua")
	require.NoError(t, err)
	require.False(t, changed)

	answers, err := pack([]answer{{Delivery: "a", User: "ua"}, {Delivery: "b", User: "ub"}})
	require.NoError(t, err)
	raw, err = json.Marshal(ResultArgs{Answers: 2, Packed: answers})
	require.NoError(t, err)
	_, changed, err = EraseFromHandover(ResultArgs{}.Kind(), raw, "ub")
	require.NoError(t, err)
	require.True(t, changed)
	_, changed, err = EraseFromHandover("another.kind", raw, "ub")
	require.NoError(t, err)
	require.False(t, changed)
}
