package fcm

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"firebase.google.com/go/v4/messaging"
)

// The option "fcm" of a notification is merged over the message key by key. The
// SDK's own decoder would drop what it does not know, and misreads durations and
// colours, so the keys are listed here: both spellings that Google takes
// (channel_id and channelId), and nothing else. A null takes a value out.

// keys are what an object may hold.
type keys map[string]setter

// setter takes one value; path names it for the author.
type setter func(path string, value any) error

func (k keys) apply(path string, value any) error {
	object, ok := value.(map[string]any)
	if !ok {
		return mistaken("The option %s is not an object.", path)
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	seen := map[string]bool{}
	for _, name := range names {
		set, at := k[snake(name)], path+"."+clip(name)
		if set == nil {
			return mistaken("FCM does not know the option %s: correct its name or take it out.", at)
		}
		if seen[snake(name)] {
			return mistaken("The option %s is there twice, in both spellings.", at)
		}
		seen[snake(name)] = true
		if err := set(at, object[name]); err != nil {
			return err
		}
	}
	return nil
}

func snake(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool { return r >= 'A' && r <= 'Z' }) {
		return name
	}
	var b strings.Builder
	for _, r := range name {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func messageKeys(m *messaging.Message) keys {
	return keys{
		"data":         texts(&m.Data),
		"notification": object(&m.Notification, notificationKeys),
		"android":      object(&m.Android, androidKeys),
		"apns":         object(&m.APNS, apnsKeys),
		"webpush":      object(&m.Webpush, webpushKeys),
		"fcm_options":  object(&m.FCMOptions, func(o *messaging.FCMOptions) keys { return keys{"analytics_label": str(&o.AnalyticsLabel)} }),
	}
}

func notificationKeys(n *messaging.Notification) keys {
	return keys{"title": str(&n.Title), "body": str(&n.Body), "image": image(&n.ImageURL)}
}

func androidKeys(a *messaging.AndroidConfig) keys {
	return keys{
		"collapse_key":            str(&a.CollapseKey),
		"priority":                enum(&a.Priority, map[string]string{"normal": "normal", "high": "high", "NORMAL": "normal", "HIGH": "high"}),
		"ttl":                     ttl(&a.TTL),
		"restricted_package_name": str(&a.RestrictedPackageName),
		"data":                    texts(&a.Data),
		"notification":            object(&a.Notification, androidNotificationKeys),
		"fcm_options": object(&a.FCMOptions, func(o *messaging.AndroidFCMOptions) keys {
			return keys{"analytics_label": str(&o.AnalyticsLabel)}
		}),
		"direct_boot_ok": flag(&a.DirectBootOK),
	}
}

func androidNotificationKeys(n *messaging.AndroidNotification) keys {
	return keys{
		"title": str(&n.Title), "body": str(&n.Body), "icon": str(&n.Icon), "color": colour(&n.Color, 7),
		"sound": str(&n.Sound), "tag": str(&n.Tag), "click_action": str(&n.ClickAction),
		"body_loc_key": str(&n.BodyLocKey), "body_loc_args": list(&n.BodyLocArgs),
		"title_loc_key": str(&n.TitleLocKey), "title_loc_args": list(&n.TitleLocArgs),
		"channel_id": str(&n.ChannelID), "image": image(&n.ImageURL), "ticker": str(&n.Ticker), "sticky": flag(&n.Sticky),
		"event_time": moment(&n.EventTimestamp), "local_only": flag(&n.LocalOnly),
		"notification_priority": enum(&n.Priority, map[string]messaging.AndroidNotificationPriority{
			"PRIORITY_MIN": messaging.PriorityMin, "PRIORITY_LOW": messaging.PriorityLow, "PRIORITY_DEFAULT": messaging.PriorityDefault,
			"PRIORITY_HIGH": messaging.PriorityHigh, "PRIORITY_MAX": messaging.PriorityMax}),
		"vibrate_timings": timings(&n.VibrateTimingMillis), "default_vibrate_timings": flag(&n.DefaultVibrateTimings),
		"default_sound": flag(&n.DefaultSound), "light_settings": object(&n.LightSettings, lightKeys), "default_light_settings": flag(&n.DefaultLightSettings),
		"visibility": enum(&n.Visibility, map[string]messaging.AndroidNotificationVisibility{
			"PRIVATE": messaging.VisibilityPrivate, "PUBLIC": messaging.VisibilityPublic, "SECRET": messaging.VisibilitySecret}),
		"notification_count": count(&n.NotificationCount),
		"proxy": enum(&n.Proxy, map[string]messaging.AndroidNotificationProxy{
			"ALLOW": messaging.ProxyAllow, "DENY": messaging.ProxyDeny, "IF_PRIORITY_LOWERED": messaging.ProxyIfPriorityLowered}),
	}
}

func lightKeys(l *messaging.LightSettings) keys {
	return keys{"color": light(&l.Color), "light_on_duration": millis(&l.LightOnDurationMillis), "light_off_duration": millis(&l.LightOffDurationMillis)}
}

func apnsKeys(a *messaging.APNSConfig) keys {
	return keys{
		"headers":             texts(&a.Headers),
		"payload":             applePayload(&a.Payload),
		"live_activity_token": str(&a.LiveActivityToken),
		"fcm_options": object(&a.FCMOptions, func(o *messaging.APNSFCMOptions) keys {
			return keys{"analytics_label": str(&o.AnalyticsLabel), "image": image(&o.ImageURL)}
		}),
	}
}

func webpushKeys(w *messaging.WebpushConfig) keys {
	return keys{
		"headers": texts(&w.Headers),
		"data":    texts(&w.Data),
		"notification": func(path string, value any) error {
			if value == nil {
				w.Notification = nil
				return nil
			}
			if w.Notification == nil {
				w.Notification = &messaging.WebpushNotification{}
			}
			return free(&w.Notification.CustomData)(path, value)
		},
		"fcm_options": object(&w.FCMOptions, func(o *messaging.WebpushFCMOptions) keys { return keys{"link": webLink(&o.Link)} }),
	}
}

// object merges into the object that dst points to.
func object[T any](dst **T, of func(*T) keys) setter {
	return func(path string, value any) error {
		if value == nil {
			*dst = nil
			return nil
		}
		if *dst == nil {
			*dst = new(T)
		}
		return of(*dst).apply(path, value)
	}
}

// applePayload merges into what goes to the device as it is: every key but "aps"
// is the app's own.
func applePayload(dst **messaging.APNSPayload) setter {
	return func(path string, value any) error {
		if value == nil {
			*dst = nil
			return nil
		}
		object, ok := value.(map[string]any)
		if !ok {
			return mistaken("The option %s is not an object.", path)
		}
		if *dst == nil {
			*dst = &messaging.APNSPayload{}
		}
		p := *dst
		if p.Aps == nil {
			p.Aps = &messaging.Aps{CustomData: map[string]any{}}
		}
		own := make(map[string]any, len(object))
		for key, one := range object {
			if key != "aps" {
				own[key] = one
				continue
			}
			if err := free(&p.Aps.CustomData)(path+".aps", one); err != nil {
				return err
			}
		}
		return free(&p.CustomData)(path, own)
	}
}

// free merges an object whose keys are not FCM's to know.
func free(dst *map[string]any) setter {
	return func(path string, value any) error {
		object, ok := value.(map[string]any)
		if !ok {
			return mistaken("The option %s is not an object.", path)
		}
		if *dst == nil {
			*dst = make(map[string]any, len(object))
		}
		merge(*dst, object)
		return nil
	}
}

// merge never writes into src or what it holds: it is shared by all recipients.
func merge(dst, src map[string]any) {
	for key, value := range src {
		if value == nil {
			delete(dst, key)
			continue
		}
		from, ok := value.(map[string]any)
		if !ok {
			dst[key] = value
			continue
		}
		to, ok := dst[key].(map[string]any)
		if !ok {
			to = make(map[string]any, len(from))
			dst[key] = to
		}
		merge(to, from)
	}
}

// texts merges a map of texts; other values become JSON, as in a notification's
// data.
func texts(dst *map[string]string) setter {
	return func(path string, value any) error {
		if value == nil {
			*dst = nil
			return nil
		}
		object, ok := value.(map[string]any)
		if !ok {
			return mistaken("The option %s is not an object.", path)
		}
		if *dst == nil {
			*dst = make(map[string]string, len(object))
		}
		for key, one := range object {
			if one == nil {
				delete(*dst, key)
				continue
			}
			s, err := dataText(one)
			if err != nil {
				return mistaken("The option %s.%s cannot be written as JSON.", path, clip(key))
			}
			(*dst)[key] = s
		}
		return nil
	}
}

func str(dst *string) setter {
	return func(path string, value any) error {
		s, ok := value.(string)
		if !ok && value != nil {
			return mistaken("The option %s is not a text.", path)
		}
		*dst = s
		return nil
	}
}

func image(dst *string) setter {
	return func(path string, value any) error {
		if err := str(dst)(path, value); err != nil {
			return err
		}
		if checkImage(*dst) != nil {
			return mistaken("The option %s is not an address that begins with https.", path)
		}
		return nil
	}
}

func webLink(dst *string) setter {
	return func(path string, value any) error {
		if err := str(dst)(path, value); err != nil {
			return err
		}
		if !strings.HasPrefix(*dst, "https://") {
			return mistaken("The option %s is not an address that begins with https.", path)
		}
		return nil
	}
}

func flag(dst *bool) setter {
	return func(path string, value any) error {
		b, ok := value.(bool)
		if !ok && value != nil {
			return mistaken("The option %s is neither true nor false.", path)
		}
		*dst = b
		return nil
	}
}

func list(dst *[]string) setter {
	return func(path string, value any) error {
		values, ok := value.([]any)
		if !ok && value != nil {
			return mistaken("The option %s is not a list of texts.", path)
		}
		out := make([]string, 0, len(values))
		for _, one := range values {
			s, ok := one.(string)
			if !ok {
				return mistaken("The option %s is not a list of texts.", path)
			}
			out = append(out, s)
		}
		*dst = out
		return nil
	}
}

func enum[T any](dst *T, names map[string]T) setter {
	return func(path string, value any) error {
		if value == nil {
			*dst = *new(T)
			return nil
		}
		s, _ := value.(string)
		v, ok := names[s]
		if !ok {
			known := make([]string, 0, len(names))
			for name := range names {
				known = append(known, name)
			}
			slices.Sort(known)
			return mistaken("The option %s is %s: FCM knows %s.", path, clip(fmt.Sprintf("%q", fmt.Sprint(value))), strings.Join(known, ", "))
		}
		*dst = v
		return nil
	}
}

func count(dst **int) setter {
	return func(path string, value any) error {
		if value == nil {
			*dst = nil
			return nil
		}
		n, ok := whole(value)
		if !ok || n < 0 || n > math.MaxInt32 {
			return mistaken("The option %s is not a whole number from zero on.", path)
		}
		v := int(n)
		*dst = &v
		return nil
	}
}

// whole reads a number as it comes out of JSON, from JavaScript or from Go.
func whole(value any) (int64, bool) {
	switch v := value.(type) {
	case int:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case float64:
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	default:
		return 0, false
	}
}

func moment(dst **time.Time) setter {
	return func(path string, value any) error {
		if value == nil {
			*dst = nil
			return nil
		}
		s, _ := value.(string)
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return mistaken("The option %s is not a time such as 2030-01-31T09:00:00Z.", path)
		}
		*dst = &t
		return nil
	}
}

// durationPattern is a duration as Google writes it.
var durationPattern = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9})?s$`)

func duration(path string, value any) (time.Duration, error) {
	s, _ := value.(string)
	if !durationPattern.MatchString(s) {
		return 0, mistaken("The option %s is not a number of seconds such as \"3.5s\".", path)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, mistaken("The option %s is not a number of seconds such as \"3.5s\".", path)
	}
	return d, nil
}

func ttl(dst **time.Duration) setter {
	return func(path string, value any) error {
		if value == nil {
			*dst = nil
			return nil
		}
		d, err := duration(path, value)
		if err != nil {
			return err
		}
		if d > maxTTL {
			return mistaken("The option %s is above the four weeks that Google keeps a message: %d seconds.", path, int(maxTTL.Seconds()))
		}
		*dst = &d
		return nil
	}
}

func millis(dst *int64) setter {
	return func(path string, value any) error {
		d, err := duration(path, value)
		*dst = d.Milliseconds()
		return err
	}
}

func timings(dst *[]int64) setter {
	return func(path string, value any) error {
		values, ok := value.([]any)
		if !ok && value != nil {
			return mistaken("The option %s is not a list of seconds such as \"0.5s\".", path)
		}
		out := make([]int64, 0, len(values))
		for _, one := range values {
			d, err := duration(path, one)
			if err != nil {
				return err
			}
			out = append(out, d.Milliseconds())
		}
		*dst = out
		return nil
	}
}

var colourPattern = regexp.MustCompile(`^#[0-9A-Fa-f]{6}([0-9A-Fa-f]{2})?$`)

// colour takes #RRGGBB, and #RRGGBBAA where longest is 9.
func colour(dst *string, longest int) setter {
	return func(path string, value any) error {
		if err := str(dst)(path, value); err != nil {
			return err
		}
		if *dst != "" && (!colourPattern.MatchString(*dst) || len(*dst) > longest) {
			return mistaken("The option %s is not a colour such as #00AAFF.", path)
		}
		return nil
	}
}

// light takes a colour as FCM wants it, four numbers from 0 to 1, and as people
// write it.
func light(dst *string) setter {
	return func(path string, value any) error {
		parts, ok := value.(map[string]any)
		if !ok {
			return colour(dst, 9)(path, value)
		}
		channels := map[string]float64{"red": 0, "green": 0, "blue": 0, "alpha": 1}
		for name, one := range parts {
			_, known := channels[name]
			n, err := strconv.ParseFloat(fmt.Sprint(one), 64)
			if !known || err != nil || !(n >= 0 && n <= 1) {
				return mistaken("The option %s.%s is not one of red, green, blue and alpha with a number from 0 to 1.", path, clip(name))
			}
			channels[name] = n
		}
		hex := func(name string) int { return int(math.Round(channels[name] * 255)) }
		*dst = fmt.Sprintf("#%02X%02X%02X%02X", hex("red"), hex("green"), hex("blue"), hex("alpha"))
		return nil
	}
}
