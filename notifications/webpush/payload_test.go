package webpush_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
	"github.com/groundworkhq/groundwork/notifications/webpush"
)

// TestWhatTheBrowserGets sends each message to the double and reads it there as
// the browser would.
func TestWhatTheBrowserGets(t *testing.T) {
	t.Parallel()
	three := 3
	for name, row := range map[string]struct {
		change  func(m *notifications.Message)
		payload string
		urgency string
		topic   string
		ttl     int
	}{
		"usual": {func(*notifications.Message) {}, `{"title":"hello","body":"Your order is ready.","notification":"notification001","tag":"order-1"}`, "high", "order-1", 2419200},
		"whole": {func(m *notifications.Message) {
			m.Image, m.Link, m.Data = "https://example.com/a.png", "https://example.com/?a=1&b=<2>", map[string]any{"order": "1001", "items": 2, "deep": map[string]any{"a": []any{1.5, nil}}}
			m.Push.Badge, m.Push.Sound = &three, "none"
		}, `{"title":"hello","body":"Your order is ready.","image":"https://example.com/a.png","link":"https://example.com/?a=1&b=<2>","notification":"notification001",
			"tag":"order-1","data":{"order":"1001","items":2,"deep":{"a":[1.5,null]}},"badge":3,"sound":"none"}`, "high", "order-1", 2419200},
		"with the token of its opening": {func(m *notifications.Message) { m.OpenToken = "id.token" },
			`{"title":"hello","body":"Your order is ready.","notification":"notification001","tag":"order-1","openToken":"id.token"}`, "high", "order-1", 2419200},
		"no push": {func(m *notifications.Message) { m.Push, m.Title, m.NotificationID = nil, "", "" }, `{"body":"Your order is ready."}`, "high", "", 2419200},
		"silent": {func(m *notifications.Message) {
			m.Push.Silent = true
		}, `{"title":"hello","body":"Your order is ready.","notification":"notification001","tag":"order-1","silent":true}`, "normal", "order-1", 2419200},
		"silent and urgent": {func(m *notifications.Message) {
			m.Push.Silent, m.Push.Priority = true, "high"
		}, `{"title":"hello","body":"Your order is ready.","notification":"notification001","tag":"order-1","silent":true}`, "high", "order-1", 2419200},
		"normal": {func(m *notifications.Message) {
			m.Push.Priority = "normal"
		}, `{"title":"hello","body":"Your order is ready.","notification":"notification001","tag":"order-1"}`, "normal", "order-1", 2419200},
		"expires": {func(m *notifications.Message) {
			m.Push.Expires = theMoment.Add(90 * time.Second)
		}, `{"title":"hello","body":"Your order is ready.","notification":"notification001","tag":"order-1"}`, "high", "order-1", 90},
		"expired": {func(m *notifications.Message) {
			m.Push.Expires = theMoment.Add(-time.Hour)
		}, `{"title":"hello","body":"Your order is ready.","notification":"notification001","tag":"order-1"}`, "high", "order-1", 0},
		"expires in a year": {func(m *notifications.Message) {
			m.Push.Expires = theMoment.AddDate(1, 0, 0)
		}, `{"title":"hello","body":"Your order is ready.","notification":"notification001","tag":"order-1"}`, "high", "order-1", 2419200},
		"long collapse id": {func(m *notifications.Message) {
			m.Push.CollapseID = "orders of Ana, 1001"
		}, `{"title":"hello","body":"Your order is ready.","notification":"notification001","tag":"orders of Ana, 1001"}`, "high", webpush.TopicOf("orders of Ana, 1001"), 2419200},
		"option": {func(m *notifications.Message) {
			m.Data = map[string]any{"order": "1001", "big": 9007199254740993}
			m.Push.WebPush = map[string]any{"urgency": "very-low", "body": nil, "title": "Hi", "data": map[string]any{"shop": "north", "order": nil},
				"actions": []any{map[string]any{"action": "open", "title": "Open"}}}
		}, `{"title":"Hi","notification":"notification001","tag":"order-1","data":{"big":9007199254740993,"shop":"north"},"actions":[{"action":"open","title":"Open"}]}`, "very-low", "order-1", 2419200},
		"not UTF-8": {func(m *notifications.Message) { m.Title = "a\xff\u0000b" }, `{"title":"a�\u0000b","body":"Your order is ready.","notification":"notification001","tag":"order-1"}`, "high", "order-1", 2419200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newPeer(t, providertest.WebPushOptions{})
			webpush.SetClock(x.Provider, func() time.Time { return theMoment })
			m := message(x.browser(1).JSON(), "hello")
			row.change(m)
			o := x.Send(t.Context(), m)
			require.Equal(t, notifications.Accepted, o.Kind, o.Explanation)
			require.NotEmpty(t, o.ProviderMessageID)
			require.Empty(t, x.service.Violations())
			got := x.service.Messages(x.browser(1))
			require.Len(t, got, 1)
			require.JSONEq(t, row.payload, string(got[0].Payload))
			require.NotContains(t, string(got[0].Payload), `\u003c`)
			require.Equal(t, []any{row.urgency, row.topic, row.ttl, "mailto:hello@example.com"}, []any{got[0].Urgency, got[0].Topic, got[0].TTL, got[0].Subject})
		})
	}
}

// theMoment is what the adapter's clock says in a test; tokens go by the real one.
var theMoment = time.Date(2031, 5, 4, 10, 0, 0, 0, time.UTC)

// The options belong to all recipients: a message must not change them.
func TestOptionsAreNotWrittenInto(t *testing.T) {
	t.Parallel()
	x := newPeer(t, providertest.WebPushOptions{})
	option := map[string]any{"urgency": "low", "data": map[string]any{"shop": "north"}}
	data := map[string]any{"order": "1001"}
	for n := range 3 {
		m := message(x.browser(n).JSON(), "hello")
		m.Data, m.Push.WebPush = data, option
		require.Equal(t, notifications.Accepted, x.Send(t.Context(), m).Kind)
	}
	require.Equal(t, map[string]any{"urgency": "low", "data": map[string]any{"shop": "north"}}, option)
	require.Equal(t, map[string]any{"order": "1001"}, data)
}

// A message of each length up to the longest one arrives, padded to one of a few
// sizes; a longer one is refused in words before it is sent.
func TestLengths(t *testing.T) {
	t.Parallel()
	x := newPeer(t, providertest.WebPushOptions{})
	b := x.browser(1)
	m := message(b.JSON(), "")
	m.Body = ""
	require.Equal(t, notifications.Accepted, x.Send(t.Context(), m).Kind)
	empty := len(x.service.Messages(b)[0].Payload) + len(`,"body":""`)
	seen := map[int]bool{}
	for _, length := range []int{0, 1, 700, 1024 - 103, 1024 - 102, 2048 - 103, 2048 - 102, 3052 - 103, 3052 - 102, webpush.MaxPayload - 1, webpush.MaxPayload} {
		if length <= empty {
			continue
		}
		m.Body = strings.Repeat("x", length-empty)
		require.Equal(t, notifications.Accepted, x.Send(t.Context(), m).Kind, length)
		all := x.service.Messages(b)
		last := all[len(all)-1]
		require.Len(t, last.Payload, length)
		require.GreaterOrEqual(t, last.Length, length+103)
		seen[last.Length] = true
	}
	require.Equal(t, map[int]bool{1024: true, 2048: true, 3052: true, 4096: true}, seen)

	// The token of its opening is left out where there is no room for it.
	m.OpenToken = "id.token"
	require.Equal(t, notifications.Accepted, x.Send(t.Context(), m).Kind)
	require.NotContains(t, string(x.service.Messages(b)[len(x.service.Messages(b))-1].Payload), "openToken")
	m.Body = strings.Repeat("x", webpush.MaxPayload-empty+1)
	o := x.Send(t.Context(), m)
	require.Equal(t, notifications.PayloadBad, o.Kind)
	require.Equal(t, "The message cannot be sent: it has 3994 bytes, and browsers get 3993 (4,096 with their encryption): shorten the text or the data.", o.Explanation)
	require.Empty(t, x.service.Violations())
}

func TestRefusedBeforeItIsSent(t *testing.T) {
	t.Parallel()
	x := newPeer(t, providertest.WebPushOptions{})
	good := x.browser(1).JSON()
	for name, row := range map[string]struct {
		change func(m *notifications.Message)
		kind   notifications.OutcomeKind
		says   string
	}{
		"urgency":         {func(m *notifications.Message) { m.Push.WebPush = map[string]any{"urgency": "now"} }, notifications.PayloadBad, `"now" is not an urgency: use one of high, low, normal, very-low`},
		"urgency no text": {func(m *notifications.Message) { m.Push.WebPush = map[string]any{"urgency": 1} }, notifications.PayloadBad, "is not an urgency"},
		"data":            {func(m *notifications.Message) { m.Data = map[string]any{"a": math.NaN()} }, notifications.PayloadBad, "its data cannot be written as JSON"},
		"option":          {func(m *notifications.Message) { m.Push.WebPush = map[string]any{"a": math.Inf(1)} }, notifications.PayloadBad, "the webpush option cannot be written"},
		"no token":        {func(m *notifications.Message) { m.Target.Address = "" }, notifications.TargetGone, "is not a browser's push subscription"},
		"another's token": {func(m *notifications.Message) { m.Target.Address = "dev:APA91b" }, notifications.TargetGone, "is not a browser's push subscription"},
		"http":            {func(m *notifications.Message) { m.Target.Address = strings.Replace(good, "https:", "http:", 1) }, notifications.TargetGone, "is not a browser's push subscription"},
		"broken key": {func(m *notifications.Message) {
			m.Target.Address = strings.Replace(good, `"p256dh":"B`, `"p256dh":"Q`, 1)
		}, notifications.TargetGone, "is not a browser's push subscription"},
		"key not on curve": {func(m *notifications.Message) {
			m.Target.Address = good[:strings.Index(good, `"p256dh":"`)+40] + "AAAA" + good[strings.Index(good, `"p256dh":"`)+44:]
		}, notifications.TargetGone, "is not a browser's push subscription"},
		"key not in base64": {func(m *notifications.Message) {
			m.Target.Address = strings.Replace(good, `"p256dh":"B`, `"p256dh":"*`, 1)
		}, notifications.TargetGone, "is not a browser's push subscription"},
		"private": {func(m *notifications.Message) {
			m.Target.Address = strings.Replace(good, x.service.Addr(), "127.0.0.1:1", 1)
		}, notifications.TargetGone,
			"leads into a private network"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := message(good, "hello")
			row.change(m)
			o := x.Send(t.Context(), m)
			require.Equal(t, row.kind, o.Kind, o.Explanation)
			require.Contains(t, o.Explanation, row.says)
		})
	}
	t.Cleanup(func() { require.Zero(t, x.service.Total()) })
}

func TestTopic(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"": "", "order-1_A": "order-1_A", strings.Repeat("a", 32): strings.Repeat("a", 32)} {
		require.Equal(t, want, webpush.TopicOf(given))
	}
	seen := map[string]string{}
	for _, given := range []string{strings.Repeat("a", 33), "a b", "ä", "a.b", "a:b", strings.Repeat("x", 64), "\x00"} {
		got := webpush.TopicOf(given)
		require.Regexp(t, `^[A-Za-z0-9_-]{32}$`, got)
		require.Equal(t, got, webpush.TopicOf(given))
		require.Empty(t, seen[got])
		seen[got] = given
	}
}
