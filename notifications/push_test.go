package notifications_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

// patience is how long a test waits for what has to come. It comes in a moment, but
// a machine that is busy with all other tests may take its time.
const patience = 2 * time.Minute

// pushPeer plays all push services at once: it answers per token and keeps what
// it was handed, by the bundle id of the provider that handed it over.
type pushPeer struct {
	mu      sync.Mutex
	answers map[string]notifications.Outcome // by token; else accepted
	got     map[string][]*notifications.Message
	by      map[string][]string // bundle id and environment, by token
	hold    chan struct{}       // not nil: nothing is answered before it is closed
	tell    map[string]func(int)
	silent  int // so many messages are taken at first and not answered
}

func newPushPeer() *pushPeer {
	return &pushPeer{answers: map[string]notifications.Outcome{}, got: map[string][]*notifications.Message{}, by: map[string][]string{}, tell: map[string]func(int){}}
}

func (p *pushPeer) answer(o notifications.Outcome, tokens ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, token := range tokens {
		p.answers[token] = o
	}
}

func (p *pushPeer) messages(token string) []*notifications.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got[token])
}

func (p *pushPeer) total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, m := range p.got {
		n += len(m)
	}
	return n
}

func (p *pushPeer) factory(cfg notifications.ProviderConfig) (notifications.Adapter, error) {
	name, _ := cfg.Config["bundleId"].(string)
	if env, ok := cfg.Config["environment"].(string); ok {
		name += " " + env
	}
	return &pushAdapter{p, name}, nil
}

type pushAdapter struct {
	peer *pushPeer
	name string
}

func (a *pushAdapter) Limits() notifications.Limits {
	return notifications.Limits{StartInFlight: 4, MaxInFlight: 32}
}

func (a *pushAdapter) OnCapacity(tell func(int)) {
	a.peer.mu.Lock()
	defer a.peer.mu.Unlock()
	a.peer.tell[a.name] = tell
}

func (a *pushAdapter) Send(_ context.Context, m *notifications.Message) notifications.Outcome {
	p := a.peer
	p.mu.Lock()
	token := nameOfToken(m.Target.Address)
	p.got[token] = append(p.got[token], m)
	p.by[token] = append(p.by[token], a.name)
	hold, o := p.hold, p.answers[token]
	if p.silent > 0 {
		p.silent--
		o = notifications.Outcome{Kind: notifications.Ambiguous, Explanation: "No answer came."}
	}
	p.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if o.Kind == 0 {
		return notifications.Outcome{Kind: notifications.Accepted, ProviderMessageID: "id-" + m.DeliveryID}
	}
	return o
}

// pushApp is an app whose push goes to a peer in this process.
type pushApp struct {
	*pbtest.App
	t         *testing.T
	peer      *pushPeer
	providers *notifications.Providers
}

func newPushApp(t *testing.T, environment ...notifications.ProviderConfig) *pushApp {
	t.Helper()
	app, peer := pbtest.NewApp(t), newPushPeer()
	log := slog.New(slog.DiscardHandler)
	providers := notifications.NewProviders(notifications.ProvidersOptions{App: app, Box: testBox(t), Log: log, Environment: environment,
		Factories: map[notifications.ProviderChannel]notifications.ProviderFactory{
			notifications.ProviderAPNs: peer.factory, notifications.ProviderFCM: peer.factory}})
	sender := notifications.NewSender(app, notifications.SenderOptions{Providers: providers, Sealed: testBox(t), Log: log,
		Retry: notifications.RetryPolicy{Base: 10 * time.Millisecond}})
	providers.OnResume(sender.Release)
	workers := jobs.NewWorkers()
	providers.AddWorkers(workers)
	sender.AddWorkers(workers)
	require.NoError(t, providers.Start(app))
	require.NoError(t, sender.Start())
	client, err := jobs.New(app, workers, jobs.Config{Log: log})
	require.NoError(t, err)
	require.NoError(t, client.Start(t.Context()))
	t.Cleanup(func() {
		if err := client.Stop(context.Background()); err != nil {
			t.Errorf("stop jobs: %v", err)
		}
		sender.Close()
		providers.Close()
	})
	a := &pushApp{app, t, peer, providers}
	a.checked() // a check of the start that came later would end a pause
	return a
}

// checked waits until the checks of the start are through, and what they asked for.
func (a *pushApp) checked() {
	a.t.Helper()
	require.Eventually(a.t, func() bool {
		due, err := jobs.CountDue(a.t.Context(), a)
		require.NoError(a.t, err)
		return due == 0
	}, patience, 10*time.Millisecond)
}

var apnsRow = notifications.ProviderConfig{Channel: notifications.ProviderAPNs, Name: "Apple", Config: map[string]any{"bundleId": "com.example.shop", "keyId": "ABC123DEFG"}}

// appleToken is a well-formed device token that stands for a name.
func appleToken(name string) string {
	return fmt.Sprintf("%x", name) + strings.Repeat("0", 64-2*len(name))
}

func nameOfToken(token string) string {
	text := strings.TrimRight(token, "0")
	name, err := hex.DecodeString(text + strings.Repeat("0", len(text)%2))
	if err != nil {
		return token // of another service
	}
	return string(name)
}

// device registers a device of a person and returns its record; the name stands
// for its token.
func (a *pushApp) device(user *core.Record, name string, fields map[string]any) *core.Record {
	a.t.Helper()
	all := map[string]any{"user": user.Id, "platform": "ios", "token": appleToken(name)}
	if fields["platform"] == "android" {
		all["token"] = name
	}
	for k, v := range fields {
		all[k] = v
	}
	return a.Record(notifications.CollectionDevices, all)
}

func (a *pushApp) push(fields map[string]any) *core.Record {
	a.t.Helper()
	all := map[string]any{"title": "Hi", "channels": []string{"push"}, "audience": "everyone", "action": "send"}
	for k, v := range fields {
		all[k] = v
	}
	n, err := a.FindCollectionByNameOrId(notifications.CollectionNotifications)
	require.NoError(a.t, err)
	people, err := a.CountRecords("users")
	require.NoError(a.t, err)
	all["confirmRecipients"] = people
	r := core.NewRecord(n)
	r.Load(all)
	require.NoError(a.t, a.Save(r))
	return r
}

// ends waits until a notification has a status.
func (a *pushApp) ends(n *core.Record, status string) *core.Record {
	a.t.Helper()
	require.EventuallyWithT(a.t, func(c *assert.CollectT) {
		n = a.Reload(n)
		require.Equal(c, status, n.GetString("status"), n.GetString("statusReason"))
	}, patience, 10*time.Millisecond)
	return n
}

func (a *pushApp) reasons(n *core.Record) map[string]int {
	a.t.Helper()
	rows, err := a.FindAllRecords(notifications.CollectionDeliveries, dbx.HashExp{"notification": n.Id})
	require.NoError(a.t, err)
	out := map[string]int{}
	for _, r := range rows {
		out[r.GetString("status")+" "+r.GetString("reason")]++
	}
	return out
}

func TestEveryDeviceGoesByItsService(t *testing.T) {
	t.Parallel()
	app := newPushApp(t, apnsRow, notifications.ProviderConfig{Channel: notifications.ProviderFCM, Name: "Google", Config: map[string]any{"projectId": "shop"}})
	other := app.Record(notifications.CollectionProviders, map[string]any{"name": "Second app", "channel": "apns", "enabled": true,
		"config": map[string]any{"bundleId": "com.example.second", "keyId": "ABC123DEFG", "teamId": "DEF123GHIJ"}})
	ana := app.User("ana@example.com")
	app.device(ana, "t-production", nil)
	app.device(ana, "t-sandbox", map[string]any{"environment": "sandbox"})
	app.device(ana, "t-second", map[string]any{"app": "com.example.second"})
	app.device(ana, "t-third", map[string]any{"app": "com.example.third"})
	app.device(ana, "t-android", map[string]any{"platform": "android"})
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	app.device(ana, "t-web", map[string]any{"platform": "web", "token": `{"endpoint":"https://push.example.com/x","keys":{"p256dh":"` +
		base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()) + `","auth":"` + base64.RawURLEncoding.EncodeToString(make([]byte, 16)) + `"}}`})
	app.User("bo@example.com") // no device

	asked := time.Now()
	n := app.ends(app.push(map[string]any{"link": "https://example.com/x", "data": map[string]any{"order": 7},
		"options": map[string]any{"badge": 3, "ttl": 60, "priority": "normal", "sound": "none", "apns": map[string]any{"x": 1}}}), "sent_with_failures")
	require.Equal(t, map[string]int{"accepted ": 5, "failed no_provider": 1, "skipped no_address": 1}, app.reasons(n))
	require.Equal(t, map[string][]string{
		"t-production": {"com.example.shop production"}, "t-sandbox": {"com.example.shop sandbox"},
		"t-second": {"com.example.second production"}, "t-third": {"com.example.shop production"}, "t-android": {""},
	}, app.peer.by, "a key is good for all apps of a team, but a row that names the app comes first")

	m := app.peer.messages("t-production")[0]
	require.Equal(t, n.Id, m.Push.CollapseID, "a repeat replaces what is shown")
	require.Equal(t, 3, *m.Push.Badge)
	require.Equal(t, "none", m.Push.Sound)
	require.Equal(t, map[string]any{"x": 1.0}, m.Push.APNs)
	require.WithinRange(t, m.Push.Expires, asked.Add(time.Minute-time.Second), time.Now().Add(time.Minute))
	require.Equal(t, "https://example.com/x", m.Link)
	require.Equal(t, map[string]any{"order": 7.0}, m.Data)
	require.Equal(t, "ios", m.Target.Device.Platform)

	// A certificate is good for one app only.
	other.Set("config", map[string]any{"bundleId": "com.example.second"})
	require.NoError(t, app.Save(other))
	_, err = app.providers.Active(app, notifications.Route{Channel: notifications.ProviderAPNs, App: "com.example.second"})
	require.NoError(t, err)
	row, err := app.FindRecordById(notifications.CollectionProviders, notifications.EnvironmentProviderID(notifications.ProviderAPNs))
	require.NoError(t, err)
	row.Set("enabled", false)
	require.NoError(t, app.Save(row))
	_, err = app.providers.Active(app, notifications.Route{Channel: notifications.ProviderAPNs, App: "com.example.third"})
	require.ErrorIs(t, err, notifications.ErrNoProvider)
}

func TestDeadTokensRetireTheirDevices(t *testing.T) {
	t.Parallel()
	app := newPushApp(t, apnsRow)
	ana := app.User("ana@example.com")
	now := time.Now()
	gone := app.device(ana, "t-gone", nil)
	again := app.device(ana, "t-again", nil)
	untold := app.device(ana, "t-untold", nil)
	suspect := app.device(ana, "t-suspect", nil)
	fine := app.device(ana, "t-fine", nil)
	app.peer.answer(notifications.Outcome{Kind: notifications.TargetGone, Explanation: "The app was removed.", GoneAt: now.Add(time.Minute)}, "t-gone")
	app.peer.answer(notifications.Outcome{Kind: notifications.TargetGone, Explanation: "The app was removed.", GoneAt: now.Add(-time.Hour)}, "t-again")
	app.peer.answer(notifications.Outcome{Kind: notifications.TargetGone, Explanation: "The app was removed."}, "t-untold")
	app.peer.answer(notifications.Outcome{Kind: notifications.TargetGone, Suspect: true, Explanation: "Not a token."}, "t-suspect")

	n := app.ends(app.push(nil), "sent_with_failures")
	require.Equal(t, map[string]int{"accepted ": 1, "failed target_gone": 4}, app.reasons(n))
	for device, want := range map[*core.Record]string{gone: "gone", again: "active", untold: "gone", suspect: "gone", fine: "active"} {
		require.Equal(t, want, app.Reload(device).GetString("status"), nameOfToken(device.GetString("token")))
	}
	require.Equal(t, "The app was removed.", app.Reload(gone).GetString("statusReason"))

	app.ends(app.push(nil), "sent_with_failures")
	require.Len(t, app.peer.messages("t-gone"), 1, "a retired device gets nothing more")
	require.Len(t, app.peer.messages("t-again"), 2)
}

func TestManySuspectTokensPauseTheProviderAndRetireNone(t *testing.T) {
	t.Parallel()
	app := newPushApp(t, apnsRow)
	bad := notifications.Outcome{Kind: notifications.TargetGone, Suspect: true, Explanation: "This token belongs to another app."}
	var tokens []string
	for i := range 12 {
		token := fmt.Sprintf("t-%d", i)
		app.device(app.User(fmt.Sprintf("p%d@example.com", i)), token, nil)
		tokens = append(tokens, token)
	}
	app.peer.answer(bad, tokens[:4]...)

	n := app.ends(app.push(nil), "paused")
	require.Contains(t, n.GetString("statusReason"), "4 of 12 devices were refused")
	require.Equal(t, map[string]int{"accepted ": 8, "pending ": 4}, app.reasons(n))
	active, err := app.CountRecords(notifications.CollectionDevices, dbx.HashExp{"status": "active"})
	require.NoError(t, err)
	require.EqualValues(t, 12, active)

	// Put right: what waited goes out, and nobody gets it twice.
	app.peer.answer(notifications.Outcome{}, tokens...)
	row, err := app.FindRecordById(notifications.CollectionProviders, notifications.EnvironmentProviderID(notifications.ProviderAPNs))
	require.NoError(t, err)
	row.Set("action", "resume")
	require.NoError(t, app.Save(row))
	app.ends(n, "sent")
	require.Len(t, app.peer.messages(tokens[11]), 1)

	// One person's made-up tokens are not a sign of a wrong setup.
	eve := app.User("eve@example.com")
	for i := range 15 {
		token := fmt.Sprintf("made-up-%d", i)
		app.device(eve, token, nil)
		app.peer.answer(bad, token)
	}
	n = app.ends(app.push(nil), "sent_with_failures")
	require.Equal(t, map[string]int{"accepted ": 12, "failed target_gone": 15}, app.reasons(n))
}

func TestAPausedServiceHoldsOnlyItsOwn(t *testing.T) {
	t.Parallel()
	app := newPushApp(t, apnsRow, notifications.ProviderConfig{Channel: notifications.ProviderFCM, Name: "Google", Config: map[string]any{"projectId": "shop"}})
	ana := app.User("ana@example.com")
	device := app.device(ana, "t-apple", nil)
	app.device(ana, "t-google", map[string]any{"platform": "android"})
	app.device(ana, "t-later", map[string]any{"platform": "android"})
	app.peer.answer(notifications.Outcome{Kind: notifications.ConfigBad, Explanation: "The key is wrong."}, "t-apple")
	app.peer.answer(notifications.Outcome{Kind: notifications.Retry, Explanation: "Later."}, "t-later")

	n := app.push(nil)
	require.Eventually(t, func() bool { return len(app.peer.messages("t-later")) > 1 }, patience, 10*time.Millisecond, "the other service goes on trying")
	app.peer.answer(notifications.Outcome{}, "t-later")
	n = app.ends(n, "paused")
	require.Contains(t, n.GetString("statusReason"), "The key is wrong.")
	require.Equal(t, map[string]int{"accepted ": 2, "pending ": 1}, app.reasons(n))
	require.Equal(t, "active", app.Reload(device).GetString("status"), "a wrong setup touches no device")

	app.peer.answer(notifications.Outcome{}, "t-apple")
	row, err := app.FindRecordById(notifications.CollectionProviders, notifications.EnvironmentProviderID(notifications.ProviderAPNs))
	require.NoError(t, err)
	require.Equal(t, "paused", row.GetString("state"))
	row.Set("action", "resume")
	require.NoError(t, app.Save(row))
	app.ends(n, "sent")
	require.Len(t, app.peer.messages("t-google"), 1)
}

// A service is put right while a batch is under way that has found it paused and
// waits for another service.
func TestAServiceThatIsRepairedDuringAPass(t *testing.T) {
	t.Parallel()
	app := newPushApp(t, apnsRow, notifications.ProviderConfig{Channel: notifications.ProviderFCM, Name: "Google", Config: map[string]any{"projectId": "shop"}})
	ana := app.User("ana@example.com")
	app.device(ana, "t-apple", nil)
	app.device(ana, "t-google", map[string]any{"platform": "android"})
	apple := notifications.EnvironmentProviderID(notifications.ProviderAPNs)
	require.NoError(t, app.providers.Pause(app, apple, "The key is wrong."))
	app.peer.hold = make(chan struct{})
	n := app.push(nil)
	require.Eventually(t, func() bool { return app.peer.total() == 1 }, patience, time.Millisecond)

	row, err := app.FindRecordById(notifications.CollectionProviders, apple)
	require.NoError(t, err)
	row.Set("action", "resume")
	require.NoError(t, app.Save(row))
	require.Eventually(t, func() bool {
		due, err := jobs.CountDue(t.Context(), app)
		require.NoError(t, err)
		return due == 1 && app.Reload(row).GetString("state") == "ok"
	}, patience, 10*time.Millisecond, "all is said, and the batch is under way")
	close(app.peer.hold)
	app.ends(n, "sent")
	require.Len(t, app.peer.messages("t-apple"), 1)
	require.Len(t, app.peer.messages("t-google"), 1)
}

// What is only asked for once is asked for again when a write fails for a moment: the pause of a
// provider, the release of what waited for it, and the last recount.
func TestWritesThatFailLeaveNothingLying(t *testing.T) {
	t.Parallel()
	app := newPushApp(t, apnsRow)
	app.device(app.User("ana@example.com"), "t-apple", nil)
	var mu sync.Mutex
	tried := map[string]int{}
	failing := map[string]int{"pause": 1, "release": 1, "recount": 3} // the end of a batch asks for more than one
	full := func(what string) error {
		mu.Lock()
		defer mu.Unlock()
		if tried[what]++; tried[what] > failing[what] {
			return nil
		}
		return errors.New("the disk is full")
	}
	app.OnRecordUpdateExecute(notifications.CollectionProviders).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("state") == "paused" {
			if err := full("pause"); err != nil {
				return err
			}
		}
		return e.Next()
	})
	app.OnRecordUpdateExecute(notifications.CollectionNotifications).BindFunc(func(e *core.RecordEvent) error {
		var err error
		switch before, now := e.Record.Original().GetString("status"), e.Record.GetString("status"); {
		case before == "paused" && now == "sending":
			err = full("release")
		case before == "sending" && now == "sent":
			err = full("recount")
		}
		if err != nil {
			return err
		}
		return e.Next()
	})

	app.peer.answer(notifications.Outcome{Kind: notifications.ConfigBad, Explanation: "The key is wrong."}, "t-apple")
	n := app.ends(app.push(nil), "paused")
	app.peer.answer(notifications.Outcome{}, "t-apple")
	row, err := app.FindRecordById(notifications.CollectionProviders, notifications.EnvironmentProviderID(notifications.ProviderAPNs))
	require.NoError(t, err)
	row.Set("action", "resume")
	require.NoError(t, app.Save(row))
	app.ends(n, "sent")
	mu.Lock()
	defer mu.Unlock()
	for what, times := range failing {
		require.Greater(t, tried[what], times, what)
	}
}

func TestAmbiguousPushIsRepeatedWithTheSameCollapseID(t *testing.T) {
	t.Parallel()
	app := newPushApp(t, apnsRow)
	app.device(app.User("ana@example.com"), "t", nil)
	app.peer.silent = 1
	app.ends(app.push(map[string]any{"options": map[string]any{"collapseId": "news"}}), "sent")
	all := app.peer.messages("t")
	require.Len(t, all, 2)
	for _, m := range all {
		require.Equal(t, "news", m.Push.CollapseID)
		require.Equal(t, all[0].DeliveryID, m.DeliveryID)
	}
}

// A service that takes pushes and does not answer is left alone for a moment, and
// everybody is served when it answers again.
func TestSilenceEndsAPassAndEverybodyIsServedAfterwards(t *testing.T) {
	t.Parallel()
	app := newPushApp(t, apnsRow)
	const people = 60
	for i := range people {
		app.device(app.User(fmt.Sprintf("p%d@example.com", i)), fmt.Sprintf("t-%d", i), nil)
	}
	var mu sync.Mutex
	var said []string
	app.OnRecordUpdateExecute(notifications.CollectionProviders).BindFunc(func(e *core.RecordEvent) error {
		mu.Lock()
		said = append(said, e.Record.GetString("state")+" "+e.Record.GetString("stateReason"))
		mu.Unlock()
		return e.Next()
	})
	const silent = 6 // the four that leave at once, and the two that leave after them
	app.peer.silent = silent
	n := app.ends(app.push(nil), "sent")
	require.Equal(t, people, n.GetInt("sent"))
	require.Equal(t, people+silent, app.peer.total())
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, strings.Join(said, "\n"), "failing The provider takes messages and does not answer. Messages wait and are tried again by themselves.")
}

func TestPauseAndCancelReachPushesOnTheirWay(t *testing.T) {
	t.Parallel()
	app := newPushApp(t, apnsRow)
	const people = 60
	for i := range people {
		app.device(app.User(fmt.Sprintf("p%d@example.com", i)), fmt.Sprintf("t-%d", i), nil)
	}
	app.peer.hold = make(chan struct{})
	n := app.push(nil)
	require.Eventually(t, func() bool { return app.peer.total() >= 4 }, patience, time.Millisecond)
	stop := app.Reload(n)
	stop.Set("action", "cancel")
	require.NoError(t, app.Save(stop))
	close(app.peer.hold)
	// What was on its way is counted as cancelled until its answer is stored.
	require.Eventually(t, func() bool {
		n = app.Reload(n)
		return n.GetInt("pending") == 0 && n.GetInt("total") == people && n.GetInt("sent") == app.peer.total()
	}, patience, 10*time.Millisecond, "what went out is told as sent")
	require.Equal(t, "cancelled", n.GetString("status"))
	require.Equal(t, people, n.GetInt("sent")+n.GetInt("cancelled"))
	require.Positive(t, n.GetInt("cancelled"))
}

func TestPushOptionsAreChecked(t *testing.T) {
	t.Parallel()
	app := newPushApp(t)
	app.User("ana@example.com")
	for option, value := range map[string]any{
		"collapseId": string(make([]byte, 65)), "ttl": 2419201, "priority": "urgent", "badge": -1, "sound": 7, "silent": "yes", "apns": []any{}, "fcm": "x", "colour": "red",
	} {
		n, err := app.FindCollectionByNameOrId(notifications.CollectionNotifications)
		require.NoError(t, err)
		r := core.NewRecord(n)
		r.Load(map[string]any{"title": "Hi", "channels": []string{"push"}, "audience": "everyone", "options": map[string]any{option: value}})
		require.ErrorContains(t, app.Save(r), option)
	}
	silent := app.push(map[string]any{"title": "", "options": map[string]any{"silent": true, "ttl": 0, "badge": 0}})
	app.ends(silent, "sent")
}
