package docker

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

// group is where a container's control group files are: one folder with the
// unified hierarchy (v2), one for each controller with the old one (v1).
type group struct{ cpu, memory, pids string }

func (g group) known() bool { return g.cpu != "" && g.memory != "" }

// Stats reads what a container uses: its control group's files where they are
// on this machine, which costs microseconds, and else the engine's own figures,
// which cost a second.
func (b *Backend) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	b.mu.Lock()
	g, ok := b.groups[id]
	b.mu.Unlock()
	if ok {
		if s, err := readGroup(g); err == nil {
			return s, nil
		}
	}
	c, err := b.api.ContainerInspect(ctx, id)
	if err != nil {
		return runtime.Stats{}, b.engineError("read stats of container "+short(id), err)
	}
	if !c.State.Running {
		return runtime.Stats{}, fmt.Errorf("read stats of container %s: %w: it does not run", metaOf(c).name, runtime.ErrExited)
	}
	if g, err := findGroup(c.State.Pid, c.ID); err == nil {
		if s, err := readGroup(g); err == nil {
			b.mu.Lock()
			b.groups[c.ID] = g
			b.mu.Unlock()
			return s, nil
		}
	}
	body, err := b.api.ContainerStats(ctx, id)
	if err != nil {
		return runtime.Stats{}, b.engineError("read stats of container "+metaOf(c).name, err)
	}
	defer body.Close()
	return decodeStats(body)
}

// decodeStats reads the engine's own figures.
func decodeStats(r io.Reader) (runtime.Stats, error) {
	var s dockerapi.StatsResponse
	if err := json.NewDecoder(io.LimitReader(r, 1<<20)).Decode(&s); err != nil {
		return runtime.Stats{}, fmt.Errorf("read stats: %w", err)
	}
	cache := cmp.Or(s.MemoryStats.Stats["total_inactive_file"], s.MemoryStats.Stats["inactive_file"])
	return runtime.Stats{
		At: time.Now(), CPUNanos: int64(s.CPUStats.CPUUsage.TotalUsage),
		MemoryBytes: int64(s.MemoryStats.Usage - min(cache, s.MemoryStats.Usage)), Pids: int64(s.PidsStats.Current),
	}, nil
}

// findGroup locates a container's control groups by its first process. The id
// must be part of the path: the number may have been given to another process.
func findGroup(pid int, id string) (group, error) {
	if pid <= 0 {
		return group{}, errors.New("no process")
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return group{}, err
	}
	defer mounts.Close()
	own, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return group{}, err
	}
	defer own.Close()
	g, err := locateGroup(mounts, own)
	if err == nil && !strings.Contains(g.memory, id) {
		err = fmt.Errorf("process %d is not of container %s", pid, short(id))
	}
	return g, err
}

// locateGroup joins a mountinfo file with a process's cgroup file.
func locateGroup(mountinfo, cgroup io.Reader) (group, error) {
	at := map[string]mountPoint{} // controller (or "" for v2) → where it is mounted
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		m := mountPoint{root: unescape(l[3]), at: unescape(l[4])}
		switch r[0] {
		case "cgroup2":
			at[""] = m
		case "cgroup":
			for name := range strings.SplitSeq(r[2], ",") {
				at[name] = m
			}
		}
	}
	folder := func(controller, path string) string {
		m, ok := at[controller]
		if !ok {
			return ""
		}
		// A hierarchy may be mounted from below its root.
		return filepath.Join(m.at, strings.TrimPrefix(path, strings.TrimSuffix(m.root, "/")))
	}
	var g group
	lines = bufio.NewScanner(cgroup)
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			switch c {
			case "cpuacct":
				g.cpu = folder(c, f[2])
			case "memory":
				g.memory = folder(c, f[2])
			case "pids":
				g.pids = folder(c, f[2])
			case "":
				unified := folder("", f[2])
				g = group{cpu: cmp.Or(g.cpu, unified), memory: cmp.Or(g.memory, unified), pids: cmp.Or(g.pids, unified)}
			}
		}
	}
	if !g.known() {
		return g, errors.New("no control group")
	}
	return g, nil
}

// readGroup reads one sample, of either version.
func readGroup(g group) (runtime.Stats, error) {
	s := runtime.Stats{At: time.Now()}
	var err error
	if s.CPUNanos, err = readNumber(g.cpu, "cpuacct.usage"); err != nil {
		var micros int64
		if micros, err = readField(g.cpu, "cpu.stat", "usage_usec"); err != nil {
			return s, err
		}
		s.CPUNanos = micros * 1000
	}
	cache := "total_inactive_file"
	if s.MemoryBytes, err = readNumber(g.memory, "memory.usage_in_bytes"); err != nil {
		cache = "inactive_file"
		if s.MemoryBytes, err = readNumber(g.memory, "memory.current"); err != nil {
			return s, err
		}
	}
	// What can be dropped at once is not in use.
	if n, err := readField(g.memory, "memory.stat", cache); err == nil {
		s.MemoryBytes = max(0, s.MemoryBytes-n)
	}
	if g.pids != "" {
		s.Pids, _ = readNumber(g.pids, "pids.current") // Absent without the controller.
	}
	return s, nil
}

func readNumber(dir, name string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}

func readField(dir, name, field string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key == field {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", name, field)
}

// Dial opens a connection to a port of the container, at its own address.
func (b *Backend) Dial(ctx context.Context, id string, port int) (net.Conn, error) {
	c, err := b.api.ContainerInspect(ctx, id)
	if err != nil {
		return nil, b.engineError("dial container "+short(id), err)
	}
	f := factsOf(c)
	switch {
	case !c.State.Running:
		return nil, fmt.Errorf("dial container %s: %w", f.name, runtime.ErrExited)
	case f.ip == "":
		return nil, fmt.Errorf("dial container %s: %w: it has no network", f.name, runtime.ErrNotSupported)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(f.ip, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("dial container %s: %w", f.name, err)
	}
	return conn, nil
}
