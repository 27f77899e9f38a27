package device

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const a100Information = "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 234\nGPU UUID: \t GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77\n" +
	"Video BIOS: \t 92.00.19.00.13\nBus Type: \t PCIe\nDMA Size: \t 47 bits\nDMA Mask: \t 0x7fffffffffff\n" +
	"Bus Location: \t 0000:0F:00.0\nDevice Minor: \t 1\nGPU Excluded:\t No\n"

func TestReadProc(t *testing.T) {
	root := fstest.MapFS{
		"proc/driver/nvidia/version":                          {Data: []byte("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.127.05  Tue Oct  8 03:22:07 UTC 2024\nGCC version:  gcc version 12.2.0\n")},
		"proc/driver/nvidia/gpus/0000:0f:00.0/information":    {Data: []byte(a100Information)},
		"proc/driver/nvidia/gpus/0000:10:00.0/information":    {Data: []byte("Model: Unknown\nGPU UUID: \t GPU-????????-????-????-????-????????????\n")},
		"proc/driver/nvidia/gpus/0000:11:00.0/information":    {Data: []byte(strings.Replace(a100Information, "Excluded:\t No", "Excluded:\t Yes", 1))},
		"proc/driver/nvidia/gpus/0000:12:00.0/registry":       {Data: []byte("no information here")},
		"sys/bus/pci/devices/0000:0f:00.0/numa_node":          {Data: []byte("3\n")},
		"sys/bus/pci/devices/0000:0f:00.0/local_cpulist":      {Data: []byte("48-63,176-191\n")},
		"sys/bus/pci/devices/0000:0f:00.0/unrelated/and/deep": {Data: []byte("x")},
	}
	got := ReadProc(root)
	AddPlaces(root, got.Devices)
	want := []Device{{UUID: "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", Model: "NVIDIA A100-SXM4-40GB", PCIBusID: "0000:0f:00.0",
		NUMA: 3, CPUAffinity: "48-63,176-191", MIG: MIGUnsupported, Health: Healthy, Minor: 1}}
	if diff := cmp.Diff(want, got.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if got.Driver != "550.127.05" || got.Source != "proc" || len(got.Notes) != 3 {
		t.Errorf("driver %q, source %q, notes %q", got.Driver, got.Source, got.Notes)
	}
	for i, part := range []string{"10:00.0 is left out: the driver has not told its UUID", "11:00.0 is left out: the driver was told to exclude", "12:00.0 cannot be read"} {
		if !strings.Contains(got.Notes[i], part) {
			t.Errorf("note %q, want %q", got.Notes[i], part)
		}
	}
	if none := ReadProc(fstest.MapFS{}); len(none.Devices) != 0 || none.Driver != "" || len(none.Notes) != 0 {
		t.Errorf("without a driver: %+v", none)
	}
}

func TestAddPlaces(t *testing.T) {
	root := fstest.MapFS{
		"sys/bus/pci/devices/0000:07:00.0/numa_node":     {Data: []byte("-1\n")}, // the kernel's word for none
		"sys/bus/pci/devices/0000:07:00.0/local_cpulist": {Data: []byte("0-3\n")},
		"sys/bus/pci/devices/10000:08:00.0/numa_node":    {Data: []byte("1\n")},
	}
	devices := []Device{{PCIBusID: "00000000:07:00.0", NUMA: -1}, {PCIBusID: "../../..", NUMA: -1}, {PCIBusID: "", NUMA: -1}, {PCIBusID: "00000000:09:00.0", NUMA: -1}}
	AddPlaces(root, devices)
	for i, want := range []string{"0-3", "", "", ""} {
		if devices[i].NUMA != UnknownNUMA || devices[i].CPUAffinity != want {
			t.Errorf("device %d: %+v", i, devices[i])
		}
	}
}

func TestParseSMI(t *testing.T) {
	got, err := parseSMI([]byte("0, GPU-aa, NVIDIA A100-SXM4-40GB, 40960, 00000000:07:00.0, Disabled, 550.127.05\n" +
		"1, GPU-bb, NVIDIA GB10, [N/A], 0000000F:01:00.0, [N/A], 550.127.05\n2, GPU-cc, NVIDIA H100, 81559, 00000000:1B:00.0, Enabled, 550.127.05\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Device{
		{UUID: "GPU-aa", Index: 0, Model: "NVIDIA A100-SXM4-40GB", MemoryBytes: 40960 << 20, PCIBusID: "00000000:07:00.0", NUMA: -1, Minor: -1, MIG: MIGDisabled, Health: Healthy},
		{UUID: "GPU-bb", Index: 1, Model: "NVIDIA GB10", PCIBusID: "0000000f:01:00.0", NUMA: -1, Minor: -1, MIG: MIGUnsupported, Health: Healthy},
		{UUID: "GPU-cc", Index: 2, Model: "NVIDIA H100", MemoryBytes: 81559 << 20, PCIBusID: "00000000:1b:00.0", NUMA: -1, Minor: -1, MIG: MIGEnabled, Health: Healthy},
	}
	if diff := cmp.Diff(want, got.Devices); diff != "" || got.Driver != "550.127.05" {
		t.Errorf("driver %s, devices (-want +got):\n%s", got.Driver, diff)
	}
	for _, bad := range []string{
		"No devices were found\n",
		"x, GPU-aa, A, 1, 0000:07:00.0, Disabled, 1\n",
		"0, GPU-aa, A, 1, b, Disabled, 1\n0, GPU-aa, A, 1, b, Disabled, 1\n",
		"0, GPU-aa\n",
	} {
		if v, err := parseSMI([]byte(bad)); err == nil {
			t.Errorf("%q reads as %+v", bad, v)
		}
	}
	if v, err := parseSMI(nil); err != nil || len(v.Devices) != 0 {
		t.Errorf("no rows: %+v, %v", v, err)
	}
}

func TestReadSMI(t *testing.T) {
	program := func(body string) string {
		path := filepath.Join(t.TempDir(), "nvidia-smi")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// The arguments matter: they are what real drivers are asked.
	v, err := ReadSMI(t.Context(), program(`[ "$1" = "--query-gpu=index,uuid,name,memory.total,pci.bus_id,mig.mode.current,driver_version" ] &&
[ "$2" = "--format=csv,noheader,nounits" ] && echo "0, GPU-aa, NVIDIA L4, 23034, 00000000:01:00.0, [N/A], 550.54.15"`))
	if err != nil || len(v.Devices) != 1 || v.Devices[0].MemoryBytes != 23034<<20 {
		t.Errorf("got %+v, %v", v, err)
	}
	if _, err := ReadSMI(t.Context(), program("exit 9")); err == nil || !strings.Contains(err.Error(), "exit status 9") {
		t.Errorf("a failure: %v", err)
	}
	if _, err := ReadSMI(t.Context(), program("yes 0123456789")); err == nil {
		t.Error("endless output reads as an inventory")
	}
	if _, err := ReadSMI(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, late)
	defer cancel()
	if _, err := ReadSMI(ctx, program("exec sleep 60")); !errors.Is(err, late) {
		t.Errorf("a hang: %v", err)
	}
}

func TestFaultHealth(t *testing.T) {
	for want, numbers := range map[Health][]uint64{
		Healthy:   {13, 31, 43, 45, 68, 94, 109},
		Unhealthy: {48, 63, 64, 74, 79, 92, 95, 119, 120},
		Suspect:   {0, 8, 62, 1 << 63},
	} {
		for _, xid := range numbers {
			if got, why := FaultHealth(xid); got != want || !strings.HasSuffix(why, ".") {
				t.Errorf("XID %d makes a device %s (%s), want %s", xid, got, why, want)
			}
		}
	}
}

func FuzzParseSMI(f *testing.F) {
	f.Add([]byte("0, GPU-aa, NVIDIA L4, 23034, 00000000:01:00.0, [N/A], 550.54.15\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if v, err := parseSMI(data); err == nil && v.Check() != nil {
			t.Errorf("accepted what is no inventory: %+v", v)
		}
	})
}
