package hooks_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
)

func TestAWrongFormatIsToldWithItsFix(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	root, person := app.Token(app.Superuser("root@example.com")), app.User("ana@example.com")
	for _, tc := range []struct {
		collection, field, code, want string
		body                          map[string]any
	}{
		{"notification_templates", "key", "validation_invalid_format", "without spaces, such as order_shipped.", map[string]any{"key": "Order shipped", "title": "On its way"}},
		{"notification_topics", "key", "validation_invalid_format", "without spaces", map[string]any{"key": "team news", "name": "News"}},
		{"notification_categories", "key", "validation_invalid_format", "without spaces", map[string]any{"key": "team news", "name": "News", "kind": "transactional"}},
		{"notification_preferences", "quietFrom", "validation_invalid_format", "such as 22:00.", map[string]any{"user": person.Id, "quietFrom": "10pm", "quietTo": "07:00"}},
		{"notification_preferences", "quietTo", "validation_invalid_format", "such as 07:00.", map[string]any{"user": person.Id, "quietFrom": "22:00", "quietTo": "7:00"}},
		{"notification_preferences", "quietFrom", "validation_max_text_constraint", "such as 22:00.", map[string]any{"user": person.Id, "quietFrom": "10:00 pm", "quietTo": "07:00"}},
	} {
		res := app.Send("POST", "/api/collections/"+tc.collection+"/records", tc.body, root)
		require.Equal(t, 400, res.Status, res.String())
		told := res.JSON(t)["data"].(map[string]any)
		require.Len(t, told, 1, res.String())
		require.Contains(t, told[tc.field].(map[string]any)["message"], tc.want)
		require.Equal(t, tc.code, told[tc.field].(map[string]any)["code"])
	}
}
