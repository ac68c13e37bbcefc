package hooks_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

const mailSecret = "a-secret-that-nobody-guesses-0123456789"

// bouncing is an app in production that hears what became of its mails.
type bouncing struct {
	*pbtest.App
	t    *testing.T
	smtp *providertest.SMTP
	ana  *core.Record
}

func newBouncing(t *testing.T) *bouncing {
	t.Helper()
	x := &bouncing{t: t}
	x.App, x.smtp = newMailing(t, pbtest.WithConfig(func(c *hooks.Config) { c.EmailWebhookSecret = mailSecret }))
	x.ana = x.User("Ana@Example.com")
	return x
}

// mail sends one to Ana and returns its delivery.
func (x *bouncing) mail(category string) *core.Record {
	x.t.Helper()
	n := until(x.t, x.App, send(x.t, x.App, map[string]any{"category": category}), "status", "sent")
	row := must(x.FindFirstRecordByData(notifications.CollectionDeliveries, "notification", n.Id))
	require.Equal(x.t, "accepted", row.GetString("status"), row.GetString("explanation"))
	return row
}

func (x *bouncing) call(body string, headers map[string]string) *httptest.ResponseRecorder {
	x.t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/api/webhooks/email", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	rec := httptest.NewRecorder()
	x.Handler().ServeHTTP(rec, req)
	return rec
}

// tell sends events as a provider that cannot sign, and returns how many were new.
func (x *bouncing) tell(events ...map[string]any) int {
	x.t.Helper()
	body, err := json.Marshal(map[string]any{"events": events})
	require.NoError(x.t, err)
	rec := x.call(string(body), map[string]string{"Authorization": "Bearer " + mailSecret})
	require.Equal(x.t, http.StatusOK, rec.Code, rec.Body.String())
	var answer struct{ Events, Applied int }
	require.NoError(x.t, json.Unmarshal(rec.Body.Bytes(), &answer))
	require.Equal(x.t, len(events), answer.Events)
	return answer.Applied
}

func (x *bouncing) suppressions() []string {
	x.t.Helper()
	rows, err := x.FindRecordsByFilter(notifications.CollectionSuppressions, "", "created", 0, 0)
	require.NoError(x.t, err)
	list := []string{}
	for _, r := range rows {
		list = append(list, r.GetString("channel")+" "+r.GetString("address")+" "+r.GetString("kind")+" "+r.GetString("reason"))
	}
	return list
}

func sign(secret, body string, at time.Time) string {
	h := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(h, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(h.Sum(nil)))
}

func TestEmailWebhookWhoMayCall(t *testing.T) {
	t.Parallel()
	x := newBouncing(t)
	const body = `{"events":[{"type":"delivered","address":"nobody@example.com"}]}`
	root := must(x.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com"))
	now := time.Now()
	for name, tc := range map[string]struct {
		body    string
		headers map[string]string
		status  int
		says    string
	}{
		"a guest":                 {body, nil, 403, "Sign the request"},
		"the owner":               {body, map[string]string{"Authorization": x.Token(x.ana)}, 403, "Sign the request"},
		"a superuser":             {body, map[string]string{"Authorization": x.Token(root)}, 403, "Sign the request"},
		"a superuser as a bearer": {body, map[string]string{"Authorization": "Bearer " + x.Token(root)}, 403, "secret"},
		"the secret":              {body, map[string]string{"Authorization": "Bearer " + mailSecret}, 200, `"applied":0`},
		"another secret":          {body, map[string]string{"Authorization": "Bearer " + mailSecret + "x"}, 403, "secret"},
		"signed":                  {body, map[string]string{"X-Groundwork-Signature": sign(mailSecret, body, now)}, 200, `"events":1`},
		"signed otherwise":        {body, map[string]string{"X-Groundwork-Signature": sign("x", body, now), "Authorization": "Bearer " + mailSecret}, 403, "not right"},
		"signed and changed":      {strings.Replace(body, "nobody", "somebody", 1), map[string]string{"X-Groundwork-Signature": sign(mailSecret, body, now)}, 403, "not right"},
		"signed long ago":         {body, map[string]string{"X-Groundwork-Signature": sign(mailSecret, body, now.Add(-6*time.Minute))}, 403, "five minutes"},
		"signed in the future":    {body, map[string]string{"X-Groundwork-Signature": sign(mailSecret, body, now.Add(6*time.Minute))}, 403, "five minutes"},
		"no signature":            {body, map[string]string{"X-Groundwork-Signature": "abc"}, 403, "cannot be read"},
		"no JSON":                 {"x", map[string]string{"Authorization": "Bearer " + mailSecret}, 400, "not the JSON"},
		"a date that is none":     {`{"events":[{"type":"bounce","at":"yesterday"}]}`, map[string]string{"Authorization": "Bearer " + mailSecret}, 400, "not the JSON"},
		"nothing":                 {"{}", map[string]string{"Authorization": "Bearer " + mailSecret}, 400, "no event"},
		"too much":                {strings.Repeat(" ", 1<<20+1), map[string]string{"Authorization": "Bearer " + mailSecret}, 413, ""},
		"too many":                {`{"events":[` + strings.Repeat(`{},`, 1000) + `{}]}`, map[string]string{"Authorization": "Bearer " + mailSecret}, 400, "1000 events"},
		"what is not known":       {`{"events":[{"type":"open","address":"ana@example.com"},{}]}`, map[string]string{"Authorization": "Bearer " + mailSecret}, 200, `"applied":0`},
	} {
		rec := x.call(tc.body, tc.headers)
		require.Equal(t, tc.status, rec.Code, "%s: %s", name, rec.Body.String())
		require.Contains(t, rec.Body.String(), tc.says, name)
	}
	require.Empty(t, x.suppressions())

	closed := &bouncing{App: pbtest.NewApp(t), t: t}
	rec := closed.call(body, map[string]string{"Authorization": "Bearer "})
	require.Equal(t, http.StatusForbidden, rec.Code)
	require.Contains(t, rec.Body.String(), "EMAIL_WEBHOOK_SECRET")
	require.Equal(t, http.StatusForbidden, closed.call(body, map[string]string{"X-Groundwork-Signature": sign("", body, now)}).Code)
}

// Whatever the order in which events come, and however often, a delivery ends the
// same.
func TestMailEventsInAnyOrder(t *testing.T) {
	t.Parallel()
	x := newBouncing(t)
	delivered := map[string]any{"type": "delivered"}
	soft := map[string]any{"type": "bounce", "reason": "452 mailbox full"}
	hard := map[string]any{"type": "bounce", "permanent": true, "reason": "550 5.1.1 <ana@example.com>: no such user"}
	complaint := map[string]any{"type": "complaint"}
	for name, tc := range map[string]struct {
		events []map[string]any
		ends   string
		says   string
	}{
		"delivered":            {[]map[string]any{delivered, delivered}, "delivered ", ""},
		"came back":            {[]map[string]any{hard, hard}, "failed bounced", "550 5.1.1 …: no such user"},
		"taken, came back":     {[]map[string]any{delivered, hard}, "failed bounced", "came back"},
		"the other way round":  {[]map[string]any{hard, delivered}, "failed bounced", "came back"},
		"for the time being":   {[]map[string]any{soft}, "failed undelivered", "452 mailbox full"},
		"and then it did":      {[]map[string]any{soft, delivered}, "delivered ", ""},
		"the other way":        {[]map[string]any{delivered, soft}, "delivered ", ""},
		"not, and never":       {[]map[string]any{soft, hard, soft}, "failed bounced", "came back"},
		"reported":             {[]map[string]any{delivered, complaint}, "delivered complained", "unwanted"},
		"the news came before": {[]map[string]any{complaint, delivered, hard, soft}, "delivered complained", "unwanted"},
	} {
		rows, err := x.FindAllRecords(notifications.CollectionSuppressions)
		require.NoError(t, err)
		for _, r := range rows {
			require.NoError(t, x.Delete(r))
		}
		row := x.mail("")
		for i, event := range tc.events {
			body := map[string]any{"at": time.Now().UTC().Format(time.RFC3339)}
			for k, v := range event {
				body[k] = v
			}
			if i%2 == 0 {
				body["messageId"] = "<" + row.Id + "@example.com>"
			} else {
				body["delivery"] = row.Id
			}
			x.tell(body)
			require.Zero(t, x.tell(body), "%s: twice is once", name)
		}
		row = x.Reload(row)
		require.Equal(t, tc.ends, row.GetString("status")+" "+row.GetString("reason"), name)
		require.Contains(t, row.GetString("explanation"), tc.says, name)
		require.NotContains(t, row.GetString("explanation"), "ana@", name)
		require.Equal(t, strings.HasPrefix(tc.ends, "delivered"), !row.GetDateTime("deliveredAt").IsZero(), name)
		n := until(t, x.App, must(x.FindRecordById(notifications.CollectionNotifications, row.GetString("notification"))), "total", "1")
		want := "sent"
		if strings.HasPrefix(tc.ends, "failed") {
			want = "failed"
		}
		require.True(t, waitFor(func() bool { return x.Reload(n).GetInt(want) == 1 }), "%s: the counts follow", name)
	}
}

func TestWhatMailEventsSuppress(t *testing.T) {
	t.Parallel()
	x := newBouncing(t)
	sendAll := func() map[string]string {
		t.Helper()
		got := map[string]string{}
		for kind, category := range map[string]string{"transactional": "", "promotional": promotional} {
			n := send(t, x.App, map[string]any{"category": category})
			require.True(t, waitFor(func() bool { return !x.Reload(n).GetDateTime("finishedAt").IsZero() }))
			all, _ := ends(t, x.App, n)
			got[kind] = all[x.ana.Id]
		}
		return got
	}
	row := x.mail(promotional)
	require.Equal(t, 1, x.tell(map[string]any{"type": "complaint", "delivery": row.Id, "address": "ana@example.com"}))
	require.Equal(t, []string{"email ana@example.com promotional complaint"}, x.suppressions())
	require.Equal(t, []string{"- complaint, server"}, consents(t, x.App, "email"))
	require.Equal(t, map[string]string{"transactional": "accepted ", "promotional": "skipped suppressed"}, sendAll())

	// A removed suppression does not come back with a repetition.
	for _, r := range must(x.FindAllRecords(notifications.CollectionSuppressions)) {
		require.NoError(t, x.Delete(r))
	}
	require.Zero(t, x.tell(map[string]any{"type": "complaint", "delivery": row.Id, "address": "ana@example.com"}))
	require.Empty(t, x.suppressions())

	// What bounces for a while, or is none of ours, suppresses nothing.
	row = x.mail("")
	x.tell(map[string]any{"type": "bounce", "delivery": row.Id},
		map[string]any{"type": "bounce", "permanent": true, "address": "stranger@example.com"},
		map[string]any{"type": "bounce", "permanent": true, "address": "stranger@example.com", "messageId": "<other@elsewhere.example>"},
		map[string]any{"type": "bounce", "permanent": true, "address": "copy@elsewhere.example", "delivery": x.mail("").Id},
		map[string]any{"type": "complaint", "address": "no address"})
	require.Empty(t, x.suppressions())

	// Only the address is known.
	require.Equal(t, 1, x.tell(map[string]any{"type": "bounce", "permanent": true, "address": "Ana@Example.com"}))
	require.Equal(t, []string{"email ana@example.com  bounce"}, x.suppressions())
	require.Equal(t, map[string]string{"transactional": "skipped suppressed", "promotional": "skipped suppressed"}, sendAll())

	// A new address is not the one that mail came back from.
	for _, r := range must(x.FindAllRecords(notifications.CollectionSuppressions)) {
		require.NoError(t, x.Delete(r))
	}
	row = x.mail("")
	x.ana.SetEmail("new@example.com")
	require.NoError(t, x.Save(x.ana))
	x.tell(map[string]any{"type": "bounce", "permanent": true, "delivery": row.Id})
	require.Equal(t, "failed", x.Reload(row).GetString("status"))
	require.Empty(t, x.suppressions())
}

// What is said about a try that failed does not decide about the next one.
func TestMailEventsOfAnEarlierTry(t *testing.T) {
	t.Parallel()
	x := newBouncing(t)
	row := x.mail("")
	old := map[string]any{"type": "bounce", "delivery": row.Id, "at": time.Now().UTC().Format(time.RFC3339)}
	require.Equal(t, 1, x.tell(old))
	n := must(x.FindRecordById(notifications.CollectionNotifications, row.GetString("notification")))
	until(t, x.App, n, "status", "failed")
	root := must(x.FindAuthRecordByEmail(core.CollectionNameSuperusers, "root@example.com"))
	res := x.Send(http.MethodPost, "/api/notifications/"+n.Id+"/retry", nil, x.Token(root))
	require.Equal(t, http.StatusOK, res.Status, res.String())
	until(t, x.App, n, "status", "sent")
	require.Zero(t, x.tell(old), "a repetition")
	old["at"] = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	require.Zero(t, x.tell(old), "it happened before this try")
	require.Equal(t, "accepted", x.Reload(row).GetString("status"))
	require.Equal(t, 1, x.tell(map[string]any{"type": "delivered", "delivery": row.Id}))
	require.Equal(t, "delivered", x.Reload(row).GetString("status"))
}
