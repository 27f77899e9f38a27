package main

import (
	"os"
	"strconv"
	"strings"
)

// oomCounter counts the kernel's kills for memory in the launcher's control
// group, where it can be seen; else the backend has to say.
type oomCounter struct {
	f     *os.File // stays open over a change of root
	start int64
}

// findOOMCounter opens the counter of the innermost memory control group that
// this process sees itself in.
func findOOMCounter() oomCounter {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return oomCounter{}
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		var mount, file string
		switch {
		case f[1] == "memory":
			mount, file = "/sys/fs/cgroup/memory", "/memory.oom_control"
		case f[0] == "0" && f[1] == "":
			mount, file = "/sys/fs/cgroup", "/memory.events"
		default:
			continue
		}
		// In a container the mount often starts at its own group already.
		for _, group := range []string{f[2], ""} {
			if file, err := os.Open(mount + group + file); err == nil {
				c := oomCounter{f: file}
				c.start = c.read()
				return c
			}
		}
	}
	return oomCounter{}
}

func (c oomCounter) read() int64 {
	buf := make([]byte, 4<<10)
	n, _ := c.f.ReadAt(buf, 0) // io.EOF is as expected
	for line := range strings.Lines(string(buf[:n])) {
		if v, ok := strings.CutPrefix(line, "oom_kill "); ok {
			count, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return count
		}
	}
	return 0
}

// rose says whether the kernel has killed for memory since the start.
func (c oomCounter) rose() bool { return c.f != nil && c.read() > c.start }
