// Command welcome measures what the welcome trigger costs a sign-up while the
// mail server takes five seconds for a mail, and kills the server between the
// sign-up's commit and the send.
//
//	go run ./bench/welcome -binary ./groundwork -signups 400 -kills 20
//
// Two servers run side by side in production, one with the Welcome trigger on;
// sign-ups alternate between them. The figure is the ratio of the two 99th
// percentiles, at most 1.1. The exit status is 1 when a person who signed up
// before a kill got the mail twice, or not at all without being "unknown".
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/pocketbase/dbx"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

const limit = 1.1

func main() {
	binary := flag.String("binary", "./groundwork", "the server to test")
	signups := flag.Int("signups", 400, "sign-ups measured on each of the two servers; 0 leaves this part out")
	kills := flag.Int("kills", 20, "how often the server is killed; 0 leaves this part out")
	delay := flag.Duration("delay", 5*time.Second, "how long the mail server takes for a mail while sign-ups are measured")
	flag.Parse()
	err := measure(*binary, *signups, *delay)
	if err == nil {
		err = crash(*binary, *kills)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

// serve starts a server on a new folder against a mail server that takes delay
// for a mail. stop ends both.
func serve(binary string, delay time.Duration, welcome bool) (s *process.Server, mails *providertest.SMTP, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "groundwork-welcome-")
	if err != nil {
		return nil, nil, nil, err
	}
	mails, err = providertest.StartSMTP(providertest.SMTPOptions{CountOnly: true,
		Behaviour: providertest.Behaviour{All: providertest.Script{DotDelay: delay}}})
	if err != nil {
		return nil, nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	s = &process.Server{Binary: binary, Dir: dir, Env: process.Production(mails)}
	stop = func() error {
		s.Kill()
		return errors.Join(mails.Close(), os.RemoveAll(dir))
	}
	err = s.Start()
	if err == nil {
		err = s.SignIn()
	}
	if err == nil && welcome {
		err = s.Call(http.MethodPatch, "/api/collections/notification_triggers/records/gwwelcome000000", map[string]any{"enabled": true}, &struct{}{})
	}
	if err == nil { // one address signs everybody up
		err = s.Call(http.MethodPatch, "/api/collections/rate_limits/records/gwlimitguests00", map[string]any{"limit": 1_000_000}, &struct{}{})
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, stop())
	}
	s.SignOut() // what a superuser creates is an import, and welcomes nobody
	return s, mails, stop, nil
}

func address(i int) string { return fmt.Sprintf("p%d@example.com", i) }

func signUp(s *process.Server, i int) error {
	return s.Call(http.MethodPost, "/api/collections/users/records", map[string]any{
		"email": address(i), "name": "Ana", "password": "a-long-password", "passwordConfirm": "a-long-password"}, &struct{}{})
}

func measure(binary string, signups int, delay time.Duration) error {
	if signups == 0 {
		return nil
	}
	plain, _, stopPlain, err := serve(binary, delay, false)
	if err != nil {
		return err
	}
	defer func() { _ = stopPlain() }()
	welcome, mails, stopWelcome, err := serve(binary, delay, true)
	if err != nil {
		return err
	}
	defer func() { _ = stopWelcome() }()

	took := map[*process.Server][]time.Duration{}
	for i := range signups {
		order := []*process.Server{plain, welcome}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			begin := time.Now()
			if err := signUp(s, i); err != nil {
				return err
			}
			took[s] = append(took[s], time.Since(begin))
		}
	}
	for _, s := range []*process.Server{plain, welcome} {
		slices.Sort(took[s])
	}
	at := func(s *process.Server, share float64) time.Duration {
		return took[s][min(int(share*float64(signups)), signups-1)]
	}
	ratio := float64(at(welcome, 0.99)) / float64(at(plain, 0.99))
	fmt.Printf("sign-ups %d on each, a mail takes %s\nwithout the trigger: p50 %s, p99 %s\nwith the trigger:    p50 %s, p99 %s\nratio of p99 %.3f (at most %.1f)\n",
		signups, delay, at(plain, 0.5).Round(10*time.Microsecond), at(plain, 0.99).Round(10*time.Microsecond),
		at(welcome, 0.5).Round(10*time.Microsecond), at(welcome, 0.99).Round(10*time.Microsecond), ratio, limit)
	if mails.Total() == 0 {
		return errors.New("no welcome has gone out: nothing was measured")
	}
	if ratio > limit {
		return fmt.Errorf("the ratio %.3f is over %.1f", ratio, limit)
	}
	return nil
}

// person is who signed up, and what became of the welcome.
type person struct {
	User    string `db:"email"`
	Status  string `db:"status"`
	Inbox   int    `db:"inbox"`
	Planned int    `db:"planned"`
}

func crash(binary string, kills int) error {
	if kills == 0 {
		return nil
	}
	s, mails, stop, err := serve(binary, 20*time.Millisecond, true)
	if err != nil {
		return err
	}
	defer func() { _ = stop() }()
	for i := range kills {
		if err := signUp(s, i); err != nil {
			return err
		}
		time.Sleep(rand.N(120 * time.Millisecond)) // the moment of the kill is meant to be random: before, in and after the send
		s.Kill()
		if err := s.Start(); err != nil {
			return fmt.Errorf("restart after kill %d: %w", i+1, err)
		}
	}
	var rows []person
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) { // between two looks
		rows = nil
		err := s.WithDB(func(db *dbx.DB) error {
			return db.NewQuery("SELECT u.email, COALESCE(d.status, '') AS status, COUNT(d.id) AS planned," +
				" (SELECT COUNT(*) FROM notification_inbox i WHERE i.user = u.id) AS inbox" +
				" FROM users u LEFT JOIN notification_deliveries d ON d.user = u.id AND d.channel = 'email' GROUP BY u.id").All(&rows)
		})
		if err != nil {
			return fmt.Errorf("read deliveries: %w", err)
		}
		settled := !slices.ContainsFunc(rows, func(r person) bool {
			return r.Status != "accepted" && r.Status != "unknown" || r.Inbox == 0
		})
		if settled || time.Now().After(deadline) {
			break
		}
	}
	counts := mails.Counts()
	var accepted, unknown, twice, lost, inbox, other int
	for _, r := range rows {
		got := counts[r.User]
		switch {
		case got > 1 || r.Planned > 1 || r.Inbox > 1:
			twice++
		case r.Status == "accepted" && got == 1:
			accepted++
		case r.Status == "unknown":
			unknown++
		case got == 0:
			lost++
		default:
			other++
		}
		inbox += r.Inbox
	}
	fmt.Printf("kills %d, people %d: accepted %d, unknown %d, twice %d, lost %d, other %d; inbox messages %d\n", kills, len(rows), accepted, unknown, twice, lost, other, inbox)
	if twice+lost+other > 0 || len(rows) != kills || inbox != kills {
		return errors.New("somebody was not served exactly once")
	}
	return nil
}
