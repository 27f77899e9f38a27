package docker

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/policy"
)

// Defaults of Config.
const (
	// DefaultHost is where an engine listens on Linux.
	DefaultHost = "unix:///var/run/docker.sock"
	// DefaultPids is enough for a training job with many data loaders, and ends
	// a fork bomb long before the machine notices.
	DefaultPids = 4096
)

// HostPath is a folder of the host that pods may mount.
type HostPath struct {
	Path     string
	ReadOnly bool
}

// Config is what a Backend needs. StateDir, StoreID and LauncherPath are required.
type Config struct {
	// Host is the engine's socket ("unix:///var/run/docker.sock"); empty means
	// DOCKER_HOST, and where that is not set DefaultHost. Only sockets of this
	// machine work: pods' folders are shared with the engine.
	Host string
	// StateDir is the daemon's state folder. Nothing in it or above it is ever
	// shown to a container, except pods' own folders, volumes and MountRoots.
	StateDir string
	// StoreID marks what belongs to this daemon's store (core.LabelStore).
	StoreID string
	// LauncherPath is the launcher's program on the host.
	LauncherPath string
	Logger       *slog.Logger

	// ContainerEnv (NAME=value) is set in every container, before its own.
	ContainerEnv []string
	// ContainerCA is a PEM file of certificates that every container is to
	// trust beside the ones the host trusts; empty for none.
	ContainerCA string
	// AllowedHostPaths are the host folders that pods may mount parts of.
	AllowedHostPaths []HostPath
	// MountRoots are further folders of skiff's own, inside the state folder or
	// not, of which pods of any namespace may mount parts. A namespace's own
	// folders below "artifacts" and "volumes" in the state folder need not be
	// named: its pods may, and no others.
	MountRoots []string
	// ReadOnlyFiles are further single files that may be mounted read-only.
	ReadOnlyFiles []string
	// DockerConfig is a docker config.json with registry credentials; empty
	// means $DOCKER_CONFIG/config.json or ~/.docker/config.json.
	DockerConfig string
	// Labels are put on every container, beneath its own, and on networks.
	Labels map[string]string
	// MaxStarts bounds the starts under way: an engine starts no more
	// containers a second at eight in parallel than at two for each core.
	MaxStarts int
}

func (c Config) withDefaults() (Config, error) {
	c.Host = cmp.Or(c.Host, os.Getenv("DOCKER_HOST"), DefaultHost)
	if !strings.HasPrefix(c.Host, "unix://") {
		return c, fmt.Errorf("docker backend: engine address %s is not a unix socket; pods' folders must be on the engine's machine", c.Host)
	}
	if c.StateDir == "" || c.StoreID == "" || c.LauncherPath == "" {
		return c, fmt.Errorf("docker backend: StateDir, StoreID and LauncherPath are required")
	}
	var err error
	if c.StateDir, err = filepath.Abs(c.StateDir); err != nil {
		return c, fmt.Errorf("docker backend: state folder: %w", err)
	}
	if c.LauncherPath, err = filepath.Abs(c.LauncherPath); err != nil {
		return c, fmt.Errorf("docker backend: launcher: %w", err)
	}
	// The policy compares resolved paths, and the engine is given one.
	if c.LauncherPath, err = filepath.EvalSymlinks(c.LauncherPath); err != nil {
		return c, fmt.Errorf("docker backend: launcher: %w", err)
	}
	for _, p := range c.AllowedHostPaths {
		if !filepath.IsAbs(p.Path) || filepath.Clean(p.Path) == "/" {
			return c, fmt.Errorf("docker backend: allowed host path %q must be absolute and not /", p.Path)
		}
	}
	for _, e := range c.ContainerEnv {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return c, fmt.Errorf("docker backend: container environment %q is not NAME=value", e)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.DockerConfig = cmp.Or(c.DockerConfig, defaultDockerConfig())
	if c.MaxStarts <= 0 {
		c.MaxStarts = max(2, 2*goruntime.NumCPU())
	}
	return c, nil
}

// defaultDockerConfig is where the docker command keeps credentials.
func defaultDockerConfig() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker", "config.json")
}

// rules derives the policy from the configuration. dataRoot is the engine's own
// folder, empty where it is not known.
func (c Config) rules(files []string, dataRoot string) policy.Rules {
	r := policy.Rules{
		Entrypoint: launcherInside,
		Files:      append(append([]string{c.LauncherPath}, c.ReadOnlyFiles...), files...),
		Forbidden:  []string{c.StateDir, "/run/containerd", "/var/lib/containerd"},
		Sockets:    []string{strings.TrimPrefix(c.Host, "unix://"), "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"},
	}
	if dataRoot != "" {
		r.Forbidden = append(r.Forbidden, dataRoot)
	}
	for _, p := range c.AllowedHostPaths {
		r.Roots = append(r.Roots, policy.Root{Path: p.Path, ReadOnly: p.ReadOnly})
	}
	r.Roots = append(r.Roots, policy.Root{Path: c.imageVolumeDir(), ReadOnly: true, Own: true})
	for _, p := range c.MountRoots {
		r.Roots = append(r.Roots, policy.Root{Path: p, Own: true})
	}
	return r
}

// imageVolumeDir is the folder of what pods mount from images.
func (c Config) imageVolumeDir() string { return filepath.Join(c.StateDir, "image-volumes") }

// volumeDir is the folder of a namespace's claims.
func (c Config) volumeDir(namespace string) string {
	return filepath.Join(c.StateDir, "volumes", namespace)
}

// podRoots are the folders that a container may see parts of, and no other pod's.
func (c Config) podRoots(spec runtime.ContainerSpec) []policy.Root {
	namespace := cmp.Or(spec.Namespace, defaultNamespace)
	return []policy.Root{
		{Path: spec.PodDir, Own: true},
		{Path: c.volumeDir(namespace), Own: true},
		{Path: filepath.Join(c.StateDir, "artifacts", namespace), Own: true},
	}
}
