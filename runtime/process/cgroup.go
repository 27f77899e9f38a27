package process

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/runtime"
)

// defaultPids bounds a fork bomb where the spec says nothing.
const defaultPids = 4096

// cpuPeriod is the kernel's default; shorter ones cost throughput.
const cpuPeriod = 100 * time.Millisecond

// groups is where this backend makes control groups.
type groups struct {
	version int
	// bases are the parent folders: by controller in version 1, one under ""
	// in version 2.
	bases map[string]string
}

// findGroups makes this state folder's parent groups. It fails where that is
// not allowed.
func findGroups(stateDir string) (*groups, error) {
	sum := sha256.Sum256([]byte(stateDir))
	leaf := filepath.Join("skiff", hex.EncodeToString(sum[:4]))
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	const mount = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
		return findUnified(mount, ownGroup(string(data)), leaf)
	}
	g := &groups{version: 1, bases: map[string]string{}}
	for _, controller := range []string{"memory", "pids", "cpu", "cpuacct"} {
		base := filepath.Join(mount, controller, leaf)
		if err := os.MkdirAll(base, 0o755); err != nil { // As the kernel's own.
			return nil, fmt.Errorf("control groups (version 1): %w", err)
		}
		g.bases[controller] = base
	}
	return g, nil
}

// Contained reports whether the contents of a /proc/PID/cgroup are those of a
// process in a container of this runtime, of whichever state folder.
func Contained(cgroup string) bool {
	for line := range strings.Lines(cgroup) {
		parts := strings.Split(strings.TrimSpace(line), "/")
		for i := 0; i+2 < len(parts); i++ {
			_, err := hex.DecodeString(parts[i+1])
			if parts[i] == "skiff" && len(parts[i+1]) == 8 && err == nil {
				return true
			}
		}
	}
	return false
}

// ownGroup is this process's group in the unified hierarchy.
func ownGroup(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	return "/"
}

// findUnified makes a parent group below the one that was delegated to this
// process, or, as root, at the top: there it outlives a service's group.
func findUnified(mount, own, leaf string) (*groups, error) {
	top := mount
	if os.Geteuid() != 0 {
		// A group with controllers may hold no processes, so the daemon moves
		// into one of its own first.
		top = filepath.Join(mount, own)
		daemon := filepath.Join(top, "skiff-daemon")
		if err := os.Mkdir(daemon, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { // As the kernel's own.
			return nil, fmt.Errorf("control groups (version 2): %w; run the daemon with Delegate=yes", err)
		}
		if err := control(filepath.Join(daemon, "cgroup.procs"), "0"); err != nil {
			return nil, fmt.Errorf("control groups (version 2): %w; run the daemon with Delegate=yes", err)
		}
	}
	base := filepath.Join(top, leaf)
	if err := os.MkdirAll(base, 0o755); err != nil { // As the kernel's own.
		return nil, fmt.Errorf("control groups (version 2): %w", err)
	}
	for _, dir := range []string{top, filepath.Dir(base), base} {
		err := control(filepath.Join(dir, "cgroup.subtree_control"), "+memory +pids +cpu")
		if err != nil {
			return nil, fmt.Errorf("control groups (version 2): %w", err)
		}
	}
	return &groups{version: 2, bases: map[string]string{"": base}}, nil
}

// leave removes the parent groups, where no container is in them any more. In
// version 2 the parent carries settings that another backend over the same
// state folder (a command that reads while the daemon runs) relies on; there
// it stays, empty.
func (g *groups) leave() {
	if g.version == 2 {
		return
	}
	for _, base := range g.bases {
		_ = os.Remove(base) // the kernel refuses where a container still is
	}
}

// keptPrefix begins the names of keepers' groups.
const keptPrefix = "kept-"

// sweep removes groups of keepers that have ended. The kernel refuses where one
// has not.
func (g *groups) sweep() {
	for _, base := range g.bases {
		left, _ := filepath.Glob(filepath.Join(base, keptPrefix+"*")) // the pattern is well-formed
		for _, dir := range left {
			_ = os.Remove(dir)
		}
	}
}

// groupsOf finds the groups of this runtime that a process is in.
func groupsOf(pid int) []string {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || !Contained(f[2]) {
			continue
		}
		for controller := range strings.SplitSeq(f[1], ",") {
			dirs = append(dirs, filepath.Join("/sys/fs/cgroup", controller, f[2]))
		}
	}
	return dirs
}

// folders are the groups that a container joins, the one that limits its
// processors where it is asked for.
func (g *groups) folders(name string, cpu bool) []string {
	if g.version == 2 {
		return []string{filepath.Join(g.bases[""], name)}
	}
	dirs := []string{
		filepath.Join(g.bases["memory"], name), filepath.Join(g.bases["pids"], name),
		filepath.Join(g.bases["cpuacct"], name),
	}
	if cpu {
		dirs = append(dirs, filepath.Join(g.bases["cpu"], name))
	}
	return dirs
}

// makeGroups makes a container's groups with its limits.
func makeGroups(dirs []string, r runtime.Resources) error {
	pids := r.Pids
	if pids <= 0 {
		pids = defaultPids
	}
	quota := strconv.FormatInt(r.CPUMilli*cpuPeriod.Microseconds()/1000, 10)
	memory := strconv.FormatInt(r.MemoryBytes, 10)
	limits := []struct {
		file, value string
		wanted      bool
		optional    bool
	}{
		{"memory.limit_in_bytes", memory, r.MemoryBytes > 0, false},
		{"memory.memsw.limit_in_bytes", memory, r.MemoryBytes > 0, true},
		{"memory.max", memory, r.MemoryBytes > 0, false},
		{"memory.swap.max", "0", r.MemoryBytes > 0, true},
		{"pids.max", strconv.FormatInt(pids, 10), true, false},
		{"cpu.cfs_quota_us", quota, r.CPUMilli > 0, false},
		{"cpu.max", quota + " " + strconv.FormatInt(cpuPeriod.Microseconds(), 10), r.CPUMilli > 0, false},
	}
	for _, dir := range dirs {
		// With its parent, which another backend over the same state folder may
		// just have left; it may do so between the two, hence once more.
		err := os.MkdirAll(dir, 0o755) // As the kernel's own.
		if errors.Is(err, fs.ErrNotExist) {
			err = os.MkdirAll(dir, 0o755)
		}
		if err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
		for _, l := range limits {
			// Each controller has the files of its own version only.
			if !l.wanted || !strings.HasPrefix(l.file, controllerOf(dir, l.file)) {
				continue
			}
			err := control(filepath.Join(dir, l.file), l.value)
			if err != nil && !l.optional && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("limit %s to %s: %w", l.file, l.value, err)
			}
		}
	}
	return nil
}

// limitsOf are the limits that groups hold.
func limitsOf(r runtime.Resources) runtime.Resources {
	return runtime.Resources{CPUMilli: r.CPUMilli, MemoryBytes: r.MemoryBytes, Pids: r.Pids}
}

// changeGroups replaces one container's limits by the next one's. Memory is
// opened first: the kernel wants memory and swap together never to be below
// memory alone.
func changeGroups(dirs []string, from, to runtime.Resources) error {
	for _, dir := range dirs {
		for _, open := range []struct {
			file, value string
			wanted      bool
		}{
			{"memory.memsw.limit_in_bytes", "-1", from.MemoryBytes > 0},
			{"memory.limit_in_bytes", "-1", from.MemoryBytes > 0},
			{"memory.max", "max", from.MemoryBytes > 0},
			{"memory.swap.max", "max", from.MemoryBytes > 0},
			{"cpu.cfs_quota_us", "-1", from.CPUMilli > 0},
			{"cpu.max", "max", from.CPUMilli > 0},
		} {
			if !open.wanted || !strings.HasPrefix(open.file, controllerOf(dir, open.file)) {
				continue
			}
			if err := control(filepath.Join(dir, open.file), open.value); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("open limit %s: %w", open.file, err)
			}
		}
	}
	return makeGroups(dirs, to)
}

// control writes a setting that the kernel has a file for.
func control(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	return err
}

// controllerOf is the prefix of the files that a group's folder can hold: its
// controller's in version 1, anything in version 2.
func controllerOf(dir, file string) string {
	rest, _ := strings.CutPrefix(dir, "/sys/fs/cgroup/")
	first, _, _ := strings.Cut(rest, "/")
	switch first {
	case "memory", "pids", "cpu":
		return first + "."
	case "cpuacct":
		return "\x00"
	}
	return file
}

// removeGroups removes groups whose processes have ended. The kernel may take a
// moment until it sees them empty.
func removeGroups(dirs []string) {
	for _, dir := range dirs {
		for pause := time.Millisecond; pause < time.Second; pause *= 4 {
			if err := os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			time.Sleep(pause)
		}
	}
}

// groupProcesses lists the processes of a container's groups.
func groupProcesses(dirs []string) []int {
	if len(dirs) == 0 {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(dirs[0], "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}
