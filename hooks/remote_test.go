package hooks_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// mailFromEnvironment is a mail server that variables set up.
func mailFromEnvironment(smtp *providertest.SMTP, username, password string) notifications.ProviderConfig {
	config := smtp.Config("hello@example.com")
	config["username"] = username
	return notifications.ProviderConfig{Name: "SMTP (environment)", Channel: notifications.ProviderEmailTransactional, Source: notifications.SourceEnvironment,
		Config: config, Secret: password, SenderID: "hello@example.com"}
}

// logLines is a log that a test reads while it is written.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startWorker runs a worker until the test ends or stop is called, which returns how
// long it took to stop.
func startWorker(t *testing.T, cfg hooks.WorkerConfig) (stop func() time.Duration, log *logLines) {
	t.Helper()
	log = &logLines{}
	cfg.LogOutput = log
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- hooks.RunWorker(ctx, cfg) }()
	var once sync.Once
	var took time.Duration
	stop = func() time.Duration {
		once.Do(func() {
			began := time.Now()
			cancel()
			require.NoError(t, <-done)
			took = time.Since(began)
		})
		return took
	}
	t.Cleanup(func() { stop() })
	return stop, log
}

func environmentMail(t *testing.T, app core.App) *core.Record {
	t.Helper()
	r, err := app.FindRecordById(notifications.CollectionProviders, notifications.EnvironmentProviderID(notifications.ProviderEmailTransactional))
	require.NoError(t, err)
	return r
}

// TestWorkersSendAndNobodyElse is a server with --no-workers: without a worker it says
// what to start; with one all mails go out by it, once.
func TestWorkersSendAndNobodyElse(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	provider := mailFromEnvironment(smtp, "", "")
	app := pbtest.NewApp(t, pbtest.WithConfig(production), pbtest.WithConfig(func(c *hooks.Config) {
		c.JobsDatabaseURL, c.NoWorkers, c.Providers = database, true, []notifications.ProviderConfig{provider}
	}))
	app.Handler()
	for i := range 30 {
		app.User(fmt.Sprintf("p%d@example.com", i))
	}
	n := send(t, app, nil)
	row := until(t, app, environmentMail(t, app), "state", "failing")
	require.Contains(t, row.GetString("stateReason"), `start "groundwork worker" with JOBS_DATABASE_URL and the same variables SMTP_…`)
	require.Zero(t, smtp.Total())

	stop, log := startWorker(t, hooks.WorkerConfig{DatabaseURL: database, Host: "w1", Providers: []notifications.ProviderConfig{provider}})
	n = until(t, app, n, "status", "sent")
	require.Equal(t, map[string]int{"accepted": 30}, deliveryStatuses(t, app, n))
	require.Equal(t, 30, smtp.Total())
	until(t, app, row, "state", "ok")
	require.Less(t, stop(), 15*time.Second)
	require.Contains(t, log.String(), `"host":"w1"`)
	require.NotContains(t, log.String(), "@example.com", "a worker's log names nobody")
	for _, line := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		require.True(t, strings.HasPrefix(line, "{"), line)
	}
}

// TestServerSendsItselfWithoutWorkers, and what only it may send.
func TestServerSendsItselfWithoutWorkers(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	app := pbtest.NewApp(t, pbtest.WithConfig(production), pbtest.WithConfig(func(c *hooks.Config) {
		c.JobsDatabaseURL, c.Providers = pgtest.Database(t), []notifications.ProviderConfig{mailFromEnvironment(smtp, "", "")}
	}))
	app.Handler()
	app.User("ana@example.com")
	n := until(t, app, send(t, app, nil), "status", "sent")
	require.Equal(t, map[string]int{"accepted": 1}, deliveryStatuses(t, app, n))
	require.Equal(t, 1, smtp.Total())
}

// TestAccountMailsLeaveFromTheServer also with --no-workers and no worker at all.
func TestAccountMailsLeaveFromTheServer(t *testing.T) {
	t.Parallel()
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{})
	app := pbtest.NewApp(t, pbtest.WithConfig(production), pbtest.WithConfig(func(c *hooks.Config) {
		c.JobsDatabaseURL, c.NoWorkers, c.Providers = pgtest.Database(t), true, []notifications.ProviderConfig{mailFromEnvironment(smtp, "", "")}
	}))
	app.Handler()
	app.User("ana@example.com")
	res := app.Send(http.MethodPost, "/api/collections/users/request-password-reset", map[string]any{"email": "ana@example.com"}, "")
	require.Equal(t, http.StatusNoContent, res.Status, res.String())
	require.Eventually(t, func() bool { return smtp.Total() == 1 }, patience, 10*time.Millisecond)
}

// TestWrongPasswordAtAWorkerPausesTheProvider and says at which.
func TestWrongPasswordAtAWorkerPausesTheProvider(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	smtp := providertest.NewSMTP(t, providertest.SMTPOptions{Username: "shop", Password: "the right one", AuthInPlain: true})
	app := pbtest.NewApp(t, pbtest.WithConfig(production), pbtest.WithConfig(func(c *hooks.Config) {
		c.JobsDatabaseURL, c.NoWorkers, c.Providers = database, true, []notifications.ProviderConfig{mailFromEnvironment(smtp, "shop", "the right one")}
	}))
	app.Handler()
	app.User("ana@example.com")
	_, log := startWorker(t, hooks.WorkerConfig{DatabaseURL: database, Host: "w1", Providers: []notifications.ProviderConfig{mailFromEnvironment(smtp, "shop", "the wrong one")}})
	n := send(t, app, nil)
	row := until(t, app, environmentMail(t, app), "state", "paused")
	require.Contains(t, row.GetString("stateReason"), "At the worker on w1: ")
	until(t, app, n, "status", "paused")
	require.Equal(t, map[string]int{"pending": 1}, deliveryStatuses(t, app, n))
	require.Zero(t, smtp.Total())
	require.NotContains(t, log.String(), "the wrong one")
}

// TestWorkerWithAnotherProviderTakesNothing.
func TestWorkerWithAnotherProviderTakesNothing(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	smtp, other := providertest.NewSMTP(t, providertest.SMTPOptions{}), providertest.NewSMTP(t, providertest.SMTPOptions{})
	app := pbtest.NewApp(t, pbtest.WithConfig(production), pbtest.WithConfig(func(c *hooks.Config) {
		c.JobsDatabaseURL, c.NoWorkers, c.Providers = database, true, []notifications.ProviderConfig{mailFromEnvironment(smtp, "", "")}
	}))
	app.Handler()
	app.User("ana@example.com")
	startWorker(t, hooks.WorkerConfig{DatabaseURL: database, Host: "w9", Providers: []notifications.ProviderConfig{mailFromEnvironment(other, "", "")}})
	send(t, app, nil)
	require.Eventually(t, func() bool {
		return strings.Contains(environmentMail(t, app).GetString("stateReason"), "The one on w9 has other values in SMTP_…")
	}, patience, 20*time.Millisecond)
	require.Zero(t, smtp.Total()+other.Total())
}

func TestWorkerRefusesToStart(t *testing.T) {
	t.Parallel()
	smtp := []notifications.ProviderConfig{{Name: "SMTP (environment)", Channel: notifications.ProviderEmailTransactional, Config: map[string]any{"host": "smtp.example.com"}, SenderID: "hello@example.com"}}
	for name, tt := range map[string]struct {
		cfg  hooks.WorkerConfig
		says string
	}{
		"without a database":     {hooks.WorkerConfig{Providers: smtp}, "JOBS_DATABASE_URL is missing"},
		"without a provider":     {hooks.WorkerConfig{DatabaseURL: "postgres://127.0.0.1:1/none"}, "no provider"},
		"with a broken provider": {hooks.WorkerConfig{DatabaseURL: "postgres://127.0.0.1:1/none", Providers: []notifications.ProviderConfig{{Name: "SMTP (environment)", Channel: notifications.ProviderEmailTransactional}}}, "SMTP (environment): the mail server's name (host) is missing"},
		"for codes":              {hooks.WorkerConfig{DatabaseURL: "postgres://127.0.0.1:1/none", Providers: smtp, Queues: []string{"critical"}}, "codes and sign-in mails always leave from the server itself"},
		"for another queue":      {hooks.WorkerConfig{DatabaseURL: "postgres://127.0.0.1:1/none", Providers: smtp, Queues: []string{"blk"}}, `the queue "blk" has no messages for a worker: use bulk,default`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.cfg.LogOutput = &logLines{}
			require.ErrorContains(t, hooks.RunWorker(context.Background(), tt.cfg), tt.says)
		})
	}
}

func TestNoWorkersNeedsPostgres(t *testing.T) {
	t.Parallel()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	require.ErrorContains(t, hooks.Register(app, hooks.Config{NoWorkers: true}), "--no-workers needs JOBS_DATABASE_URL")
}
