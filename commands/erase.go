package commands

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/accounts"
)

const (
	// takenWithin is how long a serving process may need to take the erasure up: it
	// looks every two seconds. After that there is none.
	takenWithin = 6 * time.Second

	// doneWithin is how long the command waits for a serving process.
	doneWithin = time.Minute
)

// NewEraseCommand erases a person: the account, and what else is kept about them.
func NewEraseCommand(app core.App) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:          "erase USER",
		Short:        "Deletes a person's account and everything that is kept about them",
		Long:         "USER is an id, an e-mail address, a phone number, or collection/id. It works beside a running server and without one. There is no way back but a backup.",
		Example:      "  groundwork erase ana@example.com",
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
			if !yes {
				if err := confirmErase(account); err != nil {
					return err
				}
			}
			receipt, err := hooks.EraseAccount(app, account, accounts.OriginCommand)
			if err != nil {
				return err
			}
			status, err := finishErase(cmd.Context(), app, receipt)
			if err != nil {
				return err
			}
			switch status {
			case accounts.ErasureDone:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "Erased. The receipt in erasures is %s.\n", receipt)
			case accounts.ErasureCompacting:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "Deleted. The freed space of the databases is overwritten later; the receipt %s in erasures says when.\n", receipt)
			default:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "The account is deleted. The server goes on erasing; the receipt %s in erasures says when it is done.\n", receipt)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirmErase asks on the terminal. Elsewhere nobody can answer.
func confirmErase(account *core.Record) error {
	if !isatty.IsTerminal(os.Stdin.Fd()) {
		return errors.New("this deletes a person's data for good: add --yes to do it without being asked")
	}
	fmt.Fprintf(os.Stderr, "This deletes %s/%s and everything that is kept about this person, for good.\nType erase to go on: ", account.Collection().Name, account.Id)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	if strings.TrimSpace(answer) != "erase" {
		return errors.New("nothing was deleted")
	}
	return nil
}

// finishErase waits for the serving process, or does the work where there is none.
// It returns the status of the receipt.
func finishErase(ctx context.Context, app core.App, receipt string) (string, error) {
	began := time.Now()
	for {
		r, err := app.FindRecordById(accounts.CollectionErasures, receipt)
		if err != nil {
			return "", fmt.Errorf("the receipt cannot be read: %w", err)
		}
		status := r.GetString("status")
		if status != accounts.ErasureErasing || time.Since(began) > doneWithin {
			if status != accounts.ErasureDone && time.Since(began) < takenWithin {
				if err := lookAgain(ctx); err != nil { // the server may be about to finish
					return "", err
				}
				continue
			}
			return status, nil
		}
		var waiting int
		err = app.ConcurrentDB().Select("count(*)").From("groundwork_outbox").Where(dbx.HashExp{"kind": (accounts.EraseArgs{}).Kind()}).Row(&waiting)
		if err != nil {
			return "", fmt.Errorf("the jobs cannot be read: %w", err)
		}
		if waiting > 0 && time.Since(began) > takenWithin {
			if err := hooks.RunErasures(ctx, app); err != nil {
				return "", err
			}
			began = time.Time{} // what is left is left to the next start
			continue
		}
		if err := lookAgain(ctx); err != nil {
			return "", err
		}
	}
}

// lookAgain waits between two looks at a receipt, which another process writes.
func lookAgain(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}
