package hooks

import (
	"github.com/groundworkhq/groundwork/internal/config"
	"github.com/groundworkhq/groundwork/notifications"
)

// ConfigFromEnv reads the environment variables of docs/reference.md, each also
// as NAME_FILE. What is wrong with them is told by [Register], all at once:
//
//	hooks.Register(app, hooks.ConfigFromEnv())
func ConfigFromEnv() Config {
	v, err := config.FromEnviron()
	if err != nil {
		return Config{err: err}
	}
	cfg := Config{Env: Environment(v.Env), SendOnlyTo: v.SendOnlyTo, Key: v.Key,
		SuperuserEmail: v.SuperuserEmail, SuperuserPassword: v.SuperuserPassword,
		DefaultTimezone: v.DefaultTimezone, PromotionalHours: v.PromotionalHours,
		JobsDatabaseURL: v.JobsDatabase,
		RedisURL:        v.Redis, TrustedProxies: v.TrustedProxies,
		WebPushSubject: v.WebPush.Subject, WebPushPrivateHosts: v.WebPush.PrivateHosts,
		AssumeEmailConsent: v.Promotional.AssumeEmailConsent, SMSOptOut: v.Promotional.SMSOptOut,
		EmailWebhookSecret: v.EmailWebhookSecret, WebhookPrivateHosts: v.WebhookPrivateHosts,
		NoUnsubscribeFooter: v.Promotional.NoFooter, UnsubscribeEmail: v.Promotional.UnsubscribeEmail}
	cfg.Providers = providersOf(v)
	return cfg
}

// providersOf are the senders that variables set up.
func providersOf(v config.Values) (all []notifications.ProviderConfig) {
	for _, server := range []struct {
		channel notifications.ProviderChannel
		name    string
		smtp    *config.SMTP
	}{
		{notifications.ProviderEmailTransactional, "SMTP (environment)", v.SMTP},
		{notifications.ProviderEmailPromotional, "Promotional SMTP (environment)", v.PromotionalSMTP},
	} {
		if server.smtp == nil {
			continue
		}
		all = append(all, notifications.ProviderConfig{
			Name: server.name, Channel: server.channel, Source: notifications.SourceEnvironment,
			Config: map[string]any{"host": server.smtp.Host, "port": server.smtp.Port, "username": server.smtp.Username,
				"tls": server.smtp.TLS, "from": server.smtp.From, "fromName": server.smtp.FromName},
			Secret: server.smtp.Password, SenderID: server.smtp.From,
		})
	}
	if a := v.APNs; a != nil {
		all = append(all, notifications.ProviderConfig{
			Name: "APNs (environment)", Channel: notifications.ProviderAPNs, Source: notifications.SourceEnvironment,
			Config: withoutEmpty(map[string]any{"keyId": a.KeyID, "teamId": a.TeamID, "bundleId": a.Topic, "environment": a.Environment, "endpoint": a.Endpoint}),
			Secret: a.Key, SenderID: a.Topic,
		})
	}
	if f := v.FCM; f != nil {
		all = append(all, notifications.ProviderConfig{
			Name: "FCM (environment)", Channel: notifications.ProviderFCM, Source: notifications.SourceEnvironment,
			Config: withoutEmpty(map[string]any{"projectId": f.ProjectID, "endpoint": f.Endpoint}), Secret: f.Credentials,
		})
	}
	if t := v.Twilio; t != nil {
		for _, sms := range []struct {
			channel      notifications.ProviderChannel
			name, sender string
		}{
			{notifications.ProviderSMSTransactional, "Transactional SMS (environment)", t.Transactional},
			{notifications.ProviderSMSPromotional, "Promotional SMS (environment)", t.Promotional},
		} {
			if sms.sender == "" {
				continue
			}
			all = append(all, notifications.ProviderConfig{
				Name: sms.name, Channel: sms.channel, Source: notifications.SourceEnvironment,
				Config: withoutEmpty(map[string]any{"accountSid": t.AccountSID, "endpoint": t.Endpoint}), Secret: t.AuthToken, SenderID: sms.sender,
			})
		}
	}
	return all
}

func withoutEmpty(config map[string]any) map[string]any {
	for key, value := range config {
		if value == "" {
			delete(config, key)
		}
	}
	return config
}
