package hooks_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
	"github.com/groundworkhq/groundwork/schedules"
)

// newCrammed is an app that sends for real, on a disk without room. While it is crammed
// no run can be stored.
func newCrammed(t *testing.T) (x *planned, smtp *providertest.SMTP, crammed *atomic.Bool) {
	t.Helper()
	smtp, crammed = providertest.NewSMTP(t, providertest.SMTPOptions{}), &atomic.Bool{}
	x = newPlanned(t, pbtest.WithConfig(production), pbtest.WithConfig(func(c *hooks.Config) {
		c.Providers = []notifications.ProviderConfig{mailFromEnvironment(smtp, "", "")}
	}))
	x.OnRecordCreateExecute(schedules.CollectionRuns).BindFunc(func(e *core.RecordEvent) error {
		if crammed.Load() {
			return errors.New("database or disk is full (13)")
		}
		return e.Next()
	})
	return x, smtp, crammed
}

// A disk on which not even the failure of a run can be stored: people are told past the
// queue, once, and the run's failure is stored as soon as there is room.
func TestScheduleOnADiskWithoutAnyRoom(t *testing.T) {
	t.Parallel()
	x, smtp, crammed := newCrammed(t)
	ran := 0
	s := x.make(x.handler(func(context.Context, core.App, json.RawMessage) (string, error) {
		ran++
		return "", nil
	}))
	crammed.Store(true)
	x.room(0)
	for range 3 {
		x.tick(saturday)
	}
	require.Empty(t, x.rows(s))
	require.Len(t, smtp.To("root@example.com"), 1)
	require.Zero(t, x.told(), "nothing is left to a queue")
	require.Equal(t, 1, x.logged(`"disk nearly full"`))
	require.Equal(t, 1, x.logged(`"schedule failed"`))

	crammed.Store(false)
	x.room(50 << 30)
	x.tick(saturday.Add(time.Minute))
	require.Equal(t, []string{"due failed", "catch_up ok"}, x.runs(s))
	run := x.rows(s)[0]
	require.Equal(t, saturday, run.GetDateTime("dueAt").Time())
	require.Contains(t, run.GetString("error"), "is nearly full (0 kB of 100.0 GB are free)")
	require.Equal(t, 1, ran)
	require.Len(t, smtp.To("root@example.com"), 2, "a recovery note")
	x.tick(saturday.Add(2 * time.Minute))
	require.Equal(t, 1, ran)
	require.Len(t, smtp.To("root@example.com"), 2)

	// Over several of its times.
	crammed.Store(true)
	x.room(0)
	for week := 1; week < 4; week++ {
		x.tick(saturday.AddDate(0, 0, 7*week))
	}
	crammed.Store(false)
	x.room(50 << 30)
	x.tick(saturday.AddDate(0, 0, 21).Add(time.Minute))
	require.Equal(t, []string{"due failed", "catch_up ok", "due failed", "catch_up ok"}, x.runs(s))
	require.Equal(t, 2, ran)
	require.Len(t, smtp.To("root@example.com"), 4)
}

// Several processes on one data folder tell it once; one that was started again, too.
func TestFullDiskIsToldOnce(t *testing.T) {
	t.Parallel()
	x, _, _ := newCrammed(t)
	var told atomic.Int32
	fails := atomic.Bool{}
	runner := func() *schedules.Runner {
		return schedules.New(x.App, schedules.Options{Host: "h1", Disk: func(string) (uint64, uint64, error) { return 0, 100 << 30, nil },
			Tell: func(core.App, string, string) error { return nil },
			TellAtOnce: func(context.Context, string, string) error {
				if fails.Load() {
					return errors.New("the mail server is not there")
				}
				told.Add(1)
				return nil
			}})
	}
	one, two := runner(), runner()
	notice := schedules.Notice{Key: "disk:h1", Subject: "S", Text: "T", AtOnce: true}
	news, err := one.Raise(notice)
	require.NoError(t, err)
	require.True(t, news)
	for _, r := range []*schedules.Runner{one, two, runner()} {
		news, err = r.Raise(notice)
		require.NoError(t, err)
		require.False(t, news)
		keys, err := r.Raised("disk:")
		require.NoError(t, err)
		require.Equal(t, []string{"disk:h1"}, keys)
	}
	require.EqualValues(t, 1, told.Load())
	over, err := two.Over("disk:h1", "S", "T")
	require.NoError(t, err)
	require.True(t, over)
	over, err = one.Over("disk:h1", "S", "T")
	require.NoError(t, err)
	require.False(t, over)

	// Nobody is told past the queue: the queue has it, if it can.
	fails.Store(true)
	news, err = one.Raise(notice)
	require.NoError(t, err)
	require.True(t, news)
	require.NoFileExists(t, filepath.Join(x.DataDir(), schedules.NoticeDir, "disk:h1"))

	// Where not even a name has room on the disk, the process remembers.
	fails.Store(false)
	require.NoError(t, os.RemoveAll(filepath.Join(x.DataDir(), schedules.NoticeDir)))
	require.NoError(t, os.WriteFile(filepath.Join(x.DataDir(), schedules.NoticeDir), nil, 0o600))
	notice.Key = "disk:h2"
	for _, first := range []bool{true, false} {
		news, err = one.Raise(notice)
		require.NoError(t, err)
		require.Equal(t, first, news)
	}
	over, err = one.Over("disk:h2", "S", "T")
	require.NoError(t, err)
	require.True(t, over)
}

// What a run did is not done again because the disk is too full to say so.
func TestScheduleWhoseEndCannotBeStored(t *testing.T) {
	t.Parallel()
	x, _, _ := newCrammed(t)
	ran := make(chan struct{}, 10)
	x.OnRecordUpdateExecute(schedules.CollectionRuns).BindFunc(func(e *core.RecordEvent) error {
		if x.room0() && e.Record.GetString("status") == "ok" {
			return errors.New("database or disk is full (13)")
		}
		return e.Next()
	})
	fields := x.handler(func(context.Context, core.App, json.RawMessage) (string, error) {
		x.room(0) // by what it wrote
		ran <- struct{}{}
		return "", nil
	})
	fields["run"] = "now"
	s := x.make(fields)
	<-ran
	require.Eventually(t, func() bool { return strings.Contains(x.log.String(), "schedule's run cannot be stored") }, patience, 10*time.Millisecond)
	require.Equal(t, []string{"manual running"}, x.runs(s))
	x.look() // takes nothing up that is being worked
	x.room(50 << 30)
	x.idle()
	require.Equal(t, []string{"manual ok"}, x.runs(s))
	require.Equal(t, 1, x.rows(s)[0].GetInt("attempt"))
	require.Empty(t, ran)
}

func (x *planned) room0() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.free == 0
}
