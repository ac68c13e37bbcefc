package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/groundworkhq/groundwork/bench/wire"
)

// The flooder is a process of its own, as it is a machine of its own elsewhere: in
// one process with the other client, what its hundreds of connections cost it would
// be measured as the server's.

// addressVariable and connectionsVariable make a copy of this program the flooder.
const (
	addressVariable     = "BENCH_FLOOD_ADDRESS"
	connectionsVariable = "BENCH_FLOOD_CONNECTIONS"
)

// counts is what the flooder was answered.
type counts struct {
	Passed, Refused int64
	Without         int64 // refused without a Retry-After
	Error           string
}

// flooding is what the flooder says when its first request is answered, or fails.
type flooding struct{}

// flooderProcess is a flooder at work.
type flooderProcess struct {
	command *exec.Cmd
	end     io.WriteCloser
	answer  *json.Decoder
}

func startFlooder(address string, connections int) (*flooderProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	f := &flooderProcess{command: exec.Command(self)}
	f.command.Env = append(os.Environ(), addressVariable+"="+address, connectionsVariable+"="+strconv.Itoa(connections))
	f.command.Stderr = os.Stderr
	if f.end, err = f.command.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start the flooder: %w", err)
	}
	answer, err := f.command.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the flooder: %w", err)
	}
	f.answer = json.NewDecoder(answer)
	if err := f.command.Start(); err != nil {
		return nil, fmt.Errorf("start the flooder: %w", err)
	}
	// What is measured from now on is measured in the flood, however long the process
	// took to begin.
	if err := f.answer.Decode(&flooding{}); err != nil {
		_, ended := f.stop()
		return nil, fmt.Errorf("start the flooder: %w", errors.Join(err, ended))
	}
	return f, nil
}

// stop ends the flood and returns what came of it.
func (f *flooderProcess) stop() (c counts, err error) {
	err = errors.Join(f.end.Close(), f.answer.Decode(&c), f.command.Wait())
	if err == nil && c.Error != "" {
		err = errors.New(c.Error)
	}
	return c, err
}

// floods says whether this process is the flooder, and was it until its input ended.
func floods() bool {
	address := os.Getenv(addressVariable)
	if address == "" {
		return false
	}
	connections, err := strconv.Atoi(os.Getenv(connectionsVariable))
	c := counts{}
	if err == nil {
		c, err = flood(address, connections)
	}
	if err != nil {
		c.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(c); err != nil {
		fmt.Fprintln(os.Stderr, "flooder:", err)
	}
	return true
}

// flood sends on all connections as fast as they are answered, until the input ends.
func flood(address string, connections int) (counts, error) {
	var passed, refused, without atomic.Int64
	begun := sync.OnceValue(func() error { return json.NewEncoder(os.Stdout).Encode(flooding{}) })
	stop := make(chan struct{})
	var flooders sync.WaitGroup
	errs := make([]error, connections)
	for i := range connections {
		flooders.Go(func() {
			c, err := wire.Dial(address, "127.0.0.2")
			if err != nil {
				errs[i] = errors.Join(err, begun())
				return
			}
			defer c.Close()
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := c.Send(request)
				err = errors.Join(err, begun())
				switch {
				case err != nil:
					errs[i] = err
					return
				case a.Status == http.StatusOK:
					passed.Add(1)
				case a.Status == http.StatusTooManyRequests:
					refused.Add(1)
					if n, err := strconv.Atoi(a.RetryAfter); err != nil || n < 1 {
						without.Add(1)
					}
				default:
					errs[i] = fmt.Errorf("the flooder was answered %d %s", a.Status, a.Body)
					return
				}
			}
		})
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	close(stop)
	flooders.Wait()
	return counts{Passed: passed.Load(), Refused: refused.Load(), Without: without.Load()}, errors.Join(append(errs, err)...)
}
