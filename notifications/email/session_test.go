package email

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/wneessen/go-mail/smtp"

	"github.com/groundworkhq/groundwork/notifications"
)

// lateConn ends a context while the answer to a mail is read.
type lateConn struct {
	net.Conn
	cancel context.CancelFunc
}

func (c lateConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bytes.Contains(p[:n], []byte("taken")) {
		c.cancel()
	}
	return n, err
}

// scripted is a session with a server that hangs up in place of the answer to
// the mail when hangUp is set.
func scripted(t *testing.T, cancel context.CancelFunc, hangUp bool) *session {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	go func() {
		lines := bufio.NewReader(there)
		say := func(s string) { _, _ = there.Write([]byte(s + "\r\n")) }
		say("220 ready")
		for {
			line, err := lines.ReadString('\n')
			switch {
			case err != nil:
				return
			case line == "DATA\r\n":
				say("354 go on")
				if hangUp {
					_ = there.Close()
					return
				}
				for line != ".\r\n" && err == nil {
					line, err = lines.ReadString('\n')
				}
				say("250 taken")
			default:
				say("250 fine")
			}
		}
	}()
	client, err := smtp.NewClient(lateConn{here, cancel}, "mail.example.com")
	require.NoError(t, err)
	return &session{conn: here, client: client}
}

func TestAConnectionWhoseContextEndsLateIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	env := &envelope{from: "shop@example.com", to: []string{"person@example.com"}}
	for _, late := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		end := func() {}
		if late {
			end = cancel
		}
		s := scripted(t, end, false)
		_, fault := s.send(ctx, env, []byte("Subject: x\r\n\r\nHello\r\n"))
		require.Nil(t, fault, "the answer had arrived")
		p := &Provider{}
		p.give(s)
		require.Len(t, p.idle, map[bool]int{false: 1, true: 0}[late])
	}
}

// The whole mail fits into a buffer: that the line is gone must show before the
// final dot, or nobody would know whether it was sent.
func TestALineThatBreaksBeforeTheDotLeavesNoDoubt(t *testing.T) {
	t.Parallel()
	s := scripted(t, func() {}, true)
	_, fault := s.send(t.Context(), &envelope{from: "shop@example.com", to: []string{"person@example.com"}}, []byte("Subject: x\r\n\r\nHello\r\n"))
	require.NotNil(t, fault)
	require.Equal(t, stageData, fault.stage)
}

func TestTheHostIsAskedForInASCII(t *testing.T) {
	t.Parallel()
	a, err := New(notifications.ProviderConfig{Config: map[string]any{"host": " Müller.example ", "from": "shop@example.com"}})
	require.NoError(t, err)
	p, ok := a.(*Provider)
	require.True(t, ok)
	require.Equal(t, "xn--mller-kva.example", strings.ToLower(p.host))
}
