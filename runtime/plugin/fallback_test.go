package plugin

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/skiff-ml/skiff/runtime/device"
)

const procInformation = "proc/driver/nvidia/gpus/0000:01:00.0/information"

const information = "Model: \t\t NVIDIA L4\nGPU UUID: \t GPU-11111111-2222-3333-4444-555555555555\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 0\n"

func smi(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nvidia-smi")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWithoutAHelper(t *testing.T) {
	const row = "echo '0, GPU-11111111-2222-3333-4444-555555555555, NVIDIA L4, 23034, 00000000:01:00.0, [N/A], 550.54.15'\n"
	proc := fstest.MapFS{procInformation: {Data: []byte(information)}}
	for _, c := range []struct {
		name   string
		root   fstest.MapFS
		smi    string
		source string
		health string
		memory int64
		note   string
	}{
		{"no driver", fstest.MapFS{}, "", "none", "", 0, "the kernel knows no NVIDIA driver"},
		{"kernel alone", proc, "", "proc", "Healthy", 0, "is not installed, so memory, links"},
		{"nvidia-smi", proc, row, "nvidia-smi", "Healthy", 23034 << 20, "is not installed, so memory, links"},
		{"nvidia-smi fails", proc, "exit 9\n", "proc", "Healthy", 0, "nvidia-smi does not help: run"},
		{"nvidia-smi talks nonsense", proc, "echo no devices\n", "proc", "Healthy", 0, "nvidia-smi does not help: read"},
		{"nvidia-smi hangs", proc, "exec sleep 60\n", "proc", "Unknown", 0, "no answer in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := quick(filepath.Join(t.TempDir(), HelperName))
			cfg.Root, cfg.CallTimeout = c.root, time.Second
			if c.smi != "" {
				cfg.SMI = smi(t, c.smi)
			}
			s := run(t, cfg)
			v := await(t, s, "a note", noted(c.note))
			if v.Source != c.source || healths(v) != c.health {
				t.Errorf("got %+v, want %s, %q", v, c.source, c.health)
			}
			if len(v.Devices) == 1 && v.Devices[0].MemoryBytes != c.memory {
				t.Errorf("memory %d, want %d", v.Devices[0].MemoryBytes, c.memory)
			}
			if st := s.Status(); st.State != HelperMissing || st.Starts != 0 {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// The library may be missing, or not where the helper looks, while the kernel
// module works.
func TestAHelperThatFindsNothingIsNotTheLastWord(t *testing.T) {
	cfg := quick(actingHelper(t, script{Reason: "no library"}))
	cfg.Root = fstest.MapFS{procInformation: {Data: []byte(information)}}
	s := run(t, cfg)
	v := await(t, s, "a device", with("Healthy"))
	if v.Source != "proc" || !noted("No GPUs: no library")(v) {
		t.Errorf("got %+v", v)
	}
}

func TestAHelperThatFindsNothing(t *testing.T) {
	s := run(t, quick(actingHelper(t, script{Reason: "no library"})))
	v := await(t, s, "the reason", noted("No GPUs: no library"))
	if v.Source != "nvml" || len(v.Devices) != 0 || v.Summary() != "no GPUs" {
		t.Errorf("got %+v", v)
	}
	awaitStatus(t, s, func(st Status) bool { return st.State == HelperRunning })
}

var _ device.Source = (*Supervisor)(nil)
