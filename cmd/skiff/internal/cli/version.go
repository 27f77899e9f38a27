package cli

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
)

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of the daemon",
		Args:  cobra.NoArgs,
	}
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		versions := map[string]string{"client": a.version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
		c, err := a.client()
		if err != nil {
			return err
		}
		daemon, err := c.Version(cmd.Context())
		switch {
		case err == nil:
			versions["daemon"] = daemon.SkiffVersion
		case !errors.Is(err, client.ErrNoDaemon):
			return err
		}
		if !out.people() {
			return a.printDocument(*out, versions)
		}
		text := fmt.Sprintf("skiff %s (%s, %s)\n", versions["client"], versions["go"], versions["platform"])
		if versions["daemon"] == "" {
			text += "no daemon is running\n"
		} else {
			text += fmt.Sprintf("daemon %s\n", versions["daemon"])
		}
		_, err = fmt.Fprint(a.Out, text)
		return err
	}
	return cmd
}
