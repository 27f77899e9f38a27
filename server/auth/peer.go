package auth

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peer is the process at the other end of a unix socket.
type peer struct{ trusted bool }

type peerKey struct{}

func peerFrom(ctx context.Context) (peer, bool) {
	p, ok := ctx.Value(peerKey{}).(peer)
	return p, ok
}

// withUnixPeer notes on a connection of a unix socket whether its peer is the
// daemon's own user, or root, in the daemon's own pid namespace. The last condition keeps out a
// process of the same uid inside a container or a sandboxed step that got hold
// of the socket.
func withUnixPeer(ctx context.Context, c net.Conn) context.Context {
	if outer, is := c.(interface{ NetConn() net.Conn }); is {
		c = outer.NetConn()
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	credentials, err := peerCredentials(conn)
	trusted := err == nil &&
		(credentials.Uid == uint32(os.Geteuid()) || credentials.Uid == 0) &&
		samePIDNamespace(int(credentials.Pid))
	return context.WithValue(ctx, peerKey{}, peer{trusted: trusted})
}

func peerCredentials(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("read peer credentials: %w", err)
	}
	var credentials *unix.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		credentials, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, fmt.Errorf("read peer credentials: %w", err)
	}
	if sockErr != nil {
		return nil, fmt.Errorf("read peer credentials: %w", sockErr)
	}
	return credentials, nil
}

// samePIDNamespace is false where the answer cannot be had: such a caller can
// still show the token.
func samePIDNamespace(pid int) bool {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	return err == nil && own == theirs
}
