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

// The types are the engine's own, as far as runtime/docker builds or reads them.

type (
	// Config is what a container takes from its image, or has in its place.
	Config = container.Config
	// HostConfig is what a container takes from its machine.
	HostConfig = container.HostConfig
	// Resources are the limits in a HostConfig.
	Resources = container.Resources
	// DeviceRequest asks for devices by a driver.
	DeviceRequest = container.DeviceRequest
	// DeviceMapping names a device node.
	DeviceMapping = container.DeviceMapping
	// Ulimit is one of a process's limits.
	Ulimit = container.Ulimit
	// LogConfig is where an engine puts a container's output.
	LogConfig = container.LogConfig
	// RestartPolicy is when an engine starts a container by itself.
	RestartPolicy = container.RestartPolicy
	// HealthConfig is an image's health check.
	HealthConfig = container.HealthConfig
	// Mount is one mount.
	Mount = mount.Mount
	// BindOptions belong to a mount of a host folder.
	BindOptions = mount.BindOptions
	// TmpfsOptions belong to a memory-backed mount.
	TmpfsOptions = mount.TmpfsOptions
	// Inspect is all an engine says of a container.
	Inspect = container.InspectResponse
	// Summary is a container in a list.
	Summary = container.Summary
	// StatsResponse is an engine's reading of what a container uses.
	StatsResponse = container.StatsResponse
	// Image is all an engine says of an image.
	Image = image.InspectResponse
	// Info is what an engine says of itself and its machine.
	Info = system.Info
	// RuntimeInfo is an OCI runtime that an engine knows.
	RuntimeInfo = system.RuntimeWithStatus
	// DeviceInfo is a device that an engine found.
	DeviceInfo = system.DeviceInfo
	// Network is all an engine says of a network.
	Network = network.Inspect
	// NetworkOptions are how a network is made.
	NetworkOptions = network.CreateOptions
	// IPAM is how a network gets its addresses.
	IPAM = network.IPAM
	// IPAMConfig is one range of addresses.
	IPAMConfig = network.IPAMConfig
	// NetworkMode names the network of a container.
	NetworkMode = container.NetworkMode
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
