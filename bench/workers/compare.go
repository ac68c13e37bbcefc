package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// compare is the second part.
func compare(o options) (ratio float64, err error) {
	s, err := open(o, o.rateBatch)
	defer func() { err = errors.Join(err, s.close()) }()
	if err != nil {
		return 0, err
	}
	if err := s.workers[0].Start(); err != nil {
		return 0, err
	}
	if _, err := s.mailEverybody(); err != nil { // warm
		return 0, err
	}
	var ratios []float64
	for round := range o.rounds {
		one, err := s.mailEverybody()
		if err != nil {
			return 0, err
		}
		if err := s.workers[1].Start(); err != nil {
			return 0, err
		}
		two, err := s.mailEverybody()
		if err != nil {
			return 0, err
		}
		if err := s.workers[1].Stop(); err != nil {
			return 0, err
		}
		ratios = append(ratios, one.Seconds()/two.Seconds())
		n := float64(o.rateBatch)
		fmt.Printf("round %d: one worker %.2f s (%.0f/s), two workers %.2f s (%.0f/s), ratio %.2f\n", round+1, one.Seconds(), n/one.Seconds(), two.Seconds(), n/two.Seconds(), ratios[round])
	}
	slices.Sort(ratios)
	ratio = ratios[len(ratios)/2]
	fmt.Printf("workers ratio %.2f (median of %d, %d mails at %s each)\n", ratio, o.rounds, o.rateBatch, o.delay)
	return ratio, nil
}

// mailEverybody sends an e-mail to everybody and returns how long it took from the
// request to the last one's arrival.
func (s *site) mailEverybody() (time.Duration, error) {
	time.Sleep(3 * time.Second) // what the server knows of the workers is up to 2 seconds old
	before := s.mails.Total()
	begin := time.Now()
	id, err := s.send(s.o.rateBatch, "email")
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.o.timeout)
	defer cancel()
	if err := s.mails.Await(ctx, before+s.o.rateBatch); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	status, reason, err := s.await(id)
	switch {
	case err != nil:
		return 0, err
	case status != "sent" || s.mails.Total() != before+s.o.rateBatch:
		return 0, fmt.Errorf("the notification is %s (%s), and %d mails for %d people came", status, reason, s.mails.Total()-before, s.o.rateBatch)
	}
	return took, nil
}
