package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// ErrRecord is the class of every exit record that cannot be what a launcher wrote.
var ErrRecord = errors.New("malformed exit record")

// ReadExit reads the exit record of a control folder; false means that there is
// none (yet). A record that is there and cannot be read is an error.
func ReadExit(dir string) (*launch.ExitRecord, bool, error) {
	d, err := openFolder(dir)
	if err != nil {
		return nil, false, ignoreMissing(err)
	}
	defer d.Close()
	data, err := readFile(d, launch.ExitFile, launch.MaxFrame)
	if err != nil {
		return nil, false, ignoreMissing(err)
	}
	data = bytes.TrimSuffix(data, []byte{'\n'})
	r, err := DecodeExit(data[bytes.LastIndexByte(data, '\n')+1:])
	if err != nil {
		return nil, false, err
	}
	return r, true, nil
}

// DecodeExit reads an exit record and refuses what no launcher writes.
func DecodeExit(data []byte) (*launch.ExitRecord, error) {
	var r launch.ExitRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if err := checkRecord(&r); err != nil {
		return nil, err
	}
	return &r, nil
}

func checkRecord(r *launch.ExitRecord) error {
	held := int64(0)
	for _, v := range r.Outputs {
		held += int64(len(v))
	}
	switch {
	case r.Version < 1:
		return fmt.Errorf("%w: version %d", ErrRecord, r.Version)
	case r.ExitCode < 0 || r.ExitCode > 255:
		return fmt.Errorf("%w: exit code %d", ErrRecord, r.ExitCode)
	case r.Reason == "":
		return fmt.Errorf("%w: no reason", ErrRecord)
	case r.ExitCode == 0 && (r.CommandID == "" || r.Reason != launch.ReasonCompleted):
		return fmt.Errorf("%w: success with reason %s of command %q", ErrRecord, r.Reason, r.CommandID)
	case r.ExitCode != 0 && r.Reason == launch.ReasonCompleted:
		return fmt.Errorf("%w: completed with code %d", ErrRecord, r.ExitCode)
	case held > launch.MaxOutputs:
		return fmt.Errorf("%w: outputs of %d bytes", ErrRecord, held)
	case r.LogBytes < 0 || r.LogDropped < 0 || r.LogDropped > r.LogBytes || r.CPUTime < 0 || r.MaxRSS < 0:
		return fmt.Errorf("%w: a negative or impossible count", ErrRecord)
	case r.FinishedAt.IsZero():
		return fmt.Errorf("%w: no time", ErrRecord)
	}
	return nil
}

// ReadStarted reads what the lock says; nil means that no command has been started.
func ReadStarted(dir string) (*launch.Started, error) {
	d, err := openFolder(dir)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	defer d.Close()
	data, err := readFile(d, launch.LockFile, launch.MaxFrame)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	first, _, whole := bytes.Cut(data, []byte{'\n'})
	if !whole {
		return nil, nil // not written, or being written: a command follows only the whole line
	}
	var s launch.Started
	if err := json.Unmarshal(first, &s); err != nil || s.CommandID == "" {
		return nil, fmt.Errorf("read %s: %w: it does not say what was started", launch.LockFile, ErrHostile)
	}
	return &s, nil
}

// maxHeldText bounds what is repeated of a held launcher's message.
const maxHeldText = 1 << 10

// ReadHeld reads held.json; nil where there is none, or one that no launcher
// writes: that a container is kept is said for people, and proves nothing.
func ReadHeld(dir string) *launch.Held {
	d, err := openFolder(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	data, err := readFile(d, launch.HeldFile, 1<<20)
	if err != nil {
		return nil
	}
	var held launch.Held
	if json.Unmarshal(data, &held) != nil {
		return nil
	}
	return checkHeld(&held)
}

// checkHeld returns what is fit to be shown of a launcher's word, nil where it
// cannot be one.
func checkHeld(held *launch.Held) *launch.Held {
	if held == nil || held.CommandID == "" || held.ExitCode < 1 || held.ExitCode > 255 || held.Reason == "" || held.Until.IsZero() {
		return nil
	}
	checked := *held
	if len(checked.Message) > maxHeldText {
		checked.Message = strings.ToValidUTF8(checked.Message[:maxHeldText], "") + "…"
	}
	return &checked
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Life is what the lock says about a launcher.
type Life int

// The lives.
const (
	Unborn Life = iota // no launcher has begun
	Alive
	Dead
)

// MakeLock makes a spare for TakeLock.
func MakeLock(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) // As open as any lock.
	if err != nil {
		return err
	}
	return f.Close()
}

// TakeLock makes a control folder's lock in the name of a launcher that is about
// to inherit it (launch.Assign). From here on the folder counts as begun, and as
// dead once everybody who holds the file has gone. The file is one of spares (see
// MakeLock), where there is one.
func TakeLock(dir string, spares *Spares) (*os.File, error) {
	const tmp = launch.LockFile + ".tmp"
	d, err := openFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("take lock: %w", err)
	}
	defer d.Close()
	folder := int(d.Fd())
	how := unix.O_RDWR | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if !spares.Take(func(spare string) error { return unix.Renameat(unix.AT_FDCWD, spare, folder, tmp) }) {
		_ = unix.Unlinkat(folder, tmp, 0) // of a daemon that died right here
		how |= unix.O_CREAT | unix.O_EXCL
	}
	fd, err := unix.Openat(folder, tmp, how, 0o644)
	if err != nil {
		return nil, fmt.Errorf("take lock: %w", err)
	}
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = unix.Renameat2(folder, tmp, folder, launch.LockFile, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("take lock: %w", err)
	}
	return os.NewFile(uintptr(fd), launch.LockFile), nil
}

// Retract takes a lock back that no launcher ever inherited, because whoever took
// it died first: the folder has not begun then. It reports whether that was so.
func Retract(dir string) (bool, error) {
	d, err := openFolder(dir)
	if err != nil {
		return false, ignoreMissing(err)
	}
	defer d.Close()
	if life, err := ReadLife(dir); err != nil || life != Dead {
		return false, err
	}
	// One that has waited for its command has listened.
	for _, name := range []string{launch.SocketFile, launch.ExitFile} {
		var st unix.Stat_t
		err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if !errors.Is(err, unix.ENOENT) {
			return false, err
		}
	}
	if started, err := ReadStarted(dir); err != nil || started != nil {
		return false, err
	}
	if err := unix.Unlinkat(int(d.Fd()), launch.LockFile, 0); err != nil {
		return false, fmt.Errorf("retract lock: %w", err)
	}
	return true, nil
}

// ReadLife asks the lock whether the launcher of a control folder lives. A lock
// that is not a plain file counts as dead: no launcher leaves such a thing.
func ReadLife(dir string) (Life, error) {
	d, err := openFolder(dir)
	if err != nil {
		return Unborn, ignoreMissing(err)
	}
	defer d.Close()
	fd, err := openat(int(d.Fd()), launch.LockFile, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, fs.ErrNotExist) {
		// It may be the exit record already, for the last moment of the launcher's life.
		fd, err = openat(int(d.Fd()), launch.ExitFile, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Unborn, nil
	}
	if err != nil {
		return Dead, nil
	}
	defer unix.Close(fd) //nolint:errcheck // It was only a handle.
	for {
		err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return Alive, nil
		case err != nil:
			return Dead, os.NewSyscallError("flock", err)
		}
		return Dead, nil
	}
}
