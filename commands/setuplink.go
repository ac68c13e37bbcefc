package commands

import (
	"fmt"
	"os"
	"strings"

	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/groundworkhq/groundwork/hooks"
)

// NewSetupLinkCommand prints the one-time link by which the first superuser is
// made. It works beside a running server, in a container too.
func NewSetupLinkCommand(app core.App) *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:          "setup-link",
		Short:        "Prints the one-time link to create the first superuser",
		Example:      "  groundwork setup-link --url https://api.example.com",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := app.RunAllMigrations(); err != nil {
				return fmt.Errorf("the database cannot be prepared: %w", err)
			}
			link, err := hooks.SetupLink(app, url)
			if err != nil {
				return err
			}
			if strings.HasPrefix(link, "http://127.0.0.1:") && url == "" {
				// Not to the command's own stderr: PocketBase makes that silent.
				fmt.Fprintln(os.Stderr, "Open this on the server's own machine. If you reach it at another address or port, add --url with that address.")
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), link)
			return err
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "the address under which people reach this server")
	return cmd
}
