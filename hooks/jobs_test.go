package hooks_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/jobs"
)

// Everything goes as it does with SQLite, and who is erased is erased there too.
func TestEraseReachesPostgres(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	l := newLife(t, pbtest.WithConfig(func(c *hooks.Config) { c.JobsDatabaseURL = url }))
	require.NoFileExists(t, filepath.Join(l.DataDir(), jobs.FileName))
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) })

	ids := map[string]string{}
	for name, o := range map[string]jobs.Options{"owned": {Owner: l.ana.Collection().Id + "/" + l.ana.Id}, "names": {}, "others": {}} {
		o.RunAt = time.Now().Add(time.Hour)
		args := `{"about":"` + map[string]string{"names": l.ana.Id}[name] + `"}`
		ids[name], err = jobs.Enqueue(l, jobs.Named("app.export", []byte(args)), o)
		require.NoError(t, err)
	}
	l.settle()
	_, err = conn.Exec(t.Context(), `INSERT INTO river_job (kind, args, attempt, max_attempts, queue, state, finalized_at, errors, metadata)
		SELECT 'notification.plan', '{"notification":"somebodyelses"}', 1, 1, 'default_' || (metadata->>'gwOrigin'), 'discarded', now(),
			ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', $1::text, 'trace', '')], metadata || '{"gwId": "failed000000000"}' FROM river_job LIMIT 1`,
		"no mailbox "+canary(1)+"@"+canary(2)+".example.com here")
	require.NoError(t, err)
	about := func() (found []string) {
		rows, err := conn.Query(t.Context(), "SELECT river_job::text FROM river_job")
		require.NoError(t, err)
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		for _, row := range all {
			for _, text := range l.anas() {
				if strings.Contains(strings.ToLower(row), strings.ToLower(text)) {
					found = append(found, row)
				}
			}
		}
		return found
	}
	require.GreaterOrEqual(t, len(about()), 3)

	res := l.Send(http.MethodDelete, "/api/account", nil, l.anasToken)
	require.Equal(t, http.StatusAccepted, res.Status, res)
	l.erased(res.JSON(t)["erasure"].(string))
	require.Empty(t, about())
	for name, id := range ids {
		_, err := jobs.Find(t.Context(), l, id)
		require.Equal(t, name != "others", err != nil, name)
	}
	info, err := jobs.Find(t.Context(), l, "failed000000000")
	require.NoError(t, err)
	require.Contains(t, info.Errors[0].Error, "no mailbox")
	_, err = os.Stat(filepath.Join(l.DataDir(), jobs.FileName))
	require.ErrorIs(t, err, os.ErrNotExist)
}
