package hooks

import (
	"fmt"
	"net"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
)

// bindBanner tells a person at the terminal what to open. Logs go to
// Config.LogOutput; this does not.
func (g *groundwork) bindBanner() {
	if !g.cfg.Banner {
		return
	}
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.banner.print", Priority: 9999, Func: func(e *core.ServeEvent) error {
			if err := e.Next(); err != nil {
				return fmt.Errorf("the server cannot listen on %s: %w. Is another one running? Choose another address with --http", e.Server.Addr, err)
			}
			base := reachableAddress(e.Server.Addr)
			means := map[Environment]string{
				EnvLocal:      "nothing leaves: every message is kept in notification_deliveries to read",
				EnvStaging:    "messages are kept in notification_deliveries, but for the addresses in SEND_ONLY_TO",
				EnvProduction: "messages are sent",
			}[g.cfg.Env]
			if g.cfg.Env == EnvLocal && len(g.cfg.SendOnlyTo) > 0 {
				means = "messages are kept in notification_deliveries to read, but for the addresses in SEND_ONLY_TO"
			}
			fmt.Fprintf(g.cfg.Console, "\nGroundwork is running.\n  Page       %s/\n  Dashboard  %s/_/\n  APP_ENV    %s (%s)\n", base, base, g.cfg.Env, means)
			return nil
		}})
}

// reachableAddress is what a person on this machine opens for a server that
// listens on addr.
func reachableAddress(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "http://" + addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	// PocketBase listens there for TLS alone.
	if port == "443" || port == "https" {
		return "https://" + host
	}
	return "http://" + net.JoinHostPort(host, port)
}
