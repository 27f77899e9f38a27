package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) cancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "cancel RUN...",
		Short:             "Stop runs: their steps end at once, their exit handlers still run",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.complete("runs"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		for _, name := range args {
			run, err := c.Cancel(cmd.Context(), a.namespace, name)
			if err != nil {
				return err
			}
			if run.Status.State.Terminal() {
				return fmt.Errorf("run %s has already ended (%s)", name, run.Status.State)
			}
			if _, err := fmt.Fprintf(a.Out, "run %s is being cancelled\n", name); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
