package main

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// The socket is made of system calls: package net would add a third to the
// program and a millisecond to its start.

// maxConns bounds what a command that dials its own launcher can make it hold.
const maxConns = 64

// sendTimeout is how long a peer that does not read may hold the launcher up.
// It finds everything on disk.
const sendTimeout = 2 * time.Second

// event is what one connection has to say to the launcher's loop.
type event struct {
	conn  *conn
	isNew bool
	gone  bool
	frame launch.Frame
	fds   []int // that came with it; the loop owns them
}

// drop deals with an event of a life that is over.
func (e event) drop() {
	for _, fd := range e.fds {
		_ = syscall.Close(fd)
	}
	if e.gone {
		_ = e.conn.f.Close()
	} else {
		e.conn.hangUp()
	}
}

// conn is one daemon's connection.
type conn struct {
	f    *os.File
	raw  syscall.RawConn
	life int   // the container that it is about; the loop's alone, once it is known there
	fds  []int // received and not yet handed on; serve's alone
	exec int   // pid of the exec that belongs to it; the loop's alone
}

// listen opens the socket under its name only when it can be dialled.
func listen() (*os.File, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	const tmp = launch.SocketFile + ".tmp"
	_ = os.Remove(tmp) // of a launcher that died right here
	err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: tmp})
	if err == nil {
		err = os.Chmod(tmp, 0o666)
	}
	if err == nil {
		err = syscall.Listen(fd, maxConns)
	}
	if err == nil {
		err = os.Rename(tmp, launch.SocketFile)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("listen: %w", err)
	}
	return os.NewFile(uintptr(fd), launch.SocketFile), nil
}

// accept reports each connection and then its frames, until the listener is closed.
func (b *base) accept(listener *os.File, life int) {
	raw, err := listener.SyscallConn()
	if err != nil {
		return
	}
	slots := make(chan struct{}, maxConns)
	for {
		slots <- struct{}{}
		var fd int
		var acceptErr error
		err := raw.Read(func(s uintptr) bool {
			fd, _, acceptErr = syscall.Accept4(int(s), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
			return acceptErr != syscall.EAGAIN
		})
		if err != nil {
			return
		}
		if acceptErr != nil {
			<-slots
			// Out of descriptors, most likely: what is there must close first.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go func() {
			b.serve(fd, life)
			<-slots
		}()
	}
}

// serve reads one connection to its end.
func (b *base) serve(fd, life int) {
	c, err := newConn(fd)
	if err != nil {
		return
	}
	c.life = life
	b.events <- event{conn: c, isNew: true}
	b.read(c)
}

// newConn takes over a socket that does not block.
func newConn(fd int) (*conn, error) {
	f := os.NewFile(uintptr(fd), "conn")
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &conn{f: f, raw: raw}, nil
}

// read reports a connection's frames, and its end.
func (b *base) read(c *conn) {
	frames := launch.NewFrameReader(c)
	for {
		frame, err := frames.Next()
		if err != nil {
			c.dropRights()
			b.events <- event{conn: c, gone: true}
			return
		}
		e := event{conn: c, frame: frame}
		if frame.Exec != nil || frame.Assign != nil {
			e.fds, c.fds = c.fds, nil
		}
		b.events <- e
	}
}

// Read receives bytes and keeps the descriptors that came with them.
func (c *conn) Read(p []byte) (int, error) {
	var n, oobn int
	var recvErr error
	oob := make([]byte, syscall.CmsgSpace(3*4))
	err := c.raw.Read(func(s uintptr) bool {
		n, oobn, _, _, recvErr = syscall.Recvmsg(int(s), p, oob, syscall.MSG_CMSG_CLOEXEC)
		return recvErr != syscall.EAGAIN
	})
	if err != nil {
		return 0, err
	}
	if recvErr != nil {
		return 0, recvErr
	}
	if oobn > 0 {
		c.takeRights(oob[:oobn])
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *conn) takeRights(oob []byte) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range msgs {
		fds, err := syscall.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		c.dropRights()
		c.fds = fds
	}
}

// dropRights closes descriptors that nobody took.
func (c *conn) dropRights() {
	for _, fd := range c.fds {
		_ = syscall.Close(fd)
	}
	c.fds = nil
}

// send writes one frame, and reports whether it went. A peer that does not read
// loses its connection.
func (c *conn) send(f launch.Frame) bool {
	b, err := launch.EncodeFrame(f)
	if err != nil {
		return false
	}
	if err := c.f.SetWriteDeadline(time.Now().Add(sendTimeout)); err == nil {
		_, err = c.f.Write(b)
		if err == nil {
			return true
		}
	}
	c.hangUp()
	return false
}

// hangUp ends both directions; serve then closes the connection.
func (c *conn) hangUp() {
	_ = c.raw.Control(func(s uintptr) { _ = syscall.Shutdown(int(s), syscall.SHUT_RDWR) })
}
