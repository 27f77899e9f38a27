package dockerapi

import (
	"io"
	"net"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
)

// These are the engine's own types, as far as runtime/docker builds or reads them.
type (
	// Config is what is fixed in a container of the image's side.
	Config         = container.Config
	Resources      = container.Resources
	DeviceRequest  = container.DeviceRequest
	DeviceMapping  = container.DeviceMapping
	Ulimit         = container.Ulimit
	LogConfig      = container.LogConfig
	RestartPolicy  = container.RestartPolicy
	HealthConfig   = container.HealthConfig
	Mount          = mount.Mount
	BindOptions    = mount.BindOptions
	TmpfsOptions   = mount.TmpfsOptions
	Inspect        = container.InspectResponse
	Summary        = container.Summary
	StatsResponse  = container.StatsResponse
	Image          = image.InspectResponse
	Info           = system.Info
	RuntimeInfo    = system.RuntimeWithStatus
	DeviceInfo     = system.DeviceInfo
	Network        = network.Inspect
	NetworkOptions = network.CreateOptions
	IPAM           = network.IPAM
	IPAMConfig     = network.IPAMConfig
	NetworkMode    = container.NetworkMode
)

// Kinds of mounts.
const (
	MountBind   = mount.TypeBind
	MountTmpfs  = mount.TypeTmpfs
	MountVolume = mount.TypeVolume
)

// PropagationPrivate keeps later mounts of either side from the other.
const PropagationPrivate = mount.PropagationRPrivate

// States of a container, as Inspect and Summary report them.
const (
	StateCreated  = container.StateCreated
	StateRunning  = container.StateRunning
	StatePaused   = container.StatePaused
	StateExited   = container.StateExited
	StateDead     = container.StateDead
	StateRemoving = container.StateRemoving
)

// Event is one change of a container.
type Event struct {
	// Action is the engine's word ("start", "die", "oom", "destroy" …).
	Action string
	// ID is the container's; Labels are its labels and the engine's attributes.
	ID     string
	Labels map[string]string
	// At is the engine's time of it.
	At time.Time
}

// EventStream is a subscription. Events ends (is closed) when the stream does;
// Err then says why.
type EventStream struct {
	Events <-chan Event
	err    error
}

// Err is why the stream ended. It is valid once Events is closed.
func (s *EventStream) Err() error { return s.err }

// ExecOptions is a command beside a container's own.
type ExecOptions struct {
	Argv, Env []string
	Dir, User string
	Stdin     bool
	TTY       bool
	// Width and Height are the terminal's first size, in characters.
	Width, Height uint
}

// ExecStream is the hijacked connection of a running exec. Out carries raw
// bytes with a terminal and multiplexed frames without.
type ExecStream struct {
	Conn net.Conn
	Out  io.Reader
	// CloseWrite ends the command's stdin.
	CloseWrite func() error
}

// ExecState is how an exec stands.
type ExecState struct {
	Running  bool
	ExitCode int
	PID      int
}

// Version is what an engine said of itself.
type Version struct {
	// API is the negotiated version of its interface ("1.41").
	API string
}
