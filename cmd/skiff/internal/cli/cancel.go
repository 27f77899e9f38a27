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
		for _, run := range args {
			if err := c.Cancel(cmd.Context(), a.namespace, run); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(a.Out, "run %s is being cancelled\n", run); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
