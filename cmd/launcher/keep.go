package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// keeper is a launcher that serves one container after another. What all of
// them share, the root without their own mounts, stands in a mount namespace
// that no command ever enters, with the host's root in it; each container gets
// a copy of that namespace, and takes the copy with it. One thread goes from the
// one to the other, and its children are born where it is.
type keeper struct {
	*base
	daemon *conn
	shared launch.View // what the view of every container begins with
	home   int         // the mount namespace without a container
	name   string      // the host name where a container has none of its own
	named  string      // the host name now
	oom    oomCounter
	before *belongings // what the first container found
}

// keep is a keeper's life. It ends with the daemon's connection, or where a
// container left something behind.
func keep() int {
	runtime.LockOSThread() // for ever: the namespaces are this thread's
	if err := syscall.SetNonblock(launch.KeepFD, true); err != nil {
		return refuse(fmt.Errorf("the daemon's socket: %w", err))
	}
	syscall.CloseOnExec(launch.KeepFD)
	syscall.CloseOnExec(launch.KeepFD + 1) // a lock that is only held
	daemon, err := newConn(launch.KeepFD)
	if err != nil {
		return refuse(err)
	}
	k := &keeper{base: newBase(), daemon: daemon}
	k.kept = true
	go k.read(daemon)
	for {
		select {
		case <-k.signals:
			return 0
		case <-k.deaths: // that there are no children
			k.awaiting = false
		case e := <-k.events:
			switch {
			case e.conn != daemon:
				e.drop()
				continue
			case e.gone:
				return 0
			case e.frame.Base != nil:
				err = k.open(*e.frame.Base)
			case e.frame.Assign != nil:
				err = k.serve(*e.frame.Assign, e.fds)
			default:
				continue // it came too late for the container it was about
			}
			if err != nil {
				return refuse(err)
			}
			daemon.send(launch.Frame{Idle: &launch.Idle{}})
		}
	}
}

// open builds what the containers share.
func (k *keeper) open(shared launch.View) error {
	if k.before != nil {
		return errors.New("a keeper has one base")
	}
	if err := joinCgroups(shared.Cgroups); err != nil {
		return err
	}
	k.shared, k.oom = shared, findOOMCounter()
	b := &builder{View: shared, host: oldRoot}
	for _, step := range []func() error{b.hostTops, b.changeRoot, b.proc, b.dev, b.mask, b.sources, b.mounts, b.moveHost} {
		if err := step(); err != nil {
			return fmt.Errorf("build the view: %w", err)
		}
	}
	closeToCommand()
	if !closed() {
		return errors.New("a command could look into the launcher, so it serves only one")
	}
	var uts syscall.Utsname
	if err := syscall.Uname(&uts); err != nil {
		return os.NewSyscallError("uname", err)
	}
	for _, c := range uts.Nodename {
		if c == 0 {
			break
		}
		k.name += string(rune(c))
	}
	k.named = k.name
	// From here on this thread has a root and a working directory of its own.
	if err := syscall.Unshare(syscall.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	var err error
	if k.home, err = mountNamespace(); err != nil {
		return err
	}
	k.before, err = look(k.places())
	return err
}

// places are the folders in memory that containers share.
func (k *keeper) places() []string {
	return slices.Concat([]string{"/", "/dev", "/dev/pts"}, k.shared.Masked, k.scratch())
}

// scratch are the folders that are emptied between two containers.
func (k *keeper) scratch() []string {
	var dirs []string
	for _, m := range k.shared.Mounts {
		if m.Scratch {
			dirs = append(dirs, m.Path)
		}
	}
	return dirs
}

// empty removes everything in a folder.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(dir + "/" + e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// serve runs one container to its end. An error is the end of the keeper.
func (k *keeper) serve(a launch.Assign, fds []int) error {
	if k.before == nil || a.Config.View == nil {
		return errors.New("a container came before its base, or without a view")
	}
	folder, err := openFolder(keptRoot + a.Control)
	if err != nil {
		return err
	}
	defer syscall.Close(folder.fd) //nolint:errcheck // It was only a handle.
	if len(fds) != 1 {
		return errors.New("a container came without its lock")
	}
	lock := rawFile(fds[0])
	if err := neverRan(lock); err != nil {
		return err
	}
	l := newLauncher(k.base, a.Config, folder, lock)
	l.env, l.home = a.Env, a.Dir
	l.oom = k.oom
	l.oom.start = l.oom.read()
	k.daemon.life = l.life // so its frames reach this container
	l.conns[k.daemon] = struct{}{}
	b := &builder{View: *a.Config.View, host: keptRoot}
	_, recorded := l.live(func() error {
		if err := k.dress(b); err != nil {
			return fmt.Errorf("build the view: %w", err)
		}
		return syscall.Fchdir(folder.fd)
	})
	if !recorded {
		return errors.New("a container ended without a record")
	}
	_ = lock.Close() // so everybody knows that it has ended
	for c := range l.conns {
		if c != k.daemon {
			c.hangUp()
		}
	}
	if _, there := l.conns[k.daemon]; !there {
		return errors.New("the daemon has gone")
	}
	return k.undress(b)
}

// dress makes a container's view from a copy of what is shared.
func (k *keeper) dress(b *builder) error {
	if err := syscall.Unshare(syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	joinKeyring()
	name := b.Hostname
	if name == "" {
		name = k.name
	}
	if name != k.named {
		if err := syscall.Sethostname([]byte(name)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
		k.named = name
	}
	for _, step := range []func() error{b.sources, b.leaveHost, b.shm, b.mounts} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// undress goes back to what is shared and looks whether it is as it was.
func (k *keeper) undress(b *builder) error {
	if err := enter(k.home); err != nil {
		return err
	}
	for _, path := range slices.Backward(b.made) {
		// What lies in a mount of the container's own is not here; what is not
		// empty is seen in a moment.
		_ = removePoint(path)
	}
	for _, dir := range k.scratch() {
		if err := empty(dir); err != nil {
			return fmt.Errorf("the last container's files cannot be removed: %w", err)
		}
	}
	now, err := look(k.places())
	if err != nil {
		return err
	}
	return now.differs(k.before)
}

// removePoint removes an empty folder or a file without following any link: the
// host's root is in this namespace, and a command may have left one that leads
// there.
func removePoint(path string) error {
	dir, err := syscall.Open("/", folderOnly, 0)
	if err != nil {
		return err
	}
	names := strings.Split(strings.Trim(path, "/"), "/")
	for _, name := range names[:len(names)-1] {
		next, err := syscall.Openat(dir, name, folderOnly, 0)
		_ = syscall.Close(dir)
		if err != nil {
			return err
		}
		dir = next
	}
	defer syscall.Close(dir) //nolint:errcheck // It was only a handle.
	last, err := syscall.BytePtrFromString(names[len(names)-1])
	if err != nil {
		return err
	}
	const removeDir = 0x200
	var errno syscall.Errno
	for _, flags := range []uintptr{removeDir, 0} {
		if _, _, errno = syscall.Syscall(syscall.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(last)), flags); errno == 0 {
			return nil
		}
	}
	return errno
}

// folderOnly opens a folder as a place, and no link to one.
const folderOnly = 0x200000 /* O_PATH */ | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC

// mountNamespace is a handle on this thread's mount namespace.
func mountNamespace() (int, error) {
	fd, err := syscall.Open("/proc/thread-self/ns/mnt", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	return fd, os.NewSyscallError("open mount namespace", err)
}

// enter takes this thread, which shares its root with no other, into a mount namespace.
func enter(fd int) error {
	if _, _, errno := syscall.RawSyscall(sysSetns, uintptr(fd), syscall.CLONE_NEWNS, 0); errno != 0 {
		return os.NewSyscallError("setns", errno)
	}
	return nil
}

// closed says whether closeToCommand had its way.
func closed() bool {
	dumpable, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prGetDumpable, 0, 0)
	return errno == 0 && dumpable == 0
}

// joinKeyring gives this thread's children a session keyring that nobody has used.
func joinKeyring() {
	const joinSession = 1
	_, _, _ = syscall.RawSyscall(syscall.SYS_KEYCTL, joinSession, 0, 0) // not every kernel has them
}

// belongings is what a container could leave behind for the next one, beside its
// processes, mounts and IPC, which end with it.
type belongings struct {
	files    map[string]entry // in memory, by path
	settings settings
}

// settings is what one process may set of another one of the same user.
type settings struct {
	limits   [16]syscall.Rlimit
	affinity [128]byte
	nice, io uintptr
	oomScore string
}

// entry is a file's attributes. What something is mounted on has none.
type entry struct {
	mode, uid, gid uint32
	ino, rdev      uint64
	size           int64
	target         string
}

// look takes stock.
func look(places []string) (*belongings, error) {
	b := &belongings{files: map[string]entry{}}
	for _, dir := range places {
		if err := b.walk(dir); err != nil {
			return nil, err
		}
	}
	err := b.settings.read()
	return b, err
}

func (s *settings) read() error {
	for i := range s.limits {
		_ = syscall.Getrlimit(i, &s.limits[i]) // an older kernel knows fewer
	}
	getAffinity(&s.affinity)
	s.nice, _, _ = syscall.RawSyscall(syscall.SYS_GETPRIORITY, 0, 0, 0)
	s.io, _, _ = syscall.RawSyscall(syscall.SYS_IOPRIO_GET, 1, 0, 0)
	score, err := readFile(oomFile)
	s.oomScore = string(bytes.TrimSpace(score))
	return err
}

// walk notes what lies in a folder's own file system.
func (b *belongings) walk(dir string) error {
	var top syscall.Stat_t
	if err := syscall.Lstat(dir, &top); err != nil {
		if errors.Is(err, syscall.ENOENT) {
			return nil // the machine has no such folder
		}
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if b.files[dir] == (entry{}) {
		b.files[dir] = attributes(top)
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	_ = f.Close() // only read
	if err != nil {
		return err
	}
	for _, name := range names {
		path := dir + "/" + name
		if dir == "/" {
			path = "/" + name
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		if st.Dev != top.Dev {
			b.files[path] = entry{}
			continue
		}
		e := attributes(st)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFLNK:
			e.target, err = os.Readlink(path)
		case syscall.S_IFDIR:
			err = b.walk(path)
		}
		if err != nil {
			return err
		}
		b.files[path] = e
	}
	return nil
}

func attributes(st syscall.Stat_t) entry {
	e := entry{mode: st.Mode, uid: st.Uid, gid: st.Gid, ino: st.Ino, rdev: st.Rdev}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		e.size = st.Size
	}
	return e
}

// differs is an error that names one thing that is not as it was.
func (b *belongings) differs(before *belongings) error {
	for path, e := range b.files {
		if was, there := before.files[path]; !there || was != e {
			return fmt.Errorf("the last container left %s behind", path)
		}
	}
	if len(b.files) != len(before.files) {
		return errors.New("the last container removed part of the root")
	}
	if b.settings != before.settings {
		return errors.New("the last container changed the launcher's limits or priority")
	}
	return nil
}
