package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// identity is a user that the command runs as.
type identity struct {
	uid, gid int
	groups   []uint32
	home     string
}

// resolveUser reads "user[:group]", by number or by the names in this root's
// passwd and group files. A number that no file knows is fine, as in engines.
func resolveUser(spec string) (*identity, error) {
	user, group, hasGroup := strings.Cut(spec, ":")
	id := &identity{home: "/"}
	uid, uidErr := strconv.ParseUint(user, 10, 31)
	id.uid = int(uid)
	login := ""
	for _, f := range table("/etc/passwd", 6) {
		if f[0] != user && (uidErr != nil || f[2] != user) {
			continue
		}
		login, id.home = f[0], f[5]
		n, err1 := strconv.ParseUint(f[2], 10, 31)
		g, err2 := strconv.ParseUint(f[3], 10, 31)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("/etc/passwd has no numbers for %s", user)
		}
		id.uid, id.gid, uidErr = int(n), int(g), nil
		break
	}
	if uidErr != nil {
		return nil, fmt.Errorf("no user %s in /etc/passwd", user)
	}
	groups := table("/etc/group", 4)
	if !hasGroup {
		for _, f := range groups {
			if n, err := strconv.ParseUint(f[2], 10, 31); err == nil && login != "" && has(f[3], login) {
				id.groups = append(id.groups, uint32(n))
			}
		}
		return id, nil
	}
	gid, err := strconv.ParseUint(group, 10, 31)
	for _, f := range groups {
		if f[0] == group {
			gid, err = strconv.ParseUint(f[2], 10, 31)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("no group %s in /etc/group", group)
	}
	id.gid = int(gid)
	return id, nil
}

// table reads a file of lines with fields between colons; without it, it is empty.
func table(path string, fields int) [][]string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var rows [][]string
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(strings.TrimRight(line, "\n"), ":"); len(f) >= fields {
			rows = append(rows, f)
		}
	}
	return rows
}

func has(list, name string) bool {
	for item := range strings.SplitSeq(list, ",") {
		if item == name {
			return true
		}
	}
	return false
}

// as runs fn with the command's rights on files, so that the launcher neither
// makes nor reads what the command could not. The thread ends with fn.
func (l *launcher) as(fn func()) {
	if l.who == nil {
		fn()
		return
	}
	root := -1
	if l.kept {
		var err error
		if root, err = mountNamespace(); err != nil {
			return // any other root is the wrong one
		}
		defer syscall.Close(root) //nolint:errcheck // It was only a handle.
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if root >= 0 && (syscall.Unshare(syscall.CLONE_FS) != nil || enter(root) != nil) {
			return // as above
		}
		setGroups(l.who.groups)
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSGID, uintptr(l.who.gid), 0, 0)
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(l.who.uid), 0, 0)
		fn()
	}()
	<-done
}
