package commands

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/demo"
)

// NewDemoCommand fills an empty data folder with a small shop. In production it
// refuses: everybody knows its passwords.
func NewDemoCommand(app core.App, env hooks.Environment) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Fills an empty data folder with a small shop to try things with",
		Long: "Fills an empty data folder with a small shop: products, orders, people in several time zones, a receipt, \"shipped\" and a reminder\n" +
			"by triggers, and recommendations for each person. Superusers may be there already; whatever else is in the folder is left alone.",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if env == hooks.EnvProduction {
				return errors.New("the demo is not for production (APP_ENV=production): everybody knows the passwords of its people")
			}
			if err := app.RunAllMigrations(); err != nil {
				return fmt.Errorf("the database cannot be prepared: %w", err)
			}
			said := "A small shop is in " + app.DataDir() + "."
			switch err := demo.Fill(app, time.Now()); {
			case errors.Is(err, demo.ErrFilled):
				said = "The demo shop is in " + app.DataDir() + " already; nothing was changed."
			case errors.Is(err, demo.ErrUsed):
				return fmt.Errorf("%w. The demo needs an empty one: %s demo --dir another_folder", err, os.Args[0])
			case err != nil:
				return fmt.Errorf("the demo cannot be made: %w", err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), demoNext, said, os.Args[0], app.DataDir(), demo.Password)
			return err
		},
	}
}

const demoNext = `%s Next:
1. %s serve --dir %s
   (A server that is running on it already has to be started again.) It prints a link for the first superuser.
2. Open http://127.0.0.1:8090/ and sign in as ana@example.com with the password %s. Leave it open.
3. In the dashboard, http://127.0.0.1:8090/_/, make a record in orders with Ana as its buyer and the status placed:
   her receipt appears at once. Set an order of hers to shipped, and she is told.
4. Send the template weekend-recommendations to everyone: each person is told what people like them bought.
`
