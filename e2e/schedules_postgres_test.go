package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// TestSchedulesRunOnceInThreeProcessesOnPostgres lets three servers, that are one
// installation with its jobs in Postgres, see the same minute. The next one comes after
// the kill of the one that leads.
func TestSchedulesRunOnceInThreeProcessesOnPostgres(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t).Database(t)
	mails := providertest.NewSMTP(t, providertest.SMTPOptions{})
	c := newCallee(t)
	dir := t.TempDir()
	env := append(process.Production(mails), "WEBHOOK_PRIVATE_HOSTS="+c.host(), "JOBS_DATABASE_URL="+database)
	var servers []*process.Server
	for range 3 {
		s := &process.Server{Binary: buildBinary(t), Dir: dir, Env: env}
		require.NoError(t, s.Start())
		t.Cleanup(s.Kill)
		require.NoError(t, s.SignIn())
		servers = append(servers, s)
	}
	people := []string{"ana@example.com", "bo@example.com", "cy@example.com"}
	for _, address := range people {
		require.NoError(t, servers[0].Call(http.MethodPost, "/api/collections/users/records",
			map[string]any{"email": address, "password": "groundwork-test", "passwordConfirm": "groundwork-test", "verified": true}, &struct{}{}))
	}
	var letter struct{ ID string }
	require.NoError(t, servers[0].Call(http.MethodPost, "/api/collections/schedules/records", map[string]any{"name": "Letter", "cron": "* * * * *", "timezone": "UTC",
		"action": "notification", "enabled": true, "payload": map[string]any{"title": "Now", "body": "It is time.", "channels": []string{"email"}, "audience": "everyone", "maxRecipients": 10}}, &letter))
	ids := []string{letter.ID}
	for i := range 4 {
		ids = append(ids, makeHook(t, servers[i%3], "* * * * *", c.URL))
	}

	// The runs that there are, once each schedule has so many that are done.
	ran := func(s *process.Server, least int) (all []scheduleRun, letters int) {
		t.Helper()
		require.Eventually(t, func() bool {
			all, letters = nil, 0
			for _, id := range ids {
				runs := scheduleRuns(t, s, id)
				done := 0
				for _, run := range runs {
					if run.Status == "ok" {
						done++
					}
				}
				if done < least || done < len(runs) {
					return false
				}
				if id == letter.ID {
					letters = done
				}
				all = append(all, runs...)
			}
			return mails.Total() >= letters*len(people)
		}, patience, 100*time.Millisecond)
		return all, letters
	}
	// Each run is for a minute of its own, and was done once.
	once := func(s *process.Server, least int) {
		t.Helper()
		all, letters := ran(s, least)
		due, calls := map[string]int{}, map[string]int{}
		for _, run := range c.ledger() {
			calls[run]++
		}
		for i, run := range all {
			require.Equal(t, "due", run.Cause, "%+v", run)
			require.Equal(t, 1, run.Attempt, "%+v", run)
			if i >= letters { // those of the webhooks
				require.Equal(t, 1, calls[run.ID], "%+v", run)
			}
			due[run.Schedule+run.DueAt]++
		}
		for minute, n := range due {
			require.Equal(t, 1, n, minute)
		}
		for _, address := range people {
			require.GreaterOrEqual(t, len(mails.To(address)), letters)
			require.LessOrEqual(t, len(mails.To(address)), len(scheduleRuns(t, s, letter.ID)), address) // a minute may have begun since
		}
	}
	once(servers[0], 1)

	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	var leader int
	require.Eventually(t, func() bool {
		return conn.QueryRow(t.Context(), "SELECT pid FROM groundwork_nodes JOIN river_leader ON leader_id = groundwork_nodes.id").Scan(&leader) == nil
	}, patience, 100*time.Millisecond)
	var others []*process.Server
	for _, s := range servers {
		if s.PID() == leader {
			s.Kill()
			continue
		}
		others = append(others, s)
	}
	require.Len(t, others, 2, fmt.Sprintf("the leader %d is one of them", leader))
	once(others[0], 2)
	once(others[1], 2)
}
