package runtime

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// Backend runs containers. Every container's first process is the launcher,
// which waits for its command, runs it, and leaves an exit record on disk; so
// the truth about a container is its exit record plus List, never the answer of
// a wait call, and the daemon may die at any moment.
//
// All methods are safe for concurrent use. Ids are the backend's own and mean
// nothing outside it; names are skiff's.
type Backend interface {
	// Name is "docker", "process" or "memory".
	Name() string

	// Capabilities probes what this backend can do on this machine.
	Capabilities(ctx context.Context) (Capabilities, error)

	// Inventory reports what the node has to give: CPUs and memory. Devices
	// come from the inventory helper, not from here.
	Inventory(ctx context.Context) (Inventory, error)

	// PrepareImage makes ref runnable according to policy and says what it is.
	// It MUST be safe to call at once for one ref from many goroutines (the
	// work is done once), and MUST report progress as often as it has news.
	// A ref that cannot be had is an error that wraps ErrImageUnavailable.
	PrepareImage(ctx context.Context, req ImageRequest, progress func(ImageProgress)) (Image, error)

	// Create makes the container, gated: once started its launcher waits for a
	// command. It MUST be idempotent by spec.Name: a container of that name
	// with the same spec hash is adopted, with another one is ErrConflict.
	Create(ctx context.Context, spec ContainerSpec) (id string, err error)

	// Start starts a created container. A running one is left alone; one that
	// has ever exited MUST NOT run again: that is ErrExited.
	Start(ctx context.Context, id string) error

	// Launch hands the launcher its command. It MUST be idempotent by cmd.ID:
	// the command runs at most once in a container's life, whoever asks again.
	// It returns when the process has been started (or has already ended).
	Launch(ctx context.Context, id string, cmd launch.Command) error

	// Stop asks the command to end with SIGTERM and, after grace, ends all with
	// SIGKILL. It returns when nothing of the container runs any more. A
	// container that already ended is no error; one that is Held ends at once.
	Stop(ctx context.Context, id string, grace time.Duration) error

	// Remove forgets a container that does not run. It MUST NOT delete the pod
	// folder. A container that does not exist is no error.
	Remove(ctx context.Context, id string) error

	// List returns every container that carries this store's label, in any
	// state, including those that a previous daemon made.
	List(ctx context.Context) ([]Container, error)

	// Watch calls fn for each change of any of this store's containers until
	// ctx ends, and returns ctx's cause. It starts with one call for each
	// container there is, so a caller that (re)connects misses nothing. fn is
	// never called concurrently. A terminal state is reported only once the
	// exit record is on disk or it is certain that none will come.
	Watch(ctx context.Context, fn func(Container)) error

	// Exec runs a command beside the container's own, in its view of the world.
	Exec(ctx context.Context, id string, req ExecRequest) (exitCode int, err error)

	// Dial opens a connection to a port the container listens on.
	Dial(ctx context.Context, id string, port int) (net.Conn, error)

	// Stats reads what the container uses at this moment.
	Stats(ctx context.Context, id string) (Stats, error)

	// EnsureVolume makes the directory behind a claim and returns its path on
	// the host. It is idempotent.
	EnsureVolume(ctx context.Context, namespace, name string) (hostPath string, err error)

	// RemoveVolume removes such a directory with all that is in it, whoever
	// owns it there. It is idempotent; nothing may run that mounts it.
	RemoveVolume(ctx context.Context, namespace, name string) error
}

// ImageVolumes is what a Backend also is where pods can mount images. A backend
// without it has no such volumes.
type ImageVolumes interface {
	// ImageVolume returns a folder on the host that holds what the image has at
	// path (absolute, slash-separated; "/" for all), to be mounted read-only. It
	// prepares the image as PrepareImage does, MUST be safe to call at once from
	// many goroutines, and does the work once for each content. The folder is
	// the backend's and stays. An image that cannot be had is an error that
	// wraps ErrImageUnavailable; a path that is not there, or whose contents are
	// not to be trusted, is one that says which.
	ImageVolume(ctx context.Context, req ImageRequest, path string) (hostPath string, err error)
}

// ImageArchives is what a Backend also is where images can be carried from one
// engine to another.
type ImageArchives interface {
	// SaveImage gives the image that ref is, of which it must have one of the
	// identities where there are any, with its id. It MUST be on this machine
	// (ErrImageUnavailable). The caller closes the archive, which holds the image
	// alone and none of its names.
	SaveImage(ctx context.Context, ref string, identities []string) (id string, archive io.ReadCloser, err error)
	// LoadImage loads such an archive. It MUST refuse (problem.ErrInvalid), before
	// the engine sees a byte, what holds anything but the image of that id, or
	// any name. made is false where the image was there.
	LoadImage(ctx context.Context, id string, archive io.ReadSeeker) (made bool, err error)
	// NameImage gives an image a reference, unless another image has it.
	NameImage(ctx context.Context, id, ref string) error
	// DropImage removes an image that has no name and that nothing uses.
	DropImage(ctx context.Context, id string) error
}

// Capabilities is what a backend found it can do.
type Capabilities struct {
	// Images: arbitrary container images run. Without it an image is matched to
	// a host interpreter by rule.
	Images bool `json:"images"`
	// Isolation is the level in words, for status and doctor ("containers",
	// "namespaces, cgroup v1", "process group").
	Isolation string `json:"isolation"`
	// Limits: cpu and memory limits are enforced.
	Limits bool `json:"limits"`
	// Mounts: paths such as /minio appear inside at their published place.
	Mounts bool `json:"mounts"`
	// GPU is how devices reach a container: "cdi", "nvidia", "legacy", "env" or
	// "" where they cannot.
	GPU string `json:"gpu,omitempty"`
	// Version is the engine's, for doctor.
	Version string `json:"version,omitempty"`
	// Notes are sentences for doctor: what is missing and how to mend it.
	Notes []string `json:"notes,omitempty"`
}

// Inventory is what the node has.
type Inventory struct {
	CPUMilli    int64 `json:"cpuMilli"`
	MemoryBytes int64 `json:"memoryBytes"`
}

// PullPolicy says when an image is fetched (core/v1).
type PullPolicy string

// The pull policies.
const (
	PullIfNotPresent PullPolicy = "IfNotPresent"
	PullAlways       PullPolicy = "Always"
	PullNever        PullPolicy = "Never"
)

// ImageRequest asks for an image.
type ImageRequest struct {
	Ref    string
	Policy PullPolicy
	// Auths are registry credentials in the form of a docker config's "auths"
	// (registry host → base64 "user:password"); used for that host alone.
	Auths map[string]string
	// Pip is the package prelude of a lightweight component, where the engine
	// recognised one; the process runtime prepares an environment from it.
	Pip []core.PipCall
	// Identities are digests and ids of which the image must have one; none
	// means that whatever has the reference will do. A backend that keeps images
	// by identity looks for that, and fetches it by digest where it may; where
	// the image is another, the error is ErrImageChanged.
	Identities []string
}

// Check holds an image against the request's identities.
func (r ImageRequest) Check(img Image) error {
	if len(r.Identities) == 0 || slices.Contains(r.Identities, img.Digest) || slices.Contains(r.Identities, img.ID) {
		return nil
	}
	return fmt.Errorf("image %s is %s here; wanted is %s: %w", r.Ref, img.Digest, strings.Join(r.Identities, " or "), ErrImageChanged)
}

// ImageProgress tells how far the preparation of an image is.
type ImageProgress struct {
	Status string // one short phrase
	// Current and Total are bytes; Total is 0 where unknown.
	Current, Total int64
}

// Image is a prepared image.
type Image struct {
	// ID is what Create takes; Digest identifies the contents ("sha256:…").
	ID, Digest string
	// What the image itself says, for pods that do not.
	Entrypoint, Cmd, Env []string
	WorkingDir, User     string
	// PipSatisfied says that the request's Pip list is installed already, so
	// that the command may leave it out.
	PipSatisfied bool
}

// ContainerSpec is everything that is fixed when a container is created. The
// command is not part of it: it comes through Launch.
type ContainerSpec struct {
	// Name is unique and derived from the pod's uid, the container and the
	// restart count: the key of idempotency.
	Name string
	// Namespace is the pod's: containers of one namespace share a network, those
	// of different ones do not. Empty means "default".
	Namespace string
	// Labels travel with the container; they hold core.LabelPodUID and the rest.
	Labels map[string]string
	Image  Image
	// PodDir is the pod's folder on the host. The launcher's control folder for
	// this container is launch.ControlDir(PodDir, Container).
	PodDir    string
	Container string
	Mounts    []Mount
	Resources Resources
	// GPUs are device UUIDs; none means that no device is visible.
	GPUs []string
	// FakeGPUs says the UUIDs are declared, not real: only the environment
	// tells of them.
	FakeGPUs bool
	// User is "uid[:gid]", empty for the image's own.
	User string
	// Env is known at creation; Launch may add more.
	Env []string
	// Network is "" for the profile's network or "none".
	Network  string
	Hostname string
	Log      launch.LogConfig
	// StopGrace is how long a stop that skiff did not ask for waits.
	StopGrace time.Duration
}

// Mount makes a host folder visible inside.
type Mount struct {
	HostPath string
	// SubPath is below HostPath, slash-separated and clean; empty for all of it.
	// What pods write to lies on the way: no link in it is followed, and one that is
	// there ends the container's creation or its start.
	SubPath  string `json:",omitempty"`
	Path     string
	ReadOnly bool
	// Memory asks for a memory-backed folder of at most Size bytes instead.
	Memory bool
	Size   int64
}

// Resources are limits; 0 means none.
type Resources struct {
	CPUMilli, MemoryBytes int64
	// ShmBytes is the size of /dev/shm; 0 means the default rule (half the
	// memory limit, at most 8 GiB, at least 64 MiB).
	ShmBytes int64
	// Pids is the most processes; 0 means 4096.
	Pids int64
}

// State is where a container stands.
//
//	Created ──► Waiting ──► Running ──► Exited
//	   └───────────┴───────────┴─────► Lost
type State string

// The states. Waiting: started, the launcher has no command yet. Exited: there
// is an exit record. Lost: it ended and left none.
const (
	StateCreated State = "created"
	StateWaiting State = "waiting"
	StateRunning State = "running"
	StateExited  State = "exited"
	StateLost    State = "lost"
)

// Container is what List and Watch report.
type Container struct {
	ID     string
	Name   string
	Labels map[string]string
	State  State
	// StartedAt is the command's start, not the container's.
	StartedAt time.Time
	// Exit is the launcher's record, for Exited. A command ended with success
	// if and only if it is there and its code is 0.
	Exit *launch.ExitRecord
	// Held says, for Running, that the command has failed and the container is
	// kept (launch.Command.Hold): it goes on to Exited when it is stopped, with a
	// record of how the command failed, or when its time is over.
	Held *launch.Held
	// For Lost (and where the engine knows more than the record): why.
	Reason, Message string
	OOMKilled       bool
	// IP is the container's address on its network, where it has one.
	IP string
}

// ExecRequest runs a command in a running container.
type ExecRequest struct {
	Argv           []string
	Env            []string
	Dir            string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// TTY asks for a terminal; Resize then carries its sizes.
	TTY    bool
	Resize <-chan TerminalSize
}

// TerminalSize is in characters.
type TerminalSize struct{ Width, Height uint16 }

// Stats is what a container uses.
type Stats struct {
	At time.Time `json:"at"`
	// CPUNanos is processor time since the start; MemoryBytes the working set.
	CPUNanos    int64 `json:"cpuNanos"`
	MemoryBytes int64 `json:"memoryBytes"`
	Pids        int64 `json:"pids"`
}
