package email_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/email"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func TestMain(m *testing.M) {
	if err := providertest.TrustCA(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const password = "s3cret-Pass word"

// connect makes a provider for a double; change may be nil.
func connect(t *testing.T, smtp *providertest.SMTP, change func(*notifications.ProviderConfig)) *email.Provider {
	t.Helper()
	cfg := notifications.ProviderConfig{
		ID: "provider0000001", Channel: notifications.ProviderEmailTransactional, Source: "dashboard", Secret: password,
		Config: map[string]any{"host": smtp.Host(), "port": float64(smtp.Port()), "tls": "none", "from": "shop@example.com", "fromName": "Shop"},
	}
	if change != nil {
		change(&cfg)
	}
	adapter, err := email.New(cfg)
	require.NoError(t, err)
	p, ok := adapter.(*email.Provider)
	require.True(t, ok)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func with(key string, value any) func(*notifications.ProviderConfig) {
	return func(cfg *notifications.ProviderConfig) { cfg.Config[key] = value }
}

func signedIn(cfg *notifications.ProviderConfig) { cfg.Config["username"] = "shop" }

func message(to, subject string) *notifications.Message {
	return &notifications.Message{
		DeliveryID: "delivery" + fmt.Sprint(len(subject)), Channel: notifications.ChannelEmail, Kind: notifications.KindTransactional,
		Target: notifications.Target{Address: to}, Email: &notifications.Email{Subject: subject, Text: "Hello\n"},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, mode := range []providertest.TLSMode{providertest.NoTLS, providertest.StartTLS, providertest.ImplicitTLS} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			providertest.Run(t, suite(mode))
		})
	}
}

func suite(mode providertest.TLSMode) providertest.Suite {
	return providertest.Suite{
		New: func(t *testing.T) providertest.Subject { return subject(t, mode) },
		Expect: map[providertest.Fault]notifications.OutcomeKind{
			providertest.FaultNoAnswer:  notifications.Ambiguous,
			providertest.FaultRetry:     notifications.Retry,
			providertest.FaultDown:      notifications.Retry,
			providertest.FaultUnreached: notifications.Retry,
			// An address that is wrong at one server is not a device that is gone.
			providertest.FaultGone:    notifications.RecipientBlocked,
			providertest.FaultBlocked: notifications.RecipientBlocked,
			providertest.FaultPayload: notifications.PayloadBad,
			providertest.FaultConfig:  notifications.ConfigBad,
			providertest.FaultGarbage: notifications.ConfigBad,
		},
		MaxRetryAfter: time.Hour,
	}
}

func subject(t *testing.T, mode providertest.TLSMode) providertest.Subject {
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{TLS: mode, Username: "shop", Password: password})
	p := connect(t, smtp, func(cfg *notifications.ProviderConfig) {
		signedIn(cfg)
		cfg.Config["tls"] = string(mode)
	})
	return providertest.Subject{
		Send: func(ctx context.Context, target, title string) notifications.Outcome {
			return p.Send(ctx, message(target, title))
		},
		Check: p.Check,
		Close: p.Close,
		Play: func(fault providertest.Fault, target string) {
			switch fault {
			case providertest.FaultSlow, providertest.FaultNoAnswer:
				smtp.Script(target, providertest.Script{DotDelay: time.Hour})
			case providertest.FaultRetry:
				smtp.Script(target, providertest.Script{Rcpt: providertest.Reply{Code: 450, Enhanced: "4.2.0", Text: "greylisted " + target}})
			case providertest.FaultDown:
				smtp.Set(providertest.Behaviour{Greeting: providertest.Reply{Code: 421, Enhanced: "4.3.2", Text: "closing"}})
			case providertest.FaultUnreached:
				require.NoError(t, smtp.Down())
			case providertest.FaultGone:
				smtp.Script(target, providertest.Script{Rcpt: providertest.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user " + target}})
			case providertest.FaultBlocked:
				smtp.Script(target, providertest.Script{Rcpt: providertest.Reply{Code: 550, Enhanced: "5.7.1", Text: "not wanted by " + target}})
			case providertest.FaultPayload:
				smtp.Script(target, providertest.Script{Dot: providertest.Reply{Code: 554, Enhanced: "5.6.0", Text: "spam for " + target}})
			case providertest.FaultConfig:
				smtp.Set(providertest.Behaviour{Auth: providertest.Reply{Code: 535, Enhanced: "5.7.8", Text: "wrong password " + password}})
			case providertest.FaultGarbage:
				smtp.Set(providertest.Behaviour{Garbage: true})
			}
		},
		Release:  smtp.Release,
		Received: func(target string) int { return len(smtp.To(target)) },
		Arrived: func(target string) <-chan struct{} {
			arrived := make(chan struct{})
			go func() {
				if await(t.Context(), smtp, target) == nil {
					close(arrived)
				}
			}()
			return arrived
		},
		Target:  func(n int) string { return fmt.Sprintf("person%d@example.com", n) },
		Secrets: []string{password},
	}
}

// await returns once a mail for the target is in the ledger.
func await(ctx context.Context, smtp *providertest.SMTP, target string) error {
	for n := 1; len(smtp.To(target)) == 0; n = smtp.Total() + 1 {
		if err := smtp.Await(ctx, n); err != nil {
			return err
		}
	}
	return nil
}
