package commands

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/groundworkhq/groundwork/internal/accounts"
)

// NewExportCommand writes everything that is kept about a person.
func NewExportCommand(app core.App) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export USER",
		Short: "Writes everything that is kept about a person",
		Long: "USER is an id, an e-mail address, a phone number, or collection/id. Without --output it is JSON on the standard output, with the files inside as base64;\n" +
			"an --output that ends in .zip makes an archive with the files as they were uploaded, which is the form to hand to a person.",
		Example:      "  groundwork export ana@example.com --output ana.zip",
		Args:         onePerson,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := app.RunAllMigrations(); err != nil {
				return fmt.Errorf("the database cannot be prepared: %w", err)
			}
			account, err := findPerson(app, args[0])
			if err != nil {
				return err
			}
			x, err := accounts.NewExport(app, account, nil)
			if err != nil {
				return err
			}
			if output == "" {
				return x.WriteJSON(app, cmd.OutOrStdout(), true)
			}
			// Never over something else, and for nobody else to read.
			file, err := os.OpenFile(output, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s is there already and stays as it is: choose another name for --output", output)
			}
			if err != nil {
				return fmt.Errorf("the file cannot be made: %w", err)
			}
			write := func(w io.Writer) error { return x.WriteJSON(app, w, true) }
			if strings.HasSuffix(strings.ToLower(output), ".zip") {
				write = func(w io.Writer) error { return x.WriteZip(app, w) }
			}
			if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
				return fmt.Errorf("the export cannot be written: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "the file to write, .json or .zip (default: JSON on the standard output)")
	return cmd
}
