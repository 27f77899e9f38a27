package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// spawn starts the container's launcher and returns a channel that is closed
// when its process has ended.
func (c *container) spawn(iso isolation) (<-chan struct{}, error) {
	c.mu.Lock()
	if iso.groups != nil && len(c.groups) == 0 {
		c.groups = iso.groups.folders(c.spec.Name, c.spec.Resources.CPUMilli > 0)
	}
	c.mu.Unlock()
	view, err := c.view(iso)
	if err != nil {
		return nil, err
	}
	if err := c.makeTemp(); err != nil {
		return nil, err
	}
	if iso.level == LevelNamespaces {
		view.Mounts = append(c.b.commonMounts(filepath.Join(c.dir, tmpFolder)), view.Mounts...)
	}
	cfg := launch.Config{Container: c.spec.Name, Log: c.spec.Log, View: view}
	if err := host.Prepare(c.spec.PodDir, c.spec.Container, cfg); err != nil {
		return nil, err
	}
	gone, err := c.spawnAs(iso)
	if err != nil {
		return nil, err
	}
	// Written after the fact: a daemon that dies in between finds the launcher
	// by its lock, and one that never took it may be started again.
	proc, err := describe(c.pid)
	if err == nil {
		err = writeFile(filepath.Join(c.dir, spawnedFile), proc)
	}
	if err != nil {
		c.b.cfg.Logger.Debug("a launcher ended before it was noted", "container", c.spec.Name, "error", err)
	}
	return gone, nil
}

// spawnAs starts the launcher at a level of isolation. It is in a session of
// its own, so that nothing which ends the daemon ends it.
func (c *container) spawnAs(iso isolation) (<-chan struct{}, error) {
	if err := makeGroups(c.groups, c.spec.Resources); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(c.dir, launcherFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(c.b.cfg.LauncherPath, c.control) // Our own program.
	cmd.Env = c.environment(iso)
	cmd.Dir = "/tmp" // the container's own, once it has one
	if iso.level != LevelNamespaces {
		cmd.Dir = filepath.Join(c.dir, tmpFolder)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = sysProcAttr(iso, c.spec.Network)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start launcher: %w", err)
	}
	c.mu.Lock()
	c.pid = cmd.Process.Pid
	c.mu.Unlock()
	gone := make(chan struct{})
	// Not waited for by Close: it ends with the launcher, which may outlive us.
	go func() {
		_ = cmd.Wait() // how it ended is in the exit record
		close(gone)
	}()
	return gone, nil
}

func sysProcAttr(iso isolation, network string) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if iso.level != LevelNamespaces {
		return attr
	}
	attr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	if network == "none" {
		attr.Cloneflags |= syscall.CLONE_NEWNET
	}
	if iso.user {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

// kill ends the launcher and all it started. Without a pid namespace of its own
// the descendants are killed first, while they can still be found.
func (c *container) kill() error {
	for _, pid := range groupProcesses(c.cgroups()) {
		if pid != c.launcherPID() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended this instant
		}
	}
	pid, err := c.pidfd()
	if err != nil {
		return nil //nolint:nilerr // It has ended.
	}
	defer unix.Close(pid) //nolint:errcheck // It was only a handle.
	err = unix.PidfdSendSignal(pid, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func (c *container) launcherPID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

// pidfd is a handle on the launcher's very process.
func (c *container) pidfd() (int, error) {
	proc, err := readSpawned(c.dir)
	if err != nil {
		// Known from its socket only.
		if proc, err = describe(c.launcherPID()); err != nil {
			return -1, err
		}
	}
	fd, err := unix.PidfdOpen(proc.PID, 0)
	if err != nil {
		return -1, err
	}
	// The handle is on whoever has the number now; was it he before?
	if !proc.alive() {
		_ = unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// awaitExit waits for the end of a process that is nobody's child here. It says
// false where ctx ended first.
func awaitExit(ctx context.Context, proc spawned) bool {
	fd, err := unix.PidfdOpen(proc.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return true
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	if !proc.alive() {
		return true
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return true
	}
	waited := false
	// The runtime's poller wakes when the process has ended.
	err = raw.Read(func(uintptr) bool {
		done := waited
		waited = true
		return done
	})
	return err == nil && ctx.Err() == nil
}
