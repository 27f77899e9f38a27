package pod

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/scheduler"
)

// Defaults are what a container claims that asks for nothing; zero values stand
// for DefaultCPUMilli and DefaultMemoryBytes.
type Defaults struct {
	CPUMilli, MemoryBytes int64
}

// Demand works out what a pod claims: the sum over its containers and sidecars,
// or what its greatest init container needs where that is more. Requests count,
// and limits where there are no requests; devices are given out whole. Errors
// are a problem.List with the fields that are wrong.
func Demand(spec *core.PodSpec, def Defaults) (scheduler.Demand, error) {
	setDefault(&def.CPUMilli, DefaultCPUMilli)
	setDefault(&def.MemoryBytes, DefaultMemoryBytes)
	var problems problem.List
	var sum, peak scheduler.Demand
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		d := containerDemand(c, def, fmt.Sprintf("spec.initContainers[%d]", i), &problems)
		if isSidecar(c) {
			add(&sum, d, &problems)
			continue
		}
		// An init container runs beside the sidecars that were started before it.
		d.CPUMilli, d.MemoryBytes, d.GPUs = d.CPUMilli+sum.CPUMilli, d.MemoryBytes+sum.MemoryBytes, d.GPUs+sum.GPUs
		peak.CPUMilli, peak.MemoryBytes, peak.GPUs = max(peak.CPUMilli, d.CPUMilli), max(peak.MemoryBytes, d.MemoryBytes), max(peak.GPUs, d.GPUs)
		if d.GPUKind != "" {
			peak.GPUKind = d.GPUKind
		}
	}
	for i := range spec.Containers {
		add(&sum, containerDemand(&spec.Containers[i], def, fmt.Sprintf("spec.containers[%d]", i), &problems), &problems)
	}
	sum.CPUMilli, sum.MemoryBytes, sum.GPUs = max(sum.CPUMilli, peak.CPUMilli), max(sum.MemoryBytes, peak.MemoryBytes), max(sum.GPUs, peak.GPUs)
	if sum.GPUKind == "" {
		sum.GPUKind = peak.GPUKind
	}
	if ext := spec.Skiff; ext != nil {
		for name, n := range ext.Pools {
			if n < 0 {
				_ = problems.Add("spec.skiff.pools."+name, "must not be negative, is %d", n)
			}
		}
		sum.Pools = ext.Pools
	}
	return sum, problems.OrNil()
}

func add(sum *scheduler.Demand, d scheduler.Demand, problems *problem.List) {
	sum.CPUMilli += d.CPUMilli
	sum.MemoryBytes += d.MemoryBytes
	sum.GPUs += d.GPUs
	if d.GPUKind != "" {
		if sum.GPUKind != "" && sum.GPUKind != d.GPUKind {
			_ = problems.Add("spec.containers", "one pod asks for devices of two kinds, %s and %s", sum.GPUKind, d.GPUKind)
		}
		sum.GPUKind = d.GPUKind
	}
	sum.HostPorts = append(sum.HostPorts, d.HostPorts...)
}

// maxAmount bounds any one amount, so that sums cannot overflow: an exbibyte.
const maxAmount = 1 << 60

func containerDemand(c *core.Container, def Defaults, field string, problems *problem.List) scheduler.Demand {
	var d scheduler.Demand
	amount := func(name string) (core.Quantity, bool) {
		request, requested := c.Resources.Requests[name]
		limit, limited := c.Resources.Limits[name]
		switch {
		case requested:
			return request, true
		default:
			return limit, limited
		}
	}
	d.CPUMilli, d.MemoryBytes = def.CPUMilli, def.MemoryBytes
	if q, asked := amount(core.ResourceCPU); asked {
		d.CPUMilli = q.Milli()
	}
	if q, asked := amount(core.ResourceMemory); asked {
		d.MemoryBytes = q.Value()
	}
	if d.CPUMilli > maxAmount || d.MemoryBytes > maxAmount {
		_ = problems.Add(field+".resources", "the amount is out of range")
		d.CPUMilli, d.MemoryBytes = min(d.CPUMilli, maxAmount), min(d.MemoryBytes, maxAmount)
	}
	for _, name := range deviceResources(&c.Resources) {
		q, _ := amount(name)
		n := q.Value()
		if n > 1<<20 || q.Milli() != n*1000 {
			_ = problems.Add(field+".resources."+name, "%s: devices are given out whole, want a small whole number", q)
			continue
		}
		if n == 0 {
			continue
		}
		d.GPUs += int(n)
		if kind := deviceKind(name); kind != "" {
			d.GPUKind = kind
		}
	}
	for i, port := range c.Ports {
		if port.HostPort < 0 || port.HostPort > 65535 {
			_ = problems.Add(fmt.Sprintf("%s.ports[%d].hostPort", field, i), "%d is not a port", port.HostPort)
		} else if port.HostPort > 0 {
			d.HostPorts = append(d.HostPorts, port.HostPort)
		}
	}
	return d
}

// deviceResources are the names among the resources that mean devices: all but
// the few that core/v1 defines.
func deviceResources(r *core.ResourceRequirements) []string {
	var names []string
	for _, list := range []map[string]core.Quantity{r.Requests, r.Limits} {
		for name := range list {
			if isDevice(name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func isDevice(name string) bool {
	switch name {
	case core.ResourceCPU, core.ResourceMemory, "storage", "ephemeral-storage":
		return false
	default:
		return !strings.HasPrefix(name, "hugepages-")
	}
}

// deviceKind is empty for whole devices, else the kind that is asked for by
// name: a MIG profile or a share.
func deviceKind(name string) string {
	switch {
	case strings.HasPrefix(name, "nvidia.com/mig-"):
		return strings.TrimPrefix(name, "nvidia.com/")
	case strings.HasSuffix(name, ".shared"):
		return "shared GPU"
	default:
		return ""
	}
}

// isSidecar: an init container that is restarted always runs beside the others.
func isSidecar(c *core.Container) bool { return c.RestartPolicy == "Always" }

// deviceCount is how many of the pod's devices one container gets.
func deviceCount(c *core.Container) int {
	var discard problem.List
	return containerDemand(c, Defaults{}, "", &discard).GPUs
}
