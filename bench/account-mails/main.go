// Command account-mails measures whether the answer to a password reset tells
// if an address has an account.
//
//	go run ./bench/account-mails -binary ./groundwork -people 150
//
// Requests alternate between addresses that have an account and addresses that
// have none, on one server with a mail server behind it. The figure is the ratio
// of the two medians, between 0.95 and 1.05.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

func main() {
	binary := flag.String("binary", "./groundwork", "the server to test")
	people := flag.Int("people", 150, "addresses of each kind")
	flag.Parse()
	if err := run(*binary, *people); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(binary string, people int) (err error) {
	dir, err := os.MkdirTemp("", "groundwork-account-mails-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	mails, err := providertest.StartSMTP(providertest.SMTPOptions{CountOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mails.Close()) }()
	s := &process.Server{Binary: binary, Dir: dir, Env: process.Production(mails)}
	if err := s.Start(); err != nil {
		return err
	}
	defer s.Kill()
	for i := range people {
		err := s.Call(http.MethodPost, "/api/collections/users/records", map[string]any{
			"email": fmt.Sprintf("known%d@example.com", i), "password": "a-long-password", "passwordConfirm": "a-long-password"}, &struct{}{})
		if err != nil {
			return err
		}
	}
	took := map[string][]time.Duration{}
	for i := range people {
		kinds := []string{"known", "nobody"}
		if i%2 == 1 {
			slices.Reverse(kinds)
		}
		for _, kind := range kinds {
			begin := time.Now()
			code, err := s.Status(http.MethodPost, "/api/collections/users/request-password-reset", map[string]any{"email": fmt.Sprintf("%s%d@example.com", kind, i)})
			if err != nil {
				return err
			}
			if code != http.StatusNoContent {
				return fmt.Errorf("the answer for %s is %d", kind, code)
			}
			took[kind] = append(took[kind], time.Since(begin))
		}
	}
	at := func(kind string, share float64) time.Duration {
		slices.Sort(took[kind])
		return took[kind][min(int(share*float64(people)), people-1)].Round(10 * time.Microsecond)
	}
	ratio := float64(at("known", 0.5)) / float64(at("nobody", 0.5))
	fmt.Printf("with an account:    p50 %s, p95 %s\nwithout an account: p50 %s, p95 %s\nratio of medians %.3f (0.95 to 1.05); mails sent %d\n",
		at("known", 0.5), at("known", 0.95), at("nobody", 0.5), at("nobody", 0.95), ratio, mails.Total())
	if ratio < 0.95 || ratio > 1.05 {
		return errors.New("the time of the answer tells whether an address has an account")
	}
	return nil
}
