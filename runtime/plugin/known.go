package plugin

import (
	"fmt"
	"slices"
	"time"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
	"github.com/skiff-ml/skiff/runtime/device"
)

// known is what is remembered about the devices over the helper's lives: the
// last list, every device ever in one, and the faults that they reported.
type known struct {
	list   device.Inventory
	listed bool
	faults map[string]fault
}

// fault is a device's; until is zero for one that does not pass.
type fault struct {
	health device.Health
	reason string
	until  time.Time
}

// learn takes a new list. A device that was there and is not in it any more
// stays, as unhealthy: what runs on it keeps its claim, and its number is
// missing from nobody's account.
func (k *known) learn(v device.Inventory, now time.Time) {
	old := k.list.Devices
	n := len(v.Devices)
	for _, d := range old {
		if _, still := v.Find(d.UUID); !still {
			d.Health, d.HealthReason = device.Unhealthy, "The device no longer answers. Look at dmesg for NVRM messages; a reboot may bring it back."
			v.Devices = append(v.Devices, d)
		}
	}
	if v.Links != nil {
		v.Links = widen(v.Links, n, len(v.Devices))
	}
	k.list, k.listed = v, true
	for uuid, f := range k.faults {
		if !f.until.IsZero() && now.After(f.until) {
			delete(k.faults, uuid)
		}
	}
}

// widen adds rows and columns of unknown links for devices past the first n.
func widen(links [][]device.Link, n, size int) [][]device.Link {
	for i := range size {
		if i >= n {
			links = append(links, nil)
		}
		for j := len(links[i]); j < size; j++ {
			l := device.Link{Kind: device.LinkUnknown}
			if i == j {
				l.Kind = device.LinkSelf
			}
			links[i] = append(links[i], l)
		}
	}
	return links
}

// report takes a fault. One without a device is of all of them. A graver state
// is never lowered by a lighter one.
func (k *known) report(f *inventory.Fault, suspectFor time.Duration, now time.Time) {
	health, reason := device.FaultHealth(f.GetXid())
	if health == device.Healthy {
		return
	}
	if f.GetXid() == 0 && f.GetMessage() != "" {
		reason = fmt.Sprintf("The driver reported a fault: %s.", f.GetMessage())
	}
	next := fault{health: health, reason: reason}
	if health == device.Suspect {
		next.until = now.Add(suspectFor)
	}
	if k.faults == nil {
		k.faults = map[string]fault{}
	}
	for _, d := range k.list.Devices {
		if f.GetUuid() != "" && f.GetUuid() != d.UUID {
			continue
		}
		if k.faults[d.UUID].health != device.Unhealthy {
			k.faults[d.UUID] = next
		}
	}
}

// view is the list with the faults laid over it.
func (k *known) view(now time.Time) device.Inventory {
	v := k.list.Clone()
	for i := range v.Devices {
		d := &v.Devices[i]
		f, faulty := k.faults[d.UUID]
		if faulty && d.Health == device.Healthy && (f.until.IsZero() || now.Before(f.until)) {
			d.Health, d.HealthReason = f.health, f.reason
		}
	}
	return v
}

// inventoryOf turns the helper's answer into ours, and refuses one that makes
// no sense.
func inventoryOf(answer *inventory.ListResponse) (device.Inventory, error) {
	v := device.Inventory{Devices: []device.Device{}, Source: "nvml", Driver: answer.GetDriver(), CUDA: answer.GetCuda()}
	if answer.GetReason() != "" {
		v.Notes = append(v.Notes, "No GPUs: "+answer.GetReason())
	}
	v.Notes = append(v.Notes, answer.GetNotes()...)
	if n := len(answer.GetDevices()); n > device.MaxDevices {
		return v, fmt.Errorf("%d devices are more than %d", n, device.MaxDevices)
	}
	for i, d := range answer.GetDevices() {
		mig := device.MIGMode(d.GetMig())
		if !slices.Contains([]device.MIGMode{device.MIGUnsupported, device.MIGDisabled, device.MIGEnabled}, mig) {
			return v, fmt.Errorf("devices[%d].mig: %q is no mode", i, mig)
		}
		v.Devices = append(v.Devices, device.Device{
			UUID: d.GetUuid(), Index: int(d.GetIndex()), Model: d.GetModel(), MemoryBytes: d.GetMemoryBytes(),
			PCIBusID: d.GetPciBusId(), NUMA: device.UnknownNUMA, ComputeCapability: d.GetComputeCapability(),
			MIG: mig, Minor: int(d.GetMinor()), Health: device.Healthy,
		})
	}
	for i, row := range answer.GetLinks() {
		v.Links = append(v.Links, make([]device.Link, len(row.GetCells())))
		for j, cell := range row.GetCells() {
			l, err := device.ParseLink(cell)
			if err != nil {
				return v, fmt.Errorf("links[%d][%d]: %w", i, j, err)
			}
			v.Links[i][j] = l
		}
	}
	return v, v.Check()
}

func usageOf(answer *inventory.UsageResponse) ([]device.Usage, []device.Process) {
	usage := make([]device.Usage, len(answer.GetDevices()))
	for i, d := range answer.GetDevices() {
		usage[i] = device.Usage{UUID: d.GetUuid(), UsedBytes: d.GetUsedBytes(), BusyPercent: int(d.GetBusyPercent())}
	}
	processes := make([]device.Process, len(answer.GetProcesses()))
	for i, p := range answer.GetProcesses() {
		processes[i] = device.Process{UUID: p.GetUuid(), PID: int(p.GetPid()), UsedBytes: p.GetUsedBytes()}
	}
	return usage, processes
}
