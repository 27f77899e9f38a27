package plugin

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime/device"
)

// library builds the stand-in for NVIDIA's library and puts it where the helper
// finds it first.
func library(t *testing.T, flags ...string) {
	t.Helper()
	header, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
	if err != nil {
		t.Fatalf("find nvml.h: %v", err)
	}
	dir := t.TempDir()
	args := append(flags, "-w", "-shared", "-fPIC", "-I", filepath.Join(strings.TrimSpace(string(header)), "pkg", "nvml"),
		"-o", filepath.Join(dir, "libnvidia-ml.so.1"), filepath.Join("testdata", "libnvml.c"))
	if out, err := exec.CommandContext(t.Context(), "gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("build the stand-in: %v\n%s", err, out)
	}
	t.Setenv("LD_LIBRARY_PATH", dir)
}

// With a library that has only what every driver has, the real helper lives: a
// single call that is not looked up first would end its process.
func TestAnOldDriver(t *testing.T) {
	helper := realHelper(t)
	library(t)
	cfg := quick(helper)
	cfg.BeatTimeout = DefaultBeatTimeout
	s := run(t, cfg)
	v := await(t, s, "two devices", with("Healthy Healthy"))
	d := v.Devices[1]
	if v.Source != "nvml" || d.UUID != "GPU-00000000-0000-0000-0000-000000000001" || d.Model != "Stand-in GPU" || d.PCIBusID != "00000000:0b:00.0" ||
		d.Index != 1 || d.Minor != -1 || d.MemoryBytes != 0 || d.MIG != device.MIGUnsupported || v.Links != nil || v.Driver != "" {
		t.Errorf("got %+v", v)
	}
	usage, processes, err := s.Usage(t.Context())
	if err != nil || len(usage) != 2 || usage[0].BusyPercent != -1 || len(processes) != 0 {
		t.Errorf("usage %v, %v, %v", usage, processes, err)
	}
	if st := s.Status(); st.Starts != 1 || len(st.Missing) < 10 || !slices.Contains(st.Missing, "nvmlEventSetCreate") {
		t.Errorf("status %+v", st)
	}
}

func TestADriverWithEvents(t *testing.T) {
	helper := realHelper(t)
	library(t, "-DFULL")
	cfg := quick(helper)
	cfg.BeatTimeout = DefaultBeatTimeout
	s := run(t, cfg)
	v := await(t, s, "a fault", with("Healthy Unhealthy"))
	if !strings.HasPrefix(v.Devices[1].HealthReason, "XID 79") || v.Driver != "999.01" || v.Devices[0].MemoryBytes != 16<<30 ||
		v.Links[0][1].Kind != device.LinkPHB || v.Links[1][0].Kind != device.LinkPHB {
		t.Errorf("got %+v", v)
	}
	usage, _, err := s.Usage(t.Context())
	if err != nil || len(usage) != 2 || usage[1].UsedBytes != 1<<30 {
		t.Errorf("usage %v, %v", usage, err)
	}
}

// A call that never returns costs the helper its life and the daemon nothing.
func TestADriverThatHangs(t *testing.T) {
	helper := realHelper(t)
	library(t, "-DHANG")
	cfg := quick(helper)
	cfg.ListTimeout, cfg.Quick = time.Second, []time.Duration{time.Hour}
	s := run(t, cfg)
	v := await(t, s, "a reason", noted("did not answer and was ended"))
	if len(v.Devices) != 0 {
		t.Errorf("devices out of nowhere: %+v", v)
	}
	awaitStatus(t, s, func(st Status) bool { return st.State == HelperFailed && st.PID == 0 && st.Starts == 1 })
}
