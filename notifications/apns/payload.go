package apns

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/json/jsontext"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/sideshow/apns2"

	"github.com/groundworkhq/groundwork/notifications"
)

const (
	maxPayload     = 4096 // bytes
	maxVoIPPayload = 5120
	maxCollapseID  = 64
	// maxToken is generous: Apple says that a device token may get longer.
	maxToken = 200
	maxTopic = 255
)

// topicSuffixes are what follows the bundle id in the topic of each push type.
// mdm is missing: its topic stands in a certificate of another kind.
var topicSuffixes = map[string]string{
	string(apns2.PushTypeAlert):        "",
	string(apns2.PushTypeBackground):   "",
	string(apns2.PushTypeLocation):     ".location-query",
	string(apns2.PushTypeVOIP):         ".voip",
	string(apns2.PushTypeComplication): ".complication",
	string(apns2.PushTypeFileProvider): ".pushkit.fileprovider",
	string(apns2.PushTypeLiveActivity): ".push-type.liveactivity",
	string(apns2.PushTypePushToTalk):   ".voip-ptt",
}

// pushTypeKey of the apns option chooses another push type; it does not become
// part of the payload.
const pushTypeKey = "pushType"

// openTokenKey is where the app finds what to report the opening with.
const openTokenKey = "openToken"

// Faults of the target, not of the content.
var (
	errBadToken = errors.New("this is not an Apple device token")
	errBadApp   = errors.New("this is not a bundle id")
)

// request is a message as it goes to Apple.
type request struct {
	profile
	token    string
	id       string
	body     []byte
	ownTopic bool // the topic is the provider's bundle id, not what the device said
	special  bool // of a push type with a topic of its own
}

// newRequest translates a message. Errors are [errBadToken], [errBadApp], or
// about the content and the end of a sentence.
func newRequest(m *notifications.Message, bundleID string) (*request, error) {
	push := m.Push
	if push == nil {
		push = &notifications.Push{}
	}
	r := &request{token: m.Target.Address, id: apnsID(m.DeliveryID), ownTopic: true}
	if !isHex(r.token) || len(r.token) > maxToken {
		return nil, errBadToken
	}
	r.topic = bundleID
	if d := m.Target.Device; d != nil && d.App != "" && d.App != bundleID {
		r.topic, r.ownTopic = d.App, false
		if !isBundleID(d.App) {
			return nil, errBadApp
		}
	}
	r.pushType, r.priority = string(apns2.PushTypeAlert), strconv.Itoa(apns2.PriorityHigh)
	if push.Silent {
		r.pushType = string(apns2.PushTypeBackground)
	}
	if given, ok := push.APNs[pushTypeKey]; ok {
		r.pushType, _ = given.(string)
		suffix, ok := topicSuffixes[r.pushType]
		if !ok {
			return nil, fmt.Errorf("%q is not a push type that can be sent: use one of %s", fmt.Sprint(given), strings.Join(slices.Sorted(maps.Keys(topicSuffixes)), ", "))
		}
		r.topic, r.special = r.topic+suffix, suffix != ""
	}
	switch {
	case push.Silent || r.pushType == string(apns2.PushTypeBackground):
		// Apple refuses 10 for a push that shows nothing.
		r.priority = strconv.Itoa(apns2.PriorityLow)
	case push.Priority == "normal":
		r.priority = strconv.Itoa(apns2.PriorityLow)
	}
	if len(push.CollapseID) > maxCollapseID {
		return nil, fmt.Errorf("the collapse id has %d bytes, and Apple takes %d: choose a shorter one", len(push.CollapseID), maxCollapseID)
	}
	if !isHeaderValue(push.CollapseID) {
		return nil, errors.New("the collapse id has characters that cannot be sent: use letters, digits and signs")
	}
	r.collapseID = push.CollapseID
	if !push.Expires.IsZero() {
		r.expiration = strconv.FormatInt(max(push.Expires.Unix(), 0), 10)
	}
	var err error
	if r.body, err = payload(m, push); err != nil {
		return nil, err
	}
	most := maxPayload
	if r.pushType == string(apns2.PushTypeVOIP) {
		most = maxVoIPPayload
	}
	if len(r.body) > most && m.OpenToken != "" {
		plain := *m // what it says matters more than who opens it
		plain.OpenToken = ""
		if r.body, err = payload(&plain, push); err != nil {
			return nil, err
		}
	}
	if len(r.body) > most {
		return nil, fmt.Errorf("it has %d bytes, and Apple takes %d: shorten the text or the data", len(r.body), most)
	}
	return r, nil
}

// payload builds the JSON of a message.
//
// Data becomes keys of its own beside "aps", and image, link and openToken are more.
// The apns option is laid over the whole: objects inside are merged, everything
// else is replaced.
func payload(m *notifications.Message, push *notifications.Push) ([]byte, error) {
	b := make([]byte, 0, 256)
	b = append(b, `{"aps":{`...)
	if push.Silent {
		b = append(b, `"content-available":1`...)
	} else {
		b = append(b, `"alert":{`...)
		if m.Title != "" {
			b = appendString(append(b, `"title":`...), m.Title)
		}
		if m.Body != "" {
			if m.Title != "" {
				b = append(b, ',')
			}
			b = appendString(append(b, `"body":`...), m.Body)
		}
		b = append(b, '}')
		if push.Badge != nil {
			b = strconv.AppendInt(append(b, `,"badge":`...), int64(*push.Badge), 10)
		}
		switch push.Sound {
		case "":
			b = append(b, `,"sound":"default"`...)
		case "none":
		default:
			b = appendString(append(b, `,"sound":`...), push.Sound)
		}
		if m.Image != "" {
			// Only an extension of the app can fetch the image.
			b = append(b, `,"mutable-content":1`...)
		}
	}
	b = append(b, '}')
	if len(m.Data) > 0 {
		for _, key := range slices.Sorted(maps.Keys(m.Data)) {
			if key == "aps" || key == "image" && m.Image != "" || key == "link" && m.Link != "" || key == openTokenKey && m.OpenToken != "" {
				continue
			}
			value, err := encode(m.Data[key])
			if err != nil {
				return nil, fmt.Errorf("the data %q cannot be written as JSON", key)
			}
			b = append(appendString(append(b, ','), key), ':')
			b = append(b, value...)
		}
	}
	if m.Image != "" {
		b = appendString(append(b, `,"image":`...), m.Image)
	}
	if m.Link != "" {
		b = appendString(append(b, `,"link":`...), m.Link)
	}
	if m.OpenToken != "" {
		b = appendString(append(b, `,"`+openTokenKey+`":`...), m.OpenToken)
	}
	b = append(b, '}')
	if _, onlyType := push.APNs[pushTypeKey]; len(push.APNs) == 0 || onlyType && len(push.APNs) == 1 {
		return b, nil
	}
	var whole map[string]any
	if err := decode(b, &whole); err != nil {
		return nil, fmt.Errorf("it cannot be put together (%w)", err)
	}
	option, err := encode(push.APNs)
	if err != nil {
		return nil, errors.New("the apns option cannot be written as JSON")
	}
	var over map[string]any // a copy: the option belongs to many messages
	if err := decode(option, &over); err != nil {
		return nil, errors.New("the apns option cannot be written as JSON")
	}
	delete(over, pushTypeKey)
	if aps, ok := over["aps"]; ok {
		if _, ok := aps.(map[string]any); !ok {
			return nil, errors.New(`"aps" in the apns option is not an object such as {"thread-id": "orders"}`)
		}
	}
	merge(whole, over)
	return encode(whole)
}

// merge lays over over base. A null takes a key out.
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

// appendString appends a JSON string; what is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	out, err := jsontext.AppendQuote(b, s)
	if err != nil {
		out, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return out
}

// encode writes JSON without the escapes for HTML, which would cost bytes.
func encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return appendString(nil, v), nil
	case bool:
		return strconv.AppendBool(nil, v), nil
	case int:
		return strconv.AppendInt(nil, int64(v), 10), nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1e15 {
			return strconv.AppendInt(nil, int64(v), 10), nil
		}
	}
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

// apnsID derives a UUID from a delivery, so that a repeat is the same
// notification to Apple and to whoever searches its logs. Empty stays empty.
func apnsID(deliveryID string) string {
	if deliveryID == "" {
		return ""
	}
	// No secret: the delivery's id has 80 random bits already.
	hash := fnv.New128a()
	_, _ = hash.Write([]byte(deliveryID)) // never fails
	sum := hash.Sum(make([]byte, 0, 16))
	sum[6] = sum[6]&0x0f | 0x80 // version 8: by one's own rule (RFC 9562)
	sum[8] = sum[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[:8], sum[:4])
	hex.Encode(out[9:13], sum[4:6])
	hex.Encode(out[14:18], sum[6:8])
	hex.Encode(out[19:23], sum[8:10])
	hex.Encode(out[24:], sum[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return s != ""
}

func isBundleID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '.' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxTopic
}

// isHeaderValue: an HTTP/2 peer ends the stream, or the connection, over other
// characters.
func isHeaderValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return strings.TrimSpace(s) == s
}
