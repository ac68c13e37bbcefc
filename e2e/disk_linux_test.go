package e2e

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// look is how often something is looked at that is waited for.
const look = 50 * time.Millisecond

// mountDisk mounts a small disk. Where that is not allowed the test is skipped, unless
// REQUIRE_PEERS is set.
func mountDisk(t *testing.T, dir, size string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		require.NotEqual(t, "1", os.Getenv("REQUIRE_PEERS"), "a disk cannot be mounted: %v", err)
		t.Skipf("a disk of its own cannot be mounted (only root may): %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
}

// fill writes a file until nothing more goes onto its disk, or only so much.
func fill(t *testing.T, path string, leave int64) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	if leave > 0 {
		var s syscall.Statfs_t
		require.NoError(t, syscall.Statfs(filepath.Dir(path), &s))
		_, err = io.CopyN(f, zeros{}, int64(s.Bavail)*s.Bsize-leave)
		require.NoError(t, err)
		return
	}
	_, err = io.Copy(f, zeros{})
	require.ErrorIs(t, err, syscall.ENOSPC)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// alert is a mail to the superuser.
type alert struct{ Subject, Text string }

// alerts are those that have some words in their subject.
func alerts(t *testing.T, mails *providertest.SMTP, words string) (found []alert) {
	t.Helper()
	for _, received := range mails.To(process.RootEmail) {
		mail, err := received.Parse()
		require.NoError(t, err)
		subject, err := new(mime.WordDecoder).DecodeHeader(mail.Header.Get("Subject"))
		require.NoError(t, err)
		if strings.Contains(subject, words) {
			found = append(found, alert{subject, mail.Text})
		}
	}
	return found
}

// earlyInTheMinute waits until the next minute, when schedules run, is some time off.
func earlyInTheMinute(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return time.Now().Second() < 30 }, patience, look)
}

// TestFullDiskOfTheServer fills the disk with the data folder to its last byte, so that
// no database can be written to: people are told at once, and with the name of the host;
// what was not run is seen once there is room, and made up for once.
func TestFullDiskOfTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk := filepath.Join(dir, "pb_data")
	require.NoError(t, os.Mkdir(disk, 0o700))
	mountDisk(t, disk, "32m")
	host, err := os.Hostname()
	require.NoError(t, err)
	mails, c := providertest.NewSMTP(t, providertest.SMTPOptions{}), newCallee(t)
	s := &process.Server{Binary: buildBinary(t), Dir: dir, Env: append(process.Production(mails), "WEBHOOK_PRIVATE_HOSTS="+c.host())}
	require.NoError(t, s.Start())
	t.Cleanup(s.Kill)
	require.NoError(t, s.SignIn())
	id := makeHook(t, s, "* * * * *", c.URL)

	// The mail is on its way before the run fails, not at the same moment.
	earlyInTheMinute(t)
	file := filepath.Join(disk, "fill")
	fill(t, file, 0)
	require.Eventually(t, func() bool { return len(alerts(t, mails, "nearly full")) > 0 }, patience, look)
	told := alerts(t, mails, "nearly full")[0]
	require.Contains(t, told.Subject, "Disk nearly full on "+host)
	require.Contains(t, told.Text, "is nearly full")
	require.Contains(t, told.Text, disk)

	// The run fails, also where it cannot be stored yet. People knew before.
	console := func() []byte {
		raw, err := os.ReadFile(filepath.Join(dir, "log"))
		require.NoError(t, err)
		return raw
	}
	failed, full := []byte(`"msg":"schedule failed"`), []byte(`"msg":"disk nearly full"`)
	require.Eventually(t, func() bool { return bytes.Contains(console(), failed) }, patience, look)
	require.Less(t, bytes.Index(console(), full), bytes.Index(console(), failed))
	require.Contains(t, string(console()), `"msg":"disk nearly full","host":"`+host+`"`)
	require.Contains(t, string(console()), `"msg":"delivery past the queue"`, "no queue could have taken it")

	earlyInTheMinute(t) // what is made up for is over before the next run, which would be skipped
	require.NoError(t, os.Remove(file))
	madeUp := func() (made []scheduleRun) {
		for _, run := range scheduleRuns(t, s, id) {
			if run.Cause == "catch_up" {
				made = append(made, run)
			}
		}
		return made
	}
	require.Eventually(t, func() bool {
		made := madeUp()
		return len(made) > 0 && made[0].Status == "ok" && len(alerts(t, mails, "room again")) > 0
	}, patience, look)
	// Once more by hand: that comes after whatever else there was to make up for.
	require.Eventually(t, func() bool {
		code, err := s.Status(http.MethodPatch, "/api/collections/schedules/records/"+id, map[string]any{"run": "now"})
		require.NoError(t, err)
		return code == http.StatusOK
	}, patience, look)
	var runs []scheduleRun
	require.Eventually(t, func() bool {
		runs = scheduleRuns(t, s, id)
		for _, run := range runs {
			if run.Status == "queued" || run.Status == "running" {
				return false
			}
		}
		return slices.ContainsFunc(runs, func(run scheduleRun) bool { return run.Cause == "manual" })
	}, patience, look)
	calls := map[string]int{}
	for _, run := range c.ledger() {
		calls[run]++
	}
	failures := 0
	for _, run := range runs {
		switch run.Status {
		case "failed":
			failures++
			require.Equal(t, "due", run.Cause)
			require.Equal(t, host, run.Host)
			require.Contains(t, run.Error, "The disk of "+host+" is nearly full")
			require.Zero(t, calls[run.ID])
		default:
			require.Equal(t, "ok", run.Status, "%+v", run)
			require.Equal(t, 1, calls[run.ID], "%+v", run)
		}
	}
	require.Positive(t, failures)
	require.Len(t, madeUp(), 1)
	require.Contains(t, alerts(t, mails, "room again")[0].Subject, "Disk has room again on "+host)
	require.Len(t, mails.To(process.RootEmail), 2, "one alert, one recovery note")
}

// TestFullDiskOfAWorker fills the disk that a worker on another machine runs on: the
// server's people are told which machine it is, and once more when there is room.
func TestFullDiskOfAWorker(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	mountDisk(t, disk, "160m")
	database := pgtest.New(t).Database(t)
	mails := providertest.NewSMTP(t, providertest.SMTPOptions{})
	env := append(process.Production(mails), "JOBS_DATABASE_URL="+database)
	s := &process.Server{Binary: buildBinary(t), Dir: t.TempDir(), Env: env}
	require.NoError(t, s.Start())
	t.Cleanup(s.Kill)
	w := &process.Worker{Binary: buildBinary(t), Dir: disk, Host: "sender-7", Env: env}
	require.NoError(t, w.Start())
	t.Cleanup(w.Kill)

	file := filepath.Join(disk, "fill")
	fill(t, file, 20<<20)
	require.Eventually(t, func() bool { return len(alerts(t, mails, "nearly full")) > 0 }, patience, look)
	told := alerts(t, mails, "nearly full")[0]
	require.Contains(t, told.Subject, "A worker's disk is nearly full on sender-7")
	require.Contains(t, told.Text, "The disk of sender-7 is nearly full: ")
	require.Contains(t, told.Text, disk)

	require.NoError(t, os.Remove(file))
	require.Eventually(t, func() bool { return len(alerts(t, mails, "room again")) > 0 }, patience, look)
	require.Contains(t, alerts(t, mails, "room again")[0].Subject, "A worker's disk has room again on sender-7")
	require.Len(t, mails.To(process.RootEmail), 2)
	require.NoError(t, w.Stop())
}
