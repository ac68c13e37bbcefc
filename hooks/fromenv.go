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
		SuperuserEmail: v.SuperuserEmail, SuperuserPassword: v.SuperuserPassword}
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
		cfg.Providers = append(cfg.Providers, notifications.ProviderConfig{
			Name: server.name, Channel: server.channel, Source: notifications.SourceEnvironment,
			Config: map[string]any{"host": server.smtp.Host, "port": server.smtp.Port, "username": server.smtp.Username,
				"tls": server.smtp.TLS, "from": server.smtp.From, "fromName": server.smtp.FromName},
			Secret: server.smtp.Password, SenderID: server.smtp.From,
		})
	}
	return cfg
}
