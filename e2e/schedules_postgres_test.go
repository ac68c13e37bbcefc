package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pocketbase/dbx"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// TestSchedulesRunOnceInThreeProcessesOnPostgres lets three servers, that are one
// installation with its jobs in Postgres, see at once what came while none was there;
// and, after the kill of the one that leads, the same minute.
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
		t.Cleanup(s.Kill)
		servers = append(servers, s)
	}
	s := servers[0]
	require.NoError(t, s.Start())
	require.NoError(t, s.SignIn())
	people := []string{"ana@example.com", "bo@example.com", "cy@example.com"}
	for _, address := range people {
		require.NoError(t, s.Call(http.MethodPost, "/api/collections/users/records",
			map[string]any{"email": address, "password": "groundwork-test", "passwordConfirm": "groundwork-test", "verified": true}, &struct{}{}))
	}
	const never = "0 3 29 2 *"
	var letter struct{ ID string }
	require.NoError(t, s.Call(http.MethodPost, "/api/collections/schedules/records", map[string]any{"name": "Letter", "cron": never, "timezone": "UTC",
		"action": "notification", "enabled": true, "payload": map[string]any{"title": "Now", "body": "It is time.", "channels": []string{"email"}, "audience": "everyone", "maxRecipients": 10}}, &letter))
	ids := []string{letter.ID}
	for range 4 {
		ids = append(ids, makeHook(t, s, never, c.URL))
	}
	s.Kill()
	require.NoError(t, s.WithDB(func(db *dbx.DB) error {
		_, err := db.Update("schedules", dbx.Params{"nextRunAt": time.Now().UTC().Add(-time.Second).Format("2006-01-02 15:04:05.000Z")}, nil).Execute()
		return err
	}))

	starts := make(chan error)
	for _, s := range servers {
		go func() { starts <- s.Start() }()
	}
	for range servers {
		require.NoError(t, <-starts)
	}
	for _, s := range servers {
		require.NoError(t, s.SignIn())
	}

	// once waits until each schedule has so many runs that are done, and sees that each
	// is for a time of its own and was done once.
	once := func(s *process.Server, least int) {
		t.Helper()
		var hooks []scheduleRun
		letters := 0
		require.Eventually(t, func() bool {
			hooks, letters = nil, 0
			for _, id := range ids {
				runs := scheduleRuns(t, s, id)
				for _, run := range runs {
					if run.Status == "queued" || run.Status == "running" {
						return false
					}
				}
				if len(runs) < least {
					return false
				}
				if id == letter.ID {
					letters = len(runs)
				} else {
					hooks = append(hooks, runs...)
				}
			}
			return mails.Total() >= letters*len(people)
		}, patience, 100*time.Millisecond)
		due, calls := map[string]int{}, map[string]int{}
		for _, run := range c.ledger() {
			calls[run]++
		}
		for _, run := range hooks {
			require.Equal(t, "ok", run.Status, "%+v", run)
			require.Equal(t, 1, run.Attempt, "%+v", run)
			require.Equal(t, 1, calls[run.ID], "%+v", run)
			due[run.Schedule+" "+run.DueAt]++
		}
		mailed := map[string]int{}
		for _, address := range people {
			mailed[address] = len(mails.To(address))
		}
		now := scheduleRuns(t, s, letter.ID) // a minute may have begun since, and its mails come after it
		for _, run := range now {
			due[run.Schedule+" "+run.DueAt]++
		}
		for at, n := range due {
			require.Equal(t, 1, n, at)
		}
		for _, address := range people {
			require.GreaterOrEqual(t, mailed[address], letters, address)
			require.LessOrEqual(t, mailed[address], len(now), address)
		}
	}
	once(servers[1], 1)
	require.Len(t, c.ledger(), 4)

	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	var leader *process.Server
	require.Eventually(t, func() bool {
		var pid int
		if conn.QueryRow(t.Context(), "SELECT pid FROM groundwork_nodes JOIN river_leader ON leader_id = groundwork_nodes.id").Scan(&pid) != nil {
			return false // the one that was killed above, or none yet
		}
		for _, s := range servers {
			if s.PID() == pid {
				leader = s
			}
		}
		return leader != nil
	}, patience, 100*time.Millisecond)
	leader.Kill()
	for _, id := range ids {
		for _, s := range servers {
			if s != leader {
				require.NoError(t, s.Call(http.MethodPatch, "/api/collections/schedules/records/"+id, map[string]any{"cron": "* * * * *"}, &struct{}{}))
				break
			}
		}
	}
	require.NoError(t, leader.Start())
	require.NoError(t, leader.SignIn())
	for _, s := range servers {
		once(s, 2)
	}
}
