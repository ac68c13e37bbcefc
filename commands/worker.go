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
	cmd.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "groundwork worker"}
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
			"variables. It takes only those of providers that the server has too, with the same values. It needs no data folder.\n\n" +
			"Variables: JOBS_DATABASE_URL, and at least one provider: SMTP_HOST and SMTP_FROM, APNS_KEY, FCM_CREDENTIALS, or\n" +
			"TWILIO_ACCOUNT_SID, with what belongs to them, as the server has them. NAME_FILE names a file with the value. Others mean nothing here.\n\n" +
			"It writes JSON lines to standard output, waits for a Postgres that does not answer, and ends within 15 seconds of\n" +
			"SIGTERM or Ctrl+C: what has left is finished, the rest goes back. The server says which workers it sees in its log and,\n" +
			"when none has a provider, at that provider in notification_providers. Start the server with --no-workers to leave the\n" +
			"messages to workers alone. Clocks have to agree within half a minute.",
		Example: "  JOBS_DATABASE_URL=postgres://USER:PASSWORD@HOST:5432/DATABASE SMTP_HOST=smtp.example.com SMTP_FROM='Shop <hello@example.com>' \\\n" +
			"    groundwork worker --queues bulk,default --host mailer-1",
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
