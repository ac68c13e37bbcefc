package notifications

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
)

// Actions of a provider: what the owner asks for, empty again once taken.
const (
	ProviderActionCheck  = "check"
	ProviderActionResume = "resume"
)

// sealedPrefix marks a stored secret. What follows is base64 of what the box
// made for this row's id.
const sealedPrefix = "sealed:"

const errSecretClosed = plainError("The stored password or key cannot be opened: it was encrypted with another GROUNDWORK_KEY. Start with the former GROUNDWORK_KEY, or enter the password or key again.")

// secretPurpose binds a secret to its row. The two SMS channels are part of it: a
// row whose channel was changed in the database itself opens nothing, so that a
// sender of codes never becomes one of offers.
func secretPurpose(id string, ch ProviderChannel) string {
	purpose := "provider:" + id
	if ch.Channel() == ChannelSMS {
		purpose += ":" + string(ch)
	}
	return purpose
}

func sealSecret(box SecretBox, id string, ch ProviderChannel, plain string) (string, error) {
	sealed, err := box.Seal(secretPurpose(id, ch), []byte(plain))
	if err != nil {
		return "", fmt.Errorf("seal secret of provider %s: %w", id, err)
	}
	return sealedPrefix + base64.RawStdEncoding.EncodeToString(sealed), nil
}

// openSecret returns the secret of a row, or [errSecretClosed].
func openSecret(box SecretBox, id string, ch ProviderChannel, stored string) (string, error) {
	if stored == "" {
		return "", nil
	}
	encoded, ok := strings.CutPrefix(stored, sealedPrefix)
	sealed, err := base64.RawStdEncoding.DecodeString(encoded)
	if !ok || err != nil {
		return "", errSecretClosed
	}
	plain, err := box.Open(secretPurpose(id, ch), sealed)
	if err != nil {
		return "", errSecretClosed
	}
	return string(plain), nil
}

// storedRow returns the row that a save is about to overwrite; nil when it is
// new.
func (p *Providers) storedRow(app core.App, r *core.Record) (*providerRow, error) {
	if r.IsNew() {
		return nil, nil
	}
	id, _ := r.LastSavedPK().(string)
	return p.row(app, id)
}

// Restore undoes whatever a save by anybody but the server may not change in a
// row that is set up elsewhere. Call it before the record is validated, so that
// nothing is refused for it, and again by [Providers.Take].
func (p *Providers) Restore(app core.App, r *core.Record) error {
	old, err := p.storedRow(app, r)
	if err != nil {
		return err
	}
	restoreProvider(r, old)
	return nil
}

func restoreProvider(r *core.Record, old *providerRow) {
	if old == nil || old.source == SourceDashboard {
		return
	}
	for _, field := range []string{"name", "channel", "config", "secret", "senderId", "ratePerSecond"} {
		r.SetRaw(field, old.record.GetRaw(field))
	}
}

// Take makes a save by anybody but the server fit to be stored, in its
// transaction: refuses what is wrong, seals the secret, takes the action. after
// is to be called when the row has been written. The error is
// [validation.Errors] when the person who saves can mend it.
func (p *Providers) Take(txApp core.App, r *core.Record) (after func() error, err error) {
	old, err := p.storedRow(txApp, r)
	if err != nil {
		return nil, err
	}
	restoreProvider(r, old)
	next := newProviderRow(r)
	rows, err := p.rows(txApp)
	if err != nil {
		return nil, err
	}
	if problems := checkProvider(next, old, rows); len(problems) > 0 {
		return nil, problems
	}
	if err := p.takeSecret(r, old); err != nil {
		return nil, err
	}
	next = newProviderRow(r)

	action := r.GetString("action")
	r.Set("action", "")
	changed := old == nil || !sameJSON(next.config, old.config) || next.sealed != old.sealed ||
		next.senderID != old.senderID || next.rate != old.rate
	resumes := false
	switch {
	case old == nil:
		r.Set("state", "") // nobody has tried it yet
	case old.enabled && !next.enabled:
		// What waited for this one is for another to send, or for nobody.
		resumes = old.state != ProviderOK
	case !old.enabled && next.enabled:
		// Not tried since it was switched on: the check then counts as news.
		r.Set("state", "")
		r.Set("stateReason", "")
	case action == ProviderActionResume && old.state == ProviderPaused:
		r.Set("state", string(ProviderOK))
		r.Set("stateReason", "")
		resumes = next.enabled
	}
	// Resuming takes the owner's word for it: the next message shows.
	checks := next.enabled && (changed || !resumes) || action == ProviderActionCheck || action == ProviderActionResume && !resumes

	return func() error {
		if resumes {
			if err := p.enqueueResumed(txApp, next, time.Time{}); err != nil {
				return err
			}
		}
		if checks {
			return p.enqueueCheck(txApp, r.Id, action != "")
		}
		return nil
	}, nil
}

// takeSecret leaves in the record what is to be stored: the sealed secret.
func (p *Providers) takeSecret(r *core.Record, old *providerRow) error {
	given := r.GetString("secret")
	switch {
	case given == "" && old != nil:
		r.Set("secret", old.sealed)
		return nil
	case given == "" || old != nil && given == old.sealed:
		return nil
	}
	if strings.HasPrefix(given, sealedPrefix) {
		// A record that was read, kept and saved again by Go code.
		if _, err := openSecret(p.opts.Box, r.Id, ProviderChannel(r.GetString("channel")), given); err == nil {
			return nil
		}
	}
	sealed, err := sealSecret(p.opts.Box, r.Id, ProviderChannel(r.GetString("channel")), given)
	if err != nil {
		return err
	}
	r.Set("secret", sealed)
	return nil
}

// ElsewhereError means that a provider cannot be deleted here.
type ElsewhereError struct {
	// Sentence says where, for the owner.
	Sentence string
}

// Error is the sentence.
func (e *ElsewhereError) Error() string { return e.Sentence }

// TakeDelete refuses the deletion of a row that would come back by itself
// ([*ElsewhereError]). after is to be called when the row is gone.
func (p *Providers) TakeDelete(txApp core.App, r *core.Record) (after func() error, err error) {
	row, err := p.row(txApp, r.Id)
	if err != nil {
		return nil, err
	}
	if row == nil {
		row = newProviderRow(r)
	}
	switch row.source {
	case SourceEnvironment:
		if row.channel == ProviderWebPush {
			return nil, &ElsewhereError{"Web Push is part of this server and cannot be deleted, because browsers have subscribed with its keys: switch it off here."}
		}
		return nil, &ElsewhereError{"This provider is set by the environment variables " + environmentVariables(row.channel) +
			": remove them and restart, or switch it off here."}
	case SourceSettings:
		return nil, &ElsewhereError{"This provider is PocketBase's own mail server: switch SMTP off in Settings > Mail settings, or switch it off here."}
	}
	return func() error {
		if row.enabled && row.state != ProviderOK {
			return p.enqueueResumed(txApp, row, time.Time{})
		}
		return nil
	}, nil
}

// checkProvider refuses what is wrong with a row whatever is done with it.
func checkProvider(next, old *providerRow, rows []*providerRow) validation.Errors {
	problems := validation.Errors{}
	refuse := func(field, code, sentence string) {
		if problems[field] == nil {
			problems[field] = validation.NewError(code, sentence)
		}
	}
	if old == nil && (strings.HasPrefix(next.id, "env") && slices.Contains(environmentIDs(), next.id) || next.id == SettingsProviderID) {
		refuse("id", "provider_id_taken", "This id is kept for a provider that is set up elsewhere: choose another one, or leave it empty.")
	}
	if old != nil && old.source != SourceDashboard {
		return problems // the rest is not its owner's to change
	}
	if math.IsNaN(next.rate) || next.rate < 0 {
		refuse("ratePerSecond", "provider_rate", "This must be a number from 0 up; 0 means as fast as the other side takes them.")
	}
	if sentence := checkConfig(next.channel, next.config, next.senderID); sentence != "" {
		refuse("config", "provider_config", sentence)
	}
	if isEmail(next.channel) && next.senderID != "" && !isAddress(next.senderID) {
		refuse("senderId", "provider_sender", `For e-mail this is an address such as hello@example.com; the name goes into config as "fromName".`)
	}
	if other := sameSender(rows, next); other != nil {
		refuse("senderId", "provider_sender_shared", sameSenderSentence(next.senderID, other))
	}
	return problems
}

func isEmail(ch ProviderChannel) bool {
	return ch == ProviderEmailTransactional || ch == ProviderEmailPromotional
}

// sameSender returns a row of the other SMS channel with the same sender. One
// STOP to an offer would block codes, and in some countries the two must not
// share a sender by law.
func sameSender(rows []*providerRow, row *providerRow) *providerRow {
	var other ProviderChannel
	switch row.channel {
	case ProviderSMSTransactional:
		other = ProviderSMSPromotional
	case ProviderSMSPromotional:
		other = ProviderSMSTransactional
	default:
		return nil
	}
	sender := normalSender(row.senderID)
	for _, r := range rows {
		if sender != "" && r.channel == other && r.id != row.id && normalSender(r.senderID) == sender {
			return r
		}
	}
	return nil
}

func sameSenderSentence(sender string, other *providerRow) string {
	return fmt.Sprintf("%s is also the sender of %q (%s): transactional and promotional SMS need two different senders.", sender, other.name, other.channel)
}

// normalSender makes the ways to write one phone number or sender name equal.
func normalSender(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r): // of any alphabet; spaces are written in many ways too
			return r
		default:
			return -1
		}
	}, strings.ToLower(s))
	return strings.TrimPrefix(s, "00") // as people write the plus
}

// configKeys are the keys of config by channel; see [ProviderConfig].
func configKeys(ch ProviderChannel) []string {
	switch ch.Channel() {
	case ChannelEmail:
		return []string{"host", "port", "username", "tls", "from", "fromName", "authMethod", "localName"}
	case ChannelSMS:
		return []string{"accountSid", "endpoint", "pricePerSegment", "currency"}
	}
	switch ch {
	case ProviderAPNs:
		return []string{"keyId", "teamId", "bundleId", "environment", "endpoint"}
	case ProviderFCM:
		return []string{"projectId", "packageName", "endpoint"}
	case ProviderWebPush:
		return []string{"subject", "publicKey"}
	default:
		return nil
	}
}

// configExample is shown to somebody who wrote no object.
func configExample(ch ProviderChannel) string {
	switch {
	case ch.Channel() == ChannelSMS:
		return `{"accountSid": "AC…"}`
	case ch == ProviderAPNs:
		return `{"keyId": "ABC123DEFG", "teamId": "DEF123GHIJ", "bundleId": "com.example.shop"}`
	case ch == ProviderFCM:
		return `{"projectId": "my-shop"}`
	case ch == ProviderWebPush:
		return `{"subject": "mailto:hello@example.com"}`
	default:
		return `{"host": "smtp.example.com", "port": 587}`
	}
}

// secretKeys are what people take for the place of a password or key.
var secretKeys = []string{"password", "pass", "secret", "key", "authtoken", "token", "credentials", "serviceaccount", "p8", "p12"}

// checkConfig returns all that is wrong with a config, in sentences; empty when
// nothing is. What only the provider can know is found by the check of the row.
func checkConfig(ch ProviderChannel, raw, senderID string) string {
	config := map[string]any{}
	if raw != "" && raw != "null" && raw != `""` {
		if err := json.Unmarshal([]byte(raw), &config); err != nil || config == nil {
			return "This must be a JSON object such as " + configExample(ch) + "."
		}
	}
	keys := configKeys(ch)
	if keys == nil {
		return ""
	}
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	for _, key := range sortedKeysOf(config) {
		switch {
		case slices.Contains(keys, key):
		case slices.Contains(secretKeys, strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(key))):
			say("Passwords and keys do not belong here, where they could be read: put it into the field secret and remove %q.", key)
		default:
			say("%q is not known here. Known are %s.", key, strings.Join(keys, ", "))
		}
	}
	texts := map[string]string{}
	for _, key := range keys {
		value, given := config[key]
		if key == "port" || key == "pricePerSegment" || !given || value == nil {
			continue
		}
		text, ok := value.(string)
		switch {
		case !ok:
			say("%q must be a text in quotation marks.", key)
		case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 127 }):
			say("%q holds a line break or another invisible character: type it again.", key)
		default:
			texts[key] = text
		}
	}
	if endpoint := texts["endpoint"]; endpoint != "" {
		if u, err := url.Parse(endpoint); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			say(`"endpoint" must be a web address such as https://gateway.example.com; leave it out to use the provider's own.`)
		}
	}
	switch {
	case ch.Channel() == ChannelSMS:
		var price *float64
		if value := config["pricePerSegment"]; value != nil {
			number, ok := value.(float64)
			if !ok {
				number = -1
			}
			price = &number
		}
		if sentence := checkPrice(price, texts["currency"]); sentence != "" {
			say("%s", sentence)
		}
		if sid := texts["accountSid"]; !accountSID.MatchString(sid) {
			say(`"accountSid" is AC and 32 digits or letters from a to f, as Twilio's console shows it.`)
		}
		if senderID == "" {
			say("The field senderId is empty: enter the phone number, sender name or messaging service (MG…) that texts come from.")
		}
	case ch == ProviderAPNs:
		if env := texts["environment"]; env != "" && env != "production" && env != "sandbox" {
			say(`"environment" is "production" (App Store and TestFlight) or "sandbox" (builds from Xcode).`)
		}
		for _, key := range []string{"keyId", "teamId"} {
			if id := texts[key]; id != "" && !appleID.MatchString(id) {
				say("%q has ten letters and digits, as Apple's developer account shows it.", key)
			}
		}
		if (texts["keyId"] == "") != (texts["teamId"] == "") {
			say(`"keyId" and "teamId" belong together: set both for a .p8 key, or none for a certificate.`)
		}
		if texts["bundleId"] == "" {
			say(`"bundleId" is missing: the id of your app, such as com.example.shop.`)
		}
	case ch.Channel() == ChannelEmail:
		wrong = append(wrong, checkMailConfig(config, texts, senderID)...)
	}
	return strings.Join(wrong, " ")
}

var (
	accountSID = regexp.MustCompile(`^AC[0-9a-fA-F]{32}$`)
	appleID    = regexp.MustCompile(`^[A-Za-z0-9]{10}$`)
)

// checkMailConfig returns what is wrong with the config of a mail server beyond
// its keys and types; texts are its text values.
func checkMailConfig(config map[string]any, texts map[string]string, senderID string) []string {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if host, given := texts["host"]; !given && config["host"] == nil || given && host == "" {
		say(`"host" is missing: the name of the mail server, such as smtp.example.com.`)
	} else if given && !isHost(host) {
		say(`"host" is only the name or number of the mail server, such as smtp.example.com: without port, spaces or https://.`)
	}
	switch port, ok := config["port"].(float64); {
	case config["port"] == nil: // the usual one for tls
	case !ok || port != math.Trunc(port) || port < 1 || port > 65535:
		say(`"port" must be a whole number from 1 to 65535, without quotation marks.`)
	}
	if !slices.Contains([]string{"", "starttls", "tls", "none"}, strings.ToLower(texts["tls"])) {
		say(`"tls" is "starttls" (usual), "tls" (usually port 465) or "none".`)
	}
	if !slices.Contains([]string{"", "PLAIN", "LOGIN", "CRAM-MD5"}, strings.ToUpper(texts["authMethod"])) {
		say(`"authMethod" is "PLAIN", "LOGIN", "CRAM-MD5", or empty for whichever the server offers.`)
	}
	from, given := texts["from"]
	switch {
	case (!given && config["from"] == nil || given && from == "") && senderID == "":
		say(`"from" is missing: the address that messages come from, such as hello@example.com.`)
	case given && from != "" && !isAddress(from):
		say(`"from" must be an address such as hello@example.com; the name goes into "fromName".`)
	}
	if name, given := texts["localName"]; given && name != "" && !isHost(name) {
		say(`"localName" is the name by which this server greets, such as app.example.com.`)
	}
	return wrong
}

func sortedKeysOf(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func isAddress(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && a.Name == ""
}

// isHost accepts a name or an IP address, IPv6 with or without brackets.
func isHost(s string) bool {
	if net.ParseIP(strings.Trim(s, "[]")) != nil {
		return true
	}
	return len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_' && r <= 127
	}) && strings.Trim(s, ".-") != ""
}

// sameJSON compares values, not spelling: the dashboard sends config back in an
// order of its own.
func sameJSON(a, b string) bool {
	if a == b {
		return true
	}
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	xs, errX := json.Marshal(x)
	ys, errY := json.Marshal(y)
	return errX == nil && errY == nil && string(xs) == string(ys)
}
