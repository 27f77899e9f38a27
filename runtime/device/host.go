package device

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Where the kernel tells of devices, below the root of a file system.
const (
	procGPUs    = "proc/driver/nvidia/gpus"
	procVersion = "proc/driver/nvidia/version"
	sysDevices  = "sys/bus/pci/devices"
)

// maxKernelFile bounds one file of the kernel's; they are a few hundred bytes.
const maxKernelFile = 64 << 10

var versionPattern = regexp.MustCompile(`\b[0-9]{3}\.[0-9]{2,3}(\.[0-9]{2})?\b`)

// ReadProc lists the devices that the kernel module knows of, in pure Go and
// without NVML; root is the machine's file system (os.DirFS("/")). It knows
// neither memory nor links nor MIG. No driver is no devices.
func ReadProc(root fs.FS) Inventory {
	v := Inventory{Devices: []Device{}, Source: "proc"}
	if text, err := readKernelFile(root, procVersion); err == nil {
		v.Driver = versionPattern.FindString(text)
	}
	entries, err := fs.ReadDir(root, procGPUs)
	if err != nil {
		return v
	}
	for _, e := range entries {
		text, err := readKernelFile(root, path.Join(procGPUs, e.Name(), "information"))
		if err != nil {
			v.Notes = append(v.Notes, fmt.Sprintf("GPU at %s cannot be read: %v.", e.Name(), err))
			continue
		}
		d, err := parseInformation(text, e.Name())
		if err != nil {
			v.Notes = append(v.Notes, fmt.Sprintf("GPU at %s is left out: %v.", e.Name(), err))
			continue
		}
		d.Index = len(v.Devices) // the kernel lists by bus id, as CUDA_DEVICE_ORDER=PCI_BUS_ID counts
		v.Devices = append(v.Devices, d)
	}
	return v
}

// parseInformation reads "Key: \t value" lines.
func parseInformation(text, slot string) (Device, error) {
	d := Device{NUMA: UnknownNUMA, Minor: -1, Health: Healthy, MIG: MIGUnsupported, PCIBusID: strings.ToLower(slot)}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Model":
			d.Model = value
		case "GPU UUID":
			d.UUID = value
		case "Bus Location":
			d.PCIBusID = strings.ToLower(value)
		case "Device Minor":
			if n, err := strconv.Atoi(value); err == nil {
				d.Minor = n
			}
		case "GPU Excluded":
			if value == "Yes" {
				return Device{}, errors.New("the driver was told to exclude it")
			}
		}
	}
	if !strings.HasPrefix(d.UUID, "GPU-") || strings.Contains(d.UUID, "?") {
		return Device{}, errors.New("the driver has not told its UUID yet; run nvidia-smi once as root")
	}
	return d, nil
}

// smiFields are asked of nvidia-smi; drivers since 450 know all of them.
const smiFields = "index,uuid,name,memory.total,pci.bus_id,mig.mode.current,driver_version"

// maxSMIOutput bounds what nvidia-smi may say: a line for each device.
const maxSMIOutput = 256 << 10

// ReadSMI asks nvidia-smi at path. It returns when ctx ends even where the
// program hangs in the kernel and cannot be killed; then it is left behind.
func ReadSMI(ctx context.Context, path string) (Inventory, error) {
	type answer struct {
		out []byte
		err error
	}
	done := make(chan answer, 1)
	cmd := exec.CommandContext(ctx, path, "--query-gpu="+smiFields, "--format=csv,noheader,nounits")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout = &limitedWriter{w: &out, left: maxSMIOutput}
	go func() {
		err := cmd.Run()
		done <- answer{out.Bytes(), err}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			return Inventory{}, fmt.Errorf("run %s: %w", path, a.err)
		}
		return parseSMI(a.out)
	case <-ctx.Done():
	}
	// CommandContext kills it; that takes effect at once, or never.
	select {
	case <-done:
	case <-time.After(2 * cmd.WaitDelay):
	}
	return Inventory{}, fmt.Errorf("run %s: %w", path, context.Cause(ctx))
}

func parseSMI(out []byte) (Inventory, error) {
	v := Inventory{Devices: []Device{}, Source: "nvidia-smi"}
	r := csv.NewReader(bytes.NewReader(out))
	r.TrimLeadingSpace, r.FieldsPerRecord = true, strings.Count(smiFields, ",")+1
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Inventory{}, fmt.Errorf("read nvidia-smi's answer: %w", err)
		}
		index, err := strconv.Atoi(row[0])
		if err != nil {
			return Inventory{}, fmt.Errorf("read nvidia-smi's answer: index %q", row[0])
		}
		d := Device{Index: index, UUID: row[1], Model: row[2], PCIBusID: strings.ToLower(row[4]),
			NUMA: UnknownNUMA, Minor: -1, Health: Healthy, MIG: MIGUnsupported}
		if mib, err := strconv.ParseInt(row[3], 10, 32); err == nil {
			d.MemoryBytes = mib << 20
		}
		switch row[5] {
		case "Enabled":
			d.MIG = MIGEnabled
		case "Disabled":
			d.MIG = MIGDisabled
		}
		v.Driver = row[6]
		v.Devices = append(v.Devices, d)
	}
	return v, v.Check()
}

// AddPlaces fills in, from the kernel, which NUMA node and CPUs each device is
// near to. What is not known stays unknown.
func AddPlaces(root fs.FS, devices []Device) {
	for i := range devices {
		slot := sysfsSlot(devices[i].PCIBusID)
		if slot == "" {
			continue
		}
		if text, err := readKernelFile(root, path.Join(sysDevices, slot, "numa_node")); err == nil {
			if n, err := strconv.Atoi(text); err == nil && n >= 0 {
				devices[i].NUMA = n
			}
		}
		if text, err := readKernelFile(root, path.Join(sysDevices, slot, "local_cpulist")); err == nil && cpuListPattern.MatchString(text) {
			devices[i].CPUAffinity = text
		}
	}
}

// sysfsSlot turns NVML's "00000000:07:00.0" into the kernel's "0000:07:00.0".
func sysfsSlot(busID string) string {
	if !pciPattern.MatchString(busID) {
		return ""
	}
	domain, rest, _ := strings.Cut(busID, ":")
	if len(domain) == 8 && strings.HasPrefix(domain, "0000") {
		domain = domain[4:]
	}
	return domain + ":" + rest
}

func readKernelFile(root fs.FS, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxKernelFile))
	return strings.TrimSpace(string(data)), err
}

// limitedWriter refuses what is past its bound, which ends the writing program.
type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, errors.New("more output than expected")
	}
	l.left -= len(p)
	return l.w.Write(p)
}
