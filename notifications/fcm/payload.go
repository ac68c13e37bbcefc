package fcm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"firebase.google.com/go/v4/messaging"

	"github.com/groundworkhq/groundwork/notifications"
)

const (
	// maxBytes is what FCM takes as the content of one message.
	maxBytes = 4096

	// maxTTL is how long FCM keeps a message at most.
	maxTTL = 28 * 24 * time.Hour
)

// mistake is what is wrong with a message, as a sentence for its author.
type mistake string

func (m mistake) Error() string { return string(m) }

func mistaken(format string, args ...any) error { return mistake(fmt.Sprintf(format, args...)) }

// otherApp is a device whose app this provider does not serve.
type otherApp struct{ app, served string }

func (e *otherApp) Error() string {
	return fmt.Sprintf("This device runs the app %s, and this provider serves %s only.", clip(e.app), clip(e.served))
}

// refusal is the outcome of a message that was not sent.
func refusal(err error) notifications.Outcome {
	var app *otherApp
	if errors.As(err, &app) {
		return notifications.Outcome{Kind: notifications.RecipientBlocked, Explanation: app.Error()}
	}
	return notifications.Outcome{Kind: notifications.PayloadBad, Explanation: err.Error()}
}

// payload makes FCM's message. The error is a sentence.
//
// What FCM calls a notification message is shown by the system; without a
// "notification" it is a data message, which only wakes the app.
func payload(m *notifications.Message, packageName string, now time.Time) (*messaging.Message, error) {
	push := notifications.Push{}
	if m.Push != nil {
		push = *m.Push
	}
	platform := "android"
	if m.Target.Device != nil {
		if m.Target.Device.Platform != "" {
			platform = m.Target.Device.Platform
		}
		if app := m.Target.Device.App; packageName != "" && app != "" && app != packageName {
			return nil, &otherApp{app, packageName}
		}
	}
	if m.Target.Address == "" {
		return nil, mistake("The device has no token.")
	}
	switch push.Priority {
	case "", "high", "normal":
	default:
		return nil, mistaken("The priority is %q: use high or normal.", clip(push.Priority))
	}
	if push.Priority == "" {
		push.Priority = "high"
		if push.Silent {
			push.Priority = "normal"
		}
	}
	if push.Badge != nil && *push.Badge < 0 {
		return nil, mistake("The badge is below zero.")
	}

	out := &messaging.Message{Token: m.Target.Address}
	if !push.Silent {
		if err := checkImage(m.Image); err != nil {
			return nil, err
		}
		out.Notification = &messaging.Notification{Title: m.Title, Body: m.Body, ImageURL: m.Image}
	}
	var err error
	if out.Data, err = data(m); err != nil {
		return nil, err
	}
	switch platform {
	case "android":
		out.Android = android(&push, packageName, now)
	case "ios":
		out.APNS = apple(m, &push)
	case "web":
		out.Webpush = web(m, &push, now)
	default:
		return nil, mistaken("FCM does not know the platform %q: it is android, ios or web.", clip(platform))
	}
	if len(push.FCM) > 0 {
		if err := messageKeys(out).apply("fcm", push.FCM); err != nil {
			return nil, err
		}
	}
	for key := range out.Data {
		if err := checkKey(key); err != nil {
			return nil, err
		}
	}
	n := size(out)
	if n > maxBytes && m.OpenToken != "" {
		plain := *m // what it says matters more than who opens it
		plain.OpenToken = ""
		return payload(&plain, packageName, now)
	}
	if n > maxBytes {
		return nil, mistaken("The message is %d bytes long, and Google takes %d: shorten its text or its data.", n, maxBytes)
	}
	return out, nil
}

func checkImage(image string) error {
	if image == "" {
		return nil
	}
	if u, err := url.ParseRequestURI(image); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return mistake("The image is not an address that begins with https: devices fetch it from there.")
	}
	return nil
}

// data makes texts of the values, which is all that FCM carries.
func data(m *notifications.Message) (map[string]string, error) {
	if len(m.Data) == 0 && m.Link == "" && m.OpenToken == "" {
		return nil, nil
	}
	out := make(map[string]string, len(m.Data)+2)
	for key, value := range m.Data {
		s, err := dataText(value)
		if err != nil {
			return nil, mistaken("The value of %q in the data cannot be written as JSON.", clip(key))
		}
		out[key] = s
	}
	if _, set := out["link"]; !set && m.Link != "" {
		out["link"] = m.Link
	}
	if m.OpenToken != "" {
		out["openToken"] = m.OpenToken
	}
	return out, nil
}

func dataText(value any) (string, error) {
	if s, ok := value.(string); ok {
		return s, nil
	}
	raw, err := json.Marshal(value)
	return string(raw), err
}

// checkKey refuses the keys that FCM keeps for itself. It would refuse the whole
// message, and not say which key it was.
func checkKey(key string) error {
	if key == "" {
		return mistake("A key in the data is empty.")
	}
	if key == "from" || key == "message_type" || strings.HasPrefix(key, "google.") || strings.HasPrefix(key, "gcm.") {
		return mistaken("The key %q in the data is Google's own: choose another name.", clip(key))
	}
	return nil
}

// lifetime is how long FCM may try.
func lifetime(expires, now time.Time) (time.Duration, bool) {
	if expires.IsZero() {
		return 0, false
	}
	return min(max(expires.Sub(now).Truncate(time.Second), 0), maxTTL), true
}

func android(push *notifications.Push, packageName string, now time.Time) *messaging.AndroidConfig {
	a := &messaging.AndroidConfig{CollapseKey: push.CollapseID, Priority: push.Priority, RestrictedPackageName: packageName}
	if ttl, ok := lifetime(push.Expires, now); ok {
		a.TTL = &ttl
	}
	if push.Silent {
		return a
	}
	// The collapse key replaces what waits at Google, the tag what is on the
	// screen already.
	n := &messaging.AndroidNotification{Tag: push.CollapseID, NotificationCount: push.Badge}
	switch push.Sound {
	case "":
		n.Sound = "default"
	case "none":
	default:
		n.Sound = push.Sound
	}
	a.Notification = n
	return a
}

// apple makes what FCM passes on to APNs. Its "aps" is kept as a map, because the
// SDK's type loses what it does not know.
func apple(m *notifications.Message, push *notifications.Push) *messaging.APNSConfig {
	aps, headers := map[string]any{}, map[string]string{"apns-push-type": "alert", "apns-priority": "10"}
	a := &messaging.APNSConfig{Headers: headers, Payload: &messaging.APNSPayload{Aps: &messaging.Aps{CustomData: aps}}}
	if push.Priority == "normal" {
		headers["apns-priority"] = "5"
	}
	if push.CollapseID != "" {
		headers["apns-collapse-id"] = push.CollapseID
	}
	if !push.Expires.IsZero() {
		headers["apns-expiration"] = strconv.FormatInt(push.Expires.Unix(), 10)
	}
	if push.Badge != nil {
		aps["badge"] = *push.Badge
	}
	if push.Silent {
		// Apple refuses the priority 10 for these.
		headers["apns-push-type"], headers["apns-priority"] = "background", "5"
		aps["content-available"] = 1
		return a
	}
	switch push.Sound {
	case "":
		aps["sound"] = "default"
	case "none":
	default:
		aps["sound"] = push.Sound
	}
	if m.Image != "" {
		// The app's extension may fetch it only when this is set.
		aps["mutable-content"] = 1
		a.FCMOptions = &messaging.APNSFCMOptions{ImageURL: m.Image}
	}
	return a
}

// topicPattern is what RFC 8030 allows as a Topic.
var topicPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

func web(m *notifications.Message, push *notifications.Push, now time.Time) *messaging.WebpushConfig {
	headers := map[string]string{"Urgency": push.Priority}
	w := &messaging.WebpushConfig{Headers: headers}
	if ttl, ok := lifetime(push.Expires, now); ok {
		headers["TTL"] = strconv.FormatInt(int64(ttl/time.Second), 10)
	}
	if topicPattern.MatchString(push.CollapseID) {
		headers["Topic"] = push.CollapseID
	}
	if push.Silent {
		return w
	}
	shown := map[string]any{}
	if push.CollapseID != "" {
		shown["tag"] = push.CollapseID
	}
	if push.Sound == "none" {
		shown["silent"] = true
	}
	w.Notification = &messaging.WebpushNotification{CustomData: shown}
	if strings.HasPrefix(m.Link, "https://") {
		w.FCMOptions = &messaging.WebpushFCMOptions{Link: m.Link} // others only in the data: FCM refuses them here
	}
	return w
}

// size counts what is certain to count: the texts, without the JSON around them.
// A message a little above the limit is left to FCM, which knows how it counts.
func size(m *messaging.Message) int {
	texts := func(data map[string]string) (n int) {
		for key, value := range data {
			n += len(key) + len(value)
		}
		return n
	}
	n := texts(m.Data)
	if m.Notification != nil {
		n += len(m.Notification.Title) + len(m.Notification.Body) + len(m.Notification.ImageURL)
	}
	if m.Android != nil {
		n = max(n, n-texts(m.Data)+texts(m.Android.Data)) // these replace the general ones
		if a := m.Android.Notification; a != nil {
			n += len(a.Title) + len(a.Body)
		}
	}
	if m.APNS != nil && m.APNS.Payload != nil {
		if raw, err := json.Marshal(m.APNS.Payload); err == nil {
			n += len(raw)
		}
	}
	if m.Webpush != nil && m.Webpush.Notification != nil {
		if raw, err := json.Marshal(m.Webpush.Notification); err == nil {
			n += len(raw)
		}
	}
	return n
}
