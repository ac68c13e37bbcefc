package hooks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/groundworkhq/groundwork/notifications"
)

// Environment says what may leave this installation.
type Environment string

const (
	// EnvLocal is a developer's machine: every message is captured, a key is
	// made by itself.
	EnvLocal Environment = "local"
	// EnvStaging captures every message too.
	EnvStaging Environment = "staging"
	// EnvProduction sends.
	EnvProduction Environment = "production"
)

// Config is what [Register] needs to know. The zero value is a local
// installation: everything is captured, nothing is sent.
type Config struct {
	// Env is APP_ENV; empty means [EnvLocal].
	Env Environment

	// SendOnlyTo lists the addresses that are really sent to outside
	// production (SEND_ONLY_TO). For push these are the e-mail addresses of the
	// people whose devices they are. Empty means nobody.
	SendOnlyTo []string

	// UsersCollection is the id or name of the auth collection that holds the
	// people who are notified; empty means PocketBase's own users collection.
	UsersCollection string

	// Key is GROUNDWORK_KEY, at least 32 bytes. Empty in local and staging
	// means that a key file beside the data folder is read, or made. It is
	// required in production.
	Key string

	// Providers are the senders set by environment variables. They appear in
	// notification_providers as source "environment" and win over rows made in
	// the dashboard.
	Providers []notifications.ProviderConfig

	// WebPushSubject is WEBPUSH_SUBJECT: how push services reach whoever runs this
	// server, as mailto:… or https://…. Empty means the sender address of the mail
	// settings.
	WebPushSubject string

	// WebPushPrivateHosts is WEBPUSH_PRIVATE_HOSTS: the only push services, as
	// "host" or "host:port", that may lie in a private network.
	WebPushPrivateHosts []string

	// WebhookPrivateHosts is WEBHOOK_PRIVATE_HOSTS: the only hosts, as "host" or
	// "host:port", that the webhooks of schedules may call in a private network, and
	// without encryption.
	WebhookPrivateHosts []string

	// SuperuserEmail and SuperuserPassword make the first superuser when there
	// is none yet. Both or neither.
	SuperuserEmail    string
	SuperuserPassword string

	// LogOutput receives one JSON line per event; nil means os.Stdout.
	LogOutput io.Writer

	// Console receives the few lines meant for a person who started the binary
	// in a terminal (what to open, the setup link); nil means os.Stderr.
	Console io.Writer

	// Public are the static files at the root address; nil leaves that address
	// to the app. PublicFallback answers unknown paths with index.html.
	// PublicIsOurs says that they are the page that comes with Groundwork.
	Public         fs.FS
	PublicFallback bool
	PublicIsOurs   bool

	// Banner prints what to open on Console once the server listens.
	Banner bool

	// Retry is how often and for how long a message is tried again; the zero
	// value is the documented default.
	Retry notifications.RetryPolicy

	// StopWidens makes a STOP to one SMS sender count for all of them, one-time
	// codes included. False means that it counts for that sender's kind only.
	StopWidens bool

	// AssumeEmailConsent is PROMOTIONAL_EMAIL_CONSENT=assumed: promotional e-mail also
	// goes to people of whom notification_consents has nothing. False means that it
	// needs their consent, as promotional SMS always does.
	AssumeEmailConsent bool

	// SMSOptOut is PROMOTIONAL_SMS_OPT_OUT: the words that a promotional SMS ends with
	// when its author wrote none; empty means "Reply STOP to opt out".
	SMSOptOut string

	// NoUnsubscribeFooter is PROMOTIONAL_EMAIL_FOOTER=off: promotional e-mail has its
	// unsubscribe link in the headers, and in the text only where its author put it.
	NoUnsubscribeFooter bool

	// UnsubscribeEmail is UNSUBSCRIBE_EMAIL: an address to which mail programs may write
	// to unsubscribe somebody, and whose mail a person reads. Empty means none.
	UnsubscribeEmail string

	// EmailWebhookSecret is EMAIL_WEBHOOK_SECRET, with which whoever tells about bounces
	// and complaints signs. Empty closes POST /api/webhooks/email.
	EmailWebhookSecret string

	// JobsDatabaseURL is JOBS_DATABASE_URL: the Postgres that jobs go to, as
	// postgres://user:password@host:5432/database. Empty means SQLite, in the data
	// folder.
	JobsDatabaseURL string

	// NoWorkers leaves the messages of the providers from the environment to workers on
	// other machines (serve --no-workers). Without one they wait. It needs
	// JobsDatabaseURL. Account mails and codes, Web Push, and what providers made in the
	// dashboard send, leave from this process all the same.
	NoWorkers bool

	// RedisURL is REDIS_URL: the Redis in which several processes count together
	// what rate_limits limits; empty means that each counts for itself.
	RedisURL string

	// TrustedProxies is TRUSTED_PROXIES: whose word is taken about a client's
	// address, in the headers that PocketBase's settings name. Nil means loopback
	// and private networks.
	TrustedProxies []netip.Prefix

	// DefaultTimezone is DEFAULT_TIMEZONE: the IANA name of the zone that counts for
	// people of whom none is known, and on whose clock sendAt is read with localTime.
	// Empty means UTC.
	DefaultTimezone string

	// PromotionalHours is PROMOTIONAL_HOURS: the hours of the day on people's own
	// clocks in which promotional SMS and push may reach them, such as "09:00-20:00".
	// Empty means "08:00-21:00", which is the law of many countries; "off" means
	// all day, and is warned about in the log.
	PromotionalHours string
	promotionalHours notifications.HoursOfDay

	// answerFloor is [answerFloor] outside tests.
	answerFloor time.Duration

	// now is the clock of notifications and schedules; nil means time.Now. Only tests
	// set it.
	now func() time.Time

	// disk returns the room on the disk of a folder; nil asks the system. Only tests set
	// it.
	disk func(dir string) (free, total uint64, err error)

	// err is what ConfigFromEnv found wrong; Register reports it.
	err error
}

func (c Config) withDefaults() (Config, error) {
	if c.err != nil {
		return c, c.err
	}
	if c.answerFloor == 0 {
		c.answerFloor = answerFloor
	}
	if c.Env == "" {
		c.Env = EnvLocal
	}
	var err error
	if c.promotionalHours, err = notifications.ParseHours(c.PromotionalHours); err != nil {
		return c, fmt.Errorf("the hours %q for promotional messages cannot be used: %w", c.PromotionalHours, err)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if _, err := time.LoadLocation(c.DefaultTimezone); err != nil || c.DefaultTimezone == "Local" {
		return c, fmt.Errorf("the time zone %q is not known: write it like Europe/Berlin", c.DefaultTimezone)
	}
	if c.NoWorkers && c.JobsDatabaseURL == "" {
		return c, errors.New("--no-workers needs JOBS_DATABASE_URL: without it no worker on another machine could be reached, and nothing would be sent")
	}
	if c.LogOutput == nil {
		c.LogOutput = os.Stdout
	}
	if c.Console == nil {
		c.Console = os.Stderr
	}
	switch c.Env {
	case EnvLocal, EnvStaging, EnvProduction:
	default:
		return c, fmt.Errorf("environment %q is not known: use local, staging or production", c.Env)
	}
	return c, nil
}
