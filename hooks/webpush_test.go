package hooks_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/pbtest"
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
	var n map[string]any
	require.Eventually(b.t, func() bool {
		n = b.ask(http.MethodGet, "/api/collections/notifications/records/"+id, nil)
		return n["status"] != "queued" && n["status"] != "sending"
	}, 2*time.Minute, 10*time.Millisecond)
	return n
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
		"data":{"order":"1001","items":2},"badge":3,"notification":"`+n["id"].(string)+`","tag":"`+n["id"].(string)+`"}`, string(got[0].Payload))
	require.Equal(t, "mailto:hello@example.com", got[0].Subject)
	require.Equal(t, []any{"high", n["id"]}, []any{got[0].Urgency, got[0].Topic})
	require.InDelta(t, 600, got[0].TTL, 120)
	require.Empty(t, b.service.Violations())

	rows := b.deliveries(n["id"].(string))
	require.Len(t, rows, 1)
	require.Equal(t, []any{"accepted", device.Id, "envwebpush00000"}, []any{rows[0]["status"], rows[0]["device"], rows[0]["provider"]})
}
