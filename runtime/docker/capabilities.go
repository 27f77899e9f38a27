package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/runtime"
)

// oldestTested is the oldest version of the engine's interface that the
// conformance suite ran on (Docker 20.10).
const oldestTested = "1.41"

// Capabilities says what the engine can do, asked anew.
func (b *Backend) Capabilities(ctx context.Context) (runtime.Capabilities, error) {
	b.lostEngine()
	e, err := b.reach(ctx)
	if err != nil {
		return runtime.Capabilities{}, err
	}
	c := runtime.Capabilities{
		Images: true, Mounts: true, Isolation: "containers",
		Limits:  e.info.MemoryLimit && e.info.CPUCfsQuota && e.info.PidsLimit,
		GPU:     string(e.gpu),
		Version: fmt.Sprintf("%s (API %s)", e.info.ServerVersion, e.api),
		Notes:   e.doctor(),
	}
	if note := b.nets.problem(); note != "" {
		c.Notes = append(c.Notes, note)
	}
	return c, nil
}

// Inventory is what the engine's machine has.
func (b *Backend) Inventory(ctx context.Context) (runtime.Inventory, error) {
	e, err := b.reach(ctx)
	if err != nil {
		return runtime.Inventory{}, err
	}
	return runtime.Inventory{CPUMilli: int64(e.info.NCPU) * 1000, MemoryBytes: e.info.MemTotal}, nil
}

// doctor are the sentences about this engine.
func (e *engine) doctor() []string {
	i := e.info
	notes := []string{fmt.Sprintf("Docker %s, %s cgroups v%s by %s, storage %s, kernel %s",
		i.ServerVersion, i.OSType, orUnknown(i.CgroupVersion), orUnknown(i.CgroupDriver), i.Driver, i.KernelVersion)}
	add := func(yes bool, sentence string) {
		if yes {
			notes = append(notes, sentence)
		}
	}
	add(!atLeast(e.api, oldestTested), "this engine is older than Docker 20.10, with which skiff is tested; upgrade it")
	add(!i.LiveRestoreEnabled, "a restart of the engine ends running containers, which are then run again; set \"live-restore\": true in /etc/docker/daemon.json to let them live on")
	add(!i.MemoryLimit, "the kernel gives no memory limits (cgroup memory controller); claims are counted but not enforced")
	add(!i.CPUCfsQuota, "the kernel gives no CPU limits (CFS quota); claims are counted but not enforced")
	add(!i.PidsLimit, "the kernel gives no limit on processes; a fork bomb in a container can stop this machine")
	add(i.CgroupDriver == "systemd" && e.gpu != gpuCDI && e.gpu != gpuNone,
		"with the systemd cgroup driver 'systemctl daemon-reload' takes GPUs away from running containers; use CDI (nvidia-ctk cdi generate)")
	for _, o := range i.SecurityOptions {
		add(strings.Contains(o, "name=userns"), "the engine remaps users (userns-remap); pods' folders are then not writable from within, switch it off")
		add(strings.Contains(o, "name=rootless"), "the engine is rootless: ports below 1024 and device limits do not work")
	}
	add(!slices.ContainsFunc(i.SecurityOptions, func(o string) bool { return strings.Contains(o, "seccomp") }),
		"the engine runs containers without its seccomp filter")
	add(e.gpu == gpuNone, "the engine cannot hand GPUs to containers: "+gpuRemedy)
	notes = append(notes, e.notes...)
	return append(notes, i.Warnings...)
}

func orUnknown(s string) string {
	if s == "" {
		return "?"
	}
	return s
}
