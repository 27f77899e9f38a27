package cli

import (
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/daemon"
)

func (a *app) upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run the daemon in the foreground",
		Long: "Run the daemon in the foreground. SIGINT or SIGTERM ends it; the steps that it\n" +
			"started go on, and the next daemon on the same state folder takes them over.",
		Args: cobra.NoArgs,
	}
	flags := &daemonFlags{}
	flags.register(cmd)
	listen := cmd.Flags().String("listen", daemon.DefaultListen, "HOST:PORT to answer on, HTTP and HTTPS alike; empty for the unix socket alone")
	hosts := cmd.Flags().StringSlice("host", nil, "further host names that requests may be addressed to")
	loopback := cmd.Flags().String("loopback-auth", daemon.LoopbackUID, "uid: programs of the daemon's own user need no token on the loopback; off: everyone does")
	users := cmd.Flags().StringSlice("loopback-user", nil, "for a daemon that runs as root: a user (NAME or UID, or NAME=USER) that needs no token on the loopback either")
	debug := cmd.Flags().Bool("debug", false, "log every request and decision")
	untilIdle := cmd.Flags().Bool("until-idle", false, "end when no run is active any more")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := flags.config(a)
		if err != nil {
			return err
		}
		cfg.Listen, cfg.Hosts, cfg.UntilIdle = *listen, *hosts, *untilIdle
		cfg.LoopbackAuth, cfg.LoopbackUsers = *loopback, *users
		if err := cfg.Check(); err != nil {
			return refuse(err)
		}
		level := slog.LevelInfo
		if *debug {
			level = slog.LevelDebug
		}
		cfg.Logger = slog.New(slog.NewTextHandler(a.Err, &slog.HandlerOptions{Level: level}))
		cfg.OnReady = func(address string) {
			if address == "" {
				address = "the socket in " + cfg.StateDir
			}
			a.notef("skiff %s is ready on %s (state in %s)", a.version, address, cfg.StateDir)
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		go func() {
			// A second signal ends the process at once, as it would without us.
			<-ctx.Done()
			stop()
		}()
		return daemon.Run(ctx, cfg)
	}
	return cmd
}
