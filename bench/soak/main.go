// Command soak kills the server at random moments of a broadcast and counts who
// got what.
//
//	go run ./bench/soak -binary ./groundwork -people 10000 -kills 20
//
// It starts the real binary in a folder of its own, in the production
// environment, against an SMTP server in this process that keeps a ledger. It
// sends one notification to everyone by e-mail and inbox, ends the process with
// SIGKILL at random moments and starts it again, waits for the end, and compares
// the deliveries with the ledger. The exit status is 1 when anybody got a mail
// twice, got none without being unknown, or did not get exactly one inbox
// message.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// inFlight is the most mails that one process hands over at a time.
const inFlight = 8

type options struct {
	binary    string
	people    int
	kills     int
	mailDelay time.Duration
	timeout   time.Duration
}

// report is what a run found.
type report struct {
	Kills, People                                         int
	Accepted, Unknown, Failed, Pending, Other             int
	Mails, Twice, AcceptedWithoutMail, LostWithoutUnknown int
	Inbox, InboxTwice, InboxMissing                       int
	Status                                                string
	Took                                                  time.Duration
}

// err says what must not have happened.
func (r report) err() error {
	var errs []error
	check := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(r.Twice > 0, "%d people got the mail twice", r.Twice)
	check(r.AcceptedWithoutMail > 0, "%d deliveries are accepted and the server has no mail", r.AcceptedWithoutMail)
	check(r.LostWithoutUnknown > 0, "%d people got no mail and are not unknown", r.LostWithoutUnknown)
	check(r.Unknown > r.Kills*inFlight, "%d are unknown, more than the %d that can have been in flight", r.Unknown, r.Kills*inFlight)
	check(r.InboxTwice+r.InboxMissing > 0, "%d people have the inbox message twice, %d not at all", r.InboxTwice, r.InboxMissing)
	check(r.Failed+r.Pending+r.Other > 0, "%d failed, %d are pending, %d in another state", r.Failed, r.Pending, r.Other)
	return errors.Join(errs...)
}

func (r report) String() string {
	return fmt.Sprintf("kills %d, people %d, status %s, %s\ne-mail: accepted %d, unknown %d, failed %d, pending %d; mails at the server %d, twice %d, accepted without mail %d, lost %d\ninbox:  messages %d, twice %d, missing %d",
		r.Kills, r.People, r.Status, r.Took.Round(time.Second), r.Accepted, r.Unknown, r.Failed, r.Pending, r.Mails, r.Twice, r.AcceptedWithoutMail, r.LostWithoutUnknown,
		r.Inbox, r.InboxTwice, r.InboxMissing)
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "./groundwork", "the server to test")
	flag.IntVar(&o.people, "people", 10_000, "recipients")
	flag.IntVar(&o.kills, "kills", 20, "how often it is killed")
	flag.DurationVar(&o.mailDelay, "delay", 10*time.Millisecond, "how long the mail server takes for a mail")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "when to give up")
	flag.Parse()
	r, err := run(o)
	if err == nil {
		fmt.Println(r)
		err = r.err()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

const (
	rootEmail    = "root@example.com"
	rootPassword = "a-long-password"
	// userHash is bcrypt of something nobody signs in with, at its lowest cost.
	userHash = "$2a$04$0hePurI82RKlzDnX.1tq/uUz9Ck9n.Zog/jXQsMksc8XUEtk0.Uby"
)

func run(o options) (r report, err error) {
	r = report{Kills: o.kills, People: o.people}
	dir, err := os.MkdirTemp("", "groundwork-soak-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	mails, err := providertest.StartSMTP(providertest.SMTPOptions{CountOnly: true,
		Behaviour: providertest.Behaviour{All: providertest.Script{DotDelay: o.mailDelay}}})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, mails.Close()) }()

	s := &server{binary: o.binary, dir: dir, env: []string{
		"APP_ENV=production", "GROUNDWORK_KEY=" + strings.Repeat("k", 32), "SUPERUSER_EMAIL=" + rootEmail, "SUPERUSER_PASSWORD=" + rootPassword,
		"SMTP_HOST=" + mails.Host(), fmt.Sprintf("SMTP_PORT=%d", mails.Port()), "SMTP_TLS=none", "SMTP_FROM=Shop <hello@example.com>"}}
	if err := s.start(); err != nil {
		return r, err
	}
	defer s.kill()
	s.kill() // the tables are there now
	if err := s.withDB(func(db *dbx.DB) error { return seed(db, o.people) }); err != nil {
		return r, err
	}
	if err := s.start(); err != nil {
		return r, err
	}

	begin := time.Now()
	id, err := s.send(o.people)
	if err != nil {
		return r, err
	}
	// Spread the kills over the whole send: each comes after a random share of
	// what is left.
	for k := range o.kills {
		before := mails.Total()
		share := max(1, (o.people-before)/(o.kills-k+1))
		goal := before + rand.IntN(share) + 1
		for deadline := time.Now().Add(10 * time.Second); mails.Total() < goal && time.Now().Before(deadline); {
			time.Sleep(time.Duration(1+rand.IntN(5)) * time.Millisecond) // between two looks at the ledger: the moment is meant to be random
		}
		s.kill()
		if err := s.start(); err != nil {
			return r, fmt.Errorf("restart after kill %d: %w", k+1, err)
		}
	}
	if r.Status, err = s.await(id, o.timeout); err != nil {
		return r, err
	}
	r.Took = time.Since(begin)
	s.kill()
	counts := mails.Counts()
	err = s.withDB(func(db *dbx.DB) error { return r.count(db, id, counts) })
	return r, err
}

func seed(db *dbx.DB, people int) error {
	return db.Transactional(func(tx *dbx.Tx) error {
		q := tx.NewQuery("INSERT INTO users (id, email, name, password, tokenKey, created, updated) VALUES ({:id}, {:email}, {:name}, {:hash}, {:key}, '2026-01-01 00:00:00.000Z', '2026-01-01 00:00:00.000Z')").Prepare()
		defer q.Close()
		for i := range people {
			if _, err := q.Bind(dbx.Params{"id": fmt.Sprintf("p%014d", i), "email": address(i), "name": fmt.Sprintf("Person %d", i),
				"hash": userHash, "key": fmt.Sprintf("%050d", i)}).Execute(); err != nil {
				return fmt.Errorf("seed people: %w", err)
			}
		}
		return nil
	})
}

func address(i int) string { return fmt.Sprintf("p%d@example.com", i) }

func (r *report) count(db *dbx.DB, id string, mails map[string]int) error {
	var rows []struct {
		User   string `db:"user"`
		Status string `db:"status"`
	}
	err := db.NewQuery("SELECT user, status FROM notification_deliveries WHERE notification = {:id} AND channel = 'email'").Bind(dbx.Params{"id": id}).All(&rows)
	if err != nil {
		return fmt.Errorf("read deliveries: %w", err)
	}
	status := map[string]string{}
	for _, row := range rows {
		status[row.User] = row.Status
	}
	for i := range r.People {
		got, st := mails[address(i)], status[fmt.Sprintf("p%014d", i)]
		r.Mails += got
		if got > 1 {
			r.Twice++
		}
		switch st {
		case "accepted":
			r.Accepted++
			if got == 0 {
				r.AcceptedWithoutMail++
			}
		case "unknown":
			r.Unknown++
		case "failed":
			r.Failed++
		case "pending", "sending":
			r.Pending++
		default:
			r.Other++
		}
		if got == 0 && st != "unknown" {
			r.LostWithoutUnknown++
		}
	}
	var inbox []struct {
		User string `db:"user"`
		N    int    `db:"n"`
	}
	if err := db.NewQuery("SELECT user, COUNT(*) AS n FROM notification_inbox GROUP BY user").All(&inbox); err != nil {
		return fmt.Errorf("read inbox: %w", err)
	}
	for _, row := range inbox {
		r.Inbox += row.N
		if row.N > 1 {
			r.InboxTwice++
		}
	}
	r.InboxMissing = r.People - len(inbox)
	return nil
}

// server is the real binary in its own process.
type server struct {
	binary, dir, addr string
	env               []string
	cmd               *exec.Cmd
	token             string
}

func (s *server) start() error {
	if s.addr == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.addr = l.Addr().String()
		if err := l.Close(); err != nil {
			return err
		}
	}
	out, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own copy
	binary, err := filepath.Abs(s.binary)
	if err != nil {
		return err
	}
	s.cmd = exec.Command(binary, "serve", "--http", s.addr, "--dir", filepath.Join(s.dir, "pb_data"))
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, out, out
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}, s.env...)
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // between two tries to connect
		res, err := http.Get("http://" + s.addr + "/api/health")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	s.kill()
	tail, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return fmt.Errorf("the server did not start: %s", tail[max(0, len(tail)-2000):])
}

// kill is SIGKILL: the process gets no chance to tidy up.
func (s *server) kill() {
	if s.cmd == nil || s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (s *server) withDB(do func(db *dbx.DB) error) error {
	db, err := core.DefaultDBConnect(filepath.Join(s.dir, "pb_data", "data.db"))
	if err != nil {
		return err
	}
	return errors.Join(do(db), db.Close())
}

func (s *server) call(method, path string, body any, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://"+s.addr+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", s.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, answer)
	}
	return json.Unmarshal(answer, into)
}

func (s *server) send(people int) (string, error) {
	var auth struct{ Token string }
	if err := s.call(http.MethodPost, "/api/collections/_superusers/auth-with-password", map[string]any{"identity": rootEmail, "password": rootPassword}, &auth); err != nil {
		return "", err
	}
	s.token = auth.Token
	var n struct{ ID string }
	err := s.call(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "Hello {{ user.name }}", "body": "We are open.",
		"channels": []string{"email", "inbox"}, "audience": "everyone", "confirmRecipients": people, "action": "send"}, &n)
	return n.ID, err
}

func (s *server) await(id string, timeout time.Duration) (string, error) {
	var n struct{ Status, StatusReason string }
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) { // between two looks
		if err := s.call(http.MethodGet, "/api/collections/notifications/records/"+id, nil, &n); err != nil {
			return "", err
		}
		switch n.Status {
		case "queued", "sending", "scheduled":
		default:
			return n.Status, nil
		}
	}
	return n.Status, fmt.Errorf("the notification is still %s after %s (%s)", n.Status, timeout, n.StatusReason)
}
