package device

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// MaxDevices bounds an inventory: far above any single machine, low enough that
// a damaged or hostile answer cannot make the daemon work for long.
const MaxDevices = 64

// Health is whether a device gets work.
//
//	Healthy ◄──► Suspect ──► Unhealthy        any ◄──► Unknown
type Health string

// The states. Only a Healthy device gets new work; none of the others ends what
// already runs. Suspect: it reported an error that may pass. Unhealthy: it
// reported one that needs a reset. Unknown: the helper does not answer, so
// nobody knows.
const (
	Healthy   Health = "Healthy"
	Suspect   Health = "Suspect"
	Unhealthy Health = "Unhealthy"
	Unknown   Health = "Unknown"
)

// MIGMode is whether a device is, or can be, cut into MIG instances.
type MIGMode string

// The modes. A device in MIGEnabled cannot be given out whole.
const (
	MIGUnsupported MIGMode = "unsupported"
	MIGDisabled    MIGMode = "disabled"
	MIGEnabled     MIGMode = "enabled"
)

// UnknownNUMA is the node of a device whose place is not known.
const UnknownNUMA = -1

// Device is one accelerator.
type Device struct {
	// UUID names the device for ever ("GPU-…"); the index may change at a reboot.
	UUID  string `json:"uuid"`
	Index int    `json:"index"`
	Model string `json:"model"`
	// MemoryBytes is all of it, used or not; 0 where the source cannot tell.
	MemoryBytes int64 `json:"memoryBytes"`
	// PCIBusID is "00000000:07:00.0", in lower case.
	PCIBusID string `json:"pciBusID,omitempty"`
	// NUMA is the node, or UnknownNUMA.
	NUMA int `json:"numa"`
	// CPUAffinity is the near CPUs as the kernel writes lists ("0-15,64-79").
	CPUAffinity string `json:"cpuAffinity,omitempty"`
	// ComputeCapability is "8.0"; empty where unknown.
	ComputeCapability string  `json:"computeCapability,omitempty"`
	MIG               MIGMode `json:"mig,omitempty"`
	Health            Health  `json:"health"`
	// HealthReason is a sentence, for every state but Healthy.
	HealthReason string `json:"healthReason,omitempty"`
	// Minor is the N of /dev/nvidiaN, -1 where unknown.
	Minor int `json:"minor"`
	// Fake devices are declared; no such hardware exists.
	Fake bool `json:"fake,omitempty"`
}

// Schedulable says whether the device may get new work as a whole device.
func (d Device) Schedulable() bool { return d.Health == Healthy && d.MIG != MIGEnabled }

// Inventory is what was found, or declared.
type Inventory struct {
	Devices []Device `json:"devices"`
	// Links[i][j] joins Devices[i] and Devices[j]. It is square and symmetric, or
	// nil where the topology is not known.
	Links [][]Link `json:"links,omitempty"`
	// Source says where this comes from: "nvml", "nvidia-smi", "proc", "none" or
	// "fake NAME".
	Source string `json:"source"`
	// Driver is the driver's version, CUDA the highest CUDA version it serves.
	Driver string `json:"driver,omitempty"`
	CUDA   string `json:"cuda,omitempty"`
	// Fake inventories are declared. Every device in one is fake, and none is in
	// any other.
	Fake bool `json:"fake,omitempty"`
	// Forced fakes stand even where real devices are: somebody asked for that.
	Forced bool `json:"-"`
	// Notes are sentences for doctor: why there are no devices, or what this
	// source cannot see, and how to mend it.
	Notes []string `json:"notes,omitempty"`
}

// Source is where an inventory comes from. Both methods are safe for
// concurrent use.
type Source interface {
	// Inventory is the newest known one. It answers from memory, so it is quick
	// even while the hardware hangs; no devices is not an error.
	Inventory(ctx context.Context) (Inventory, error)
	// Watch calls fn with the present inventory and then with each that differs
	// from the one before, until ctx ends, and returns ctx's cause. fn is never
	// called concurrently by one Watch. A slow fn misses steps, never the last.
	Watch(ctx context.Context, fn func(Inventory)) error
}

// Process is one process that uses a device.
type Process struct {
	UUID string `json:"uuid"`
	// PID is as the host counts.
	PID int `json:"pid"`
	// UsedBytes is device memory; 0 where the driver does not tell.
	UsedBytes int64 `json:"usedBytes"`
}

// Usage is what one device does at this moment.
type Usage struct {
	UUID string `json:"uuid"`
	// UsedBytes of MemoryBytes are taken; BusyPercent is 0–100, -1 where unknown.
	UsedBytes   int64 `json:"usedBytes"`
	BusyPercent int   `json:"busyPercent"`
}

// UsageReader tells who uses the devices; a Source may be one.
type UsageReader interface {
	// Usage reads from the hardware and may take as long as its deadline.
	Usage(ctx context.Context) ([]Usage, []Process, error)
}

// Find returns the device of that UUID.
func (v Inventory) Find(uuid string) (Device, bool) {
	i := slices.IndexFunc(v.Devices, func(d Device) bool { return d.UUID == uuid })
	if i < 0 {
		return Device{}, false
	}
	return v.Devices[i], true
}

// Equal says whether nothing that anyone acts on differs.
func (v Inventory) Equal(o Inventory) bool {
	return reflect.DeepEqual(v, o)
}

// Clone copies the inventory with everything it points to.
func (v Inventory) Clone() Inventory {
	v.Devices = slices.Clone(v.Devices)
	v.Notes = slices.Clone(v.Notes)
	v.Links = slices.Clone(v.Links)
	for i := range v.Links {
		v.Links[i] = slices.Clone(v.Links[i])
	}
	return v
}

// WithHealth is a copy in which every device has this health.
func (v Inventory) WithHealth(h Health, reason string) Inventory {
	v = v.Clone()
	for i := range v.Devices {
		v.Devices[i].Health, v.Devices[i].HealthReason = h, reason
	}
	return v
}

// LinkClasses is Links as numbers, for placement: see Link.Class. It is nil
// where the topology is not known.
func (v Inventory) LinkClasses() [][]int {
	if v.Links == nil {
		return nil
	}
	classes := make([][]int, len(v.Links))
	for i, row := range v.Links {
		classes[i] = make([]int, len(row))
		for j, l := range row {
			classes[i][j] = l.Class()
		}
	}
	return classes
}

// Summary is one line for status and doctor: "8 × NVIDIA A100-SXM4-40GB (fake
// dgx-a100: declared, no such hardware exists)".
func (v Inventory) Summary() string {
	if len(v.Devices) == 0 {
		return "no GPUs"
	}
	var models []string
	count := map[string]int{}
	unfit := 0
	for _, d := range v.Devices {
		if count[d.Model] == 0 {
			models = append(models, d.Model)
		}
		count[d.Model]++
		if d.Health != Healthy {
			unfit++
		}
	}
	for i, m := range models {
		models[i] = fmt.Sprintf("%d × %s", count[m], m)
	}
	s := strings.Join(models, ", ")
	if unfit > 0 {
		s += fmt.Sprintf(", %d of them not healthy", unfit)
	}
	if v.Fake {
		return s + " (" + v.Source + ": declared, no such hardware exists)"
	}
	return s + " (" + v.Source + ")"
}

// Check says what is inconsistent about an inventory, whoever made it: an
// answer of the helper is judged by it before anyone acts on it.
func (v Inventory) Check() error {
	n := len(v.Devices)
	if n > MaxDevices {
		return fmt.Errorf("%d devices are more than %d", n, MaxDevices)
	}
	seen := map[string]int{}
	for i, d := range v.Devices {
		switch first, dup := seen[d.UUID]; {
		case d.UUID == "" || strings.ContainsAny(d.UUID, ", \t\n="):
			return fmt.Errorf("devices[%d].uuid: %q is not a device name", i, d.UUID)
		case dup:
			return fmt.Errorf("devices[%d].uuid: %s is also devices[%d]", i, d.UUID, first)
		case d.MemoryBytes < 0:
			return fmt.Errorf("devices[%d].memoryBytes: %d is negative", i, d.MemoryBytes)
		case d.Fake != v.Fake:
			return fmt.Errorf("devices[%d].fake: a declared device and a real one do not mix", i)
		case d.Fake != strings.HasPrefix(d.UUID, FakePrefix):
			return fmt.Errorf("devices[%d].uuid: %s: declared devices, and no others, are named %s…", i, d.UUID, FakePrefix)
		}
		seen[d.UUID] = i
	}
	return checkLinks(v.Links, n)
}
