package pod

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch/host"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
)

// Defaults of Config.
const (
	// DefaultStartParallelism: on two cores a container engine starts no more
	// per second at eight in parallel than at four.
	DefaultStartParallelism = 4
	// DefaultImageTries and DefaultImageBackoff give a registry that stumbles
	// about 15 seconds before the pod fails.
	DefaultImageTries   = 3
	DefaultImageBackoff = 5 * time.Second
	// DefaultCPUMilli and DefaultMemoryBytes are claimed by a container that
	// asks for nothing: enough that a wide loop does not start at once in full,
	// little enough that small steps share a small machine.
	DefaultCPUMilli    = 100
	DefaultMemoryBytes = 128 << 20
	// DefaultOrphanGrace is how long a container whose pod is not in the store
	// is left alone: the store may be an older backup.
	DefaultOrphanGrace = 10 * time.Minute
	// DefaultResyncInterval bounds how long a loss that no event told of goes
	// unseen; one list costs an engine about a millisecond.
	DefaultResyncInterval = 30 * time.Second
	// DefaultGrace is core/v1's terminationGracePeriodSeconds.
	DefaultGrace = 30 * time.Second
)

const (
	// runningDelay is how long a launched pod may end before it is recorded as
	// Running at all: no person notices it, and short steps save a commit.
	runningDelay = 20 * time.Millisecond
	// waitInterval is how often waiting sentences are written, waitBatch how
	// many at a time and messageInterval how often for one pod: they are news
	// for people and must not compete with work for the disk.
	waitInterval    = time.Second
	waitBatch       = 128
	messageInterval = 10 * time.Second
	// reorderInterval is how often a queue is looked at again only because its
	// items have grown older.
	reorderInterval = 30 * time.Second
)

// Volumes finds the host folders behind volumes that are neither scratch space
// nor claims.
type Volumes interface {
	// HostPath returns the folder on the host of an artifact or host path
	// volume, which exists when it returns. readOnlyOnly says that it may not
	// be mounted for writing. Its errors are shown to the user.
	HostPath(ctx context.Context, namespace string, v core.Volume) (hostPath string, readOnlyOnly bool, err error)
}

// Config is what a Controller needs. Store, Backend and StateDir are required.
type Config struct {
	Store   store.Interface
	Backend runtime.Backend
	// Node is what the scheduler gives out, declared or measured.
	Node scheduler.Node
	// StateDir holds the pods' folders, below "pods".
	StateDir string
	// Volumes may be nil: then such volumes are refused.
	Volumes Volumes
	// Launchers reads logs; nil means one of the controller's own.
	Launchers *host.Host
	Logger    *slog.Logger
	Now       func() time.Time

	// ClampCPUMilli and ClampMemoryBytes are what the machine really has:
	// limits beyond it are lowered to it. 0 leaves limits as they are.
	ClampCPUMilli, ClampMemoryBytes int64
	// NodeName and NodeIP are what pods are told of the machine: its host name
	// and the loopback address by default. NodeLabels, beside the published ones
	// that every node has, are what node selectors are compared with.
	NodeName, NodeIP string
	NodeLabels       map[string]string
	// Env and Mounts are given to every container before its own: the node's
	// trust bundle, proxy and package index settings.
	Env    []string
	Mounts []runtime.Mount

	// WarmPods bounds how many gated pods have their container wait for them;
	// 0 means that none has.
	WarmPods int

	StartParallelism int
	ImageTries       int
	ImageBackoff     time.Duration
	// CPUMilli and MemoryBytes are claimed for a container that asks for none.
	CPUMilli, MemoryBytes int64
	OrphanGrace           time.Duration
	// ResyncInterval is how often the backend's list is compared with what
	// should run, beside its watch.
	ResyncInterval time.Duration
	// MaxWait is the scheduler's bound on how long priority may hold back.
	MaxWait time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.Store == nil || c.Backend == nil || c.StateDir == "" {
		return c, fmt.Errorf("pod controller: Store, Backend and StateDir are required")
	}
	dir, err := filepath.Abs(c.StateDir)
	if err != nil {
		return c, fmt.Errorf("pod controller: state folder: %w", err)
	}
	c.StateDir = dir
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.NodeName == "" {
		if c.NodeName, err = os.Hostname(); err != nil {
			c.NodeName = "localhost"
		}
	}
	c.NodeIP = cmp.Or(c.NodeIP, "127.0.0.1")
	labels := nodeLabels(c.NodeName)
	maps.Copy(labels, c.NodeLabels)
	c.NodeLabels = labels
	setDefault(&c.StartParallelism, DefaultStartParallelism)
	setDefault(&c.ImageTries, DefaultImageTries)
	setDefault(&c.ImageBackoff, DefaultImageBackoff)
	setDefault(&c.CPUMilli, DefaultCPUMilli)
	setDefault(&c.MemoryBytes, DefaultMemoryBytes)
	setDefault(&c.OrphanGrace, DefaultOrphanGrace)
	setDefault(&c.ResyncInterval, DefaultResyncInterval)
	return c, nil
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}
