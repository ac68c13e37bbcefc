package e2e

import (
	"database/sql"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/demo"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// TestShopByTheMouse fills a folder by "groundwork demo", lets an owner write the
// weekend's recommendations, a receipt and a reminder with the mouse, and lets
// buyers order with the stock SDK while the server is killed. The mails go to a mail
// server that counts them.
func TestShopByTheMouse(t *testing.T) {
	t.Parallel()
	needPeers(t)
	dir, address := t.TempDir(), freeAddress(t)
	data := filepath.Join(dir, "pb_data")
	command := func(env ...string) (string, error) {
		cmd := exec.Command(buildBinary(t), "demo", "--dir", data)
		cmd.Dir, cmd.Env = dir, append([]string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}, env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := command("APP_ENV=production", "GROUNDWORK_KEY="+strings.Repeat("k", 32))
	require.Error(t, err)
	require.Contains(t, out, "not for production")
	for _, says := range []string{"A small shop is in " + data, "nothing was changed"} {
		out, err = command()
		require.NoError(t, err, out)
		require.Contains(t, out, says)
		require.Contains(t, out, "ana@example.com")
	}

	mails := providertest.NewSMTP(t, providertest.SMTPOptions{Behaviour: providertest.Behaviour{All: providertest.Script{DotDelay: 100 * time.Millisecond}}})
	env, err := mails.Env("Shop <hello@example.com>")
	require.NoError(t, err)
	env = append(env, "SEND_ONLY_TO=ana@example.com,cleo@example.com,dan@example.com")
	server := startDevices(t, dir, address, env...)
	again := func() {
		server.kill()
		server = startDevices(t, dir, address, env...)
	}
	setupLink := regexp.MustCompile(`http://\S+pbinstall\S+`)
	require.Eventually(t, func() bool { return setupLink.MatchString(server.console.String()) }, patience, 20*time.Millisecond)

	shots := os.Getenv("E2E_SHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	browser := exec.Command("node", "shop.mjs", server.base, setupLink.FindString(server.console.String()), shots, demo.Password)
	browser.Env = append(os.Environ(), "TZ=UTC") // the dashboard says dates in the browser's zone
	said, err := browser.CombinedOutput()
	require.NoError(t, err, "%s\n%s", said, server.console.String())
	t.Logf("%s", said)

	// orders does something with the SDK and returns the ids of the orders.
	orders := func(part, order string) *exec.Cmd {
		return exec.Command("node", "orders.mjs", server.base, demo.Password, part, "owner@example.com", "a-long-password", order)
	}
	run := func(part, order string) []string {
		t.Helper()
		said, err := orders(part, order).CombinedOutput()
		require.NoError(t, err, "%s\n%s", said, server.console.String())
		return strings.Fields(string(said))
	}
	flood := run("flood", "")
	require.Len(t, flood, 30)
	capped := func() int { return strings.Count(server.console.String(), "trigger reached its cap for one person") }
	require.Eventually(t, func() bool { return capped() == 10 }, patience, 20*time.Millisecond, "twenty an hour")

	// It is killed while receipts are on their way; at which moment is left to chance.
	placed := &buffer{}
	placing := orders("place", "")
	placing.Stdout, placing.Stderr = placed, placed
	require.NoError(t, placing.Start())
	ended := make(chan error, 1)
	go func() { ended <- placing.Wait() }()
	for kills := range 3 {
		require.Eventually(t, func() bool { return len(strings.Fields(placed.String())) > 8*(kills+1) }, patience, 5*time.Millisecond)
		<-time.After(rand.N(200 * time.Millisecond))
		again()
	}
	require.NoError(t, <-ended, placed.String())
	ids := strings.Fields(placed.String())
	require.Len(t, ids, 36)

	soon := run("soon", "")
	run("ship", soon[1])
	for range 2 { // it looks at the dates when it starts
		again()
	}

	db := quiet(t, data)
	defer func() { require.NoError(t, db.Close()) }()
	// told are the texts in people's inboxes about one record.
	told := func(order string) (titles []string) {
		require.NoError(t, db.NewQuery("SELECT i.title FROM notification_inbox i JOIN notifications n ON n.id = i.notification WHERE n.sourceRecord = {:order} ORDER BY i.title").
			Bind(dbx.Params{"order": order}).Column(&titles))
		return titles
	}
	arrived := map[string]int{}
	subject := regexp.MustCompile(`(?m)^Subject: Order (\w{15})\r?$`)
	for _, m := range mails.Messages() {
		if found := subject.FindSubmatch(m.Raw); found != nil {
			arrived[string(found[1])]++
		}
	}
	unknown := 0
	for _, id := range ids {
		require.Equal(t, []string{"Order " + id}, told(id))
		var status []string
		require.NoError(t, db.NewQuery("SELECT d.status FROM notification_deliveries d JOIN notifications n ON n.id = d.notification WHERE n.sourceRecord = {:order} AND d.channel = 'email'").
			Bind(dbx.Params{"order": id}).Column(&status))
		require.Len(t, status, 1, id)
		if status[0] == "unknown" {
			unknown++
			require.LessOrEqual(t, arrived[id], 1, id)
			continue
		}
		require.Equal(t, "accepted", status[0], id)
		require.Equal(t, 1, arrived[id], id)
	}
	t.Logf("%d receipts arrived, %d unknown", len(arrived), unknown)

	receipts := 0
	for _, id := range flood {
		receipts += len(told(id))
	}
	require.Equal(t, 20, receipts, "a flood stops at the cap")

	require.Equal(t, []string{"Order " + soon[0], "We will be with you in an hour"}, told(soon[0]))
	require.Equal(t, []string{"Order " + soon[1], "Your order is on its way"}, told(soon[1]), "once, and nobody is reminded earlier")
	var shippedToAna int
	require.NoError(t, db.NewQuery("SELECT COUNT(*) FROM notification_inbox i JOIN users u ON u.id = i.user WHERE u.name = 'Ana' AND i.title = 'Your order is on its way'").Row(&shippedToAna))
	require.Equal(t, 1, shippedToAna, "with the mouse, on the transition")
}

// quiet waits until nothing is left to do and returns the database.
func quiet(t *testing.T, data string) *dbx.DB {
	t.Helper()
	db, err := core.DefaultDBConnect(filepath.Join(data, "data.db"))
	require.NoError(t, err)
	jobs, err := sql.Open("sqlite", "file:"+filepath.Join(data, "jobs.db")+"?mode=ro&_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	defer func() { require.NoError(t, jobs.Close()) }()
	looks := 0
	require.Eventually(t, func() bool {
		var outbox, running, open int
		require.NoError(t, db.NewQuery("SELECT COUNT(*) FROM groundwork_outbox WHERE runAt <= strftime('%Y-%m-%d %H:%M:%fZ', 'now')").Row(&outbox))
		require.NoError(t, jobs.QueryRow("SELECT COUNT(*) FROM river_job WHERE state IN ('available', 'running', 'retryable')").Scan(&running))
		require.NoError(t, db.NewQuery("SELECT COUNT(*) FROM notifications WHERE status IN ('queued', 'sending')").Row(&open))
		// What a job leaves to another one can be between two of the counts.
		if outbox+running+open > 0 {
			looks = 0
			return false
		}
		looks++
		return looks == 3
	}, patience, 50*time.Millisecond)
	return db
}
