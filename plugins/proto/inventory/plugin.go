// Package inventory is the contract between skiff and the helper that reads the
// accelerators: the gRPC service, generated from inventory.proto, the go-plugin
// handshake around it, and how a helper learns that skiff has ended. Both sides
// link it; it must not import the runtime, cgo or any NVIDIA library.
package inventory

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative inventory.proto

// Version is the contract's. A helper of another version is refused at the
// handshake, before anything it says is read.
const Version = 1

// Name is what the service is dispensed as.
const Name = "inventory"

// LifelineFD is a pipe that the helper inherits. It reads from it and ends when
// that ends, so it never outlives the daemon, however that went.
const LifelineFD = 3

// WaitForHost returns when the host has ended, whatever way it went: the pipe
// that a helper inherited has no other writer. It removes the socket's folder,
// which a host that was killed could not. The helper should end then.
func WaitForHost() {
	lifeline := os.NewFile(LifelineFD, "lifeline")
	_, _ = io.Copy(io.Discard, lifeline)
	if dir := os.Getenv(plugin.EnvUnixSocketDir); strings.HasPrefix(filepath.Base(dir), SocketDirPrefix) {
		_ = os.RemoveAll(dir)
	}
}

// SocketDirPrefix begins the name of the folder that the host makes for a
// helper's socket.
const SocketDirPrefix = "skiff-helper-"

// Handshake tells a helper that skiff started it. It is no secret: what keeps
// strangers out is the certificate that is made for each start.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion:  Version,
		MagicCookieKey:   "SKIFF_INVENTORY_HELPER",
		MagicCookieValue: "6a1f0c52-accelerators",
	}
}

// Plugin joins the service to go-plugin. Impl is set on the helper's side.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	Impl InventoryServer
}

var _ plugin.GRPCPlugin = (*Plugin)(nil)

// GRPCServer registers Impl.
func (p *Plugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	if p.Impl == nil {
		return errors.New("serve inventory: no server is set")
	}
	RegisterInventoryServer(s, p.Impl)
	return nil
}

// GRPCClient is an InventoryClient over the connection.
func (p *Plugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return NewInventoryClient(conn), nil
}

// Set is the plugins of this contract, for either side; server is nil on the
// host's.
func Set(server InventoryServer) plugin.PluginSet {
	return plugin.PluginSet{Name: &Plugin{Impl: server}}
}
