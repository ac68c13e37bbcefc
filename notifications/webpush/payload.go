package webpush

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"

	"github.com/groundworkhq/groundwork/notifications"
)

const (
	// overhead is what encryption adds to a payload: the header with salt, record
	// size and key (86 bytes), the mark where the padding begins, the tag.
	overhead = 86 + 1 + 16

	// maxBody is what every push service takes (RFC 8030, 7.2).
	maxBody    = 4096
	maxPayload = maxBody - overhead

	// maxTTL is how long the push services keep a message at most.
	maxTTL = 28 * 24 * time.Hour
)

// sizes are what messages are padded to, so that their length tells nobody on the
// way what they say. The library would make them all as long as the longest one:
// Mozilla's service does not get those to Firefox on Android, where 3,052 bytes
// are the most.
var sizes = []int{1024, 2048, 3052, maxBody}

// urgencyKey of the webpush option chooses another urgency; it does not become
// part of the payload.
const urgencyKey = "urgency"

var urgencies = map[string]webpush.Urgency{
	"very-low": webpush.UrgencyVeryLow, "low": webpush.UrgencyLow, "normal": webpush.UrgencyNormal, "high": webpush.UrgencyHigh,
}

// errBadSubscription is a fault of the target, not of the content.
var errBadSubscription = errors.New("this is not a browser's push subscription")

// request is a message as it goes to a push service.
type request struct {
	subscription webpush.Subscription
	origin       *url.URL
	body         []byte
	ttl          int
	urgency      webpush.Urgency
	topic        string
	size         int // padded and encrypted
}

// newRequest translates a message. Errors are [errBadSubscription], [ErrNotHTTPS],
// [ErrPrivate], or about the content and the end of a sentence.
func newRequest(m *notifications.Message, privateHosts []string, now time.Time) (*request, error) {
	push := m.Push
	if push == nil {
		push = &notifications.Push{}
	}
	r := &request{}
	if json.Unmarshal([]byte(m.Target.Address), &r.subscription) != nil || r.subscription.Endpoint == "" {
		return nil, errBadSubscription
	}
	if err := CheckEndpoint(r.subscription.Endpoint, privateHosts); err != nil {
		return nil, err
	}
	r.origin, _ = url.Parse(r.subscription.Endpoint) // it was checked just now

	r.urgency = webpush.UrgencyHigh
	switch {
	case push.Priority == "normal", push.Priority == "" && push.Silent:
		r.urgency = webpush.UrgencyNormal
	}
	if given, ok := push.WebPush[urgencyKey]; ok {
		name, _ := given.(string)
		if r.urgency, ok = urgencies[name]; !ok {
			return nil, fmt.Errorf("%q is not an urgency: use one of %s", fmt.Sprint(given), strings.Join(slices.Sorted(maps.Keys(urgencies)), ", "))
		}
	}
	r.ttl = int(maxTTL / time.Second)
	if !push.Expires.IsZero() {
		r.ttl = int(min(max(push.Expires.Sub(now), 0), maxTTL).Round(time.Second) / time.Second)
	}
	r.topic = topic(push.CollapseID)

	var err error
	if r.body, err = payload(m, push); err != nil {
		return nil, err
	}
	if len(r.body) > maxPayload && m.OpenToken != "" {
		plain := *m // what it says matters more than who opens it
		plain.OpenToken = ""
		if r.body, err = payload(&plain, push); err != nil {
			return nil, err
		}
	}
	if len(r.body) > maxPayload {
		return nil, fmt.Errorf("it has %d bytes, and browsers get %d (4,096 with their encryption): shorten the text or the data", len(r.body), maxPayload)
	}
	for _, r.size = range sizes {
		if len(r.body)+overhead <= r.size {
			break
		}
	}
	return r, nil
}

// topicPattern is what RFC 8030 allows as a Topic.
var topicPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// topic makes a collapse id fit for the header. One that does not fit is hashed:
// the same id is always the same topic.
func topic(collapseID string) string {
	if collapseID == "" || topicPattern.MatchString(collapseID) {
		return collapseID
	}
	sum := sha256.Sum256([]byte(collapseID))
	return base64.RawURLEncoding.EncodeToString(sum[:24]) // 32 characters
}

// payload builds the JSON that the page's service worker gets:
//
//	{"title": "…", "body": "…", "image": "https://…", "link": "https://…",
//	 "data": {…}, "badge": 3, "notification": "ID", "openToken": "…", "tag": "…", "sound": "none",
//	 "silent": true}
//
// What is empty is left out. The tag is the collapse id: a message with the same
// one replaces what is shown. The webpush option is laid over the whole: objects
// inside are merged, everything else is replaced, and a null takes a key out.
func payload(m *notifications.Message, push *notifications.Push) ([]byte, error) {
	whole := map[string]any{}
	put := func(key, value string) {
		if value != "" {
			whole[key] = value
		}
	}
	put("title", m.Title)
	put("body", m.Body)
	put("image", m.Image)
	put("link", m.Link)
	put("notification", m.NotificationID)
	put("openToken", m.OpenToken)
	put("tag", push.CollapseID)
	put("sound", push.Sound)
	if len(m.Data) > 0 {
		whole["data"] = maps.Clone(m.Data)
	}
	if push.Badge != nil {
		whole["badge"] = *push.Badge
	}
	if push.Silent {
		whole["silent"] = true
	}
	if len(push.WebPush) > 0 {
		raw, err := encode(push.WebPush)
		if err != nil {
			return nil, errors.New("the webpush option cannot be written as JSON")
		}
		if raw, err = mergeInto(whole, raw); err != nil {
			return nil, err
		}
		return raw, nil
	}
	return encodeWhole(whole)
}

// mergeInto lays the option's JSON over a message. Both are decoded first: data and
// option belong to many messages.
func mergeInto(whole map[string]any, option []byte) ([]byte, error) {
	raw, err := encodeWhole(whole)
	if err != nil {
		return nil, err
	}
	var base, over map[string]any
	if err := errors.Join(decode(raw, &base), decode(option, &over)); err != nil {
		return nil, errors.New("the webpush option cannot be written as JSON")
	}
	delete(over, urgencyKey)
	merge(base, over)
	return encodeWhole(base)
}

func merge(base, over map[string]any) {
	for key, value := range over {
		if value == nil {
			delete(base, key)
			continue
		}
		inner, ok := value.(map[string]any)
		if outer, both := base[key].(map[string]any); ok && both {
			merge(outer, inner)
			continue
		}
		base[key] = value
	}
}

func encodeWhole(whole map[string]any) ([]byte, error) {
	raw, err := encode(whole)
	if err != nil {
		return nil, errors.New("its data cannot be written as JSON")
	}
	return raw, nil
}

// encode writes JSON without the escapes for HTML, which would cost bytes.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// decode reads JSON and keeps numbers as they are written.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}
