package commands

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/groundworkhq/groundwork/internal/accounts"
)

// NewSessionsCommand decides whether tokens without a session count.
func NewSessionsCommand(app core.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "sessions", Short: "Decides which sign-ins count",
		// Without these an unknown word after it would print the help and succeed.
		Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var undo bool
	require := &cobra.Command{
		Use:   "require",
		Short: "Refuses tokens that belong to no session, in the running server too",
		Long: "Refuses tokens that belong to no session, in the running server too: those from before Groundwork, and those that\n" +
			"Go code and JavaScript hooks make by themselves. Whoever holds one signs in again.",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := app.RunAllMigrations(); err != nil {
				return fmt.Errorf("the database cannot be prepared: %w", err)
			}
			accountsInUse, err := accounts.Of(app).RequireAll(!undo)
			if err != nil {
				return err
			}
			text := fmt.Sprintf("From now on every token needs a session. Tokens without one were in use for %d accounts, which have to sign in again.", accountsInUse)
			if undo {
				text = "Tokens without a session count again, but for accounts that ended theirs themselves."
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	require.Flags().BoolVar(&undo, "undo", false, "let them count again")
	cmd.AddCommand(require)
	return cmd
}
