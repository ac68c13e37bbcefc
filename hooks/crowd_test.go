package hooks_test

import (
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

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
