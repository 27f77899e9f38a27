// Package embedded holds the launcher that `make build` compiled, and unpacks it
// where containers can be given it. It must not import anything of skiff's.
package embedded

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed bin
var files embed.FS

// ErrNoLauncher says that this program was built without the launcher in it.
var ErrNoLauncher = errors.New("built without the launcher: run make build")

// Config says where the launcher goes and comes from.
type Config struct {
	// Dir is the folder it is unpacked into, made if need be.
	Dir string
	// Path is a launcher to use instead of the embedded one.
	Path string
}

// Unpack returns the path of an executable launcher, named by its contents:
// launchers of running containers stay what they are over an upgrade. It is
// idempotent and safe to call at once from several processes.
func Unpack(cfg Config) (string, error) {
	data, err := contents(cfg.Path)
	if err != nil {
		return "", fmt.Errorf("unpack launcher: %w", err)
	}
	sum := sha256.Sum256(data)
	path := filepath.Join(cfg.Dir, "launcher-"+hex.EncodeToString(sum[:])[:12])
	if there, err := os.ReadFile(path); err == nil && sha256.Sum256(there) == sum {
		return path, nil
	}
	if err := write(path, data); err != nil {
		return "", fmt.Errorf("unpack launcher: %w", err)
	}
	return path, nil
}

func contents(path string) ([]byte, error) {
	if path != "" {
		return os.ReadFile(path)
	}
	data, err := files.ReadFile("bin/launcher")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoLauncher
	}
	return data, err
}

// write puts the program in place whole, or not at all.
func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // Containers of any user execute it.
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".launcher-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // It is gone after the rename.
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o755)
	}
	if err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
