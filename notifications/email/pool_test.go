package email_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func accepted(t *testing.T, o notifications.Outcome) {
	t.Helper()
	require.Equal(t, notifications.Accepted, o.Kind, "%s %s", o.Code, o.Explanation)
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{TLS: providertest.StartTLS, Username: "shop", Password: password, Transcript: true})
	p := connect(t, smtp, func(cfg *notifications.ProviderConfig) {
		signedIn(cfg)
		cfg.Config["tls"] = "starttls"
	})
	for i := range 20 {
		accepted(t, p.Send(t.Context(), message(fmt.Sprintf("person%d@example.com", i), "Hello")))
	}
	made, _, _ := smtp.Connections()
	require.EqualValues(t, 1, made)
	require.Equal(t, 20, smtp.Total())

	smtp.Script("gone@example.com", providertest.Script{Rcpt: reply(550, "5.1.1", "no such user")})
	require.Equal(t, notifications.RecipientBlocked, p.Send(t.Context(), message("gone@example.com", "Hello")).Kind)
	accepted(t, p.Send(t.Context(), message("next@example.com", "Hello")))
	made, _, _ = smtp.Connections()
	require.EqualValues(t, 1, made, "a refused recipient costs no connection")
	require.Equal(t, 1, strings.Count(smtp.Transcript(), "RSET"))
	require.Len(t, smtp.To("next@example.com"), 1)
	require.Equal(t, []string{"next@example.com"}, smtp.To("next@example.com")[0].To)

	require.NoError(t, p.Close())
	require.Eventually(t, func() bool { _, open, _ := smtp.Connections(); return open == 0 }, time.Minute, time.Millisecond)
	require.Contains(t, smtp.Transcript(), "QUIT")
}

// A server ends a connection when it likes. Each mail must arrive, and once.
func TestABrokenIdleConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts providertest.SMTPOptions
		idle func(t *testing.T, smtp *providertest.SMTP)
	}{
		"silently": {idle: func(_ *testing.T, smtp *providertest.SMTP) { smtp.HangUp() }},
		"restarted": {idle: func(t *testing.T, smtp *providertest.SMTP) {
			require.NoError(t, smtp.Down())
			require.NoError(t, smtp.Up())
		}},
		"with a farewell": {opts: providertest.SMTPOptions{Transcript: true}, idle: func(t *testing.T, smtp *providertest.SMTP) {
			smtp.Farewell()
			require.Eventually(t, func() bool { _, open, _ := smtp.Connections(); return open == 0 }, time.Minute, time.Millisecond)
		}},
		"after so many mails": {opts: providertest.SMTPOptions{MaxPerConnection: 1}, idle: func(*testing.T, *providertest.SMTP) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			smtp := providertest.NewSMTP(t, tc.opts)
			p := connect(t, smtp, nil)
			for i := range 5 {
				accepted(t, p.Send(t.Context(), message(fmt.Sprintf("person%d@example.com", i), "Hello")))
				tc.idle(t, smtp)
			}
			for to, n := range smtp.Counts() {
				require.Equal(t, 1, n, to)
			}
			require.Equal(t, 5, smtp.Total())
			made, _, _ := smtp.Connections()
			require.EqualValues(t, 5, made)
			if tc.opts.Transcript {
				require.Equal(t, 5, strings.Count(smtp.Transcript(), "421 "), "it said so")
			}
		})
	}
}

func TestAServerThatTakesOneConnectionLessIsNotAskedForever(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	p := connect(t, smtp, nil)
	accepted(t, p.Send(t.Context(), message("person@example.com", "Hello")))
	smtp.Set(providertest.Behaviour{Mail: reply(421, "4.7.0", "busy")})
	o := p.Send(t.Context(), message("person@example.com", "Hello"))
	require.Equal(t, notifications.Retry, o.Kind)
	require.True(t, o.ProviderDown)
	made, _, _ := smtp.Connections()
	require.EqualValues(t, 2, made, "one fresh connection, not more")
}

// A context that ends just when its mail is done must not hit the mail of
// somebody else that goes over the same connection next.
func TestAContextThatEndsLateHarmsNobody(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	p := connect(t, smtp, nil)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				if i%2 == 0 {
					go cancel()
				}
				to := fmt.Sprintf("person%d-%d@example.com", worker, i)
				o := p.Send(ctx, message(to, "Hello"))
				cancel()
				if i%2 == 1 && o.Kind != notifications.Accepted {
					t.Errorf("%s was not cut off: %s %s", to, o.Kind, o.Explanation)
				}
				if o.Kind == notifications.Retry && len(smtp.To(to)) > 0 {
					t.Errorf("%s would get the mail twice", to)
				}
			}
		})
	}
	all.Wait()
}

func TestAtMostSoManyConnections(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	p := connect(t, smtp, nil)
	limit := p.Limits().MaxInFlight
	gate := make(chan struct{}, limit)
	var all sync.WaitGroup
	for i := range 300 {
		gate <- struct{}{}
		all.Go(func() {
			defer func() { <-gate }()
			if o := p.Send(t.Context(), message(fmt.Sprintf("person%d@example.com", i), "Hello")); o.Kind != notifications.Accepted {
				t.Errorf("%s %s", o.Kind, o.Explanation)
			}
		})
	}
	all.Wait()
	require.Equal(t, 300, smtp.Total())
	made, _, peak := smtp.Connections()
	require.LessOrEqual(t, peak, limit+1, "one may still be saying goodbye")
	require.LessOrEqual(t, made, int64(limit+300/100+limit))
}
