package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"
)

// proc mounts a fresh /proc. Where root inside is root outside, what a
// write could change for the whole machine, or what tells too much, is closed.
func (b *builder) proc() error {
	if err := mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	if inUserNamespace() {
		return nil
	}
	for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"} {
		err := mount(path, path, "", syscall.MS_BIND|syscall.MS_REC, "")
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err == nil {
			err = setAttr(path, attrReadOnly, 0, true)
		}
		if err != nil {
			return err
		}
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"} {
		err := mount(b.host+"/dev/null", path, "", syscall.MS_BIND, "")
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return err
		}
	}
	for _, path := range []string{"/proc/acpi", "/proc/scsi"} {
		err := mount("tmpfs", path, "tmpfs", syscall.MS_RDONLY, "size=4k")
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return err
		}
	}
	return nil
}

// inUserNamespace says whether root here is somebody else outside.
func inUserNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	f := bytes.Fields(data)
	return err == nil && (len(f) != 3 || string(f[0]) != "0" || string(f[1]) != "0" || string(f[2]) != "4294967295")
}

// device is one node of /dev.
type device struct {
	name         string
	major, minor int
}

var devices = []device{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

// defaultShm is what engines give where nothing is said.
const defaultShm = 64 << 20

// dev makes a /dev that holds the harmless devices.
func (b *builder) dev() error {
	if err := mount("tmpfs", "/dev", "tmpfs", syscall.MS_NOSUID, "mode=755,size=64k"); err != nil {
		return err
	}
	for _, d := range devices {
		if err := b.makeDevice(d); err != nil {
			return fmt.Errorf("make /dev/%s: %w", d.name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/dev/pts", "/dev/shm"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return mount("devpts", "/dev/pts", "devpts", syscall.MS_NOSUID|syscall.MS_NOEXEC,
		"newinstance,ptmxmode=0666,mode=0620")
}

// devices are the host's that were asked for.
func (b *builder) devices() error {
	for _, path := range b.Devices {
		if err := b.bindDevice(path); err != nil {
			return fmt.Errorf("give device %s: %w", path, err)
		}
	}
	return nil
}

// shm mounts a fresh /dev/shm.
func (b *builder) shm() error {
	shm := b.ShmBytes
	if shm <= 0 {
		shm = defaultShm
	}
	return mount("tmpfs", "/dev/shm", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV,
		"mode=1777,size="+strconv.FormatInt(shm, 10))
}

func (b *builder) makeDevice(d device) error {
	path := "/dev/" + d.name
	err := syscall.Mknod(path, syscall.S_IFCHR|0o666, d.major<<8|d.minor)
	if err == nil {
		return os.Chmod(path, 0o666)
	}
	if !errors.Is(err, syscall.EPERM) {
		return err
	}
	return b.bindDevice(path) // a user namespace may not make nodes
}

func (b *builder) bindDevice(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return err
	}
	return mount(b.host+path, path, "", syscall.MS_BIND, "")
}

// loopbackUp sets IFF_UP on lo.
func loopbackUp() error {
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(s) //nolint:errcheck // It was only a handle.
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(s), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
