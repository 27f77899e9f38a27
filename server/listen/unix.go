package listen

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// SocketFile is the daemon's unix socket below the state folder.
const SocketFile = "skiff.sock"

// maxSocketPath is what the kernel's sockaddr_un holds, less the final NUL.
const maxSocketPath = 107

// Unix listens on the socket of a state folder, however long its path is. Only
// one process may call it for a folder at a time: the one that holds the store.
// The socket is for the daemon's own user; auth looks at who connects.
func Unix(ctx context.Context, stateDir string) (net.Listener, error) {
	path := filepath.Join(stateDir, SocketFile)
	// A socket left by a daemon that was killed would make the bind fail.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	var listener net.Listener
	err := withShortPath(stateDir, func(short string) (err error) {
		var config net.ListenConfig
		listener, err = config.Listen(ctx, "unix", short)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The listener's own idea of its path may be a short one that is gone by
	// the time it is closed.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("restrict %s: %w", path, err)
	}
	return &unixListener{Listener: listener, path: path}, nil
}

type unixListener struct {
	net.Listener
	path string
}

// Accept implements net.Listener. The connections may bring files; see TakeFile.
func (l *unixListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &fileConn{UnixConn: conn.(*net.UnixConn)}, nil
}

// Close stops listening and removes the socket.
func (l *unixListener) Close() error {
	// First the name, so that nobody dials a socket that no longer answers.
	_ = os.Remove(l.path)
	return l.Listener.Close()
}

// DialUnix connects to the daemon of a state folder.
func DialUnix(ctx context.Context, stateDir string) (net.Conn, error) {
	var conn net.Conn
	err := withShortPath(stateDir, func(short string) (err error) {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, "unix", short)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(stateDir, SocketFile), err)
	}
	return conn, nil
}

// withShortPath calls do with a path of the socket that fits the kernel's
// address: the path itself, or one through an open descriptor of the folder.
func withShortPath(stateDir string, do func(path string) error) error {
	path := filepath.Join(stateDir, SocketFile)
	if len(path) <= maxSocketPath {
		return do(path)
	}
	dir, err := os.Open(stateDir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), SocketFile))
}
