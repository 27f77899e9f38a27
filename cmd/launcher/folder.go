package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// folder is the control folder. Names in it are relative to an open descriptor:
// the path's length never matters, a new root does not hide it, and it is the
// same for every thread. The launcher's loop has it as its working directory, too.
type folder struct {
	fd       int
	uid, gid int // the daemon's, who is to own what is left
}

// openFolder opens a control folder and makes it the working directory.
func openFolder(path string) (folder, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err == nil {
		err = syscall.Fchdir(fd)
	}
	if err != nil {
		return folder{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return folder{fd: fd}, nil
}

// newFile creates a file that must not exist and gives it to the daemon. A link
// or a FIFO that the command put in the way is an error.
func (d folder) newFile(name string) (rawFile, error) {
	fd, err := syscall.Openat(d.fd, name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return -1, &os.PathError{Op: "create", Path: name, Err: err}
	}
	if d.mayGive() {
		// Without CAP_CHOWN it stays ours; the daemon has its own means then.
		_ = syscall.Fchown(fd, d.uid, d.gid)
	}
	return rawFile(fd), nil
}

// mayGive says whether there is another user to give files to.
func (d folder) mayGive() bool { return os.Geteuid() == 0 && (d.uid != 0 || d.gid != 0) }

// give hands a folder that the launcher made to the daemon.
func (d folder) give(dir string) {
	if d.mayGive() {
		_ = syscall.Lchown(dir, d.uid, d.gid) // as above
	}
}

// Create is for the log writer.
func (d folder) Create(name string) (io.WriteCloser, error) {
	f, err := d.newFile(name)
	if err != nil {
		return nil, err // not f: an interface around it is not nil
	}
	return f, nil
}

// Remove is for the log writer.
func (d folder) Remove(name string) error { return syscall.Unlinkat(d.fd, name) }

// replace writes a file by rename.
func (d folder) replace(name string, data []byte) error {
	tmp := name + ".tmp"
	if err := syscall.Unlinkat(d.fd, tmp); err != nil && err != syscall.ENOENT {
		return fmt.Errorf("write %s: %w", name, err)
	}
	f, err := d.newFile(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = syscall.Renameat(d.fd, tmp, d.fd, name)
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// sync makes a file that has its final name durable, contents and name.
func (d folder) sync(name string) error {
	fd, err := syscall.Openat(d.fd, name, syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer syscall.Close(fd) //nolint:errcheck // It was only a handle.
	if err := syscall.Fsync(fd); err != nil {
		return &os.PathError{Op: "sync", Path: name, Err: err}
	}
	return os.NewSyscallError("fsync", syscall.Fsync(d.fd))
}

// takeLock holds the lock file for the life of this process. The file appears
// under its name only when it is held, so that whoever finds it free knows that
// its launcher has died.
func takeLock() (rawFile, error) {
	tmp := launch.LockFile + "." + strconv.Itoa(os.Getpid())
	_ = os.Remove(tmp) // left by a launcher of the same pid that died right here
	lock, err := openLock(tmp, syscall.O_CREAT|syscall.O_EXCL)
	if err == nil {
		if err = syscall.Flock(int(lock), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			err = renameNew(tmp, launch.LockFile)
		}
		if err == nil {
			return lock, nil
		}
		_ = os.Remove(tmp) // a stray lock.PID harms nobody
		_ = lock.Close()
	}
	if !errors.Is(err, syscall.EEXIST) {
		return -1, fmt.Errorf("make lock: %w", err)
	}
	return retakeLock()
}

func openLock(name string, flags int) (rawFile, error) {
	fd, err := syscall.Open(name, flags|syscall.O_RDWR|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return rawFile(fd), nil
}

// renameNew gives a file a name that must not be taken. Where the file system
// cannot do that at once, the file has two names for an instant.
func renameNew(from, to string) error {
	const noReplace = 1
	const here = ^uintptr(99) // AT_FDCWD
	a, err := syscall.BytePtrFromString(from)
	if err != nil {
		return err
	}
	b, err := syscall.BytePtrFromString(to)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall6(sysRenameat2, here, uintptr(unsafe.Pointer(a)), here, uintptr(unsafe.Pointer(b)), noReplace, 0)
	switch errno {
	case 0:
		return nil
	case syscall.EINVAL, syscall.ENOSYS:
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	}
	return errno
}

// retakeLock locks the file of a launcher before this one, where that is gone.
// The daemon's test for life holds a shared lock for an instant, so a refusal
// is asked again a few times.
func retakeLock() (rawFile, error) {
	lock, err := openLock(launch.LockFile, 0)
	if err != nil {
		return -1, fmt.Errorf("open lock: %w", err)
	}
	for range 10 {
		if err = syscall.Flock(int(lock), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return lock, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = lock.Close()
	return -1, fmt.Errorf("another launcher lives in this folder: %w", err)
}
