package hooks_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// A suppression holds back what goes to its address on its channel: everything, or
// one kind of message.
func TestWhatASuppressionHoldsBack(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Handler()
	type held struct{ transactional, promotional, sms bool }
	rows := map[string]struct {
		fields map[string]any
		held   held
	}{
		"nothing":       {nil, held{}},
		"manual":        {map[string]any{"channel": "email", "reason": "manual"}, held{transactional: true, promotional: true}},
		"bounce":        {map[string]any{"channel": "email", "reason": "bounce"}, held{transactional: true, promotional: true}},
		"unsubscribe":   {map[string]any{"channel": "email", "kind": "promotional", "reason": "unsubscribe"}, held{promotional: true}},
		"complaint":     {map[string]any{"channel": "email", "kind": "promotional", "reason": "complaint"}, held{promotional: true}},
		"transactional": {map[string]any{"channel": "email", "kind": "transactional", "reason": "manual"}, held{transactional: true}},
		"phone":         {map[string]any{"channel": "sms", "reason": "stop"}, held{sms: true}},
		"otherwise":     {map[string]any{"channel": "email", "address": " OTHERWISE@Example.com ", "reason": "manual"}, held{transactional: true, promotional: true}},
	}
	phones, names := 0, map[string]string{}
	for name, row := range rows {
		phones++
		phone := "+44770090020" + string(rune('0'+phones))
		u := app.User(name+"@example.com", map[string]any{"phone": phone})
		names[u.Id] = name
		app.Record(notifications.CollectionConsents, map[string]any{"user": u.Id, "channel": "email", "granted": true, "source": "Test", "wording": "Yes"})
		if row.fields == nil {
			continue
		}
		fields := map[string]any{"address": map[any]string{"email": name + "@example.com", "sms": phone}[row.fields["channel"]]}
		for k, v := range row.fields {
			fields[k] = v
		}
		app.Record(notifications.CollectionSuppressions, fields)
	}
	for what, tc := range map[string]struct {
		fields map[string]any
		held   func(held) bool
	}{
		"transactional": {map[string]any{"channels": []string{"email"}}, func(h held) bool { return h.transactional }},
		"promotional":   {map[string]any{"channels": []string{"email"}, "category": "gwpromotional00"}, func(h held) bool { return h.promotional }},
		"sms":           {map[string]any{"channels": []string{"sms"}}, func(h held) bool { return h.sms }},
		"inbox":         {map[string]any{"channels": []string{"inbox"}}, func(held) bool { return false }},
	} {
		tc.fields["audience"], tc.fields["filter"] = "filter", `id != ""`
		n := until(t, app, send(t, app, tc.fields), "status", "sent")
		got, explained := ends(t, app, n)
		require.Len(t, got, len(rows))
		for id, end := range got {
			if tc.held(rows[names[id]].held) {
				require.Equal(t, "skipped suppressed", end, "%s to %s", what, names[id])
				require.NotEmpty(t, explained[id])
				continue
			}
			require.NotContains(t, end, "skipped", "%s to %s", what, names[id])
		}
	}
}
