// Command send measures how fast a push reaches everybody the whole durable way,
// against a bare client that only sends.
//
//	go run ./bench/send -binary ./groundwork -people 20000 -rounds 5
//
// Ours is the real binary in its own process: one notification is created through
// the API and runs until its status is "sent", so that planning, a delivery row
// per device, rendering, the results and the counts are all in it. The peer is
// sideshow/apns2 on net/http's transport, with a payload built for each push and
// 256 in flight, storing nothing. Both send to one double of Apple's service in
// this process, over TLS on loopback. The two alternate; the last line is the
// median of the rounds' ratios (ours : peer, above 1 means that ours is faster).
// The exit status is 1 when a push is missing or came twice, or the ratio is below
// -least.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/payload"
	"github.com/sideshow/apns2/token"

	"github.com/groundworkhq/groundwork/bench/process"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

const (
	keyID, teamID = "ABC123DEFG", "DEF123GHIJ"
	bundle        = "com.example.shop"
	inFlight      = 256 // of the peer
)

type options struct {
	binary  string
	people  int
	rounds  int
	latency time.Duration
	least   float64
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "./groundwork", "the server to measure")
	flag.IntVar(&o.people, "people", 20_000, "recipients, with one device each")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each side sends to everybody")
	flag.DurationVar(&o.latency, "latency", 0, "how long the double takes for an answer")
	flag.Float64Var(&o.least, "least", 0.8, "the lowest ratio that is good enough")
	flag.Parse()
	ratio, err := run(o)
	if err == nil && ratio < o.least {
		err = fmt.Errorf("the ratio %.3f is below %.3f", ratio, o.least)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options) (ratio float64, err error) {
	key, err := providertest.NewAPNsKey()
	if err != nil {
		return 0, err
	}
	apple, err := providertest.StartAPNs(providertest.APNsOptions{Key: key.Public, KeyID: keyID, TeamID: teamID, Topics: []string{bundle},
		Latency: o.latency, TokenLife: -1, CountOnly: true}) // two clients have a token each
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, apple.Close()) }()
	ca, err := apple.CAFile()
	if err != nil {
		return 0, err
	}
	// Read once, at the first connection.
	if err := os.Setenv("SSL_CERT_FILE", ca); err != nil {
		return 0, err
	}
	env, err := apple.Env(key, bundle)
	if err != nil {
		return 0, err
	}

	dir, err := os.MkdirTemp("", "groundwork-send-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server := &process.Server{Binary: o.binary, Dir: dir, Env: append(process.Root(), env...)}
	if err := server.Start(); err != nil {
		return 0, err
	}
	defer server.Kill()
	server.Kill() // the tables are there now
	if err := server.WithDB(func(db *dbx.DB) error { return seed(db, o.people) }); err != nil {
		return 0, err
	}
	if err := server.Start(); err != nil {
		return 0, err
	}
	if err := server.SignIn(); err != nil {
		return 0, err
	}
	bare, err := newPeer(key, apple.URL())
	if err != nil {
		return 0, err
	}

	var ratios []float64
	for round := range o.rounds {
		var took [2]time.Duration
		for side, send := range []func(int) error{func(n int) error { return durable(server, apple, n) }, bare.send} {
			before := apple.Accepted()
			begin := time.Now()
			if err := send(o.people); err != nil {
				return 0, err
			}
			took[side] = time.Since(begin)
			if got := apple.Accepted() - before; got != o.people {
				return 0, fmt.Errorf("%d pushes for %d people arrived", got, o.people)
			}
		}
		ratios = append(ratios, took[1].Seconds()/took[0].Seconds())
		fmt.Printf("round %d: durable %.2f s (%.0f/s), bare apns2 %.2f s (%.0f/s), ratio %.3f\n", round+1,
			took[0].Seconds(), float64(o.people)/took[0].Seconds(), took[1].Seconds(), float64(o.people)/took[1].Seconds(), ratios[round])
	}
	slices.Sort(ratios)
	ratio = ratios[len(ratios)/2]
	fmt.Printf("send ratio %.3f (median of %d)\n", ratio, o.rounds)
	return ratio, nil
}

// durable sends one notification to everybody and waits for its end. It does not
// ask before the last push has arrived: the answers would be part of what is
// measured.
func durable(server *process.Server, apple *providertest.APNs, people int) error {
	before := apple.Total()
	var n struct {
		ID, Status, StatusReason string
		Sent                     int
	}
	if err := server.Call(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "Hello {{ user.name }}", "body": "We are open.",
		"channels": []string{"push"}, "audience": "everyone", "confirmRecipients": people, "action": "send"}, &n); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := apple.Await(ctx, before+people); err != nil {
		return err
	}
	for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) { // between two looks
		if err := server.Call(http.MethodGet, "/api/collections/notifications/records/"+n.ID+"?fields=id,status,statusReason,sent", nil, &n); err != nil {
			return err
		}
		switch n.Status {
		case "queued", "sending":
			continue
		case "sent":
			if n.Sent != people {
				return fmt.Errorf("%d of %d are told as sent", n.Sent, people)
			}
			return nil
		}
		break
	}
	return fmt.Errorf("the notification is %s: %s", n.Status, n.StatusReason)
}

// peer is a program that only sends.
type peer struct{ client *apns2.Client }

func newPeer(key *providertest.APNsKey, url string) (*peer, error) {
	authKey, err := token.AuthKeyFromBytes([]byte(key.PEM))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	client := apns2.NewTokenClient(&token.Token{AuthKey: authKey, KeyID: keyID, TeamID: teamID})
	client.Host = url
	return &peer{client}, nil
}

func (p *peer) send(people int) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range inFlight {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(people); i = next.Add(1) - 1 {
				res, err := p.client.Push(&apns2.Notification{DeviceToken: deviceToken(int(i)), Topic: bundle, CollapseID: "news", Priority: apns2.PriorityHigh,
					PushType: apns2.PushTypeAlert, Payload: payload.NewPayload().AlertTitle(fmt.Sprintf("Hello Person %d", i)).AlertBody("We are open.").Sound("default")})
				if err == nil && !res.Sent() {
					err = fmt.Errorf("the peer's push was refused: %d %s", res.StatusCode, res.Reason)
				}
				if err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func deviceToken(i int) string { return fmt.Sprintf("%064x", i+1) }

func seed(db *dbx.DB, people int) error {
	return db.Transactional(func(tx *dbx.Tx) error {
		user := tx.NewQuery("INSERT INTO users (id, email, name, password, tokenKey, created, updated) VALUES ({:id}, {:email}, {:name}, '', {:id}, {:at}, {:at})").Prepare()
		defer user.Close()
		device := tx.NewQuery("INSERT INTO devices (id, user, platform, pushService, token, status, registeredAt, created, updated)" +
			" VALUES ({:id}, {:id}, 'ios', 'apns', {:token}, 'active', {:at}, {:at}, {:at})").Prepare()
		defer device.Close()
		for i := range people {
			// Ids are random in life: these are spread as those would be.
			id := fmt.Sprintf("%04x", uint16(i*40503)) + strings.Repeat("p", 4) + fmt.Sprintf("%07d", i)
			params := dbx.Params{"id": id, "email": fmt.Sprintf("p%d@example.com", i), "name": fmt.Sprintf("Person %d", i), "at": "2026-01-01 00:00:00.000Z", "token": deviceToken(i)}
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
