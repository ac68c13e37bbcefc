package notifications_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// A database that cannot be read for a moment says nothing about a mail: it is not
// given up as one that no key opens.
func TestAnAccountMailWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	s := notifications.SenderOf(app)
	require.NoError(t, s.Start())
	t.Cleanup(s.Close)
	id, err := s.EnqueueMail(app, notifications.Mail{To: "ana@example.com", Email: notifications.Email{Subject: "Your code", Text: "123456"}})
	require.NoError(t, err)
	rename := func(from, to string) {
		t.Helper()
		_, err := app.NonconcurrentDB().NewQuery("ALTER TABLE {{" + from + "}} RENAME TO {{" + to + "}}").Execute()
		require.NoError(t, err)
	}
	status := func() string {
		t.Helper()
		row, err := app.FindRecordById(notifications.CollectionDeliveries, id)
		require.NoError(t, err)
		return row.GetString("status")
	}

	rename("groundwork_sealed", "groundwork_away")
	require.Error(t, s.SendMailNow(t.Context(), id), "its job is tried again")
	require.Equal(t, "pending", status())
	rename("groundwork_away", "groundwork_sealed")
	require.NoError(t, s.SendMailNow(t.Context(), id))
	require.Equal(t, "captured", status())
}
