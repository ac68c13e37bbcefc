package notifications

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/groundworkhq/groundwork/jobs"
)

// Sending on other machines.
//
// The API process plans, prepares and keeps the ledger as always. Where a worker is
// alive that has the same provider (an equal [ShareKey]), the provider's adapter is
// replaced by one that puts messages into chunks. Each chunk is one shared job
// ([HandoverArgs]); a worker sends its messages ([RemoteWorker]) and answers with
// jobs of the API process's own ([ResultArgs]). In the API process the [Remote] gives
// each answer to whoever waits for it; where nobody does any more, the answer is
// written into the delivery's row (see settleElsewhere).
//
// What becomes of an e-mail or SMS when something ends in the middle:
//
//   - the API process, before the chunk is in the outbox: the row is "sending". Nobody
//     will answer: it becomes unknown once its time is over (remotePatience and
//     answerGrace), with a sentence;
//   - the API process, later: the chunk is sent all the same. The answers are jobs;
//     they wait for the next start and settle the rows then, unless their time is over:
//     then a row is unknown until its answer comes and corrects it;
//   - the API process, with an answer in hand: the answer's job ends only when the row
//     is stored, so that it comes again;
//   - Postgres, before the chunk is there: it waits in the outbox. If it comes after
//     its deadline a worker answers "not begun" and the message is tried again;
//   - Postgres, while a chunk is worked: nothing more is begun, because a message that
//     must not be sent twice is marked there first. What is in flight is finished, and
//     its answer is kept in the worker's memory until Postgres is back;
//   - the worker, before it has marked a message: another worker that gets the chunk
//     sends it;
//   - the worker, after the mark and before its answer is in Postgres: whoever gets the
//     chunk next finds the mark and answers "ambiguous": the delivery is unknown, with a
//     sentence, and nobody sends it again by itself;
//   - all workers: the chunks come back. What was not begun is sent by another worker
//     or by the API process, what was begun is unknown;
//   - two that believe to have the same chunk, because one was taken for dead: the mark
//     of each message goes to one of them. The other one's answer is "ambiguous", and
//     the real one overrides it, in whichever order they come.
//
// A push has no mark: it may come twice, with the same collapse id, and only when its
// answer was not stored at the kill.

// Args of the jobs between machines. What is in them is packed: the text of a hundred
// mails is mostly the same, and Postgres stores no NUL character in JSON.

// HandoverArgs asks a worker to hand over messages of one provider.
type HandoverArgs struct {
	// Share is the provider ([ShareKey]), Channel its channel.
	Share   string          `json:"share"`
	Channel ProviderChannel `json:"channel"`

	// Environment is Apple's; empty for all others.
	Environment string `json:"environment,omitempty"`

	// PublicURL is where the provider calls back; see [ProviderConfig.PublicURL].
	PublicURL string `json:"publicUrl,omitempty"`

	// Process is the [Remote] that waits for the answers.
	Process string `json:"process"`

	// Messages is how many there are in Parts.
	Messages int    `json:"messages"`
	Parts    packed `json:"parts"` // []handoverPart
}

// Kind implements [jobs.Args].
func (HandoverArgs) Kind() string { return "notification.handover" }

// handoverPart is one message of a chunk.
type handoverPart struct {
	// Try is the how-manyth attempt at the delivery this is.
	Try int
	// Deadline is when it must have begun to leave, or not leave at all.
	Deadline time.Time
	Message  *Message
}

// ResultArgs tells what became of messages of a chunk.
type ResultArgs struct {
	Channel ProviderChannel `json:"channel"`
	Process string          `json:"process"` // [HandoverArgs.Process]
	Host    string          `json:"host"`    // the worker's

	Answers int    `json:"answers"`
	Packed  packed `json:"packed"` // []answer
}

// Kind implements [jobs.Args].
func (ResultArgs) Kind() string { return "notification.result" }

// answer is what became of one message.
type answer struct {
	Delivery string
	User     string // whose it is, so that an erasure finds it
	Try      int
	Outcome  Outcome

	// NotBegun says that nothing left and that it can be tried again at once
	// (Outcome is [Retry]): the worker stopped, or the chunk did.
	NotBegun bool
}

// QueueResults is the queue of the answers. They have workers of their own: in the
// queues of the batches all workers may be waiting for them.
const QueueResults = "results"

const (
	// remotePatience is how long a message may wait for a worker.
	remotePatience = 2 * time.Minute

	// answerGrace is how long after its deadline an answer may come: the provider's
	// time, and half a minute for the way back and for clocks that differ.
	answerGrace = handOverTimeout + 30*time.Second
)

// try is one attempt at a message that may be handed over elsewhere.
type try struct {
	number   int
	deadline time.Time
	queue    string
}

// Machines is how the API process reaches workers on other machines: package jobs,
// with Postgres.
type Machines interface {
	// Takers returns who is alive and takes shared work: a host for each process.
	Takers(ctx context.Context) (map[Work][]string, error)

	// Enqueue stores a job durably, here.
	Enqueue(args jobs.Args, o jobs.Options) (id string, err error)

	// TakeBack ends a shared job, unless it is over anyway. Nobody may begin a part
	// of it after that.
	TakeBack(ctx context.Context, id string) (TakenBack, error)
}

// Work is what a worker takes: the chunks of a provider from a queue.
type Work struct{ Queue, Share string }

// TakenBack is what [Machines.TakeBack] found.
type TakenBack struct {
	// Over is false while a worker may still have the job: then the rest says nothing.
	Over bool

	// Taken says that a worker had it at some time.
	Taken bool

	// Begun are the parts that were marked.
	Begun map[string]bool
}

// mayGoElsewhere says whether a provider can be in the environment of another
// machine. Web Push cannot: its key was made here.
func mayGoElsewhere(cfg ProviderConfig) bool {
	return cfg.Source == SourceEnvironment && cfg.Channel != ProviderWebPush
}

// ShareKey names a provider to other machines: equal settings have equal keys. It is
// the channel and a short hash of all that is not secret, but for what a chunk brings
// along (Apple's environment, the address for callbacks).
func ShareKey(cfg ProviderConfig) string {
	public := maps.Clone(cfg.Config)
	delete(public, "environment")
	for key, value := range public {
		// 587 is a number in the environment and may be another kind of number, or a
		// text, in a program that embeds us.
		if text := strings.TrimSpace(fmt.Sprint(value)); text == "" || value == nil {
			delete(public, key)
		} else {
			public[key] = text
		}
	}
	if host, ok := public["host"].(string); ok {
		public["host"] = strings.ToLower(host)
	}
	raw, err := json.Marshal([]any{cfg.Channel, public, strings.TrimSpace(cfg.SenderID)})
	if err != nil {
		panic(err) // they are texts
	}
	sum := sha256.Sum256(raw)
	return string(cfg.Channel) + "_" + hex.EncodeToString(sum[:6])
}

// shareChannel is the channel of a share key.
func shareChannel(share string) ProviderChannel {
	if i := strings.LastIndexByte(share, '_'); i > 0 {
		return ProviderChannel(share[:i])
	}
	return ""
}
