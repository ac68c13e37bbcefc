package notifications_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// Each receipt is looked up in the table of all deliveries ever made.
func TestReceiptsAreLookedUpByAnIndex(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	deliveries, err := app.FindCollectionByNameOrId(notifications.CollectionDeliveries)
	require.NoError(t, err)
	query := app.ConcurrentDB().Select("*").From(deliveries.Name).Where(notifications.ByMessageID("SM1")).Build()
	var plan []struct {
		Detail string `db:"detail"`
	}
	require.NoError(t, app.ConcurrentDB().NewQuery("EXPLAIN QUERY PLAN "+query.SQL()).Bind(query.Params()).All(&plan))
	require.Len(t, plan, 1)
	require.Contains(t, plan[0].Detail, "idx_gw_deliveries_message (providerMessageId=?)")
}
