// Command flood lets one address flood the server, and watches another client.
//
//	go run ./bench/flood -binary ./groundwork
//
// One client creates records from 127.0.0.1, one after the other. Then 500
// connections from 127.0.0.2 send the same request as fast as they are answered.
// Printed are the client's 99th percentiles without and with the flood, what the
// flooder was answered, and the server's memory; after it, the bytes of a million
// counters. The exit status is 1 when the flood makes the client's p99 more than
// three times as long, when a refusal has no Retry-After, or when memory grows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/bench/wire"
	"github.com/groundworkhq/groundwork/internal/ratelimit"
)

// request is what both clients send.
var request = wire.Request("POST", "/api/collections/notes/records", "", []byte(`{"title":"A note"}`))

type options struct {
	binary      string
	connections int
	creates     int
	pause       time.Duration
	most        float64
}

func main() {
	if floods() {
		return
	}
	var o options
	flag.StringVar(&o.binary, "binary", "", "measure this binary instead of building one")
	flag.IntVar(&o.connections, "connections", 500, "connections of the flooder")
	flag.IntVar(&o.creates, "creates", 1000, "records that the other client creates, in each half: enough for a 99th percentile that is not four chances")
	flag.DurationVar(&o.pause, "pause", 20*time.Millisecond, "the other client's pause between two of them")
	flag.Float64Var(&o.most, "most", 3, "how many times longer its p99 may be")
	flag.Parse()
	good, err := run(o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
	if !good {
		os.Exit(1)
	}
}

func run(o options, out io.Writer) (good bool, err error) {
	work, err := os.MkdirTemp("", "groundwork-bench-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if o.binary == "" {
		o.binary = filepath.Join(work, "groundwork")
		build := exec.Command("go", "build", "-o", o.binary, "github.com/groundworkhq/groundwork")
		if text, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("build the binary: %w\n%s", err, text)
		}
	}
	s := &process.Server{Binary: o.binary, Dir: work, Env: process.Root(), Args: []string{"--dev=false"}}
	if err := s.Start(); err != nil {
		return false, err
	}
	defer s.Kill()
	if err := s.SignIn(); err != nil {
		return false, err
	}
	if err := s.Call(http.MethodPost, "/api/collections", map[string]any{
		"name": "notes", "type": "base", "createRule": "", "fields": []map[string]any{{"name": "title", "type": "text"}},
	}, &struct{}{}); err != nil {
		return false, err
	}
	address := strings.TrimPrefix(s.URL(), "http://")
	create := func(n int) ([]time.Duration, error) {
		c, err := wire.Dial(address, "127.0.0.1")
		if err != nil {
			return nil, err
		}
		defer c.Close()
		times := make([]time.Duration, 0, n)
		for range n {
			began := time.Now()
			if err := c.Good(request, `"title":"A note"`); err != nil {
				return nil, fmt.Errorf("the other client: %w", err)
			}
			times = append(times, time.Since(began))
			time.Sleep(max(o.pause, 40*time.Millisecond)) // the pace of a client within its own limit: a guest may 300 times in ten seconds
		}
		return times, nil
	}
	if _, err := create(30); err != nil { // warm-up
		return false, err
	}
	idle, err := create(o.creates)
	if err != nil {
		return false, err
	}
	before, err := s.Memory()
	if err != nil {
		return false, err
	}

	flooder, err := startFlooder(address, o.connections)
	if err != nil {
		return false, err
	}
	began := time.Now()
	flooded, err := create(o.creates / 3)
	early, earlyErr := s.Memory()
	rest, restErr := create(o.creates - o.creates/3)
	flooded = append(flooded, rest...)
	took := time.Since(began)
	late, lateErr := s.Memory()
	counts, floodErr := flooder.stop()
	if err := errors.Join(err, restErr, earlyErr, lateErr, floodErr); err != nil {
		return false, err
	}
	p := func(times []time.Duration, q float64) time.Duration {
		return wire.Quantile(times, q).Round(10 * time.Microsecond)
	}
	ratio := float64(p(flooded, 0.99)) / float64(p(idle, 0.99))
	fmt.Fprintf(out, "another client's create, idle:   p50 %s  p99 %s  (%d creates)\n", p(idle, 0.5), p(idle, 0.99), len(idle))
	fmt.Fprintf(out, "another client's create, flood:  p50 %s  p99 %s  (%d creates)\n", p(flooded, 0.5), p(flooded, 0.99), len(flooded))
	fmt.Fprintf(out, "p99 flood / idle: %.2f (at most %.1f)\n", ratio, o.most)
	fmt.Fprintf(out, "the flooder, %d connections, %.0f s: %d passed, %d refused, of them %d without Retry-After\n",
		o.connections, took.Seconds(), counts.Passed, counts.Refused, counts.Without)
	fmt.Fprintf(out, "the server's memory: %d MB before, %d MB after a third of the flood, %d MB at its end\n", before>>20, early>>20, late>>20)
	if err := millionKeys(out); err != nil {
		return false, err
	}

	most := int64(took.Seconds()/10+2) * 300
	return ratio <= o.most && counts.Without == 0 && counts.Passed <= most && counts.Refused > 0 && late < early+(32<<20), nil
}

// millionKeys counts for a million clients, each of whom comes once.
func millionKeys(out io.Writer) error {
	limiter, err := ratelimit.New(ratelimit.Options{Secret: make([]byte, 32)})
	if err != nil {
		return err
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, began := heap(), time.Now()
	own := 0
	for i := range 1_000_000 {
		if limiter.Take(context.Background(), ratelimit.Count{
			Key: limiter.Key("guests", strconv.Itoa(i)), Window: ratelimit.Window{Limit: 300, Length: 10 * time.Minute},
		}).OK {
			own++
		}
	}
	took := time.Since(began)
	used := heap() - before
	fmt.Fprintf(out, "a million distinct keys: %d bytes of memory (bound %d), %d passed, %d ns each\n",
		used, ratelimit.DefaultMemory, own, took.Nanoseconds()/1_000_000)
	runtime.KeepAlive(limiter)
	return nil
}
