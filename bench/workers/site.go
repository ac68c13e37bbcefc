package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/pocketbase/dbx"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// site is a server, its Postgres, its workers and the services they send to.
type site struct {
	o        options
	dir      string
	postgres *pgtest.Server
	server   *process.Server
	workers  []*process.Worker
	mails    *providertest.SMTP
	twilio   *providertest.Twilio
	google   *providertest.FCM
}

func (s *site) close() error {
	var errs []error
	for _, w := range s.workers {
		w.Kill()
	}
	if s.server != nil {
		s.server.Kill()
	}
	if s.postgres != nil {
		s.postgres.Stop()
	}
	if s.mails != nil {
		errs = append(errs, s.mails.Close())
	}
	if s.twilio != nil {
		errs = append(errs, s.twilio.Close())
	}
	if s.google != nil {
		errs = append(errs, s.google.Close())
	}
	if os.Getenv("KEEP") != "" {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// open starts everything but the workers. What it returns is to be closed also when
// there is an error.
func open(o options, people int) (*site, error) {
	s := &site{o: o}
	var err error
	if s.dir, err = os.MkdirTemp("", "groundwork-workers-"); err != nil {
		return s, err
	}
	if s.postgres, err = pgtest.Start(); err != nil {
		return s, err
	}
	database, err := s.postgres.NewDatabase()
	if err != nil {
		return s, err
	}
	if s.mails, err = providertest.StartSMTP(providertest.SMTPOptions{CountOnly: true,
		Behaviour: providertest.Behaviour{All: providertest.Script{DotDelay: o.delay}}}); err != nil {
		return s, err
	}
	if s.twilio, err = providertest.StartTwilio(providertest.TwilioOptions{CountOnly: true, Fault: providertest.TwilioFault{Delay: o.delay}}); err != nil {
		return s, err
	}
	if s.google, err = providertest.StartFCM(providertest.FCMOptions{Behaviour: providertest.FCMBehaviour{Latency: o.delay}}); err != nil {
		return s, err
	}
	google, err := s.google.Env()
	if err != nil {
		return s, err
	}
	providers := append(s.twilio.Env("Shop", ""), google...)
	providers = append(providers, "JOBS_DATABASE_URL="+s.postgres.URL(database),
		"SMTP_HOST="+s.mails.Host(), fmt.Sprintf("SMTP_PORT=%d", s.mails.Port()), "SMTP_TLS=none", "SMTP_FROM=Shop <hello@example.com>")

	folder, err := s.folder("server")
	if err != nil {
		return s, err
	}
	for _, name := range []string{"w1", "w2"} {
		dir, err := s.folder(name)
		if err != nil {
			return s, err
		}
		s.workers = append(s.workers, &process.Worker{Binary: o.binary, Dir: dir, Host: name, Env: providers})
	}
	s.server = &process.Server{Binary: o.binary, Dir: folder, Env: append(process.Root(), providers...), Args: []string{"--no-workers"}}
	if err := s.server.Start(); err != nil {
		return s, err
	}
	s.server.Kill() // the tables are there now
	if err := s.server.WithDB(func(db *dbx.DB) error { return seed(db, people) }); err != nil {
		return s, err
	}
	if err := s.server.Start(); err != nil {
		return s, err
	}
	return s, s.server.SignIn()
}

func (s *site) folder(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	return dir, os.Mkdir(dir, 0o700)
}

// send makes a notification to everybody and returns its id.
func (s *site) send(people int, channels ...string) (string, error) {
	var n struct{ ID string }
	err := s.server.Call(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "Hello {{ user.name }}", "body": "We are open.",
		"channels": channels, "audience": "everyone", "confirmRecipients": people, "action": "send"}, &n)
	return n.ID, err
}

// await waits for the end of a notification.
func (s *site) await(id string) (status, reason string, err error) {
	var n struct{ Status, StatusReason string }
	for deadline := time.Now().Add(s.o.timeout); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // between two looks
		if err := s.server.Call(http.MethodGet, "/api/collections/notifications/records/"+id, nil, &n); err != nil {
			return "", "", err
		}
		switch n.Status {
		case "queued", "sending", "scheduled":
		default:
			return n.Status, n.StatusReason, nil
		}
	}
	return "", "", fmt.Errorf("the notification is still %s after %s (%s)", n.Status, s.o.timeout, n.StatusReason)
}

// until waits until met.
func (s *site) until(what string, met func() bool) error {
	for deadline := time.Now().Add(s.o.timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) { // between two looks
		if met() {
			return nil
		}
	}
	return fmt.Errorf("%s did not come within %s", what, s.o.timeout)
}

// The people, by number.

func userID(i int) string      { return fmt.Sprintf("p%014d", i) }
func address(i int) string     { return fmt.Sprintf("p%d@example.com", i) }
func deviceToken(i int) string { return providertest.FCMDeviceToken(i) }

// phone is empty for those for whom no number is reserved.
func phone(i int) string {
	if i >= maxPhones {
		return ""
	}
	return fmt.Sprintf("+1500555%04d", i)
}

// userHash is bcrypt of something nobody signs in with, at its lowest cost.
const userHash = "$2a$04$0hePurI82RKlzDnX.1tq/uUz9Ck9n.Zog/jXQsMksc8XUEtk0.Uby"

func seed(db *dbx.DB, people int) error {
	return db.Transactional(func(tx *dbx.Tx) error {
		user := tx.NewQuery("INSERT INTO users (id, email, name, phone, phoneVerified, password, tokenKey, created, updated)" +
			" VALUES ({:id}, {:email}, {:name}, {:phone}, {:verified}, {:hash}, {:key}, {:at}, {:at})").Prepare()
		defer user.Close()
		device := tx.NewQuery("INSERT INTO devices (id, user, platform, pushService, token, status, registeredAt, created, updated)" +
			" VALUES ({:id}, {:id}, 'android', 'fcm', {:token}, 'active', {:at}, {:at}, {:at})").Prepare()
		defer device.Close()
		for i := range people {
			params := dbx.Params{"id": userID(i), "email": address(i), "name": fmt.Sprintf("Person %d.", i), "phone": phone(i), "verified": phone(i) != "", "hash": userHash,
				"key": fmt.Sprintf("%050d", i), "at": "2026-01-01 00:00:00.000Z", "token": deviceToken(i)}
			if _, err := user.Bind(params).Execute(); err != nil {
				return fmt.Errorf("seed people: %w", err)
			}
			if _, err := device.Bind(params).Execute(); err != nil {
				return fmt.Errorf("seed devices: %w", err)
			}
		}
		return nil
	})
}
