package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/engine/portable"
	"github.com/skiff-ml/skiff/engine/recurring"
	"github.com/skiff-ml/skiff/engine/retention"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/device"
	"github.com/skiff-ml/skiff/runtime/plugin"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store/artifact"
	"github.com/skiff-ml/skiff/store/artifact/s3"
)

// inventoryTimeout bounds the first look at the devices: a driver that hangs
// must not keep pods without devices from running.
const inventoryTimeout = 5 * time.Second

// engines is everything that makes pods run, once the machine has been looked at.
type engines struct {
	backend      runtime.Backend
	capabilities runtime.Capabilities
	node         scheduler.Node
	fake         bool
	pods         *pod.Controller
	pipelines    *pipeline.Controller
	recurring    *recurring.Controller
	retention    *retention.Controller
	porter       *portable.Porter
	repository   *artifact.Repository
	// artifacts is the repository with what object stores keep of it.
	artifacts *s3.Mirror
}

// devices is where accelerators come from.
type devices struct {
	source device.Source
	// run keeps the source up to date; nil where it never changes.
	run func(ctx context.Context) error
	// status tells of the helper, for doctor; nil for declared devices.
	status func() plugin.Status
}

// runEngines looks at the machine, brings the engines up, and runs them until
// ctx ends.
func (d *daemon) runEngines(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	found, err := d.devices()
	if err != nil {
		return err
	}
	if found.run != nil {
		group.Go(func() error { return quietly(ctx, found.run(ctx)) })
	}
	group.Go(func() error {
		e, err := d.bringUp(ctx, found)
		if err != nil {
			return quietly(ctx, err)
		}
		d.engines.Store(e)
		close(d.up)
		if d.cfg.Reading {
			<-ctx.Done()
			return nil
		}
		running, ctx := errgroup.WithContext(ctx)
		running.Go(func() error { return quietly(ctx, e.pods.Run(ctx)) })
		running.Go(func() error { return quietly(ctx, e.pipelines.Run(ctx)) })
		running.Go(func() error { return quietly(ctx, e.recurring.Run(ctx)) })
		running.Go(func() error { return quietly(ctx, e.retention.Run(ctx)) })
		running.Go(func() error { return quietly(ctx, e.artifacts.Run(ctx)) })
		running.Go(func() error { return quietly(ctx, d.followDevices(ctx, e, found.source)) })
		return running.Wait()
	})
	return group.Wait()
}

// quietly drops the error of a room that ended because it was told to.
func quietly(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil
	}
	return err
}

// devices are the declared ones, or those of the machine.
func (d *daemon) devices() (devices, error) {
	if d.cfg.Reading {
		return devices{source: device.None("nothing is run, so no device was looked for")}, nil
	}
	if d.cfg.FakeGPUs != "" {
		declared, err := device.Declare(d.cfg.FakeGPUs, os.DirFS("/"))
		if err != nil {
			return devices{}, err
		}
		return devices{source: declared}, nil
	}
	path, err := plugin.HelperBeside()
	if err != nil {
		return devices{}, err
	}
	supervisor, err := plugin.NewInventory(plugin.Config{Path: path, Logger: d.log})
	if err != nil {
		return devices{}, err
	}
	return devices{source: supervisor, run: supervisor.Run, status: supervisor.Status}, nil
}

// bringUp chooses the runtime and makes the controllers over it.
func (d *daemon) bringUp(ctx context.Context, found devices) (*engines, error) {
	inventory := make(chan device.Inventory, 1)
	go func() {
		// It answers within its timeout whatever the driver does, and the
		// channel has room, so nobody has to wait for this goroutine.
		looked, cancel := context.WithTimeout(ctx, inventoryTimeout)
		defer cancel()
		first, err := found.source.Inventory(looked)
		if err != nil {
			d.log.Warn("the accelerators could not be looked at in time; they are given out once they are known", "error", err)
		}
		inventory <- first
	}()
	backend, err := d.chooseBackend(ctx)
	if err != nil {
		return nil, err
	}
	e := &engines{backend: backend}
	if e.capabilities, err = backend.Capabilities(ctx); err != nil {
		// An engine that is down may come back; its pods wait until then.
		d.log.Warn("the runtime does not answer yet", "runtime", backend.Name(), "error", err)
	}
	machine, err := backend.Inventory(ctx)
	if err != nil {
		machine = hostInventory()
	}
	e.node = nodeOf(runtime.Inventory{CPUMilli: machine.CPUMilli, MemoryBytes: machine.MemoryBytes}, <-inventory)
	if d.cfg.FakeNode != "" {
		declared, err := device.ParseFakeNode(d.cfg.FakeNode)
		if err != nil {
			return nil, fmt.Errorf("--fake-node: %w", err)
		}
		if declared.CPUMilli > 0 {
			e.node.CPUMilli = declared.CPUMilli
		}
		if declared.MemoryBytes > 0 {
			e.node.MemoryBytes = declared.MemoryBytes
		}
		e.node.Fake = true
	}
	e.fake = e.node.Fake
	if err := d.controllers(e, machine); err != nil {
		return nil, err
	}
	if err := d.openPorter(ctx, e); err != nil {
		return nil, err
	}
	d.log.Info("engines are up", "runtime", backend.Name(), "isolation", e.capabilities.Isolation,
		"cpu_milli", e.node.CPUMilli, "memory_bytes", e.node.MemoryBytes, "gpus", len(e.node.Devices), "fake", e.fake)
	return e, nil
}

// nodeOf joins what the backend and the device source found.
func nodeOf(machine runtime.Inventory, inventory device.Inventory) scheduler.Node {
	node := scheduler.Node{CPUMilli: machine.CPUMilli, MemoryBytes: machine.MemoryBytes,
		Links: inventory.LinkClasses(), Fake: inventory.Fake}
	for _, found := range inventory.Devices {
		node.Devices = append(node.Devices, scheduler.Device{
			UUID: found.UUID, Index: found.Index, Model: found.Model, MemoryBytes: found.MemoryBytes,
			NUMA: found.NUMA, Healthy: found.Schedulable(), Fake: found.Fake,
		})
	}
	return node
}

// followDevices tells the scheduler of devices that come, go and fall ill.
func (d *daemon) followDevices(ctx context.Context, e *engines, source device.Source) error {
	return source.Watch(ctx, func(inventory device.Inventory) {
		node := nodeOf(runtime.Inventory{CPUMilli: e.node.CPUMilli, MemoryBytes: e.node.MemoryBytes}, inventory)
		node.Fake = node.Fake || e.fake
		node.Pools = e.node.Pools
		e.pods.SetNode(ctx, node)
	})
}

// controllers makes the controllers of all engines.
func (d *daemon) controllers(e *engines, machine runtime.Inventory) error {
	var err error
	if err = d.openArtifacts(e); err != nil {
		return err
	}
	labels, err := d.cfg.nodeLabels()
	if err != nil {
		return err
	}
	e.pods, err = pod.New(pod.Config{
		NodeLabels: labels,
		Store:      d.store, Backend: e.backend, Node: e.node, StateDir: d.cfg.StateDir, Logger: d.log,
		Volumes: volumes{e.repository}, ClampCPUMilli: machine.CPUMilli, ClampMemoryBytes: machine.MemoryBytes,
		WarmPods: d.warmSteps(),
	})
	if err != nil {
		return err
	}
	var expiry time.Duration
	if d.cfg.CacheExpiry != "" {
		if expiry, err = skiff.ParseAge(d.cfg.CacheExpiry); err != nil {
			return fmt.Errorf("--cache-expiry: %w", err)
		}
	}
	e.pipelines, err = pipeline.New(pipeline.Config{
		Store: d.store, Artifacts: e.artifacts, Stores: e.artifacts, StorePatience: d.cfg.StorePatience, Images: e.backend, Volumes: e.backend, Logger: d.log, Fake: e.fake,
		Warm: d.warmSteps() > 0, CacheExpiry: expiry,
		Fit: func(p *core.Pod) error { return e.pods.Check(&p.Spec) },
	})
	if err != nil {
		return err
	}
	e.recurring, err = recurring.New(recurring.Config{Store: d.store, Pipelines: scheduled{e.pipelines}, Logger: d.log})
	if err != nil {
		return err
	}
	e.retention, err = retention.New(retention.Config{
		Store: d.store, Contents: e.artifacts, Using: e.pipelines.Using, Retention: d.cfg.Retain, Logger: d.log,
	})
	return err
}

// warmSteps is how many containers may wait for their step's inputs.
func (d *daemon) warmSteps() int {
	if d.cfg.WarmSteps == 0 {
		return 2 * goruntime.NumCPU()
	}
	return max(0, d.cfg.WarmSteps)
}
