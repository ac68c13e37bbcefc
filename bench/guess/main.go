// Command guess attacks the sign-in of one person with wrong codes, from a
// thousand addresses.
//
//	go run ./bench/guess -binary ./groundwork
//
// It starts the real server with a mail server behind it, signs the owner in once
// from 127.0.0.1, and then tries -tries wrong codes from -addresses addresses of
// 127.0.0.0/8 over -connections connections; in the middle the server is killed
// with SIGKILL and started again. A hook in JavaScript counts, apart from
// everything of ours, the requests that reach PocketBase's handler, and with it a
// comparison. The exit status is 1 when more than five did, when the right code
// or a new one then works from an unknown address, or when the owner, during all
// that, cannot sign in with a code from the known one.
package main

import (
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
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

type options struct {
	binary                        string
	tries, addresses, connections int
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "", "attack this binary instead of building one")
	flag.IntVar(&o.tries, "tries", 10_000, "wrong codes")
	flag.IntVar(&o.addresses, "addresses", 1_000, "addresses that they come from")
	flag.IntVar(&o.connections, "connections", 50, "tries at once")
	flag.Parse()
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "guess:", err)
		os.Exit(1)
	}
}

const (
	owner    = "ana@example.com"
	password = "a-long-password"
	home     = "127.0.0.1"

	// counter is a hook of the application, inside all of ours.
	counter = `routerUse(new Middleware((e) => {
	if (e.request.url.path.endsWith("/auth-with-otp")) { console.log("REACHED THE HANDLER") }
	return e.next()
}, 100))
`
)

func run(o options, out io.Writer) (err error) {
	work, err := os.MkdirTemp("", "groundwork-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if o.binary == "" {
		o.binary = filepath.Join(work, "groundwork")
		build := exec.Command("go", "build", "-o", o.binary, "github.com/groundworkhq/groundwork")
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build the binary: %w\n%s", err, text)
		}
	}
	mails, err := providertest.StartSMTP(providertest.SMTPOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mails.Close()) }()
	if err := os.MkdirAll(filepath.Join(work, "pb_hooks"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "pb_hooks", "count.pb.js"), []byte(counter), 0o600); err != nil {
		return err
	}
	s := &process.Server{Binary: o.binary, Dir: work, Env: process.Production(mails), Args: []string{"--dev=false"}}
	if err := s.Start(); err != nil {
		return err
	}
	defer s.Kill()
	if err := s.SignIn(); err != nil {
		return err
	}
	if err := s.Call(http.MethodPatch, "/api/collections/users", map[string]any{
		"otp": map[string]any{"enabled": true, "duration": 3600, "length": 6}, "authAlert": map[string]any{"enabled": false},
	}, &struct{}{}); err != nil {
		return err
	}
	if err := s.Call(http.MethodPost, "/api/collections/users/records",
		map[string]any{"email": owner, "password": password, "passwordConfirm": password, "verified": true}, &struct{}{}); err != nil {
		return err
	}

	a := &attack{server: s, mails: mails, log: filepath.Join(work, "log")}
	if status, _, err := a.post(home, "auth-with-password", map[string]any{"identity": owner, "password": password}); err != nil || status != http.StatusOK {
		return fmt.Errorf("the owner cannot sign in: %d %w", status, err)
	}
	id, code, err := a.request("127.250.0.1")
	if err != nil {
		return err
	}

	began := time.Now()
	if err := a.guess(o, id, code, 0, o.tries/2); err != nil {
		return err
	}
	first := a.reached()
	if err := a.ownerSignsIn(); err != nil {
		return err
	}
	s.Kill()
	if err := s.Start(); err != nil {
		return err
	}
	if err := a.guess(o, id, code, o.tries/2, o.tries); err != nil {
		return err
	}
	// The owner's own sign-ins reach the handler too: one so far.
	second := a.reached() - 1 - first
	fmt.Fprintf(out, "%d wrong codes from %d addresses in %.0f s: %d reached the comparison before kill -9, %d after it; %d were refused with 429\n",
		o.tries, o.addresses, time.Since(began).Seconds(), first, second, a.refused.Load())
	if first+second > 5 {
		return errors.New("more than five reached the comparison")
	}
	if first == 0 {
		return errors.New("none reached the comparison: the count is worth nothing")
	}

	if status, answer, err := a.post("127.250.0.2", "auth-with-otp", map[string]any{"otpId": id, "password": code}); err != nil || status < 400 {
		return fmt.Errorf("the right code signed in from an unknown address: %d %s %w", status, answer, err)
	}
	fmt.Fprintln(out, "the right code is refused from an unknown address")
	asked := 0
	for i := range 20 {
		newID, newCode, err := a.request(fmt.Sprintf("127.250.1.%d", i+1))
		if errors.Is(err, errRefused) {
			continue
		}
		if err != nil {
			return err
		}
		asked++
		if status, answer, err := a.post(fmt.Sprintf("127.250.2.%d", i+1), "auth-with-otp", map[string]any{"otpId": newID, "password": newCode}); err != nil || status != http.StatusTooManyRequests {
			return fmt.Errorf("a new code was tried from an unknown address: %d %s %w", status, answer, err)
		}
	}
	fmt.Fprintf(out, "of 20 requests for new codes from unknown addresses %d were sent, and none of those codes works there\n", asked)
	if asked > 4 {
		return errors.New("more than five codes were sent in an hour")
	}
	if err := a.ownerSignsIn(); err != nil {
		return err
	}
	if n := a.reached() - 2 - first - second; n != 0 {
		return fmt.Errorf("%d more reached the comparison", n)
	}
	fmt.Fprintln(out, "the owner signed in with a code from the known address, during the attack and after it")
	return nil
}

type attack struct {
	server  *process.Server
	mails   *providertest.SMTP
	log     string
	refused atomic.Int64
	clients sync.Map // from an address to *http.Client
}

var errRefused = errors.New("refused with 429")

// post comes from an address of loopback.
func (a *attack) post(from, action string, body map[string]any) (status int, answer []byte, err error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	client, ok := a.clients.Load(from)
	if !ok {
		client, _ = a.clients.LoadOrStore(from, &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext,
		}})
	}
	res, err := client.(*http.Client).Post(a.server.URL()+"/api/collections/users/"+action, "application/json", bytes.NewReader(raw))
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	if res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") == "" {
		return 0, nil, errors.New("429 without Retry-After")
	}
	return res.StatusCode, answer, err
}

var codePattern = regexp.MustCompile(`\b[0-9]{6}\b`)

// request asks for a code and reads it from the mail.
func (a *attack) request(from string) (id, code string, err error) {
	before := len(a.mails.To(owner))
	status, answer, err := a.post(from, "request-otp", map[string]any{"email": owner})
	switch {
	case err != nil:
		return "", "", err
	case status == http.StatusTooManyRequests:
		return "", "", errRefused
	case status != http.StatusOK:
		return "", "", fmt.Errorf("request-otp: %d %s", status, answer)
	}
	var made struct{ OTPId string }
	if err := json.Unmarshal(answer, &made); err != nil {
		return "", "", err
	}
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // until the job has sent it
		got := a.mails.To(owner)
		if len(got) == before {
			continue
		}
		mail, err := got[len(got)-1].Parse()
		if err != nil {
			return "", "", err
		}
		if code = codePattern.FindString(mail.Text); code == "" {
			code = codePattern.FindString(mail.HTML)
		}
		if code == "" {
			return "", "", fmt.Errorf("there is no code in the mail: %s", mail.Text)
		}
		return made.OTPId, code, nil
	}
	return "", "", errors.New("the code was not sent")
}

// guess tries the codes from one number to another.
func (a *attack) guess(o options, id, right string, from, to int) error {
	var next atomic.Int64
	next.Store(int64(from))
	errs := make([]error, o.connections)
	var wg sync.WaitGroup
	for worker := range o.connections {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= to {
					return
				}
				code := fmt.Sprintf("%06d", i)
				if code == right {
					code = "999999"
				}
				n := i % o.addresses
				status, answer, err := a.post(fmt.Sprintf("127.1.%d.%d", n/250, n%250+1), "auth-with-otp", map[string]any{"otpId": id, "password": code})
				switch {
				case err != nil:
					errs[worker] = err
					return
				case status == http.StatusTooManyRequests:
					a.refused.Add(1)
				case status != http.StatusBadRequest:
					errs[worker] = fmt.Errorf("a wrong code was answered %d %s", status, answer)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (a *attack) ownerSignsIn() error {
	id, code, err := a.request(home)
	if err != nil {
		return fmt.Errorf("the owner asks for a code: %w", err)
	}
	if status, answer, err := a.post(home, "auth-with-otp", map[string]any{"otpId": id, "password": code}); err != nil || status != http.StatusOK {
		return fmt.Errorf("the owner was refused: %d %s %w", status, answer, err)
	}
	return nil
}

// reached is how many sign-ins with a code the hook has seen.
func (a *attack) reached() int {
	text, _ := os.ReadFile(a.log)
	return bytes.Count(text, []byte("REACHED THE HANDLER"))
}
