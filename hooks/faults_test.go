package hooks_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// faultRecipients get each message below; some of each hundred meet a fault.
const faultRecipients = 200

// each calls do for the recipients whose number ends in these two digits: one in
// a hundred.
func each(digits int, do func(i int)) {
	for i := digits; i < faultRecipients; i += 100 {
		do(i)
	}
}

// outcomes are the deliveries of a notification, by the recipient's number, as
// status and reason.
func (x *pushing) outcomes(n *core.Record) map[int]string {
	x.t.Helper()
	var rows []struct {
		Email  string `db:"email"`
		Status string `db:"status"`
		Reason string `db:"reason"`
	}
	require.NoError(x.t, x.ConcurrentDB().NewQuery("SELECT u.email, d.status, d.reason FROM notification_deliveries d JOIN users u ON u.id = d.user WHERE d.notification = {:n}").
		Bind(dbx.Params{"n": n.Id}).All(&rows))
	all := map[int]string{}
	for _, r := range rows {
		var i int
		_, err := fmt.Sscanf(r.Email, "p%d@example.com", &i)
		require.NoError(x.t, err)
		require.Empty(x.t, all[i], "one row for each")
		all[i] = r.Status
		if r.Reason != "" {
			all[i] += " " + r.Reason
		}
	}
	return all
}

// deviceStatus is what the devices are now, by the recipient's number.
func (x *pushing) deviceStatus() map[int]string {
	x.t.Helper()
	var rows []struct {
		Email  string `db:"email"`
		Status string `db:"status"`
	}
	require.NoError(x.t, x.ConcurrentDB().NewQuery("SELECT u.email, d.status FROM devices d JOIN users u ON u.id = d.user").All(&rows))
	all := map[int]string{}
	for _, r := range rows {
		var i int
		_, err := fmt.Sscanf(r.Email, "p%d@example.com", &i)
		require.NoError(x.t, err)
		all[i] = r.Status
	}
	return all
}

// everybody is a map with the same value for each recipient.
func everybody(value string) map[int]string {
	all := map[int]string{}
	for i := range faultRecipients {
		all[i] = value
	}
	return all
}

// over waits until a notification has come to its end.
func (x *pushing) over(n *core.Record) *core.Record {
	x.t.Helper()
	require.True(x.t, waitFor(func() bool {
		n = x.Reload(n)
		switch notifications.Status(n.GetString("status")) {
		case notifications.StatusSent, notifications.StatusSentWithFailures, notifications.StatusFailed:
			return true
		default:
			return false
		}
	}), "it is over: %v %v", n, deliveryStatuses(x.t, x.App, n))
	return n
}

// Apple answers some badly, ends connections in all the ways there are, and lets
// nobody open a second stream before a first push was taken: everybody who can be
// reached is, and the dead devices are retired.
func TestFaultsOfApple(t *testing.T) {
	t.Parallel()
	const streams = 20
	x := newPushing(t)
	x.people(faultRecipients, "ios")
	apple := providertest.NewAPNs(t, providertest.APNsOptions{KeyID: "KEY1234567", TeamID: "TEAM123456", Topics: []string{pushBundle},
		Streams: 1, StreamsAfterAccept: streams, Latency: 2 * time.Millisecond})
	key, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	until(t, x.App, x.provider("apns", apple.Config(pushBundle), key.PEM, ""), "state", "ok")

	want, devices := everybody("accepted"), everybody("active")
	script := func(digits int, scripts ...providertest.APNsScript) {
		each(digits, func(i int) { apple.Script(iosToken(i), append(scripts, providertest.APNsScript{})...) })
	}
	each(3, func(i int) {
		apple.Script(iosToken(i), providertest.APNsScript{Status: 410, Reason: "Unregistered", Timestamp: time.Now().Add(time.Minute)})
		want[i], devices[i] = "failed target_gone", "gone"
	})
	// Gone before it was registered again: Apple means an earlier life of the token.
	apple.Script(iosToken(5), providertest.APNsScript{Status: 410, Reason: "Unregistered", Timestamp: time.Now().Add(-time.Hour)})
	want[5] = "failed target_gone"
	script(13, providertest.APNsScript{Status: 429, Reason: "TooManyRequests", RetryAfter: "1"})
	script(23, providertest.APNsScript{Status: 503, Reason: "ServiceUnavailable"})
	script(24, providertest.APNsScript{Status: 500, Reason: "InternalServerError"})
	apple.Script(iosToken(33), providertest.APNsScript{GoAway: true}, providertest.APNsScript{})
	apple.Script(iosToken(43), providertest.APNsScript{Drop: true}, providertest.APNsScript{})
	script(53, providertest.APNsScript{Reset: true, ResetCode: http2.ErrCodeRefusedStream})
	script(63, providertest.APNsScript{Reset: true, ResetCode: http2.ErrCodeInternal})
	apple.Script(iosToken(73), providertest.APNsScript{Status: 502, Body: "<html>Bad gateway</html>"}, providertest.APNsScript{})

	apple.Script(iosToken(150), providertest.APNsScript{Hold: true})

	n := send(t, x.App, map[string]any{"title": "Hello", "channels": []string{"push"}})
	// A line that takes everything and says nothing, for a while, until somebody
	// cuts it.
	select {
	case <-apple.Arrived(iosToken(150)):
	case <-time.After(patience):
		require.FailNow(t, "the push that is held never arrived")
	}
	apple.BlackHole()
	time.Sleep(200 * time.Millisecond) // how long the hole lasts
	require.NotEqual(t, "accepted", x.outcomes(n)[150])
	apple.Script(iosToken(150), providertest.APNsScript{})
	apple.Drop()

	n = x.over(n)
	require.Equal(t, want, x.outcomes(n))
	require.Equal(t, devices, x.deviceStatus())
	require.Equal(t, "sent_with_failures", n.GetString("status"))
	require.Equal(t, []int{faultRecipients, faultRecipients - 3, 3, 0, 0}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("failed"), n.GetInt("pending"), n.GetInt("unknown")})
	require.Zero(t, apple.RefusedStreams(), "never more at a time than Apple takes")
	require.LessOrEqual(t, apple.PeakStreams(), streams)
	// Only what was in flight when a connection ended is repeated: three ended
	// without answers, and three pushes in the middle.
	require.GreaterOrEqual(t, apple.Accepted(), faultRecipients-3)
	require.LessOrEqual(t, apple.Accepted(), faultRecipients-3+3*streams)
	for i := range faultRecipients {
		if want[i] == "accepted" {
			require.Equal(t, n.Id, apple.Last(iosToken(i)).Header["apns-collapse-id"], "a repeat replaces what is shown")
		} else {
			require.LessOrEqual(t, apple.Count(iosToken(i)), 1+3, "what is gone is not tried again, unless its answer was lost")
		}
	}
}

func TestFaultsOfGoogle(t *testing.T) {
	t.Parallel()
	x := newPushing(t)
	x.people(faultRecipients, "android")
	google := providertest.NewFCM(t, providertest.FCMOptions{Project: "demo-shop", MaxStreams: 20, Behaviour: providertest.FCMBehaviour{Latency: 2 * time.Millisecond}})
	until(t, x.App, x.provider("fcm", google.Config(), google.ServiceAccount(), ""), "state", "ok")

	want, devices := everybody("accepted"), everybody("active")
	token := providertest.FCMDeviceToken
	script := func(digits int, script providertest.FCMScript) {
		each(digits, func(i int) { google.Script(token(i), script, providertest.FCMScript{}) })
	}
	gone := func(digits int, fault providertest.FCMFault) {
		each(digits, func(i int) {
			google.Script(token(i), providertest.FCMScript{Fault: fault})
			want[i], devices[i] = "failed target_gone", "gone"
		})
	}
	gone(3, providertest.FCMUnregistered)
	gone(4, providertest.FCMInvalidToken)
	script(13, providertest.FCMScript{Fault: providertest.FCMQuotaDevice, RetryAfter: "1"})
	script(23, providertest.FCMScript{Fault: providertest.FCMUnavailable, RetryAfter: "1"})
	script(24, providertest.FCMScript{Fault: providertest.FCMInternal})
	script(33, providertest.FCMScript{Fault: providertest.FCMReset})
	google.Script(token(43), providertest.FCMScript{Fault: providertest.FCMCut}, providertest.FCMScript{})
	google.Script(token(53), providertest.FCMScript{Fault: providertest.FCMBadGateway}, providertest.FCMScript{})
	google.Script(token(63), providertest.FCMScript{Fault: providertest.FCMUnavailableHTML}, providertest.FCMScript{})

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n := send(t, x.App, map[string]any{"title": "Hello", "channels": []string{"push"}})
	require.NoError(t, google.Await(ctx, faultRecipients/3))
	google.HangUp()
	require.NoError(t, google.Await(ctx, faultRecipients/2))
	require.NoError(t, google.Down())
	require.NoError(t, google.Up())

	n = x.over(n)
	require.Equal(t, want, x.outcomes(n))
	require.Equal(t, devices, x.deviceStatus())
	require.Equal(t, []int{faultRecipients, faultRecipients - 4, 4, 0, 0}, []int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("failed"), n.GetInt("pending"), n.GetInt("unknown")})
	for i := range faultRecipients {
		if want[i] != "accepted" {
			require.LessOrEqual(t, google.Received(token(i)), 1+3, "what is gone is not tried again, unless its answer was lost")
			continue
		}
		require.Positive(t, google.Accepted(token(i)))
		m, err := google.LastMessage(token(i))
		require.NoError(t, err)
		require.Equal(t, n.Id, m.Android.CollapseKey, "a repeat replaces what is shown")
	}
	require.Empty(t, google.Violations())
}

// settled compares how each delivery ended with what was to be expected, and the
// ledger of the double with who was to be in it. What was in flight when the lines
// were cut may have been taken or not: nobody knows, and it is not sent again. It
// returns how many that are.
func (x *pushing) settled(n *core.Record, want map[int]string, taken map[string]int, ledger map[string]int) (cut int) {
	x.t.Helper()
	const unknown = "unknown no_answer"
	got, in := x.outcomes(n), map[string]int{}
	counts := map[string]int{"total": faultRecipients}
	for i, ended := range got {
		if ended == unknown && want[i] != unknown {
			want[i] = ended
			cut++
		}
		status, _, _ := strings.Cut(ended, " ")
		counts[status]++
		for _, address := range []string{phoneNumber(i), mailAddress(i)} {
			switch times, listed := taken[address]; {
			case ended == unknown && ledger[address] == 1:
				in[address] = 1
			case ended == unknown:
			case listed:
				in[address] = times
			}
		}
	}
	require.Equal(x.t, want, got)
	require.Equal(x.t, in, ledger, "nobody twice")
	require.Equal(x.t, []int{counts["total"], counts["accepted"], counts["failed"], counts["unknown"], 0},
		[]int{n.GetInt("total"), n.GetInt("sent"), n.GetInt("failed"), n.GetInt("unknown"), n.GetInt("pending")})
	return cut
}

// Whoever may have got a text does not get it again.
func TestFaultsOfTwilio(t *testing.T) {
	t.Parallel()
	x := newPushing(t)
	x.people(faultRecipients, "")
	twilio := providertest.NewTwilio(t, providertest.TwilioOptions{})
	until(t, x.App, x.provider("sms_transactional", twilio.Config(), twilio.AuthToken(), codesSender), "state", "ok")

	want, taken := everybody("accepted"), map[string]int{}
	for i := range faultRecipients {
		taken[phoneNumber(i)] = 1
	}
	fault := func(digits int, ends string, times int, faults ...providertest.TwilioFault) {
		each(digits, func(i int) {
			twilio.Script(phoneNumber(i), append(faults, providertest.TwilioFault{})...)
			want[i] = ends
			if taken[phoneNumber(i)] = times; times == 0 {
				delete(taken, phoneNumber(i))
			}
		})
	}
	fault(3, "failed recipient_blocked", 0, providertest.TwilioFault{Code: 21211})
	fault(4, "failed recipient_blocked", 0, providertest.TwilioFault{Code: 21610})
	fault(13, "accepted", 1, providertest.TwilioFault{Code: 20429, RetryAfter: time.Second})
	fault(14, "accepted", 1, providertest.TwilioFault{Code: 20429})
	fault(23, "accepted", 1, providertest.TwilioFault{Code: 20503, Status: 503})
	fault(33, "unknown no_answer", 1, providertest.TwilioFault{Drop: true})
	fault(43, "unknown no_answer", 1, providertest.TwilioFault{HTML: 502, Create: true})
	fault(53, "unknown no_answer", 0, providertest.TwilioFault{HTML: 502})

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n := send(t, x.App, map[string]any{"title": "Hello", "channels": []string{"sms"}})
	require.NoError(t, twilio.Await(ctx, faultRecipients/2))
	require.NoError(t, twilio.Down())
	require.NoError(t, twilio.Up())

	n = x.over(n)
	cut := x.settled(n, want, taken, twilio.Counts())
	require.LessOrEqual(t, cut, 32, "as many as the adapter has in flight")
	require.Equal(t, map[string]int{codesSender: twilio.Total()}, twilio.Senders())
}

func TestFaultsOfAMailServer(t *testing.T) {
	t.Parallel()
	x := newPushing(t)
	x.people(faultRecipients, "")
	mails := providertest.NewSMTP(t, providertest.SMTPOptions{})
	until(t, x.App, x.provider("email_transactional", mails.Config("hello@example.com"), "", ""), "state", "ok")

	want, taken := everybody("accepted"), map[string]int{}
	for i := range faultRecipients {
		taken[mailAddress(i)] = 1
	}
	fault := func(digits int, ends string, times int, scripts ...providertest.Script) {
		each(digits, func(i int) {
			mails.Script(mailAddress(i), append(scripts, providertest.Script{})...)
			want[i] = ends
			if taken[mailAddress(i)] = times; times == 0 {
				delete(taken, mailAddress(i))
			}
		})
	}
	fault(3, "failed recipient_blocked", 0, providertest.Script{Rcpt: providertest.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such user"}})
	fault(13, "accepted", 1, providertest.Script{Rcpt: providertest.Reply{Code: 452, Enhanced: "4.2.2", Text: "Mailbox full"}})
	fault(23, "accepted", 1, providertest.Script{Dot: providertest.Reply{Code: 421, Enhanced: "4.3.2", Text: "Shutting down"}})
	fault(33, "accepted", 1, providertest.Script{Drop: providertest.DropAtRcpt})
	fault(43, "accepted", 1, providertest.Script{Drop: providertest.DropBeforeDot})
	fault(53, "unknown no_answer", 1, providertest.Script{Drop: providertest.DropAfterDot})

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n := send(t, x.App, nil)
	require.NoError(t, mails.Await(ctx, faultRecipients/2))
	mails.HangUp()

	n = x.over(n)
	cut := x.settled(n, want, taken, mails.Counts())
	_, _, peak := mails.Connections()
	require.LessOrEqual(t, cut, peak)
}
