package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// helloTimeout is how long a peer that accepts may keep silent: a launcher
// greets at once, and what does not is none.
const helloTimeout = 10 * time.Second

// Conn is a connection to a launcher. Next and Send may be used at the same
// time by one goroutine each.
type Conn struct {
	// Hello is the launcher's greeting.
	Hello launch.Hello

	c      *net.UnixConn
	frames *launch.FrameReader
	stop   func() bool
	once   sync.Once
}

// Dial connects to the launcher of a control folder and reads its greeting. The
// connection lives at most as long as ctx. Where nothing listens the error
// wraps ErrNoLauncher; where the socket is not one, ErrHostile.
func Dial(ctx context.Context, dir string) (*Conn, error) {
	socket, err := openSocket(dir)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	var dialer net.Dialer
	// The inode that was checked, however long its path is.
	raw, err := dialer.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(socket.Fd())))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("dial launcher: %w", ErrNoLauncher)
	}
	if err != nil {
		return nil, fmt.Errorf("dial launcher: %w", err)
	}
	c := &Conn{c: raw.(*net.UnixConn)}
	c.frames = launch.NewFrameReader(c.c)
	c.stop = context.AfterFunc(ctx, func() { _ = c.c.Close() })
	err = c.c.SetReadDeadline(time.Now().Add(helloTimeout))
	var f launch.Frame
	if err == nil {
		f, err = c.frames.Next()
	}
	if err == nil && (f.Hello == nil || f.Hello.Version < 1) {
		err = fmt.Errorf("%w: it does not greet", launch.ErrFrame)
	}
	if err == nil {
		err = c.c.SetReadDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			err = ErrNoLauncher
		}
		return nil, fmt.Errorf("dial launcher: %w", errors.Join(context.Cause(ctx), err))
	}
	c.Hello = *f.Hello
	return c, nil
}

// Adopt makes a connection of one end of a socket pair whose other end a
// launcher was born with (launch.KeepFD). Nobody greets on it. It takes over f.
func Adopt(f *os.File) (*Conn, error) {
	defer f.Close()
	raw, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("adopt launcher: %w", err)
	}
	c, ok := raw.(*net.UnixConn)
	if !ok {
		_ = raw.Close()
		return nil, errors.New("adopt launcher: not a unix socket")
	}
	return &Conn{c: c, frames: launch.NewFrameReader(c)}, nil
}

// openSocket opens the socket's inode and checks that it is one of its own.
func openSocket(dir string) (*os.File, error) {
	d, err := openFolder(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("dial launcher: %w", ErrNoLauncher)
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	path := filepath.Join(dir, launch.SocketFile)
	fd, err := openat(int(d.Fd()), launch.SocketFile, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("dial launcher: %w", ErrNoLauncher)
	}
	if err != nil {
		return nil, hostile(path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Nlink != 1) {
		err = fmt.Errorf("%w: not a socket of one name", ErrHostile)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Next returns the launcher's next message. It returns io.EOF when the launcher
// has hung up. An exit record in it has been checked.
func (c *Conn) Next() (launch.Frame, error) {
	f, err := c.frames.Next()
	if err != nil {
		if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		return launch.Frame{}, err
	}
	if f.Held != nil {
		if f.Held = checkHeld(f.Held); f.Held == nil {
			return launch.Frame{}, fmt.Errorf("%w: it holds what no launcher holds", launch.ErrFrame)
		}
	}
	if f.Exited != nil {
		if err := checkRecord(f.Exited); err != nil {
			return launch.Frame{}, err
		}
	}
	return f, nil
}

// Send writes one message.
func (c *Conn) Send(f launch.Frame) error {
	b, err := launch.EncodeFrame(f)
	if err != nil {
		return err
	}
	if _, err := c.c.Write(b); err != nil {
		return fmt.Errorf("write to launcher: %w", err)
	}
	return nil
}

// SendExec asks for a second command with the given standard streams; the
// answer is an Execed frame.
func (c *Conn) SendExec(e launch.Exec, stdin, stdout, stderr *os.File) error {
	return c.SendFiles(launch.Frame{Exec: &e}, stdin, stdout, stderr)
}

// SendFiles writes one message that carries open files, at most three.
func (c *Conn) SendFiles(f launch.Frame, files ...*os.File) error {
	b, err := launch.EncodeFrame(f)
	if err != nil {
		return err
	}
	fds := make([]int, len(files))
	for i, file := range files {
		fds[i] = int(file.Fd())
	}
	rights := unix.UnixRights(fds...)
	n, _, err := c.c.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) {
		_, err = c.c.Write(b[n:])
	}
	if err != nil {
		return fmt.Errorf("write to launcher: %w", err)
	}
	return nil
}

// PID is the launcher's process as this machine counts, 0 where the kernel does
// not say. It is certain as long as the connection stands.
func (c *Conn) PID() int {
	pid := 0
	raw, err := c.c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// free has the connection outlive the context it was dialled with. False means
// that it is too late.
func (c *Conn) free() bool {
	in := c.stop()
	c.stop = func() bool { return true }
	return in
}

// bind has the connection live as long as another context.
func (c *Conn) bind(ctx context.Context) {
	c.free()
	c.stop = context.AfterFunc(ctx, func() { _ = c.c.Close() })
}

// Close hangs up. It may be called more than once.
func (c *Conn) Close() {
	c.once.Do(func() {
		if c.stop != nil {
			c.stop()
		}
		_ = c.c.Close()
	})
}
