package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holders finds the processes that hold a socket and says whether they are
// programs that a user runs on this machine: not those of a container or of a
// step, which may have the same uid and the same network.
type holders struct {
	// self is the daemon's process: what it starts needs no loopback.
	self int
	// launchers is the folder of the launchers; below one of them in the tree
	// of processes are a step's, also where the machine gives no namespaces.
	launchers string
	// contained reports whether a /proc/PID/cgroup is that of a step.
	contained func(cgroup string) bool

	pidNamespace, userNamespace string
	root                        unix.Stat_t
}

// namespaces that a caller must share with the daemon.
const (
	pidNamespace  = "ns/pid"
	userNamespace = "ns/user"
)

// relays are programs that carry connections for others: those of a container
// engine for its containers, those of ssh for whoever is at the far end. What
// they open is theirs by uid and somebody else's by right.
func relays() []string {
	return []string{
		"docker-proxy", "rootlesskit", "rootlessport", "slirp4netns", "pasta", "pasta.avx2", "passt", "passt.avx2",
		"vpnkit", "gvproxy", "ssh", "sshd", "sshd-session",
	}
}

var errNoHolder = errors.New("no process of the caller that skiff may look at holds the connection")

func newHolders(launchers string, contained func(string) bool) (*holders, error) {
	h := &holders{self: os.Getpid(), launchers: launchers, contained: contained}
	var err error
	if h.pidNamespace, err = os.Readlink("/proc/self/" + pidNamespace); err != nil {
		return nil, err
	}
	if h.userNamespace, err = os.Readlink("/proc/self/" + userNamespace); err != nil {
		return nil, err
	}
	if err := unix.Stat("/", &h.root); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: "/", Err: err}
	}
	return h, nil
}

// check returns nil where at least one process of the uid holds the socket and
// each that does is one that the user runs. It looks at the newest first, since
// a client is younger than most of what runs, and from the first find on only
// at what is a container's or a step's.
func (h *holders) check(owner socketOwner) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	slices.Reverse(pids)
	tree := map[int]error{}
	found := false
	for _, pid := range pids {
		holds, err := h.look(pid, owner, found, tree)
		if err != nil {
			return err
		}
		found = found || holds
	}
	if !found {
		return errNoHolder
	}
	return nil
}

// look reports whether a process holds the socket; an error says that it does
// and why it is not one that the user runs. A process that has ended or that
// cannot be looked at does not hold it.
func (h *holders) look(pid int, owner socketOwner, strangersOnly bool, tree map[int]error) (bool, error) {
	// A handle on this very process: its number may be another's in a moment.
	dir, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil //nolint:nilerr // It has ended.
	}
	defer func() { _ = unix.Close(dir) }()
	var stat unix.Stat_t
	if unix.Fstat(dir, &stat) != nil || stat.Uid != owner.uid {
		return false, nil
	}
	stranger := h.stranger(pid, dir, tree)
	if stranger == nil && strangersOnly {
		return false, nil
	}
	if !holdsSocket(dir, owner.inode) {
		return false, nil
	}
	return true, stranger
}

// stranger says why a process is not one that the user runs; nil where it is.
func (h *holders) stranger(pid, dir int, tree map[int]error) error {
	for name, own := range map[string]string{pidNamespace: h.pidNamespace, userNamespace: h.userNamespace} {
		if theirs, err := readLinkAt(dir, name); err != nil || theirs != own {
			return errors.New("the caller is in a container or sandbox")
		}
	}
	// A container that was given the machine's namespaces has a root of its own.
	var root unix.Stat_t
	if err := unix.Fstatat(dir, "root", &root, 0); err != nil || root.Dev != h.root.Dev || root.Ino != h.root.Ino {
		return errors.New("the caller has another root folder, as in a container")
	}
	cgroup, err := readAt(dir, "cgroup")
	if err != nil || (h.contained != nil && h.contained(cgroup)) {
		return errors.New("the caller is a step")
	}
	executable, err := readLinkAt(dir, "exe")
	if err == nil && slices.Contains(relays(), filepath.Base(strings.TrimSuffix(executable, " (deleted)"))) {
		return fmt.Errorf("%s carries connections for others", filepath.Base(executable))
	}
	return h.lineage(pid, dir, tree)
}

// lineage refuses the daemon itself and what it or a launcher has started.
func (h *holders) lineage(pid, dir int, tree map[int]error) error {
	if known, ok := tree[pid]; ok {
		return known
	}
	verdict := func() error {
		executable, err := readLinkAt(dir, "exe")
		if pid == h.self || (err == nil && h.launchers != "" && strings.HasPrefix(executable, h.launchers+"/")) {
			return errors.New("the caller was started by skiff")
		}
		parent, err := parentOf(dir)
		if err != nil {
			return err
		}
		if parent <= 1 && parent != h.self {
			return nil
		}
		up, err := unix.Open("/proc/"+strconv.Itoa(parent), unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(up) }()
		return h.lineage(parent, up, tree)
	}()
	tree[pid] = verdict
	return verdict
}

// parentOf reads the fourth field of a process's stat.
func parentOf(dir int) (int, error) {
	stat, err := readAt(dir, "stat")
	if err != nil {
		return 0, err
	}
	// The name before it may hold anything, brackets included.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, errors.New("/proc/PID/stat is too short")
	}
	return strconv.Atoi(fields[1])
}

func holdsSocket(dir int, inode uint32) bool {
	fds, err := unix.Openat(dir, "fd", unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	folder := os.NewFile(uintptr(fds), "fd")
	defer func() { _ = folder.Close() }()
	// What was read before an error counts; a descriptor that goes is no loss.
	names, _ := folder.Readdirnames(-1)
	want := []byte(fmt.Sprintf("socket:[%d]", inode))
	target := make([]byte, len(want)+1)
	for _, name := range names {
		if n, err := unix.Readlinkat(fds, name, target); err == nil && bytes.Equal(target[:n], want) {
			return true
		}
	}
	return false
}

func readLinkAt(dir int, name string) (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, target)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(target[:n]), nil
}

// readAt reads a small file of /proc.
func readAt(dir int, name string) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	content := make([]byte, 16<<10)
	n, err := unix.Read(fd, content)
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return string(content[:max(n, 0)]), nil
}
