package commands_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/commands"
	"github.com/groundworkhq/groundwork/internal/pbtest"
)

// Each mistake on the command line is answered with what to write instead.
func TestMistakesAreToldWithTheirFix(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.User("ana@example.com")
	there := filepath.Join(t.TempDir(), "ana.json")
	require.NoError(t, os.WriteFile(there, []byte("mine"), 0o600))

	for _, tc := range []struct {
		cmd  *cobra.Command
		args []string
		want string
	}{
		{commands.NewEraseCommand(app), []string{}, "name one person by an id, an e-mail address or a phone number: groundwork erase ana@example.com"},
		{commands.NewExportCommand(app), []string{"ana@example.com", "bo@example.com"}, "name one person"},
		{commands.NewEraseCommand(app), []string{"nobody@example.com", "--yes"}, `nobody has the id, e-mail address or phone number "nobody@example.com"`},
		{commands.NewEraseCommand(app), []string{"people/ana@example.com", "--yes"}, `there is no collection of accounts called "people"`},
		{commands.NewExportCommand(app), []string{"users/ana@example.com", "--output", there}, "is there already and stays as it is"},
		{commands.NewSessionsCommand(app), []string{"list"}, `unknown command "list"`},
	} {
		tc.cmd.SetArgs(tc.args)
		tc.cmd.SetOut(&bytes.Buffer{})
		tc.cmd.SilenceErrors = true
		require.ErrorContains(t, tc.cmd.Execute(), tc.want, tc.args)
	}
	kept, err := os.ReadFile(there)
	require.NoError(t, err)
	require.Equal(t, "mine", string(kept))
}
