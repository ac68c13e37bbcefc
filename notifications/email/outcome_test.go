package email_test

import (
	"cmp"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func reply(code int, enhanced, text string) providertest.Reply {
	return providertest.Reply{Code: code, Enhanced: enhanced, Text: text}
}

func rcpt(code int, enhanced, text string) providertest.Behaviour {
	return providertest.Behaviour{All: providertest.Script{Rcpt: reply(code, enhanced, text)}}
}

func dot(code int, enhanced, text string) providertest.Behaviour {
	return providertest.Behaviour{All: providertest.Script{Dot: reply(code, enhanced, text)}}
}

func startTLS() providertest.SMTPOptions {
	return providertest.SMTPOptions{TLS: providertest.StartTLS}
}

func certificate(kind providertest.Cert) providertest.SMTPOptions {
	return providertest.SMTPOptions{TLS: providertest.StartTLS, Cert: kind}
}

func login() providertest.SMTPOptions {
	return providertest.SMTPOptions{Username: "shop", Password: password}
}

func to(address string) func(*notifications.Message) {
	return func(m *notifications.Message) { m.Target.Address = address }
}

func TestOutcomeByStage(t *testing.T) {
	t.Parallel()
	const (
		retry   = notifications.Retry
		blocked = notifications.RecipientBlocked
		payload = notifications.PayloadBad
		config  = notifications.ConfigBad
		unknown = notifications.Ambiguous
	)
	big := func(m *notifications.Message) {
		m.Email.Text = strings.Repeat("Ein Satz, der nicht aufhört. ", 200_000)
	}
	cases := []struct {
		name      string
		behaviour providertest.Behaviour
		opts      providertest.SMTPOptions
		mode      string // the double's, when empty
		change    func(*notifications.Message)
		want      notifications.OutcomeKind
		code      string
		down      bool // nobody could have been reached
		wait      bool // the server wants to be left alone for a while
		says      string
		taken     int
	}{
		{name: "connect: hangs up", behaviour: providertest.Behaviour{HangUp: "CONNECT"}, want: retry, down: true},
		{name: "greeting: 421", behaviour: providertest.Behaviour{Greeting: reply(421, "4.3.2", "busy")}, want: retry, code: "421 4.3.2", down: true},
		{name: "greeting: 450", behaviour: providertest.Behaviour{Greeting: reply(450, "", "later")}, want: retry, code: "450", down: true},
		{name: "greeting: 554", behaviour: providertest.Behaviour{Greeting: reply(554, "5.7.1", "not you")}, want: config, code: "554 5.7.1", says: "refuses connections from here"},
		{name: "greeting: a web server", behaviour: providertest.Behaviour{Garbage: true}, want: config, says: "not a mail server"},
		{name: "EHLO: hangs up", behaviour: providertest.Behaviour{HangUp: "EHLO"}, want: retry, down: true},
		{name: "EHLO: 421", behaviour: providertest.Behaviour{Hello: reply(421, "4.3.0", "busy")}, want: retry, code: "421 4.3.0", down: true},
		{name: "EHLO: 550", behaviour: providertest.Behaviour{Hello: reply(550, "", "bad name")}, want: config, code: "550"},
		{name: "EHLO: unknown there", behaviour: providertest.Behaviour{NoEHLO: true}, want: notifications.Accepted, taken: 1},

		{name: "STARTTLS: not offered", mode: "starttls", want: config, says: "STARTTLS"},
		{name: "STARTTLS: hangs up", opts: startTLS(), behaviour: providertest.Behaviour{HangUp: "STARTTLS"}, want: retry, down: true},
		{name: "STARTTLS: 454", opts: startTLS(), behaviour: providertest.Behaviour{StartTLS: reply(454, "4.7.0", "not now")}, want: retry, code: "454 4.7.0", down: true},
		{name: "STARTTLS: 501", opts: startTLS(), behaviour: providertest.Behaviour{StartTLS: reply(501, "", "no")}, want: config, code: "501"},
		{name: "certificate: expired", opts: certificate(providertest.CertExpired), want: config, says: "expired"},
		{name: "certificate: wrong name", opts: certificate(providertest.CertWrongName), want: config, says: "not made out to"},
		{name: "certificate: unknown authority", opts: certificate(providertest.CertUnknownCA), want: config, says: "SSL_CERT_FILE"},

		{name: "AUTH: not offered", opts: providertest.SMTPOptions{Username: "shop", NoAuth: true}, want: config, says: "no sign-in"},
		{name: "AUTH: a method nobody here knows", opts: providertest.SMTPOptions{Username: "shop", Password: password, AuthMethods: []string{"GSSAPI"}}, want: config, says: "no sign-in"},
		{name: "AUTH: hangs up", opts: login(), behaviour: providertest.Behaviour{HangUp: "AUTH"}, want: retry, down: true},
		{name: "AUTH: 421", opts: login(), behaviour: providertest.Behaviour{Auth: reply(421, "4.7.0", "too many")}, want: retry, code: "421 4.7.0", down: true},
		{name: "AUTH: 454", opts: login(), behaviour: providertest.Behaviour{Auth: reply(454, "4.7.0", "try later")}, want: retry, code: "454 4.7.0", down: true},
		{name: "AUTH: 535", opts: login(), behaviour: providertest.Behaviour{Auth: reply(535, "5.7.8", "no")}, want: config, code: "535 5.7.8", says: "password"},

		{name: "MAIL: hangs up", behaviour: providertest.Behaviour{HangUp: "MAIL"}, want: retry, down: true},
		{name: "MAIL: 421", behaviour: providertest.Behaviour{Mail: reply(421, "4.7.0", "busy")}, want: retry, code: "421 4.7.0", down: true},
		{name: "MAIL: 451", behaviour: providertest.Behaviour{Mail: reply(451, "4.3.0", "later")}, want: retry, code: "451 4.3.0", down: true},
		{name: "MAIL: 452", behaviour: providertest.Behaviour{Mail: reply(452, "4.3.1", "disk full")}, want: retry, code: "452 4.3.1", down: true},
		{name: "MAIL: 530", behaviour: providertest.Behaviour{Mail: reply(530, "5.7.0", "sign in")}, want: config, code: "530 5.7.0", says: "asks for a sign-in"},
		{name: "MAIL: 550", behaviour: providertest.Behaviour{Mail: reply(550, "5.1.8", "bad sender")}, want: config, code: "550 5.1.8", says: "sender"},
		{name: "MAIL: 552", behaviour: providertest.Behaviour{Mail: reply(552, "5.3.4", "too big")}, want: payload, code: "552 5.3.4", says: "too large"},

		{name: "RCPT: hangs up", behaviour: providertest.Behaviour{HangUp: "RCPT"}, want: retry, down: true},
		{name: "RCPT: 421", behaviour: rcpt(421, "4.7.0", "busy"), want: retry, code: "421 4.7.0", down: true},
		{name: "RCPT: 450", behaviour: rcpt(450, "4.2.0", "greylisted"), want: retry, code: "450 4.2.0", wait: true},
		{name: "RCPT: 451", behaviour: rcpt(451, "4.7.1", "greylisted"), want: retry, code: "451 4.7.1", wait: true},
		{name: "RCPT: 452", behaviour: rcpt(452, "4.2.2", "mailbox full"), want: retry, code: "452 4.2.2"},
		{name: "RCPT: 530", behaviour: rcpt(530, "5.7.0", "sign in"), want: config, code: "530 5.7.0"},
		{name: "RCPT: 550 without a detail", behaviour: rcpt(550, "", "no"), want: blocked, code: "550"},
		{name: "RCPT: 550 5.1.1", behaviour: rcpt(550, "5.1.1", "no such user"), want: blocked, code: "550 5.1.1"},
		{name: "RCPT: 550 5.7.1", behaviour: rcpt(550, "5.7.1", "not wanted"), want: blocked, code: "550 5.7.1"},
		{name: "RCPT: 550 5.7.1 relaying", behaviour: rcpt(550, "5.7.1", "Relaying denied"), want: config, code: "550 5.7.1", says: "other domains"},
		{name: "RCPT: 550 5.7.26", behaviour: rcpt(550, "5.7.26", "no SPF"), want: config, code: "550 5.7.26"},
		{name: "RCPT: 551", behaviour: rcpt(551, "", "moved"), want: blocked, code: "551"},
		{name: "RCPT: 552 5.2.2", behaviour: rcpt(552, "5.2.2", "full"), want: blocked, code: "552 5.2.2", says: "full"},
		{name: "RCPT: 553", behaviour: rcpt(553, "5.1.3", "bad address"), want: blocked, code: "553 5.1.3"},

		{name: "DATA: hangs up", behaviour: providertest.Behaviour{HangUp: "DATA"}, want: retry, down: true},
		{name: "DATA: 421", behaviour: providertest.Behaviour{All: providertest.Script{Data: reply(421, "4.3.2", "busy")}}, want: retry, code: "421 4.3.2", down: true},
		{name: "DATA: 451", behaviour: providertest.Behaviour{All: providertest.Script{Data: reply(451, "4.3.0", "later")}}, want: retry, code: "451 4.3.0"},
		{name: "DATA: 554", behaviour: providertest.Behaviour{All: providertest.Script{Data: reply(554, "5.5.1", "no valid recipients")}}, want: payload, code: "554 5.5.1"},
		{name: "content: hangs up in the middle of a long mail", behaviour: providertest.Behaviour{All: providertest.Script{Drop: providertest.DropBeforeDot}}, change: big, want: retry, down: true},

		{name: "dot: hangs up", behaviour: providertest.Behaviour{All: providertest.Script{Drop: providertest.DropAfterDot}}, want: unknown, says: "not known", taken: 1},
		{name: "dot: 421", behaviour: dot(421, "4.3.2", "closing"), want: retry, code: "421 4.3.2", down: true},
		{name: "dot: 450", behaviour: dot(450, "4.7.1", "later"), want: retry, code: "450 4.7.1"},
		{name: "dot: 550 5.1.1", behaviour: dot(550, "5.1.1", "no such user"), want: blocked, code: "550 5.1.1"},
		{name: "dot: 550 5.7.1", behaviour: dot(550, "5.7.1", "spam"), want: payload, code: "550 5.7.1"},
		{name: "dot: 550 5.7.26", behaviour: dot(550, "5.7.26", "no DKIM"), want: config, code: "550 5.7.26", says: "DKIM"},
		{name: "dot: 552", behaviour: dot(552, "5.3.4", "too big"), want: payload, code: "552 5.3.4", says: "too large"},
		{name: "dot: too large for what was announced", opts: providertest.SMTPOptions{MaxMessageBytes: 1 << 20}, change: big, want: payload, code: "552 5.3.4", says: "too large"},
		{name: "dot: 554", behaviour: dot(554, "", "no"), want: payload, code: "554"},

		{name: "address: not one", change: to("nobody"), want: blocked},
		{name: "address: a command in it", change: to("a@example.com>\r\nRCPT TO:<b@example.com"), want: blocked},
		{name: "address: letters before the @ that the server does not take", opts: providertest.SMTPOptions{NoSMTPUTF8: true}, change: to("jürgen@example.com"), want: blocked, says: "characters"},
		{name: "sender: not one", change: func(m *notifications.Message) { m.Email.From = "nobody" }, want: payload, says: "sender"},
		{name: "copy: not one", change: func(m *notifications.Message) { m.Email.Cc = []string{"nobody"} }, want: payload, says: "copies"},
		{name: "reply to: not one", change: func(m *notifications.Message) { m.Email.ReplyTo = "nobody" }, want: payload, says: "reply"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.opts.Behaviour = tc.behaviour
			smtp := providertest.NewSMTP(t, tc.opts)
			m := message("person@example.com", "Hello")
			if tc.change != nil {
				tc.change(m)
			}
			mode := cmp.Or(tc.mode, string(tc.opts.TLS), "none")
			p := connect(t, smtp, func(cfg *notifications.ProviderConfig) {
				cfg.Config["tls"] = mode
				if tc.opts.Username != "" {
					signedIn(cfg)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			o := p.Send(ctx, m)
			require.Equal(t, tc.want, o.Kind, "%s %s", o.Code, o.Explanation)
			require.Equal(t, tc.code, o.Code)
			require.Equal(t, tc.down, o.ProviderDown, o.Explanation)
			require.Equal(t, tc.wait, o.RetryAfter >= 5*time.Minute, o.RetryAfter)
			require.Contains(t, o.Explanation, tc.says)
			require.NotContains(t, o.Explanation, "person@example.com")
			require.NotContains(t, o.Explanation, password)
			require.Equal(t, tc.taken, smtp.Total())

			if o.Kind == notifications.Accepted || tc.behaviour == (providertest.Behaviour{}) {
				return
			}
			smtp.Set(providertest.Behaviour{})
			o = p.Send(ctx, message("next@example.com", "Hello"))
			require.Equal(t, notifications.Accepted, o.Kind, "the next mail is not harmed: %s", o.Explanation)
			require.Len(t, smtp.To("next@example.com"), 1)
		})
	}
}
