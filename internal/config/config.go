package config

import (
	"errors"
	"fmt"
	"io"
	"net/mail"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Values is what the variables say. Zero values mean "not set".
type Values struct {
	Env               string // local, staging or production; never empty
	SendOnlyTo        []string
	Key               string
	SuperuserEmail    string
	SuperuserPassword string
	SMTP              *SMTP
	PromotionalSMTP   *SMTP
	APNs              *APNs
	FCM               *FCM
	Twilio            *Twilio

	// PromotionalHours is PROMOTIONAL_HOURS: such as 08:00-21:00, or off; empty: not set.
	PromotionalHours string
	// DefaultTimezone is DEFAULT_TIMEZONE, an IANA name; empty: not set.
	DefaultTimezone string

	// Redis is REDIS_URL, checked; empty: none.
	Redis string
	// JobsDatabase is JOBS_DATABASE_URL, checked; empty: SQLite.
	JobsDatabase string
	// TrustedProxies is TRUSTED_PROXIES: the networks whose word about a client's
	// address is taken. Nil: not set.
	TrustedProxies []netip.Prefix
	WebPush        WebPush
	Promotional    Promotional

	// EmailWebhookSecret is EMAIL_WEBHOOK_SECRET; empty: the webhook is closed.
	EmailWebhookSecret string

	// WebhookPrivateHosts is WEBHOOK_PRIVATE_HOSTS: host or host:port.
	WebhookPrivateHosts []string
}

// SMTP is one mail server.
type SMTP struct {
	Host, Username, Password, TLS, From, FromName string
	Port                                          int // 0: the usual one of TLS
}

// Environments that APP_ENV knows.
const (
	EnvLocal      = "local"
	EnvStaging    = "staging"
	EnvProduction = "production"
)

// minKey is the shortest GROUNDWORK_KEY in bytes.
const minKey = 32

// minPassword is PocketBase's limit for superusers.
const minPassword = 8

// Error is everything that is wrong, a sentence each.
type Error struct{ Problems []string }

// Error implements error.
func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return "The configuration cannot be used: " + e.Problems[0]
	}
	return "The configuration cannot be used:\n  - " + strings.Join(e.Problems, "\n  - ")
}

// smtpNames are the variables of a mail server, without their prefix.
var smtpNames = []string{"HOST", "PORT", "USERNAME", "PASSWORD", "TLS", "FROM"}

// names are all variables, each also as NAME_FILE. Those of channels that are
// still to come are known already, so that setting them is not a mistake.
var names = func() []string {
	all := []string{
		"APP_ENV", "SEND_ONLY_TO", "GROUNDWORK_KEY", "SUPERUSER_EMAIL", "SUPERUSER_PASSWORD",
		"APNS_KEY", "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC", "APNS_ENVIRONMENT", "APNS_ENDPOINT",
		"FCM_CREDENTIALS", "FCM_ENDPOINT",
		"TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_TRANSACTIONAL_SENDER", "TWILIO_PROMOTIONAL_SENDER", "TWILIO_ENDPOINT",
		"REDIS_URL", "JOBS_DATABASE_URL", "TRUSTED_PROXIES", "DEFAULT_TIMEZONE", "PROMOTIONAL_HOURS",
		"WEBPUSH_SUBJECT", "WEBPUSH_PRIVATE_HOSTS", "WEBHOOK_PRIVATE_HOSTS",
		"EMAIL_WEBHOOK_SECRET", "PROMOTIONAL_EMAIL_CONSENT", "PROMOTIONAL_EMAIL_FOOTER", "PROMOTIONAL_SMS_OPT_OUT", "UNSUBSCRIBE_EMAIL",
	}
	for _, name := range smtpNames {
		all = append(all, "SMTP_"+name, "PROMOTIONAL_SMTP_"+name)
	}
	return all
}()

// prefixes are ours: another name that begins so is a typing error. REDIS_ and
// APP_ are not, other programs' variables begin so too.
var prefixes = []string{"GROUNDWORK_", "SUPERUSER_", "SMTP_", "PROMOTIONAL_", "APNS_", "FCM_", "TWILIO_", "WEBPUSH_", "UNSUBSCRIBE_", "EMAIL_WEBHOOK_", "WEBHOOK_PRIVATE", "JOBS_DATABASE_", "SEND_ONLY", "TRUSTED_PROX", "DEFAULT_TIMEZ", "DEFAULT_TIME_Z"}

// FromEnviron reads the process's environment.
func FromEnviron() (Values, error) { return Read(os.Environ(), readSecret) }

// maxSecret is longer than any key file. A name such as /dev/zero, or that of a
// log, would be read for ever otherwise.
const maxSecret = 1 << 20

func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(raw) > maxSecret {
		return nil, errors.New("it is larger than 1 MB, so it cannot be a password or key")
	}
	return raw, err
}

// WorkerFromEnviron reads what a worker on another machine needs: the jobs database
// and the providers.
func WorkerFromEnviron() (Values, error) { return ReadWorker(os.Environ(), readSecret) }

// ReadWorker is [Read] for a worker. The other variables may be there, as in a file that
// server and worker share, and mean nothing: a worker encrypts nothing and decides
// nothing. A name that is a typing error is told all the same.
func ReadWorker(environ []string, readFile func(string) ([]byte, error)) (Values, error) {
	r := newReader(environ, readFile)
	r.checkNames()
	v := Values{SMTP: r.smtp("SMTP_"), PromotionalSMTP: r.smtp("PROMOTIONAL_SMTP_"), JobsDatabase: r.jobsDatabase()}
	v.APNs, v.FCM, v.Twilio = r.apns(), r.fcm(), r.twilio()
	if len(r.problems) > 0 {
		return Values{}, &Error{r.problems}
	}
	return v, nil
}

func newReader(environ []string, readFile func(string) ([]byte, error)) *reader {
	r := &reader{values: map[string]string{}, readFile: readFile}
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok && !isServiceLink(name, value) {
			r.values[name] = value
		}
	}
	return r
}

// Read reads variables given as NAME=value. The error is an [*Error].
func Read(environ []string, readFile func(string) ([]byte, error)) (Values, error) {
	r := newReader(environ, readFile)
	r.checkNames()

	v := Values{Env: r.oneOf("APP_ENV", EnvLocal, EnvLocal, EnvStaging, EnvProduction)}
	for _, address := range strings.Split(r.get("SEND_ONLY_TO"), ",") {
		if address = strings.TrimSpace(address); address == "" {
			continue
		}
		if strings.Contains(address, "@") {
			if _, err := mail.ParseAddress("<" + address + ">"); err != nil {
				r.problem("SEND_ONLY_TO has %q, which is not an e-mail address. Separate addresses with commas.", address)
				continue
			}
		} else if !strings.HasPrefix(address, "+") {
			r.problem("SEND_ONLY_TO has %q, which is neither an e-mail address nor a phone number such as +15005550006.", address)
			continue
		}
		v.SendOnlyTo = append(v.SendOnlyTo, address)
	}

	v.Key = r.get("GROUNDWORK_KEY")
	switch {
	case v.Key == "" && v.Env == EnvProduction && !r.isSet("GROUNDWORK_KEY"):
		r.problem("GROUNDWORK_KEY is missing; it is required in production. Make one with: openssl rand -hex 32")
	case v.Key == "" && r.isSet("GROUNDWORK_KEY") && !r.failed["GROUNDWORK_KEY"]:
		r.problem("GROUNDWORK_KEY is empty. Make one with: openssl rand -hex 32")
	case v.Key != "" && len(v.Key) < minKey:
		r.problem("GROUNDWORK_KEY has %d characters; it needs at least %d. Make one with: openssl rand -hex 32", len(v.Key), minKey)
	}

	v.SuperuserEmail, v.SuperuserPassword = r.get("SUPERUSER_EMAIL"), r.get("SUPERUSER_PASSWORD")
	switch {
	case v.SuperuserEmail != "" && !isAddress(v.SuperuserEmail):
		r.problem("SUPERUSER_EMAIL is %q, which is not an e-mail address.", v.SuperuserEmail)
	case v.SuperuserEmail != "" && v.SuperuserPassword == "" && !r.failed["SUPERUSER_PASSWORD"]:
		r.problem("SUPERUSER_EMAIL is set and SUPERUSER_PASSWORD is not: set SUPERUSER_PASSWORD_FILE to a file with the password.")
	case v.SuperuserEmail == "" && v.SuperuserPassword != "":
		r.problem("SUPERUSER_PASSWORD is set and SUPERUSER_EMAIL is not: set both.")
	case v.SuperuserPassword != "" && len(v.SuperuserPassword) < minPassword:
		r.problem("SUPERUSER_PASSWORD has %d characters; it needs at least %d.", len(v.SuperuserPassword), minPassword)
	}

	v.SMTP = r.smtp("SMTP_")
	v.PromotionalSMTP = r.smtp("PROMOTIONAL_SMTP_")
	v.APNs, v.FCM, v.Twilio = r.apns(), r.fcm(), r.twilio()
	v.Redis, v.TrustedProxies = r.redis(), r.trustedProxies()
	v.JobsDatabase = r.jobsDatabase()
	v.WebPush = r.webPush()
	v.WebhookPrivateHosts = r.privateHosts("WEBHOOK_PRIVATE_HOSTS", "hooks.intranet.example.com")
	v.DefaultTimezone, v.PromotionalHours = r.timezone("DEFAULT_TIMEZONE"), r.hours("PROMOTIONAL_HOURS")
	v.Promotional, v.EmailWebhookSecret = r.promotional(), r.emailWebhookSecret()

	if len(r.problems) > 0 {
		return Values{}, &Error{r.problems}
	}
	return v, nil
}

type reader struct {
	values   map[string]string
	readFile func(string) ([]byte, error)
	problems []string
	read     map[string]string
	failed   map[string]bool
}

func (r *reader) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *reader) isSet(name string) bool {
	_, direct := r.values[name]
	_, file := r.values[name+"_FILE"]
	return direct || file
}

// get returns a variable, or the content of the file that NAME_FILE names,
// without the line break at its end.
func (r *reader) get(name string) string {
	if value, ok := r.read[name]; ok {
		return value
	}
	if r.read == nil {
		r.read, r.failed = map[string]string{}, map[string]bool{}
	}
	value := r.values[name]
	if path := r.values[name+"_FILE"]; path != "" {
		switch raw, err := r.readFile(path); {
		case value != "":
			r.problem("%s and %s_FILE are both set: keep one of them.", name, name)
			r.failed[name] = true
		case err != nil:
			why := err
			var pathError *os.PathError
			if errors.As(err, &pathError) {
				why = pathError.Err
			}
			r.problem("%s_FILE names %s, which cannot be read: %v.", name, path, why)
			r.failed[name] = true
		case strings.TrimSpace(string(raw)) == "":
			r.problem("%s_FILE names %s, which is empty.", name, path)
			r.failed[name] = true
		default:
			value = strings.TrimRight(string(raw), "\r\n")
		}
	}
	r.read[name] = value
	return value
}

func (r *reader) oneOf(name, fallback string, known ...string) string {
	value := r.get(name)
	if value == "" {
		return fallback
	}
	if !slices.Contains(known, value) {
		hint := ""
		if near := nearest(value, known); near != "" {
			hint = fmt.Sprintf(" Did you mean %s?", near)
		}
		r.problem("%s is %q. Use one of: %s.%s", name, value, strings.Join(known, ", "), hint)
		return fallback
	}
	return value
}

func (r *reader) smtp(prefix string) *SMTP {
	set := []string{}
	for _, name := range smtpNames {
		if r.isSet(prefix + name) {
			set = append(set, prefix+name)
		}
	}
	if len(set) == 0 {
		return nil
	}
	s := &SMTP{Host: strings.TrimSpace(r.get(prefix + "HOST")), Username: r.get(prefix + "USERNAME"), Password: r.get(prefix + "PASSWORD"),
		TLS: r.oneOf(prefix+"TLS", "starttls", "starttls", "tls", "none")}
	if s.Host == "" && !r.failed[prefix+"HOST"] {
		r.problem("%s is set and %sHOST is not: set it to the name of the mail server.", set[0], prefix)
	}
	if _, rest, ok := strings.Cut(s.Host, "://"); ok {
		r.problem("%sHOST is %q: write only the name of the mail server, such as %s.", prefix, s.Host, strings.TrimRight(rest, "/"))
	} else if host, port, ok := strings.Cut(s.Host, ":"); ok && !strings.Contains(port, ":") {
		r.problem("%sHOST is %q: write the port into %sPORT, and only %s here.", prefix, s.Host, prefix, host)
	}
	if value := strings.TrimSpace(r.get(prefix + "PORT")); value != "" {
		port, err := strconv.Atoi(value)
		if err != nil || port < 1 || port > 65535 {
			r.problem("%sPORT is %q. Use a number from 1 to 65535, usually 587 or 465.", prefix, value)
		}
		s.Port = port
	}
	switch from := r.get(prefix + "FROM"); {
	case from == "" && !r.failed[prefix+"FROM"]:
		r.problem("%sFROM is missing: set it to the address that mails come from, such as Shop <hello@example.com>.", prefix)
	case from != "":
		address, err := mail.ParseAddress(from)
		if err != nil {
			r.problem("%sFROM is %q, which is not an e-mail address such as Shop <hello@example.com>.", prefix, from)
			break
		}
		s.From, s.FromName = address.Address, address.Name
	}
	if s.Password != "" && s.Username == "" {
		r.problem("%sPASSWORD is set and %sUSERNAME is not: set both, or neither.", prefix, prefix)
	}
	if s.Username != "" && s.Password == "" && !r.failed[prefix+"PASSWORD"] {
		r.problem("%sUSERNAME is set and %sPASSWORD is not: set both, or neither.", prefix, prefix)
	}
	return s
}

// checkNames tells of names that look like ours and are not.
func (r *reader) checkNames() {
	var unknown []string
	for name := range r.values {
		base := strings.TrimSuffix(name, "_FILE")
		if slices.Contains(names, base) || slices.Contains(names, name) {
			continue
		}
		for _, prefix := range prefixes {
			if strings.HasPrefix(name, prefix) {
				unknown = append(unknown, name)
				break
			}
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		base, file := strings.CutSuffix(name, "_FILE")
		hint := "Remove it, or see docs/operations.md for the names."
		if near := nearest(base, names); near != "" {
			if file {
				near += "_FILE"
			}
			hint = fmt.Sprintf("Did you mean %s?", near)
		}
		r.problem("%s is not a variable of Groundwork. %s", name, hint)
	}
}

func isAddress(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s
}

// nearest returns the known word that is a few typing errors away; empty when
// none is.
func nearest(word string, known []string) string {
	best, bestDistance := "", 1+len(word)/3
	for _, candidate := range known {
		d := distance(word, candidate)
		if strings.HasPrefix(candidate, word) || strings.HasPrefix(word, candidate) {
			d = min(d, 1)
		}
		if d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		previous := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			previous, row[j] = row[j], min(row[j]+1, row[j-1]+1, previous+cost)
		}
	}
	return row[len(b)]
}
