//go:build docker

package docker_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// privateEngine is a dockerd of a test's own, so that it may be stopped.
type privateEngine struct {
	*testing.T
	dir, host string
	args      []string
	cmd       *exec.Cmd
	ended     chan struct{}
	log       *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// tail is the end of what was written.
func (l *lockedBuffer) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.b.Bytes()
	return string(b[max(0, len(b)-3000):])
}

// newPrivateEngine starts a dockerd with its own data, state, socket and
// containerd namespace, and gives it the busybox image.
func newPrivateEngine(t *testing.T, args ...string) *privateEngine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start an engine")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("dockerd is not installed")
	}
	dir, err := os.MkdirTemp("", "skd") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	e := &privateEngine{T: t, dir: dir, host: "unix://" + dir + "/s", args: args, log: &lockedBuffer{}}
	t.Cleanup(e.remove)
	e.start()
	save := exec.CommandContext(t.Context(), "docker", "save", busybox)
	load := exec.CommandContext(t.Context(), "docker", "-H", e.host, "load")
	if load.Stdin, err = save.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := save.Start(); err != nil {
		t.Fatal(err)
	}
	out, err := load.CombinedOutput()
	if err := errors.Join(err, save.Wait()); err != nil {
		t.Fatalf("load image: %v: %s", err, out)
	}
	return e
}

// start starts dockerd and waits until it answers.
func (e *privateEngine) start() {
	e.Helper()
	e.cmd = exec.Command("dockerd", append([]string{
		"--host", e.host, "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"),
		"--pidfile", filepath.Join(e.dir, "pid"), "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false",
		"--containerd-namespace", filepath.Base(e.dir), "--containerd-plugins-namespace", filepath.Base(e.dir) + "-plugins",
	}, e.args...)...)
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	// A network namespace of its own: a dockerd without a default bridge deletes
	// the machine's docker0, which belongs to another engine.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNET}
	if err := e.cmd.Start(); err != nil {
		e.Fatal(err)
	}
	ended := make(chan struct{})
	e.ended = ended
	cmd := e.cmd
	go func() {
		_ = cmd.Wait() // How it ended is in its log.
		close(ended)
	}()
	api, err := dockerapi.New(e.host)
	if err != nil {
		e.Fatal(err)
	}
	defer func() { _ = api.Close() }()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := api.Connect(context.Background()); err == nil {
			return
		}
		select {
		case <-e.ended:
			e.Fatalf("dockerd ended:\n%s", e.log.tail())
		default:
		}
		if time.Now().After(deadline) {
			e.Fatalf("dockerd does not answer:\n%s", e.log.tail())
		}
	}
}

// stop ends dockerd with a signal and waits for it.
func (e *privateEngine) stop(sig os.Signal) {
	e.Helper()
	if err := e.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		e.Fatal(err)
	}
	select {
	case <-e.ended:
	case <-time.After(90 * time.Second):
		e.Fatalf("dockerd does not end:\n%s", e.log.tail())
	}
	e.endContainerd()
}

// endContainerd ends the containerd that a killed dockerd left behind, as a
// crash of the machine's services would, and waits until its process is gone
// for good: the next dockerd takes even a dead one that is not reaped for alive.
func (e *privateEngine) endContainerd() {
	e.Helper()
	data, err := os.ReadFile(filepath.Join(e.dir, "exec", "containerd", "containerd.pid"))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(data)))
	if err != nil {
		e.Fatal(err)
	}
	e.kill(pid)
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); err != nil {
			return
		}
		if time.Now().After(deadline) {
			e.Fatal("containerd does not end")
		}
	}
}

// kill ends a process if it is one of this engine's.
func (e *privateEngine) kill(pid int) {
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err == nil && bytes.Contains(cmdline, []byte(filepath.Base(e.dir))) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // It may have ended this instant.
	}
}

// endShims ends the shims that a crash left behind, with their containers.
func (e *privateEngine) endShims() {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		data, err2 := os.ReadFile(f)
		if err != nil || err2 != nil || !bytes.Contains(data, []byte("containerd-shim")) || !bytes.Contains(data, []byte(filepath.Base(e.dir))) {
			continue
		}
		children, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "task", strconv.Itoa(pid), "children"))
		for child := range bytes.FieldsSeq(children) {
			if n, err := strconv.Atoi(string(child)); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL) // A container's first process; it may have ended this instant.
			}
		}
		e.kill(pid)
	}
}

// remove ends what may still run and removes the engine's folder.
func (e *privateEngine) remove() {
	select {
	case <-e.ended:
	default:
		e.stop(syscall.SIGTERM)
	}
	e.endShims()
	// What dockerd left mounted would keep the folder.
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		e.Error(err)
	}
	for _, line := range slices.Backward(bytes.Split(mounts, []byte("\n"))) {
		if f := bytes.Fields(line); len(f) > 1 && bytes.HasPrefix(f[1], []byte(e.dir+"/")) {
			_ = syscall.Unmount(string(f[1]), syscall.MNT_DETACH) // It may have gone with another one.
		}
	}
	if err := os.RemoveAll(e.dir); err != nil {
		e.Logf("remove %s: %v", e.dir, err)
	}
}

// watched collects what one Watch reports.
type watched struct {
	mu   sync.Mutex
	last map[string]runtime.Container
	news chan struct{}
}

// watch keeps a Watch running until the test ends.
func (r *rig) watch() *watched {
	r.Helper()
	w := &watched{last: map[string]runtime.Container{}, news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	b := r.b
	go func() {
		defer close(done)
		_ = b.Watch(ctx, func(c runtime.Container) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.last[c.ID] = c
			select {
			case w.news <- struct{}{}:
			default:
			}
		})
	}()
	r.Cleanup(func() { cancel(); <-done })
	return w
}

// until waits for a container's state.
func (w *watched) until(t *testing.T, id string, fine func(runtime.Container) bool) runtime.Container {
	t.Helper()
	deadline := time.After(90 * time.Second)
	for {
		w.mu.Lock()
		c, ok := w.last[id]
		w.mu.Unlock()
		if ok && fine(c) {
			return c
		}
		select {
		case <-w.news:
		case <-deadline:
			t.Fatalf("it stays %+v", c)
		}
	}
}

func in(states ...runtime.State) func(runtime.Container) bool {
	return func(c runtime.Container) bool { return slices.Contains(states, c.State) }
}

func (r *rig) unavailable(what string, err error) {
	r.Helper()
	if !errors.Is(err, runtime.ErrUnavailable) {
		r.Errorf("%s while the engine is down: %v", what, err)
	}
}

// infrastructure is how a container ends that was not the user's doing.
func infrastructure(c runtime.Container) bool {
	return c.State == runtime.StateLost || c.State == runtime.StateExited && c.Exit.ExitCode != 0 && c.Exit.Reason == launch.ReasonShutdown
}

func TestEngineRestart(t *testing.T) {
	e := newPrivateEngine(t)
	r := newRig(t, e.host, nil)
	w := r.watch()
	running := r.launch(r.spec(), `trap 'exit 0' TERM; while :; do sleep 0.05; done`)
	gated := r.start(r.spec())
	w.until(t, running, in(runtime.StateRunning))
	w.until(t, gated, in(runtime.StateWaiting))
	e.stop(syscall.SIGTERM)
	for _, id := range []string{running, gated} {
		if c := w.until(t, id, in(runtime.StateExited, runtime.StateLost)); !infrastructure(c) {
			t.Errorf("the engine went down and it is %+v with %+v", c, c.Exit)
		}
	}
	spec := runtime.ContainerSpec{Name: "skiff-test-down", Image: runtime.Image{ID: "sha256:0"}, PodDir: r.podDir(t), Container: "main", Network: "none"}
	_, err := r.b.Create(t.Context(), spec)
	r.unavailable("create", err)
	_, err = r.b.List(t.Context())
	r.unavailable("list", err)
	r.unavailable("start", r.b.Start(t.Context(), running))
	_, err = r.b.Capabilities(t.Context())
	r.unavailable("capabilities", err)
	_, err = r.b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: busybox}, nil)
	r.unavailable("prepare image", err)
	if err := r.b.Stop(t.Context(), running, 0); err != nil {
		t.Errorf("stop of what has ended: %v", err)
	}

	e.start()
	after := r.launch(r.spec(), "exit 7")
	if c := w.until(t, after, in(runtime.StateExited, runtime.StateLost)); c.Exit == nil || c.Exit.ExitCode != 7 {
		t.Errorf("after the restart: %+v", c)
	}
	if err := r.b.Start(t.Context(), running); !errors.Is(err, runtime.ErrExited) {
		t.Errorf("start of one that ended with the engine: %v", err)
	}
}

func TestEngineCrash(t *testing.T) {
	e := newPrivateEngine(t)
	r := newRig(t, e.host, nil)
	w := r.watch()
	id := r.launch(r.spec(), "sleep 600")
	w.until(t, id, in(runtime.StateRunning))
	e.stop(syscall.SIGKILL)
	e.start()
	if c := w.until(t, id, in(runtime.StateExited, runtime.StateLost)); !infrastructure(c) {
		t.Errorf("the engine crashed and it is %+v with %+v", c, c.Exit)
	}
}

func TestEngineLiveRestore(t *testing.T) {
	e := newPrivateEngine(t, "--live-restore")
	r := newRig(t, e.host, nil)
	w := r.watch()
	stays := r.launch(r.spec(), "sleep 600")
	spec := r.spec()
	door := filepath.Join(spec.PodDir, "door")
	if err := os.Mkdir(door, 0o777); err != nil {
		t.Fatal(err)
	}
	spec.Mounts = []runtime.Mount{{HostPath: door, Path: "/door"}}
	ends := r.launch(spec, "while [ ! -e /door/open ]; do sleep 0.05; done; exit 5")
	w.until(t, stays, in(runtime.StateRunning))
	w.until(t, ends, in(runtime.StateRunning))
	e.stop(syscall.SIGTERM)
	// A command that ends while the engine is away is heard of at once: the
	// launcher speaks for itself.
	if err := os.WriteFile(filepath.Join(door, "open"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := w.until(t, ends, in(runtime.StateExited, runtime.StateLost)); c.Exit == nil || c.Exit.ExitCode != 5 {
		t.Errorf("ended while the engine was away: %+v", c)
	}
	e.start()
	list, err := r.b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.ID == stays && c.State != runtime.StateRunning {
			t.Errorf("after the restart it is %+v", c)
		}
	}
	if err := r.b.Stop(t.Context(), stays, time.Second); err != nil {
		t.Fatal(err)
	}
	if c := w.until(t, stays, in(runtime.StateExited, runtime.StateLost)); c.Exit == nil || c.Exit.Reason != launch.ReasonStopped {
		t.Errorf("stopped after the restart: %+v", c)
	}
}

// TestEngineHangs: a create whose answer never came is found again by its name.
func TestEngineHangs(t *testing.T) {
	e := newPrivateEngine(t)
	r := newRig(t, e.host, nil)
	spec := r.spec()
	if _, err := r.b.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := r.b.Create(ctx, spec); err == nil {
		t.Fatal("an engine that hangs has made a container")
	}
	if err := e.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	first, err := r.b.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.b.Create(t.Context(), spec)
	if err != nil || again != first {
		t.Errorf("create gives %s and %s, %v", first, again, err)
	}
	if list, err := r.b.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("there are %d containers, %v", len(list), err)
	}
}
