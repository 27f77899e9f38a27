package device

import "strings"

// Variables that tell a program about its devices.
const (
	envCUDA         = "CUDA_VISIBLE_DEVICES"
	envCUDAOrder    = "CUDA_DEVICE_ORDER"
	envNVIDIA       = "NVIDIA_VISIBLE_DEVICES"
	envCapabilities = "NVIDIA_DRIVER_CAPABILITIES"
	envFake         = "SKIFF_FAKE_GPU"
)

// void is NVIDIA's word for "leave this container alone".
const void = "void"

// ProcessEnv makes the granted devices, and no others, visible to a process on
// the host: CUDA and everything on top of it obeys. It is set for every process,
// with or without a grant, and must come after whatever the user set. For fakes
// the names are ones that no CUDA knows, so none is opened.
func ProcessEnv(uuids []string, fake bool) []string {
	list := strings.Join(uuids, ",")
	env := []string{envCUDAOrder + "=PCI_BUS_ID", envCUDA + "=" + list}
	if len(uuids) == 0 {
		return append(env, envNVIDIA+"="+void)
	}
	env = append(env, envNVIDIA+"="+list)
	if fake {
		env = append(env, envFake+"="+list)
	}
	return env
}

// ContainerGrant is what ContainerEnv needs to know.
type ContainerGrant struct {
	UUIDs []string
	Fake  bool
	// CDI: the devices are injected by name through the Container Device
	// Interface, so NVIDIA's own hook must keep out.
	CDI bool
	// Hooked: the engine's default runtime is NVIDIA's, which looks up every name
	// in NVIDIA_VISIBLE_DEVICES and fails the container over one it does not
	// know, so fakes must not stand there.
	Hooked bool
}

// ContainerEnv makes the granted devices, and no others, visible in a container.
// It is set for every container, with or without a grant, and must come after
// what the image and the user set: under NVIDIA's runtime an image alone could
// otherwise ask for all devices. Inside a container the devices count from 0 and
// only the granted ones are there, so CUDA_VISIBLE_DEVICES is left alone for
// real ones.
func ContainerEnv(g ContainerGrant) []string {
	list := strings.Join(g.UUIDs, ",")
	switch {
	case len(g.UUIDs) == 0:
		return []string{envNVIDIA + "=" + void}
	case g.Fake:
		visible := list
		if g.Hooked {
			visible = void
		}
		return []string{envCUDA + "=" + list, envNVIDIA + "=" + visible, envFake + "=" + list}
	case g.CDI:
		return []string{envCUDAOrder + "=PCI_BUS_ID", envNVIDIA + "=" + void}
	default:
		return []string{envCUDAOrder + "=PCI_BUS_ID", envNVIDIA + "=" + list, envCapabilities + "=compute,utility"}
	}
}
