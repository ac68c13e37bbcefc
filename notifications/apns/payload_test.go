package apns_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/apns"
)

func TestPayload(t *testing.T) {
	t.Parallel()
	badge := 0
	cases := []struct {
		name string
		m    notifications.Message
		want string
	}{
		{"alert", notifications.Message{Title: "Hi", Body: "there"}, `{"aps":{"alert":{"title":"Hi","body":"there"},"sound":"default"}}`},
		{"with the token of its opening", notifications.Message{Title: "Hi", OpenToken: "id.token", Data: map[string]any{"openToken": "no"}},
			`{"aps":{"alert":{"title":"Hi"},"sound":"default"},"openToken":"id.token"}`},
		{"only a body", notifications.Message{Body: "there"}, `{"aps":{"alert":{"body":"there"},"sound":"default"}}`},
		{"a badge of zero takes it away", notifications.Message{Title: "Hi", Push: &notifications.Push{Badge: &badge, Sound: "none"}},
			`{"aps":{"alert":{"title":"Hi"},"badge":0}}`},
		{"a sound of the app", notifications.Message{Title: "Hi", Push: &notifications.Push{Sound: "ding.caf"}}, `{"aps":{"alert":{"title":"Hi"},"sound":"ding.caf"}}`},
		{"silent", notifications.Message{Title: "Hi", Push: &notifications.Push{Silent: true, Badge: &badge}, Data: map[string]any{"k": true}},
			`{"aps":{"content-available":1},"k":true}`},
		{"image, link and data", notifications.Message{Title: "Hi", Image: "https://example.com/a.png", Link: "https://example.com/?a=1&b=<2>",
			Data: map[string]any{"order": 12.0, "half": 0.5, "tags": []any{"a"}, "aps": "no", "image": "no", "nothing": nil}},
			`{"aps":{"alert":{"title":"Hi"},"sound":"default","mutable-content":1},"half":0.5,"nothing":null,"order":12,"tags":["a"],` +
				`"image":"https://example.com/a.png","link":"https://example.com/?a=1&b=<2>"}`},
		{"data may be called image when there is none", notifications.Message{Title: "Hi", Data: map[string]any{"image": "x"}},
			`{"aps":{"alert":{"title":"Hi"},"sound":"default"},"image":"x"}`},
		{"strange characters", notifications.Message{Title: "a\x00\"\xff\u2028", Body: "<&>"},
			`{"aps":{"alert":{"title":"a\u0000\"` + "\uFFFD\u2028" + `","body":"<&>"},"sound":"default"}}`},
		{"the option is laid over", notifications.Message{Title: "Hi", Data: map[string]any{"big": 12345678901234567.0}, Push: &notifications.Push{APNs: map[string]any{
			"aps": map[string]any{"thread-id": "orders", "sound": nil, "alert": map[string]any{"subtitle": "<Sub>"}}, "extra": 1, "pushType": "alert"}}},
			`{"aps":{"alert":{"subtitle":"<Sub>","title":"Hi"},"thread-id":"orders"},"big":12345678901234568,"extra":1}`},
		{"the option's text in place of ours", notifications.Message{Title: "Hi", Push: &notifications.Push{APNs: map[string]any{"aps": map[string]any{"alert": "short"}}}},
			`{"aps":{"alert":"short","sound":"default"}}`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.m.Target.Address = token(1)
			got, err := apns.Request(&tc.m, bundle)
			require.NoError(t, err)
			require.Equal(t, tc.want, got.Payload)
		})
	}
}

func TestTheOptionIsNotChanged(t *testing.T) {
	t.Parallel()
	option := map[string]any{"pushType": "alert", "aps": map[string]any{"alert": map[string]any{"subtitle": "x"}}}
	m := &notifications.Message{Title: "Hi", Target: notifications.Target{Address: token(1)}, Push: &notifications.Push{APNs: option}}
	for range 2 {
		_, err := apns.Request(m, bundle)
		require.NoError(t, err)
	}
	require.Equal(t, map[string]any{"pushType": "alert", "aps": map[string]any{"alert": map[string]any{"subtitle": "x"}}}, option)
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	at := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	cases := []struct {
		name string
		m    notifications.Message
		want apns.Sent
	}{
		{"alert", notifications.Message{}, apns.Sent{Topic: bundle, PushType: "alert", Priority: "10", OwnTopic: true}},
		{"normal", notifications.Message{Push: &notifications.Push{Priority: "normal", CollapseID: "c", Expires: at}},
			apns.Sent{Topic: bundle, PushType: "alert", Priority: "5", CollapseID: "c", Expiration: "1927857906", OwnTopic: true}},
		{"silent is never urgent", notifications.Message{Push: &notifications.Push{Priority: "high", Silent: true}},
			apns.Sent{Topic: bundle, PushType: "background", Priority: "5", OwnTopic: true}},
		{"an expiry before all time", notifications.Message{Push: &notifications.Push{Expires: time.Unix(-5, 0)}},
			apns.Sent{Topic: bundle, PushType: "alert", Priority: "10", Expiration: "0", OwnTopic: true}},
		{"the device's app", notifications.Message{Target: notifications.Target{Device: &notifications.Device{App: "com.example.other"}}},
			apns.Sent{Topic: "com.example.other", PushType: "alert", Priority: "10"}},
		{"the device's app is ours", notifications.Message{Target: notifications.Target{Device: &notifications.Device{App: bundle}}},
			apns.Sent{Topic: bundle, PushType: "alert", Priority: "10", OwnTopic: true}},
		{"another push type", notifications.Message{Push: &notifications.Push{APNs: map[string]any{"pushType": "liveactivity"}}},
			apns.Sent{Topic: bundle + ".push-type.liveactivity", PushType: "liveactivity", Priority: "10", OwnTopic: true}},
		{"background by option", notifications.Message{Push: &notifications.Push{APNs: map[string]any{"pushType": "background"}}},
			apns.Sent{Topic: bundle, PushType: "background", Priority: "5", OwnTopic: true}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.m.Target.Address = token(1)
			got, err := apns.Request(&tc.m, bundle)
			require.NoError(t, err)
			got.Payload = ""
			require.Equal(t, tc.want, got)
		})
	}
}

func TestTheIDIsTheDeliverys(t *testing.T) {
	t.Parallel()
	id := func(delivery string) string {
		got, err := apns.Request(&notifications.Message{DeliveryID: delivery, Target: notifications.Target{Address: token(1)}}, bundle)
		require.NoError(t, err)
		return got.ID
	}
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, id("a"))
	require.Equal(t, id("a"), id("a"))
	require.NotEqual(t, id("a"), id("b"))
}

func TestWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	// A text of exactly n bytes of payload.
	sized := func(n int) string {
		empty, err := apns.Request(&notifications.Message{Title: "x", Target: notifications.Target{Address: token(1)}}, bundle)
		require.NoError(t, err)
		return strings.Repeat("x", n-len(empty.Payload)+1)
	}
	fits, err := apns.Request(&notifications.Message{Title: sized(4096), Target: notifications.Target{Address: token(1)}}, bundle)
	require.NoError(t, err)
	require.Len(t, fits.Payload, 4096)

	target := notifications.Target{Address: token(1)}
	cases := []struct {
		name string
		m    notifications.Message
		want string
	}{
		{"too large", notifications.Message{Title: sized(4097), Target: target}, "4097 bytes"},
		{"too large for a call", notifications.Message{Title: sized(5121), Target: target, Push: &notifications.Push{APNs: map[string]any{"pushType": "voip"}}}, "5121 bytes"},
		{"collapse id", notifications.Message{Target: target, Push: &notifications.Push{CollapseID: strings.Repeat("c", 65)}}, "65 bytes"},
		{"line break", notifications.Message{Target: target, Push: &notifications.Push{CollapseID: "a\r\nb"}}, "characters"},
		{"push type", notifications.Message{Target: target, Push: &notifications.Push{APNs: map[string]any{"pushType": "mdm"}}}, `"mdm" is not a push type`},
		{"push type of another type", notifications.Message{Target: target, Push: &notifications.Push{APNs: map[string]any{"pushType": 7}}}, `"7" is not a push type`},
		{"aps", notifications.Message{Target: target, Push: &notifications.Push{APNs: map[string]any{"aps": "x"}}}, `"aps"`},
		{"data", notifications.Message{Target: target, Data: map[string]any{"f": func() {}}}, `"f"`},
		{"option", notifications.Message{Target: target, Push: &notifications.Push{APNs: map[string]any{"f": func() {}}}}, "apns option"},
		{"no token", notifications.Message{}, "not an Apple device token"},
		{"a path", notifications.Message{Target: notifications.Target{Address: "../../secret"}}, "not an Apple device token"},
		{"a long token", notifications.Message{Target: notifications.Target{Address: strings.Repeat("a", 201)}}, "not an Apple device token"},
		{"an app that is none", notifications.Message{Target: notifications.Target{Address: token(1), Device: &notifications.Device{App: "a b"}}}, "not a bundle id"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := apns.Request(&tc.m, bundle)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func FuzzPayload(f *testing.F) {
	f.Add("Hi", "there", "key", "value")
	f.Fuzz(func(t *testing.T, title, body, key, value string) {
		m := &notifications.Message{Title: title, Body: body, Data: map[string]any{key: value}, Target: notifications.Target{Address: token(1)},
			Push: &notifications.Push{APNs: map[string]any{value: map[string]any{key: title}}}}
		got, err := apns.Request(m, bundle)
		if err == nil {
			require.JSONEq(t, got.Payload, got.Payload) // it is JSON
			require.LessOrEqual(t, len(got.Payload), 4096)
		}
	})
}

// The token of its opening is left out where there is no room for it.
func TestNoRoomForTheToken(t *testing.T) {
	t.Parallel()
	m := &notifications.Message{Title: "Hi", Body: strings.Repeat("x", 4000), OpenToken: strings.Repeat("t", 47), Target: notifications.Target{Address: token(1)}}
	r, err := apns.Request(m, bundle)
	require.NoError(t, err)
	require.NotContains(t, string(r.Payload), "openToken")
	m.Body = "there"
	r, err = apns.Request(m, bundle)
	require.NoError(t, err)
	require.Contains(t, string(r.Payload), `"openToken":"ttt`)
}
