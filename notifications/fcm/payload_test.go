package fcm_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	fcmapi "google.golang.org/api/fcm/v1"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/fcm"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

var now = time.Date(2030, 1, 31, 9, 0, 0, 0, time.UTC)

// body is the request as the SDK writes it, judged by Google's own types.
func body(t *testing.T, m *notifications.Message, packageName string) string {
	t.Helper()
	built, err := fcm.Payload(m, packageName, now)
	require.NoError(t, err)
	raw, err := json.Marshal(map[string]any{"message": built})
	require.NoError(t, err)
	_, err = providertest.ParseFCM(raw)
	require.NoError(t, err, "%s", raw)
	var only struct {
		Message json.RawMessage `json:"message"`
	}
	require.NoError(t, json.Unmarshal(raw, &only))
	return string(only.Message)
}

func push(platform string, p notifications.Push) *notifications.Message {
	return &notifications.Message{Channel: notifications.ChannelPush, Title: "Ready", Body: "Your order is ready.", Push: &p,
		Target: notifications.Target{Address: "token", Device: &notifications.Device{Platform: platform}}}
}

func with(m *notifications.Message, change func(*notifications.Message)) *notifications.Message {
	change(m)
	return m
}

func TestPayload(t *testing.T) {
	t.Parallel()
	three := 3
	for name, row := range map[string]struct {
		message     *notifications.Message
		packageName string
		want        string
	}{
		"android, nothing set": {push("android", notifications.Push{}), "", `{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},
			"android":{"priority":"high","notification":{"sound":"default"}}}`},
		"android, no push part": {with(push("android", notifications.Push{}), func(m *notifications.Message) { m.Push, m.Target.Device = nil, nil }), "",
			`{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},"android":{"priority":"high","notification":{"sound":"default"}}}`},
		"android, everything": {with(push("android", notifications.Push{CollapseID: "order-1", Expires: now.Add(time.Hour), Priority: "normal", Badge: &three, Sound: "bell"}), func(m *notifications.Message) {
			m.Image, m.Link = "https://example.com/a.png", "https://example.com/orders/1"
			m.Data = map[string]any{"order": "1", "total": 12.5, "paid": true, "items": []any{"a", 1}, "none": nil}
		}), "com.example.app", `{"token":"token","notification":{"title":"Ready","body":"Your order is ready.","image":"https://example.com/a.png"},
			"data":{"order":"1","total":"12.5","paid":"true","items":"[\"a\",1]","none":"null","link":"https://example.com/orders/1"},
			"android":{"collapse_key":"order-1","ttl":"3600s","priority":"normal","restricted_package_name":"com.example.app",
			"notification":{"sound":"bell","tag":"order-1","notification_count":3}}}`},
		"with the token of its opening": {with(push("android", notifications.Push{}), func(m *notifications.Message) {
			m.OpenToken, m.Data = "id.token", map[string]any{"openToken": "no"}
		}), "", `{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},"data":{"openToken":"id.token"},
			"android":{"priority":"high","notification":{"sound":"default"}}}`},
		"android, quiet": {push("android", notifications.Push{Sound: "none"}), "", `{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},
			"android":{"priority":"high","notification":{}}}`},
		"android, silent": {with(push("android", notifications.Push{Silent: true, CollapseID: "sync", Sound: "bell", Badge: &three}), func(m *notifications.Message) { m.Data = map[string]any{"sync": "orders"} }), "",
			`{"token":"token","data":{"sync":"orders"},"android":{"collapse_key":"sync","priority":"normal"}}`},
		"android, over already": {push("android", notifications.Push{Expires: now.Add(-time.Hour)}), "", `{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},
			"android":{"ttl":"0s","priority":"high","notification":{"sound":"default"}}}`},
		"android, for ever": {push("android", notifications.Push{Expires: now.AddDate(1, 0, 0), Silent: true}), "", `{"token":"token","android":{"ttl":"2419200s","priority":"normal"}}`},
		"android, part of a second": {push("android", notifications.Push{Expires: now.Add(1500 * time.Millisecond), Silent: true}), "",
			`{"token":"token","android":{"ttl":"1s","priority":"normal"}}`},
		"ios": {with(push("ios", notifications.Push{CollapseID: "order-1", Expires: now.Add(time.Hour), Badge: new(int)}), func(m *notifications.Message) {
			m.Image, m.Data = "https://example.com/a.png", map[string]any{"order": "1"}
		}), "", `{"token":"token","notification":{"title":"Ready","body":"Your order is ready.","image":"https://example.com/a.png"},"data":{"order":"1"},
			"apns":{"headers":{"apns-push-type":"alert","apns-priority":"10","apns-collapse-id":"order-1","apns-expiration":"1896084000"},
			"payload":{"aps":{"badge":0,"sound":"default","mutable-content":1}},"fcm_options":{"image":"https://example.com/a.png"}}}`},
		"ios, normal and quiet": {push("ios", notifications.Push{Priority: "normal", Sound: "none"}), "", `{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},
			"apns":{"headers":{"apns-push-type":"alert","apns-priority":"5"},"payload":{"aps":{}}}}`},
		"ios, silent": {push("ios", notifications.Push{Silent: true, Priority: "high", Badge: &three}), "",
			`{"token":"token","apns":{"headers":{"apns-push-type":"background","apns-priority":"5"},"payload":{"aps":{"content-available":1,"badge":3}}}}`},
		"web": {with(push("web", notifications.Push{CollapseID: "order-1", Expires: now.Add(time.Hour), Sound: "none"}), func(m *notifications.Message) { m.Link = "https://example.com/orders/1" }), "",
			`{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},"data":{"link":"https://example.com/orders/1"},
			"webpush":{"headers":{"Urgency":"high","TTL":"3600","Topic":"order-1"},"notification":{"tag":"order-1","silent":true},"fcm_options":{"link":"https://example.com/orders/1"}}}`},
		"web, link into an app, long collapse id": {with(push("web", notifications.Push{CollapseID: strings.Repeat("x", 33)}), func(m *notifications.Message) { m.Link = "shop://orders/1" }), "",
			`{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},"data":{"link":"shop://orders/1"},
			"webpush":{"headers":{"Urgency":"high"},"notification":{"tag":"` + strings.Repeat("x", 33) + `"}}}`},
		"a link of one's own in the data": {with(push("android", notifications.Push{Silent: true}), func(m *notifications.Message) {
			m.Link, m.Data = "https://example.com/a", map[string]any{"link": "shop://b"}
		}), "", `{"token":"token","data":{"link":"shop://b"},"android":{"priority":"normal"}}`},
		"options on top": {push("android", notifications.Push{CollapseID: "order-1", FCM: map[string]any{
			"android":      map[string]any{"notification": map[string]any{"channel_id": "orders", "clickAction": "OPEN", "tag": nil, "notification_count": 2.0}, "ttl": "3.5s"},
			"data":         map[string]any{"more": 1},
			"notification": map[string]any{"title": "Really ready"},
			"fcm_options":  map[string]any{"analyticsLabel": "orders"},
		}}), "", `{"token":"token","notification":{"title":"Really ready","body":"Your order is ready."},"data":{"more":"1"},"fcm_options":{"analytics_label":"orders"},
			"android":{"collapse_key":"order-1","ttl":"3.500000000s","priority":"high","notification":{"sound":"default","channel_id":"orders","click_action":"OPEN","notification_count":2}}}`},
		"options make a silent message visible": {push("android", notifications.Push{Silent: true, FCM: map[string]any{"notification": map[string]any{"body": "Look"}}}), "",
			`{"token":"token","notification":{"body":"Look"},"android":{"priority":"normal"}}`},
		"options for apple": {push("ios", notifications.Push{Sound: "bell", FCM: map[string]any{"apns": map[string]any{
			"headers": map[string]any{"apns-priority": "5"},
			"payload": map[string]any{"aps": map[string]any{"sound": map[string]any{"critical": 1, "name": "bell"}, "thread-id": "orders", "alert": map[string]any{"subtitle": "Shop", "body": nil}}, "own": map[string]any{"a": 1}},
		}}}), "", `{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},"apns":{"headers":{"apns-push-type":"alert","apns-priority":"5"},
			"payload":{"aps":{"sound":{"critical":1,"name":"bell"},"thread-id":"orders","alert":{"subtitle":"Shop"}},"own":{"a":1}}}}`},
		"options take the sound out": {push("ios", notifications.Push{FCM: map[string]any{"apns": map[string]any{"payload": map[string]any{"aps": map[string]any{"sound": nil}}}}}), "",
			`{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},"apns":{"headers":{"apns-push-type":"alert","apns-priority":"10"},"payload":{"aps":{}}}}`},
		"options for the web": {push("web", notifications.Push{CollapseID: "a", FCM: map[string]any{"webpush": map[string]any{
			"notification": map[string]any{"requireInteraction": true, "actions": []any{map[string]any{"action": "a", "title": "A"}}, "tag": "b"}, "headers": map[string]any{"Urgency": "low"}}}}), "",
			`{"token":"token","notification":{"title":"Ready","body":"Your order is ready."},"webpush":{"headers":{"Urgency":"low","Topic":"a"},
			"notification":{"requireInteraction":true,"actions":[{"action":"a","title":"A"}],"tag":"b"}}}`},
		"lamp": {push("android", notifications.Push{Silent: true, FCM: map[string]any{"android": map[string]any{"notification": map[string]any{
			"light_settings": map[string]any{"color": map[string]any{"red": 1, "green": 0.0, "blue": 0.0}, "light_on_duration": "0.5s", "light_off_duration": "1s"}}}}}), "",
			`{"token":"token","android":{"priority":"normal","notification":{"light_settings":{"color":{"red":1,"green":0,"blue":0,"alpha":1},"light_on_duration":"0.500000000s","light_off_duration":"1s"}}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.JSONEq(t, row.want, body(t, row.message, row.packageName))
		})
	}
}

func TestPayloadRefused(t *testing.T) {
	t.Parallel()
	below := -1
	option := func(o map[string]any) *notifications.Message {
		return push("android", notifications.Push{FCM: o})
	}
	note := func(o map[string]any) *notifications.Message {
		return option(map[string]any{"android": map[string]any{"notification": o}})
	}
	data := func(key string, value any) *notifications.Message {
		return with(push("android", notifications.Push{}), func(m *notifications.Message) { m.Data = map[string]any{key: value} })
	}
	for name, row := range map[string]struct {
		message *notifications.Message
		says    string
	}{
		"no token":                    {with(push("android", notifications.Push{}), func(m *notifications.Message) { m.Target.Address = "" }), "no token"},
		"other platform":              {push("windows", notifications.Push{}), `"windows"`},
		"priority":                    {push("android", notifications.Push{Priority: "urgent"}), `"urgent"`},
		"badge":                       {push("ios", notifications.Push{Badge: &below}), "below zero"},
		"image without host":          {with(push("ios", notifications.Push{}), func(m *notifications.Message) { m.Image = "/api/files/a.png" }), "begins with https"},
		"image that is a script":      {with(push("ios", notifications.Push{}), func(m *notifications.Message) { m.Image = "javascript:alert(1)" }), "begins with https"},
		"data from":                   {data("from", "a"), `"from"`},
		"data message_type":           {data("message_type", "a"), `"message_type"`},
		"data google.":                {data("google.sent_time", "a"), `"google.sent_time"`},
		"data gcm.":                   {data("gcm.n.e", "a"), `"gcm.n.e"`},
		"data without a name":         {data("", "a"), "empty"},
		"data that is no number":      {data("n", math.NaN()), `"n"`},
		"too long":                    {with(push("android", notifications.Push{}), func(m *notifications.Message) { m.Title, m.Body = "T", strings.Repeat("x", 4096) }), "4097 bytes"},
		"too long in bytes":           {with(push("android", notifications.Push{}), func(m *notifications.Message) { m.Title, m.Body = "", strings.Repeat("ä", 2049) }), "4098 bytes"},
		"too much data":               {data("key", strings.Repeat("x", 5000)), "bytes"},
		"too much for apple":          {push("ios", notifications.Push{FCM: map[string]any{"apns": map[string]any{"payload": map[string]any{"own": strings.Repeat("x", 4096)}}}}), "bytes"},
		"too much for the web":        {push("web", notifications.Push{FCM: map[string]any{"webpush": map[string]any{"notification": map[string]any{"icon": strings.Repeat("x", 4096)}}}}), "bytes"},
		"option of nobody":            {option(map[string]any{"androd": map[string]any{}}), "fcm.androd"},
		"option deep down":            {note(map[string]any{"channelID": "a"}), "fcm.android.notification.channelID"},
		"option twice":                {note(map[string]any{"channelId": "a", "channel_id": "b"}), "twice"},
		"option token":                {option(map[string]any{"token": "b"}), "fcm.token"},
		"option topic":                {option(map[string]any{"topic": "b"}), "fcm.topic"},
		"option validate_only":        {option(map[string]any{"validate_only": true}), "fcm.validate_only"},
		"option that is no object":    {option(map[string]any{"android": "high"}), "fcm.android is not an object"},
		"option data that is a text":  {option(map[string]any{"data": "a"}), "fcm.data is not an object"},
		"option data with own key":    {option(map[string]any{"data": map[string]any{"from": "a"}}), `"from"`},
		"option text that is none":    {note(map[string]any{"tag": 1}), "not a text"},
		"option flag that is none":    {note(map[string]any{"sticky": "yes"}), "neither true nor false"},
		"option list that is none":    {note(map[string]any{"body_loc_args": "a"}), "list of texts"},
		"option list of numbers":      {note(map[string]any{"body_loc_args": []any{1}}), "list of texts"},
		"option count that is none":   {note(map[string]any{"notification_count": 1.5}), "whole number"},
		"option count below zero":     {note(map[string]any{"notification_count": -1}), "whole number"},
		"option of a short list":      {note(map[string]any{"visibility": "HIDDEN"}), "PRIVATE, PUBLIC, SECRET"},
		"option priority":             {option(map[string]any{"android": map[string]any{"priority": "urgent"}}), "HIGH"},
		"option colour":               {note(map[string]any{"color": "red"}), "colour"},
		"option colour with alpha":    {note(map[string]any{"color": "#11223344"}), "colour"},
		"option lamp":                 {note(map[string]any{"light_settings": map[string]any{"color": map[string]any{"red": 2}}}), "from 0 to 1"},
		"option lamp without colour":  {note(map[string]any{"light_settings": map[string]any{"light_on_duration": "1s"}}), ""},
		"option ttl as a number":      {option(map[string]any{"android": map[string]any{"ttl": 60}}), "seconds"},
		"option ttl in minutes":       {option(map[string]any{"android": map[string]any{"ttl": "5m"}}), "seconds"},
		"option ttl above four weeks": {option(map[string]any{"android": map[string]any{"ttl": "2419201s"}}), "four weeks"},
		"option time":                 {note(map[string]any{"event_time": "tomorrow"}), "not a time"},
		"option shaking":              {note(map[string]any{"vibrate_timings": []any{"1s", "x"}}), "seconds"},
		"option image":                {note(map[string]any{"image": "a.png"}), "begins with https"},
		"option web link":             {option(map[string]any{"webpush": map[string]any{"fcm_options": map[string]any{"link": "http://example.com"}}}), "begins with https"},
		"option arguments, no key":    {note(map[string]any{"body_loc_args": []any{"a"}}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := providertest.NewFCM(t, providertest.FCMOptions{AnyToken: true})
			o := newProvider(t, s).Send(t.Context(), row.message)
			require.Equal(t, notifications.PayloadBad, o.Kind, o.Explanation)
			require.Contains(t, o.Explanation, row.says)
			require.Regexp(t, `^[A-Z"].*\.$`, o.Explanation)
			asked, _ := s.Tokens()
			require.Zero(t, asked, "nothing is asked of Google for such a message")
		})
	}
}

func TestOtherAppIsNotServed(t *testing.T) {
	t.Parallel()
	s := providertest.NewFCM(t, providertest.FCMOptions{})
	config := s.Config()
	config["packageName"] = "com.example.app"
	adapter, err := fcm.New(notifications.ProviderConfig{Config: config, Secret: s.ServiceAccount()})
	require.NoError(t, err)
	m := message(providertest.FCMDeviceToken(1), "hello")
	m.Target.Device.App = "com.example.other"
	o := adapter.(*fcm.Provider).Send(t.Context(), m)
	require.Equal(t, notifications.RecipientBlocked, o.Kind)
	require.Contains(t, o.Explanation, "com.example.other")
	m.Target.Device.App = "com.example.app"
	require.Equal(t, notifications.Accepted, adapter.(*fcm.Provider).Send(t.Context(), m).Kind)
}

// The options are shared by all recipients, whose messages are built at the same
// time.
func TestOptionsAreLeftAlone(t *testing.T) {
	t.Parallel()
	options := func() map[string]any {
		return map[string]any{"apns": map[string]any{"payload": map[string]any{"aps": map[string]any{"alert": map[string]any{"subtitle": "a"}}, "own": map[string]any{"a": map[string]any{"b": 1}}}},
			"data": map[string]any{"a": 1}, "webpush": map[string]any{"notification": map[string]any{"data": map[string]any{"x": 1}}}}
	}
	shared := options()
	done := make(chan error)
	for range 4 {
		go func() {
			_, err := fcm.Payload(push("ios", notifications.Push{Badge: new(int), FCM: shared}), "", now)
			done <- err
		}()
	}
	for range 4 {
		require.NoError(t, <-done)
	}
	require.Equal(t, options(), shared)
}

// notInTheSDK are fields of the API that the SDK's types do not have, so that the
// options cannot set them; and the target, which they must not.
var notInTheSDK = map[string]bool{
	"name": true, "token": true, "topic": true, "condition": true, "fid": true, "androidV2": true,
	"android.bandwidthConstrainedOk": true, "android.restrictedSatelliteOk": true, "android.notification.bypassProxyNotification": true,
	"webpush.fcmOptions.analyticsLabel": true,
}

// TestEveryFieldOfTheAPI holds the options against Google's description: each
// field is either taken over as it was written, or refused.
func TestEveryFieldOfTheAPI(t *testing.T) {
	t.Parallel()
	samples := map[string]any{
		"android.priority": "HIGH", "android.ttl": "2.5s", "android.notification.color": "#AABBCC", "android.notification.eventTime": "2030-01-31T09:00:00.5Z",
		"android.notification.notificationPriority": "PRIORITY_LOW", "android.notification.visibility": "SECRET", "android.notification.proxy": "DENY",
		"android.notification.vibrateTimings": []any{"0.25s", "1s"}, "android.notification.image": "https://example.com/a.png",
		"android.notification.lightSettings": map[string]any{"color": "#0A0B0C0D", "lightOnDuration": "0.1s", "lightOffDuration": "2s"},
		"notification.image":                 "https://example.com/a.png", "apns.fcmOptions.image": "https://example.com/a.png", "webpush.fcmOptions.link": "https://example.com/",
		"apns.payload": map[string]any{"aps": map[string]any{"alert": "a", "content-available": 0}, "x": []any{1}}, "webpush.notification": map[string]any{"dir": "rtl", "silent": false, "badge": ""},
		"android.notification.bodyLocArgs": []any{"a", "b"}, "android.notification.titleLocArgs": []any{"a"},
	}
	written := map[string]any{
		"android.priority": "high", "android.ttl": "2.500000000s", "android.notification.eventTime": "2030-01-31T09:00:00.500000000Z",
		"android.notification.vibrateTimings": []any{"0.250000000s", "1s"},
	}
	var walk func(path []string, of reflect.Type)
	walk = func(path []string, of reflect.Type) {
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			at := append(append([]string{}, path...), name)
			where, kind := strings.Join(at, "."), of.Field(i).Type
			value, has := samples[where]
			if !has && !notInTheSDK[where] && kind.Kind() == reflect.Pointer {
				walk(at, kind.Elem())
				continue
			}
			if !has {
				switch {
				case kind.Kind() == reflect.String:
					value = "text"
				case kind.Kind() == reflect.Bool:
					value = true
				case kind.Kind() == reflect.Int64:
					value = float64(7)
				case kind.Kind() == reflect.Map:
					value = map[string]any{"a": "b"}
				default:
					value = map[string]any{}
				}
			}
			options := map[string]any{}
			place := options
			for _, key := range at[:len(at)-1] {
				next := map[string]any{}
				place[key] = next
				place = next
			}
			place[name] = value
			switch name { // arguments need their key
			case "bodyLocArgs":
				place["bodyLocKey"] = "k"
			case "titleLocArgs":
				place["titleLocKey"] = "k"
			}
			m := push("android", notifications.Push{Silent: true, FCM: options})
			if notInTheSDK[where] {
				_, err := fcm.Payload(m, "", now)
				require.ErrorContains(t, err, "fcm."+where)
				continue
			}
			request, err := providertest.ParseFCM([]byte(`{"message":` + body(t, m, "") + `}`))
			require.NoError(t, err, where)
			raw, err := json.Marshal(request.Message)
			require.NoError(t, err)
			var got any
			require.NoError(t, json.Unmarshal(raw, &got))
			for _, key := range at {
				require.IsType(t, map[string]any{}, got, where)
				got = got.(map[string]any)[key]
			}
			want := value
			if w, ok := written[where]; ok {
				want = w
			}
			if where == "android.notification.lightSettings" {
				part := func(n int) float64 { return float64(n) / 255 }
				want = map[string]any{"color": map[string]any{"red": part(10), "green": part(11), "blue": part(12), "alpha": part(13)}, "lightOnDuration": "0.100000000s", "lightOffDuration": "2s"}
			}
			wantJSON, err := json.Marshal(want)
			require.NoError(t, err)
			gotJSON, err := json.Marshal(got)
			require.NoError(t, err)
			require.JSONEq(t, string(wantJSON), string(gotJSON), where)
		}
	}
	walk(nil, reflect.TypeFor[fcmapi.Message]())
}

// The token of its opening is left out where there is no room for it.
func TestNoRoomForTheToken(t *testing.T) {
	t.Parallel()
	m := push("android", notifications.Push{})
	m.Body, m.OpenToken = strings.Repeat("x", 4050), strings.Repeat("t", 47)
	out, err := fcm.Payload(m, "", now)
	require.NoError(t, err)
	require.Empty(t, out.Data)
	m.Body = "there"
	out, err = fcm.Payload(m, "", now)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"openToken": m.OpenToken}, out.Data)
}
