package pod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/store"
)

// ErrNotRunning is for a pod that has no running container to ask.
var ErrNotRunning = errors.New("the pod does not run")

// Live is a pod that runs at this moment, with what it uses.
type Live struct {
	Pod   *core.Pod
	Stats runtime.Stats
	// Fake says that the pod's devices are declared, not real.
	Fake bool
}

// Usage reads what all running pods use, by namespace and name. A pod that ends
// meanwhile is left out.
func (c *Controller) Usage(ctx context.Context) ([]Live, error) {
	c.mu.Lock()
	runs := make([]*run, 0, len(c.runs))
	for _, r := range c.runs {
		runs = append(runs, r)
	}
	c.mu.Unlock()
	var list []Live
	for _, r := range runs {
		p := r.pod()
		stats, err := c.statsOf(ctx, r)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			continue
		}
		one := Live{Pod: p, Stats: stats}
		if p.Status.Claim != nil {
			one.Fake = c.fakeDevices(p.Status.Claim.GPUs)
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b Live) int {
		return cmp.Or(cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name))
	})
	return list, nil
}

// Stats reads what a pod's containers use together. Errors are
// store.ErrNotFound and ErrNotRunning.
func (c *Controller) Stats(ctx context.Context, namespace, name string) (runtime.Stats, error) {
	r, err := c.runOf(ctx, namespace, name)
	if err != nil {
		return runtime.Stats{}, err
	}
	return c.statsOf(ctx, r)
}

func (c *Controller) statsOf(ctx context.Context, r *run) (runtime.Stats, error) {
	var sum runtime.Stats
	for _, con := range r.running("") {
		s, err := c.backend.Stats(ctx, con.ID)
		if errors.Is(err, runtime.ErrNotFound) {
			continue
		}
		if err != nil {
			return sum, fmt.Errorf("read what pod %s uses: %w", r.item.Name, err)
		}
		sum.At = s.At
		sum.CPUNanos += s.CPUNanos
		sum.MemoryBytes += s.MemoryBytes
		sum.Pids += s.Pids
	}
	if sum.At.IsZero() {
		return sum, fmt.Errorf("pod %s: %w", r.item.Name, ErrNotRunning)
	}
	return sum, nil
}

// Exec runs a command in a running container of a pod (empty: its first), with
// the environment and in the folder of the container's own command.
func (c *Controller) Exec(ctx context.Context, namespace, name, container string, req runtime.ExecRequest) (int, error) {
	con, err := c.runningContainer(ctx, namespace, name, container)
	if err != nil {
		return 0, err
	}
	p, err := store.GetAs[*core.Pod](ctx, c.store, store.Key{Kind: KindName, Namespace: namespace, Name: name})
	if err != nil {
		return 0, err
	}
	for _, one := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if one.Name != con.Labels[core.LabelContainer] {
			continue
		}
		env, _ := environment(one.Env)
		if p.Status.Claim == nil || len(p.Status.Claim.GPUs) == 0 {
			env = slices.DeleteFunc(env, asksForDevices)
		}
		req.Env, req.Dir = slices.Concat(env, req.Env), cmp.Or(req.Dir, one.WorkingDir)
	}
	return c.backend.Exec(ctx, con.ID, req)
}

// Dial opens a connection to a port of a pod's first container.
func (c *Controller) Dial(ctx context.Context, namespace, name string, port int) (net.Conn, error) {
	con, err := c.runningContainer(ctx, namespace, name, "")
	if err != nil {
		return nil, err
	}
	return c.backend.Dial(ctx, con.ID, port)
}

func (c *Controller) runningContainer(ctx context.Context, namespace, name, container string) (runtime.Container, error) {
	r, err := c.runOf(ctx, namespace, name)
	if err != nil {
		return runtime.Container{}, err
	}
	p := r.pod()
	if container == "" {
		container = p.Spec.Containers[0].Name
	}
	if err := hasContainer(p, container); err != nil {
		return runtime.Container{}, err
	}
	list := r.running(container)
	if len(list) == 0 {
		return runtime.Container{}, fmt.Errorf("container %s of pod %s: %w", container, title(p), ErrNotRunning)
	}
	return list[0], nil
}

// runOf finds the run of a pod by name.
func (c *Controller) runOf(ctx context.Context, namespace, name string) (*run, error) {
	p, err := store.GetAs[*core.Pod](ctx, c.store, store.Key{Kind: KindName, Namespace: namespace, Name: name})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.runs[p.UID]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("pod %s: %w", title(p), ErrNotRunning)
}

// running lists the containers with a running command, of one name or all.
func (r *run) running(container string) []runtime.Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []runtime.Container
	for _, con := range r.seen {
		if con.State == runtime.StateRunning && (container == "" || con.Labels[core.LabelContainer] == container) {
			list = append(list, con)
		}
	}
	slices.SortFunc(list, func(a, b runtime.Container) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
