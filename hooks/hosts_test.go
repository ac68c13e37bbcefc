package hooks

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/schedules"
)

// toldPeople keeps what people were told.
type toldPeople struct {
	open map[string]bool
	told []string
}

func (p *toldPeople) Raise(n schedules.Notice) (bool, error) {
	if p.open[n.Key] {
		return false, nil
	}
	p.open[n.Key] = true
	p.told = append(p.told, n.Subject+": "+n.Text)
	return true, nil
}

func (p *toldPeople) Over(key, subject, text string) (bool, error) {
	if !p.open[key] {
		return false, nil
	}
	delete(p.open, key)
	p.told = append(p.told, subject+": "+text)
	return true, nil
}

func (p *toldPeople) Raised(string) (keys []string, err error) {
	for key := range p.open {
		keys = append(keys, key)
	}
	return keys, nil
}

func TestMachinesOfWorkersInTrouble(t *testing.T) {
	t.Parallel()
	people := &toldPeople{open: map[string]bool{}}
	var machines []jobs.Machine
	var silent error
	now := time.Now()
	w := &workerHosts{machines: func(context.Context) ([]jobs.Machine, error) { return machines, silent }, notices: people, gone: map[string]time.Time{}, now: func() time.Time { return now }}
	look := func(after time.Duration, all ...jobs.Machine) {
		t.Helper()
		now = now.Add(after)
		machines = all
		require.NoError(t, w.look(t.Context()))
	}
	well, full := jobs.Machine{Host: "w1"}, jobs.Machine{Host: "w1", Trouble: "The disk of w1 is nearly full: 10 MB are left for /srv."}
	other := jobs.Machine{Host: "w2"}
	look(0, well, other)
	require.Empty(t, people.told)
	look(time.Second, full, other)
	look(time.Second, full, other)
	require.Len(t, people.told, 1)
	require.Contains(t, people.told[0], "A worker's disk is nearly full on w1: The disk of w1 is nearly full: 10 MB are left for /srv.")

	// Postgres does not answer: nothing is known, and nothing is said.
	silent = errors.New("no answer")
	require.Error(t, w.look(t.Context()))
	silent = nil

	// The worker is started again, and nothing has changed.
	look(time.Second, other)
	look(time.Minute, other)
	look(time.Second, full, other)
	look(workerEnded, other)
	look(time.Second, full, other)
	require.Len(t, people.told, 1)
	look(time.Second, well, other)
	look(time.Second, well, other)
	require.Len(t, people.told, 2)
	require.Contains(t, people.told[1], "A worker's disk has room again on w1")

	// It ends for good.
	look(time.Second, full, other)
	look(time.Second, other)
	look(workerEnded, other)
	look(workerEnded, other)
	require.Len(t, people.told, 4)
	require.Contains(t, people.told[3], "No worker runs any more on w1: The worker on w1, whose disk was nearly full, has ended or cannot reach the jobs database.")
}
