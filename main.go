// Command groundwork is PocketBase with everything a new product's backend
// needs before its first deployment.
package main

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"

	"github.com/pocketbase/pocketbase"

	"github.com/groundworkhq/groundwork/commands"
	"github.com/groundworkhq/groundwork/hooks"
)

//go:embed all:pb_public
var page embed.FS

func main() {
	// The live heap is some 30 MB. Letting it grow to 100 between two collections makes
	// a broadcast faster, and what a flood adds stays small (decisions/0008). GOGC in
	// the environment still decides.
	if was := debug.SetGCPercent(250); was != 100 {
		debug.SetGCPercent(was)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if cmd := commands.Standalone(os.Args[1:]); cmd != nil {
		return cmd.Execute()
	}
	app := pocketbase.NewWithConfig(pocketbase.Config{HideStartBanner: true, DBConnect: openDatabase})
	flags := commands.ParseFlags(app)

	cfg := hooks.ConfigFromEnv()
	builtIn, err := fs.Sub(page, "pb_public")
	if err != nil {
		return err
	}
	cfg.Public, cfg.PublicFallback, cfg.PublicIsOurs = flags.Public(builtIn)
	cfg.Banner, cfg.NoWorkers = true, flags.NoWorkers()
	if err := hooks.Register(app, cfg); err != nil {
		return err
	}
	if err := commands.RegisterJavaScript(app, flags); err != nil {
		return err
	}
	app.RootCmd.AddCommand(commands.NewSetupLinkCommand(app), commands.NewEraseCommand(app), commands.NewExportCommand(app), commands.NewSessionsCommand(app),
		commands.NewDemoCommand(app, cfg.Env), commands.NewWorkerCommand())
	return app.Start()
}
