//go:build cgo

package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
)

// maxGPUs bounds the loop over what the driver counts.
const maxGPUs = 64

// Symbols behind the calls that not every driver offers. One that is missing
// must not be called: the dynamic loader would end the process.
const (
	symCapability   = "nvmlDeviceGetCudaComputeCapability"
	symMemory       = "nvmlDeviceGetMemoryInfo"
	symMIG          = "nvmlDeviceGetMigMode"
	symMinor        = "nvmlDeviceGetMinorNumber"
	symNVLinkState  = "nvmlDeviceGetNvLinkState"
	symNVLinkRemote = "nvmlDeviceGetNvLinkRemotePciInfo_v2"
	symNVLinkType   = "nvmlDeviceGetNvLinkRemoteDeviceType"
	symTopology     = "nvmlDeviceGetTopologyCommonAncestor"
	symProcesses    = "nvmlDeviceGetComputeRunningProcesses"
	symGraphics     = "nvmlDeviceGetGraphicsRunningProcesses"
	symUtilization  = "nvmlDeviceGetUtilizationRates"
	symEvents       = "nvmlEventSetCreate"
	symRegister     = "nvmlDeviceRegisterEvents"
	symEventTypes   = "nvmlDeviceGetSupportedEventTypes"
	symDriver       = "nvmlSystemGetDriverVersion"
	symCUDA         = "nvmlSystemGetCudaDriverVersion"
)

func optionalSymbols() []string {
	return []string{symCapability, symMemory, symMIG, symMinor, symNVLinkState, symNVLinkRemote, symNVLinkType, symTopology,
		symProcesses, symGraphics, symUtilization, symEvents, symRegister, symEventTypes, symDriver, symCUDA}
}

// reader turns NVML's answers into the contract's. Safe for concurrent use.
type reader struct {
	lib nvml.Interface

	mu    sync.Mutex
	ready bool
	// offered holds the optional symbols that the loaded library has.
	offered map[string]bool
}

func newReader(lib nvml.Interface) *reader { return &reader{lib: lib} }

// open initialises NVML, once it succeeds. The error is a sentence with a remedy.
func (r *reader) open() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ready {
		return nil
	}
	if ret := r.lib.Init(); ret != nvml.SUCCESS {
		return errors.New(initReason(ret))
	}
	// Before Init no symbol may be looked up, and none may be called.
	r.offered = map[string]bool{}
	for _, symbol := range optionalSymbols() {
		// The drivers that renamed a call keep the old name as well, and go-nvml
		// itself chooses between them; either will do.
		r.offered[symbol] = r.lib.Extensions().LookupSymbol(symbol) == nil
	}
	r.ready = true
	return nil
}

// has says whether the call behind symbol may be made.
func (r *reader) has(symbol string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.offered[symbol]
}

// missing are the optional calls that this driver lacks.
func (r *reader) missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	if r.ready {
		for _, symbol := range optionalSymbols() {
			if !r.offered[symbol] {
				names = append(names, symbol)
			}
		}
	}
	return names
}

func initReason(ret nvml.Return) string {
	switch ret {
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return "libnvidia-ml.so.1 is not installed: this machine has no NVIDIA driver. Install the driver if it has a GPU."
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return "the NVIDIA driver is installed but its kernel module is not loaded. Run modprobe nvidia as root, and look at dmesg if that fails."
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return "the NVIDIA library and the loaded kernel module are of different versions, as after an upgrade. Reboot, or reload the module."
	case nvml.ERROR_NO_PERMISSION:
		return "this user may not open the NVIDIA devices. Check the permissions of /dev/nvidiactl."
	}
	return fmt.Sprintf("NVML does not start: %v. nvidia-smi may say more.", ret)
}

// versions reads the driver's and CUDA's; either is empty where unknown.
func (r *reader) versions() (driver, cuda string) {
	if r.has(symDriver) {
		if v, ret := r.lib.SystemGetDriverVersion(); ret == nvml.SUCCESS {
			driver = v
		}
	}
	if r.has(symCUDA) {
		if v, ret := r.lib.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS && v > 0 {
			cuda = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
		}
	}
	return driver, cuda
}

// handles returns the devices that answer and a note for each that does not.
func (r *reader) handles() ([]nvml.Device, []string, error) {
	count, ret := r.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, nil, fmt.Errorf("count the devices: %w", ret)
	}
	var devices []nvml.Device
	var notes []string
	for i := range min(count, maxGPUs) {
		d, ret := r.lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			notes = append(notes, fmt.Sprintf("GPU %d does not answer: %v.", i, ret))
			continue
		}
		devices = append(devices, d)
	}
	return devices, notes, nil
}

// list reads everything about the devices. Whatever goes wrong is in the answer.
func (r *reader) list() *inventory.ListResponse {
	out := &inventory.ListResponse{}
	if err := r.open(); err != nil {
		out.Reason = err.Error()
		return out
	}
	out.Driver, out.Cuda = r.versions()
	handles, notes, err := r.handles()
	out.Notes = notes
	if err != nil {
		out.Reason = fmt.Sprintf("NVML cannot %v.", err)
		return out
	}
	var answering []nvml.Device
	for i, h := range handles {
		d, err := r.device(h, i)
		if err != nil {
			out.Notes = append(out.Notes, fmt.Sprintf("GPU %d does not answer: %v.", i, err))
			continue
		}
		out.Devices = append(out.Devices, d)
		answering = append(answering, h)
	}
	if len(out.Devices) == 0 && out.Reason == "" {
		out.Reason = strings.Join(append([]string{"the NVIDIA driver is loaded and reports no device that works."}, out.Notes...), " ")
	}
	out.Links = r.links(answering, out.Devices)
	return out
}

// device reads one. Without a UUID it cannot be given out, so that is an error;
// everything else may be missing.
func (r *reader) device(h nvml.Device, position int) (*inventory.Device, error) {
	uuid, ret := h.GetUUID()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("read the UUID: %w", ret)
	}
	d := &inventory.Device{Uuid: uuid, Index: int32(position), Minor: -1, Mig: "unsupported"}
	if i, ret := h.GetIndex(); ret == nvml.SUCCESS {
		d.Index = int32(i)
	}
	if name, ret := h.GetName(); ret == nvml.SUCCESS {
		d.Model = name
	}
	if pci, ret := h.GetPciInfo(); ret == nvml.SUCCESS {
		d.PciBusId = busID(pci)
	}
	if r.has(symMemory) {
		if m, ret := h.GetMemoryInfo(); ret == nvml.SUCCESS {
			d.MemoryBytes = int64(min(m.Total, 1<<62))
		}
	}
	if r.has(symCapability) {
		if major, minor, ret := h.GetCudaComputeCapability(); ret == nvml.SUCCESS {
			d.ComputeCapability = fmt.Sprintf("%d.%d", major, minor)
		}
	}
	if r.has(symMinor) {
		if n, ret := h.GetMinorNumber(); ret == nvml.SUCCESS {
			d.Minor = int32(n)
		}
	}
	if r.has(symMIG) {
		if current, _, ret := h.GetMigMode(); ret == nvml.SUCCESS {
			d.Mig = "disabled"
			if current == nvml.DEVICE_MIG_ENABLE {
				d.Mig = "enabled"
			}
		}
	}
	return d, nil
}

// busID is NVML's text in lower case, "" where it has none.
func busID(pci nvml.PciInfo) string {
	var b strings.Builder
	for _, c := range pci.BusId {
		if c <= 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return strings.ToLower(b.String())
}

// usage reads memory, load and processes of every device that answers.
func (r *reader) usage() (*inventory.UsageResponse, error) {
	out := &inventory.UsageResponse{}
	if r.open() != nil {
		return out, nil // no driver, nothing in use
	}
	handles, _, err := r.handles()
	if err != nil {
		return nil, err
	}
	for _, h := range handles {
		uuid, ret := h.GetUUID()
		if ret != nvml.SUCCESS {
			continue
		}
		u := &inventory.DeviceUsage{Uuid: uuid, BusyPercent: -1}
		if r.has(symMemory) {
			if m, ret := h.GetMemoryInfo(); ret == nvml.SUCCESS {
				u.UsedBytes = int64(min(m.Used, 1<<62))
			}
		}
		if r.has(symUtilization) {
			if load, ret := h.GetUtilizationRates(); ret == nvml.SUCCESS {
				u.BusyPercent = int32(min(load.Gpu, 100))
			}
		}
		out.Devices = append(out.Devices, u)
		out.Processes = append(out.Processes, r.processes(h, uuid)...)
	}
	return out, nil
}

// processes are those of one device, each once though it may compute and draw.
func (r *reader) processes(h nvml.Device, uuid string) []*inventory.Process {
	used := map[uint32]uint64{}
	var order []uint32
	add := func(infos []nvml.ProcessInfo) {
		for _, p := range infos {
			memory := p.UsedGpuMemory
			if memory == 1<<64-1 { // NVML's "not available"
				memory = 0
			}
			if _, seen := used[p.Pid]; !seen {
				order = append(order, p.Pid)
			}
			used[p.Pid] = max(used[p.Pid], memory)
		}
	}
	if r.has(symProcesses) {
		if infos, ret := h.GetComputeRunningProcesses(); ret == nvml.SUCCESS {
			add(infos)
		}
	}
	if r.has(symGraphics) {
		if infos, ret := h.GetGraphicsRunningProcesses(); ret == nvml.SUCCESS {
			add(infos)
		}
	}
	out := make([]*inventory.Process, len(order))
	for i, pid := range order {
		out[i] = &inventory.Process{Uuid: uuid, Pid: int32(pid), UsedBytes: int64(min(used[pid], 1<<62))}
	}
	return out
}
