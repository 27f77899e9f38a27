package main

import (
	"fmt"
	"syscall"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// exec starts a second command with the three descriptors that came with the
// frame. It lives as long as its connection.
func (l *launcher) exec(c *conn, e launch.Exec, fds []int) {
	defer func() {
		for _, fd := range fds {
			_ = syscall.Close(fd)
		}
	}()
	refuse := func(code int, err error) {
		c.send(launch.Frame{Execed: &launch.Execed{ExitCode: code, Message: err.Error()}})
	}
	if l.record.Reason != "" && l.held == nil {
		refuse(codeNotStarted, fmt.Errorf("the container is ending"))
		return
	}
	if len(fds) != 3 || len(e.Argv) == 0 || c.exec != 0 {
		c.send(launch.Frame{Error: "exec takes a command and three descriptors, once a connection"})
		return
	}
	var env []string
	dir := e.Dir
	if l.cmd != nil {
		if !l.cmd.ClearEnv {
			env = l.env
		}
		env = mergeEnv(env, l.cmd.Env)
		if dir == "" {
			dir = l.cmd.Dir
		}
	} else {
		env = l.env
	}
	if dir == "" {
		dir = l.home
	}
	env = mergeEnv(env, e.Env)
	path, code, err := lookPath(e.Argv[0], env)
	if err != nil {
		refuse(code, err)
		return
	}
	pid, code, err := l.fork(program{path: path, argv: e.Argv, env: env, dir: dir, who: l.who, files: fds, tty: e.TTY})
	if err != nil {
		refuse(code, err)
		return
	}
	c.exec = pid
	l.execs[pid] = c
}
