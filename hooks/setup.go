package hooks

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
)

// setupLinkLife is how long a setup link works.
const setupLinkLife = 30 * time.Minute

// ErrSetupDone means that there is a superuser already, so that no setup link
// is made.
var ErrSetupDone = errors.New("there is a superuser already: sign in at /_/, or use the superuser command to add another one")

// bindSetup makes the first superuser: by SUPERUSER_EMAIL and its password, or
// by a one-time link on the console. Nothing else: whoever opens the page first
// gets a sign-in form.
func (g *groundwork) bindSetup() {
	g.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.setup.superuser", Func: func(e *core.ServeEvent) error {
			if err := g.ensureSuperuser(e.App); err != nil {
				return err
			}
			e.InstallerFunc = func(app core.App, _ *core.Record, baseURL string) error {
				g.printSetup(app, baseURL)
				return nil
			}
			return e.Next()
		}})
}

func (g *groundwork) ensureSuperuser(app core.App) error {
	if g.cfg.SuperuserEmail == "" {
		return nil
	}
	has, err := hasSuperuser(app)
	if err != nil || has {
		return err
	}
	superusers, err := app.FindCachedCollectionByNameOrId(core.CollectionNameSuperusers)
	if err != nil {
		return fmt.Errorf("find superusers collection: %w", err)
	}
	record := core.NewRecord(superusers)
	record.SetEmail(g.cfg.SuperuserEmail)
	record.SetPassword(g.cfg.SuperuserPassword)
	if err := app.Save(record); err != nil {
		return fmt.Errorf("the first superuser cannot be made from SUPERUSER_EMAIL and SUPERUSER_PASSWORD: %w", err)
	}
	return nil
}

func hasSuperuser(app core.App) (bool, error) {
	n, err := app.CountRecords(core.CollectionNameSuperusers, dbx.Not(dbx.HashExp{"email": core.DefaultInstallerEmail}))
	if err != nil {
		return false, fmt.Errorf("count superusers: %w", err)
	}
	return n > 0, nil
}

// printSetup tells how to make the first superuser. Outside a person's terminal
// the console is usually collected: there the link itself is not printed.
func (g *groundwork) printSetup(app core.App, baseURL string) {
	// Only our binary, which has the banner, is sure to have the command.
	command := "“" + os.Args[0] + " setup-link”"
	if g.cfg.Env != EnvLocal && !isTerminal(g.cfg.Console) {
		way := "Set"
		if g.cfg.Banner {
			way = "Run " + command + " here, or set"
		}
		fmt.Fprintf(g.cfg.Console, "There is no superuser yet. %s SUPERUSER_EMAIL and SUPERUSER_PASSWORD_FILE and start again.\n", way)
		return
	}
	link, err := SetupLink(app, baseURL)
	if err != nil {
		g.log.Error("setup link cannot be made", "error", err)
		return
	}
	again := "the next start prints a new one"
	if g.cfg.Banner {
		again = command + " prints a new one"
	}
	fmt.Fprintf(g.cfg.Console, "\nCreate the first superuser here (works once, for %d minutes; %s):\n  %s\n\n", int(setupLinkLife.Minutes()), again, link)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// SetupLink returns a link that opens the dashboard's form for the first
// superuser. It stops working once there is one, or after half an hour. An
// empty baseURL means the application's address in the settings, or
// http://127.0.0.1:8090.
func SetupLink(app core.App, baseURL string) (string, error) {
	has, err := hasSuperuser(app)
	if err != nil {
		return "", err
	}
	if has {
		return "", ErrSetupDone
	}
	installer, err := app.FindAuthRecordByEmail(core.CollectionNameSuperusers, core.DefaultInstallerEmail)
	if errors.Is(err, sql.ErrNoRows) {
		superusers, findErr := app.FindCachedCollectionByNameOrId(core.CollectionNameSuperusers)
		if findErr != nil {
			return "", fmt.Errorf("find superusers collection: %w", findErr)
		}
		// PocketBase knows this account by its address and deletes it when the
		// first real superuser is saved; with it go all links.
		installer = core.NewRecord(superusers)
		installer.SetEmail(core.DefaultInstallerEmail)
		installer.SetRandomPassword()
		err = app.Save(installer)
	}
	if err != nil {
		return "", fmt.Errorf("prepare the setup account: %w", err)
	}
	token, err := installer.NewStaticAuthToken(setupLinkLife)
	if err != nil {
		return "", fmt.Errorf("make the setup token: %w", err)
	}
	if token, err = startSetupSession(app, installer, token); err != nil {
		return "", fmt.Errorf("store the setup session: %w", err)
	}
	if baseURL == "" {
		baseURL = "http://127.0.0.1:8090"
		if url := publicURL(app); url != "" {
			baseURL = url
		}
	}
	return strings.TrimRight(baseURL, "/") + "/_/#/pbinstall/" + token, nil
}
