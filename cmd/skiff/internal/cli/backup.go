package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/daemon"
)

func (a *app) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the state of a running daemon to a file, without stopping it",
		Long: "Copy the state of a running daemon to a file, without stopping it.\n\n" +
			"The file holds every object; artifacts and logs are files of their own in the\n" +
			"state folder and are not in it. Secrets are in it as they lie in the state:\n" +
			"encrypted. Their key is in no backup; keep a copy of STATE_DIR/secrets.key in a\n" +
			"safe place of its own.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			path := args[0]
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				return refuse(fmt.Errorf("%s is there already; give a new name", path))
			}
			temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
			if err != nil {
				return refuse(fmt.Errorf("write the backup: %w", err))
			}
			defer func() { _ = os.Remove(temp.Name()) }()
			err = c.Backup(cmd.Context(), temp)
			if err == nil {
				err = temp.Sync()
			}
			if closeErr := temp.Close(); err == nil {
				err = closeErr
			}
			if err == nil {
				// What is not whole never appears under the name asked for.
				err = os.Rename(temp.Name(), path)
			}
			if err != nil {
				return fmt.Errorf("write the backup: %w", err)
			}
			a.notef("backup written to %s; \"skiff restore %s\" takes it back", path, path)
			return nil
		},
	}
}

func (a *app) restoreCommand() *cobra.Command {
	var withoutSecrets bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of the state; no daemon may be running",
		Long: "Put a backup in the place of the state. The daemon must be stopped. The file is\n" +
			"checked first, and the state that was there is kept beside it.\n\n" +
			"Where the backup holds secrets, the key they were encrypted with must be in\n" +
			"STATE_DIR/secrets.key; put the file there first. --without-secrets leaves them out.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := a.absStateDir()
			if err != nil {
				return err
			}
			kept, err := daemon.Restore(cmd.Context(), dir, args[0], withoutSecrets)
			if err != nil {
				return err
			}
			a.notef("%s is now the state of %s", args[0], dir)
			if kept != "" {
				a.notef("the state that was there is kept as %s", kept)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&withoutSecrets, "without-secrets", false, "leave all secrets out: the way on where their key is lost")
	return cmd
}

// storeCheckCommand is what the daemon starts before it opens a store: a
// damaged file can end the process that maps it, so another one looks first.
func (a *app) storeCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:                daemon.StoreCheckName,
		Short:              "Check a store's file",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := daemon.StoreCheck(args, a.Out); code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
}
