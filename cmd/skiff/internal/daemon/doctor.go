package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/device"
	"github.com/skiff-ml/skiff/runtime/launch/embedded"
	"github.com/skiff-ml/skiff/runtime/plugin"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store/artifact/s3"
)

// probeTimeout bounds one probe: what takes longer is as good as absent.
const probeTimeout = 3 * time.Second

// Doctor probes this machine without a daemon. It changes nothing outside the
// state folder.
func Doctor(ctx context.Context, cfg Config) []view.Check {
	checks := []view.Check{stateCheck(cfg.StateDir), diskCheck(cfg.StateDir, cfg.DiskReserve)}
	checks = append(checks, runtimeChecks(ctx, cfg)...)
	checks = append(checks, gpuChecks(ctx, cfg)...)
	return append(checks, pythonCheck(ctx), cgroupCheck(), loopbackCheck(ctx))
}

func stateCheck(dir string) view.Check {
	check := view.Check{Name: "state folder", Status: view.CheckOK, Found: dir}
	info, err := os.Stat(dir)
	switch {
	case os.IsNotExist(err):
		check.Found += " (not there yet; the first daemon makes it)"
	case err != nil:
		check.Status, check.Found = view.CheckMissing, err.Error()
		check.Fix = "choose another folder with --state-dir or SKIFF_STATE_DIR"
	case info.Mode().Perm()&0o077 != 0:
		check.Status, check.Found = view.CheckWarning, fmt.Sprintf("%s has mode %v", dir, info.Mode().Perm())
		check.Fix = fmt.Sprintf("others on this machine can look into it; chmod 700 %s", dir)
	}
	return check
}

func diskCheck(dir string, reserve int64) view.Check {
	// The folder may not be there yet; what counts is where it will be.
	for dir != "/" && unix.Access(dir, unix.F_OK) != nil {
		dir = filepath.Dir(dir)
	}
	disk := diskOf(dir)
	if reserve == 0 {
		reserve = s3.Reserve(disk.TotalBytes)
	}
	check := view.Check{Name: "disk", Status: view.CheckOK,
		Found: fmt.Sprintf("%s free of %s; nearly full below %s (--disk-reserve)", view.Bytes(disk.FreeBytes), view.Bytes(disk.TotalBytes), view.Bytes(reserve))}
	if disk.FreeBytes < reserve {
		check.Status = view.CheckWarning
		check.Fix = "images and artifacts need room; free some, or put the state elsewhere with --state-dir"
	}
	return check
}

// runtimeChecks asks each backend what it can do here.
func runtimeChecks(ctx context.Context, cfg Config) []view.Check {
	// Probing in the state folder itself would meddle with a daemon's pods.
	dir, err := os.MkdirTemp("", "skiff-doctor-")
	if err != nil {
		return []view.Check{{Name: "temporary folder", Status: view.CheckMissing, Found: err.Error(), Fix: "set TMPDIR to a folder that can be written"}}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cfg.StateDir = dir
	var checks []view.Check
	for _, name := range []string{RuntimeDocker, RuntimeProcess} {
		backend, err := newBackend(cfg, name, "doctor")
		var capabilities runtime.Capabilities
		if err == nil {
			probe, cancel := context.WithTimeout(ctx, probeTimeout)
			capabilities, err = backend.Capabilities(probe)
			cancel()
			closeBackend(backend)
		}
		check := view.Check{Name: name + " runtime", Status: view.CheckOK, Found: describe(capabilities)}
		switch {
		case errors.Is(err, embedded.ErrNoLauncher):
			check.Status, check.Found, check.Fix = view.CheckMissing, err.Error(), "build skiff with make build, which puts the launcher into it"
		case err != nil && name == RuntimeDocker:
			check.Status, check.Found = view.CheckMissing, err.Error()
			check.Fix = "start Docker, or add yourself to its group; without it steps run as processes, where images are matched to interpreters of this machine"
		case err != nil:
			check.Status, check.Found, check.Fix = view.CheckMissing, err.Error(), "use --runtime docker"
		}
		checks = append(checks, check)
		for _, note := range capabilities.Notes {
			checks = append(checks, view.Check{Name: name + " runtime", Status: view.CheckNote, Found: note})
		}
	}
	return checks
}

func describe(c runtime.Capabilities) string {
	parts := []string{c.Isolation}
	if c.Version != "" {
		parts = append(parts, "version "+c.Version)
	}
	for _, feature := range []struct {
		has      bool
		yes, not string
	}{
		{c.Images, "any image", "images matched to interpreters of this machine"},
		{c.Limits, "limits", "no limits of cpu and memory"},
		{c.Mounts, "mounts", "no mounts"},
	} {
		if feature.has {
			parts = append(parts, feature.yes)
		} else {
			parts = append(parts, feature.not)
		}
	}
	if c.GPU != "" {
		parts = append(parts, "GPUs by "+c.GPU)
	}
	return strings.Join(parts, ", ")
}

// gpuChecks looks for the driver, once, with the helper where it is there.
func gpuChecks(ctx context.Context, cfg Config) []view.Check {
	if cfg.FakeGPUs != "" {
		declared, err := device.Declare(cfg.FakeGPUs, os.DirFS("/"))
		if err != nil {
			return []view.Check{{Name: "GPUs", Status: view.CheckMissing, Found: err.Error(), Fix: "leave --fake-gpus out, or name what there is"}}
		}
		inventory, err := declared.Inventory(ctx)
		if err != nil {
			return []view.Check{{Name: "GPUs", Status: view.CheckMissing, Found: err.Error()}}
		}
		return []view.Check{{Name: "GPUs", Status: view.CheckOK, Found: "FAKE: " + inventory.Summary()}}
	}
	inventory, err := lookAtGPUs(ctx)
	if err != nil {
		return []view.Check{{Name: "GPUs", Status: view.CheckMissing, Found: err.Error(), Fix: "docs/gpu.md has the steps from the driver to the container"}}
	}
	check := view.Check{Name: "GPUs", Status: view.CheckOK, Found: inventory.Summary()}
	if len(inventory.Devices) == 0 && len(inventory.Notes) > 0 {
		check.Fix = strings.Join(inventory.Notes, " ")
	}
	return []view.Check{check}
}

func lookAtGPUs(ctx context.Context) (device.Inventory, error) {
	path, err := plugin.HelperBeside()
	if err != nil {
		return device.Inventory{}, err
	}
	supervisor, err := plugin.NewInventory(plugin.Config{Path: path})
	if err != nil {
		return device.Inventory{}, err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// It ends because it is told to, below.
		_ = supervisor.Run(running)
	}()
	defer func() {
		stop()
		<-done
	}()
	looked, cancel := context.WithTimeout(ctx, inventoryTimeout)
	defer cancel()
	return supervisor.Inventory(looked)
}

func pythonCheck(ctx context.Context) view.Check {
	check := view.Check{Name: "python", Status: view.CheckMissing, Found: "no python3 in PATH",
		Fix: "the process runtime runs Python steps with it; on Debian and Ubuntu: apt-get install python3 python3-venv"}
	path, err := exec.LookPath("python3")
	if err != nil {
		return check
	}
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	out, err := exec.CommandContext(probe, path, "-c", "import sys, venv, ensurepip; print(sys.version.split()[0])").Output()
	if err != nil {
		check.Status, check.Found = view.CheckWarning, path+" has no venv module"
		check.Fix = "steps that ask for packages need it; on Debian and Ubuntu: apt-get install python3-venv"
		return check
	}
	return view.Check{Name: "python", Status: view.CheckOK, Found: path + " " + strings.TrimSpace(string(out))}
}

func cgroupCheck() view.Check {
	check := view.Check{Name: "cgroups", Status: view.CheckOK}
	var stat unix.Statfs_t
	switch err := unix.Statfs("/sys/fs/cgroup", &stat); {
	case err != nil:
		check.Status, check.Found = view.CheckMissing, err.Error()
		check.Fix = "limits of cpu and memory cannot be enforced; mount cgroup2 at /sys/fs/cgroup"
	case stat.Type == unix.CGROUP2_SUPER_MAGIC:
		check.Found = "version 2"
	default:
		check.Found = "version 1"
	}
	if os.Geteuid() != 0 {
		check.Found += ", not root: the process runtime enforces limits only where cgroups are delegated to this user"
	}
	return check
}
