// Command workers sends from worker processes on "other machines", kills one of them
// and Postgres in the middle, and measures what a second worker is worth.
//
//	go run ./bench/workers -binary ./groundwork -people 50000
//
// It starts a Postgres, the real binary as a server with --no-workers, and two
// `groundwork worker` processes, each in a folder of its own: what they have in common
// is Postgres. Mail, Twilio's and Google's services are doubles in this process that
// keep ledgers.
//
// First one notification goes to everybody by e-mail, push and SMS (SMS to the first
// 10,000 only: no more numbers are reserved for such things). After a third of the
// messages a worker is ended with SIGKILL, and started again later; after two thirds
// Postgres is ended in the middle of what it does. With -kill-server the server is ended
// after five sixths, and started again: what it had marked and not yet passed on is
// unknown when its time is over, three and a half minutes later. At the end the deliveries are
// compared with the ledgers. The exit status is 1 when a rule is broken:
//
//   - everybody is served on every channel, and what was accepted has come;
//   - an e-mail or SMS comes once at most, and is unknown only if it may have been in
//     flight at the kill;
//   - a push comes twice only if it may have been in flight, with the same collapse id;
//   - the workers leave nothing in their folders but the log.
//
// Then the same number of e-mails goes out by one worker and by two, in turns, through
// a mail server that takes -delay for each. The last line is the median of the ratios;
// the exit status is 1 when it is below -least.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

type options struct {
	binary     string
	people     int // of the first part
	delay      time.Duration
	rateBatch  int // e-mails of each turn of the second part
	rounds     int
	least      float64
	timeout    time.Duration
	killServer bool
}

// maxPhones is how many phone numbers are reserved for such things.
const maxPhones = 10_000

func defaults() options {
	return options{binary: "./groundwork", people: 50_000, delay: 20 * time.Millisecond, rateBatch: 6000, rounds: 3, least: 1.7, timeout: 20 * time.Minute}
}

func main() {
	o := defaults()
	flag.StringVar(&o.binary, "binary", o.binary, "the server to test")
	flag.IntVar(&o.people, "people", o.people, "recipients of the notification in which a worker and Postgres are killed; 0 leaves it out")
	flag.DurationVar(&o.delay, "delay", o.delay, "how long each service takes for a message")
	flag.IntVar(&o.rateBatch, "mails", o.rateBatch, "e-mails of each turn with one worker and with two")
	flag.IntVar(&o.rounds, "rounds", o.rounds, "how often one worker and two take turns; 0 leaves it out")
	flag.Float64Var(&o.least, "least", o.least, "the lowest ratio that is good enough")
	flag.DurationVar(&o.timeout, "timeout", o.timeout, "when to give up waiting for the end")
	flag.BoolVar(&o.killServer, "kill-server", false, "end the server too, after five sixths of the messages")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(o options) error {
	if o.people > 0 {
		r, err := crash(o)
		if err == nil {
			fmt.Println(r)
			err = r.err()
		}
		if err != nil {
			return err
		}
	}
	if o.rounds == 0 {
		return nil
	}
	ratio, err := compare(o)
	if err == nil && ratio < o.least {
		err = errors.New("the ratio is too low")
	}
	return err
}
