package notifications_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// TestAnswersThatNobodyWaitsFor settle the row of their own try, once, and nothing else.
func TestAnswersThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	sender := notifications.SenderOf(app)
	n := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hello", "body": "We are open.", "channels": []string{"email"}, "audience": "everyone"})
	_, err := app.DB().Update("notifications", dbx.Params{"status": "sending"}, dbx.HashExp{"id": n.Id}).Execute()
	require.NoError(t, err)
	cancelled := app.Record(notifications.CollectionNotifications, map[string]any{"title": "Hello", "body": "We are open.", "channels": []string{"email"}, "audience": "everyone"})
	_, err = app.DB().Update("notifications", dbx.Params{"status": "cancelled"}, dbx.HashExp{"id": cancelled.Id}).Execute()
	require.NoError(t, err)

	accepted := notifications.Outcome{Kind: notifications.Accepted, ProviderMessageID: "SM1"}
	gone := notifications.Outcome{Kind: notifications.TargetGone, Explanation: "There is no such address."}
	retry := notifications.Outcome{Kind: notifications.Retry, Explanation: "Later."}
	ambiguous := notifications.Outcome{Kind: notifications.Ambiguous, Explanation: "No answer."}
	configBad := notifications.Outcome{Kind: notifications.ConfigBad, Explanation: "The password is wrong."}
	later := time.Now().Add(time.Minute).UTC().Format("2006-01-02 15:04:05.000Z")
	type row struct {
		Channel, Status, Reason string
		Attempts                int
	}
	sending := row{"sms", "sending", "", 2}
	for i, tt := range []struct {
		name         string
		before       row
		try          int
		outcome      notifications.Outcome
		notBegun     bool
		cancelled    bool
		status       string
		reason       string
		asksForBatch bool
	}{
		{name: "taken", before: sending, try: 2, outcome: accepted, status: "accepted"},
		{name: "taken, told as unknown before", before: row{"sms", "unknown", "interrupted", 2}, try: 2, outcome: accepted, status: "accepted"},
		{name: "taken, after another worker said that nobody knows", before: row{"sms", "unknown", "no_answer", 2}, try: 2, outcome: accepted, status: "accepted"},
		{name: "nobody knows, after it was taken", before: row{"sms", "accepted", "", 2}, try: 2, outcome: ambiguous, status: "accepted"},
		{name: "refused", before: sending, try: 2, outcome: gone, status: "failed", reason: "target_gone"},
		{name: "nobody knows", before: sending, try: 2, outcome: ambiguous, status: "unknown", reason: "no_answer"},
		{name: "not begun", before: sending, try: 2, outcome: retry, notBegun: true, status: "pending", asksForBatch: true},
		{name: "later", before: sending, try: 2, outcome: retry, status: "pending", asksForBatch: true},
		{name: "the setup is wrong", before: sending, try: 2, outcome: configBad, status: "pending", asksForBatch: true},
		{name: "not begun, and cancelled meanwhile", before: sending, try: 2, outcome: retry, notBegun: true, cancelled: true, status: "cancelled", reason: "cancelled"},
		{name: "not begun, and told as unknown before", before: row{"sms", "unknown", "interrupted", 2}, try: 2, outcome: retry, notBegun: true, status: "failed", reason: "not_sent"},
		{name: "of an earlier try", before: sending, try: 1, outcome: accepted, status: "sending"},
		{name: "of an earlier try, when it waits for the next", before: row{"sms", "pending", "", 2}, try: 2, outcome: gone, status: "pending"},
		{name: "after a receipt", before: row{"sms", "delivered", "", 2}, try: 2, outcome: accepted, status: "delivered"},
		{name: "after a receipt that it failed", before: row{"sms", "failed", "undelivered", 2}, try: 2, outcome: accepted, status: "failed", reason: "undelivered"},
		{name: "unknown for another reason", before: row{"sms", "unknown", "conflict", 2}, try: 2, outcome: accepted, status: "unknown", reason: "conflict"},
		{name: "a push that was taken", before: row{"push", "pending", "", 1}, try: 2, outcome: accepted, status: "accepted"},
		{name: "a push that is to be tried again anyway", before: row{"push", "pending", "", 1}, try: 2, outcome: gone, status: "pending"},
		{name: "a push of an earlier try", before: row{"push", "pending", "", 2}, try: 2, outcome: accepted, status: "pending"},
	} {
		t.Run(tt.name, func(t *testing.T) { // one after the other: they count jobs
			notification := n
			if tt.cancelled {
				notification = cancelled
			}
			id := fmt.Sprintf("d%014d", i)
			insert := dbx.Params{"id": id, "notification": notification.Id, "target": id, "user": "u", "channel": tt.before.Channel, "kind": "transactional", "status": tt.before.Status,
				"reason": tt.before.Reason, "attempts": tt.before.Attempts, "nextAttemptAt": later, "batch": i, "created": later, "updated": later}
			_, err := app.DB().Insert("notification_deliveries", insert).Execute()
			require.NoError(t, err)
			ch := notifications.ProviderSMSTransactional
			if tt.before.Channel == "push" {
				ch = notifications.ProviderFCM
			}
			for range 2 { // it may come again
				require.NoError(t, sender.TakeAnswer(ch, id, tt.try, tt.outcome, tt.notBegun))
			}
			now, err := app.FindRecordById(notifications.CollectionDeliveries, id)
			require.NoError(t, err)
			require.Equal(t, tt.status, now.GetString("status"))
			if tt.status != "pending" || tt.reason != "" {
				require.Equal(t, tt.reason, now.GetString("reason"))
			}
			if tt.status == "accepted" && tt.before.Status != "accepted" {
				require.Equal(t, "SM1", now.GetString("providerMessageId"))
				require.NotEmpty(t, now.GetString("acceptedAt"))
				require.Equal(t, tt.try, now.GetInt("attempts"))
			}
			if tt.status == "failed" && tt.before.Status != "failed" {
				require.NotEmpty(t, now.GetString("explanation"))
			}
			require.Equal(t, tt.asksForBatch, batchAsked(t, app, i), "whether its batch is asked for")
		})
	}
	require.NoError(t, sender.TakeAnswer(notifications.ProviderSMSTransactional, "nobody", 1, accepted, false), "an erased delivery has another id")
}

// batchAsked says whether a job for a batch waits in the outbox.
func batchAsked(t *testing.T, app core.App, batch int) bool {
	t.Helper()
	var found int
	require.NoError(t, app.DB().NewQuery("SELECT COUNT(*) FROM groundwork_outbox WHERE kind = {:kind} AND json_extract(args, '$.batch') = {:batch}").
		Bind(dbx.Params{"kind": notifications.BatchArgs{}.Kind(), "batch": batch}).Row(&found))
	return found > 0
}
