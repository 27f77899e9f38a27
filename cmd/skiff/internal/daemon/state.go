package daemon

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/engine/recurring"
	"github.com/skiff-ml/skiff/store"
)

// openStore opens the state of a folder, having its file looked at first in a
// child process: a damaged one can end the process that maps it.
func openStore(ctx context.Context, cfg Config) (*store.Store, error) {
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	config := store.Config{
		Path: filepath.Join(cfg.StateDir, storeFile), Logger: cfg.Logger,
		Kinds:     kinds(),
		BackupDir: filepath.Join(cfg.StateDir, backupDir),
	}
	if cfg.Executable != "" {
		config.CheckCommand = []string{cfg.Executable, StoreCheckName}
	}
	return store.Open(ctx, config)
}

// kinds are all that the store keeps.
func kinds() []store.Kind {
	return slices.Concat(pipeline.Kinds(), pod.Kinds(), recurring.Kinds())
}

// Restore puts a backup in the place of the state; what was there is kept as
// the path that is returned, empty where there was nothing. withoutSecrets
// leaves secrets out, which without their key cannot be restored.
func Restore(ctx context.Context, stateDir, backup string, withoutSecrets bool) (kept string, err error) {
	return store.Restore(ctx, store.RestoreConfig{
		Backup: backup, Path: filepath.Join(stateDir, storeFile), Replace: true,
		Kinds: kinds(), WithoutSealed: withoutSecrets,
	})
}

// StoreCheck is the check in the child process.
func StoreCheck(args []string, out io.Writer) int { return store.CheckMain(args, out) }
