package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/daemon"
	"github.com/skiff-ml/skiff/server/view"
)

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Probe this machine: what skiff can use, what is missing, how to mend it",
		Args:  cobra.NoArgs,
	}
	out := outputFlag(cmd)
	flags := &daemonFlags{}
	flags.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := flags.config(a)
		if err != nil {
			return err
		}
		checks, err := a.daemonChecks(cmd)
		if err != nil {
			return err
		}
		checks = append(checks, daemon.Doctor(cmd.Context(), cfg)...)
		if !out.people() {
			return a.printDocument(*out, map[string]any{"checks": checks})
		}
		var rows [][]string
		for _, c := range checks {
			rows = append(rows, []string{c.Name, c.Status, c.Found})
		}
		if err := printRows(a.Out, []string{"Check", "Status", "Found"}, rows); err != nil {
			return err
		}
		for _, c := range checks {
			if c.Fix == "" {
				continue
			}
			if _, err := fmt.Fprintf(a.Out, "\n%s: %s\n", c.Name, c.Fix); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// daemonChecks are what the running daemon knows of itself.
func (a *app) daemonChecks(cmd *cobra.Command) ([]view.Check, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	node, err := c.Node(cmd.Context())
	switch {
	case errors.Is(err, client.ErrNoDaemon):
		return []view.Check{{Name: "daemon", Status: view.CheckOK,
			Found: "none is up; \"skiff run\" starts one for the run, \"skiff up\" one that stays"}}, nil
	case err != nil:
		return []view.Check{{Name: "daemon", Status: view.CheckMissing, Found: err.Error(),
			Fix: "look at the daemon's log, or stop it and start it again with \"skiff up\""}}, nil
	}
	found := fmt.Sprintf("version %s, runtime %s (%s)", node.Version, node.Runtime, node.Isolation)
	if node.Fake {
		found += ", FAKE capacity"
	}
	checks := []view.Check{{Name: "daemon", Status: view.CheckOK, Found: found}}
	for _, condition := range node.Conditions {
		if condition.Status != "True" {
			continue
		}
		checks = append(checks, view.Check{Name: "daemon: " + condition.Type, Status: view.CheckWarning,
			Found: condition.Message, Fix: condition.Message})
	}
	return checks, nil
}
