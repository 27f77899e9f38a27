package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

var volumeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)

// EnsureVolume makes the folder behind a claim, open to any user inside: it
// lies below folders that only the daemon can enter.
func (b *Backend) EnsureVolume(_ context.Context, namespace, name string) (string, error) {
	if err := checkVolumeName(namespace, name); err != nil {
		return "", fmt.Errorf("make volume %s/%s: %w", namespace, name, err)
	}
	parent := b.cfg.volumeDir(namespace)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", fmt.Errorf("make volume %s/%s: %w", namespace, name, err)
	}
	dir := filepath.Join(parent, name)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return dir, nil
	}
	if err == nil {
		err = os.Chmod(dir, 0o777) // whatever the umask
	}
	if err != nil {
		return "", fmt.Errorf("make volume %s/%s: %w", namespace, name, err)
	}
	return dir, nil
}

func checkVolumeName(namespace, name string) error {
	for _, n := range []string{namespace, name} {
		if !volumeName.MatchString(n) {
			return fmt.Errorf("%q is not a name of lower-case letters, digits, '-' and '.'", n)
		}
	}
	return nil
}

// RemoveVolume removes the folder behind a claim. Where containers left folders
// of other owners in it, the engine hands them over first.
func (b *Backend) RemoveVolume(ctx context.Context, namespace, name string) error {
	doing := fmt.Sprintf("remove volume %s/%s", namespace, name)
	if err := checkVolumeName(namespace, name); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	dir := filepath.Join(b.cfg.volumeDir(namespace), name)
	err := os.RemoveAll(dir)
	if errors.Is(err, os.ErrPermission) {
		if err = b.Reclaim(ctx, dir, os.Geteuid(), os.Getegid()); err == nil {
			err = os.RemoveAll(dir)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}
