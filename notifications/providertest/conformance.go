package providertest

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
)

// Fault is something that goes wrong at the other side of an adapter.
type Fault int

// Faults that a double plays.
const (
	NoFault        Fault = iota
	FaultSlow            // answers well, but only when the message is released by [Subject.Release]
	FaultNoAnswer        // takes the whole message and never answers
	FaultRetry           // refuses this message for now, and says for how long where the protocol can
	FaultDown            // refuses everybody for now
	FaultUnreached       // nobody listens
	FaultGone            // the target does not exist any more
	FaultBlocked         // this recipient refuses
	FaultPayload         // the content is refused
	FaultConfig          // the login is refused
	FaultGarbage         // answers with something that is not the protocol
)

// Subject is one adapter connected to a double of its own.
type Subject struct {
	// Send sends a message to a target of the double. The title ends up
	// somewhere in what the double receives.
	Send func(ctx context.Context, target, title string) notifications.Outcome

	// Check is nil when the adapter cannot prove its configuration.
	Check func(ctx context.Context) notifications.Outcome

	// Close is nil when the adapter holds nothing.
	Close func() error

	// Play makes the double behave from now on, for this target or, where the
	// fault is about everybody, for all.
	Play func(fault Fault, target string)

	// Release lets the answers held by [FaultSlow] go.
	Release func()

	// Received counts the messages for a target that reached the double in
	// full, whatever it answered.
	Received func(target string) int

	// Arrived is closed or sent on once a message for the target is in full at
	// the double.
	Arrived func(target string) <-chan struct{}

	// Target returns the n-th valid target.
	Target func(n int) string

	// Secrets must never show up in an explanation.
	Secrets []string
}

// Suite is what an adapter is judged by.
type Suite struct {
	// New starts a double and an adapter that uses it; both end with the test.
	New func(t *testing.T) Subject

	// Expect is the outcome of each fault that the protocol knows. A fault that
	// is missing here is not played.
	Expect map[Fault]notifications.OutcomeKind

	// MaxRetryAfter bounds what [FaultRetry] may ask for; zero means that the
	// protocol cannot say.
	MaxRetryAfter time.Duration

	// ManyPeers says that each target names a server of its own, so that trouble of
	// one is not everybody's: [FaultDown] and [FaultUnreached] must not count as a
	// provider that is down.
	ManyPeers bool

	// AfterCut is the outcome when the context ends while the answer is
	// awaited; zero means [notifications.Ambiguous].
	AfterCut notifications.OutcomeKind
}

// Run holds an adapter against the rules of [notifications.Provider].
func Run(t *testing.T, suite Suite) {
	t.Run("accepts", func(t *testing.T) {
		t.Parallel()
		s := suite.New(t)
		o := s.Send(t.Context(), s.Target(1), "hello")
		require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
		require.Empty(t, o.Explanation, "there is nothing to explain")
		require.Equal(t, 1, s.Received(s.Target(1)))
	})

	for fault, kind := range suite.Expect {
		t.Run(fmt.Sprintf("fault %d is %s", fault, kind), func(t *testing.T) {
			t.Parallel()
			s := suite.New(t)
			s.Play(fault, s.Target(1))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if fault == FaultNoAnswer {
				go func() {
					<-s.Arrived(s.Target(1))
					cancel()
				}()
			}
			o := s.Send(ctx, s.Target(1), "hello")
			require.Equal(t, kind, o.Kind, "%s %s", o.Code, o.Explanation)
			requireSentence(t, o.Explanation, append(s.Secrets, s.Target(1))...)
			require.LessOrEqual(t, s.Received(s.Target(1)), 1, "an adapter does not send again by itself")
			if fault == FaultRetry && suite.MaxRetryAfter > 0 {
				require.Positive(t, o.RetryAfter)
				require.LessOrEqual(t, o.RetryAfter, suite.MaxRetryAfter)
			}
			if fault == FaultDown || fault == FaultUnreached {
				require.Equal(t, !suite.ManyPeers, o.ProviderDown, "whether nobody could have been reached")
			}
			if fault == FaultConfig && s.Check != nil {
				o := s.Check(t.Context())
				require.Equal(t, notifications.ConfigBad, o.Kind, o.Explanation)
				requireSentence(t, o.Explanation, s.Secrets...)
			}
		})
	}

	t.Run("one recipient's fault is not another's", func(t *testing.T) {
		t.Parallel()
		fault := FaultBlocked
		if _, known := suite.Expect[fault]; !known {
			fault = FaultGone
		}
		s := suite.New(t)
		s.Play(fault, s.Target(1))
		require.Equal(t, suite.Expect[fault], s.Send(t.Context(), s.Target(1), "hello").Kind)
		require.Equal(t, notifications.Accepted, s.Send(t.Context(), s.Target(2), "hello").Kind)
	})

	t.Run("a context that is over sends nothing", func(t *testing.T) {
		t.Parallel()
		s := suite.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		o := s.Send(ctx, s.Target(1), "hello")
		require.Equal(t, notifications.Retry, o.Kind)
		require.Zero(t, s.Received(s.Target(1)))
	})

	t.Run("a context that ends while the answer is awaited", func(t *testing.T) {
		t.Parallel()
		s := suite.New(t)
		s.Play(FaultSlow, s.Target(1))
		defer s.Release()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			<-s.Arrived(s.Target(1))
			cancel()
		}()
		o := s.Send(ctx, s.Target(1), "hello")
		want := suite.AfterCut
		if want == 0 {
			want = notifications.Ambiguous
		}
		require.Equal(t, want, o.Kind, o.Explanation)
		requireSentence(t, o.Explanation, append(s.Secrets, s.Target(1))...)
		require.Equal(t, 1, s.Received(s.Target(1)))
	})

	t.Run("many at a time, each once", func(t *testing.T) {
		t.Parallel()
		s := suite.New(t)
		const people = 200
		outcomes := make([]notifications.Outcome, people)
		places := make(chan struct{}, 8) // as many as a gate might let through
		var all sync.WaitGroup
		for i := range people {
			places <- struct{}{}
			all.Go(func() {
				defer func() { <-places }()
				outcomes[i] = s.Send(t.Context(), s.Target(i), fmt.Sprintf("hello %d", i))
			})
		}
		all.Wait()
		for i, o := range outcomes {
			require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
			require.Equal(t, 1, s.Received(s.Target(i)))
		}
	})

	t.Run("strange content neither panics nor harms the next message", func(t *testing.T) {
		t.Parallel()
		s := suite.New(t)
		for i, title := range []string{"", "\x00\x01\x02", "\xff\xfe", "a\r\nBcc: x@example.com\r\n\r\n.\r\n", strings.Repeat("ä", 200_000), "\u202egnp.exe", "{{ x }}", "\r\n.\r\nQUIT\r\n"} {
			o := s.Send(t.Context(), s.Target(i), title)
			require.NotZero(t, o.Kind, "%.20q", title)
			require.NotEqual(t, notifications.ConfigBad, o.Kind, "content is no reason to pause everybody: %.20q", title)
		}
		require.Equal(t, notifications.Accepted, s.Send(t.Context(), s.Target(99), "hello").Kind)
	})

	t.Run("check and close", func(t *testing.T) {
		t.Parallel()
		s := suite.New(t)
		if s.Check != nil {
			o := s.Check(t.Context())
			require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
			require.Zero(t, s.Received(s.Target(1)), "a check sends nothing")
		}
		if s.Close != nil {
			require.NoError(t, s.Close())
			require.NoError(t, s.Close())
			require.NotPanics(t, func() { s.Send(t.Context(), s.Target(1), "hello") })
		}
	})
}

var address = regexp.MustCompile(`[a-z0-9.]+@example\.(com|net|org)|\+\d{8,}`)

// requireSentence holds an explanation against what a person can read.
func requireSentence(t *testing.T, s string, secrets ...string) {
	t.Helper()
	require.NotEmpty(t, s, "an outcome that is not success says why")
	first := []rune(s)[0]
	require.True(t, unicode.IsUpper(first) || unicode.IsDigit(first), "not a sentence: %s", s)
	require.True(t, strings.HasSuffix(s, ".") || strings.HasSuffix(s, "!") || strings.HasSuffix(s, `"`) || strings.HasSuffix(s, ")"), "not a sentence: %s", s)
	require.Less(t, len(s), 600)
	require.False(t, address.MatchString(s), "a full address: %s", s)
	for _, secret := range secrets {
		require.NotContains(t, s, secret)
	}
}
