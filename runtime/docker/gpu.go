package docker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/device"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/docker/policy"
)

// gpuPath is how devices reach a container.
type gpuPath string

const (
	gpuNone   gpuPath = ""       // they cannot
	gpuCDI    gpuPath = "cdi"    // Container Device Interface, by name
	gpuNVIDIA gpuPath = "nvidia" // the engine's own nvidia device driver
	gpuLegacy gpuPath = "legacy" // a runtime called nvidia, told by the environment
)

const (
	cdiKind       = "nvidia.com/gpu="
	nvidiaRuntime = "nvidia"
	// cdiAPI is the first version of the engine's interface with CDI,
	// discoveredAPI the first that lists the devices.
	cdiAPI, discoveredAPI = "1.44", "1.50"
	gpuRemedy             = "install nvidia-container-toolkit and run 'nvidia-ctk runtime configure --runtime=docker', or 'nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml', and restart the engine"
)

// gpuProbe is what the choice depends on.
type gpuProbe struct {
	info dockerapi.Info
	api  string
	// specs are the contents of the CDI specifications on this machine.
	specs []string
	// hook: nvidia-container-runtime-hook is installed.
	hook bool
}

// probeGPU looks at the machine.
func probeGPU(info dockerapi.Info, api string) gpuProbe {
	p := gpuProbe{info: info, api: api}
	for _, dir := range info.CDISpecDirs {
		for _, pattern := range []string{"*.yaml", "*.yml", "*.json"} {
			files, _ := filepath.Glob(filepath.Join(dir, pattern)) // The pattern is well formed.
			for _, f := range files {
				if data, err := os.ReadFile(f); err == nil {
					p.specs = append(p.specs, string(data))
				}
			}
		}
	}
	_, err := exec.LookPath("nvidia-container-runtime-hook")
	p.hook = err == nil
	return p
}

// choose prefers what needs the least of the runtime, and knows devices by
// UUID: indices change over a reboot.
func (p gpuProbe) choose() (gpuPath, []string) {
	_, legacy := p.info.Runtimes[nvidiaRuntime]
	var notes []string
	if cdi, byUUID := p.cdi(); byUUID {
		return gpuCDI, nil
	} else if cdi {
		notes = append(notes, "the CDI specification names GPUs by index only; 'nvidia-ctk cdi generate --device-name-strategy=uuid --output=/etc/cdi/nvidia.yaml' adds UUIDs")
	}
	switch {
	case p.hook:
		return gpuNVIDIA, notes
	case legacy:
		return gpuLegacy, notes
	}
	return gpuNone, notes
}

// cdi says whether the engine knows NVIDIA devices by CDI, and by UUID.
func (p gpuProbe) cdi() (there, byUUID bool) {
	if len(p.info.CDISpecDirs) == 0 || !atLeast(p.api, cdiAPI) {
		return false, false
	}
	if atLeast(p.api, discoveredAPI) && len(p.info.DiscoveredDevices) > 0 {
		for _, d := range p.info.DiscoveredDevices {
			if name, ok := strings.CutPrefix(d.ID, cdiKind); ok {
				there = true
				byUUID = byUUID || isUUID(name)
			}
		}
		return there, byUUID
	}
	for _, s := range p.specs {
		if strings.Contains(s, "nvidia.com/gpu") {
			there = true
			byUUID = byUUID || strings.Contains(s, "GPU-") || strings.Contains(s, "MIG-")
		}
	}
	return there, byUUID
}

func isUUID(name string) bool {
	return strings.HasPrefix(name, "GPU-") || strings.HasPrefix(name, "MIG-")
}

// atLeast compares versions of the engine's interface ("1.44").
func atLeast(version, least string) bool {
	parse := func(v string) (major, minor int) {
		a, b, _ := strings.Cut(v, ".")
		major, _ = strconv.Atoi(a) // What is no number counts as the oldest.
		minor, _ = strconv.Atoi(b)
		return major, minor
	}
	a, b := parse(version)
	c, d := parse(least)
	return a > c || a == c && b >= d
}

// onlyGranted drops from a command's environment what would contradict the
// grant that was decided when the container was made.
func onlyGranted(env []string, devices bool) []string {
	return slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return name == "NVIDIA_VISIBLE_DEVICES" || name == "CUDA_VISIBLE_DEVICES" && !devices
	})
}

// addDevices asks for the granted devices and returns the environment that
// goes with them, with or without a grant.
func addDevices(h *dockerapi.HostConfig, g *policy.Grant, spec runtime.ContainerSpec, m machine) ([]string, error) {
	env := device.ContainerEnv(device.ContainerGrant{
		UUIDs: spec.GPUs, Fake: spec.FakeGPUs, CDI: m.gpu == gpuCDI, Hooked: m.hooked,
	})
	if len(spec.GPUs) == 0 {
		// An image that names devices of its own must not mislead a program.
		return append(env, "CUDA_VISIBLE_DEVICES="), nil
	}
	if spec.FakeGPUs {
		return env, nil
	}
	switch m.gpu {
	case gpuCDI:
		ids := make([]string, 0, len(spec.GPUs))
		for _, id := range spec.GPUs {
			ids = append(ids, cdiKind+id)
		}
		h.DeviceRequests = []dockerapi.DeviceRequest{{Driver: "cdi", DeviceIDs: ids}}
	case gpuNVIDIA:
		h.DeviceRequests = []dockerapi.DeviceRequest{{
			Driver: "nvidia", DeviceIDs: slices.Clone(spec.GPUs),
			Capabilities: [][]string{{"gpu", "compute", "utility"}},
		}}
	case gpuLegacy:
		h.Runtime, g.Runtime = nvidiaRuntime, nvidiaRuntime
	default:
		return nil, fmt.Errorf("give devices to container %s: %w: the engine has no way to hand over GPUs; %s",
			spec.Name, runtime.ErrNotSupported, gpuRemedy)
	}
	return env, nil
}
