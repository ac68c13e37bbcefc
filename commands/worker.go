package commands

import (
	"context"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/groundworkhq/groundwork/hooks"
)

// Standalone returns the command of args that works without a data folder, and so must
// not go through PocketBase, which makes one; nil when there is none.
func Standalone(args []string) *cobra.Command {
	if len(args) == 0 || args[0] != "worker" {
		return nil
	}
	cmd := NewWorkerCommand()
	cmd.SetArgs(args[1:])
	cmd.SilenceErrors = true // who calls it prints them
	return cmd
}

// NewWorkerCommand hands over the messages of servers on other machines.
func NewWorkerCommand() *cobra.Command {
	var queues, host string
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Sends the messages of servers on other machines",
		Long: "It takes messages from the Postgres of a server (JOBS_DATABASE_URL) and hands them to the providers of its own environment\n" +
			"variables. It takes only those of providers that the server has too, with the same values. It needs no data folder.",
		Example:      "  JOBS_DATABASE_URL=postgres://… SMTP_HOST=… groundwork worker --queues bulk,default",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			cfg := hooks.WorkerConfigFromEnv()
			cfg.Queues, cfg.Host = strings.Split(queues, ","), host
			return hooks.RunWorker(ctx, cfg)
		},
	}
	cmd.Flags().StringVar(&queues, "queues", "bulk,default", "the queues whose messages it takes, separated by commas")
	cmd.Flags().StringVar(&host, "host", "", "what people know this machine by (default its host name)")
	return cmd
}
