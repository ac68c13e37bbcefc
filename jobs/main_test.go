package jobs_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/jobs"
)

// The binary of these tests is also the process that they kill.
func TestMain(m *testing.M) {
	if kind := os.Getenv("JOBS_TEST_CHILD"); kind != "" {
		if err := child(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(pgtest.Main(m))
}

// child works jobs until it is killed, and tells each run on its output: the text of
// the job and the attempt. A job with the text "hang" does not end.
func child(kind string) error {
	var mu sync.Mutex
	w := jobs.NewWorkers()
	r := &recorder{seen: make(chan echo, 1_000_000), timeout: -1, work: func(_ context.Context, job *echo) error {
		mu.Lock()
		fmt.Println(job.Args.Text, job.Attempt)
		mu.Unlock()
		if strings.HasPrefix(job.Args.Text, "hang") {
			select {}
		}
		return nil
	}}
	jobs.AddWorker(w, r)
	url, log := os.Getenv("JOBS_TEST_URL"), slog.New(slog.NewTextHandler(os.Stderr, nil))
	if kind == "worker" {
		remote, err := jobs.NewRemote(w, jobs.RemoteConfig{DatabaseURL: url, Queues: map[string]int{jobs.QueueBulk: 4}, Shares: []string{"key"}, Host: "other", Log: log})
		if err == nil {
			err = remote.Start(context.Background())
		}
		if err != nil {
			return err
		}
	} else {
		app, err := openApp(os.Getenv("JOBS_TEST_DIR"), url)
		if err != nil {
			return err
		}
		client, err := jobs.New(app, w, jobs.Config{DatabaseURL: url, Log: log})
		if err == nil {
			err = client.Start(context.Background())
		}
		if err != nil {
			return err
		}
	}
	time.Sleep(2 * patience) // killed long before
	return nil
}

// process is a child.
type process struct {
	cmd  *exec.Cmd
	runs chan string
	done chan struct{}
}

func (x *rig) child(kind string) *process {
	x.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JOBS_TEST_CHILD="+kind, "JOBS_TEST_URL="+x.url, "JOBS_TEST_DIR="+x.dir)
	cmd.Stderr = &x.log
	out, err := cmd.StdoutPipe()
	require.NoError(x, err)
	require.NoError(x, cmd.Start())
	p := &process{cmd: cmd, runs: make(chan string, 100_000), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.runs <- s.Text()
		}
	}()
	x.Cleanup(p.kill)
	return p
}

// next returns the next run.
func (p *process) next(t *testing.T) string {
	t.Helper()
	select {
	case run := <-p.runs:
		return run
	case <-time.After(patience):
		t.Fatal("no job ran in the child")
		panic("unreachable")
	}
}

// kill ends the process as kill -9 does; what it said before is in runs.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	_ = p.cmd.Wait()
}
