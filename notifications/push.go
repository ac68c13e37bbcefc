package notifications

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Limits of the push options.
const (
	maxCollapseID = 64                  // bytes, of Apple's header
	maxPushTTL    = 28 * 24 * time.Hour // Google's
)

// Options are the special settings of a notification.
type Options struct {
	CollapseID string         `json:"collapseId,omitempty"`
	TTL        *int64         `json:"ttl,omitempty"` // seconds; nil: until expiresAt, or the provider's own
	Priority   string         `json:"priority,omitempty"`
	Badge      *int           `json:"badge,omitempty"`
	Sound      string         `json:"sound,omitempty"`
	Silent     bool           `json:"silent,omitempty"`
	QuietHours bool           `json:"ignoreQuietHours,omitempty"`
	APNs       map[string]any `json:"apns,omitempty"`
	FCM        map[string]any `json:"fcm,omitempty"`
	WebPush    map[string]any `json:"webpush,omitempty"`
}

// knownOptions are the keys of the options field, and what each must be.
var knownOptions = map[string]struct {
	must  string
	isBad func(v any) bool
}{
	"collapseId": {"a text of at most 64 bytes", func(v any) bool { s, ok := v.(string); return !ok || len(s) > maxCollapseID }},
	"ttl": {"a whole number of seconds, from 0 to 2419200 (four weeks)", func(v any) bool {
		return !isWhole(v, 0, maxPushTTL.Seconds())
	}},
	"priority":         {`"high" or "normal"`, func(v any) bool { return v != "high" && v != "normal" }},
	"badge":            {"a whole number from 0 up", func(v any) bool { return !isWhole(v, 0, math.MaxInt32) }},
	"sound":            {`the name of a sound in your app, or "none"`, func(v any) bool { s, ok := v.(string); return !ok || len(s) > 255 }},
	"silent":           {"true or false", notBool},
	"ignoreQuietHours": {"true or false", notBool},
	"apns":             {"a JSON object", notObject},
	"fcm":              {"a JSON object", notObject},
	"webpush":          {"a JSON object", notObject},
}

func notBool(v any) bool   { _, ok := v.(bool); return !ok }
func notObject(v any) bool { _, ok := v.(map[string]any); return !ok }

func isWhole(v any, least, most float64) bool {
	n, ok := v.(float64)
	return ok && n == math.Trunc(n) && n >= least && n <= most
}

// checkOptions refuses options that are not known or not of the right kind.
func (e FieldErrors) checkOptions(options map[string]any) {
	known := make([]string, 0, len(knownOptions))
	for key := range knownOptions {
		known = append(known, key)
	}
	slices.Sort(known)
	for key, value := range options {
		option, ok := knownOptions[key]
		switch {
		case !ok:
			e.add("options", "unknown_option", fmt.Sprintf("%q is not an option. Known ones: %s.", key, strings.Join(known, ", ")))
		case value != nil && option.isBad(value):
			e.add("options", "invalid_option", fmt.Sprintf("%q must be %s.", key, option.must))
		}
	}
}

// Options are the special settings of the notification; the zero value when
// there are none.
func (n *Notification) Options() Options {
	var o Options
	_ = json.Unmarshal([]byte(n.GetString("options")), &o) // checked when it was saved
	return o
}

// push is what a push message of a notification has besides its text.
func (o Options) push(notificationID string, now, expiresAt time.Time) *Push {
	p := &Push{CollapseID: orElse(o.CollapseID, notificationID), Priority: o.Priority, Badge: o.Badge, Sound: o.Sound, Silent: o.Silent,
		Expires: expiresAt, APNs: o.APNs, FCM: o.FCM, WebPush: o.WebPush}
	if o.TTL != nil {
		if until := now.Add(time.Duration(*o.TTL) * time.Second); p.Expires.IsZero() || until.Before(p.Expires) {
			p.Expires = until
		}
	}
	return p
}

// retired is a device whose token is dead.
type retired struct {
	Device, Token, Sentence string
	// Before protects a device that registered again since.
	Before time.Time
}

// retirement is what a dead target means for its device.
func retirement(m *Message, o Outcome, sentAt time.Time) *retired {
	r := &retired{Device: m.Target.Device.ID, Token: m.Target.Address, Before: sentAt, Sentence: o.Explanation}
	if !o.GoneAt.IsZero() {
		r.Before = o.GoneAt
	}
	return r
}
