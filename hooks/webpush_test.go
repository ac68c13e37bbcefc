package hooks_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/seal"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// browsing is an app whose people have browsers that subscribed at a double.
type browsing struct {
	*pushing
	service *providertest.WebPush
	key     string
}

func newBrowsing(t *testing.T, opts ...pbtest.Option) *browsing {
	t.Helper()
	service := providertest.NewWebPush(t, providertest.WebPushOptions{})
	b := &browsing{service: service, pushing: newPushing(t, append([]pbtest.Option{pbtest.WithConfig(func(c *hooks.Config) {
		c.WebPushSubject, c.WebPushPrivateHosts = "mailto:hello@example.com", []string{service.Addr()}
	})}, opts...)...)}
	res := b.Send(http.MethodGet, "/api/notifications/webpush-key", nil, "")
	require.Equal(t, http.StatusOK, res.Status, res.String())
	b.key = res.JSON(t)["publicKey"].(string)
	until(t, b.App, b.webPushRow(), "state", "ok") // a check of the start that came later would end a pause
	return b
}

// subscribe registers a browser for somebody with the request of the stock SDK.
func (b *browsing) subscribe(user *core.Record) (*providertest.WebPushSubscription, *core.Record) {
	b.t.Helper()
	browser, err := b.service.Subscribe(b.key)
	require.NoError(b.t, err)
	res := b.Send(http.MethodPost, "/api/collections/devices/records", map[string]any{"platform": "web", "token": browser.JSON()}, b.Token(user))
	require.Equal(b.t, http.StatusOK, res.Status, res.String())
	device, err := b.FindRecordById(notifications.CollectionDevices, res.JSON(b.t)["id"].(string))
	require.NoError(b.t, err)
	return browser, device
}

// send sends a notification and waits until it is over or paused.
func (b *browsing) send(fields map[string]any) map[string]any {
	b.t.Helper()
	body := map[string]any{"title": "Hi {{ user.name }}", "channels": []string{"push"}, "audience": "everyone", "action": "send"}
	for k, v := range fields {
		body[k] = v
	}
	id := b.ask(http.MethodPost, "/api/collections/notifications/records", body)["id"].(string)
	return b.await(id)
}

func (b *browsing) await(id string) map[string]any {
	b.t.Helper()
	// Not by requests: there are only so many in ten seconds.
	require.True(b.t, waitFor(func() bool {
		status := must(b.FindRecordById(notifications.CollectionNotifications, id)).GetString("status")
		return status != "queued" && status != "sending"
	}))
	return b.ask(http.MethodGet, "/api/collections/notifications/records/"+id, nil)
}

// deliveries of a notification, as a superuser sees them.
func (b *browsing) deliveries(id string) []map[string]any {
	b.t.Helper()
	var page struct{ Items []map[string]any }
	res := b.Send(http.MethodGet, "/api/collections/notification_deliveries/records?perPage=500&filter=notification='"+id+"'", nil, b.root)
	require.Equal(b.t, http.StatusOK, res.Status, res.String())
	require.NoError(b.t, json.Unmarshal(res.Body, &page))
	return page.Items
}

func TestWebPushFromTheRecordToTheBrowser(t *testing.T) {
	t.Parallel()
	b := newBrowsing(t)
	ana := b.User("ana@example.com", map[string]any{"name": "Ana"})
	browser, device := b.subscribe(ana)

	n := b.send(map[string]any{"body": "Your order {{ user.name }} is ready.", "link": "https://example.com/orders/1", "image": "https://example.com/a.png",
		"data": map[string]any{"order": "1001", "items": 2}, "options": map[string]any{"badge": 3, "ttl": 600}, "confirmRecipients": 1})
	require.Equal(t, "sent", n["status"], n["statusReason"])
	got := b.service.Messages(browser)
	require.Len(t, got, 1)
	require.JSONEq(t, `{"title":"Hi Ana","body":"Your order Ana is ready.","image":"https://example.com/a.png","link":"https://example.com/orders/1",
		"data":{"order":"1001","items":2},"badge":3,"notification":"`+n["id"].(string)+`","tag":"`+n["id"].(string)+`","openToken":"`+openToken(t, got[0].Payload)+`"}`, string(got[0].Payload))
	require.Equal(t, "mailto:hello@example.com", got[0].Subject)
	require.Equal(t, []any{"high", n["id"]}, []any{got[0].Urgency, got[0].Topic})
	require.InDelta(t, 600, got[0].TTL, 120)
	require.Empty(t, b.service.Violations())

	rows := b.deliveries(n["id"].(string))
	require.Len(t, rows, 1)
	require.Equal(t, []any{"accepted", device.Id, "envwebpush00000"}, []any{rows[0]["status"], rows[0]["device"], rows[0]["provider"]})
}

// others registers browsers of n more people.
func (b *browsing) others(n int) (browsers []*providertest.WebPushSubscription, devices []*core.Record) {
	b.t.Helper()
	for i := range n {
		browser, device := b.subscribe(b.User(mailAddress(i), map[string]any{"name": "P"}))
		browsers, devices = append(browsers, browser), append(devices, device)
	}
	return browsers, devices
}

func (b *browsing) webPushRow() *core.Record {
	b.t.Helper()
	r, err := b.FindRecordById(notifications.CollectionProviders, notifications.EnvironmentProviderID(notifications.ProviderWebPush))
	require.NoError(b.t, err)
	return r
}

func TestWebPushKeyIsForEverybody(t *testing.T) {
	t.Parallel()
	b := newBrowsing(t)
	ana, bo := b.User("ana@example.com"), b.User("bo@example.com")
	b.subscribe(ana)
	for who, token := range map[string]string{"guest": "", "another": b.Token(bo), "owner": b.Token(ana), "superuser": b.root, "broken": "x.y.z"} {
		res := b.Send(http.MethodGet, "/api/notifications/webpush-key", nil, token)
		require.Equal(t, http.StatusOK, res.Status, who)
		require.Equal(t, map[string]any{"publicKey": b.key}, res.JSON(t), who)
		require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed}, b.Send(method, "/api/notifications/webpush-key", "{}", b.root).Status)
	}

	// The owner switches it off, and on again.
	path := "/api/collections/notification_providers/records/" + b.webPushRow().Id
	b.ask(http.MethodPatch, path, map[string]any{"enabled": false})
	res := b.Send(http.MethodGet, "/api/notifications/webpush-key", nil, "")
	require.Equal(t, http.StatusNotFound, res.Status)
	require.Equal(t, "Web Push is switched off on this server.", res.JSON(t)["message"])
	n := b.send(map[string]any{"audience": "users", "users": []string{ana.Id}})
	require.Equal(t, "failed", n["status"])
	rows := b.deliveries(n["id"].(string))
	require.Equal(t, []any{"no_provider", "Web Push is switched off: switch its provider on in notification_providers."}, []any{rows[0]["reason"], rows[0]["explanation"]})
	b.ask(http.MethodPatch, path, map[string]any{"enabled": true})
	require.Equal(t, b.key, b.Send(http.MethodGet, "/api/notifications/webpush-key", nil, "").JSON(t)["publicKey"])
}

func TestWebPushRowIsTheServers(t *testing.T) {
	t.Parallel()
	b := newBrowsing(t)
	row := b.webPushRow()
	path := "/api/collections/notification_providers/records/" + row.Id
	before := b.ask(http.MethodGet, path, nil)
	require.Equal(t, []any{"Web Push (built in)", "webpush", "environment", ""}, []any{before["name"], before["channel"], before["source"], before["secret"]})
	require.Equal(t, map[string]any{"subject": "mailto:hello@example.com", "publicKey": b.key}, before["config"])
	require.Empty(t, row.GetString("secret"), "the key is sealed elsewhere")

	for who, status := range map[string]int{"": http.StatusBadRequest, b.Token(b.User("ana@example.com")): http.StatusBadRequest} {
		require.GreaterOrEqual(t, b.Send(http.MethodGet, path, nil, who).Status, status)
	}
	after := b.ask(http.MethodPatch, path, map[string]any{"name": "mine", "secret": "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94", "config": map[string]any{"subject": "x"}})
	require.Equal(t, []any{before["name"], before["config"], ""}, []any{after["name"], after["config"], after["secret"]})
	res := b.Send(http.MethodDelete, path, nil, b.root)
	require.Equal(t, http.StatusBadRequest, res.Status)
	require.Contains(t, res.JSON(t)["message"], "browsers have subscribed with its keys: switch it off here")
	require.Equal(t, b.key, b.Send(http.MethodGet, "/api/notifications/webpush-key", nil, "").JSON(t)["publicKey"])

	// Whoever comes from another server brings the keys along.
	b.ask(http.MethodPatch, path, map[string]any{"enabled": false})
	own := b.provider("webpush", map[string]any{"subject": "mailto:hello@example.com"}, "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94", "")
	require.Equal(t, "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
		b.Send(http.MethodGet, "/api/notifications/webpush-key", nil, "").JSON(t)["publicKey"])
	res = b.Send(http.MethodPatch, "/api/collections/notification_providers/records/"+own.Id, map[string]any{"config": map[string]any{"privateKey": "x", "token": "y"}}, b.root)
	require.Equal(t, http.StatusBadRequest, res.Status)
	require.Contains(t, res.String(), "Known are subject, publicKey")
}

func TestWebPushKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	box := func(key string) notifications.SecretBox {
		b, err := seal.New([]byte(strings.Repeat(key, 32)))
		require.NoError(t, err)
		return b
	}
	var all, asked sync.WaitGroup
	keys := make([]string, 20)
	asked.Add(len(keys)) // each has found none when the first one is stored
	for i := range keys {
		all.Go(func() {
			var err error
			keys[i], err = notifications.WebPushKey(app, box("k"), func() (string, error) {
				asked.Done()
				asked.Wait()
				return fmt.Sprintf("key %d", i), nil
			})
			require.NoError(t, err)
		})
	}
	all.Wait()
	for _, key := range keys {
		require.NotEmpty(t, key)
		require.Equal(t, keys[0], key)
	}
	var stored []byte
	require.NoError(t, app.DB().Select("box").From("groundwork_sealed").Where(dbx.HashExp{"id": "webpush-vapid"}).Row(&stored))
	require.NotContains(t, string(stored), keys[0])

	never := func() (string, error) { t.Error("another key was made"); return "", nil }
	key, err := notifications.WebPushKey(app, box("x"), never)
	require.NoError(t, err)
	require.Empty(t, key, "it was sealed with another key of the installation")
	key, err = notifications.WebPushKey(app, box("k"), never)
	require.NoError(t, err)
	require.Equal(t, keys[0], key)
}

func TestWebPushSubject(t *testing.T) {
	t.Parallel()
	b := newBrowsing(t, pbtest.WithConfig(func(c *hooks.Config) { c.WebPushSubject = "" }))
	subject := func() any {
		var config map[string]any
		require.NoError(t, json.Unmarshal([]byte(b.webPushRow().GetString("config")), &config))
		return config["subject"]
	}
	require.Equal(t, "mailto:support@example.com", subject())
	for _, row := range []struct{ sender, url, want string }{
		{"support@example.com", "https://shop.example.com/", "https://shop.example.com"},
		{"support@example.com", "http://shop.example.com", "mailto:support@example.com"},
		{"hello@example.org", "https://shop.example.com", "mailto:hello@example.org"},
	} {
		b.ask(http.MethodPatch, "/api/settings", map[string]any{"meta": map[string]any{"senderAddress": row.sender, "appURL": row.url, "senderName": "Shop", "appName": "Shop"}})
		require.Equal(t, row.want, subject())
	}
	browser, _ := b.subscribe(b.User("ana@example.com", map[string]any{"name": "Ana"}))
	n := b.send(map[string]any{"confirmRecipients": 1})
	require.Equal(t, "sent", n["status"], n["statusReason"])
	require.Equal(t, "mailto:hello@example.org", b.service.Messages(browser)[0].Subject)
}

func TestWebPushOutsideProduction(t *testing.T) {
	t.Parallel()
	b := newBrowsing(t, pbtest.WithConfig(func(c *hooks.Config) {
		c.Env, c.SendOnlyTo = hooks.EnvStaging, []string{"Ana@example.com", "dev:token"}
	}))
	ana, _ := b.subscribe(b.User("ana@example.com", map[string]any{"name": "Ana"}))
	second, _ := b.subscribe(b.User("bo@example.com", map[string]any{"name": "Bo"}))
	// A text that needs the whole record is read another way.
	for _, title := range []string{"Hi {{ user.name }}", "Hi {{ user.name }}{% for x in user.emailVisibility %}{% endfor %}"} {
		n := b.send(map[string]any{"title": title, "confirmRecipients": 2})
		require.Equal(t, "sent", n["status"], n["statusReason"])
		statuses := map[any]int{}
		for _, row := range b.deliveries(n["id"].(string)) {
			statuses[row["status"]]++
			if row["status"] == "captured" {
				require.Contains(t, row["explanation"], "put the person's e-mail address into SEND_ONLY_TO")
				require.Equal(t, "Hi Bo", row["rendered"].(map[string]any)["title"])
			}
		}
		require.Equal(t, map[any]int{"accepted": 1, "captured": 1}, statuses)
	}
	require.Equal(t, []int{2, 0}, []int{b.service.Received(ana), b.service.Received(second)})
}

func TestWebPushRetiresWhatIsGone(t *testing.T) {
	t.Parallel()
	b := newBrowsing(t)
	browsers, devices := b.others(4)
	b.service.Script(browsers[0], providertest.WebPushScript{Fault: providertest.WebPushGone})
	b.service.Script(browsers[1], providertest.WebPushScript{Fault: providertest.WebPushNotFound})
	b.service.Script(browsers[2], providertest.WebPushScript{Fault: providertest.WebPushOtherKey})
	n := b.send(map[string]any{"confirmRecipients": 4})
	require.Equal(t, "sent_with_failures", n["status"], n["statusReason"])
	for i, want := range []string{"gone", "gone", "gone", "active"} {
		require.Equal(t, want, b.Reload(devices[i]).GetString("status"), i)
	}
	require.Contains(t, b.Reload(devices[2]).GetString("statusReason"), "other Web Push keys")
	require.Equal(t, "ok", b.webPushRow().GetString("state"))

	// The page of the first one registers again at its next start.
	b.service.Script(browsers[0])
	owner, err := b.FindRecordById("users", devices[0].GetString("user"))
	require.NoError(t, err)
	res := b.Send(http.MethodPost, "/api/collections/devices/records", map[string]any{"platform": "web", "token": browsers[0].JSON()}, b.Token(owner))
	require.Equal(t, http.StatusOK, res.Status, res.String())
	require.Equal(t, []any{devices[0].Id, "active"}, []any{res.JSON(t)["id"], res.JSON(t)["status"]})
	n = b.send(map[string]any{"audience": "users", "users": []string{owner.Id}})
	require.Equal(t, "sent", n["status"])
	require.Len(t, b.service.Messages(browsers[0]), 1)
}

// A server that cannot sign, or that has other keys than the browsers know, is
// paused; it blames nobody, and once it is right everybody is served, once.
func TestWrongWebPushBlamesNobody(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		fault providertest.WebPushFault
		says  string
	}{
		"signature refused":                     {providertest.WebPushBadToken, "refuses this server's signature: set WEBPUSH_SUBJECT"},
		"signature refused in Apple's words":    {providertest.WebPushBadTokenOf400, "refuses this server's signature"},
		"signature refused in Mozilla's words":  {providertest.WebPushUnauthorized, "refuses this server's signature"},
		"subscriptions of other keys":           {providertest.WebPushOtherKey, "subscribed with other Web Push keys"},
		"refused in words that nobody knows":    {providertest.WebPushForbidden, "No device was removed"},
		"a captive portal answers for everyone": {providertest.WebPushRedirect, "What answers at this device's push address is not a push service"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBrowsing(t)
			browsers, _ := b.others(5)
			before := b.devices()
			b.service.All(providertest.WebPushScript{Fault: row.fault})
			n := b.send(map[string]any{"confirmRecipients": 5})
			require.Equal(t, "paused", n["status"])
			require.Contains(t, n["statusReason"], row.says)
			require.Equal(t, before, b.devices(), "no device was touched")
			provider := b.webPushRow()
			require.Equal(t, []string{"paused", n["statusReason"].(string)}, []string{provider.GetString("state"), provider.GetString("stateReason")})
			for _, d := range b.deliveries(n["id"].(string)) {
				require.Equal(t, "pending", d["status"])
			}

			b.service.All(providertest.WebPushScript{})
			b.ask(http.MethodPatch, "/api/collections/notification_providers/records/"+provider.Id, map[string]any{"action": "resume"})
			until(t, b.App, must(b.FindRecordById(notifications.CollectionNotifications, n["id"].(string))), "status", "sent")
			for _, browser := range browsers {
				require.Len(t, b.service.Messages(browser), 1)
			}
			require.Equal(t, before, b.devices())
		})
	}
}

// Whoever is signed in can name a server of their own. Whatever it answers, or
// does not, the others get their messages.
func TestOneBadPushServerConcernsNobodyElse(t *testing.T) {
	t.Parallel()
	bad := providertest.NewWebPush(t, providertest.WebPushOptions{})
	shut := providertest.NewWebPush(t, providertest.WebPushOptions{})
	expired := providertest.NewWebPush(t, providertest.WebPushOptions{Cert: providertest.CertExpired})
	require.NoError(t, shut.Down())
	b := newBrowsing(t, pbtest.WithConfig(func(c *hooks.Config) {
		c.WebPushPrivateHosts = append(c.WebPushPrivateHosts, shut.Addr(), expired.Addr(), bad.Addr())
		c.Retry = notifications.RetryPolicy{Base: time.Hour}
	}))
	mallory := b.User("mallory@example.com", map[string]any{"name": "M"})
	add := func(service *providertest.WebPush, script providertest.WebPushScript) {
		sub, err := service.Subscribe(b.key)
		require.NoError(t, err)
		service.Script(sub, script)
		b.Record(notifications.CollectionDevices, map[string]any{"user": mallory.Id, "platform": "web", "token": sub.JSON()})
	}
	for range 6 {
		add(shut, providertest.WebPushScript{})
		add(expired, providertest.WebPushScript{})
		add(bad, providertest.WebPushScript{Fault: providertest.WebPushUnavailable, RetryAfter: "86400"})
		add(bad, providertest.WebPushScript{Fault: providertest.WebPushForbidden})
		add(bad, providertest.WebPushScript{Fault: providertest.WebPushTooMany, RetryAfter: "86400"})
	}
	browsers, devices := b.others(30)
	id := b.ask(http.MethodPost, "/api/collections/notifications/records", map[string]any{"title": "Hi", "channels": []string{"push"}, "audience": "everyone",
		"confirmRecipients": 31, "action": "send"})["id"].(string)
	require.Eventually(t, func() bool {
		for _, browser := range browsers {
			if len(b.service.Messages(browser)) == 0 {
				return false
			}
		}
		return true
	}, 2*time.Minute, 10*time.Millisecond, "everybody else is served")
	until(t, b.App, must(b.FindRecordById(notifications.CollectionNotifications, id)), "sent", "30")
	for _, device := range devices {
		require.Equal(t, "active", b.Reload(device).GetString("status"))
	}
	require.NotEqual(t, "paused", b.webPushRow().GetString("state"), b.webPushRow().GetString("stateReason"))
}

func TestWebPushTooLongIsSaidInWords(t *testing.T) {
	t.Parallel()
	b := newBrowsing(t)
	b.others(1)
	n := b.send(map[string]any{"confirmRecipients": 1, "body": strings.Repeat("x", 4000)})
	require.Equal(t, "failed", n["status"])
	rows := b.deliveries(n["id"].(string))
	require.Equal(t, "payload_refused", rows[0]["reason"])
	require.Regexp(t, `^The message cannot be sent: it has 40\d\d bytes, and browsers get 3993 \(4,096 with their encryption\): shorten the text or the data\.$`, rows[0]["explanation"])
	require.Zero(t, b.service.Total())
}

// What is no browser's subscription, or leads into the house, is refused whoever
// registers it and by which way.
func TestWebPushDevicesThatAreRefused(t *testing.T) {
	t.Parallel()
	b := newBrowsing(t)
	ana, bo := b.User("ana@example.com"), b.User("bo@example.com")
	good := subscription(t, "https://push.example.com/x")
	keys := good["keys"].(map[string]any)
	with := func(endpoint, p256dh, auth any) map[string]any {
		return map[string]any{"endpoint": endpoint, "keys": map[string]any{"p256dh": p256dh, "auth": auth}}
	}
	for name, row := range map[string]struct {
		token map[string]any
		says  string // empty: it is taken
	}{
		"a good one":         {good, ""},
		"the listed host":    {with(b.service.Origin()+"/push/x", keys["p256dh"], keys["auth"]), ""},
		"http":               {with("http://push.example.com/x", keys["p256dh"], keys["auth"]), "is not an https address"},
		"loopback":           {with("https://127.0.0.1/x", keys["p256dh"], keys["auth"]), "leads into a private network"},
		"another port":       {with("https://127.0.0.1:1/x", keys["p256dh"], keys["auth"]), "leads into a private network"},
		"loopback of IPv6":   {with("https://[::1]/x", keys["p256dh"], keys["auth"]), "leads into a private network"},
		"metadata":           {with("https://169.254.169.254/latest", keys["p256dh"], keys["auth"]), "leads into a private network"},
		"carrier":            {with("https://100.64.0.1/x", keys["p256dh"], keys["auth"]), "leads into a private network"},
		"local name":         {with("https://localhost/x", keys["p256dh"], keys["auth"]), "leads into a private network"},
		"internal name":      {with("https://metadata.google.internal/x", keys["p256dh"], keys["auth"]), "leads into a private network"},
		"one word":           {with("https://intranet/x", keys["p256dh"], keys["auth"]), "leads into a private network"},
		"dot at the end":     {with("https://push.example.com./x", keys["p256dh"], keys["auth"]), "leads into a private network"},
		"key of nothing":     {with("https://push.example.com/1", "", keys["auth"]), "p256dh"},
		"key not on curve":   {with("https://push.example.com/2", "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", keys["auth"]), "p256dh"},
		"key of a number":    {with("https://push.example.com/3", 5, keys["auth"]), "is not a browser's push subscription"},
		"secret too short":   {with("https://push.example.com/4", keys["p256dh"], "AAAA"), "does not have 16 bytes"},
		"secret of nonsense": {with("https://push.example.com/5", keys["p256dh"], "?"), "does not have 16 bytes"},
		"no keys":            {map[string]any{"endpoint": "https://push.example.com/6"}, "p256dh"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for who, token := range map[string]string{"owner": b.Token(ana), "another": b.Token(bo), "superuser": b.root} {
				body := map[string]any{"platform": "web", "token": row.token, "user": ana.Id}
				res := b.Send(http.MethodPost, devicesPath, body, token)
				if row.says == "" {
					require.Equal(t, http.StatusOK, res.Status, "%s: %s", who, res)
					continue
				}
				require.Equal(t, http.StatusBadRequest, res.Status, "%s: %s", who, res)
				require.Contains(t, res.String(), row.says, who)
			}
			require.NotEqual(t, http.StatusOK, b.Send(http.MethodPost, devicesPath, map[string]any{"platform": "web", "token": row.token, "user": ana.Id}, "").Status, "guest")

			devices, err := b.FindCollectionByNameOrId(notifications.CollectionDevices)
			require.NoError(t, err)
			r := core.NewRecord(devices)
			r.Load(map[string]any{"platform": "web", "user": ana.Id, "token": asJSON(t, row.token)})
			if row.says == "" {
				return // it is there already
			}
			require.ErrorContains(t, b.Save(r), row.says, "Go code")
		})
	}
}

// A device that was stored before a host was taken off the list can be changed and
// deleted.
func TestAStoredBrowserIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBrowsing(t)
	ana := b.User("ana@example.com")
	_, device := b.subscribe(ana)
	_, err := b.DB().Update("devices", dbx.Params{"token": strings.Replace(device.GetString("token"), b.service.Addr(), "10.0.0.9", 1)}, dbx.HashExp{"id": device.Id}).Execute()
	require.NoError(t, err)
	res := b.Send(http.MethodPatch, devicesPath+"/"+device.Id, map[string]any{"locale": "de"}, b.Token(ana))
	require.Equal(t, http.StatusOK, res.Status, res.String())
	n := b.send(map[string]any{"confirmRecipients": 1, "title": "Hi"})
	require.Equal(t, "failed", n["status"])
	require.Contains(t, b.deliveries(n["id"].(string))[0]["explanation"], "WEBPUSH_PRIVATE_HOSTS")
	require.Equal(t, http.StatusNoContent, b.Send(http.MethodDelete, devicesPath+"/"+device.Id, nil, b.Token(ana)).Status)
}

// openToken is that of a payload.
func openToken(t *testing.T, payload []byte) string {
	t.Helper()
	var p struct{ OpenToken string }
	require.NoError(t, json.Unmarshal(payload, &p))
	require.NotEmpty(t, p.OpenToken)
	return p.OpenToken
}
