package hooks_test

import (
	"context"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// A telephone carrier that does not answer has all its messages waiting, and
// nobody else's.
func TestASlowCarrierHoldsNobodyElseUp(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	mailProvider(t, x.App, smtp.Config("hello@example.com"), "")
	x.twilio.SetAll(providertest.TwilioFault{Hold: true})
	var texts []*core.Record
	for range 12 { // more than there are workers
		texts = append(texts, send(t, x.App, map[string]any{"channels": []string{"sms"}}))
	}
	require.True(t, waitFor(func() bool { return x.twilio.Total() > 0 }))
	until(t, x.App, send(t, x.App, map[string]any{"channels": []string{"email"}}), "status", "sent")
	require.Len(t, smtp.To("ana@example.com"), 1)

	x.twilio.SetAll(providertest.TwilioFault{})
	x.twilio.Release()
	for _, n := range texts {
		until(t, x.App, n, "status", "sent")
	}
	require.Equal(t, 12, x.twilio.Total(), "each once")
}

// Messages that stayed away from a busy provider are called back as soon as others
// are through: nobody waits while it is idle.
func TestWhoStayedAwayIsCalledBack(t *testing.T) {
	t.Parallel()
	x := newTexting(t, pbtest.WithConfig(func(cfg *hooks.Config) { cfg.Retry.Away = 24 * time.Hour }))
	x.twilio.SetAll(providertest.TwilioFault{Hold: true})
	var texts []*core.Record
	for range 12 {
		texts = append(texts, send(t, x.App, map[string]any{"channels": []string{"sms"}}))
	}
	require.True(t, waitFor(func() bool {
		due, err := jobs.CountDue(t.Context(), x.App)
		require.NoError(t, err)
		return x.twilio.Total() == 2 && due == 4 // two in flight and two at the gate; the others are away
	}))
	x.twilio.SetAll(providertest.TwilioFault{})
	x.twilio.Release()
	for _, n := range texts {
		until(t, x.App, n, "status", "sent")
	}
	require.Equal(t, 12, x.twilio.Total(), "each once")
}

// Batches that are asked for again while they wait for their carrier, as happens when
// a provider's check is through, take no further workers.
func TestBatchesAskedForTwiceHoldNobodyUp(t *testing.T) {
	t.Parallel()
	x := newTexting(t)
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	mailProvider(t, x.App, smtp.Config("hello@example.com"), "")
	x.twilio.SetAll(providertest.TwilioFault{Hold: true})
	var texts []*core.Record
	for range 4 { // two under way, two that wait at the gate
		texts = append(texts, send(t, x.App, map[string]any{"channels": []string{"sms"}}))
	}
	onlyThoseFour := func() bool {
		due, err := jobs.CountDue(t.Context(), x.App)
		require.NoError(t, err)
		return due == len(texts)
	}
	require.True(t, waitFor(func() bool { return x.twilio.Total() == 2 && onlyThoseFour() }))
	for range 3 {
		_, err := jobs.Enqueue(x.App, notifications.ResumedArgs{Channel: notifications.ProviderSMSTransactional}, jobs.Options{})
		require.NoError(t, err)
	}
	require.True(t, waitFor(onlyThoseFour), "who comes to a batch that is under way goes again")
	until(t, x.App, send(t, x.App, map[string]any{"channels": []string{"email"}}), "status", "sent")

	x.twilio.SetAll(providertest.TwilioFault{})
	x.twilio.Release()
	for _, n := range texts {
		until(t, x.App, n, "status", "sent")
	}
	require.Equal(t, 4, x.twilio.Total(), "each once")
}

// A push service that takes messages and does not answer leaves half of the workers
// to others.
func TestASilentPushServiceHoldsNobodyElseUp(t *testing.T) {
	t.Parallel()
	x := newPushing(t)
	x.people(1, "android")
	google := providertest.NewFCM(t, providertest.FCMOptions{Project: "demo-shop"})
	until(t, x.App, x.provider("fcm", google.Config(), google.ServiceAccount(), ""), "state", "ok")
	google.Script(providertest.FCMDeviceToken(0), providertest.FCMScript{Hold: true})
	var pushes []*core.Record
	for range 12 { // more than there are workers
		pushes = append(pushes, send(t, x.App, map[string]any{"channels": []string{"push"}}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, google.Await(ctx, 4))
	until(t, x.App, send(t, x.App, map[string]any{"channels": []string{"inbox"}}), "status", "sent")
	require.Equal(t, 4, google.Total(), "these four still have no answer, and keep four workers")

	google.Script(providertest.FCMDeviceToken(0), providertest.FCMScript{})
	google.Release()
	for _, n := range pushes {
		until(t, x.App, n, "status", "sent")
	}
}
