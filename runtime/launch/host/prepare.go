package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// folderMode lets any user inside reach the socket and lets none list or write.
const folderMode = 0o711

// Prepare makes the control folder of a container and writes its configuration.
// It is idempotent: a folder that exists keeps what a launcher left in it, and
// its configuration is replaced only while no launcher has begun. Owner and
// version in cfg are filled in where they are not set.
func Prepare(podDir, container string, cfg launch.Config) error {
	dir := launch.ControlDir(podDir, container)
	if err := MakeFolder(podDir, container); err != nil {
		return err
	}
	d, err := openFolder(dir)
	if err != nil {
		return fmt.Errorf("prepare control folder: %w", err)
	}
	defer d.Close()
	for _, begun := range []string{launch.LockFile, launch.ExitFile} {
		if f, _, err := openFile(d, begun); err == nil {
			return f.Close()
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("prepare control folder: %w", err)
		}
	}
	cfg.Version = launch.Version
	if cfg.DaemonUID == 0 && cfg.DaemonGID == 0 {
		cfg.DaemonUID, cfg.DaemonGID = os.Geteuid(), os.Getegid()
	}
	data, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("prepare control folder: %w", err)
	}
	return place(dir, launch.ConfigFile, data)
}

// MakeFolder makes the control folder of a container whose launcher is told its
// configuration (launch.Assign). It is idempotent.
func MakeFolder(podDir, container string) error {
	if container == "" || filepath.Base(container) != container || container == "." || container == ".." {
		return fmt.Errorf("make control folder: %q is not a container's name", container)
	}
	if err := os.MkdirAll(podDir, folderMode); err != nil {
		return fmt.Errorf("make control folder: %w", err)
	}
	err := os.Mkdir(launch.ControlDir(podDir, container), folderMode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make control folder: %w", err)
	}
	return nil
}

// PlaceCommand leaves the command on disk for a launcher that has not begun: it
// runs it at once, without a daemon. A command that is there already stays.
func PlaceCommand(dir string, cmd launch.Command) error {
	if _, err := os.Lstat(filepath.Join(dir, launch.CommandFile)); err == nil {
		return nil
	}
	data, err := json.Marshal(cmd)
	if err != nil {
		return fmt.Errorf("place command: %w", err)
	}
	return place(dir, launch.CommandFile, data)
}

// place writes a file by rename, before anything hostile can run.
func place(dir, name string, data []byte) error {
	tmp := filepath.Join(dir, name+".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // The launcher may be another user.
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	return err
}
