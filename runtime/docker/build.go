package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/docker/policy"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// Paths inside a container.
const (
	insideDir      = "/skiff"
	launcherInside = insideDir + "/launcher"
	podInside      = insideDir + "/pod"
	bundleInside   = insideDir + "/ca.pem"
)

// Labels that the backend adds to its containers; they bring back, after a
// restart of the daemon, what it must know of them.
const (
	// labelSpec is the hash of the specification: the same name with another
	// one is a conflict.
	labelSpec = "skiff.dev/spec"
	// labelControl is the control folder on the host.
	labelControl = "skiff.dev/control"
	// labelUser is whom the command runs as; the launcher itself is root.
	labelUser = "skiff.dev/user"
	// labelDevices lists the devices that were granted.
	labelDevices = "skiff.dev/devices"
)

const (
	mib = 1 << 20
	gib = 1 << 30
	// minMemory is the least an engine accepts, with room for the launcher.
	minMemory = 8 * mib
	// minNanoCPUs is the kernel's least quota: a hundredth of a CPU.
	minNanoCPUs = 10_000_000
	// minShm is the engine's own default, maxShm enough for the data loaders
	// of eight GPUs.
	minShm, maxShm = 64 * mib, 8 * gib
	// oomScore lets the kernel choose a container before the daemon.
	oomScore = 100
	// engineLog bounds the engine's own log, which holds at most the
	// launcher's last words: the command's output never goes there.
	engineLog = "1m"
)

// machine is what limits are clamped to and how devices are handed over.
type machine struct {
	cpus   int
	memory int64
	gpu    gpuPath
	hooked bool // NVIDIA's runtime is the default one
	limits engineLimits
}

// built is a container as the engine will make it.
type built struct {
	config *dockerapi.Config
	host   *dockerapi.HostConfig
	grant  policy.Grant
}

// build translates a specification. Paths in it are resolved; the policy is the
// caller's to ask.
func (b *Backend) build(spec runtime.ContainerSpec, m machine, network string, rules policy.Rules) (built, error) {
	out := built{grant: policy.Grant{Network: network, GPUs: spec.GPUs, Roots: b.cfg.podRoots(spec)}}
	h := baseHost(network, spec.Resources.Pids)
	h.NanoCPUs = clampCPU(spec.Resources.CPUMilli, m.cpus)
	h.Memory = clampMemory(spec.Resources.MemoryBytes, m.memory)
	h.MemorySwap = h.Memory
	h.ShmSize = shmSize(spec.Resources.ShmBytes, h.Memory, m.memory)
	h.Ulimits = m.limits.ulimits(len(spec.GPUs) > 0 && !spec.FakeGPUs)
	var err error
	if h.Mounts, err = b.mounts(spec, h, rules, out.grant); err != nil {
		return built{}, err
	}
	deviceEnv, err := addDevices(h, &out.grant, spec, m)
	if err != nil {
		return built{}, err
	}
	c := &dockerapi.Config{
		Hostname: spec.Hostname,
		// The launcher is root, without most of root's rights, and gives the
		// command the user it is to have: so a command of another user cannot
		// touch its record, its log and its socket.
		User:       "0:0",
		Env:        mergeEnv(b.cfg.ContainerEnv, b.bundleEnv(), spec.Env, deviceEnv),
		Cmd:        []string{path.Join(podInside, spec.Container)},
		Entrypoint: []string{launcherInside},
		Image:      spec.Image.ID, Labels: b.labels(spec),
		Healthcheck: noHealthcheck(),
		StopSignal:  "SIGTERM",
	}
	if spec.StopGrace > 0 {
		seconds := int((spec.StopGrace + time.Second - 1) / time.Second)
		c.StopTimeout = &seconds
	}
	out.config, out.host = c, h
	return out, nil
}

// baseHost is what every container has.
func baseHost(network string, pids int64) *dockerapi.HostConfig {
	if pids <= 0 {
		pids = DefaultPids
	}
	no := false
	h := &dockerapi.HostConfig{
		LogConfig:     dockerapi.LogConfig{Type: "json-file", Config: map[string]string{"max-size": engineLog, "max-file": "1"}},
		RestartPolicy: dockerapi.RestartPolicy{Name: "no"},
		NetworkMode:   dockerapi.NetworkMode(network),
		CapDrop:       []string{"ALL"}, CapAdd: policy.Capabilities(),
		SecurityOpt: []string{policy.NoNewPrivileges},
		IpcMode:     "private", OomScoreAdj: oomScore, Init: &no,
	}
	h.PidsLimit = &pids
	return h
}

// noHealthcheck switches the image's own off: it is a process every few seconds.
func noHealthcheck() *dockerapi.HealthConfig {
	return &dockerapi.HealthConfig{Test: []string{"NONE"}}
}

// labels are the caller's, with the backend's own over them.
func (b *Backend) labels(spec runtime.ContainerSpec) map[string]string {
	labels := make(map[string]string, len(spec.Labels)+8)
	maps.Copy(labels, b.cfg.Labels)
	maps.Copy(labels, spec.Labels)
	labels[core.LabelStore] = b.cfg.StoreID
	labels[labelSpec] = specHash(spec)
	labels[labelControl] = launch.ControlDir(spec.PodDir, spec.Container)
	if user := commandUser(spec); user != "" {
		labels[labelUser] = user
	}
	if len(spec.GPUs) > 0 {
		labels[labelDevices] = strings.Join(spec.GPUs, ",")
	}
	return labels
}

// commandUser is whom the command runs as; "" is root.
func commandUser(spec runtime.ContainerSpec) string {
	if spec.User != "" {
		return spec.User
	}
	return spec.Image.User
}

// specHash identifies a specification. Two daemons of one release agree on it.
func specHash(spec runtime.ContainerSpec) string {
	data, err := json.Marshal(spec)
	if err != nil {
		// A plain struct of strings and numbers always encodes.
		panic(fmt.Sprintf("encode container specification: %v", err))
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// mounts are the launcher, the control folder, the trust bundle, and what the
// pod asked for.
func (b *Backend) mounts(spec runtime.ContainerSpec, h *dockerapi.HostConfig, rules policy.Rules, g policy.Grant) ([]dockerapi.Mount, error) {
	control, err := rules.Resolve(launch.ControlDir(spec.PodDir, spec.Container), g)
	if err != nil {
		return nil, err
	}
	if err := makeMountPoints(spec.Mounts); err != nil {
		return nil, err
	}
	list := []dockerapi.Mount{
		bind(b.cfg.LauncherPath, launcherInside, true),
		bind(control, path.Join(podInside, spec.Container), false),
	}
	if b.bundle != "" {
		list = append(list, bind(b.bundle, bundleInside, true))
	}
	for _, m := range spec.Mounts {
		target := path.Clean(m.Path)
		if target == insideDir || strings.HasPrefix(target, insideDir+"/") {
			return nil, fmt.Errorf("mount %s: %w: %s is skiff's own", m.Path, runtime.ErrPolicy, insideDir)
		}
		switch {
		case m.Memory && target == "/dev/shm":
			h.ShmSize = tmpfsSize(m.Size, h.Memory)
		case m.Memory:
			list = append(list, dockerapi.Mount{Type: dockerapi.MountTmpfs, Target: target, ReadOnly: m.ReadOnly,
				TmpfsOptions: &dockerapi.TmpfsOptions{SizeBytes: tmpfsSize(m.Size, h.Memory), Mode: 0o1777}})
		default:
			source, err := rules.Resolve(m.HostPath, g)
			if err == nil && m.SubPath != "" {
				source, err = withoutLinks(source, m.SubPath)
			}
			if err != nil {
				return nil, err
			}
			list = append(list, bind(source, target, m.ReadOnly))
		}
	}
	return list, nil
}

// withoutLinks is a place below a folder that pods write to. The engine resolves
// the path again when it mounts it: see docs/security.md.
func withoutLinks(folder, sub string) (string, error) {
	at := filepath.Join(folder, filepath.FromSlash(sub))
	real, err := filepath.EvalSymlinks(at)
	if err == nil && (real != at || !filepath.IsLocal(sub)) {
		err = fmt.Errorf("%w: a link lies on the way", runtime.ErrPolicy)
	}
	if err != nil {
		return "", fmt.Errorf("mount %s of %s: %w", sub, folder, err)
	}
	return at, nil
}

func bind(source, target string, readOnly bool) dockerapi.Mount {
	return dockerapi.Mount{
		Type: dockerapi.MountBind, Source: filepath.Clean(source), Target: target, ReadOnly: readOnly,
		BindOptions: &dockerapi.BindOptions{Propagation: dockerapi.PropagationPrivate},
	}
}

// tmpfsSize: without a size, as much as the container may use in all.
func tmpfsSize(asked, memory int64) int64 {
	switch {
	case asked > 0:
		return asked
	case memory > 0:
		return memory
	default:
		return maxShm
	}
}

// clampCPU is a limit in billionths of a CPU; the engine refuses more than exist.
func clampCPU(milli int64, cpus int) int64 {
	if milli <= 0 {
		return 0
	}
	nano := max(milli*1_000_000, minNanoCPUs)
	if most := int64(cpus) * 1_000_000_000; most > 0 {
		nano = min(nano, most)
	}
	return nano
}

func clampMemory(bytes, machine int64) int64 {
	if bytes <= 0 {
		return 0
	}
	bytes = max(bytes, minMemory)
	if machine > 0 {
		bytes = min(bytes, machine)
	}
	return bytes
}

// shmSize is half of the memory the container may use, in bounds: the engine's
// 64 MiB end data loaders with a bus error.
func shmSize(asked, limit, machine int64) int64 {
	if asked > 0 {
		return asked
	}
	if limit <= 0 {
		limit = machine
	}
	return min(max(limit/2, minShm), maxShm)
}

// mergeEnv joins lists of NAME=value; the last value of a name wins.
func mergeEnv(lists ...[]string) []string {
	all := slices.Concat(lists...)
	last := make(map[string]int, len(all))
	for i, e := range all {
		name, _, _ := strings.Cut(e, "=")
		last[name] = i
	}
	out := make([]string, 0, len(all))
	for i, e := range all {
		name, _, ok := strings.Cut(e, "=")
		if ok && name != "" && last[name] == i {
			out = append(out, e)
		}
	}
	return out
}

// checkSpec refuses what cannot be a container's specification.
func checkSpec(spec runtime.ContainerSpec) error {
	switch {
	case spec.Name == "":
		return errors.New("create container: it has no name")
	case spec.Image.ID == "":
		return fmt.Errorf("create container %s: it has no image; prepare one first", spec.Name)
	case !filepath.IsAbs(spec.PodDir):
		return fmt.Errorf("create container %s: pod folder %q is not absolute", spec.Name, spec.PodDir)
	case spec.Network != "" && spec.Network != networkNone:
		return fmt.Errorf("create container %s: %w: network %q; leave it empty or say none", spec.Name, runtime.ErrNotSupported, spec.Network)
	}
	return nil
}
