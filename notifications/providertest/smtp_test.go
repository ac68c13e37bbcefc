package providertest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/smtp"
	"net/textproto"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func TestMain(m *testing.M) {
	if err := providertest.TrustCA(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const hello = "From: a@example.com\r\nTo: b@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nHello\r\n..dot\r\n"

// The standard library's client is the independent peer of the double.
func dial(t *testing.T, s *providertest.SMTP, mode providertest.TLSMode) (*smtp.Client, error) {
	t.Helper()
	if mode == providertest.ImplicitTLS {
		conn, err := tls.Dial("tcp", s.Addr(), nil)
		if err != nil {
			return nil, err
		}
		return smtp.NewClient(conn, s.Host())
	}
	c, err := smtp.Dial(s.Addr())
	if err == nil && mode == providertest.StartTLS {
		err = c.StartTLS(&tls.Config{ServerName: s.Host()})
	}
	return c, err
}

func TestSMTPTakesMail(t *testing.T) {
	t.Parallel()
	for _, mode := range []providertest.TLSMode{providertest.NoTLS, providertest.StartTLS, providertest.ImplicitTLS} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := providertest.NewSMTP(t, providertest.SMTPOptions{TLS: mode, Username: "user", Password: "pass word"})
			c, err := dial(t, s, mode)
			require.NoError(t, err)
			defer func() { _ = c.Close() }()
			require.Equal(t, 530, code(c.Mail("a@example.com")), "sign-in is needed")
			require.NoError(t, c.Auth(smtp.PlainAuth("", "user", "pass word", s.Host())))
			for range 2 {
				require.NoError(t, deliver(c, "b@example.com"))
			}
			require.NoError(t, c.Quit())

			got := s.To("B@example.com")
			require.Len(t, got, 2)
			require.Equal(t, "a@example.com", got[0].From)
			require.Equal(t, mode != providertest.NoTLS, got[0].TLS)
			require.Equal(t, "user", got[0].User)
			require.True(t, got[0].Answered)
			mail, err := got[0].Parse()
			require.NoError(t, err)
			require.Equal(t, "Grüße", mail.Get("Subject"))
			require.Equal(t, "Hello\r\n..dot\r\n", mail.Text)
			require.Equal(t, map[string]int{"b@example.com": 2}, s.Counts())
		})
	}
}

func code(err error) int {
	if e := (*textproto.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func deliver(c *smtp.Client, to string) error {
	if err := c.Mail("a@example.com"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(hello)); err != nil {
		return err
	}
	return w.Close()
}

func TestSMTPAnswersAsTold(t *testing.T) {
	t.Parallel()
	refusal := providertest.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}
	closing := providertest.Reply{Code: 421, Enhanced: "4.3.2", Text: "closing"}
	cases := []struct {
		name      string
		behaviour providertest.Behaviour
		script    providertest.Script
		wantCode  int // 0: the connection ends
		taken     int
	}{
		{"greeting", providertest.Behaviour{Greeting: closing}, providertest.Script{}, 421, 0},
		{"hello", providertest.Behaviour{Hello: refusal}, providertest.Script{}, 550, 0},
		{"mail", providertest.Behaviour{Mail: refusal}, providertest.Script{}, 550, 0},
		{"everybody", providertest.Behaviour{All: providertest.Script{Rcpt: refusal}}, providertest.Script{}, 550, 0},
		{"rcpt", providertest.Behaviour{}, providertest.Script{Rcpt: refusal}, 550, 0},
		{"data", providertest.Behaviour{}, providertest.Script{Data: refusal}, 550, 0},
		{"dot", providertest.Behaviour{}, providertest.Script{Dot: refusal}, 550, 0},
		{"dot slowly", providertest.Behaviour{}, providertest.Script{DotDelay: time.Millisecond, Dot: closing}, 421, 0},
		{"drop at rcpt", providertest.Behaviour{}, providertest.Script{Drop: providertest.DropAtRcpt}, 0, 0},
		{"drop before the dot", providertest.Behaviour{}, providertest.Script{Drop: providertest.DropBeforeDot}, 0, 0},
		{"drop after the dot", providertest.Behaviour{}, providertest.Script{Drop: providertest.DropAfterDot}, 0, 1},
		{"no EHLO", providertest.Behaviour{NoEHLO: true}, providertest.Script{Rcpt: refusal}, 550, 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := providertest.NewSMTP(t, providertest.SMTPOptions{Behaviour: tc.behaviour})
			if tc.script != (providertest.Script{}) {
				s.Script("b@example.com", tc.script, providertest.Script{})
			}
			c, err := dial(t, s, providertest.NoTLS)
			if err == nil {
				defer func() { _ = c.Close() }()
				err = deliver(c, "b@example.com")
			}
			require.Error(t, err)
			require.Equal(t, tc.wantCode, code(err), err)
			require.Equal(t, tc.taken, s.Total())

			if s.Set(providertest.Behaviour{}); tc.taken == 0 {
				c, err := dial(t, s, providertest.NoTLS)
				require.NoError(t, err)
				defer func() { _ = c.Close() }()
				require.NoError(t, deliver(c, "b@example.com"), "the script was for one mail")
			} else {
				require.False(t, s.Messages()[0].Answered)
			}
		})
	}
}

func TestSMTPGoesOnAfterARefusal(t *testing.T) {
	t.Parallel()
	s := providertest.NewSMTP(t, providertest.SMTPOptions{TLS: providertest.StartTLS})
	s.Script("data@example.com", providertest.Script{Data: providertest.Reply{Code: 554, Text: "no"}})
	s.Script("dot@example.com", providertest.Script{Dot: providertest.Reply{Code: 554, Text: "no"}})
	c, err := dial(t, s, providertest.StartTLS)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.Equal(t, 554, code(deliver(c, "data@example.com")))
	require.NoError(t, c.Reset())
	require.Equal(t, 554, code(deliver(c, "dot@example.com")))
	require.NoError(t, deliver(c, "b@example.com"))
	require.Equal(t, map[string]int{"b@example.com": 1}, s.Counts())
}

func TestSMTPCertificates(t *testing.T) {
	t.Parallel()
	for kind, want := range map[providertest.Cert]any{
		providertest.CertValid:     nil,
		providertest.CertExpired:   new(x509.CertificateInvalidError),
		providertest.CertWrongName: new(x509.HostnameError),
		providertest.CertUnknownCA: new(x509.UnknownAuthorityError),
	} {
		s := providertest.NewSMTP(t, providertest.SMTPOptions{TLS: providertest.StartTLS, Cert: kind})
		_, err := dial(t, s, providertest.StartTLS)
		if want == nil {
			require.NoError(t, err)
			continue
		}
		require.ErrorAs(t, err, want)
	}
}

func TestSMTPDownAndUp(t *testing.T) {
	t.Parallel()
	s := providertest.NewSMTP(t, providertest.SMTPOptions{})
	s.Script("slow@example.com", providertest.Script{DotDelay: time.Hour})
	c, err := dial(t, s, providertest.NoTLS)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	hung := make(chan error, 1)
	go func() { hung <- deliver(c, "slow@example.com") }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, s.Await(ctx, 1), "it stands in the ledger while the answer waits")

	require.NoError(t, s.Down())
	require.Error(t, <-hung)
	require.False(t, s.Messages()[0].Answered)
	_, err = dial(t, s, providertest.NoTLS)
	require.Error(t, err)

	require.NoError(t, s.Up())
	c, err = dial(t, s, providertest.NoTLS)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, deliver(c, "b@example.com"))
	require.Equal(t, 2, s.Total())
}

func TestSMTPLimits(t *testing.T) {
	t.Parallel()
	s := providertest.NewSMTP(t, providertest.SMTPOptions{MaxPerConnection: 1, MaxMessageBytes: 1000})
	c, err := dial(t, s, providertest.NoTLS)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, deliver(c, "b@example.com"))
	require.Equal(t, 421, code(deliver(c, "b@example.com")))
	require.Error(t, c.Noop(), "421 ends the connection")

	idle := providertest.NewSMTP(t, providertest.SMTPOptions{IdleTimeout: time.Millisecond})
	conn, err := dial(t, idle, providertest.NoTLS)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.Eventually(t, func() bool { _, open, _ := idle.Connections(); return open == 0 }, time.Minute, time.Millisecond)
}

func TestSMTPDownAtOnce(t *testing.T) {
	t.Parallel()
	for range 50 {
		s, err := providertest.StartSMTP(providertest.SMTPOptions{})
		require.NoError(t, err)
		require.NoError(t, s.Close(), "before it serves, too")
	}
}
