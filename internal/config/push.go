package config

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/url"
	"regexp"
	"strings"
)

// APNs is Apple's push service, with a .p8 key.
type APNs struct {
	Key, KeyID, TeamID, Topic, Endpoint string
	Environment                         string // production or sandbox
}

// FCM is Google's push service.
type FCM struct {
	Credentials string // the service account's JSON
	ProjectID   string // the one in Credentials
	Endpoint    string
}

// Twilio sends SMS. One of the two senders may be empty.
type Twilio struct {
	AccountSID, AuthToken, Endpoint string
	Transactional, Promotional      string
}

// WebPush is sent to browsers; it needs no account and no variable.
type WebPush struct {
	Subject      string   // mailto:… or https://…; empty: from the mail settings
	PrivateHosts []string // host or host:port
}

var (
	appleID    = regexp.MustCompile(`^[A-Za-z0-9]{10}$`)
	accountSID = regexp.MustCompile(`^AC[0-9a-fA-F]{32}$`)
	// smsSender is a number, a messaging service, a short code or a name.
	smsSender = regexp.MustCompile(`^(\+[1-9][0-9]{6,14}|MG[0-9a-fA-F]{32}|[0-9]{3,8}|[A-Za-z0-9 ]{1,11})$`)
)

// anySet reports whether one of the variables is set, and which one.
func (r *reader) anySet(names ...string) (string, bool) {
	for _, name := range names {
		if r.isSet(name) {
			return name, true
		}
	}
	return "", false
}

// need returns a variable that goes together with the one called because.
func (r *reader) need(name, because, what string) string {
	value := strings.TrimSpace(r.get(name))
	if value == "" && !r.failed[name] {
		r.problem("%s is set and %s is not: set it to %s.", because, name, what)
	}
	return value
}

func (r *reader) endpoint(name string) string {
	value := strings.TrimRight(strings.TrimSpace(r.get(name)), "/")
	if value != "" {
		if u, err := url.Parse(value); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			r.problem("%s is %q, which is not a web address such as https://gateway.example.com.", name, value)
		}
	}
	return value
}

func (r *reader) apns() *APNs {
	a := &APNs{Environment: r.oneOf("APNS_ENVIRONMENT", "production", "production", "sandbox"), Endpoint: r.endpoint("APNS_ENDPOINT")}
	because, set := r.anySet("APNS_KEY", "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC")
	if !set {
		return nil
	}
	a.Key = r.need("APNS_KEY", because, "the text of the .p8 file, or APNS_KEY_FILE to the file's path")
	a.KeyID = r.need("APNS_KEY_ID", because, "the key's id, ten letters and digits")
	a.TeamID = r.need("APNS_TEAM_ID", because, "your team's id, ten letters and digits")
	a.Topic = r.need("APNS_TOPIC", because, "your app's bundle id, such as com.example.shop")
	// Some ways to set a variable allow no line breaks.
	a.Key = strings.ReplaceAll(a.Key, `\n`, "\n")
	if a.Key != "" && !isSigningKey(a.Key) {
		r.problem("APNS_KEY is not the text of a .p8 file from Apple: it starts with -----BEGIN PRIVATE KEY----- and holds an ECDSA key. Set APNS_KEY_FILE to the file's path.")
	}
	for name, value := range map[string]string{"APNS_KEY_ID": a.KeyID, "APNS_TEAM_ID": a.TeamID} {
		if value != "" && !appleID.MatchString(value) {
			r.problem("%s is %q; it has ten letters and digits, as Apple's developer account shows it.", name, value)
		}
	}
	return a
}

func isSigningKey(text string) bool {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return false
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	_, ok := key.(*ecdsa.PrivateKey)
	return err == nil && ok
}

func (r *reader) fcm() *FCM {
	f := &FCM{Endpoint: r.endpoint("FCM_ENDPOINT")}
	f.Credentials = strings.TrimSpace(r.get("FCM_CREDENTIALS"))
	if f.Credentials == "" {
		return nil
	}
	var account struct {
		Type        string `json:"type"`
		ProjectID   string `json:"project_id"`
		ClientEmail string `json:"client_email"`
		PrivateKey  string `json:"private_key"`
	}
	switch err := json.Unmarshal([]byte(f.Credentials), &account); {
	case err != nil:
		r.problem("FCM_CREDENTIALS is not JSON: it is the whole content of the service account's file from the Firebase console. Set FCM_CREDENTIALS_FILE to the file's path.")
	case account.Type != "service_account" || account.ProjectID == "" || account.ClientEmail == "" || account.PrivateKey == "":
		r.problem("FCM_CREDENTIALS is not a service account: it needs type, project_id, client_email and private_key. Make one in the Firebase console under Project settings > Service accounts.")
	}
	f.ProjectID = account.ProjectID
	return f
}

func (r *reader) twilio() *Twilio {
	t := &Twilio{Endpoint: r.endpoint("TWILIO_ENDPOINT")}
	because, set := r.anySet("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_TRANSACTIONAL_SENDER", "TWILIO_PROMOTIONAL_SENDER")
	if !set {
		return nil
	}
	t.AccountSID = r.need("TWILIO_ACCOUNT_SID", because, "your account's id, AC and 32 more characters")
	t.AuthToken = r.need("TWILIO_AUTH_TOKEN", because, "the account's auth token")
	if t.AccountSID != "" && !accountSID.MatchString(t.AccountSID) {
		r.problem("TWILIO_ACCOUNT_SID is %q; it is AC and 32 digits or letters from a to f, as Twilio's console shows it.", t.AccountSID)
	}
	t.Transactional, t.Promotional = strings.TrimSpace(r.get("TWILIO_TRANSACTIONAL_SENDER")), strings.TrimSpace(r.get("TWILIO_PROMOTIONAL_SENDER"))
	for name, value := range map[string]string{"TWILIO_TRANSACTIONAL_SENDER": t.Transactional, "TWILIO_PROMOTIONAL_SENDER": t.Promotional} {
		if value != "" && !smsSender.MatchString(value) {
			r.problem("%s is %q. Use a phone number such as +15005550006, a messaging service (MG…), a short code, or a name of at most 11 letters and digits.", name, value)
		}
	}
	switch {
	case t.Transactional == "" && t.Promotional == "" && !r.failed["TWILIO_TRANSACTIONAL_SENDER"] && !r.failed["TWILIO_PROMOTIONAL_SENDER"]:
		r.problem("%s is set and there is no sender: set TWILIO_TRANSACTIONAL_SENDER, TWILIO_PROMOTIONAL_SENDER, or both to two different ones.", because)
	case t.Transactional != "" && t.Transactional == t.Promotional:
		r.problem("TWILIO_TRANSACTIONAL_SENDER and TWILIO_PROMOTIONAL_SENDER are the same: a STOP to an offer would block codes too. Use two different senders.")
	}
	return t
}

func (r *reader) webPush() (w WebPush) {
	subject := strings.TrimSpace(r.get("WEBPUSH_SUBJECT"))
	if isAddress(subject) {
		subject = "mailto:" + subject
	}
	u, err := url.Parse(subject)
	switch address, isMail := strings.CutPrefix(subject, "mailto:"); {
	case subject == "":
	case isMail && isAddress(address), err == nil && u.Scheme == "https" && u.Hostname() != "" && u.User == nil:
		w.Subject = subject
	default:
		r.problem("WEBPUSH_SUBJECT is %q. It tells push services how to reach you: use mailto:hello@example.com or https://example.com with your own domain.", subject)
	}
	w.PrivateHosts = r.privateHosts("WEBPUSH_PRIVATE_HOSTS", "push.intranet.example.com")
	return w
}

// privateHosts reads hosts that may lie in a private network, as host or host:port.
func (r *reader) privateHosts(variable, example string) (hosts []string) {
	for _, host := range strings.Split(r.get(variable), ",") {
		if host = strings.TrimSpace(host); host == "" {
			continue
		}
		name := host
		if h, port, err := net.SplitHostPort(host); err == nil && port != "" {
			name = h
		}
		if u, err := url.Parse("https://" + host); err != nil || u.Hostname() == "" || u.Host != host || name == "" {
			r.problem("%s has %q, which is not a host such as %s or 10.0.0.7:8443. Write no https:// and no path, and separate hosts with commas.", variable, host, example)
			continue
		}
		hosts = append(hosts, host)
	}
	return hosts
}
