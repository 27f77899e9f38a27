package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/runtime"
)

// clockTick is a unit of time in /proc/PID/stat: USER_HZ is 100 on every
// architecture that skiff runs on.
const clockTick = 10 * time.Millisecond

// Stats reads the control groups, or adds up the processes where there are none.
func (b *Backend) Stats(_ context.Context, id string) (runtime.Stats, error) {
	c, err := b.find(id)
	if err != nil {
		return runtime.Stats{}, err
	}
	if s := c.now().State; s != runtime.StateRunning && s != runtime.StateWaiting {
		return runtime.Stats{}, fmt.Errorf("stats of %s: it is %s", id, s)
	}
	s := runtime.Stats{At: time.Now()}
	groups := c.cgroups()
	if len(groups) == 0 {
		c.sumProcesses(&s)
		return s, nil
	}
	var memory, cached int64
	for _, dir := range groups {
		for _, name := range []string{"memory.usage_in_bytes", "memory.current"} {
			memory += readNumber(filepath.Join(dir, name))
		}
		cached += max(readField(filepath.Join(dir, "memory.stat"), "total_inactive_file"),
			readField(filepath.Join(dir, "memory.stat"), "inactive_file"))
		s.Pids += readNumber(filepath.Join(dir, "pids.current"))
		s.CPUNanos += readNumber(filepath.Join(dir, "cpuacct.usage")) +
			readField(filepath.Join(dir, "cpu.stat"), "usage_usec")*1000
	}
	s.MemoryBytes = max(memory-cached, 0)
	return s, nil
}

// sumProcesses adds up the launcher and its descendants.
func (c *container) sumProcesses(s *runtime.Stats) {
	root := c.launcherPID()
	entries, err := os.ReadDir("/proc")
	if root == 0 || err != nil {
		return
	}
	type process struct {
		parent int
		ticks  int64
		pages  int64
	}
	all := map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) < 22 {
			continue
		}
		number := func(i int) int64 { n, _ := strconv.ParseInt(f[i], 10, 64); return n } // the kernel's own
		all[pid] = process{
			parent: int(number(1)), ticks: number(11) + number(12) + number(13) + number(14), pages: number(21),
		}
	}
	for pid, p := range all {
		for at, hops := pid, 0; at > 1 && hops < 1000; at, hops = all[at].parent, hops+1 {
			if at == root {
				s.CPUNanos += p.ticks * int64(clockTick)
				s.MemoryBytes += p.pages * int64(os.Getpagesize())
				s.Pids++
				break
			}
		}
	}
}

// readNumber reads a file of one number; 0 where it is not there.
func readNumber(path string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64) // "max" is no number
	return n
}

// readField reads one line "name number" of a file; 0 where it is not there.
func readField(path, name string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return n
		}
	}
	return 0
}
