// Command throttle measures what the rate limits cost, against PocketBase as it
// comes.
//
//	go run ./bench/throttle
//
// It builds both servers, starts them side by side on data folders that hold the
// same, and alternates short rounds between them within one run: a signed-in list
// of records against the same list of plain PocketBase, and version-check against
// plain PocketBase's health route. First with our limits switched off, then with
// them on (the limits of the start, raised so far that they count every request
// and refuse none). Each pair of rounds gives one ratio; the result is their
// median. An answer with another status than 2xx ends the run. The exit status is
// 1 when a median is below its target.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/bench/wire"
)

type options struct {
	binary, plain string
	pairs         int
	round         time.Duration
	connections   int
	list, version float64 // targets
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "", "measure this binary instead of building one")
	flag.StringVar(&o.plain, "plain", "", "compare with this binary instead of building one")
	flag.IntVar(&o.pairs, "pairs", 300, "pairs of rounds for each line")
	flag.DurationVar(&o.round, "round", 20*time.Millisecond, "length of one round")
	flag.IntVar(&o.connections, "connections", 8, "connections that send at once")
	flag.Float64Var(&o.list, "list", 0.95, "the least ratio of a list that is good enough")
	flag.Float64Var(&o.version, "version", 0.90, "the least ratio of version-check that is good enough")
	flag.Parse()
	good, err := run(o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "throttle:", err)
		os.Exit(1)
	}
	if !good {
		os.Exit(1)
	}
}

// side is one of the two servers.
type side struct {
	server  *process.Server
	token   string // of somebody signed in
	clients []*wire.Client
}

func run(o options, out io.Writer) (good bool, err error) {
	if o.pairs < 1 || o.round <= 0 || o.connections < 1 {
		return false, errors.New("use at least one pair, one connection and a round longer than nothing")
	}
	work, err := os.MkdirTemp("", "groundwork-bench-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	for name, binary := range map[string]*string{"groundwork": &o.binary, "groundwork/bench/throttle/plain": &o.plain} {
		if *binary != "" {
			continue
		}
		*binary = filepath.Join(work, "bin", filepath.Base(name))
		build := exec.Command("go", "build", "-o", *binary, "github.com/groundworkhq/"+name)
		if text, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("build %s: %w\n%s", name, err, text)
		}
	}

	ours, err := start(o, work, "ours", o.binary)
	if err != nil {
		return false, err
	}
	defer ours.stop()
	plain, err := start(o, work, "plain", o.plain)
	if err != nil {
		return false, err
	}
	defer plain.stop()
	if err := ours.server.Call(http.MethodPost, "/api/collections/app_versions/records",
		map[string]any{"platform": "ios", "latest": "2.0.0", "minimum": "1.3.0", "enabled": true}, &struct{}{}); err != nil {
		return false, err
	}

	const list, version = "/api/collections/notes/records?perPage=20&sort=-title", "/api/version-check?platform=ios&version=1.2.3"
	good = true
	for _, on := range []bool{false, true} {
		if err := ours.switchLimits(on); err != nil {
			return false, err
		}
		say := map[bool]string{false: "limits off", true: "limits on"}[on]
		for _, pair := range []struct {
			name        string
			plain, ours []byte
			contains    [2]string
			target      float64
		}{
			{"signed-in list", wire.Request("GET", list, plain.token, nil), wire.Request("GET", list, ours.token, nil), [2]string{`"totalItems":50`, `"totalItems":50`}, o.list},
			{"version-check / health, signed in", wire.Request("GET", "/api/health", plain.token, nil), wire.Request("GET", version, ours.token, nil), [2]string{`"code":200`, `"hard_update":true`}, o.version},
			{"version-check / health, guest", wire.Request("GET", "/api/health", "", nil), wire.Request("GET", version, "", nil), [2]string{`"code":200`, `"hard_update":true`}, o.version},
		} {
			requests := [2][]byte{pair.plain, pair.ours}
			sides := [2]*side{plain, ours}
			measure := func(i int) (float64, error) { return sides[i].measure(requests[i], pair.contains[i], o.round) }
			for range 10 { // warm-up
				for i := range sides {
					if _, err := measure(i); err != nil {
						return false, fmt.Errorf("%s, %s: %w", pair.name, say, err)
					}
				}
			}
			var ratios, rates []float64
			for n := range o.pairs {
				var rate [2]float64
				for turn := range 2 {
					i := (n + turn) % 2 // each goes first half of the time
					if rate[i], err = measure(i); err != nil {
						return false, fmt.Errorf("%s, %s: %w", pair.name, say, err)
					}
				}
				ratios = append(ratios, rate[1]/rate[0])
				rates = append(rates, rate[1])
			}
			ratio := wire.Quantile(ratios, 0.5)
			fmt.Fprintf(out, "%-34s %-10s  %.3f of plain PocketBase (median of %d pairs; quartiles %.3f and %.3f; target %.2f)  %.0f requests/s, all 2xx\n",
				pair.name, say, ratio, len(ratios), wire.Quantile(ratios, 0.25), wire.Quantile(ratios, 0.75), pair.target, wire.Quantile(rates, 0.5))
			good = good && ratio >= pair.target
		}
	}
	return good, nil
}

// start serves a folder with 50 notes that signed-in people may list.
func start(o options, work, name, binary string) (*side, error) {
	dir := filepath.Join(work, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// PocketBase takes a binary in the temporary folder for "go run" and would
	// print every query.
	upsert := exec.Command(binary, "superuser", "upsert", process.RootEmail, process.RootPassword, "--dir", filepath.Join(dir, "pb_data"), "--dev=false")
	upsert.Env = append(os.Environ(), process.Root()...)
	if text, err := upsert.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make a superuser: %w\n%s", err, text)
	}
	s := &side{server: &process.Server{Binary: binary, Dir: dir, Env: process.Root(), Args: []string{"--dev=false"}}}
	if err := s.server.Start(); err != nil {
		return nil, err
	}
	fail := func(err error) (*side, error) { s.stop(); return nil, err }
	if err := s.server.SignIn(); err != nil {
		return fail(err)
	}
	ignored := &struct{}{}
	if err := s.server.Call(http.MethodPost, "/api/collections", map[string]any{
		"name": "notes", "type": "base", "listRule": `@request.auth.id != ""`,
		"fields": []map[string]any{{"name": "title", "type": "text"}, {"name": "body", "type": "text"}},
	}, ignored); err != nil {
		return fail(err)
	}
	for i := range 50 {
		if err := s.server.Call(http.MethodPost, "/api/collections/notes/records",
			map[string]any{"title": fmt.Sprintf("Note %02d", i), "body": strings.Repeat("All work and no play. ", 4)}, ignored); err != nil {
			return fail(err)
		}
	}
	if err := s.server.Call(http.MethodPost, "/api/collections/users/records",
		map[string]any{"email": "ana@example.com", "password": "12345678", "passwordConfirm": "12345678"}, ignored); err != nil {
		return fail(err)
	}
	token, err := signIn(s.server.URL())
	if err != nil {
		return fail(err)
	}
	s.token = token
	for range o.connections {
		c, err := wire.Dial(strings.TrimPrefix(s.server.URL(), "http://"), "")
		if err != nil {
			return fail(err)
		}
		s.clients = append(s.clients, c)
	}
	return s, nil
}

func signIn(base string) (string, error) {
	raw, err := json.Marshal(map[string]any{"identity": "ana@example.com", "password": "12345678"})
	if err != nil {
		return "", err
	}
	res, err := http.Post(base+"/api/collections/users/auth-with-password", "application/json", bytes.NewReader(raw))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var auth struct{ Token string }
	return auth.Token, errors.Join(json.NewDecoder(res.Body).Decode(&auth), func() error {
		if auth.Token == "" {
			return fmt.Errorf("sign in: %s", res.Status)
		}
		return nil
	}())
}

// switchLimits puts all rules out of force, or in force with room for everybody.
func (s *side) switchLimits(on bool) error {
	var rules struct{ Items []struct{ ID, KeyBy string } }
	if err := s.server.Call(http.MethodGet, "/api/collections/rate_limits/records?perPage=100", nil, &rules); err != nil {
		return err
	}
	for _, rule := range rules.Items {
		change := map[string]any{"enabled": on}
		if rule.KeyBy == "ip" || rule.KeyBy == "user" {
			change["limit"] = 1_000_000
		}
		if err := s.server.Call(http.MethodPatch, "/api/collections/rate_limits/records/"+rule.ID, change, &struct{}{}); err != nil {
			return err
		}
	}
	return nil
}

func (s *side) stop() {
	for _, c := range s.clients {
		c.Close()
	}
	s.server.Kill()
}

// measure sends the request on all connections until the round is over and
// returns how many were answered in a second.
func (s *side) measure(request []byte, contains string, round time.Duration) (float64, error) {
	var (
		wg      sync.WaitGroup
		errs    = make([]error, len(s.clients))
		answers = make([]int, len(s.clients))
		begin   = time.Now()
		finish  = begin.Add(round)
	)
	for i, c := range s.clients {
		wg.Go(func() {
			for { // once at least: where others keep the machine busy, the round may be over before it began
				if errs[i] = c.Good(request, contains); errs[i] != nil {
					return
				}
				answers[i]++
				if !time.Now().Before(finish) {
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	total := 0
	for _, n := range answers {
		total += n
	}
	return float64(total) / took.Seconds(), errors.Join(errs...)
}
