package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// isolation is what works on this machine.
type isolation struct {
	level  Level
	user   bool    // in a user namespace, since the daemon is not root
	groups *groups // nil without control groups
	notes  []string
}

// String is for status and doctor.
func (i isolation) String() string {
	var parts []string
	switch {
	case i.level == LevelNamespaces && i.user:
		parts = append(parts, "user namespaces")
	case i.level == LevelNamespaces:
		parts = append(parts, "namespaces")
	default:
		parts = append(parts, "process session")
	}
	if i.groups != nil {
		parts = append(parts, fmt.Sprintf("cgroup v%d", i.groups.version))
	}
	return strings.Join(parts, ", ")
}

// probeTimeout bounds each try; a working one takes milliseconds.
const probeTimeout = 10 * time.Second

// findIsolation climbs down the ladder until a command runs. It tries by doing:
// what a kernel, a sandbox or a security module forbids cannot be told from
// settings.
func (b *Backend) findIsolation() isolation {
	iso := isolation{level: LevelProcess}
	if !b.cfg.NoCgroups {
		g, err := findGroups(b.cfg.StateDir)
		if err == nil {
			b.mu.Lock()
			b.groups = g
			b.mu.Unlock()
			g.sweep()
			probe := isolation{level: LevelProcess, groups: g}
			err = b.try(probe)
		}
		if err != nil {
			iso.notes = append(iso.notes, fmt.Sprintf(
				"cpu and memory limits are not enforced: %v. Run the daemon as root, or as a systemd service with Delegate=yes.", err))
		} else {
			iso.groups = g
		}
	}
	if b.cfg.Level == LevelProcess {
		iso.notes = append(iso.notes, "namespaces are switched off by configuration; steps see the whole machine")
		return iso
	}
	var failed error
	for _, user := range []bool{false, true} {
		if !user && os.Geteuid() != 0 {
			continue
		}
		probe := isolation{level: LevelNamespaces, user: user, groups: iso.groups}
		if err := b.try(probe); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		iso.level, iso.user = LevelNamespaces, user
		return iso
	}
	iso.notes = append(iso.notes, fmt.Sprintf(
		"steps see the whole machine, and paths such as /minio are not at their place, because namespaces do not work here: %v. "+
			"Allow unprivileged user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0), or run the daemon as root.", failed))
	return iso
}

// try runs a command that does nothing at a level.
func (b *Backend) try(iso isolation) error {
	ctx, cancel := context.WithTimeout(b.ctx, probeTimeout)
	defer cancel()
	dir, err := os.MkdirTemp(filepath.Join(b.cfg.StateDir, "process"), ".probe-")
	if err != nil {
		return err
	}
	defer removeAll(dir) //nolint:errcheck // The next start removes what is left.
	c := &container{b: b, dir: dir, control: launch.ControlDir(filepath.Join(dir, "pod"), "probe")}
	c.spec = runtime.ContainerSpec{Name: filepath.Base(dir), PodDir: filepath.Join(dir, "pod"), Container: "probe"}
	c.ended = make(chan struct{})
	if iso.groups != nil {
		c.groups = iso.groups.folders(c.spec.Name, true)
		defer removeGroups(c.groups)
	}
	if err := c.makeTemp(); err != nil {
		return err
	}
	view, err := c.view(iso)
	if err != nil {
		return err
	}
	if iso.level == LevelNamespaces {
		view.Mounts = b.commonMounts(filepath.Join(dir, tmpFolder))
	}
	if err := host.Prepare(c.spec.PodDir, "probe", launch.Config{Container: "probe", View: view}); err != nil {
		return err
	}
	if err := host.PlaceCommand(c.control, launch.Command{ID: "probe", Argv: []string{"/bin/sh", "-c", ":"}}); err != nil {
		return err
	}
	gone, err := c.spawnAs(iso)
	if err != nil {
		return err
	}
	select {
	case <-gone:
	case <-ctx.Done():
		_ = syscall.Kill(c.pid, syscall.SIGKILL) // it is our child and not reaped before gone
		<-gone
		return context.Cause(ctx)
	}
	r, ok, err := host.ReadExit(c.control)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("the launcher failed: %s", c.complaint())
	case r.ExitCode != 0:
		return errors.New(r.Message)
	}
	return nil
}
