package providertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	fcmapi "google.golang.org/api/fcm/v1"
)

// fcmViolation is what is wrong with a request's body, as Google reports it.
type fcmViolation struct{ field, description string }

func (v *fcmViolation) Error() string { return v.field + ": " + v.description }

func violation(field, format string, args ...any) error {
	return &fcmViolation{field, fmt.Sprintf(format, args...)}
}

// ParseFCM reads a request's body as strictly as Google does: only known fields,
// in either spelling, of the right type, with values that the enumerations have,
// and exactly one target. The types are those of Google's own client.
func ParseFCM(body []byte) (*fcmapi.SendMessageRequest, error) {
	var loose any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&loose); err != nil {
		return nil, violation("", "Invalid JSON payload received. %v", err)
	}
	if decoder.More() {
		return nil, violation("", "Invalid JSON payload received. Something follows it.")
	}
	canonical, err := lowerCamel("", loose, reflect.TypeFor[fcmapi.SendMessageRequest]())
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(canonical)
	if err != nil {
		return nil, violation("", "Invalid JSON payload received. %v", err)
	}
	strict := json.NewDecoder(bytes.NewReader(raw))
	strict.DisallowUnknownFields()
	request := &fcmapi.SendMessageRequest{}
	if err := strict.Decode(request); err != nil {
		return nil, violation("", "Invalid JSON payload received. %v", err)
	}
	return request, checkFCM(request)
}

// lowerCamel turns the keys of messages into the spelling of the Go types.
// The keys of maps and of free objects stay as they are.
func lowerCamel(path string, value any, t reflect.Type) (any, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	object, ok := value.(map[string]any)
	if !ok || t.Kind() != reflect.Struct {
		return value, nil
	}
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			fields[name] = t.Field(i).Type
		}
	}
	out := make(map[string]any, len(object))
	for key, one := range object {
		name := camel(key)
		field, known := fields[name]
		at := strings.TrimPrefix(path+"."+key, ".")
		if !known {
			return nil, violation(path, "Invalid JSON payload received. Unknown name %q at '%s': Cannot find field.", key, path)
		}
		if _, twice := out[name]; twice {
			return nil, violation(at, "Invalid value at '%s': it is there twice.", at)
		}
		converted, err := lowerCamel(at, one, field)
		if err != nil {
			return nil, err
		}
		out[name] = converted
	}
	return out, nil
}

func camel(name string) string {
	parts := strings.Split(name, "_")
	for i := 1; i < len(parts); i++ {
		if parts[i] != "" {
			parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
		}
	}
	return strings.Join(parts, "")
}

// FCMEnums are the values of the fields that are enumerations, by type and field
// name in Google's description of the API.
var FCMEnums = map[string][]string{
	"AndroidConfig.priority":                   {"NORMAL", "HIGH"},
	"AndroidNotification.notificationPriority": {"PRIORITY_UNSPECIFIED", "PRIORITY_MIN", "PRIORITY_LOW", "PRIORITY_DEFAULT", "PRIORITY_HIGH", "PRIORITY_MAX"},
	"AndroidNotification.visibility":           {"VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"},
	"AndroidNotification.proxy":                {"PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"},
}

var (
	fcmDuration = regexp.MustCompile(`^[0-9]+(\.[0-9]{1,9})?s$`)
	fcmLabel    = regexp.MustCompile(`^[a-zA-Z0-9-_.~%]{1,50}$`)
	fcmColour   = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)
	fcmTarget   = regexp.MustCompile(`^[A-Za-z0-9_-]+:[A-Za-z0-9_-]{8,}$|^[A-Za-z0-9_-]{22}$`)
)

func checkFCM(request *fcmapi.SendMessageRequest) error {
	m := request.Message
	if m == nil {
		return violation("message", "Invalid value at 'message': it is missing.")
	}
	targets := 0
	for _, target := range []string{m.Token, m.Fid, m.Topic, m.Condition} {
		if target != "" {
			targets++
		}
	}
	if targets != 1 {
		return violation("message", "Recipient of the message is not set, or set more than once.")
	}
	if err := checkData("message.data", m.Data); err != nil {
		return err
	}
	if n := m.Notification; n != nil {
		if err := checkURL("message.notification.image", n.Image); err != nil {
			return err
		}
	}
	if o := m.FcmOptions; o != nil && o.AnalyticsLabel != "" && !fcmLabel.MatchString(o.AnalyticsLabel) {
		return violation("message.fcm_options.analytics_label", "Invalid analytics label.")
	}
	if a := m.Android; a != nil {
		if err := checkAndroid(a); err != nil {
			return err
		}
	}
	if w := m.Webpush; w != nil {
		if err := checkData("message.webpush.data", w.Data); err != nil {
			return err
		}
		if err := checkFree("message.webpush.notification", w.Notification); err != nil {
			return err
		}
		if o := w.FcmOptions; o != nil && o.Link != "" && !strings.HasPrefix(o.Link, "https://") {
			return violation("message.webpush.fcm_options.link", "Invalid link: it must use https.")
		}
	}
	if a := m.Apns; a != nil {
		if err := checkApple(a); err != nil {
			return err
		}
	}
	return nil
}

func checkAndroid(a *fcmapi.AndroidConfig) error {
	if err := checkEnum("message.android.priority", "AndroidConfig.priority", strings.ToUpper(a.Priority)); err != nil {
		return err
	}
	if err := checkDuration("message.android.ttl", a.Ttl, 28*24*time.Hour); err != nil {
		return err
	}
	if err := checkData("message.android.data", a.Data); err != nil {
		return err
	}
	n := a.Notification
	if n == nil {
		return nil
	}
	const at = "message.android.notification."
	checks := []error{
		checkEnum(at+"notification_priority", "AndroidNotification.notificationPriority", n.NotificationPriority),
		checkEnum(at+"visibility", "AndroidNotification.visibility", n.Visibility),
		checkEnum(at+"proxy", "AndroidNotification.proxy", n.Proxy),
		checkURL(at+"image", n.Image),
	}
	for _, timing := range n.VibrateTimings {
		checks = append(checks, checkDuration(at+"vibrate_timings", timing, time.Hour))
	}
	if n.EventTime != "" {
		if _, err := time.Parse(time.RFC3339Nano, n.EventTime); err != nil {
			checks = append(checks, violation(at+"event_time", "Invalid time."))
		}
	}
	if n.NotificationCount < 0 || n.NotificationCount > 1<<31-1 {
		checks = append(checks, violation(at+"notification_count", "Invalid count."))
	}
	if n.Color != "" && !fcmColour.MatchString(n.Color) {
		checks = append(checks, violation(at+"color", "Invalid color."))
	}
	if len(n.TitleLocArgs) > 0 && n.TitleLocKey == "" || len(n.BodyLocArgs) > 0 && n.BodyLocKey == "" {
		checks = append(checks, violation(at+"title_loc_args", "Arguments without a key."))
	}
	if l := n.LightSettings; l != nil {
		if l.Color == nil {
			checks = append(checks, violation(at+"light_settings.color", "It is missing."))
		} else {
			for _, c := range []float64{l.Color.Red, l.Color.Green, l.Color.Blue, l.Color.Alpha} {
				if c < 0 || c > 1 {
					checks = append(checks, violation(at+"light_settings.color", "Not between 0 and 1."))
				}
			}
		}
		checks = append(checks, checkDuration(at+"light_settings.light_on_duration", l.LightOnDuration, time.Hour),
			checkDuration(at+"light_settings.light_off_duration", l.LightOffDuration, time.Hour))
	}
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkApple(a *fcmapi.ApnsConfig) error {
	if err := checkFree("message.apns.payload", a.Payload); err != nil {
		return err
	}
	var payload struct {
		Aps *struct {
			ContentAvailable any `json:"content-available"`
			Alert            any `json:"alert"`
		} `json:"aps"`
	}
	if len(a.Payload) > 0 {
		if err := json.Unmarshal(a.Payload, &payload); err != nil || payload.Aps == nil {
			return violation("message.apns.payload", "Invalid APNs payload: \"aps\" is missing or no object.")
		}
	}
	headers := map[string]string{}
	for key, value := range a.Headers {
		headers[strings.ToLower(key)] = value
	}
	if id := headers["apns-collapse-id"]; len(id) > 64 {
		return violation("message.apns.headers", "Invalid APNs header: apns-collapse-id is longer than 64 bytes.")
	}
	if headers["apns-push-type"] == "background" && headers["apns-priority"] != "5" {
		return violation("message.apns.headers", "Invalid APNs header: apns-priority must be 5 for background pushes.")
	}
	if priority := headers["apns-priority"]; priority != "" && !slices.Contains([]string{"1", "5", "10"}, priority) {
		return violation("message.apns.headers", "Invalid APNs header: apns-priority %q.", priority)
	}
	return nil
}

func checkFree(path string, raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		return violation(path, "Invalid value at '%s' (type.googleapis.com/google.protobuf.Struct).", path)
	}
	return nil
}

func checkEnum(path, name, value string) error {
	if value == "" || slices.Contains(FCMEnums[name], value) {
		return nil
	}
	return violation(path, "Invalid value at '%s' (%s), %q", path, name, value)
}

func checkDuration(path, value string, most time.Duration) error {
	if value == "" {
		return nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || !fcmDuration.MatchString(value) || d > most {
		return violation(path, "Invalid value at '%s' (type.googleapis.com/google.protobuf.Duration), %q", path, value)
	}
	return nil
}

func checkURL(path, value string) error {
	if value == "" {
		return nil
	}
	if u, err := url.Parse(value); err != nil || u.Host == "" {
		return violation(path, "Invalid URL.")
	}
	return nil
}

func checkData(path string, data map[string]string) error {
	for key := range data {
		if key == "" || key == "from" || key == "message_type" || strings.HasPrefix(key, "google.") || strings.HasPrefix(key, "gcm.") {
			return violation(path, "Invalid data payload key: %s", key)
		}
	}
	return nil
}

// contentBytes is what Google's limit of 4096 bytes is held against here: the
// texts and the data.
func contentBytes(m *fcmapi.Message) int {
	n := 0
	for key, value := range m.Data {
		n += len(key) + len(value)
	}
	if m.Notification != nil {
		n += len(m.Notification.Title) + len(m.Notification.Body)
	}
	if m.Apns != nil {
		n += len(m.Apns.Payload)
	}
	return n
}
