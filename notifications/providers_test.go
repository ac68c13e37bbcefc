package notifications_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/seal"
	"github.com/groundworkhq/groundwork/jobs"
	"github.com/groundworkhq/groundwork/notifications"
)

// servers is what the adapters of a test talk to: each host answers checks as
// it was told to.
type servers struct {
	mu      sync.Mutex
	answers map[string]notifications.Outcome // by host; Accepted when missing
	checks  map[string]int
	made    []notifications.ProviderConfig
	closed  int
	onCheck func(host string)
	onClose func(host string)
}

func newServers() *servers {
	return &servers{answers: map[string]notifications.Outcome{}, checks: map[string]int{}}
}

func (s *servers) answer(host string, o notifications.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[host] = o
}

func (s *servers) checked(host string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checks[host]
}

func (s *servers) count() (made, closed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.made), s.closed
}

func (s *servers) last() notifications.ProviderConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made[len(s.made)-1]
}

func (s *servers) factory(cfg notifications.ProviderConfig) (notifications.Adapter, error) {
	if cfg.Config["host"] == "unmakeable" {
		return nil, fmt.Errorf("the key %s cannot be used", cfg.Secret)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = append(s.made, cfg)
	base := adapter{servers: s, cfg: cfg}
	switch cfg.Channel {
	case notifications.ProviderSMSTransactional:
		return &transactionalSMS{base}, nil
	case notifications.ProviderSMSPromotional:
		return &promotionalSMS{base}, nil
	default:
		return &mailAdapter{base}, nil
	}
}

type adapter struct {
	servers *servers
	cfg     notifications.ProviderConfig
}

type (
	mailAdapter      struct{ adapter }
	transactionalSMS struct{ adapter }
	promotionalSMS   struct{ adapter }
)

func (a *transactionalSMS) SendTransactional(context.Context, notifications.TransactionalSMS) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.Accepted}
}

func (a *promotionalSMS) SendPromotional(context.Context, notifications.PromotionalSMS) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.Accepted}
}

func (a *mailAdapter) Send(context.Context, *notifications.Message) notifications.Outcome {
	return notifications.Outcome{Kind: notifications.Accepted}
}

func (a *adapter) Check(context.Context) notifications.Outcome {
	host, _ := a.cfg.Config["host"].(string)
	if a.servers.onCheck != nil {
		a.servers.onCheck(host)
	}
	a.servers.mu.Lock()
	defer a.servers.mu.Unlock()
	a.servers.checks[host]++
	o, ok := a.servers.answers[host]
	if !ok {
		return notifications.Outcome{Kind: notifications.Accepted}
	}
	return o
}

func (a *adapter) Close() error {
	if a.servers.onClose != nil {
		host, _ := a.cfg.Config["host"].(string)
		a.servers.onClose(host)
	}
	a.servers.mu.Lock()
	defer a.servers.mu.Unlock()
	a.servers.closed++
	return nil
}

func (a *adapter) Limits() notifications.Limits { return notifications.Limits{MaxInFlight: 4} }

// registry is a registry on an app whose jobs are worked.
type registry struct {
	*notifications.Providers
	app     *pbtest.App
	servers *servers
	log     *syncBuffer

	mu      sync.Mutex
	resumed []notifications.ProviderChannel
}

func (r *registry) resumedChannels() []notifications.ProviderChannel {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]notifications.ProviderChannel(nil), r.resumed...)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func testBox(t *testing.T) *seal.Box {
	t.Helper()
	box, err := seal.New([]byte(strings.Repeat("k", 32)))
	require.NoError(t, err)
	return box
}

func newRegistry(t *testing.T, change ...func(*notifications.ProvidersOptions)) *registry {
	t.Helper()
	return registryOn(t, pbtest.NewApp(t), change...)
}

func registryOn(t *testing.T, app *pbtest.App, change ...func(*notifications.ProvidersOptions)) *registry {
	t.Helper()
	r := &registry{app: app, servers: newServers(), log: &syncBuffer{}}
	opts := notifications.ProvidersOptions{
		App: app, Box: testBox(t), Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Factories: map[notifications.ProviderChannel]notifications.ProviderFactory{
			notifications.ProviderEmailTransactional: r.servers.factory, notifications.ProviderEmailPromotional: r.servers.factory,
			notifications.ProviderSMSTransactional: r.servers.factory, notifications.ProviderSMSPromotional: r.servers.factory,
		},
	}
	for _, c := range change {
		c(&opts)
	}
	r.Providers = notifications.NewProviders(opts)
	r.OnResume(func(_ core.App, ch notifications.ProviderChannel) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.resumed = append(r.resumed, ch)
		return nil
	})
	t.Cleanup(r.Close)
	return r
}

// work works the jobs until the test ends.
func (r *registry) work(t *testing.T) {
	t.Helper()
	workers := jobs.NewWorkers()
	r.AddWorkers(workers)
	client, err := jobs.New(r.app, workers, jobs.Config{})
	require.NoError(t, err)
	require.NoError(t, client.Start(t.Context()))
	t.Cleanup(func() { _ = client.Stop(context.Background()) })
}

// row stores a row as the server would; secret is sealed.
func (r *registry) row(t *testing.T, fields map[string]any) *core.Record {
	t.Helper()
	col, err := r.app.FindCachedCollectionByNameOrId(notifications.CollectionProviders)
	require.NoError(t, err)
	rec := core.NewRecord(col)
	rec.Load(map[string]any{"name": "A provider", "channel": "email_transactional", "source": "dashboard", "enabled": true})
	rec.Load(fields)
	if rec.Id == "" {
		rec.Set("id:autogenerate", "")
	}
	if secret := rec.GetString("secret"); secret != "" {
		sealed, err := testBox(t).Seal(notifications.SecretPurpose(rec.Id, notifications.ProviderChannel(rec.GetString("channel"))), []byte(secret))
		require.NoError(t, err)
		rec.Set("secret", "sealed:"+base64.RawStdEncoding.EncodeToString(sealed))
	}
	r.save(t, rec)
	return rec
}

func (r *registry) save(t *testing.T, rec *core.Record) {
	t.Helper()
	require.NoError(t, r.app.SaveWithContext(notifications.AsServer(t.Context()), rec))
}

func host(name string) map[string]any { return map[string]any{"host": name} }

func TestActiveChoice(t *testing.T) {
	t.Parallel()
	const tx, promo = notifications.ProviderEmailTransactional, notifications.ProviderEmailPromotional
	type row = map[string]any
	for name, tt := range map[string]struct {
		rows []row
		want map[notifications.ProviderChannel]string // id, "" for ErrNoProvider
	}{
		"nothing": {nil, map[notifications.ProviderChannel]string{tx: "", promo: "", notifications.ProviderAPNs: ""}},
		"environment wins": {
			[]row{{"id": "old", "source": "dashboard"}, {"id": "env", "source": "environment"}, {"id": "new", "source": "dashboard"}, {"id": "set", "source": "settings"}},
			map[notifications.ProviderChannel]string{tx: "env", promo: "env"}},
		"environment switched off": {
			[]row{{"id": "old", "source": "dashboard"}, {"id": "env", "source": "environment", "enabled": false}, {"id": "new", "source": "dashboard"}, {"id": "set", "source": "settings"}},
			map[notifications.ProviderChannel]string{tx: "new"}},
		"the newest may be switched off": {
			[]row{{"id": "old", "source": "dashboard"}, {"id": "new", "source": "dashboard", "enabled": false}},
			map[notifications.ProviderChannel]string{tx: "old"}},
		"settings last": {
			[]row{{"id": "off", "source": "dashboard", "enabled": false}, {"id": "set", "source": "settings"}},
			map[notifications.ProviderChannel]string{tx: "set", promo: "set"}},
		"promotional has its own": {
			[]row{{"id": "tx", "source": "environment"}, {"id": "pro", "channel": "email_promotional"}},
			map[notifications.ProviderChannel]string{tx: "tx", promo: "pro"}},
		"a promotional one that is off stops promotional mail": {
			[]row{{"id": "tx"}, {"id": "pro", "channel": "email_promotional", "enabled": false}},
			map[notifications.ProviderChannel]string{tx: "tx", promo: ""}},
		"transactional never goes by a promotional one": {
			[]row{{"id": "pro", "channel": "email_promotional"}},
			map[notifications.ProviderChannel]string{tx: "", promo: "pro"}},
		"SMS never stands in": {
			[]row{{"id": "smst", "channel": "sms_transactional"}},
			map[notifications.ProviderChannel]string{notifications.ProviderSMSTransactional: "smst", notifications.ProviderSMSPromotional: ""}},
		"SMS never stands in the other way": {
			[]row{{"id": "smsp", "channel": "sms_promotional"}},
			map[notifications.ProviderChannel]string{notifications.ProviderSMSTransactional: "", notifications.ProviderSMSPromotional: "smsp"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := []notifications.ProviderConfig{{Channel: tx, Config: host("env")}}
			r := newRegistry(t, func(o *notifications.ProvidersOptions) { o.Environment = env })
			r.app.Settings().SMTP.Enabled = true
			ids := map[string]string{"": ""}
			for i, fields := range tt.rows {
				short := fields["id"].(string)
				ids[short] = (short + strings.Repeat("0", 15))[:15]
				if fields["source"] == "environment" {
					ids[short] = notifications.EnvironmentProviderID(tx)
				}
				fields["id"] = ids[short]
				rec := r.row(t, fields)
				rec.SetRaw("created", fmt.Sprintf("2026-01-01 00:00:0%d.000Z", i))
				r.save(t, rec)
			}
			for ch, want := range tt.want {
				active, err := r.Active(r.app, notifications.Route{Channel: ch})
				if want == "" {
					require.ErrorIs(t, err, notifications.ErrNoProvider, ch)
					continue
				}
				require.NoError(t, err, ch)
				require.Equal(t, ids[want], active.ID, ch)
			}
		})
	}
}

func TestActiveWithoutTables(t *testing.T) {
	t.Parallel()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { _ = app.ClearBootstrap() })
	p := notifications.NewProviders(notifications.ProvidersOptions{App: app})
	_, err := p.Active(app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.ErrorIs(t, err, notifications.ErrNoProvider)
	require.NoError(t, p.Start(app))
	require.NoError(t, p.SettingsChanged(app))
}

func TestActiveKeepsAnAdapterUntilTheRowChanges(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("one"), "secret": "s3cret-word", "ratePerSecond": 5, "senderId": "a@example.com"})

	first, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
	require.Equal(t, notifications.ProviderConfig{ID: rec.Id, Name: "A provider", Channel: "email_transactional", Source: "dashboard",
		Config: map[string]any{"host": "one"}, Secret: "s3cret-word", SenderID: "a@example.com", RatePerSecond: 5}, r.servers.last())
	require.Equal(t, 5.0, first.RatePerSecond)

	rec.Set("name", "Another name")
	rec.Set("state", "ok")
	r.save(t, rec)
	again, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
	require.Same(t, first.Gate, again.Gate, "a new name or state needs no new connections")
	require.Equal(t, "Another name", again.Name)

	require.NoError(t, first.Gate.Acquire(t.Context()))
	rec.Set("config", host("two"))
	r.save(t, rec)
	next, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
	require.NotSame(t, first.Gate, next.Gate)
	require.Equal(t, "two", r.servers.last().Config["host"])
	require.ErrorIs(t, first.Gate.Acquire(t.Context()), notifications.ErrProviderChanged)
	_, closed := r.servers.count()
	require.Zero(t, closed, "a message is still in flight")
	first.Gate.Release(notifications.Outcome{Kind: notifications.Accepted})
	require.Eventually(t, func() bool { _, closed := r.servers.count(); return closed == 1 }, patience, time.Millisecond)

	rec.Set("enabled", false)
	r.save(t, rec)
	require.NoError(t, r.Refresh(r.app))
	require.ErrorIs(t, next.Gate.Acquire(t.Context()), notifications.ErrProviderChanged)

	r.Close()
	made, closed := r.servers.count()
	require.Equal(t, made, closed)
	_, err = r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.ErrorIs(t, err, notifications.ErrNoProvider)
}

// A server that is let go of and does not answer the goodbye holds nobody up.
func TestAGoodbyeHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	saysGoodbye, answered := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(answered) })
	r.servers.onClose = func(host string) {
		if host == "hangs" {
			close(saysGoodbye)
			<-answered
		}
	}
	rec := r.row(t, map[string]any{"config": host("hangs")})
	r.row(t, map[string]any{"config": host("other"), "channel": "sms_transactional", "senderId": "+15005550006"})
	_, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)

	rec.Set("config", host("new"))
	r.save(t, rec)
	through := make(chan error, 1)
	go func() {
		err := r.Refresh(r.app)
		for _, ch := range []notifications.ProviderChannel{notifications.ProviderEmailTransactional, notifications.ProviderSMSTransactional} {
			_, found := r.Active(r.app, notifications.Route{Channel: ch})
			err = errors.Join(err, found)
		}
		through <- err
	}()
	<-saysGoodbye
	select {
	case err := <-through:
		require.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "everybody waits for one server's goodbye")
	}
}

func TestActiveUnusable(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	unusable := func(t *testing.T, ch notifications.ProviderChannel) string {
		t.Helper()
		_, err := r.Active(r.app, notifications.Route{Channel: ch})
		var paused *notifications.PausedError
		require.ErrorAs(t, err, &paused)
		require.NotContains(t, paused.Reason, "s3cret-word")
		return paused.Reason
	}
	rec := r.row(t, map[string]any{"config": host("unmakeable"), "secret": "s3cret-word"})
	require.Equal(t, "The key … cannot be used.", unusable(t, "email_transactional"))

	rec.Set("config", host("one"))
	rec.Set("secret", "sealed:AAAA")
	r.save(t, rec)
	require.Contains(t, unusable(t, "email_transactional"), "GROUNDWORK_KEY")

	r.row(t, map[string]any{"channel": "apns"})
	require.Contains(t, unusable(t, "apns"), "cannot send on the channel apns")

	r.row(t, map[string]any{"channel": "sms_transactional", "senderId": "+49 151 123", "name": "Codes"})
	_, err := r.Active(r.app, notifications.Route{Channel: "sms_transactional"})
	require.NoError(t, err)
	r.row(t, map[string]any{"channel": "sms_promotional", "senderId": "0049151123", "name": "Offers", "enabled": false})
	require.Contains(t, unusable(t, "sms_transactional"), `is also the sender of "Offers"`)
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("one"), "secret": "s3cret-word"})
	active, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)

	for range 2 { // idempotent
		require.NoError(t, r.Pause(r.app, rec.Id, "535 refused the login with s3cret-word."))
		_, err = r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
		var paused *notifications.PausedError
		require.ErrorAs(t, err, &paused)
		require.Equal(t, rec.Id, paused.ProviderID)
		require.Equal(t, "535 refused the login with ….", paused.Reason)
	}
	stored := r.app.Reload(rec)
	require.Equal(t, "paused", stored.GetString("state"))
	require.Equal(t, "535 refused the login with ….", stored.GetString("stateReason"))
	var paused *notifications.PausedError
	require.ErrorAs(t, active.Gate.Acquire(t.Context()), &paused, "those who wait learn of it")
	_, err = r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailPromotional})
	require.ErrorAs(t, err, &paused, "promotional mail goes by the same one")

	require.NoError(t, r.MarkOK(r.app, rec.Id))
	require.NoError(t, r.MarkFailing(r.app, rec.Id, "The server is down."))
	require.Equal(t, "paused", r.app.Reload(rec).GetString("state"), "a late answer does not end a pause")

	require.NoError(t, r.Pause(r.app, "gone00000000000", "x"), "a row that was deleted meanwhile")

	r.work(t)
	r.servers.answer("one", notifications.Outcome{Kind: notifications.Accepted})
	require.NoError(t, r.Start(r.app))
	require.Eventually(t, func() bool { return len(r.resumedChannels()) == 2 }, patience, 10*time.Millisecond)
	require.Equal(t, "ok", r.app.Reload(rec).GetString("state"))
	require.Empty(t, r.app.Reload(rec).GetString("stateReason"))
	require.ElementsMatch(t, []notifications.ProviderChannel{"email_transactional", "email_promotional"}, r.resumedChannels())
	_, err = r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
}

func TestMarkWritesOnlyNews(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("one")})
	writes := 0
	r.app.OnRecordUpdateExecute(notifications.CollectionProviders).BindFunc(func(e *core.RecordEvent) error {
		writes++
		return e.Next()
	})
	state := func() [2]string {
		stored := r.app.Reload(rec)
		return [2]string{stored.GetString("state"), stored.GetString("stateReason")}
	}
	for range 3 {
		require.NoError(t, r.MarkOK(r.app, rec.Id))
	}
	require.Equal(t, 1, writes)
	require.Equal(t, [2]string{"ok", ""}, state())
	for range 3 {
		require.NoError(t, r.MarkFailing(r.app, rec.Id, "The server cannot be reached."))
	}
	require.Equal(t, 2, writes)
	require.Equal(t, [2]string{"failing", "The server cannot be reached."}, state())
	_, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err, "failing is not paused")
	require.NoError(t, r.MarkOK(r.app, rec.Id))
	require.Equal(t, [2]string{"ok", ""}, state())
	require.NoError(t, r.MarkOK(r.app, "gone00000000000"))
}

func TestStateWriteKeepsWhatTheOwnerSaved(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("one"), "secret": "s3cret-word"})
	sealed := rec.GetString("secret")
	require.NoError(t, r.MarkFailing(r.app, rec.Id, "Down."))
	stored := r.app.Reload(rec)
	require.JSONEq(t, `{"host":"one"}`, stored.GetString("config"))
	require.Equal(t, sealed, stored.GetString("secret"))
	require.True(t, stored.GetBool("enabled"))
}

// A password is put right while messages sent with the old one are still in
// flight: their complaints must not pause the repaired provider.
func TestPauseIgnoresComplaintsAboutAFormerConfiguration(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("wrong")})
	former, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
	require.NoError(t, former.Gate.Acquire(t.Context()))

	rec.Set("config", host("right"))
	r.save(t, rec)
	former.Gate.Release(notifications.Outcome{Kind: notifications.ConfigBad})
	require.NoError(t, r.Pause(r.app, rec.Id, "Wrong password."))
	require.Empty(t, r.app.Reload(rec).GetString("state"))
	next, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
	n, err := jobsOfKind(r.app, "provider.resumed")
	require.NoError(t, err)
	require.Equal(t, 2, n, "what was left pending is asked for again")

	require.NoError(t, next.Gate.Acquire(t.Context()))
	next.Gate.Release(notifications.Outcome{Kind: notifications.ConfigBad})
	require.NoError(t, r.Pause(r.app, rec.Id, "Wrong password again."))
	require.Equal(t, "paused", r.app.Reload(rec).GetString("state"))
}

func jobsOfKind(app core.App, kind string) (int, error) {
	var n int
	err := app.DB().NewQuery("SELECT count(*) FROM groundwork_outbox WHERE kind = {:kind}").Bind(map[string]any{"kind": kind}).Row(&n)
	return n, err
}

func TestPauseRollsBackWithItsTransaction(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("one")})
	boom := errors.New("boom")
	require.ErrorIs(t, r.app.RunInTransaction(func(txApp core.App) error {
		if err := r.Pause(txApp, rec.Id, "Wrong password."); err != nil {
			return err
		}
		return boom
	}), boom)
	require.Empty(t, r.app.Reload(rec).GetString("state"))
	n, err := jobsOfKind(r.app, "provider.recheck")
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
}

func TestRecheckGetsARepairedServerGoing(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, func(o *notifications.ProvidersOptions) {
		o.RecheckAfter, o.RecheckMax = 15*time.Millisecond, 20*time.Millisecond
	})
	r.servers.answer("one", notifications.Outcome{Kind: notifications.ConfigBad, Explanation: "The certificate expired yesterday."})
	rec := r.row(t, map[string]any{"config": host("one")})
	off := r.row(t, map[string]any{"config": host("off"), "channel": "email_promotional"})
	require.NoError(t, r.Pause(r.app, rec.Id, "The certificate expired."))
	require.NoError(t, r.Pause(r.app, off.Id, "The certificate expired."))
	off = r.app.Reload(off)
	off.Set("enabled", false)
	r.save(t, off)
	r.work(t) // the checks that were asked for until then are due long ago

	require.Eventually(t, func() bool { return r.servers.checked("one") >= 3 }, patience, 10*time.Millisecond)
	require.Equal(t, "The certificate expired yesterday.", r.app.Reload(rec).GetString("stateReason"))
	require.Empty(t, r.resumedChannels())
	r.servers.answer("one", notifications.Outcome{Kind: notifications.Accepted})
	require.Eventually(t, func() bool { return len(r.resumedChannels()) == 1 }, patience, 10*time.Millisecond)
	require.Equal(t, "ok", r.app.Reload(rec).GetString("state"))
	require.Equal(t, "paused", r.app.Reload(off).GetString("state"), "nobody tries what its owner switched off")
	require.Zero(t, r.servers.checked("off"))
}

func TestCheckResultOfAFormerConfigurationIsDropped(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("wrong"), "state": "ok"})
	r.servers.answer("wrong", notifications.Outcome{Kind: notifications.ConfigBad, Explanation: "No such server."})
	r.servers.onCheck = func(string) { // the owner is faster than the check
		fresh := r.app.Reload(rec)
		fresh.Set("config", host("right"))
		r.save(t, fresh)
	}
	require.NoError(t, r.CheckNow(t.Context(), rec.Id))
	require.Equal(t, 1, r.servers.checked("wrong"))
	require.Equal(t, "ok", r.app.Reload(rec).GetString("state"))

	r.servers.onCheck = nil
	r.servers.answer("right", notifications.Outcome{Kind: notifications.ConfigBad, Explanation: "No such server."})
	require.NoError(t, r.CheckNow(t.Context(), rec.Id))
	require.Equal(t, "paused", r.app.Reload(rec).GetString("state"))
}

func TestCheckResults(t *testing.T) {
	t.Parallel()
	const key = "s3cret-word"
	for name, tt := range map[string]struct {
		before  string
		answer  notifications.Outcome
		state   string
		reason  string
		resumed int
	}{
		"accepted, never tried":  {"", notifications.Outcome{Kind: notifications.Accepted}, "ok", "", 2},
		"accepted, ok already":   {"ok", notifications.Outcome{Kind: notifications.Accepted}, "ok", "", 0},
		"accepted, was paused":   {"paused", notifications.Outcome{Kind: notifications.Accepted}, "ok", "", 2},
		"accepted, was failing":  {"failing", notifications.Outcome{Kind: notifications.Accepted}, "ok", "", 2},
		"wrong":                  {"ok", notifications.Outcome{Kind: notifications.ConfigBad, Explanation: "Refused " + key + "."}, "paused", "Refused ….", 0},
		"wrong, no word":         {"ok", notifications.Outcome{Kind: notifications.ConfigBad}, "paused", "The provider refuses its configuration.", 0},
		"undecided":              {"ok", notifications.Outcome{}, "paused", "The provider refuses its configuration.", 0},
		"down":                   {"ok", notifications.Outcome{Kind: notifications.Retry, Explanation: "No answer."}, "failing", "No answer.", 0},
		"down, stays paused":     {"paused", notifications.Outcome{Kind: notifications.Retry, Explanation: "No answer."}, "paused", "Before.", 0},
		"a novel of a complaint": {"ok", notifications.Outcome{Kind: notifications.ConfigBad, Explanation: strings.Repeat("ä", 5000)}, "paused", "Ä" + strings.Repeat("ä", 1499) + "…", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			fields := map[string]any{"config": host("one"), "secret": key, "state": tt.before}
			if tt.before == "paused" {
				fields["stateReason"] = "Before."
			}
			rec := r.row(t, fields)
			r.servers.answer("one", tt.answer)
			require.NoError(t, r.CheckNow(t.Context(), rec.Id))
			stored := r.app.Reload(rec)
			require.Equal(t, tt.state, stored.GetString("state"))
			require.Equal(t, tt.reason, stored.GetString("stateReason"))
			n, err := jobsOfKind(r.app, "provider.resumed")
			require.NoError(t, err)
			require.Equal(t, tt.resumed, n)
			n, err = jobsOfKind(r.app, "provider.recheck")
			require.NoError(t, err)
			require.Equal(t, tt.state != "ok", n == 1)
			made, closed := r.servers.count()
			require.Equal(t, [2]int{1, 1}, [2]int{made, closed}, "the check's own adapter")
		})
	}
}

func TestCheckOfWhatCannotBeTried(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for name, tt := range map[string]struct {
		fields        map[string]any
		state, reason string
	}{
		"a factory that refuses": {map[string]any{"config": host("unmakeable"), "secret": "s3cret-word"}, "paused", "The key … cannot be used."},
		"a channel to come":      {map[string]any{"channel": "fcm"}, "paused", "cannot send on the channel fcm"},
		"another key":            {map[string]any{"config": host("one"), "state": "ok"}, "failing", "GROUNDWORK_KEY"},
		"environment elsewhere":  {map[string]any{"source": "environment"}, "paused", "SMTP_…: change them and restart."},
		"settings are off":       {map[string]any{"source": "settings"}, "paused", "Change it in Settings > Mail settings."},
	} {
		rec := r.row(t, tt.fields)
		if name == "another key" {
			rec.Set("secret", "sealed:"+base64.RawStdEncoding.EncodeToString([]byte("sealed with another key, or broken by somebody")))
			r.save(t, rec)
		}
		require.NoError(t, r.CheckNow(t.Context(), rec.Id), name)
		stored := r.app.Reload(rec)
		require.Equal(t, tt.state, stored.GetString("state"), name)
		require.Contains(t, stored.GetString("stateReason"), tt.reason, name)
	}
}

func TestCheckCutOffByShutdownSaysNothing(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("one"), "state": "ok"})
	ctx, cancel := context.WithCancel(t.Context())
	r.servers.onCheck = func(string) { cancel() }
	r.servers.answer("one", notifications.Outcome{Kind: notifications.Retry, Explanation: "Cancelled."})
	require.ErrorIs(t, r.CheckNow(ctx, rec.Id), context.Canceled)
	require.Equal(t, "ok", r.app.Reload(rec).GetString("state"))
}

func TestCheckSurvivesAPanic(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("one"), "secret": "s3cret-word"})
	r.servers.onCheck = func(string) { panic("with s3cret-word inside") }
	require.NoError(t, r.CheckNow(t.Context(), rec.Id))
	require.Equal(t, "failing", r.app.Reload(rec).GetString("state"))
	require.Contains(t, r.log.String(), "panicked")
	require.NotContains(t, r.log.String(), "s3cret-word")
}

func TestTwoProcessesOnOneFolder(t *testing.T) {
	t.Parallel()
	one := newRegistry(t)
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: one.app.DataDir()})
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { _ = app.ClearBootstrap() })
	servers := newServers()
	two := notifications.NewProviders(notifications.ProvidersOptions{App: app, Box: testBox(t), Factories: map[notifications.ProviderChannel]notifications.ProviderFactory{
		notifications.ProviderEmailTransactional: servers.factory}})
	t.Cleanup(two.Close)

	rec := one.row(t, map[string]any{"config": host("one"), "secret": "s3cret-word"})
	active, err := two.Active(app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
	require.NoError(t, one.Pause(one.app, rec.Id, "Wrong password."))
	var paused *notifications.PausedError
	_, err = two.Active(app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.ErrorAs(t, err, &paused)
	require.ErrorAs(t, active.Gate.Acquire(t.Context()), &paused)

	rec = one.app.Reload(rec)
	rec.Set("state", "ok")
	rec.Set("config", host("two"))
	one.save(t, rec)
	_, err = two.Active(app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
	require.Equal(t, "two", servers.last().Config["host"])
}

func TestActiveConcurrently(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	rec := r.row(t, map[string]any{"config": host("0")})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				active, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
				if err != nil {
					panic(err)
				}
				if active.Gate.Acquire(t.Context()) == nil {
					active.Adapter.(notifications.Provider).Send(t.Context(), nil)
					active.Gate.Release(notifications.Outcome{Kind: notifications.Accepted})
				}
			}
		})
	}
	for i := range 10 {
		rec.Set("config", host(fmt.Sprint(i)))
		r.save(t, rec)
	}
	wg.Wait()
	active, err := r.Active(r.app, notifications.Route{Channel: notifications.ProviderEmailTransactional})
	require.NoError(t, err)
	require.NoError(t, active.Gate.Acquire(t.Context()))
	active.Gate.Release(notifications.Outcome{})
	r.Close()
	made, closed := r.servers.count()
	require.Equal(t, made, closed, "every adapter was closed")
}
