package daemon

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact/s3"
)

// Node implements server.NodeSource. Before the engines are up it tells what is
// known without them.
func (d *daemon) Node(ctx context.Context) (*view.Node, error) {
	node := &view.Node{
		Version: d.cfg.Version, StoreID: d.store.ID(), StateDir: d.cfg.StateDir, Started: d.started, Embedded: d.cfg.Embedded,
		Fake: d.cfg.FakeGPUs != "" || d.cfg.FakeNode != "", Disk: diskOf(d.cfg.StateDir),
		Devices: []view.Device{}, Backends: []view.Backend{}, Store: view.StoreStats{Revision: d.store.Revision()},
		Conditions: storeConditions(d.store.Health()),
	}
	select {
	case <-d.up:
	default:
		return node, nil
	}
	e := d.engines.Load()
	node.Runtime, node.Isolation, node.Notes = e.backend.Name(), e.capabilities.Isolation, e.capabilities.Notes
	// What a backend can do may change while the daemon runs: an engine goes
	// down, or comes back after an upgrade.
	capabilities, err := e.backend.Capabilities(ctx)
	node.Backends = append(node.Backends, backendView(e.backend.Name(), capabilities, err, true))
	if err != nil {
		node.Conditions = append(node.Conditions, core.Condition{Type: "RuntimeUnavailable", Status: "True", Reason: "NoAnswer",
			Message: fmt.Sprintf("the %s runtime does not answer: %v; work waits until it does", e.backend.Name(), err)})
	} else {
		node.Isolation, node.Notes = capabilities.Isolation, capabilities.Notes
	}
	node.Conditions = append(node.Conditions, diskConditions(e.artifacts)...)
	snapshot, err := e.pods.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the scheduler who holds what: %w", err)
	}
	fillCapacity(node, snapshot)
	return node, nil
}

func fillCapacity(node *view.Node, s scheduler.Snapshot) {
	node.Fake = node.Fake || s.Node.Fake
	node.Capacity = view.Resources{CPUMilli: s.Node.CPUMilli, MemoryBytes: s.Node.MemoryBytes, GPUs: len(s.Node.Devices)}
	node.Claimed = view.Resources{CPUMilli: s.UsedCPUMilli, MemoryBytes: s.UsedMemoryBytes, GPUs: s.UsedGPUs}
	holders := map[string]string{}
	for _, h := range s.Holders {
		for _, uuid := range h.Grant.GPUs {
			holders[uuid] = h.Item.Name
		}
	}
	for _, found := range s.Node.Devices {
		node.Devices = append(node.Devices, view.Device{
			UUID: found.UUID, Index: found.Index, Model: found.Model, MemoryBytes: found.MemoryBytes,
			Healthy: found.Healthy, Fake: found.Fake, HeldBy: holders[found.UUID],
		})
	}
}

func backendView(name string, c runtime.Capabilities, err error, selected bool) view.Backend {
	b := view.Backend{Name: name, Usable: err == nil, Selected: selected, Version: c.Version, Images: c.Images,
		Isolation: c.Isolation, Limits: c.Limits, Mounts: c.Mounts, GPU: c.GPU, Notes: c.Notes}
	if err != nil {
		b.Error = err.Error()
	}
	return b
}

// storeConditions says what is wrong with the store, and what its check found.
func storeConditions(h store.Health) []core.Condition {
	var all []core.Condition
	add := func(kind, reason, message string, bad bool, at time.Time) {
		c := core.Condition{Type: kind, Status: "False", Reason: reason, Message: message, LastTransitionTime: at}
		if bad {
			c.Status = "True"
		}
		all = append(all, c)
	}
	if !h.Writable {
		add("StoreReadOnly", "WriteFailed", h.Problem, true, time.Time{})
	}
	switch {
	case h.Damage != "":
		add("StoreDamaged", "DamagedValue", h.Damage, true, time.Time{})
	case h.Check.Running:
		add("StoreDamaged", "Checking", "the store was not closed in order and is being checked", false, time.Time{})
	case h.Check.Problem != "":
		add("StoreDamaged", "CheckFailed", h.Check.Problem, true, h.Check.Finished)
	case !h.Check.Finished.IsZero():
		add("StoreDamaged", "Checked", "the full check found the store sound", false, h.Check.Finished)
	}
	if h.Backup.Problem != "" {
		add("BackupFailed", "BackupFailed", h.Backup.Problem, true, h.Backup.Finished)
	}
	return all
}

// diskConditions says that the disk is nearly full.
func diskConditions(m *s3.Mirror) []core.Condition {
	p, err := m.Pressure()
	if err != nil || !p.Low() {
		return nil
	}
	return []core.Condition{{Type: "DiskPressure", Status: "True", Reason: "NearlyFull", Message: fmt.Sprintf(
		"the disk of %s has %s free, less than the %s of --disk-reserve; copies of artifacts that buckets have, too, go by themselves (%s are left), nothing else does: "+
			"bound what is kept with \"skiff gc --retain\", or make room", m.Path(), view.Bytes(p.Free), view.Bytes(p.Reserve), view.Bytes(p.Copies))}}
}

func diskOf(dir string) view.Disk {
	var stat unix.Statfs_t
	if unix.Statfs(dir, &stat) != nil {
		return view.Disk{}
	}
	size := stat.Bsize
	return view.Disk{TotalBytes: int64(stat.Blocks) * size, FreeBytes: int64(stat.Bavail) * size}
}

// hostInventory reads the machine itself, for a backend that cannot be asked yet.
func hostInventory() runtime.Inventory {
	inventory := runtime.Inventory{CPUMilli: int64(goruntime.NumCPU()) * 1000}
	content, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return inventory
	}
	for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:")
		if !ok {
			continue
		}
		if kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64); err == nil {
			inventory.MemoryBytes = kib << 10
		}
	}
	return inventory
}
