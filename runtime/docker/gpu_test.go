package docker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/docker/policy"
)

func TestChooseGPUPath(t *testing.T) {
	const byUUID = "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n- name: GPU-1\n"
	const byIndex = "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n"
	legacy := map[string]dockerapi.RuntimeInfo{"nvidia": {}}
	dirs := []string{"/etc/cdi"}
	for _, tt := range []struct {
		name  string
		probe gpuProbe
		want  gpuPath
		note  string
	}{
		{"nothing", gpuProbe{api: "1.41"}, gpuNone, ""},
		{"CDI listed by the engine", gpuProbe{api: "1.50", info: dockerapi.Info{CDISpecDirs: dirs,
			DiscoveredDevices: []dockerapi.DeviceInfo{{Source: "cdi", ID: "nvidia.com/gpu=GPU-1"}}}}, gpuCDI, ""},
		{"CDI of another vendor", gpuProbe{api: "1.50", info: dockerapi.Info{CDISpecDirs: dirs,
			DiscoveredDevices: []dockerapi.DeviceInfo{{Source: "cdi", ID: "amd.com/gpu=0"}}}}, gpuNone, ""},
		{"CDI by its specification", gpuProbe{api: "1.44", info: dockerapi.Info{CDISpecDirs: dirs}, specs: []string{byUUID}}, gpuCDI, ""},
		{"CDI without UUIDs", gpuProbe{api: "1.44", info: dockerapi.Info{CDISpecDirs: dirs}, specs: []string{byIndex}, hook: true}, gpuNVIDIA, "device-name-strategy"},
		{"CDI of an engine too old", gpuProbe{api: "1.43", info: dockerapi.Info{CDISpecDirs: dirs, Runtimes: legacy}, specs: []string{byUUID}}, gpuLegacy, ""},
		{"hook", gpuProbe{api: "1.41", hook: true, info: dockerapi.Info{Runtimes: legacy}}, gpuNVIDIA, ""},
		{"legacy runtime", gpuProbe{api: "1.41", info: dockerapi.Info{Runtimes: legacy}}, gpuLegacy, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, notes := tt.probe.choose()
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if text := strings.Join(notes, " "); !strings.Contains(text, tt.note) || tt.note == "" && text != "" {
				t.Errorf("notes are %q, want %q", text, tt.note)
			}
		})
	}
}

func TestProbeReadsSpecifications(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nvidia.yaml"), []byte("kind: nvidia.com/gpu\ndevices: [{name: GPU-1}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := probeGPU(dockerapi.Info{CDISpecDirs: []string{dir}}, "1.47")
	p.hook = false
	if got, _ := p.choose(); got != gpuCDI {
		t.Errorf("got %q with %q", got, p.specs)
	}
}

func TestDeviceRequests(t *testing.T) {
	gpus := []string{"GPU-a", "GPU-b"}
	for _, tt := range []struct {
		name    string
		spec    runtime.ContainerSpec
		machine machine
		want    []dockerapi.DeviceRequest
		runtime string
		env     []string
	}{
		{"no grant", runtime.ContainerSpec{}, machine{gpu: gpuCDI}, nil, "", []string{"NVIDIA_VISIBLE_DEVICES=void", "CUDA_VISIBLE_DEVICES="}},
		{"cdi", runtime.ContainerSpec{GPUs: gpus}, machine{gpu: gpuCDI},
			[]dockerapi.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"}}},
			"", []string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "NVIDIA_VISIBLE_DEVICES=void"}},
		{"nvidia", runtime.ContainerSpec{GPUs: gpus}, machine{gpu: gpuNVIDIA},
			[]dockerapi.DeviceRequest{{Driver: "nvidia", DeviceIDs: gpus, Capabilities: [][]string{{"gpu", "compute", "utility"}}}},
			"", []string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"}},
		{"legacy", runtime.ContainerSpec{GPUs: gpus}, machine{gpu: gpuLegacy}, nil, "nvidia",
			[]string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"}},
		{"fake", runtime.ContainerSpec{GPUs: gpus, FakeGPUs: true}, machine{}, nil, "",
			[]string{"CUDA_VISIBLE_DEVICES=GPU-a,GPU-b", "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b", "SKIFF_FAKE_GPU=GPU-a,GPU-b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, spec := newTestBackend(t), testSpec(t)
			spec.GPUs, spec.FakeGPUs = tt.spec.GPUs, tt.spec.FakeGPUs
			spec.Env = []string{"NVIDIA_VISIBLE_DEVICES=all", "CUDA_VISIBLE_DEVICES=0"}
			rules := b.cfg.rules(nil, "")
			c, err := b.build(spec, tt.machine, "skiff-default", rules)
			if err != nil {
				t.Fatal(err)
			}
			if err := rules.Check(c.host, c.config, c.grant); err != nil {
				t.Errorf("the policy refuses it: %v", err)
			}
			if diff := cmp.Diff(tt.want, c.host.DeviceRequests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if c.host.Runtime != tt.runtime {
				t.Errorf("runtime is %q", c.host.Runtime)
			}
			for _, want := range tt.env {
				if !slices.Contains(c.config.Env, want) {
					t.Errorf("%s is not in %q", want, c.config.Env)
				}
			}
		})
	}
	b, spec := newTestBackend(t), testSpec(t)
	spec.GPUs = gpus
	if _, err := b.build(spec, machine{}, "skiff-default", policy.Rules{Roots: b.cfg.rules(nil, "").Roots}); !errors.Is(err, runtime.ErrNotSupported) || !strings.Contains(err.Error(), "nvidia-ctk") {
		t.Errorf("an engine without a way to hand over GPUs: %v", err)
	}
}

func TestOnlyGranted(t *testing.T) {
	env := []string{"A=1", "NVIDIA_VISIBLE_DEVICES=all", "CUDA_VISIBLE_DEVICES=0"}
	if got := onlyGranted(env, false); !slices.Equal(got, []string{"A=1"}) {
		t.Errorf("without a grant %q", got)
	}
	// Within its grant a command may choose.
	if got := onlyGranted(env, true); !slices.Equal(got, []string{"A=1", "CUDA_VISIBLE_DEVICES=0"}) {
		t.Errorf("with a grant %q", got)
	}
}
