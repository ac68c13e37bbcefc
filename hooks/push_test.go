package hooks_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/pgtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
)

// patience is how long a test waits for what has to come. It comes in a moment, but
// a machine that is busy with all other tests may take its time.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	// Before anything else uses TLS: the doubles of Apple and Google speak nothing
	// else.
	if err := providertest.TrustCA(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(pgtest.Main(m))
}

const pushBundle = "com.example.shop"

// pushing is an app in production whose people have a phone number and a device.
type pushing struct {
	*pbtest.App
	t    *testing.T
	root string
}

func newPushing(t *testing.T, opts ...pbtest.Option) *pushing {
	t.Helper()
	x := &pushing{t: t, App: pbtest.NewApp(t, append([]pbtest.Option{pbtest.WithConfig(production)}, opts...)...)}
	x.Handler()
	x.root = x.Token(x.Superuser("root@example.com"))
	return x
}

func (x *pushing) ask(method, path string, body any) map[string]any {
	x.t.Helper()
	res := x.Send(method, path, body, x.root)
	require.Equal(x.t, http.StatusOK, res.Status, "%s %s: %s", method, path, res)
	return res.JSON(x.t)
}

// provider adds a row as the dashboard does.
func (x *pushing) provider(channel string, config map[string]any, secret, sender string) *core.Record {
	x.t.Helper()
	made := x.ask(http.MethodPost, "/api/collections/notification_providers/records", map[string]any{"name": channel, "channel": channel, "config": config,
		"secret": secret, "senderId": sender, "enabled": true})
	r, err := x.FindRecordById(notifications.CollectionProviders, made["id"].(string))
	require.NoError(x.t, err)
	return r
}

// iosToken, phoneNumber and mailAddress are the n-th person's.
func iosToken(n int) string    { return fmt.Sprintf("%064x", n+1) }
func phoneNumber(n int) string { return fmt.Sprintf("+1500555%04d", 1000+n) }
func mailAddress(n int) string { return fmt.Sprintf("p%d@example.com", n) }

// people makes n of them, with a device of this platform ("" for none).
func (x *pushing) people(n int, platform string) {
	x.t.Helper()
	for i := range n {
		user := x.User(mailAddress(i), map[string]any{"phone": phoneNumber(i)})
		switch platform {
		case "ios":
			x.Record(notifications.CollectionDevices, map[string]any{"user": user.Id, "platform": platform, "token": iosToken(i)})
		case "android":
			x.Record(notifications.CollectionDevices, map[string]any{"user": user.Id, "platform": platform, "token": providertest.FCMDeviceToken(i)})
		}
	}
}

// devices is everything about all devices, by id.
func (x *pushing) devices() map[string]string {
	x.t.Helper()
	rows, err := x.FindAllRecords(notifications.CollectionDevices)
	require.NoError(x.t, err)
	all := map[string]string{}
	for _, r := range rows {
		raw, err := r.MarshalJSON()
		require.NoError(x.t, err)
		all[r.Id] = string(raw)
	}
	return all
}

// wrongSetup is a provider that cannot send, and what puts it right.
type wrongSetup struct {
	channel, sender string
	config          map[string]any
	secret          string
	secrets         []string // may stand nowhere

	// spoil makes a provider wrong that worked; nil: it is wrong from the start.
	spoil func()
	// vendor is what is put right at the vendor, before the owner does the rest.
	vendor func()
	repair map[string]any

	says    string
	counted bool // it also says how many were refused, and how
	// taken is how many messages the double took.
	taken func() int
}

func wrongAPNs(t *testing.T, change func(s *wrongSetup, apple *providertest.APNs, right, wrong *providertest.APNsKey)) *wrongSetup {
	t.Helper()
	right, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	wrong, err := providertest.NewAPNsKey()
	require.NoError(t, err)
	apple := providertest.NewAPNs(t, providertest.APNsOptions{Key: right.Public, KeyID: "KEY1234567", TeamID: "TEAM123456", Topics: []string{pushBundle},
		Streams: 1, StreamsAfterAccept: 100, TokenLife: -1})
	s := &wrongSetup{channel: "apns", config: apple.Config(pushBundle), secret: right.PEM, vendor: func() {}, repair: map[string]any{"secret": right.PEM},
		secrets: []string{strings.Split(right.PEM, "\n")[1], strings.Split(wrong.PEM, "\n")[1], "BEGIN"}, taken: apple.Accepted}
	change(s, apple, right, wrong)
	return s
}

func wrongFCM(t *testing.T, change func(s *wrongSetup, google *providertest.FCM)) *wrongSetup {
	t.Helper()
	google := providertest.NewFCM(t, providertest.FCMOptions{Project: "demo-shop"})
	s := &wrongSetup{channel: "fcm", config: google.Config(), secret: google.ServiceAccount(), vendor: func() {}, repair: map[string]any{"config": google.Config()},
		secrets: []string{"PRIVATE KEY", google.Account().ClientEmail}, taken: google.AcceptedTotal}
	change(s, google)
	return s
}

func wrongTwilio(t *testing.T, change func(s *wrongSetup, twilio *providertest.Twilio)) *wrongSetup {
	t.Helper()
	const token = "rightAuthToken0123456789abcdefgh"
	twilio := providertest.NewTwilio(t, providertest.TwilioOptions{AuthToken: token})
	s := &wrongSetup{channel: "sms_transactional", sender: codesSender, config: twilio.Config(), secret: token, vendor: func() {},
		says: "Twilio", repair: map[string]any{"secret": token}, secrets: []string{token}, taken: twilio.Total}
	change(s, twilio)
	return s
}

// A provider that is set up wrongly is paused, tells why in one sentence and
// blames nobody; once its owner has put it right in the dashboard, everybody is
// served, once.
func TestWrongSetupBlamesNobody(t *testing.T) {
	t.Parallel()
	const recipients = 20
	for name, setup := range map[string]func(t *testing.T) *wrongSetup{
		"apns, another key": func(t *testing.T) *wrongSetup {
			return wrongAPNs(t, func(s *wrongSetup, _ *providertest.APNs, _, wrong *providertest.APNsKey) {
				s.secret, s.says = wrong.PEM, "Apple refused the key"
			})
		},
		"apns, another team": func(t *testing.T) *wrongSetup {
			return wrongAPNs(t, func(s *wrongSetup, apple *providertest.APNs, _, _ *providertest.APNsKey) {
				s.config["teamId"], s.says = "TEAM999999", "Apple refused the key"
				s.repair = map[string]any{"config": apple.Config(pushBundle)}
			})
		},
		"apns, a key that was revoked": func(t *testing.T) *wrongSetup {
			return wrongAPNs(t, func(s *wrongSetup, apple *providertest.APNs, _, _ *providertest.APNsKey) {
				s.says = "Apple refused the key"
				s.spoil = func() {
					apple.Set(providertest.APNsBehaviour{All: providertest.APNsScript{Status: 403, Reason: "InvalidProviderToken"}})
				}
				s.vendor = func() { apple.Set(providertest.APNsBehaviour{}) }
			})
		},
		"apns, tokens of another app": func(t *testing.T) *wrongSetup {
			return wrongAPNs(t, func(s *wrongSetup, apple *providertest.APNs, _, _ *providertest.APNsKey) {
				s.says, s.counted = "devices were refused", true
				s.spoil = func() {
					apple.Set(providertest.APNsBehaviour{All: providertest.APNsScript{Status: 400, Reason: "DeviceTokenNotForTopic"}})
				}
				s.vendor = func() { apple.Set(providertest.APNsBehaviour{}) }
			})
		},
		"fcm, another project": func(t *testing.T) *wrongSetup {
			return wrongFCM(t, func(s *wrongSetup, google *providertest.FCM) {
				s.config["projectId"], s.says = "another-shop", "project another-shop"
			})
		},
		"fcm, a project that is gone": func(t *testing.T) *wrongSetup {
			return wrongFCM(t, func(s *wrongSetup, google *providertest.FCM) {
				s.says = "project"
				s.spoil = func() {
					google.Set(providertest.FCMBehaviour{All: providertest.FCMScript{Fault: providertest.FCMNotFound}})
				}
				s.vendor = func() { google.Set(providertest.FCMBehaviour{}) }
				s.repair["config"].(map[string]any)["projectId"] = "demo-shop"
			})
		},
		"fcm, no right to send": func(t *testing.T) *wrongSetup {
			return wrongFCM(t, func(s *wrongSetup, google *providertest.FCM) {
				s.says = "service account"
				s.spoil = func() {
					google.Set(providertest.FCMBehaviour{All: providertest.FCMScript{Fault: providertest.FCMPermissionDenied}})
				}
				s.vendor = func() { google.Set(providertest.FCMBehaviour{}) }
				s.repair = map[string]any{"secret": google.ServiceAccount()}
			})
		},
		"fcm, tokens of another project": func(t *testing.T) *wrongSetup {
			return wrongFCM(t, func(s *wrongSetup, google *providertest.FCM) {
				s.says, s.counted = "devices were refused", true
				s.spoil = func() {
					google.Set(providertest.FCMBehaviour{All: providertest.FCMScript{Fault: providertest.FCMSenderIDMismatch}})
				}
				s.vendor = func() { google.Set(providertest.FCMBehaviour{}) }
				s.repair["config"].(map[string]any)["projectId"] = "demo-shop"
			})
		},
		"twilio, another password": func(t *testing.T) *wrongSetup {
			return wrongTwilio(t, func(s *wrongSetup, _ *providertest.Twilio) {
				s.secret = "wrongAuthToken0123456789abcdefgh"
				s.secrets = append(s.secrets, s.secret)
			})
		},
		"twilio, a password that was changed": func(t *testing.T) *wrongSetup {
			return wrongTwilio(t, func(s *wrongSetup, twilio *providertest.Twilio) {
				const changed = "freshAuthToken0123456789abcdefgh"
				s.spoil = func() { twilio.SetToken(changed) }
				s.repair = map[string]any{"secret": changed}
				s.secrets = append(s.secrets, changed)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newPushing(t)
			s := setup(t)
			platform := map[string]string{"apns": "ios", "fcm": "android"}[s.channel]
			x.people(recipients, platform)
			provider := x.provider(s.channel, s.config, s.secret, s.sender)
			if s.spoil != nil {
				until(t, x.App, provider, "state", "ok")
				s.spoil()
			} else {
				until(t, x.App, provider, "state", "paused") // its check finds out
			}
			before := x.devices()
			channel := "push"
			if platform == "" {
				channel = "sms"
			}
			n := send(t, x.App, map[string]any{"title": "Hello", "channels": []string{channel, "inbox"}})

			provider = until(t, x.App, provider, "state", "paused")
			reason := provider.GetString("stateReason")
			require.Contains(t, reason, s.says)
			require.Regexp(t, `^[A-Z0-9][^\n]+\.$`, reason)
			if !s.counted {
				require.NotContains(t, reason, ". ", "one sentence")
			}
			paused := until(t, x.App, n, "status", "paused")
			require.Equal(t, reason, paused.GetString("statusReason"))
			require.Equal(t, map[string]int{"pending": recipients, "delivered": 1}, deliveryStatuses(t, x.App, n), "the inbox does not wait")
			require.Zero(t, s.taken())
			require.Equal(t, before, x.devices(), "no device was changed")
			shown := x.ask(http.MethodGet, "/api/collections/notification_providers/records/"+provider.Id, nil)
			for _, secret := range s.secrets {
				require.NotContains(t, reason, secret)
				require.NotContains(t, fmt.Sprint(shown), secret)
			}

			s.vendor()
			x.ask(http.MethodPatch, "/api/collections/notification_providers/records/"+provider.Id, s.repair)
			until(t, x.App, n, "status", "sent")
			require.Equal(t, map[string]int{"accepted": recipients, "delivered": 1}, deliveryStatuses(t, x.App, n))
			require.Equal(t, recipients, s.taken(), "each row was accepted, so each once")
			require.Equal(t, before, x.devices(), "no device was changed")
			require.Empty(t, until(t, x.App, provider, "state", "ok").GetString("stateReason"))
		})
	}
}

// A device that is gone waits for no provider: it neither keeps a notification from
// being paused nor from coming to its end.
func TestADeviceThatGoesAwayWhileItsServiceIsPaused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		people int
		status string
		want   map[string]int
	}{
		"another one waits": {2, "paused", map[string]int{"accepted": 2, "pending": 2}},
		"nobody waits":      {1, "sent", map[string]int{"accepted": 1, "skipped": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newPushing(t)
			x.people(tc.people, "ios")
			s := wrongAPNs(t, func(s *wrongSetup, _ *providertest.APNs, _, wrong *providertest.APNsKey) { s.secret = wrong.PEM })
			provider := until(t, x.App, x.provider(s.channel, s.config, s.secret, ""), "state", "paused")
			later := providertest.Script{Rcpt: providertest.Reply{Code: 452, Enhanced: "4.2.2", Text: "Mailbox full"}}
			smtp := providertest.NewSMTP(t, providertest.SMTPOptions{Behaviour: providertest.Behaviour{All: later}})
			until(t, x.App, mailProvider(t, x.App, smtp.Config("hello@example.com"), ""), "state", "ok")
			n := send(t, x.App, map[string]any{"channels": []string{"push", "email"}})
			until(t, x.App, n, "statusReason", provider.GetString("stateReason"))
			require.Equal(t, "sending", x.Reload(n).GetString("status"), "the mails are still tried")

			device, err := x.FindFirstRecordByData(notifications.CollectionDevices, "token", iosToken(0))
			require.NoError(t, err)
			require.NoError(t, x.Delete(device))
			smtp.Set(providertest.Behaviour{})
			n = until(t, x.App, n, "status", tc.status)
			require.Equal(t, tc.want, deliveryStatuses(t, x.App, n))
			if tc.status == "sent" {
				return
			}
			require.Equal(t, provider.GetString("stateReason"), n.GetString("statusReason"))
			x.ask(http.MethodPatch, "/api/collections/notification_providers/records/"+provider.Id, s.repair)
			until(t, x.App, n, "status", "sent")
			require.Equal(t, map[string]int{"accepted": 3, "skipped": 1}, deliveryStatuses(t, x.App, n))
		})
	}
}
