package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/runtime/device"
)

// Values of Config.Runtime.
const (
	RuntimeAuto    = "auto"
	RuntimeDocker  = "docker"
	RuntimeProcess = "process"
)

// Values of Config.LoopbackAuth.
const (
	LoopbackUID = "uid"
	LoopbackOff = "off"
)

// Values of Config.PipelineURLs: from nowhere, from addresses of the internet, or
// from those of this machine and its networks, too.
const (
	SourcesOff    = "off"
	SourcesPublic = "public"
	SourcesAny    = "any"
)

// DefaultListen is on the loopback alone: the API is the machine's root.
const DefaultListen = "127.0.0.1:7433"

// Names below the state folder.
const (
	storeFile = "skiff.db"
	backupDir = "backups"
	logFile   = "daemon.log"
	// launcherDir holds the launchers, each named by its contents.
	launcherDir = "bin"
)

// Kept reports whether a state folder holds a store.
func Kept(stateDir string) bool {
	info, err := os.Stat(filepath.Join(stateDir, storeFile))
	return err == nil && info.Mode().IsRegular()
}

// StoreCheckName is the sub-command that checks a store's file in a process of
// its own.
const StoreCheckName = "store-check"

// Config is what a daemon needs. StateDir is required.
type Config struct {
	StateDir string
	// Listen is HOST:PORT; empty means the unix socket alone.
	Listen string
	// Hosts are further names that requests may be addressed to.
	Hosts []string
	// LoopbackAuth is uid, where callers on the loopback are known by the uid
	// that owns their socket, or off; empty is uid.
	LoopbackAuth string
	// LoopbackUsers are further users of the machine that are known so, each
	// NAME or UID, with "=USER" for whom they are to skiff; for root alone.
	LoopbackUsers []string
	// Runtime is auto, docker or process; empty is auto.
	Runtime string
	// FakeGPUs is a fixture's name or a file; FakeNode as in "cpu=64,mem=256Gi".
	FakeGPUs, FakeNode string
	// ContainerEnv is KEY=VALUE, or KEY for the daemon's own value;
	// ContainerCA a file of certificate authorities. Every container gets both.
	ContainerEnv []string
	ContainerCA  string
	// WarmSteps bounds how many steps have a container wait for their inputs;
	// 0 means twice the machine's CPUs, a negative number none.
	WarmSteps int
	// CacheExpiry is how old an earlier result may be to be taken ("720h",
	// "30d"); empty for any age.
	CacheExpiry string
	// NodeLabels (KEY=VALUE) are what node selectors are compared with, beside
	// the published ones.
	NodeLabels []string
	// PipelineURLs is off, public or any: from where pipelines are fetched that
	// clients name by address, and artifacts that pipelines import so; empty is
	// off.
	PipelineURLs string
	// Retain bounds what every namespace keeps of artifacts, unless it says
	// otherwise itself.
	Retain skiff.Retention
	// ArtifactCache bounds, in bytes, what is kept here of artifacts that buckets
	// have, too; 0 means s3.DefaultCacheBytes.
	ArtifactCache int64
	// DiskReserve is below how many free bytes the disk of the state counts as
	// nearly full; 0 means what s3.Reserve says.
	DiskReserve int64
	// StorePatience is how long a task waits for an object store that is away; 0
	// means pipeline.DefaultStorePatience.
	StorePatience time.Duration
	// S3FromEnv lets namespaces use the daemon's AWS_* variables where they say
	// "fromEnv".
	S3FromEnv bool
	// Embedded says that the daemon lives inside another command.
	Embedded bool
	// Reading answers from what is kept and runs nothing: what is active stays
	// as it is, for a daemon that runs to take over.
	Reading bool
	// UntilIdle ends the daemon once no run is active and none is to come by a
	// schedule.
	UntilIdle bool
	// Executable is this program's file, which is started for checks and in
	// the background; empty does without.
	Executable string
	Version    string
	// Logger discards where it is nil.
	Logger *slog.Logger
	// OnReady is called once requests are answered; address is empty without
	// a TCP listener.
	OnReady func(address string)
}

// pipelineReach is from how far pipelines are fetched that clients name by
// address.
func (c *Config) pipelineReach() address.Reach {
	switch c.PipelineURLs {
	case SourcesPublic:
		return address.Internet
	case SourcesAny:
		return address.Anywhere
	}
	return address.Nowhere
}

// Check refuses what cannot work, before anything is started.
func (c *Config) Check() error {
	if c.StateDir == "" || !filepath.IsAbs(c.StateDir) {
		return fmt.Errorf("state folder %q: want an absolute path", c.StateDir)
	}
	switch c.Runtime {
	case "", RuntimeAuto, RuntimeDocker, RuntimeProcess:
	default:
		return fmt.Errorf("--runtime %q: want %s, %s or %s", c.Runtime, RuntimeAuto, RuntimeDocker, RuntimeProcess)
	}
	switch c.PipelineURLs {
	case "", SourcesOff, SourcesPublic, SourcesAny:
	default:
		return fmt.Errorf("--pipeline-urls %q: want %s, %s or %s", c.PipelineURLs, SourcesOff, SourcesPublic, SourcesAny)
	}
	if c.CacheExpiry != "" {
		if _, err := skiff.ParseAge(c.CacheExpiry); err != nil {
			return fmt.Errorf("--cache-expiry: %w; want an age, as in 720h or 30d", err)
		}
	}
	if c.DiskReserve < 0 {
		return fmt.Errorf("--disk-reserve: want a size, such as 5Gi")
	}
	if c.ArtifactCache < 0 {
		return fmt.Errorf("--artifact-cache: want a size, such as 50Gi")
	}
	if c.StorePatience < 0 {
		return fmt.Errorf("--store-patience %s: want a time that is not negative", c.StorePatience)
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return fmt.Errorf("--listen %q: want HOST:PORT, as in %s", c.Listen, DefaultListen)
		}
	}
	if err := c.checkLoopback(); err != nil {
		return err
	}
	if c.FakeGPUs != "" {
		if _, err := device.LoadFake(c.FakeGPUs); err != nil {
			return fmt.Errorf("--fake-gpus: %w", err)
		}
	}
	if c.FakeNode != "" {
		if _, err := device.ParseFakeNode(c.FakeNode); err != nil {
			return fmt.Errorf("--fake-node: %w", err)
		}
	}
	if _, err := c.containerEnv(); err != nil {
		return err
	}
	if _, err := c.nodeLabels(); err != nil {
		return err
	}
	return c.checkCA()
}

// nodeLabels are the labels by key.
func (c *Config) nodeLabels() (map[string]string, error) {
	labels := make(map[string]string, len(c.NodeLabels))
	for _, entry := range c.NodeLabels {
		key, value, given := strings.Cut(entry, "=")
		if !given || key == "" || strings.ContainsAny(entry, " \t\n\x00") {
			return nil, fmt.Errorf("--node-label %q: want KEY=VALUE", entry)
		}
		labels[key] = value
	}
	return labels, nil
}

// containerEnv resolves variables that are named without a value.
func (c *Config) containerEnv() ([]string, error) {
	env := make([]string, 0, len(c.ContainerEnv))
	for _, entry := range c.ContainerEnv {
		name, _, given := strings.Cut(entry, "=")
		if name == "" || strings.ContainsAny(name, " \t\n\x00") || !utf8.ValidString(entry) {
			return nil, fmt.Errorf("--container-env %q: want KEY=VALUE or KEY", entry)
		}
		if !given {
			value, set := os.LookupEnv(name)
			if !set {
				return nil, fmt.Errorf("--container-env %s: the variable is not set here; give a value with %s=VALUE", name, name)
			}
			entry = name + "=" + value
		}
		env = append(env, entry)
	}
	return env, nil
}

// LogPath is where a daemon in the background writes.
func LogPath(stateDir string) string { return filepath.Join(stateDir, logFile) }
