package hooks

import (
	"fmt"
	"strings"

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
			base := "http://" + e.Server.Addr
			if strings.HasPrefix(e.Server.Addr, ":") || strings.HasPrefix(e.Server.Addr, "0.0.0.0:") {
				base = "http://127.0.0.1" + e.Server.Addr[strings.LastIndexByte(e.Server.Addr, ':'):]
			}
			means := map[Environment]string{
				EnvLocal:      "nothing leaves: every message is captured, read it in the dashboard",
				EnvStaging:    "every message is captured, but for the addresses in SEND_ONLY_TO",
				EnvProduction: "messages are sent",
			}[g.cfg.Env]
			fmt.Fprintf(g.cfg.Console, "\nGroundwork is running.\n  Page       %s/\n  Dashboard  %s/_/\n  APP_ENV    %s (%s)\n", base, base, g.cfg.Env, means)
			return nil
		}})
}
