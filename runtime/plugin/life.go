package plugin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
)

// Why a helper's life ended, for those who tell it apart.
var (
	// errHung: it did not answer in time.
	errHung = errors.New("the inventory helper does not answer")
	// errRefused: it was not started, and will not be until skiff is.
	errRefused = errors.New("the inventory helper is refused")
)

const (
	// maxMessage bounds an answer; 64 devices with their links are some 30 KB.
	maxMessage = 1 << 20
	// exeFD is where descriptors of the executable begin: far above those that a
	// child's standard streams and extra files are given.
	exeFD = 700
	// maxSocketDir leaves room below the 108 bytes of a unix socket's path for
	// the name that the helper adds.
	maxSocketDir = 80
)

// life is one process of the helper.
type life struct {
	client inventory.InventoryClient
	host   *plugin.Client
	cmd    *exec.Cmd
	// ctx ends, by fail, when the life is judged over.
	ctx  context.Context
	fail context.CancelCauseFunc
	// dir holds its socket; exe is the verified file.
	dir string
	exe *os.File
	// gone is closed when the process is reaped and all is cleared away.
	gone chan struct{}
}

// start runs the helper and shakes hands. The life is returned with an error
// too, where there is something to end.
func (s *Supervisor) start(ctx context.Context) (*life, error) {
	if s.sum == nil {
		return nil, fmt.Errorf("%w: there is none", errRefused)
	}
	l := &life{gone: make(chan struct{})}
	l.ctx, l.fail = context.WithCancelCause(ctx)
	if err := s.prepare(l); err != nil {
		return l, err
	}
	s.setStatus(func(st *Status) { st.Starts, st.State = st.Starts+1, HelperStarting })
	if _, err := l.host.Start(); err != nil {
		return l, startError(err)
	}
	// Loading is done; to connect may still take for ever, and cannot be
	// interrupted but by the end of the process.
	connected := make(chan error, 1)
	go func() {
		protocol, err := l.host.Client()
		if err != nil {
			connected <- err
			return
		}
		raw, err := protocol.Dispense(inventory.Name)
		if err == nil {
			l.client = raw.(inventory.InventoryClient)
		}
		connected <- err
	}()
	timer := time.NewTimer(s.cfg.CallTimeout)
	defer timer.Stop()
	select {
	case err := <-connected:
		if err != nil {
			return l, fmt.Errorf("connect to the inventory helper: %w", err)
		}
		return l, nil
	case <-timer.C:
		return l, fmt.Errorf("connect to the inventory helper: %w", errHung)
	case <-ctx.Done():
		return l, context.Cause(ctx)
	}
}

// prepare opens the program, so that the file that is checked is the very file
// that is run, and builds its command: no environment of the daemon's, its own
// process group, and a pipe that ends when the daemon does.
func (s *Supervisor) prepare(l *life) error {
	f, err := os.Open(s.cfg.Path)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("inspect the inventory helper: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%w: %s is not a regular file, or anyone may write to it; put the released one there, mode 0755", errRefused, s.cfg.Path)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, exeFD)
	if err != nil {
		return fmt.Errorf("open the inventory helper: %w", err)
	}
	l.exe = os.NewFile(uintptr(fd), s.cfg.Path)
	if l.dir, err = socketDir(); err != nil {
		return err
	}
	inherited, lifeline, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make the inventory helper's lifeline: %w", err)
	}
	l.cmd = exec.Command(fmt.Sprintf("/proc/self/fd/%d", fd))
	l.cmd.Args = []string{s.cfg.Path}
	l.cmd.Env = helperEnv(l.dir)
	l.cmd.ExtraFiles = []*os.File{inherited} // descriptor inventory.LifelineFD
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	l.host = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  inventory.Handshake(),
		Plugins:          inventory.Set(nil),
		Cmd:              l.cmd,
		SecureConfig:     &plugin.SecureConfig{Checksum: s.sum, Hash: sha256.New()},
		AutoMTLS:         true,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		SkipHostEnv:      true,
		StartTimeout:     s.cfg.StartTimeout,
		Logger:           helperLog(s.cfg.Logger),
		GRPCDialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage))},
	})
	// A helper that still starts when all ends is asked to go by its lifeline.
	context.AfterFunc(l.ctx, func() { _, _ = inherited.Close(), lifeline.Close() })
	return nil
}

// helperEnv is all that the helper knows of the daemon's environment: where
// libraries lie on this machine.
func helperEnv(dir string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", plugin.EnvUnixSocketDir + "=" + dir}
	if path, ok := os.LookupEnv("LD_LIBRARY_PATH"); ok {
		env = append(env, "LD_LIBRARY_PATH="+path)
	}
	return env
}

// socketDir is a private folder, removed with the life, so that a helper that
// was killed leaves nothing behind.
func socketDir() (string, error) {
	parent := os.TempDir()
	if len(parent) > maxSocketDir-len("/"+inventory.SocketDirPrefix+"0123456789") {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, inventory.SocketDirPrefix)
	if err != nil {
		return "", fmt.Errorf("make the inventory helper's socket folder: %w", err)
	}
	return dir, nil
}

// startError words go-plugin's failures to start.
func startError(err error) error {
	switch {
	case errors.Is(err, plugin.ErrChecksumsDoNotMatch):
		return fmt.Errorf("%w: its file was replaced since skiff started; restart skiff", errRefused)
	case strings.Contains(err.Error(), "timeout while waiting for plugin to start"):
		return fmt.Errorf("start the inventory helper: %w", errHung)
	case strings.Contains(strings.ToLower(err.Error()), "incompatible api version"):
		return fmt.Errorf("%w: it speaks another version of the contract than skiff; install both from one release", errRefused)
	}
	// go-plugin's text may run over several lines of advice for developers.
	first, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("start the inventory helper: %s", first)
}

// call makes one call with a deadline of its own. Where that passes, the life is
// over: a call that hangs in the driver cannot be taken back.
func (l *life) call(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	// The deadline is kept here alone: the helper, told of it, would end the call
	// at the same moment, and its word for that says nothing of whose patience it was.
	limited, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	timer := time.AfterFunc(limit, func() { cancel(errHung) })
	defer timer.Stop()
	for _, other := range []context.Context{ctx, l.ctx} {
		stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
		defer stop()
	}
	err := fn(limited)
	switch {
	case err == nil:
		return nil
	case limited.Err() != nil:
		if cause := context.Cause(limited); !errors.Is(cause, errHung) {
			return cause
		}
		l.fail(errHung)
		return errHung
	case status.Code(err) == codes.ResourceExhausted:
		return fmt.Errorf("the inventory helper's answer is larger than %d bytes", maxMessage)
	}
	return errors.New(status.Convert(err).Message())
}

// end kills the process and clears up. It waits up to limit and says whether
// the process is gone; where not, the kernel holds it, and gone tells later.
func (l *life) end(limit time.Duration) bool {
	l.fail(nil)
	if l.cmd != nil && l.cmd.Process != nil && l.cmd.Process.Kill() == nil {
		// It had not been reaped, so the group of that number is its own.
		_ = syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL)
	}
	go func() {
		defer close(l.gone)
		if l.host != nil {
			l.host.Kill() // returns when the process is reaped and its pipes are drained
		}
		if l.exe != nil {
			_ = l.exe.Close()
		}
		if l.dir != "" {
			_ = os.RemoveAll(l.dir)
		}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-l.gone:
		return true
	case <-timer.C:
		return false
	}
}

// helperLog passes go-plugin's log, and through it the helper's, on as debug
// lines: what a person should know of is said by the supervisor.
func helperLog(log *slog.Logger) hclog.Logger {
	if !log.Enabled(context.Background(), slog.LevelDebug) {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Name: "helper", Level: hclog.Debug, Output: lineLog{log}, DisableTime: true})
}

type lineLog struct{ log *slog.Logger }

var _ io.Writer = lineLog{}

func (l lineLog) Write(p []byte) (int, error) {
	l.log.Debug("inventory helper", "line", strings.TrimSpace(string(p)))
	return len(p), nil
}
