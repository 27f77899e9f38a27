//go:build cgo

package main

import (
	"strconv"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
)

// lanes counts one device's active NVLinks: to each peer by bus id, and to
// switches, which join it with every other device on them.
type lanes struct {
	direct   map[string]int
	switched int
}

// links is the matrix in nvidia-smi's words, or nothing where no pair's road is
// known. handles and devices run in parallel.
func (r *reader) links(handles []nvml.Device, devices []*inventory.Device) []*inventory.LinkRow {
	n := len(handles)
	if n == 0 {
		return nil
	}
	cells := make([][]string, n)
	wires := make([]lanes, n)
	for i, h := range handles {
		cells[i] = make([]string, n)
		wires[i] = r.nvlinks(h, devices)
	}
	known := n == 1
	for i := range n {
		cells[i][i] = "X"
		for j := i + 1; j < n; j++ {
			// Both ends count the same wires; where one cannot tell, the other may.
			count := max(wires[i].direct[devices[j].GetPciBusId()], wires[j].direct[devices[i].GetPciBusId()]) +
				min(wires[i].switched, wires[j].switched)
			road := "NV" + strconv.Itoa(count)
			if count == 0 {
				road = r.ancestor(handles[i], handles[j])
			}
			known = known || road != "?"
			cells[i][j], cells[j][i] = road, road
		}
	}
	if !known {
		return nil
	}
	rows := make([]*inventory.LinkRow, n)
	for i := range cells {
		rows[i] = &inventory.LinkRow{Cells: cells[i]}
	}
	return rows
}

// nvlinks counts the active links of one device.
func (r *reader) nvlinks(h nvml.Device, devices []*inventory.Device) lanes {
	l := lanes{direct: map[string]int{}}
	if !r.has(symNVLinkState) || !r.has(symNVLinkRemote) {
		return l
	}
	for link := range nvml.NVLINK_MAX_LINKS {
		state, ret := h.GetNvLinkState(link)
		if ret != nvml.SUCCESS {
			break // no such link, or none at all
		}
		if state != nvml.FEATURE_ENABLED {
			continue
		}
		remote, ret := h.GetNvLinkRemotePciInfo(link)
		if ret != nvml.SUCCESS {
			continue
		}
		switch bus := busID(remote); {
		case isDevice(bus, devices):
			l.direct[bus]++
		case r.leadsToSwitch(h, link):
			l.switched++
		}
	}
	return l
}

// leadsToSwitch judges a link whose far end is none of our devices. A driver
// too old to tell knew no other far end than a switch (or an IBM processor,
// which no driver serves any more).
func (r *reader) leadsToSwitch(h nvml.Device, link int) bool {
	if !r.has(symNVLinkType) {
		return true
	}
	kind, ret := h.GetNvLinkRemoteDeviceType(link)
	return ret == nvml.SUCCESS && kind == nvml.NVLINK_DEVICE_TYPE_SWITCH
}

func isDevice(bus string, devices []*inventory.Device) bool {
	for _, d := range devices {
		if bus != "" && d.GetPciBusId() == bus {
			return true
		}
	}
	return false
}

// ancestor is the road over PCIe.
func (r *reader) ancestor(a, b nvml.Device) string {
	if !r.has(symTopology) {
		return "?"
	}
	level, ret := a.GetTopologyCommonAncestor(b)
	if ret != nvml.SUCCESS {
		return "?"
	}
	switch level {
	case nvml.TOPOLOGY_INTERNAL, nvml.TOPOLOGY_SINGLE:
		return "PIX"
	case nvml.TOPOLOGY_MULTIPLE:
		return "PXB"
	case nvml.TOPOLOGY_HOSTBRIDGE:
		return "PHB"
	case nvml.TOPOLOGY_NODE:
		return "NODE"
	case nvml.TOPOLOGY_SYSTEM:
		return "SYS"
	}
	return "?"
}
