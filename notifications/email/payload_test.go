package email_test

import (
	"bytes"
	"mime"
	"net/mail"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/email"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// deliver sends a mail and reads it back with the standard library's parser.
func deliver(t *testing.T, change func(*notifications.Message)) (providertest.Received, *providertest.Mail) {
	t.Helper()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	p := connect(t, smtp, nil)
	m := message("person@example.com", "Hello")
	change(m)
	accepted(t, p.Send(t.Context(), m))
	require.Equal(t, 1, smtp.Total())
	got := smtp.Messages()[0]
	parsed, err := got.Parse()
	require.NoError(t, err)
	for line := range bytes.SplitSeq(got.Raw, []byte("\r\n")) {
		require.LessOrEqual(t, len(line), 998, "%.80q", line)
		require.False(t, bytes.ContainsAny(line, "\r\n\x00"), "%.80q", line)
	}
	return got, parsed
}

func TestStructure(t *testing.T) {
	t.Parallel()
	file := notifications.Attachment{Name: "Rechnung März.pdf", Bytes: []byte("%PDF-\r\n.\r\n\x00\xff")}
	logo := notifications.Attachment{Name: "logo.png", Inline: true, Bytes: []byte("\x89PNG\r\n")}
	const text, html = "Grüße\r\n.\r\n..\r\nEnde = Schluß\r\n", "<p>Grüße</p>\r\n"
	for want, content := range map[string]notifications.Email{
		"text/plain": {Text: text},
		"text/html":  {HTML: html},
		"multipart/alternative(text/plain text/html)":                                                               {Text: text, HTML: html},
		"multipart/mixed(text/plain application/pdf)":                                                               {Text: text, Attachments: []notifications.Attachment{file}},
		"multipart/related(multipart/alternative(text/plain text/html) image/png)":                                  {Text: text, HTML: html, Attachments: []notifications.Attachment{logo}},
		"multipart/mixed(multipart/related(multipart/alternative(text/plain text/html) image/png) application/pdf)": {Text: text, HTML: html, Attachments: []notifications.Attachment{logo, file}},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			content.Subject = "Grüße aus Zürich 🎉"
			_, got := deliver(t, func(m *notifications.Message) { m.Email = &content })
			require.Equal(t, want, got.Structure)
			require.Equal(t, content.Subject, got.Get("Subject"))
			require.Equal(t, content.Text, got.Text)
			require.Equal(t, content.HTML, got.HTML)
			require.Len(t, got.Files, len(content.Attachments))
			for i, f := range got.Files {
				// Mail programs read an encoded word here, although the standard
				// wants RFC 2231.
				name, err := new(mime.WordDecoder).DecodeHeader(f.Name)
				require.NoError(t, err)
				require.Equal(t, content.Attachments[i].Name, name)
				require.Equal(t, content.Attachments[i].Bytes, f.Bytes)
				require.Equal(t, content.Attachments[i].Inline, f.Inline)
				if f.Inline {
					require.Equal(t, f.Name, f.ContentID)
				}
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	received, got := deliver(t, func(m *notifications.Message) {
		m.DeliveryID = "abc123"
		m.Target.Name = "Zoë O'Neill, \"Zo\""
		m.Email.ReplyTo = "Hilfe für alle <help@example.com>"
		m.Email.Cc = []string{"cc@example.com"}
		m.Email.Bcc = []string{"bcc@example.com"}
		m.Email.Headers = map[string]string{"list-unsubscribe": "<https://example.com/u/1>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
	})
	require.Equal(t, []string{"person@example.com", "cc@example.com", "bcc@example.com"}, received.To)
	require.Equal(t, "shop@example.com", received.From)
	require.NotContains(t, string(received.Raw), "bcc@example.com")
	require.Equal(t, "<abc123@example.com>", got.Header.Get("Message-Id"))
	require.Equal(t, "<https://example.com/u/1>", got.Header.Get("List-Unsubscribe"))
	require.Equal(t, "List-Unsubscribe=One-Click", got.Header.Get("List-Unsubscribe-Post"))
	require.Equal(t, []*mail.Address{{Name: "Zoë O'Neill, \"Zo\"", Address: "person@example.com"}}, addresses(t, got, "To"))
	require.Equal(t, []*mail.Address{{Name: "Shop", Address: "shop@example.com"}}, addresses(t, got, "From"))
	require.Equal(t, []*mail.Address{{Name: "Hilfe für alle", Address: "help@example.com"}}, addresses(t, got, "Reply-To"))
	_, err := got.Header.Date()
	require.NoError(t, err)
	for name, values := range got.Header {
		require.Len(t, values, 1, name)
	}
}

func addresses(t *testing.T, m *providertest.Mail, name string) []*mail.Address {
	t.Helper()
	list, err := m.Header.AddressList(name)
	require.NoError(t, err)
	return list
}

// What people type into their profile must not become a header of its own.
func TestNothingGetsOutOfItsHeader(t *testing.T) {
	t.Parallel()
	const attack = "x\r\nBcc: victim@example.net\r\nX-Injected: yes\r\n\r\nbody\r\n.\r\nMAIL FROM:<a@example.com>"
	lone := strings.NewReplacer("\r\n", "\r")
	for name, change := range map[string]func(m *notifications.Message, attack string){
		"subject": func(m *notifications.Message, a string) { m.Email.Subject = a },
		"name":    func(m *notifications.Message, a string) { m.Target.Name = a },
		"sender": func(m *notifications.Message, a string) {
			m.Email.From = (&mail.Address{Name: a, Address: "other@example.com"}).String()
		},
		"reply to": func(m *notifications.Message, a string) {
			m.Email.ReplyTo = (&mail.Address{Name: a, Address: "r@example.com"}).String()
		},
		"copy": func(m *notifications.Message, a string) {
			m.Email.Cc = []string{(&mail.Address{Name: a, Address: "cc@example.com"}).String()}
		},
		"attachment": func(m *notifications.Message, a string) {
			m.Email.Attachments = []notifications.Attachment{{Name: a, Bytes: []byte("x")}}
		},
		"inline": func(m *notifications.Message, a string) {
			m.Email.Attachments = []notifications.Attachment{{Name: a, Inline: true, Bytes: []byte("x")}}
		},
		"text": func(m *notifications.Message, a string) { m.Email.Text = a },
	} {
		for variant, a := range map[string]string{"CRLF": attack, "CR": lone.Replace(attack), "LF": strings.ReplaceAll(attack, "\r", ""), "line separator": strings.ReplaceAll(attack, "\r\n", "\u2028"), "NUL": strings.ReplaceAll(attack, "\r\n", "\x00\r\n\x00")} {
			t.Run(name+" "+variant, func(t *testing.T) {
				t.Parallel()
				received, got := deliver(t, func(m *notifications.Message) { change(m, a) })
				require.Empty(t, got.Header.Get("Bcc"))
				require.Empty(t, got.Header.Get("X-Injected"))
				require.NotContains(t, strings.Join(received.To, " "), "victim")
				if name == "attachment" || name == "inline" {
					require.Len(t, got.Files, 1)
					require.NotContains(t, string(received.Raw), "\r\nX-Injected: yes")
				}
			})
		}
	}

	t.Run("extra headers", func(t *testing.T) {
		t.Parallel()
		smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
		p := connect(t, smtp, nil)
		for key, value := range map[string]string{
			"X-A":                  "x\r\nBcc: victim@example.net",
			"X-B":                  "x\nBcc: victim@example.net",
			"X-C":                  "x\x00",
			"X-D\r\nBcc":           "victim@example.net",
			"X D":                  "x",
			"X-E:":                 "x",
			"":                     "x",
			"Grüße":                "x",
			"bcc":                  "victim@example.net",
			"FROM":                 "boss@example.com",
			"content-TYPE":         "text/html",
			"Message-ID":           "<x@example.com>",
			"mime-version":         "2.0",
			"Sender\u0000":         "x",
			"X-Injected: yes\r\nX": "x",
		} {
			m := message("person@example.com", "Hello")
			m.Email.Headers = map[string]string{key: value}
			o := p.Send(t.Context(), m)
			require.Equal(t, notifications.PayloadBad, o.Kind, "%q", key)
			require.NotContains(t, o.Explanation, "\n")
		}
		require.Zero(t, smtp.Total())
	})
}

func TestNamesOfOtherScripts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Łukasz Žižek", "山田 太郎", "محمد", "👩‍👩‍👧", "a@b.example, \"<c>\"", strings.Repeat("ä", 500), "\xff\xfe", " "} {
		received, got := deliver(t, func(m *notifications.Message) { m.Target.Name, m.Email.Subject = name, name })
		header, _, _ := strings.Cut(string(received.Raw), "\r\n\r\n")
		require.True(t, isASCII(header), "a header without SMTPUTF8 is ASCII: %q", header)
		want := strings.ToValidUTF8(name, "\uFFFD")
		require.Equal(t, strings.TrimSpace(want), strings.TrimSpace(addresses(t, got, "To")[0].Name))
		require.Equal(t, strings.TrimSpace(want), strings.TrimSpace(got.Get("Subject")))
	}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 })
}

func TestDomainsOfOtherScripts(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{NoSMTPUTF8: true})
	p := connect(t, smtp, with("from", "Laden <laden@müller.example>"))
	m := message("person@почта.example", "Hello")
	m.Email.Cc = []string{"cc@straße.example"}
	m.Email.ReplyTo = "hilfe@müller.example"
	accepted(t, p.Send(t.Context(), m))
	got := smtp.Messages()[0]
	require.Equal(t, "laden@xn--mller-kva.example", got.From)
	require.Equal(t, []string{"person@xn--80a1acny.example", "cc@xn--strae-oqa.example"}, got.To)
	header, _, _ := strings.Cut(string(got.Raw), "\r\n\r\n")
	require.True(t, isASCII(header), header)
	require.Contains(t, header, "@xn--mller-kva.example>", "the Message-ID")
	parsed, err := got.Parse()
	require.NoError(t, err)
	require.Equal(t, "hilfe@xn--mller-kva.example", addresses(t, parsed, "Reply-To")[0].Address)
}

func TestOddDomainsAreTheServersToJudge(t *testing.T) {
	t.Parallel()
	received, _ := deliver(t, func(m *notifications.Message) { m.Target.Address = "Person@mail_server.Example.com" })
	require.Equal(t, []string{"Person@mail_server.Example.com"}, received.To)
}

func TestLettersBeforeTheAt(t *testing.T) {
	t.Parallel()
	received, _ := deliver(t, func(m *notifications.Message) { m.Target.Address = "jürgen@müller.example" })
	require.Equal(t, []string{"jürgen@xn--mller-kva.example"}, received.To)
}

func TestConfigurationIsRead(t *testing.T) {
	t.Parallel()
	good := func() notifications.ProviderConfig {
		return notifications.ProviderConfig{Secret: password, Config: map[string]any{"host": "mail.example.com", "from": "shop@example.com"}}
	}
	_, err := email.New(good())
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		key   string
		value any
		says  string // empty: it is taken
	}{
		"no host":              {"host", "", "host"},
		"host of another type": {"host", 5, "host"},
		"host with a port":     {"host", "mail.example.com:25", "without port"},
		"host with a scheme":   {"host", "smtp://mail.example.com", "without a scheme"},
		"host with a break":    {"host", "mail\r\nexample.com", "name"},
		"host with a login":    {"host", "shop@mail.example.com", "name"},
		"IPv4":                 {"host", "192.0.2.1", ""},
		"IPv6":                 {"host", "2001:db8::1", ""},
		"IPv6 in brackets":     {"host", "[2001:db8::1]", "name"},
		"a container's name":   {"host", "mail_server-1", ""},
		"IDN":                  {"host", "müller.example", ""},
		"IDN that is none":     {"host", "a\u200db.example", "name"},
		"no from":              {"from", "", "from"},
		"from without domain":  {"from", "shop", "from"},
		"from with two":        {"from", "a@example.com, b@example.com", "from"},
		"from with a bad name": {"from", "a@exa\u200dmple.com", "from"},
		"tls":                  {"tls", "ssl", "starttls"},
		"tls in capitals":      {"tls", "STARTTLS", ""},
		"port as text":         {"port", "2525", ""},
		"port as a word":       {"port", "smtp", "number"},
		"port as a list":       {"port", []any{25}, "number"},
		"port too high":        {"port", 65536, "between"},
		"port below zero":      {"port", -1, "between"},
		"port not whole":       {"port", 25.5, "number"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good()
			cfg.Config[tc.key] = tc.value
			_, err := email.New(cfg)
			if tc.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.says)
			require.NotContains(t, err.Error(), password)
		})
	}
}

func TestPromotionalMailIsOfferedAWayOut(t *testing.T) {
	t.Parallel()
	const link = "https://shop.example.com/api/unsubscribe/abc_DEF-123"
	for name, tc := range map[string]struct {
		kind           notifications.Kind
		mailto         string
		list, listPost string
	}{
		"promotional":   {notifications.KindPromotional, "", "<" + link + ">", "List-Unsubscribe=One-Click"},
		"by mail too":   {notifications.KindPromotional, "a+b@example.com", "<" + link + ">, <mailto:a+b@example.com?subject=unsubscribe>", "List-Unsubscribe=One-Click"},
		"transactional": {notifications.KindTransactional, "a@example.com", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, parsed := deliver(t, func(m *notifications.Message) {
				m.Kind, m.Email.Unsubscribe, m.Email.UnsubscribeMailto = tc.kind, link, tc.mailto
				if tc.kind == notifications.KindPromotional {
					m.Email.Headers = map[string]string{"List-Unsubscribe": "<https://elsewhere.example>", "list-unsubscribe-post": "No"}
				}
			})
			require.Equal(t, tc.list, parsed.Get("List-Unsubscribe"))
			require.Equal(t, tc.listPost, parsed.Get("List-Unsubscribe-Post"))
			require.LessOrEqual(t, bytes.Count(got.Raw, []byte("List-Unsubscribe:")), 1)
			require.NotContains(t, string(got.Raw), "elsewhere")
		})
	}

	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	p := connect(t, smtp, nil)
	for _, bad := range []string{"", "https://shop.example.com/\r\nBcc: x@example.com", "https://shop.example.com/> <x"} {
		m := message("person@example.com", "Hello")
		m.Kind, m.Email.Unsubscribe = notifications.KindPromotional, bad
		outcome := p.Send(t.Context(), m)
		require.Equal(t, notifications.PayloadBad, outcome.Kind, "%q", bad)
		require.Contains(t, outcome.Explanation, "no unsubscribe link")
	}
	require.Zero(t, smtp.Total())
}
