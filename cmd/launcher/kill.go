package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// killAll sends SIGKILL to everything in the container but the launcher. As the
// first process of a pid namespace it has the kernel's own call for that; else
// every descendant is its child or a child's child, since it is their reaper.
func killAll() {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL) // ESRCH: nobody is left
		return
	}
	for _, pid := range descendants(os.Getpid()) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// alone says whether nothing but the launcher and dead processes is left in the
// pid namespace.
func alone() bool {
	if syscall.Kill(-1, 0) == syscall.ESRCH {
		return true
	}
	for pid, s := range processes() {
		if pid != os.Getpid() && s.state != 'Z' && s.state != 'X' {
			return false
		}
	}
	return true
}

// process is what /proc says about one.
type process struct {
	parent int
	state  byte
}

// processes lists what /proc shows.
func processes() map[int]process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	all := map[int]process{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything, so look behind the last one.
		i := strings.LastIndexByte(string(stat), ')')
		f := strings.Fields(string(stat[i+1:]))
		if len(f) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(f[1])
		all[pid] = process{parent: parent, state: f[0][0]}
	}
	return all
}

// descendants lists the living ones of root.
func descendants(root int) []int {
	all := processes()
	children := map[int][]int{}
	for pid, p := range all {
		children[p.parent] = append(children[p.parent], pid)
	}
	var found []int
	for queue := children[root]; len(queue) > 0; queue = queue[1:] {
		found = append(found, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return found
}
