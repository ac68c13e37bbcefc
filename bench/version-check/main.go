// Command version-check measures GET /api/version-check against PocketBase's
// GET /api/health.
//
//	go run ./bench/version-check
//
// It builds the real binary, starts it on a data folder of its own with one rule
// for iOS, and alternates short rounds of requests to the two routes over the
// same keep-alive connections, within one run. Each pair of rounds gives one
// ratio; the result is their median, so that whatever else the machine does
// falls on both routes alike. Only answers with a 2xx status count; any other
// ends the run. The exit status is 1 when the median is below -target.
//
// The client writes and reads raw bytes: Go's HTTP client would use more time
// than the server and hide a difference.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

type options struct {
	binary      string
	pairs       int
	round       time.Duration
	connections int
	target      float64
	noise       bool
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "", "measure this binary instead of building one")
	flag.IntVar(&o.pairs, "pairs", 500, "pairs of rounds")
	flag.DurationVar(&o.round, "round", 20*time.Millisecond, "length of one round")
	flag.IntVar(&o.connections, "connections", 8, "connections that send at once")
	flag.Float64Var(&o.target, "target", 0.95, "the least ratio that is good enough")
	flag.BoolVar(&o.noise, "noise", false, "measure health against itself, to see what the machine alone makes of 1.000")
	flag.Parse()
	ratio, err := run(o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "version-check:", err)
		os.Exit(1)
	}
	if ratio < o.target {
		os.Exit(1)
	}
}

func run(o options, out io.Writer) (ratio float64, err error) {
	if o.pairs < 1 || o.round <= 0 || o.connections < 1 {
		return 0, errors.New("use at least one pair, one connection and a round longer than nothing")
	}
	work, err := os.MkdirTemp("", "groundwork-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(work) }()

	if o.binary == "" {
		o.binary = filepath.Join(work, "groundwork")
		build := exec.Command("go", "build", "-o", o.binary, "github.com/groundworkhq/groundwork")
		if text, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build the binary: %w\n%s", err, text)
		}
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return 0, err
	}
	address, stop, err := start(o.binary, work)
	if err != nil {
		return 0, err
	}
	defer stop()

	routes := [2]route{
		{name: "/api/health", path: "/api/health", contains: `"code":200`},
		{name: "/api/version-check", path: "/api/version-check?platform=ios&version=1.2.3", contains: `"hard_update":true`},
	}
	if o.noise {
		routes[1] = routes[0]
	}
	clients := make([]*client, o.connections)
	for i := range clients {
		if clients[i], err = dial(address); err != nil {
			return 0, err
		}
		defer clients[i].close()
	}
	for range 20 { // warm-up
		for i := range routes {
			if _, err := measure(clients, &routes[i], o.round, false); err != nil {
				return 0, err
			}
		}
	}

	ratios := make([]float64, 0, o.pairs)
	for pair := range o.pairs {
		var rate [2]float64
		for turn := range 2 {
			i := (pair + turn) % 2 // each goes first half of the time
			if rate[i], err = measure(clients, &routes[i], o.round, true); err != nil {
				return 0, err
			}
		}
		ratios = append(ratios, rate[1]/rate[0])
	}

	for i := range routes {
		r := &routes[i]
		fmt.Fprintf(out, "%-20s %9.0f requests/s (median round)  p50 %s  p99 %s  %d answers, all 2xx\n",
			r.name, quantile(r.rates, 0.5), quantile(r.times, 0.5), quantile(r.times, 0.99), r.answers)
	}
	ratio = quantile(ratios, 0.5)
	fmt.Fprintf(out, "%s / %s: %.3f (median of %d pairs; quartiles %.3f and %.3f; target %.2f)\n",
		strings.TrimPrefix(routes[1].name, "/api/"), strings.TrimPrefix(routes[0].name, "/api/"), ratio, len(ratios), quantile(ratios, 0.25), quantile(ratios, 0.75), o.target)
	return ratio, nil
}

// start serves a fresh data folder with one rule for iOS.
func start(binary, work string) (address string, stop func(), err error) {
	const email, password = "bench@example.com", "groundwork-bench"
	dir := filepath.Join(work, "pb_data")
	// PocketBase takes a binary in the temporary folder for "go run" and would
	// print every query.
	upsert := exec.Command(binary, "superuser", "upsert", email, password, "--dir", dir, "--dev=false")
	upsert.Dir = work
	if text, err := upsert.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("make a superuser: %w\n%s", err, text)
	}

	if address, err = providertest.FreeAddress(); err != nil {
		return "", nil, err
	}

	output, err := os.Create(filepath.Join(work, "output"))
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(binary, "serve", "--http", address, "--dir", dir, "--dev=false")
	cmd.Dir, cmd.Stdout, cmd.Stderr = work, output, output
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-exited:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
		_ = output.Close()
	}
	fail := func(err error) (string, func(), error) {
		stop()
		text, _ := os.ReadFile(output.Name())
		return "", nil, fmt.Errorf("%w\n%s", err, text)
	}

	base := "http://" + address
	deadline := time.Now().Add(time.Minute)
	for {
		answer, err := http.Get(base + "/api/health")
		if err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-exited:
			return fail(errors.New("the binary has ended"))
		default:
		}
		if time.Now().After(deadline) {
			return fail(errors.New("the binary does not answer"))
		}
		time.Sleep(20 * time.Millisecond) // between two tries to connect: a process that starts gives no signal
	}

	var signedIn struct{ Token string }
	if err := send(http.MethodPost, base+"/api/collections/_superusers/auth-with-password", "",
		map[string]any{"identity": email, "password": password}, &signedIn); err != nil {
		return fail(err)
	}
	// One address asks more often than guests may: the limit stays in force, further
	// away.
	if err := send(http.MethodPatch, base+"/api/collections/gw_rate_limits/records/gwlimitguests00", signedIn.Token,
		map[string]any{"limit": 1_000_000}, nil); err != nil {
		return fail(err)
	}
	if err := send(http.MethodPost, base+"/api/collections/gw_app_versions/records", signedIn.Token, map[string]any{
		"platform": "ios", "latest": "2.4.1", "minimum": "1.3.0", "recommended": "2.0.0", "enabled": true,
		"storeUrl": "https://apps.apple.com/app/id1234567890", "message": "Please update to go on.",
	}, nil); err != nil {
		return fail(err)
	}
	return address, stop, nil
}

func send(method, url, token string, body, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, url, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s\n%s", method, url, answer.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

type route struct {
	name, path, contains string
	rates                []float64 // per round, requests a second
	times                []time.Duration
	answers              int
}

// measure sends requests on all connections until the round is over and returns
// how many were answered in a second.
func measure(clients []*client, r *route, round time.Duration, keep bool) (float64, error) {
	var (
		wg     sync.WaitGroup
		errs   = make([]error, len(clients))
		times  = make([][]time.Duration, len(clients))
		begin  = time.Now()
		finish = begin.Add(round)
	)
	for i, c := range clients {
		wg.Go(func() {
			request := []byte("GET " + r.path + " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: groundwork-bench\r\nAccept: */*\r\n\r\n")
			// Once at least: where others keep the machine busy, the round may be over before
			// it began.
			for sent := time.Now(); ; {
				if errs[i] = c.roundTrip(request, r.contains); errs[i] != nil {
					return
				}
				now := time.Now()
				times[i] = append(times[i], now.Sub(sent))
				if sent = now; !now.Before(finish) {
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("GET %s: %w", r.path, err)
	}
	answers := 0
	for _, t := range times {
		answers += len(t)
	}
	rate := float64(answers) / took.Seconds()
	if keep {
		r.answers += answers
		r.rates = append(r.rates, rate)
		r.times = append(r.times, slices.Concat(times...)...)
	}
	return rate, nil
}

// client is one keep-alive connection.
type client struct {
	conn   net.Conn
	reader *bufio.Reader
	body   []byte
}

func dial(address string) (*client, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, reader: bufio.NewReader(conn)}, nil
}

func (c *client) close() { _ = c.conn.Close() }

// roundTrip sends one request and reads its whole answer, which must have a 2xx
// status and contain the given text.
func (c *client) roundTrip(request []byte, contains string) error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	status, err := c.reader.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 2")) {
		return fmt.Errorf("answered %q", strings.TrimSpace(string(status)))
	}
	length := -1
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("the answer has no length")
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	if _, err := io.ReadFull(c.reader, c.body); err != nil {
		return err
	}
	if !bytes.Contains(c.body, []byte(contains)) {
		return fmt.Errorf("answered %q", c.body)
	}
	return nil
}

// quantile of values, 0 is the least and 1 the largest.
func quantile[T float64 | time.Duration](values []T, q float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1))]
}
