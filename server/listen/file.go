package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A client on the same machine can hand over an open file with its request, so
// that what it holds need not go through the socket. The file comes with the
// first byte of the connection, which then serves that one request; nothing else
// of the protocol is different. The daemon can do with the file what the client
// opened it for, and no more.

// fileConn is a connection of the unix socket that may bring a file.
type fileConn struct {
	*net.UnixConn
	first sync.Once
	mu    sync.Mutex
	file  *os.File // nil where none came, or somebody took it
}

// NetConn is the socket itself.
func (c *fileConn) NetConn() net.Conn { return c.UnixConn }

// Read implements net.Conn. Only the first one looks for a file: the kernel
// drops those that come later.
func (c *fileConn) Read(p []byte) (n int, err error) {
	done := false
	c.first.Do(func() {
		n, err = c.receive(p)
		done = true
	})
	if done {
		return n, err
	}
	return c.UnixConn.Read(p)
}

// receive reads what came first, and the file with it.
func (c *fileConn) receive(p []byte) (int, error) {
	control := make([]byte, unix.CmsgSpace(4)) // one descriptor; what is beyond it is dropped
	n, controls, _, _, err := c.UnixConn.ReadMsgUnix(p, control)
	if err != nil || controls == 0 {
		return n, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:controls])
	if err != nil {
		return n, fmt.Errorf("read the file that came with a request: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // not a file
		}
		c.mu.Lock()
		for _, fd := range fds {
			if c.file != nil {
				_ = unix.Close(fd)
				continue
			}
			c.file = os.NewFile(uintptr(fd), "the client's file")
		}
		c.mu.Unlock()
	}
	return n, nil
}

// take hands the file on.
func (c *fileConn) take() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.file
	c.file = nil
	return f
}

// Close implements net.Conn.
func (c *fileConn) Close() error {
	err := c.UnixConn.Close()
	if f := c.take(); f != nil {
		err = errors.Join(err, f.Close())
	}
	return err
}

type connKey struct{}

// ConnContext is for http.Server's field of that name, for TakeFile.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if conn, is := c.(*fileConn); is {
		return context.WithValue(ctx, connKey{}, conn)
	}
	return ctx
}

// TakeFile is the file that came with a request of this context, or nil. The
// caller closes it.
func TakeFile(ctx context.Context) *os.File {
	if conn, is := ctx.Value(connKey{}).(*fileConn); is {
		return conn.take()
	}
	return nil
}

// WithFile makes a connection of DialUnix send a file with its first byte. The
// file stays the caller's.
func WithFile(conn net.Conn, f *os.File) net.Conn {
	return &sendingConn{Conn: conn, f: f}
}

// sendingConn is a connection that sends a file.
type sendingConn struct {
	net.Conn
	mu sync.Mutex
	f  *os.File // nil when it is sent
}

// Write implements net.Conn.
func (c *sendingConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	f := c.f
	c.f = nil
	c.mu.Unlock()
	if f == nil || len(p) == 0 {
		return c.Conn.Write(p)
	}
	socket, is := c.Conn.(*net.UnixConn)
	if !is {
		return 0, errors.New("send a file: the connection is not a unix socket")
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("send a file: %w", err)
	}
	var sent int
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		sent, _, sendErr = socket.WriteMsgUnix(p[:1], unix.UnixRights(int(fd)), nil)
	})
	if err = errors.Join(err, sendErr); err != nil {
		return sent, fmt.Errorf("send a file: %w", err)
	}
	n, err := c.Conn.Write(p[sent:])
	return sent + n, err
}
